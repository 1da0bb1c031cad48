"""A client that sends bytes as they are, and reads answers one by one: for what no HTTP library would send."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from tests.conftest import Client

PATIENCE = 20.0  # seconds for an answer, on a machine that is busy


class Answer(NamedTuple):
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Raw:
    """One connection to a front."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, front: Client) -> Raw:
        return cls(*await asyncio.open_connection(front.host, front.port))

    async def ask(self, data: bytes) -> Answer:
        """Send a request and read its answer."""
        self.writer.write(data)
        return await self.answer()

    async def answer(self, *, bodiless: bool = False) -> Answer:
        """The next answer; ``bodiless`` for that to a HEAD. Raises IncompleteReadError if the connection ends."""
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status_line, *lines = head.decode("utf-8", "surrogateescape").removesuffix("\r\n\r\n").split("\r\n")
            status = int(status_line.split(" ")[1])
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            size = 0 if bodiless or status in (204, 304) else int(headers.get("content-length", 0))
            return Answer(status, headers, await self.reader.readexactly(size))

    async def ended(self) -> bytes:
        """What comes until the front hangs up."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    def close(self) -> None:
        self.writer.close()


def request(method: str, url: str, *lines: str, body: bytes = b"") -> bytes:
    """A request of HTTP/1.1; a Content-Length is added where there is a body."""
    sized = [f"Content-Length: {len(body)}"] if body else []
    head = "\r\n".join([f"{method} {url} HTTP/1.1", "Host: front", *lines, *sized])
    return head.encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body
