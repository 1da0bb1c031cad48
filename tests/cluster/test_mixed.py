"""Nodes of different kinds in one cluster, each used for what it can do: ours, memcached, Beansdb."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from sfss.addresses import parse_address
from sfss.backends.memcached import MemcachedNode
from sfss.cluster import wholeness
from sfss.cluster.repair import Repair
from sfss.cluster.replication import Cluster
from sfss.cluster.topology import Topology
from sfss.record import Kind
from tests.backends.beansdb import beansdb
from tests.cluster.support import MIB, QUICK, SAFE, connected, found, version
from tests.node.support import running
from tests.servers import HOST, PATIENT, free_port, memcached


class Mixed(NamedTuple):
    """A front, and what makes another one."""

    cluster: Cluster
    another: Callable[[], contextlib.AbstractAsyncContextManager[Cluster]]


@pytest.fixture(params=[SAFE, QUICK], ids=["3 copies, 2 and 2", "2 copies, 1 and 1"])
async def mixed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Mixed]:
    async with contextlib.AsyncExitStack() as stack:
        ours = free_port()
        await stack.enter_async_context(running(tmp_path / "ours", port=ours, durability="os"))
        old = await stack.enter_async_context(beansdb("bitcask", walked=True))
        names = [
            f"ours={HOST}:{ours}",
            f"memcached={HOST}:{stack.enter_context(memcached())}",
            f"old={HOST}:{old.port}",
        ]

        def front() -> contextlib.AbstractAsyncContextManager[Cluster]:
            nodes = [MemcachedNode(parse_address(name), largest_value=MIB, **PATIENT) for name in names]
            return connected(Cluster(Topology(nodes, request.param)))

        yield Mixed(await stack.enter_async_context(front()), front)
        assert old.violations == []


def some_keys(count: int = 30) -> list[bytes]:
    return [b"/mixed/" + secrets.token_hex(8).encode() for _ in range(count)]


async def test_files_come_change_and_go(mixed: Mixed) -> None:
    for key in some_keys():
        assert await mixed.cluster.get(key) is None
        for number in (1, 2):
            assert await mixed.cluster.put(key, version(number))
            await settled(mixed.cluster, key, number)
            assert await found(mixed.cluster, key) == number
        assert await mixed.cluster.delete(key, version(3, Kind.TOMBSTONE))
        await settled(mixed.cluster, key, 3)
        assert await found(mixed.cluster, key) is None


async def settled(cluster: Cluster, key: bytes, number: int) -> None:
    """Come back when all owners have a version: where one read is enough it may be of a node that hasn't got it yet."""

    whole = version(number, Kind.TOMBSTONE if number == 3 else Kind.FILE)

    async def agreed() -> bool:
        heads = [await node.head(key) for node in cluster.topology.place(key).owners]
        return all(head is not None and whole.startswith(head) for head in heads)

    async with asyncio.timeout(10):
        while not await agreed():
            await asyncio.sleep(0.01)


async def test_of_many_creators_one_succeeds_wherever_the_first_owner_is(mixed: Mixed) -> None:
    async with mixed.another() as other:
        for key in some_keys():

            async def create(cluster: Cluster, number: int, key: bytes = key) -> bool:
                there, token = await cluster.get_for_update(key)
                return there is None and await cluster.put_if(key, version(number), token)

            done = await asyncio.gather(*(create((mixed.cluster, other)[n % 2], n) for n in range(1, 7)))
            assert done.count(True) == 1


async def test_repair_fills_each_by_what_it_can(mixed: Mixed) -> None:
    topology = mixed.cluster.topology
    keys = some_keys(60)
    for key in keys:
        assert await mixed.cluster.put(key, version(1))
        await settled(mixed.cluster, key, 1)
        await topology.place(key).owners[0].delete(key)
    summary = await Repair(topology, tombstone_ttl=86400).run()
    assert summary.well
    assert summary.copies_written == len(keys)
    for key in keys:
        assert all([await node.get(key) == version(1) for node in topology.place(key).owners])
    again = await Repair(topology, tombstone_ttl=86400).run()
    assert (again.copies_written, again.well) == (0, True)


async def test_a_memcached_that_forgot_everything_is_not_believed(mixed: Mixed) -> None:
    key = some_keys(1)[0]
    assert (await Repair(mixed.cluster.topology, tombstone_ttl=86400).run()).well  # which marks the nodes
    assert await mixed.cluster.put(key, version(1))
    await settled(mixed.cluster, key, 1)
    node = mixed.cluster.topology.nodes["memcached"]
    for name in (wholeness.MARK, key):
        await node.delete(name)
    async with mixed.another() as cluster:
        assert [lost.address.name for lost in await wholeness.missing_marks(cluster.topology.nodes.values())] == [
            "memcached"
        ]
        for _ in range(10):
            assert await found(cluster, key) == 1
