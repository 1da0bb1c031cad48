"""The same over engines as nodes, which are killed, restarted, stopped, cut off and slowed: see ``test_faults``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.faults.campaign import campaign
from tests.cluster.faults.farm import Kind, OverPostgres, OverRedis
from tests.cluster.faults.history import check_weakly
from tests.cluster.faults.test_faults import HOUR, QUICK, SAFE, check_one_register

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def over_postgres() -> Iterator[OverPostgres]:
    with contextlib.closing(OverPostgres()) as made:
        yield made


@pytest.fixture(params=["redis", "postgresql"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = OverRedis() if request.param == "redis" else request.getfixturevalue("over_postgres")
    return found


async def test_with_two_and_two_of_three_copies_clients_see_one_register(
    tmp_path: Path, seed: str, seconds: float, quick_repair: None, kind: Kind
) -> None:
    async with campaign(tmp_path, seed, 4, SAFE, 0, HOUR, kind=kind) as made:
        made.look_after(interval=1.0)
        async with made.load(), made.trouble():
            await asyncio.sleep(seconds)
        await made.check_background()
        await check_one_register(made)


async def test_with_one_and_one_of_two_copies_nothing_is_lost_and_no_404_is_false(
    tmp_path: Path, seed: str, seconds: float, quick_repair: None, kind: Kind
) -> None:
    async with campaign(tmp_path, seed, 3, QUICK, 0, 0, kind=kind) as made:
        made.look_after(interval=1.0)
        async with made.load(), made.trouble():
            await asyncio.sleep(seconds)
        during = {path: list(calls) for path, calls in made.histories.items()}
        await made.check_background()
        final = await made.read_all_at_last()
    for path, calls in during.items():
        check_weakly(calls, final[path])
