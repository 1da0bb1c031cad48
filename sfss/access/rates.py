"""How often somebody may ask: token buckets, in bounded memory. Pure; whoever asks tells the time.

Those of one process; ``shared_rates.py`` has them of several.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

_MOST = 65_536  # who are counted at a time, some 200 bytes each
_USUAL = 10.0  # seconds' worth that may come at once, where nothing is said


class Counting(Protocol):
    """Whoever counts those who ask."""

    @property
    def rate(self) -> float:
        """So many a second; 0: nobody is counted."""

    def take(self, who: str, now: float) -> float:
        """Take a token: 0.0; or, where there is none, the seconds until there is one. ``now``: monotonic seconds."""


class Rates:
    """So many requests a second for each who asks, and so many at once for who hasn't asked for a while.

    Each has a bucket of ``burst`` tokens, filled at ``rate`` tokens a second; a request takes one. What is kept of it
    is the moment at which it is full again. Who was counted longest ago is forgotten when there are too many: his
    bucket is full by then, or else a crowd hides him.
    """

    def __init__(self, rate: float, burst: float = 0.0, *, most: int = _MOST) -> None:
        """``rate`` a second, 0: no limit; ``burst`` in requests, 0: ten seconds' worth."""
        self.rate = rate
        self._interval = interval_of(rate)
        self._patience = patience_of(rate, burst)
        self._most = most
        self._full: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full)

    def take(self, who: str, now: float) -> float:
        """As ``Counting`` has it."""
        if not self._interval:
            return 0.0
        before = max(self._full.get(who, now), now)
        wait = before + self._interval - now - self._patience
        is_refused = wait > 1e-9
        self._full[who] = before if is_refused else before + self._interval
        self._full.move_to_end(who)
        if len(self._full) > self._most:
            self._full.popitem(last=False)
        return wait if is_refused else 0.0


def interval_of(rate: float) -> float:
    """Seconds in which a token comes; 0 where there is no limit."""
    return 1 / rate if rate else 0.0


def patience_of(rate: float, burst: float) -> float:
    """Seconds in which an empty bucket fills; ``burst`` in requests, 0: ten seconds' worth."""
    return max(burst or rate * _USUAL, 1.0) * interval_of(rate)
