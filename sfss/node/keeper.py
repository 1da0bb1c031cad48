"""What a node does by itself: what has expired is removed, and what is dead gives its space back."""

from __future__ import annotations

import asyncio
import logging

from sfss.node import space
from sfss.node.entries import HEAD
from sfss.node.reader import Reader
from sfss.node.stats import Counters
from sfss.node.store import Store

log = logging.getLogger("sfss.node")

EVERY = 1.0  # seconds between looks for what has expired
AT_ONCE = 100  # items that are removed in one go: a millisecond or so
PAUSE = 0.01  # seconds between two such goes, so that clients have most of the time


class Keeper:
    """Tasks that run from ``start`` to ``close``."""

    def __init__(self, store: Store, reader: Reader, count: Counters) -> None:
        self._store = store
        self._reader = reader
        self._count = count
        self._space = space.Space(store)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._remove_expired()),
            asyncio.create_task(self._give_back_space()),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._space.close()

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
                log.exception("RocksDB can't be told to give back space")

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
