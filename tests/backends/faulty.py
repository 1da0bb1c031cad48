"""A TCP server that does as a script says: for the faults that no real server can be made to show.

A script is a coroutine that has one connection, as a ``Peer``; when it returns, the connection is closed. ::

    async def hangs_up(peer: Peer) -> None:
        await peer.greet()
        await peer.request()
        peer.send(b"VALUE k 0 100\r\nhal")

    async with faulty(hangs_up) as server:
        ...
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from sfss.memcache import Request, RequestParser
from tests.servers import HOST

GREETING = (b"VERSION 1.0-sfss\r\n", b"STAT item_size_max 8388608\r\nEND\r\n")


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._parser = RequestParser(max_value=64 * 1024 * 1024)
        self._requests: deque[Request] = deque()

    async def request(self) -> Request:
        """The next request. The script ends where the client hangs up."""
        while not self._requests:
            data = await self.reader.read(2**16)
            if not data:
                raise ConnectionResetError
            for event in self._parser.feed(data):
                assert isinstance(event, Request), event
                self._requests.append(event)
        return self._requests.popleft()

    async def greet(self) -> None:
        """Answer what a MemcachedNode asks when it connects, as our own node does."""
        for answer in GREETING:
            await self.request()
            self.send(answer)

    def send(self, data: bytes) -> None:
        """Send, or leave it to the event loop."""
        self.writer.write(data)

    async def stay(self) -> None:
        """Neither read nor send, until the test is over."""
        await asyncio.Event().wait()

    async def drain(self) -> None:
        """Wait until nearly all that was to be sent is on its way."""
        await self.writer.drain()

    async def reset(self) -> None:
        """End the connection with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class Faulty:
    """A running server; its script may be changed for the connections to come."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.port = 0
        self.accepted: list[float] = []  # when, on the monotonic clock
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted.append(time.monotonic())
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await self.script(Peer(reader, writer))
        finally:
            self._tasks.discard(task)
            writer.close()

    async def end(self) -> None:
        """End all connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def faulty(script: Script, *, port: int = 0, receive_buffer: int | None = None) -> AsyncIterator[Faulty]:
    """A server that runs ``script`` for each connection; ``receive_buffer`` in bytes, else the kernel's own choice."""
    server = Faulty(script)
    sock = socket.create_server((HOST, port))
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    listener = await asyncio.start_server(server._serve, sock=sock)
    server.port = sock.getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()
        await server.end()
