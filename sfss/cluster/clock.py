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

TOLERANCE = 3.0  # seconds; nodes tell whole ones, and an answer takes its time
_LOOKS = 1.0  # seconds between two looks at what the nodes' clocks say


class Clock:
    """A clock, by those of ``nodes``."""

    def __init__(self, nodes: Callable[[], Iterable[Backend]]) -> None:
        self._nodes = nodes
        self._looked = float("-inf")
        self._epoch: float | None = None  # what the nodes' clocks showed when our monotonic clock was at 0
        self._ours: float | None = None  # what this machine's clock showed then
        self._set = float("-inf")  # when it was last set, on the monotonic clock
        self._off = False

    def now(self) -> int:
        """Microseconds since the epoch."""
        steady, ours = time.monotonic(), time.time_ns() // 1000
        if steady - self._looked > _LOOKS:
            self._looked = steady
            self._look(ours / 1e6 - steady, steady)
        return int((self._epoch + steady) * 1e6) if self._off and self._epoch is not None else ours

    def _look(self, epoch: float, steady: float) -> None:
        if self._ours is None:
            self._ours = epoch
        if abs(epoch - self._ours) > TOLERANCE:
            self._ours, self._set = epoch, steady
        nodes = (node for node in self._nodes() if (node.since or 0.0) > self._set)
        epochs = [node.epoch for node in nodes if node.epoch is not None]
        self._epoch = statistics.median(epochs) if epochs else None
        self._note(epoch)

    def _note(self, epoch: float) -> None:
        ahead = 0.0 if self._epoch is None else epoch - self._epoch
        off = abs(ahead) > TOLERANCE
        if off and not self._off:
            how = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the nodes'"
            log.warning("this machine's clock is %s: versions go by theirs. Set the clock", how)
        self._off = off
