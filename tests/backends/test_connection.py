"""The connection to a node under every fault that a node or a network can show; faults are ``faulty``'s scripts."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import signal
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable

import pytest

from sfss.addresses import Address
from sfss.backends import connection as connection_module
from sfss.backends import keeper as keeper_module
from sfss.backends.connection import MAX_BYTES_IN_FLIGHT, MAX_IN_FLIGHT, Connection
from sfss.backends.memcached import MemcachedNode
from sfss.errors import NodeAway, NodeBroken, NodeError, NodeTimeout
from sfss.memcache import END, STORED, Reply, ReplyParser, retrieval, storage, value
from tests.backends.faulty import Peer, Script, faulty
from tests.servers import HOST, free_port, memcached, process, stop_in_its_tracks

pytestmark = pytest.mark.usefixtures("nothing_leaks")

TIMEOUT = 0.2  # seconds; of the calls under test
LITTLE = 0.15  # seconds that a call may end after its deadline on a busy machine
AT_ONCE = 0.1  # seconds; a call that fails without waiting for anything takes some ten microseconds
MIB = 2**20


@contextlib.asynccontextmanager
async def connected(script: Script, timeout: float = TIMEOUT, max_value: int = MIB) -> AsyncIterator[Connection[Reply]]:
    """A connection to a server that does as ``script`` says, with no greeting before it."""
    async with faulty(script) as server:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection("the-node:1", ReplyParser(max_value), timeout), HOST, server.port
        )
        try:
            yield connection
        finally:
            connection.drop(NodeBroken, "the test is over")
            await connection.lost


@contextlib.asynccontextmanager
async def client_of(port: int, *, timeout: float = TIMEOUT, retry_after: float = 0.3) -> AsyncIterator[MemcachedNode]:
    """A started client of the node there."""
    address = Address(HOST, port, "node")
    client = MemcachedNode(
        address, largest_value=8 * MIB, connect_timeout=TIMEOUT, timeout=timeout, retry_after=retry_after
    )
    await client.start()
    try:
        yield client
    finally:
        await client.close()


def content(key: bytes) -> bytes:
    """The value that every key has in these tests, so that another's answer shows."""
    return key * (1 + hash(key) % 300)


def is_value_of(key: bytes, reply: Reply) -> bool:
    return reply.line == END and [found.key for found in reply.values] == [key]


async def get(connection: Connection[Reply], key: bytes) -> bytes:
    reply = await connection.call(functools.partial(is_value_of, key), 0, retrieval, b"get", key)
    return reply.values[0].data


async def set_(connection: Connection[Reply], key: bytes, data: bytes) -> bytes:
    reply = await connection.call(lambda reply: reply.line == STORED, len(data), storage, b"set", key, data)
    return reply.line


def reply_to(key: bytes) -> bytes:
    return value(key, 0, content(key)) + b"END\r\n"


async def answers(peer: Peer) -> None:
    """What a good node does."""
    while True:
        request = await peer.request()
        peer.send(b"STORED\r\n" if request.verb == b"set" else reply_to(request.args[0]))


async def greets_and_answers(peer: Peer) -> None:
    await peer.greet()
    await answers(peer)


async def never_answers(peer: Peer) -> None:
    await peer.stay()


async def ends(call: Awaitable[object], within: float) -> object:
    """The answer or error of a call, which has to come in time."""
    began = time.perf_counter()
    outcome = (await asyncio.gather(call, return_exceptions=True))[0]
    assert time.perf_counter() - began < within, outcome
    return outcome


async def back(client: MemcachedNode, within: float) -> None:
    """Wait until the node is there again."""
    deadline = time.perf_counter() + within
    while client.away is not None:
        assert time.perf_counter() < deadline, client.away
        await asyncio.sleep(0.01)


def places_free(connection: Connection[Reply]) -> bool:
    window = connection._window
    return (window._requests, window._free) == (connection_module.MAX_IN_FLIGHT, MAX_BYTES_IN_FLIGHT)


# --- a node that hangs up ---


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_a_hang_up_at_any_byte_of_a_reply_fails_the_call_at_once(reset: bool) -> None:
    reply = b"VALUE k 0 5\r\nhello\r\nEND\r\n"
    for cut in range(len(reply)):

        async def hangs_up(peer: Peer, cut: int = cut) -> None:
            await peer.request()
            peer.send(reply[:cut])
            if reset:
                await peer.reset()

        async with connected(hangs_up, timeout=5) as connection:
            error = await ends(get(connection, b"k"), within=1)
            assert isinstance(error, NodeBroken)
            assert error.node == "the-node:1"
            assert places_free(connection)


async def test_a_hang_up_fails_all_calls_in_flight_each_with_an_error_of_its_own() -> None:
    async def hangs_up(peer: Peer) -> None:
        for _ in range(50):
            await peer.request()
        peer.send(reply_to(b"0") + reply_to(b"1"))

    async with connected(hangs_up, timeout=5) as connection:
        calls = [asyncio.ensure_future(get(connection, b"%d" % number)) for number in range(50)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert outcomes[:2] == [content(b"0"), content(b"1")]
        assert {type(outcome) for outcome in outcomes[2:]} == {NodeBroken}
        assert len({id(outcome) for outcome in outcomes[2:]}) == 48


async def test_a_node_that_only_ends_its_own_half_is_left_at_once_however_much_is_unsent() -> None:
    async def half_closes(peer: Peer) -> None:
        peer.writer.write_eof()
        await peer.stay()

    async with connected(half_closes, timeout=5) as connection:
        outcomes = await ends(
            asyncio.gather(*(set_(connection, b"k", bytes(MIB)) for _ in range(20)), return_exceptions=True), within=1
        )
        assert isinstance(outcomes, list)
        assert {type(outcome) for outcome in outcomes} <= {NodeBroken, NodeAway}


# --- a node that is silent ---


@pytest.mark.parametrize(
    "sent", [b"", b"VALUE", b"VALUE k 0 5\r\n", b"VALUE k 0 5\r\nhell", b"VALUE k 0 5\r\nhello\r\nEN"]
)
async def test_a_reply_that_stalls_ends_in_a_time_out_and_the_connection_is_left(sent: bytes) -> None:
    async def stalls(peer: Peer) -> None:
        await peer.request()
        peer.send(sent)
        await peer.stay()

    async with connected(stalls) as connection:
        error = await ends(get(connection, b"k"), within=TIMEOUT + LITTLE)
        assert isinstance(error, NodeTimeout)
        assert error.node == "the-node:1"
        async with asyncio.timeout(TIMEOUT + LITTLE):  # from the last byte on
            await connection.lost
        assert isinstance(await ends(get(connection, b"k"), within=AT_ONCE), NodeAway)


async def test_a_silent_node_costs_one_time_out_however_many_calls_there_are() -> None:
    async with connected(never_answers) as connection:
        began = time.perf_counter()
        calls = [asyncio.ensure_future(get(connection, b"k")) for _ in range(500)]
        await asyncio.sleep(TIMEOUT * 0.8)
        calls += [asyncio.ensure_future(get(connection, b"k")) for _ in range(500)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert time.perf_counter() - began < TIMEOUT + LITTLE
        assert {type(outcome) for outcome in outcomes} == {NodeTimeout}
        assert places_free(connection)


async def test_a_slow_but_steady_node_fails_only_what_is_late_and_later_answers_reach_their_calls() -> None:
    slow = 4 * TIMEOUT
    nearly_done = asyncio.Event()

    async def dribbles(peer: Peer) -> None:
        first = await peer.request()
        reply = reply_to(first.args[0])
        for part in range(16):
            if part == 14:
                nearly_done.set()
            peer.send(reply[part * len(reply) // 16 : (part + 1) * len(reply) // 16])
            await asyncio.sleep(slow / 16)
        await answers(peer)

    async with connected(dribbles) as connection:
        late = [asyncio.ensure_future(get(connection, b"late-%d" % number)) for number in range(20)]
        for outcome in await asyncio.gather(*(ends(call, TIMEOUT + LITTLE) for call in late)):
            assert isinstance(outcome, NodeTimeout)
        assert connection.why is None
        await nearly_done.wait()
        timely = [get(connection, b"timely-%d" % number) for number in range(20)]
        assert await asyncio.gather(*timely) == [content(b"timely-%d" % number) for number in range(20)]
        assert places_free(connection)


async def test_what_waits_for_room_and_then_for_its_answer_has_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "MAX_IN_FLIGHT", 1)

    async def slow(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await asyncio.sleep(TIMEOUT * 0.7)
            peer.send(reply_to(request.args[0]))

    async with connected(slow) as connection:
        calls = [ends(get(connection, key), TIMEOUT + LITTLE) for key in (b"a", b"b", b"c")]
        first, second, third = await asyncio.gather(*calls)
        assert first == content(b"a")
        assert isinstance(second, NodeTimeout), "sent, and not answered in time"
        assert isinstance(third, NodeAway), "never sent"
        assert "busy" in str(third)
        await asyncio.sleep(TIMEOUT)
        assert await get(connection, b"d") == content(b"d")
        assert places_free(connection)


# --- a node that talks nonsense ---


@pytest.mark.parametrize(
    "nonsense",
    [
        b"HELLO\r\n",
        b"\0" * 5000,
        b"\r\n",
        b"VALUE\r\n",
        b"VALUE k 0 -1\r\n",
        b"VALUE k 0 x\r\n",
        b"VALUE k 0 8388609\r\n",
        b"VALUE k 0 99999999999999999999999\r\n",
        b"VALUE k 0 1\r\nabEND\r\n",
        b"VALUE other 0 1\r\na\r\nEND\r\n",
        b"VALUE k 0 1\r\na\r\nVALUE k 0 1\r\na\r\nEND\r\n",
        b"VALUE k 0 1\r\na\r\nSTORED\r\n",
        b"STORED\r\n",
        b"DELETED\r\n",
        b"VERSION 1\r\n",
        b"12\r\n",
        b"STAT a 1\r\nEND\r\n",
    ],
    ids=lambda nonsense: repr(nonsense[:24]),
)
async def test_an_answer_that_is_none_fails_the_call_at_once_and_the_node_is_left(nonsense: bytes) -> None:
    async def talks_nonsense(peer: Peer) -> None:
        await peer.greet()
        await peer.request()
        peer.send(nonsense)
        await peer.stay()

    async with faulty(talks_nonsense) as server, client_of(server.port, timeout=5) as client:
        error = await ends(client.get(b"k"), within=1)
        assert isinstance(error, NodeBroken)
        assert str(client.address) in str(error)


@pytest.mark.parametrize("answer", [b"ERROR\r\n", b"CLIENT_ERROR bad data chunk\r\n", b"END\r\n", b"DELETED\r\n"])
async def test_after_an_answer_that_means_that_the_data_is_read_as_commands_the_node_is_left(answer: bytes) -> None:
    async def misreads(peer: Peer) -> None:
        await peer.greet()
        await peer.request()
        peer.send(answer)
        await peer.stay()

    async with faulty(misreads) as server, client_of(server.port, timeout=5) as client:
        assert isinstance(await ends(client.set(b"/k", b"flush_all\r\n"), within=1), NodeBroken)


@pytest.mark.parametrize("extra", [b"END\r\n", b"VAL", b"STAT a 1\r\n", b"VALUE k 0 1\r\n"], ids=repr)
@pytest.mark.parametrize("with_a_reply", [False, True])
async def test_bytes_that_nothing_was_asked_for_end_the_connection(extra: bytes, with_a_reply: bool) -> None:
    async def sends_more(peer: Peer) -> None:
        if with_a_reply:
            await peer.request()
            peer.send(reply_to(b"k"))
        peer.send(extra)
        await peer.stay()

    async with connected(sends_more, timeout=5) as connection:
        if with_a_reply:
            assert await get(connection, b"k") == content(b"k")
        async with asyncio.timeout(1):
            await connection.lost
        assert connection.why
        assert "nothing was asked for" in connection.why


async def test_a_flood_of_garbage_does_not_hold_up_the_event_loop() -> None:
    async def floods(peer: Peer) -> None:
        await peer.greet()
        while True:
            peer.send(b"STORED\r\n" * 8192)
            await peer.drain()

    async with faulty(floods) as server, client_of(server.port, retry_after=0.2):
        slowest, last, end = 0.0, time.perf_counter(), time.perf_counter() + 0.7
        while last < end:
            await asyncio.sleep(0.001)
            slowest, last = max(slowest, time.perf_counter() - last), time.perf_counter()
        assert slowest < 0.4, "one read's worth, 256 KiB, is parsed before its first reply is seen not to fit"
        assert len(server.accepted) < 12, "it must not be connected to again and again without a pause"


# --- no call ever gets another's answer ---


async def test_under_random_cancellation_and_time_outs_every_answer_is_its_calls_own() -> None:
    """The replies come in random pieces, with pauses."""
    dice = random.Random(1)

    async def moody(peer: Peer) -> None:
        unsent = bytearray()

        async def read() -> None:
            while True:
                request = await peer.request()
                unsent.extend(b"STORED\r\n" if request.verb == b"set" else reply_to(request.args[0]))

        reading = asyncio.create_task(read())
        try:
            while not reading.done():
                piece = dice.randrange(1, 400_000)
                peer.send(bytes(unsent[:piece]))
                del unsent[:piece]
                await asyncio.sleep(dice.choice((0, 0, 0, 0.001, 0.02)))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    answered = 0

    async def user(connection: Connection[Reply], number: int) -> None:
        nonlocal answered
        for turn in range(12):
            key = b"/%d/%d" % (number, turn)
            call = get(connection, key) if dice.random() < 0.8 else set_(connection, key, content(key))
            with contextlib.suppress(TimeoutError, NodeTimeout):
                async with asyncio.timeout(dice.choice((0, 0.001, 0.01, 0.05, 5))):
                    assert await call in (content(key), b"STORED")
                    answered += 1

    async with connected(moody, timeout=0.1) as connection:
        await asyncio.gather(*(user(connection, number) for number in range(300)))
        assert connection.why is None
        assert answered > 500
        while connection._pending:
            await asyncio.sleep(0.01)
        assert places_free(connection)


LAST_WORDS = (reply_to(b"/other"), b"VALUE /x 0 100\r\nabc", b"STORED\r\nSTORED\r\n", b"nonsense\r\n", b"")


async def test_over_a_node_that_breaks_at_random_every_answer_is_right_or_an_error() -> None:
    dice = random.Random(2)

    async def breaks(peer: Peer) -> None:
        await peer.greet()
        for _ in range(dice.randrange(200)):
            request = await peer.request()
            peer.send(b"STORED\r\n" if request.verb == b"set" else reply_to(request.args[0]))
        await peer.request()
        peer.send(dice.choice(LAST_WORDS))
        await dice.choice((peer.drain, peer.reset, peer.stay))()

    outcomes: Counter[type] = Counter()

    async def user(client: MemcachedNode, number: int) -> None:
        for turn in range(40):
            key = b"/%d/%d" % (number, turn)
            call, right = (
                (client.get(key), content(key)) if dice.random() < 0.8 else (client.set(key, content(key)), True)
            )
            try:
                async with asyncio.timeout(dice.choice((0.001, 5))):
                    assert await call == right
                outcomes[bytes] += 1
            except (TimeoutError, NodeError) as error:
                outcomes[type(error)] += 1
                await asyncio.sleep(0.01)

    async with faulty(breaks) as server, client_of(server.port, timeout=0.05, retry_after=0.05) as client:
        await asyncio.gather(*(user(client, number) for number in range(60)))
    assert outcomes[bytes] > 100
    assert outcomes[NodeBroken]
    assert len(server.accepted) > 3


# --- cancellation ---


@pytest.mark.parametrize("places", [1, MAX_IN_FLIGHT], ids=["waiting-for-room", "with-room"])
async def test_cancelled_after_any_step_a_call_leaves_the_connection_usable_with_all_its_places(
    monkeypatch: pytest.MonkeyPatch, places: int
) -> None:
    monkeypatch.setattr(connection_module, "MAX_IN_FLIGHT", places)
    async with connected(answers, timeout=5) as connection:
        for steps in range(25):
            calls = [asyncio.ensure_future(get(connection, b"%d" % number)) for number in range(6)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for call in calls[1::2]:
                call.cancel()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert outcomes[::2] == [content(b"%d" % number) for number in (0, 2, 4)]
            for number in (1, 3, 5):
                outcome = outcomes[number]
                assert isinstance(outcome, asyncio.CancelledError) or outcome == content(b"%d" % number)
            assert await get(connection, b"after") == content(b"after")
            assert places_free(connection)


async def test_starting_and_closing_may_be_cancelled_after_any_step() -> None:
    async with faulty(greets_and_answers) as server:
        for steps in range(30):
            client = MemcachedNode(Address(HOST, server.port, "node"), largest_value=MIB)
            starting = asyncio.ensure_future(client.start())
            for _ in range(steps):
                await asyncio.sleep(0)
            starting.cancel()
            await asyncio.wait([starting])
            closing = asyncio.ensure_future(client.close())
            for _ in range(steps % 4):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            await client.close()
            assert isinstance(await ends(client.get(b"k"), within=AT_ONCE), NodeAway)


# --- memory ---


async def test_sets_against_a_stalled_node_cost_no_more_memory_than_the_bound() -> None:
    async def stalls(peer: Peer) -> None:
        await peer.greet()
        await peer.stay()

    data = os.urandom(MIB)
    async with faulty(stalls) as server, client_of(server.port, timeout=1) as client:
        tracemalloc.start()
        outcomes = await asyncio.gather(*(client.set(b"/k", data) for _ in range(3000)), return_exceptions=True)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < MAX_BYTES_IN_FLIGHT + 24 * MIB, f"{peak / MIB:.0f} MiB"  # a task and its frames have 4 KiB
        assert {type(outcome) for outcome in outcomes} == {NodeTimeout, NodeAway}
        assert sum(isinstance(outcome, NodeTimeout) for outcome in outcomes) <= MAX_BYTES_IN_FLIGHT // MIB + 1
        assert all(str(client.address) in str(outcome) for outcome in outcomes)


# --- a write that failed is not carried out later ---


@pytest.mark.parametrize("stuck", [MIB // 4, 7 * MIB], ids=["in the kernel", "in the process"])
async def test_what_was_not_delivered_when_the_connection_was_dropped_never_is(stuck: int) -> None:
    """A network that holds bytes back, and lets them go after a newer write was acknowledged."""
    hold, released, drained = asyncio.Event(), asyncio.Event(), asyncio.Event()

    with memcached("-I", "8m") as port:

        async def proxy(peer: Peer) -> None:
            held = len(proxied.accepted) == 1
            reader, writer = await asyncio.open_connection(HOST, port, limit=2**24)

            async def replies() -> None:
                while data := await reader.read(2**16):
                    peer.send(data)

            async def requests() -> None:
                while data := await peer.reader.read(2**16):
                    writer.write(data)
                    if held and hold.is_set():
                        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
                        await released.wait()
                        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]

            there = asyncio.create_task(replies())
            try:
                await requests()
            finally:
                if held:
                    writer.write_eof()
                    await asyncio.wait([there])  # memcached has seen all that came
                    drained.set()
                there.cancel()
                await asyncio.gather(there, return_exceptions=True)
                writer.close()

        async with faulty(proxy, receive_buffer=4096) as proxied, client_of(proxied.port) as client:
            await client.set(b"/k", b"first")
            hold.set()
            sets = (client.set(b"/large", bytes(stuck)), client.set(b"/k", b"stale"))
            outcomes = await asyncio.gather(*sets, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [NodeTimeout, NodeTimeout]
            await back(client, within=1)
            await client.set(b"/k", b"newest")
            released.set()
            async with asyncio.timeout(5):
                await drained.wait()
            assert await client.get(b"/k") == b"newest"
            assert await client.get(b"/large") is None


# --- away, and back ---


async def test_a_node_that_comes_is_found_within_the_retry_time() -> None:
    port = free_port()
    async with client_of(port) as client:
        assert client.away
        assert "refused" in client.away
        await asyncio.sleep(0.5)  # so that the pauses have grown
        async with faulty(greets_and_answers, port=port):
            await back(client, within=0.3 + TIMEOUT + LITTLE)
            assert await client.get(b"/k") == content(b"/k")
        await asyncio.sleep(0.05)
        assert client.away
        assert isinstance(await ends(client.get(b"/k"), within=AT_ONCE), NodeAway)
        async with faulty(greets_and_answers, port=port):
            await back(client, within=0.3 + TIMEOUT + LITTLE)
            assert await client.get(b"/k") == content(b"/k")


async def hangs_up_on_accept(_: Peer) -> None:
    pass


async def greets_and_hangs_up(peer: Peer) -> None:
    await peer.greet()
    await peer.drain()


@pytest.mark.parametrize("script", [hangs_up_on_accept, greets_and_hangs_up])
async def test_pauses_between_attempts_grow_and_are_bounded(script: Script) -> None:
    async with faulty(script) as server, client_of(server.port, retry_after=0.3):
        await asyncio.sleep(1.6)
    pauses = [after - before for before, after in zip(server.accepted, server.accepted[1:], strict=False)]
    assert 5 <= len(pauses) <= 12, pauses
    assert pauses[0] < 0.15
    assert 0.2 < max(pauses) < 0.3 + LITTLE


async def test_a_connection_that_held_for_long_is_made_anew_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "FIRST_RETRY", 5)
    asked = asyncio.Event()

    async def hangs_up_when_told(peer: Peer) -> None:
        await peer.greet()
        await asked.wait()

    async with faulty(hangs_up_when_told) as server, client_of(server.port, retry_after=0.1) as client:
        await asyncio.sleep(0.2)
        server.script = greets_and_answers
        asked.set()
        while client.away is None:
            await asyncio.sleep(0)
        await back(client, within=1)


@pytest.mark.parametrize(
    "line", [b"ERROR Too many open connections\r\n", b"SERVER_ERROR Too many open connections\r\n"]
)
async def test_a_node_with_too_many_connections_is_away_and_says_why(line: bytes) -> None:
    """memcached's words, and our node's."""

    async def refuses(peer: Peer) -> None:
        peer.send(line)

    async with faulty(refuses) as server, client_of(server.port) as client:
        assert client.away
        assert "Too many open connections" in client.away
        server.script = greets_and_answers
        await back(client, within=0.3 + TIMEOUT + LITTLE)


async def test_a_node_that_can_not_tell_its_figures_is_not_taken_for_another_kind() -> None:
    async def has_no_memory(peer: Peer) -> None:
        await peer.request()
        peer.send(b"VERSION 1.6.18\r\n")
        await peer.request()
        peer.send(b"SERVER_ERROR out of memory writing stats\r\n")
        await peer.stay()

    async with faulty(has_no_memory) as server, client_of(server.port) as client:
        assert client.capabilities is None
        assert client.away
        assert "out of memory writing stats" in client.away


async def test_a_node_that_accepts_and_never_greets_is_away_and_says_why() -> None:
    async with faulty(never_answers) as server:
        began = time.perf_counter()
        async with client_of(server.port) as client:
            assert time.perf_counter() - began < TIMEOUT + LITTLE
            assert client.away
            assert "within 0.2 s" in client.away


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70])
async def test_a_host_that_is_none_is_away_and_says_so(host: str) -> None:
    client = MemcachedNode(Address(host, 1, "node"), largest_value=MIB, connect_timeout=2)
    await client.start()
    assert client.away
    assert "can't be connected to" in client.away
    await client.close()


async def test_errors_and_the_reason_for_being_away_name_the_node_once() -> None:
    async def talks_nonsense(peer: Peer) -> None:
        await peer.greet()
        await peer.request()
        peer.send(b"HELLO\r\n")

    async with faulty(talks_nonsense) as server, client_of(server.port) as client:
        for _ in range(2):  # broken, then away
            error = await ends(client.get(b"/k"), within=1)
            assert isinstance(error, NodeError)
            assert str(error).count(str(client.address)) == 1
            await asyncio.sleep(0)
        assert client.away
        assert str(client.address) not in client.away


# --- a real server that stops and goes on ---


async def test_a_stopped_memcached_is_left_after_one_time_out_and_works_again_when_it_goes_on() -> None:
    port = free_port()
    user = ["-u", "root"] if os.geteuid() == 0 else []
    with process(["memcached", *user, "-l", HOST, "-p", str(port), "-U", "0"]) as server:
        async with client_of(port) as client:
            await back(client, within=3)
            await client.set(b"/k", b"before")
            stop_in_its_tracks(server)
            try:
                calls = [ends(client.get(b"/k"), TIMEOUT + LITTLE) for _ in range(200)]
                assert {type(outcome) for outcome in await asyncio.gather(*calls)} == {NodeTimeout}
                began = time.perf_counter()
                for _ in range(100):
                    assert isinstance(await ends(client.get(b"/k"), within=AT_ONCE), NodeAway)
                assert time.perf_counter() - began < 100 * 0.01
                assert client.away
                await asyncio.sleep(0.5)
                assert isinstance(await ends(client.get(b"/k"), within=AT_ONCE), NodeAway)
            finally:
                server.send_signal(signal.SIGCONT)
            await back(client, within=0.3 + TIMEOUT + LITTLE)
            assert await client.get(b"/k") == b"before"
            await client.set(b"/k", b"after")
            assert await client.get(b"/k") == b"after"
