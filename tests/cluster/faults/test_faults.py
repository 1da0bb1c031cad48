"""Nodes are killed, restarted, emptied, stopped, cut off and slowed: clients are told what one register would tell.

Where the quorums don't promise that, nothing that was acknowledged is lost. When all is over, repair brings every copy
home. Figures are printed: see them with ``-s``.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from sfss.cluster.topology import Quorum
from tests.cluster.faults.campaign import LONGEST, Campaign, campaign
from tests.cluster.faults.census import census, not_home, tombstones
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


@pytest.mark.parametrize("together", [1, 2])
async def test_with_two_and_two_of_three_copies_clients_see_one_register(
    tmp_path: Path, seed: str, seconds: float, together: int
) -> None:
    async with campaign(tmp_path, seed, 5, SAFE, 0, HOUR) as made:
        async with made.load(), made.trouble(together):
            await asyncio.sleep(seconds)
        await check_one_register(made)


async def test_with_one_and_one_of_two_copies_nothing_is_lost_and_no_404_is_false(
    tmp_path: Path, seed: str, seconds: float
) -> None:
    async with campaign(tmp_path, seed, 4, QUICK, 0, 0) as made:
        async with made.load(), made.trouble():
            await asyncio.sleep(seconds)
        during = {path: list(calls) for path, calls in made.histories.items()}
        await made.check_order()
        final = await made.read_all_at_last()
    for path, calls in during.items():
        check_weakly(calls, final[path])


async def test_with_two_and_two_of_three_copies_nobody_is_turned_away_because_a_node_is_dead(
    tmp_path: Path, seed: str, long: bool
) -> None:
    seconds = 20 if long else 0.8
    async with campaign(tmp_path, seed, 5, SAFE, 0, 0, timeout=2.0) as made:
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


async def test_one_node_after_another_may_lose_all_that_it_has_if_the_last_one_was_repaired(
    tmp_path: Path, seed: str, seconds: float
) -> None:
    async with campaign(tmp_path, seed, 4, SAFE, 0, HOUR) as made:
        async with made.load():
            chance = random.Random(f"{seed} emptied")
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                await made.empty(chance.randrange(4))
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

        async with made.load(), made.trouble(kinds=("killed",), calm=1.0):
            repairing = asyncio.create_task(repair_all_the_time())
            async with asyncio.timeout(LONGEST):
                await asyncio.sleep(seconds)
                while not made.done["tombstones_removed"]:
                    await asyncio.sleep(0.1)
            repairing.cancel()
            await asyncio.wait([repairing])
        await check_one_register(made)
        await asyncio.sleep(ttl)
        await made.repair(tombstone_ttl=ttl)
        assert tombstones(await census(made.operator.topology)) == 0


@pytest.mark.parametrize("quorum", [SAFE, QUICK], ids=["3 copies, 2 and 2", "2 copies, 1 and 1"])
async def test_fronts_that_repair_in_the_background_bring_every_copy_home(
    tmp_path: Path, seed: str, seconds: float, quorum: Quorum, quick_repair: None
) -> None:
    async with campaign(tmp_path, seed, 4, quorum, 0, 0) as made:
        made.look_after(interval=1.0)
        async with made.load(), made.trouble():
            await asyncio.sleep(seconds)
        during = {path: list(calls) for path, calls in made.histories.items()}
        healed, topology = time.monotonic(), made.operator.topology
        async with asyncio.timeout(LONGEST):
            while any(repairer.status()["under_replicated"] for repairer in made.repairers):
                await asyncio.sleep(0.05)
            while not_home(topology, await census(topology)):
                await asyncio.sleep(0.05)
        print(f"{time.monotonic() - healed:.1f} s until all copies were home")
        final = await made.read_all_at_last()
    for path, calls in during.items():
        if quorum.sees_all:
            check_versions(made.histories[path])
            check(made.histories[path])
        else:
            check_weakly(calls, final[path])
