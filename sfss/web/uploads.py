"""``/uploads``: resumable uploads by the tus protocol, version 1.0.0; each handler parses, calls, responds."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import NamedTuple

from aiohttp import web
from aiohttp.typedefs import Handler

from sfss.access.keys import WRITE
from sfss.access.rules import Wanted
from sfss.errors import BadPath, BadRequest, BodyTimeout, SfssError, Unavailable, UploadLocked
from sfss.upload_state import PARTIAL, State
from sfss.uploads import Uploads
from sfss.web import problems, tus
from sfss.web.access import Guard
from sfss.web.bodies import receive
from sfss.web.conditional import PRECONDITIONS, evaluate, http_date
from sfss.web.digests import DIGESTS
from sfss.web.headers import combined
from sfss.web.urls import path_of

COLLECTION, ITEM = "/uploads", "/uploads/{upload}"

_UNVERSIONED = ("OPTIONS", "GET", "HEAD")  # a browser may look at these URLs, too


async def mark(request: web.Request, response: web.StreamResponse) -> None:
    """Say what is spoken here in every answer, as tus wants it: also in that to somebody who isn't let in."""
    if f"{request.rel_url.raw_path}/".startswith(f"{COLLECTION}/"):
        response.headers["Tus-Resumable"] = tus.VERSION


class UploadHandlers:
    """The handlers, over the uploads of one front. ``body_timeout`` and ``retry_after`` in seconds."""

    def __init__(self, uploads: Uploads, guard: Guard, *, body_timeout: float, retry_after: float) -> None:
        self._uploads = uploads
        self._guard = guard
        self._body_timeout = body_timeout
        self._problems = problems.middleware(retry_after)
        self._collection: Mapping[str, Handler] = {"OPTIONS": self._options, "POST": self._create}
        self._item: Mapping[str, Handler] = {
            "OPTIONS": self._options, "HEAD": self._head, "PATCH": self._patch, "DELETE": self._delete,
        }  # fmt: skip

    async def collection(self, request: web.Request) -> web.StreamResponse:
        """Whatever is asked of ``/uploads``."""
        return await self._answer(request, self._collection)

    async def item(self, request: web.Request) -> web.StreamResponse:
        """Whatever is asked of an upload."""
        return await self._answer(request, self._item)

    async def _answer(self, request: web.Request, handlers: Mapping[str, Handler]) -> web.StreamResponse:
        method = request.headers.get("X-HTTP-Method-Override", request.method).strip().upper()

        async def handle(request: web.Request) -> web.StreamResponse:
            if method not in handlers:
                raise web.HTTPMethodNotAllowed(method, handlers)
            if method not in _UNVERSIONED and request.headers.get("Tus-Resumable", "").strip() != tus.VERSION:
                raise web.HTTPPreconditionFailed(text=f"Tus-Resumable: {tus.VERSION} is what is spoken here")
            if not self._guard.is_open and method != "OPTIONS":  # that only tells what can be done
                await self._judge(request, method)
            return await handlers[method](request)

        # Here, and not around all of the application, so that every answer gets what the protocol wants of it.
        response = await self._problems(request, handle)
        if response.status == 412:
            response.headers["Tus-Version"] = tus.VERSION
        if method == "HEAD":
            response.headers["Cache-Control"] = "no-store"
        return response

    async def _judge(self, request: web.Request, method: str) -> None:
        """Let through whoever may write what the upload is to become, and what it is made of. Raises as ``check``.

        Where a part has no path, nobody knows whose it is: it is for whoever may write everything.
        """
        uploads = [] if method == "POST" else [_upload(request)]
        if method == "POST":
            begun = _begun(request)
            if begun.about.path is None and begun.concat != PARTIAL:
                raise BadPath("the upload has no path: add ?path=FOLDER/NAME, or path or filename to Upload-Metadata")
            self._guard.check(request, _to_write(begun.about.path))
            uploads = begun.partials
        try:
            self._guard.check_somewhere(request, WRITE)  # who may not is not told which uploads there are
            for upload in uploads:
                self._guard.check(request, _to_write(await self._uploads.path(upload)))
        except Unavailable as error:
            if method == "HEAD":
                raise _not_to_be_seen(error) from None
            raise

    # --- the methods ---

    async def _options(self, request: web.Request) -> web.Response:
        """OPTIONS: what can be done here."""
        largest = self._uploads.largest(_path_given(request))
        return web.Response(
            status=204,
            headers={
                "Tus-Version": tus.VERSION,
                "Tus-Extension": tus.EXTENSIONS,
                "Tus-Checksum-Algorithm": tus.CHECKSUMS,
                "Tus-Max-Size": str(largest),
            },
        )

    async def _create(self, request: web.Request) -> web.Response:
        """POST: 201, with where the upload is. With a body, its first piece is in it."""
        headers = request.headers
        about, given, concat, partials = _begun(request)
        wanted = State(
            expires=0,
            length=None if partials else tus.length(headers),
            path=about.path,
            type=about.type,
            meta=about.meta,
            conditions=_preconditions(request),
            metadata=given,
            concat=concat,
        )
        if partials:
            if "Upload-Length" in headers:
                raise BadRequest("Upload-Length: what is put together has the length of its parts; leave it out")
            upload, state = await self._uploads.concatenate(wanted, partials)
            return _created(upload, state)
        upload, state = await self._uploads.create(wanted)
        if _is_piece(request) and request.body_exists:
            try:
                state = await self._append(request, upload, 0, None)
            except SfssError:
                with contextlib.suppress(SfssError):  # nobody was told where it is
                    await self._uploads.terminate(upload)
                raise
            return _created(upload, state, {"Upload-Offset": str(state.offset)})
        return _created(upload, state)

    async def _head(self, request: web.Request) -> web.Response:
        """HEAD: how far the upload is."""
        try:
            state = await self._uploads.look(_upload(request))
        except Unavailable as error:
            raise _not_to_be_seen(error) from None
        headers = {"Upload-Offset": str(state.offset), **_expires(state)}
        if state.length is None:
            headers["Upload-Defer-Length"] = "1"
        else:
            headers["Upload-Length"] = str(state.length)
        if state.metadata:
            headers["Upload-Metadata"] = state.metadata
        if state.concat:
            headers["Upload-Concat"] = state.concat
        return web.Response(headers=headers)

    async def _patch(self, request: web.Request) -> web.Response:
        """PATCH: 204, with how far the upload is now."""
        if not _is_piece(request):
            raise web.HTTPUnsupportedMediaType(text=f"Content-Type: send a piece of an upload as {tus.CONTENT_TYPE}")
        offset, length = tus.number(request.headers, "Upload-Offset"), tus.number(request.headers, "Upload-Length")
        if offset is None:
            raise BadRequest("Upload-Offset is missing: say where to go on, as HEAD tells it")
        state = await self._append(request, _upload(request), offset, length)
        return web.Response(status=204, headers={"Upload-Offset": str(state.offset), **_expires(state)})

    async def _delete(self, request: web.Request) -> web.Response:
        """DELETE: 204; the upload is forgotten, and if it isn't a file yet, what came of it is freed."""
        await self._uploads.terminate(_upload(request))
        return web.Response(status=204)

    async def _append(self, request: web.Request, upload: str, offset: int, length: int | None) -> State:
        checksum = request.headers.get("Upload-Checksum")
        body = receive(request, check_size=lambda size: None, timeout=self._body_timeout)
        content: AsyncIterator[bytes] = body.content
        if checksum is not None:
            content = tus.Checksum(checksum).checking(content)
        whole = checksum is not None or any(name in request.headers for name in DIGESTS)
        try:
            return await self._uploads.append(
                upload, offset, content, size=body.size, length=length, whole=whole, break_off=_breaking_off(request)
            )
        except BodyTimeout:  # the protocol asks for it; and clients take 408 for a reason to give up
            _breaking_off(request)()
            raise


class _Begun(NamedTuple):
    """What a request says of the upload that it begins."""

    about: tus.About
    metadata: str  # as it was given
    concat: str
    partials: list[str]


def _begun(request: web.Request) -> _Begun:
    """Raises BadRequest."""
    given = ", ".join(request.headers.getall("Upload-Metadata", ()))
    about = tus.about(_path_given(request), tus.metadata(given))
    concat = request.headers.get("Upload-Concat", "").strip()
    return _Begun(about, given, concat, tus.partials(concat))


def _to_write(path: str | None) -> Wanted:
    return Wanted(WRITE, path or "", whole=path is None)


def _not_to_be_seen(error: Unavailable) -> UploadLocked:
    """For HEAD: at anything but 423, tus-js-client would give up what has come, and begin anew."""
    return UploadLocked(f"the upload can't be looked at now: {error}")


def _upload(request: web.Request) -> str:
    return request.match_info["upload"]


def _path_given(request: web.Request) -> str | None:
    return path_of(request) if "path" in request.rel_url.query else None


def _is_piece(request: web.Request) -> bool:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower() == tus.CONTENT_TYPE


def _preconditions(request: web.Request) -> dict[str, str]:
    given = combined(request.headers, PRECONDITIONS)
    if not all(value.isascii() for value in given.values()):
        raise BadRequest("the preconditions hold what is neither an entity tag of this service nor a date")
    for name, value in given.items():  # that they can be read is seen now, and not when all has been sent
        evaluate({name: value}, None, reading=False)
    return given


def _breaking_off(request: web.Request) -> Callable[[], None]:
    def break_off() -> None:
        if request.transport is not None:
            request.transport.abort()

    return break_off


def _expires(state: State) -> dict[str, str]:
    return {} if state.finished else {"Upload-Expires": http_date(state.expires // 1_000_000)}


def _created(upload: str, state: State, headers: Mapping[str, str] | None = None) -> web.Response:
    where = ITEM.format(upload=upload)
    return web.Response(status=201, headers={"Location": where, **_expires(state), **(headers or {})})
