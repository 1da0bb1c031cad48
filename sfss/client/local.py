"""Local files: those to be sent, in the state that they had when they were opened; and where fetched ones may go."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import select
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from sfss.client.api import PIECE
from sfss.client.failures import Failure


class LocalFile:
    """A regular file that is to be sent: ``size`` bytes, in the state of ``modified`` (nanoseconds)."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        state = os.fstat(file.fileno())
        self.name, self.real_name = name, os.path.realpath(name)
        self.size, self.modified = state.st_size, state.st_mtime_ns
        self._file = file
        self._digest = hashlib.sha256()
        self._hashed = 0  # bytes from the beginning that the digest knows

    async def read(self) -> bytes:
        """All of it. Raises Failure if it isn't what it was, or can't be read."""
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self, start: int = 0, moved: Callable[[int], None] = lambda _: None) -> AsyncIterator[bytes]:
        """Its bytes from ``start`` on; what is before is read too, for the digest.

        Exactly ``size`` bytes were announced, so a file that grows does no harm. Raises Failure if it can't be read, or
        became shorter or another: before the last piece, so that no mixture of two states is ever whole. ``moved`` is
        told of each piece that has been taken.
        """
        await asyncio.to_thread(self._go_to, start)
        while self._hashed < self.size:
            piece = await asyncio.to_thread(self._next, self.size)
            yield piece
            moved(len(piece))

    async def sha256(self) -> str:
        """Its SHA-256 in hex; reads what wasn't read yet."""
        await asyncio.to_thread(self._go_to, self.size)
        return self._digest.hexdigest()

    def _go_to(self, offset: int) -> None:
        if self._hashed > offset:
            self._digest, self._hashed = hashlib.sha256(), 0
        with self._plain_words():
            self._file.seek(self._hashed)
        while self._hashed < offset:
            self._next(offset)

    def _next(self, end: int) -> bytes:
        """The next piece, of those before ``end``."""
        with self._plain_words():
            piece = self._file.read(min(PIECE, end - self._hashed))
            state = os.fstat(self._file.fileno())
        if not piece:
            raise Failure(f"{self.name} became shorter while it was being sent: send it again")
        self._digest.update(piece)
        self._hashed += len(piece)
        if self._hashed == self.size == state.st_size and state.st_mtime_ns != self.modified:
            raise Failure(f"{self.name} was changed while it was being sent: send it again")
        return piece

    @contextlib.contextmanager
    def _plain_words(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Failure(f"{self.name}: {error.strerror}") from error


@contextlib.contextmanager
def open_local(name: str | Path) -> Iterator[LocalFile]:
    """A regular file, open for reading; raises Failure for anything else, OSError if it can't be opened."""
    mode = Path(name).stat().st_mode  # asked first: opening a pipe would wait for its other end
    if stat.S_ISDIR(mode):
        raise Failure(f"{name} is a directory: name a file, or send what is in it with -r")
    if not stat.S_ISREG(mode):
        raise Failure(f"{name} is not a regular file")
    with Path(name).open("rb", buffering=0) as file:
        yield LocalFile(str(name), file)


async def read_stream(stream: BinaryIO, size: int) -> bytes:
    """So many bytes of a stream, or all that there are. Raises Failure if it can't be read.

    By a thread that nobody waits for: should the stream never end, and nothing come, Ctrl-C ends the waiting.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def read() -> None:
        try:
            data = _read_fully(stream, size)
        except OSError as error:
            failure = Failure(f"standard input: {error.strerror}")
            tell(lambda: done.set_exception(failure))
        else:
            tell(lambda: done.set_result(data))

    def tell(settle: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(lambda: None if done.done() else settle())

    threading.Thread(target=read, daemon=True).start()
    return await done


def _read_fully(stream: BinaryIO, size: int) -> bytes:
    pieces, left = [], size
    while left:
        piece: bytes | None = stream.read(left)
        if piece is None:  # somebody made it non-blocking: that nothing is there now isn't its end
            select.select([stream], [], [])
            continue
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def target_of(name: str | Path) -> Path:
    """Where a file that is to be fetched goes: through links, so that they stay and what they name is replaced.

    Raises Failure if something else than a file stands there, or there is no such folder.
    """
    target = Path(os.path.realpath(name))
    if target.exists() and not target.is_file():
        raise Failure(f"{target} is not a regular file: nothing may take its place")
    if not target.parent.is_dir():
        raise Failure(f"{target.parent} is no directory: make it first")
    return target
