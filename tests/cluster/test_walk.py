"""A walk tells every key of every node once, in order, whatever the nodes are, and goes on without those that fail."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from pathlib import Path

import pytest

from sfss.addresses import Address, parse_address
from sfss.backends.base import Backend, Capabilities, Listed
from sfss.backends.memcached import MemcachedNode
from sfss.cluster.pace import Pace
from sfss.cluster.sorting import SortedKeys
from sfss.cluster.walk import ALL_BUT_BLOCKS, BLOCKS, UNKNOWN, Batch, Walk
from sfss.errors import NodeBroken
from sfss.node.server import Server
from tests.backends.beansdb import beansdb
from tests.cluster.support import until
from tests.node.support import running
from tests.servers import HOST, memcached
from tests.test_record import make

PATIENCE = 0.3


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[list[Server]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(tmp_path / str(number), durability="os")) for number in range(3)]


@contextlib.asynccontextmanager
async def clients(ports: Iterable[int]) -> AsyncIterator[list[Backend]]:
    nodes: list[Backend] = [
        MemcachedNode(
            parse_address(f"{HOST}:{port}"), largest_value=2**20, timeout=5.0, connect_timeout=5.0, retry_after=0.1
        )
        for port in ports
    ]
    for node in nodes:
        await node.start()
    try:
        await until(lambda: not any(node.away for node in nodes))
        yield nodes
    finally:
        for node in nodes:
            await node.close()


def leave(server: Server, keys: Iterable[bytes], data: bytes = b"") -> None:
    for key in keys:
        server.store.put(key, 0, 0, data or make(b"of " + key), server.store.claim(key))


def some(count: int) -> set[bytes]:
    return {b"/walk/" + secrets.token_hex(4).encode() for _ in range(count)}


async def batches_of(walk: Walk) -> list[Batch]:
    async with contextlib.aclosing(walk.batches()) as batches:
        return [batch async for batch in batches]


def by_node(batches: list[Batch]) -> dict[Backend, list[bytes]]:
    """What each node told, batch by batch, sorted within."""
    told: dict[Backend, list[bytes]] = {}
    for batch in batches:
        for key in sorted(batch):
            for node, _ in batch[key]:
                told.setdefault(node, []).append(key)
    return told


@pytest.mark.parametrize("slice", [1, 7, 100, 1000])
async def test_each_key_is_told_once_with_all_who_have_it(servers: list[Server], slice: int) -> None:
    shared = some(150)
    own: list[set[bytes]] = [some(100), some(3), set()]
    for server, keys in zip(servers, own, strict=True):
        leave(server, keys)
    leave(servers[0], shared)
    leave(servers[2], shared)
    async with clients(server.port for server in servers) as nodes:
        walk = Walk(nodes, Pace(), slice=slice)
        batches = await batches_of(walk)
    assert by_node(batches) == {
        nodes[0]: sorted(own[0] | shared),
        nodes[1]: sorted(own[1]),
        nodes[2]: sorted(shared),
    }
    every = [key for batch in batches for key in batch]
    assert len(every) == len(set(every)) == 253
    ends = [(min(batch), max(batch)) for batch in batches if batch]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ends)), "batches are in order"
    assert walk.listed == 403
    assert walk.lost == {}
    item = batches[0][min(batches[0])][0].item
    assert item.header == make(b"of " + item.key)[: len(item.header)]
    assert item.size == len(make(b"of " + item.key))


async def test_where_there_is_nothing_there_are_no_batches(servers: list[Server]) -> None:
    async with clients(server.port for server in servers) as nodes:
        assert await batches_of(Walk(nodes, Pace())) == []


async def test_what_sfss_keeps_for_itself_is_not_told(servers: list[Server]) -> None:
    leave(servers[0], [b"#sfss/repair", b"#sfss/", b"#sfss", b"/a"])
    async with clients([servers[0].port]) as nodes:
        assert by_node(await batches_of(Walk(nodes, Pace()))) == {nodes[0]: [b"#sfss", b"/a"]}


async def test_nodes_that_do_not_scan_are_walked_in_the_same_order(servers: list[Server]) -> None:
    keys = sorted(some(2500))
    leave(servers[0], keys[::2])
    with memcached() as port:
        async with beansdb("bitcask", walked=True) as standin, clients((servers[0].port, port, standin.port)) as nodes:
            await asyncio.gather(*(nodes[1].set(key, b"x") for key in keys))
            await asyncio.gather(*(nodes[2].set(key, b"x") for key in keys[:100]))
            batches = await batches_of(Walk(nodes, Pace(), slice=100))
    assert by_node(batches) == {nodes[0]: keys[::2], nodes[1]: keys, nodes[2]: keys[:100]}
    assert max(map(len, batches)) <= 200
    told = next(batch[keys[1]] for batch in batches if keys[1] in batch)
    assert [item for _, item in told] == [Listed(keys[1], b"", UNKNOWN, UNKNOWN)] * 2


async def test_a_node_that_is_away_is_left_out_and_named(servers: list[Server]) -> None:
    for server in servers:
        leave(server, [b"/a"])
    async with clients(server.port for server in servers) as nodes:
        await servers[1].stop()
        while nodes[1].away is None:
            await asyncio.sleep(0.01)
        walk = Walk(nodes, Pace())
        assert not walk.hears_all
        assert by_node(await batches_of(walk)) == {nodes[0]: [b"/a"], nodes[2]: [b"/a"]}
        assert list(walk.lost) == [nodes[1]]
        assert not walk.hears_all


async def test_a_node_that_fails_in_the_middle_is_lost_from_there_on(servers: list[Server]) -> None:
    keys = sorted(some(500))
    for server in servers:
        leave(server, keys)
    async with clients(server.port for server in servers) as nodes:
        walk = Walk(nodes, Pace(), slice=20, patience=PATIENCE)
        async with contextlib.aclosing(walk.batches()) as batches:
            before: list[Batch] = [await anext(batches)]
            after: list[Batch] = []
            await servers[1].stop()
            async for batch in batches:
                (after if walk.lost else before).append(batch)
        assert list(walk.lost) == [nodes[1]]
        assert all(len(told) == 3 for batch in before for told in batch.values())
        assert all(len(told) == 2 for batch in after for told in batch.values())
        assert by_node(before + after)[nodes[0]] == keys


async def test_a_node_that_comes_back_in_time_is_not_lost(servers: list[Server], tmp_path: Path) -> None:
    keys = sorted(some(500))
    for server in servers:
        leave(server, keys)
    async with clients(server.port for server in servers) as nodes, contextlib.AsyncExitStack() as stack:
        walk = Walk(nodes, Pace(), slice=20, patience=20)
        async with contextlib.aclosing(walk.batches()) as batches:
            told = [await anext(batches)]
            port = servers[1].port
            await servers[1].stop()

            async def restart() -> None:
                await asyncio.sleep(0.5)
                await stack.enter_async_context(running(tmp_path / "1", port=port, durability="os"))

            restarting = asyncio.create_task(restart())
            told += [batch async for batch in batches]
            await restarting
        assert by_node(told) == dict.fromkeys(nodes, keys)
        assert walk.lost == {}


async def test_a_walk_that_is_given_up_leaves_nothing_behind(servers: list[Server]) -> None:
    leave(servers[0], some(500))
    async with clients([servers[0].port]) as nodes:
        others = asyncio.all_tasks()
        async with contextlib.aclosing(Walk(nodes, Pace(), slice=20).batches()) as batches:
            await anext(batches)
        assert asyncio.all_tasks() == others
        assert len(await nodes[0].scan(b"", 1000)) == 500


class Odd:
    """A node whose lists are wrong in a way that a real one's aren't."""

    address = Address(HOST, 1, "odd")
    capabilities = Capabilities("sfss", "1", True, False, True, True, True, scan=True, largest_value=2**20)
    away: str | None = None

    def __init__(self, *slices: list[bytes]) -> None:
        self._slices = list(slices)

    async def scan(self, _after: bytes, _count: int, _until: bytes = b"") -> list[Listed]:
        return [Listed(key, b"", 1, 1) for key in (self._slices.pop(0) if self._slices else [])]

    def keys(self) -> AsyncGenerator[list[bytes], None]:
        raise NotImplementedError


async def test_blocks_are_walked_apart_from_all_else_whatever_the_nodes_are(servers: list[Server]) -> None:
    blocks = [b"#b%025x/%d" % (stripe, number) for stripe in range(30) for number in range(12)]
    others = [b"#a", b"#c0/1", b"#u%025x" % 1, b"/a", b"/b", *some(50)]
    with memcached() as port:
        async with clients([servers[0].port, servers[1].port, port]) as nodes:
            leave(servers[0], blocks[::2] + others)
            leave(servers[1], blocks[1::2] + others)
            for key in (*blocks, *others):
                await nodes[2].set(key, make(b"x"))
            for within, expected in ((BLOCKS, blocks), (ALL_BUT_BLOCKS, others)):
                for slice in (1, 7, 1000):
                    batches = await batches_of(Walk(nodes, Pace(), within=within, slice=slice))
                    told = [key for batch in batches for key in sorted(batch)]
                    assert told == sorted(expected)


async def test_a_key_that_a_node_tells_twice_is_one(servers: list[Server]) -> None:
    odd = Odd([b"/a", b"/a", b"/b"], [b"/c"])
    [first, second] = await batches_of(Walk([odd], Pace(), slice=3))  # type: ignore[list-item]
    assert {key: len(told) for key, told in {**first, **second}.items()} == {b"/a": 1, b"/b": 1, b"/c": 1}


async def test_a_node_whose_lists_go_round_is_lost(servers: list[Server]) -> None:
    odd = Odd(*[[b"/a", b"/b"]] * 100)
    walk = Walk([odd], Pace(), slice=2, patience=PATIENCE)  # type: ignore[list-item]
    assert len(await batches_of(walk)) == 1
    assert "lists b'/b' behind b'/b'" in next(iter(walk.lost.values()))


async def test_keys_are_sorted_and_told_once_however_they_come() -> None:
    keys = some(5000)
    sorting = SortedKeys()
    for some_keys in (sorted(keys, reverse=True)[:3000], list(keys), list(keys)[:10]):
        await sorting.add(some_keys)
    taken: list[bytes] = []
    while found := await sorting.take(700):
        assert len(found) == 700 or len(taken) + len(found) == 5000
        taken += found
    sorting.close()
    assert taken == sorted(keys)


async def test_a_sort_that_is_given_up_can_be_closed_at_once() -> None:
    sorting = SortedKeys()
    await sorting.add(list(some(20000)))
    taking = asyncio.create_task(sorting.take(10))
    await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    sorting.close()


async def test_a_list_that_breaks_off_is_begun_again(servers: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    with memcached() as port:
        async with clients([port]) as nodes:
            await nodes[0].set(b"/a", b"x")
            whole, tries = nodes[0].keys, 0

            async def keys() -> AsyncGenerator[list[bytes], None]:
                nonlocal tries
                tries += 1
                async with contextlib.aclosing(whole()) as batches:
                    async for batch in batches:
                        yield batch
                        if tries == 1:
                            raise NodeBroken("node", "the list broke off")

            monkeypatch.setattr(nodes[0], "keys", keys)
            assert by_node(await batches_of(Walk(nodes, Pace(), patience=20))) == {nodes[0]: [b"/a"]}
            assert tries == 2
