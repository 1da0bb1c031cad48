"""Nodes are killed, restarted, emptied, stopped, cut off and slowed: clients are told what one register would tell.

Where the quorums don't promise that, nothing that was acknowledged is lost. When all is over, repair brings every copy
home. Figures are printed: see them with ``-s``.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path

import pytest

from sfss.cluster.topology import Quorum
from tests.cluster.faults.campaign import LONGEST, PATIENT, Campaign, campaign
from tests.cluster.faults.census import census, tombstones
from tests.cluster.faults.farm import DISTURBANCES
from tests.cluster.faults.history import check, check_versions, check_weakly

HOUR = 3600 * 1_000_000  # in microseconds
SAFE, QUICK = Quorum(3, 2, 2), Quorum(2, 1, 1)

pytestmark = pytest.mark.timeout(3600)


async def check_one_register(made: Campaign) -> None:
    """That all were told what one register would tell, before copies are put in order and after."""
    await made.read_all_at_last()
    await made.check_order()
    await made.read_all_at_last()
    for calls in made.histories.values():
        check_versions(calls)
        check(calls)


@contextlib.asynccontextmanager
async def beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """The work goes on beside the block, and is given up at its end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("background", [False, True], ids=["one node at a time", "two, and repair in the background"])
async def test_with_two_and_two_of_three_copies_clients_see_one_register(
    tmp_path: Path, seed: str, seconds: float, quick_repair: None, background: bool
) -> None:
    async with campaign(tmp_path, seed, 5, SAFE, 0, HOUR) as made:
        if background:
            made.look_after(interval=1.0)
        async with made.load(), made.trouble(2 if background else 1):
            await asyncio.sleep(seconds)
        if background:
            await made.check_background()
        await check_one_register(made)


async def test_with_one_and_one_of_two_copies_nothing_is_lost_and_no_404_is_false(
    tmp_path: Path, seed: str, seconds: float, quick_repair: None
) -> None:
    async with campaign(tmp_path, seed, 4, QUICK, 0, 0) as made:
        made.set_clock(1, HOUR)  # or else its writes would win for an hour
        made.look_after(interval=1.0)
        async with made.load(), made.trouble():
            await asyncio.sleep(seconds)
        during = {path: list(calls) for path, calls in made.histories.items()}
        await made.check_background()
        final = await made.read_all_at_last()
    for path, calls in during.items():
        check_weakly(calls, final[path])


async def test_with_two_and_two_of_three_copies_nobody_is_turned_away_because_a_node_is_dead(
    tmp_path: Path, seed: str, long: bool
) -> None:
    seconds = 20 if long else 0.6
    async with campaign(tmp_path, seed, 3, SAFE, 0, 0, timeout=PATIENT) as made:
        stopping = asyncio.Event()
        clients = asyncio.create_task(made.load_plainly(stopping))
        made.phase = "before"
        await asyncio.sleep(seconds)
        await made.disturb(random.Random(seed).choice(made.farm.nodes), "killed", seconds)
        made.phase = "after"
        await asyncio.sleep(seconds)
        stopping.set()
        await clients
        assert sum(sum(kinds.values()) for kinds in made.failed.values()) == 0
        await check_one_register(made)


@pytest.mark.parametrize("ahead", [0, HOUR], ids=["at any moment", "settled, clocks differ"])
async def test_one_node_after_another_may_lose_all_that_it_has_if_the_last_one_was_repaired(
    tmp_path: Path, seed: str, seconds: float, ahead: int
) -> None:
    """Where the clocks of fronts differ, no copy may be on its way to its node just then, nor have failed.

    For a front whose clock is behind could write its version to the emptied node and to that one, and be told that it
    is kept, while the only node that is left with the newer version refuses it too late.
    """
    async with campaign(tmp_path, seed, 4, SAFE, 0, ahead, timeout=2.0) as made:
        await made.put_in_order()
        async with made.load():
            chance = random.Random(f"{seed} emptied")
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                await (made.empty_when_settled if ahead else made.empty)(chance.randrange(4))
                made.phase = "repaired"
                await made.put_in_order()
                await made.disturb(chance.choice(made.farm.nodes), chance.choice(DISTURBANCES), 0.2)
                await made.put_in_order()
        await check_one_register(made)


async def test_deleted_files_stay_deleted_when_nobody_remembers_them_any_more(
    tmp_path: Path, seed: str, seconds: float
) -> None:
    ttl = 1
    async with campaign(tmp_path, seed, 4, SAFE, 0, 0) as made:
        made.paths = 150  # so that many are left alone until their tombstones are swept
        made.weights = (15, 15, 20, 30, 20)

        async def repair_all_the_time() -> None:
            while True:
                await made.repair(tombstone_ttl=ttl)
                await asyncio.sleep(0.01)

        async with made.load(), made.trouble(kinds=("killed",), calm=2.0), beside(repair_all_the_time()):
            await asyncio.sleep(seconds)
            async with asyncio.timeout(LONGEST):
                while not made.done["tombstones_removed"]:
                    await asyncio.sleep(0.1)
        await check_one_register(made)
        async with asyncio.timeout(LONGEST):
            while tombstones(await census(made.operator.topology)):  # until the last of them are old enough
                await made.repair(tombstone_ttl=ttl)
                await asyncio.sleep(0.1)
