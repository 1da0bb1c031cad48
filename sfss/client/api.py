"""The service's HTTP, as its clients need it: requests with deadlines, files by path, lists. Nothing local lies here.

The border at which aiohttp's exceptions become ours. Uploads that can go on after a break are in ``uploads``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple

import aiohttp
from yarl import URL as URL

from sfss.client.failures import Broken, Different, Failure, Refused

PIECE = 256 * 1024  # bytes read, sent or written at a time: large enough to be fast, small enough not to matter
PAGE = 10_000  # files that are asked for at a time, the most that a page has
_PROBLEM_LIMIT = 64 * 1024  # bytes of an error's body that are looked at; what is longer explains nothing
_LONGEST_PAUSE = 60.0  # seconds; a service that wants to be left alone for longer is asked again all the same
_META = "x-meta-"
_STRONG = re.compile(r'"([0-9a-f]{64})"')
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")

Answer = aiohttp.ClientResponse
Body = AsyncIterator[bytes] | bytes


class Content(NamedTuple):
    """A file, or the rest of one, on its way down."""

    etag: str  # as it stood in the answer; "" where it had none
    start: int  # where in the file the pieces begin
    size: int | None  # of the pieces, in bytes; None where the service doesn't say
    pieces: AsyncIterator[bytes]


class Found(NamedTuple):
    """A file in a list."""

    path: str
    size: int
    etag: str


class Stat(NamedTuple):
    """What the service says of a file."""

    size: int
    etag: str
    type: str
    modified: str  # as HTTP writes it
    meta: dict[str, str]


def origin(host: str, port: int) -> str:
    """The URL of a service, without TLS; IPv6 may stand in brackets. Raises ValueError for what can't be a host."""
    host = host.removeprefix("[").removesuffix("]")
    return str(URL.build(scheme="http", host=host, port=port)).rstrip("/")


def sha256_of(etag: str) -> str | None:
    """The SHA-256 in hex that an ETag of sfss is; None for another's."""
    match = _STRONG.fullmatch(etag)
    return match[1] if match else None


class Once:
    """Pieces that can't be had again. aiohttp repeats a PUT after a break, and would send what is left of them."""

    def __init__(self, pieces: AsyncIterator[bytes], address: str) -> None:
        self._pieces, self._address = pieces, address
        self._begun = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._begun:
            raise Broken(f"{self._address}: the connection broke off while a file was being sent: try again")
        self._begun = True
        return self._pieces


class Client:
    """A service, over keep-alive connections; an async context manager.

    ``service`` is its URL, ``http://host:port``; ``timeout``: seconds that may pass without a byte moving;
    ``connections``: how many are used at a time, at most. ``key``: what to show, if it wants to see one.
    """

    def __init__(
        self,
        service: str,
        *,
        timeout: float = 60.0,
        connections: int = 1,
        tls: ssl.SSLContext | None = None,
        key: str = "",
    ) -> None:
        self.service = URL(service)
        self.address = self.service.authority
        self._timeout = timeout
        self._connections = connections
        self._tls = tls
        self._shown = {"Authorization": f"Bearer {key}"} if key else {}
        self._reached = False  # whether anything has answered yet

    async def __aenter__(self) -> Client:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ssl=self._tls if self._tls else True),
            timeout=self._patience(0),
            cookie_jar=aiohttp.DummyCookieJar(),
            # The bytes as they are stored: a proxy that compressed them would also weaken the ETag.
            headers={"Accept-Encoding": "identity", **self._shown},
            auto_decompress=False,
            # The content type is left out, so that the service finds it from the path's extension.
            skip_auto_headers=["Content-Type"],
            read_bufsize=PIECE,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    # --- files ---

    async def put(
        self, path: str, body: Body, size: int | None, *, type: str = "", digest: bytes = b"", create: bool = False
    ) -> str:
        """Store a file, by POST if it is to ``create``, which says the same; the ETag that the service gives it.

        ``size`` in bytes, None where it isn't known; ``digest`` is the SHA-256, where it is known before: then the
        service takes nothing else.
        """
        headers = {"Content-Type": type} if type else {}
        if digest:
            headers["Content-Digest"] = f"sha-256=:{base64.b64encode(digest).decode()}:"
        method, face = ("POST", "/files") if create else ("PUT", "/file")
        async with self.request(method, self.url(face, path=path), body, size, headers) as answer:
            return answer.headers.get("ETag", "")

    @contextlib.asynccontextmanager
    async def get(self, path: str, start: int = 0, etag: str = "") -> AsyncIterator[Content]:
        """Fetch a file, from the byte ``start`` on if its ETag is still ``etag``, else all of it."""
        headers = {"Range": f"bytes={start}-", "If-Range": etag} if start else {}
        async with self.request("GET", self.url("/file", path=path), headers=headers) as answer:
            given = answer.headers.get("ETag", "")
            begun = _start_of(answer, start) if answer.status == 206 else 0
            yield Content(given, begun, answer.content_length, answer.content.iter_chunked(PIECE))

    async def delete(self, path: str) -> None:
        """Remove a file; raises Refused (404) where there is none."""
        async with self.request("DELETE", self.url("/file", path=path)):
            pass

    async def stat(self, path: str) -> Stat:
        """What the service says of a file; raises Refused (404) where there is none."""
        try:
            async with self.request("HEAD", self.url("/file", path=path)) as answer:
                headers = answer.headers
        except Refused as refusal:
            if refusal.status == 404:  # an answer to HEAD has no body that could say it
                raise Refused(404, f"there is no file at '{path}'") from None
            raise
        meta = {name[len(_META) :].lower(): text for name, text in headers.items() if name.lower().startswith(_META)}
        size = headers.get("Content-Length", "")
        if not size.isdecimal():
            raise self._is_no_service("a file without a size")
        return Stat(
            int(size),
            headers.get("ETag", ""),
            headers.get("Content-Type", ""),
            headers.get("Last-Modified", ""),
            meta,
        )

    async def list(self, prefix: str, after: str = "", limit: int | None = None) -> tuple[list[Found], str | None]:
        """A page of the files that begin so, in the order of their paths; and the ``after`` of the next one."""
        query = {"prefix": prefix, "limit": str(limit or PAGE)} | ({"after": after} if after else {})
        async with self.request("GET", self.url("/files", **query)) as answer:
            body = await answer.read()
        try:
            page = json.loads(body)
            files = [Found(str(file["path"]), int(file["size"]), str(file["etag"])) for file in page["files"]]
            following = page["next"]
        except (ValueError, LookupError, TypeError):
            raise self._is_no_service("no list") from None
        if following is not None and not (isinstance(following, str) and following > after):
            raise self._is_no_service("a list that doesn't go on")
        return files, following

    async def ping(self) -> None:
        """Raise Failure unless something that speaks HTTP answers there, whatever it says."""
        with contextlib.suppress(Refused):
            async with self.request("GET", self.url("/livez")):
                pass

    # --- requests ---

    def url(self, face: str, **query: str) -> URL:
        """The URL of a face of the service; raises Failure for a query that is no UTF-8."""
        for name, text in query.items():
            try:
                text.encode()  # yarl drops what it can't encode: the file would go by another name
            except UnicodeEncodeError:
                raise Failure(f"the {name} {text!a} is not valid UTF-8: sfss has no name for it") from None
        return self.service.with_path(face).with_query(query or None)

    def own(self, location: str, base: URL) -> URL:
        """What a Location names, at this service: a proxy's idea of its own name and scheme doesn't matter."""
        try:
            named = base.join(URL(location, encoded=True))
            return self.service.join(URL(named.raw_path_qs, encoded=True))
        except ValueError:
            raise self._is_no_service(f"a Location that is none, {location[:100]!a}") from None

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        url: URL,
        body: Body | None = None,
        size: int | None = None,
        headers: Mapping[str, str] | None = None,
        extra: float = 0.0,
    ) -> AsyncIterator[Answer]:
        """Send one request, with a ``body`` of ``size`` bytes, and yield the answer if it is a success.

        Raises Refused for any other answer, Broken if there is none or it breaks off; the latter also out of the
        caller's reading of the body, as long as that is done inside the `async with`. ``extra``: seconds more than
        the client's timeout that the service may take before it answers.
        """
        given = dict(headers or {})
        if body is not None and size is not None:
            given["Content-Length"] = str(size)
        with self._plain_words():
            # aiohttp's sock_read begins only when the body has been sent; until then this deadline stands guard.
            streamed = isinstance(body, AsyncIterator)
            async with asyncio.timeout(self._timeout + (0 if streamed else extra)) as deadline:
                async with self._session.request(
                    method,
                    url,
                    data=Once(self._watched(body, deadline, extra), self.address)
                    if isinstance(body, AsyncIterator)
                    else body,
                    headers=given,
                    allow_redirects=False,
                    expect100=streamed,  # what is refused needn't be sent
                    timeout=self._patience(extra),
                ) as answer:
                    self._reached = True
                    deadline.reschedule(None)
                    if not 200 <= answer.status < 300:
                        raise await _refusal(answer)
                    yield answer

    def _patience(self, extra: float) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=self._timeout + extra)

    async def _watched(
        self, body: AsyncIterator[bytes], deadline: asyncio.Timeout, extra: float
    ) -> AsyncIterator[bytes]:
        """The body. Each piece has a deadline to leave by, and the answer, ``extra`` later, behind the last one; for
        what isn't there yet the service is not to blame.
        """
        now = asyncio.get_running_loop().time
        deadline.reschedule(None)
        async for piece in body:
            deadline.reschedule(now() + self._timeout)
            yield piece
            deadline.reschedule(None)
        deadline.reschedule(now() + self._timeout + extra)

    @contextlib.contextmanager
    def _plain_words(self) -> Iterator[None]:
        """The border at which aiohttp's exceptions become Failures."""
        try:
            yield
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(_reason_of(error)) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise self._unreachable(f"no connection within {self._timeout:g} s") from error
        except TimeoutError as error:
            advice = "try again, or raise --timeout"
            raise Broken(f"{self.address}: nothing moved for {self._timeout:g} s: {advice}") from error
        except aiohttp.ClientPayloadError as error:
            raise Broken(f"{self.address}: the answer broke off before its end: try again") from error
        except aiohttp.ClientConnectionError as error:
            if isinstance(error.__cause__, Failure):  # the local file failed, and the connection only with it
                raise error.__cause__ from None
            advice = "see the server's log, and its max_file_size if a file was being sent"
            raise Broken(f"{self.address}: the connection broke off before the answer's end: {advice}") from error
        except aiohttp.ClientError as error:
            raise Failure(f"{self.address}: no answer that HTTP knows ({error}): is that sfss?") from error

    def _unreachable(self, reason: str) -> Failure:
        failure = Broken(
            f"cannot reach {self.address} ({reason}): is sfss running there? Start it with"
            f" 'sfss --host {self.service.host} --port {self.service.port}', or name another --host and --port"
        )
        failure.passing = self._reached  # who has never answered isn't waited for
        return failure

    def _is_no_service(self, what: str) -> Failure:
        return Failure(f"{self.address} answers with {what}: is that sfss?")


def _start_of(answer: Answer, asked: int) -> int:
    """Where a 206 begins, which is as it was asked; raises Different if it says anything else."""
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if not match or int(match[1]) != asked or int(match[2]) + 1 != int(match[3]):
        said = answer.headers.get("Content-Range", "nothing")
        raise Different(f"the rest from byte {asked:,} was asked for, and what came says that it is {said}")
    return asked


def _reason_of(error: aiohttp.ClientConnectorError) -> str:
    """Why there is no connection, without the addresses that asyncio adds."""
    if isinstance(error, aiohttp.ClientConnectorDNSError) or not error.errno:
        return str(error.strerror or error.os_error)
    return os.strerror(error.errno)


async def _refusal(answer: Answer) -> Refused:
    """What an error's answer says: 'title: detail' if it is a problem document (RFC 9457), else its status line."""
    body, problem = bytearray(), None
    # Should the body be broken, or no JSON: the status is known, and worth more than the reason for that.
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError, RecursionError):
        async for piece in answer.content.iter_any():
            body += piece
            if len(body) > _PROBLEM_LIMIT:
                break
        problem = json.loads(body)
    members: dict[str, Any] = problem if isinstance(problem, dict) else {}
    said = [str(members[name]) for name in ("title", "detail") if members.get(name)]
    text = ": ".join(said) or f"HTTP {answer.status} {answer.reason or ''}".strip()
    after = answer.headers.get("Retry-After", "")
    pause = min(float(after), _LONGEST_PAUSE) if re.fullmatch(r"[0-9]{1,9}", after) else None
    return Refused(answer.status, text, str(members.get("type", "")), pause)
