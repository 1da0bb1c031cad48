"""One request of this front at a time works on an upload; who comes later has the one before him broken off.

For a client that comes again has lost its old request, and the front may not know it yet: a connection that has gone
silent is noticed by nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from sfss.errors import UploadLocked

PATIENCE = 10.0  # seconds that the one before may take to bring to an end what it has begun

BreakOff = Callable[[], None]


class _Lock:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.break_off: BreakOff | None = None  # the one who has it
        self.users = 0  # who have it, or wait for it


class UploadLocks:
    """The uploads that are worked on."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._locks: dict[str, _Lock] = {}

    def __len__(self) -> int:
        return len(self._locks)

    @contextlib.asynccontextmanager
    async def held(self, upload: str, break_off: BreakOff | None = None) -> AsyncIterator[None]:
        """Work on it. ``break_off`` is called if somebody else wants to. Raises UploadLocked if the other won't end."""
        lock = self._locks.setdefault(upload, _Lock())
        lock.users += 1
        try:
            await self._acquire(upload, lock)
            lock.break_off = break_off
            try:
                yield
            finally:
                lock.break_off = None
                lock.lock.release()
        finally:
            lock.users -= 1
            if not lock.users:
                del self._locks[upload]

    async def _acquire(self, upload: str, lock: _Lock) -> None:
        if lock.break_off is not None:
            lock.break_off()
        try:
            async with asyncio.timeout(self._patience):
                await lock.lock.acquire()
        except TimeoutError:
            raise UploadLocked(f"another request works on the upload {upload}: try again") from None
