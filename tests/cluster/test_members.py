"""The roll on the nodes: all fronts come to the same, no change is lost, and who doesn't know doesn't guess."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from sfss import config
from sfss.addresses import Address, parse_address
from sfss.assembly import create_cluster, create_members
from sfss.backends.base import Backend
from sfss.backends.memcached import MemcachedNode
from sfss.cluster.members import KEY, Members
from sfss.cluster.replication import Cluster
from sfss.cluster.topology import Topology
from sfss.errors import Unavailable
from sfss.membership import Member, Roll, joined_by, moved, settled
from sfss.node.server import Server
from tests.cluster.support import until, version
from tests.node.support import running
from tests.servers import HOST, free_ports

REFRESH = 0.1


class Farm:
    """Three nodes that all fronts name, and two more."""

    def __init__(self, directory: Path, stack: contextlib.AsyncExitStack) -> None:
        self.directory = directory
        self.first = free_ports(5)
        self.servers: dict[int, Server] = {}
        self.stacks: dict[int, contextlib.AsyncExitStack] = {}
        self.stack = stack

    async def start(self, number: int) -> None:
        stack = self.stacks[number] = contextlib.AsyncExitStack()
        self.stack.push_async_callback(stack.aclose)
        self.servers[number] = await stack.enter_async_context(
            running(self.directory / str(number), port=self.first + number, durability="os")
        )

    async def stop(self, number: int) -> None:
        await self.stacks[number].aclose()

    def has(self, number: int) -> bytes | None:
        head = self.servers[number].store.head(KEY)
        return None if head is None else bytes(str(head.size), "ascii")

    def member(self, number: int) -> Member:
        return Member(f"m{number}", HOST, self.first + number, "0" * 32, 1)

    @contextlib.asynccontextmanager
    async def front(self, seeds: str = "012", **storage: object) -> AsyncIterator[tuple[Cluster, Members]]:
        nodes = [f"s{number}={HOST}:{self.first + int(number)}" for number in seeds]
        quick = {"retry_after": 0.05, "connect_timeout": 5.0, "timeout": 5.0}
        settings = config.load(
            overrides={"storage": {"nodes": nodes, **quick, **storage}, "registration": {"refresh": REFRESH}}
        )
        cluster = create_cluster(settings)
        members = create_members(settings, cluster)
        try:
            await members.start()
            yield cluster, members
        finally:
            await members.close()
            await cluster.close()


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncIterator[Farm]:
    async with contextlib.AsyncExitStack() as stack:
        made = Farm(tmp_path, stack)
        for number in range(5):
            await made.start(number)
        yield made


async def test_where_nobody_ever_came_nothing_is_written_and_nothing_is_other(farm: Farm) -> None:
    async with farm.front() as (cluster, members):
        await members.look()
        assert (members.known, members.roll, members.everywhere) == (True, Roll(), True)
        assert list(cluster.topology.nodes) == ["s0", "s1", "s2"]
        assert [farm.has(number) for number in range(3)] == [None] * 3


async def test_a_change_is_on_all_nodes_and_other_fronts_go_over_to_it(farm: Farm) -> None:
    async with farm.front() as (_, members), farm.front() as (other, told):
        await members.change(lambda roll: joined_by(roll, farm.member(3)))
        assert members.everywhere
        assert all(farm.has(number) for number in range(4))
        await until(lambda: told.roll == members.roll)
        assert [node.address.name for node in other.topology.joining] == ["m3"]
        assert [node.address.name for node in other.topology.strange] == ["m3"]
        await members.change(settled)
        await until(lambda: not other.topology.strange)
        await members.change(moved)
        await until(lambda: not other.topology.moving)
        assert set(other.topology.nodes) == {"s0", "s1", "s2", "m3"}


async def test_of_many_changes_at_once_by_two_fronts_none_is_lost(farm: Farm) -> None:
    async with farm.front() as (_, members), farm.front() as (_, others):

        async def come(number: int) -> None:
            node = Member(f"x{number}", HOST, farm.first + 3, "0" * 32, 1)
            while True:
                with contextlib.suppress(Unavailable):
                    await (members, others)[number % 2].change(lambda roll: joined_by(roll, node))
                    return

        await asyncio.gather(*map(come, range(10)))
        await until(lambda: members.roll == others.roll)
        assert sorted(node.name for node in members.roll.nodes) == sorted(f"x{number}" for number in range(10))


async def test_an_edit_that_raises_or_changes_nothing_writes_nothing(farm: Farm) -> None:
    def refuse(_: Roll) -> Roll:
        raise ValueError("no")

    async with farm.front() as (_, members):
        with pytest.raises(ValueError, match="no"):
            await members.change(refuse)
        assert await members.change(lambda roll: roll) == Roll()
        assert farm.has(0) is None


async def test_a_node_that_was_away_or_emptied_is_given_the_newest(farm: Farm) -> None:
    async with farm.front() as (cluster, members):
        await farm.stop(2)
        await until(lambda: cluster.topology.nodes["s2"].away)
        await members.change(lambda roll: joined_by(roll, farm.member(3)))
        assert not members.everywhere
        shutil.rmtree(farm.directory / "2")
        await farm.start(2)
        await until(lambda: members.everywhere)
        assert farm.has(2)


async def test_a_front_that_starts_while_only_one_of_its_nodes_is_here_knows_all(farm: Farm) -> None:
    async with farm.front() as (_, members):
        await members.change(lambda roll: joined_by(roll, farm.member(3)))
    for number in (0, 1):
        await farm.stop(number)
    async with farm.front() as (cluster, members):
        assert members.roll.get("m3")
        assert "m3" in cluster.topology.nodes


async def test_a_front_that_starts_while_none_is_here_says_nothing_of_files_until_it_knows(farm: Farm) -> None:
    async with farm.front() as (cluster, members):
        for change in (lambda roll: joined_by(roll, farm.member(3)), settled, moved):
            await members.change(change)
        moving = next(
            key for number in range(1000)
            if cluster.topology.place(key := b"/%d" % number).owners[0].address.name == "m3"
        )  # fmt: skip
        assert await cluster.put(moving, version(7))
    for number in range(3):
        await farm.stop(number)
    async with farm.front() as (cluster, members):
        assert not members.known
        with pytest.raises(Unavailable):
            await cluster.get(moving)
        seen: list[object] = []
        stop = asyncio.Event()

        async def read() -> None:
            while not stop.is_set():
                with contextlib.suppress(Unavailable):
                    seen.append(await cluster.get(moving))
                await asyncio.sleep(0)

        reading = asyncio.create_task(read())
        await farm.start(1)
        await until(lambda: seen)
        stop.set()
        await reading
        assert None not in seen


async def test_a_front_that_stood_still_forgets_what_it_knew_until_it_has_looked(farm: Farm) -> None:
    async with farm.front() as (cluster, members):
        laid: list[Roll | None] = []
        plan = members.plan

        def lay(roll: Roll | None, known: Mapping[Address, Backend]) -> Topology:
            laid.append(roll)
            return plan.lay(roll, known)

        await members.reconfigure(plan._replace(lay=lay))
        laid.clear()
        time.sleep(3 * REFRESH)  # the whole loop, as a process that is stopped
        await until(lambda: laid == [None, Roll()])
        await until(lambda: type(cluster.topology) is Topology)
        assert await cluster.get(b"/none") is None


async def test_nothing_changes_while_the_node_that_decides_or_most_nodes_are_away(farm: Farm) -> None:
    async with farm.front() as (cluster, members):
        await farm.stop(0)
        await until(lambda: cluster.topology.nodes["s0"].away)
        with pytest.raises(Unavailable, match="away"):
            await members.change(lambda roll: joined_by(roll, farm.member(3)))
        await farm.start(0)
        for number in (1, 2):
            await farm.stop(number)
        await until(lambda: cluster.topology.nodes["s2"].away and not cluster.topology.nodes["s0"].away)
        with pytest.raises(Unavailable, match="only 1 of 3 nodes answer"):
            await members.change(lambda roll: joined_by(roll, farm.member(3)))
        assert farm.has(0) is None


async def test_a_damaged_roll_is_written_anew_and_one_that_cannot_be_understood_is_left(farm: Farm) -> None:
    async with farm.front() as (_, members):
        await members.change(lambda roll: joined_by(roll, farm.member(3)))
        store = farm.servers[1].store
        store.put(KEY, 0, 0, b"sfss damaged", store.claim(KEY))
        await members.look()
        assert farm.has(1) == farm.has(0)


def laid(joining: str = "", welcomed: str = "") -> Counter[str]:
    """How many of 1,000 large files of two pieces lie on each of six nodes, of which e has twice the weight."""
    nodes = [MemcachedNode(parse_address(f"{name}={HOST}:{number}"), largest_value=1)
             for number, name in enumerate("abcdef", 1)]  # fmt: skip
    coming = [node for node in nodes if node.address.name in joining]
    topology = Topology(
        [node for node in nodes if node not in coming],
        joining=coming,
        weights={**dict.fromkeys("abcdf", 4), "e": 8},
        welcomed=welcomed,
    )
    blocks = Cluster(topology).blocks
    return Counter(name for number in range(1000) for name in blocks.layout(b"#b%d/0" % number, 2, 1).nodes)


def test_large_files_lie_on_nodes_by_their_weights() -> None:
    counts = laid()
    assert counts.total() == 2000
    assert 1.4 < counts["e"] / ((2000 - counts["e"]) / 5) < 2.4


def test_large_files_lie_on_a_node_that_joins_only_when_every_front_knows_it() -> None:
    assert "e" not in laid(joining="e")
    assert laid(joining="e", welcomed="e") == laid()
    assert set(laid(joining="ef", welcomed="f")) == set("abcdf")


async def test_a_node_that_the_configuration_names_is_not_taken_from_the_roll(farm: Farm) -> None:
    async with farm.front() as (_, members):
        await members.change(lambda roll: joined_by(roll, Member("s1", HOST, 1, "0" * 32, 1, weight=8)))
    async with farm.front() as (cluster, _):
        assert list(cluster.topology.nodes) == ["s0", "s1", "s2"]
        assert not cluster.topology.moving
        assert cluster.topology.nodes["s1"].address.port == farm.first + 1
