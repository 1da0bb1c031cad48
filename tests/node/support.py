"""What the node's tests share: a node in the test's own loop, one in a process of its own, and ways to talk to them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sfss.node.server import NodeSettings, Server
from tests.servers import HOST

T = TypeVar("T")

PATIENCE = 20.0  # seconds before a test gives up waiting

# A memcached whose background threads hold on to no item: while they do, incr makes a new item of one that it would
# else have changed in place, with blanks behind a number that has become shorter.
STEADY = ("-o", "no_lru_maintainer,no_lru_crawler")

CHILD = """
import logging, sys
from pathlib import Path
from sfss.node.server import NodeSettings, run
logging.basicConfig(level=logging.INFO, format="%(message)s")
settings = NodeSettings(Path(sys.argv[1]), port=0, durability=sys.argv[2], stop_with_parent=True)
run(settings)
"""


@contextlib.asynccontextmanager
async def running(data: Path, **settings: Any) -> AsyncIterator[Server]:
    """A node on any free port, unless one is named, stopped in good order."""
    server = Server(NodeSettings(data, **{"port": 0, **settings}))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextlib.contextmanager
def child(data: Path, durability: str = "fsync") -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A node in a process of its own: its port and the process, which is killed at the end if it is still there."""
    command = [sys.executable, "-c", CHILD, str(data), durability]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = ""  # before the one that is waited for there may be one on a torn log
            while not (found := re.search(r"^sfss node \S+: 127\.0\.0\.1:(\d+), data in", lines, re.MULTILINE)):
                line = process.stderr.readline()
                assert line, lines
                lines += line
            yield int(found[1]), process
        finally:
            process.kill()


async def talk(port: int, *pieces: bytes) -> bytes:
    """All that the server answers to these bytes, sent piece by piece, until it hangs up."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), PATIENCE)
    finally:
        writer.close()


class Client:
    """A connection on which a test asks one thing at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def line(self, request: bytes) -> bytes:
        """The one line that answers."""
        self.writer.write(request)
        return (await asyncio.wait_for(self.reader.readline(), PATIENCE)).removesuffix(b"\r\n")

    async def until_end(self, request: bytes) -> bytes:
        """All that is answered, to the END."""
        self.writer.write(request)
        return await asyncio.wait_for(self.reader.readuntil(b"END\r\n"), PATIENCE)

    async def stats(self) -> dict[str, str]:
        lines = (await self.until_end(b"stats\r\n")).decode().splitlines()[:-1]
        return {name: figure for _, name, figure in (line.split(" ", 2) for line in lines)}


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(HOST, port, limit=2**26)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


def set_request(key: bytes, data: bytes, words: bytes = b"0 0", tail: bytes = b"") -> bytes:
    return b"set %b %b %d%b\r\n%b\r\n" % (key, words, len(data), tail, data)


def there(thing: T | None) -> T:
    """What must not be missing."""
    assert thing is not None
    return thing


def crash_image(data: Path, image: Path) -> Path:
    """The data directory as a kill -9 at this moment would leave it."""
    image.mkdir()
    for file in data.iterdir():
        with contextlib.suppress(FileNotFoundError):  # RocksDB deletes what it no longer needs in the background
            if file.name != "LOCK" and file.is_file():
                shutil.copy(file, image)
    return image


class Clock:
    """Time that a test sets."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Tampered:
    """RocksDB with some of its methods replaced."""

    def __init__(self, db: Any, **methods: Any) -> None:
        self._db = db
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._db, name)
