"""``stats`` and its sub-commands: memcached's names mean here what they mean there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sfss.node.server import Server
from sfss.node.store import CACHE, MIB
from sfss.scan import MAX_COUNT
from tests.node.support import Client, connected, running, set_request, talk
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
        for words in (b"items", b"items x", b"slabs", b"sizes", b"sizes x", b"cachedump 1 0", b"foo", b"reset")
    )
    assert await talk(node.port, script) == await talk(real, script)
    for topic in (b"conns", b"detail", b"detail on", b"sizes_enable", b"proxy"):
        assert await talk(node.port, b"stats %b\r\n" % topic) == b"ERROR\r\n"


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
            put(node.store, b"key%d" % number, b"x" * 5000)
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
            assert (await client.line(b"get a\r\n")).startswith(b"SERVER_ERROR")
        before = await told(client)
        assert await client.line(b"stats reset\r\n") == b"RESET"
        after = await told(client)
    events = {"cmd_get", "cmd_set", "cmd_scan", "get_hits", "get_misses", "total_items", "failed_cmd"}
    assert all(int(before[name]) > 0 for name in events)
    assert all(int(after[name]) == 0 for name in events)
    states = ("curr_items", "bytes", "curr_connections", "max_connections", "durability", "pid", "version")
    assert {name: after[name] for name in states} == {name: before[name] for name in states}
