"""A tus client for tests, which sends just what it is told to."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from tests.conftest import Client

VERSION = {"Tus-Resumable": "1.0.0"}
PIECE = {"Content-Type": "application/offset+octet-stream"}


def metadata(**pairs: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items())


class Tus:
    """Requests to one front."""

    def __init__(self, front: Client) -> None:
        self.front = front

    async def request(
        self, method: str, url: str | URL, headers: dict[str, Any] | None = None, body: Any = None
    ) -> aiohttp.ClientResponse:
        given = CIMultiDict({**VERSION, **(headers or {})})
        kept = {name: str(value) for name, value in given.items() if value is not None}
        answer = await self.front.request(method, url, headers=kept, data=body, skip_auto_headers=["Content-Type"])
        await answer.read()
        return answer

    async def post(
        self, path: str | None = None, length: int | None = None, body: Any = None, **headers: Any
    ) -> aiohttp.ClientResponse:
        """Create; the underscores of ``headers`` are dashes."""
        url = URL("/uploads") if path is None else URL("/uploads").with_query(path=path)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        piece = PIECE if body is not None else {}
        return await self.request("POST", url, {"Upload-Length": length, **piece, **given}, body)

    async def create(self, path: str | None = None, length: int | None = None, **headers: Any) -> str:
        """Create, and where it is."""
        answer = await self.post(path, length, **headers)
        assert answer.status == 201, await answer.text()
        return answer.headers["Location"]

    async def patch(self, upload: str, offset: int | str | None, body: Any, **headers: Any) -> aiohttp.ClientResponse:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.request("PATCH", upload, {"Upload-Offset": offset, **PIECE, **given}, body)

    async def head(self, upload: str) -> aiohttp.ClientResponse:
        return await self.request("HEAD", upload)

    async def delete(self, upload: str) -> aiohttp.ClientResponse:
        return await self.request("DELETE", upload)

    async def offset(self, upload: str) -> int:
        answer = await self.head(upload)
        assert answer.status == 200, answer.status
        return int(answer.headers["Upload-Offset"])

    async def upload(self, path: str, content: bytes, *, pieces: int = 1, **headers: Any) -> str:
        """All of it, in so many pieces."""
        upload = await self.create(path, len(content), **headers)
        await self.send(upload, content, pieces=pieces)
        return upload

    async def send(self, upload: str, content: bytes, *, pieces: int = 1, start: int = 0) -> None:
        step = max(-(-len(content) // pieces), 1)
        for offset in range(start, len(content), step):
            answer = await self.patch(upload, offset, content[offset : offset + step])
            assert answer.status == 204, await answer.text()
            assert answer.headers["Upload-Offset"] == str(min(offset + step, len(content)))

    async def read(self, path: str) -> bytes | None:
        """The file, its ETag checked by the caller; None if there is none."""
        async with self.front.get(URL("/file").with_query(path=path)) as answer:
            if answer.status == 404:
                return None
            assert answer.status == 200, await answer.text()
            return await answer.read()


@contextlib.asynccontextmanager
async def hanging(front: Client, upload: str, offset: int, size: int, sent: bytes) -> AsyncIterator[Any]:
    """A PATCH of ``size`` bytes of which only ``sent`` come; gives reader and writer of its connection."""
    reader, writer = await asyncio.open_connection(front.host, front.port)
    writer.write(
        f"PATCH {upload} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n"
        f"Content-Type: application/offset+octet-stream\r\nContent-Length: {size}\r\n\r\n".encode()
        + sent
    )
    await writer.drain()
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
