"""Requests in flight, so that a stop can wait for them.

aiohttp's own shutdown stops reading from its connections at once, and an upload still coming in would never end. So
the listening sockets are closed first, then the handlers are waited for here, and aiohttp's shutdown comes last,
when what remains is to send answers.
"""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

LAST_WORD = 0.1  # seconds after a stop began in which whoever sends a request is answered, and told to hang up


class InFlight:
    """Counts the handlers at work."""

    def __init__(self) -> None:
        self._count = 0
        self._none_left: asyncio.Event | None = None  # made when the stop begins
        self.stopping = False  # whether each client is to hang up after its answer

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return self._count > 0

    def begin(self) -> None:
        """A request is being worked on."""
        self._count += 1

    def end(self) -> None:
        """It has its answer, or nobody waits for it any more."""
        self._count -= 1
        if self._none_left is not None and self._count == 0:
            self._none_left.set()

    @property
    def middleware(self) -> Middleware:
        """Counts, and while stopping asks each client to hang up after its answer."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.begin()
            try:
                response = await handler(request)
            finally:
                self.end()
            if self.stopping:
                response.force_close()
            return response

        return count

    async def finish(self, timeout: float) -> int:
        """Wait until no handler is at work, ``timeout`` seconds at most; returns how many still are.

        Not less than LAST_WORD: who has just been answered may be sending the next request already, and would find his
        connection closed upon it.
        """
        self.stopping = True
        self._none_left = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await asyncio.sleep(LAST_WORD)
                while self:
                    self._none_left.clear()
                    await self._none_left.wait()
        return self._count
