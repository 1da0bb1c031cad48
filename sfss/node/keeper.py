"""What a node does by itself: what has expired is removed, what is dead gives its space back, and where the disk was
full and there is room again, changes are taken again.
"""

from __future__ import annotations

import asyncio
import logging

from sfss.node import space
from sfss.node.committer import Committer
from sfss.node.entries import HEAD
from sfss.node.reader import Reader
from sfss.node.stats import Counters
from sfss.node.store import Store

log = logging.getLogger("sfss.node")

EVERY = 1.0  # seconds between looks for what has expired
AT_ONCE = 100  # items that are removed in one go: a millisecond or so
PAUSE = 0.01  # seconds between two such goes, so that clients have most of the time
TRIES = 3  # changes that are tried, one every EVERY, before the database is opened anew


class Keeper:
    """Tasks that run from ``start`` to ``close``."""

    def __init__(self, store: Store, reader: Reader, committer: Committer, count: Counters) -> None:
        self._store = store
        self._reader = reader
        self._committer = committer
        self._count = count
        self._space = space.Space(store)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._remove_expired()),
            asyncio.create_task(self._give_back_space()),
            asyncio.create_task(self._come_back()),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._space.at_rest()

    async def _remove_expired(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self._expire()
            except Exception as error:  # noqa: BLE001  of a full or broken disk, and counted; the next look may do
                log.debug("what has expired could not be removed: %s", error)

    async def _give_back_space(self) -> None:
        while True:
            await asyncio.sleep(space.EVERY)
            try:
                self._space.look()
            except Exception:  # not fatal: the disk fills, and that is said elsewhere
                log.exception("RocksDB can't be told to give back space: a bug, please report it")

    async def _come_back(self) -> None:
        tries = 0
        while True:
            await asyncio.sleep(EVERY)
            if not self._store.failing:
                tries = 0
            elif self._store.has_room():
                tries += 1
                try:
                    if tries <= TRIES:
                        await self._try()
                    else:
                        await self._reopen()
                except Exception as error:  # noqa: BLE001  whatever it is: the next try may do
                    log.warning("changes still fail, though there is room; is the disk sound? %s", error)

    async def _try(self) -> None:
        """A change, and a sync, as a client's would be: RocksDB may have come back by itself."""
        self._store.probe()
        await self._committer.run(self._store.sync)

    async def _reopen(self) -> None:
        """Everybody waits meanwhile: as long as a start takes after a crash, a second or two."""
        async with self._reader.at_rest():
            await self._space.at_rest()
            await self._committer.run(lambda: None)  # what is there to be waited for can take its time
            self._committer.run_and_wait(self._store.reopen)
            self._space.begin_again()
        log.warning("there is room again, and the database was opened anew: changes are taken again")

    async def _expire(self) -> None:
        """Remove what has expired."""
        while due := self._store.due(AT_ONCE):
            await self._in_memory([HEAD + key for _, key in due])
            self._store.expire(due)
            self._count.crawler_reclaimed += len(due)
            await asyncio.sleep(PAUSE)

    async def _in_memory(self, needs: list[bytes]) -> None:
        """Come back when these entries can be found without the disk; or not, if there is no room for all of them."""
        missing = self._store.missing(needs)
        while missing:
            here = asyncio.Event()
            self._reader.fetch(missing, here.set)
            await here.wait()
            still = self._store.missing(missing)
            if len(still) == len(missing):
                return
            missing = still
