"""A cluster as one node: keys that move, members that go and come back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from sfss.backends.redis import RedisNode
from sfss.errors import NodeError
from tests.backends.test_redis_node import client_of, gone, here
from tests.redis import DURABLE, Redis, redis_cluster
from tests.servers import HOST
from tests.test_record import make

pytestmark = pytest.mark.usefixtures("nothing_leaks")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[Redis]]:
    with redis_cluster(tmp_path, *DURABLE) as servers:
        yield servers


def key_in(low: int, high: int) -> bytes:
    """One whose slot is between two."""
    return next(key for n in range(100_000) if low <= key_slot(key := b"/%d" % n) <= high)


async def test_it_is_one_node_that_promises_what_its_members_do(cluster: list[Redis]) -> None:
    async with client_of(cluster[1].url) as client:
        can = client.capabilities
        assert can is not None
        assert (can.kind, can.durable, can.scan, can.caveats) == ("redis", True, False, ())
        assert can.version.endswith(", cluster")
        await asyncio.gather(*(client.set(b"/%d" % number, make(b"x")) for number in range(300)))
        assert (await client.stats())["curr_items"] == "300"
        assert (await client.stats())["members"] == "3"
        walk = client.keys()
        assert len([key async for keys in walk for key in keys]) == 300
        held = [int(server.ask("DBSIZE")[1:]) for server in cluster]
        assert min(held) > 50, "all have some"


async def test_a_key_is_found_while_its_slot_moves_and_after(cluster: list[Redis]) -> None:
    left, right = cluster[0], cluster[1]
    key = key_in(0, 5460)
    slot = key_slot(key)
    missing = b"/{%b}/other" % key  # another key of the slot, by its hash tag
    assert key_slot(missing) == slot
    ids = [server.ask("CLUSTER", "MYID").split(b"\r\n")[1].decode() for server in (left, right)]
    async with client_of(left.url) as client:
        await client.set(key, first := make(b"first", version=1))
        right.ask("CLUSTER", "SETSLOT", str(slot), "IMPORTING", ids[0])
        left.ask("CLUSTER", "SETSLOT", str(slot), "MIGRATING", ids[1])
        assert await client.get(key) == first, "it has not moved yet"
        assert await client.set(missing, make(b"new")), "what is new is made where the slot goes"
        assert await client.get(missing) == make(b"new")
        left.ask("MIGRATE", HOST, str(right.port), key.decode(), "0", "5000")
        assert await client.get(key) == first, "it is where the slot goes"
        assert await client.set(key, second := make(b"second", version=2))
        told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        client.get_soon(key, told.set_result)
        assert await told == second
        for server in cluster:
            server.ask("CLUSTER", "SETSLOT", str(slot), "NODE", ids[1])
        assert await client.get(key) == second
        assert await client.head(key)
        assert await client.delete(key)
        assert await client.add(key, first)
        found = await client.gets(key)
        assert found is not None
        assert await client.replace(key, second, found.token)


async def test_a_cluster_is_the_same_store_by_whichever_member(cluster: list[Redis]) -> None:
    async with client_of(cluster[0].url) as one, client_of(cluster[1].url) as same:
        assert len(one.identity) == 3
        assert not one.identity.isdisjoint(same.identity)


async def test_who_has_lost_a_member_is_away_until_it_is_back_even_if_it_was_the_urls(cluster: list[Redis]) -> None:
    async with client_of(cluster[0].url) as client:
        keys = [key_in(0, 5460), key_in(5461, 10922), key_in(10923, 16383)]
        for key in keys:
            await client.set(key, make(key))
        for number in (2, 0):
            await asyncio.to_thread(cluster[number].kill)
            await gone(client)
            with pytest.raises(NodeError):
                await client.get(keys[number])
            await asyncio.to_thread(cluster[number].start)
            await here(client, soon=20)
            async with asyncio.timeout(20):
                while [await found(client, key) for key in keys] != [make(key) for key in keys]:
                    await asyncio.sleep(0.05)


async def found(client: RedisNode, key: bytes) -> bytes | None:
    """What is there; nothing while the node fails."""
    try:
        return await client.get(key)
    except NodeError:
        return None


async def test_a_cluster_that_nobody_serves_whole_is_away_and_says_why(cluster: list[Redis]) -> None:
    for server in cluster:
        server.ask("CLUSTER", "DELSLOTSRANGE", "0", "10")
    async with client_of(cluster[1].url) as client:
        assert "11 of 16384 slots that nobody serves" in str(client.away)


async def test_databases_other_than_the_first_are_refused(cluster: list[Redis]) -> None:
    async with client_of(f"{cluster[0].url}/3") as client:
        assert "SELECT is not allowed in cluster mode" in str(client.away)


async def test_a_user_of_a_cluster_needs_one_right_more(cluster: list[Redis]) -> None:
    rights = "~* +@read +@write +@scripting +@connection +info +time +config|get +cluster|slots"
    for server in cluster:
        server.ask("ACL", "SETUSER", "files", "on", ">secret", *rights.split())
    async with client_of(cluster[0].url.replace("//", "//files:secret@")) as client:
        assert client.away is None
        assert await client.set(b"/k", b"v")
