"""How full namespaces are that have a quota: counted by lists of the nodes' files, again and again.

Nothing is kept of it anywhere: nodes are the truth. Between two counts each front adds what it writes itself
(``bounds.py``). What others write it sees with its next count; so a quota may be passed by what the other fronts write
within one interval, and while a count goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

from sfss.bounds import Tank, Used
from sfss.cluster.listing import Found
from sfss.config import Namespace
from sfss.errors import SfssError

log = logging.getLogger("sfss")

_REST = 10  # times as long as a count took, until the next one, at least
_SOON = 0.5  # seconds until what could not be counted yet is tried again

ListFiles = Callable[[str], AsyncGenerator[Sequence[Found], None]]


class Quotas:
    """The tanks of one front. ``list_files`` gives all files below a prefix; ``interval``: seconds between counts."""

    def __init__(self, list_files: ListFiles, *, interval: float) -> None:
        self._list_files = list_files
        self._interval = interval
        self._tanks: dict[str, Tank] = {}
        self._is_started = False
        self._counting: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begin to count. To be called in the event loop."""
        self._is_started = True
        self._begin()

    async def close(self) -> None:
        """Count no more."""
        self._is_started = False
        await _end(self._counting.values())
        self._counting.clear()

    def change(self, namespaces: Iterable[Namespace]) -> None:
        """From now on those of these namespaces that have a quota."""
        counted = {namespace.name: namespace for namespace in namespaces if namespace.is_counted}
        for name in self._tanks.keys() - counted.keys():
            del self._tanks[name]
            if (task := self._counting.pop(name, None)) is not None:
                task.cancel()
        for name, namespace in counted.items():
            tank = self._tanks.setdefault(name, Tank(name))
            tank.bytes = None if namespace.quota is None else int(namespace.quota)
            tank.files = namespace.quota_files
        if self._is_started:
            self._begin()

    @property
    def tanks(self) -> Iterable[Tank]:
        """All of them."""
        return self._tanks.values()

    def tank(self, name: str) -> Tank | None:
        """The one of a namespace; None if it has no quota."""
        return self._tanks.get(name)

    def _begin(self) -> None:
        for name, tank in self._tanks.items():
            if name not in self._counting:
                self._counting[name] = asyncio.create_task(self._count_again_and_again(tank), name=f"quota of {name}")

    async def _count_again_and_again(self, tank: Tank) -> None:
        while True:
            began = time.monotonic()
            try:
                await self._count(tank)
            except SfssError as error:
                if tank.used is not None or tank.why != str(error):
                    log.warning("the files of %s can't be counted for its quota, and until the first count writes to it"
                                " answer 504: %s", tank.words, error)  # fmt: skip
                tank.why = str(error)
            except Exception:  # the next count is to be had in any case
                log.exception("the files of %s can't be counted for its quota", tank.words)
            pause = max(self._interval, _REST * (time.monotonic() - began))
            await asyncio.sleep(min(_SOON, self._interval) if tank.used is None else pause)

    async def _count(self, tank: Tank) -> None:
        tank.begin_count()
        size = files = 0
        async with contextlib.aclosing(self._list_files(f"{tank.name}/")) as batches:
            async for batch in batches:
                for found in batch:
                    if found.header is not None:
                        size += found.header.size
                        files += 1
        tank.counted(Used(size, files))


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in (every := list(tasks)):
        task.cancel()
    if every:
        await asyncio.wait(every)
