"""Which nodes have all that belongs on them, so that their "I have none" may be believed.

A node whose disk was lost, or a memcached that was started again, answers as readily as before, and has forgotten what
it acknowledged: of a write that it and one more of three had taken, it and the third would say that there was none. So
a node is *marked* when a repair has seen that it lacks nothing, by an item of its own that is lost with all the others.
A miss of a node without a mark doesn't count while another node of the key's has one. Where nobody has one, as before
the first repair, all are believed: a new cluster is empty, and that is right.

A node that joins needs none: the owners by the old ring are asked, too. Nor does one that has the only copy.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sfss.backends.base import Backend
from sfss.cluster.topology import Place

MARK = b"#sfss/whole"
_CONTENT = b"a repair has seen that this node lacks nothing\n"
_AGAIN = 5.0  # seconds after which a node without a mark is asked again: it may have got one


class _Look(NamedTuple):
    """What a node answered when it was asked for its mark."""

    since: float  # of which connection
    at: float  # on the monotonic clock
    marked: bool


class Wholeness:
    """What is known of the nodes' marks. Positive for as long as a connection lasts: nothing is forgotten on one."""

    def __init__(self) -> None:
        self._looks: weakref.WeakKeyDictionary[Backend, _Look] = weakref.WeakKeyDictionary()

    async def believes(self, node: Backend, place: Place) -> bool:
        """Whether the node's miss of a key of this place counts. Raises NodeError if the node itself can't tell."""
        if place.quorum.copies == 1 or node in place.joining or await self._is_marked(node):
            return True
        if not await self._any_marked([other for other in place.owners if other is not node and other.away is None]):
            return True
        return await self._ask(node)  # all may have been marked since it was asked

    async def _any_marked(self, nodes: Sequence[Backend]) -> bool:
        known = list(map(self._known, nodes))
        if True in known or None not in known:
            return True in known
        unknown = [node for node, has_one in zip(nodes, known, strict=True) if has_one is None]
        answers = await asyncio.gather(*map(self._ask, unknown), return_exceptions=True)
        return any(answer is True for answer in answers)

    async def _is_marked(self, node: Backend) -> bool:
        known = self._known(node)
        return known if known is not None else await self._ask(node)

    def _known(self, node: Backend) -> bool | None:
        """None if it must be asked."""
        look = self._looks.get(node)
        if look is None or look.since != node.since:
            return None
        return look.marked if look.marked or time.monotonic() - look.at < _AGAIN else None

    async def _ask(self, node: Backend) -> bool:
        since, now = node.since, time.monotonic()
        marked = await is_marked(node)
        if since is None or node.since != since:  # who knows which of them answered
            return False
        self._looks[node] = _Look(since, now, marked)
        return marked


async def is_marked(node: Backend) -> bool:
    """Whether it has its mark, asked now. Raises NodeError."""
    return await node.get(MARK) is not None


async def mark(nodes: Iterable[Backend], began: float) -> None:
    """Mark the nodes, which a repair that ``began`` then (``time.monotonic``) has seen to lack nothing.

    Not those that were connected to anew since: they may be other ones by now. Raises NodeError, OutOfSpace.
    """
    same = [node for node in nodes if node.since is not None and node.since <= began]
    await asyncio.gather(*map(_mark, same))  # at once: see ``believes``


async def _mark(node: Backend) -> None:
    if not await is_marked(node):
        await node.set(MARK, _CONTENT)


async def any_marked(nodes: Iterable[Backend]) -> bool:
    """Whether one of the nodes that are here has a mark."""
    return any([await is_marked(node) for node in nodes if node.away is None])


async def missing_marks(nodes: Iterable[Backend]) -> list[Backend]:
    """Of the nodes that are here, those without a mark, if another one has one: they have lost what they had."""
    here = [node for node in nodes if node.away is None]
    marked = [await is_marked(node) for node in here]
    return [node for node, has_one in zip(here, marked, strict=True) if not has_one] if any(marked) else []
