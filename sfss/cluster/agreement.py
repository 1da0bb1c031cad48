"""The read of a record whose copies agree, as nearly all do: as many owners are asked as a read needs, and no others.

Where they don't agree, or one fails, has none, or doesn't answer in its usual time, this says nothing: it takes an
``Inquiry`` to find out what is so.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from sfss import record
from sfss.backends.base import Backend
from sfss.cluster.inquiry import SHORTEST_HEDGE
from sfss.cluster.topology import Place
from sfss.errors import Damaged, SfssError
from sfss.record import Header, Kind, Record
from sfss.told import Tell

if TYPE_CHECKING:
    from sfss.cluster.copies import Copies

# Is told which nodes are slow, so that they are asked last.
Otherwise = Callable[[Collection[Backend]], None]


def read(copies: Copies, key: bytes, place: Place, tell: Tell[Record | None], otherwise: Otherwise) -> None:
    """Tell the record that as many owners agree on as a read needs; or call ``otherwise``."""
    if len(place.groups) > 1:
        otherwise(())
        return
    nodes = copies.order(place.owners)[: place.quorum.read]
    _Reading(copies, key, place, nodes, tell, otherwise).begin()


class _Reading:
    """One read."""

    __slots__ = ("_asked_at", "_copies", "_found", "_key", "_order", "_otherwise", "_place", "_tell", "_timer",
                 "_waiting")  # fmt: skip

    def __init__(
        self,
        copies: Copies,
        key: bytes,
        place: Place,
        nodes: list[Backend],
        tell: Tell[Record | None],
        otherwise: Otherwise,
    ) -> None:
        self._copies = copies
        self._key = key
        self._place = place
        self._waiting = nodes  # for their answers; empty when all is over
        self._tell = tell
        self._otherwise = otherwise
        self._found: Record | None = None
        self._order: tuple[int, int] | None = None  # the version that those agree on who have answered
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Ask all of them."""
        loop = asyncio.get_running_loop()
        first, *others = self._waiting
        late = max(self._copies.latency(node).late for node in self._waiting)
        self._asked_at = loop.time()
        self._timer = loop.call_later(max(late, SHORTEST_HEDGE), self._too_late)
        first.get_soon(self._key, functools.partial(self._hear_from, first, True))
        for node in others:
            node.head_soon(self._key, functools.partial(self._hear_from, node, False))

    def _hear_from(self, node: Backend, whole: bool, data: bytes | SfssError | None) -> None:
        """What it has: the record, of the one that was asked for it ``whole``, or at least its header."""
        if not self._waiting:
            return
        if data is None or isinstance(data, SfssError):
            self._leave_off()
            return
        try:
            if whole:
                self._found = found = record.decode(data)
                header = found.header
            else:
                header = record.decode_head(data)
        except Damaged:
            self._leave_off()
            return
        self._hear(node, header)

    def _hear(self, node: Backend, header: Header) -> None:
        self._copies.latency(node).saw(asyncio.get_running_loop().time() - self._asked_at)
        if header.kind == Kind.TOMBSTONE or self._order not in (None, header.order):
            self._leave_off()
            return
        self._order = header.order
        self._waiting.remove(node)
        if not self._waiting:
            self._end()
            self._tell(self._found)
            self._copies.compare_now_and_then(self._key, self._place)

    def _too_late(self) -> None:
        self._copies.counts.hedges += 1
        self._leave_off(slow=tuple(self._waiting))

    def _leave_off(self, slow: Collection[Backend] = ()) -> None:
        self._end()
        self._otherwise(slow)

    def _end(self) -> None:
        self._waiting = []
        if self._timer is not None:
            self._timer.cancel()
