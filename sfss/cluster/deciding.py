"""One at a time, for what no node decides: of this process's writers of one key each waits for the one before him."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Deciding:
    """The keys whose turn it is somebody's."""

    def __init__(self) -> None:
        self._locks: dict[bytes, tuple[asyncio.Lock, int]] = {}  # with how many have it, or wait for it

    @contextlib.asynccontextmanager
    async def turn(self, key: bytes) -> AsyncIterator[None]:
        """Be the only one who decides about it. Those who wait come in their order."""
        lock, users = self._locks.get(key) or (asyncio.Lock(), 0)
        self._locks[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = lock, users - 1
