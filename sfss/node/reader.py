"""Reads of what isn't in memory: by threads, many entries at a time, so that a slow disk holds up only who asked.

An entry that several wait for is read once. While all threads are busy, what is asked for gathers, and goes to the next
that is free in one batch: the busier the node, the less a read costs. A small batch to each of several threads keeps a
disk busier than a large one to one of them would, for RocksDB reads the entries of a batch one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from sfss.node.engine import KIB, MIB
from sfss.node.memory import SHARE, Found
from sfss.node.stats import Counters
from sfss.node.store import Store

THREADS = 8  # that read at a time
BATCH = 16  # entries that one of them reads at a time
UNDER_WAY = 128 * MIB  # bytes that entries which are being read may come to, going by the largest of late

Wake = Callable[[], None]


class Reader:
    """Reads entries into the store's memory, and wakes those who wait for them."""

    def __init__(self, store: Store, count: Counters) -> None:
        self._store = store
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(THREADS, "sfss-read")
        self._queue: deque[bytes] = deque()  # entries to be read
        self._waiting: dict[bytes, dict[Wake, None]] = {}  # who waits for which, those that are being read too
        self._busy = 0  # threads
        self._under_way = 0  # entries that are being read
        self._largest = 64 * KIB  # of the entries read of late, bytes
        self._scheduled = False
        self._held = False

    def fetch(self, keys: Iterable[bytes], wake: Wake) -> None:
        """Read these entries. ``wake`` is called, perhaps more than once, when one or all of them can be found."""
        for key in keys:
            waiting = self._waiting.get(key)
            if waiting is None:
                self._waiting[key] = {wake: None}
                self._queue.append(key)
            else:
                waiting[wake] = None
        if not self._scheduled:  # in the loop's next turn, so that what others ask for in this one goes along
            self._scheduled = True
            self._loop.call_soon(self._begin)

    def fetch_ahead(self, keys: Sequence[bytes], wake: Wake) -> None:
        """Read the first few of these, which aren't needed yet: as many as will still be in memory when they are.

        What wouldn't be kept, or would drive out what others had read ahead, would be read again, and again.
        """
        few = self._store.memory.limit // SHARE // self._largest - len(self._waiting)
        if keys and few > 0:
            self.fetch(keys[:few], wake)

    @contextlib.asynccontextmanager
    async def at_rest(self) -> AsyncIterator[None]:
        """While the block runs nothing is read; what is asked for waits."""
        self._held = True
        try:
            while self._busy:  # noqa: ASYNC110  as long as a read takes, and seldom
                await asyncio.sleep(0.001)
            yield
        finally:
            self._held = False
            self._begin()

    async def close(self) -> None:
        """Wait for the reads that are under way, and let go of the threads."""
        self._queue.clear()
        await asyncio.to_thread(self._threads.shutdown)

    def _begin(self) -> None:
        self._scheduled = False
        while self._queue and not self._held and self._busy < THREADS and (room := self._room()) > 0:
            keys = [self._queue.popleft() for _ in range(min(BATCH, room, len(self._queue)))]
            self._busy += 1
            self._under_way += len(keys)
            read = self._store.memory.begin(keys)
            done = self._loop.run_in_executor(self._threads, self._store.read, keys)
            done.add_done_callback(partial(self._end, read, keys))

    def _room(self) -> int:
        """How many more entries may be read at a time; one in any case."""
        return max(UNDER_WAY // self._largest, 1) - self._under_way

    def _end(self, read: object, keys: list[bytes], done: asyncio.Future[list[Found]]) -> None:
        self._busy -= 1
        self._under_way -= len(keys)
        if done.cancelled():
            return
        found = done.result()
        self._count.disk_reads += len(keys)
        largest = max((len(entry) for entry in found if isinstance(entry, bytes)), default=0)
        self._largest = max(largest, self._largest - self._largest // 16, KIB)
        memory = self._store.memory
        memory.bring(read, keys, found)
        woken: dict[Wake, None] = {}
        for key in keys:
            woken.update(self._waiting.pop(key))
        for wake in woken:
            wake()
        memory.settle()
        self._begin()
