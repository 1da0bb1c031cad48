"""STATS through aiomcache: over real nodes, and over ones that hang, hang up or talk nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from sfss.addresses import Address
from sfss.backends.statistics import Statistics
from sfss.errors import NodeAway, NodeBroken, NodeError, NodeTimeout
from tests.backends.faulty import Faulty, Peer, Script, faulty
from tests.servers import HOST, free_port, memcached

pytestmark = pytest.mark.usefixtures("nothing_leaks")

TIMEOUT = 0.2  # seconds; of asks that are to come to their deadline
PATIENT = 5.0  # seconds; of the others
LITTLE = 0.15  # seconds that an ask may end after its deadline
TICK = 0.005


@contextlib.asynccontextmanager
async def statistics_of(port: int, timeout: float = PATIENT) -> AsyncIterator[Statistics]:
    statistics = Statistics(Address(HOST, port, "node"), timeout)
    try:
        yield statistics
    finally:
        await statistics.close()


@contextlib.asynccontextmanager
async def scripted(script: Script, timeout: float = PATIENT) -> AsyncIterator[tuple[Faulty, Statistics]]:
    async with faulty(script) as server, statistics_of(server.port, timeout) as statistics:
        yield server, statistics


async def figures(peer: Peer) -> None:
    """What a good node does: its n-th answer on a connection tells n."""
    number = 0
    while True:
        await peer.request()
        number += 1
        peer.send(b"STAT number %d\r\nSTAT two words\r\nSTAT empty\r\nEND\r\n" % number)


async def hangs(peer: Peer) -> None:
    await peer.stay()


class Awake:
    """How long the loop has run, in seconds, as a clock that stands still while the machine has others to run.

    Of what passes between two ticks no more counts than what the loop has had to do, and twice as much as should pass.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    async def __aenter__(self) -> Awake:
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ticking.cancel()
        await asyncio.wait([self._ticking])

    async def _tick(self) -> None:
        while True:
            before, worked = time.perf_counter(), time.thread_time()
            await asyncio.sleep(TICK)
            self.seconds += min(time.perf_counter() - before, time.thread_time() - worked + 2 * TICK)


async def ask_within(statistics: Statistics, seconds: float) -> dict[str, str] | NodeError:
    """The figures or the error, which have to come in time."""
    async with Awake() as awake:
        try:
            return await statistics.ask()
        except NodeError as error:
            return error
        finally:
            assert awake.seconds < seconds


async def test_memcached_tells_its_figures(memcached_nodes: list[str]) -> None:
    async with statistics_of(int(memcached_nodes[0].rpartition(":")[2])) as statistics:
        stats = await statistics.ask()
        assert stats["version"].startswith("1.")
        assert stats["pid"].isdigit()
        assert int(stats["limit_maxbytes"]) > 0


async def test_our_node_tells_its_figures(our_nodes: list[str]) -> None:
    async with statistics_of(int(our_nodes[0].rpartition(":")[2])) as statistics:
        stats = await statistics.ask()
        assert stats["version"].endswith("-sfss")
        assert stats["durability"] == "fsync"


async def test_figures_may_be_of_any_form() -> None:
    async with scripted(figures) as (_, statistics):
        assert await statistics.ask() == {"number": "1", "two": "words", "empty": ""}


async def test_one_connection_serves_ask_after_ask() -> None:
    async with scripted(figures) as (server, statistics):
        assert [(await statistics.ask())["number"] for _ in range(3)] == ["1", "2", "3"]
        together = await asyncio.gather(*(statistics.ask() for _ in range(20)))
        assert [stats["number"] for stats in together] == [str(number) for number in range(4, 24)]
        assert len(server.accepted) == 1


async def test_a_node_that_hangs_costs_no_more_than_the_deadline() -> None:
    async with scripted(hangs, TIMEOUT) as (_, statistics):
        error = await ask_within(statistics, TIMEOUT + LITTLE)
        assert isinstance(error, NodeTimeout)
        assert str(statistics._address) in str(error)


async def test_many_who_ask_a_node_that_hangs_do_not_wait_for_one_another() -> None:
    async with scripted(hangs, TIMEOUT) as (_, statistics), Awake() as awake:
        asks = []
        for _ in range(20):
            asks.append(asyncio.ensure_future(ask_within(statistics, TIMEOUT + LITTLE)))
            await asyncio.sleep(TIMEOUT / 20)
        assert {type(outcome) for outcome in await asyncio.gather(*asks)} == {NodeTimeout}
        assert awake.seconds < 2 * TIMEOUT + 2 * LITTLE


async def test_a_node_that_sends_its_figures_for_ever_is_left_at_the_deadline() -> None:
    async def never_ends(peer: Peer) -> None:
        await peer.request()
        while True:
            peer.send(b"STAT uptime 1\r\n" * 1000)
            await peer.drain()

    async with scripted(never_ends, TIMEOUT) as (_, statistics):
        assert isinstance(await ask_within(statistics, TIMEOUT + LITTLE), NodeTimeout)


async def late_once(peer: Peer) -> None:
    await peer.request()
    await asyncio.sleep(TIMEOUT * 1.5)
    peer.send(b"STAT number late\r\nEND\r\n")
    await figures(peer)


async def test_after_a_time_out_the_next_ask_does_not_get_the_late_answer() -> None:
    async with scripted(late_once, TIMEOUT) as (server, statistics):
        assert isinstance(await ask_within(statistics, TIMEOUT + LITTLE), NodeTimeout)
        server.script, statistics._timeout = figures, PATIENT
        for number in ("1", "2"):
            await asyncio.sleep(TIMEOUT)
            assert (await statistics.ask())["number"] == number


async def test_after_an_ask_cancelled_at_any_step_the_next_gets_right_figures() -> None:
    async def two_parts(peer: Peer) -> None:
        while True:
            await peer.request()
            peer.send(b"STAT a 1\r\nSTAT b")
            await asyncio.sleep(0)
            peer.send(b" 2\r\nEND\r\n")

    async with scripted(two_parts) as (_, statistics):
        for steps in range(30):
            asks = [asyncio.ensure_future(statistics.ask()) for _ in range(3)]
            for _ in range(steps):
                await asyncio.sleep(0)
            asks[0].cancel()
            asks[1].cancel()
            first, second, third = await asyncio.gather(*asks, return_exceptions=True)
            for outcome in (first, second):
                assert isinstance(outcome, asyncio.CancelledError) or outcome == {"a": "1", "b": "2"}
            assert third == {"a": "1", "b": "2"}
            assert await statistics.ask() == {"a": "1", "b": "2"}


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("sent", [b"", b"ST", b"STAT a 1", b"STAT a 1\r\n", b"STAT a 1\r\nEND\r"], ids=repr)
async def test_a_hang_up_in_the_middle_of_the_figures_fails_the_ask_at_once(sent: bytes, reset: bool) -> None:
    async def hangs_up(peer: Peer) -> None:
        await peer.request()
        peer.send(sent)
        if reset:
            await peer.reset()

    async with scripted(hangs_up) as (server, statistics):
        assert isinstance(await ask_within(statistics, 1), NodeBroken)
        server.script = figures
        assert (await statistics.ask())["number"] == "1"


@pytest.mark.parametrize(
    "garbage", [b"HELLO\r\n", b"\r\n", b"ERROR\r\n", b"\0" * 2**17 + b"\r\n", b"STATS a 1\r\nEND\r\n"]
)
async def test_garbage_is_a_broken_node_and_the_next_ask_begins_anew(garbage: bytes) -> None:
    async def talks_nonsense(peer: Peer) -> None:
        await peer.request()
        peer.send(garbage)
        await peer.stay()

    async with scripted(talks_nonsense) as (server, statistics):
        error = await ask_within(statistics, 1)
        assert isinstance(error, NodeBroken)
        assert str(statistics._address) in str(error)
        server.script = figures
        assert (await statistics.ask())["number"] == "1"


async def test_bytes_that_are_not_text_are_shown_as_such() -> None:
    async def odd(peer: Peer) -> None:
        await peer.request()
        peer.send(b"STAT \xff \xfe\r\nEND\r\n")

    async with scripted(odd) as (_, statistics):
        assert await statistics.ask() == {"\ufffd": "\ufffd"}


async def test_a_node_that_is_not_there_is_away() -> None:
    async with statistics_of(free_port()) as statistics:
        error = await ask_within(statistics, LITTLE)
        assert isinstance(error, NodeAway)
        assert str(statistics._address) in str(error)


async def test_a_node_that_was_started_again_is_asked_again() -> None:
    port = free_port()
    async with statistics_of(port, timeout=2) as statistics:
        with memcached(port=port):
            first = (await statistics.ask())["pid"]
        assert isinstance(await ask_within(statistics, 1), NodeError)
        with memcached(port=port):
            assert (await statistics.ask())["pid"] != first


async def test_closing_while_an_ask_is_in_flight_leaves_no_socket_open() -> None:
    async def slow(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(TIMEOUT / 2)
        peer.send(b"STAT a 1\r\nEND\r\n")
        assert await peer.reader.read() == b"", "the client has hung up"

    async with scripted(slow, timeout=2) as (_, statistics):
        asks = [asyncio.ensure_future(ask_within(statistics, 2 * TIMEOUT)) for _ in range(2)]
        await asyncio.sleep(TIMEOUT / 4)
        await statistics.close()
        first, second = await asyncio.gather(*asks)
        assert first == {"a": "1"}
        assert isinstance(second, NodeAway)
