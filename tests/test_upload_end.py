"""What was abandoned goes: blocks and states of uploads that nobody goes on with, from the nodes themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from sfss import config, record, upload_state
from sfss.cluster.sweeping import stripeturn
from sfss.cluster.sweeping.sweep import Sweep
from sfss.record import Kind
from sfss.upload_state import State
from sfss.web.app import CLUSTER
from tests.conftest import Client, Nodes, StartFront
from tests.large.support import KIB, blocks_on, connected, content_of
from tests.web.tus import Tus

SHORT = {"upload_expiry": 1.0, "upload_time": 1.0, "record_size": "64KiB", "max_file_size": "1GiB"}  # seconds
CONTENT = content_of("abandoned", 400 * KIB)


@pytest.fixture
def own_nodes(empty_nodes: Nodes) -> Nodes:
    return empty_nodes[:2]


async def swept(front: Client) -> tuple[int, int]:
    """How many stripes and uploads a sweep has put an end to."""
    sweep = Sweep(front.app[CLUSTER], upload_time=SHORT["upload_time"])  # type: ignore[arg-type]
    await sweep.run()
    assert not sweep.summary.unsure
    return sweep.summary.stripes_swept, sweep.summary.uploads_expired


async def states_on(nodes: Nodes) -> list[bytes]:
    """The keys of uploads' states that are more than the mark of one that is gone."""
    found = []
    for address in nodes:
        async with connected(address) as node:
            for item in await node.scan(b"#u", 1000, b"#v"):
                data = await node.get(item.key)
                if data is not None and record.decode_header(data)[0].kind == Kind.UPLOAD:
                    found.append(item.key)
    return found


async def test_an_abandoned_upload_is_gone_after_its_time(
    start_front: StartFront, own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripeturn, "MARGIN", 0.5)
    front = await start_front(own_nodes, limits=SHORT)
    tus = Tus(front)
    upload = await tus.create("films/cat", len(CONTENT) * 2)
    assert (await tus.patch(upload, 0, CONTENT)).status == 204
    assert await blocks_on(own_nodes)
    assert await states_on(own_nodes)
    assert await swept(front) == (0, 0)  # it is young
    await asyncio.sleep(2.7)  # its time, a grace of one second, and a margin for clocks
    assert (await tus.head(upload)).status == 410
    assert (await swept(front))[1] == 1
    await swept(front)
    assert await blocks_on(own_nodes) == []
    assert await states_on(own_nodes) == []
    assert (await tus.head(upload)).status in (404, 410)


async def test_what_a_front_left_that_died_during_a_put_is_gone_after_its_time(
    start_front: StartFront, own_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripeturn, "MARGIN", 0.5)
    front = await start_front(own_nodes, limits=SHORT)
    monkeypatch.setattr("sfss.stripes.Stripes.free", lambda *_, **__: None)  # as of one that is killed just then

    async def body() -> AsyncIterator[bytes]:
        yield CONTENT
        await asyncio.sleep(0.3)
        raise OSError

    with pytest.raises((aiohttp.ClientError, OSError)):
        await front.put("/file?path=films/cat", data=body())
    assert await blocks_on(own_nodes)
    await asyncio.sleep(1.6)
    assert (await swept(front))[0] == 1
    assert await blocks_on(own_nodes) == []


def test_an_hour_and_sweeps_each_five_minutes_can_be_set() -> None:
    settings = config.load(
        overrides={"limits": {"upload_expiry": 3600, "upload_time": 3600}, "repair": {"sweep_interval": 300}}
    )
    assert (settings.limits.upload_expiry, settings.repair.sweep_interval) == (3600.0, 300.0)


def test_the_grace_is_a_sixth_of_the_time_and_an_hour_at_most() -> None:
    state = State(expires=0, length=None, grace=600)
    assert not state.is_abandoned(600_000_000)
    assert state.is_abandoned(600_000_001)
    assert State(expires=0, length=None).grace == upload_state.GRACE == 3600
