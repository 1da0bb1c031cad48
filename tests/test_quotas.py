"""Quotas are counted: what a count finds, when it is made, and what becomes of one that can't be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from sfss.bounds import Tank, Used
from sfss.cluster.listing import Found
from sfss.config import Namespace, Size
from sfss.errors import Unavailable
from sfss.quotas import Quotas
from sfss.record import Header, Kind
from tests.cluster.support import until


def header(size: int) -> Header:
    return Header(Kind.FILE, 1, 1, size, b"", size, b"")


class Nodes:
    """A list of files that may fail: what a real cluster's does is tested in ``web/test_namespaces.py``."""

    def __init__(self) -> None:
        self.sizes = [10, 20]
        self.error: Exception | None = None
        self.lists = 0

    async def list(self, prefix: str) -> AsyncGenerator[Sequence[Found], None]:
        assert prefix == "photos/"
        self.lists += 1
        if self.error is not None:
            raise self.error
        for size in self.sizes:
            yield [Found("photos/x", header(size))]


PHOTOS = Namespace("photos", quota=Size(100))


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


def tank_of(quotas: Quotas) -> Tank:
    tank = quotas.tank("photos")
    assert tank is not None
    return tank


async def test_all_files_are_counted_again_and_again(nodes: Nodes) -> None:
    quotas = Quotas(nodes.list, interval=0.02)
    quotas.change([PHOTOS, Namespace("other")])
    quotas.start()
    assert quotas.tank("other") is None
    await until(lambda: tank_of(quotas).used == Used(30, 2))
    nodes.sizes.append(5)
    await until(lambda: tank_of(quotas).used == Used(35, 3))
    await quotas.close()


async def test_a_count_that_fails_says_why_and_is_made_again(nodes: Nodes) -> None:
    nodes.error = Unavailable("node x is away")
    quotas = Quotas(nodes.list, interval=0.02)
    quotas.change([PHOTOS])
    quotas.start()
    await until(lambda: "node x is away" in tank_of(quotas).why)
    with pytest.raises(Unavailable, match="node x is away"):
        tank_of(quotas).check(1, 1)
    nodes.error = None
    await until(lambda: tank_of(quotas).used == Used(30, 2))
    nodes.error = Unavailable("node x is away")
    before = nodes.lists
    await until(lambda: nodes.lists > before + 2)
    assert tank_of(quotas).used == Used(30, 2)  # better than nothing
    await quotas.close()


async def test_a_quota_that_changes_keeps_its_count_and_one_that_goes_is_counted_no_more(nodes: Nodes) -> None:
    quotas = Quotas(nodes.list, interval=0.02)
    quotas.start()
    quotas.change([PHOTOS])
    await until(lambda: tank_of(quotas).used is not None)
    quotas.change([Namespace("photos", quota=Size(200), quota_files=7)])
    tank = tank_of(quotas)
    assert (tank.bytes, tank.files, tank.used) == (200, 7, Used(30, 2))
    quotas.change([])
    await asyncio.sleep(0.05)
    before = nodes.lists
    await asyncio.sleep(0.1)
    assert (quotas.tank("photos"), nodes.lists) == (None, before)
    await quotas.close()
