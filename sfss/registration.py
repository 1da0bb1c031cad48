"""Nodes that announce themselves: who may come, under which name, with which weight; and how full all nodes are.

A node says its name, its address and its size again and again. Nothing is believed that can be asked: what answers at
the address must be the very node, and empty, before it is written into the roll (``cluster/members.py``). What follows
from that is done behind it (``cluster/growing.py``). A node that falls silent is away, as any other is; only who is
told to leaves.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from sfss import membership
from sfss.addresses import MEMCACHED, Address, parse_address
from sfss.backends.base import Backend
from sfss.cluster.members import Members
from sfss.cluster.replication import Cluster
from sfss.cluster.walk import OUR_OWN
from sfss.errors import BadRequest, NodeConflict, NoKey, NoNode, NotWelcome, SfssError, Unavailable
from sfss.membership import NAME, USUAL, Member, Roll, State, on_ring

log = logging.getLogger("sfss.members")

WAITING = "waiting"  # what a node is told that must wait for others to have come
SEED = "seed"  # a node of the configuration
_LOOKED_AT = 64  # items of a node that joins: sfss's own notes are fewer


class Announcement(msgspec.Struct, frozen=True):
    """What a node says of itself. ``id`` is its data directory's, ``capacity`` in bytes."""

    name: str
    address: str
    id: str
    capacity: int = 0
    version: str = ""
    takes_over: bool = False  # the place of one that is gone for good


class Answer(msgspec.Struct, frozen=True):
    """What it is told."""

    name: str
    state: str
    weight: float
    why: str = ""
    is_new: bool = False


class NodeTold(msgspec.Struct, frozen=True):
    """A node, as it is shown. Sizes in bytes; what isn't known is None."""

    name: str
    address: str
    state: str
    away: str | None  # why
    weight: float
    capacity: int | None = None
    used: int | None = None
    free: int | None = None
    fill: float | None = None  # used of capacity
    heartbeat: int | None = None  # seconds since the epoch when it last announced itself
    version: str | None = None


class Registrar:
    """Over one front's cluster. ``probe`` makes the client of a node that isn't of the cluster yet."""

    def __init__(
        self, cluster: Cluster, members: Members, *, enabled: bool, secret: str, probe: Callable[[Address], Backend]
    ) -> None:
        self._cluster = cluster
        self._members = members
        self._enabled = enabled
        self._secret = secret
        self._probe = probe
        self._heard: dict[str, int] = {}  # when nodes announced themselves here, by name

    @property
    def has_secret(self) -> bool:
        """Whether ``check_key`` asks for one."""
        return bool(self._secret)

    def check_key(self, given: str | None) -> None:
        """Whether whoever gives this key may have nodes come and go. Raises NotWelcome, NoKey."""
        if not self._enabled:
            raise NotWelcome(
                "nodes can't announce themselves to this front: set registration.enabled, on all fronts, or name the"
                " node in storage.joining"
            )
        if self._secret and not given:
            raise NoKey("the key is missing: give the node that of registration.secret (SFSS_NODE_KEY)")
        if self._secret and not hmac.compare_digest(_bytes(given or ""), _bytes(self._secret)):
            raise NotWelcome("the key isn't the right one: give the node that of registration.secret (SFSS_NODE_KEY)")

    async def announce(self, said: Announcement) -> Answer:
        """Take a node, or hear that it is still there. Raises BadRequest, NodeConflict, Unavailable, Unsupported."""
        address = _checked(said)
        if (seed := self._seed_named(said.name)) is not None:
            return self._answer_seed(seed, address)
        there = self._members.roll.get(said.name)
        if there is None or (there.id, there.host, there.port) != (said.id, address.host, address.port):
            answer = await self._take(said, address)
        else:
            answer = _answer(there)
        self._heard[said.name] = int(time.time())
        return answer

    async def leave(self, name: str) -> Answer:
        """Have a node's files moved away, and it from the ring. Raises NoNode, NodeConflict, Unavailable."""

        def edit(roll: Roll) -> Roll:
            node = roll.get(name)
            if node is None or self._seed_named(name) is not None:
                raise self._no_node(name)
            if node.state is State.LEAVING:
                return roll
            self._check_open(roll)
            there = self._there(name)
            if there is not None and there.away is not None:
                raise NodeConflict(
                    f"node {name} is away ({there.away}), and what it has must be moved: bring it back. If it is gone"
                    " for good start an empty one in its place, with --take-over, and run sfss repair; that can leave"
                )
            return membership.left_by(roll, name)

        node = (await self._members.change(edit)).get(name)
        assert node is not None
        return _answer(node)

    async def standings(self) -> Sequence[NodeTold]:
        """All nodes, by name."""
        await self._members.look_if_need_be()
        topology, roll = self._cluster.topology, self._members.roll
        nodes = list(topology.nodes.values())
        figures = await asyncio.gather(*map(_figures, nodes))
        joining, leaving = set(topology.joining), set(topology.leaving)
        found = []
        for node, stats in zip(nodes, figures, strict=True):
            name = node.address.name
            noted = roll.get(name)
            usual = SEED if name in self._members.plan.named else State.MEMBER.value
            state = "joining" if node in joining else "leaving" if node in leaving else usual
            found.append(self._standing(node, state, noted, stats))
        return sorted(found, key=lambda standing: standing.name)

    @property
    def doing(self) -> str:
        """What goes on for those that come and go, in a word."""
        return self._members.roll.doing

    # --- within ---

    def _seed_named(self, name: str) -> Backend | None:
        """The node of the configuration that is of this name on the ring, which leaves memcached's port out."""
        return next((node for node in self._seeds() if on_ring(node.address.name) == on_ring(name)), None)

    def _seeds(self) -> list[Backend]:
        nodes = self._cluster.topology.nodes
        return [nodes[name] for name in self._members.plan.named if name in nodes]

    def _answer_seed(self, seed: Backend, address: Address) -> Answer:
        if str(seed.address) != str(address):
            raise NodeConflict(
                f"the name {seed.address.name} is that of a node of the configuration, at {seed.address}: give this one"
                " another name, or change the address there"
            )
        return Answer(seed.address.name, SEED, 1.0)

    async def _take(self, said: Announcement, address: Address) -> Answer:
        """One that isn't in the roll so."""
        await self._members.look_if_need_be()
        self._check_not_another(said, address, self._members.roll)
        there = self._members.roll.get(said.name)
        if there is None and not self._members.roll.is_open:
            return Answer(said.name, WAITING, 1.0, "others have just come or gone: it joins when all fronts know")
        await self._check_is_it(said, address, empty=there is None or there.id != said.id)
        weight = membership.weight_for(said.capacity, await self._sizes())

        def edit(roll: Roll) -> Roll:
            self._check_not_another(said, address, roll)
            if roll.get(said.name) is not None:
                return membership.moved_to(roll, said.name, address, said.id)
            self._check_open(roll)
            return membership.joined_by(
                roll, Member(said.name, address.host, address.port, said.id, said.capacity, weight)
            )

        node = (await self._members.change(edit)).get(said.name)
        if node is None:  # it has left meanwhile
            raise Unavailable(f"node {said.name} was taken, and told to leave at once: try again")
        if there is None:
            log.info("node %s, %s, joins with the weight %g", node.name, node.address, node.weight / USUAL)
            return _answer(node, is_new=True)
        log.info("node %s is at %s now", node.name, node.address)
        return _answer(node)

    def _check_open(self, roll: Roll) -> None:
        """Raises NodeConflict if nothing may begin now."""
        if self._members.plan.moving:
            raise NodeConflict(
                "storage.joining or storage.leaving name nodes: first bring that to its end, then others can come or go"
            )
        if not roll.is_open:
            raise NodeConflict("other nodes have just come or gone, and not all fronts know it yet: try again")

    def _check_not_another(self, said: Announcement, address: Address, roll: Roll) -> None:
        """Raises NodeConflict if the name, the address or the node itself is another's."""
        for node in self._seeds():
            if str(node.address) == str(address):
                raise NodeConflict(f"{address} is node {node.address.name} of the configuration already")
        for other in roll.nodes:
            if other.name == said.name:
                self._check_same(said, other)
            elif other.id == said.id or str(other.address) == str(address):
                raise NodeConflict(
                    f"this node is on the ring as {other.name}, at {other.address}: it can't have two names"
                )

    def _check_same(self, said: Announcement, other: Member) -> None:
        """Of one that comes under a name that there is."""
        if other.id == said.id:
            return
        node = self._there(other.name)
        if node is not None and node.away is None:
            raise NodeConflict(f"the name {other.name} is taken, by the node at {other.address}: give this one another")
        if not said.takes_over:
            raise NodeConflict(
                f"the name {other.name} is that of the node at {other.address}, which is away, and this is another one."
                " If that is gone for good, with what it held, start this one with --take-over, and run sfss repair"
            )

    async def _check_is_it(self, said: Announcement, address: Address, *, empty: bool) -> None:
        """Look whether what answers there is this node. Raises NodeConflict, Unavailable."""
        node = self._probe(address)
        await node.start()
        try:
            if node.away is not None:
                raise NodeConflict(f"no node can be reached at {address} from here ({node.away}): see --advertise")
            stats = await node.stats()
            if stats.get("node_id") != said.id:
                raise NodeConflict(f"what answers at {address} isn't the node that says so: see --advertise")
            await self._members.look_if_need_be()
            there = self._there(said.name)
            if there is not None and await _is_a_twin(there, stats):
                raise NodeConflict(
                    f"the node {said.name} is here, at {there.address}, and this is another one over a copy of its data"
                    " directory: stop one of them"
                )
            if empty and any(not item.key.startswith(OUR_OWN) for item in await node.scan(b"", _LOOKED_AT)):
                raise NodeConflict(
                    f"node {said.name} isn't empty: what it holds could bring back what was deleted since. Start it on"
                    " an empty directory"
                )
        finally:
            await node.close()

    def _there(self, name: str) -> Backend | None:
        """The node of that name as this front has it; None if there is none. Raises Unavailable while it can't know.

        It knows the roll then, but has none of its nodes: each would be taken for one that is gone.
        """
        if not self._members.known:
            raise Unavailable("this front has yet to see which nodes there are: try again")
        return self._cluster.topology.nodes.get(name)

    async def _sizes(self) -> Sequence[tuple[int, int]]:
        """Capacity and weight of those that are on the ring and tell it."""
        roll = self._members.roll
        found = [(node.capacity, node.weight) for node in roll.nodes]
        seeds = self._seeds()
        for node, stats in zip(seeds, await asyncio.gather(*map(_figures, seeds)), strict=True):
            noted = roll.get(node.address.name)
            if noted is None and (capacity := _number(stats, "capacity", "total_space", "limit_maxbytes")):
                found.append((capacity, USUAL))
        return found

    def _no_node(self, name: str) -> SfssError:
        if self._seed_named(name) is not None:
            return NodeConflict(
                f"node {name} is one of the configuration: it leaves by storage.leaving (docs/operations/growing.rst)"
            )
        return NoNode(f"there is no node {name[:100]} that has announced itself: GET /nodes shows them")

    def _standing(self, node: Backend, state: str, noted: Member | None, stats: Mapping[str, str]) -> NodeTold:
        name = node.address.name
        capacity = _number(stats, "capacity", "total_space", "limit_maxbytes")
        used = _used(stats, capacity)
        heard = max(_number(stats, "announced") or 0, self._heard.get(name, 0)) or None
        if capacity is None and noted is not None:
            capacity = noted.capacity
        return NodeTold(
            name,
            str(node.address),
            state,
            node.away,
            (noted.weight if noted is not None else USUAL) / USUAL,
            capacity,
            used,
            None if used is None or capacity is None else max(capacity - used, 0),
            round(used / capacity, 4) if used is not None and capacity else None,
            heard,
            node.capabilities.version if node.capabilities is not None else None,
        )


def _answer(node: Member, *, is_new: bool = False) -> Answer:
    return Answer(node.name, node.state.value, node.weight / USUAL, is_new=is_new)


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _checked(said: Announcement) -> Address:
    """Where it answers. Raises BadRequest."""
    if not NAME.fullmatch(said.name):
        raise BadRequest(
            f"'{said.name[:100]}' is no name for a node: letters, digits, '_', '.' and '-', 100 of them at most, and a"
            " letter or digit first"
        )
    if not 8 <= len(said.id) <= 64 or not said.id.isalnum() or not said.id.isascii():
        raise BadRequest("a node's id is made of 8 to 64 letters and digits")
    if not 0 <= said.capacity < 2**62:
        raise BadRequest("a node's capacity is a number of bytes")
    try:
        address = parse_address(said.address)
    except ValueError:
        raise BadRequest(f"'{said.address[:100]}' is no address of a node: write host:port") from None
    if "=" in said.address or address.scheme != MEMCACHED or len(address.host) > 255:
        raise BadRequest("a node's address is host:port")
    return Address(address.host, address.port, said.name)


async def _figures(node: Backend) -> Mapping[str, str]:
    """What it tells; nothing if it doesn't."""
    if node.away is not None:
        return {}
    try:
        return await node.stats()
    except SfssError:
        return {}


async def _is_a_twin(node: Backend, stats: Mapping[str, str]) -> bool:
    """Whether it is another process with the same id as the one that tells these figures.

    Raises NodeError if it is here and doesn't say: it may be one.
    """
    if node.away is not None:
        return False
    there = await node.stats()
    return there.get("node_id") == stats["node_id"] and there.get("node_run") != stats.get("node_run")


def _number(stats: Mapping[str, str], *names: str) -> int | None:
    """The first of these figures that is told."""
    return next((int(stats[name]) for name in names if stats.get(name, "").isdigit()), None)


def _used(stats: Mapping[str, str], capacity: int | None) -> int | None:
    """Bytes of the capacity that are taken: those of the disk that aren't free, or of the items."""
    told, free = _number(stats, "used_space"), _number(stats, "avail_space")
    if told is None and free is not None and capacity is not None:
        return max(capacity - free, 0)
    return told if told is not None else _number(stats, "bytes")
