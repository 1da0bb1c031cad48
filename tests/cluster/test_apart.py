"""One store under two names: it is said, and nobody takes what lies there for a stray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from sfss.addresses import parse_address
from sfss.backends.base import Backend
from sfss.backends.memcached import MemcachedNode
from sfss.cluster import background, repair, rounds
from sfss.cluster.apart import one_store
from sfss.cluster.background import Background
from sfss.cluster.members import Members, Plan
from sfss.cluster.repair import Repair
from sfss.cluster.replication import Cluster
from sfss.cluster.summary import Summary
from sfss.cluster.sweeping.blockturn import remove
from sfss.cluster.sweeping.sweep import Sweep
from sfss.cluster.topology import ONE_COPY, Topology
from sfss.errors import OneStore
from sfss.manifest import block_key, new_stripe
from sfss.node.server import Server
from sfss.record import Kind
from tests.cluster.support import MIB, connected, version
from tests.node.support import running
from tests.servers import HOST, PATIENT
from tests.test_record import make

KEYS = [b"/apart/%d" % number for number in range(60)]


class Twice(NamedTuple):
    """A node that a cluster takes for two, and files there."""

    server: Server
    cluster: Cluster
    names: list[str]

    @property
    def nodes(self) -> list[Backend]:
        return list(self.cluster.topology.nodes.values())

    def has_all(self) -> bool:
        return all(self.server.store.head(key) is not None for key in KEYS)


@pytest.fixture
async def twice(tmp_path: Path) -> AsyncIterator[Twice]:
    async with running(tmp_path / "node", durability="os") as server:
        names = [f"{HOST}:{server.port}", f"localhost:{server.port}"]
        nodes = [MemcachedNode(parse_address(name), largest_value=MIB, **PATIENT) for name in names]
        async with connected(Cluster(Topology(nodes, ONE_COPY))) as cluster:
            for key in KEYS:
                assert await cluster.put(key, version(5))
            yield Twice(server, cluster, names)


async def test_each_node_is_a_store_of_its_own_and_one_that_does_not_tell_is_no_other(tmp_path: Path) -> None:
    async with running(tmp_path / "a", durability="os") as one, running(tmp_path / "b", durability="os") as other:
        nodes = [MemcachedNode(parse_address(f"{HOST}:{s.port}"), largest_value=MIB, **PATIENT) for s in (one, other)]
        silent = [MemcachedNode(parse_address(f"silent-{number}=x:1"), largest_value=MIB) for number in range(2)]
        async with connected(Cluster(Topology(nodes, ONE_COPY))):
            assert all(node.identity for node in nodes)
            assert one_store([*nodes, *silent]) == []


async def test_both_are_named_and_no_walk_begins(twice: Twice) -> None:
    [words] = one_store(twice.nodes)
    assert f"nodes {twice.names[0]} and {twice.names[1]} are one store" in words
    for walk in (Repair(twice.cluster.topology, tombstone_ttl=1), Sweep(twice.cluster, upload_time=-1)):
        with pytest.raises(OneStore, match="take one of them out of the settings"):
            await walk.run()
    assert twice.has_all()


async def test_what_is_found_out_in_the_middle_of_a_repair_removes_nothing(
    twice: Twice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when one of them came after the walk had begun."""
    monkeypatch.setattr(repair, "check_apart", unseen)
    summary = await Repair(twice.cluster.topology, tombstone_ttl=86400).run()
    assert summary.strays_removed == 0
    assert not summary.well
    assert any("are one store" in why for why in summary.why.values())
    assert twice.has_all()


async def test_a_sweep_that_finds_it_out_removes_no_block(twice: Twice) -> None:
    key, summary = block_key(new_stripe(1), 0), Summary()
    await twice.nodes[0].set(key, make(b"block", kind=Kind.BLOCK, sha256=b""))
    assert not await remove(key, twice.nodes[1], twice.cluster.blocks, summary)
    assert await twice.nodes[0].get(key) is not None


async def test_a_front_walks_and_heals_nothing_meanwhile(
    twice: Twice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sfss.repair")
    monkeypatch.setattr(background, "HEAL", 0.01)
    monkeypatch.setattr(rounds, "LOOK", 0.01)
    for key in KEYS:
        twice.cluster.lacking.note(key)
    behind = Background(twice.cluster, interval=0.01, share=1.0, tombstone_ttl=1, sweep_interval=0.01, upload_time=-1)
    behind.start()
    await asyncio.sleep(0.3)
    assert behind.status()["lacking"] == len(KEYS)
    await behind.close()
    assert "repair waits: nodes" in caplog.text
    assert twice.has_all()


async def test_it_is_logged_once_for_as_long_as_it_is_so(twice: Twice, caplog: pytest.LogCaptureFixture) -> None:
    topology = twice.cluster.topology
    members = Members(twice.cluster, Plan(twice.names, twice.names, moving=False, lay=lambda *_: topology))
    for _ in range(3):
        await members.look()
    said = [record for record in caplog.records if "are one store" in record.message]
    assert [record.levelname for record in said] == ["ERROR"]


def unseen(_: Iterable[Backend]) -> None:
    """Finds nothing."""
