"""How much may be in flight at once: a semaphore that counts requests and their bytes, first come first served."""

from __future__ import annotations

import asyncio
from collections import deque


class Window:
    """Room for ``requests`` calls and for ``size`` bytes of them; one that is larger than the window goes alone."""

    def __init__(self, requests: int, size: int) -> None:
        self._requests = requests  # free places
        self._size = self._free = size  # all bytes; free ones, below zero while one that is larger has the window
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()  # its first one has no room, or is cancelled

    def try_enter(self, size: int) -> bool:
        """Take a place for ``size`` bytes if there is one and nobody waits for it."""
        if self._queue or not self._has_room(size):
            return False
        self._requests -= 1
        self._free -= size
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
            else:
                self._admit()  # the next one may need less room
            raise

    def leave(self, size: int) -> None:
        """Give a place of ``size`` bytes back, to the first who waits."""
        self._requests += 1
        self._free += size
        if self._queue:
            self._admit()

    def _has_room(self, size: int) -> bool:
        return self._requests > 0 and (size <= self._free or self._free == self._size)

    def _admit(self) -> None:
        """Let in who waits, in their order, as far as there is room."""
        while self._queue:
            size, turn = self._queue[0]
            if not turn.done():
                if not self._has_room(size):
                    return
                self._requests -= 1
                self._free -= size
                turn.set_result(None)
            self._queue.popleft()
