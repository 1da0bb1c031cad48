"""Plain requests that come together are carried out together, and nobody can tell by the answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sfss import record
from sfss.node.entries import HEAD
from sfss.node.server import Server
from tests.node.support import Tampered, connected, crash_image, running, set_request, talk
from tests.node.test_store import no_space


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path / "data") as server:
        yield server


def of_version(version: int) -> bytes:
    content = b"of version %d" % version
    checksum = record.payload_checksum(content)
    header = record.Header(record.Kind.FILE, version, 1, len(content), bytes(32), len(content), checksum)
    return record.encode(header, content)


def sets(count: int, data: bytes = b"x" * 100) -> bytes:
    return b"".join(set_request(b"key%d" % number, data) for number in range(count))


def writes_of(node: Server) -> list[int]:
    """A list to which each change of the database adds how many entries it puts."""
    sizes: list[int] = []
    real = node.store._db

    def write(batch: Any) -> None:
        sizes.append(batch.len())
        real.write(batch)

    node.store._db = Tampered(real, write=write)  # type: ignore[assignment]
    return sizes


async def test_sets_that_come_together_are_one_change_and_one_sync(node: Server) -> None:
    sizes, before = writes_of(node), node.stats.counters.fsyncs
    assert await talk(node.port, sets(10)) == b"STORED\r\n" * 10
    assert sizes == [2 * 10 + 1]
    assert node.stats.counters.fsyncs == before + 1
    assert (node.store.items, node.store.bytes, node.stats.counters.cmd_set) == (10, 1000, 10)


async def test_a_change_is_whole_in_a_crash_image(node: Server, tmp_path: Path) -> None:
    await talk(node.port, sets(10))
    async with running(crash_image(node.settings.data, tmp_path / "image")) as image:
        assert (image.store.items, image.store.bytes) == (10, 1000)
        assert (await talk(image.port, b"get key9\r\n")).startswith(b"VALUE key9 0 100\r\n")


async def test_gets_and_sets_in_turn_see_each_other(node: Server) -> None:
    stream = b"get a\r\n" + set_request(b"a", b"1") + b"get a\r\n" + set_request(b"a", b"22") + b"get a\r\nhead a\r\n"
    answers = (
        b"END\r\nSTORED\r\nVALUE a 0 1\r\n1\r\nEND\r\nSTORED\r\nVALUE a 0 2\r\n22\r\nEND\r\nVALUE a 0 0\r\n\r\nEND\r\n"
    )
    assert await talk(node.port, stream) == answers


async def test_of_one_key_twice_in_a_run_the_later_counts_and_of_records_the_newer(node: Server) -> None:
    twice = b"".join(set_request(b"a", of_version(version)) for version in (2, 3, 1))
    assert await talk(node.port, twice) == b"STORED\r\nSTORED\r\nNOT_STORED\r\n"
    assert of_version(3) in await talk(node.port, b"get a\r\n")
    late = b"".join(set_request(key, of_version(1)) for key in (b"b", b"a", b"c"))
    assert await talk(node.port, late) == b"STORED\r\nNOT_STORED\r\nSTORED\r\n"
    assert (node.store.items, node.stats.counters.older_records) == (3, 2)


async def test_a_change_that_fails_is_told_to_each_and_nothing_of_it_is_there(node: Server) -> None:
    await talk(node.port, set_request(b"key3", of_version(5)))
    real = node.store._db
    node.store._db = Tampered(real, write=no_space)  # type: ignore[assignment]
    requests = [set_request(b"key%d" % number, of_version(1)) for number in range(5)]
    answers = (await talk(node.port, b"".join(requests) + b"get key1\r\n")).split(b"\r\n")
    full = b"SERVER_ERROR out of space storing object"
    assert answers == [full, full, full, b"NOT_STORED", full, b"END", b""]
    assert (node.store.items, node.stats.counters.failed_cmd) == (1, 4)
    node.store._db = real
    assert await talk(node.port, sets(3)) == b"STORED\r\n" * 3


async def test_a_sync_that_fails_is_told_to_each(node: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("fsync failed")

    monkeypatch.setattr(node.store, "sync", fail)
    assert await talk(node.port, sets(4)) == b"SERVER_ERROR OSError: fsync failed\r\n" * 4


async def test_what_expires_and_what_is_damaged_goes_the_other_way(node: Server) -> None:
    stream = set_request(b"a", b"1", b"7 100") + b"get a\r\n" + set_request(b"a", b"2") + b"get a\r\n"
    assert await talk(node.port, stream) == (
        b"STORED\r\nVALUE a 7 1\r\n1\r\nEND\r\nSTORED\r\nVALUE a 0 1\r\n2\r\nEND\r\n"
    )
    node.store.memory.wrote(HEAD + b"a", b"short")
    async with connected(node.port) as client:
        client.writer.write(set_request(b"a", b"3") + set_request(b"b", b"4"))
        assert (await client.line(b"")).startswith(b"SERVER_ERROR ValueError")
        assert await client.line(b"") == b"STORED"


async def test_a_delayed_flush_all_is_not_passed_by(node: Server) -> None:
    await talk(node.port, sets(2))
    assert await talk(node.port, b"flush_all 1000\r\nget key1\r\n") != b"OK\r\nEND\r\n"
    now = node.store.clock
    node.store.clock = lambda: now() + 2000
    assert await talk(node.port, b"get key1\r\n" + sets(1) + b"get key0\r\nget key1\r\n") == (
        b"END\r\nSTORED\r\nVALUE key0 0 100\r\n" + b"x" * 100 + b"\r\nEND\r\nEND\r\n"
    )
