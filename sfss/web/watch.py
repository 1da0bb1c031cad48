"""What is kept in mind of each answer, on aiohttp's way and on the quick one: counts, and a line of the access log.

This is on every request's way, so it does little: cells are counted up, which ``metrics.py`` tells of, and what a line
is to say is noted.
"""

from __future__ import annotations

import time
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sfss.web import request_ids
from sfss.web.access_lines import Request, Row
from sfss.web.access_log import AccessLog
from sfss.web.heads import Head
from sfss.web.request_ids import HEADER, REQUEST_ID, RequestIds
from sfss.web.tally import WITH_BODIES, Tally

GONE = 499  # in the place of a status: nobody was there any more to be answered


def _nothing() -> None:
    """No log, no lines."""


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
        self._noted: list[Row] | None
        self._noted, self._lines_soon = (None, _nothing) if log is None else (log.noted, log.lines_soon)

    def start(self) -> None:
        """Begin to write the log. To be called in the event loop."""
        if self._log is not None:
            self._log.start()

    async def close(self) -> None:
        """Write what is left of it."""
        if self._log is not None:
            await self._log.close()

    def answered(self, head: Head, status: int, size: int, began: int, request_id: bytes, connection: Peer) -> None:
        """A request has been answered on the quick way, with a body of ``size`` bytes. ``began``: perf_counter_ns."""
        nanoseconds = time.perf_counter_ns() - began
        received = head.fields.length
        self._tally.responded(status, head.method, nanoseconds, size if received is None else received)
        noted = self._noted
        if noted is not None:
            if not noted:
                self._lines_soon()
            noted.append((began, nanoseconds, status, size, connection.peer, request_id, head))

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
            self._log.note((began, nanoseconds, status, sent, request.remote or "", request_id, about))


async def name(request: web.Request, response: web.StreamResponse) -> None:
    """Before an answer leaves, on aiohttp's way: it says which request it is of."""
    if REQUEST_ID in request:
        response.headers[HEADER] = request[REQUEST_ID]
