"""The road between client and front: a proxy for TCP, as slow as a test wants it, that leads where the test says."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

from tests.servers import HOST

_PIECE = 64 * 1024
_OFFSET = re.compile(rb"\r\nUpload-Offset: *(\d+)\r\n", re.IGNORECASE)
_UPLOAD = re.compile(rb"PATCH /uploads/(u[0-9a-f]+) ")


class SlowRoad:
    """``rate``: bytes a second that get through to the server, of all connections together."""

    def __init__(self, port: int, rate: float) -> None:
        self.leads_to = port
        self.rate = rate
        self.passed = 0  # bytes, to the server
        self.offsets: list[int] = []  # at which PATCH requests went on
        self.uploads: list[str] = []  # whose they were
        self.port = 0
        self._free_at = 0.0
        self._server: asyncio.Server | None = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(HOST, self.leads_to)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._to_server(reader, back))
                    group.create_task(self._to_client(there, writer))
            except* OSError:
                pass
            finally:
                back.transport.abort()
        writer.transport.abort()

    async def _to_server(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_PIECE):
            self.offsets += [int(offset) for offset in _OFFSET.findall(data[:4096])]
            self.uploads += [upload.decode() for upload in _UPLOAD.findall(data[:4096])]
            self.passed += len(data)
            writer.write(data)
            await writer.drain()
            now = asyncio.get_running_loop().time()
            self._free_at = max(self._free_at, now) + len(data) / self.rate
            await asyncio.sleep(self._free_at - now)
        raise ConnectionResetError  # so that the other direction ends, too

    async def _to_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


@contextlib.asynccontextmanager
async def slow_road(port: int, rate: float) -> AsyncIterator[SlowRoad]:
    """The way to a port, from ``road.port``."""
    road = SlowRoad(port, rate)
    server = await asyncio.start_server(road._serve, HOST, 0)
    road.port = server.sockets[0].getsockname()[1]
    try:
        yield road
    finally:
        server.close()
