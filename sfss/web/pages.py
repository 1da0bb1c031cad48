"""The dashboard: one page at ``/``, what it is made of under ``/dashboard/``, and what whoever looks at it may do.

The page is the same for everybody and tells of nothing; so it is open. What it shows it asks of the other pages, as any
client does, with the key that its reader gives it. Its files lie in ``dashboard/`` and are sent as they lie there.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

from aiohttp import web

from sfss.access.keys import READ, WRITE
from sfss.access.rules import Wanted
from sfss.config import Rules
from sfss.errors import BadPath, BadRequest, SfssError
from sfss.files import Files
from sfss.web.access import EVERYTHING, STATUS_OF_ALL, Guard
from sfss.web.conditional import Outcome, Validators, evaluate
from sfss.web.headers import combined
from sfss.web.listing import prefix_of
from sfss.web.urls import path_of

ASSET = "/dashboard/{name}"
MAY = "/dashboard/may"
_INDEX = "index.html"

# Nothing from another host, nothing inline, nobody's frame; and the browser refuses to make markup or scripts of text.
# Images may come from the page itself, where a key had to be shown for them.
CSP = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self';"
    " object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Cache-Control": "no-cache",  # to be asked for again, and seldom sent again: it is of this version of sfss
    "Content-Security-Policy": CSP,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class _Asset(NamedTuple):
    """A file of the page."""

    content: bytes
    type: str
    etag: str


class PageHandlers:
    """The handlers, over one file service and the guard before it."""

    def __init__(self, files: Files, guard: Guard) -> None:
        self._files = files
        self._guard = guard
        self._assets = _assets()

    async def index(self, request: web.Request) -> web.Response:
        """GET /: the page."""
        return self._send(request, _INDEX)

    async def asset(self, request: web.Request) -> web.Response:
        """GET /dashboard/NAME: a file of it."""
        return self._send(request, request.match_info["name"])

    async def may(self, request: web.Request) -> web.Response:
        """GET /dashboard/may?prefix=P, or ?path=P: what whoever asks may do there, and what holds for it.

        ``list``: all that begins with the prefix. ``read write delete``: the path, or what is right below the prefix;
        finer policies may say otherwise of some of it. ``open``: who has no key may read, too: a link is enough.
        """
        path = path_of(request) if "path" in request.query else None
        prefix = prefix_of(request) if path is None else path
        writes = self._why_not(request, Wanted(WRITE, prefix))
        reads = self._why_not(request, Wanted(READ, prefix))
        lists = self._why_not(request, Wanted(READ, prefix, whole=True))
        rules, closed = None, None
        if None in (reads, writes, lists):  # else it is nobody's business what is there
            try:
                rules = self._rules(prefix, is_path=path is not None)
            except BadRequest:
                raise
            except SfssError as error:  # there is no such namespace, or it is shut
                closed = str(error)
        told: dict[str, object] = {
            "prefix" if path is None else "path": prefix,
            **self._guard.shown_by(request),
            "admin": self._guard.may(request, EVERYTHING),
            "status": self._guard.may(request, STATUS_OF_ALL),
            "list": lists is None,
            "read": reads is None and closed is None,
            "write": writes is None and closed is None,
            "delete": writes is None and rules is not None and not rules.write_once,
            "open": self._guard.may_anybody(Wanted(READ, prefix)),
            "why": {name: why for name, why in (("read", reads), ("write", writes), ("closed", closed)) if why},
            "write_once": rules is not None and rules.write_once,
            "max_file_size": rules.max_file_size if rules is not None else 0,
            "max_file_size_setting": rules.setting if rules is not None else "",
            "search": bool(self._files.catalogue()),
        }
        return web.json_response(told, headers={"Cache-Control": "no-store"})

    def _rules(self, prefix: str, *, is_path: bool) -> Rules:
        """What holds for the path, or for some file right below the prefix. Raises as ``Files.rules``."""
        if not is_path:
            with contextlib.suppress(BadPath):  # nothing is below one that is as long as a path can be
                return self._files.rules(f"{prefix}x")
        return self._files.rules(prefix)

    def _why_not(self, request: web.Request, wanted: Wanted) -> str | None:
        """Why whoever asks may not do that, in words; None if he may."""
        try:
            self._guard.check(request, wanted)
        except SfssError as error:
            return str(error)
        return None

    def _send(self, request: web.Request, name: str) -> web.Response:
        asset = self._assets.get(name)
        if asset is None:
            raise web.HTTPNotFound
        headers = {**_HEADERS, "ETag": asset.etag}
        asked = combined(request.headers, ("If-None-Match",))
        if evaluate(asked, Validators(asset.etag, 0), reading=True) is Outcome.NOT_MODIFIED:
            return web.Response(status=304, headers=headers)
        return web.Response(body=asset.content, headers=headers, content_type=asset.type, charset="utf-8")


def names() -> list[str]:
    """Those of all files of the page."""
    return [file.name for file in _files()]


def _assets() -> Mapping[str, _Asset]:
    """All files of the page, in memory: there are few, and they are small."""
    return {file.name: _asset(file.name, file.read_bytes()) for file in _files()}


def _files() -> list[Traversable]:
    return [file for file in (resources.files("sfss.web") / "dashboard").iterdir() if file.is_file()]


def _asset(name: str, content: bytes) -> _Asset:
    type = _TYPES.get(name.rpartition(".")[2], "text/plain")  # this machine's own table of types is anybody's
    return _Asset(content, type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
