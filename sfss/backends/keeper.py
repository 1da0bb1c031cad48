"""Keeps a node connected: opens its connection, waits for its end, opens it again; for ever, with growing pauses.

What a connection is, and what is asked over it before it counts as one, is the client's of the node.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from sfss.backends.base import Capabilities
from sfss.backends.stream import STOPPING
from sfss.errors import NodeAway, NodeBroken, NodeError, SfssError

log = logging.getLogger("sfss.backends")

FIRST_RETRY = 0.05  # seconds after a lost connection; then twice as long each time, up to retry_after


class Kept(Protocol):
    """A connection."""

    @property
    def lost(self) -> asyncio.Future[None]:
        """Done when it has ended."""

    @property
    def why(self) -> str | None:
        """Why it has ended, in words."""

    def drop(self, failure: type[NodeError], why: str) -> None:
        """End it now; everything in flight fails with a ``failure`` that says ``why``."""


K = TypeVar("K", bound=Kept)


class Keeper(Generic[K]):
    """The connection to one node; ``retry_after``, in seconds, bounds the pause between two attempts.

    ``connect`` opens it, or raises an SfssError; ``what`` tells what the node was seen to be by then.
    """

    def __init__(
        self, node: str, connect: Callable[[], Awaitable[K]], what: Callable[[], Capabilities], retry_after: float
    ) -> None:
        self.connection: K | None = None
        self.since: float | None = None  # when it was made, by time.monotonic
        self._node = node
        self._connect = connect
        self._what = what
        self._retry_after = retry_after
        self._why_away = "not yet connected to"
        self._keeping: asyncio.Task[None] | None = None

    @property
    def away(self) -> str | None:
        """Why there is none, in words; None if there is."""
        return None if self.connection else self._why_away

    def is_away(self) -> NodeAway:
        """What calls fail with meanwhile."""
        return NodeAway(self._node, f"away: {self._why_away}")

    async def start(self) -> None:
        """Returns when the first attempt has succeeded or failed."""
        tried = asyncio.Event()
        self._keeping = asyncio.create_task(self._keep(tried), name=f"connection to {self._node}")
        await tried.wait()

    async def close(self) -> None:
        """End it for good."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        self._why_away = STOPPING

    async def _keep(self, tried: asyncio.Event) -> None:
        pause = FIRST_RETRY
        while True:
            try:
                connection = await self._connect()
            except SfssError as error:
                self._note_away(str(error))
                tried.set()
            except Exception:  # or the node would be away until the next start
                log.exception("a bug: node %s could not be connected to", self._node)
                self._note_away("a bug in sfss, which its log tells of")
                tried.set()
            else:
                self._note_here()
                self.connection = connection
                self.since = since = time.monotonic()
                tried.set()
                try:
                    await connection.lost
                finally:
                    self.connection = self.since = None
                    connection.drop(NodeBroken, STOPPING)
                self._note_away(connection.why or "the connection ended")
                if time.monotonic() - since > self._retry_after:  # it held: not a node that hangs up on everybody
                    pause = FIRST_RETRY
                    continue
            await asyncio.sleep(pause * random.uniform(0.75, 1.0))  # so that many fronts don't knock in step
            pause = min(pause * 2, self._retry_after)

    def _note_here(self) -> None:
        found = self._what()
        log.info("node %s is here: %s %s", self._node, found.kind, found.version)
        for caveat in found.caveats:
            log.warning("node %s %s", self._node, caveat)

    def _note_away(self, why: str) -> None:
        why = why.removeprefix(f"node {self._node}: ")
        if why != self._why_away:
            log.warning(
                "node %s is away: %s; files on it answer 504 until it is back: see that it runs and can be reached",
                self._node,
                why,
            )
        self._why_away = why
