"""What time it is, for the versions of records: the nodes' time, where this machine's clock is far from it.

Of two versions the higher wins, and fronts make them of their clocks. Where a write can't see every version before it
(1 and 1 of 2 copies, and a node away), one by a front whose clock is behind would be acknowledged and then lose to an
older one. All fronts ask the same nodes; so a front whose clock is off goes by the median of theirs.

What a node's clock shows is asked when it is connected to. If this machine's clock is set afterwards, as by NTP some
time after the start, or jumps because the machine was suspended, that is believed until nodes are asked anew: most
likely it is right now, and theirs was set, too.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterable

from sfss.backends.base import Backend

log = logging.getLogger("sfss.cluster")

TOLERANCE = 0.1  # seconds, beside what the nodes' answers are uncertain by, by which clocks may differ
_JUMP = 3.0  # seconds by which this machine's clock leaves its course only if somebody sets it
_LOOKS = 1.0  # seconds between two looks at what the nodes' clocks say


class Clock:
    """A clock, by those of ``nodes``."""

    def __init__(self, nodes: Callable[[], Iterable[Backend]], *, ahead: int = 0) -> None:
        """``ahead``: microseconds by which this machine's clock is to be taken to be wrong, for tests."""
        self._nodes = nodes
        self._ahead = ahead
        self._looked = float("-inf")
        self._epoch: float | None = None  # what the nodes' clocks showed when our monotonic clock was at 0
        self._ours: float | None = None  # what this machine's clock showed then
        self._set = float("-inf")  # when it was last set, on the monotonic clock
        self._off = False

    def now(self) -> int:
        """Microseconds since the epoch."""
        steady, ours = time.monotonic(), time.time_ns() // 1000 + self._ahead
        if steady - self._looked > _LOOKS:
            self._looked = steady
            self._look(ours / 1e6 - steady, steady)
        return int((self._epoch + steady) * 1e6) if self._off and self._epoch is not None else ours

    def _look(self, epoch: float, steady: float) -> None:
        if self._ours is None:
            self._ours = epoch
        if abs(epoch - self._ours) > _JUMP:
            self._ours, self._set = epoch, steady
        nodes = (node for node in self._nodes() if (node.since or 0.0) > self._set)
        epochs = [node.epoch for node in nodes if node.epoch is not None]
        self._epoch = statistics.median(told.seconds for told in epochs) if epochs else None
        self._note(epoch, TOLERANCE + 2 * max((told.within for told in epochs), default=0.0))

    def _note(self, epoch: float, tolerance: float) -> None:
        ahead = 0.0 if self._epoch is None else epoch - self._epoch
        off = abs(ahead) > tolerance
        if off and not self._off:
            how = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the nodes'"
            log.warning("this machine's clock is %s: versions go by theirs. Set the clock", how)
        self._off = off
