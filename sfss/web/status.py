"""``/status``, ``/livez`` and ``/readyz``: what the nodes and this front say of themselves."""

from __future__ import annotations

import os
import time
from collections import Counter

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

import sfss
from sfss.errors import BadRequest
from sfss.files import Files


class StatusHandlers:
    """The handlers, and the counts that they show."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._started = time.time()
        self._responses: Counter[int] = Counter()  # by status

    @property
    def counting(self) -> Middleware:
        """A middleware that counts responses."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            response = await handler(request)
            self.responded(response.status)
            return response

        return count

    def responded(self, status: int) -> None:
        """Count a response."""
        self._responses[status] += 1

    def count_of(self, status: int) -> int:
        """Responses of this status, since the start."""
        return self._responses[status]

    async def status(self, request: web.Request) -> web.Response:
        """GET /status: every node's STATS; with ``format=full`` the front's figures too."""
        form = request.query.get("format", "flat")
        if form not in ("flat", "full"):
            raise BadRequest(f"format={form}: there are flat, which is the default, and full")
        storages = await self._files.stats()
        if form == "flat":
            return web.json_response(storages)
        return web.json_response({"storages": storages, "webserver": self._webserver()})

    async def livez(self, _request: web.Request) -> web.Response:
        """GET /livez: 200 as long as the process answers at all."""
        return web.json_response({"status": "alive"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """GET /readyz: 200 if at least one node is here, so that requests can be served; else 503."""
        nodes = {node: state["away"] or "here" for node, state in self._files.nodes().items()}
        ready = "here" in nodes.values()
        body = {"status": "ready" if ready else "no node is here", "nodes": nodes}
        return web.json_response(body, status=200 if ready else 503)

    def _webserver(self) -> dict[str, object]:
        nodes = self._files.nodes()
        return {
            "version": sfss.__version__,
            "pid": str(os.getpid()),
            "time": str(int(time.time())),
            "uptime": str(int(time.time() - self._started)),
            "requests": str(self._responses.total()),
            "responses": {str(status): str(count) for status, count in sorted(self._responses.items())},
            "nodes": nodes,
            "copies": {name: str(count) for name, count in self._files.counts().items()},
            "repair": {
                name: value if isinstance(value, str) else str(value) for name, value in self._files.repair().items()
            },
            "warnings": [
                f"node {node} throws files away when it is full (memcached without -M): don't keep files there"
                for node, state in nodes.items()
                if state.get("evicting")
            ],
        }
