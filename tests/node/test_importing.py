"""Moving in: everything comes over as it was, what doesn't is named, and whatever breaks, it is run again."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sfss.addresses import Address
from sfss.errors import ConfigError, OutOfSpace, ProtocolError, Unavailable
from sfss.memcache import Request
from sfss.node.engine import MIB
from sfss.node.importing import source as sources
from sfss.node.importing import transfer
from sfss.node.importing.peer import Answers
from sfss.node.importing.report import Report
from sfss.node.importing.transfer import Order
from sfss.node.server import Server
from tests.backends.beansdb import Beansdb, Generation, Item, _place, beansdb
from tests.backends.faulty import Faulty, Peer, faulty
from tests.node.support import PATIENCE, child, connected, running, set_request
from tests.servers import HOST, free_port, memcached, sfss_node

DAY = 86_400


class Stored(NamedTuple):
    data: bytes
    flags: int = 0
    ttl: int = 0  # seconds that are left; 0 for never


Items = dict[bytes, Stored]


def some_items(count: int, largest: int = 60_000) -> Items:
    """Of all sizes, flags, lifetimes and kinds of keys. ``ms ... b`` makes those with blanks and control characters."""
    chance = random.Random(7)
    items = {}
    for number in range(count):
        size = min(int(chance.expovariate(1 / 3000)), largest) if number % 10 else chance.choice((0, 1))
        ttl = chance.choice((0, 0, 0, 1000, 29 * DAY, 400 * DAY))
        items[b"key-%d" % number] = Stored(chance.randbytes(size), chance.choice((0, 1, 2**16, 2**32 - 1)), ttl)
    odd = (b"100%", b"a%20b", b"%", "Grüße/猫".encode(), b"\xff\xfe", b"k\ttab", b"=+/key=1 exp=5", b"END", b"noreply",
           b"two words", b"line\r\nend", b"nul\0in it", b" ", b"\n", bytes(range(1, 180)), b"x" * 250)  # fmt: skip
    for key in odd:
        items[key] = Stored(chance.randbytes(50), 5, 3000)
    for size in (MIB // 2 - 1000, 700_000, 1_000_000):
        items[b"large-%d" % size] = Stored(chance.randbytes(size))
    return items


async def fill(port: int, items: Items) -> None:
    async with connected(port) as client:
        for key, (data, flags, ttl) in items.items():
            plain = not re.search(rb"[\0\r\n ]", key)
            word, flag = (key, b"") if plain else (base64.b64encode(key), b" b")
            expiry = int(time.time()) + ttl if ttl > 30 * DAY else ttl
            client.writer.write(b"ms %b %d F%d T%d q%b\r\n%b\r\n" % (word, len(data), flags, expiry, flag, data))
            await client.writer.drain()
        assert await client.line(b"mn\r\n") == b"MN"


async def held(port: int, keys: Any) -> Items:
    """What a server has of these keys."""
    items = {}
    async with connected(port) as client:
        for key in keys:
            plain = not re.search(rb"[\0\r\n ]", key)
            word, flag = (key, b"") if plain else (base64.b64encode(key), b" b")
            line = await client.line(b"mg %b v f t%b\r\n" % (word, flag))
            if line != b"EN":
                _, size, flags, ttl = line.split()
                data = (await client.reader.readexactly(int(size) + 2))[:-2]
                items[key] = Stored(data, int(flags[1:]), max(int(ttl[1:]), 0))
    return items


async def count(port: int) -> int:
    async with connected(port) as client:
        return int((await client.stats())["curr_items"])


def assert_same(found: Items, expected: Items) -> None:
    assert found.keys() == expected.keys()
    for key, item in expected.items():
        assert found[key][:2] == item[:2], key
        assert (found[key].ttl == 0) == (item.ttl == 0), key
        assert abs(found[key].ttl - item.ttl) < 60, key


def order(source: int, target: int, kind: str = "", **more: Any) -> Order:
    return Order(f"{HOST}:{source}", kind, Address(HOST, source, ""), Address(HOST, target, f"{HOST}:{target}"), **more)


async def imported(source: int, target: int, kind: str = "", **more: Any) -> tuple[Report, list[str]]:
    """Run it: its report, and the lines that named items."""
    report, lines = Report(), list[str]()
    await asyncio.wait_for(transfer.import_items(order(source, target, kind, **more), report, tell=lines.append), 60)
    return report, lines


def sfss(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sfss", "node", "import", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# --- from memcached and from a node ---


async def test_all_that_a_memcached_has_comes_over_as_it_was(node: Server) -> None:
    items = some_items(4000)
    with memcached("-m", "256") as port:
        await fill(port, items)
        report, lines = await imported(port, node.port, verify=True)
        size = sum(len(item.data) for item in items.values())
        assert (report, lines) == (Report(listed=len(items), imported=len(items), bytes=size), [])
    assert await count(node.port) == len(items)
    assert_same(await held(node.port, items), items)


async def test_a_node_is_a_source_too(node: Server, tmp_path: Path) -> None:
    items = some_items(500)
    async with running(tmp_path / "other", durability="os") as other:
        await fill(other.port, items)
        report, _ = await imported(other.port, node.port)
        assert (report.imported, report.good) == (len(items), True)
    assert_same(await held(node.port, items), items)


async def test_what_is_stale_stays_behind_and_what_somebody_has_won_comes(node: Server) -> None:
    with memcached() as port:
        async with connected(port) as client:
            assert await client.line(b"mg won N300 v\r\n") == b"VA 0 W"
            assert await client.line(b"") == b""
            for key in (b"stale", b"plain"):
                assert await client.line(set_request(key, b"1")) == b"STORED"
            assert await client.line(b"md stale I T300\r\n") == b"HD"
        report, lines = await imported(port, node.port, verify=True)
    assert (report.imported, report.vanished, lines) == (2, 1, [])
    assert (await held(node.port, [b"won", b"plain", b"stale"])).keys() == {b"won", b"plain"}


async def test_an_empty_source_is_no_error(node: Server) -> None:
    with memcached() as port:
        assert (await imported(port, node.port))[0] == Report()


async def test_only_keys_with_the_prefix_come_over(node: Server) -> None:
    items = {b"a/1": Stored(b"1"), b"a/ 2": Stored(b"2"), b"b/1": Stored(b"3")}
    with memcached() as port:
        await fill(port, items)
        report, _ = await imported(port, node.port, prefix=b"a/")
    assert (report.imported, report.unwanted) == (2, 1)
    assert (await held(node.port, items)).keys() == {b"a/1", b"a/ 2"}


async def test_a_dry_run_counts_and_writes_nothing(node: Server) -> None:
    with memcached() as port:
        await fill(port, {b"a": Stored(b"12345"), b"b": Stored(b"67")})
        report, _ = await imported(port, node.port, dry_run=True)
    assert (report.imported, report.bytes) == (2, 7)
    assert await count(node.port) == 0


async def test_what_changes_meanwhile_harms_nothing_else(node: Server) -> None:
    items = {b"still-%d" % number: Stored(b"%d" % number) for number in range(5000)}
    changing = [b"changing-%d" % number for number in range(5000)]
    with memcached() as port:
        await fill(port, items | dict.fromkeys(changing, Stored(b"old")))

        async def change() -> None:
            async with connected(port) as client:
                for key in random.Random(1).sample(changing, len(changing)):
                    client.writer.write(set_request(key, b"new", b"0 100") if key[-1] % 2 else b"delete %b\r\n" % key)
                    await client.reader.readline()

        changes = asyncio.create_task(change())
        report, lines = await imported(port, node.port)
        await changes
    assert (report.good, lines) == (True, [])
    assert report.imported + report.vanished == report.listed
    assert await held(node.port, items) == items
    found = await held(node.port, changing)
    assert {item.data for item in found.values()} <= {b"old", b"new"}
    assert all((item.data == b"new") == (item.ttl > 0) for item in found.values())


# --- what is there already ---


async def test_run_again_it_stores_only_what_is_not_there(node: Server) -> None:
    items = some_items(300)
    with memcached() as port:
        await fill(port, items)
        await imported(port, node.port)
        await fill(port, {b"late": Stored(b"late")})
        report, _ = await imported(port, node.port)
    assert (report.imported, report.there, report.good) == (1, len(items), True)


async def test_what_is_there_stays_unless_it_is_to_be_overwritten(node: Server) -> None:
    keys = (b"k", b"odd key")
    with memcached() as port:
        await fill(port, dict.fromkeys(keys, Stored(b"theirs", 3)))
        await fill(node.port, dict.fromkeys(keys, Stored(b"ours", 4)))
        report, _ = await imported(port, node.port)
        assert (report.imported, report.there) == (0, 2)
        assert set((await held(node.port, keys)).values()) == {Stored(b"ours", 4)}
        report, _ = await imported(port, node.port, overwrite=True)
        assert (report.imported, report.there) == (2, 0)
        assert set((await held(node.port, keys)).values()) == {Stored(b"theirs", 3)}


async def test_verify_names_what_is_there_and_otherwise(node: Server) -> None:
    same, other = Stored(b"same", 3), Stored(b"theirs", 3)
    with memcached() as port:
        await fill(port, {b"same": same, b"bytes": other, b"flags": other, b"new": other})
        await fill(node.port, {b"same": same, b"bytes": Stored(b"0urs", 3), b"flags": other._replace(flags=4)})
        report, lines = await imported(port, node.port, verify=True)
    assert (report.imported, report.there, report.differing, report.good) == (1, 3, 2, False)
    assert sorted(line.split(":")[1] for line in lines) == [" bytes", " flags"]


# --- from Beansdb ---


@pytest.mark.parametrize("kind", ["", "beansdb"])
@pytest.mark.parametrize("generation", ["bitcask", "tokyo", "go"])
async def test_all_that_a_beansdb_has_comes_over(
    node: Server, generation: Generation, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.backends.beansdb.AS_KEYS", 3)  # a deep tree
    items = {
        key: Stored(item.data, item.flags & ~0x10010)  # which mean something there
        for key, item in some_items(700, 3000).items()
        if key.isascii() and not re.search(rb"[\0\r\n ]", key)
    }
    async with beansdb(generation, walked=True) as standin:
        for number, (key, item) in enumerate(items.items()):
            standin.items[key] = Item(1 + number, item.flags, item.data)
            standin.items[b"deleted" + key] = Item(-2, 0, b"") if standin.bitcask else Item(1, 0, b"")
        for key in [key for key in standin.items if key.startswith(b"deleted") and not standin.bitcask]:
            del standin.items[key]
        report, lines = await imported(standin.port, node.port, kind, verify=True)
    assert (report.imported, report.missing, lines) == (len(items), 0, [])
    assert await count(node.port) == len(items)
    assert_same(await held(node.port, items), items)


async def test_the_prefix_holds_where_only_hashes_are_listed(node: Server) -> None:
    async with beansdb("go", walked=True) as standin:
        standin.items |= {b"a1": Item(1, 0, b"1"), b"b1": Item(1, 0, b"2")}
        report, _ = await imported(standin.port, node.port, prefix=b"a")
    assert (report.imported, report.unwanted) == (1, 1)
    assert (await held(node.port, (b"a1", b"b1"))).keys() == {b"a1"}


async def test_a_key_that_beansdb_cannot_be_asked_for_is_told_as_missing(node: Server) -> None:
    async with beansdb("bitcask", walked=True) as standin:
        standin.items |= {b"a": Item(1, 0, b"1"), b"?b": Item(1, 0, b"2")}
        report, _ = await imported(standin.port, node.port)
    assert (report.imported, report.missing, report.good) == (1, 1, False)


async def test_a_record_that_makes_no_sense_is_named(node: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(self: Beansdb, place: bytes) -> bytes | None:
        record = whole(self, place)
        return record[:-1] if record and b"broken" in record else record

    whole = Beansdb._record
    monkeypatch.setattr(Beansdb, "_record", cut)
    async with beansdb("go", walked=True) as standin:
        standin.items |= {b"broken": Item(1, 0, b"1"), b"good": Item(1, 0, b"2")}
        report, lines = await imported(standin.port, node.port)
    assert (report.imported, report.unreadable, report.good) == (1, 1, False)
    assert "doesn't end where its lengths say" in lines[0]


async def test_a_record_of_another_key_is_not_taken_for_the_one_that_was_asked_for(
    node: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its garbage is collected, a place may hold another record by the time that it is read."""
    whole = Beansdb._record
    monkeypatch.setattr(Beansdb, "_record", lambda self, _: whole(self, _place("grüß".encode(), hashed=True)))
    async with beansdb("go", walked=True) as standin:
        standin.items |= {"grüß".encode(): Item(1, 0, b"1"), b"b": Item(1, 0, b"2")}
        report, lines = await imported(standin.port, node.port)
    assert (report.imported, report.unreadable, report.good) == (1, 1, False)
    assert "the record of another key" in lines[0]


# --- a source that a script plays ---

Replies = Callable[[Request], bytes | None]


def playing(replies: Replies) -> Callable[[Peer], Any]:
    """A server that answers each request so; None: it leaves off and stays silent; b"": it hangs up."""

    async def script(peer: Peer) -> None:
        while True:
            answer = replies(await peer.request())
            if answer is None:
                await peer.stay()
            if answer == b"":
                return
            peer.send(answer or b"")
            await peer.drain()

    return script


def a_memcached(listing: bytes, mg: Callable[[bytes], bytes | None], **other: bytes | None) -> Callable[[Peer], Any]:
    """One that lists so, and answers so when asked for a key."""

    def replies(request: Request) -> bytes | None:
        verb = request.verb.decode()
        if verb in other:
            return other[verb]
        if verb in ("mg", "get"):
            return mg(request.args[0])
        return {
            "version": b"VERSION 1.6.18\r\n",
            "stats": b"STAT curr_items 3\r\nEND\r\n",
            "lru_crawler": listing,
            "mn": b"MN\r\n",
        }[verb]

    return playing(replies)


def listed(*keys: bytes, expiry: int = -1) -> bytes:
    return b"".join(b"key=%b exp=%d la=1 cas=2 fetch=no cls=1 size=70\n" % (key, expiry) for key in keys) + b"END\r\n"


FOUND = b"VA 1 f0 t-1\r\nx\r\n"
SILENT = "has sent nothing for 1 second"


async def test_what_vanishes_between_listing_and_reading_is_counted_and_no_error(node: Server) -> None:
    answers = {b"here": FOUND, b"gone": b"EN\r\n", b"expired": b"VA 1 f0 t0\r\nx\r\n"}
    async with faulty(a_memcached(listed(*answers), answers.__getitem__)) as server:
        report, lines = await imported(server.port, node.port)
    assert (report.imported, report.vanished, report.good, lines) == (1, 2, True, [])


async def test_an_item_that_the_source_cannot_give_is_named_and_the_rest_comes(node: Server) -> None:
    answers = {b"a": FOUND, b"bad%0a": b"SERVER_ERROR out of memory\r\n", b"c": FOUND}
    async with faulty(a_memcached(listed(b"a", b"bad%250a", b"c"), answers.__getitem__)) as server:
        report, lines = await imported(server.port, node.port)
    assert (report.imported, report.unreadable, report.good) == (2, 1, False)
    assert lines == ["not read: bad%0a: SERVER_ERROR out of memory"]


async def test_an_expiry_is_that_of_the_value_that_came_not_of_the_one_that_was_listed(node: Server) -> None:
    now = int(time.time())
    script = a_memcached(listed(b"longer", b"for-ever", expiry=now + 100),
                         {b"longer": b"VA 1 f0 t5000\r\nx\r\n", b"for-ever": FOUND}.__getitem__)  # fmt: skip
    async with faulty(script) as server:
        await imported(server.port, node.port)
    found = await held(node.port, (b"longer", b"for-ever"))
    assert abs(found[b"longer"].ttl - 5000) < 60
    assert found[b"for-ever"].ttl == 0


async def test_an_old_memcached_is_listed_and_read_as_it_can(node: Server) -> None:
    def replies(request: Request) -> bytes:
        match [request.verb, *request.args]:
            case [b"version"]:
                return b"VERSION 1.5.6\r\n"
            case [b"stats"]:
                return b"END\r\n"
            case [b"lru_crawler", _, b"all"]:
                return listed(b"a%25", b"gone") if busy.pop() else b"BUSY currently processing crawler request\r\n"
            case [b"lru_crawler", *_]:
                return b"BADCLASS invalid class id\r\n"
            case [b"get", b"a%"]:
                return b"VALUE a% 7 1\r\nx\r\nEND\r\n"
            case [b"get", _]:
                return b"END\r\n"
        return b"ERROR\r\n"

    busy = [True, False]
    async with faulty(playing(replies)) as server:
        report, lines = await imported(server.port, node.port)
    assert (report.imported, report.vanished) == (1, 1)
    assert lines == [f"{HOST}:{server.port} may leave out items that are in use: import from it once more"]
    assert await held(node.port, [b"a%"]) == {b"a%": Stored(b"x", 7)}


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (a_memcached(listed(b"a"), lambda _: None), SILENT),
        (a_memcached(listed(b"a"), lambda _: b"VA 100 f0 t-1\r\nhal"), SILENT),
        (a_memcached(listed(b"a"), lambda _: b""), "has hung up"),
        (a_memcached(listed(b"a"), lambda _: b"what?\r\n"), "makes no sense .* 'what\\?'"),
        (a_memcached(listed(b"a"), lambda _: b"VA x f0 t-1\r\n"), "makes no sense"),
        (a_memcached(listed(b"a"), lambda _: b"VA 1 f0 t-1\r\nxxx\r\n"), "makes no sense"),
        (a_memcached(listed(b"a"), lambda _: b"x" * 10_000), "makes no sense"),
        (a_memcached(listed(b"a")[:-5], lambda _: FOUND), SILENT),
        (a_memcached(listed(b"a")[:-9], lambda _: FOUND), SILENT),
        (a_memcached(b"key=a exp=0 \nnonsense\nEND\r\n", lambda _: FOUND), "lists what is no item"),
        (a_memcached(b"key=a exp=0 \n" + b"n" * 10_000, lambda _: FOUND), "lists what is no item"),
        (a_memcached(listed(b"a"), lambda _: b"VALUE b 0 1\r\nx\r\nEND\r\n", mn=b"ERROR\r\n"), "makes no sense"),
        (a_memcached(b"", lambda _: FOUND), "has hung up"),
        (a_memcached(b"", lambda _: FOUND, version=None), SILENT),
    ],
)
async def test_a_source_that_stalls_breaks_off_or_raves_ends_it_and_is_named(
    node: Server, script: Callable[[Peer], Any], why: str
) -> None:
    async with faulty(script) as server:
        with pytest.raises(Unavailable, match=f"{HOST}:{server.port}.*{why}"):
            await imported(server.port, node.port, patience=1.0 if why == SILENT else PATIENCE)


async def test_what_was_imported_before_it_ended_is_counted(node: Server) -> None:
    keys = [b"key-%04d" % number for number in range(3000)]
    script = a_memcached(listed(*keys), lambda key: FOUND if key < b"key-2900" else None)
    report = Report()
    async with faulty(script) as server:
        with pytest.raises(Unavailable):
            await transfer.import_items(order(server.port, node.port, patience=2.0), report)
    assert report.imported == 2900 == await count(node.port)


# --- a target that does not take it ---


async def test_what_the_target_refuses_is_named_and_the_rest_comes(tmp_path: Path) -> None:
    items = {b"small": Stored(b"x"), b"too large": Stored(bytes(1001)), b"too-large": Stored(bytes(1001)),
             b" " * 186: Stored(b"y")}  # fmt: skip
    with memcached() as port:
        await fill(port, items)
        async with running(tmp_path / "data", max_item_size=1000) as node:
            report, lines = await imported(port, node.port, verify=True)
            assert (report.imported, report.refused, report.good) == (2, 2, False)
            assert (await held(node.port, items)).keys() == {b"small", b" " * 186}
    assert sorted(lines) == [
        r"refused: too-large, 1,001 bytes: SERVER_ERROR object too large for cache",
        r"refused: too\x20large, 1,001 bytes: SERVER_ERROR object too large for cache",
    ]


def a_node(answer: bytes | None) -> Callable[[Peer], Any]:
    """One that answers so to each item."""

    def replies(request: Request) -> bytes | None:
        if request.verb == b"add":
            return answer
        return {b"version": b"VERSION 1.6.18+0-sfss\r\n", b"stats": b"STAT pid 0\r\nEND\r\n"}[request.verb]

    return playing(replies)


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        (b"SERVER_ERROR out of space storing object\r\n", OutOfSpace, "has no room"),
        (b"SERVER_ERROR IOError: [Errno 5] I/O error\r\n", Unavailable, "can't store.*I/O error"),
        (b"what?\r\n", Unavailable, "can't store.*what"),
        (None, Unavailable, SILENT),
        (b"", Unavailable, "(has hung up|broke)"),
    ],
)
async def test_a_target_that_cannot_go_on_ends_it_and_is_named(
    answer: bytes | None, error: type[Exception], why: str
) -> None:
    with memcached() as port:
        await fill(port, some_items(100))
        async with faulty(a_node(answer)) as target:
            with pytest.raises(error, match=f"the node at {HOST}:{target.port} {why}"):
                await imported(port, target.port, patience=1.0 if why == SILENT else PATIENCE)


async def test_a_slow_target_holds_up_the_source_and_nothing_piles_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read and not answered yet never comes to more than the window."""
    taken = asyncio.Event()

    async def slow(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.verb == b"add":
                await asyncio.wait_for(taken.wait(), PATIENCE)
                peer.send(b"STORED\r\n")
            else:
                peer.send(b"VERSION 1-sfss\r\n" if request.verb == b"version" else b"STAT pid 0\r\nEND\r\n")

    async with contextlib.AsyncExitStack() as stack:
        port = stack.enter_context(memcached("-m", "256"))
        await fill(port, {b"k%d" % number: Stored(bytes(500_000)) for number in range(60)})
        target: Faulty = await stack.enter_async_context(faulty(slow))
        running_import = asyncio.create_task(imported(port, target.port))
        async with connected(port) as client:

            async def read() -> int:
                return int((await client.stats())["bytes_written"])

            before, now = 0, await read()
            while now < 500_000 or now - before > 100_000:
                await asyncio.sleep(0.3)
                before, now = now, await read()
            assert now < 20_000_000, "the window, and what the kernel's buffers take"
            taken.set()
            report, _ = await running_import
    assert report.imported == 60


# --- what can't be imported from, or to ---


@pytest.mark.parametrize("name", [HOST, "localhost"])
async def test_source_and_target_must_be_two(node: Server, name: str) -> None:
    same = Order("it", "", Address(name, node.port, ""), Address(HOST, node.port, "that"))
    with pytest.raises(ConfigError, match="it is that itself"):
        await transfer.import_items(same, Report())


async def test_one_process_under_two_addresses_is_one(tmp_path: Path) -> None:
    async with running(tmp_path / "data", host="0.0.0.0") as node:
        same = Order("it", "", Address("127.0.0.2", node.port, ""), Address(HOST, node.port, "that"))
        with pytest.raises(ConfigError, match="it is that itself"):
            await transfer.import_items(same, Report())


async def test_only_a_node_is_imported_to() -> None:
    with memcached() as port, memcached() as other, pytest.raises(ConfigError, match="no node of sfss"):
        await imported(port, other)


@pytest.mark.parametrize(
    ("options", "kind", "why"),
    [
        (("-X",), "", "must be started without -X"),
        (("-X",), "memcached", "must be started without -X"),
        (("-o", "no_lru_crawler"), "", "send it `lru_crawler enable`"),
        ((), "beansdb", "no answer to `get @`"),
    ],
)
async def test_a_memcached_that_does_not_list_its_keys_is_told_of(
    node: Server, options: tuple[str, ...], kind: str, why: str
) -> None:
    with (
        memcached(*options) as port,
        pytest.raises(ConfigError, match=f"version 1[.0-9]+, doesn't list its keys.*{why}"),
    ):
        await imported(port, node.port, kind)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (a_memcached(b"ERROR\r\n", lambda _: b"END\r\n"), "which memcached knows from 1.4.31 on"),
        (a_memcached(b"ERROR\r\n", lambda _: b"SERVER_ERROR \x1b[2J\r\n"), "which memcached knows from 1.4.31 on"),
        (
            a_memcached(b"", lambda _: b"", version=b"220 smtp\x1b[2J\r\n"),
            "asked for its version, it says '220 smtp\\?",
        ),
    ],
)
async def test_what_is_no_source_is_told_of(node: Server, script: Callable[[Peer], Any], why: str) -> None:
    async with faulty(script) as server:
        with pytest.raises(ConfigError, match=why):
            await imported(server.port, node.port)


async def test_a_beansdb_is_no_memcached(node: Server) -> None:
    async with beansdb("bitcask", walked=True) as standin:
        with pytest.raises(ConfigError, match=r"which memcached knows from 1.4.31 on"):
            await imported(standin.port, node.port, "memcached")


async def test_nobody_there_is_told_of(node: Server) -> None:
    with pytest.raises(Unavailable, match=r"can't be reached: .*refused"):
        await imported(free_port(), node.port)
    with memcached() as port, pytest.raises(Unavailable, match=r"the node at .* can't be reached: .*refused"):
        await imported(port, free_port())


@pytest.mark.parametrize("text", ["", "host", "http://a:1", "a:0", "a:70000", "a:1/x", "x=a:1", "memcached://", ":1"])
def test_what_is_no_source_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        transfer.parse_source(text)


def test_sources_are_written_so() -> None:
    assert transfer.parse_source("cache:11211") == ("", Address("cache", 11211, "cache:11211"))
    assert transfer.parse_source("memcached://[::1]:11211") == ("memcached", Address("::1", 11211, "[::1]:11211"))
    assert transfer.parse_source("beansdb://b:7900/")[0] == "beansdb"


# --- the command ---


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    with memcached() as port, sfss_node(tmp_path / "data", "--max-item-size", "1KiB") as (target, _):
        asyncio.run(fill(port, {b"a": Stored(b"12345"), b"b": Stored(b"")}))
        to = f"--to={HOST}:{target}"
        done = sfss(f"{HOST}:{port}", "--dry-run")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{HOST}:{port}: 2 items to import, 5 bytes, in " in done.stdout
        done = sfss(f"memcached://{HOST}:{port}", to, "--verify")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"memcached://{HOST}:{port}: 2 items imported to {HOST}:{target}, 5 bytes, in " in done.stdout
        assert "; 0 were there already, 0 vanished meanwhile, 0 not read, 0 refused, 0 differ" in done.stdout
        asyncio.run(fill(port, {b"large\n": Stored(bytes(2000))}))
        done = sfss(f"{HOST}:{port}", to)
        assert done.returncode == 1
        assert done.stderr == "refused: large\\x0a, 2,000 bytes: SERVER_ERROR object too large for cache\n"
        assert "0 items imported" in done.stdout
        assert "; 2 were there already, 0 vanished meanwhile, 0 not read, 1 refused" in done.stdout
        done = sfss(f"{HOST}:{port}", f"--to={HOST}:{port}")
        assert (done.returncode, done.stdout) == (2, "")
        assert "no node of sfss" in done.stderr
    done = sfss(f"{HOST}:{port}", to)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the import stopped: " in done.stderr
    assert "it can be run again" in done.stderr


@pytest.fixture
async def full(tmp_path: Path) -> AsyncIterator[tuple[int, Items]]:
    """A memcached with as much as takes a while."""
    items = {b"key-%d" % number: Stored(random.Random(number).randbytes(20_000)) for number in range(2500)}
    with memcached("-m", "256") as port:
        await fill(port, items)
        yield port, items


async def test_interrupted_it_says_so_and_run_again_it_is_complete(full: tuple[int, Items], tmp_path: Path) -> None:
    port, items = full
    with sfss_node(tmp_path / "data") as (target, _):
        command = [sys.executable, "-m", "sfss", "node", "import", f"{HOST}:{port}", "--to", f"{HOST}:{target}"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            while await count(target) < 200:
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, said = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
        assert process.returncode == 130
        assert re.search(r"interrupted: [\d,]+ items imported .*; it can be run again\n$", said)
        assert 200 <= await count(target) < len(items)
        done = await asyncio.to_thread(sfss, f"{HOST}:{port}", "--to", f"{HOST}:{target}")
        assert done.returncode == 0
        assert await count(target) == len(items)
        assert_same(await held(target, items), items)


async def test_a_target_that_dies_ends_it_and_what_was_counted_holds(full: tuple[int, Items], tmp_path: Path) -> None:
    port, items = full
    report = Report()
    with child(tmp_path / "data") as (target, process):
        importing = asyncio.create_task(transfer.import_items(order(port, target), report))
        while report.imported < 200 and not importing.done():
            await asyncio.sleep(0.001)
        process.kill()
        with pytest.raises(Unavailable, match=r"the node at .* has hung up|the connection to the node at .* broke"):
            await importing
        process.wait()
    with child(tmp_path / "data") as (target, _):
        assert report.imported <= await count(target) < len(items)
        again, _ = await imported(port, target)
        assert (again.imported + again.there, again.good) == (len(items), True)
        assert_same(await held(target, items), items)


# --- the parts ---


async def test_a_spool_gives_all_lines_in_their_order_from_the_disk_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "IN_MEMORY", 1000)
    monkeypatch.setattr(sources, "BATCH", 100)
    spool = sources.Spool()
    lines = [b"%d" % number * (number % 10 + 1) for number in range(2000)]

    async def put() -> None:
        for first in range(0, 2000, 50):
            spool.put(b"".join(line + b"\n" for line in lines[first : first + 50]))
            await asyncio.sleep(0)
        spool.end()

    putting = asyncio.create_task(put())
    assert [line async for batch in spool.batches() for line in batch] == lines
    await putting
    spool.close()


async def test_no_room_for_the_list_of_keys_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "IN_MEMORY", 10)
    monkeypatch.setattr("tempfile.tempdir", "/proc")
    with (
        contextlib.closing(sources.Spool()) as spool,
        pytest.raises(Unavailable, match=r"no room for the list of keys: .*TMPDIR"),
    ):
        spool.put(b"a line that is longer\n")


def test_answers_are_the_same_however_their_bytes_are_split() -> None:
    sent = b"MN\r\nVA 5 f0 t-1\r\na\r\nbc\r\nEN\r\nVALUE k 0 0\r\n\r\nEND\r\nVALUE VA 1 3 9\r\nEND\r\nEND\r\n"
    whole = Answers()
    whole.feed(sent)
    assert [answer.block for answer in whole.ready] == [None, b"a\r\nbc", None, b"", None, b"END", None]
    for step in range(1, 20):
        split = Answers()
        for start in range(0, len(sent), step):
            split.feed(sent[start : start + step])
        assert split.ready == whole.ready


@pytest.mark.parametrize("sent", [b"VA 1\r\nxy\r\n", b"VA -1\r\n", b"VALUE k 0\r\n", b"VA 99999999999\r\n"])
def test_answers_that_are_none_are_refused(sent: bytes) -> None:
    with pytest.raises(ProtocolError):
        Answers().feed(sent)
