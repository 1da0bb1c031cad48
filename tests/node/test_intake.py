"""Values on their way in take so much memory together and no more; who has to wait gets his turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sfss.memcache import Request
from sfss.node import intake
from sfss.node.engine import KIB, MIB
from sfss.node.server import Server
from tests.node.support import connected, running, set_request, talk

LARGE = 1 * MIB


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(intake, "ROOM", 2 * LARGE)
    monkeypatch.setattr(intake, "EVERY", 0.02)
    async with running(tmp_path / "data", durability="os") as server:
        yield server


def held(node: Server) -> int:
    """Bytes of values that are here in part."""
    parsers = [connection._parser for connection in node.connections]
    return sum(parser.size + 2 - parser.lacks for parser in parsers if parser.lacks)


async def test_values_on_their_way_are_bounded_and_all_arrive_in_the_end(node: Server) -> None:
    most, done = 0, False

    async def watch() -> None:
        nonlocal most
        while not done:
            most = max(most, held(node))
            await asyncio.sleep(0.001)

    watching = asyncio.create_task(watch())
    requests = [set_request(b"key%d" % number, b"x" * LARGE) for number in range(20)]
    pieces = [[request[at : at + 100 * KIB] for at in range(0, len(request), 100 * KIB)] for request in requests]
    answers = await asyncio.gather(*(talk(node.port, *request) for request in pieces))
    done = True
    await watching
    assert set(answers) == {b"STORED\r\n"}
    assert LARGE < most <= 2 * LARGE + 20 * intake.FREE + 20 * 64 * KIB
    assert not node.intake._given
    assert node.intake._used == 0


async def test_small_values_never_wait(node: Server) -> None:
    async with connected(node.port) as one, connected(node.port) as two:
        for client in (one, two):
            client.writer.write(b"set large 0 0 %d\r\n" % LARGE)
        await asyncio.sleep(0.05)
        for size in (0, 1000, 64 * KIB - 2):
            assert await talk(node.port, set_request(b"small", b"x" * size)) == b"STORED\r\n"


async def test_who_has_room_and_sends_nothing_is_cut_off_when_others_wait(
    node: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "STALL", 0.2)
    async with connected(node.port) as one, connected(node.port) as two:
        for client in (one, two):
            client.writer.write(b"set stalled 0 0 %d\r\nhalf of it" % LARGE)
        await asyncio.sleep(0.5)
        assert len(node.connections) == 2  # nobody waits
        assert await talk(node.port, set_request(b"large", b"x" * LARGE)) == b"STORED\r\n"
        assert await one.reader.read() == await two.reader.read() == b""


async def test_a_value_larger_than_all_room_comes_alone(node: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "ROOM", 100 * KIB)
    requests = [set_request(b"key%d" % number, b"x" * LARGE) for number in range(3)]
    assert await asyncio.gather(*(talk(node.port, request) for request in requests)) == [b"STORED\r\n"] * 3


async def test_one_after_the_other_on_a_connection_each_has_its_own_room(node: Server) -> None:
    sizes = (LARGE, 10, 100 * KIB, 200 * KIB, 0, LARGE)
    requests = b"".join(set_request(b"key%d" % number, b"x" * size) for number, size in enumerate(sizes))
    assert await talk(node.port, requests) == b"STORED\r\n" * len(sizes)
    assert node.intake._used == 0


async def test_who_waits_for_room_is_not_late_however_long_it_takes(
    node: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "STALL", 0.3)
    async with connected(node.port) as slow, connected(node.port) as waiting:
        slow.writer.write(b"set slow 0 0 %d\r\n" % (2 * LARGE))
        await asyncio.sleep(0.05)
        waiting.writer.write(set_request(b"waiting", b"x" * LARGE))
        for _ in range(10):
            slow.writer.write(b"still here")
            await asyncio.sleep(0.1)
        slow.writer.write(b"x" * (2 * LARGE - 100) + b"\r\n")
        assert await slow.line(b"") == b"STORED"
        assert await waiting.line(b"") == b"STORED"


async def test_a_value_that_waits_to_be_carried_out_keeps_its_room_and_its_client_is_not_late(
    node: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "STALL", 0.1)
    crowded = True
    monkeypatch.setattr(node.store, "crowded", lambda: crowded)
    requests = [set_request(b"key%d" % number, b"x" * LARGE) for number in range(8)]
    answers = asyncio.gather(*(talk(node.port, request) for request in requests))
    await asyncio.sleep(0.5)
    events = [event for connection in node.connections for event in connection._events]
    assert sum(len(event.data) for event in events if isinstance(event, Request)) == 2 * LARGE
    assert held(node) <= 8 * 64 * KIB
    crowded = False
    assert await answers == [b"STORED\r\n"] * 8
    assert node.intake._used == 0


async def test_who_has_room_and_does_not_take_his_replies_is_cut_off_when_others_wait(
    node: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "STALL", 0.2)
    assert await talk(node.port, set_request(b"large", b"x" * LARGE)) == b"STORED\r\n"
    async with connected(node.port) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.writer.write(b"get large\r\n" * 20 + set_request(b"mine", b"x" * 2 * LARGE))
        await asyncio.sleep(0.3)
        assert await talk(node.port, set_request(b"large", b"x" * LARGE)) == b"STORED\r\n"


async def test_however_often_somebody_has_to_wait_one_look_is_due(node: Server) -> None:
    class Waiting:
        def read_on(self) -> None: ...
        def stalled(self) -> None: ...

    first, looks = Waiting(), 0
    real = node.intake._look

    def look() -> None:
        nonlocal looks
        looks += 1
        real()

    node.intake._look = look  # type: ignore[method-assign]
    node.intake.ask(first, 2 * LARGE)
    for _ in range(50):
        other = Waiting()
        assert not node.intake.ask(other, LARGE)
        node.intake.done(other)
    assert not node.intake.ask(Waiting(), LARGE)
    await asyncio.sleep(0.1)
    assert 1 <= looks <= 6
    node.intake.done(first)
