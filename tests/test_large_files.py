"""Large files through several fronts at once: each read is of one of them whole, and no acknowledged one is freed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sfss import replaced
from sfss.cluster.copies import Copies
from sfss.cluster.replication import Cluster
from sfss.config import Limits, Settings, Size
from sfss.errors import Gone, NotFound
from sfss.files import Files
from sfss.manifest import NOTHING
from sfss.policies import Policies
from tests.cluster.support import QUICK, SAFE, Farm, connected, started, until, version
from tests.large.support import KIB, Block, blocks_on, content_of, wait_until_blocks

SIZE = 10 * 56 * KIB + 7  # of eleven blocks


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncIterator[Farm]:
    async with started(tmp_path, SAFE) as farm:
        yield farm


@pytest.fixture
def path() -> str:
    return f"files/{secrets.token_hex(8)}"


@contextlib.asynccontextmanager
async def front(cluster: Cluster, linger: float = 60.0, pieces: int = 1) -> AsyncIterator[Files]:
    settings = Settings()
    limits = Limits(record_size=Size(64 * KIB), max_file_size=Size(2**30), linger=linger)
    policies = Policies(settings)
    general = settings.general._replace(
        copies=cluster.topology.copies, max_file_size=2**30, pieces=pieces, write_quorum=cluster.topology.quorum.write
    )
    policies.of = lambda path: general  # type: ignore[method-assign]
    files = Files(cluster, policies=policies, limits=limits)
    try:
        yield files
    finally:
        await files.close()


async def body(content: bytes, chunk: int = 20_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), chunk):
        yield content[start : start + chunk]
        await asyncio.sleep(0)


async def put(files: Files, path: str, content: bytes, *, conditional: bool = False) -> None:
    await files.put(path, body(content), condition=(lambda _: None) if conditional else None)


async def read(files: Files, path: str) -> bytes:
    """The file, checked against its own digest."""
    file = await files.open(path)
    if file.content is not None:
        got = bytes(file.content)
    else:
        async with contextlib.aclosing(files.read(file, 0, file.info.size)) as content:
            got = b"".join([bytes(part) async for part in content])
    assert hashlib.sha256(got).digest() == file.info.sha256
    return got


class Slow:
    """A node, as one front sees it, to which writes of some keys are late: as when much else is on its way to it."""

    def __init__(self, cluster: Cluster, name: str, is_late: Callable[[bytes], bool]) -> None:
        node = cluster.topology.nodes[name]
        self.arrived, self.go_on = asyncio.Event(), asyncio.Event()
        set_at_once = node.set

        async def set_late(key: bytes, data: bytes, expiry: int = 0) -> bool:
            if is_late(key):
                self.arrived.set()
                await self.go_on.wait()
            return await set_at_once(key, data, expiry)

        node.set = set_late  # type: ignore[method-assign]


@pytest.mark.parametrize("change", ["overwritten", "overwritten by a small one", "deleted"])
async def test_a_write_that_is_seen_replaced_and_then_written_anew_keeps_its_blocks(
    farm: Farm, path: str, change: str
) -> None:
    """It reaches one node, where another front sees it and replaces it; the others then tell it that it is too old."""
    async with (
        connected(farm.new_cluster()) as other_cluster,
        front(farm.cluster, linger=0.5) as ours,
        front(other_cluster, linger=0.5) as theirs,
    ):
        key = f"/{path}".encode()
        rest = farm.owners(key)[1:3]
        late = [Slow(other_cluster, name, lambda written: written == key) for name in rest]
        old, new = content_of("old", SIZE), content_of("new", SIZE)
        write = asyncio.create_task(put(theirs, path, old))
        await asyncio.gather(*(node.arrived.wait() for node in late))
        assert await read(ours, path) == old
        if change == "deleted":
            await ours.delete(path)
        else:
            await put(ours, path, new if change == "overwritten" else b"small")
        for node in late:
            node.go_on.set()
        await write
        got = await read(ours, path)
        assert got == old, "as things are; were the other one there, that would do as well"
        await asyncio.sleep(1.0)  # all has lingered that does
        assert await read(ours, path) == got
        assert await read(theirs, path) == got


@pytest.mark.parametrize("decider", ["is here", "is away"])
async def test_the_blocks_of_a_file_that_is_there_again_stay_whatever_a_node_says_that_was_away(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch, decider: str
) -> None:
    """Where reads ask one node of two, and that one has a file from before."""
    async with started(tmp_path, QUICK) as farm, front(farm.cluster, linger=0.0) as files:
        key, content = f"/{path}".encode(), content_of("there", SIZE)
        await put(files, path, content)
        there = (await files.open(path)).striped
        first, second, *_ = farm.owners(key)
        async with asyncio.timeout(10):
            while len(farm.versions(key)) < 2:
                await asyncio.sleep(0.01)
        farm.leave(second, key, version(1))
        with monkeypatch.context() as patch:
            order = Copies.order
            patch.setattr(Copies, "order", lambda copies, nodes: order(copies, nodes)[::-1])
            if decider == "is away":
                await farm.stop(first)
                await farm.settled(away=1)
            replaced.free(farm.cluster, files.stripes, path, key, there)
            await asyncio.sleep(0.5)
        if decider == "is away":
            await farm.start(first)
            await farm.settled()
        await farm.cluster.put_right(key)
        assert await read(files, path) == content


@pytest.mark.parametrize("conditional", [False, True])
async def test_of_many_writers_at_once_one_wins_and_the_others_blocks_go_or_are_swept(
    farm: Farm, path: str, conditional: bool
) -> None:
    async with (
        connected(farm.new_cluster()) as other_cluster,
        front(farm.cluster, linger=0.0) as one,
        front(other_cluster, linger=0.0) as two,
    ):
        contents = [content_of(str(n), SIZE + n) for n in range(8)]
        await asyncio.gather(
            *(put((one, two)[n % 2], path, content, conditional=conditional) for n, content in enumerate(contents))
        )
        got = await read(one, path)
        assert got in contents
        assert await read(two, path) == got
        await asyncio.sleep(0.5)
        assert await read(one, path) == await read(two, path) == got


async def test_readers_and_writers_together_see_whole_files_only(farm: Farm, path: str, long: bool) -> None:
    """Large ones, small ones and none, by two fronts; those read through the other one may be gone in the middle."""
    async with (
        connected(farm.new_cluster()) as other_cluster,
        front(farm.cluster, linger=0.0) as one,
        front(other_cluster, linger=0.0) as two,
    ):
        chance = random.Random(3)
        contents = [content_of(str(n), size) for n, size in enumerate((SIZE, 5, SIZE * 2, 70_000, SIZE - 1))]
        stop = asyncio.Event()
        reads = {"whole": 0, "gone": 0, "none": 0}

        async def write(files: Files) -> None:
            for _ in range(1000 if long else 25):
                if chance.random() < 0.2:
                    with contextlib.suppress(NotFound):
                        await files.delete(path)
                else:
                    await put(files, path, chance.choice(contents), conditional=chance.random() < 0.3)

        async def keep_reading(files: Files) -> None:
            while not stop.is_set():
                await asyncio.sleep(0)
                try:
                    assert await read(files, path) in contents
                    reads["whole"] += 1
                except NotFound:
                    reads["none"] += 1
                except Gone:
                    reads["gone"] += 1

        readers = [asyncio.create_task(keep_reading(files)) for files in (one, two, one, two)]
        await asyncio.gather(write(one), write(two))
        stop.set()
        await asyncio.gather(*readers)
        assert reads["whole"] > 20
        await put(one, path, contents[0])
        assert await read(two, path) == contents[0]


async def test_a_write_by_a_front_whose_clock_is_behind_takes_the_place_of_a_large_file_too(
    farm: Farm, path: str
) -> None:
    async with (
        connected(farm.new_cluster()) as other_cluster,
        front(farm.cluster, linger=0.0) as behind,
        front(other_cluster, linger=0.0) as ahead,
    ):
        ahead._last_version = (await behind.next_order(path))[0] + 3600 * 1_000_000
        for files, content in ((ahead, content_of("1", SIZE)), (behind, content_of("2", SIZE)), (behind, b"3")):
            await put(files, path, content)
            assert await read(behind, path) == await read(ahead, path) == content
        await put(ahead, path, content_of("4", SIZE))
        await behind.delete(path)
        for files in (behind, ahead):
            with pytest.raises(NotFound):
                await read(files, path)
        await wait_until_blocks(farm.names, _none, path)


def _none(blocks: list[Block]) -> bool:
    return not blocks


@pytest.mark.parametrize("change", ["overwritten", "deleted"])
async def test_a_manifest_that_has_grown_old_while_its_node_was_away_misleads_one_reader_only(
    tmp_path: Path, path: str, change: str
) -> None:
    """Where one of two copies is read: its blocks are gone, and whoever finds that out has the newer one brought."""
    async with (
        started(tmp_path, QUICK) as farm,
        connected(farm.new_cluster()) as other_cluster,
        front(farm.cluster, linger=0.0) as one,
        front(other_cluster, linger=0.0) as two,
    ):
        new = content_of("new", SIZE)
        await put(one, path, content_of("old", SIZE))
        old = (await one.open(path)).striped
        away = farm.owners(f"/{path}".encode())[0]
        await farm.stop(away)
        await farm.settled(away=1)
        await (put(one, path, new) if change == "overwritten" else one.delete(path))
        await farm.start(away)
        await farm.settled()
        one.stripes.free(old, linger=0.0)  # if a front could tell, and else the sweep
        await wait_until_blocks(farm.names, lambda found: not old.stripes & {block.stripe for block in found})
        await until(lambda: not any(other_cluster.ready().values()))
        misled = 0
        for _ in range(8):  # the nodes' answers decide which of the two each reads
            try:
                assert await read(two, path) == new
                assert change == "overwritten"
            except NotFound:
                assert change == "deleted"
            except Gone:
                misled += 1
        assert misled <= 1


@pytest.mark.parametrize("pieces", [1, 5])
async def test_a_file_of_nothing_is_a_file(farm: Farm, path: str, pieces: int) -> None:
    """Whether no bytes come or empty ones; also of blocks that are none, as an empty upload's are."""

    async def nothing() -> AsyncIterator[bytes]:
        yield b""
        yield b""

    async with front(farm.cluster, pieces=pieces) as files:
        for size in (0, None):
            await files.put(path, nothing(), size=size)
            assert await read(files, path) == b""
            await files.put(path, body(b""), size=size)
            assert await read(files, path) == b""
        await files.put_manifest(path, NOTHING, hashlib.sha256().digest())
        assert await read(files, path) == b""
        assert (await files.stat(path)).size == 0


async def test_a_node_away_at_the_end_of_an_upload_leaves_the_old_file_and_blocks_to_the_sweep(
    farm: Farm, path: str
) -> None:
    async with front(farm.cluster, linger=0.0) as files:
        old = content_of("old", SIZE)
        await put(files, path, old)
        away = farm.owners(f"/{path}".encode())[:2]

        async def content() -> AsyncIterator[bytes]:
            async for chunk in body(content_of("new", SIZE)):
                yield chunk
            await farm.stop(*away)
            await farm.settled(away=2)

        with pytest.raises(Exception, match=r"too few to be sure|nodes have taken"):
            await files.put(path, content())
        await farm.start(*away)
        await farm.settled()
        assert await read(files, path) == old
        assert {b.stripe for b in await blocks_on(farm.names, path)} >= (await files.open(path)).striped.stripes
