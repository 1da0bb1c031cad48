"""One client of a node: its requests in order, its replies in the same order.

A request is carried out whole, and at once, in its turn. What may wait is

* its turn: until the entries that it needs are in memory (``reader``), or a change until there is room (``gate``);
* its reply: until it is as durable as was promised (``committer``). What follows it is held behind it.

A connection is read only while it has no backlog: requests that wait, output that the client doesn't take, output that
waits for the disk. Each has its bound below. While a request waits for the disk a few more are read and looked at, so
that what they need is read along with it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast

from sfss.memcache import Refusal, Request, RequestParser
from sfss.node import intake
from sfss.node.commands import MAY_CHANGE, waits
from sfss.node.committer import failure
from sfss.node.engine import KIB, MIB
from sfss.node.replies import END, Pieces, Reply

if TYPE_CHECKING:
    from sfss.node.server import Server

log = logging.getLogger("sfss.node")

OUTPUT = 256 * KIB  # bytes of replies that are passed on at once, and that a client may leave untaken
HELD = 1 * MIB  # bytes of replies that may wait for the disk, each counted with what it costs
HELD_REPLY = 100  # bytes that a held reply costs beside its own
SLICE = 200  # requests, or keys of one, before other connections have their turn: some milliseconds
SLOW = 0.1  # seconds on the loop that make a command a slow one
RECEIVE = 64 * KIB  # bytes read from a socket at a time: some thousands of small requests, not more ...
RECEIVE_MUCH = 256 * KIB  # ... or so many of a large value that lacks them
FEED = 4 * KIB  # bytes that are made requests at a time: of many short lines each takes far more than its size
AHEAD = 32  # requests, or keys of one, that are looked at while the first of them waits for the disk ...
AHEAD_BYTES = 256 * KIB  # ... and bytes of values that they may hold

_NOTHING = memoryview(b"")

TOO_MANY = b"SERVER_ERROR Too many open connections\r\n"


class Connection(asyncio.BufferedProtocol):
    """A connection, as asyncio knows it."""

    __slots__ = (
        "_asked", "_awaiting", "_ending", "_events", "_held", "_held_bytes", "_large", "_lost", "_parser", "_paused",
        "_reading", "_ready", "_ready_bytes", "_request", "_rest", "_room", "_scheduled", "_server", "_transport",
        "_unfed", "ticket",
    )  # fmt: skip

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = RequestParser(server.settings.max_item_size)
        self._unfed = _NOTHING  # what came and was not looked at yet
        self._events: deque[Request | Refusal] = deque()  # to be carried out
        self._asked = time.perf_counter()  # when work on the last request began, or at first the connection
        self._request: Request | None = None  # the one whose reply is on its way in pieces ...
        self._rest: Pieces | None = None  # ... and the pieces to come
        self._awaiting = False  # the next one waits for entries from the disk, or for room
        self._ready: list[bytes] = []  # replies to be sent when this slice of work is done
        self._ready_bytes = 0
        self._held: deque[tuple[int, bytes]] = deque()  # tickets, 0 for none, and replies; behind all that is ready
        self._held_bytes = 0
        self.ticket = 0  # the last one that the committer gave; only it sets this
        self._large = 0  # bytes of large values that are on their way, or wait to be carried out
        self._room = True  # for them
        self._reading = True
        self._paused = False  # the client doesn't take what was sent
        self._scheduled = False  # work goes on in a later turn of the loop
        self._ending = False  # no more requests are read; closes when all is answered
        self._lost = False

    # --- what asyncio calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        server, counters = self._server, self._server.stats.counters
        counters.total_connections += 1
        if server.stopping or len(server.connections) >= server.settings.max_connections:
            counters.rejected_connections += 1
            self._lost = True
            self._transport.write(TOO_MANY)
            self._transport.close()
            return
        server.connections.add(self)
        server.stats.connections = server.connections
        server.stats.curr_connections = len(server.connections)
        self._transport.set_write_buffer_limits(high=OUTPUT)
        # or a machine that vanished would keep its connection for good
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """What was not carried out is dropped; what was stays done, answered or not."""
        self._lost = True
        self._unfed = _NOTHING
        self._events.clear()
        self._held.clear()
        self._ready.clear()
        self._rest = None
        self._server.intake.done(self)
        self._server.gate.forget(self._wake)
        self._server.left(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._server.received if self._parser.lacks < RECEIVE_MUCH else self._server.received_much

    def buffer_updated(self, nbytes: int) -> None:
        self._server.stats.counters.bytes_read += nbytes
        data = self._server.received_much[:nbytes]
        if nbytes <= self._parser.lacks or (nbytes <= FEED and self._has_backlog() and not self._unfed):
            self._feed(data)
        else:
            self._unfed = memoryview(b"".join((self._unfed, data)))
        self._work()

    def eof_received(self) -> bool:
        """The client sends no more; it may still read, so what it asked is answered first."""
        self.end()
        return True

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._work()

    # --- what the server and its committer call ---

    def end(self) -> None:
        """Read no more, answer what came, and close."""
        self._ending = True
        self._work()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    def release(self, ticket: int, error: bytes | None) -> None:
        """The sync of this number is over: send what waited for it, or ``error`` in its place."""
        while self._held and self._held[0][0] <= ticket:
            waited_for, reply = self._held.popleft()
            self._held_bytes -= len(reply) + HELD_REPLY
            self._add_ready(error if error is not None and waited_for == ticket else reply)
        self._work_among_others()

    def read_on(self) -> None:
        """There is room for the value that is on its way."""
        self._room = True
        self._see_to_what_comes()

    def stalled(self) -> None:
        """Others wait for the room that this one's value has, and nothing has happened here for long."""
        sends_nothing = self._reading and bool(self._parser.lacks)
        takes_nothing = self._paused or self._transport.is_closing()
        if sends_nothing or takes_nothing:  # else it is not the client who is late
            self.abort()

    def figures(self) -> list[tuple[str, object]]:
        """What ``stats conns`` tells, in memcached's words: by the number of its socket, with the nearest state."""
        if self._transport.is_closing():
            return []
        about = self._transport.get_extra_info
        number = about("socket").fileno()
        return [
            (f"{number}:addr", _address(about("peername"))),
            (f"{number}:listen_addr", _address(about("sockname"))),
            (f"{number}:state", self._state()),
            (f"{number}:secs_since_last_cmd", int(time.perf_counter() - self._asked)),
        ]

    def _state(self) -> str:
        if self._ending:
            return "conn_closing"
        if self._awaiting or self._held:
            return "conn_io_queue"
        if self._paused:
            return "conn_mwrite"
        if self._request is not None:
            return "conn_parse_cmd"
        return "conn_nread" if self._parser.lacks else "conn_read"

    # --- work ---

    def _work(self) -> None:
        """Carry out what can be carried out now, send what can be sent, and see to what comes next."""
        budget = SLICE
        while budget > 0 and not self._stuck() and (done := self._step(budget)):
            budget -= done
            if self._ready_bytes >= OUTPUT:
                self._send()
        self._send()
        self._see_to_room()
        self._see_to_what_comes()

    def _work_among_others(self) -> None:
        """The same, and raises nothing: others are to be woken after this one."""
        try:
            self._work()
        except Exception:
            log.exception("a bug: the connection is closed")
            self._transport.abort()

    def _stuck(self) -> bool:
        return self._awaiting or self._paused or self._held_bytes > HELD or self._lost

    def _step(self, most: int) -> int:
        """Carry out one request, or one piece of one, or a run of ``most`` at most; how many, or 0 if the next has to
        wait, or there is none."""
        if self._rest is not None:
            request = cast("Request", self._request)
            if not self._has(self._rest.needs(1), self._rest.needs(AHEAD)) or not self._is_admitted(request):
                return 0
            self._carry_out(request)
        elif self._events:
            event = self._events[0]
            if isinstance(event, Request):
                if not self._may(event):
                    return 0
                self._events.popleft()
                self._take(event)
            else:
                self._events.popleft()
                self._refuse(event)
        elif self._unfed:
            return self._take_run(most) or self._feed_on()
        else:
            return 0
        return 1

    def _take_run(self, most: int) -> int:
        """Carry out the plain requests that come next, the short way; how many that were."""
        if not self._parser.idle:
            return 0
        began = time.perf_counter()
        run = self._server.runs.take(self._unfed, most)
        if run is None:
            return 0
        self._asked = began
        self._unfed = self._unfed[run.size :]
        ticket = self._server.committer.ticket(self) if run.binds else 0
        for reply in run.replies:
            self._emit(reply, ticket)
        if time.perf_counter() - began > SLOW:
            self._server.stats.counters.slow_cmd += 1
        return run.requests

    def _feed_on(self) -> int:
        """Make requests of some of what came. Of one that has begun only the rest, for behind it a run may begin."""
        size = FEED
        if self._parser.lacks:
            size = self._parser.lacks
        elif not self._parser.idle:
            size = bytes(self._unfed[:FEED]).find(b"\n") + 1 or FEED
        data, self._unfed = self._unfed[:size], self._unfed[size:]
        self._feed(data)
        return 1

    def _may(self, request: Request) -> bool:
        """Whether the request can be carried out now; if not, this connection is woken when it is to be tried again."""
        needs = self._server.commands.needs(request)
        if needs and not self._has(needs):
            self._look_at(itertools.islice(self._events, 1, AHEAD))
            return False
        return request.verb not in MAY_CHANGE or self._is_admitted(request)

    def _is_admitted(self, request: Request) -> bool:
        """Whether there is room for what the request, or the next piece of it, may change."""
        if self._server.commands.would_change(request) and not self._server.gate.admits(self._wake):
            self._awaiting = True
            return False
        return True

    def _has(self, needs: Sequence[bytes], ahead: Sequence[bytes] = ()) -> bool:
        """Whether these entries are in memory; if not, they are fetched, and so are the first few of ``ahead``."""
        missing = self._server.store.missing(needs)
        if not missing:
            return True
        self._awaiting = True
        self._server.reader.fetch(missing, self._wake)
        self._server.reader.fetch_ahead(self._server.store.missing(ahead[len(needs) :]), self._wake)
        return False

    def _look_at(self, events: Iterable[Request | Refusal]) -> None:
        """Have fetched what these requests need, whose turn will come, as far as that is of use."""
        needs = [need for event in events if isinstance(event, Request) for need in self._server.commands.needs(event)]
        self._server.reader.fetch_ahead(self._server.store.missing(needs), self._wake)

    def _wake(self) -> None:
        """Something that was waited for may be here."""
        self._awaiting = False
        self._work_among_others()

    def _feed(self, data: bytes | memoryview) -> None:
        """Make requests of what came."""
        events = self._parser.feed(data)
        self._events.extend(events)
        if self._awaiting:
            self._look_at(events[:AHEAD])

    def _take(self, request: Request) -> None:
        if request.verb == b"quit":
            self._hang_up()
        else:
            self._request = request
            self._carry_out(request)

    def _refuse(self, refusal: Refusal) -> None:
        if not refusal.noreply:
            self._emit(refusal.line + b"\r\n", 0)
        if refusal.fatal:
            self._hang_up()

    def _hang_up(self) -> None:
        self._events.clear()
        self._unfed = _NOTHING
        self._ending = True

    def _carry_out(self, request: Request) -> None:
        """Begin ``request``, or go on with it. What it raises is its reply: the connection, and the node, go on."""
        self._asked = began = time.perf_counter()
        changes = self._server.store.changes
        last = True
        try:
            reply: Reply = next(self._rest, END) if self._rest is not None else self._server.commands.answer(request)
            if isinstance(reply, Pieces):
                self._rest, reply = reply, b""
            last = self._rest is None or reply is END
        except Exception as error:  # noqa: BLE001  (reported, counted and answered)
            self._server.report(request, error)
            reply = b"" if request.noreply else failure(error)
        if last:
            self._rest = self._request = None
        # Pieces may leave as they come: a reply counts only with its end, and that waits for the disk.
        binds = last and (waits(request) or self._server.store.changes != changes)
        ticket = self._server.committer.ticket(self) if binds else 0
        # Quiet (a meta command's q) is not noreply: if the disk fails, it is said in the place of what wasn't.
        if reply or (ticket and not request.noreply):
            self._emit(reply, ticket)
        if time.perf_counter() - began > SLOW:
            self._server.stats.counters.slow_cmd += 1

    def _emit(self, reply: bytes, ticket: int) -> None:
        if ticket or self._held:
            self._held.append((ticket, reply))
            self._held_bytes += len(reply) + HELD_REPLY
        else:
            self._add_ready(reply)

    def _add_ready(self, reply: bytes) -> None:
        self._ready.append(reply)
        self._ready_bytes += len(reply)

    def _send(self) -> None:
        if not self._ready or self._lost or self._transport.is_closing():
            return
        self._server.stats.counters.bytes_written += self._ready_bytes
        output = self._ready[0] if len(self._ready) == 1 else b"".join(self._ready)
        self._ready.clear()
        self._ready_bytes = 0
        self._transport.write(output)

    def _see_to_what_comes(self) -> None:
        """Go on in a later turn, or close, or read on: whatever is due."""
        if self._lost:
            return
        backlog = self._has_backlog()
        if backlog and not self._scheduled and not self._stuck():
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._go_on)
        if self._ending and not backlog and not self._held:
            self._transport.close()
        self._read(self._room and not self._ending and (self._is_ahead() if self._awaiting else not (
            backlog or self._stuck())))  # fmt: skip

    def _has_backlog(self) -> bool:
        """Whether something that came waits to be carried out."""
        return bool(self._events) or bool(self._unfed) or self._rest is not None

    def _is_ahead(self) -> bool:
        """Whether a few requests more may be read while one waits."""
        if self._paused or self._unfed or self._held_bytes > HELD or len(self._events) >= AHEAD:
            return False
        return sum(len(event.data) for event in self._events if isinstance(event, Request)) < AHEAD_BYTES

    def _see_to_room(self) -> None:
        """Ask for room for a large value, say that more of it came, or that it was carried out."""
        if self._lost or not (self._large or self._parser.lacks > intake.FREE):
            return
        size = self._parser.size if self._parser.lacks else 0
        size = sum((len(event.data) for event in self._events if isinstance(event, Request)), size)
        if size <= intake.FREE:
            size = 0
        if size == self._large:
            self._server.intake.saw(self)
            return
        self._server.intake.done(self)
        self._large = size
        self._room = not size or self._server.intake.ask(self, size)

    def _go_on(self) -> None:
        self._scheduled = False
        self._work()

    def _read(self, wanted: bool) -> None:
        if wanted == self._reading or self._transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()


def _address(name: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """The name of a socket, as memcached writes it."""
    host, port = name[:2]
    return f"tcp6:[{host}]:{port}" if ":" in host else f"tcp:{host}:{port}"
