"""Walks over all items: every one that stays is told once, in order, and nobody else has to wait."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfss import scan as wire
from sfss.node.connection import OUTPUT
from sfss.node.engine import MIB
from sfss.node.scan import IN_A_BLOCK, SLICE, lru_crawler, scan
from sfss.node.server import Server
from sfss.node.stats import Counters
from sfss.node.store import BUNCH, HEADS, Store
from sfss.scan import FIRST, LAST, Item, ItemParser, at, beyond
from tests.node.support import PATIENCE, Client, Clock, Tampered, connected, running, set_request, talk, there
from tests.node.test_store import file_record, put, refuse
from tests.servers import HOST, memcached, wait_for

DEBIANS_SCRIPTS = "/usr/share/memcached/scripts"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path / "data", durability="os") as server:
        yield server


def walk(store: Store, start: bytes = FIRST, end: bytes = LAST, count: int = wire.MAX_COUNT) -> list[Item]:
    """What one scan brings."""
    reply = scan(store, Counters(), [start, end, b"%d" % count])
    assert not isinstance(reply, bytes), reply
    return ItemParser().feed(b"".join(reply))


def keys(items: list[Item]) -> list[bytes]:
    return [item.key for item in items]


async def items_of(client: Client, request: bytes) -> list[Item]:
    """The items of a reply that comes whole; it fails at an error."""
    parser, items = ItemParser(), []
    client.writer.write(request)
    while parser.last_line is None:
        items += parser.feed(await asyncio.wait_for(client.reader.read(2**16), PATIENCE))
    assert parser.last_line == b"END"
    return items


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "data", Clock())
    yield opened
    opened.close()


def blocks(
    store: Store, word: bytes, start: bytes = FIRST, end: bytes = LAST, count: int = wire.MAX_COUNT
) -> list[list[list[Any]]]:
    """The same in another form."""
    reply = scan(store, Counters(), [start, end, b"%d" % count, word])
    assert not isinstance(reply, bytes), reply
    return [msgspec.msgpack.decode(block) for block in wire.BlockParser(word).feed(b"".join(reply))]


def rows(store: Store, *args: Any) -> list[list[Any]]:
    return [row for block in blocks(store, wire.ROWS, *args) for row in block]


def heads(store: Store, *args: Any) -> list[list[Any]]:
    """As rows of a key and a header."""
    return [list(row) for keys, headers in blocks(store, wire.HEADS, *args) for row in zip(keys, headers, strict=True)]


# --- what is told ---


async def test_an_item_is_told_as_its_other_commands_tell_it(node: Server) -> None:
    whole = file_record(b"p" * 9000)
    await talk(node.port, set_request(b"file", whole, b"0 0") + set_request(b"text", b"x" * 9000, b"7 4000000000"))
    async with connected(node.port) as client:
        file, text = await items_of(client, b"scan - + 10\r\n")
        assert (text.key, text.flags, text.expiry, text.size, text.header) == (b"text", 7, 4000000000, 9000, b"")
        assert (file.key, file.flags, file.expiry, file.size) == (b"file", 0, 0, len(whole))
        assert b"VALUE file 0 %d\r\n%b\r\nEND\r\n" % (len(file.header), file.header) == await client.until_end(
            b"head file\r\n"
        )
        assert b" %d\r\n" % file.cas in await client.until_end(b"gets file\r\n")
        assert file.time <= file.cas <= text.cas


def test_rows_and_heads_are_the_same_items(store: Store) -> None:
    for number in range(3 * IN_A_BLOCK):
        put(store, b"/%04d \\" % number, file_record(b"p" * (number % 7)))
    put(store, b"/text", b"x")
    put(store, b"/0001 \\", b"gone", expiry=int(store.clock()) + 1)
    put(store, b"/0002 \\", b"stays", expiry=int(store.clock()) + 3)
    assert isinstance(store.clock, Clock)
    store.clock.now += 2
    between = (at(b"/0010"), beyond(b"/0015 \\"), 100)
    for args in [between, (at(b"x"), LAST, 1), *((FIRST, LAST, count) for count in COUNTS)]:
        items = walk(store, *args)
        assert rows(store, *args) == [[item.key, item.header, item.size, item.cas] for item in items]
        assert heads(store, *args) == [[item.key, item.header] for item in items]


COUNTS = (1, BUNCH - 1, BUNCH, BUNCH + 1, IN_A_BLOCK - 1, IN_A_BLOCK, IN_A_BLOCK + 1, 3 * IN_A_BLOCK)


async def test_rows_and_heads_end_as_items_do_and_no_other_word_stands_for_them(node: Server) -> None:
    asked = (b"rows", b"heads", b"row", b"rows heads")
    answers = [await talk(node.port, b"scan - + 10 %b\r\n" % words) for words in asked]
    assert answers == [b"END\r\n", b"END\r\n", b"ERROR\r\n", b"ERROR\r\n"]


LETTERS = b"ab\n \\\0\xff"
KEY = st.lists(st.sampled_from(LETTERS), min_size=1, max_size=3).map(bytes)
FROM = st.just(FIRST) | st.builds(at, KEY) | st.builds(beyond, KEY)
TO = st.just(LAST) | st.builds(at, KEY) | st.builds(beyond, KEY)


def test_a_scan_brings_exactly_what_lies_between_its_bounds(store: Store) -> None:
    chance = random.Random(5)
    there_are = sorted({bytes(chance.choices(LETTERS, k=chance.randint(1, 3))) for _ in range(60)})
    for key in there_are:
        put(store, key, b"x")

    @settings(max_examples=300, deadline=None)
    @given(FROM, TO, st.integers(1, 80))
    def check(start: bytes, end: bytes, count: int) -> None:
        within = [
            key
            for key in there_are
            if (start == FIRST or key > wire.read(start[1:]) or start == at(key))
            and (end == LAST or key < wire.read(end[1:]) or end == at(key))
        ]
        assert keys(walk(store, start, end, count)) == within[:count]

    check()


async def test_a_key_of_any_bytes_is_one_word_of_a_line_and_a_bound(node: Server) -> None:
    key = b"a b\r\nEND\r\n\\"
    await talk(node.port, b"ms %b 1 b\r\nx\r\n" % base64.b64encode(key) + set_request(b"z", b"1"))
    async with connected(node.port) as client:
        assert keys(await items_of(client, b"scan - + 10\r\n")) == [key, b"z"]
        assert keys(await items_of(client, wire.request(beyond(key), LAST, 10))) == [b"z"]
        assert keys(await items_of(client, wire.request(at(key), at(key), 10))) == [key]
        assert b"key=a%20b%0D%0AEND%0D%0A%5C exp=-1 " in await client.until_end(b"lru_crawler metadump all\r\n")


def test_the_longest_keys_are_bounds_too(store: Store) -> None:
    longest = [b"k" * 249 + last for last in (b"a", b"b", b"\xff")]
    for key in longest:
        put(store, key, b"x")
    assert keys(walk(store, beyond(longest[0]), at(longest[2]))) == longest[1:]
    assert keys(walk(store, at(longest[0]), beyond(longest[2]))) == longest[:2]


def test_what_has_expired_is_not_told_and_doesnt_count(store: Store) -> None:
    clock = store.clock
    assert isinstance(clock, Clock)
    for number in range(3 * SLICE):
        put(store, b"key%05d" % number, b"x", expiry=0 if number % 100 == 99 else int(clock.now) + 5)
    clock.now += 10
    assert keys(walk(store, count=5)) == [b"key%05d" % number for number in (99, 199, 299, 399, 499)]
    assert lines(store) == [b"key%05d" % number for number in range(99, 3 * SLICE, 100)]


def test_a_delayed_flush_all_ends_a_walk(store: Store) -> None:
    clock = store.clock
    assert isinstance(clock, Clock)
    for number in range(2 * SLICE):
        put(store, b"key%05d" % number, b"x")
    store.flush_all(int(clock.now) + 5)
    assert len(walk(store)) == 2 * SLICE
    clock.now += 10
    assert walk(store) == []


def test_a_walk_in_steps_tells_all_that_stays_once_whatever_is_written_meanwhile(store: Store) -> None:
    chance = random.Random(6)
    stay = {b"key%05d" % number for number in range(0, 6000, 3)}
    come_and_go = [b"key%05d" % number for number in range(6000) if number % 3]
    for key in stay:
        put(store, key, b"x")
    told: list[bytes] = []
    start = FIRST
    while found := keys(walk(store, start, LAST, 97)):
        told += found
        start = beyond(found[-1])
        for key in chance.sample(come_and_go, 50):
            if head := store.claim(key):
                store.remove(key, head)
            else:
                put(store, key, b"y")
        for key in chance.sample(sorted(stay), 20):
            put(store, key, b"z" * 2000)  # overwritten: it stays
    assert told == sorted(set(told))
    assert stay <= set(told)


async def test_one_long_reply_tells_all_that_stays_once_too(node: Server) -> None:
    for number in range(0, 8000, 2):
        put(node.store, b"key%05d" % number, b"x")
    async with connected(node.port) as walker, connected(node.port) as writer:
        walking = asyncio.ensure_future(items_of(walker, b"scan - + 10000\r\n"))
        number = 1
        while not walking.done():
            await writer.line(set_request(b"key%05d" % number, b"y"))
            await writer.line(b"delete key%05d\r\n" % number)
            number = (number + 1122) % 8000 | 1
        told = keys(walking.result())
    assert told == sorted(set(told))
    assert {b"key%05d" % number for number in range(0, 8000, 2)} <= set(told)


# --- what it costs ---


async def test_others_have_their_turn_during_a_long_walk(node: Server) -> None:
    for number in range(10_000):
        put(node.store, b"key%05d" % number, b"x")
    order: list[str] = []
    async with connected(node.port) as walker, connected(node.port) as other:

        async def walks() -> None:
            assert len(await items_of(walker, b"scan - + 10000\r\n")) == 10_000
            order.append("walk")

        async def asks() -> None:
            for _ in range(5):
                await other.line(b"version\r\n")
                order.append("other")

        await asyncio.gather(walks(), asks())
    assert order[-1] == "walk"


async def test_a_client_that_doesnt_read_stops_its_walk(node: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3000):
        put(node.store, b"key%05d" % number, file_record(b"p"))
    read = 0
    heads = node.store.heads

    def counted(*arguments: Any) -> Any:
        nonlocal read
        found = heads(*arguments)
        read += len(found)
        return found

    monkeypatch.setattr(node.store, "heads", counted)
    async with connected(node.port) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.writer.write(b"scan - + 10000\r\n" * 1000)
        settled, seen = 0, -1
        while settled < 10:
            await asyncio.sleep(0.02)
            settled, seen = (settled + 1, seen) if read == seen else (0, read)
        assert 0 < read < 3000 * 100  # what two sockets' buffers hold, and OUTPUT, not all that was asked for
        (connection,) = node.connections
        assert connection._transport.get_write_buffer_size() <= 2 * OUTPUT


def test_a_walk_doesnt_wade_through_what_was_deleted_long_ago(store: Store) -> None:
    for number in range(10_000):
        put(store, b"key%05d" % number, b"x")
    store._db.flush(True)
    for number in range(10, 9_990):
        store.remove(b"key%05d" % number, there(store.claim(b"key%05d" % number)))
    store._db.flush(True)
    wait_for(lambda: int(store.engine("total-sst-files-size") or 0) < 10_000, what="a compaction")
    assert len(walk(store)) == 20


def test_long_headers_come_in_shorter_slices(store: Store) -> None:
    long = b"SFSS\x01\0\xff\xff" + b"h" * (8 + 0xFFFF)
    for number in range(20):
        put(store, b"key%02d" % number, long)
    found = store.heads(b"", b"", SLICE)
    assert sum(len(head.header) for _, head in found) <= HEADS + len(long)
    assert [item.header for item in walk(store)] == [long] * 20
    assert [header for _, header in heads(store)] == [long] * 20, "and so they fit into a block"
    assert len(store.heads(b"", b"", BUNCH - 1)) == len(found) == len(store.heads(b"", b"", BUNCH))


def test_bodies_are_never_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    for number in range(10):
        put(store, b"key%d" % number, file_record(b"p" * 5000))
    store.close()
    blobs = list((tmp_path / "data").glob("*.blob"))
    assert blobs
    for blob in blobs:
        size = blob.stat().st_size
        blob.write_bytes(b"\xee" * size)
    store = Store(tmp_path / "data")
    assert len(walk(store)) == 10
    with pytest.raises(Exception, match="orruption"):
        store.get(b"key5")
    store.close()


# --- what goes wrong ---


def test_damage_is_an_error_and_not_an_end(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    for number in range(2000):
        put(store, b"key%05d" % number, file_record(b"p"))
    store.close()
    (table,) = (tmp_path / "data").glob("*.sst")
    content = bytearray(table.read_bytes())
    content[content.index(b"hkey00000") + 20_000] ^= 0x10  # in the middle of the heads, which come last
    table.write_bytes(content)
    store = Store(tmp_path / "data")
    for number, told in enumerate((walk, rows, heads), 1):
        with pytest.raises(Exception, match="orruption"):
            told(store)  # type: ignore[operator]
        assert store.read_errors == number
    store.close()


async def test_a_walk_that_fails_midway_says_so_and_the_connection_goes_on(node: Server) -> None:
    for number in range(3 * SLICE):
        put(node.store, b"key%05d" % number, b"x")
    slices = iter([node.store._db.items])
    db = node.store._db
    node.store._db = Tampered(db, items=lambda **how: next(slices, refuse)(**how))  # type: ignore[assignment]
    try:
        reply = await talk(node.port, b"scan - + 10000\r\nversion\r\n")
    finally:
        node.store._db = db
    parser = ItemParser()
    assert len(parser.feed(reply[: reply.index(b"VERSION")])) == SLICE
    assert there(parser.last_line).startswith(b"SERVER_ERROR")
    assert node.stats.counters.failed_cmd == 1


REFUSED = {
    b"scan": b"ERROR",
    b"scan - +": b"ERROR",
    b"scan - + 1 2": b"ERROR",
    b"scan - + 0": b"CLIENT_ERROR bad count",
    b"scan - + 10001": b"CLIENT_ERROR bad count",
    b"scan - + -1": b"CLIENT_ERROR bad count",
    b"scan - + x": b"CLIENT_ERROR bad count",
    b"scan - + 99999999999999999999": b"CLIENT_ERROR bad count",
    b"scan + - 1": b"CLIENT_ERROR bad bound",
    b"scan a + 1": b"CLIENT_ERROR bad bound",
    b"scan - a 1": b"CLIENT_ERROR bad bound",
    b"scan [ + 1": b"CLIENT_ERROR bad bound",
    b"scan - ( 1": b"CLIENT_ERROR bad bound",
    b"scan - [a\\ 1": b"CLIENT_ERROR bad bound",
    b"scan - [a\\x2 1": b"CLIENT_ERROR bad bound",
    b"scan [%b + 1" % (b"k" * 251): b"CLIENT_ERROR bad bound",
}


async def test_what_is_no_scan_is_refused_and_says_why(node: Server) -> None:
    async with connected(node.port) as client:
        for request, reply in REFUSED.items():
            assert (await client.line(request + b"\r\n")).startswith(reply), request
        assert (await client.stats())["cmd_scan"] == "0"


# --- lru_crawler ---


def lines(store: Store) -> list[bytes]:
    """The keys of a metadump."""
    reply = lru_crawler(store, [b"metadump", b"all"])
    assert not isinstance(reply, bytes)
    return re.findall(rb"^key=(\S+) ", b"".join(reply), re.MULTILINE)


@pytest.fixture(scope="module")
def real() -> Iterator[int]:
    """The port of a memcached."""
    with memcached() as port:
        yield port


DUMPED = b"".join(
    [
        set_request(b"a", b"value"),
        set_request(b"/photos/cat & dog=1.jpg".replace(b" ", b"+"), b"x" * 300, b"4000 100"),
        set_request(b"flags", b"", b"4294967295 0"),
        set_request(b"%~_-.*!'()\t\x01\x7f\x80\xff\xe2\x82\xac", b"1", b"0 2000000000"),
        set_request(b"k" * 250, b"1"),
        set_request(b"expired", b"1", b"0 -1"),
    ]
)
DUMPS = [b"all", b"hash", b"1", b"1,2", b",1", b"2", b"63", b"64", b"0", b"-1", b"x", b"1x", b"1,x", b"ALL", b"noreply"]


async def test_a_metadump_is_memcacheds(real: int, node: Server) -> None:
    dumps = []
    for port in (real, node.port):
        await talk(port, b"flush_all\r\n")
        await asyncio.sleep(1.1 if port == real else 0)  # memcached's flush_all takes what comes in its second too
        await talk(port, DUMPED)
        said = []
        for which in DUMPS:
            async with connected(port) as client:
                client.writer.write(b"lru_crawler metadump %b\r\n" % which)
                reply = b""
                while not re.search(rb"(END|id)\r\n\Z", reply):
                    reply += await asyncio.wait_for(client.reader.read(2**16), PATIENCE)
            # times and versions are each server's own, and so is the order
            reply = re.sub(rb" la=\d+ cas=\d+ fetch=no cls=\d+ ", b" la=1 cas=1 fetch=no cls=1 ", reply)
            reply = re.sub(rb"exp=(17|18)\d+", b"exp=soon", reply)
            said.append(sorted(reply.split(b"\n")))
        dumps.append(said)
    assert dumps[1][0] == dumps[0][0]
    assert len(dumps[0][0]) == 5 + 1 + 1  # and END, and what is behind the last newline
    ours = dict(zip(DUMPS, dumps[1], strict=True))
    theirs = dict(zip(DUMPS, dumps[0], strict=True))
    # Our one class is 1; memcached's items lie in several.
    for which in set(DUMPS) - {b"1", b"1,2", b",1"}:
        assert ours[which] == theirs[which], which
    assert ours[b"1"] == ours[b"1,2"] == ours[b",1"] == ours[b"all"]


async def test_the_rest_of_lru_crawler_is_refused_as_by_a_memcached_without_one(node: Server) -> None:
    script = b"".join(
        b"lru_crawler%b\r\n" % words
        for words in (b"", b" foo", b" foo x", b" metadump", b" metadump all x", b" metadump all noreply", b" disable",
            b" disable x", b" enable noreply", b" noreply", b" crawl 1", b" crawl all", b" crawl", b" crawl noreply",
            b" sleep 100", b" sleep x", b" sleep 1000001", b" sleep noreply", b" tocrawl 5", b" tocrawl -1",
            b" tocrawl x", b" tocrawl 1 2")
    )  # fmt: skip
    with memcached("-o", "no_lru_crawler") as port:
        assert await talk(node.port, script) == await talk(port, script)
    # memcached starts it; we have none to start, and say so as it does when it can't.
    assert await talk(node.port, b"lru_crawler enable\r\n") == b"ERROR failed to start lru crawler thread\r\n"


async def test_memcached_tool_dumps_all_items(node: Server) -> None:
    kept = {b"/photos/%d.jpg" % number: b"v%d" % number for number in range(300)}
    await talk(node.port, b"".join(set_request(key, value, b"9 0") for key, value in kept.items()))

    program = shutil.which("memcached-tool") or shutil.which("memcached-tool", path=DEBIANS_SCRIPTS)
    assert program, "memcached-tool is not installed: it comes with memcached"

    async def tool(mode: str) -> bytes:
        command = [program, f"{HOST}:{node.port}", mode]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=30, check=True)
        return done.stdout

    dump = await tool("dump")
    assert dict(re.findall(rb"add (\S+) 9 0 \d+\r\n(\S*)\r\n", dump)) == kept
    listed = re.findall(rb"^key=(\S+) exp=-1 la=\d+ cas=\d+ fetch=no cls=1 size=\d+$", await tool("keys"), re.MULTILINE)
    assert [key.replace(b"%2F", b"/") for key in listed] == sorted(kept)
    for mode in ("stats", "settings", "sizes", "display"):
        assert await tool(mode)


# --- docs ---


def test_the_example_of_the_protocol_s_page_is_what_the_node_answers(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "node-protocol.rst").read_text()
    clock = Clock(1767225600.0)
    with contextlib.closing(Store(tmp_path / "data", clock)) as store:
        for key, data, flags, expiry in (
            (b"/photos/cat.jpg", file_record(b"x" * 48213), 0, 0),
            (b"/photos/dog.jpg", file_record(b"x" * 1790), 0, 0),
            (b"/photos/notes", b"plain", 7, 1767312000),
            (b"/videos/cat.mp4", b"x", 0, 0),
        ):
            put(store, key, data, expiry, flags)
            clock.now += 1
        section = page[page.index("\nScan\n") : page.index("\nSTATS\n")]
        said = re.findall(r"^    ([CS]): ?(.*)$", section, re.MULTILINE)
        requests = [line.split()[1:] for who, line in said if who == "C"]
        assert len(requests) == 2
        expected = []
        for words in requests:
            reply = scan(store, Counters(), [word.encode() for word in words])
            assert not isinstance(reply, bytes)
            for item in ItemParser().feed(b"".join(reply)):
                first, *_ = wire.item(item).split(b"\r\n", 1)
                size = len(item.header)
                expected += [first.decode(), f"<{size} bytes: the record's prefix and header>" if size else ""]
            expected.append("END")
    assert [line for who, line in said if who == "S"] == expected


def test_what_the_page_says_of_the_largest_count_is_so() -> None:
    page = (Path(__file__).parents[2] / "docs" / "node-protocol.rst").read_text()
    assert f"the largest COUNT, {wire.MAX_COUNT}" in " ".join(page.split())
    assert MIB > HEADS
