"""Looks again and again how one worker is, and puts it where all workers' figures are.

How late its loop is, what it has in hand, and what those have counted who count for themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping

from sfss.files import Files
from sfss.web.tally import DONE, Tally

log = logging.getLogger("sfss.web")

PAUSE = 0.25  # seconds between two looks at the clock ...
EVERY = 4  # ... of which each so many-th is a look at all

Gauges = Mapping[str, Callable[[], int]]  # by names of tally.GAUGES


class Sampler:
    """Of one worker."""

    def __init__(self, files: Files, tally: Tally, gauges: Gauges) -> None:
        """``gauges``: of what isn't the files'."""
        self._files = files
        self._tally = tally
        self._gauges = gauges
        self._seen: dict[str, int] = {}  # by names of tally.DONE
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin. To be called in the event loop."""
        self._task = asyncio.create_task(self._look_again_and_again(), name="sampling")

    async def close(self) -> None:
        """Stop, with a last look."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self.look()

    def look(self) -> None:
        """Put down how everything is."""
        tally, repair, catalogue = self._tally, self._files.repair(), self._files.catalogue()
        for name, gauge in self._gauges.items():
            tally.put(name, gauge())
        tally.put("lacking", _number(repair.get("lacking")))
        tally.put("owed", _number(catalogue.get("owed")))
        for name in DONE:
            now = _number(repair.get(name, catalogue.get(name)))
            tally.add(name, max(now - self._seen.get(name, 0), 0))
            self._seen[name] = now
        for node, taken in self._files.traffic().items():
            tally.exchanged(node, taken)

    async def _look_again_and_again(self) -> None:
        number = 0
        while True:
            due = time.perf_counter() + PAUSE
            await asyncio.sleep(PAUSE)
            self._tally.late(max(time.perf_counter() - due, 0.0))
            number += 1
            if number % EVERY == 0:
                try:
                    self.look()
                except Exception:  # the next look is to be had in any case
                    log.exception("a bug: this worker's figures can't be told")


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
