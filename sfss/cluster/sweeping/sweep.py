"""A sweep: a walk over all blocks of all nodes, stripe by stripe. What nobody has any more goes, the rest comes home.

Of each stripe it is asked which record names it (``claims.py``). If none does for sure, and the stripe is so old that
none will, it is *dead*, and is removed. Of a *live* one each block belongs on the homes that its manifest names, and
nowhere else; where nodes are leaving or have gone, the manifest is given others, when the blocks are there. Whatever
isn't sure is left as it is, for the next sweep.

It keeps nothing, and may be stopped at any moment and run again. Several may run at once, by the same configuration.
What is held at a time is a slice of each node's list, the blocks that are copied just then, and a bit for each block of
the stripes in hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator

from sfss.cluster.apart import check_apart
from sfss.cluster.pace import Pace
from sfss.cluster.replication import Cluster
from sfss.cluster.summary import Summary
from sfss.cluster.sweeping.absence import look_for_lost
from sfss.cluster.sweeping.claims import Claims
from sfss.cluster.sweeping.expiry import forget_abandoned
from sfss.cluster.sweeping.roster import note
from sfss.cluster.sweeping.stripeturn import Fate, Means, StripeTurn
from sfss.cluster.sweeping.trace import trace
from sfss.cluster.sweeping.witnesses import Witnesses
from sfss.cluster.turns import Turns
from sfss.cluster.walk import BLOCKS, PATIENCE, SLICE, UNKNOWN, Batch, Ranges, Told, Walk
from sfss.cluster.wholeness import any_marked, mark
from sfss.errors import SfssError, Unavailable
from sfss.manifest import parse_block_key

log = logging.getLogger("sfss.sweep")

IN_A_TURN = 16  # blocks of a stripe that are gone over one after the other, others beside them
UNKNOWN_SIZE = 1024 * 1024  # bytes that one may have that a node doesn't tell of
SEARCHED = 1000  # stripes of a sweep that are looked for in all records; others have to wait for the next

_Blocks = list[tuple[int, list[Told]]]  # by number


class Sweep:
    """One run. ``summary`` is live while it runs, and ``pace`` may be changed, paused and resumed."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        upload_time: float,
        copies_of: Callable[[str], int] = lambda _: 1,
        share: float = 1.0,
        scrub: bool = False,
        thorough: bool = False,
        summary: Summary | None = None,
        slice: int = SLICE,
        patience: float = PATIENCE,
    ) -> None:
        """``upload_time``: seconds in which a stripe must have been written, and named (limits.upload_time).

        ``copies_of``: how many copies the blocks of the file at a path should have, at least. ``summary``: to be added
        to. ``thorough``: as somebody asks for who says that these are all nodes; it looks for files, too, of which
        nothing is left. ``scrub``, ``share``, ``slice`` and ``patience`` are as of a repair.
        """
        self.summary = summary or Summary()
        self.pace = Pace(share)
        self._cluster = cluster
        self._topology = topology = cluster.topology
        self._thorough = thorough
        self._slice = slice
        self._patience = patience
        self._nodes = list(topology.nodes.values())
        self._walk = self._new_walk(BLOCKS)
        self._listed_before = 0  # by the repair that adds to the same summary
        self._witnesses = Witnesses(self._nodes, topology.joining)
        self._claims = Claims(cluster, self._witnesses)
        staying = frozenset(topology.nodes) - {node.address.name for node in topology.leaving}
        self._means = Means(
            cluster, topology, staying, self._walk, self._witnesses, self._claims, self.summary,
            upload_time=upload_time, copies_of=copies_of, scrub=scrub,
        )  # fmt: skip
        self._turns = Turns()
        self._open: StripeTurn | None = None  # of which more may come
        self._untraced: list[str] = []

    async def run(self) -> Summary:
        """All of it, once. What fails is in the summary. If it is cancelled, the summary holds until then.

        Raises OneStore, and has done nothing then.
        """
        check_apart(self._nodes)
        began = time.monotonic()
        self._listed_before = self.summary.listed
        self.summary.finished = False
        try:
            await self._witnesses.begin(are_all=self._thorough)
            await forget_abandoned(self._cluster, self._witnesses, self._new_walk, self.summary)
            await self._go_over_all(self._walk)
            if self._untraced:
                await self._search_for(self._untraced)
            if self._thorough and not self._walk.lost:
                await look_for_lost(self._cluster, self._new_walk, self.pace, self.summary)
            self.summary.finished = True
            await self._note_the_nodes(began)
        finally:
            await self._turns.cancel()
            self._note_the_walk()
        return self.summary

    def _new_walk(self, within: Ranges) -> Walk:
        return Walk(self._nodes, self.pace, within=within, slice=self._slice, patience=self._patience)

    async def _go_over_all(self, walk: Walk) -> None:
        async with contextlib.aclosing(walk.batches()) as batches:
            async for batch in batches:
                self._note_the_walk()
                for stripe, blocks in _by_stripe(batch):
                    await self._go_over(stripe, blocks)
                await asyncio.sleep(0)
        await self._close()
        await self._turns.finish()
        self._note_the_walk()

    async def _go_over(self, stripe: str, blocks: _Blocks) -> None:
        if self._open is None or self._open.id != stripe:
            await self._close()
            self._open = StripeTurn(stripe, self._means)
        for some in _pieces(blocks, IN_A_TURN):
            self._open.expect()
            await self._turns.begin(self._turn(self._open, some), max(_size(told) for _, told in some))

    async def _close(self) -> None:
        """No more will come of the stripe that is open."""
        if self._open is not None:
            await self._turns.begin(self._last_turn(self._open), UNKNOWN_SIZE)
            self._open = None

    async def _turn(self, stripe: StripeTurn, some: _Blocks) -> None:
        async with self.pace.step():
            await stripe.go_over(some)

    async def _last_turn(self, stripe: StripeTurn) -> None:
        await stripe.wait()
        async with self.pace.step():
            await stripe.finish()
        if stripe.fate is Fate.UNTRACED:
            self._untraced.append(stripe.id)

    async def _search_for(self, stripes: list[str]) -> None:
        """Look for these in all records there are, and go over them once more."""
        some, rest = stripes[:SEARCHED], stripes[SEARCHED:]
        try:
            self._claims.searched |= await trace(some, self._witnesses, self._new_walk)
        except SfssError as error:
            rest, some, why = stripes, [], error
        else:
            why = Unavailable("too many stripes had to be looked for in all files at once: the next sweep goes on")
        for stripe in rest:
            self.summary.stripes += 1
            self.summary.note_unsure(stripe, why)
        ranges = [(b"#%s/" % stripe.encode(), b"#%s0" % stripe.encode()) for stripe in sorted(some)]
        if ranges:
            await self._go_over_all(self._new_walk(ranges))

    def _note_the_walk(self) -> None:
        self.summary.listed = self._listed_before + self._walk.listed
        self.summary.away |= {node.address.name: why for node, why in self._walk.lost.items()}
        self.summary.tick()

    async def _note_the_nodes(self, began: float) -> None:
        """So that the next sweep notices if one is missing, or was emptied. No repair need ever run with one copy."""
        if self.summary.away or self._witnesses.why_not is not None:
            return
        gone = self._topology.leaving if self.summary.well else ()
        try:
            await note(self._nodes, [node.address.name for node in self._nodes if node not in gone])
            if self._topology.copies == 1 and not self._topology.moving and not await any_marked(self._nodes):
                await mark(self._nodes, began)
        except SfssError as error:
            log.warning("which nodes there are could not be noted; the next sweep tries again: %s", error)


def _by_stripe(batch: Batch) -> Iterator[tuple[str, _Blocks]]:
    """The blocks of a batch, in the order of their stripes. What isn't of sfss is left out."""
    parsed = [(block, key) for key in sorted(batch) if (block := parse_block_key(key)) is not None]
    for stripe, group in itertools.groupby(parsed, key=lambda it: it[0][0]):
        yield stripe, [(number, batch[key]) for (_, number), key in group]


def _pieces(blocks: Iterable[tuple[int, list[Told]]], size: int) -> Iterator[_Blocks]:
    """The blocks, ``size`` at a time."""
    rest = iter(blocks)
    while piece := list(itertools.islice(rest, size)):
        yield piece


def _size(told: Iterable[Told]) -> int:
    """Bytes of a block's record, or what they may be."""
    return max(UNKNOWN_SIZE if item.size == UNKNOWN else item.size for _, item in told)
