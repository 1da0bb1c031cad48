"""What a node does by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sfss.node import keeper
from sfss.node.server import Server
from tests.node.support import Clock, Tampered, running, set_request, talk
from tests.node.test_store import no_space, refuse, stored

ITEMS = 1000


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "EVERY", 0.02)


async def fill(node: Server, clock: Clock) -> None:
    node.store.clock = clock
    await talk(node.port, b"".join(set_request(b"a%d" % number, b"x" * 100, b"0 10") for number in range(ITEMS)))
    await talk(node.port, set_request(b"stays", b"1") + set_request(b"later", b"1", b"0 100"))
    node.store.memory.clear()


async def settled(node: Server, items: int) -> None:
    async with asyncio.timeout(20):
        while node.store.items != items:
            await asyncio.sleep(0.01)


async def test_what_has_expired_is_removed_without_being_asked_for(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path / "data") as node:
        await fill(node, clock)
        await asyncio.sleep(0.1)
        assert node.store.items == ITEMS + 2
        clock.now += 10.5
        await settled(node, 2)
        assert node.stats.counters.crawler_reclaimed == ITEMS
        assert node.store.bytes == 2
        assert len(stored(node.store)) == 2 * 2 + 1


async def test_others_are_served_meanwhile(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path / "data") as node:
        await fill(node, clock)
        clock.now += 10.5
        while node.store.items > 2:
            assert await talk(node.port, b"get a1 stays\r\n") == b"VALUE stays 0 1\r\n1\r\nEND\r\n"


async def test_while_the_disk_is_full_it_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    async with running(tmp_path / "data", durability="os") as node:
        monkeypatch.setattr(node.store, "has_room", lambda: False)
        await fill(node, clock)
        real = node.store._db
        node.store._db = Tampered(real, write=no_space)  # type: ignore[assignment]
        clock.now += 10.5
        await asyncio.sleep(0.2)
        assert node.store.items == ITEMS + 2
        assert node.store.write_errors > 1
        node.store._db = real
        await settled(node, 2)


async def test_where_writes_fail_though_there_is_room_the_database_is_opened_anew(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as node:
        await talk(node.port, set_request(b"kept", b"1") + set_request(b"gone", b"1") + b"delete gone\r\n")
        broken: Any = Tampered(node.store._db, write=refuse)
        node.store._db = broken
        assert (await talk(node.port, set_request(b"a", b"1"))).startswith(b"SERVER_ERROR")
        async with asyncio.timeout(20):
            while node.store._db is broken:
                assert await talk(node.port, b"get kept\r\n") == b"VALUE kept 0 1\r\n1\r\nEND\r\n"
        assert await talk(node.port, set_request(b"a", b"1") + b"get kept gone a\r\n") == (
            b"STORED\r\nVALUE kept 0 1\r\n1\r\nVALUE a 0 1\r\n1\r\nEND\r\n"
        )
        assert (node.store.items, node.store.bytes) == (2, 2)


async def test_while_there_is_no_room_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path / "data") as node:
        real = node.store._db
        broken: Any = Tampered(real, write=no_space)
        node.store._db = broken
        monkeypatch.setattr(node.store, "has_room", lambda: False)
        assert await talk(node.port, set_request(b"a", b"1")) == b"SERVER_ERROR out of space storing object\r\n"
        await asyncio.sleep(0.3)
        assert node.store._db is broken
        assert node.store.write_errors == 1
        node.store._db = real
        assert await talk(node.port, set_request(b"a", b"1")) == b"STORED\r\n"
        assert not node.store.failing
