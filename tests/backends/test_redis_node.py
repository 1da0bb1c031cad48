"""What is Redis's own about a ``RedisNode``: what it promises and refuses, how it fails, and how it comes back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sfss import record
from sfss.addresses import parse_address
from sfss.backends.redis import RedisNode
from sfss.backends.resp.scripts import INDEX, INDEXED
from sfss.errors import NodeAway, NodeBroken, NodeError, NodeRefused, NodeTimeout, OutOfSpace, SfssError, TooLarge
from tests.backends.contract import MIB
from tests.redis import DURABLE, Redis, redis
from tests.servers import stop_in_its_tracks
from tests.test_record import make

pytestmark = pytest.mark.usefixtures("nothing_leaks")


@contextlib.asynccontextmanager
async def client_of(url: str, **options: float) -> AsyncIterator[RedisNode]:
    """A started client of the node there."""
    quick = {"connect_timeout": 2.0, "timeout": 2.0, "retry_after": 0.2}
    client = RedisNode(parse_address(url), largest_value=8 * MIB, **{**quick, **options})
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def here(client: RedisNode, *, soon: float = 10) -> None:
    """Wait until the node is."""
    async with asyncio.timeout(soon):
        while client.away is not None:
            await asyncio.sleep(0.01)


async def gone(client: RedisNode, *, soon: float = 10) -> str:
    """Wait until the node is away; why."""
    async with asyncio.timeout(soon):
        while client.away is None:
            await asyncio.sleep(0.01)
    return client.away


async def stored(client: RedisNode, data: bytes) -> bool:
    """Whether it can be, now."""
    try:
        return await client.set(b"/stored", data)
    except NodeError:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """One that keeps nothing on its disk, shared by tests that leave it as it was."""
    with redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


# --- what it promises ---


@pytest.mark.parametrize(
    ("options", "durable", "evicting", "scan", "caveats"),
    [
        (DURABLE, True, False, True, []),
        (("--appendonly", "yes"), False, False, True, ["may lose the files of its last second"]),
        (("--appendonly", "yes", "--appendfsync", "no"), False, False, True, ["last half minute"]),
        ((), False, False, True, ["in memory only"]),
        ((*DURABLE, "--maxmemory", "64mb"), True, False, True, []),
        (
            (*DURABLE, "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"),
            True, True, False, ["maxmemory-policy allkeys-lru"],
        ),
        (
            (*DURABLE, "--maxmemory", "64mb", "--maxmemory-policy", "volatile-ttl"),
            True, True, True, ["maxmemory-policy volatile-ttl"],
        ),
        ((*DURABLE, "--maxmemory-policy", "allkeys-lru"), True, False, True, []),
        ((*DURABLE, "--rename-command", "CONFIG", ""), False, False, True, ["CONFIG GET is refused"]),
    ],
)  # fmt: skip
async def test_it_is_seen_what_it_promises_as_it_is_set_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: tuple[str, ...], durable: bool, evicting: bool,
    scan: bool, caveats: list[str],
) -> None:  # fmt: skip
    with redis(tmp_path, *options) as server:
        async with client_of(server.url) as client:
            can = client.capabilities
            assert can is not None
            assert (can.kind, can.durable, can.evicting, can.scan) == ("redis", durable, evicting, scan)
            assert (can.cas, can.ttl, can.head, can.versions, can.largest_value) == (True, True, True, True, 8 * MIB)
            assert len(can.caveats) == len(caveats)
            assert all(words in caveat for words, caveat in zip(caveats, can.caveats, strict=True))
            assert all(words in caplog.text for words in caveats), "it is warned of when it is connected to"


async def test_its_clock_is_known(server: Redis) -> None:
    async with client_of(server.url) as client:
        assert client.epoch is not None
        assert abs(client.epoch.seconds + time.monotonic() - time.time()) < client.epoch.within + 0.1


async def test_it_is_the_same_store_by_whatever_name_and_another_in_each_database(server: Redis) -> None:
    async with (
        client_of(server.url) as one,
        client_of(f"redis://localhost:{server.port}/0") as same,
        client_of(f"{server.url}/1") as other,
    ):
        assert one.identity == same.identity != frozenset()
        assert one.identity.isdisjoint(other.identity)


async def test_its_figures_have_the_names_of_other_nodes_and_its_own(server: Redis) -> None:
    async with client_of(f"{server.url}/7") as client:
        for number in range(3):
            await client.set(b"/figures/%d" % number, b"value")
        await client.get(b"/figures/1")
        stats = await client.stats()
        assert stats["curr_items"] == stats["db7_keys"] == "5", "three files, and two keys of the index"
        assert int(stats["cmd_get"]) >= 1
        assert int(stats["cmd_set"]) >= 3
        assert stats["version"] == stats["redis_version"]
        assert stats["maxmemory_policy"] == "noeviction"
        assert all(isinstance(value, str) for value in stats.values())


# --- what it keeps ---


async def test_a_header_is_read_whole_though_longer_ones_come_meanwhile(
    server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [make(b"x", version=number, meta={"of": "x" * 1000 * number}) for number in range(1, 4)]
    async with client_of(server.url) as client:
        await client.delete(b"/longer")
        await client.set(b"/longer", records[0])
        coming, read = records[1:], client._item

        async def read_and_replaced(key: bytes, *words: bytes) -> bytes | None:
            item = await read(key, *words)
            if coming:
                await client.set(b"/longer", coming.pop(0))
            return item

        monkeypatch.setattr(client, "_item", read_and_replaced)
        head = await client.head(b"/longer")
        assert head is not None
        assert record.decode_head(head).version == 3


async def test_a_newer_record_stays_whatever_the_widths_of_the_numbers(server: Redis) -> None:
    """Versions, and fronts between equal ones, are compared at the server byte by byte."""
    numbers = [0, 1, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 1_760_000_000_000_000, 2**53 + 1]
    records = [make(b"x", version=version, front=front) for version in numbers for front in (0, 127, 128, 2**40)]
    async with client_of(server.url) as client:
        await client.delete(b"/order")
        for number, data in enumerate(records):
            assert await client.set(b"/order", data) is True
            for older in records[:number]:
                assert await client.set(b"/order", older) is False
        assert await client.get(b"/order") == records[-1]


async def test_what_only_seems_newer_is_replaced(server: Redis) -> None:
    """Its header is damaged: by its version it would never go."""
    bad = bytearray(make(b"payload", version=2**60))
    bad[-30] ^= 1
    damaged_header = bytearray(make(b"payload", version=2**60))
    damaged_header[8] ^= 1
    async with client_of(server.url) as client:
        await client.set(b"/damaged", bytes(damaged_header))
        assert await client.set(b"/damaged", good := make(b"payload", version=7)) is True
        assert await client.get(b"/damaged") == good


@pytest.mark.parametrize("length", [0, 1, 500, 520, 4000, 60_000])
async def test_a_head_comes_whole_however_long_it_is(server: Redis, length: int) -> None:
    data = make(b"payload" * 1000, meta={"words": "x" * length})
    async with client_of(server.url) as client:
        await client.set(b"/head", data)
        head = await client.head(b"/head")
        told: asyncio.Future[bytes | SfssError | None] = asyncio.get_running_loop().create_future()
        client.head_soon(b"/head", told.set_result)
        assert head == await told
        assert head is not None
        assert record.decode_header(head)[0] == record.decode_header(data)[0]
        listed = (await client.scan(b"/heac", 1, b"/head0"))[0]
        assert data.startswith(listed.header)
        assert record.decode_bare_header(listed.header) == record.decode_header(data)[0]
        assert listed.size == len(data)


async def test_what_another_program_put_there_is_told_from_records_and_can_be_replaced(server: Redis) -> None:
    async with client_of(server.url) as client:
        server.ask("SET", "/foreign", "abc")
        found = await client.gets(b"/foreign")
        assert found is not None
        assert await client.head(b"/foreign") == b"", "no record"
        assert await client.replace(b"/foreign", b"ours", found.token) is True
        server.ask("LPUSH", "/list", "abc")
        for call in (client.get(b"/list"), client.set(b"/list", make(b"x")), client.head(b"/list")):
            with pytest.raises(NodeRefused, match="another program"):
                await call
        assert await client.get(b"/foreign") == b"ours"
        server.ask("DEL", "/list")


async def test_scripts_that_somebody_flushed_are_sent_again(server: Redis) -> None:
    async with client_of(server.url) as client:
        server.ask("SCRIPT", "FLUSH")
        assert await client.set(b"/flushed", b"one")
        server.ask("SCRIPT", "FLUSH")
        told: asyncio.Future[bool | SfssError] = asyncio.get_running_loop().create_future()
        client.set_soon(b"/flushed", b"two", told.set_result)
        assert await told is True
        server.ask("SCRIPT", "FLUSH")
        assert [item.key for item in await client.scan(b"/flushe", 1)] == [b"/flushed"]
        assert await client.any_in([(b"/flushe", b"/flushed0")]) == [True]


# --- the index of its keys ---


async def test_what_was_there_before_the_index_is_listed_once_it_is_whole(tmp_path: Path) -> None:
    with redis(tmp_path) as server:
        async with client_of(server.url) as client:
            await asyncio.gather(*(client.set(b"/%04d" % number, make(b"x")) for number in range(2500)))
        server.ask("DEL", INDEX.decode(), INDEXED.decode())
        server.ask("SET", "of another program", "x")
        async with client_of(server.url) as client:
            await client.delete(b"/0001")
            await client.set(b"/new", make(b"x"))
            async with asyncio.timeout(10):
                while not (client.capabilities and client.capabilities.scan):
                    with pytest.raises(NodeRefused, match="without scan"):
                        await client.scan(b"", 1)
                    await asyncio.sleep(0.01)
            keys = [item.key for item in await client.scan(b"", 10_000)]
            assert keys == [b"/%04d" % number for number in range(2500) if number != 1] + [b"/new"]


async def test_an_index_that_may_have_been_thrown_away_is_made_anew(tmp_path: Path) -> None:
    with redis(tmp_path, "--maxmemory", "64mb") as server:
        async with client_of(server.url) as client:
            await client.set(b"/a", make(b"x"))
        server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        async with client_of(server.url) as client:
            with pytest.raises(NodeRefused, match="without scan"):
                await client.scan(b"", 1)
            assert await anext(client.keys()) == [b"/a"]
        server.ask("DEL", INDEX.decode())
        server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        async with client_of(server.url) as client:
            async with asyncio.timeout(10):
                while not (client.capabilities and client.capabilities.scan):
                    await asyncio.sleep(0.01)
            assert [item.key for item in await client.scan(b"", 10)] == [b"/a"]


async def test_keys_whose_items_have_ended_leave_the_index(server: Redis) -> None:
    async with client_of(f"{server.url}/9") as client:
        for number in range(5):
            await client.set(b"/ends/%d" % number, b"x", expiry=1)
        await client.set(b"/ends/stays", b"x")
        await asyncio.sleep(1.2)
        assert await client.any_in([(b"/ends/", b"/ends/4~"), (b"/ends/", b"/ends/z")]) == [False, True]
        assert [item.key for item in await client.scan(b"/ends/", 2)] == [b"/ends/stays"]
        assert (await client.stats())["curr_items"] == "3"
        assert await client.set(b"/ends/1", b"again")
        assert [item.key for item in await client.scan(b"/ends/", 5)] == [b"/ends/1", b"/ends/stays"]


# --- what it refuses ---


async def test_one_that_is_full_says_so_and_can_be_emptied(tmp_path: Path) -> None:
    with redis(tmp_path, "--maxmemory", "8mb") as server:
        async with client_of(server.url) as client:
            sets = [client.set(b"/%d" % number, bytes(MIB)) for number in range(20)]
            with pytest.raises(OutOfSpace, match="maxmemory"):
                await asyncio.gather(*sets)
            told: asyncio.Future[bool | SfssError] = asyncio.get_running_loop().create_future()
            client.set_soon(b"/full", bytes(MIB), told.set_result)
            assert isinstance(await told, OutOfSpace)
            found = await client.gets(b"/0")
            assert found is not None
            for call in (client.add(b"/new", b"x" * MIB), client.replace(b"/0", bytes(MIB), found.token)):
                with pytest.raises(OutOfSpace):
                    await call
            assert await client.remove(b"/0", found.token), "that takes no room"
            assert await client.delete(b"/1")
            assert await client.set(b"/full", bytes(MIB))


async def test_what_is_larger_than_the_server_takes_is_not_sent(tmp_path: Path) -> None:
    with redis(tmp_path, "--proto-max-bulk-len", "1mb") as server:
        async with client_of(server.url) as client:
            await client.set(b"/large", b"old")
            told: asyncio.Future[bool | SfssError] = asyncio.get_running_loop().create_future()
            client.set_soon(b"/large", bytes(MIB), told.set_result)
            assert isinstance(await told, TooLarge)
            with pytest.raises(TooLarge, match="raise proto-max-bulk-len") as caught:
                await client.set(b"/large", bytes(MIB))
            assert caught.value.limit == MIB - 8
            await client.set(b"/large", bytes(MIB - 8))
            assert await client.get(b"/large") == bytes(MIB - 8)


async def test_what_is_larger_than_a_server_takes_that_does_not_tell_is_refused_by_it(tmp_path: Path) -> None:
    with redis(tmp_path, "--proto-max-bulk-len", "1mb", "--rename-command", "CONFIG", "") as server:
        async with client_of(server.url) as client:
            with pytest.raises((TooLarge, NodeBroken)):  # it answers and hangs up, be it in the middle of the request
                await client.set(b"/large", bytes(MIB))
            async with asyncio.timeout(10):
                while not await stored(client, bytes(MIB // 2)):
                    await asyncio.sleep(0.01)


async def test_who_has_no_password_or_a_wrong_one_is_told_so_and_it_is_not_shown(tmp_path: Path) -> None:
    with redis(tmp_path, "--requirepass", "good-secret") as server:
        place = server.url.removeprefix("redis://")
        async with client_of(server.url) as client:
            assert "wants a password" in str(client.away)
        async with client_of(f"redis://:bad-secret@{place}") as client:
            assert "doesn't know this user or password" in str(client.away)
            assert "bad-secret" not in str(client.away)
        async with client_of(f"redis://:good-secret@{place}/1") as client:
            assert client.away is None
            assert await client.set(b"/k", b"v")


async def test_what_a_user_may_not_do_is_named(tmp_path: Path) -> None:
    with redis(tmp_path) as server:
        rights = ["~*", "+@read", "+@write", "+@scripting", "+@connection", "+info", "+time", "+dbsize", "+config|get"]
        server.ask("ACL", "SETUSER", "files", "on", ">secret", *rights)
        server.ask("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read", "+info", "+time", "+@connection")
        place = server.url.removeprefix("redis://")
        async with client_of(f"redis://files:secret@{place}") as client:
            assert client.away is None
            assert await client.set(b"/k", b"v")
            assert await client.stats()
            server.ask("ACL", "SETUSER", "files", "resetkeys", "~/other*", "~sfss:*")
            with pytest.raises(NodeRefused, match="its ACL must allow"):
                await client.get(b"/k")
        async with client_of(f"redis://reader:secret@{place}") as client:
            assert "its ACL must allow" in str(client.away)


async def test_a_replica_is_refused_and_says_who_its_primary_is(tmp_path: Path) -> None:
    with redis(tmp_path / "primary") as primary, redis(tmp_path / "other") as other:
        async with client_of(other.url) as client:
            assert await client.set(b"/k", make(b"v"))
            other.ask("REPLICAOF", "127.0.0.1", str(primary.port))  # as a failover does
            with pytest.raises(NodeError, match="is a replica"):
                await client.set(b"/k", make(b"v"))
            assert "is a replica" in await gone(client)
            async with asyncio.timeout(10):
                while f"name its primary, 127.0.0.1:{primary.port}" not in str(client.away):
                    await asyncio.sleep(0.01)
            other.ask("REPLICAOF", "NO", "ONE")
            await here(client)
            assert await client.set(b"/k", make(b"v"))


# --- how it fails, and comes back ---


async def test_nothing_acknowledged_is_lost_when_it_is_killed_and_started_again(tmp_path: Path) -> None:
    acknowledged: dict[bytes, bytes] = {}
    with redis(tmp_path, *DURABLE) as server:
        async with client_of(server.url) as client:

            async def write(writer: int) -> None:
                for number in range(10_000):
                    key, data = b"/%d/%d" % (writer, number % 50), make(b"%d" % number, version=number + 1)
                    try:
                        await client.set(key, data)
                    except NodeError:
                        acknowledged[key] = b""  # either
                        return
                    acknowledged[key] = data

            for _ in range(3):
                acknowledged.clear()
                writing = [asyncio.create_task(write(writer)) for writer in range(20)]
                await asyncio.sleep(0.3)
                await asyncio.to_thread(server.kill)
                await asyncio.gather(*writing)
                assert "kill" not in str(client.away)
                await asyncio.to_thread(server.start)
                await here(client)
                assert len(acknowledged) > 20
                for key, data in acknowledged.items():
                    assert data in (b"", await client.get(key))
                listed = {item.key for item in await client.scan(b"", 10_000)}
                assert acknowledged.keys() - {key for key, data in acknowledged.items() if not data} <= listed
                await asyncio.gather(*(client.delete(key) for key in listed))


async def test_calls_to_one_that_is_frozen_end_in_time_and_do_nothing_later(tmp_path: Path) -> None:
    with redis(tmp_path) as server:
        async with client_of(server.url, timeout=0.3) as client:
            await client.set(b"/k", make(b"one", version=1))
            assert server.process is not None
            stop_in_its_tracks(server.process)
            began = time.monotonic()
            outcomes = await asyncio.gather(
                client.get(b"/k"), client.set(b"/k", make(b"two", version=2)), client.stats(), return_exceptions=True
            )
            assert time.monotonic() - began < 0.8
            assert all(isinstance(outcome, NodeTimeout) for outcome in outcomes), outcomes
            with pytest.raises(NodeAway, match="silent"):
                await client.get(b"/k")
            server.thaw()
            await here(client)
            assert await client.set(b"/k", make(b"three", version=3))
            await asyncio.sleep(0.1)
            assert await client.get(b"/k") == make(b"three", version=3)


async def test_one_that_was_not_there_at_first_is_found_when_it_comes(tmp_path: Path) -> None:
    with redis(tmp_path) as server:
        server.kill()
        async with client_of(server.url) as client:
            assert "refused" in str(client.away)
            await asyncio.to_thread(server.start)
            await here(client)
            assert await client.set(b"/k", b"v")


async def test_a_value_that_is_large_holds_up_no_other_for_long(server: Redis) -> None:
    async with client_of(server.url) as client:
        large = make(bytes(7 * MIB))
        await client.set(b"/large", large)
        await client.set(b"/small", b"small")
        slow = [asyncio.create_task(client.get(b"/large")) for _ in range(5)]
        await asyncio.sleep(0)
        assert await client.get(b"/small") == b"small"
        assert [len(data or b"") for data in await asyncio.gather(*slow)] == [len(large)] * 5
