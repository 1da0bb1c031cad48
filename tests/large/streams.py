"""Files of any size that are made and checked as they pass, up and down over HTTP; of a service in other processes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
from yarl import URL

from tests.large.support import MIB
from tests.servers import Service

_PAGE = hashlib.shake_256(b"large files").digest(MIB)
_PLACE = struct.Struct(">16sQ")


class Content:
    """``size`` bytes, of which every MiB tells whose it is and which one."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self._mark = hashlib.md5(name.encode()).digest()

    def piece(self, number: int) -> bytes:
        """The MiB of that number, the last one shorter."""
        page = _PLACE.pack(self._mark, number) + _PAGE[_PLACE.size :]
        return page[: self.size - number * MIB]

    @property
    def pieces(self) -> int:
        return -(-self.size // MIB)

    async def stream(self) -> AsyncIterator[bytes]:
        for number in range(self.pieces):
            yield self.piece(number)

    @functools.cached_property
    def etag(self) -> str:
        digest = hashlib.sha256()
        for number in range(self.pieces):
            digest.update(self.piece(number))
        return f'"{digest.hexdigest()}"'


class _Another(AssertionError):
    """A file is there, but another one."""


class Client:
    """Uploads and downloads at one front."""

    def __init__(self, service: Service, session: aiohttp.ClientSession) -> None:
        self._service = service
        self._session = session

    def url(self, path: str) -> URL:
        return URL(f"{self._service.url}/file").with_query(path=path)

    async def etag(self, path: str) -> str:
        async with self._session.head(self.url(path)) as answer:
            return answer.headers["ETag"]

    async def put(self, path: str, content: Content, *, known: bool = True) -> None:
        headers = {"Content-Length": str(content.size)} if known else {}
        async with self._session.put(self.url(path), data=content.stream(), headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["ETag"] == content.etag

    async def comes(self, path: str, content: Content, *, before: Content) -> None:
        """Read it until it is ``content``; until then it is the one before. Either is whole, each time."""
        async with asyncio.timeout(30):
            while True:
                now = content if await self.etag(path) == content.etag else before
                with contextlib.suppress(_Another):
                    assert await self.get(path, now)
                    if now is content:
                        return
                await asyncio.sleep(0.1)

    async def get(
        self, path: str, content: Content, *, at: int = -1, then: Callable[[], Awaitable[None]] | None = None
    ) -> bool:
        """Whether all of it came; False if the connection was cut. Something else than the content fails.

        When ``at`` bytes have come, ``then`` is called.
        """
        async with self._session.get(self.url(path)) as answer:
            assert answer.status == 200, await answer.text()
            if answer.headers["ETag"] != content.etag:
                raise _Another(f"{path} is not {content.name}")
            got, expected = 0, bytearray()
            try:
                async for chunk in answer.content.iter_any():
                    while len(expected) < len(chunk):
                        expected += content.piece((got + len(expected)) // MIB)
                    assert chunk == expected[: len(chunk)], (
                        f"another byte than the file's within {len(chunk)} from {got} on"
                    )
                    del expected[: len(chunk)]
                    got += len(chunk)
                    if then is not None and got >= at:
                        await then()
                        then = None
            except aiohttp.ClientPayloadError:
                assert got < content.size
                return False
            assert got == content.size
            return True


def peak_memory(pid: int) -> int:
    """Bytes that a process had resident at most, since it began or ``forget_peak``."""
    return _status(pid, "VmHWM")


def memory(pid: int) -> int:
    """Bytes that it has resident."""
    return _status(pid, "VmRSS")


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)
