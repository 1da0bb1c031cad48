"""The meta commands: the same bytes to memcached and to the node get the same replies, and the differences by name."""

from __future__ import annotations

import asyncio
import base64
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfss.memcache import Request
from sfss.node.commands import Commands
from sfss.node.memory import UNKNOWN, Found, Unknown
from sfss.node.server import Server
from sfss.node.stats import Counters, Stats
from sfss.node.store import Store
from tests.node.support import PATIENCE, STEADY, Clock, Tampered, connected, running, set_request, talk
from tests.node.test_commands import COUNTED
from tests.servers import memcached

LONG = b"k" * 251
BINARY = base64.b64encode(b"\0\xff k\r\n")
LONGEST = base64.b64encode(b"\n" * 186)  # of those that are told in base64: 250 bytes are the bound of what is sent
A = b"ms a 5 F3\r\nvalue\r\n"
N = b"ms n 2\r\n10\r\n"


def lines(*requests: bytes) -> bytes:
    return b"".join(request + b"\r\n" for request in requests)


SCRIPTS = {
    "mn": lines(b"mn", b"mn foo", b"mx", b"m", b"mn noreply"),
    "mg": A + lines(b"mg a", b"mg a v", b"mg a s v f k", b"mg a k O17 s", b"mg b", b"mg b k O17 v", b"mg  a  v "),
    "mg, ttl": A + lines(b"mg a t", b"mg a T0 t", b"mg a T-1 v", b"mg a v") + A + lines(b"mg a t T0"),
    "mg, flags of no effect": A + lines(b"mg a u P Lfoo F1 C5 MX J1 D1 I", b"mg a P1 L"),
    "mg, quiet": A + lines(b"mg a q v", b"mg b q k O1", b"mg b", b"mg b q", b"mn", b"mg a b q", b"mg a q", b"get a"),
    "mg, wrongly": A + lines(b"mg", b"mg %b" % LONG, b"mg a !", b"mg a vv v", b"mg a v v", b"mg a \xff", b"mg a Tx",
        b"mg a T", b"mg a Fx", b"mg a Fx Tx", b"mg a Tx Fx", b"mg a C", b"mg a Jx", b"mg a Dx", b"mg a M", b"mg a Mxx",
        b"mg a z q", b"mg a Tx !", b"mg a Tx v v", b"mg a O" + b"x" * 31, b"mg a O" + b"x" * 32, b"mg a" + b" v" * 17,
        b"mg a" + b" v" * 18, b"mg a q Tx", b"mg b q O" + b"x" * 32),
    "base64": b"ms %b 2 b k\r\nhi\r\n" % BINARY + lines(b"mg %b b v k" % BINARY, b"mg %b v k" % BINARY,
        b"md %b k b" % BINARY, b"mg %b b k O1" % BINARY),
    "base64, of a key that is text too": A + lines(b"mg YQ== b v", b"md YQ== b", b"get a"),
    "base64, what is none": A + lines(b"mg Y b", b"mg YQ= b", b"mg Y=== b", b"mg ==== b v", b"mg Y-Q=- b v",
        b"mg Y=Q= b v",
        b"mg YQ==YQ== b v", b"mg **** b", b"ma YQ b", b"md YQ b", b"me YQ b", b"mg YQ b Tx", b"mg YQ Tx b",
        b"mg =YQ= b v",
        b"mg YWE= b v", b"mg YWFhYQ== b v"),
    "ms": A + lines(b"get a") + b"ms a 0\r\n\r\nms a 4 F4294967295 k O1\r\n\r\n\0\xff\r\n" + lines(b"mg a v f"),
    "ms, words missing": lines(b"ms", b"ms a", b"ms a x", b"ms a -1", b"ms a 2147483646", b"ms a 2x", b"ms a S2"),
    "ms, modes": b"".join(b"ms a 1 M%b k\r\n%b\r\nget a\r\n" % (mode, mode)
        for mode in (b"R", b"A", b"P", b"E", b"E", b"A", b"P", b"R", b"S", b"X"))
        + b"ms a 1 M\r\nx\r\nms a 1 Mxx\r\nx\r\n",
    "ms, quiet":
        b"ms a 1 q k\r\n1\r\nms a 1 ME q k\r\n2\r\nms b 1 MR q O1\r\n3\r\nms a 1 q C5\r\n4\r\nms a 1 q !\r\n5\r\n"
        + lines(b"get a", b"mn"),
    "ms, append keeps flags and ttl": A + b"ms a 1 MA F9 T-1\r\n>\r\nms a 1 MP F9 T-1 k\r\n<\r\n"
        + lines(b"mg a v f t"),
    "ms, cas": A + b"".join(b"ms a 1 C%b\r\nx\r\nms b 1 C%b\r\nx\r\n" % (words, words)
        for words in (b"0", b"1", b"1 MS", b"1 MR", b"1 MA", b"1 MP", b"1 ME", b"0 MA", b"0 ME", b"x", b"", b"-1"))
        + lines(b"get a b"),
    "ms, wrongly": b"".join(b"ms a 2 %b\r\nhi\r\n" % flags for flags in (b"!", b"k k", b"\xff", b"Tx", b"Fx", b"F-1",
        b"F Tx", b"O" + b"x" * 32, b"q O" + b"x" * 32, b"Jx", b"Dx", b"b")) + lines(b"get a"),
    "ms, a bad chunk": b"ms a 1\r\nab\r\nget a\r\nms a 1 q\r\nab\r\nget a\r\nms a 3 k\r\na\r\n\r\nget a\r\n",
    "ms, expired at once": b"ms a 1 T-1\r\nx\r\n" + A + b"ms a 1 T-1 k\r\nx\r\nmg a\r\nget a\r\n",
    "ms, too large": b"ms a 2000000 k\r\n%b\r\nget a\r\n" % (b"get a\r\n" * 285714 + b"xx"),
    "ms, of a key that is a size": b"ms 2 2 k\r\nhi\r\nmg 2 v k\r\n",
    "md": A + lines(b"md a k O5", b"md a k O5", b"md a q", b"md a q k O5", b"mn") + A + lines(b"md a q", b"mg a",
        b"mn"),
    "md, cas": A + lines(b"md a C1", b"md a C1 q k", b"md b C1", b"md a C0", b"get a"),
    "md, wrongly": A + lines(b"md", b"md %b" % LONG, b"md a !", b"md a k k", b"md a Cx", b"md a Tx", b"md a M",
        b"md a O" + b"x" * 32, b"md a" + b" v" * 18, b"md a !q", b"md a q q", b"get a"),
    "md, a ttl alone is none of its business": A + lines(b"md a T30", b"get a"),
    "ma": N + lines(b"ma n", b"ma n v", b"ma n D5 v k O1", b"ma n MD D100 v", b"get n", b"ma n v", b"ma n MI v",
        b"ma n M+ v",
        b"ma n M- D2 v", b"ma x", b"ma x k O1", b"ma x q", b"ma n q v", b"ma n v t", b"get n"),
    "ma wraps at 64 bits": N + lines(b"ma n D18446744073709551615 v", b"ma n D18446744073709551615 v", b"ma n v",
        b"get n"),
    "ma makes what isn't there": lines(b"ma n N0 v", b"ma n N0 v", b"md n", b"ma n N0 J13 D9 v t k O1", b"md n",
        b"ma n N-1 J1 v", b"mg n v", b"ma n N0 J18446744073709551615 v", b"ma n v", b"md n", b"ma n N0 MD J7 q", b"mn"),
    "ma of no number": A + lines(b"ma a", b"ma a q k", b"ma a N0 J1") + b"ms a 0\r\n\r\n" + lines(b"ma a", b"ma a C1"),
    "ma, cas": N + lines(b"ma n C1 v", b"ma n C1 k q", b"ma n C0 v", b"ma x C1 k"),
    "ma, ttl": N + lines(b"ma n T0 t", b"ma n T-1 v", b"get n"),
    "ma, wrongly": N + lines(b"ma", b"ma %b" % LONG, b"ma n MX", b"ma n M", b"ma n Mii", b"ma n Dx", b"ma n Jx",
        b"ma n D",
        b"ma n D-1 v", b"ma n !", b"ma n v v", b"ma n D18446744073709551616", b"ma n" + b" v" * 18, b"ma n Nx",
        b"get n"),
    "me": lines(b"me", b"me a", b"me %b" % LONG, b"me a b", b"me a k b", b"me a !"),
    "mg makes what isn't there, and one wins it": lines(b"mg a N30 s v t f k O1", b"mg a N30 s v t f k O1", b"mg a",
        b"get a", b"mg a R60 t", b"mg a T100 t", b"ma a", b"append a 0 0 1") + b"1\r\n" + lines(b"mg a v t")
        + b"ms a 1\r\n1\r\n" + lines(b"mg a N30 v t", b"mg b N0 t q", b"mg b N0 t q", b"mg c N30", b"set c 5 0 1")
        + b"1\r\n" + lines(b"mg c N30 f", b"mg d N-1 v", b"mg d", b"mg d N-1", b"mg e q N9", b"mg e q N9", b"mn"),
    "mg, what T, N, R and t say in their order": b"".join(lines(b"mg a %b v" % words, b"mg a %b" % words, b"md a")
        for words in (b"t N30", b"N30 t", b"N30 t T50", b"T50 N30 t", b"T50 t N30", b"N30 T-1", b"N30 R60 t",
            b"R60 N30 t", b"N30 T500 R60 t", b"N0 R60"))
        + b"".join(b"ms a 1 T100\r\nx\r\n" + lines(b"mg a %b" % words, b"mg a") for words in (b"R50", b"R200", b"R0",
            b"R-1", b"T300 R200 t", b"R200 T300 t", b"R200 t T300", b"T0 R200", b"R200 T-1", b"R2000000000", b"N5 R200",
            b"q R200 k O1", b"u R200 v")) + b"ms a 1\r\nx\r\n" + lines(b"mg a R200", b"mg a"),
    "stale, won, brought anew": A + lines(b"md a I", b"get a", b"mg a v k O1", b"mg a v f", b"md a I q",
        b"mg a N30 R30", b"mg a R30", b"mn") + b"ms a 1\r\nx\r\n" + lines(b"mg a v", b"md a I k O5", b"touch a 100",
        b"gat 100 a", b"mg a t", b"mg a T50 t", b"md a I T200", b"mg a t q", b"md a I T-1", b"mg a", b"md a I",
        b"md a I q", b"md a I C5") + A
        + lines(b"md a I C1", b"mg a", b"md a I C0", b"md a I", b"md a q", b"mg a", b"mn"),
    "stale, won by a touch, and not by what isn't meta": A
        + lines(b"md a I", b"gets b", b"get a", b"mg a T60", b"mg a"),
    "stale, and changed": b"".join(N + lines(b"md n I") + lines(change) + lines(b"mg n v", b"mg n v") for change in (
        b"ma n", b"ma n MD D9", b"ma n D90", b"incr n 1", b"decr n 9", b"incr n 90", b"append n 0 0 1\r\n1",
        b"prepend n 0 0 1\r\n1", b"set n 0 0 1\r\n1", b"replace n 0 0 1\r\n1", b"add n 0 0 1\r\n1", b"touch n 0",
        b"ms n 1 ME\r\n1", b"ms n 1 MA\r\n1", b"ms n 1 MR\r\n1", b"ma n T60", b"ma n N60 J5", b"ms n 1 C1\r\n1")),
    "won, and changed": b"".join(b"ms n 2 T100\r\n10\r\n" + lines(b"mg n R200") + lines(change)
        + lines(b"mg n v", b"mg n R200") for change in (b"ma n D90", b"touch n 90", b"append n 0 0 1\r\n1",
        b"ms n 1 T100\r\n1", b"md n I", b"md n I T90", b"gat 90 n")),
    "ms, late": A + b"ms a 1 I C1 F7 T-1\r\nx\r\n" + lines(b"mg a v f t") + b"ms a 1 I C1 k q\r\ny\r\n"
        + lines(b"mg a v", b"md a I T100") + b"ms a 1 I C1 MR T5\r\nz\r\n" + lines(b"mg a v t", b"mg a")
        + b"".join(b"ms a 1 I%b\r\nw\r\n" % words for words in (b" C0", b" C1 MA", b" C1 MP", b" C1 ME", b" C1 k Mx"))
        + lines(b"mg a v") + b"ms a 1 I\r\nv\r\n" + lines(b"mg a v") + b"ms b 1 I C1\r\nu\r\n" + lines(b"mg b"),
    "flags that mean nothing to a verb": A + b"ms a 1 R9 N9 v t s f l h u J1 D1\r\nx\r\n"
        + lines(b"mg a", b"md b R9 N9 I", b"ma a R9 I", b"mg a I C1 M+ J1 D1 F1", b"md a v t c s f l h u J1 D1 F1 P L"),
    "flags of a later memcached": lines(b"mg a E1", b"ms a 1 E1", b"x", b"md a E1", b"ma a E1", b"md a x", b"mg a x",
        b"mg a S1", b"ms a S1", b"mg a g", b"ms a 1 S1", b"x"),
    "base64, stale and won": b"ms %b 2 b\r\nhi\r\n" % BINARY + lines(b"md %b b I k" % BINARY, b"mg %b b v k" % BINARY,
        b"mg %b b k" % BINARY, b"mg %b N9" % BINARY, b"mg %b b q" % base64.b64encode(b"no"),
        b"mg %b b N9 v" % base64.b64encode(b"no"), b"mg no v"),
    "base64, the longest key": b"ms %b 1 b\r\nx\r\n" % LONGEST + lines(b"mg %b b v k" % LONGEST,
        b"mg %b b v" % base64.b64encode(b"k" * 188), b"md %b b" % LONGEST, b"ma %b b N0 v" % LONGEST,
        b"me %b b" % base64.b64encode(b"k" * 189)),
    "classic and meta see the same items": set_request(b"a", b"1", b"7 0") + lines(b"mg a v f", b"ma a v", b"gets b")
        + b"ms a 2 MA\r\nxy\r\n" + lines(b"get a", b"md a", b"get a", b"incr a 1"),
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
async def test_the_same_bytes_get_the_replies_that_memcached_gives(script: bytes, real: int, node: Server) -> None:
    await talk(real, b"flush_all\r\n")
    expected = await talk(real, script)
    assert await talk(node.port, script) == expected


# --- versions ---


async def test_versions_change_and_are_asked_for_as_in_memcached(real: int, node: Server) -> None:
    async def dialogue(port: int) -> list[bytes]:
        said: list[bytes] = []
        async with connected(port) as client:

            async def ask(request: bytes) -> bytes:
                said.append(await client.line(request))
                found = re.search(rb" c(\d+)", said[-1])
                return found[1] if found else b"0"

            first = await ask(b"ms a 1 c\r\n5\r\n")
            same = await ask(b"mg a c T100\r\n")
            second = await ask(b"ma a c C%b\r\n" % first)
            await ask(b"ma a C%b\r\n" % first)
            await ask(b"ms a 1 C%b c k\r\n1\r\n" % first)
            third = await ask(b"ms a 1 MA c C%b\r\n1\r\n" % second)
            await ask(b"ms a 1 MP C%b\r\n1\r\n" % second)
            await ask(b"md a k C%b\r\n" % second)
            assert (await client.until_end(b"gets a\r\n")).split()[4] == third
            await ask(b"md a k C%b\r\n" % third)
            await ask(b"ms a 1 k C%b\r\n1\r\n" % third)
        versions = [first, second, third]
        assert versions == sorted(set(versions), key=int)
        assert same == first
        return [re.sub(rb" c\d+", b" c#", line) for line in said]

    assert await dialogue(node.port) == await dialogue(real)


async def test_the_counters_count_what_memcacheds_count(node: Server) -> None:
    script = (
        A
        + N
        + lines(
            b"mg a",
            b"mg a v q",
            b"mg b",
            b"mg b q T5",
            b"mg a T0",
            b"mg a T5 v",
            b"ma n",
            b"ma x",
            b"ma x MD",
            b"ma n MD",
            b"ma y N0",
            b"ma n C1",
            b"ma a",
            b"md a C1",
            b"md a",
            b"md b",
            b"me n",
            b"me b",
            b"mg v N30",
            b"mg v N30 T30",
            b"mg w N30 T30",
            b"md v I",
            b"md v I C1",
            b"mg v",
            b"md nothing I",
        )
        + b"ms n 1 C1 I\r\n5\r\nms n 1 C0 I\r\n5\r\nms nothing 1 C1 I\r\n5\r\n"
        + b"ms n 1 C1\r\n5\r\n"
    )
    script += b"ms q 1 C1\r\n5\r\nms n 1 ME\r\n1\r\nms q 1 MA\r\n1\r\nms n 1 MA\r\n1\r\n"
    figures = []
    with memcached(*STEADY) as real:  # a new one: what is flushed is counted there until it is asked for
        for port in (real, node.port):
            await talk(port, script)
            async with connected(port) as client:
                stats = await client.stats()
            figures.append({name: stats[name] for name in COUNTED.split()})
    assert figures[1] == figures[0]


# --- where the node means to differ ---


async def test_a_key_is_told_as_it_was_asked_for(node: Server) -> None:
    """memcached tells it as it was written; with line ends in it, if an ma has made the item."""
    replies = await talk(node.port, A + lines(b"mg YQ== b k", b"ma %b b N0 k" % BINARY, b"mg %b b k" % BINARY))
    assert replies == b"HD\r\nHD kYQ== b\r\n" + b"HD k%b b\r\n" % BINARY * 2


async def test_a_refused_value_is_never_taken_for_commands(node: Server) -> None:
    """memcached takes it, where the key is too long or there are too many flags."""
    evil = b"flush_all\r\n" * 3
    size = b" %d" % (len(evil) - 2)
    script = A + b"ms " + LONG + size + b"\r\n" + evil + b"ms a" + size + b" v" * 30 + b"\r\n" + evil + b"get a\r\n"
    bad, many = b"CLIENT_ERROR bad command line format\r\n", b"CLIENT_ERROR options flags too long\r\n"
    assert await talk(node.port, script) == b"HD\r\n" + bad + many + b"VALUE a 3 5\r\nvalue\r\nEND\r\n"


async def test_a_refused_request_has_done_nothing(node: Server) -> None:
    """memcached has counted, or touched, before it sees that the opaque is too long."""
    long = b" O" + b"x" * 32
    refused = b"CLIENT_ERROR opaque token too long\r\n"
    replies = await talk(node.port, N + lines(b"ma n D5" + long, b"mg n T-1" + long, b"get n"))
    assert replies == b"HD\r\n" + refused * 2 + b"VALUE n 0 2\r\n10\r\nEND\r\n"


async def test_the_expiry_that_ma_is_told_to_give_holds_when_the_number_grows(node: Server) -> None:
    """memcached 1.6.18 gives it to the item that the longer number has just replaced."""
    replies = await talk(node.port, b"ms n 1\r\n9\r\n" + lines(b"ma n v T-1", b"get n"))
    assert replies == b"HD\r\nVA 2\r\n10\r\nEND\r\n"


async def test_times_count_from_when_the_item_was_written(tmp_path: Path) -> None:
    async with running(tmp_path / "data", durability="os") as server:
        clock = Clock()
        server.store.clock = clock
        await talk(server.port, b"ms a 5 T100\r\nvalue\r\n")
        clock.now += 40
        await talk(server.port, b"get a\r\n")
        replies = await talk(server.port, lines(b"mg a t l h", b"me a", b"mg a T50 t", b"mg a t T20", b"ma b N0 T9 t"))
        told, debug, *rest = replies.splitlines()
        assert told == b"HD t60 l40 h0"
        assert re.fullmatch(rb"ME a exp=60 la=40 cas=\d+ fetch=no cls=1 size=65", debug)
        assert rest == [b"HD t50", b"HD t50", b"HD t9"]


words = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=12).filter(lambda word: not set(word) & set(b" \r\n")),
        st.tuples(st.sampled_from(b"NTRlOPLkstcfvhuqFCMJDIb"), st.binary(max_size=3)).map(
            lambda flag: bytes([flag[0]]) + flag[1].translate(None, b" \r\n")
        ),
        st.sampled_from([b"k", b"n", b"YQ==", b"b", b"T0", b"N0", b"5", b"MA"]),
    ),
    max_size=22,
)


@given(st.lists(st.tuples(st.sampled_from([b"mg", b"ms", b"md", b"ma", b"me", b"mn"]), words), max_size=5))
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_the_words_the_answer_is_one_line_and_a_value(
    commands: Commands, asked: list[tuple[bytes, list[bytes]]]
) -> None:
    for verb, args in asked:
        if verb == b"ms" and len(args) < 2:
            continue  # has been refused before it comes here
        answer = commands.answer(Request(verb, args, b"5", False))
        assert isinstance(answer, bytes)
        assert re.fullmatch(rb"|[A-Z][^\r\n]*\r\n(5|[0-9]+[ ]*)?(\r\n)?", answer), answer


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    store = Store(tmp_path_factory.mktemp("words") / "data")
    yield Commands(store, Stats(store, Counters(), "os", 8, 10))
    store.close()


# --- quiet, and the disk ---


async def test_mn_says_that_what_was_quiet_before_it_is_on_disk(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as server:
        begun, go_on = asyncio.Event(), asyncio.Event()
        loop, sync = asyncio.get_running_loop(), server.store.sync

        def slow() -> None:
            loop.call_soon_threadsafe(begun.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(PATIENCE)
            sync()

        server.store.sync = slow  # type: ignore[method-assign]
        async with connected(server.port) as client:
            client.writer.write(b"ms a 1 q\r\n1\r\nmg b q\r\nset c 0 0 1 noreply\r\n3\r\nma n N0 q\r\nmd x q\r\nmn\r\n")
            await asyncio.wait_for(begun.wait(), PATIENCE)
            answer = asyncio.create_task(client.reader.read(1000))
            await asyncio.sleep(0.1)
            assert not answer.done()
            go_on.set()
            assert await asyncio.wait_for(answer, PATIENCE) == b"HD\r\nNF\r\nMN\r\n"


async def test_a_quiet_change_that_the_disk_refuses_is_told_of_in_its_place(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as server:
        db = server.store._db

        def broken(_: bool) -> None:
            raise OSError("broken disk")

        server.store._db = Tampered(db, flush_wal=broken)  # type: ignore[assignment]
        script = b"ms a 1 q\r\n1\r\nset b 0 0 1 noreply\r\n2\r\nmg c\r\nmd a q\r\nmn\r\n"
        replies = (await talk(server.port, script)).splitlines()
        server.store._db = db
    assert [line.split()[0] for line in replies] == [b"SERVER_ERROR", b"EN", b"SERVER_ERROR", b"SERVER_ERROR"]


# --- an mg that changes something ---

READY = b"ms item 1 T100\r\n1\r\nms old 1\r\n1\r\nmd old I\r\nms won 1 T100\r\n1\r\nmg won R200\r\n"
CHANGING = [b"mg new N30", b"mg item R200 v", b"mg old", b"mg old v k", b"mg item T50", b"mg new N0 R10 q"]
LOOKING = [b"mg item v t", b"mg item N30 R50 v", b"mg won R200 v", b"mg new R200", b"mg new", b"mg item R0"]


@pytest.mark.parametrize("request_line", [*CHANGING, *LOOKING])
async def test_an_mg_that_changes_something_is_answered_when_that_is_on_disk_and_others_at_once(
    request_line: bytes, tmp_path: Path
) -> None:
    async with running(tmp_path / "data") as server:
        await talk(server.port, READY)
        go_on = threading.Event()
        sync = server.store.sync

        def slow() -> None:
            go_on.wait(PATIENCE)
            sync()

        server.store.sync = slow  # type: ignore[method-assign]
        async with connected(server.port) as other, connected(server.port) as client:
            other.writer.write(b"ms other 1\r\n1\r\n")  # what somebody else waits for, a reader need not
            await asyncio.sleep(0.05)
            client.writer.write(request_line + b"\r\n")
            answer = asyncio.create_task(client.reader.read(1000))
            await asyncio.wait([answer], timeout=PATIENCE if request_line in LOOKING else 0.1)
            assert answer.done() == (request_line in LOOKING)
            go_on.set()
            assert await asyncio.wait_for(answer, PATIENCE)


@pytest.mark.parametrize("request_line", [*CHANGING, *LOOKING])
async def test_an_mg_that_would_change_something_waits_while_there_is_no_room_and_others_do_not(
    request_line: bytes, tmp_path: Path
) -> None:
    async with running(tmp_path / "data", durability="os") as server:
        await talk(server.port, READY)
        full = True
        server.store.crowded = lambda: full  # type: ignore[method-assign]
        changes = server.store.changes
        async with connected(server.port) as client:
            client.writer.write(request_line + b"\r\n")
            answer = asyncio.create_task(client.reader.read(1000))
            await asyncio.wait([answer], timeout=PATIENCE if request_line in LOOKING else 0.1)
            assert (answer.done(), server.store.changes) == (request_line in LOOKING, changes)
            full = False
            assert await asyncio.wait_for(answer, PATIENCE)
            assert (server.store.changes != changes) == (request_line in CHANGING)


async def test_a_win_that_the_disk_refuses_is_not_told(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as server:
        await talk(server.port, READY)
        db = server.store._db

        def broken(_: bool) -> None:
            raise OSError("broken disk")

        server.store._db = Tampered(db, flush_wal=broken)  # type: ignore[assignment]
        asked = (b"mg new N30\r\n", b"mg item R200\r\n", b"mg old\r\n")
        replies = [await talk(server.port, request) for request in asked]
        server.store._db = db
    assert [reply.split()[0] for reply in replies] == [b"SERVER_ERROR"] * 3


async def test_what_is_stale_and_who_has_won_it_outlives_the_node(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as server:
        await talk(server.port, READY + lines(b"mg new N30"))
    async with running(tmp_path / "data") as server:
        replies = await talk(server.port, lines(b"mg new", b"mg won", b"mg old v", b"mg old"))
    assert replies == b"HD Z\r\nHD Z\r\nVA 1 X W\r\n1\r\nHD Z X\r\n"


@pytest.mark.parametrize("request_line", [b"md a I", b"mg a T50", b"mg a R200", b"mg b"])
async def test_what_is_to_be_written_anew_is_read_by_a_thread_if_it_is_not_in_memory(
    request_line: bytes, tmp_path: Path
) -> None:
    async with running(tmp_path / "data", durability="os") as server:
        await talk(server.port, b"ms a 1 T100\r\n1\r\nms b 1\r\n1\r\nmd b I\r\n")
        server.store.memory.clear()
        seen: list[bytes] = []
        find = server.store.memory.find

        def noted(key: bytes) -> Found | Literal[Unknown.UNKNOWN]:
            found = find(key)
            if found is UNKNOWN:
                seen.append(key)
            return found

        server.store.memory.find = noted  # type: ignore[method-assign]
        assert (await talk(server.port, request_line + b"\r\n")).startswith(b"HD")
    assert seen == []


# --- what memcached has and the node has not ---

SWITCHED_OFF = {
    "shutdown": lines(b"shutdown", b"shutdown graceful", b"shutdown foo"),
    "watch": lines(b"watch fetchers", b"watch", b"watch noreply", b"watch foo"),
    "cache_memlimit": lines(b"cache_memlimit", b"cache_memlimit x", b"cache_memlimit 7", b"cache_memlimit 1000000001",
        b"cache_memlimit 1 2 3", b"cache_memlimit 7 noreply", b"cache_memlimit -5"),
    "slabs": lines(b"slabs", b"slabs reassign", b"slabs reassign 1 2", b"slabs foo 1"),
    "lru": lines(b"lru", b"lru tune", b"lru foo 1", b"lru mode", b"lru temp_ttl x"),
    "extstore": lines(b"extstore", b"extstore foo", b"extstore foo 1"),
    "refresh_certs": lines(b"refresh_certs"),
    "debugging": lines(b"misbehave", b"debugtime p"),
    "bget": A + lines(b"bget a b", b"bget"),
    "a request of HTTP's": b"POST / HTTP/1.1\r\nHost: x\r\n\r\nflush_all\r\n",
}  # fmt: skip


@pytest.mark.parametrize("script", SWITCHED_OFF.values(), ids=SWITCHED_OFF.keys())
async def test_what_the_node_has_not_is_refused_as_by_a_memcached_where_it_is_off(
    script: bytes, austere: int, node: Server
) -> None:
    await talk(austere, b"flush_all\r\n")
    expected = await talk(austere, script)
    assert await talk(node.port, script) == expected


@pytest.fixture(scope="module")
def austere() -> Iterator[int]:
    """The port of a memcached in which all is switched off that can be."""
    with memcached("-W", "-o", "no_slab_reassign") as port:
        yield port


async def test_the_memory_limit_is_not_to_be_moved(node: Server) -> None:
    replies = await talk(node.port, lines(b"cache_memlimit 64", b"slabs automove 1", b"lru mode flat"))
    assert replies == b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\nERROR\r\nERROR\r\n"
