"""How much of its time a background work takes: it rests between its steps, and may be told to pause."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Pace:
    """``share``: the part of the time in which each of those who work may do so; above 0, and 1 for no rest."""

    def __init__(self, share: float = 1.0) -> None:
        self.share = share
        self._going = asyncio.Event()
        self._going.set()

    def pause(self) -> None:
        """Let no step begin any more."""
        self._going.clear()

    def resume(self) -> None:
        """Go on."""
        self._going.set()

    @contextlib.asynccontextmanager
    async def step(self) -> AsyncIterator[None]:
        """One step of the work. What it cost, which is mostly waiting for nodes, says how long the rest behind it is.

        So whoever works at a share rests longer where nodes have become slow, without knowing why they have.
        """
        await self._going.wait()
        clock = asyncio.get_running_loop().time
        began = clock()
        yield
        if self.share < 1:
            await asyncio.sleep((clock() - began) * (1 - self.share) / self.share)
