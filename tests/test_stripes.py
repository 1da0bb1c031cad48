"""Streams to blocks and back, over real nodes: every size, every range, every way to end; and the memory it takes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfss import manifest
from sfss.addresses import parse_address
from sfss.backends.memcached import MemcachedNode
from sfss.cluster.replication import Cluster
from sfss.cluster.topology import Quorum, Topology
from sfss.config import Limits, Rules, Settings, Size
from sfss.errors import BodyTimeout, Gone, SfssError
from sfss.manifest import NOTHING, Manifest
from sfss.record import MAX_OVERHEAD
from sfss.stripes import AHEAD, Stripes
from tests.cluster.support import connected, until
from tests.conftest import Nodes
from tests.servers import HOST, memcached

KIB = 1024
LARGEST = 64 * KIB - MAX_OVERHEAD  # bytes of a block
NODES = 5
LIMITS = Limits(record_size=Size(64 * KIB), transfer_memory=Size(KIB * KIB), linger=0.0)
DATA = random.Random(5).randbytes(40 * LARGEST)

edges = settings(deadline=None, max_examples=60)
many = settings(deadline=None, max_examples=3000)


@pytest.fixture(scope="module")
def five() -> Iterator[Nodes]:
    """Memcached as Debian starts it, five times."""
    with contextlib.ExitStack() as stack:
        yield [f"{HOST}:{stack.enter_context(memcached('-m', '256'))}" for _ in range(NODES)]


def rules(pieces: int = 1, copies: int = 1, spread: int = 0) -> Rules:
    return Settings().general._replace(pieces=pieces, spread=spread or pieces, copies=copies)


Check = Callable[..., Coroutine[Any, Any, None]]


class Watched:
    """The large streams of a front, and what they do to the nodes."""

    def __init__(self, cluster: Cluster, limits: Limits) -> None:
        self.cluster = cluster
        self.limits = limits
        self.stripes = Stripes(cluster, limits)
        self.written: dict[bytes, Sequence[str]] = {}  # the key of every block, and its homes
        self.sizes: dict[bytes, int] = {}
        self.in_flight = self.most_in_flight = 0  # bytes
        self.fetched = 0  # blocks
        self.gate = asyncio.Event()  # while it isn't set, nothing is written
        self.gate.set()
        self._put, self._get = cluster.blocks.put, cluster.blocks.get
        cluster.blocks.put = self.put  # type: ignore[method-assign]
        cluster.blocks.get = self.get  # type: ignore[method-assign]

    async def put(self, key: bytes, data: bytes, homes: Sequence[str], needed: int) -> None:
        self.written[key], self.sizes[key] = homes, len(data)
        self.in_flight += len(data)
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.gate.wait()
            await self._put(key, data, homes, needed)
        finally:
            self.in_flight -= len(data)

    async def get(self, key: bytes, homes: Sequence[str], size: int) -> memoryview:
        self.fetched += 1
        return await self._get(key, homes, size)

    async def left(self) -> set[bytes]:
        """The blocks that still lie on any of their homes."""
        nodes = self.cluster.topology.nodes
        found = set()
        for key, homes in self.written.items():
            for home in homes:
                if await nodes[home].get(key) is not None:
                    found.add(key)
        return found

    async def is_empty(self) -> None:
        """Come back when none of the blocks is left."""
        async with asyncio.timeout(10):
            while await self.left():
                await asyncio.sleep(0.01)

    @property
    def budget(self) -> int:
        return self.stripes._budget

    @property
    def is_at_rest(self) -> bool:
        """Whether all that was taken has been given back."""
        return self.budget == self.limits.transfer_memory and not self.stripes._readers and not self.in_flight

    async def read(self, whole: Manifest, start: int = 0, stop: int | None = None) -> bytes:
        stop = whole.size if stop is None else stop
        async with contextlib.aclosing(self.stripes.read(whole, start, stop)) as content:
            return b"".join([bytes(part) async for part in content])


@contextlib.asynccontextmanager
async def watched(nodes: Nodes, limits: Limits = LIMITS, copies: int = 1) -> AsyncIterator[Watched]:
    topology = Topology(
        (MemcachedNode(parse_address(node), largest_value=2**20, timeout=5.0, connect_timeout=5.0) for node in nodes),
        Quorum(copies, 1, 1),
    )
    async with connected(Cluster(topology)) as cluster:
        made = Watched(cluster, limits)
        yield made
        await made.stripes.close()


@pytest.fixture
async def streams(five: Nodes) -> AsyncIterator[Watched]:
    async with watched(five) as made:
        yield made


async def stream(content: bytes, chunk: int = 16 * KIB, error: BaseException | None = None) -> AsyncIterator[bytes]:
    """The content in chunks, and then, perhaps, an error."""
    for start in range(0, len(content), chunk):
        yield content[start : start + chunk]
        if start % (4 * chunk) == 0:
            await asyncio.sleep(0)
    if error is not None:
        raise error


class Broke(Exception):
    """What only a test raises."""


def around(*numbers: int) -> st.SearchStrategy[int]:
    """Near multiples of these."""
    multiples = [number * n for number in numbers for n in range(8)]
    return st.builds(lambda near, off: max(0, near + off), st.sampled_from(multiples), st.integers(-2, 2))


def run_in(
    five: Nodes, body: Callable[[Watched], Check], drawn_by: st.SearchStrategy[tuple[Any, ...]], *, long: bool
) -> None:
    """Run a property of coroutines in one loop, over one cluster."""
    with asyncio.Runner() as runner:
        context = watched(five)
        made = runner.run(context.__aenter__())
        try:
            check = body(made)

            def holds(drawn: tuple[Any, ...]) -> None:
                runner.run(check(*drawn))

            (many if long else edges)(given(drawn_by)(holds))()
            assert made.is_at_rest
        finally:
            runner.run(context.__aexit__(None, None, None))


def test_any_size_comes_back_whole_in_pieces_equal_to_within_a_block(five: Nodes, long: bool) -> None:
    def body(made: Watched) -> Check:
        async def check(size: int, pieces: int, copies: int, chunk: int, is_known: bool) -> None:
            content, digest = DATA[:size], hashlib.sha256()
            whole = await made.stripes.write(
                stream(content, chunk), rules(pieces, copies), path="x", size=size if is_known else None, digest=digest
            )
            assert whole.size == size
            assert digest.digest() == hashlib.sha256(content).digest()
            assert await made.read(whole) == content
            if not size:
                assert whole == NOTHING
                return
            [extent], [layout] = whole.extents, whole.layouts
            assert extent.block_size <= LARGEST
            on_node = dict.fromkeys(layout.nodes[: layout.pieces], 0)
            for number, block in enumerate(manifest.blocks(whole, 0, size)):
                assert block.homes[0] == layout.nodes[number % layout.pieces]
                assert len(set(block.homes)) == copies
                assert made.sizes[block.key] <= made.limits.record_size
                on_node[block.homes[0]] += block.size
                for home in block.homes:
                    assert await made.cluster.topology.nodes[home].get(block.key) is not None
            assert max(on_node.values()) - min(on_node.values()) <= extent.block_size
            if is_known or size < LARGEST:
                assert layout.pieces == min(pieces, extent.blocks)
                assert extent.block_size == manifest.cut(size, pieces, LARGEST)

        return check

    run_in(
        five,
        body,
        st.tuples(around(LARGEST, 5 * LARGEST, 100), st.integers(1, NODES), st.integers(1, 3),
                  st.sampled_from([1000, 16 * KIB, LARGEST, 3 * LARGEST, 10**7]), st.booleans()),
        long=long,
    )  # fmt: skip


def test_any_range_comes_back_from_just_the_blocks_that_hold_it(five: Nodes, long: bool) -> None:
    def body(made: Watched) -> Check:
        files: dict[tuple[int, int], Manifest] = {}

        async def check(size: int, pieces: int, start: int, stop: int) -> None:
            size = max(size, 1)
            start, stop = sorted((min(start, size), min(stop, size)))
            if (size, pieces) not in files:
                files[size, pieces] = await made.stripes.write(stream(DATA[:size]), rules(pieces), path="x", size=size)
            whole = files[size, pieces]
            made.fetched = 0
            assert await made.read(whole, start, stop) == DATA[start:stop]
            block = whole.extents[0].block_size
            assert made.fetched == (-(-stop // block) - start // block if stop > start else 0)

        return check

    sizes = st.sampled_from([1, 100, LARGEST, LARGEST + 1, 5 * LARGEST - 1, 5 * LARGEST, 12 * LARGEST + 7])
    run_in(five, body, st.tuples(sizes, st.sampled_from([1, 5]), around(LARGEST, 20), around(LARGEST, 20)), long=long)


@pytest.mark.parametrize("chunk", [7, 50, 100])
async def test_a_hundred_bytes_in_five_pieces_lie_on_five_nodes_twenty_each(streams: Watched, chunk: int) -> None:
    for size in (100, None):
        whole = await streams.stripes.write(stream(DATA[:100], chunk), rules(5), path="x", size=size)
        every = list(manifest.blocks(whole, 0, 100))
        assert [block.size for block in every] == [20] * 5
        assert {block.homes for block in every} == {(node,) for node in streams.cluster.topology.nodes}


async def test_what_is_written_in_several_goes_is_one_file(streams: Watched) -> None:
    """As a tus upload is: each stripe goes on where the one before ended, and pieces stay as equal."""
    parts, layout, first, at = [], None, 0, 0
    for size in (3 * LARGEST + 5, 1, 2 * LARGEST, 9 * LARGEST - 1):
        part = await streams.stripes.write(
            stream(DATA[at : at + size]), rules(5), path="x", upload="u1", first=first, layout=layout, size=size
        )
        parts.append(part)
        layout, first, at = part.layouts[0], first + part.extents[0].blocks, at + size
    whole = manifest.join(parts)
    assert len(whole.layouts) == len({part.layouts for part in parts})
    assert await streams.read(whole) == DATA[:at]
    assert await streams.read(whole, LARGEST - 1, 6 * LARGEST) == DATA[LARGEST - 1 : 6 * LARGEST]


class TestMemory:
    async def test_whatever_was_taken_of_the_budget_is_given_back(self, streams: Watched) -> None:
        """Also by streams that wait for each other's blocks at the same time, fail, and are left."""
        chance = random.Random(7)

        async def one(number: int) -> None:
            content = DATA[: chance.randrange(1, len(DATA))]
            error = Broke() if number % 5 == 0 else None
            with contextlib.suppress(Broke, TimeoutError):
                async with asyncio.timeout(0.05 if number % 7 == 0 else None):
                    whole = await streams.stripes.write(stream(content, error=error), rules(5), path="x")
                    async with contextlib.aclosing(streams.stripes.read(whole, 0, whole.size)) as read:
                        async for _ in read:
                            await asyncio.sleep(0)
                            if number % 3 == 0:
                                break

        await asyncio.gather(*(one(number) for number in range(60)))
        await until(lambda: streams.is_at_rest)
        assert streams.budget == LIMITS.transfer_memory

    async def test_streams_together_have_no_more_in_flight_than_the_budget_and_a_block_each(
        self, streams: Watched
    ) -> None:
        streams.gate.clear()
        count = 30
        writes = [
            asyncio.create_task(streams.stripes.write(stream(DATA), rules(5), path="x", size=len(DATA)))
            for _ in range(count)
        ]
        await until(lambda: streams.in_flight >= LIMITS.transfer_memory)  # it makes use of it
        await asyncio.sleep(0.3)  # all that can be in flight is
        bound = LIMITS.transfer_memory + count * LIMITS.record_size
        assert streams.in_flight <= bound
        streams.gate.set()
        for whole in await asyncio.gather(*writes):
            assert await streams.read(whole) == DATA
        assert streams.most_in_flight <= bound
        assert streams.is_at_rest

    async def test_a_single_stream_has_a_few_blocks_in_flight(self, streams: Watched) -> None:
        streams.gate.clear()
        write = asyncio.create_task(streams.stripes.write(stream(DATA), rules(5), path="x", size=len(DATA)))
        await until(lambda: len(streams.written) == AHEAD)
        await asyncio.sleep(0.1)
        assert len(streams.written) == AHEAD
        streams.gate.set()
        assert await streams.read(await write) == DATA

    async def test_blocks_larger_than_the_budget_pass_one_at_a_time(self, five: Nodes) -> None:
        async with watched(five, Limits(record_size=Size(64 * KIB), transfer_memory=Size(KIB))) as streams:
            whole = await streams.stripes.write(stream(DATA), rules(5), path="x", size=len(DATA))
            assert streams.most_in_flight <= 64 * KIB
            assert await streams.read(whole) == DATA
            assert streams.is_at_rest

    async def test_a_reader_who_stands_still_has_a_few_blocks_read_ahead(self, streams: Watched) -> None:
        whole = await streams.stripes.write(stream(DATA), rules(5), path="x", size=len(DATA))
        streams.fetched = 0
        async with contextlib.aclosing(streams.stripes.read(whole, 0, whole.size)) as content:
            await anext(content)
            await until(lambda: streams.fetched == AHEAD)
            await asyncio.sleep(0.1)
            assert streams.fetched == AHEAD
        assert streams.is_at_rest

    async def test_readers_who_stand_still_keep_nobody_from_reading_or_writing(self, streams: Watched) -> None:
        whole = await streams.stripes.write(stream(DATA), rules(5), path="x", size=len(DATA))
        still = [streams.stripes.read(whole, 0, whole.size) for _ in range(30)]
        for content in still:
            await anext(content)
        assert streams.budget < LARGEST  # they have it all
        async with asyncio.timeout(20):
            assert await streams.read(whole) == DATA
            another = await streams.stripes.write(stream(DATA), rules(5), path="x")
            assert await streams.read(another) == DATA
        for content in still:
            await content.aclose()
        assert streams.is_at_rest


class TestEnds:
    """How a write may end but well: nothing is left of it."""

    @pytest.mark.parametrize("sent", [1, LARGEST - 1, LARGEST, 3 * LARGEST + 1, 20 * LARGEST])
    @pytest.mark.parametrize("size", [None, len(DATA)])
    async def test_what_the_content_raises_comes_out_and_the_blocks_go(
        self, streams: Watched, sent: int, size: int | None
    ) -> None:
        with pytest.raises(Broke):
            await streams.stripes.write(stream(DATA[:sent], error=Broke()), rules(5, 2), path="x", size=size)
        assert len(streams.written) >= sent // LARGEST - AHEAD
        await streams.is_empty()
        assert streams.is_at_rest

    @pytest.mark.parametrize("after", [0.0, 0.01, 0.03, 0.1])
    async def test_who_is_cancelled_leaves_nothing(self, streams: Watched, after: float) -> None:
        async def slow() -> AsyncIterator[bytes]:
            async for chunk in stream(DATA):
                yield chunk
                await asyncio.sleep(0.001)

        write = asyncio.create_task(streams.stripes.write(slow(), rules(5, 2), path="x"))
        await asyncio.sleep(after)
        write.cancel()
        with pytest.raises(asyncio.CancelledError):
            await write
        await streams.is_empty()
        await until(lambda: streams.is_at_rest)

    async def test_a_block_that_no_node_takes_ends_it(self, five: Nodes) -> None:
        with memcached("-M", "-m", "4") as full:
            async with watched([f"{HOST}:{full}"]) as streams:
                with pytest.raises(SfssError, match="has no room"):
                    await streams.stripes.write(stream(DATA * 3), rules(1), path="x")
                await streams.is_empty()
                assert streams.is_at_rest
                whole = await streams.stripes.write(stream(DATA[: 5 * LARGEST]), rules(1), path="x")
                assert await streams.read(whole) == DATA[: 5 * LARGEST]

    async def test_a_stream_that_takes_too_long_is_given_up(self, five: Nodes) -> None:
        async def slow(pause: float) -> AsyncIterator[bytes]:
            yield DATA[: 2 * LARGEST]
            await asyncio.sleep(pause)
            yield DATA[2 * LARGEST : 4 * LARGEST]
            await asyncio.sleep(pause)

        limits = Limits(record_size=Size(64 * KIB), linger=0.0, upload_time=1.0)
        async with watched(five, limits) as streams:
            assert (await streams.stripes.write(slow(0.0), rules(), path="x")).size == 4 * LARGEST
            streams.written.clear()
            with pytest.raises(BodyTimeout, match=r"limits\.upload_time"):
                await streams.stripes.write(slow(1.1), rules(), path="x")
            await streams.is_empty()

    async def test_a_stream_whose_end_comes_too_late_is_given_up_too(self, five: Nodes) -> None:
        """The sweep may have taken its blocks for abandoned by then."""

        async def late() -> AsyncIterator[bytes]:
            yield DATA[: 2 * LARGEST]
            await asyncio.sleep(1.1)

        limits = Limits(record_size=Size(64 * KIB), linger=0.0, upload_time=1.0)
        async with watched(five, limits) as streams:
            with pytest.raises(BodyTimeout, match=r"limits\.upload_time"):
                await streams.stripes.write(late(), rules(), path="x")
            await streams.is_empty()


class TestTelling:
    """``kept`` is told of what is durable by then."""

    @pytest.fixture(autouse=True)
    def often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sfss.stripes._TELL_BYTES", 4 * LARGEST)

    async def test_it_is_told_of_whole_blocks_from_the_beginning_that_can_be_read(self, streams: Watched) -> None:
        told: list[int] = []

        async def kept(part: Manifest) -> None:
            told.append(part.size)
            assert part.size % LARGEST == 0
            assert await streams.read(part) == DATA[: part.size]

        whole = await streams.stripes.write(stream(DATA), rules(5), path="x", kept=kept)
        assert whole.size == len(DATA)
        assert told == sorted(set(told))
        assert len(told) >= 3

    @pytest.mark.parametrize("sent", [9 * LARGEST, 20 * LARGEST + 1])
    async def test_what_it_was_told_of_stays_and_the_rest_goes(self, streams: Watched, sent: int) -> None:
        told: list[Manifest] = [NOTHING]

        async def kept(part: Manifest) -> None:
            told.append(part)

        with pytest.raises(Broke):
            await streams.stripes.write(stream(DATA[:sent], error=Broke()), rules(5), path="x", kept=kept)
        stays = {block.key for block in manifest.blocks(told[-1], 0, told[-1].size)}
        async with asyncio.timeout(10):
            while await streams.left() != stays:
                await asyncio.sleep(0.01)
        assert await streams.read(told[-1]) == DATA[: told[-1].size]

    async def test_what_it_raises_ends_the_write(self, streams: Watched) -> None:
        async def kept(part: Manifest) -> None:
            raise Broke

        with pytest.raises(Broke):
            await streams.stripes.write(stream(DATA), rules(5), path="x", kept=kept)
        assert await streams.left(), "for all it is known, what it was told of is noted somewhere"
        assert streams.is_at_rest


class TestFreeing:
    async def test_blocks_go_after_they_have_lingered(self, five: Nodes) -> None:
        limits = Limits(record_size=Size(64 * KIB), linger=0.5)
        async with watched(five, limits) as streams:
            whole = await streams.stripes.write(stream(DATA), rules(5), path="x")
            began = time.monotonic()
            streams.stripes.free(whole)
            assert await streams.read(whole) == DATA
            await streams.is_empty()
            assert time.monotonic() - began >= 0.5
            with pytest.raises(Gone):
                await streams.read(whole)

    async def test_whoever_reads_them_here_reads_on(self, streams: Watched) -> None:
        whole = await streams.stripes.write(stream(DATA), rules(5), path="x")
        async with contextlib.aclosing(streams.stripes.read(whole, 0, whole.size)) as content:
            got = bytes(await anext(content))
            streams.stripes.free(whole)
            await asyncio.sleep(0.2)
            async for part in content:
                got += part
        assert got == DATA
        await streams.is_empty()

    async def test_what_waits_to_be_freed_doesn_t_keep_a_front_from_stopping(self, five: Nodes) -> None:
        async with watched(five, Limits(record_size=Size(64 * KIB), linger=60.0)) as streams:
            whole = await streams.stripes.write(stream(DATA), rules(5), path="x")
            streams.stripes.free(whole)
            await asyncio.wait_for(streams.stripes.close(), 1)
            assert await streams.read(whole) == DATA


async def test_a_read_that_fails_in_the_middle_gives_all_before_and_then_the_error(streams: Watched) -> None:
    whole = await streams.stripes.write(stream(DATA), rules(5), path="x")
    lost = list(manifest.blocks(whole, 0, whole.size))[20]
    await streams.cluster.blocks.remove(lost.key, lost.homes)
    got = b""
    async with contextlib.aclosing(streams.stripes.read(whole, 0, whole.size)) as content:
        for _ in range(20):
            got += await anext(content)
        with pytest.raises(Gone):
            await anext(content)
    assert got == DATA[: 20 * LARGEST]
    assert streams.is_at_rest
