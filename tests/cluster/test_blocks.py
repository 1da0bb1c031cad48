"""Blocks on real nodes that come and go: any sound copy will do, a wrong one is never given and put right."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sfss import manifest
from sfss.addresses import parse_address
from sfss.backends.memcached import MemcachedNode
from sfss.cluster.replication import Cluster
from sfss.cluster.topology import Quorum, Topology
from sfss.errors import Damaged, Gone, OutOfSpace, TooLarge, Unavailable
from sfss.record import Kind
from tests.cluster.support import MIB, NODES, Farm, connected, started, until
from tests.servers import HOST, memcached, sfss_node, stop_in_its_tracks
from tests.test_record import make

CONTENT = bytes(range(256)) * 40


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncIterator[Farm]:
    async with started(tmp_path, Quorum(2, 1, 1)) as farm:
        yield farm


@pytest.fixture
def key() -> bytes:
    return manifest.block_key(manifest.new_stripe(time.time_ns() // 1000), 0)


def block(content: bytes = CONTENT) -> bytes:
    return make(content, kind=Kind.BLOCK, sha256=b"", version=1)


def homes_of(farm: Farm, key: bytes, copies: int = 2) -> tuple[str, ...]:
    return farm.cluster.blocks.layout(key, 1, copies).homes(0)


async def put(farm: Farm, key: bytes, homes: tuple[str, ...], needed: int = 1) -> None:
    await farm.cluster.blocks.put(key, block(), homes, needed)


async def get(farm: Farm, key: bytes, homes: tuple[str, ...]) -> bytes:
    return bytes(await farm.cluster.blocks.get(key, homes, len(CONTENT)))


def others(farm: Farm, key: bytes, homes: tuple[str, ...]) -> list[str]:
    """The nodes that aren't its homes, as the ring has them behind the key."""
    return [node.address.name for node in farm.cluster.topology.order(key) if node.address.name not in homes]


class TestLayout:
    async def test_nodes_that_are_away_are_left_out_where_that_can_be(self, farm: Farm, key: bytes) -> None:
        whole = farm.cluster.blocks.layout(key, NODES, 1)
        assert set(whole.nodes) == set(farm.names)
        await farm.stop(whole.nodes[0])
        await farm.settled(away=1)
        assert farm.cluster.blocks.layout(key, NODES - 1, 2).nodes == whole.nodes[1:]
        assert set(farm.cluster.blocks.layout(key, NODES, 1).nodes) == set(farm.names), "all are asked for"

    async def test_of_fewer_nodes_than_are_asked_for_it_has_all(self, farm: Farm, key: bytes) -> None:
        layout = farm.cluster.blocks.layout(key, 64, 16)
        assert (len(layout.nodes), layout.pieces, layout.copies) == (NODES, NODES, NODES)
        assert manifest.decode(manifest.encode(manifest.Manifest((layout,), ())))  # and makes sense to who reads it

    async def test_what_is_written_while_a_node_joins_is_read_by_fronts_that_do_not_know_of_it(
        self, farm: Farm, key: bytes
    ) -> None:
        *known, joins = farm.cluster.topology.nodes.values()
        await farm.cluster.change(Topology(known, farm.quorum, joining=[joins]))
        layout = farm.cluster.blocks.layout(key, NODES, 1)
        assert set(layout.nodes) == {node.address.name for node in known}
        await put(farm, key, layout.homes(0))
        async with connected(_cluster(layout.nodes)) as old:
            assert bytes(await old.blocks.get(key, layout.homes(0), len(CONTENT))) == CONTENT
        most = farm.cluster.blocks.layout(key, 1, NODES)
        assert set(most.nodes) == set(farm.names), "there are as many copies as are asked for all the same"

    async def test_stripes_begin_on_all_nodes_alike(self, farm: Farm) -> None:
        firsts = [farm.cluster.blocks.layout(b"#" + secrets.token_bytes(8), 2, 1).nodes[0] for _ in range(200)]
        assert set(firsts) == set(farm.names)


class TestWriting:
    async def test_a_block_lies_at_its_homes_and_nowhere_else(self, farm: Farm, key: bytes) -> None:
        homes = homes_of(farm, key)
        await put(farm, key, homes, needed=2)
        assert set(farm.versions(key)) == set(homes)
        assert await get(farm, key, homes) == CONTENT

    async def test_a_copy_whose_home_is_away_goes_to_the_next_node_is_found_there_and_comes_home(
        self, farm: Farm, key: bytes
    ) -> None:
        homes = homes_of(farm, key)
        spares = others(farm, key, homes)
        await farm.stop(*homes)
        await farm.settled(away=2)
        await put(farm, key, homes, needed=2)
        assert set(farm.versions(key)) == set(spares[:2])
        await farm.start(*homes)
        await farm.settled()
        assert await get(farm, key, homes) == CONTENT
        await until(lambda: set(homes) <= set(farm.versions(key)))

    async def test_without_enough_nodes_it_isn_t_kept_and_says_why(
        self, farm: Farm, key: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sfss.cluster.blocks.PATIENCE", 0.5)
        homes = homes_of(farm, key)
        there = others(farm, key, homes)[-1]
        away = [name for name in farm.names if name != there]
        await farm.stop(*away)
        await farm.settled(away=4)
        with pytest.raises(Unavailable, match=r"0 nodes have taken a block.*1 are needed.*away"):
            await put(farm, key, homes)  # the one that is here is too far down the ring
        await farm.start(homes[1])
        await farm.settled(away=3)
        await put(farm, key, homes, needed=1)
        with pytest.raises(Unavailable, match=r"1 nodes have taken a block.*2 are needed"):
            await put(farm, key, homes, needed=2)

    async def test_a_node_that_takes_a_block_in_two_tries_counts_once(
        self, farm: Farm, key: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sfss.cluster.blocks.PATIENCE", 0.5)
        monkeypatch.setattr("sfss.cluster.blocks.PAUSE", 0.1)
        homes = homes_of(farm, key)
        spare, *rest = others(farm, key, homes)
        await farm.stop(*homes, *rest)
        await farm.settled(away=4)
        with pytest.raises(Unavailable, match=r"1 nodes have taken a block.*2 are needed"):
            await put(farm, key, homes, needed=2)
        assert set(farm.versions(key)) == {spare}

    async def test_a_node_that_was_emptied_or_left_the_configuration_is_no_loss(self, farm: Farm, key: bytes) -> None:
        homes = homes_of(farm, key)
        await put(farm, key, homes, needed=2)
        await farm.empty(homes[0])
        assert await get(farm, key, homes) == CONTENT
        await until(lambda: homes[0] in farm.versions(key))
        rest = [node for name, node in farm.cluster.topology.nodes.items() if name != homes[1]]
        await farm.cluster.change(Topology(rest, farm.quorum))
        await farm.stop(homes[0])
        await farm.settled(away=1)
        with pytest.raises(Unavailable):  # nobody knows yet that it should be elsewhere
            await get(farm, key, homes)
        await farm.start(homes[0])
        await farm.settled()
        assert await get(farm, key, homes) == CONTENT

    async def test_who_is_cancelled_leaves_no_gate_shut(self, farm: Farm) -> None:
        keys = [manifest.block_key(manifest.new_stripe(1), n) for n in range(40)]
        homes = homes_of(farm, keys[0])
        tasks = [asyncio.create_task(put(farm, key, homes)) for key in keys]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(put(farm, keys[0], homes, needed=2), 5)
        assert await get(farm, keys[0], homes) == CONTENT


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit in the content": lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
    "a flipped bit in the header": lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
    "its end is missing": lambda data: data[:-1],
    "nothing is left": lambda data: b"",
    "a byte too many": lambda data: data + b"x",
    "another block": lambda data: block(b"another"),
    "a file": lambda data: make(CONTENT, version=1),
    "no record": lambda data: b"nonsense",
}


class TestReading:
    @pytest.mark.parametrize("damage", DAMAGES)
    async def test_a_damaged_copy_is_never_given_whichever_it_is(self, farm: Farm, key: bytes, damage: str) -> None:
        homes = homes_of(farm, key)
        for wrong in homes:
            await put(farm, key, homes, needed=2)
            farm.leave(wrong, key, DAMAGES[damage](block()))
            for _ in range(2):
                assert await get(farm, key, homes) == CONTENT

    @pytest.mark.parametrize("damage", DAMAGES)
    async def test_who_met_a_damaged_copy_rewrites_it(self, farm: Farm, key: bytes, damage: str) -> None:
        homes = homes_of(farm, key)
        await put(farm, key, homes, needed=2)
        asked_first = farm.cluster._copies.order([farm.cluster.topology.nodes[name] for name in homes])[0]
        name = asked_first.address.name
        farm.leave(name, key, DAMAGES[damage](block()))
        assert await get(farm, key, homes) == CONTENT
        await until(lambda: farm.cluster.counts()["mended"] == 1)
        assert await asked_first.get(key) == block()
        assert farm.cluster.counts()["damaged"] == 1

    async def test_what_only_damaged_copies_have_is_not_given(self, farm: Farm, key: bytes) -> None:
        homes = homes_of(farm, key)
        await put(farm, key, homes, needed=2)
        for name in homes:
            farm.leave(name, key, DAMAGES["a flipped bit in the content"](block()))
        with pytest.raises(Damaged, match="is not served") as raised:
            await get(farm, key, homes)
        assert not isinstance(raised.value, Gone)

    async def test_what_all_say_isn_t_there_is_gone_and_else_it_isn_t_known(self, farm: Farm, key: bytes) -> None:
        homes = homes_of(farm, key)
        with pytest.raises(Gone):
            await get(farm, key, homes)
        await farm.stop(others(farm, key, homes)[-1])
        await farm.settled(away=1)
        with pytest.raises(Unavailable, match="can't be had"):
            await get(farm, key, homes)

    async def test_a_copy_at_a_distant_node_is_found(self, farm: Farm, key: bytes) -> None:
        """As when it was handed off, and nodes came since between it and its home."""
        homes = homes_of(farm, key)
        farm.leave(others(farm, key, homes)[-1], key, block())
        assert await get(farm, key, homes) == CONTENT
        await until(lambda: set(homes) <= set(farm.versions(key)))

    async def test_removed_it_is_at_none_of_its_homes(self, farm: Farm, key: bytes) -> None:
        homes = homes_of(farm, key)
        await put(farm, key, homes, needed=2)
        await farm.cluster.blocks.remove(key, homes)
        assert farm.versions(key) == {}
        await farm.cluster.blocks.remove(key, homes)  # and again
        await farm.stop(homes[0])
        await farm.settled(away=1)
        await farm.cluster.blocks.remove(key, homes)  # as far as they are here


async def test_a_copy_that_lies_damaged_on_the_disk_is_replaced_and_rewritten(tmp_path: Path, key: bytes) -> None:
    """Which the node notices itself: it answers with an error."""
    content = secrets.token_bytes(300_000)
    data = block(content)
    with sfss_node(tmp_path / "0") as (port, child), sfss_node(tmp_path / "1") as (other, _):
        names = (f"{HOST}:{port}", f"{HOST}:{other}")
        async with connected(_cluster(names)) as cluster:
            await cluster.blocks.put(key, data, names, 2)
        child.terminate()
        child.wait(20)
        [blob] = [file for file in (tmp_path / "0").glob("*.blob") if content[1000:1100] in file.read_bytes()]
        stored = bytearray(blob.read_bytes())
        stored[stored.index(content[1000:1100])] ^= 1
        blob.write_bytes(stored)
        with sfss_node(tmp_path / "0", port=port):
            async with connected(_cluster(names)) as cluster:
                wrong = cluster.topology.nodes[names[0]]
                assert bytes(await cluster.blocks.get(key, names, len(content))) == content
                await until(lambda: cluster.counts()["mended"] == 1)
                assert await wrong.get(key) == data


async def test_a_node_that_stands_still_holds_nobody_up_for_long(tmp_path: Path) -> None:
    with sfss_node(tmp_path / "0") as (port, child), sfss_node(tmp_path / "1") as (other, _):
        names = (f"{HOST}:{port}", f"{HOST}:{other}")
        async with connected(_cluster(names, timeout=5.0)) as cluster:
            keys = [manifest.block_key(manifest.new_stripe(1), n) for n in range(8)]
            for key in keys:
                await cluster.blocks.put(key, block(), names, 2)
            stop_in_its_tracks(child)
            began = time.monotonic()
            for key in keys:
                assert bytes(await cluster.blocks.get(key, names, len(CONTENT))) == CONTENT
            assert time.monotonic() - began < 5.0
            child.kill()


async def test_a_full_node_s_blocks_go_to_the_others_and_if_all_are_full_it_says_so(key: bytes) -> None:
    content = bytes(300_000)
    data = block(content)
    with memcached("-M", "-m", "4") as small, memcached("-M", "-m", "4") as small2, memcached("-m", "64") as roomy:
        names = tuple(f"{HOST}:{port}" for port in (small, small2, roomy))
        async with connected(_cluster(names)) as cluster:
            stripe = manifest.new_stripe(1)
            for number in range(40):
                await cluster.blocks.put(manifest.block_key(stripe, number), data, names[:1], 1)
            for number in range(40):
                found = await cluster.blocks.get(manifest.block_key(stripe, number), names[:1], len(content))
                assert bytes(found) == content
        async with connected(_cluster(names[:2])) as cluster:
            puts = [cluster.blocks.put(manifest.block_key(stripe, n), data, names[:2], 1) for n in range(40, 60)]
            with pytest.raises(OutOfSpace, match="has no room"):
                await asyncio.gather(*puts)


async def test_the_largest_record_is_what_every_node_takes(key: bytes) -> None:
    with memcached("-I", "1m") as small, memcached("-I", "4m", "-m", "256") as large:
        names = (f"{HOST}:{small}", f"{HOST}:{large}")
        async with connected(_cluster(names)) as cluster:
            assert 2**20 - 1024 <= cluster.blocks.largest < 2**20
            await cluster.blocks.put(key, bytes(cluster.blocks.largest), names, 2)
            with pytest.raises(TooLarge, match="-I"):
                await cluster.blocks.put(key, bytes(cluster.blocks.largest + 1), names, 2)


def _cluster(names: tuple[str, ...], timeout: float = 1.0) -> Cluster:
    return Cluster(
        Topology(
            MemcachedNode(
                parse_address(name), largest_value=4 * MIB, timeout=timeout, connect_timeout=5.0, retry_after=0.1
            )
            for name in names
        )
    )
