"""One file on its way down: pieces into a part beside the target, or to a stream; on after a break; then checked."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from sfss.client import resume
from sfss.client.api import Client, sha256_of
from sfss.client.failures import Broken, Different, Failure, Refused
from sfss.client.local import target_of
from sfss.client.progress import Progress
from sfss.client.retry import RETRIES, Patience

if TYPE_CHECKING:
    from hashlib import _Hash

_UNSATISFIABLE = 416  # the service: there is nothing behind what we have


class Receipt(NamedTuple):
    """What went by on the wire, as this side counted it, and what the service calls it."""

    size: int  # bytes
    sha256: str  # hex
    etag: str  # as it stood in the answer; "" where it had none

    @property
    def is_true(self) -> bool:
        """Whether the ETag is the strong, quoted SHA-256 of the bytes that went by."""
        return self.etag == f'"{self.sha256}"'

    def check(self, path: str) -> None:
        """Raises Different unless it is true."""
        if not self.is_true:
            raise Different(
                f"NOT the same: {path}: the server's ETag is {self.etag or 'missing'}, "
                f"but the SHA-256 of the {self.size:,} bytes here is {self.sha256}"
            )


class Sink(Protocol):
    """Where a file goes. ``size``: bytes that it has, of the file whose ETag is ``etag`` ("": it can't go on later)."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def etag(self) -> str:
        """64 hex digits, or ""."""

    @property
    def digest(self) -> _Hash:
        """The SHA-256 of what it has."""

    def begin(self, etag: str) -> None:
        """All of it comes now, from the beginning; what was there is of no use."""

    def write(self, piece: bytes) -> None:
        """The next bytes; it may block."""


async def receive(
    client: Client, path: str, sink: Sink, progress: Progress, *, retries: int = RETRIES, announce: bool = True
) -> Receipt:
    """Fetch a file, or what ``sink`` lacks of it. With ``announce`` the progress learns the size from the service.

    Raises Failure, and whatever the sink raises. The pieces have been written before they are vouched for.
    """
    patience = Patience(retries, path)
    progress.skip(sink.size)
    while True:
        try:
            async with client.get(path, sink.size, f'"{sink.etag}"') as content:
                if content.start == 0:
                    progress.skip(-sink.size)
                    sink.begin(content.etag)
                elif sha256_of(content.etag) != sink.etag:
                    raise Different(f"{path}: the rest that came is that of another file")
                if announce:
                    progress.expect(content.start + (content.size or 0))
                    announce = False
                async for piece in content.pieces:
                    await asyncio.to_thread(sink.write, piece)
                    patience.moved()
                    progress.advance(len(piece))
            return Receipt(sink.size, sink.digest.hexdigest(), content.etag)
        except Failure as failure:
            if isinstance(failure, Refused) and failure.status == _UNSATISFIABLE and sink.size:
                if sink.digest.hexdigest() == sink.etag:  # a process before had all of it
                    return Receipt(sink.size, sink.etag, f'"{sink.etag}"')
                progress.skip(-sink.size)
                sink.begin("")
            elif sink.size and not sink.etag:
                raise
            else:
                await patience.wait(failure)


async def get_file(
    client: Client,
    path: str,
    name: str | Path,
    progress: Progress,
    *,
    retries: int = RETRIES,
    announce: bool = True,
) -> Receipt:
    """Fetch a file to a local name, where it appears whole and checked, or not at all; on from where a break left it.

    Raises Failure and OSError; then what stood there stands there still. After a break what came is kept beside it.
    """
    target = target_of(name)
    sink = _PartSink(target)
    try:
        await asyncio.to_thread(sink.resume)
        resumed = sink.size > 0
        receipt = await receive(client, path, sink, progress, retries=retries, announce=announce)
        if resumed and not receipt.is_true:  # what was left may be spoilt, by a power cut
            progress.skip(-sink.size)
            sink.begin("")
            receipt = await receive(client, path, sink, progress, retries=retries, announce=False)
        receipt.check(path)
        await asyncio.to_thread(sink.finish)
    except Failure as failure:
        sink.end(keep=isinstance(failure, Broken) or failure.passing)
        raise
    except BaseException:
        sink.end(keep=False)
        raise
    return receipt


async def get_stream(
    client: Client, path: str, output: BinaryIO, progress: Progress, *, retries: int = RETRIES
) -> Receipt:
    """Fetch a file to a stream. Raises Failure, OSError; the bytes have been written before it is known."""
    receipt = await receive(client, path, _StreamSink(output), progress, retries=retries)
    receipt.check(path)
    return receipt


class _PartSink:
    """A part beside ``target``; none yet before the first byte."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._part: resume.Part | None = None

    @property
    def size(self) -> int:
        return self._part.size if self._part else 0

    @property
    def etag(self) -> str:
        return self._part.etag if self._part else ""

    @property
    def digest(self) -> _Hash:
        return self._part.digest if self._part else hashlib.sha256()

    def resume(self) -> None:
        """Take over what another process has left."""
        self._part = resume.find_part(self._target)
        if self._part:
            self._part.read()

    def begin(self, etag: str) -> None:
        self.end(keep=False)
        self._part = resume.new_part(self._target, sha256_of(etag) or "")

    def write(self, piece: bytes) -> None:
        assert self._part is not None
        self._part.write(piece)

    def finish(self) -> None:
        """The part becomes the target."""
        assert self._part is not None
        self._part.finish(self._target)

    def end(self, *, keep: bool) -> None:
        """It won't become the target now."""
        if self._part:
            (self._part.leave if keep else self._part.discard)()
            self._part = None


class _StreamSink:
    """A stream: what was written can't be taken back."""

    def __init__(self, output: BinaryIO) -> None:
        self.size, self.etag, self.digest = 0, "", hashlib.sha256()
        self._output = output

    def begin(self, etag: str) -> None:
        if self.size:
            raise Different("the file was replaced while it was being fetched: fetch it again")
        self.etag = sha256_of(etag) or ""

    def write(self, piece: bytes) -> None:
        self._output.write(piece)
        self.digest.update(piece)
        self.size += len(piece)
