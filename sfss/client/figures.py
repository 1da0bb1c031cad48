"""What a bench came to, phase by phase: rates, latencies, errors, how busy the client was; as rows, and as JSON."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Awaitable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sfss.client import words
from sfss.client.failures import Broken, Different, Failure, Refused, common_status

MAX_REASONS = 3  # of each kind of errors that are told; the others are counted
TIMER = 0.002  # seconds that a timer may be late: the client's own fault, and no part of an answer's latency
BUSY = 0.85  # of the time: a client that works, or waits for a core, for longer may be what is measured
_SCHEDULED = Path("/proc/self/schedstat")  # of Linux: nanoseconds on a core, and ready but without one
_SHARES = (0.5, 0.9, 0.99, 0.999, 1)
_NAMES = ("p50", "p90", "p99", "p99.9", "max")

HEADING = (
    f"{'':<15}{'requests/s':>11}{'MB/s':>9}{'p50 ms':>9}{'p90 ms':>9}{'p99 ms':>10}{'p99.9 ms':>10}"
    f"{'max ms':>10}{'errors':>8}"
)


class Errors:
    """Errors of one kind."""

    def __init__(self) -> None:
        self.count = 0
        self.reasons: list[str] = []  # the first ones, each once


class Figures:
    """What requests of one kind came to. Only those that succeeded count for rates and latencies."""

    def __init__(self, size: int) -> None:
        self.size = size  # bytes moved by each request; 0: none to speak of
        self.latencies = array("d")  # seconds, one for each success
        self.errors: dict[str, Errors] = {}  # by HTTP status, or what it was else
        self.statuses: set[int] = set()  # exit statuses of these

    async def attempt(self, request: Awaitable[None], place: str, due: float | None = None) -> Failure | None:
        """Time one request, from when it was ``due`` if it had to wait for a connection; a Failure is counted, and
        given back. ``place``: what the paths begin with, which is left out of reasons.
        """
        begun = time.perf_counter()
        if due is not None and begun - due > TIMER:
            begun = due
        try:
            await request
        except Failure as failure:
            self._count(failure, place)
            return failure
        self.latencies.append(time.perf_counter() - begun)
        return None

    def add(self, other: Figures) -> None:
        """Take over what another process, or another kind of request, came to."""
        self.latencies += other.latencies
        self.statuses |= other.statuses
        for kind, theirs in other.errors.items():
            errors = self.errors.setdefault(kind, Errors())
            errors.count += theirs.count
            errors.reasons = list(dict.fromkeys(errors.reasons + theirs.reasons))[:MAX_REASONS]

    @property
    def failed(self) -> int:
        """How many requests did."""
        return sum(errors.count for errors in self.errors.values())

    def row(self, name: str, elapsed: float) -> str:
        """The line under HEADING. MB are 10**6 bytes of content, latencies milliseconds."""
        rate = len(self.latencies) / elapsed
        megabytes = f"{rate * self.size / 1e6:,.2f}" if self.size else "-"
        p50, p90, *others = (f"{time * 1e3:,.2f}" if time is not None else "-" for time in self.times())
        late = "".join(f"{time:>10}" for time in others)
        return f"{name:<15}{rate:>11,.1f}{megabytes:>9}{p50:>9}{p90:>9}{late}{self.failed:>8,}"

    def times(self) -> list[float | None]:
        """The percentiles of HEADING, in seconds."""
        ordered = sorted(self.latencies)
        return [percentile(ordered, share) for share in _SHARES]

    def complain(self, name: str) -> None:
        """Say of what kinds the errors were, the most frequent first."""
        for kind, errors in sorted(self.errors.items(), key=lambda item: -item[1].count):
            words.complain(f"{name}: {errors.count:,} x {kind}: {'; '.join(errors.reasons)}")

    def as_json(self, elapsed: float) -> dict[str, Any]:
        """Latencies in milliseconds, None where nothing succeeded."""
        return {
            "requests": len(self.latencies),
            "requests_per_second": len(self.latencies) / elapsed,
            "bytes_per_second": len(self.latencies) * self.size / elapsed,
            "latency_ms": {
                name: None if time is None else time * 1e3 for name, time in zip(_NAMES, self.times(), strict=True)
            },
            "failed": self.failed,
            "errors": {
                kind: {"count": errors.count, "reasons": errors.reasons} for kind, errors in self.errors.items()
            },
        }

    def _count(self, failure: Failure, place: str) -> None:
        errors = self.errors.setdefault(_kind(failure), Errors())
        errors.count += 1
        if len(errors.reasons) < MAX_REASONS:
            reason = " ".join("FILE" if place in word else word for word in str(failure).split())  # for whichever file
            errors.reasons = list(dict.fromkeys([*errors.reasons, reason]))
        self.statuses.add(failure.exit_status)


class ClientTime(NamedTuple):
    """What a process of the client did, in seconds; or in shares of a time."""

    cpu: float  # on a core
    waiting: float  # ready, and no core was free; 0 where the system doesn't tell

    @classmethod
    def now(cls) -> ClientTime:
        """So far."""
        try:
            waiting = int(_SCHEDULED.read_text().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            waiting = 0.0
        return cls(time.process_time(), waiting)

    def share_since(self, before: ClientTime, elapsed: float) -> ClientTime:
        """Of the time that has elapsed."""
        return ClientTime((self.cpu - before.cpu) / elapsed, (self.waiting - before.waiting) / elapsed)

    @property
    def is_busy(self) -> bool:
        """Whether the client itself may be what is measured."""
        return self.cpu + self.waiting > BUSY


class Measured(NamedTuple):
    """What a phase came to. ``parts``: its kinds of requests, by name; most phases have one, without."""

    elapsed: float  # seconds
    client: ClientTime
    unsent: int  # requests that were due, and for which no connection was free until the end
    parts: dict[str, Figures]

    @property
    def total(self) -> Figures:
        """All parts as one; MB/s are those of a request's full size."""
        total = Figures(max(part.size for part in self.parts.values()))
        for part in self.parts.values():
            total.add(part)
        return total

    @property
    def exit_status(self) -> int:
        """DONE if all succeeded."""
        return common_status(self.total.statuses)

    def rows(self, name: str) -> list[str]:
        """Its lines under HEADING: the whole, and its parts if there are several."""
        total = self.total.row(name, self.elapsed)
        if len(self.parts) == 1:
            return [total]
        return [total, *(part.row(f"  {kind}", self.elapsed) for kind, part in self.parts.items())]

    def as_json(self, name: str) -> dict[str, Any]:
        """What is promised of it: docs/clients.rst."""
        said: dict[str, Any] = {"name": name, "seconds": self.elapsed, "unsent": self.unsent}
        said |= {"client_cpu": self.client.cpu, "client_waiting": self.client.waiting}
        said |= self.total.as_json(self.elapsed)
        if len(self.parts) > 1:
            said["parts"] = {kind.lower(): part.as_json(self.elapsed) for kind, part in self.parts.items()}
        return said


def together(shares: Iterable[Measured]) -> Measured:
    """What several processes came to in the same phase."""
    shares = list(shares)
    parts: dict[str, Figures] = {}
    for share in shares:
        for kind, part in share.parts.items():
            parts.setdefault(kind, Figures(part.size)).add(part)
    return Measured(
        max(share.elapsed for share in shares),
        max((share.client for share in shares), key=sum),
        sum(share.unsent for share in shares),
        parts,
    )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The time within which `share` of the requests were done (nearest rank), one that really occurred; else None."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None


def _kind(failure: Failure) -> str:
    if isinstance(failure, Refused):
        return str(failure.status)
    if isinstance(failure, Broken):
        return "no answer"
    return "wrong bytes" if isinstance(failure, Different) else "failed"
