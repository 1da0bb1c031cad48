"""What is kept in mind of each answer, on aiohttp's way and on the quick one: counts, and a line of the access log.

Theory of operation. This is on every request's way, and what is done there, among other work, takes several times as
long as alone, for the processor's caches have nothing of what it needs. So of a request that went the quick way it is
only put down what there is to be said. Every few milliseconds all that has been put down is counted, in cells which
``metrics.py`` tells of, and lines are made of it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sfss.web import request_ids
from sfss.web.access_lines import QuickRow, Request
from sfss.web.access_log import AccessLog
from sfss.web.heads import Head
from sfss.web.request_ids import HEADER, REQUEST_ID, RequestIds
from sfss.web.tally import WITH_BODIES, Tally

GATHERED = 0.02  # seconds that what is put down may wait. If there were much more it would leave the caches, too
_BRING = tuple(method.encode() for method in WITH_BODIES)
GONE = 499  # in the place of a status: nobody was there any more to be answered


class Peer(Protocol):
    """Who knows where a request came from."""

    peer: str  # the address at the other end of its connection; "" where it has none


class Watch:
    """Of one front."""

    def __init__(self, tally: Tally, log: AccessLog | None = None) -> None:
        self.ids = RequestIds()
        self.connections = 0  # of clients, that are open
        self._tally = tally
        self._log = log
        self._noted: list[QuickRow] = []
        tally.before_reading = self.settle

    def start(self) -> None:
        """Begin to write the log. To be called in the event loop."""
        if self._log is not None:
            self._log.start()

    async def close(self) -> None:
        """Write what is left of it."""
        self.settle()
        if self._log is not None:
            await self._log.close()

    def answered(self, head: Head, status: int, size: int, began: int, request_id: bytes, connection: Peer) -> None:
        """A request has been answered on the quick way, with a body of ``size`` bytes. ``began``: perf_counter_ns."""
        noted = self._noted
        if not noted:
            asyncio.get_running_loop().call_later(GATHERED, self.settle)
        noted.append((began, time.perf_counter_ns() - began, status, size, connection.peer, request_id, head))

    def settle(self) -> None:
        """Count what has been put down, and have lines made of it."""
        if not self._noted:
            return
        rows, self._noted = self._noted, []
        by_method: dict[bytes, list[QuickRow]] = {}
        for row in rows:
            by_method.setdefault(row[-1].method, []).append(row)
        for method, these in by_method.items():
            _, took, statuses, sent, _, _, heads = zip(*these, strict=True)
            sizes = [head.fields.length or 0 for head in heads] if method in _BRING else sent
            self._tally.responded_all(method, statuses, took, sizes)
        if self._log is not None:
            self._log.write(rows)

    @property
    def middleware(self) -> Middleware:
        """The outermost: it gives each request its id."""

        @web.middleware
        async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
            began = time.perf_counter_ns()
            request[REQUEST_ID] = (request_ids.given(request.headers) or self.ids.new()).decode()
            response = None
            try:
                response = await handler(request)
                return response
            finally:
                self._note(request, response, began)

        return watch

    def _note(self, request: web.Request, response: web.StreamResponse | None, began: int) -> None:
        nanoseconds = time.perf_counter_ns() - began
        status = GONE if response is None else response.status
        sent = 0 if response is None or request.method == "HEAD" else response.content_length or response.body_length
        received = request.content.total_bytes
        size = received if request.method in WITH_BODIES else sent
        self._tally.responded(status, request.method, nanoseconds, size)
        if self._log is not None:
            about = Request(request.method, request.raw_path, request.headers, received)
            request_id = request[REQUEST_ID].encode()
            self.settle()  # those before it
            self._log.write([(began, nanoseconds, status, sent, request.remote or "", request_id, about)])


async def name(request: web.Request, response: web.StreamResponse) -> None:
    """Before an answer leaves, on aiohttp's way: it says which request it is of."""
    if REQUEST_ID in request:
        response.headers[HEADER] = request[REQUEST_ID]
