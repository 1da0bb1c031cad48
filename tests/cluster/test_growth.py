"""Nodes join and leave while fronts go over to the new configuration one by one: they see each other's writes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sfss.addresses import Address, parse_address
from sfss.backends.memcached import MemcachedNode
from sfss.cluster.repair import Repair
from sfss.cluster.replication import Cluster
from sfss.cluster.topology import ONE_COPY, Quorum, Topology
from sfss.errors import NodeAway
from sfss.node.server import Server
from sfss.record import Kind
from tests.cluster.support import MIB, QUICK, SAFE, connected, found, until, version
from tests.node.support import running
from tests.servers import HOST, free_ports

QUORUMS = {"one copy": ONE_COPY, "3 copies, 2 and 2": SAFE, "2 copies, 1 and 1": QUICK}

Moves = Callable[[list[str], list[str]], bool]  # whether a key with these owners, old and new, is wanted


class Growth:
    """Four nodes, of which the last one joins, and then the first one leaves."""

    def __init__(self, servers: dict[str, Server], addresses: list[Address], quorum: Quorum) -> None:
        self.servers = servers
        self.addresses = addresses
        self.quorum = quorum

    def topology(self, nodes: str, joining: str = "", leaving: str = "", known: Cluster | None = None) -> Topology:
        """Nodes are given by their numbers."""
        there = {} if known is None else {node.address: node for node in known.topology.nodes.values()}

        def some(numbers: str) -> list[MemcachedNode]:
            return [self._node(self.addresses[int(number)], there) for number in numbers]  # type: ignore[arg-type]

        return Topology(some(nodes), self.quorum, joining=some(joining), leaving=some(leaving))

    def _node(self, address: Address, known: dict[Address, MemcachedNode]) -> MemcachedNode:
        return known.get(address) or MemcachedNode(
            address, largest_value=MIB, timeout=2.0, connect_timeout=2.0, retry_after=0.1
        )

    def front(
        self, nodes: str, joining: str = "", leaving: str = ""
    ) -> contextlib.AbstractAsyncContextManager[Cluster]:
        return connected(Cluster(self.topology(nodes, joining, leaving)))

    def moving_key(
        self, moves: Callable[[list[str], list[str]], bool] = lambda old, new: set(old) != set(new)
    ) -> bytes:
        """One whose owners change when the last node joins."""
        old, new = self.topology("012"), self.topology("0123")
        while True:
            key = b"/growth/" + secrets.token_hex(8).encode()
            owners = [[node.address.name for node in ring.place(key).owners] for ring in (old, new)]
            if moves(*owners):
                return key

    def holders(self, key: bytes) -> set[int]:
        """The numbers of the nodes that have it."""
        return {int(name[-1]) for name, server in self.servers.items() if server.store.head(key) is not None}


@pytest.fixture(params=list(QUORUMS.values()), ids=list(QUORUMS))
async def growth(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Growth]:
    first = free_ports(4)
    addresses = [parse_address(f"node{number}={HOST}:{first + number}") for number in range(4)]
    async with contextlib.AsyncExitStack() as stack:
        servers = {
            address.name: await stack.enter_async_context(
                running(tmp_path / address.name, port=address.port, durability="os")
            )
            for address in addresses
        }
        yield Growth(servers, addresses, request.param)


async def test_fronts_that_know_of_a_join_and_those_that_do_not_see_each_others_writes(growth: Growth) -> None:
    async with growth.front("012") as old, growth.front("012", joining="3") as both:
        for _ in range(20):
            key = growth.moving_key()
            assert await old.put(key, version(1))
            assert await found(both, key) == 1
            assert await both.put(key, version(2))
            assert await found(old, key) == 2
            assert await both.delete(key, version(3, Kind.TOMBSTONE))
            assert await found(old, key) is None
            assert await old.put(key, version(4))
            assert await found(both, key) == 4


async def test_fronts_on_the_new_nodes_only_and_those_that_know_of_the_join_see_each_others_writes(
    growth: Growth,
) -> None:
    async with growth.front("012", joining="3") as both, growth.front("0123") as new:
        for _ in range(20):
            key = growth.moving_key()
            assert await both.put(key, version(1))
            assert await found(new, key) == 1
            assert await new.put(key, version(2))
            assert await found(both, key) == 2
            assert await new.delete(key, version(3, Kind.TOMBSTONE))
            assert await found(both, key) is None
            assert await both.put(key, version(4))
            assert await found(new, key) == 4


async def test_what_was_there_before_is_found_while_a_node_joins_and_while_one_leaves(growth: Growth) -> None:
    async with growth.front("012") as old:
        keys = [growth.moving_key() for _ in range(20)]
        for key in keys:
            assert await old.put(key, version(1))
            assert await growth_is_missed(old) is None
        for nodes, joining, leaving in (("012", "3", ""), ("12", "", "0"), ("12", "3", "0")):
            async with growth.front(nodes, joining, leaving) as both:
                assert [await found(both, key) for key in keys] == [1] * len(keys)
                assert await growth_is_missed(both) is None


async def growth_is_missed(cluster: Cluster) -> object:
    return await cluster.get(b"/growth/never/" + secrets.token_hex(4).encode())


async def test_a_key_that_moves_has_all_its_copies_on_both_rings_and_another_one_no_more_than_before(
    growth: Growth,
) -> None:
    async with growth.front("012", joining="3") as both:
        moving, copies = growth.moving_key(), growth.quorum.copies
        staying = growth.moving_key(lambda old, new: old == new)
        for key, count in ((moving, copies + 1), (staying, copies)):
            assert await both.put(key, version(1))
            await until(functools.partial(lambda key, count: len(growth.holders(key)) == count, key, count))


@pytest.mark.parametrize(
    "fronts", [[("012", ""), ("012", "3")], [("012", "3"), ("0123", "")], [("012", "3"), ("012", "3")]]
)
async def test_of_many_creators_on_two_configurations_one_succeeds(
    growth: Growth, fronts: list[tuple[str, str]]
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clusters = [await stack.enter_async_context(growth.front(*nodes)) for nodes in fronts]

        async def create(cluster: Cluster, key: bytes, number: int) -> int | None:
            there, token = await cluster.get_for_update(key)
            if there is None and await cluster.put_if(key, version(number), token):
                return number
            return None

        for _ in range(10):
            key = growth.moving_key(lambda old, new: old[0] != new[0])
            tries = [create(clusters[number % 2], key, number) for number in range(1, 9)]
            done = [number for number in await asyncio.gather(*tries) if number is not None]
            assert len(done) == 1
            # The winner's content stands, though it may have got another version.
            sizes = set()
            for cluster in clusters:
                record = await cluster.get(key)
                assert record is not None
                sizes.add(len(record.payload))
            assert sizes == set(done)


async def test_a_deleted_file_does_not_come_back_with_the_copy_that_is_left_where_it_was(growth: Growth) -> None:
    key = growth.moving_key()
    async with growth.front("012", joining="3") as both:
        assert await both.put(key, version(1))
        await until(lambda: len(growth.holders(key)) == growth.quorum.copies + 1)
        async with growth.front("0123") as new:
            assert await new.delete(key, version(2, Kind.TOMBSTONE))
            assert await found(both, key) is None
            assert await found(new, key) is None


async def test_a_cluster_goes_over_to_other_nodes_without_dropping_what_is_under_way(growth: Growth) -> None:
    async with growth.front("012") as cluster:
        keys = [growth.moving_key() for _ in range(50)]
        stop = asyncio.Event()
        rounds = 0

        async def client(key: bytes, number: int) -> None:
            nonlocal rounds
            while not stop.is_set():
                number += 1
                assert await cluster.put(key, version(number))
                assert await found(cluster, key) == number
                rounds += 1

        clients = [asyncio.create_task(client(key, 0)) for key in keys]
        for nodes, joining, leaving in (("012", "3", ""), ("0123", "", ""), ("123", "", "0")):
            seen = rounds
            await until(functools.partial(lambda seen: rounds > seen + 100, seen))
            await cluster.change(growth.topology(nodes, joining, leaving, known=cluster))
        await until(lambda: rounds > 500)
        stop.set()
        await asyncio.gather(*clients)
        assert set(cluster.ready().values()) == {None}


async def test_a_node_that_was_taken_away_is_parted_with(growth: Growth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfss.cluster.replication._PARTING", 0.05)
    async with growth.front("0123") as cluster:
        gone = cluster.topology.nodes["node0"]
        await cluster.change(growth.topology("123", known=cluster))
        assert await gone.get(b"/what/was/under/way") is None
        await until(lambda: gone.away is not None)
        with pytest.raises(NodeAway):
            await gone.get(b"/anything")
        assert list(cluster.ready()) == [str(growth.addresses[number]) for number in (1, 2, 3)]


async def test_a_node_that_was_taken_away_is_parted_with_at_the_end_too(growth: Growth) -> None:
    async with growth.front("0123") as cluster:
        gone = cluster.topology.nodes["node0"]
        await cluster.change(growth.topology("123", known=cluster))
        assert gone.away is None
    assert gone.away is not None


async def test_the_mark_of_a_single_copys_deletion_goes_by_itself(growth: Growth) -> None:
    if growth.quorum != ONE_COPY:
        return
    async with growth.front("0123") as cluster:
        key = b"/growth/" + secrets.token_hex(8).encode()
        assert await cluster.put(key, version(1))
        assert await cluster.delete(key, version(2, Kind.TOMBSTONE))
        [holder] = growth.holders(key)
        head = growth.servers[f"node{holder}"].store.head(key)
        assert head is not None
        assert head.expiry - growth.servers[f"node{holder}"].store.clock() == pytest.approx(86400, abs=3)


async def test_what_deletions_of_a_moving_single_copy_leave_goes_by_itself_too(growth: Growth) -> None:
    if growth.quorum != ONE_COPY:
        return
    async with growth.front("012", joining="3") as both:
        for conditional in (False, True):
            key = growth.moving_key()
            assert await both.put(key, version(1))
            if conditional:
                _, token = await both.get_for_update(key)
                assert await both.delete_if(key, version(2, Kind.TOMBSTONE), token)
            else:
                assert await both.delete(key, version(2, Kind.TOMBSTONE))
            holders = growth.holders(key)
            assert len(holders) == 2
            for number in holders:
                head = growth.servers[f"node{number}"].store.head(key)
                assert head is not None
                assert head.expiry


@pytest.mark.parametrize("whole", [False, True])
async def test_what_is_not_there_is_not_there_when_a_node_has_joined(growth: Growth, whole: bool) -> None:
    """Whether there was a repair before, so that a miss of a node without a mark doesn't count, or not."""
    async with growth.front("012") as old:
        if whole:
            assert (await Repair(old.topology, tombstone_ttl=86400).run()).well
    async with growth.front("012", joining="3") as both:
        assert (await Repair(both.topology, tombstone_ttl=86400, moving_only=True).run()).well
        async with growth.front("0123") as new:
            for cluster in (both, new):
                assert [await cluster.get(growth.moving_key()) for _ in range(20)] == [None] * 20
