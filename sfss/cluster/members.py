"""The roll of nodes that have come by themselves, as all fronts share it.

It says who is on the ring, so it can't lie where the ring says: every node has it, under one key, and the newest that
any of them has counts. A front asks those of its configuration, and those that it learns of by that; whoever lacks the
newest is given it. Asking any one of them that wasn't emptied is enough to know the stage before the last, at least,
for there is no next stage before all of them have the present one.

It is changed at one node, the first of the configuration by name, under the condition that there it is still what was
read: of two fronts that change it at once one begins again. While that node is away it stays as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from sfss import record
from sfss.addresses import Address
from sfss.backends.base import Backend
from sfss.cluster.apart import one_store
from sfss.cluster.replication import Cluster
from sfss.cluster.spread import put_newer
from sfss.cluster.topology import Topology
from sfss.errors import Damaged, NodeRefused, SfssError, Unavailable, Unsupported
from sfss.membership import Roll
from sfss.record import Header, Kind

log = logging.getLogger("sfss.members")

T = TypeVar("T")

KEY = b"#sfss/members"
_RACES = 16  # how often a change begins again because another one came between
_GLANCE = 1.0  # seconds between two glances whether a node has come: it may know more ...
_FIRST_GLANCE = 0.05  # ... and while none of them has answered yet
_LEAST_PATIENCE = 0.5  # seconds for a node to answer
_NONE = (0, 0)  # the order of what isn't there

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Roll)


class Plan(NamedTuple):
    """What a front's configuration makes of a roll."""

    seeds: Sequence[str]  # the names of its own nodes, which neither join nor leave
    named: Sequence[str]  # of all that it names
    moving: bool  # it has nodes join or leave by itself
    # The topology with those of the roll, None while it isn't known; nodes that are known stay, connected.
    lay: Callable[[Roll | None, Mapping[Address, Backend]], Topology]


class _Found(NamedTuple):
    """What a node has."""

    order: tuple[int, int] = _NONE
    data: bytes = b""
    roll: Roll = Roll()


class Members:
    """The roll, as one front knows it; and the cluster's topology, which is laid anew whenever it changes."""

    def __init__(self, cluster: Cluster, plan: Plan, *, refresh: float = 30.0) -> None:
        """``refresh``: seconds until it is read again; all fronts have the same."""
        self.roll = Roll()
        self.known = False  # whether any node has told since the start
        self.since = 0.0  # when this front went over to it, by ``time.monotonic``
        self.everywhere = False  # whether all nodes had it, when they were asked last
        self.refresh = refresh
        self._cluster = cluster
        self._plan = plan
        self._order = _NONE
        self._data = b""
        self._heard: set[Backend] = set()  # who answered when they were asked last
        self._one_store: Sequence[str] = ()  # what was said of nodes that are the same
        self._front = secrets.randbits(32)
        self._looking, self._changing = asyncio.Lock(), asyncio.Lock()
        self._connections: Mapping[Backend, float | None] = {}  # on which they were asked last
        self._task: asyncio.Task[None] | None = None

    @property
    def plan(self) -> Plan:
        """What the configuration says."""
        return self._plan

    async def start(self) -> None:
        """Connect to the nodes, read what they have, and go on looking."""
        await self._lay(None)
        await self._cluster.start()
        await self.look()
        self._task = asyncio.create_task(self._look_again_and_again(), name="members")

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def reconfigure(self, plan: Plan) -> None:
        """Go over to another configuration."""
        async with self._looking:
            self._plan = plan
            await self._lay(self.roll if self.known else None)
        await self.look()

    async def look(self) -> None:
        """Learn what the nodes have, and give the newest to those that lack it. Who is away, or fails, is left out."""
        async with self._looking:
            asked: set[Backend] = set()
            found: dict[Backend, _Found] = {}
            self._connections = {node: node.since for node in self._nodes}
            while new := [node for node in self._nodes if node not in asked and node.away is None]:
                asked.update(new)
                found.update(await self._ask(new))
                if found:
                    await self._learn(found.values())
            self._heard = found.keys() & set(self._nodes)
            lacking = [node for node, it in found.items() if it.order < self._order]
            given = await self._give(lacking)
            self._say_if_two_are_one()
            self.everywhere = all(node in found and (node not in lacking or node in given) for node in self._nodes)

    async def look_if_need_be(self) -> None:
        """Look now, if this front doesn't know which nodes there are: it has just started, or stood still."""
        if not self.known:
            await self.look()

    async def change(self, edit: Callable[[Roll], Roll]) -> Roll:
        """Put what ``edit`` makes of the present roll in its place; it is asked again if another change came between.

        Raises what ``edit`` raises; Unavailable, Unsupported if there is nobody who could decide.
        """
        async with self._changing:
            for _ in range(_RACES):
                await self.look()
                roll, order = self.roll, self._order
                decider = self._decider()
                there = await decider.gets(KEY)
                found = _Found() if there is None else _decoded(decider, there.data)
                if found.order != order or not self.known:  # the latter if this front stood still meanwhile
                    continue
                new = edit(roll)
                if new == roll:
                    return roll
                header, data = self._record(new)
                if there is None:
                    done = await decider.add(KEY, data)
                else:
                    done = await decider.replace(KEY, data, there.token)
                if done:
                    await self._changed(_Found(header.order, data, new))
                    return new
        raise Unavailable(f"which nodes there are changed {_RACES} times meanwhile: try again")

    # --- within ---

    @property
    def _nodes(self) -> list[Backend]:
        return list(self._cluster.topology.nodes.values())

    def _backends(self) -> Mapping[Address, Backend]:
        return {node.address: node for node in self._nodes}

    def _decider(self) -> Backend:
        """Who decides about changes. Raises Unavailable, Unsupported."""
        if len(self._heard) * 2 <= len(self._nodes):  # a node that was emptied isn't to decide alone
            raise Unavailable(
                f"only {len(self._heard)} of {len(self._nodes)} nodes answer: nodes come and go only while most do"
            )
        nodes = self._cluster.topology.nodes
        for name in sorted(self._plan.seeds):
            node = nodes[name]
            if node.capabilities is None:
                raise Unavailable(f"node {node.address} isn't here, which decides about nodes that come and go")
            if node.capabilities.cas:
                return node
        raise Unsupported(
            str(nodes[self._plan.seeds[0]].address),
            "none of the nodes of the configuration can decide conditions, so no others can join by themselves",
        )

    async def _ask(self, nodes: Iterable[Backend]) -> dict[Backend, _Found]:
        """What each of these has that answers."""
        nodes = list(nodes)
        answers = await asyncio.gather(*(self._in_time(node.get(KEY)) for node in nodes), return_exceptions=True)
        found: dict[Backend, _Found] = {}
        for node, answer in zip(nodes, answers, strict=True):
            if isinstance(answer, BaseException):
                if not isinstance(answer, SfssError | TimeoutError):
                    raise answer
            else:
                with contextlib.suppress(NodeRefused):
                    found[node] = _Found() if answer is None else _decoded(node, answer)
        return found

    async def _learn(self, found: Iterable[_Found]) -> None:
        """Go over to the newest."""
        newest = max(found, key=lambda it: it.order)
        if newest.order > self._order:
            await self._lay(newest.roll)
            self._order, self._data, self.roll = newest.order, newest.data, newest.roll
            self.since = time.monotonic()
        elif not self.known:
            await self._lay(self.roll)
        self.known = True

    async def _forget(self) -> None:
        """This front stood still so long that others may be two stages ahead: it doesn't guess until it has looked."""
        log.warning("this front stood still for a while (was it stopped, or its machine?): nothing is served until it"
                    " has seen which nodes there are, in a moment")  # fmt: skip
        async with self._looking:
            self.known = False
            await self._lay(None)

    async def _lay(self, roll: Roll | None) -> None:
        await self._cluster.change(self._plan.lay(roll, self._backends()))

    async def _give(self, nodes: Iterable[Backend]) -> set[Backend]:
        """Give these nodes the newest; which of them have it then."""
        nodes = list(nodes)
        if not nodes:
            return set()
        header = record.decode_header(self._data)[0]
        given = await asyncio.gather(
            *(self._in_time(put_newer(node, KEY, self._data, header)) for node in nodes), return_exceptions=True
        )
        for outcome in given:
            if isinstance(outcome, BaseException) and not isinstance(outcome, SfssError | TimeoutError):
                raise outcome
        return {node for node, outcome in zip(nodes, given, strict=True) if not isinstance(outcome, BaseException)}

    def _say_if_two_are_one(self) -> None:
        before, self._one_store = self._one_store, one_store(self._nodes)
        for words in self._one_store:
            if words not in before:
                log.error("%s", words)

    async def _in_time(self, call: Coroutine[Any, Any, T]) -> T:
        """A node that hangs mustn't make a look so long that the next one is late. Raises TimeoutError."""
        async with asyncio.timeout(max(self.refresh / 4, _LEAST_PATIENCE)):
            return await call

    async def _changed(self, found: _Found) -> None:
        """This front has changed it: go over to that, and bring it to all."""
        async with self._looking:
            await self._learn([found])
        await self.look()

    def _record(self, roll: Roll) -> tuple[Header, bytes]:
        version = max(self._cluster.now(), self._order[0] + 1)
        return record.of_state(Kind.DOCUMENT, _encoder.encode(roll), version, self._front)

    async def _look_again_and_again(self) -> None:
        loop = asyncio.get_running_loop()
        looked = loop.time()
        while True:
            left = max(looked + self.refresh - loop.time(), _FIRST_GLANCE)
            await asyncio.sleep(min(_GLANCE if self.known else _FIRST_GLANCE, left))
            has_come = any(node.since not in (None, self._connections.get(node)) for node in self._nodes)
            has_not_told = not self.known and any(node.away is None for node in self._nodes)
            if not has_come and not has_not_told and loop.time() - looked < self.refresh:
                continue
            late, looked = loop.time() - looked > 2 * self.refresh, loop.time()
            try:
                if late:
                    await self._forget()
                await self.look()
            except Exception:  # the next look is to be had in any case
                log.exception("which nodes there are can't be read")


def _decoded(node: Backend, data: bytes) -> _Found:
    """What a node has; none if it is damaged. Raises NodeRefused if it can't be understood."""
    try:
        found = record.decode(data)
    except Damaged:
        return _Found()
    try:
        return _Found(found.header.order, data, _decoder.decode(found.payload))
    except msgspec.DecodeError as error:  # its checksum holds, so it was written so: by a newer version
        log.error("node %s has a list of nodes that this version of sfss can't read: upgrade this one: %s",
                  node.address, error)  # fmt: skip
        raise NodeRefused(str(node.address), "its list of nodes can't be read by this version of sfss") from None
