"""What a front's requests to one node came to: how long each took, and how those that failed did. Plain numbers."""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple, Protocol, runtime_checkable

# Seconds, upper bounds of the counts; one more counts what took longer. A node on the same network answers within
# the first few, one that syncs within the middle, and the last is the longest that storage.timeout usually is.
BOUNDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
REASONS = ("timeout", "broken", "refused")


class Taken(NamedTuple):
    """What happened since it was taken the last time."""

    answers: list[int]  # by BOUNDS, and one more
    seconds: float  # of all of them together
    failures: list[int]  # by REASONS


class Traffic:
    """Counts, for one node. One thread counts, and takes what was counted."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._answers = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0
        self._failures = [0] * len(REASONS)

    def answered(self, seconds: float, requests: int = 1) -> None:
        """So many requests had their replies after that time each."""
        self._answers[bisect_left(BOUNDS, seconds)] += requests
        self._seconds += seconds * requests

    def failed(self, reason: str, requests: int = 1) -> None:
        """So many requests failed, by one of REASONS."""
        self._failures[REASONS.index(reason)] += requests

    def take(self) -> Taken:
        """What was counted, which begins at nought again."""
        taken = Taken(self._answers, self._seconds, self._failures)
        self._begin()
        return taken


@runtime_checkable
class Observed(Protocol):
    """A node whose client counts."""

    traffic: Traffic
