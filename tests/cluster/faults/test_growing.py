"""Nodes join and leave under load, while others are disturbed: see ``docs/operations/growing.rst``."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from pathlib import Path

import pytest

from sfss.cluster.topology import ONE_COPY, Quorum
from tests.cluster.faults.campaign import PATIENT, Campaign, campaign
from tests.cluster.faults.history import check, check_versions, check_weakly

HOUR = 3600 * 1_000_000  # in microseconds

pytestmark = pytest.mark.timeout(3600)


async def grow_and_shrink(made: Campaign, chance: random.Random) -> None:
    """Of four nodes the one that is out joins, empty, and another one leaves."""
    old = list(made.members)
    [new] = {0, 1, 2, 3}.difference(old)
    await made.renew(new)
    made.phase = "joining"
    await made.go_over(chance, old, joining=[new])
    made.phase = "joined"
    await made.go_over(chance, [*old, new])
    gone = chance.choice([*old, new])
    staying = [number for number in (*old, new) if number != gone]
    made.phase = "leaving"
    await made.go_over(chance, staying, leaving=[gone])
    made.phase = "left"
    await made.go_over(chance, staying)


@pytest.mark.parametrize(
    ("quorum", "ahead"),
    [(Quorum(3, 2, 2), HOUR), (Quorum(2, 1, 1), 0), (ONE_COPY, HOUR)],
    ids=["3 copies, 2 and 2", "2 copies, 1 and 1", "one copy"],
)
async def test_nodes_join_and_leave_and_no_client_can_tell(
    tmp_path: Path, seed: str, seconds: float, quorum: Quorum, ahead: int, quick_repair: None
) -> None:
    calm = quorum == ONE_COPY
    timeout = PATIENT if calm else 0.5
    async with campaign(tmp_path, seed, 4, quorum, 0, ahead, 0, timeout=timeout, members=[0, 1, 2]) as made:
        chance = random.Random(f"{seed} growth")
        made.look_after(interval=0.5)
        async with made.load(), contextlib.nullcontext() if calm else made.trouble(calm=1.0):
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                await grow_and_shrink(made, chance)
                made.phase = "quiet"
                await asyncio.sleep(0.1)
        during = {path: list(calls) for path, calls in made.histories.items()}
        await made.read_all_at_last()
        await made.check_order()
        final = await made.read_all_at_last()
    if calm:
        assert not any(made.failed.values())
    for path, calls in made.histories.items():
        if quorum.sees_all:
            check_versions(calls)
            check(calls)
        else:
            check_weakly(during[path], final[path])
