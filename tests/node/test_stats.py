"""``stats`` and its sub-commands: memcached's names mean here what they mean there."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sfss.node.engine import MIB
from sfss.node.server import Server
from sfss.node.store import CACHE
from sfss.scan import MAX_COUNT
from tests.node.support import PATIENCE, Client, connected, running, set_request, talk
from tests.node.test_store import put, refuse
from tests.servers import HOST, memcached

OURS = {"durability", "scan_max"}

# What Beansdb's dashboards read, as issue 3 lists it.
BEANSDBS = (
    "pid uptime time version pointer_size rusage_user rusage_system rusage_maxrss curr_items total_items "
    "curr_connections total_connections cmd_get cmd_set cmd_delete get_hits get_misses bytes bytes_read bytes_written "
    "threads slow_cmd avail_space total_space"
)


@pytest.fixture(scope="module")
def real() -> Iterator[int]:
    """The port of a memcached that doesn't evict and dumps nothing: what we come nearest to."""
    with memcached("-M", "-I", "8m", "-c", "100", "-X") as port:
        yield port


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path / "data", durability="os", max_connections=100) as server:
        yield server


async def told(client: Client, topic: bytes = b"") -> dict[str, str]:
    """A STATS reply, each of whose lines must be one."""
    reply = (await client.until_end(b"stats %b\r\n" % topic)).decode()
    found = re.findall(r"STAT (\S+) (.*)\r\n", reply)
    assert "".join(f"STAT {name} {figure}\r\n" for name, figure in found) + "END\r\n" == reply
    assert len(dict(found)) == len(found)
    return dict(found)


async def test_plain_stats_have_every_key_of_beansdb(node: Server) -> None:
    async with connected(node.port) as client:
        assert set(BEANSDBS.split()) <= set(await told(client))


async def test_a_front_finds_in_stats_that_there_is_a_scan(node: Server) -> None:
    async with connected(node.port) as client:
        assert (await told(client))["scan_max"] == str(MAX_COUNT)
        assert await client.until_end(b"scan - + %d\r\n" % MAX_COUNT) == b"END\r\n"
        assert (await told(client))["cmd_scan"] == "1"


async def test_settings_are_memcacheds_and_tell_what_holds_here(real: int, node: Server) -> None:
    async with connected(real) as theirs, connected(node.port) as ours:
        expected, found = await told(theirs, b"settings"), await told(ours, b"settings")
    assert found.keys() - expected.keys() == OURS
    differing = {name for name in found.keys() & expected.keys() if found[name] != expected[name]}
    assert differing == {"maxbytes", "tcpport", "num_threads", "binding_protocol", "lru_crawler", "dump_enabled"}
    assert (found["tcpport"], found["inter"]) == (str(node.port), HOST)
    assert (found["evictions"], found["cas_enabled"], found["item_size_max"]) == ("off", "yes", str(8 * MIB))
    assert found["maxconns"] == "100"


async def test_what_has_no_meaning_here_is_answered_as_by_an_empty_memcached_or_refused(
    real: int, node: Server
) -> None:
    script = b"".join(
        b"stats %b\r\n" % words
        for words in (b"items", b"items x", b"slabs", b"sizes", b"sizes x", b"cachedump 1 0", b"cachedump", b"foo",
            b"proxy", b"reset", b"detail", b"detail x", b"detail dump", b"detail dump x", b"detail off")
    )  # fmt: skip
    assert await talk(node.port, script) == await talk(real, script)
    for topic in (b"sizes_enable", b"extstore"):
        assert await talk(node.port, b"stats %b\r\n" % topic) == b"ERROR\r\n"
    assert await talk(node.port, b"stats detail on\r\n") == b"CLIENT_ERROR stats detail not allowed\r\n"
    async with connected(node.port) as client:
        assert (await told(client, b"settings"))["detail_enabled"] == "no"


def by_number(conns: dict[str, str]) -> list[dict[str, str]]:
    """What ``stats conns`` tells of each connection."""
    found: dict[str, dict[str, str]] = {}
    for name, figure in conns.items():
        number, _, what = name.partition(":")
        found.setdefault(number, {})[what] = figure
    assert all(map(str.isdigit, found))
    return list(found.values())


async def test_connections_are_told_as_memcached_tells_them(real: int, node: Server) -> None:
    async with connected(real) as theirs, connected(node.port) as ours:
        expected = [one for one in by_number(await told(theirs, b"conns")) if one["state"] != "conn_listening"]
        found = by_number(await told(ours, b"conns x"))
    for told_of, port in ((expected, real), (found, node.port)):
        (one,) = told_of
        assert one.pop("listen_addr") == f"tcp:{HOST}:{port}"
        assert one.pop("addr").startswith(f"tcp:{HOST}:")
    assert found == expected == [{"state": "conn_parse_cmd", "secs_since_last_cmd": "0"}]


async def test_of_each_connection_its_state_and_its_idle_time_are_told(
    node: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        connected(node.port) as client, connected(node.port) as idle, connected(node.port) as giving,
        connected(node.port) as waiting,
    ):  # fmt: skip
        await idle.line(b"version\r\n")
        giving.writer.write(b"set a 0 0 100\r\nx")
        for connection in node.connections:
            connection._asked -= 70
        await giving.writer.drain()
        monkeypatch.setattr(node.store, "crowded", lambda: True)
        waiting.writer.write(b"set b 0 0 1\r\nx\r\n")
        await asyncio.sleep(0.05)
        told_of = {one["addr"]: one for one in by_number(await told(client, b"conns"))}
    expected = [(client, "conn_parse_cmd", 0), (idle, "conn_read", 70), (giving, "conn_nread", 70),
        (waiting, "conn_io_queue", 70)]  # fmt: skip
    for one, state, seconds in expected:
        host, port = one.writer.get_extra_info("sockname")
        found = told_of[f"tcp:{host}:{port}"]
        assert found["state"] == state
        assert seconds <= int(found["secs_since_last_cmd"]) < seconds + PATIENCE


async def test_nobody_waits_long_for_what_is_told_of_many_connections(tmp_path: Path) -> None:
    many = 10_000  # told of; a test can't open so many everywhere
    async with running(tmp_path / "data", durability="os") as server, connected(server.port) as client:
        (connection,) = server.connections
        server.stats.connections = [connection] * many
        client.writer.write(b"stats conns\r\n")
        longest, last = 0.0, time.perf_counter()
        reading = asyncio.create_task(client.reader.readuntil(b"END\r\n"))
        while not reading.done():
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
    assert (await reading).count(b":state conn_parse_cmd\r\n") == many
    assert longest < 0.2, "some 10 ms"


async def test_items_are_counted_in_one_class_under_memcacheds_names(real: int, node: Server) -> None:
    async with connected(real) as theirs, connected(node.port) as ours:
        for client in (theirs, ours):
            await client.line(set_request(b"a", b"12345"))
        expected, found = await told(theirs, b"items"), await told(ours, b"items")
        await talk(real, b"flush_all\r\n")
    assert found.keys() <= expected.keys()
    assert (found["items:1:number"], found["items:1:mem_requested"], found["items:1:evicted"]) == ("1", "5", "0")


async def test_rocksdbs_own_figures_are_told(node: Server) -> None:
    async with connected(node.port) as client:
        for number in range(50):
            put(node.store, b"key%d" % number, os.urandom(5000))  # which can't be compressed
        before = await told(client, b"rocksdb")
        node.store._db.flush(True)
        after = await told(client, b"rocksdb")
        plain = await told(client)
    assert before.keys() == after.keys()
    assert all(figure.isdigit() for figure in after.values())
    assert int(before["cur_size_all_mem_tables"]) > 50 * 5000 > int(after["cur_size_all_mem_tables"])
    assert (before["num_blob_files"], after["num_blob_files"]) == ("0", "1")
    assert int(after["total_blob_file_size"]) > 50 * 5000
    assert int(after["total_sst_files_size"]) > 0
    assert after["num_files_at_level0"] == "1"
    assert after["block_cache_capacity"] == str(CACHE - CACHE // 3)
    assert (after["background_errors"], plain["background_errors"]) == ("0", "0")


async def test_reset_begins_events_at_nought_and_leaves_what_is(node: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(node.port) as client:
        await client.line(set_request(b"a", b"12345"))
        await client.until_end(b"get a b\r\n")
        await client.until_end(b"scan - + 1\r\n")
        with monkeypatch.context() as broken:
            broken.setattr(node.store, "get", refuse)
            assert (await client.line(b"gets a\r\n")).startswith(b"SERVER_ERROR")
        before = await told(client)
        assert await client.line(b"stats reset\r\n") == b"RESET"
        after = await told(client)
    events = {"cmd_get", "cmd_set", "cmd_scan", "get_hits", "get_misses", "total_items", "failed_cmd"}
    assert all(int(before[name]) > 0 for name in events)
    assert all(int(after[name]) == 0 for name in events)
    states = ("curr_items", "bytes", "curr_connections", "max_connections", "durability", "pid", "version")
    assert {name: after[name] for name in states} == {name: before[name] for name in states}
