"""How much may be in flight at once: a semaphore that counts requests and their bytes, first come first served."""

from __future__ import annotations

import asyncio
from collections import deque


class Window:
    """Room for ``requests`` calls and for ``size`` bytes of them; one that is larger than the window goes alone."""

    def __init__(self, requests: int, size: int) -> None:
        self._requests = requests  # free places
        self._size = size  # free bytes; below zero while the last one in was larger than what was left
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    def try_enter(self, size: int) -> bool:
        """Take a place for ``size`` bytes if there is one and nobody waits for it."""
        if self._queue or self._requests <= 0 or self._size <= 0:
            return False
        self._requests -= 1
        self._size -= size
        return True

    async def enter(self, size: int) -> None:
        """Take a place, or wait for it; may be cancelled."""
        if self.try_enter(size):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(size)  # the place came at the moment of the cancellation
            raise

    def leave(self, size: int) -> None:
        """Give a place of ``size`` bytes back, to the first who waits."""
        self._requests += 1
        self._size += size
        while self._queue and self._requests > 0 and self._size > 0:
            size, turn = self._queue.popleft()
            if not turn.done():
                self._requests -= 1
                self._size -= size
                turn.set_result(None)
