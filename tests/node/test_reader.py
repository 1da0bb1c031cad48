"""Reads in threads: a slow disk holds up only those who asked for what lies on it, and nobody reads what is over."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from sfss.node.engine import MIB
from sfss.node.reader import BATCH, THREADS
from sfss.node.server import Server
from tests.node.support import Tampered, connected, running, set_request, talk


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path / "data", durability="os") as server:
        yield server


class Disk:
    """RocksDB's reads of lists of keys, which wait until they are let go on, or as long as ``seconds``."""

    def __init__(self, node: Server, seconds: float = 0.0, *, stopped: bool = False) -> None:
        self.batches: list[list[bytes]] = []
        self.at_once = self.most = 0
        self.going_on = threading.Event()
        if not stopped:
            self.going_on.set()
        self._seconds = seconds
        self._store, self._real = node.store, node.store._db
        self._store._db = Tampered(self._real, get=self._get)  # type: ignore[assignment]

    def _get(self, keys: Any) -> Any:
        if not isinstance(keys, list):
            return self._real.get(keys)
        self.batches.append(keys)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        time.sleep(self._seconds)
        self.going_on.wait(20)
        found = self._real.get(keys)
        self.at_once -= 1
        return found

    def end(self) -> None:
        self.going_on.set()
        self._store._db = self._real


async def fill(node: Server, count: int, size: int = 10, prefix: bytes = b"k") -> list[bytes]:
    keys = [b"%b%04d" % (prefix, number) for number in range(count)]
    await talk(node.port, b"".join(set_request(key, key.ljust(size)) for key in keys))
    return keys


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_slow_disk_holds_up_only_who_asked_for_what_lies_on_it(node: Server) -> None:
    await fill(node, 10)
    node.store.memory.clear()
    await talk(node.port, set_request(b"hot", b"1"))
    disk = Disk(node, stopped=True)
    async with connected(node.port) as cold, connected(node.port) as hot, connected(node.port) as writer:
        cold.writer.write(b"get k0001\r\n")
        await until(lambda: bool(disk.batches))
        for _ in range(100):
            assert await hot.until_end(b"get hot\r\n") == b"VALUE hot 0 1\r\n1\r\nEND\r\n"
        assert await hot.until_end(b"get absent\r\n") == b"END\r\n"
        assert await writer.line(set_request(b"new", b"1")) == b"STORED"
        writer.writer.write(set_request(b"k0002", b"over"))  # which has to look at what is there
        disk.going_on.set()
        assert await writer.line(b"") == b"STORED"
        assert await cold.until_end(b"") == b"VALUE k0001 0 10\r\nk0001     \r\nEND\r\n"
    disk.end()


async def test_requests_of_one_connection_are_read_together_and_answered_in_their_order(node: Server) -> None:
    keys = await fill(node, 60)
    node.store.memory.clear()
    disk = Disk(node, 0.05)
    requests = b"".join(b"get %b\r\n" % key for key in keys)
    began = time.perf_counter()
    answer = await talk(node.port, requests)
    taken = time.perf_counter() - began
    assert answer == b"".join(b"VALUE %b 0 10\r\n%b\r\nEND\r\n" % (key, key.ljust(10)) for key in keys)
    assert taken < 60 * 0.05 / 4
    assert max(map(len, disk.batches)) <= BATCH
    assert sum(map(len, disk.batches)) == 60
    disk.end()


async def test_keys_of_one_request_are_read_together(node: Server) -> None:
    keys = await fill(node, 100)
    node.store.memory.clear()
    disk = Disk(node, 0.02)
    answer = await talk(node.port, b"get %b\r\n" % b" ".join(keys))
    assert answer == b"".join(b"VALUE %b 0 10\r\n%b\r\n" % (key, key.ljust(10)) for key in keys) + b"END\r\n"
    assert len(disk.batches) < 30
    disk.end()


async def test_what_many_ask_for_is_read_once_and_by_so_many_threads_at_most(node: Server) -> None:
    keys = await fill(node, 200)
    node.store.memory.clear()
    disk = Disk(node, 0.02)
    answers = await asyncio.gather(*(talk(node.port, b"get %b\r\n" % keys[number % 50]) for number in range(200)))
    assert all(answer.startswith(b"VALUE") for answer in answers)
    assert sum(map(len, disk.batches)) == 50
    assert disk.most <= THREADS
    disk.end()


async def test_a_request_sees_what_was_written_before_it_and_not_what_was_read_before_that(node: Server) -> None:
    await fill(node, 2)
    node.store.memory.clear()
    disk = Disk(node, stopped=True)
    async with connected(node.port) as reader, connected(node.port) as writer:
        reader.writer.write(b"get k0000\r\n" + set_request(b"k0000", b"mine") + b"get k0000\r\n")
        await until(lambda: bool(disk.batches))
        node.store.put(b"k0000", 0, 0, b"theirs", node.store.head(b"k0000"))
        disk.going_on.set()
        assert await reader.until_end(b"") == b"VALUE k0000 0 6\r\ntheirs\r\nEND\r\n"
        assert await reader.line(b"") == b"STORED"
        assert await reader.until_end(b"") == b"VALUE k0000 0 4\r\nmine\r\nEND\r\n"
        assert await writer.until_end(b"get k0000\r\n") == b"VALUE k0000 0 4\r\nmine\r\nEND\r\n"
    disk.end()


async def test_values_too_large_to_be_kept_are_answered_all_the_same(node: Server) -> None:
    node.store.memory.limit = 1 * MIB
    keys = await fill(node, 6, 300_000)
    node.store.memory.clear()
    answer = await talk(node.port, b"".join(b"get %b\r\n" % key for key in keys) + b"get %b\r\n" % b" ".join(keys))
    each = [b"VALUE %b 0 300000\r\n%b\r\n" % (key, key.ljust(300_000)) for key in keys]
    assert answer == b"END\r\n".join(each) + b"END\r\n" + b"".join(each) + b"END\r\n"


async def test_every_command_that_reads_does_so_in_threads(node: Server) -> None:
    real = node.store._db

    def refuse(keys: Any) -> Any:
        assert isinstance(keys, list), f"{keys!r} was read by the loop"
        return real.get(keys)

    node.store._db = Tampered(real, get=refuse)  # type: ignore[assignment]
    for request in (
        b"get k\r\n", b"gets k\r\n", b"bget k\r\n", b"head k\r\n", b"gat 0 k\r\n", b"gats 0 k\r\n", b"get k k j\r\n",
        b"gat 0 k j\r\n", b"set k 0 0 1\r\n5\r\n", b"add k 0 0 1\r\n5\r\n", b"replace k 0 0 1\r\n5\r\n",
        b"append k 0 0 1\r\n5\r\n", b"prepend k 0 0 1\r\n5\r\n", b"cas k 0 0 1 7\r\n5\r\n", b"incr k 1\r\n",
        b"decr k 1\r\n", b"touch k 100\r\n", b"delete j\r\n", b"mg k v\r\n", b"mg k s l\r\n", b"mg k T30\r\n",
        b"mg aw== b v\r\n", b"ms k 1 c\r\n5\r\n", b"ms k 1 MA\r\n5\r\n", b"ms aw== 1 b MP\r\n5\r\n", b"ma k N0 t\r\n",
        b"ma aw== b\r\n", b"me k\r\n", b"me aw== b\r\n", b"md k q\r\nmn\r\n",
    ):  # fmt: skip
        node.store._db = real
        await talk(node.port, set_request(b"k", b"5") + set_request(b"j", b"5"))
        node.store.memory.clear()
        node.store._db = Tampered(real, get=refuse)  # type: ignore[assignment]
        answer = await talk(node.port, request)
        assert answer, request
        assert b"SERVER_ERROR" not in answer, (request, answer)
        assert not answer.startswith((b"ERROR", b"CLIENT_ERROR")), (request, answer)
    node.store._db = real


async def test_a_client_that_goes_while_its_read_is_under_way_leaves_nothing(node: Server) -> None:
    await fill(node, 40)
    node.store.memory.clear()
    disk = Disk(node, stopped=True)
    async with connected(node.port) as client:
        client.writer.write(b"get k0000\r\n" * 9)
        await until(lambda: bool(disk.batches))
        linger = struct.pack("ii", 1, 0)  # closed with a reset, not with an end that might still be answered
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    await until(lambda: not node.connections)
    disk.end()
    assert await talk(node.port, b"get k0000\r\n") == b"VALUE k0000 0 10\r\nk0000     \r\nEND\r\n"
    assert not node.reader._waiting
    assert not node.store.memory.brought


async def test_a_stop_waits_for_reads_and_answers_them(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as node:
        await fill(node, 1)
        node.store.memory.clear()
        disk = Disk(node, 0.3)
        async with connected(node.port) as client:
            client.writer.write(b"get k0000\r\n")
            await until(lambda: bool(disk.batches))
            stopping = asyncio.create_task(node.stop())
            assert await client.until_end(b"") == b"VALUE k0000 0 10\r\nk0000     \r\nEND\r\n"
            disk.end()
            await stopping
            await node.start()  # for running() to stop


async def test_reads_from_the_disk_are_counted(node: Server) -> None:
    await fill(node, 5)
    node.store.memory.clear()
    await talk(node.port, b"get k0000 k0001\r\nget k0000\r\n")
    async with connected(node.port) as client:
        stats = await client.stats()
    assert stats["disk_reads"] == "2"
    assert int(stats["cache_entries"]) == 2
    assert 0 < int(stats["cache_bytes"]) <= int(stats["cache_limit"])


async def test_large_values_are_not_read_ahead_to_be_read_again(node: Server) -> None:
    node.store.memory.limit = 1 * MIB
    keys = await fill(node, 40, 300_000)
    node.store.memory.clear()
    await talk(node.port, b"get %b\r\n" % keys[0])  # whose size is what it goes by
    disk = Disk(node)
    for requests in (b"".join(b"get %b\r\n" % key for key in keys), b"get %b\r\n" % b" ".join(keys)):
        disk.batches.clear()
        assert len(await talk(node.port, requests)) > 40 * 300_000
        assert sum(map(len, disk.batches)) <= 2 * len(keys)
    disk.end()
