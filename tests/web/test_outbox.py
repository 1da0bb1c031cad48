"""The outbox: answers of a turn leave together, in their order, and none stays behind."""

from __future__ import annotations

import asyncio
import secrets
from typing import cast

import pytest

from sfss.web import outbox
from sfss.web.app import IN_FLIGHT, QUICK
from sfss.web.inflight import InFlight
from sfss.web.outbox import Outbox
from tests.conftest import Client
from tests.web.conftest import Connect
from tests.web.raw import Raw, request
from tests.web.test_quick import FOR_AIOHTTP


class Transport:
    """One that only remembers."""

    def __init__(self) -> None:
        self.written = b""
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def as_one(self) -> asyncio.WriteTransport:
        return cast(asyncio.WriteTransport, self)


@pytest.fixture
def busy() -> InFlight:
    """Somebody else is in flight, too."""
    in_flight = InFlight()
    in_flight.begin()
    return in_flight


async def test_answers_wait_for_the_end_of_the_turn(busy: InFlight) -> None:
    box, one, other = Outbox(busy), Transport(), Transport()
    box.put(one.as_one(), b"first ")
    box.put(other.as_one(), b"other")
    box.put(one.as_one(), b"second")
    assert (one.written, other.written) == (b"", b"")
    await asyncio.sleep(0)
    assert (one.written, other.written) == (b"first second", b"other")


async def test_each_turn_has_its_own(busy: InFlight) -> None:
    box, one = Outbox(busy), Transport()
    for number in range(3):
        box.put(one.as_one(), b"%d" % number)
        await asyncio.sleep(0)
        assert one.written == b"012"[: number + 1]


async def test_the_last_who_waits_isn_t_kept_waiting(busy: InFlight) -> None:
    box, one, other = Outbox(busy), Transport(), Transport()
    box.put(one.as_one(), b"first")
    busy.end()
    box.put(other.as_one(), b"last")
    assert (one.written, other.written) == (b"first", b"last")


async def test_much_isn_t_held(busy: InFlight, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "HELD", 10)
    box, one = Outbox(busy), Transport()
    box.put(one.as_one(), b"0123456789")
    assert one.written == b""
    box.put(one.as_one(), b"x")
    assert one.written == b"0123456789x"
    box.put(one.as_one(), b"y")  # is counted from the beginning
    assert one.written == b"0123456789x"
    await asyncio.sleep(0)
    assert one.written == b"0123456789xy"


async def test_who_has_gone_is_passed_over(busy: InFlight) -> None:
    box, gone, other = Outbox(busy), Transport(), Transport()
    box.put(gone.as_one(), b"first")
    box.put(other.as_one(), b"second")
    gone.closing = True
    await asyncio.sleep(0)
    assert (gone.written, other.written) == (b"", b"second")


async def test_a_write_that_fails_costs_only_its_own_connection(busy: InFlight) -> None:
    class Broken(Transport):
        def write(self, data: bytes) -> None:
            raise RuntimeError("a bug")

        def abort(self) -> None:
            self.closing = True

    box, broken, other = Outbox(busy), Broken(), Transport()
    box.put(broken.as_one(), b"first")
    box.put(other.as_one(), b"second")
    await asyncio.sleep(0)
    assert (broken.closing, other.written) == (True, b"second")


async def test_a_count_that_is_wrong_holds_up_nobody() -> None:
    in_flight = InFlight()
    in_flight.end()
    box, one = Outbox(in_flight), Transport()
    box.put(one.as_one(), b"first")
    assert one.written == b"first"


async def test_of_one_connection_no_more_is_held_than_it_may_leave_unread(
    front: Client, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    front.app[IN_FLIGHT].begin()
    put, held = Outbox.put, [0]

    def watched(self: Outbox, transport: asyncio.WriteTransport, data: bytes) -> None:
        put(self, transport, data)
        held.append(self._size)

    monkeypatch.setattr(Outbox, "put", watched)
    raw = await connect(front)
    raw.writer.write(request("GET", "/file?path=..") * 1000)  # each is answered at once
    for _ in range(1000):
        assert (await raw.answer()).status == 400
    assert len(held) > 900
    assert max(held) < 1024
    front.app[IN_FLIGHT].end()


# --- with a front of which nothing leaves but when it must ---


@pytest.fixture
async def held(front: Client, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> Raw:
    """A connection to it."""
    monkeypatch.setattr(Outbox, "put", lambda self, transport, data: self._waiting.append((transport, data)))
    return await connect(front)


async def test_what_aiohttp_answers_comes_behind_it(held: Raw) -> None:
    path = f"outbox/{secrets.token_hex(8)}"
    first = request("GET", f"/file?path={path}-a")
    assert [
        (await held.ask(first + request("GET", "/livez", FOR_AIOHTTP))).status,
        (await held.answer()).status,
    ] == [404, 200]


@pytest.mark.parametrize("size", [70_000, 1_500_000], ids=["in two pieces", "of a file in blocks"])
async def test_a_large_answer_comes_behind_it(front: Client, held: Raw, size: int) -> None:
    path = f"outbox/{secrets.token_hex(8)}"
    content = secrets.token_bytes(size)
    assert (await front.put("/file", params={"path": path}, data=content)).status == 200
    before = front.app[QUICK].taken
    first, second = request("GET", f"/file?path={path}-none"), request("GET", f"/file?path={path}")
    assert (await held.ask(first + second)).status == 404
    assert (await held.answer()).body == content
    assert front.app[QUICK].taken == before + 2


async def test_who_is_hung_up_on_gets_what_was_answered(held: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = InFlight.begin

    def begin_and_stop(self: InFlight) -> None:
        begin(self)
        self.stopping = True

    monkeypatch.setattr(InFlight, "begin", begin_and_stop)
    held.writer.write(request("GET", "/file?path=.."))
    assert (await held.ended()).startswith(b"HTTP/1.1 400 ")


async def test_who_sends_no_more_gets_what_was_answered(held: Raw) -> None:
    held.writer.write(request("GET", "/file?path=.."))  # is answered at once
    await asyncio.sleep(0.1)
    held.writer.write_eof()
    assert (await held.ended()).startswith(b"HTTP/1.1 400 ")
