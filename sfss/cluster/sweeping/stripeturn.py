"""One stripe's turn in a sweep: whether anybody has it, and what follows from that for each of its blocks."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sfss import paths, record
from sfss.backends.base import Backend, Listed
from sfss.cluster.replication import Cluster
from sfss.cluster.summary import Summary
from sfss.cluster.sweeping.blockturn import BlockTurn, remove
from sfss.cluster.sweeping.claims import Claim, Claims, Origin, origin_of
from sfss.cluster.sweeping.relayout import move, relaid
from sfss.cluster.sweeping.witnesses import Witnesses
from sfss.cluster.topology import Topology
from sfss.cluster.turn import Turn
from sfss.cluster.walk import UNKNOWN, Told, Walk
from sfss.errors import Damaged, SfssError
from sfss.manifest import Layout, began, block_key
from sfss.record import Kind

MARGIN = 60.0  # seconds by which an upload may end too late, all told: clocks, and the last calls to nodes


class Fate(enum.Enum):
    """What is to become of a stripe."""

    LIVE = enum.auto()  # a record names it: its blocks are brought home
    DEAD = enum.auto()  # none does, and none will: its blocks are removed
    YOUNG = enum.auto()  # none does yet
    UNTRACED = enum.auto()  # any record might: it must be looked for in all
    UNSURE = enum.auto()  # it can't be known now


@dataclass(frozen=True)
class Means:
    """What the turns of a sweep share."""

    cluster: Cluster
    topology: Topology
    staying: frozenset[str]  # the names of its nodes that don't leave
    walk: Walk
    witnesses: Witnesses
    claims: Claims
    summary: Summary
    upload_time: float  # seconds in which a stripe must have been written, and named
    copies_of: Callable[[str], int]  # that the blocks of the file at a path should have, at least
    scrub: bool


class StripeTurn:
    """The turn of one stripe, of which some blocks are gone over at a time."""

    def __init__(self, stripe: str, means: Means) -> None:
        self.id = stripe
        self.fate: Fate | None = None
        self._means = means
        self._summary = means.summary
        self._judging = asyncio.Lock()
        self._going = 0
        self._ended = asyncio.Event()
        self._blocks = 0  # that have been gone over
        self._origin = Origin(None, None)
        # Of a live one:
        self._claim: Claim | None = None
        self._instead: dict[Layout, Layout] = {}  # the layouts that its manifest is to be given, for those it has
        self._homeless = 0  # blocks that aren't on all their homes
        self._lost = 0  # blocks that are nowhere
        self._seen = bytearray()  # a bit for each of its blocks that was listed
        self._most: int | None = None  # blocks that it has, for sure

    def expect(self) -> None:
        """A call of ``go_over`` will come, for which ``wait`` is to wait."""
        self._going += 1

    async def go_over(self, some: Sequence[tuple[int, Sequence[Told]]]) -> None:
        """Do what is to be done with some of its blocks, by number. Calls may go on side by side."""
        self._blocks += len(some)
        try:
            async with self._judging:
                if self.fate is None:
                    self.fate = await self._judge(some)
            for number, told in some:
                if self.fate is Fate.LIVE:
                    await self._bring_home(number, told)
                elif self.fate is Fate.DEAD:
                    await self._remove(number, told)
        finally:
            self._going -= 1
            if not self._going:
                self._ended.set()

    async def wait(self) -> None:
        """Until the calls that are expected are through."""
        while self._going:
            self._ended.clear()
            await self._ended.wait()

    async def finish(self) -> None:
        """Do what can be done only when all its blocks were gone over, and sum it up."""
        summary = self._summary
        if self.fate is Fate.UNTRACED:
            return
        summary.stripes += 1
        summary.blocks += self._blocks
        summary.stripes_swept += self.fate is Fate.DEAD
        summary.stripes_young += self.fate is Fate.YOUNG
        if self._claim is not None:
            await self._look_for_the_missing(self._claim)
            try:
                await self._settle(self._claim)
            except SfssError as error:
                summary.note_unsure(self.id, error)

    # --- whose it is ---

    async def _judge(self, some: Sequence[tuple[int, Sequence[Told]]]) -> Fate:
        claims = self._means.claims
        try:
            self._origin = await self._find_origin(some)
            claim = await claims.quick(self.id, self._origin)
            is_all = True
            if claim is None:
                if self._is_young():
                    return Fate.YOUNG
                claim, is_all = await claims.sure(self.id, self._origin)
        except SfssError as error:
            self._summary.note_unsure(self.id, error)
            return Fate.UNSURE
        if claim is None:
            return Fate.DEAD if is_all else Fate.UNTRACED
        self._take(claim)
        return Fate.LIVE

    def _is_young(self) -> bool:
        age = self._means.walk.clock.now() - began(self.id)
        return age < (self._means.upload_time + MARGIN) * 1e6

    async def _find_origin(self, some: Sequence[tuple[int, Sequence[Told]]]) -> Origin:
        """For what it was written, by the first header that can be read; of nothing if none can."""
        for number, told in some:
            for node, item in told:
                try:
                    return origin_of(await self._header(number, node, item))
                except SfssError:
                    continue
        return Origin(None, None)

    async def _header(self, number: int, node: Backend, item: Listed) -> record.Header:
        if item.header:
            return record.decode_header(item.header)[0]
        async with self._means.cluster.blocks.gate(node):
            data = await node.head(block_key(self.id, number))
        return record.decode_header(data or b"")[0]

    def _take(self, claim: Claim) -> None:
        """From now on it is live."""
        self._claim = claim
        self._seen = bytearray(claim.blocks // 8 + 1)
        for layout in {claim.layouts[extent.layout] for extent in claim.extents}:
            if layout.copies >= self._copies(claim) and self._means.staying.issuperset(layout.nodes):
                continue
            if self._means.witnesses.why_not is not None:
                self._summary.note_unsure(self.id, self._means.witnesses.why_not)
            else:
                order = sorted(self._means.topology.order(claim.key), key=lambda node: node.away is not None)
                new = relaid(layout, [node.address.name for node in order], self._copies(claim))
                if new is not layout:
                    self._instead[layout] = new

    def _copies(self, claim: Claim) -> int:
        """How many copies its blocks should have, at least."""
        path = self._origin.path
        is_at_path = path is not None and paths.key_of(path) == claim.key
        return self._means.copies_of(path) if path is not None and is_at_path else 1

    # --- block by block ---

    async def _remove(self, number: int, told: Sequence[Told]) -> None:
        """Remove a block from all who listed it."""
        for node, item in told:
            if await remove(block_key(self.id, number), node, self._means.cluster.blocks, self._summary):
                self._note_removed(item)

    def _note_removed(self, item: Listed) -> None:
        self._summary.blocks_removed += 1
        self._summary.bytes_freed += max(item.size, 0)

    async def _bring_home(self, number: int, told: Sequence[Told]) -> None:
        claim = self._claim
        assert claim is not None
        if number >= claim.blocks:
            await self._remove_beyond(claim, number, told)
            return
        self._seen[number // 8] |= 1 << number % 8
        leaving = self._means.topology.leaving
        told = [it for it in told if it.node not in leaving or self._instead]  # what they have goes with them
        names = claim.homes(number, self._instead)
        homes = self._there(names)
        lost = self._means.walk.lost
        here = [node for node in homes if node not in lost]
        if not self._means.scrub and here and _is_well(told, here, claim.size(number)):
            self._note_home(is_home=len(here) == len(names))
        else:
            await self._turn(claim, number, told)

    async def _turn(self, claim: Claim, number: int, told: Sequence[Told]) -> None:
        names = claim.homes(number, self._instead)
        homes = self._there(names)
        everybody = self._means.topology.nodes.values()
        turn = BlockTurn(
            block_key(self.id, number),
            claim.size(number),
            homes,
            [node for node, _ in told],
            list(everybody),
            self._means.cluster.blocks,
            self._summary,
            whole=self._means.scrub or any(_is_doubtful(item) for _, item in told),
        )
        await turn.run()
        self._lost += turn.is_lost
        is_home = turn.is_home and len(homes) == len(names)
        if not turn.is_lost:
            self._note_home(is_home=is_home)
        strays = [it for it in told if it.node not in homes]
        if is_home and strays and not self._instead:
            await self._remove_strays(claim, number, turn, strays)

    def _there(self, names: Sequence[str]) -> list[Backend]:
        """Those of these nodes that there are: all, unless one is missing from the configuration by mistake."""
        nodes = self._means.topology.nodes
        return [nodes[name] for name in names if name in nodes]

    def _note_home(self, *, is_home: bool) -> None:
        self._homeless += not is_home
        self._summary.blocks_lacking += not is_home

    async def _remove_strays(self, claim: Claim, number: int, turn: BlockTurn, strays: Sequence[Told]) -> None:
        """Remove copies that lie where they don't belong, if they do where they do."""
        try:
            now = await self._means.claims.fresh(self.id, claim.key)
        except SfssError:
            return
        if now is None or now.homes(number, {}) != claim.homes(number, {}) or not await turn.is_home_and_sound():
            return
        for node, item in strays:
            if await turn.remove(node):
                self._note_removed(item)

    async def _remove_beyond(self, claim: Claim, number: int, told: Sequence[Told]) -> None:
        """Remove a block that its stripe hasn't got, as far as that is known: an upload broke off there."""
        if self._is_young():
            return
        if self._most is None:
            self._most = 2**63  # unless it is known for sure
            try:
                sure, _ = await self._means.claims.sure(self.id, self._origin)
            except SfssError as error:
                self._summary.note_unsure(self.id, error)
            else:
                self._most = 2**63 if sure is None else max(claim.blocks, sure.blocks)
        if number >= self._most:
            await self._remove(number, told)

    # --- at its end ---

    async def _look_for_the_missing(self, claim: Claim) -> None:
        """Those of its blocks that nobody has listed: they may have come since, or be on a node that is away."""
        for number in self._missing(claim):
            if self._means.walk.lost:
                self._note_home(is_home=False)
            else:
                await self._turn(claim, number, ())

    def _missing(self, claim: Claim) -> Iterator[int]:
        return (number for number in range(claim.blocks) if not self._seen[number // 8] >> number % 8 & 1)

    async def _settle(self, claim: Claim) -> None:
        summary = self._summary
        if self._lost and await self._means.claims.fresh(self.id, claim.key) is not None:
            summary.blocks_lost += self._lost
            summary.note_lost(claim.key)
        elif self._instead and not self._homeless:
            await self._move(claim)

    async def _move(self, claim: Claim) -> None:
        """Have the manifest say where its blocks are by now, at all its owners: some nodes may be about to go."""
        if await move(self._means.cluster, claim.key, self.id, self._instead):
            means, found = self._means, Summary()
            await Turn(claim.key, (), means.topology, means.walk, found, tombstone_ttl=2**31, whole=False).run()
            self._summary.manifests_moved += 1
            self._summary.under_replicated += found.under_replicated


def _is_well(told: Sequence[Told], homes: Sequence[Backend], size: int) -> bool:
    """Whether just these have listed it, all the same. Of a node that lists no headers it is enough that it does."""
    if len(told) != len(homes) or any(node not in homes for node, _ in told):
        return False
    items = [item for _, item in told if item.size != UNKNOWN]
    if not items:
        return True
    header, length = items[0].header, items[0].size
    if any(item.header != header or item.size != length for item in items):
        return False
    try:
        found = record.decode_bare_header(header)
    except Damaged:
        return False
    return found.kind == Kind.BLOCK and found.payload_size == size and len(header) + size == length


def _is_doubtful(item: Listed) -> bool:
    """Whether a node lists a block that can't be whole."""
    if item.size == UNKNOWN:
        return False
    try:
        found, end = record.decode_header(item.header)
    except Damaged:
        return True
    return end + found.payload_size != item.size
