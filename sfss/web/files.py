"""``/file`` and ``/files``: each handler parses, calls the file service, responds."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping

from aiohttp import web
from multidict import MultiMapping

from sfss.errors import BadRequest, Gone, PreconditionFailed
from sfss.files import Condition, File, Files, Info
from sfss.web import answers
from sfss.web.bodies import Upload, receive
from sfss.web.conditional import PRECONDITIONS, Outcome, evaluate
from sfss.web.headers import combined
from sfss.web.sending import send
from sfss.web.urls import location, path_of

META_PREFIX = "x-meta-"  # a header X-Meta-NAME: VALUE is kept with the file, and comes back with it
MAX_META = 4096  # bytes of all names and values
REPLACED = 3  # times that a file may be replaced just while its first block is looked for
META_NAME = re.compile(r"[a-z0-9_-]{1,64}")


class FileHandlers:
    """The handlers, over one file service. ``body_timeout`` in seconds."""

    def __init__(self, files: Files, *, body_timeout: float) -> None:
        self._files = files
        self._body_timeout = body_timeout

    async def get(self, request: web.Request) -> web.StreamResponse:
        """GET: the file, a range of it, or 304."""
        for _ in range(REPLACED):
            try:
                return await self._get(request)
            except Gone:  # it was replaced between two looks
                continue
        return await self._get(request)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        return await self.get_file(request, path_of(request))

    async def get_file(
        self, request: web.Request, path: str, more: Callable[[Info], Mapping[str, str]] = lambda _: {}
    ) -> web.StreamResponse:
        """GET of the file at a path; with ``more`` headers where it is sent. Raises Gone if it was replaced."""
        file = _opened_already(request, path) or await self._files.open(path)
        status, headers, start, stop = answers.to_get(file.info, answers.asked(request.headers))
        if status == 304:
            return web.Response(status=status, headers=headers)
        headers.update(more(file.info))
        if file.content is not None:
            return web.Response(status=status, body=bytes(file.content[start:stop]), headers=headers)
        headers["Content-Length"] = str(stop - start)
        content = self._files.read(file, start, stop)
        return await send(request, web.StreamResponse(status=status, headers=headers), content, self._body_timeout)

    async def head(self, request: web.Request) -> web.Response:
        """HEAD: what GET would say of the file, which isn't read where that can be."""
        return await self.head_file(request, path_of(request))

    async def head_file(
        self, request: web.Request, path: str, more: Callable[[Info], Mapping[str, str]] = lambda _: {}
    ) -> web.Response:
        """HEAD of the file at a path; with ``more`` headers."""
        info = await self._files.stat(path)
        answer = answers.to_head(info, answers.asked(request.headers))
        if answer.status == 304:
            return web.Response(status=answer.status, headers=answer.headers)
        return web.Response(headers={**answer.headers, **more(info), "Content-Length": str(info.size)})

    async def put(self, request: web.Request) -> web.Response:
        """PUT: 200, whether the file is new or not."""
        info = await self.store(request, path_of(request), condition_of(request.headers))
        return web.Response(headers={"ETag": answers.etag(info)})

    async def post(self, request: web.Request) -> web.Response:
        """POST: 201, with where the file is."""
        info = await self.store(request, path_of(request), condition_of(request.headers))
        return web.Response(status=201, headers={"ETag": answers.etag(info), "Location": location(info.path)})

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE: 204."""
        return await self.delete_file(request, path_of(request))

    async def delete_file(self, request: web.Request, path: str) -> web.Response:
        """DELETE of the file at a path."""
        await self._files.delete(path, condition_of(request.headers))
        return web.Response(status=204)

    def receive(self, request: web.Request, path: str) -> Upload:
        """The file in a request's body, that is to go to a path."""
        return receive(request, check_size=functools.partial(self._files.check_size, path), timeout=self._body_timeout)

    async def store(self, request: web.Request, path: str, condition: Condition | None) -> Info:
        """Store what a request brings at a path, under a condition."""
        upload = self.receive(request, path)
        return await self._files.put(
            path,
            upload.content,
            size=upload.size,
            about=upload.about,
            type=upload.type,
            meta=meta_given(request.headers),
            condition=condition,
        )


def _opened_already(request: web.Request, path: str) -> File | None:
    """The file, if the connection has just opened it for this request; once."""
    protocol = request.protocol
    file: File | None = getattr(protocol, "opened", None)
    if file is None:
        return None
    protocol.opened = None  # type: ignore[attr-defined]
    return file if file.info.path == path else None


def condition_of(headers: MultiMapping[str]) -> Condition | None:
    """The preconditions of a write; None if there are none."""
    return condition(combined(headers, PRECONDITIONS))


def condition(preconditions: Mapping[str, str]) -> Condition | None:
    """The preconditions of a write, to be asked of what is there; None if there are none."""
    if not preconditions:
        return None

    def check(info: Info | None) -> None:
        if evaluate(preconditions, answers.validators_of(info) if info else None, reading=False) is not Outcome.PROCEED:
            state = f"its ETag is {answers.etag(info)}" if info else "there is no file"
            raise PreconditionFailed(f"nothing was changed, for the precondition doesn't hold: {state}")

    return check


def meta_given(headers: MultiMapping[str]) -> dict[str, str]:
    """What is to be kept with a file. Raises BadRequest."""
    meta = {}
    for header, value in headers.items():
        name = header.lower()
        if name.startswith(META_PREFIX):
            name = name.removeprefix(META_PREFIX)
            if not META_NAME.fullmatch(name) or name in meta or not value.isprintable():
                raise BadRequest(f"{header[:100]}: the name of a kept header is made of a-z, 0-9, - and _, and comes"
                                 " once; its value is UTF-8")  # fmt: skip
            meta[name] = value
    if sum(len(name) + len(value.encode()) for name, value in meta.items()) > MAX_META:
        raise BadRequest(f"the X-Meta- headers have more than {MAX_META} bytes")
    return meta
