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
from collections.abc import Iterable
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
        others = [other for other in place.owners if other is not node and other.away is None]
        answers = await asyncio.gather(*map(self._is_marked, others), return_exceptions=True)
        if not any(answer is True for answer in answers):
            return True
        return await self._is_marked(node, again=0.0)  # all may have been marked since it was asked

    async def _is_marked(self, node: Backend, again: float = _AGAIN) -> bool:
        """``again``: seconds for which it is believed that it has none."""
        since, look, now = node.since, self._looks.get(node), time.monotonic()
        if look is None or look.since != since or not (look.marked or now - look.at < again):
            marked = await node.get(MARK) is not None
            if since is None or node.since != since:  # who knows which of them answered
                return False
            look = self._looks[node] = _Look(since, now, marked)
        return look.marked


async def mark(nodes: Iterable[Backend], began: float) -> None:
    """Mark the nodes, which a repair that ``began`` then (``time.monotonic``) has seen to lack nothing.

    Not those that were connected to anew since: they may be other ones by now. Raises NodeError, OutOfSpace.
    """
    same = [node for node in nodes if node.since is not None and node.since <= began]
    await asyncio.gather(*map(_mark, same))  # at once: see ``believes``


async def _mark(node: Backend) -> None:
    if await node.get(MARK) is None:
        await node.set(MARK, _CONTENT)


async def any_marked(nodes: Iterable[Backend]) -> bool:
    """Whether one of the nodes that are here has a mark."""
    return any([await node.get(MARK) is not None for node in nodes if node.away is None])


async def missing_marks(nodes: Iterable[Backend]) -> list[Backend]:
    """Of the nodes that are here, those without a mark, if another one has one: they have lost what they had."""
    here = [node for node in nodes if node.away is None]
    marked = [await node.get(MARK) is not None for node in here]
    return [node for node, is_marked in zip(here, marked, strict=True) if not is_marked] if any(marked) else []
