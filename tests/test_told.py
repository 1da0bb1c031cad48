"""Outcomes that are told: once, whatever they are, and to those who are still there."""

from __future__ import annotations

import asyncio

import pytest

from sfss.errors import NotFound, SfssError
from sfss.told import Tasks, Tell, outcome


async def test_what_is_told_comes_out_of_a_coroutine() -> None:
    def begin(tell: Tell[int]) -> None:
        asyncio.get_running_loop().call_soon(tell, 7)

    assert await outcome(begin) == 7


async def test_an_error_that_is_told_is_raised_there() -> None:
    def begin(tell: Tell[int]) -> None:
        tell(NotFound("a"))

    with pytest.raises(NotFound):
        await outcome(begin)


async def test_who_has_gone_is_not_told() -> None:
    waiting: list[Tell[int]] = []
    task = asyncio.create_task(outcome(waiting.append))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    waiting[0](7)


@pytest.mark.parametrize("error", [NotFound("a"), ZeroDivisionError()], ids=["of ours", "a bug"])
async def test_whatever_a_task_raises_is_told_as_an_error_of_ours(error: Exception) -> None:
    async def fails() -> int:
        raise error

    told: list[int | SfssError] = []
    tasks = Tasks()
    tasks.run(fails(), told.append)
    await asyncio.sleep(0.01)
    assert [type(one) for one in told] == [NotFound if isinstance(error, NotFound) else SfssError]


async def test_of_tasks_that_are_given_up_nothing_is_told() -> None:
    told: list[SfssError | None] = []
    tasks = Tasks()
    tasks.run(asyncio.sleep(60), told.append)
    await asyncio.sleep(0)
    await tasks.close()
    assert told == []
