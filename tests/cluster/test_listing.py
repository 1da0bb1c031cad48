"""A list has every file once, in the order of the paths, whatever the nodes have; or it says why it can't be."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
import secrets
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfss import paths
from sfss.addresses import parse_address
from sfss.backends.memcached import MemcachedNode
from sfss.cluster import listing
from sfss.cluster.listing import Listing
from sfss.cluster.topology import ONE_COPY, Quorum, Topology
from sfss.cluster.wholeness import MARK
from sfss.errors import Damaged, NodeAway, NodeError, Unavailable, Unsupported
from sfss.node.server import Server
from sfss.record import Kind, encode
from tests.cluster.test_pathorder import LETTERS
from tests.node.support import running
from tests.servers import HOST, free_port, memcached
from tests.test_paths import PATHS
from tests.test_record import header_of, make

SAFE = Quorum(3, 2, 2)
QUICK = Quorum(2, 1, 1)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[list[Server]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(tmp_path / str(number), durability="os")) for number in range(3)]


@contextlib.asynccontextmanager
async def topology(
    ports: Iterable[int], quorum: Quorum = ONE_COPY, joining: Iterable[int] = ()
) -> AsyncIterator[Topology]:
    def nodes(some: Iterable[int]) -> list[MemcachedNode]:
        return [
            MemcachedNode(
                parse_address(f"{HOST}:{port}"), largest_value=2**20, timeout=5.0, connect_timeout=5.0, retry_after=0.1
            )
            for port in some
        ]

    found = Topology(nodes(ports), quorum, joining=nodes(joining))
    await asyncio.gather(*(node.start() for node in found.nodes.values()))
    try:
        yield found
    finally:
        await asyncio.gather(*(node.close() for node in found.nodes.values()))


def leave(server: Server, path: str, size: int = 1, *, kind: Kind = Kind.FILE, version: int = 1) -> None:
    """A record of a path on a node, be it an owner or not; its size tells it from others."""
    key = paths.key_of(path)
    data = make(
        b"x" * (size if kind == Kind.FILE else 0),
        version=version,
        kind=kind,
        path=path if paths.is_hashed(key) else None,
    )
    leave_at(server, key, data)


def leave_at(server: Server, key: bytes, data: bytes) -> None:
    server.store.put(key, 0, 0, data, server.store.claim(key))


def spread(servers: list[Server], names: Iterable[str], copies: int = 1) -> None:
    for name in names:
        for server in random.sample(servers, copies):
            leave(server, name)


async def listed(topology: Topology, prefix: str = "", after: str = "", *, folders: bool = False) -> list[str]:
    async with contextlib.aclosing(Listing(topology, prefix, after, folders=folders).batches()) as batches:
        return [file.path async for batch in batches for file in batch]


async def sizes(topology: Topology) -> dict[str, int]:
    async with contextlib.aclosing(Listing(topology).batches()) as batches:
        return {file.path: file.header.size async for batch in batches for file in batch if file.header}


async def pages(topology: Topology, limit: int, *, folders: bool = False) -> AsyncIterator[list[str]]:
    after = ""
    while True:
        page: list[str] = []
        listing = Listing(topology, "", after, folders=folders, wanted=limit)
        async with contextlib.aclosing(listing.batches()) as batches:
            async for batch in batches:
                page += [file.path for file in batch]
                if len(page) >= limit:
                    break
        yield page[:limit]
        if len(page) < limit:
            return
        after = page[limit - 1]


def with_folders(names: Iterable[str], prefix: str) -> list[str]:
    told = []
    for name in sorted(names, key=str.encode):
        if name.startswith(prefix):
            end = name.find("/", len(prefix)) + 1
            told.append(name[:end] if end else name)
    return [name for name, _ in itertools.groupby(told)]


def some_names(chance: random.Random, count: int) -> set[str]:
    """Short and long, with whatever sorts elsewhere as a key, in folders with much in common."""

    def segment() -> str:
        return "".join(chance.choices(LETTERS, k=chance.randint(1, 3)))

    folders = ["", "a/", "a b/", "a!/", "a/b/", "\u3000/", "%/", "l" * 250 + "/", "a/" + "l" * 250 + "/"]
    ends = ["", "", "", "", "/" + "e" * 248, "m" * 300]
    return {chance.choice(folders) + segment() + chance.choice(ends) for _ in range(count)}


@pytest.mark.parametrize("slice", [1, 3, 1000])
@pytest.mark.parametrize("copies", [1, 3])
async def test_all_files_are_told_in_the_order_of_their_paths(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch, slice: int, copies: int
) -> None:
    monkeypatch.setattr(listing, "SLICE", slice)
    monkeypatch.setattr(listing, "FIRST_LOOK", min(slice, 32))
    monkeypatch.setattr(listing, "LONG_AT_ONCE", max(3, slice))
    names = some_names(random.Random(slice), 40 if slice < 10 else 200)
    spread(servers, names, copies)
    wanted = sorted(names, key=str.encode)
    async with topology((server.port for server in servers), SAFE if copies == 3 else ONE_COPY) as nodes:
        assert await listed(nodes) == wanted
        for prefix in ("a", "a ", "a/", "a b", "\u3000", "%/", "l" * 10, "l" * 255, "nothing"):
            assert await listed(nodes, prefix) == [name for name in wanted if name.startswith(prefix)]
            assert await listed(nodes, prefix, folders=True) == with_folders(names, prefix)
        assert await listed(nodes, folders=True) == with_folders(names, "")
        for after in wanted[:: len(wanted) // 10]:
            assert await listed(nodes, "", after) == [name for name in wanted if name > after]


@pytest.mark.parametrize("limit", [1, 7, 40])
@pytest.mark.parametrize("folders", [False, True])
async def test_pages_together_are_the_list(servers: list[Server], limit: int, folders: bool) -> None:
    names = some_names(random.Random(limit), 20 * limit)
    spread(servers, names, 2)
    async with topology(server.port for server in servers) as nodes:
        told = [page async for page in pages(nodes, limit, folders=folders)]
    assert all(len(page) == limit for page in told[:-1])
    assert list(itertools.chain(*told)) == (with_folders(names, "") if folders else sorted(names, key=str.encode))


async def test_pages_skip_and_repeat_nothing_that_stays_while_files_come_and_go(servers: list[Server]) -> None:
    stay = {f"{number:04}{end}" for number in range(100) for end in ("", " b", "!", "x" * 300)}
    spread(servers, stay)
    told: list[str] = []
    async with topology(server.port for server in servers) as nodes:
        async for page in pages(nodes, 30):
            told += page
            for _ in range(10):
                name = f"{random.randrange(100):04}{secrets.choice((' b', '!', '', '#'))}{secrets.token_hex(2)}"
                for server in servers:
                    leave(server, name, kind=secrets.choice((Kind.FILE, Kind.TOMBSTONE)), version=len(told) + 5)
    assert len(told) == len(set(told))
    assert [name for name in told if name in stay] == sorted(stay)


async def test_a_folder_is_passed_over_and_not_read(servers: list[Server]) -> None:
    for number in range(3000):
        leave(servers[number % 3], f"{number % 3} photos/{number}.jpg")
    async with topology(server.port for server in servers) as nodes:
        assert await listed(nodes, folders=True) == ["0 photos/", "1 photos/", "2 photos/"]
        assert sum(server.stats.counters.bytes_written for server in servers) < 3000 * 20


async def test_the_blocks_of_large_files_are_not_read(servers: list[Server]) -> None:
    for number in range(6000):
        leave_at(servers[number % 3], b"#b0064a1c2d3e4f9a8b7c6d5e4f/%d" % number, make(b"x", kind=Kind.BLOCK))
    for server in servers:
        leave_at(server, b"#u0064a1c2d3e4f9a8b7c6d5e4f", make(b"x"))
    names = ["0", "large", "long" * 100, "z"]
    for name in names:
        leave(servers[0], name, kind=Kind.MANIFEST if name == "large" else Kind.FILE)
    async with topology(server.port for server in servers) as nodes:
        assert await listed(nodes) == names
        assert [page async for page in pages(nodes, 2)] == [names[:2], names[2:], []]
        assert sum(server.stats.counters.bytes_written for server in servers) < 6000 * 5


@given(st.lists(PATHS, max_size=10))
def test_the_quick_way_from_keys_to_their_paths_is_the_way_or_none(names: list[str]) -> None:
    keys = [paths.key_of(name) for name in names]
    told = listing._quick_paths(keys)
    assert told == names or told is None
    assert told is not None or any(paths.is_hashed(key) or re.search(rb"%(?!20|25)", key) for key in keys)


@pytest.mark.parametrize(
    "keys",
    [[b"/a", b"#" + b"A" * 52], [b"/a\n/b", b"c"], [b"a", b"/b\n/c"], [b"/a\n", b"/b"], [b"/%C2%A0"], [b"/%"], [b""]],
)
def test_keys_that_do_not_tell_their_paths_so_quickly_are_left_to_the_other_way(keys: list[bytes]) -> None:
    assert listing._quick_paths(keys) is None


async def test_the_newest_version_counts_wherever_it_lies_and_what_was_deleted_is_not_told(
    servers: list[Server],
) -> None:
    for number, server in enumerate(servers):
        leave(server, "same", 5)
        leave(server, "differs", number + 1, version=number + 1)
    leave(servers[0], "deleted", 1, version=1)
    leave(servers[2], "deleted", kind=Kind.TOMBSTONE, version=2)
    leave(servers[0], "deleted and written again", 7, version=3)
    leave(servers[1], "deleted and written again", kind=Kind.TOMBSTONE, version=2)
    leave(servers[1], "at one only", 9)
    leave(servers[1], "long" * 100, 4, version=4)
    leave(servers[2], "long" * 100, 3, version=3)
    leave(servers[2], "gone" * 100, kind=Kind.TOMBSTONE)
    async with topology((server.port for server in servers), SAFE) as nodes:
        assert await sizes(nodes) == {
            "at one only": 9, "deleted and written again": 7, "differs": 3, "long" * 100: 4, "same": 5,
        }  # fmt: skip


async def test_what_is_no_file_is_not_told(servers: list[Server]) -> None:
    for key in (b"/text", b"/%ZZ", b"%", b"a", b"#sfss/whole", b"/with blank", b"/\xff\xfe", b"#AAAA", b"/", b"/b\0"):
        leave_at(servers[0], key, b"no record")
    for key in (b"/%41", b"/%ZZ%", b"/\xff\xff", b"#" + b"A" * 52, b"#block/1", b"no/slash", b"/% 20"):
        leave_at(servers[1], key, make(b"x"))
    leave_at(servers[1], b"/block", make(b"x", kind=Kind.BLOCK))
    leave_at(servers[1], b"#" + b"B" * 52, make(b"x", path="of another key"))
    leave(servers[2], "file")
    leave(servers[2], "%ZZ")
    async with topology(server.port for server in servers) as nodes:
        assert await listed(nodes) == ["%ZZ", "file"]


async def test_a_list_is_whole_while_fewer_nodes_are_away_than_a_write_needs(servers: list[Server]) -> None:
    names = some_names(random.Random(1), 100)
    spread(servers, names, 2)
    async with topology((server.port for server in servers), SAFE) as nodes:
        await servers[0].stop()
        await away(nodes, servers[0])
        assert await listed(nodes) == sorted(names, key=str.encode)
        await servers[1].stop()
        await away(nodes, servers[1])
        with pytest.raises(Unavailable) as failed:
            await listed(nodes)
        assert all(f"{HOST}:{server.port}" in str(failed.value) for server in servers[:2])


@pytest.mark.parametrize("quorum", [ONE_COPY, QUICK])
async def test_where_one_node_may_have_what_no_other_has_it_must_be_there(
    servers: list[Server], quorum: Quorum
) -> None:
    async with topology((server.port for server in servers), quorum) as nodes:
        assert await listed(nodes) == []
        await servers[2].stop()
        await away(nodes, servers[2])
        with pytest.raises(NodeAway) as failed:
            await listed(nodes)
        assert failed.value.node == f"{HOST}:{servers[2].port}"


async def away(nodes: Topology, server: Server) -> None:
    async with asyncio.timeout(10):
        while nodes.nodes[f"{HOST}:{server.port}"].away is None:
            await asyncio.sleep(0.01)


async def test_a_node_that_fails_in_the_middle_ends_the_list_if_it_cannot_be_done_without(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SLICE", 10)
    names = sorted(secrets.token_hex(4) for _ in range(300))
    for name in names:
        for server in servers:
            leave(server, name)
    ports = [server.port for server in servers]
    async with topology(ports, SAFE) as safe, topology(ports) as single:
        whole, broken = Listing(safe).batches(), Listing(single).batches()
        async with contextlib.aclosing(whole), contextlib.aclosing(broken):
            told = [file.path for file in await anext(whole)]
            await anext(broken)
            await servers[1].stop()
            told += [file.path async for batch in whole for file in batch]
            with pytest.raises(NodeError) as failed:
                async for _ in broken:
                    pass
    assert told == names
    assert failed.value.node == f"{HOST}:{servers[1].port}"


async def test_a_node_that_cannot_scan_is_named_unless_it_can_be_done_without(servers: list[Server]) -> None:
    leave(servers[0], "file")
    with memcached() as port:
        async with topology((servers[0].port, servers[1].port, port), SAFE) as nodes:
            assert await listed(nodes) == ["file"]
        async with topology((servers[0].port, port)) as nodes:
            with pytest.raises(Unsupported, match="memcached") as failed:
                await listed(nodes)
            assert failed.value.node == f"{HOST}:{port}"
        async with topology((servers[0].port, port, free_port()), SAFE) as nodes:
            with pytest.raises(Unsupported):
                await listed(nodes)


async def test_a_node_that_has_lost_what_it_had_counts_as_away(servers: list[Server]) -> None:
    leave(servers[2], "file")
    async with topology((server.port for server in servers), SAFE) as nodes:
        for server in servers[:2]:
            leave_at(server, MARK, b"")
        assert await listed(nodes) == ["file"]
        await servers[0].stop()
        await away(nodes, servers[0])
        with pytest.raises(Unavailable, match="run sfss repair"):
            await listed(nodes)


async def test_a_node_that_joins_is_listed_too_and_need_not_be_whole(servers: list[Server]) -> None:
    leave(servers[0], "old")
    leave(servers[2], "new")
    leave_at(servers[0], MARK, b"")
    leave_at(servers[1], MARK, b"")
    ports = [server.port for server in servers]
    async with topology(ports[:2], QUICK, joining=ports[2:]) as nodes:
        assert await listed(nodes) == ["new", "old"]


async def test_of_two_copies_the_sound_one_is_told_and_a_list_with_none_ends(servers: list[Server]) -> None:
    sound = make(b"abc", version=5)
    damaged = bytearray(sound)
    damaged[30] ^= 1
    leave_at(servers[0], b"/file", bytes(damaged))
    leave_at(servers[1], b"/file", sound)
    spread(servers, some_names(random.Random(3), 50))
    async with topology((server.port for server in servers), QUICK) as nodes:
        assert (await sizes(nodes))["file"] == 3
        servers[1].store.remove(b"/file", servers[1].store.claim(b"/file"))  # type: ignore[arg-type]
        with pytest.raises(Damaged, match="/file"):
            await listed(nodes)


async def test_headers_of_any_size_are_taken(servers: list[Server]) -> None:
    large = header_of(b"x", meta={"a": "b" * 60_000})
    for number in range(50):
        leave_at(servers[0], b"/%d" % number, encode(large, b"x"))
    async with topology([servers[0].port]) as nodes:
        assert len(await listed(nodes)) == 50


async def test_a_list_that_is_given_up_leaves_nothing_behind(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SLICE", 10)
    spread(servers, {f"{number:03}" for number in range(300)})
    async with topology(server.port for server in servers) as nodes:
        others = asyncio.all_tasks()
        async with contextlib.aclosing(Listing(nodes).batches()) as batches:
            await anext(batches)
        assert asyncio.all_tasks() == others
        assert len(await listed(nodes)) == 300
