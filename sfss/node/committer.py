"""Group commit: with ``durability = "fsync"`` a change is answered when a sync that began after it has succeeded.

One sync runs at a time, in a thread of its own; all that is written meanwhile, on whatever connection, is covered by
the next one. Syncs are numbered; a reply that waits has a *ticket*, the number of its sync. If that fails, the reply
becomes ``SERVER_ERROR``.

Where the disk is quick, as one with a cache that survives a power failure is, the sync is done on the loop itself: to
switch to another thread and back takes as long, and more of the processor. Readers wait for it. When slow ones come to
more than a tenth of the time, or one takes a tenth of a second, syncs are left to the thread for a second, and twice as
long each time that happens again: so a slow disk is tried once a minute, and holds up nobody but those who write.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from sfss.errors import OutOfSpace
from sfss.memcache import OUT_OF_SPACE
from sfss.node.stats import Stats
from sfss.node.store import Store

log = logging.getLogger("sfss.node")


QUICK = 0.002  # seconds: a sync on the loop that takes longer is slow
SHARE = 0.1  # of the time that slow ones may take there; and seconds that they may at once
PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds for which slow ones leave it to the thread; twice as long each time


class Waiting(Protocol):
    """Whoever holds replies back until they are as durable as was promised."""

    ticket: int  # the last one that the committer gave; only it sets this

    def release(self, ticket: int, error: bytes | None) -> None:
        """The sync of this number is over: send what waited for it, or ``error`` in its place."""


class Committer:
    """One sync at a time, and word to the connections whose replies it was to cover.

    Syncs are numbered from 1. Number ``_next`` will cover all that is written now; ``_next - 1`` runs or is done.
    """

    def __init__(self, store: Store, stats: Stats, *, durable: bool) -> None:
        self._store = store
        self._stats = stats
        self._durable = durable
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "sfss-sync")
        self._functions = 0  # that wait for the thread, or run there
        self._slow = 0.0  # seconds that slow syncs had taken on the loop at ``_slow_at``, less what they might
        self._slow_at = 0.0  # by time.perf_counter, as all moments here
        self._tried_at: float | None = None  # when the loop did the first one since the thread had them ...
        self._pause = 0.0  # ... for so many seconds
        self._here_from = time.perf_counter() + PAUSE  # from then on syncs are tried on the loop
        self._next = 1
        self._running = False
        self._scheduled = False
        self._waiting: list[Waiting] = []  # for sync _next
        self._covered: list[Waiting] = []  # by the sync that runs

    def ticket(self, connection: Waiting) -> int:
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
        self._functions += 1
        job = self._thread.submit(function)
        job.add_done_callback(self._has_run)
        await asyncio.wrap_future(job)

    def _has_run(self, _job: object) -> None:
        """In the thread, however whoever asked for it has fared."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._one_less)

    def _one_less(self) -> None:
        self._functions -= 1

    def run_and_wait(self, function: Callable[[], None]) -> None:
        """The same, and nothing else is done meanwhile by anybody. Raises what it raises."""
        self._thread.submit(function).result()

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
        if self._functions or time.perf_counter() < self._here_from:
            self._thread.submit(self._sync_there)
        else:
            self._sync_here()

    def _sync_there(self) -> None:
        """In the thread. The loop is told without a future of its own, which would cost it more than the fsync does."""
        error = self._sync()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._end, error)

    def _sync_here(self) -> None:
        """On the loop, while the disk is quick; if it proves not to be, not again for a while."""
        began = time.perf_counter()
        if self._tried_at is None:
            self._tried_at = began
        error = self._sync()
        now = time.perf_counter()
        if now - began > QUICK or error is not None:
            self._slow = max(self._slow - SHARE * (now - self._slow_at), 0.0) + now - began
            self._slow_at = now
            if self._slow > SHARE or error is not None:
                self._leave_to_thread(quick_for=began - self._tried_at)
        self._end(error)

    def _leave_to_thread(self, quick_for: float) -> None:
        self._pause = PAUSE if quick_for > self._pause else max(PAUSE, min(2 * self._pause, LONGEST_PAUSE))
        self._here_from = self._slow_at = time.perf_counter() + self._pause
        self._slow = SHARE / 2  # as of then: one that is slow again is soon known
        self._tried_at = None

    def _sync(self) -> BaseException | None:
        try:
            self._store.sync()
        except BaseException as error:  # noqa: BLE001  (logged, counted, and told to clients)
            return error
        return None

    def _end(self, error: BaseException | None) -> None:
        self._running = False
        self._stats.counters.fsyncs += 1
        if error is not None:
            self._stats.counters.failed_fsyncs += 1
            log.error("fsync failed, %d connections are told: %s", len(self._covered), error)
        covered, self._covered = self._covered, []
        for connection in covered:
            connection.release(self._next - 1, None if error is None else failure(error))
        if self._waiting:
            self._schedule()


def failure(error: BaseException) -> bytes:
    """The line that tells a client of ``error``."""
    if isinstance(error, OutOfSpace):
        return OUT_OF_SPACE + b" storing object\r\n"
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return b"SERVER_ERROR %b\r\n" % text.encode(errors="replace")[:500]
