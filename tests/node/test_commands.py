"""The node's replies are memcached's own: the same bytes are sent to both, and the answers compared.

The exceptions are few, and each has a test that says why.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sfss import memcache, record
from sfss.node.commands import Commands
from sfss.node.engine import MIB
from sfss.node.server import Server
from sfss.node.stats import Counters, Stats
from sfss.node.store import Store
from tests.node.support import STEADY, Client, Clock, connected, set_request, talk, there
from tests.node.test_store import file_record
from tests.servers import memcached
from tests.test_record import make

LONG = b"k" * 251
NUMBER = b"set n 0 0 %d\r\n%b\r\n"


def number(text: bytes, *commands: bytes) -> bytes:
    """Set ``n`` to ``text``, do these, and look."""
    return b"set n 5 0 %d\r\n%b\r\n" % (len(text), text) + b"".join(c + b"\r\n" for c in commands) + b"get n\r\n"


HALF = set_request(b"a", b"x" * 700_000)  # of memcached's limit, and more
A = set_request(b"a", b"value", b"3 0")

SCRIPTS = {
    "get": A + b"get a\r\nget b\r\nget a b a\r\nget  a  b \r\n get a\r\nget\r\nget \r\n",
    "get, the longest key": set_request(LONG[1:], b"1") + b"get %b\r\n" % LONG[1:],
    "get, too long a key": b"get %b\r\nget b\r\n" % LONG,
    "get, too long a key behind a good one": b"get a %b\r\n" % LONG,
    "get, many keys": A + b"get" + b" a b" * 400 + b"\r\n",
    "get, a bare newline": A + b"get a\nget b\n",
    "gets": A + b"gets b\r\ngets\r\n",
    "gets, too long a key": b"gets b %b\r\n" % LONG,
    "gat": A + b"gat 0 a\r\ngat 100 a b a\r\ngat 0\r\ngat\r\ngat x a\r\ngat x %b\r\ngat 5x a\r\n" % LONG,
    "gat, too long a key": b"gat 0 a %b\r\n" % LONG,
    "gat with a negative exptime answers a last time": A + b"gat -1 a\r\nget a\r\n",
    "gats": A + b"gats\r\ngats 0\r\ngats 0 b\r\ngats x a\r\n",
    "set": A + set_request(b"a", b"") + b"get a\r\n" + set_request(b"a", b"\r\n\0\xff", b"4294967295 0") + b"get a\r\n",
    "set, noreply": set_request(b"a", b"1", tail=b" noreply") + b"get a\r\n",
    "set, words missing": b"set\r\nset a\r\nset a 0\r\nset a 0 0\r\nset a 0 0 1 2 3\r\n",
    "set, a chunk too long": b"set a 0 0 3\r\nabcde\r\nget a\r\n",
    "set, a chunk too short": b"set a 0 0 3\r\nab\r\nget a\r\n",
    "set, a bad chunk and noreply": b"set a 0 0 1 noreply\r\nxx\r\n\r\nget a\r\n",
    "set, exptime": b"".join(
        set_request(b"a", b"1", b"0 " + exptime) + b"get a\r\n"
        for exptime in (b"0", b"-1", b"100", b"2592000", b"2592001", b"1000000000", b"2147483647")
    ),
    "set, a size that can't be": b"set a 0 0 -1\r\nset a 0 0 -2\r\nset a 0 0 2147483646\r\nset a 0 0 2147483647\r\n"
    b"set a 0 0 x\r\nset a 0 0 99999999999999999999\r\nadd a 0 0 -1 noreply\r\nget a\r\n",
    "set, a word too many": b"set a 0 0 1 foo\r\nx\r\nget a\r\ncas a 0 0 1 1 foo\r\ny\r\nget a\r\n",
    "set, signs": b"set a +5 +100 +1\r\nx\r\nget a\r\n",
    "a tab belongs to the key": set_request(b"a\tb", b"1") + b"get a\tb a b\r\nget\ta\r\n",
    "noreply is a key too": set_request(b"noreply", b"1") + b"get noreply\r\ntouch noreply\r\nincr noreply\r\n"
    b"touch noreply 0\r\nincr noreply 1\r\ndelete noreply\r\nget noreply\r\n",
    "add": b"add a 0 0 1\r\n1\r\n" + A.replace(b"set", b"add") + b"get a\r\nadd\r\nadd a 0 0\r\n",
    "replace": A.replace(b"set", b"replace") + A + set_request(b"a", b"2").replace(b"set", b"replace") + b"get a\r\n",
    "append and prepend": b"append a 0 0 1\r\nx\r\nprepend a 0 0 1\r\nx\r\n" + A
    + b"append a 9 50 2\r\n>>\r\nprepend a 8 0 2\r\n<<\r\nget a\r\nappend a 0 0 0 noreply\r\n\r\nget a\r\n",
    "append beyond the limit": HALF + HALF.replace(b"set", b"append"),
    "cas": A + b"cas a 0 0 1 1\r\nx\r\ncas b 0 0 1 1\r\nx\r\nget a\r\n"
    b"cas a 0 0 1\r\ncas a 0 0 1 1 noreply\r\nx\r\nget a\r\n",
    "too large": b"set big 0 0 2000000\r\n%b\r\nget big\r\nadd big 0 0 2000000 noreply\r\n%b\r\nget big\r\n"
    % (b"get a\r\n" * 285714 + b"xx", b"get a\r\n" * 285714 + b"xx"),
    "delete": A + b"delete a\r\ndelete a\r\n" + A + b"delete a 0\r\n" + A + b"delete a noreply\r\nget a\r\n",
    "delete, wrongly": A + b"delete\r\ndelete a 5\r\ndelete a b c\r\ndelete a b c d\r\ndelete %b\r\ndelete %b 5\r\n"
    b"delete a 5 noreply\r\ndelete a noreply x\r\nget a\r\ndelete a 0 noreply\r\nget a\r\n" % (LONG, LONG),
    "incr": number(b"9", b"incr n 1", b"incr n 0", b"incr n 18446744073709551615", b"incr n 1 noreply"),
    "incr wraps at 64 bits": number(b"18446744073709551615", b"incr n 1", b"incr n 1"),
    "decr stops at nought, and keeps the length": number(b"99", b"decr n 1", b"decr n 1000", b"incr n 5"),
    "incr and decr of nothing": b"incr n 1\r\ndecr n 1\r\nincr n x\r\nincr n 1 noreply\r\n",
    "incr, wrongly": number(b"1", b"incr", b"incr n", b"incr n 1 2", b"incr n 1 2 3", b"incr n x", b"incr n -1",
        b"incr n", b"incr n 18446744073709551616", b"incr n 5x", b"incr n 1 noreply x", b"incr n x noreply",
        b"incr n noreply", b"incr n 1 2 noreply", b"incr %b 1" % LONG, b"incr %b x" % LONG, b"incr n +5", b"incr n -0",
        b"incr n " + b"0" * 40 + b"1"),
    **{
        f"incr of {text!r}": number(text, b"incr n 1", b"decr n 2")
        for text in (b"x", b"", b"5x", b"5 x", b" 5", b"+5", b"-5", b"-0", b"5\0", b"\n5", b"\x0b\x0c5", b"5\r6", b"  ",
            b"+ ", b"-9223372036854775809", b"-9223372036854775808", b"-18446744073709551615", b"18446744073709551616",
            b"0" * 30 + b"7", b"9" * 30, b"5" + b" " * 3000)
    },
    "touch": A + b"touch a 0\r\ntouch a 100\r\ntouch b 0\r\ntouch a 1 2\r\ntouch a 1 noreply\r\n"
    b"touch a +5\r\nget a\r\n",
    "touch, wrongly": A + b"touch\r\ntouch a\r\ntouch a x\r\ntouch a 5x\r\ntouch a b c d\r\ntouch %b 1\r\n"
    b"touch %b x\r\ntouch x %b\r\ntouch a noreply\r\ntouch a x noreply\r\ntouch %b 1 noreply\r\n"
    b"touch a 99999999999999999999\r\n"
    % (LONG, LONG, LONG, LONG),
    "touch with a negative exptime": A + b"touch a -1\r\nget a\r\n",
    "what has expired is nothing": set_request(b"a", b"1", b"0 -1") + b"touch a 0\r\nappend a 0 0 1\r\nx\r\n"
    b"replace a 0 0 1\r\nx\r\ncas a 0 0 1 1\r\nx\r\ndelete a\r\nincr a 1\r\nget a\r\nadd a 0 0 1\r\nx\r\nget a\r\n",
    "flush_all": A + b"flush_all\r\nget a\r\n",
    "flush_all, the words": b"flush_all 0\r\nflush_all -1\r\nflush_all x\r\nflush_all 5x\r\nflush_all 1 2 3\r\n"
    b"flush_all noreply\r\nflush_all 0 noreply\r\nflush_all x noreply\r\nflush_all 1 2 noreply\r\nflush_all 0 x\r\n",
    "flush_all, later": A + b"flush_all 1000\r\nget a\r\nflush_all 0\r\nget a\r\n",
    "verbosity": b"verbosity\r\nverbosity 1\r\nverbosity x\r\nverbosity -1\r\nverbosity 1 2\r\nverbosity 1 2 3\r\n"
    b"verbosity noreply\r\nverbosity 1 noreply\r\nverbosity x 1\r\nverbosity 1 2 noreply\r\n",
    "stats, wrongly": b"stats foo\r\nstats noreply\r\n",
    "stats reset": b"stats reset\r\nstats reset x\r\n",
    "unknown": b"foo\r\nGET a\r\n\r\n \r\nset\r\nfoo noreply\r\n\0\r\nincrement a 1\r\n",
    "quit": A + b"quit\r\nget a\r\n",
    "quit, with words": A + b"quit now\r\nget a\r\n",
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
async def test_the_same_bytes_get_the_replies_that_memcached_gives(script: bytes, real: int, node: Server) -> None:
    await talk(real, b"flush_all\r\n")
    expected = await talk(real, script)
    assert await talk(node.port, script) == expected


async def dialogue(client: Client) -> list[bytes]:
    """What versions do: each is replaced by a letter, the same for the same."""
    said: list[bytes] = []

    async def version() -> bytes:
        said.append(await client.until_end(b"gets a b\r\n"))
        return there(re.search(rb"VALUE \S+ \d+ \d+ (\d+)", said[-1]))[1]

    said.append(await client.line(A))
    first = await version()
    said.append(await client.line(b"touch a 100\r\n"))
    said.append(
        await client.line(set_request(b"a", b"right").replace(b"set", b"cas").replace(b"5\r\n", b"5 %b\r\n" % first))
    )
    second = await version()
    said.append(
        await client.line(set_request(b"a", b"late!").replace(b"set", b"cas").replace(b"5\r\n", b"5 %b\r\n" % first))
    )
    third = await version()
    said.append(await client.line(b"append a 0 0 1\r\n1\r\n"))
    fourth = await version()
    said.append(await client.line(set_request(b"a", b"1")))
    fifth = await version()
    said.append(await client.line(b"incr a 1\r\n"))
    sixth = await version()
    said.append(await client.until_end(b"gats 0 a\r\n"))
    versions = [first, second, third, fourth, fifth, sixth]
    assert versions == sorted(versions, key=int)
    letters = {version: b"ABCDEF"[n : n + 1] for n, version in reversed(list(enumerate(versions)))}
    return [
        re.sub(rb"(VALUE \S+ \d+ \d+) (\d+)", lambda found: found[1] + b" " + letters[found[2]], text) for text in said
    ]


async def test_versions_change_exactly_when_memcacheds_do(real: int, node: Server) -> None:
    async with connected(real) as theirs, connected(node.port) as ours:
        expected = await dialogue(theirs)
        assert await dialogue(ours) == expected


COUNTED = (
    "cmd_get cmd_set cmd_touch cmd_flush get_hits get_misses delete_hits delete_misses incr_hits incr_misses decr_hits "
    "decr_misses cas_hits cas_misses cas_badval touch_hits touch_misses evictions curr_items"
)


async def test_the_counters_count_what_memcacheds_count(node: Server) -> None:
    script = (
        A
        + b"add a 0 0 1\r\nx\r\nget a b\r\ngat 0 a b\r\ngats 0 a\r\ngets a b\r\ntouch a 0\r\ntouch b 0\r\nincr a 1\r\n"
        b"incr b 1\r\ndecr b 1\r\nset n 0 0 1\r\n5\r\nincr n 1\r\ndecr n 1\r\ndelete a\r\ndelete b\r\n"
        b"cas a 0 0 1 5\r\nx\r\ncas n 0 0 1 987654321\r\nx\r\nappend zz 0 0 1\r\nx\r\nappend n 0 0 1\r\n1\r\n"
        b"replace zz 0 0 1\r\nx\r\nget n n zz\r\n"
        b"flush_all 1000\r\nincr n 1 2 3\r\ndelete n 5\r\ntouch n x\r\n"
    )
    figures = []
    with memcached(*STEADY) as real:  # a new one: memcached counts items that are flushed until it comes upon them
        for port in (real, node.port):
            await talk(port, script)
            async with connected(port) as client:
                stats = await client.stats()
            figures.append({name: stats[name] for name in COUNTED.split()})
    assert figures[1] == figures[0]


PROMISED = (
    "pid uptime time version pointer_size rusage_user rusage_system rusage_maxrss curr_items total_items "
    "curr_connections total_connections cmd_get cmd_set cmd_delete cmd_touch cmd_flush get_hits get_misses delete_hits "
    "delete_misses incr_hits incr_misses decr_hits decr_misses cas_hits cas_misses cas_badval touch_hits touch_misses "
    "bytes bytes_read bytes_written threads slow_cmd item_size_max avail_space total_space durability fsyncs "
    "write_errors read_errors evictions limit_maxbytes"
)


async def test_stats_tell_all_that_dashboards_ask_for(node: Server) -> None:
    async with connected(node.port) as client:
        await client.line(set_request(b"a", b"12345"))
        stats = await client.stats()
    assert set(PROMISED.split()) <= set(stats)
    assert (stats["curr_items"], stats["total_items"], stats["bytes"], stats["curr_connections"]) == (
        "1",
        "1",
        "5",
        "1",
    )
    assert re.fullmatch(r"\d+\.\d{6}", stats["rusage_user"])
    assert int(stats["total_space"]) >= int(stats["avail_space"]) > 0


async def test_the_version_tells_our_node_and_reads_as_a_version(node: Server) -> None:
    assert re.fullmatch(rb"VERSION 1\.6\.18\+\d+\.\d+\.\d+-sfss\r\n", await talk(node.port, b"version\r\n"))
    assert await talk(node.port, b"version x\r\n") == await talk(node.port, b"version\r\n")


# --- where we differ, on purpose ---


async def test_a_refused_value_leaves_the_one_before_it(node: Server) -> None:
    """memcached drops it, lest a cache serve what is stale; a store that was refused a write has done nothing."""
    replies = await talk(node.port, A + set_request(b"a", b"x" * (MIB + 1)) + b"get a\r\n")
    assert replies == b"STORED\r\nSERVER_ERROR object too large for cache\r\nVALUE a 3 5\r\nvalue\r\nEND\r\n"


async def test_the_body_of_a_refused_request_is_not_taken_for_commands(node: Server) -> None:
    """memcached reads on behind a line that it can't parse, and so carries out what lies in the value."""
    for line in (b"set a x 0 11", b"set a 0 x 11", b"set %b 0 0 11" % LONG, b"cas a 0 0 11 x", b"cas a 0 0 11 -1"):
        assert await talk(node.port, line + b"\r\nflush_all\r\n\r\n") == memcache.BAD_FORMAT + b"\r\n"


async def test_a_date_beyond_32_bits_is_a_date(node: Server) -> None:
    """memcached wraps it into the past, and the item is gone at once."""
    assert b"value" in await talk(node.port, set_request(b"a", b"value", b"0 4000000000") + b"get a\r\n")


async def test_an_error_takes_no_earlier_reply_with_it(node: Server) -> None:
    """memcached 1.6.18 loses the replies to requests that came in the same packet before a get of too long a key."""
    assert await talk(node.port, A + b"get a %b\r\n" % LONG) == b"STORED\r\n" + memcache.BAD_FORMAT + b"\r\n"


async def test_head_brings_the_headers_of_records_and_never_a_body(node: Server) -> None:
    whole = file_record(b"p" * 9000)
    _, end = record.decode_header(whole)
    await talk(node.port, set_request(b"file", whole) + set_request(b"text", b"x" * 9000, b"7 0"))
    replies = await talk(node.port, b"head file text none\r\nhead file\r\nhead none\r\nhead\r\nhead %b\r\n" % LONG)
    file = memcache.value(b"file", 0, whole[:end])
    rest = file + b"END\r\nEND\r\nERROR\r\n" + memcache.BAD_FORMAT + b"\r\n"
    assert replies == file + memcache.value(b"text", 7, b"") + b"END\r\n" + rest


def test_an_item_lives_at_least_as_long_as_was_asked(tmp_path: Path) -> None:
    clock = Clock(1_800_000_000.9)
    store = Store(tmp_path / "data", clock)
    commands = Commands(store, Stats(store, Counters(), "os", MIB, 10))
    for verb in (b"set", b"touch"):
        if verb == b"set":
            commands.answer(memcache.Request(b"set", [b"a", b"0", b"2", b"1"], b"x", False))
        else:
            commands.answer(memcache.Request(b"touch", [b"a", b"2"], b"", False))
        clock.now += 1.99
        assert b"VALUE" in bytes(commands.answer(memcache.Request(b"get", [b"a"], b"", False)))  # type: ignore[arg-type]
    clock.now += 3.0
    assert commands.answer(memcache.Request(b"get", [b"a"], b"", False)) == b"END\r\n"
    store.close()


async def test_a_record_that_comes_after_a_newer_version_of_it_is_not_stored(node: Server) -> None:
    older, newer = (make(b"payload", version=version) for version in (7, 8))
    tie = make(b"payload", version=8, front=8)
    stored, refused = b"STORED\r\n", b"NOT_STORED\r\n"
    for first, comes, answer in (
        (newer, older, refused), (tie, newer, refused), (newer, newer, stored), (newer, tie, stored),
        (newer, b"text", stored), (b"text", older, stored), (newer, older[:30], stored), (newer[:30], older, stored),
    ):  # fmt: skip
        requests = set_request(b"a", first) + set_request(b"a", comes) + b"get a\r\ndelete a\r\n"
        left = comes if answer == stored else first
        value = b"VALUE a 0 %d\r\n%b\r\nEND\r\n" % (len(left), left)
        assert await talk(node.port, requests) == stored + answer + value + b"DELETED\r\n"
    async with connected(node.port) as client:
        assert (await client.stats())["older_records"] == "2"
