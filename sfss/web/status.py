"""``/status``, ``/livez`` and ``/readyz``: what the nodes and this front say of themselves."""

from __future__ import annotations

import os
import time

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

import sfss
from sfss.errors import BadRequest
from sfss.files import Files
from sfss.web.tally import COPIES, Tally


class StatusHandlers:
    """The handlers, over the counts that they show."""

    def __init__(self, files: Files, tally: Tally) -> None:
        self._files = files
        self._tally = tally

    @property
    def counting(self) -> Middleware:
        """A middleware that counts responses."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            response = await handler(request)
            self._tally.responded(response.status)
            return response

        return count

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
        """Counts are those of all workers together; what is said of nodes and of repair is this one's own view."""
        nodes, tally, now = self._files.nodes(), self._tally, time.time()
        responses = tally.responses()
        return {
            "version": sfss.__version__,
            "pid": str(os.getpid()),
            "time": str(int(now)),
            "uptime": str(int(now - tally.since)),
            "requests": str(sum(responses.values())),
            "responses": {str(status): str(count) for status, count in responses.items()},
            "workers": [
                {
                    "pid": str(place.pid),
                    "uptime": str(int(now - place.started) if place.pid else 0),
                    "starts": str(place.starts),
                    "requests": str(place.requests),
                }
                for place in tally.places()
            ],
            "nodes": nodes,
            "copies": {name: str(tally.total(name)) for name in COPIES},
            "repair": {
                name: value if isinstance(value, str) else str(value) for name, value in self._files.repair().items()
            },
            "warnings": [
                f"node {node} throws files away when it is full (memcached without -M): don't keep files there"
                for node, state in nodes.items()
                if state.get("evicting")
            ],
        }
