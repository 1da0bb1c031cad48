"""Fixtures that the cluster's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sfss import eventloop
from tests.cluster.support import QUICK, SAFE, Farm, started
from tests.conftest import Loops


def pytest_asyncio_loop_factories() -> Loops:
    """A cluster, and its nodes, in a test's own loop run on the loop of processes that serve."""
    return {"uvloop": eventloop.new}


@pytest.fixture(params=[SAFE, QUICK], ids=["3 copies, 2 and 2", "2 copies, 1 and 1"])
async def farm(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Farm]:
    async with started(tmp_path, request.param) as farm:
        yield farm


@pytest.fixture
async def safe(tmp_path: Path) -> AsyncIterator[Farm]:
    async with started(tmp_path, SAFE) as farm:
        yield farm


@pytest.fixture
async def quick(tmp_path: Path) -> AsyncIterator[Farm]:
    async with started(tmp_path, QUICK) as farm:
        yield farm
