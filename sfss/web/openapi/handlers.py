"""``GET /openapi.json``: the document, made once for a configuration, and sent again only to who hasn't this one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
from aiohttp import web

from sfss.config import Settings
from sfss.web.access import Guard, Needs
from sfss.web.conditional import Outcome, Validators, evaluate
from sfss.web.headers import combined
from sfss.web.openapi.document import Route, document
from sfss.web.openapi.offer import Offer, offer


class OpenApiHandlers:
    """The handlers, over one front's routes and settings."""

    def __init__(self, settings: Settings, guard: Guard, needs: Needs) -> None:
        """``needs``: those that the guard goes by."""
        self._guard = guard
        self._needs = needs
        self._routes: Sequence[Route] = ()
        self._made: tuple[Offer, bytes, str] | None = None  # of which offer, the document, its ETag
        self.change(settings)

    def change(self, settings: Settings) -> None:
        """From now on of other settings, which the guard goes by already."""
        self._offer = offer(settings, is_open=self._guard.is_open)

    def know(self, app: web.Application) -> None:
        """Learn the routes, when there are all of them."""
        routes = [(route.method, route.resource) for route in app.router.routes()]
        self._routes = [(method, resource.canonical) for method, resource in routes if resource is not None]

    async def get(self, request: web.Request) -> web.Response:
        """GET: the document, or 304."""
        content, etag = self.document()
        headers = {"ETag": etag, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        asked = combined(request.headers, ("If-None-Match",))
        if evaluate(asked, Validators(etag, 0), reading=True) is Outcome.NOT_MODIFIED:
            return web.Response(status=304, headers=headers)
        return web.Response(body=content, headers=headers, content_type="application/json")

    def document(self) -> tuple[bytes, str]:
        """The document, and its ETag. It is made when it is first asked for: most fronts never are."""
        if self._made is None or self._made[0] != self._offer:
            content = msgspec.json.encode(document(self._routes, self._needs, self._offer))
            self._made = self._offer, content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        _, content, etag = self._made
        return content, etag
