"""A node's connections: bytes in, replies out in order, each write answered when it is as durable as was promised.

Theory of operation. Everything runs on one event loop; a request is carried out whole, and at once, in the order in
which it came, so what one client has written the next request sees. Only replies wait:

* **Group commit.** With ``durability = "fsync"`` a writing command's reply is held until a sync that began after the
  write has succeeded. One sync runs at a time, in a thread of its own; all that is written meanwhile, on whatever
  connection, is covered by the next one. ``Committer`` numbers the syncs: a reply that waits has a *ticket*, the number
  of its sync. If that fails, the reply becomes ``SERVER_ERROR``. Replies of reads don't wait: like memcached, and like
  a database whose other readers see a commit before the disk does, they tell what has been written so far.
* **Order.** What follows a held reply on its connection is held behind it.
* **Bounds.** A connection is read only while it has no backlog: requests that wait for their turn, output that the
  client doesn't take, output that waits for the disk. Each has its bound below, a request for many keys is answered
  piece by piece, and after a slice of work the other connections have their turn.

With ``durability = "os"`` replies leave at once: a write survives the death of the process, not of the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, cast

import sfss
from sfss.errors import ConfigError, OutOfSpace
from sfss.memcache import OUT_OF_SPACE, Refusal, Request, RequestParser
from sfss.node.commands import END, Commands, Reply, waits
from sfss.node.control import Control
from sfss.node.stats import Counters, Stats
from sfss.node.store import MAX_OPEN_FILES, MIB, Store

log = logging.getLogger("sfss.node")

RECEIVE = 64 * 1024  # bytes read from a socket at a time: some thousands of small requests, not more
OUTPUT = 256 * 1024  # bytes of replies that are passed on at once, and that a client may leave untaken
HELD = 1 * MIB  # bytes of replies that may wait for the disk on one connection, each counted with what it costs
HELD_REPLY = 100  # bytes that a held reply costs beside its own
SLICE = 200  # requests, or keys of one, before other connections have their turn: some milliseconds
SLOW = 0.1  # seconds on the loop that make a command a slow one
BACKLOG = 1024  # connections that the kernel may keep until they are accepted: a whole farm of clients comes at once
STOP_BOUND = 10.0  # seconds that a graceful stop may take before clients that don't read are cut off
REPORT_EVERY = 1.0  # seconds between failures of commands that are written to the log; all are counted
SPARE_FILES = 100  # descriptors beside RocksDB's and the connections'

TOO_MANY = b"SERVER_ERROR Too many open connections\r\n"


@dataclass(frozen=True)
class NodeSettings:
    """What a node is told when it starts."""

    data: Path  # the data directory; made if it isn't there
    host: str = "127.0.0.1"
    port: int = 7900  # 0: any that is free
    durability: Literal["fsync", "os"] = "fsync"
    max_item_size: int = 8 * MIB  # bytes of a value
    max_connections: int = 10_000
    recover: bool = False  # go on with what is left of a directory that is damaged
    stop_with_parent: bool = False  # stop when standard input ends: a parent's pipe does, however hard the parent dies


async def serve(settings: NodeSettings) -> None:
    """Be a node until SIGTERM or SIGINT, or as ``stop_with_parent`` says. Raises ConfigError if it can't start."""
    _allow_descriptors(settings.max_connections)
    server = Server(settings)
    await server.start()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if settings.stop_with_parent:
        _on_end_of_input(loop, stopped)
    try:
        await stopped.wait()
    finally:
        await server.stop()


def _on_end_of_input(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    """Set ``stopped`` when standard input ends; in a thread, for it may be a file or a terminal as well as a pipe."""

    def watch() -> None:
        with contextlib.suppress(OSError):  # closed: it has ended
            while os.read(sys.__stdin__.fileno() if sys.__stdin__ else 0, 1024):
                pass
        with contextlib.suppress(RuntimeError):  # the loop is closed: the node has stopped already
            loop.call_soon_threadsafe(stopped.set)

    threading.Thread(target=watch, name="sfss-parent", daemon=True).start()


def _allow_descriptors(connections: int) -> None:
    """Raise the limit of open files as far as the connections need it and the system lets us."""
    wanted = connections + MAX_OPEN_FILES + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning("open files are limited to %d: %d connections want %d (ulimit -n)", allowed, connections, wanted)


class Server:
    """A node in a running loop: ``start``, use ``port``, ``stop``."""

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self.connections: set[Connection] = set()
        self.received = memoryview(bytearray(RECEIVE))  # all connections read into it; it is consumed on the spot
        self.port = settings.port
        self.stopping = False
        self._emptied = asyncio.Event()  # set when the last connection has gone
        self._reported = -REPORT_EVERY  # when a command's failure was last written to the log

    async def start(self) -> None:
        """Open the data directory and listen. Raises ConfigError."""
        settings = self.settings
        self.store = Store(settings.data, recover=settings.recover)
        self.stats = Stats(
            self.store,
            Counters(),
            durability=settings.durability,
            max_item_size=settings.max_item_size,
            max_connections=settings.max_connections,
            started=time.monotonic(),
        )
        self.commands = Commands(self.store, self.stats)
        self.committer = Committer(self.store, self.stats, durable=settings.durability == "fsync")
        self.control = Control(self.store, self.committer.run)
        try:
            await self.control.start()
            self._listener = await self._listen()
        except BaseException:
            await self.control.close()
            self.committer.close()
            self.store.close()
            raise
        self.port = self._listener.sockets[0].getsockname()[1]
        self.stats.address = settings.host, self.port
        log.info(
            "sfss node %s: %s:%d, data in %s, durability %s, %d items",
            sfss.__version__,
            settings.host,
            self.port,
            settings.data.absolute(),
            settings.durability,
            self.store.items,
        )

    async def _listen(self) -> asyncio.Server:
        host, port = self.settings.host, self.settings.port
        loop = asyncio.get_running_loop()
        try:
            # asyncio sets TCP_NODELAY on each connection by itself
            return await loop.create_server(partial(Connection, self), host, port, backlog=BACKLOG, reuse_address=True)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                what = f"port {port} of {host} is in use: stop what listens there or choose another with --port"
            else:
                what = f"can't listen on port {port} of {host}: {error.strerror or error}"
            raise ConfigError(what) from error

    async def stop(self) -> None:
        """Take no more requests, answer those that came, and close the data directory with nothing left to recover."""
        self.stopping = True
        self._listener.close()
        self._emptied.clear()
        for connection in list(self.connections):
            connection.end()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), STOP_BOUND)
        for connection in list(self.connections):
            connection.abort()
        await self.control.close()
        try:
            await self.committer.run(self.store.close)  # behind a sync that runs
        except Exception:
            log.exception("the data directory could not be closed in good order; the next start will recover it")
        self.committer.close()
        log.info("sfss node: %s:%d has stopped", self.settings.host, self.port)

    def report(self, request: Request, error: Exception) -> None:
        """A command has failed. Every one is counted; a disk that is full or broken must not fill the log too."""
        self.stats.counters.failed_cmd += 1
        now = time.monotonic()
        if now - self._reported >= REPORT_EVERY:
            self._reported = now
            expected = isinstance(error, OutOfSpace)
            verb = request.verb.decode(errors="backslashreplace")
            log.error("the command '%s' failed: %s", verb, error, exc_info=None if expected else error)

    def left(self, connection: Connection) -> None:
        """A connection has gone."""
        self.connections.discard(connection)
        self.stats.curr_connections = len(self.connections)
        if not self.connections:
            self._emptied.set()


class Committer:
    """Group commit: one sync at a time, and word to the connections whose replies it was to cover.

    Syncs are numbered from 1. Number ``_next`` will cover all that is written now; ``_next - 1`` runs or is done.
    """

    def __init__(self, store: Store, stats: Stats, *, durable: bool) -> None:
        self._store = store
        self._stats = stats
        self._durable = durable
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "sfss-sync")
        self._next = 1
        self._running = False
        self._scheduled = False
        self._waiting: list[Connection] = []  # for sync _next
        self._covered: list[Connection] = []  # by the sync that runs

    def ticket(self, connection: Connection) -> int:
        """The number of the sync that makes durable all that was written until now; 0 if all is, as far as promised.

        ``connection.release`` is called when that sync is over.
        """
        if not self._durable:
            return 0
        if self._store.unsynced:
            ticket, told = self._next, self._waiting
            self._schedule()
        elif self._running:
            ticket, told = self._next - 1, self._covered
        else:
            return 0
        if connection.ticket != ticket:  # tickets only grow, so it is told of each sync once
            connection.ticket = ticket
            told.append(connection)
        return ticket

    async def run(self, function: Callable[[], None]) -> None:
        """Run ``function`` where the syncs run, behind them."""
        await self._loop.run_in_executor(self._thread, function)

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False)

    def _schedule(self) -> None:
        """Begin a sync in the loop's next turn, so that what came in on other connections in this one is covered."""
        if not (self._running or self._scheduled):
            self._scheduled = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._scheduled = False
        self._running = True
        self._next += 1
        self._covered, self._waiting = self._waiting, []
        self._store.unsynced = False
        self._loop.run_in_executor(self._thread, self._store.sync).add_done_callback(self._end)

    def _end(self, sync: asyncio.Future[None]) -> None:
        self._running = False
        self._stats.counters.fsyncs += 1
        error = None if sync.cancelled() else sync.exception()
        if error is not None:
            self._stats.counters.failed_fsyncs += 1
            log.error("fsync failed, %d connections are told: %s", len(self._covered), error)
        covered, self._covered = self._covered, []
        for connection in covered:
            connection.release(self._next - 1, None if error is None else failure(error))
        if self._waiting:
            self._schedule()


class Connection(asyncio.BufferedProtocol):
    """One client: its requests in order, its replies in the same order."""

    __slots__ = (
        "_ending", "_events", "_held", "_held_bytes", "_lost", "_parser", "_paused", "_reading", "_ready",
        "_ready_bytes", "_request", "_rest", "_scheduled", "_server", "_transport", "ticket",
    )  # fmt: skip

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = RequestParser(server.settings.max_item_size)
        self._events: deque[Request | Refusal] = deque()  # to be carried out
        self._request: Request | None = None  # the one whose reply is on its way in pieces ...
        self._rest: Iterator[bytes] | None = None  # ... and the pieces to come
        self._ready: list[bytes] = []  # replies to be sent when this slice of work is done
        self._ready_bytes = 0
        self._held: deque[tuple[int, bytes]] = deque()  # tickets, 0 for none, and replies; behind all that is ready
        self._held_bytes = 0
        self.ticket = 0  # the last one that the committer gave; only it sets this
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
        server.stats.curr_connections = len(server.connections)
        self._transport.set_write_buffer_limits(high=OUTPUT)
        # or a machine that vanished would keep its connection for good
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """What was not carried out is dropped; what was stays done, answered or not."""
        self._lost = True
        self._events.clear()
        self._held.clear()
        self._ready.clear()
        self._rest = None
        self._server.left(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._server.received

    def buffer_updated(self, nbytes: int) -> None:
        self._server.stats.counters.bytes_read += nbytes
        self._events.extend(self._parser.feed(bytes(self._server.received[:nbytes])))
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
        self._work()

    # --- work ---

    def _work(self) -> None:
        """Carry out what can be carried out now, send what can be sent, and see to what comes next."""
        budget = SLICE
        while budget and not self._stuck() and self._step():
            budget -= 1
            if self._ready_bytes >= OUTPUT:
                self._send()
        self._send()
        self._look_ahead()

    def _stuck(self) -> bool:
        return self._paused or self._held_bytes > HELD or self._lost

    def _step(self) -> bool:
        """Carry out one request, or one piece of one; False if there is none."""
        if self._rest is not None:
            self._carry_out(cast("Request", self._request))
        elif self._events:
            event = self._events.popleft()
            if isinstance(event, Request):
                self._take(event)
            else:
                self._refuse(event)
        else:
            return False
        return True

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
        self._ending = True

    def _carry_out(self, request: Request) -> None:
        """Begin ``request``, or go on with it. What it raises is its reply: the connection, and the node, go on."""
        began = time.perf_counter()
        last = True
        try:
            reply: Reply = next(self._rest, END) if self._rest is not None else self._server.commands.answer(request)
            if not isinstance(reply, bytes):
                self._rest, reply = reply, b""
            last = self._rest is None or reply is END
        except Exception as error:  # noqa: BLE001  (reported, counted and answered)
            self._server.report(request, error)
            reply = b"" if request.noreply else failure(error)
        if last:
            self._rest = self._request = None
        # Pieces may leave as they come: a reply counts only with its end, and that waits for the disk.
        ticket = self._server.committer.ticket(self) if last and waits(request) else 0
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
        if not self._ready or self._lost:
            return
        self._server.stats.counters.bytes_written += self._ready_bytes
        output = self._ready[0] if len(self._ready) == 1 else b"".join(self._ready)
        self._ready.clear()
        self._ready_bytes = 0
        self._transport.write(output)

    def _look_ahead(self) -> None:
        """Go on in a later turn, or close, or read on: whatever is due."""
        if self._lost:
            return
        backlog = bool(self._events) or self._rest is not None
        if backlog and not self._scheduled and not self._stuck():
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._go_on)
        if self._ending and not backlog and not self._held:
            self._transport.close()
        self._read(not (backlog or self._ending or self._stuck()))

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


def failure(error: BaseException) -> bytes:
    """The line that tells a client of ``error``."""
    if isinstance(error, OutOfSpace):
        return OUT_OF_SPACE + b" storing object\r\n"
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return b"SERVER_ERROR %b\r\n" % text.encode(errors="replace")[:500]
