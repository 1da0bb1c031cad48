"""The window: first come first served, and no place is ever lost, whoever is cancelled and whenever."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from sfss.backends.window import Window

REQUESTS, SIZE = 3, 100


async def turns(times: int = 3) -> None:
    """Let everybody else run."""
    for _ in range(times):
        await asyncio.sleep(0)


async def is_all_free(window: Window) -> bool:
    """Whether a call as large as the window, and then as many calls as it has places, get in at once."""
    if not window.try_enter(SIZE):
        return False
    window.leave(SIZE)
    entered = 0
    while window.try_enter(0):
        entered += 1
    for _ in range(entered):
        window.leave(0)
    return entered == REQUESTS


class Callers:
    """Calls that wait for a window, and the order in which they came in."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.entered: list[str] = []
        self.waiting: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, size: int) -> asyncio.Task[None]:
        async def call() -> None:
            await self.window.enter(size)
            self.entered.append(name)

        self.waiting[name] = asyncio.create_task(call())
        await turns()
        return self.waiting[name]

    async def cancel(self, name: str) -> None:
        self.waiting[name].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.waiting[name]


@pytest.fixture
def window() -> Window:
    return Window(REQUESTS, SIZE)


async def test_there_is_room_for_so_many_requests(window: Window) -> None:
    assert [window.try_enter(1) for _ in range(4)] == [True, True, True, False]
    window.leave(1)
    assert window.try_enter(1)


async def test_there_is_room_for_so_many_bytes(window: Window) -> None:
    assert window.try_enter(60)
    assert not window.try_enter(41)
    assert window.try_enter(40)
    assert not window.try_enter(1)
    window.leave(40)
    assert not window.try_enter(41)
    assert window.try_enter(40)


async def test_who_comes_first_is_served_first_whatever_his_size(window: Window) -> None:
    callers = Callers(window)
    assert window.try_enter(90)
    for name, size in (("large", 50), ("small", 1), ("smaller", 0)):
        await callers.come(name, size)
    assert callers.entered == []
    assert not window.try_enter(1)
    window.leave(90)
    await turns()
    assert callers.entered == ["large", "small", "smaller"]


async def test_one_place_given_back_lets_one_in(window: Window) -> None:
    callers = Callers(window)
    for _ in range(REQUESTS):
        assert window.try_enter(1)
    for name in "abc":
        await callers.come(name, 1)
    window.leave(1)
    await turns()
    assert callers.entered == ["a"]


async def test_many_bytes_given_back_let_many_in(window: Window) -> None:
    callers = Callers(window)
    assert window.try_enter(SIZE)
    for name in "abcd":
        await callers.come(name, 30)
    window.leave(SIZE)
    await turns()
    assert callers.entered == ["a", "b", "c"]


async def test_a_call_larger_than_the_window_goes_alone(window: Window) -> None:
    callers = Callers(window)
    assert window.try_enter(1)
    await callers.come("huge", 10 * SIZE)
    await callers.come("next", 1)
    assert callers.entered == []
    window.leave(1)
    await turns()
    assert callers.entered == ["huge"]
    assert not window.try_enter(0)
    window.leave(10 * SIZE)
    await turns()
    assert callers.entered == ["huge", "next"]
    window.leave(1)
    assert await is_all_free(window)


async def test_a_call_larger_than_the_window_enters_an_empty_one_at_once(window: Window) -> None:
    assert window.try_enter(10 * SIZE)
    assert not window.try_enter(1)
    window.leave(10 * SIZE)
    assert await is_all_free(window)


async def test_who_is_cancelled_while_he_waits_takes_no_place(window: Window) -> None:
    callers = Callers(window)
    assert window.try_enter(SIZE)
    for name in "abc":
        await callers.come(name, 40)
    await callers.cancel("b")
    window.leave(SIZE)
    await turns()
    assert callers.entered == ["a", "c"]
    window.leave(40)
    window.leave(40)
    assert await is_all_free(window)


async def test_who_is_cancelled_as_he_is_let_in_gives_his_place_to_the_next(window: Window) -> None:
    callers = Callers(window)
    assert window.try_enter(SIZE)
    for name in "ab":
        await callers.come(name, SIZE)
    window.leave(SIZE)  # a's turn has come; he hasn't run yet
    await callers.cancel("a")
    await turns()
    assert callers.entered == ["b"]
    window.leave(SIZE)
    assert await is_all_free(window)


async def test_when_a_large_one_at_the_head_gives_up_those_behind_who_fit_come_in(window: Window) -> None:
    callers = Callers(window)
    assert window.try_enter(50)
    await callers.come("large", 80)
    await callers.come("small", 20)
    assert callers.entered == []
    await callers.cancel("large")
    await turns()
    assert callers.entered == ["small"]


async def test_a_deadline_that_falls_on_the_moment_of_entry_loses_no_place(window: Window) -> None:
    for after in range(8):
        assert window.try_enter(SIZE)

        async def wait_a_little(until: asyncio.Event) -> bool:
            try:
                async with asyncio.timeout(None) as deadline:
                    asyncio.get_running_loop().call_soon(until.set)
                    deadline.reschedule(asyncio.get_running_loop().time())
                    await window.enter(SIZE)
            except TimeoutError:
                return False
            return True

        until = asyncio.Event()
        waiting = asyncio.create_task(wait_a_little(until))
        await turns(after)
        window.leave(SIZE)
        if await waiting:
            window.leave(SIZE)
        assert await is_all_free(window)


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_in_the_end_all_places_are_free(window: Window, seed: int) -> None:
    chance = random.Random(seed)
    inside: list[int] = []  # sizes
    waiting: dict[asyncio.Task[None], int] = {}

    async def call(size: int) -> None:
        await window.enter(size)
        inside.append(size)

    for _ in range(1000):
        match chance.choice(("come", "come", "leave", "leave", "cancel", "turn")):
            case "come":
                size = chance.choice((0, 1, 30, 60, SIZE, 3 * SIZE))
                waiting[asyncio.create_task(call(size))] = size
            case "leave" if inside:
                window.leave(inside.pop(chance.randrange(len(inside))))
            case "cancel" if waiting:
                chance.choice(list(waiting)).cancel()
            case "turn":
                await asyncio.sleep(0)
        waiting = {task: size for task, size in waiting.items() if not task.done()}
        assert len(inside) <= REQUESTS
        assert sum(inside) <= SIZE or [size for size in inside if size] == [3 * SIZE]
    while waiting or inside:
        for task in [task for task in waiting if chance.random() < 0.2]:
            task.cancel()
        while inside:
            window.leave(inside.pop())
        await turns()
        waiting = {task: size for task, size in waiting.items() if not task.done()}
    assert await is_all_free(window)
