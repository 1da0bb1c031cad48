"""Notes on the nodes of who owes rows to the catalogue, so that nobody takes it for whole meanwhile.

Before a front acknowledges the first write whose row it could not bring there, it puts its mark into a document that
all fronts share (``registry.py``). Whoever lists by the catalogue reads that document first. The mark lies with the
files, for the database can't be told of its own absence; and where the document's nodes don't answer, no mark can be
put, and nobody can see either that there is none, so that lists are the nodes' again.

A mark is renewed while its front lives. One that is not, or that was left behind, goes when all rows were made anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping

from sfss.errors import SfssError
from sfss.registry import Document, Registry

log = logging.getLogger("sfss.catalogue")

NAME = "catalogue"  # of the document
RENEWED = 10.0  # seconds between two renewals
GONE = 60.0  # seconds without one, after which whoever has put the mark is no more
_AGAIN = 0.5  # seconds between two tries to put it, or to take it away
_PATIENCE = 2.0  # seconds that a write may wait for a mark, on top of all else

Seen = Mapping[str, float]  # by front: seconds since the epoch, of the last renewal; 0: it has ended


class Marks:
    """The mark of one front, and those of the others."""

    def __init__(self, registry: Registry, document: Document[dict[str, float]], front: str) -> None:
        self._registry = registry
        self._document = document
        self._front = front
        self._wanted = False
        self._may_be_there = False
        self._sure_until = 0.0  # by the monotonic clock: it is there, and others see whose it is
        self._changing = asyncio.Lock()
        self._something = asyncio.Event()
        self._renewing: asyncio.Task[None] | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether this front has put its mark, or tries to."""
        return self._wanted

    async def put(self) -> None:
        """Have it there, if that can be within two seconds; what can't be now is tried again behind that."""
        self._wanted = True
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._go_on(), name="the catalogue's mark")
        with contextlib.suppress(SfssError, TimeoutError):
            async with asyncio.timeout(_PATIENCE), self._changing:
                if time.monotonic() > self._sure_until:
                    await self._write(time.time())
        self._something.set()

    def take_away(self) -> None:
        """Have it gone, soon."""
        self._wanted = False
        self._something.set()

    async def seen(self) -> Seen:
        """All that are there now. Raises Unavailable, Damaged."""
        return await self._registry.refresh(self._document)

    async def strike(self, gone: Seen) -> None:
        """Take those away that still are as they were seen. Raises Unavailable, Damaged."""
        await self._registry.change(
            self._document, lambda marks: {front: at for front, at in marks.items() if gone.get(front) != at}
        )

    async def close(self, *, owing: bool) -> None:
        """Leave the mark behind as one of who has ended, if rows are owed; else take it away."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait((self._renewing,))
        if owing or self._may_be_there:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._write(0.0 if owing else None)
            except (SfssError, TimeoutError) as error:
                log.warning("that the catalogue is behind could not be noted on the nodes: run sfss reindex: %s", error)

    def is_gone(self, at: float) -> bool:
        """Whether whoever renewed a mark then lives no more."""
        return time.time() - at > GONE

    async def _go_on(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEWED if self._wanted == self._may_be_there else _AGAIN):
                    await self._something.wait()
                    self._something.clear()
            try:
                async with self._changing:
                    if self._wanted and time.monotonic() > self._sure_until - GONE / 2 + RENEWED:
                        await self._write(time.time())
                    elif not self._wanted and self._may_be_there:
                        await self._write(None)
            except SfssError as error:
                log.debug("the mark of the catalogue: %s", error)

    async def _write(self, at: float | None) -> None:
        def edit(marks: dict[str, float]) -> dict[str, float]:
            others = {front: then for front, then in marks.items() if front != self._front}
            return others if at is None else {**others, self._front: at}

        self._may_be_there = True
        if at is None:
            self._sure_until = 0.0  # it may go at any moment
        began = time.monotonic()
        await self._registry.change(self._document, edit)
        if at is None:
            self._may_be_there = False
        else:
            self._sure_until = began + GONE / 2
