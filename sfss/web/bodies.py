"""The content of an upload: raw, or one part of a multipart/form-data body; streamed, timed, and whole or refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from aiohttp import ClientPayloadError, HttpVersion11, web

from sfss.errors import BadBody, BadRequest, BodyTimeout
from sfss.web import content_types
from sfss.web.digests import DIGESTS, Digests
from sfss.web.forms import MAX_ASIDE, Form
from sfss.web.headers import combined


class Upload(NamedTuple):
    """A file on its way in. ``type``, checked, is final only when ``content`` has ended: a part may bring its own."""

    content: AsyncIterator[bytes]
    type: Callable[[], str | None]
    size: int | None = None  # bytes, if that is known
    name: Callable[[], str | None] = lambda: None  # of the file, as the part says; final likewise
    about: Callable[[], int | None] = lambda: None  # what ``size`` will probably be, once some of it has come


def receive(request: web.Request, *, check_size: Callable[[int], None], timeout: float) -> Upload:
    """The file in a request's body. ``check_size`` raises if a file of so many bytes can't be taken; ``timeout`` is in
    seconds, for each piece to come.

    Raises BadRequest, TooLarge, HTTPException before a byte is read; while reading, BadBody, BodyTimeout and TooLarge.
    """
    if request.headers.get("Expect", "100-continue").lower() != "100-continue":
        raise web.HTTPExpectationFailed(text="Expect: 100-continue is the only expectation that can be met")
    # aiohttp takes the last coding off, which must be chunked, and knows no other.
    if request.headers.get("Transfer-Encoding", "chunked").strip().lower() not in ("chunked", ""):
        raise web.HTTPNotImplemented(text="Transfer-Encoding: send the body as it is, or chunked alone")
    codings = combined(request.headers, ("Content-Encoding",)).values()
    if any(coding.strip().lower() != "identity" for coding in codings):
        raise BadRequest("Content-Encoding: send the file as it is, without a content coding")
    if "Content-Range" in request.headers:
        raise BadRequest("Content-Range: a part of a file can't be written, send the whole")
    multipart = request.headers.get("Content-Type", "").strip().lower().startswith("multipart/")
    if request.content_length is not None:
        check_size(request.content_length - (MAX_ASIDE if multipart else 0))
    content = _chunks(request, timeout)
    if digests := Digests(combined(request.headers, DIGESTS)):
        content = digests.checking(content)
    if not multipart:
        type = content_types.given(request.headers.get("Content-Type"))
        return Upload(content, lambda: type, request.content_length)
    form = Form(request.headers["Content-Type"], check_size)

    def about() -> int | None:
        """What the file is if nothing comes behind it: so it is in nearly every form."""
        return None if request.content_length is None else max(request.content_length - form.beside, 0)

    return Upload(form.file(content), lambda: content_types.given(form.type), name=lambda: form.name, about=about)


async def _chunks(request: web.Request, timeout: float) -> AsyncIterator[bytes]:
    """The body as it comes. A client that asked for leave to send (Expect) gets it here, when all else is settled."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself hasn't begun
    while True:
        try:
            async with asyncio.timeout(timeout):
                chunk = await request.content.readany()
        except TimeoutError:
            raise BodyTimeout(f"no more of the body came for {timeout:g} s: send it again") from None
        except (ConnectionError, ClientPayloadError, web.RequestPayloadError) as error:
            raise BadBody(f"the body broke off: {error or 'the connection ended'}") from None
        if not chunk:
            return
        yield chunk
