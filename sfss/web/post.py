"""Files at the URL's root: ``/images/cat.jpg`` is the file ``images/cat.jpg``, which is written once (``[post]``).

``POST`` creates a file, ``GET`` and ``HEAD`` read it, and nothing changes it any more, so that a proxy may keep what it
has read for ever (``conf/post-nginx.conf``). The URL's query means nothing. What is in a namespace is as that has it.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from sfss.access.keys import READ, WRITE
from sfss.config import Post
from sfss.errors import BadPath, NotAllowed, WriteOnce
from sfss.files import Condition, Info
from sfss.web import answers
from sfss.web.access import Need, Needs
from sfss.web.files import FileHandlers, condition_of
from sfss.web.urls import ONE_ROUTE, is_page, location_of_page, path_of


class PostHandlers:
    """The handlers, over those of files by any URL."""

    def __init__(self, handlers: FileHandlers, settings: Post) -> None:
        self._handlers = handlers
        self._enabled = settings.enabled

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By their methods; none where files have no URLs at the root."""
        if not self._enabled:
            return {}
        return {"GET": self.get, "HEAD": self.head, "POST": self.post, "PUT": self.refuse, "DELETE": self.refuse}

    @property
    def needs(self) -> Needs:
        """What whoever asks has to be allowed, of a file in no folder; others are at the route that namespaces have."""
        return {
            (method, ONE_ROUTE): Need(READ if method in ("GET", "HEAD") else WRITE, path_of) for method in self.handlers
        }

    async def get(self, request: web.Request) -> web.StreamResponse:
        """GET: the file."""
        _check_page(request)
        return await self._handlers.get(request)

    async def head(self, request: web.Request) -> web.Response:
        """HEAD: what GET would say."""
        _check_page(request)
        return await self._handlers.head(request)

    async def post(self, request: web.Request) -> web.Response:
        """POST: 201; 405 if there is a file."""
        path = path_of(request)
        if is_page(path):
            raise BadPath(
                f"URLs that begin with /{path.partition('/')[0]} are pages of sfss, and no files: choose another name,"
                " or store it with POST /files?path=... and read it at /file?path=..."
            )
        try:
            info = await self._handlers.store(request, path, _only_if_new(path, condition_of(request.headers)))
        except WriteOnce:
            raise NotAllowed(
                f"there is a file at '{path}' already, and files at the URL's root are written once (post.enabled):"
                " choose another path",
                allowed=("GET", "HEAD"),
            ) from None
        return web.Response(status=201, headers={"ETag": answers.etag(info), "Location": location_of_page(path)})

    async def refuse(self, request: web.Request) -> web.Response:
        """PUT, DELETE: 405."""
        _check_page(request)
        raise NotAllowed(
            f"{request.method} can't be done here: files at the URL's root are written once, and then neither replaced"
            " nor removed (post.enabled)",
            allowed=("GET", "HEAD", "POST"),
        )


def _check_page(request: web.Request) -> None:
    """Raises HTTPNotFound for what would be a page of sfss, if there were one."""
    if is_page(path_of(request)):
        raise web.HTTPNotFound


def _only_if_new(path: str, given: Condition | None) -> Condition:
    """The preconditions of a request, and that there is no file, whatever the path's policy says."""

    def check(info: Info | None) -> None:
        if info is not None:
            raise WriteOnce(path)
        if given is not None:
            given(info)

    return check
