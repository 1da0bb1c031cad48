"""Lists of what a node holds, under every fault that a node or a network can show; faults are ``faulty``'s scripts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from sfss import scan
from sfss.addresses import Address
from sfss.backends import walks
from sfss.backends.base import Listed
from sfss.backends.lists import WALK_PATIENCE, Lists
from sfss.errors import NodeAway, NodeBroken, NodeError, NodeRefused, NodeTimeout
from sfss.memcache import value
from tests.backends.beansdb import Beansdb, _place, beansdb
from tests.backends.faulty import Faulty, Peer, Script, faulty
from tests.node.support import PATIENCE
from tests.servers import HOST, free_port, memcached

pytestmark = pytest.mark.usefixtures("nothing_leaks")

TIMEOUT = 0.2  # seconds; of the lists under test
LITTLE = 0.15  # seconds that a list may end after its deadline on a busy machine
ANY = re.compile(rb"[^\x00-\x20\x7f]{1,250}")
MIB = 2**20


@contextlib.asynccontextmanager
async def lists_of(port: int, timeout: float = TIMEOUT) -> AsyncIterator[Lists]:
    lists = Lists(Address(HOST, port, "node"), connect_timeout=TIMEOUT, timeout=timeout)
    try:
        yield lists
    finally:
        lists.close()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def scripted(script: Script, timeout: float = TIMEOUT) -> AsyncIterator[tuple[Faulty, Lists]]:
    async with faulty(script) as server, lists_of(server.port, timeout) as lists:
        yield server, lists


def item(number: int) -> bytes:
    return scan.block([(b"/%06d" % number, b"header", 2, number)])


def reply_to(request: list[bytes]) -> bytes:
    """A good node's, which has items for ever: those that come behind the number that is asked for."""
    first = int(request[0].removeprefix(b"(/")) + 1 if request[0] != b"-" else 0
    return b"".join(map(item, range(first, first + int(request[2])))) + b"END\r\n"


async def answers(peer: Peer) -> None:
    while True:
        peer.send(reply_to((await peer.request()).args))


def expected(first: int, count: int) -> list[Listed]:
    return [Listed(b"/%06d" % number, b"header", 2, number) for number in range(first, first + count)]


async def ends(call: Awaitable[object], within: float = TIMEOUT + LITTLE) -> object:
    """The answer or error of a call, which has to come in time."""
    began = time.perf_counter()
    outcome = (await asyncio.gather(call, return_exceptions=True))[0]
    assert time.perf_counter() - began < within, outcome
    return outcome


async def all_keys(lists: Lists, kind: str = "memcached") -> list[bytes]:
    walk = lists.keys(kind, ANY)
    return [key async for batch in walk for key in batch]


# --- scan -------------------------------------------------------------------------------------------------------------


async def test_one_connection_serves_scan_after_scan_and_those_at_once_in_turn() -> None:
    async with scripted(answers, timeout=5) as (server, lists):
        assert await lists.scan(b"", 3) == expected(0, 3)
        assert await lists.scan(b"/000002", 3) == expected(3, 3)
        together = await asyncio.gather(*(lists.scan(b"/%06d" % number, 100) for number in range(20)))
        assert together == [expected(number + 1, 100) for number in range(20)]
        assert len(server.accepted) == 1


async def test_a_long_reply_may_take_as_long_as_it_comes() -> None:
    async def slow(peer: Peer) -> None:
        reply = reply_to((await peer.request()).args)
        for start in range(0, len(reply), len(reply) // 10):
            peer.send(reply[start : start + len(reply) // 10])
            await asyncio.sleep(TIMEOUT / 3)
        await answers(peer)

    async with scripted(slow) as (_, lists):
        began = time.perf_counter()
        assert await lists.scan(b"", 10_000) == expected(0, 10_000)
        assert time.perf_counter() - began > 2 * TIMEOUT


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("sent", [b"", b"IT", item(0)[:-9], item(0), item(0) + b"END\r"], ids=repr)
async def test_a_hang_up_within_a_reply_fails_at_once_and_the_next_scan_is_right(sent: bytes, reset: bool) -> None:
    async def hangs_up(peer: Peer) -> None:
        await peer.request()
        peer.send(sent)
        if reset:
            await peer.reset()

    async with scripted(hangs_up, timeout=5) as (server, lists):
        error = await ends(lists.scan(b"", 2))
        assert isinstance(error, NodeBroken)
        assert f"{HOST}:{server.port}" in str(error)
        server.script = answers
        assert await lists.scan(b"", 2) == expected(0, 2)


@pytest.mark.parametrize("sent", [b"", b"ITEM", item(0) + item(1)[:-5]], ids=repr)
async def test_silence_ends_at_the_time_out_and_a_late_reply_is_nobodys(sent: bytes) -> None:
    async def late(peer: Peer) -> None:
        reply = reply_to((await peer.request()).args)
        peer.send(sent)
        await asyncio.sleep(TIMEOUT * 1.5)
        peer.send(reply[len(sent) :])
        await answers(peer)

    async with scripted(late) as (server, lists):
        error = await ends(lists.scan(b"", 2))
        assert isinstance(error, NodeTimeout)
        assert f"{HOST}:{server.port}" in str(error)
        server.script = answers
        for first in (10, 20):
            assert await lists.scan(b"/%06d" % first, 2) == expected(first + 1, 2)
            await asyncio.sleep(TIMEOUT)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"HELLO\r\n",
        b"\r\n",
        b"\0" * 2**17,
        b"VALUE k 0 1\r\nx\r\nEND\r\n",
        item(0) + item(0) + b"END\r\n",
        item(1) + item(0) + b"END\r\n",
        b"".join(map(item, range(3))) + b"END\r\n",
        item(0) + b"END\r\nEND\r\n",
        item(0).replace(b"header", b"too long") + b"END\r\n",
        b"ROWS 4\r\n\xff\xff\xff\xff\r\nEND\r\n",
        b"ROWS 1\r\n\x01\r\nEND\r\n",
        b"ROWS 999999999\r\n",
    ],
)
async def test_nonsense_is_a_broken_node_and_the_next_scan_begins_anew(nonsense: bytes) -> None:
    async def talks_nonsense(peer: Peer) -> None:
        await peer.request()
        peer.send(nonsense)
        await peer.stay()

    async with scripted(talks_nonsense, timeout=5) as (server, lists):
        assert isinstance(await ends(lists.scan(b"", 2)), NodeBroken)
        server.script = answers
        assert await lists.scan(b"", 2) == expected(0, 2)


@pytest.mark.parametrize(
    "nonsense",
    [
        item(0) + b"END\r\n",
        scan.heads_block([b"/000000"], []) + b"END\r\n",
        scan.heads_block([b"/000000", b"/000000"], [b"", b""]) + b"END\r\n",
        scan.heads_block([b"/000001"], [b""]) + scan.heads_block([b"/000000"], [b""]) + b"END\r\n",
        scan.heads_block([b"/000000", b"/000001", b"/000002"], [b"", b"", b""]) + b"END\r\n",
    ],
)
async def test_nonsense_in_place_of_heads_is_a_broken_node_too(nonsense: bytes) -> None:
    async def talks_nonsense(peer: Peer) -> None:
        assert (await peer.request()).args == [b"-", b"+", b"2", b"heads"]
        peer.send(nonsense)
        await peer.stay()

    async with scripted(talks_nonsense, timeout=5) as (_, lists):
        assert isinstance(await ends(lists.heads(b"", 2)), NodeBroken)


async def test_heads_come_in_blocks_and_are_one_list() -> None:
    async def tells(peer: Peer) -> None:
        await peer.request()
        peer.send(scan.heads_block([b"/a", b"/b"], [b"1", b"2"]) + scan.heads_block([], []))
        peer.send(scan.heads_block([b"/c"], [b"3"]) + b"END\r\n")

    async with scripted(tells) as (_, lists):
        assert await lists.heads(b"", 5) == ([b"/a", b"/b", b"/c"], [b"1", b"2", b"3"])


async def test_what_was_asked_to_come_behind_a_key_may_not_be_that_key() -> None:
    async def repeats(peer: Peer) -> None:
        await peer.request()
        peer.send(item(7) + b"END\r\n")
        await peer.stay()

    async with scripted(repeats) as (_, lists):
        assert isinstance(await ends(lists.scan(b"/000007", 2)), NodeBroken)


async def test_what_lies_before_an_end_may_not_come_behind_it() -> None:
    async def goes_on(peer: Peer) -> None:
        assert (await peer.request()).args == [b"-", b"(/000002", b"10", b"rows"]
        peer.send(item(1) + item(2) + b"END\r\n")
        await peer.stay()

    async with scripted(goes_on) as (_, lists):
        error = await ends(lists.scan(b"", 10, b"/000002"))
        assert isinstance(error, NodeBroken)
        assert "behind b'/000002'" in str(error)


async def test_an_end_that_is_too_long_for_a_key_may_be_one_all_the_same() -> None:
    async def takes(peer: Peer) -> None:
        assert (await peer.request()).args == [b"-", b"[" + b"x" * 250, b"10", b"rows"]
        peer.send(item(1) + b"END\r\n")

    async with scripted(takes) as (_, lists):
        assert await lists.scan(b"", 10, b"x" * 251) == expected(1, 1)


@pytest.mark.parametrize("line", [b"ERROR", b"CLIENT_ERROR bad count: 1 to 5", b"SERVER_ERROR Exception: IO error"])
async def test_an_error_is_told_in_the_nodes_words_and_voids_what_came_before(line: bytes) -> None:
    async def refuses(peer: Peer) -> None:
        await peer.request()
        peer.send(item(0) + line + b"\r\n")
        await peer.stay()

    async with scripted(refuses) as (server, lists):
        error = await ends(lists.scan(b"", 2))
        assert isinstance(error, NodeRefused)
        assert line.decode() in str(error)
        server.script = answers
        assert await lists.scan(b"", 2) == expected(0, 2)


async def test_bytes_that_nothing_was_asked_for_are_not_taken_for_a_reply() -> None:
    async def says_more(peer: Peer) -> None:
        peer.send(reply_to((await peer.request()).args))
        await asyncio.sleep(TIMEOUT / 4)
        peer.send(b"END\r\n")
        await answers(peer)

    async with scripted(says_more) as (server, lists):
        assert await lists.scan(b"", 2) == expected(0, 2)
        await asyncio.sleep(TIMEOUT / 2)
        assert await lists.scan(b"", 2) == expected(0, 2)
        assert len(server.accepted) == 2


async def test_a_node_that_hung_up_between_two_scans_is_connected_to_again() -> None:
    async def once(peer: Peer) -> None:
        peer.send(reply_to((await peer.request()).args))

    async with scripted(once) as (server, lists):
        for number in range(3):
            assert await lists.scan(b"/%06d" % number, 2) == expected(number + 1, 2)
            await asyncio.sleep(TIMEOUT / 4)
        assert len(server.accepted) == 3


async def test_a_scan_cancelled_in_the_middle_of_a_reply_leaves_nothing_for_the_next() -> None:
    async def halves(peer: Peer) -> None:
        while True:
            reply = reply_to((await peer.request()).args)
            peer.send(reply[: len(reply) // 2])
            await asyncio.sleep(0.002)
            peer.send(reply[len(reply) // 2 :])

    async with scripted(halves, timeout=5) as (_, lists):
        for steps in range(40):
            scans = [asyncio.ensure_future(lists.scan(b"/%06d" % number, 50)) for number in range(3)]
            for _ in range(steps):
                await asyncio.sleep(0)
            scans[0].cancel()
            scans[1].cancel()
            outcomes = await asyncio.gather(*scans, return_exceptions=True)
            assert outcomes[2] == expected(3, 50)
            assert await lists.scan(b"/000007", 5) == expected(8, 5)


async def test_a_node_that_is_not_there_is_away() -> None:
    async with lists_of(free_port()) as lists:
        for call in (lists.scan(b"", 1), all_keys(lists)):
            error = await ends(call)
            assert isinstance(error, NodeAway)
            assert "refused" in str(error)


async def test_closing_fails_the_lists_that_are_on_their_way_and_those_to_come() -> None:
    async def hangs(peer: Peer) -> None:
        await peer.request()
        assert await peer.reader.read() == b"", "the client has hung up"

    async with scripted(hangs, timeout=5) as (_, lists):
        calls = [asyncio.ensure_future(call) for call in (lists.scan(b"", 1), lists.scan(b"", 1), all_keys(lists))]
        await asyncio.sleep(TIMEOUT)
        lists.close()
        for outcome in await asyncio.gather(*(ends(call) for call in calls)):
            assert isinstance(outcome, NodeAway)
            assert "stopping" in str(outcome)
        assert isinstance(await ends(lists.scan(b"", 1)), NodeAway)


async def test_closing_while_it_is_connecting_leaves_no_socket_open() -> None:
    async with scripted(answers) as (_, lists):
        for steps in range(10):
            again = Lists(lists._address, connect_timeout=TIMEOUT, timeout=TIMEOUT)
            call = asyncio.ensure_future(again.scan(b"", 1))
            for _ in range(steps):
                await asyncio.sleep(0)
            again.close()
            assert isinstance(await ends(call), NodeAway) or call.result() == expected(0, 1)
            await asyncio.sleep(0)


# --- the keys of a memcached ------------------------------------------------------------------------------------------


def lines(count: int) -> bytes:
    return b"".join(b"key=%%2F%d exp=-1 la=1 cas=%d fetch=no cls=1 size=70\n" % (n, n) for n in range(count))


def says(*replies: bytes) -> Script:
    """Answers its n-th request with the n-th of these, and then hangs."""

    async def script(peer: Peer) -> None:
        for reply in replies:
            await peer.request()
            peer.send(reply)
        await peer.stay()

    return script


async def test_a_metadump_is_read_however_it_is_split() -> None:
    async def in_pieces(peer: Peer) -> None:
        await peer.request()
        whole = lines(20) + b"END\r\n"
        for start in range(0, len(whole), 7):
            peer.send(whole[start : start + 7])
            await asyncio.sleep(0)
        await peer.stay()

    async with scripted(in_pieces) as (_, lists):
        assert await all_keys(lists) == [b"/%d" % number for number in range(20)]


@pytest.mark.parametrize("whole", [True, False])
async def test_keys_that_no_call_takes_are_left_out(whole: bool) -> None:
    odd = b"key=a%20b exp=-1 la=1\nkey=%0A exp=-1 la=1\n"
    async with scripted(says((lines(3) if whole else b"") + odd + b"END\r\n")) as (_, lists):
        assert await all_keys(lists) == ([b"/0", b"/1", b"/2"] if whole else [])


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b"ERROR\r\n", NodeRefused),
        (b"CLIENT_ERROR lru crawler disabled\r\n", NodeRefused),
        (b"ERROR metadump not allowed\r\n", NodeRefused),
        (b"hello\r\n", NodeRefused),
        (b"x" * 10_000, NodeBroken),
        (lines(3) + b"ERROR\r\nEND\r\n", NodeBroken),
        (lines(3) + b"\nEND\r\n", NodeBroken),
        (lines(3) + b"y" * 10_000, NodeBroken),
        (lines(3) + b"key=%2F", NodeTimeout),
        (b"", NodeTimeout),
    ],
    ids=lambda reply: repr(reply)[:50],
)
async def test_a_list_that_is_none_or_has_no_end_is_an_error(reply: bytes, kind: type[NodeError]) -> None:
    async with scripted(says(reply), timeout=TIMEOUT / WALK_PATIENCE) as (server, lists):
        error = await ends(all_keys(lists))
        assert isinstance(error, kind), error
        assert f"{HOST}:{server.port}" in str(error)


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_what_came_before_a_hang_up_is_told_and_then_the_error(reset: bool) -> None:
    async def hangs_up(peer: Peer) -> None:
        await peer.request()
        peer.send(lines(2500))
        await peer.drain()
        if reset:
            await asyncio.sleep(TIMEOUT / 2)
            await peer.reset()

    async with scripted(hangs_up) as (_, lists):
        walk = lists.keys("memcached", ANY)
        assert [len(await anext(walk)) for _ in range(2)] == [1000, 1000]
        with pytest.raises(NodeBroken):
            await anext(walk)


async def test_a_memcached_that_lists_for_another_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walks, "BUSY_PAUSE", 0.01)
    busy = b"BUSY currently processing crawler request\r\n"
    async with scripted(says(busy, busy, lines(2) + b"END\r\n")) as (server, lists):
        assert await all_keys(lists) == [b"/0", b"/1"]
        assert len(server.accepted) == 1
    async with scripted(says(*[busy] * 100), timeout=TIMEOUT / WALK_PATIENCE) as (_, lists):
        error = await ends(all_keys(lists), 2 * TIMEOUT)
        assert isinstance(error, NodeRefused)
        assert "BUSY" in str(error)


async def test_an_old_memcached_lists_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with scripted(says(b"BADCLASS invalid class id\r\n", lines(2) + b"END\r\n")) as (_, lists):
        assert await all_keys(lists) == [b"/0", b"/1"]
    assert "may leave out keys" in caplog.text


async def test_a_slow_caller_does_not_hold_up_a_memcached_nor_fill_the_memory() -> None:
    """One that is held up for a second sends some of its list twice."""
    sent = asyncio.Event()

    async def sends_much(peer: Peer) -> None:
        await peer.request()
        for _ in range(100):
            peer.send(lines(5000))
            await peer.drain()
        peer.send(b"END\r\n")
        sent.set()
        assert await peer.reader.read() == b"", "the client hangs up in the end"

    async with scripted(sends_much, timeout=5) as (_, lists):
        walk = lists.keys("memcached", ANY)
        told = len(await anext(walk))
        await asyncio.wait_for(sent.wait(), PATIENCE)
        async for batch in walk:
            told += len(batch)
        assert told == 500_000


@pytest.mark.parametrize("kind", ["memcached", "beansdb"])
async def test_who_leaves_off_hangs_up(kind: str) -> None:
    hung_up = asyncio.Event()

    async def lists_for_ever(peer: Peer) -> None:
        try:
            while request := await peer.request():
                if request.verb == b"stats":
                    peer.send(b"STAT pointer_size 64\r\nEND\r\n")
                elif request.verb == b"get":
                    peer.send(value(request.args[0], 0, b"".join(b"/%d 1 1\n" % n for n in range(2000))) + b"END\r\n")
                else:
                    peer.send(lines(5000))
        finally:
            hung_up.set()

    async with scripted(lists_for_ever, timeout=5) as (_, lists):
        async with contextlib.aclosing(lists.keys(kind, ANY)) as walk:
            assert len(await anext(walk)) == 1000
        await asyncio.wait_for(hung_up.wait(), PATIENCE)
        assert not lists._open


async def test_a_real_memcached_that_does_not_list_says_why() -> None:
    with memcached("-X") as port:
        async with lists_of(port) as lists:
            error = await ends(all_keys(lists))
    assert isinstance(error, NodeRefused)
    assert "not allowed" in str(error)


# --- the keys of a Beansdb --------------------------------------------------------------------------------------------


def tree(listing: Callable[[bytes], bytes], figures: bytes = b"STAT pointer_size 64\r\n") -> Script:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            peer.send(figures + b"END\r\n" if request.verb == b"stats" else listing(request.args[0]))

    return script


def directories(key: bytes) -> bytes:
    return value(key, 0, b"".join(b"%x/ 1 1\n" % number for number in range(16))) + b"END\r\n"


@pytest.mark.parametrize(
    ("listing", "kind"),
    [
        (directories, NodeBroken),  # without end
        (lambda key: directories(b"@other"), NodeBroken),
        (lambda key: b"SERVER_ERROR broken\r\n", NodeRefused),
        (lambda key: b"STORED\r\n", NodeBroken),
        (lambda key: b"VALUE\r\n", NodeBroken),
        (lambda key: b"VALUE %b 0 100000000\r\n" % key, NodeBroken),
        (lambda key: b"VALUE %b 0 100\r\n" % key, NodeTimeout),
        (lambda key: b"", NodeTimeout),
    ],
)
async def test_a_tree_that_makes_no_sense_is_an_error(listing: Callable[[bytes], bytes], kind: type[NodeError]) -> None:
    async with scripted(tree(listing), timeout=TIMEOUT / WALK_PATIENCE) as (server, lists):
        error = await ends(all_keys(lists, "beansdb"), PATIENCE)  # down to where no tree has anything takes a while
        assert isinstance(error, kind), error
        assert f"{HOST}:{server.port}" in str(error)


async def test_a_deep_tree_is_walked_to_its_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.backends.beansdb.AS_KEYS", 3)
    for generation in ("bitcask", "tokyo", "go"):
        async with beansdb(generation, walked=True) as standin, lists_of(standin.port) as lists:
            keys = {b"/%d" % number for number in range(500)}
            for key in keys | {b"/gone"}:
                standin._put(key, 0, 0, b"value")
            standin._remove(b"/gone")
            assert sorted(await all_keys(lists, "beansdb")) == sorted(keys)


async def test_a_record_that_another_was_moved_over_is_looked_at_again_and_left_out_if_that_is_for_good(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(walks, "GARBAGE_PAUSE", 0.01)
    looks: dict[bytes, int] = {}
    whole = Beansdb._record
    for_a_moment, for_good = (_place(key, hashed=True) for key in (b"/1", b"/2"))

    def moved(self: Beansdb, place: bytes) -> bytes | None:
        looks[place] = looks.get(place, 0) + 1
        wrong = place == for_good or (place == for_a_moment and looks[place] < 3)
        return whole(self, _place(b"/3", hashed=True) if wrong else place)

    monkeypatch.setattr(Beansdb, "_record", moved)
    async with beansdb("go", walked=True) as standin, lists_of(standin.port) as lists:
        for number in range(5):
            standin._put(b"/%d" % number, 0, 0, b"value")
        with caplog.at_level(logging.WARNING):
            assert sorted(await all_keys(lists, "beansdb")) == [b"/0", b"/1", b"/3", b"/4"]
    assert looks[for_a_moment] == 3
    assert [record.args[1] for record in caplog.records if record.args] == [for_good.decode()]  # type: ignore[index]


async def test_a_record_that_cannot_be_read_does_not_end_the_walk(caplog: pytest.LogCaptureFixture) -> None:
    place = _place(b"/1", hashed=True)

    def listing(key: bytes) -> bytes:
        if key == b"@":
            return value(key, 0, place + b" 1 1\n") + b"END\r\n"
        return b"SERVER_ERROR disk error\r\n"

    async with scripted(tree(listing, b""), timeout=5) as (_, lists):
        assert await all_keys(lists, "beansdb") == []
    assert f"{place.decode()} is left out" in caplog.text
    assert "disk error" in caplog.text
