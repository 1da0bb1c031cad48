"""Repair behind a front: what was noted comes home by itself, and one front of several walks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from sfss import config
from sfss.assembly import create_cluster
from sfss.cluster import background, lease, rounds, wholeness
from sfss.cluster.background import Background
from sfss.cluster.lacking import Lacking
from sfss.cluster.lease import State
from sfss.cluster.replication import Cluster
from sfss.cluster.topology import ONE_COPY, Topology
from sfss.manifest import block_key, new_stripe
from sfss.record import Kind
from tests.cluster.support import Farm, connected, found, started, until, version
from tests.conftest import Nodes, StartFront
from tests.test_record import make

DAY = 86400


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "LOOK", 0.05)
    monkeypatch.setattr(background, "HEAL", 0.02)
    monkeypatch.setattr(rounds, "LEASE", 0.5)
    monkeypatch.setattr(rounds, "AGAIN", 0.2)


@contextlib.asynccontextmanager
async def looked_after(cluster: Cluster, interval: float = DAY) -> AsyncIterator[Background]:
    repairer = Background(cluster, interval=interval, share=1.0, tombstone_ttl=DAY)
    repairer.start()
    try:
        yield repairer
    finally:
        await repairer.close()


async def never_walk(cluster: Cluster, kind: bytes = lease.KEY) -> None:
    noted = await lease.change(
        cluster, 1, lambda state: msgspec.structs.replace(state, paused_until=time.time() + DAY), kind
    )
    assert noted


async def test_what_an_owner_that_was_away_lacks_is_brought_to_it_when_it_is_back(farm: Farm) -> None:
    keys = [b"/background/%d" % number for number in range(40)]
    await never_walk(farm.cluster)
    async with looked_after(farm.cluster) as repairer:
        away = farm.names[0]
        await farm.stop(away)
        await farm.settled(away=1)
        for number, key in enumerate(keys, 1):
            assert await farm.cluster.put(key, version(number))
        concerned = [key for key in keys if away in farm.owners(key)[: farm.quorum.copies]]
        assert concerned
        await until(lambda: len(farm.cluster.lacking) >= len(concerned))
        await farm.start(away)
        await until(lambda: repairer.status()["under_replicated"] == 0)
        for key in keys:
            assert set(farm.versions(key)) == set(farm.owners(key)[: farm.quorum.copies])


async def test_a_walk_finds_what_nobody_has_noted(farm: Farm) -> None:
    keys = [b"/background/%d" % number for number in range(40)]
    for number, key in enumerate(keys, 1):
        assert await farm.cluster.put(key, version(number))
        await until(lambda key=key: len(farm.versions(key)) == farm.quorum.copies)  # type: ignore[misc]
    async with connected(farm.new_cluster()) as cluster:  # which has noted nothing
        for key in keys:
            store = farm.nodes[farm.owners(key)[0]].store
            head = store.claim(key)
            assert head is not None
            store.remove(key, head)
        async with looked_after(cluster) as repairer:
            await until(lambda: repairer.status()["finished"])
            assert repairer.status()["under_replicated"] == 0
        for key in keys:
            assert set(farm.versions(key)) == set(farm.owners(key)[: farm.quorum.copies])


async def test_of_several_fronts_one_walks_and_all_know_of_it(farm: Farm) -> None:
    async with contextlib.AsyncExitStack() as stack:
        fronts = [farm.cluster, *[await stack.enter_async_context(connected(farm.new_cluster())) for _ in range(2)]]
        repairers = [await stack.enter_async_context(looked_after(front)) for front in fronts]
        await until(lambda: all(repairer.status()["finished"] for repairer in repairers))
        await asyncio.sleep(0.3)
        finished = {repairer.status()["finished"] for repairer in repairers}
        assert len(finished) == 1
        assert {repairer.status()["state"] for repairer in repairers} == {"resting"}


async def test_when_the_front_that_walks_is_gone_another_one_takes_over(farm: Farm) -> None:
    def by_somebody(state: State) -> State:
        return msgspec.structs.replace(state, holder=12345, until=time.time() + 0.4)

    assert await lease.change(farm.cluster, 12345, by_somebody)
    async with looked_after(farm.cluster) as repairer:
        await until(lambda: repairer.status()["state"] == "another front walks")
        await until(lambda: repairer.status()["finished"])


async def test_while_it_is_paused_nobody_walks(farm: Farm) -> None:
    await never_walk(farm.cluster)
    async with looked_after(farm.cluster) as repairer:
        await until(lambda: repairer.status()["state"] == "paused")
        await asyncio.sleep(0.3)
        assert not repairer.status()["finished"]
        await lease.change(farm.cluster, 1, lambda state: msgspec.structs.replace(state, paused_until=0.0))
        await until(lambda: repairer.status()["finished"])


async def test_what_is_kept_for_the_fronts_is_no_file_and_no_repairs_business(farm: Farm) -> None:
    async with looked_after(farm.cluster) as repairer:
        await until(lambda: repairer.status()["finished"])
        state = await lease.read(farm.cluster)
        assert state.well
        assert state.under_replicated == 0
        assert await found(farm.cluster, b"/#sfss/repair") is None


async def test_a_walk_ends_at_once_when_the_nodes_change(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        assert await farm.cluster.put(b"/background/%d" % number, version(1))
    repairer = Background(farm.cluster, interval=DAY, share=1e-6, tombstone_ttl=DAY)  # it would take hours
    repairer.start()
    try:
        await until(lambda: repairer.status()["state"] == "walking")
        monkeypatch.setattr(rounds, "LOOK", float(DAY))
        await asyncio.sleep(0.1)
        known = farm.cluster.topology
        await farm.cluster.change(Topology(known.nodes.values(), known.quorum))
        await until(lambda: repairer.status()["state"] != "walking")
    finally:
        await repairer.close()


async def test_what_a_walk_has_written_stays_counted_when_it_is_cut_short(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [b"/background/%d" % number for number in range(400)]
    for key in keys:
        farm.leave(farm.owners(key)[0], key, version(1))
    monkeypatch.setattr("sfss.cluster.turns.TOGETHER", 1)
    repairer = Background(farm.cluster, interval=DAY, share=0.05, tombstone_ttl=DAY)
    repairer.start()
    try:
        await until(lambda: repairer.status()["copies_written"])
        written = repairer.status()["copies_written"]
        known = farm.cluster.topology
        await farm.cluster.change(Topology(known.nodes.values(), known.quorum))
        await until(lambda: repairer.status()["state"] != "walking")
        assert repairer.status()["copies_written"] >= written  # type: ignore[operator]
    finally:
        await repairer.close()


async def test_a_front_whose_clock_is_far_ahead_keeps_the_others_from_no_walk(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(farm.new_cluster()) as ahead:
        with monkeypatch.context() as patch:
            patch.setattr(time, "time_ns", lambda now=time.time_ns: now() + DAY * 10**9)
            patch.setattr(time, "time", lambda now=time.time: now() + DAY)
            async with looked_after(ahead) as repairer:
                await until(lambda: repairer.status()["finished"])
        state = await lease.read(farm.cluster)
        assert state.finished == pytest.approx(time.time(), abs=10)


async def abandon(cluster: Cluster) -> list[bytes]:
    """Blocks that no file has, of a stripe that began long ago; their keys.

    All nodes are known to be whole by now: a sweep that comes while they are first noted to be so isn't sure of any.
    """
    await wholeness.mark(cluster.topology.nodes.values(), time.monotonic())
    stripe = new_stripe(int((time.time() - 10 * DAY) * 1e6))
    keys = [block_key(stripe, number) for number in range(5)]
    for number, key in enumerate(keys):
        homes = cluster.blocks.layout(key, 1, 2).homes(number)
        block = make(b"x" * 1000, kind=Kind.BLOCK, version=1, sha256=b"", path="never/finished")
        await cluster.blocks.put(key, block, homes, 2)
    return keys


async def test_what_a_broken_upload_has_left_is_swept(farm: Farm) -> None:
    keys = await abandon(farm.cluster)
    async with looked_after(farm.cluster) as repairer:
        await until(lambda: repairer.status()["sweep_finished"])
        assert (repairer.status()["stripes_swept"], repairer.status()["blocks_lacking"]) == (1, 0)
        assert not any(map(farm.versions, keys))


async def test_with_one_copy_too_where_nothing_else_is_to_be_looked_after(tmp_path: Path) -> None:
    async with started(tmp_path, ONE_COPY) as farm:
        keys = await abandon(farm.cluster)
        async with looked_after(farm.cluster) as repairer:
            await until(lambda: repairer.status()["sweep_finished"])
            assert not repairer.status()["finished"]
            assert not any(map(farm.versions, keys))


async def test_a_sweep_waits_while_a_node_is_away(farm: Farm) -> None:
    keys = await abandon(farm.cluster)
    await farm.stop(farm.names[0])
    await farm.settled(away=1)
    async with looked_after(farm.cluster) as repairer:
        await asyncio.sleep(0.3)
        assert not repairer.status()["sweep_finished"]
        await farm.start(farm.names[0])
        await until(lambda: repairer.status()["sweep_finished"])
        assert not any(map(farm.versions, keys))


async def test_a_sweep_waits_while_it_is_paused(farm: Farm) -> None:
    keys = await abandon(farm.cluster)
    await never_walk(farm.cluster, lease.SWEEP)
    async with looked_after(farm.cluster) as repairer:
        await until(lambda: repairer.status()["sweep_state"] == "paused")
        await asyncio.sleep(0.3)
        assert any(map(farm.versions, keys))
        await lease.change(farm.cluster, 1, lambda state: msgspec.structs.replace(state, paused_until=0.0), lease.SWEEP)
        await until(lambda: repairer.status()["sweep_finished"])
        assert not any(map(farm.versions, keys))


def test_what_lacks_is_noted_up_to_a_bound_and_taken_in_turn() -> None:
    lacking = Lacking(limit=3)
    for key in (b"a", b"b", b"a", b"c"):
        lacking.note(key)
    assert (len(lacking), lacking.overflown) == (3, False)
    lacking.note(b"d")
    assert (len(lacking), lacking.overflown) == (3, True)
    assert lacking.take(1, lambda key: key != b"a") == [b"b"]
    assert len(lacking) == 3
    lacking.done(b"b", still_lacks=False)
    assert sorted(lacking.take(5, lambda key: True)) == [b"a", b"c"]
    lacking.done(b"a", still_lacks=True)
    lacking.done(b"c", still_lacks=False)
    assert len(lacking) == 1
    assert lacking.take(5, lambda key: True) == [b"a"]


async def test_fronts_of_tests_leave_no_marks_on_nodes_that_others_have_beside_other_ones(
    start_front: StartFront, our_nodes: Nodes
) -> None:
    """Else it would hang on how long a test takes whether the next one may."""
    async with connected(create_cluster(config.load(overrides={"storage": {"nodes": our_nodes}}))) as cluster:
        nodes = cluster.topology.nodes.values()
        await asyncio.gather(*(node.delete(wholeness.MARK) for node in nodes))
        await start_front(our_nodes)
        await start_front(our_nodes, storage={"copies": 2})
        await asyncio.sleep(20 * rounds.LOOK)
        assert not await wholeness.any_marked(nodes)
