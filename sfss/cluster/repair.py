"""Repair: a walk over all keys but those of blocks (``sweeping/``), and a turn for each on which not all is well.

It is a client of the nodes as a front is, keeps nothing, and may be stopped at any moment and run again. Several may
run at once. Most keys are well, and the lists of the nodes prove it without a request for each: every owner lists the
very same header, and nobody else lists the key. What they don't prove is looked at again (``turn.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Iterable, Iterator, Sequence

from sfss import record
from sfss.backends.base import Backend, Listed
from sfss.cluster.apart import check_apart
from sfss.cluster.pace import Pace
from sfss.cluster.summary import Summary
from sfss.cluster.topology import Place, Topology
from sfss.cluster.turn import Turn
from sfss.cluster.turns import Turns
from sfss.cluster.walk import PATIENCE, SLICE, UNKNOWN, Batch, Told, Walk
from sfss.cluster.wholeness import any_marked, is_marked, mark
from sfss.errors import Damaged, SfssError
from sfss.record import Kind

log = logging.getLogger("sfss.repair")

UNKNOWN_SIZE = 1024 * 1024  # bytes that one may have that a node doesn't tell of
AT_ONCE = 200  # keys that are gone over before others in this event loop have theirs

_OURS = b"/#"  # what keys of sfss begin with


class Repair:
    """One run. ``summary`` is live while it runs, and ``pace`` may be changed, paused and resumed."""

    def __init__(
        self,
        topology: Topology,
        *,
        tombstone_ttl: int,
        scrub: bool = False,
        share: float = 1.0,
        moving_only: bool = False,
        summary: Summary | None = None,
        slice: int = SLICE,
        patience: float = PATIENCE,
    ) -> None:
        """``tombstone_ttl`` and ``patience`` (with a node that fails) in seconds; ``slice``, keys listed at a time.

        ``scrub``: read and check each copy whole. ``share`` of the time for work, the rest for rest. ``moving_only``:
        look only at keys whose owners change, or that lie where they don't belong. ``summary``: to be added to.
        """
        self.summary = summary or Summary()
        self.pace = Pace(share)
        self._topology = topology
        self._tombstone_ttl = tombstone_ttl
        self._scrub = scrub
        self._moving_only = moving_only
        self._walk = Walk(topology.nodes.values(), self.pace, slice=slice, patience=patience)
        self._turns = Turns()
        self._lacking: set[Backend] = set()  # the nodes that lack something still
        leaving = set(topology.leaving)
        self._staying = [node for node in topology.nodes.values() if node not in leaving]

    async def run(self) -> Summary:
        """All of it, once. What fails is in the summary. If it is cancelled, the summary holds until then.

        Nodes that were seen to lack nothing are marked so (``wholeness.py``); by a rebalance, those that join. One that
        lacks something, as for want of room, keeps the others from theirs only where nobody has a mark yet.

        Raises OneStore, and has done nothing then.
        """
        check_apart(self._topology.nodes.values())
        began = time.monotonic()
        try:
            async with contextlib.aclosing(self._walk.batches()) as batches:
                async for batch in batches:
                    await self._go_over(batch)
            await self._turns.finish()
            self._note_the_walk()
            self.summary.finished = True
            if not self._walk.lost:
                await self._mark(began)
                await self._note_who_came_anew(began)
        finally:
            await self._turns.cancel()
            self._note_the_walk()
        return self.summary

    async def _mark(self, began: float) -> None:
        nodes = list(self._topology.nodes.values())
        joining = self._topology.joining if self._moving_only else []
        try:
            may_be_needless = joining or self._lacking
            if may_be_needless and not await any_marked(node for node in nodes if node not in joining):
                return
            if joining or not self._moving_only:
                await mark([node for node in joining or nodes if node not in self._lacking], began)
        except SfssError as error:  # it is in want of a mark until the next time
            log.warning("a node that lacks nothing could not be marked so; the next repair tries again: %s", error)

    async def _note_who_came_anew(self, began: float) -> None:
        """A node that came anew in the middle may be an empty one by now: its mark shows that it isn't."""
        for node in self._topology.nodes.values():
            if node.since is not None and node.since <= began:
                continue
            try:
                if not await is_marked(node):
                    self._walk.lost[node] = "it came anew in the middle, and may have lost what it had"
            except SfssError as error:
                self._walk.lost[node] = str(error)

    async def _go_over(self, batch: Batch) -> None:
        for some in _pieces(batch.items(), AT_ONCE):
            async with self.pace.step():
                self._note_the_walk()
                old = self._walk.clock.now() - self._tombstone_ttl * 1_000_000
                doubtful = [(key, told) for key, told in some if not self._is_settled(key, told, old)]
                await asyncio.sleep(0)
            for key, told in doubtful:
                await self._turns.begin(self._turn(key, told), sum(_size(item) for _, item in told))

    async def _turn(self, key: bytes, told: Sequence[Told]) -> None:
        turn = Turn(
            key,
            told,
            self._topology,
            self._walk,
            self.summary,
            tombstone_ttl=self._tombstone_ttl,
            whole=self._scrub or any(_is_cut(item.header, item.size) for _, item in told),
        )
        async with self.pace.step():
            await turn.run()
        self._lacking.update(turn.lacking)

    def _note_the_walk(self) -> None:
        self.summary.listed = self._walk.listed
        self.summary.away = {node.address.name: why for node, why in self._walk.lost.items()}
        self.summary.tick()

    def _is_settled(self, key: bytes, told: Sequence[Told], old: int) -> bool:
        """Whether what the nodes list is all that need be known of the key; ``old``: when tombstones may go."""
        summary = self.summary
        summary.keys += 1
        if key[0] not in _OURS or (not told[0].item.header and all(_is_foreign(item) for _, item in told)):
            summary.foreign += 1
            return True
        place = self._topology.place(key)
        if len(place.groups) > 1:
            going = [node for node in place.groups[-1].owners if node not in place.groups[0].owners]
            summary.outgoing += sum(node in going and node in self._staying for node, _ in told)
        elif self._moving_only and all(node in place.owners for node, _ in told):
            summary.passed += 1
            return True
        return not self._scrub and self._is_well(told, place, old)

    def _is_well(self, told: Sequence[Told], place: Place, old: int) -> bool:
        """Whether the owners, as far as they are here, list one and the same version, and nobody else lists any."""
        owners, lost = place.owners, self._walk.lost
        here = [node for node in owners if node not in lost] if lost else owners
        if len(told) != len(here):
            return False
        first = told[0].item
        for node, item in told:
            if item.header != first.header or item.size != first.size or node not in here:
                return False
        try:
            header, end = record.decode_header(first.header)
        except Damaged:  # or nothing is known of it
            return False
        if end + header.payload_size != first.size:
            return False
        if header.kind == Kind.TOMBSTONE:
            if header.version < old and not lost:
                return False
            self.summary.tombstones_young += 1
        if len(here) == len(owners):
            self.summary.ok += 1
        else:
            self.summary.under_replicated += 1
        return True


def _size(item: Listed) -> int:
    """Bytes of an item, or what it may have."""
    return UNKNOWN_SIZE if item.size == UNKNOWN else item.size


def _is_foreign(item: Listed) -> bool:
    """Whether a node that scans says that it isn't a record."""
    return not item.header and item.size != UNKNOWN


def _is_cut(header: bytes, size: int) -> bool:
    """Whether a record hasn't the size that its header says; False where that isn't known."""
    try:
        found, end = record.decode_header(header)
    except Damaged:
        return False
    return end + found.payload_size != size


def _pieces(items: Iterable[tuple[bytes, list[Told]]], size: int) -> Iterator[list[tuple[bytes, list[Told]]]]:
    """The items, ``size`` at a time."""
    rest = iter(items)
    while piece := list(itertools.islice(rest, size)):
        yield piece
