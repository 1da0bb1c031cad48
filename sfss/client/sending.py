"""One file on its way up: small ones in one go, large ones as uploads that go on after a break; then checked."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from sfss.client import uploads
from sfss.client.api import PIECE, URL, Client
from sfss.client.failures import Broken, Failure
from sfss.client.local import LocalFile, open_local, read_stream
from sfss.client.progress import Meter, Progress
from sfss.client.receiving import Receipt
from sfss.client.resume import Note, Source, note_of
from sfss.client.retry import RETRIES, Patience

SMALL = 4 * 1024 * 1024  # bytes; up to this a file is held in memory, and sent again from its beginning after a break
_FAREWELL = 5.0  # seconds that the removal of an upload may take when it is broken off
_FAREWELL_PAUSE = 0.2  # of these, between two attempts


async def put_file(
    client: Client,
    name: str | Path,
    path: str,
    progress: Progress,
    *,
    type: str = "",
    retries: int = RETRIES,
    create: bool = False,
) -> Receipt:
    """Store a local file at ``path`` (by POST, if it is to ``create``); its receipt has been checked.

    Raises Failure, or OSError if it can't be opened; then what was at ``path`` is there still, unless the answer to the
    last byte is what got lost.
    """
    patience = Patience(retries, path)
    with open_local(name) as file:
        if file.size <= SMALL:
            data = await file.read()
            return await _send_whole(client, data, path, patience, progress, type, create=create)
        if not create:
            with contextlib.suppress(uploads.NoUploads):
                return await _send_resumably(client, file, path, patience, progress, type)
        return await _send_in_one_go(client, file, path, patience, progress, type, create=create)


async def put_stream(
    client: Client, stream: BinaryIO, path: str, progress: Progress, *, type: str = "", retries: int = RETRIES
) -> Receipt:
    """Store what comes by a stream; beyond SMALL bytes a break ends it, for what was sent can't be read again.

    Raises as put_file.
    """
    start = await read_stream(stream, SMALL + 1)
    if len(start) <= SMALL:
        return await _send_whole(client, start, path, Patience(retries, path), progress, type)
    digest, size = hashlib.sha256(), 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal size
        piece = start
        while piece:
            await asyncio.to_thread(digest.update, piece)
            size += len(piece)
            yield piece
            progress.advance(len(piece))
            piece = await read_stream(stream, PIECE)

    etag = await client.put(path, pieces(), None, type=type)
    return _checked(path, Receipt(size, digest.hexdigest(), etag))


async def forget_upload(client: Client, name: str | Path, path: str) -> None:
    """End an upload of this file that another process may have left: it isn't needed any more."""
    with open_local(name) as file, note_of(_source(client, file, path)) as note:
        await _Upload(client, file, path, "", note).remove()


async def _send_whole(
    client: Client, data: bytes, path: str, patience: Patience, progress: Progress, type: str, *, create: bool = False
) -> Receipt:
    """From memory, with its digest, so that the service takes it unharmed or not at all."""
    digest = hashlib.sha256(data)
    while True:
        try:
            etag = await client.put(path, data, len(data), type=type, digest=digest.digest(), create=create)
            break
        except Failure as failure:
            await patience.wait(failure)
    progress.advance(len(data))
    return _checked(path, Receipt(len(data), digest.hexdigest(), etag), unless=create)


async def _send_in_one_go(
    client: Client, file: LocalFile, path: str, patience: Patience, progress: Progress, type: str, *, create: bool
) -> Receipt:
    """As it is read, to a service without uploads; after a break from the beginning."""
    meter = Meter(progress)
    while True:
        try:
            etag = await client.put(path, file.pieces(moved=meter.advance), file.size, type=type, create=create)
            return _checked(path, Receipt(file.size, await file.sha256(), etag), unless=create)
        except Failure as failure:
            meter.at(0)
            await patience.wait(failure)


async def _send_resumably(
    client: Client, file: LocalFile, path: str, patience: Patience, progress: Progress, type: str
) -> Receipt:
    """As an upload, which another process goes on with if this one is killed; Ctrl-C removes it."""
    with note_of(_source(client, file, path)) as note:
        upload = _Upload(client, file, path, type, note)
        try:
            return await upload.send(patience, Meter(progress))
        except Failure as failure:
            if not isinstance(failure, Broken) and not failure.passing:
                await upload.remove()
            raise
        except BaseException:
            await upload.remove()
            raise


class _Upload:
    """An upload of a file: a new one, or that which the note tells of."""

    def __init__(self, client: Client, file: LocalFile, path: str, type: str, note: Note) -> None:
        self._client, self._file, self._path, self._type, self._note = client, file, path, type, note
        self._sent = self._whole = False

    async def send(self, patience: Patience, meter: Meter) -> Receipt:
        """Send what the service lacks, as often as it takes. Raises Failure, NoUploads."""
        if self._note.stale:
            await self._remove(self._note.stale)
        size, furthest = self._file.size, 0
        while True:
            try:
                url, kept = await self._begin_or_ask()
                if kept.offset > furthest:
                    furthest = kept.offset
                    patience.moved()
                meter.at(kept.offset)
                if kept.offset < size:
                    self._sent = True
                    pieces = self._file.pieces(kept.offset, meter.advance)
                    kept = await uploads.append(self._client, url, kept.offset, pieces, size - kept.offset)
                if kept.offset == size and (receipt := await self._receipt(kept.etag)):
                    return receipt
            except uploads.Gone:
                self._note.forget()
            except Failure as failure:
                await patience.wait(failure)

    async def remove(self) -> None:
        """Take it off the service, unless it has become a file. If the service is away the note stays."""
        if not self._note.url or self._whole or await self._remove(self._note.url):
            self._note.forget()

    async def _begin_or_ask(self) -> tuple[URL, uploads.Kept]:
        if self._note.url:
            url = self._client.own(self._note.url, self._client.service)
            return url, await uploads.offset(self._client, url, self._file.size)
        url = await uploads.create(self._client, self._path, self._file.size, self._type)
        self._note.remember(str(url))
        return url, uploads.Kept(0)

    async def _receipt(self, etag: str) -> Receipt | None:
        """Of a whole upload. None if another process ended it, and the file is another since: it has to begin anew."""
        self._whole = True
        etag = etag or (await self._client.stat(self._path)).etag
        receipt = Receipt(self._file.size, await self._file.sha256(), etag)
        if self._sent:
            receipt.check(self._path)
        self._note.forget()
        if receipt.is_true:
            return receipt
        self._whole = False
        return None

    async def _remove(self, url: str) -> bool:
        """Whether it is gone; if it isn't, it will expire."""
        place = self._client.own(url, self._client.service)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                while True:
                    try:
                        await uploads.remove(self._client, place)
                        return True
                    except Failure as failure:
                        if not failure.passing:
                            return not isinstance(failure, Broken)
                    await asyncio.sleep(_FAREWELL_PAUSE)  # the request that we have broken off may still hold it
        return False


def _source(client: Client, file: LocalFile, path: str) -> Source:
    return Source(str(client.service), path, file.real_name, file.size, file.modified)


def _checked(path: str, receipt: Receipt, *, unless: bool = False) -> Receipt:
    if not unless:
        receipt.check(path)
    return receipt
