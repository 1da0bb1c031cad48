"""Files as JSON (``[json]``): ``POST /files`` of ``{"client_id", "name", "data"}``, ``GET /files?client_id=&name=``.

A client's file is a file like any other, at ``PREFIX CLIENT_ID / NAME``. What comes is in memory whole, for its data
may stand before its name; so there is a largest one, and few are taken at a time. What goes is made as it is read.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Annotated
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from sfss.access.keys import READ, WRITE
from sfss.access.rules import Wanted
from sfss.config import Json, Limits
from sfss.errors import BadBody, BadRequest, BodyTimeout, Damaged, Gone, StorageFailed, TooLarge, Unavailable
from sfss.files import File, Files
from sfss.web import answers
from sfss.web.access import Choice, Guard, Need, Needs, Within
from sfss.web.bodies import Upload, receive
from sfss.web.files import REPLACED
from sfss.web.sending import send
from sfss.web.urls import has_path

JSON = "application/json"
_BEFORE, _BETWEEN, _END = b'{"name":', b',"data":"', b'"}'  # of an answer, but for its name and data
_ASIDE = 64 * 1024  # bytes of a body beside its data; one that has no more at all is taken at once
_PIECE = 768 * 1024  # bytes that are handed on at a time; threes of them are fours of base64
# What would end a segment of a path, or can't stand in one; '%' so that no two names are one.
_ESCAPED = re.compile(r"[%/\\\x00-\x1f\x7f-\x9f]")


class PostedFile(msgspec.Struct, forbid_unknown_fields=True):
    client_id: Annotated[str, msgspec.Meta(min_length=1)]
    name: Annotated[str, msgspec.Meta(min_length=1)]
    data: bytes  # base64 in JSON


class JsonHandlers:
    """The handlers, over one file service."""

    def __init__(self, files: Files, guard: Guard, face: Json, limits: Limits) -> None:
        self._files = files
        self._guard = guard
        self._face = face
        self._body_timeout = limits.body_timeout
        # A body, what is decoded of it, and its record are in memory at once.
        self._turns = asyncio.Semaphore(max(limits.transfer_memory // (4 * face.max_file_size), 1))

    def post_or(self, otherwise: Handler) -> Handler:
        """``post`` for what is meant for it."""
        return _either(is_posted, self.post, otherwise) if self._face.prefix else otherwise

    def get_or(self, otherwise: Handler) -> Handler:
        """``get`` for what is meant for it."""
        return _either(is_asked, self.get, otherwise) if self._face.prefix else otherwise

    async def post(self, request: web.Request) -> web.StreamResponse:
        """POST: 200, whether the file is new or not."""
        self._guard.check_somewhere(request, WRITE)  # before anything is held for him
        upload = receive(request, check_size=self._check_size, timeout=self._body_timeout)
        is_small = request.content_length is not None and request.content_length <= _ASIDE
        async with contextlib.nullcontext() if is_small else self._turns:
            posted = _decoded(await self._collected(upload))
            if len(posted.data) > self._face.max_file_size:
                raise self._too_large()
            path = path_of(self._face.prefix, posted.client_id, posted.name)
            self._guard.check(request, Wanted(WRITE, path))
            with _failing_as_told():
                info = await self._files.put(path, _pieces(posted.data), size=len(posted.data))
        return web.Response(headers={"ETag": answers.etag(info)})

    async def get(self, request: web.Request) -> web.StreamResponse:
        """GET: ``{"name", "data"}``."""
        client_id, name = _asked(request)
        path = path_of(self._face.prefix, client_id, name)
        with _failing_as_told():
            for _ in range(REPLACED):
                try:
                    return await self._get(request, path, name)
                except Gone:  # it was replaced between two looks
                    continue
            return await self._get(request, path, name)

    async def _get(self, request: web.Request, path: str, name: str) -> web.StreamResponse:
        file = await self._files.open(path)
        before = _BEFORE + msgspec.json.encode(name) + _BETWEEN
        size = len(before) + 4 * -(-file.info.size // 3) + len(_END)
        headers = {"Content-Type": JSON, "Content-Length": str(size), "X-Content-Type-Options": "nosniff"}
        return await send(
            request, web.StreamResponse(headers=headers), _encoded(before, self._content(file)), self._body_timeout
        )

    async def _content(self, file: File) -> AsyncGenerator[memoryview, None]:
        if file.content is not None:
            yield file.content
            return
        async with contextlib.aclosing(self._files.read(file, 0, file.info.size)) as content:
            async for block in content:
                yield block

    async def _collected(self, upload: Upload) -> bytearray:
        """The body, which has to come whole in the time that others have for a piece."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout):
                async for chunk in upload.content:
                    body += chunk
                    self._check_size(len(body))
        except TimeoutError:
            raise BodyTimeout(
                f"the body didn't come within {self._body_timeout:g} s (limits.body_timeout): send it again, or larger"
                " files by PUT /file"
            ) from None
        return body

    def _check_size(self, size: int) -> None:
        if size > 4 * -(-self._face.max_file_size // 3) + _ASIDE:
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"as JSON a file may have {self._face.max_file_size} bytes: raise json.max_file_size, or send it by"
            " PUT /file",
            limit=self._face.max_file_size,
            setting="json.max_file_size",
        )


def needs(face: Json, others: Needs) -> Needs:
    """What whoever asks has to be allowed, by what he asks for; ``others`` says it of what isn't JSON."""
    if not face.prefix:
        return {}
    asked = Need(READ, lambda request: path_of(face.prefix, *_asked(request)))
    return {
        ("POST", "/files"): Choice(is_posted, Within(), others["POST", "/files"]),  # its path is in its body
        ("GET", "/files"): Choice(is_asked, asked, others["GET", "/files"]),
    }


def path_of(prefix: str, client_id: str, name: str) -> str:
    """Where a client's file lies: what can't stand in a segment of a path is percent-encoded there."""
    return f"{prefix}{_segment(client_id)}/{_segment(name)}"


def is_posted(request: web.Request) -> bool:
    """Whether a POST /files brings a file as JSON."""
    return request.content_type == JSON and not has_path(request.rel_url.raw_query_string)


def is_asked(request: web.Request) -> bool:
    """Whether a GET /files asks for one."""
    return not _given(request).keys().isdisjoint(("client_id", "name"))


def _either(is_it: Callable[[web.Request], bool], handler: Handler, otherwise: Handler) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await (handler if is_it(request) else otherwise)(request)

    return handle


def _given(request: web.Request) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True, errors="surrogateescape"):
        found.setdefault(key, []).append(value)
    return found


def _asked(request: web.Request) -> tuple[str, str]:
    """The client's id and the file's name. Raises BadRequest."""
    given = _given(request)
    for key in ("client_id", "name"):
        if len(given.get(key, ())) != 1 or not given[key][0]:
            raise BadRequest(f"{key}: it has to be in the query, once, and can't be empty: ?client_id=...&name=...")
    return given["client_id"][0], given["name"][0]


def _decoded(body: bytearray) -> PostedFile:
    try:
        return msgspec.json.decode(body, type=PostedFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadBody(
            f'the body is not {{"client_id": "...", "name": "...", "data": "... in base64"}}: {error}'
        ) from None


def _segment(text: str) -> str:
    if text in (".", ".."):
        return text.replace(".", "%2E")
    return _ESCAPED.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), text)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    if len(data) <= _PIECE:
        yield data
        return
    for start in range(0, len(data), _PIECE):
        yield data[start : start + _PIECE]


async def _encoded(before: bytes, content: AsyncGenerator[memoryview, None]) -> AsyncGenerator[memoryview, None]:
    """The answer, in pieces; the first one only when some of the content is here, or there is none."""
    rest = b""  # of the content, one byte or two, which make no whole four of base64
    async with contextlib.aclosing(content):
        async for block in content:
            for start in range(0, len(block), _PIECE):
                piece = rest + bytes(block[start : start + _PIECE])
                whole = len(piece) - len(piece) % 3
                yield memoryview(before + base64.b64encode(piece[:whole]))
                before, rest = b"", piece[whole:]
    yield memoryview(before + base64.b64encode(rest) + _END)


@contextlib.contextmanager
def _failing_as_told() -> Iterator[None]:
    """When nodes fail the answer is 500, as this face has always had it; what it was is in the words."""
    try:
        yield
    except (Unavailable, Damaged) as error:
        raise StorageFailed(str(error)) from error
