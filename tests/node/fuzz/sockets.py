"""A real node, fed over many connections at a time by clients without manners; and what it may cost the node.

Each connection brings one input, and then ends as it likes: in good order, half-way, with a reset, or deaf to all that
it is answered. What is looked at is the process: memory, descriptors, threads, its log, and whether it still serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from tests.node.fuzz.bench import ending
from tests.node.fuzz.grammar import Grammar, Input
from tests.node.support import PATIENCE, connected, set_request
from tests.servers import HOST

AT_A_TIME = 25  # connections
BYTE_BY_BYTE = 200  # bytes that are sent so at most
LOUD = b"stats\r\n" * 2000  # asks for some megabytes
OPTIONS = ("--durability", "os")  # of the node
LARGE = 100 * 1024  # bytes of a value for which a connection has to ask for room


class Cost(NamedTuple):
    """What a node's process takes."""

    memory: int  # bytes, without what RocksDB says is its
    sockets: int
    threads: int


class Rudeness:
    """Clients of one node, drawn from a seed."""

    def __init__(self, seed: str, port: int) -> None:
        self._grammar = Grammar(seed)
        self._chance = random.Random(seed)
        self._port = port
        self._ways: tuple[Callable[[Input], Awaitable[None]], ...] = (
            *[self._politely] * 4, self._byte_by_byte, self._half_way, self._half_way, self._with_a_reset, self._deaf,
        )  # fmt: skip

    async def batch(self) -> list[Input]:
        """Some connections at a time; gives what they sent. Fails if one that is owed an end doesn't get it."""
        inputs = [self._grammar.input() for _ in range(AT_A_TIME)]
        ways = [self._chance.choice(self._ways) for _ in inputs]
        await asyncio.gather(*(self._guarded(way, given) for way, given in zip(ways, inputs, strict=True)))
        return inputs

    async def _guarded(self, way: Callable[[Input], Awaitable[None]], given: Input) -> None:
        try:
            await asyncio.wait_for(way(given), PATIENCE)
        except (ConnectionError, RuntimeError):
            pass  # the node hangs up on some; RuntimeError is uvloop's word for it
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOTCONN:
                return  # so is this, where it hung up before our end was shut down
            error.add_note(f"{way.__name__}: {given!r}")
            raise

    async def _politely(self, given: Input) -> None:
        """Says what it says, hears all the answers, and the last one is the right one."""
        reader, writer = await asyncio.open_connection(HOST, self._port)
        try:
            for piece in given.pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            end = ending(given.stream)
            writer.write(b"" if end is None else end + b"mn\r\n")
            with contextlib.suppress(OSError):  # the node has hung up already
                writer.write_eof()
            answer = await reader.read()
            assert end is None or answer.endswith(b"MN\r\n"), answer[-100:]
        finally:
            writer.close()

    async def _byte_by_byte(self, given: Input) -> None:
        stream = given.stream[:BYTE_BY_BYTE]
        await self._politely(Input(stream, tuple(range(1, len(stream)))))

    async def _half_way(self, given: Input) -> None:
        _, writer = await asyncio.open_connection(HOST, self._port)
        writer.write(given.stream[: self._chance.randrange(len(given.stream) + 1)])
        writer.close()

    async def _with_a_reset(self, given: Input) -> None:
        _, writer = await asyncio.open_connection(HOST, self._port)
        writer.write(given.stream)
        await asyncio.sleep(self._chance.choice((0, 0.001)))
        _reset(writer)

    async def _deaf(self, given: Input) -> None:
        """Asks for more than the kernel takes, and reads nothing of it."""
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, (HOST, self._port))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(loop.sock_sendall(sock, given.stream + b"\r\n" + LOUD), 0.2)
            await asyncio.sleep(0.05)
            if self._chance.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    if sock.fileno() >= 0:  # else the node has hung up, and our end is closed
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def at_rest(port: int) -> None:
    """Wait until the node has let go of all connections but ours, which it answers; then empty it."""
    async with connected(port) as client:
        async with asyncio.timeout(PATIENCE):
            while (await client.stats())["curr_connections"] != "1":
                await asyncio.sleep(0.01)
        assert await client.line(b"mn\r\n") == b"MN"
        assert await client.line(set_request(b"a", bytes(LARGE))) == b"STORED"
        assert await client.until_end(b"get a\r\n") == b"VALUE a 0 %d\r\n%b\r\nEND\r\n" % (LARGE, bytes(LARGE))
        assert await client.line(b"flush_all\r\n") == b"OK"


async def cost(port: int, pid: int) -> Cost:
    """What the process takes now."""
    async with connected(port) as client:
        lines = (await client.until_end(b"stats rocksdb\r\n")).decode().splitlines()[:-1]
        figures = dict(line.split(" ")[1:] for line in lines)
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    theirs = int(figures["size_all_mem_tables"]) + int(figures["block_cache_usage"])
    return Cost(
        memory=int(status["VmRSS"].split()[0]) * 1024 - theirs,
        sockets=sum(_target(file).startswith("socket:") for file in (process / "fd").iterdir()),
        threads=int(status["Threads"]),
    )


def _target(file: Path) -> str:
    try:
        return str(file.readlink())
    except FileNotFoundError:  # closed in the meantime
        return ""
