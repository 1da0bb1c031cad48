"""Connections, durability and limits of a node, over real sockets; with kill -9 where that is the promise."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiomcache
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfss.errors import ConfigError
from sfss.node import server as node_server
from sfss.node.engine import MIB
from sfss.node.server import NodeSettings, Server
from tests.node.support import PATIENCE, Client, Tampered, child, connected, running, set_request, talk
from tests.servers import HOST, wait_for


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path / "data") as server:
        yield server


class Disk:
    """A node's disk whose fsync waits until it is told to go on, or fails."""

    def __init__(self, server: Server) -> None:
        self._store = server.store
        self._real = server.store.sync
        self._go = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.begun = 0
        self.error: Exception | None = None
        server.store.sync = self._sync  # type: ignore[method-assign]

    def _sync(self) -> None:
        self.begun += 1
        asyncio.run_coroutine_threadsafe(self._go.wait(), self._loop).result(PATIENCE)
        if self.error:
            self._store.unsynced = True
            raise self.error
        self._real()

    def go_on(self) -> None:
        self._go.set()


# --- order and framing ---


async def test_pipelined_replies_leave_in_the_order_of_their_requests(node: Server) -> None:
    requests, expected = [], []
    for n in range(300):
        key, data = b"key%d" % (n % 17), b"%d" % n * (n % 50)
        requests += [set_request(key, data), b"get %b\r\n" % key, b"delete %b\r\n" % key, b"get %b\r\n" % key]
        got = b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(data), data)
        expected += [b"STORED\r\n", got, b"DELETED\r\n", b"END\r\n"]
    assert await talk(node.port, b"".join(requests)) == b"".join(expected)


async def test_a_get_behind_a_set_waits_with_it_and_sees_it(node: Server) -> None:
    disk = Disk(node)
    async with connected(node.port) as client:
        client.writer.write(b"get a\r\n" + set_request(b"a", b"1") + b"get a\r\nversion\r\n")
        assert await client.reader.readuntil(b"END\r\n") == b"END\r\n"  # before the set: it waits for nothing
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.readline(), 0.1)
        disk.go_on()
        assert await client.reader.readuntil(b"-sfss\r\n") == (
            b"STORED\r\nVALUE a 0 1\r\n1\r\nEND\r\n" + await talk(node.port, b"version\r\n")
        )


SCRIPT = b"".join(
    (
        b"flush_all\r\n",
        set_request(b"a", b"get b\r\nEND\r\n"),
        b"get a b a\r\n",
        set_request(b"b", b"x" * 500, tail=b" noreply"),
        b"bogus\r\n\r\nset c x 0 9\r\nget b\r\n\r\n\r\n",
        b"gat 0 a b\r\nincr a 1\r\n",
        set_request(b"n", b"9"),
        b"incr n 1\r\nhead a n\r\nset big 0 0 300000\r\n" + b"get a\r\n" * 42857 + b"x\r\nget n\r\n",
        b"set a 0 0 2\r\nlong\r\ndelete b noreply\r\nget b\r\ntouch n 0\r\n",
    )
)


@pytest.fixture(scope="module")
def loop_and_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.AbstractEventLoop, int]]:
    loop = asyncio.new_event_loop()
    server = Server(NodeSettings(tmp_path_factory.mktemp("split") / "data", port=0, max_item_size=200_000))
    loop.run_until_complete(server.start())
    yield loop, server.port
    loop.run_until_complete(server.stop())
    loop.close()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(cuts=st.lists(st.integers(0, 900) | st.integers(0, len(SCRIPT)), max_size=30))
def test_however_the_bytes_are_split_the_replies_are_the_same(
    cuts: list[int], loop_and_port: tuple[asyncio.AbstractEventLoop, int]
) -> None:
    loop, port = loop_and_port
    edges = [0, *sorted(cuts), len(SCRIPT)]
    pieces = [SCRIPT[begin:end] for begin, end in itertools.pairwise(edges)]
    assert loop.run_until_complete(talk(port, *pieces)) == loop.run_until_complete(talk(port, SCRIPT))


async def test_ten_thousand_tiny_requests_in_one_go_are_all_answered(node: Server) -> None:
    await talk(node.port, set_request(b"a", b"1"))
    assert await talk(node.port, b"get a\r\n" * 10_000) == b"VALUE a 0 1\r\n1\r\nEND\r\n" * 10_000
    assert await talk(node.port, b"\n" * 10_000) == b"ERROR\r\n" * 10_000


async def test_an_end_in_the_middle_of_a_block_stores_nothing(node: Server) -> None:
    replies = await talk(node.port, set_request(b"a", b"1") + b"set b 0 0 100\r\nonly a part")
    assert replies == b"STORED\r\n"
    assert await talk(node.port, b"get b\r\nget a\r\n") == b"END\r\nVALUE a 0 1\r\n1\r\nEND\r\n"


async def test_noreply_is_carried_out_and_answered_with_nothing(node: Server) -> None:
    requests = (
        set_request(b"a", b"5", tail=b" noreply") + b"incr a 2 noreply\r\ntouch a 0 noreply\r\nincr x 1 noreply\r\n"
    )
    assert await talk(node.port, requests + b"get a\r\n") == b"VALUE a 0 1\r\n7\r\nEND\r\n"
    assert await talk(node.port, b"delete a noreply\r\nflush_all noreply\r\nget a\r\n") == b"END\r\n"


async def test_an_independent_client_is_content(node: Server) -> None:
    client = aiomcache.Client(HOST, node.port)
    assert await client.set(b"key", b"value" * 1000)
    assert await client.get(b"key") == b"value" * 1000
    assert await client.multi_get(b"key", b"none") == (b"value" * 1000, None)
    _, cas = await client.gets(b"key")
    assert await client.cas(b"key", b"2", cas or 0)
    assert await client.incr(b"key", 3) == 5
    assert (await client.stats())[b"curr_items"] == b"1"
    await client.close()


# --- durability ---


async def test_a_write_is_answered_only_after_an_fsync_that_covers_it(node: Server) -> None:
    disk = Disk(node)
    async with connected(node.port) as first, connected(node.port) as second:
        asked = asyncio.create_task(first.line(set_request(b"a", b"1")))
        while not disk.begun:
            await asyncio.sleep(0.01)
        late = asyncio.create_task(second.line(set_request(b"b", b"1")))  # the fsync that runs doesn't cover it
        await asyncio.sleep(0.05)
        assert not asked.done()
        assert not late.done()
        disk.go_on()
        assert await asked == await late == b"STORED"
        assert disk.begun == 2


async def test_what_a_write_found_waits_for_the_disk_too(node: Server) -> None:
    """NOT_FOUND after a removal that is not on the disk yet: were it said now, a power loss could make it a lie."""
    await talk(node.port, set_request(b"a", b"1"))
    disk = Disk(node)
    async with connected(node.port) as first, connected(node.port) as second:
        removed = asyncio.create_task(first.line(b"delete a\r\n"))
        while not disk.begun:
            await asyncio.sleep(0.01)
        for request in (b"delete a\r\n", b"touch a 0\r\n", b"incr a 1\r\n"):
            second.writer.write(request)
        await asyncio.sleep(0.05)
        assert not removed.done()
        disk.go_on()
        assert await removed == b"DELETED"
        assert await second.reader.readexactly(33) == b"NOT_FOUND\r\n" * 3
        assert disk.begun == 1


async def test_writes_of_many_clients_share_their_fsyncs(node: Server) -> None:
    async def client(name: int) -> None:
        async with connected(node.port) as connection:
            for number in range(20):
                assert await connection.line(set_request(b"key%d-%d" % (name, number), b"x" * 100)) == b"STORED"

    await asyncio.gather(*(client(name) for name in range(40)))
    async with connected(node.port) as connection:
        stats = await connection.stats()
    assert stats["curr_items"] == "800"
    assert 0 < int(stats["fsyncs"]) < 400


async def test_with_durability_os_nothing_waits_for_an_fsync(tmp_path: Path) -> None:
    async with running(tmp_path / "data", durability="os") as node, connected(node.port) as client:
        assert await client.line(set_request(b"a", b"1")) == b"STORED"
        stats = await client.stats()
        assert (stats["fsyncs"], stats["durability"]) == ("0", "os")


async def test_a_failed_fsync_is_an_error_to_all_it_covered_and_the_node_goes_on(
    node: Server, caplog: pytest.LogCaptureFixture
) -> None:
    await talk(node.port, set_request(b"old", b"1"))
    disk = Disk(node)
    disk.error = OSError(5, "Input/output error")
    disk.go_on()
    many = (
        set_request(b"a", b"1")
        + b"get old\r\ndelete old\r\nincr x 1\r\nversion\r\n"
        + set_request(b"b", b"1", tail=b" noreply")
    )
    error = b"SERVER_ERROR OSError: [Errno 5] Input/output error\r\n"
    replies = await talk(node.port, many)
    assert replies.startswith(error + b"VALUE old 0 1\r\n1\r\nEND\r\n" + error + error + b"VERSION")
    assert await talk(node.port, b"gat 100 a b\r\n") == b"VALUE a 0 1\r\n1\r\nVALUE b 0 1\r\n1\r\n" + error
    assert "fsync failed" in caplog.text
    disk.error = None
    assert await talk(node.port, set_request(b"c", b"1")) == b"STORED\r\n"
    async with connected(node.port) as client:
        assert int((await client.stats())["failed_fsyncs"]) >= 2


async def test_a_failing_flush_wal_is_never_acknowledged(node: Server) -> None:
    def fail(*_: object) -> None:
        raise Exception("IO error: While fsync")

    real, node.store._db = node.store._db, Tampered(node.store._db, flush_wal=fail)  # type: ignore[assignment]
    for _ in range(3):
        assert await talk(node.port, set_request(b"a", b"1")) == b"SERVER_ERROR Exception: IO error: While fsync\r\n"
    node.store._db = real
    assert await talk(node.port, set_request(b"a", b"1")) == b"STORED\r\n"


async def test_a_full_disk_is_told_and_reads_go_on(node: Server) -> None:
    def fail(*_: object) -> None:
        raise Exception("IO error: No space left on device")

    await talk(node.port, set_request(b"a", b"1"))
    real, node.store._db = node.store._db, Tampered(node.store._db, write=fail)  # type: ignore[assignment]
    full = b"SERVER_ERROR out of space storing object\r\n"
    assert (
        await talk(node.port, set_request(b"a", b"2") + b"delete a\r\nget a\r\n")
        == full * 2 + b"VALUE a 0 1\r\n1\r\nEND\r\n"
    )
    node.store._db = real
    assert await talk(node.port, set_request(b"a", b"2")) == b"STORED\r\n"
    async with connected(node.port) as client:
        assert (await client.stats())["write_errors"] == "2"


async def test_a_failed_read_is_no_miss_and_ends_neither_connection_nor_node(
    node: Server, caplog: pytest.LogCaptureFixture
) -> None:
    await talk(node.port, set_request(b"a", b"1") + set_request(b"b", b"1"))
    real = node.store._db

    def fail(keys: Any) -> Any:
        if any(key.endswith(b"b") for key in ([keys] if isinstance(keys, bytes) else keys)):
            raise Exception("Corruption: block checksum\nmismatch")
        return real.get(keys)

    node.store.memory.clear()
    node.store._db = Tampered(real, get=fail)  # type: ignore[assignment]
    error = b"SERVER_ERROR Exception: Corruption: block checksum mismatch\r\n"
    assert await talk(node.port, b"get b\r\nget a b a\r\nget a\r\n") == (
        error + b"VALUE a 0 1\r\n1\r\n" + error + b"VALUE a 0 1\r\n1\r\nEND\r\n"
    )
    node.store._db = real
    assert "the command 'get' failed" in caplog.text
    assert "Traceback" in caplog.text
    async with connected(node.port) as client:
        assert (await client.stats())["read_errors"] == "2"


async def test_items_flags_expiry_and_versions_survive_a_stop_and_a_kill_9(tmp_path: Path) -> None:
    said: list[bytes] = []
    for ending in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None):
        with child(tmp_path / "data") as (port, process):
            if not said:
                await talk(port, b"".join(set_request(b"key%d" % n, b"v" * n * 100, b"%d 1000" % n) for n in range(50)))
            said.append(await talk(port, b"gets %b\r\n" % b" ".join(b"key%d" % n for n in range(50))))
            async with connected(port) as client:
                stats = await client.stats()
            assert (stats["curr_items"], stats["bytes"]) == ("50", str(sum(range(50)) * 100))
            if ending:
                process.send_signal(ending)
            else:
                assert process.stdin
                process.stdin.close()  # what the death of the parent does
            assert process.wait(PATIENCE) == (-signal.SIGKILL if ending == signal.SIGKILL else 0)
    assert said == said[:1] * 4
    assert said[0].count(b"VALUE") == 50
    assert sum(path.stat().st_size for path in (tmp_path / "data").glob("*.log")) == 0  # nothing left to recover


def test_a_node_ends_with_its_parent_even_if_that_is_killed(tmp_path: Path) -> None:
    parent = (
        "import sys; from pathlib import Path; from tests.node.support import child; import time\n"
        "with child(Path(sys.argv[1])) as (port, process): print(process.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", parent, str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        process.kill()
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])


# --- starting and stopping ---


async def test_a_second_node_on_the_directory_is_refused(node: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="in use by another process"):
        await Server(NodeSettings(tmp_path / "data", port=0)).start()
    with pytest.raises(AssertionError, match=r"ConfigError: the data directory .* is in use by another process"):  # noqa: SIM117
        with child(tmp_path / "data"):
            pass
    assert await talk(node.port, set_request(b"a", b"1")) == b"STORED\r\n"


async def test_a_port_in_use_is_named_with_what_to_do_and_the_directory_let_go(node: Server, tmp_path: Path) -> None:
    second = NodeSettings(tmp_path / "second", port=node.port)
    message = f"port {node.port} of 127.0.0.1 is in use: stop what listens there or choose another with --port"
    with pytest.raises(ConfigError, match=message):
        await Server(second).start()
    async with running(tmp_path / "second"):
        pass


async def test_an_address_that_is_not_this_machines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't listen on port 0 of 192\.0\.2\.1"):
        await Server(NodeSettings(tmp_path / "data", host="192.0.2.1", port=0)).start()


async def test_the_log_says_where_the_node_is_and_what_it_holds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running(tmp_path / "data") as node:
        line = rf"sfss node \S+: 127\.0\.0\.1:{node.port}, data in {tmp_path}/data, durability fsync, 0 items"
        assert re.search(line, caplog.text)


async def test_a_graceful_stop_answers_what_came_and_waits_for_the_disk(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as node:
        disk = Disk(node)
        async with connected(node.port) as client, connected(node.port) as idle:
            client.writer.write(set_request(b"a", b"1") + b"get a\r\n" * 5000)
            while not disk.begun:
                await asyncio.sleep(0.01)
            stopping = asyncio.create_task(node.stop())
            await asyncio.sleep(0.05)
            assert not stopping.done()
            disk.go_on()
            assert await client.reader.read() == b"STORED\r\n" + b"VALUE a 0 1\r\n1\r\nEND\r\n" * 5000
            assert await idle.reader.read() == b""
            await stopping
            with pytest.raises(ConnectionRefusedError):
                await talk(node.port, b"get a\r\n")
        node.stop = lambda: asyncio.sleep(0)  # type: ignore[method-assign]


async def test_a_client_that_never_reads_does_not_hold_up_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_server, "STOP_BOUND", 0.3)
    async with running(tmp_path / "data") as node:
        await talk(node.port, set_request(b"a", b"x" * MIB))
        with socket.create_connection((HOST, node.port)) as sock:
            sock.sendall(b"get a\r\n" * 100)
            await asyncio.sleep(0.1)
            began = time.monotonic()
            await node.stop()
            assert 0.2 < time.monotonic() - began < 3
        node.stop = lambda: asyncio.sleep(0)  # type: ignore[method-assign]


# --- limits ---


def output_of(node: Server) -> int:
    """Bytes that the node keeps for its clients."""
    return sum(
        connection._transport.get_write_buffer_size() + connection._ready_bytes + connection._held_bytes
        for connection in node.connections
    )


@pytest.mark.parametrize(
    "request_", [b"get a\r\n" * 2000, b"get" + b" a" * 2000 + b"\r\n", b"gat 0" + b" a" * 2000 + b"\r\n"]
)
async def test_a_client_that_does_not_read_costs_bounded_memory_and_stops_nobody(node: Server, request_: bytes) -> None:
    await talk(node.port, set_request(b"a", b"x" * MIB))
    with socket.create_connection((HOST, node.port)) as sock:
        sock.sendall(request_)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert output_of(node) < 3 * MIB
            assert await talk(node.port, b"get b\r\n") == b"END\r\n"


async def test_a_client_that_reads_late_gets_everything(node: Server) -> None:
    await talk(node.port, set_request(b"a", b"x" * 100_000))
    one = b"VALUE a 0 100000\r\n" + b"x" * 100_000 + b"\r\n"
    async with connected(node.port) as client:
        client.writer.write(b"get a a a\r\n" * 100 + set_request(b"b", b"1") + b"get b\r\nquit\r\nget b\r\n")
        await asyncio.sleep(0.3)
        assert await client.reader.read(-1) == (one * 3 + b"END\r\n") * 100 + b"STORED\r\nVALUE b 0 1\r\n1\r\nEND\r\n"


async def test_output_that_waits_for_the_disk_is_bounded_too(node: Server) -> None:
    await talk(node.port, set_request(b"a", b"x" * 100_000))
    disk = Disk(node)
    one = b"VALUE a 0 100000\r\n" + b"x" * 100_000 + b"\r\nEND\r\n"
    async with connected(node.port) as client:
        client.writer.write(set_request(b"b", b"1") + b"get a\r\n" * 200 + set_request(b"b", b"2") + b"version\r\n")
        await asyncio.sleep(0.2)
        assert output_of(node) < 2 * MIB
        disk.go_on()
        assert await client.reader.readexactly(8 + len(one) * 200 + 8) == b"STORED\r\n" + one * 200 + b"STORED\r\n"


async def test_one_connection_too_many_is_told_so(tmp_path: Path) -> None:
    async with running(tmp_path / "data", max_connections=2) as node, connected(node.port) as first:
        async with connected(node.port) as second:
            await first.line(b"version\r\n")
            await second.line(b"version\r\n")
            assert await talk(node.port) == b"SERVER_ERROR Too many open connections\r\n"
            assert (await first.stats())["curr_connections"] == "2"
        while (await first.stats())["curr_connections"] != "1":
            await asyncio.sleep(0.01)
        async with connected(node.port) as third:
            assert (await third.line(b"version\r\n")).startswith(b"VERSION")


async def test_a_line_without_an_end_is_refused_and_the_connection_closed(node: Server) -> None:
    async with connected(node.port) as client:
        assert await client.line(b"get a\r\n") == b"END"
        assert await client.line(b"x" * 3000) == b"CLIENT_ERROR line too long"
        assert await client.reader.read() == b""


async def test_idle_connections_cost_little(node: Server) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients: list[Client] = [await stack.enter_async_context(connected(node.port)) for _ in range(300)]
        assert (await clients[0].stats())["curr_connections"] == "300"
        assert await clients[299].line(set_request(b"a", b"1")) == b"STORED"


async def test_clients_that_vanish_leave_nothing_behind(node: Server) -> None:
    await talk(node.port, set_request(b"a", b"x" * MIB))
    disk = Disk(node)
    for request in (
        set_request(b"b", b"1") + b"get a\r\n" * 50,
        b"get a\r\n" * 50,
        b"set c 0 0 100\r\npart",
        b"gat 5 a a a\r\n",
    ):
        _, writer = await asyncio.open_connection(HOST, node.port)
        writer.write(request)
        await asyncio.sleep(0.05)
        writer.transport.abort()
    disk.go_on()
    while node.connections:
        await asyncio.sleep(0.01)
    assert node.stats.curr_connections == 0
    assert await talk(node.port, b"get b\r\n") == b"VALUE b 0 1\r\n1\r\nEND\r\n"


def test_memory_of_a_node_stays_modest_under_large_values(tmp_path: Path) -> None:
    with child(tmp_path / "data", "os") as (port, process):
        before = resident(process.pid)
        with socket.create_connection((HOST, port)) as sock:
            for number in range(150):
                sock.sendall(set_request(b"key%d" % number, os.urandom(1) * MIB))
                assert sock.recv(100) == b"STORED\r\n"
        assert resident(process.pid) - before < 200 * MIB


def resident(pid: int) -> int:
    return int(re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) * 1024


async def test_a_flood_of_short_lines_costs_no_more_memory_than_it_has_bytes(node: Server) -> None:
    floods = [b"\n" * 65536, b"a\n" * 32768]
    clients = [await asyncio.open_connection(HOST, node.port) for _ in range(4)]
    most = 0
    for number, (_, writer) in enumerate(clients):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(floods[number % 2])
    for _ in range(200):
        await asyncio.sleep(0.001)
        most = max(most, *(len(connection._events) for connection in node.connections), 0)
    assert 0 < most <= 4096
    for _, writer in clients:
        writer.transport.abort()
