"""Back-pressure on writers: their requests wait while RocksDB is behind with writing out what it took.

RocksDB would make its caller wait, which is the event loop, and so everyone: who only reads too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sfss.node.stats import Counters
from sfss.node.store import Store

EVERY = 0.01  # seconds between looks at the store while somebody waits
PATIENCE = 1.0  # seconds of waiting after which one goes ahead at each look: if RocksDB has given up, it will be told


class Gate:
    """Lets writers through, or wakes them when it is worth asking again."""

    def __init__(self, store: Store, count: Counters) -> None:
        self._store = store
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Callable[[], None], None] = {}  # in the order in which they came
        self._since = 0.0  # when the first of them came
        self._looking = False  # a look is due
        self._one = False  # goes ahead whatever the store says

    def admits(self, wake: Callable[[], None]) -> bool:
        """Whether a change may be made now. If not, ``wake`` is called when that should be asked again."""
        if self._one or not self._store.crowded():
            self._one = False
            return True
        self._count.held_writes += 1
        if not self._looking:
            self._since = self._loop.time()
            self._look_later()
        self._waiting[wake] = None
        return False

    def forget(self, wake: Callable[[], None]) -> None:
        """Who waited here has gone."""
        self._waiting.pop(wake, None)

    def _look_later(self) -> None:
        self._looking = True
        self._loop.call_later(EVERY, self._look)

    def _look(self) -> None:
        if not self._waiting:
            self._looking = False
        elif not self._store.crowded():
            self._looking = False
            waiting, self._waiting = self._waiting, {}
            for wake in waiting:
                wake()
        else:
            self._look_later()
            if self._loop.time() - self._since > PATIENCE:
                self._let_one_go()

    def _let_one_go(self) -> None:
        wake = next(iter(self._waiting))
        del self._waiting[wake]
        self._one = True
        wake()
        self._one = False
