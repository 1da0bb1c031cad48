"""One client's connection: simple requests go the quick way, and all others to aiohttp, byte by byte as they came.

Theory of operation. This is aiohttp's own protocol, in front of which the bytes are looked at. Between two requests the
next one's head is read by ``heads.parse``. If that makes sense of it, it is known where the request ends. Then it is

* taken the *quick* way (``quick.py``), if it is of that kind and aiohttp has nothing to do here;
* or *passed* to aiohttp, and the bytes of its body, counted, behind it.

Where the request doesn't make sense, or its end isn't known (a body in chunks, HTTP/1.0, an upgrade), aiohttp has the
connection from there on for good. So both always agree on where a request begins, and no bytes that one takes for a
body are a request to the other.

One request at a time is on the quick way; what comes behind it waits here, and nothing more is read when that is much.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from sfss.files import File
from sfss.web import heads
from sfss.web.heads import Head
from sfss.web.outbox import Outbox
from sfss.web.quick import Quick
from sfss.web.watch import Watch

_WAITING = 64 * 1024  # bytes behind a request on the quick way, beyond which no more are read
_JOINED = 64 * 1024  # bytes of a body that are copied, to leave with the head in one system call
_PATIENCE = 0.2  # seconds for the rest of a small body to come
_FOR_GOOD = -1
# What is looked at of aiohttp's protocol, beside its public parts; if one of them has gone, all requests are aiohttp's.
_INSIDES = ("_waiter", "_messages", "_close", "_force_close", "_keepalive_timeout", "_next_keepalive_close_time",
            "_process_keepalive")  # fmt: skip

MakeConnection = Callable[[web.Server], asyncio.Protocol]


def maker(quick: Quick, watch: Watch, **options: Any) -> MakeConnection:
    """What makes the connections of a server; ``options`` as for aiohttp's."""
    if not all(hasattr(web.RequestHandler, name) for name in _INSIDES):
        return lambda server: server()
    outbox = Outbox(quick.in_flight)
    return lambda server: Connection(server, quick, watch, outbox, **options)


class Connection(web.RequestHandler):
    """The asyncio protocol of one client's connection."""

    __slots__ = (
        "_began",
        "_begun",
        "_full",
        "_going_on",
        "_head",
        "_outbox",
        "_passed",
        "_patience",
        "_quick",
        "_request_id",
        "_rest",
        "_taken",
        "_was_used",
        "_watch",
        "opened",
        "peer",
    )

    def __init__(self, server: web.Server, quick: Quick, watch: Watch, outbox: Outbox, **options: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._quick = quick
        self._watch = watch
        self._outbox = outbox  # to be emptied before anything else is written, or the connection closed
        self._rest = b""  # what came and was not looked at yet, or is not whole
        self._passed = 0  # bytes to come of the request that is being passed to aiohttp, or _FOR_GOOD
        self._taken: bytes | None = None  # the request that is on the quick way, ...
        self._head: Head | None = None  # ... its head, ...
        self._began = 0  # ... when it was taken, by time.perf_counter_ns, ...
        self._request_id: bytes | None = None  # ... and what it is called, when somebody has asked for that
        self._going_on = False
        self._begun = False  # aiohttp's own task, which waits for requests, has had its turn
        self.opened: File | None = None  # the file that the request wants which aiohttp is given next
        self._was_used = False  # since aiohttp last looked whether this connection is idle
        self._full = False  # nothing more is read
        self.peer = ""  # ``Asker``'s
        self._patience: asyncio.TimerHandle | None = None  # while the rest of a body is waited for

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._watch.connections += 1
        name = transport.get_extra_info("peername")
        self.peer = name[0] if isinstance(name, tuple) else ""
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._passed == _FOR_GOOD or not data:  # none: aiohttp asks itself to go on with what it has
            super().data_received(data)
            return
        self._rest = self._rest + data if self._rest else data
        self._go_on()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._go_on()

    def eof_received(self) -> None:
        self._outbox.send()
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._watch.connections -= 1
        self._rest = b""
        self._stop_waiting()
        super().connection_lost(exc)

    def _process_keepalive(self) -> None:
        """aiohttp's timer for connections that are idle has run out; it sees nothing of what went the quick way."""
        if self._was_used:
            self._was_used = False
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    # --- what the quick way calls ---

    @property
    def request_id(self) -> str:
        """``Asker``'s."""
        return self._named().decode()

    def answer(self, status: int, head: bytes, body: bytes | memoryview, *, last: bool) -> None:
        """``Asker``'s."""
        asked, request_id, self._taken = self._head, self._named(), None
        assert asked is not None
        transport = self.transport
        if transport is not None and not transport.is_closing():  # the client is still there
            if len(body) <= _JOINED:
                self._outbox.put(transport, b"".join((head, b"X-Request-ID: ", request_id, heads.END, body)))
            else:
                self._outbox.send()
                transport.write(b"".join((head, b"X-Request-ID: ", request_id, heads.END)))
                transport.write(body)
            if last or self._rest:
                self._outbox.send()
            if last:
                self.close()
                transport.close()
        self._watch.answered(asked, status, len(body), self._began, request_id, self)
        if self._rest:
            self._go_on()

    def leave(self, file: File) -> None:
        """``Asker``'s."""
        request, self._taken = self._taken, None
        assert request is not None
        self.opened = file
        self._outbox.send()
        super().data_received(request)
        self._go_on()

    # --- within ---

    def _named(self) -> bytes:
        """What the request on the quick way is called: as its client says, if he does."""
        if self._request_id is None:
            assert self._head is not None
            self._request_id = self._head.request_id or self._watch.ids.new()
        return self._request_id

    def _go_on(self) -> None:
        """Work on what has come, as far as that can be."""
        if self._going_on:  # further up; it sees what has changed
            return
        self._going_on = True
        try:
            while self._rest and self._taken is None and not self._paused and self._step():
                pass
        finally:
            self._going_on = False
        if (
            (len(self._rest) > _WAITING) != self._full
            and self.transport is not None
            and not self.transport.is_closing()
        ):
            self._full = not self._full
            if self._full:
                self.transport.pause_reading()
            elif not (self._reading_paused or self._buffer_paused):  # aiohttp has its own reasons
                self.transport.resume_reading()

    def _step(self) -> bool:
        """Look at one request, or one part of one; False if more of it has to come."""
        if self._passed:
            self._pass(self._passed)
            return True
        end = self._rest.find(heads.END)
        if end < 0 and len(self._rest) <= heads.MAX_HEAD:
            return False
        head = heads.parse(self._rest, end) if 0 <= end <= heads.MAX_HEAD else None
        if head is None:
            self._passed = _FOR_GOOD
            self._pass(len(self._rest))
            return False
        if not self._begun:
            self._begun = True
            if self._waiter is None:  # who connects sends at once: before the task that was made then
                self._loop.call_soon(self._go_on)
                return False
        start = end + len(heads.END)
        wanted = self._quick.body_wanted(head) if self._is_idle() else None
        if wanted is None:
            self._pass(start + (head.fields.length or 0))
            return True
        if len(self._rest) < start + wanted:
            if self._patience is None:
                self._patience = self._loop.call_later(_PATIENCE, self._pass_unfinished)
            return False
        self._take(head, start, start + wanted)
        return True

    def _pass_unfinished(self) -> None:
        """It is a slow client's body: let aiohttp wait for the rest, who knows how long."""
        self._patience = None
        head = heads.parse(self._rest, end := self._rest.find(heads.END))
        if head is not None:
            self._pass(end + len(heads.END) + (head.fields.length or 0))

    def _is_idle(self) -> bool:
        """Whether aiohttp waits for a request, and would take one."""
        waiter = self._waiter
        return waiter is not None and not (waiter.done() or self._messages or self._close or self._force_close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _take(self, head: Head, start: int, stop: int) -> None:
        if self._patience is not None:
            self._stop_waiting()
        request = self._rest
        if len(request) == stop:
            self._taken, self._rest = request, b""
        else:
            self._taken, self._rest = request[:stop], request[stop:]
        self._was_used = True
        self._head, self._request_id, self._began = head, None, time.perf_counter_ns()
        self._quick.take(head, request[start:stop], self)

    def _pass(self, size: int) -> None:
        """Give aiohttp so many bytes, of which some may still have to come."""
        self.opened = None
        data, self._rest = self._rest[:size], self._rest[size:]
        if self._passed != _FOR_GOOD:
            self._passed = size - len(data)
        self._outbox.send()
        super().data_received(data)
