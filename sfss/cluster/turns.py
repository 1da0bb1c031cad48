"""What goes on side by side in a walk: so many turns at a time, and no more of them than there is memory for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

TOGETHER = 64  # that go on at a time ...
IN_MEMORY = 64 * 1024 * 1024  # ... unless the records that they hold have more bytes than these


class Turns:
    """Those that go on side by side, as many as may."""

    def __init__(self) -> None:
        self._going: dict[asyncio.Task[None], int] = {}  # with the bytes that each may hold
        self._size = 0
        self._ended = asyncio.Event()
        self._failed: asyncio.Task[None] | None = None

    async def begin(self, turn: Coroutine[Any, Any, None], size: int) -> None:
        """Begin one when there is room for it and the ``size`` bytes that it may hold. Raises what another raised."""
        try:
            while self._going and (len(self._going) >= TOGETHER or self._size + size > IN_MEMORY):
                await self._wait()
        except BaseException:
            turn.close()
            raise
        task = asyncio.create_task(turn)
        self._going[task] = size
        self._size += size
        task.add_done_callback(self._end)

    async def finish(self) -> None:
        """Wait for all. Raises what one of them raised."""
        while self._going:
            await self._wait()

    async def cancel(self) -> None:
        """Have them all end where they are."""
        for task in self._going:
            task.cancel()
        await asyncio.gather(*self._going, return_exceptions=True)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._size -= self._going.pop(task)
        if not task.cancelled() and task.exception() is not None:
            self._failed = task
        self._ended.set()

    async def _wait(self) -> None:
        self._ended.clear()
        await self._ended.wait()
        if self._failed is not None:
            self._failed.result()
