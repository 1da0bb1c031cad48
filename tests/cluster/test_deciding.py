"""Turns at a key: one at a time, in their order, whoever gives up; and nothing is kept of those that are over."""

from __future__ import annotations

import asyncio

import pytest

from sfss.cluster.deciding import Deciding


async def test_one_at_a_time_has_a_key_and_others_go_on() -> None:
    deciding, order = Deciding(), list[str]()
    inside = 0

    async def one(key: bytes, name: str) -> None:
        nonlocal inside
        async with deciding.turn(key):
            inside += key == b"a"
            assert inside <= 1
            await asyncio.sleep(0)
            order.append(name)
            inside -= key == b"a"

    async with deciding.turn(b"c"):
        await asyncio.gather(one(b"a", "first"), one(b"a", "second"), one(b"b", "other"), one(b"a", "third"))
    assert [name for name in order if name != "other"] == ["first", "second", "third"]
    assert deciding._locks == {}


async def test_who_gives_up_or_fails_lets_the_next_one_in() -> None:
    deciding = Deciding()

    async def fails() -> None:
        async with deciding.turn(b"a"):
            raise ValueError

    async def waits() -> str:
        async with deciding.turn(b"a"):
            return "in"

    async with deciding.turn(b"a"):
        given_up, next_one = asyncio.create_task(waits()), asyncio.create_task(waits())
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(0)
    assert await next_one == "in"
    with pytest.raises(ValueError):
        await fails()
    assert deciding._locks == {}
