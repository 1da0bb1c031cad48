"""Blocks of large files: one at a time, on the nodes that its file's manifest names. What a file is isn't known here.

A block never changes once it is written, so there is nothing to decide between its copies: any one that passes its
checksum will do, and no quorum is read. A copy whose node is away when it is written goes to the next node on the ring
behind the block's key, and is looked for there when its home hasn't got it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from sfss import record
from sfss.backends.base import Backend
from sfss.cluster.apart import check_apart
from sfss.cluster.copies import Copies
from sfss.cluster.inquiry import SHORTEST_HEDGE
from sfss.cluster.topology import SPARES, Topology
from sfss.errors import Damaged, Gone, NodeError, NodeRefused, OutOfSpace, SfssError, TooLarge, Unavailable
from sfss.manifest import Layout
from sfss.record import Kind

# Calls with blocks that a node is given at a time: enough to keep it busy, and so few that none of them waits for the
# others beyond its deadline. The rest wait here, for which they have all the time in the world.
_AT_A_NODE = 4
PATIENCE, PAUSE = 5.0, 0.25  # seconds for which it is tried again what nodes didn't do, and between two tries
_ELSEWHERE = 32  # nodes behind a block's key that are asked for what its homes lack

_Read = Callable[[Backend, bytes], Coroutine[Any, Any, bytes | None]]


class Blocks:
    """Blocks on the nodes of the topology of the moment. One event loop."""

    def __init__(self, topology: Callable[[], Topology], copies: Copies) -> None:
        self._topology = topology
        self._copies = copies
        self._gates: weakref.WeakKeyDictionary[Backend, asyncio.Semaphore] = weakref.WeakKeyDictionary()
        self._mending: set[bytes] = set()

    @property
    def largest(self) -> int:
        """Bytes of the largest record that every node takes, as far as they are known."""
        known = [node.capabilities for node in self._topology().nodes.values() if node.capabilities is not None]
        return min((can.largest_value for can in known), default=2**63)

    def layout(self, key: bytes, pieces: int, copies: int) -> Layout:
        """Nodes for the blocks of a stripe: those behind the ``key`` on the ring, which are here if that can be.

        Of fewer nodes than ``pieces`` or ``copies``, all.
        """
        topology = self._topology()
        ring = list(topology.order(key))
        # Fronts that don't know yet of a node that joins couldn't read what lies there.
        known = [node for node in ring if node not in topology.strange]
        ring = known if len(known) >= copies else ring
        chosen = sorted(ring, key=lambda node: node.away is not None)[: max(pieces, copies)]
        most = len(chosen)
        return Layout(tuple(node.address.name for node in chosen), min(pieces, most), min(copies, most))

    # --- writing ---

    async def put(self, key: bytes, data: bytes, homes: Sequence[str], needed: int) -> None:
        """Write a block's copies; returns when each has a node, or has found none, and ``needed`` of them have.

        Nodes that fail are tried again for some seconds. Raises TooLarge, OutOfSpace, Unavailable. Who is cancelled
        leaves nothing on its way but what was sent.
        """
        nodes, others = self._homes(key, homes)
        holders: set[Backend] = set()
        deadline = time.monotonic() + PATIENCE
        while True:
            # Who took one in a try before is no spare for another one.
            spares = itertools.islice((node for node in others if node not in holders), SPARES)
            failed = await self._try(key, data, nodes, spares, holders)
            if len(holders) >= needed:
                self._copies.counts.late_failures += len(failed)
                return
            # To send a block once more is safe, and to give up a long upload for a disk that stalls is not what anybody
            # wants; but a node that has no room has none in a moment either.
            if time.monotonic() > deadline or not all(isinstance(error, NodeError) for error in failed.values()):
                raise self._why_not(len(holders), needed, list(failed.values()))
            await asyncio.sleep(PAUSE)
            nodes = list(failed)
            _, others = self._homes(key, homes)

    async def _try(
        self, key: bytes, data: bytes, nodes: Sequence[Backend], spares: Iterator[Backend], holders: set[Backend]
    ) -> dict[Backend, SfssError]:
        """A copy for each of these nodes; those that have found no place for it, and why."""
        outcomes = await asyncio.gather(
            *(self._keep(key, data, node, spares, holders) for node in nodes), return_exceptions=True
        )
        failed: dict[Backend, SfssError] = {}
        for node, outcome in zip(nodes, outcomes, strict=True):
            if isinstance(outcome, SfssError):
                failed[node] = outcome
            elif outcome is not None:
                raise outcome
        return failed

    async def _keep(
        self, key: bytes, data: bytes, home: Backend, spares: Iterator[Backend], holders: set[Backend]
    ) -> None:
        """One copy: at home, or on the next spare that takes it."""
        try:
            async with self.gate(home):
                await home.set(key, data)
        except (NodeError, OutOfSpace, TooLarge):
            spare = next(spares, None)
            if spare is None:
                raise
            self._copies.counts.handoffs += 1
            await self._keep(key, data, spare, spares, holders)
        else:
            holders.add(home)

    def _why_not(self, kept: int, needed: int, failures: Sequence[SfssError]) -> SfssError:
        if not isinstance(failures[0], NodeError) and all(type(error) is type(failures[0]) for error in failures):
            return failures[0]
        return Unavailable(
            f"{kept} nodes have taken a block of the file, and {needed} are needed: {'; '.join(map(str, failures))}"
        )

    # --- reading ---

    async def get(self, key: bytes, homes: Sequence[str], size: int) -> memoryview:
        """The content of a block of ``size`` bytes, checked. Copies that were seen to be wrong are put right behind it.

        Raises Unavailable; Damaged; Gone if every node that may have it says that it isn't there.
        """
        nodes, others = self._homes(key, homes)
        search = _Search(self._copies, key, size, self._read)
        found = await search.among(self._copies.order(nodes))
        if found is None:
            found = await search.among(list(itertools.islice(others, _ELSEWHERE)))
        if found is None:
            raise search.why_not()
        data, payload = found
        lacking = [node for node in search.lacking if node in nodes]
        if lacking and key not in self._mending:
            self._mending.add(key)
            task = self._copies.later(self._mend(key, data, lacking))
            task.add_done_callback(lambda _: self._mending.discard(key))
        return payload

    async def _read(self, node: Backend, key: bytes) -> bytes | None:
        async with self.gate(node):
            return await node.get(key)

    async def _mend(self, key: bytes, data: bytes, nodes: Sequence[Backend]) -> None:
        for node in nodes:
            try:
                async with self.gate(node):
                    await node.set(key, data)
                self._copies.counts.mended += 1
            except SfssError:
                self._copies.counts.late_failures += 1

    # --- removing ---

    async def remove(self, key: bytes, homes: Sequence[str]) -> None:
        """Remove a block from its homes, as far as they are here: what is left behind is swept."""
        nodes, _ = self._homes(key, homes)

        async def forget(node: Backend) -> None:
            try:
                async with self.gate(node):
                    await node.delete(key)
            except SfssError:
                pass

        await asyncio.gather(*map(forget, nodes))

    def check_apart(self) -> None:
        """Raises OneStore if two of the nodes are one: what is removed from one of them would be gone from both."""
        check_apart(self._topology().nodes.values())

    def gate(self, node: Backend) -> asyncio.Semaphore:
        """What a call with a block waits for, which is made of that node beside these."""
        gate = self._gates.get(node)
        if gate is None:
            gate = self._gates[node] = asyncio.Semaphore(_AT_A_NODE)
        return gate

    # --- within ---

    def _homes(self, key: bytes, names: Sequence[str]) -> tuple[list[Backend], Iterator[Backend]]:
        """The nodes of these names, those that have gone replaced by others; and all others, as the ring has them."""
        topology = self._topology()
        there = [topology.nodes[name] for name in names if name in topology.nodes]
        others = (node for node in topology.order(key) if node not in there)
        return there + list(itertools.islice(others, len(names) - len(there))), others


class _Search:
    """One read: a node is asked, and the next one when that fails, hasn't got it, or takes too long."""

    def __init__(self, copies: Copies, key: bytes, size: int, read: _Read) -> None:
        self.lacking: list[Backend] = []  # that haven't got it, or a damaged copy of it
        self._copies = copies
        self._key = key
        self._size = size
        self._read = read
        self._damage: Damaged | None = None
        self._failures: list[SfssError] = []

    async def among(self, nodes: Sequence[Backend]) -> tuple[bytes, memoryview] | None:
        """The record and the block in it, from one of these; None if none of them gives it."""
        queue = list(nodes)
        asked: dict[asyncio.Task[bytes | None], Backend] = {}
        try:
            while queue or asked:
                if not asked:
                    self._ask(asked, queue.pop(0))
                done, _ = await asyncio.wait(
                    asked, timeout=self._patience(asked) if queue else None, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    self._copies.counts.hedges += 1
                    self._ask(asked, queue.pop(0))
                for task in done:
                    if (found := self._hear(asked.pop(task), task)) is not None:
                        return found
            return None
        finally:
            for task in asked:
                task.cancel()

    def why_not(self) -> SfssError:
        """Why it wasn't found: to be asked again, damaged, or gone."""
        if self._failures:
            return Unavailable(f"a block of the file can't be had: {'; '.join(map(str, self._failures))}")
        return self._damage or Gone("a block of the file isn't there: it has been deleted, overwritten, or lost")

    def _ask(self, asked: dict[asyncio.Task[bytes | None], Backend], node: Backend) -> None:
        asked[self._copies.later(self._read(node, self._key))] = node

    def _patience(self, asked: dict[asyncio.Task[bytes | None], Backend]) -> float:
        # Blocks are larger than the records from which lateness was learnt.
        return max(10 * max(self._copies.latency(node).late for node in asked.values()), 50 * SHORTEST_HEDGE)

    def _hear(self, node: Backend, task: asyncio.Task[bytes | None]) -> tuple[bytes, memoryview] | None:
        error = task.exception()
        if error is not None:
            if not isinstance(error, SfssError):
                raise error
            self._failures.append(error)
            if isinstance(error, NodeRefused):  # as a node does that notices itself that its disk has lost it
                self.lacking.append(node)
            return None
        data = task.result()
        if data is None:
            self.lacking.append(node)
            return None
        try:
            return data, _checked(data, self._size)
        except Damaged as damage:
            self._copies.counts.damaged += 1
            self._damage = Damaged(f"the copy on node {node.address} is not served: {damage}")
            self.lacking.append(node)
            return None


def _checked(data: bytes, size: int) -> memoryview:
    """The content of a block's record. Raises Damaged."""
    found = record.decode(data)
    if found.header.kind != Kind.BLOCK or found.header.payload_size != size:
        kind = found.header.kind.name.lower()
        raise Damaged(f"it is a {kind} of {found.header.payload_size} bytes where a block of {size} belongs")
    return memoryview(found.payload)
