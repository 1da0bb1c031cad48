"""Outcomes that are told: handed to a function, where a coroutine would return or raise them.

For what is asked so often that a task and futures would cost more than the work itself: the reads of small files
(``docs/speed.rst``). A function that is told takes every outcome and raises nothing. It is called once, perhaps before
the call that asks returns, and whatever has become of who asked.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sfss.errors import SfssError

log = logging.getLogger("sfss")

T = TypeVar("T")
Tell = Callable[[T | SfssError], None]  # is given an error where a coroutine would raise it


def settle(future: asyncio.Future[T], outcome: T | SfssError) -> None:
    """Have it come out of a future, unless whoever waited there has gone."""
    if future.done():
        return
    if isinstance(outcome, SfssError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


async def outcome(begin: Callable[[Tell[T]], None]) -> T:
    """What ``begin`` has told, for coroutines."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    begin(functools.partial(settle, future))
    return await future


class Tasks:
    """Coroutines whose outcome is told, where there is no quicker way."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, work: Coroutine[Any, Any, T], tell: Tell[T]) -> None:
        """Begin the work."""
        task = asyncio.create_task(_outcome_of(work, tell))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up what goes on: nothing is told of it."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _outcome_of(work: Coroutine[Any, Any, T], tell: Tell[T]) -> None:
    try:
        told: T | SfssError = await work
    except SfssError as error:
        told = error
    except Exception:  # whoever waits is to be told, whatever it is
        log.exception("this is a bug in sfss")
        told = SfssError("sfss has a bug here; its log has the details")
    tell(told)
