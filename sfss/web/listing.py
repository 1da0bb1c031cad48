"""``GET /files``: which files there are, a page as JSON or all of them as a stream of lines."""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from sfss.errors import BadRequest, SfssError
from sfss.file_needs import Search
from sfss.files import Files, Found
from sfss.web import content_types
from sfss.web.forwarded import asked_by

log = logging.getLogger("sfss.web")

NDJSON = "application/x-ndjson"
DEFAULT_LIMIT, MAX_LIMIT = 1000, 10_000  # files and prefixes of a page
_DELIMITER = "/"
_SEARCHES = {"search", "type", "min_size", "max_size"}
_DIGITS = 15  # of a size: more than there may be, and no more than a database takes
_LAST_TIME = 253_402_300_799_000_000  # microseconds since the epoch, of the last year that ISO 8601 has


class ListedFile(msgspec.Struct, gc=False):
    """A file as it is told. ``etag`` and ``type`` are as GET gives them."""

    path: str
    size: int
    etag: str
    type: str
    modified: datetime.datetime


class ListedFolder(msgspec.Struct, gc=False):
    """A line of a stream for all that begins so."""

    prefix: str


class ListPage(msgspec.Struct):
    """``next`` is what to give as ``after`` for the next page; None if this is the last one."""

    prefix: str
    files: Sequence[ListedFile]
    prefixes: Sequence[str]
    next: str | None


class FoundPage(msgspec.Struct):
    """What a search has found. ``complete``: False where the catalogue may lack some, for it is behind."""

    search: str
    prefix: str
    files: Sequence[ListedFile]
    next: str | None
    complete: bool


class _Query(NamedTuple):
    prefix: str
    after: str
    folders: bool
    limit: int | None
    search: Search | None  # None: a list is wanted


_encoder = msgspec.json.Encoder()


class ListingHandlers:
    """The handlers, over one file service."""

    def __init__(self, files: Files) -> None:
        self._files = files

    async def get(self, request: web.Request) -> web.StreamResponse:
        """GET: a page; or the stream, if that is what the client accepts."""
        query = _query(request)
        if query.search is not None:
            return await self._search(query, query.search)
        if _wants_stream(request):
            return await self._stream(request, query)
        return await self._page(query)

    async def _page(self, query: _Query) -> web.Response:
        limit = _limit(query)
        found: list[Found] = []
        async with contextlib.aclosing(self._list(query, limit)) as batches:
            async for batch in batches:
                found += batch
                if len(found) > limit:
                    break
        page = ListPage(
            query.prefix,
            _files(found[:limit]),
            [file.path for file in found[:limit] if file.header is None],
            found[limit - 1].path if len(found) > limit else None,
        )
        return web.Response(body=_encoder.encode(page), content_type="application/json", headers={"Vary": "Accept"})

    async def _search(self, query: _Query, wanted: Search) -> web.Response:
        limit = _limit(query)
        found, complete = await self._files.search(wanted, query.after, limit + 1)
        page = FoundPage(
            wanted.text, wanted.prefix, _files(found[:limit]), found[limit - 1].path if len(found) > limit else None,
            complete,
        )  # fmt: skip
        return web.Response(body=_encoder.encode(page), content_type="application/json", headers={"Vary": "Accept"})

    async def _stream(self, request: web.Request, query: _Query) -> web.StreamResponse:
        """At the pace of whoever reads it. What fails before the first line is a problem; behind that it is cut off."""
        response = web.StreamResponse(headers={"Content-Type": NDJSON, "Vary": "Accept"})
        left = query.limit
        async with contextlib.aclosing(self._list(query, left or 0)) as batches:
            try:
                async for batch in batches:
                    if left is not None:
                        batch, left = batch[:left], left - len(batch)
                    if not response.prepared:
                        await response.prepare(request)
                    await response.write(_encoder.encode_lines(_lines(batch)))
                    if left is not None and left <= 0:
                        break
                if not response.prepared:
                    await response.prepare(request)
                await response.write_eof()
            except SfssError as error:
                if not response.prepared:
                    raise
                log.warning("a list for %s was cut off: %s; go on behind the last line that came",
                            asked_by(request).address, error)  # fmt: skip
                if request.transport is not None:
                    request.transport.abort()
            except ConnectionError:  # whoever asked has gone
                pass
        return response

    def _list(self, query: _Query, wanted: int) -> AsyncGenerator[Sequence[Found], None]:
        return self._files.list(query.prefix, query.after, folders=query.folders, wanted=wanted)


def _limit(query: _Query) -> int:
    limit = DEFAULT_LIMIT if query.limit is None else query.limit
    if limit > MAX_LIMIT:
        raise BadRequest(f"limit={limit}: a page has at most {MAX_LIMIT}; a stream has no limit (Accept: {NDJSON})")
    return limit


def _lines(found: Sequence[Found]) -> Sequence[ListedFile | ListedFolder]:
    files = _files(found)
    if len(files) == len(found):
        return files
    left = iter(files)
    return [next(left) if file.header is not None else ListedFolder(file.path) for file in found]


def _files(found: Sequence[Found]) -> list[ListedFile]:
    """The files among them; field by field of all of them, which takes a third of the time."""
    paths = [file.path for file in found if file.header is not None]
    headers = [file.header for file in found if file.header is not None]
    seconds = [(version if (version := header.version) < _LAST_TIME else _LAST_TIME) / 1e6 for header in headers]
    return list(
        map(
            ListedFile,
            paths,
            [header.size for header in headers],
            [f'"{header.sha256.hex()}"' for header in headers],
            [header.type or content_types.guess(path) for path, header in zip(paths, headers, strict=True)],
            msgspec.convert(seconds, list[datetime.datetime], strict=False),
        )
    )


def prefix_of(request: web.Request) -> str:
    """How the paths begin that a list is asked of. Raises BadRequest."""
    return _query(request).prefix


def _query(request: web.Request) -> _Query:
    """Raises BadRequest. What isn't UTF-8 is kept as surrogates, which the file service refuses."""
    given: dict[str, str] = {}
    for name, value in parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True, errors="surrogateescape"):
        if name in ("prefix", "after", "delimiter", "limit", *_SEARCHES) and given.setdefault(name, value) != value:
            raise BadRequest(f"the query has more than one {name}")
    delimiter, limit = given.get("delimiter", ""), given.get("limit")
    if delimiter not in ("", _DELIMITER):
        raise BadRequest(f"delimiter={delimiter[:100]}: there is only '{_DELIMITER}'")
    if limit is not None and not (limit.isascii() and limit.isdigit() and len(limit) <= 9 and int(limit) > 0):
        raise BadRequest(f"limit={limit[:100]}: give a number from 1 to {MAX_LIMIT}")
    prefix = given.get("prefix", "")
    search = _search(given, prefix) if given.keys() & _SEARCHES else None
    if search is not None and delimiter:
        raise BadRequest("a search has no folders: leave delimiter out")
    return _Query(prefix, given.get("after", ""), bool(delimiter), int(limit) if limit else None, search)


def _search(given: Mapping[str, str], prefix: str) -> Search:
    """Raises BadRequest."""
    sizes: dict[str, int] = {}
    for name in ("min_size", "max_size"):
        size = given.get(name)
        if size is not None:
            if not (size.isascii() and size.isdigit() and len(size) <= _DIGITS):
                raise BadRequest(f"{name}={size[:100]}: give a number of bytes")
            sizes[name] = int(size)
    return Search(given.get("search", ""), prefix, given.get("type"), sizes.get("min_size"), sizes.get("max_size"))


def _wants_stream(request: web.Request) -> bool:
    accepted = ",".join(request.headers.getall("Accept", ())).lower().split(",")
    return any(kind.partition(";")[0].strip() == NDJSON for kind in accepted)
