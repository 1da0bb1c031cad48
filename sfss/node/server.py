"""A node: its settings, its life from start to stop, and what its connections share.

Theory of operation. Everything runs on one event loop; a request is carried out whole, and at once, in the order in
which it came, so what one client has written the next request sees. What takes its time is left to threads, and only
those who asked for it wait: reads of what isn't in memory (``reader``), syncs (``committer``). Replies of reads don't
wait for syncs: like memcached, and like a database whose other readers see a commit before the disk does, they tell
what has been written so far. With ``durability = "os"`` no reply does: a write survives the death of the process, not
of the machine.

Memory is bounded: what is kept of the store, what a client doesn't take or hasn't sent whole (``connection``,
``intake``), what RocksDB has yet to write out (``gate``); a request for many keys is answered piece by piece, and after
a slice of work the other connections have their turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import sfss
from sfss import eventloop
from sfss.errors import ConfigError, OutOfSpace
from sfss.memcache import Request
from sfss.node import announcing
from sfss.node.announcing import Announcer, Registering
from sfss.node.commands import Commands
from sfss.node.committer import Committer
from sfss.node.connection import RECEIVE, RECEIVE_MUCH, Connection
from sfss.node.control import Control
from sfss.node.engine import MAX_OPEN_FILES, MIB
from sfss.node.gate import Gate
from sfss.node.intake import Intake
from sfss.node.keeper import Keeper
from sfss.node.reader import Reader
from sfss.node.runs import Runs
from sfss.node.stats import Counters, Stats
from sfss.node.store import CACHE, Store

log = logging.getLogger("sfss.node")

BACKLOG = 1024  # connections that the kernel may keep until they are accepted: a whole farm of clients comes at once
STOP_BOUND = 10.0  # seconds that a graceful stop may take before clients that don't read are cut off
REPORT_EVERY = 1.0  # seconds between failures of commands that are written to the log; all are counted
SPARE_FILES = 100  # descriptors beside RocksDB's and the connections'


@dataclass(frozen=True)
class NodeSettings:
    """What a node is told when it starts."""

    data: Path  # the data directory; made if it isn't there
    host: str = "127.0.0.1"
    port: int = 7900  # 0: any that is free
    durability: Literal["fsync", "os"] = "fsync"
    max_item_size: int = 8 * MIB  # bytes of a value
    max_connections: int = 10_000
    cache: int = CACHE  # bytes of memory for what is read
    recover: bool = False  # go on with what is left of a directory that is damaged
    capacity: int = 0  # bytes that it is to be taken to have; 0: those of its disk
    registering: Registering | None = None  # announce it to fronts
    stop_with_parent: bool = False  # stop when standard input ends: a parent's pipe does, however hard the parent dies


def run(settings: NodeSettings) -> None:
    """``serve``, in a loop of its own. Raises ConfigError."""
    eventloop.run(serve(settings))


async def serve(settings: NodeSettings) -> None:
    """Be a node until SIGTERM or SIGINT, or as ``stop_with_parent`` says. Raises ConfigError if it can't start."""
    _allow_descriptors(settings.max_connections)
    server = Server(settings)
    await server.start()
    eventloop.settled()
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
        # All connections read into one buffer, or into its beginning; it is consumed on the spot.
        self.received_much = memoryview(bytearray(RECEIVE_MUCH))
        self.received = self.received_much[:RECEIVE]
        self.port = settings.port
        self.stopping = False
        self._announcer: Announcer | None = None
        self._emptied = asyncio.Event()  # set when the last connection has gone
        self._reported = -REPORT_EVERY  # when a command's failure was last written to the log

    async def start(self) -> None:
        """Open the data directory and listen. Raises ConfigError."""
        settings = self.settings
        if settings.registering is not None:
            announcing.check(settings.registering, settings.host)
        self.store = Store(settings.data, cache=settings.cache, recover=settings.recover)
        self.stats = Stats(
            self.store,
            Counters(),
            durability=settings.durability,
            max_item_size=settings.max_item_size,
            max_connections=settings.max_connections,
            started=time.monotonic(),
            capacity=settings.capacity,
        )
        self.commands = Commands(self.store, self.stats)
        self.runs = Runs(self.store, self.stats, self.report)
        self.committer = Committer(self.store, self.stats, durable=settings.durability == "fsync")
        self.reader = Reader(self.store, self.stats.counters)
        self.gate = Gate(self.store, self.stats.counters)
        self.intake = Intake()
        self.keeper = Keeper(self.store, self.reader, self.committer, self.stats.counters)
        self.control = Control(self.store, self.committer.run)
        try:
            if settings.registering is not None:
                who = announcing.identity(settings.data, settings.registering.name)
            await self.control.start()
            self._listener = await self._listen()
        except BaseException:
            await self.control.close()
            self.committer.close()
            self.store.close()
            raise
        self.keeper.start()
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
        if settings.registering is not None:
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            self._announcer = Announcer(settings.registering, who, f"{host}:{self.port}", self.stats.size)
            self.stats.standing = self._announcer.figures
            self._announcer.start()

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
        if self._announcer is not None:
            self._announcer.stop()
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
        await self.keeper.close()
        await self.reader.close()
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
