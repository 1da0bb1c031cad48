"""The whole service, as users run it: ten thousand files over embedded nodes and over memcached; nodes killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import aiohttp
import pytest
from yarl import URL

from sfss.record import MAX_OVERHEAD
from tests.conftest import Nodes
from tests.corpus import Sample, samples
from tests.servers import Service, wait_for

T = TypeVar("T")
LARGEST = 2**20 - MAX_OVERHEAD  # bytes of a file that is kept as one record
COUNT = 10_000
FEWER = 2_500  # over memcached, in the short form: the front is the same


@pytest.fixture(params=["embedded", "memcached"])
def any_service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    # Records are counted: blocks are to go at once, and a front's background keeps some of its own.
    settings = {"SFSS_LIMITS_LINGER": "0", "SFSS_REPAIR_BACKGROUND": "false"}
    if request.param == "memcached":
        nodes: Nodes = request.getfixturevalue("memcached_nodes")
        settings["SFSS_STORAGE_NODES"] = ",".join(nodes)
    with Service(tmp_path, settings=settings) as running:
        yield running


def records_of(sample: Sample) -> int:
    """How many lie on the nodes for a file."""
    size = len(sample.content)
    return 1 if size <= LARGEST else 1 - (-size // LARGEST)


async def in_parallel(do: Callable[[T], Awaitable[None]], things: Iterable[T], jobs: int = 16) -> None:
    """Call ``do`` for each of the things, so many at a time."""
    left = iter(things)

    async def work() -> None:
        for thing in left:
            await do(thing)

    async with asyncio.TaskGroup() as group:
        for _ in range(jobs):
            group.create_task(work())


def url(service: Service, path: str, page: str = "file") -> URL:
    return URL(f"{service.url}/{page}").with_query(path=path)


@pytest.fixture
def count(request: pytest.FixtureRequest, long: bool) -> int:
    """How many files are stored."""
    return COUNT if long or request.node.callspec.params["any_service"] == "embedded" else FEWER


@pytest.mark.timeout(300)
async def test_ten_thousand_files_come_back_byte_for_byte(any_service: Service, count: int) -> None:
    """Over embedded nodes; over memcached as many with ``--long``, and a quarter of them without."""
    service = any_service
    async with aiohttp.ClientSession() as session:

        async def store(numbered: tuple[int, Sample]) -> None:
            number, (path, content) = numbered
            if number % 3 == 0:
                form = aiohttp.FormData()
                form.add_field("upload_file", content, filename="local name")
                answer = session.post(url(service, path, "files"), data=form)
            elif number % 3 == 1:
                answer = session.post(url(service, path, "files"), data=content)
            else:
                answer = session.put(url(service, path), data=content)
            async with answer as response:
                assert response.status == (200 if number % 3 == 2 else 201), await response.text()

        async def is_there(sample: Sample) -> None:
            async with session.get(url(service, sample.path)) as response:
                assert response.status == 200, (sample.path, await response.text())
                assert await response.read() == sample.content, sample.path

        async def check(sample: Sample) -> None:
            await is_there(sample)
            async with session.head(url(service, sample.path)) as response:
                assert response.content_length == len(sample.content)

        async def delete(sample: Sample) -> None:
            async with session.delete(url(service, sample.path)) as response:
                assert response.status == 204

        async def is_gone(sample: Sample) -> None:
            async with session.get(url(service, sample.path)) as response:
                assert response.status == 404

        async def items() -> int:
            async with session.get(f"{service.url}/status") as response:
                return sum(int(stats["curr_items"]) for stats in (await response.json()).values())

        before = await items()
        records = [records_of(sample) for sample in samples(count)]
        await in_parallel(store, enumerate(samples(count)))
        assert await items() == before + sum(records)
        await in_parallel(check, samples(count))
        every_tenth = [sample for number, sample in enumerate(samples(count)) if number % 10 == 0]
        await in_parallel(delete, every_tenth)
        await in_parallel(is_gone, every_tenth)
        left = sum(records) - sum(records[::10])
        async with asyncio.timeout(10):  # of a deleted file a mark is left, for a day; its blocks go behind the answer
            while await items() != before + left + len(every_tenth):
                await asyncio.sleep(0.05)
        await in_parallel(is_there, (sample for number, sample in enumerate(samples(count)) if number % 10))


class Writer:
    """Writes files over and over, and knows what each may hold: what was acknowledged last, or sent since."""

    def __init__(self, service: Service, session: aiohttp.ClientSession, chance: random.Random) -> None:
        self._service = service
        self._session = session
        self._chance = chance
        self.possible: dict[str, list[bytes | None]] = {}  # the first is the acknowledged state, None for no file
        self.acknowledged = 0
        self.failed = 0

    async def write(self, path: str) -> None:
        deleting = self._chance.random() < 0.1
        content = None if deleting else self._chance.randbytes(self._chance.choice((0, 1, 100, 5000, 300_000)))
        possible = self.possible.setdefault(path, [None])
        possible.append(content)
        try:
            request = self._session.delete if deleting else self._session.put
            async with request(url(self._service, path), data=content) as response:
                done = response.status in ((204, 404) if deleting else (200,))
        except aiohttp.ClientConnectionError:
            done = False
        if done:
            self.acknowledged += 1
            self.possible[path] = [content]
        else:
            self.failed += 1

    async def check(self, path: str) -> None:
        async with self._session.get(url(self._service, path)) as response:
            content = await response.read() if response.status == 200 else None
            assert response.status in (200, 404), await response.text()
            assert content in self.possible[path], f"{path} holds neither what was acknowledged nor what was sent since"


@pytest.mark.timeout(900)
async def test_nodes_killed_during_writes_lose_nothing_acknowledged(tmp_path: Path, long: bool) -> None:
    """kill -9 of any node, at random moments of overwrites, creations and deletes; the nodes are started again."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    kills = 200 if long else 12
    with Service(tmp_path) as service:
        async with aiohttp.ClientSession() as session:
            writer = Writer(service, session, chance)
            stop = asyncio.Event()

            async def keep_writing(job: int) -> None:
                while not stop.is_set():
                    await writer.write(f"job-{job}/{chance.randrange(50)}")

            async with asyncio.TaskGroup() as group:
                for job in range(8):
                    group.create_task(keep_writing(job))
                for _ in range(kills):
                    await asyncio.sleep(chance.uniform(0.1, 0.6))
                    pids = await asyncio.to_thread(service.node_pids_now)
                    with contextlib.suppress(ProcessLookupError, IndexError):
                        os.kill(chance.choice(list(pids.values())), signal.SIGKILL)
                stop.set()
            await asyncio.to_thread(wait_for, service.all_nodes_are_here, 60, "the nodes")
            await in_parallel(writer.check, writer.possible)
    print(f"{writer.acknowledged} writes acknowledged, {writer.failed} failed, {kills} kills")
    assert writer.acknowledged > 20 * kills
    assert writer.failed > 0
