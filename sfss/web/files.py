"""``/file`` and ``/files``: each handler parses, calls the file service, responds."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from aiohttp import web
from multidict import MultiMapping

from sfss.errors import BadPath, BadRequest, Gone, PreconditionFailed
from sfss.files import Condition, Files, Info
from sfss.web import content_types
from sfss.web.bodies import receive
from sfss.web.conditional import PRECONDITIONS, Outcome, Validators, byte_range, evaluate, http_date
from sfss.web.headers import combined
from sfss.web.sending import send

META_PREFIX = "x-meta-"  # a header X-Meta-NAME: VALUE is kept with the file, and comes back with it
MAX_META = 4096  # bytes of all names and values
_REPLACED = 3  # times that a file may be replaced just while its first block is looked for
META_NAME = re.compile(r"[a-z0-9_-]{1,64}")

# What a user uploads must never run as a page of this origin, whatever its type says.
_HARMLESS = {"Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}


class FileHandlers:
    """The handlers, over one file service. ``body_timeout`` in seconds."""

    def __init__(self, files: Files, *, body_timeout: float) -> None:
        self._files = files
        self._body_timeout = body_timeout

    async def get(self, request: web.Request) -> web.StreamResponse:
        """GET: the file, a range of it, or 304."""
        for _ in range(_REPLACED):
            try:
                return await self._get(request)
            except Gone:  # it was replaced between two looks
                continue
        return await self._get(request)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        file = await self._files.open(path_of(request))
        validators = _validators(file.info)
        if _not_modified(request, validators):
            return web.Response(status=304, headers=_headers(file.info, validators, typed=False))
        headers = _headers(file.info, validators)
        part = byte_range(combined(request.headers, ("Range", "If-Range")), validators, file.info.size)
        start, stop = part or (0, file.info.size)
        status = 200
        if part is not None:
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.info.size}"
        if file.content is not None:
            return web.Response(status=status, body=bytes(file.content[start:stop]), headers=headers)
        headers["Content-Length"] = str(stop - start)
        content = self._files.read(file, start, stop)
        return await send(request, web.StreamResponse(status=status, headers=headers), content, self._body_timeout)

    async def head(self, request: web.Request) -> web.Response:
        """HEAD: what GET would say of the file, which isn't read where that can be."""
        info = await self._files.stat(path_of(request))
        validators = _validators(info)
        if _not_modified(request, validators):
            return web.Response(status=304, headers=_headers(info, validators, typed=False))
        return web.Response(headers={**_headers(info, validators), "Content-Length": str(info.size)})

    async def put(self, request: web.Request) -> web.Response:
        """PUT: 200, whether the file is new or not."""
        info = await self._store(request)
        return web.Response(headers={"ETag": _etag(info)})

    async def post(self, request: web.Request) -> web.Response:
        """POST: 201, with where the file is."""
        info = await self._store(request)
        where = request.rel_url.with_path("/file").with_query({"path": info.path})
        return web.Response(status=201, headers={"ETag": _etag(info), "Location": str(where)})

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE: 204."""
        await self._files.delete(path_of(request), condition(combined(request.headers, PRECONDITIONS)))
        return web.Response(status=204)

    async def _store(self, request: web.Request) -> Info:
        path = path_of(request)
        check_size = functools.partial(self._files.check_size, path)
        upload = receive(request, check_size=check_size, timeout=self._body_timeout)
        return await self._files.put(
            path,
            upload.content,
            size=upload.size,
            type=upload.type,
            meta=_meta_given(request.headers),
            condition=condition(combined(request.headers, PRECONDITIONS)),
        )


def path_of(request: web.Request) -> str:
    """The query's ``path``, decoded once. What isn't UTF-8 in it is kept as surrogates, which no path may hold."""
    query = parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True, errors="surrogateescape")
    found = [value for name, value in query if name == "path"]
    if not found:
        raise BadPath("the query has no path: add ?path=FOLDER/NAME")
    if len(found) > 1:
        raise BadPath("the query has more than one path")
    return found[0]


def _etag(info: Info) -> str:
    return f'"{info.sha256.hex()}"'


def _validators(info: Info) -> Validators:
    return Validators(_etag(info), info.modified // 1_000_000)


def _headers(info: Info, validators: Validators, *, typed: bool = True) -> dict[str, str]:
    headers = {"ETag": validators.etag, "Last-Modified": http_date(validators.modified), **_HARMLESS}
    if typed:
        headers["Content-Type"] = info.type or content_types.guess(info.path)
        headers |= {f"X-Meta-{name.title()}": value for name, value in info.meta.items()}
    return headers


def _not_modified(request: web.Request, validators: Validators) -> bool:
    outcome = evaluate(combined(request.headers, PRECONDITIONS), validators, reading=True)
    if outcome is Outcome.FAILED:
        raise PreconditionFailed("the file is not in the state that If-Match or If-Unmodified-Since asks for")
    return outcome is Outcome.NOT_MODIFIED


def condition(preconditions: Mapping[str, str]) -> Condition | None:
    """The preconditions of a write, to be asked of what is there; None if there are none."""
    if not preconditions:
        return None

    def check(info: Info | None) -> None:
        if evaluate(preconditions, _validators(info) if info else None, reading=False) is not Outcome.PROCEED:
            state = f"its ETag is {_etag(info)}" if info else "there is no file"
            raise PreconditionFailed(f"nothing was changed, for the precondition doesn't hold: {state}")

    return check


def _meta_given(headers: MultiMapping[str]) -> dict[str, str]:
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
