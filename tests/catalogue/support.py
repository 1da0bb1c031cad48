"""What the catalogue's tests share: plain SQL, as anybody would ask it, and requests."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
from yarl import URL

from tests.conftest import Client
from tests.servers import HOST

Row = dict[str, Any]


async def ask(url: str, statement: str) -> list[Row]:
    """What a statement of plain SQL finds, without any of sfss."""
    if url.startswith("sqlite:///"):
        return await asyncio.to_thread(_in_sqlite, url, statement)
    connection = await asyncpg.connect(url)
    try:
        return [dict(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


async def execute(url: str, *statements: str) -> None:
    """Change something behind sfss's back."""
    if url.startswith("sqlite:///"):
        await asyncio.to_thread(_in_sqlite, url, *statements)
        return
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _in_sqlite(url: str, *statements: str) -> list[Row]:
    """In a thread: a front in this loop may have to come to an end first."""
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=20)) as connection:
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for statement in statements for row in connection.execute(statement)]
        connection.commit()
        return rows


async def until(condition: Callable[[], Awaitable[object]], timeout: float = 30.0) -> None:
    """Come back when it holds."""
    async with asyncio.timeout(timeout):
        while not await condition():
            await asyncio.sleep(0.05)


def file_at(path: str) -> URL:
    return URL("/file").with_query(path=path)


async def put(front: Client, path: str, content: bytes, **headers: str) -> str:
    """Store a file; gives its SHA-256 in hex."""
    async with front.put(file_at(path), data=content, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return answer.headers["ETag"].strip('"')


async def status(front: Client) -> dict[str, str]:
    """What the front says of its catalogue."""
    async with front.get("/status?format=full") as answer:
        found: dict[str, str] = (await answer.json())["webserver"]["catalogue"]
        return found


async def is_in_order(front: Client) -> bool:
    """Whether the catalogue is here, and not behind."""
    found = await status(front)
    return (found["away"], found["behind"], found["owed"]) == ("", "", "0")


async def listed(front: Client, **query: str) -> list[str]:
    """The paths of a list, or of a search."""
    async with front.get(URL("/files").with_query(query)) as answer:
        assert answer.status == 200, await answer.text()
        page = await answer.json()
        return [*(file["path"] for file in page["files"]), *page.get("prefixes", ())]


class Road:
    """The way to a server, which can be cut."""

    def __init__(self) -> None:
        self.port = 0
        self.is_open = True
        self._writers: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        """Nobody comes through any more, and whoever was on the way is thrown off."""
        self.is_open = False
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, to: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes."""
        if not self.is_open:
            writer.transport.abort()
            return
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(HOST, to)
            self._writers += [writer, back]
            await asyncio.gather(_pass(reader, back), _pass(there, writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        while data := await reader.read(65536):
            writer.write(data)
    with contextlib.suppress(OSError, RuntimeError):
        writer.close()


@contextlib.asynccontextmanager
async def road_to(port: int) -> AsyncIterator[Road]:
    """The way to a port, from ``road.port``."""
    road = Road()
    server = await asyncio.start_server(lambda reader, writer: road.serve(port, reader, writer), HOST, 0)
    road.port = server.sockets[0].getsockname()[1]
    try:
        yield road
    finally:
        server.close()
        road.cut()
