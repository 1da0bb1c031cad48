"""Keys that come in no order, in order, however many there are: they lie in a temporary SQLite database.

SQLite keeps it in ``TMPDIR`` (``SQLITE_TMPDIR``), a file without a name, and sorts with bounded memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from sfss.errors import Unavailable

MEMORY = 16 * 1024  # KiB, of SQLite's cache

T = TypeVar("T")


class SortedKeys:
    """First all keys are added, then all are taken. The disk is waited for in threads; one call at a time."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False)  # the threads take turns
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA temp_store = FILE")
        self._database.execute(f"PRAGMA cache_size = -{MEMORY}")
        self._database.execute("CREATE TABLE keys (key BLOB NOT NULL)")
        self._sorted: sqlite3.Cursor | None = None
        self._last = b""

    async def add(self, keys: list[bytes]) -> None:
        """Add some, none of them empty. Raises Unavailable if there is no room for them."""
        await self._do(lambda: self._insert(keys))

    async def take(self, count: int) -> list[bytes]:
        """The next ``count`` keys, a key that was added twice once; fewer, or none, if there are no more."""
        return await self._do(lambda: self._next(count))

    def close(self) -> None:
        """Let go of them, when no call is on its way."""
        self._database.close()

    def _insert(self, keys: list[bytes]) -> None:
        # Whatever SQLite makes ends in the thread that it was made in: the next one uses the same statement.
        with contextlib.closing(self._database.cursor()) as cursor:
            cursor.executemany("INSERT INTO keys VALUES (?)", [(key,) for key in keys])

    def _next(self, count: int) -> list[bytes]:
        if self._sorted is None:
            self._sorted = self._database.execute("SELECT key FROM keys ORDER BY key")
        found: list[bytes] = []
        while len(found) < count and (rows := self._sorted.fetchmany(count - len(found))):
            for (key,) in rows:
                if key != self._last:
                    self._last = key
                    found.append(key)
        return found

    async def _do(self, work: Callable[[], T]) -> T:
        working = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            self._database.interrupt()  # to sort millions of keys takes seconds
            await asyncio.wait([working])  # nobody may close what a thread is at
            working.exception()
            raise
        except sqlite3.Error as error:
            raise Unavailable(
                f"there is no room to sort the keys of a node: {error}; have TMPDIR name another directory"
            ) from None
