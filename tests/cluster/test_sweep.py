"""Sweeps over real nodes: what nobody has goes, what somebody has comes home, and what isn't sure stays as it is."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sfss import config, manifest, paths, record, upload_state
from sfss.addresses import parse_address
from sfss.backends.memcached import MemcachedNode
from sfss.cluster.repair import Repair
from sfss.cluster.replication import Cluster
from sfss.cluster.summary import Summary
from sfss.cluster.sweeping import stripeturn
from sfss.cluster.sweeping.expiry import forget_abandoned
from sfss.cluster.sweeping.sweep import Sweep
from sfss.cluster.sweeping.trace import trace
from sfss.cluster.topology import ONE_COPY, Quorum, Topology
from sfss.errors import NotFound, OutOfSpace, Unavailable
from sfss.files import Files
from sfss.manifest import Manifest
from sfss.policies import Policies
from sfss.record import Header, Kind
from sfss.stripes import Stripes
from sfss.upload_state import State
from tests.cluster.support import QUICK, Farm, connected, started, until
from tests.node.support import running
from tests.servers import HOST, memcached

OLD = -stripeturn.MARGIN  # as ``upload_time``: every stripe is old
DAY = 86400
RECORD = 64 * 1024  # bytes of the largest
SIZE = 5 * RECORD + 1000  # of a file: six blocks


class Front:
    """Files over a cluster, in small blocks. What is replaced isn't freed while a test goes on, unless it says so."""

    def __init__(self, cluster: Cluster, *, pieces: int = 1, copies: int | None = None, linger: float = 3600.0) -> None:
        self.cluster = cluster
        quorum = cluster.topology.quorum
        policy = {"prefix": "", "pieces": pieces, "copies": copies or quorum.copies,
                  "write_quorum": quorum.write, "read_quorum": quorum.read}  # fmt: skip
        self.settings = config.load(
            overrides={"limits": {"record_size": RECORD, "max_file_size": "1GiB", "linger": linger},
                       "embedded": {"nodes": 5}, "policy": [policy]},
        )  # fmt: skip
        policies = Policies(self.settings)
        self.rules = policies.of("x")
        self.files = Files(cluster, policies=policies, limits=self.settings.limits)
        self.stripes = Stripes(cluster, self.settings.limits)

    async def put(self, path: str, content: bytes) -> None:
        await self.files.put(path, chunks(content))

    async def read(self, path: str) -> bytes:
        file = await self.files.open(path)
        if file.content is not None:
            return bytes(file.content)
        async with contextlib.aclosing(self.files.read(file, 0, file.info.size)) as content:
            return b"".join([bytes(piece) async for piece in content])

    async def stripe(self, content: bytes, path: str | None = None, upload: str | None = None) -> Manifest:
        """Blocks that no record names."""
        return await self.stripes.write(chunks(content), self.rules, path=path, upload=upload)

    async def close(self) -> None:
        await self.files.close()
        await self.stripes.close()


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 10_000):
        yield content[start : start + 10_000]


@contextlib.asynccontextmanager
async def front_of(cluster: Cluster, **options: Any) -> AsyncIterator[Front]:
    front = Front(cluster, **options)
    try:
        yield front
    finally:
        await front.close()


@pytest.fixture
async def front(farm: Farm) -> AsyncIterator[Front]:
    async with front_of(farm.cluster) as front:
        yield front


@pytest.fixture
def content() -> bytes:
    return secrets.token_bytes(SIZE)


async def swept(cluster: Cluster, **options: Any) -> Summary:
    return await Sweep(cluster, **{"upload_time": OLD, "patience": 0.3, "slice": 7, **options}).run()


def blocks_on(farm: Farm, of: Iterable[str] | None = None) -> dict[str, list[bytes]]:
    """The keys of blocks that each node has, of these stripes or of all."""
    wanted = None if of is None else set(of)
    found: dict[str, list[bytes]] = {}
    for name, server in farm.nodes.items():
        keys: list[bytes] = []
        while heads := server.store.heads(keys[-1] + b"\0" if keys else b"#b", b"#c", 1000):
            keys += [key for key, _ in heads]
        parsed = [(manifest.parse_block_key(key), key) for key in keys]
        found[name] = [key for block, key in parsed if block and (wanted is None or block[0] in wanted)]
    return found


def count(farm: Farm, of: Iterable[str] | None = None) -> int:
    return sum(map(len, blocks_on(farm, of).values()))


def record_on(farm: Farm, name: str, key: bytes) -> bytes:
    item = farm.nodes[name].store.get(key)
    assert item is not None
    return bytes(item.data)


def take_away(farm: Farm, name: str, key: bytes) -> None:
    store = farm.nodes[name].store
    head = store.claim(key)
    assert head is not None
    store.remove(key, head)


async def manifest_of(front: Front, path: str) -> Manifest:
    return (await front.files.open(path)).striped


async def are_home(farm: Farm, front: Front, path: str) -> bool:
    """Whether the file's blocks lie on their homes, and nowhere else."""
    striped = await manifest_of(front, path)
    there = blocks_on(farm, striped.stripes)
    for block in manifest.blocks(striped, 0, striped.size):
        if {name for name, keys in there.items() if block.key in keys} != set(block.homes):
            return False
    return True


class TestWhatNobodyHas:
    async def test_goes_when_it_is_old_enough_and_not_before(self, farm: Farm, front: Front, content: bytes) -> None:
        await front.stripe(content, path="never/finished")
        blocks = count(farm)
        assert blocks == 6 * farm.quorum.copies
        summary = await swept(farm.cluster, upload_time=DAY)
        assert (summary.stripes, summary.stripes_young, summary.stripes_swept) == (1, 1, 0)
        assert count(farm) == blocks
        summary = await swept(farm.cluster)
        assert (summary.stripes, summary.stripes_swept, summary.blocks_removed) == (1, 1, blocks)
        assert summary.bytes_freed > farm.quorum.copies * SIZE
        assert summary.well
        assert count(farm) == 0

    async def test_goes_when_a_small_file_has_taken_its_place(self, farm: Farm, front: Front, content: bytes) -> None:
        await front.put("a", content)
        await front.put("a", b"small")
        assert (await swept(farm.cluster)).stripes_swept == 1
        assert count(farm) == 0
        assert await front.read("a") == b"small"

    async def test_goes_without_what_others_have(self, farm: Farm, front: Front, content: bytes) -> None:
        for number in range(5):
            await front.put(f"kept/{number}", content)
            await front.stripe(content, path=f"kept/{number}")
        summary = await swept(farm.cluster)
        assert (summary.stripes, summary.stripes_swept, summary.blocks_lost) == (10, 5, 0)
        for number in range(5):
            assert await front.read(f"kept/{number}") == content
            assert await are_home(farm, front, f"kept/{number}")
        summary = await swept(farm.cluster)
        assert (summary.stripes, summary.blocks, summary.blocks_removed, summary.blocks_copied) == (5, 30, 0, 0)

    async def test_stays_while_a_node_is_away_that_might_know(self, farm: Farm, front: Front, content: bytes) -> None:
        await front.stripe(content, path="a")
        blocks = count(farm)
        name = next(iter(farm.names))
        await farm.stop(name)
        await farm.settled(away=1)
        summary = await swept(farm.cluster)
        assert (summary.stripes_swept, summary.stripes_unsure, summary.well) == (0, 1, False)
        await farm.start(name)
        await farm.settled()
        assert count(farm) == blocks
        assert (await swept(farm.cluster)).stripes_swept == 1

    async def test_stays_while_a_node_that_might_know_has_lost_what_it_had(
        self, farm: Farm, front: Front, content: bytes
    ) -> None:
        await front.stripe(content, path="a")
        assert (await Repair(farm.cluster.topology, tombstone_ttl=DAY).run()).well  # which marks all
        await farm.empty(farm.names[0])
        summary = await swept(farm.cluster)
        assert (summary.stripes_swept, summary.stripes_unsure) == (0, 1)
        assert "run sfss repair" in next(iter(summary.unsure.values()))
        await Repair(farm.cluster.topology, tombstone_ttl=DAY).run()
        assert (await swept(farm.cluster)).stripes_swept == 1

    async def test_stays_when_its_manifest_might_be_a_damaged_one(
        self, farm: Farm, front: Front, content: bytes
    ) -> None:
        await front.put("a", content)
        key = paths.key_of("a")
        await until(lambda: len(farm.versions(key)) == farm.quorum.copies)
        for name in farm.versions(key):
            data = bytearray(record_on(farm, name, key))
            data[-1] ^= 1
            farm.leave(name, key, bytes(data))
        blocks = count(farm)
        summary = await swept(farm.cluster)
        assert (summary.stripes_swept, summary.stripes_unsure, count(farm)) == (0, 1, blocks)

    async def test_stays_when_its_manifest_lies_where_it_does_not_belong(self, farm: Farm, content: bytes) -> None:
        """As after the nodes were changed without ``joining``, before a repair."""
        async with front_of(farm.cluster) as front:
            await front.put("a", content)
        key = paths.key_of("a")
        await until(lambda: len(farm.versions(key)) == farm.quorum.copies)
        owners = list(farm.versions(key))
        data = record_on(farm, owners[0], key)
        stray = farm.owners(key)[-1]
        others = [name for name in farm.names if name not in farm.owners(key)]
        for name in owners:
            take_away(farm, name, key)
        farm.leave(others[0] if others else stray, key, data)
        blocks = count(farm)
        summary = await swept(farm.cluster)
        assert (summary.stripes_swept, count(farm)) == (0, blocks)


class TestWhatSomebodyHas:
    async def test_comes_back_to_a_node_that_was_emptied(self, farm: Farm, front: Front, content: bytes) -> None:
        for number in range(4):
            await front.put(f"{number}", content)
        before = blocks_on(farm)
        name = max(before, key=lambda name: len(before[name]))
        await farm.empty(name)
        await Repair(farm.cluster.topology, tombstone_ttl=DAY).run()
        summary = await swept(farm.cluster)
        assert summary.blocks_copied == len(before[name]) > 0
        assert (summary.blocks_lacking, summary.blocks_lost, summary.stripes_swept) == (0, 0, 0)
        assert summary.well
        assert blocks_on(farm) == before
        assert (await swept(farm.cluster)).blocks_copied == 0

    async def test_comes_home_from_the_nodes_that_took_it_in_place_of_one_that_was_away(
        self, farm: Farm, content: bytes
    ) -> None:
        async with front_of(farm.cluster, pieces=4) as front:
            layout = farm.cluster.blocks.layout(b"#x", 4, 2)
            away = layout.nodes[0]
            await farm.stop(away)
            striped = await front.stripes.write(chunks(content), front.rules, path="a", layout=layout)
            await farm.start(away)
            await farm.settled()
            await front.files.put_manifest("a", striped, hashlib.sha256(content).digest())
            assert not await are_home(farm, front, "a")
            blocks = count(farm)
            summary = await swept(farm.cluster)
            assert await are_home(farm, front, "a")
            assert summary.blocks_copied == summary.blocks_removed > 0
            assert count(farm) == blocks
            assert summary.well
            assert await front.read("a") == content

    async def test_is_mended_where_it_is_damaged_when_all_is_read(
        self, farm: Farm, front: Front, content: bytes
    ) -> None:
        await front.put("a", content)
        [block, *_] = manifest.blocks(await manifest_of(front, "a"), 0, SIZE)
        sound = record_on(farm, block.homes[0], block.key)
        damaged = bytearray(sound)
        damaged[-1] ^= 1
        farm.leave(block.homes[0], block.key, bytes(damaged))
        assert (await swept(farm.cluster)).damaged_found == 0  # lists don't tell
        summary = await swept(farm.cluster, scrub=True)
        assert (summary.damaged_found, summary.damaged_mended, summary.blocks_copied) == (1, 1, 1)
        assert summary.well
        assert record_on(farm, block.homes[0], block.key) == sound

    async def test_is_mended_where_it_is_cut_off(self, farm: Farm, front: Front, content: bytes) -> None:
        await front.put("a", content)
        [block, *_] = manifest.blocks(await manifest_of(front, "a"), 0, SIZE)
        sound = record_on(farm, block.homes[0], block.key)
        farm.leave(block.homes[0], block.key, sound[:-1])
        assert (await swept(farm.cluster)).damaged_mended == 1
        assert record_on(farm, block.homes[0], block.key) == sound

    async def test_is_named_if_a_block_of_it_is_lost(self, farm: Farm, front: Front, content: bytes) -> None:
        await front.put("a", content)
        await front.put("b", content)
        first, *_, last = manifest.blocks(await manifest_of(front, "a"), 0, SIZE)
        for block in (first, last):
            for name in block.homes:
                take_away(farm, name, block.key)
        summary = await swept(farm.cluster)
        assert (summary.blocks_lost, summary.damaged_keys, summary.damaged_named) == (2, 1, ["/a"])
        assert not summary.well
        assert await front.read("b") == content

    async def test_keeps_its_last_sound_copy_wherever_that_lies(self, farm: Farm, front: Front, content: bytes) -> None:
        """On none of its homes, which are full of damaged ones, and one of them away."""
        await front.put("a", content)
        [block, *_] = manifest.blocks(await manifest_of(front, "a"), 0, SIZE)
        sound = record_on(farm, block.homes[0], block.key)
        stray = next(name for name in farm.names if name not in block.homes)
        farm.leave(stray, block.key, sound)
        for name in block.homes:
            damaged = bytearray(sound)
            damaged[-1] ^= 1
            farm.leave(name, block.key, bytes(damaged))
        await swept(farm.cluster)
        assert record_on(farm, stray, block.key) == sound, "it was believed to be at home by its headers"
        summary = await swept(farm.cluster, scrub=True)
        assert summary.well
        assert await are_home(farm, front, "a")

    async def test_loses_what_a_broken_upload_left_behind_it(self, farm: Farm, front: Front, content: bytes) -> None:
        striped = await front.stripe(content, path="a")
        [extent] = striped.extents
        half = 3 * extent.block_size
        part = Manifest(striped.layouts, (msgspec.structs.replace(extent, size=half),))
        await front.files.put_manifest("a", part, hashlib.sha256(content[:half]).digest())
        assert (await swept(farm.cluster, upload_time=DAY)).blocks_removed == 0
        summary = await swept(farm.cluster)
        assert summary.blocks_removed == 3 * farm.quorum.copies
        assert summary.well
        assert await front.read("a") == content[:half]

    async def test_lacks_what_belongs_on_a_node_that_is_away_and_nothing_is_moved(
        self, farm: Farm, front: Front, content: bytes
    ) -> None:
        await front.put("a", content)
        striped = await manifest_of(front, "a")
        before = blocks_on(farm)
        name = striped.layouts[0].nodes[0]
        await farm.stop(name)
        await farm.settled(away=1)
        summary = await swept(farm.cluster)
        assert summary.blocks_lacking == len(before[name]) > 0
        assert (summary.blocks_copied, summary.manifests_moved) == (0, 0)
        assert await front.read("a") == content
        await farm.start(name)
        await farm.settled()
        assert (await swept(farm.cluster)).well

    async def test_gets_more_copies_when_more_are_asked_for(self, tmp_path: Path, content: bytes) -> None:
        async with started(tmp_path, QUICK) as farm, front_of(farm.cluster, copies=1) as front:
            await front.put("a", content)
            assert count(farm) == 6
            summary = await swept(farm.cluster, copies_of=lambda _: 3)
            assert (summary.blocks_copied, summary.manifests_moved, summary.well) == (12, 1, True)
            assert await are_home(farm, front, "a")
            assert {layout.copies for layout in (await manifest_of(front, "a")).layouts} == {3}
            assert await front.read("a") == content


def leave_out(farm: Farm, cluster: Cluster, names: Iterable[str], *, gone: bool = False) -> Topology:
    """The cluster's nodes, of which some are leaving, or have gone."""
    nodes = cluster.topology.nodes
    going = [nodes[name] for name in names]
    staying = [node for node in nodes.values() if node not in going]
    return Topology(staying, farm.quorum, leaving=[] if gone else going)


class TestNodesThatLeave:
    @pytest.mark.parametrize("pieces", [1, 4, 5])
    async def test_their_blocks_are_elsewhere_before_they_go(self, farm: Farm, pieces: int, content: bytes) -> None:
        async with front_of(farm.cluster, pieces=pieces) as front:
            contents = {f"{number}": content[number:] for number in range(6)} | {"small": b"123456789"}
            for path, its_own in contents.items():
                await front.put(path, its_own)
            leaving = farm.names[0]
            await farm.cluster.change(leave_out(farm, farm.cluster, [leaving]))
            assert (await Repair(farm.cluster.topology, tombstone_ttl=DAY, moving_only=True).run()).well
            summary = await swept(farm.cluster)
            assert summary.well
            assert (summary.blocks_removed, summary.stripes_swept) == (0, 0)
            for path in contents:
                striped = await manifest_of(front, path)
                assert all(leaving not in layout.nodes for layout in striped.layouts)
            await farm.cluster.change(leave_out(farm, farm.cluster, [leaving], gone=True))
            await farm.stop(leaving)
            for path, its_own in contents.items():
                assert await front.read(path) == its_own
            await Repair(farm.cluster.topology, tombstone_ttl=DAY, moving_only=True).run()
            assert (await swept(farm.cluster)).well
            for path, its_own in contents.items():
                assert await are_home(farm, front, path)
                assert await front.read(path) == its_own
                assert (await front.files.stat(path)).sha256 == hashlib.sha256(its_own).digest()

    async def test_what_was_on_one_that_has_gone_for_good_gets_another_home(
        self, farm: Farm, front: Front, content: bytes
    ) -> None:
        for number in range(4):
            await front.put(f"{number}", content)
        gone = (await manifest_of(front, "0")).layouts[0].nodes[0]
        await farm.stop(gone)
        await farm.cluster.change(leave_out(farm, farm.cluster, [gone], gone=True))
        await Repair(farm.cluster.topology, tombstone_ttl=DAY).run()
        summary = await swept(farm.cluster)
        assert summary.manifests_moved > 0
        assert summary.well
        for number in range(4):
            assert await are_home(farm, front, f"{number}")
            assert await front.read(f"{number}") == content

    async def test_a_file_that_is_replaced_meanwhile_stays_the_new_one(
        self, farm: Farm, front: Front, content: bytes
    ) -> None:
        for number in range(8):
            await front.put(f"{number}", content)
        await farm.cluster.change(leave_out(farm, farm.cluster, [farm.names[0]]))
        sweeping = asyncio.create_task(swept(farm.cluster))
        new = secrets.token_bytes(SIZE)
        for number in range(8):
            await front.put(f"{number}", new)
        await sweeping
        for number in range(8):
            assert await front.read(f"{number}") == new
        await Repair(farm.cluster.topology, tombstone_ttl=DAY, moving_only=True).run()
        assert (await swept(farm.cluster)).well


class TestUploads:
    async def begin(self, front: Front, state: State) -> str:
        upload = upload_state.new_id(front.cluster.now())
        await self.put(front, upload, state)
        return upload

    async def put(self, front: Front, upload: str, state: State) -> None:
        payload = upload_state.encode(state)
        header = Header(Kind.UPLOAD, front.cluster.now(), 0, len(payload), b"", len(payload),
                        record.payload_checksum(payload))  # fmt: skip
        assert await front.cluster.put(upload_state.key_of(upload), record.encode(header, payload))

    def time(self, ahead: float) -> int:
        return int((time.time() + ahead) * 1e6)

    async def test_what_an_upload_has_so_far_stays_until_it_is_given_up(
        self, farm: Farm, front: Front, content: bytes
    ) -> None:
        state = State(self.time(DAY), SIZE * 2, path="a")
        upload = await self.begin(front, state)
        parts = await front.stripe(content, path="a", upload=upload)
        await front.stripe(content, path="a", upload=upload)  # of a go that broke off, and isn't told of
        await self.put(front, upload, msgspec.structs.replace(state, parts=parts))
        summary = await swept(farm.cluster)
        assert (summary.stripes, summary.stripes_swept, summary.uploads_expired) == (2, 1, 0)
        assert count(farm) == count(farm, parts.stripes) == 6 * farm.quorum.copies
        over = msgspec.structs.replace(state, parts=parts, expires=self.time(-DAY))
        await self.put(front, upload, over)
        summary = await swept(farm.cluster)
        assert (summary.stripes_swept, summary.uploads_expired) == (1, 1)
        assert count(farm) == 0
        found = await farm.cluster.get(upload_state.key_of(upload))
        assert found is None or found.header.kind == Kind.TOMBSTONE
        assert (await swept(farm.cluster)).uploads_expired == 0

    async def test_what_is_given_up_while_a_sweep_goes_on_stays_until_the_next(
        self, farm: Farm, front: Front, content: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only who has put an end to its state may: else somebody might still make a file of its blocks."""
        state = State(self.time(DAY), SIZE * 2, path="a")
        upload = await self.begin(front, state)
        parts = await front.stripe(content, path="a", upload=upload)
        await self.put(front, upload, msgspec.structs.replace(state, parts=parts))

        async def forget_and_then(*args: Any) -> None:
            await forget_abandoned(*args)
            await self.put(front, upload, msgspec.structs.replace(state, parts=parts, expires=self.time(-DAY)))

        with monkeypatch.context() as patch:
            patch.setattr("sfss.cluster.sweeping.sweep.forget_abandoned", forget_and_then)
            summary = await swept(farm.cluster)
        assert (summary.stripes_swept, summary.uploads_expired) == (0, 0)
        assert count(farm) == 6 * farm.quorum.copies
        summary = await swept(farm.cluster)
        assert (summary.stripes_swept, summary.uploads_expired) == (1, 1)
        assert count(farm) == 0

    async def test_what_is_traced_to_an_upload_that_then_becomes_a_file_stays(
        self, farm: Farm, front: Front, content: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parts = await front.stripe(content)  # as of a partial upload whose state has expired
        final = await self.begin(front, State(self.time(DAY), SIZE, path="a", parts=parts))
        found: dict[str, bytes | None] = {}

        async def trace_and_then(*args: Any) -> dict[str, bytes | None]:
            found.update(await trace(*args))
            await front.files.put_manifest("a", parts, hashlib.sha256(content).digest())
            await self.put(front, final, State(self.time(DAY), SIZE, path="a", finished=True))
            return found

        with monkeypatch.context() as patch:
            patch.setattr("sfss.cluster.sweeping.sweep.trace", trace_and_then)
            summary = await swept(farm.cluster)
        assert set(found.values()) == {upload_state.key_of(final)}
        assert (summary.stripes_swept, summary.well) == (0, True)
        assert await front.read("a") == content

    async def test_what_has_become_a_file_stays(self, farm: Farm, front: Front, content: bytes) -> None:
        upload = await self.begin(front, State(self.time(-DAY), SIZE, path="a", finished=True))
        parts = await front.stripe(content, path="a", upload=upload)
        await front.files.put_manifest("a", parts, hashlib.sha256(content).digest())
        summary = await swept(farm.cluster)
        assert (summary.stripes_swept, summary.uploads_expired, summary.well) == (0, 1, True)
        assert await front.read("a") == content
        assert (await swept(farm.cluster)).well

    async def test_what_was_put_together_of_others_stays(self, farm: Farm, front: Front, content: bytes) -> None:
        state = State(self.time(-DAY), SIZE, concat="partial")
        uploads = [await self.begin(front, state) for _ in range(3)]
        parts = [await front.stripe(content, upload=upload) for upload in uploads]
        final = await self.begin(front, State(self.time(DAY), 2 * SIZE, path="a", parts=manifest.join(parts[:2]),
                                              partials=tuple(uploads[:2])))  # fmt: skip
        for upload, part in zip(uploads, parts, strict=True):
            await self.put(front, upload, msgspec.structs.replace(state, parts=part, final=final, into="a"))
        summary = await swept(farm.cluster)  # what the final one has; the third it hasn't
        assert (summary.stripes, summary.stripes_swept) == (3, 1)
        for upload, part in zip(uploads[:2], parts, strict=False):
            await self.put(front, upload, msgspec.structs.replace(state, parts=part, final=final, into="a"))
        await front.files.put_manifest("a", manifest.join(parts[:2]), hashlib.sha256(2 * content).digest())
        await self.put(front, final, State(self.time(-DAY), 2 * SIZE, path="a", finished=True))
        for _ in range(2):
            summary = await swept(farm.cluster)
            assert summary.stripes_swept == 0
            assert await front.read("a") == 2 * content
        await front.files.delete("a")
        await swept(farm.cluster)
        summary = await swept(farm.cluster)
        assert count(farm) == 0

    async def test_what_nothing_is_known_of_is_looked_for_in_all_files(
        self, farm: Farm, front: Front, content: bytes
    ) -> None:
        named, other = [await front.stripe(content) for _ in range(2)]
        await front.files.put_manifest("some/where", named, hashlib.sha256(content).digest())
        for number in range(20):
            await front.put(f"file/{number}", content[:100])
        summary = await swept(farm.cluster)
        assert (summary.stripes, summary.stripes_swept, summary.stripes_unsure) == (2, 1, 0)
        assert summary.well
        assert count(farm, other.stripes) == 0
        assert await front.read("some/where") == content


class TestAtAnyMoment:
    async def test_it_may_be_broken_off_and_run_again(self, farm: Farm, front: Front, content: bytes) -> None:
        for number in range(6):
            await front.put(f"{number}", content)
            await front.stripe(content, path=f"{number}")
        await farm.cluster.change(leave_out(farm, farm.cluster, [farm.names[0]]))
        await farm.empty(farm.names[1]) if farm.quorum.copies > 2 else None
        for number in range(40):
            sweeping = asyncio.create_task(swept(farm.cluster))
            await asyncio.sleep(random.random() * 0.01 * number)
            sweeping.cancel()
            await asyncio.wait([sweeping])
            if not sweeping.cancelled():
                break
        await Repair(farm.cluster.topology, tombstone_ttl=DAY).run()
        assert (await swept(farm.cluster)).well
        for number in range(6):
            assert await front.read(f"{number}") == content
        await farm.cluster.change(leave_out(farm, farm.cluster, [farm.names[0]], gone=True))
        await Repair(farm.cluster.topology, tombstone_ttl=DAY).run()
        assert (await swept(farm.cluster)).well
        await farm.stop(farm.names[0])  # with what it had
        for number in range(6):
            assert await are_home(farm, front, f"{number}")
        assert count(farm) == 36 * farm.quorum.copies


class User:
    """Writes, deletes and reads files of his own, through one front, and knows what he was told is kept."""

    def __init__(self, front: Front, name: str, chance: random.Random) -> None:
        self.kept: dict[str, bytes | None] = {}  # but for what he can't know
        self._front = front
        self._paths = [f"{name}/{number}" for number in range(4)]
        self._chance = chance

    async def work(self, until: float) -> None:
        while time.monotonic() < until:
            with contextlib.suppress(Unavailable):
                await self._change(self._chance.choice(self._paths))
            with contextlib.suppress(Unavailable):
                await self.check(self._chance.choice(self._paths))

    async def check(self, path: str) -> None:
        if path not in self.kept:
            return
        kept = self.kept[path]
        if kept is not None:
            assert await self._front.read(path) == kept
        else:
            with pytest.raises(NotFound):
                await self._front.read(path)

    async def check_all(self) -> None:
        for path in self._paths:
            await self.check(path)

    async def stripes(self) -> set[str]:
        """Those that his files have."""
        return {stripe for path, kept in self.kept.items() if kept is not None
                for stripe in (await manifest_of(self._front, path)).stripes}  # fmt: skip

    async def _change(self, path: str) -> None:
        new = self._chance.randbytes(self._chance.choice((10, RECORD, RECORD * 3, RECORD * 4 + 5)))
        if self.kept.pop(path, None) is not None and self._chance.random() < 0.3:
            await self._front.files.delete(path)
            self.kept[path] = None
        else:
            await self._front.put(path, new)
            self.kept[path] = new


@pytest.mark.parametrize("seed", range(3))
async def test_nobody_ever_misses_a_byte_of_what_he_was_told_is_kept(
    farm: Farm, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While files come, change and go through two fronts, and two sweeps go on."""
    monkeypatch.setattr(stripeturn, "MARGIN", 0.0)
    chance = random.Random(seed)
    until = time.monotonic() + 3.0

    async def sweep(cluster: Cluster) -> None:
        while time.monotonic() < until:
            await swept(cluster, upload_time=1.0, slice=chance.choice((3, 100)))

    async with (
        connected(farm.new_cluster()) as other,
        front_of(farm.cluster, pieces=3, linger=0.1) as first,
        front_of(other, linger=0.1) as second,
    ):
        users = [User(first, "a", chance), User(first, "b", chance), User(second, "c", chance)]
        await asyncio.gather(*(user.work(until) for user in users), sweep(farm.cluster), sweep(other))
        await asyncio.sleep(1.1)
        for _ in range(2):
            summary = await swept(farm.cluster, upload_time=1.0)
            assert (summary.blocks_lost, summary.stripes_young, summary.well) == (0, 0, True)
            for user in users:
                await user.check_all()
        if all(len(user.kept) == 4 for user in users):
            stripes = set().union(*[await user.stripes() for user in users])
            assert count(farm) == count(farm, stripes), "all else has gone"


KINDS = ("oommm", "ommmm", "oooom")


@pytest.mark.parametrize("kinds", KINDS)
async def test_it_does_the_same_whatever_the_kinds_of_nodes(kinds: str, tmp_path: Path, content: bytes) -> None:
    async with contextlib.AsyncExitStack() as stack:
        ports = []
        for number, kind in enumerate(kinds):
            if kind == "o":
                server = await stack.enter_async_context(running(tmp_path / str(number), durability="os"))
                ports.append(server.port)
            else:
                ports.append(stack.enter_context(memcached()))
        nodes = [
            MemcachedNode(parse_address(f"{HOST}:{port}"), largest_value=2**20, timeout=5.0, connect_timeout=5.0)
            for port in ports
        ]
        cluster = await stack.enter_async_context(connected(Cluster(Topology(nodes, Quorum(2, 1, 1)))))
        front = await stack.enter_async_context(front_of(cluster))
        for number in range(4):
            await front.put(f"{number}", content)
            await front.stripe(content, path=f"{number}")
            await front.put(f"gone/{number}", content)
            await front.put(f"gone/{number}", b"small")
        assert (await swept(cluster, upload_time=DAY)).well
        summary = await swept(cluster)
        assert (summary.stripes, summary.stripes_swept, summary.well) == (12, 8, True)
        lost = cluster.topology.nodes[(await manifest_of(front, "0")).layouts[0].nodes[0]]
        for number in range(4):
            striped = await manifest_of(front, f"{number}")
            for block in manifest.blocks(striped, 0, SIZE):
                await lost.delete(block.key)
        summary = await swept(cluster)
        assert summary.blocks_copied > 0
        assert summary.well
        going = nodes[0]
        await cluster.change(Topology([node for node in nodes if node is not going], Quorum(2, 1, 1), leaving=[going]))
        await Repair(cluster.topology, tombstone_ttl=DAY, moving_only=True).run()
        assert (await swept(cluster)).well
        await cluster.change(Topology([node for node in nodes if node is not going], Quorum(2, 1, 1)))
        for number in range(4):
            striped = await manifest_of(front, f"{number}")
            assert all(going.address.name not in layout.nodes for layout in striped.layouts)
            assert await front.read(f"{number}") == content
            assert await front.read(f"gone/{number}") == b"small"


async def test_with_one_copy_an_emptied_node_is_not_taken_for_one_that_knows(tmp_path: Path, content: bytes) -> None:
    """Its disk may just not be there: what lies on the others is of use to nobody else, until it is brought back."""
    async with started(tmp_path, ONE_COPY) as farm, front_of(farm.cluster, pieces=5) as front:
        for number in range(10):
            await front.put(f"{number}", content)
        assert (await swept(farm.cluster)).well
        blocks = count(farm)
        manifests = [name for number in range(10) for name in farm.versions(paths.key_of(f"{number}"))]
        name = manifests[0]
        lost = len(blocks_on(farm)[name])
        await farm.empty(name)
        summary = await swept(farm.cluster)
        assert summary.stripes_unsure > 0
        assert summary.stripes_swept == 0
        assert count(farm) == blocks - lost
        await Repair(farm.cluster.topology, tombstone_ttl=DAY).run()  # as one does who has given it up
        assert (await swept(farm.cluster)).stripes_swept == manifests.count(name)


async def test_a_node_that_is_missing_from_the_configuration_is_missed(tmp_path: Path, content: bytes) -> None:
    async with started(tmp_path, ONE_COPY) as farm, front_of(farm.cluster, pieces=5) as front:
        for number in range(10):
            await front.put(f"{number}", content)
        assert (await swept(farm.cluster)).well
        everybody = farm.cluster.topology
        missing = farm.owners(paths.key_of("0"))[0]
        await farm.cluster.change(leave_out(farm, farm.cluster, [missing], gone=True))
        blocks = count(farm)
        summary = await swept(farm.cluster)
        assert summary.stripes_unsure > 0
        assert (summary.stripes_swept, summary.blocks_removed, count(farm)) == (0, 0, blocks)
        assert missing in next(iter(summary.unsure.values()))
        await farm.cluster.change(everybody)
        assert (await swept(farm.cluster)).well
        for number in range(10):
            assert await front.read(f"{number}") == content


async def test_a_node_that_has_left_in_good_order_is_not_missed(farm: Farm, front: Front, content: bytes) -> None:
    await front.put("a", content)
    assert (await swept(farm.cluster)).well
    await farm.cluster.change(leave_out(farm, farm.cluster, [farm.names[0]]))
    await Repair(farm.cluster.topology, tombstone_ttl=DAY, moving_only=True).run()
    assert (await swept(farm.cluster)).well
    await farm.cluster.change(leave_out(farm, farm.cluster, [farm.names[0]], gone=True))
    await front.stripe(content, path="a")
    assert (await swept(farm.cluster)).stripes_swept == 1


async def test_a_file_of_which_nothing_is_left_is_found_by_its_manifest(
    farm: Farm, front: Front, content: bytes
) -> None:
    for path in ("a", "b", "small"):
        await front.put(path, content if path != "small" else b"small")
    striped = await manifest_of(front, "a")
    for name, keys in blocks_on(farm, striped.stripes).items():
        for key in keys:
            take_away(farm, name, key)
    assert (await swept(farm.cluster)).well, "blocks that are nowhere don't tell"
    summary = await swept(farm.cluster, thorough=True)
    assert (summary.blocks_lost, summary.damaged_named, summary.well) == (6, ["/a"], False)


async def test_nothing_is_lost_while_nodes_are_restarted_and_one_leaves(
    safe: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With users at work, and repairs and sweeps of two fronts, one of which knows of it later."""
    monkeypatch.setattr(stripeturn, "MARGIN", 0.0)
    chance = random.Random(1)
    ends = time.monotonic() + 4.0

    async def look_after(cluster: Cluster) -> None:
        while time.monotonic() < ends:
            with contextlib.suppress(Unavailable):
                await Repair(cluster.topology, tombstone_ttl=DAY).run()
                await swept(cluster, upload_time=1.0, scrub=chance.random() < 0.3)

    async def restart() -> None:
        while time.monotonic() < ends - 1:
            name = chance.choice(safe.names)
            await safe.stop(name)
            await asyncio.sleep(chance.random() * 0.3)
            await safe.start(name)
            await asyncio.sleep(chance.random() * 0.6)

    async def let_go(name: str, clusters: Iterable[Cluster]) -> None:
        await asyncio.sleep(1.5)
        for cluster in clusters:
            await cluster.change(leave_out(safe, cluster, [name]))
            await asyncio.sleep(0.2)

    async with (
        connected(safe.new_cluster()) as other,
        front_of(safe.cluster, pieces=3, linger=0.1) as first,
        front_of(other, linger=0.1) as second,
    ):
        users = [User(first, "a", chance), User(second, "b", chance)]
        going, clusters = safe.names[0], (safe.cluster, other)
        await asyncio.gather(
            *(user.work(ends) for user in users), *map(look_after, clusters), restart(), let_go(going, clusters)
        )
        await safe.settled()
        await asyncio.sleep(1.1)
        await Repair(safe.cluster.topology, tombstone_ttl=DAY, moving_only=True).run()
        assert (await swept(safe.cluster, upload_time=1.0)).well
        for cluster in clusters:
            await cluster.change(leave_out(safe, cluster, [going], gone=True))
        await safe.stop(going)
        await Repair(safe.cluster.topology, tombstone_ttl=DAY, moving_only=True).run()
        assert (await swept(safe.cluster, upload_time=1.0)).well
        for user in users:
            await user.check_all()


@pytest.mark.parametrize("path", ["x" * 300, "a b%/ü\u3000c"])
async def test_a_file_is_found_whatever_its_path(farm: Farm, front: Front, path: str, content: bytes) -> None:
    await front.put(path, content)
    await front.stripe(content, path=path)
    summary = await swept(farm.cluster)
    assert (summary.stripes, summary.stripes_swept, summary.well) == (2, 1, True)
    assert await front.read(path) == content


async def test_a_home_that_is_full_lacks_its_copy_and_nothing_else_suffers(
    quick: Farm, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with front_of(quick.cluster, pieces=5) as front:
        await front.put("a", content)
        before = blocks_on(quick)
        name = quick.names[0]
        await quick.empty(name)
        node = quick.cluster.topology.nodes[name]

        async def refuse(*_: object) -> bool:
            raise OutOfSpace("no room")

        with monkeypatch.context() as patch:
            patch.setattr(node, "set", refuse)
            summary = await swept(quick.cluster)
        assert summary.blocks_lacking == len(before[name]) > 0
        assert (summary.blocks_copied, summary.well, summary.why) == (0, False, {name: "no room"})
        assert await front.read("a") == content
        assert (await swept(quick.cluster)).well
        assert blocks_on(quick) == before


async def test_what_can_not_be_moved_now_is_not_called_well(quick: Farm, content: bytes) -> None:
    """Else whoever goes by it would switch off the node that is to leave."""
    async with front_of(quick.cluster, copies=1) as front:
        await front.put("a", content)
        await Repair(quick.cluster.topology, tombstone_ttl=DAY).run()  # which marks all
        [leaving] = (await manifest_of(front, "a")).layouts[0].nodes
        await quick.empty(next(name for name in quick.names if name != leaving))
        await quick.cluster.change(leave_out(quick, quick.cluster, [leaving]))
        summary = await swept(quick.cluster)
        assert (summary.manifests_moved, summary.stripes_unsure, summary.well) == (0, 1, False)
        await Repair(quick.cluster.topology, tombstone_ttl=DAY).run()
        summary = await swept(quick.cluster)
        assert (summary.manifests_moved, summary.well) == (1, True)


async def test_nothing_is_moved_before_all_of_it_is_there_however_it_is_paused(quick: Farm) -> None:
    async with front_of(quick.cluster, copies=1) as front:
        content = secrets.token_bytes(40 * RECORD)
        await front.put("a", content)
        blocks = count(quick)
        await quick.cluster.change(leave_out(quick, quick.cluster, (await manifest_of(front, "a")).layouts[0].nodes))
        sweep = Sweep(quick.cluster, upload_time=DAY)
        sweep.pace.pause()
        running = asyncio.create_task(sweep.run())
        while not running.done():
            sweep.pace.resume()
            await asyncio.sleep(0)
            sweep.pace.pause()
            if sweep.summary.manifests_moved:
                break
            await asyncio.sleep(0.002)
        assert sweep.summary.blocks_copied == blocks
        sweep.pace.resume()
        summary = await running
        assert (summary.manifests_moved, summary.well) == (1, True)
        assert await front.read("a") == content
