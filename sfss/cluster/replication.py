"""How several nodes act as one store of records: the ring chooses, a node keeps.

This is the whole of what ``files`` sees. Records go in and come out checked; keys, tokens and nodes stay below.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from sfss import record
from sfss.backends.base import Backend
from sfss.cluster.apart import one_store
from sfss.cluster.blocks import Blocks
from sfss.cluster.clock import Clock
from sfss.cluster.copies import Copies, Counts
from sfss.cluster.deciding import Deciding
from sfss.cluster.lacking import Lacking
from sfss.cluster.spread import Upon, put_newer
from sfss.cluster.topology import Place, Topology
from sfss.errors import Damaged, NodeError, OutOfSpace, SfssError, TooLarge, Unavailable
from sfss.record import Header, Record
from sfss.told import Tasks, Tell, outcome
from sfss.traffic import Observed, Taken

T = TypeVar("T")

_PARTING = 60.0  # seconds after which nothing is on its way any more to a node that was taken from the configuration


class Guard(enum.Enum):
    """What a conditional write stands on where there is no token."""

    ABSENT = "nothing lies there"
    NONE = "the node can't decide conditions: the write is not guarded"


class Token(NamedTuple):
    """The state that a conditional write stands on, for each node that decides."""

    place: Place
    states: Sequence[tuple[Backend, int | Guard]]
    seen: Header | None = None  # the newest version

    @property
    def is_guarded(self) -> bool:
        return all(state is not Guard.NONE for _, state in self.states)


class Cluster:
    """The nodes, and which of them keep a key's record. With one copy the owner is asked and nobody else."""

    def __init__(self, topology: Topology, *, tombstone_ttl: int = 86400, counts: Counts | None = None) -> None:
        """``tombstone_ttl``: seconds for which it is kept in mind that a file was deleted, at least."""
        self._topology = topology
        self._changed = asyncio.Event()
        self._copies = Copies(counts)
        self.blocks = Blocks(lambda: self._topology, self._copies)
        self._clock = Clock(lambda: self._nodes)
        self._tombstone_ttl = tombstone_ttl
        self._parting: dict[asyncio.Task[None], Backend] = {}
        self._writing, self._looking = Tasks(), Tasks()
        self._deciding = Deciding()

    async def start(self) -> None:
        """Connect to every node, or begin to try."""
        await asyncio.gather(*(node.start() for node in self._nodes))

    async def close(self) -> None:
        """Disconnect from every node."""
        await self._writing.close()
        await self._looking.close()
        await self._copies.close()
        parting = dict(self._parting)
        for task in parting:
            task.cancel()
        if parting:
            await asyncio.wait(parting)
        await asyncio.gather(*(node.close() for node in (*self._nodes, *parting.values())))

    @property
    def topology(self) -> Topology:
        """Who keeps what, at this moment."""
        return self._topology

    @property
    def changed(self) -> asyncio.Event:
        """Is set when another topology has taken the place of the present one."""
        return self._changed

    @property
    def lacking(self) -> Lacking:
        """The keys that are known to lack a copy."""
        return self._copies.lacking

    async def change(self, topology: Topology) -> None:
        """From now on this one. What has begun ends with the nodes that it began with; those that it lacks go then."""
        before = set(self._nodes)
        await asyncio.gather(*(node.start() for node in topology.nodes.values() if node not in before))
        self._topology = topology
        self._changed.set()
        self._changed = asyncio.Event()
        for node in before.difference(self._nodes):
            task = asyncio.create_task(_part_with(node))
            self._parting[task] = node
            task.add_done_callback(self._parting.pop)

    @property
    def tombstone_ttl(self) -> int:
        """Seconds for which it is kept in mind that a file was deleted, at least."""
        return self._tombstone_ttl

    def now(self) -> int:
        """The time for a new version, in microseconds since the epoch."""
        return self._clock.now()

    async def get(self, key: bytes) -> Record | None:
        """The record, checked; None if there is none for sure. Raises Damaged, Unavailable."""
        return await outcome(functools.partial(self.get_soon, key))

    def get_soon(self, key: bytes, tell: Tell[Record | None]) -> None:
        """Tell what ``get`` would return, or raise; perhaps before this returns."""
        place = self._topology.place(key)
        if (node := place.only) is not None:
            node.get_soon(key, functools.partial(_tell_checked, node, record.decode, tell))
        else:
            self._copies.read_soon(key, place, tell)

    async def get_latest(self, key: bytes, *, surely: bool = False) -> Record | None:
        """As ``get``; and also where reads don't see all writes, what the last change under a condition has left.

        Unless the node that decides is away: then it may for a moment be what was there before; or, if the caller wants
        it ``surely``, Unavailable is raised.
        """
        found = await self.get(key)
        if not self._topology.place(key).quorum.sees_all:
            with contextlib.suppress(*(() if surely else (Unavailable,))):
                there, _ = await self.get_for_update(key)
                if _is_older(found, there):
                    await self.put_right(key)
                    found = await self.get(key)
                if _is_older(found, there):
                    raise Unavailable("a read doesn't find yet what the node that decides has: try again")
        return found

    async def head(self, key: bytes) -> Header | None:
        """The record's header, checked; its payload isn't read where the owner can do without."""
        place = self._topology.place(key)
        if (node := place.only) is not None:
            data = await node.head(key)
            return None if data is None else _checked_header(node, data)
        found = await self._copies.find(key, place, whole=False)
        return None if found is None else found[0]

    def head_soon(self, key: bytes, tell: Tell[Header | None]) -> None:
        """Tell what ``head`` would return, or raise; perhaps before this returns."""
        place = self._topology.place(key)
        if (node := place.only) is not None:
            node.head_soon(key, functools.partial(_tell_checked, node, record.decode_head, tell))
        else:
            self._looking.run(self.head(key), tell)

    async def put_right(self, key: bytes) -> None:
        """Bring the newest version to all owners, as far as that can be: what was read has proved to be old."""
        place = self._topology.place(key)
        if place.only is None:
            await self._copies.put_right(key, place)

    async def hold(self, key: bytes, there: Header) -> None:
        """Have as many nodes keep what was seen there, or what is newer, as a write asks for: its own may have failed.

        Raises as ``put``, and Damaged.
        """
        place = self._topology.place(key)
        if place.only is None:
            await self._copies.hold(key, place, there.order)

    async def get_for_update(self, key: bytes) -> tuple[Header | None, Token]:
        """The present header, and the token with which ``put_if`` changes just this state.

        The key's first owner decides, and by what it has: if a newer version is seen elsewhere, it gets that first. Of
        a key that moves, the first owner by the old ring decides, and then the one by the new: for the fronts that know
        only one of the rings ask that one.
        """
        place = self._topology.place(key)
        deciders = place.deciders
        if not all(node.capabilities is None or node.capabilities.cas for node in deciders):
            there = await self.head(key)
            return there, Token(place, [(node, Guard.NONE) for node in deciders], there)
        found = [await self._state(node, key, place) for node in deciders]
        newest = max((header for header, _ in found if header is not None), key=lambda h: h.order, default=None)
        return newest, Token(place, [(node, state) for node, (_, state) in zip(deciders, found, strict=True)], newest)

    async def put(self, key: bytes, data: bytes) -> bool:
        """Store a record; returns when as many nodes keep it as are asked for.

        Raises TooLarge, OutOfSpace, Unavailable. False if a newer version was seen to lie there: nothing was done.
        """
        place = self._topology.place(key)
        if (node := place.only) is not None:
            return await node.set(key, data)
        return await self._copies.put(key, data, place)

    def put_soon(self, key: bytes, data: bytes, tell: Tell[bool]) -> None:
        """Tell what ``put`` would return, or raise; perhaps before this returns."""
        place = self._topology.place(key)
        if (node := place.only) is not None:
            node.set_soon(key, data, tell)
        else:
            self._writing.run(self._copies.put(key, data, place), tell)

    async def put_if(self, key: bytes, data: bytes, token: Token, *, by_order: bool = False) -> bool:
        """Store a record if the state is still the token's; False if it isn't. Raises as ``put``.

        ``by_order``: who is to come last has been settled elsewhere. What is seen to have come meanwhile in an older
        version is overwritten; else it might have been acknowledged, and is put above this one.
        """
        if token.is_guarded:
            return await self._decide(key, data, token, by_order=by_order)
        return await self._in_turn(key, token, functools.partial(self.put, key, data))

    async def delete(self, key: bytes, tombstone: bytes) -> bool:
        """Put the tombstone in the place of what lies there, so that no copy that was away brings it back.

        False if a newer version was seen to lie there. A single copy's tombstone goes by itself after its time; others
        go when repair has seen that they are everywhere.
        """
        place = self._topology.place(key)
        if place.quorum.copies > 1:
            return await self._copies.put(key, tombstone, place)
        return all([await self._bury(node, key, tombstone) for node in place.owners])

    async def delete_if(self, key: bytes, tombstone: bytes, token: Token, *, by_order: bool = False) -> bool:
        """As ``delete``, if the state is still the token's; False if it isn't. ``by_order`` as in ``put_if``."""
        if not token.is_guarded:
            return await self._in_turn(key, token, functools.partial(self.delete, key, tombstone))
        expiry = self._tombstone_ttl if token.place.quorum.copies == 1 else 0
        return await self._decide(key, tombstone, token, expiry, by_order=by_order)

    def counts(self) -> dict[str, int]:
        """What happened to copies since the start."""
        counts = self._copies.counts
        return dict(zip(counts.NAMES, counts.cells, strict=True))

    def ready(self) -> dict[str, str | None]:
        """Each node's address, with why it is away, or None if it is here."""
        return {str(node.address): node.away for node in self._nodes}

    def capabilities(self) -> dict[str, dict[str, object]]:
        """What each node was seen to be able to do, by its address."""
        return {str(node.address): node.capabilities._asdict() if node.capabilities else {} for node in self._nodes}

    def warnings(self) -> Sequence[str]:
        """What is wrong with the nodes together."""
        return one_store(self._nodes)

    def traffic(self) -> dict[str, Taken]:
        """What came of requests to each node since this was asked last, where its client counts; by its address."""
        return {str(node.address): node.traffic.take() for node in self._nodes if isinstance(node, Observed)}

    def states(self) -> dict[str, int]:
        """How many nodes stay, come and go."""
        topology = self._topology
        joining = len(topology.joining)
        return {"member": topology.size - joining, "joining": joining, "leaving": len(topology.leaving)}

    async def stats(self, took: MutableMapping[str, float] | None = None) -> dict[str, dict[str, str]]:
        """The figures of every node by its address, asked all at once; ``{}`` for one that didn't answer.

        ``took`` is told in how many seconds each one answered that did. Raises Unavailable if none did.
        """
        nodes = self._nodes
        times: MutableMapping[str, float] = {} if took is None else took
        answers = await asyncio.gather(*(_timed_stats(node, times) for node in nodes), return_exceptions=True)
        found: dict[str, dict[str, str]] = {}
        for node, answer in zip(nodes, answers, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, NodeError):
                raise answer
            found[str(node.address)] = {} if isinstance(answer, BaseException) else answer
        if not any(found.values()):
            reasons = "; ".join(str(answer) for answer in answers)
            raise Unavailable(f"none of the {len(nodes)} nodes answers: {reasons}")
        return found

    @property
    def _nodes(self) -> list[Backend]:
        return list(self._topology.nodes.values())

    async def _bury(self, node: Backend, key: bytes, tombstone: bytes) -> bool:
        """Put a tombstone in the place of a single copy; it goes by itself."""
        if node.capabilities and not node.capabilities.ttl:
            await node.delete(key)
            return True
        try:
            return await node.set(key, tombstone, self._tombstone_ttl)
        except OutOfSpace:  # to delete must be possible just then; what is given up is the memory of it
            await node.delete(key)
            return True

    async def _state(self, node: Backend, key: bytes, place: Place) -> tuple[Header | None, int | Guard]:
        """What the node decides by: the newest version that there is, which it is given first if it hasn't got it."""
        header, state = await self._state_at(node, key)
        if place.only or not await self._bring_newer(node, key, header, place):
            return header, state
        return await self._state_at(node, key)

    async def _state_at(self, node: Backend, key: bytes) -> tuple[Header | None, int | Guard]:
        found = await node.gets(key)
        return (None, Guard.ABSENT) if found is None else (_checked_header(node, found.data), found.token)

    async def _bring_newer(self, node: Backend, key: bytes, header: Header | None, place: Place) -> bool:
        """Give the node the newest version there is, if what it has is older; False if it isn't.

        What is as new isn't written again: that would take the state away from under another caller's token.
        """
        newest = await self._copies.find(key, place, whole=False)
        if newest is None or (header is not None and newest[0].order <= header.order):
            return False
        newest = await self._copies.find(key, place, whole=True)
        if newest is not None and newest[1] is not None:
            await put_newer(node, key, newest[1], newest[0])
        return True

    async def _in_turn(self, key: bytes, token: Token, write: Callable[[], Awaitable[bool]]) -> bool:
        """No node decides: this process does, for those who write through it. Others may come between unnoticed."""
        async with self._deciding.turn(key):
            there, seen = await self.head(key), token.seen
            if (None if there is None else there.order) != (None if seen is None else seen.order):
                return False
            return await write()

    async def _decide(self, key: bytes, data: bytes, token: Token, expiry: int = 0, *, by_order: bool = False) -> bool:
        """Have the nodes that decide take the record upon the token's states, and then the others."""
        decided: list[Backend] = []
        try:
            return await self._decide_by_turns(key, data, token, expiry, decided, by_order=by_order)
        except (OutOfSpace, TooLarge) as error:
            if not decided:
                raise
            raise Unavailable(
                f"nodes that decide have taken the record, and others refuse it: {error}. Whether it is kept is not"
                " known; try again, that is safe"
            ) from error

    async def _decide_by_turns(
        self, key: bytes, data: bytes, token: Token, expiry: int, decided: list[Backend], *, by_order: bool
    ) -> bool:
        """``decided`` is told which nodes have taken it."""
        place = token.place
        for node, state in token.states:
            if state is Guard.ABSENT:
                done = await node.add(key, data)
            else:
                assert isinstance(state, int)
                done = await node.replace(key, data, state, expiry)
            if not done:
                if decided and not by_order and (there := await node.get(key)) is not None:
                    await self._give_way(key, data, there, place)
                return False
            decided.append(node)
        if not place.only:
            overtaken_by = await self._copies.put_decided(key, data, place, decided, Upon(token.seen, by_order))
            if overtaken_by is not None:
                await self._give_way(key, data, overtaken_by, place)
        return True

    async def _give_way(self, key: bytes, data: bytes, there: bytes, place: Place) -> None:
        """Some have taken the record, and others have another one that is to stand: let that be the newest."""
        ours, theirs = record.decode_header(data)[0], record.decode(there)
        if theirs.header.order < ours.order:
            header = msgspec.structs.replace(theirs.header, version=ours.version + 1)
            there = record.encode(header, theirs.payload)
        await self._copies.put(key, there, place)


def _is_older(found: Record | None, there: Header | None) -> bool:
    return there is not None and (found is None or found.header.order < there.order)


async def _timed_stats(node: Backend, took: MutableMapping[str, float]) -> dict[str, str]:
    began = time.monotonic()
    figures = await node.stats()
    took[str(node.address)] = time.monotonic() - began
    return figures


async def _part_with(node: Backend) -> None:
    """Disconnect when what was asked of the node when it was still one of ours must have ended."""
    await asyncio.sleep(_PARTING)
    await node.close()


def _tell_checked(
    node: Backend, decode: Callable[[bytes], T], tell: Tell[T | None], data: bytes | SfssError | None
) -> None:
    if data is None or isinstance(data, SfssError):
        tell(data)
        return
    try:
        found: T | SfssError = decode(data)
    except Damaged as error:
        found = _on(node, error)
    tell(found)


def _checked_header(node: Backend, data: bytes) -> Header:
    try:
        return record.decode_header(data)[0]
    except Damaged as error:
        raise _on(node, error) from None


def _on(node: Backend, error: Damaged) -> Damaged:
    return Damaged(f"the copy on node {node.address} is not served: {error}")
