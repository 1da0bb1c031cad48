"""Which nodes have all that belongs on them, so that their "I have none" may be believed.

A node whose disk was lost, or a memcached that was started again, answers as readily as before, and has forgotten what
it acknowledged: of a write that it and one more of three had taken, it and the third would say that there was none. So
a node is *marked* when a repair has seen that it lacks nothing, by an item of its own that is lost with all the others.
A miss of a node without a mark doesn't count while another node of the key's has one. Where nobody has one, as before
the first repair, all are believed: a new cluster is empty, and that is right.

Nodes are marked in two steps, for one may take longer than the others, or fail: first each gets a mark that *comes*, by
which it is believed itself; when all have that, the one that *counts* against those without. In one step the slow ones
of a new cluster would be taken for emptied ones, for as long as they take.

A node that joins needs none: the owners by the old ring are asked, too. Nor does one that has the only copy.
"""

from __future__ import annotations

import asyncio
import enum
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sfss.backends.base import Backend
from sfss.cluster.topology import Place

MARK = b"#sfss/whole"
_COMES = b"a repair has seen that this node lacks nothing, and marks the others, too\n"
_COUNTS = b"a repair has seen that this node lacks nothing\n"
_AGAIN = 5.0  # seconds after which a node is asked again whose mark doesn't count: it may have got one


class _Mark(enum.IntEnum):
    NONE = 0
    COMES = 1
    COUNTS = 2


class _Look(NamedTuple):
    """What a node answered when it was asked for its mark."""

    since: float  # of which connection
    at: float  # on the monotonic clock
    mark: _Mark


class Wholeness:
    """What is known of the nodes' marks. One that counts does while a connection lasts: nothing is forgotten on one."""

    def __init__(self) -> None:
        self._looks: weakref.WeakKeyDictionary[Backend, _Look] = weakref.WeakKeyDictionary()

    async def believes(self, node: Backend, place: Place) -> bool:
        """Whether the node's miss of a key of this place counts. Raises NodeError if the node itself can't tell."""
        if place.quorum.copies == 1 or node in place.joining or await self._mark_of(node):
            return True
        if not await self._any_counts([other for other in place.owners if other is not node and other.away is None]):
            return True
        return bool(await self._ask(node))  # all may have been marked since it was asked

    async def _any_counts(self, nodes: Sequence[Backend]) -> bool:
        known = list(map(self._known, nodes))
        if _Mark.COUNTS in known or None not in known:
            return _Mark.COUNTS in known
        unknown = [node for node, mark in zip(nodes, known, strict=True) if mark is None]
        return _Mark.COUNTS in await asyncio.gather(*map(self._ask, unknown), return_exceptions=True)

    async def _mark_of(self, node: Backend) -> _Mark:
        known = self._known(node)
        return known if known is not None else await self._ask(node)

    def _known(self, node: Backend) -> _Mark | None:
        """None if it must be asked."""
        look = self._looks.get(node)
        if look is None or look.since != node.since:
            return None
        return look.mark if look.mark == _Mark.COUNTS or time.monotonic() - look.at < _AGAIN else None

    async def _ask(self, node: Backend) -> _Mark:
        since, now = node.since, time.monotonic()
        mark = await _mark_of(node)
        if since is None or node.since != since:  # who knows which of them answered
            return _Mark.NONE
        self._looks[node] = _Look(since, now, mark)
        return mark


async def is_marked(node: Backend) -> bool:
    """Whether it has its mark, asked now. Raises NodeError."""
    return bool(await _mark_of(node))


async def mark(nodes: Iterable[Backend], began: float) -> None:
    """Mark the nodes, which a repair that ``began`` then (``time.monotonic``) has seen to lack nothing.

    Not those that were connected to anew since: they may be other ones by now. Raises NodeError, OutOfSpace: if in the
    first step, no mark counts that didn't before.
    """
    same = [node for node in nodes if node.since is not None and node.since <= began]
    for step in (_Mark.COMES, _Mark.COUNTS):
        await asyncio.gather(*(_bring_to(node, step) for node in same))


async def any_marked(nodes: Iterable[Backend]) -> bool:
    """Whether one of the nodes that are here has a mark that counts."""
    return _Mark.COUNTS in [await _mark_of(node) for node in nodes if node.away is None]


async def missing_marks(nodes: Iterable[Backend]) -> list[Backend]:
    """Of the nodes that are here, those without a mark, if another one's counts: they have lost what they had."""
    marks = await _marks_of(nodes)
    return [node for node, mark in marks.items() if not mark] if _Mark.COUNTS in marks.values() else []


async def lack_marks(nodes: Iterable[Backend]) -> bool:
    """Whether a repair of the nodes that are here would mark one: it has lost what it had, or was left half marked."""
    marks = await _marks_of(nodes)
    return _Mark.COMES in marks.values() or len(set(marks.values())) > 1


async def _marks_of(nodes: Iterable[Backend]) -> dict[Backend, _Mark]:
    return {node: await _mark_of(node) for node in nodes if node.away is None}


async def _mark_of(node: Backend) -> _Mark:
    found = await node.get(MARK)
    if found is None:
        return _Mark.NONE
    return _Mark.COMES if found == _COMES else _Mark.COUNTS


async def _bring_to(node: Backend, step: _Mark) -> None:
    if await _mark_of(node) < step:
        await node.set(MARK, _COMES if step == _Mark.COMES else _COUNTS)
