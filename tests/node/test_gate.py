"""Back-pressure on writers: while RocksDB is behind, changes wait and reads don't."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sfss.node import gate
from sfss.node.server import Server
from tests.node.support import Tampered, connected, running, set_request, talk
from tests.node.test_store import no_space


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path / "data", durability="os") as server:
        yield server


async def test_while_the_store_is_crowded_changes_wait_and_reads_go_on(
    node: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await talk(node.port, set_request(b"a", b"1"))
    crowded = True
    monkeypatch.setattr(node.store, "crowded", lambda: crowded)
    async with connected(node.port) as writer, connected(node.port) as reader:
        writer.writer.write(set_request(b"a", b"2") + b"delete b\r\nincr a 1\r\nget a\r\n")
        for _ in range(20):
            await asyncio.sleep(0.005)
            assert await reader.until_end(b"get a\r\n") == b"VALUE a 0 1\r\n1\r\nEND\r\n"
        crowded = False
        answers = [await writer.line(b"") for _ in range(3)]
        assert answers == [b"STORED", b"NOT_FOUND", b"3"]
        assert await writer.until_end(b"") == b"VALUE a 0 1\r\n3\r\nEND\r\n"
        assert int((await reader.stats())["held_writes"]) >= 1


async def test_changes_that_waited_long_go_ahead_one_by_one_and_learn_what_is_wrong(
    node: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "PATIENCE", 0.05)
    real = node.store._db
    node.store._db = Tampered(  # type: ignore[assignment]
        real, property_int_value=lambda _: 5, property_value=lambda _: "0", write=no_space
    )
    requests = (set_request(b"a%d" % number, b"1") for number in range(5))
    answers = await asyncio.gather(*(talk(node.port, request) for request in requests))
    assert set(answers) == {b"SERVER_ERROR out of space storing object\r\n"}
    assert await talk(node.port, set_request(b"a", b"1")) == b"SERVER_ERROR out of space storing object\r\n"
    node.store._db = real
    assert await talk(node.port, set_request(b"a", b"1")) == b"STORED\r\n"


async def one_waits(node: Server) -> None:
    async with asyncio.timeout(10):
        while not node.gate._waiting:
            await asyncio.sleep(0.001)


async def test_a_writer_that_has_gone_is_not_waited_for(node: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    crowded = True
    monkeypatch.setattr(node.store, "crowded", lambda: crowded)
    async with connected(node.port) as client:
        client.writer.write(set_request(b"gone", b"1"))
        await one_waits(node)
        for connection in list(node.connections):
            connection.abort()
    crowded = False
    assert await talk(node.port, set_request(b"a", b"1") + b"get gone\r\n") == b"STORED\r\nEND\r\n"


async def test_one_writer_with_many_changes_has_one_go_ahead_at_each_look_and_no_more_looks_than_that(
    node: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "PATIENCE", 0.05)
    monkeypatch.setattr(node.store, "crowded", lambda: True)
    looks = 0
    real = node.gate._look

    def look() -> None:
        nonlocal looks
        looks += 1
        real()

    node.gate._look = look  # type: ignore[method-assign]
    began = asyncio.get_running_loop().time()
    requests = b"".join(set_request(b"a%d" % number, b"1") for number in range(20))
    assert await talk(node.port, requests) == b"STORED\r\n" * 20
    taken = asyncio.get_running_loop().time() - began
    assert taken >= 20 * gate.EVERY
    assert looks <= taken / gate.EVERY + 2


async def test_a_writer_that_has_gone_is_forgotten(node: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.store, "crowded", lambda: True)
    async with connected(node.port) as client:
        client.writer.write(set_request(b"gone", b"1"))
        await one_waits(node)
        for connection in list(node.connections):
            connection.abort()
        await asyncio.sleep(0.05)
        assert not node.gate._waiting


async def test_each_piece_of_a_request_that_changes_many_items_waits_for_room(
    node: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await talk(node.port, set_request(b"a", b"1") + set_request(b"b", b"1"))
    changes = node.store.changes
    monkeypatch.setattr(node.store, "crowded", lambda: node.store.changes > changes)
    async with connected(node.port) as client:
        client.writer.write(b"gat 100 a b\r\n")
        await asyncio.sleep(0.1)
        assert node.store.changes == changes + 1
        monkeypatch.setattr(node.store, "crowded", lambda: False)
        assert await client.until_end(b"") == b"VALUE a 0 1\r\n1\r\nVALUE b 0 1\r\n1\r\nEND\r\n"
