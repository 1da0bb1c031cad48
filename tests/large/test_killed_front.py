"""kill -9 of the front at random moments of uploads: what is seen is whole, what was acknowledged is there.

And a sweep gives back all space that the others had taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from sfss.addresses import parse_address
from sfss.backends.memcached import MemcachedNode
from sfss.cluster.repair import Repair
from sfss.cluster.replication import Cluster
from sfss.cluster.summary import Summary
from sfss.cluster.sweeping.stripeturn import MARGIN
from sfss.cluster.sweeping.sweep import Sweep
from sfss.cluster.topology import Quorum, Topology
from tests.cluster.support import connected
from tests.large.support import KIB, MIB, blocks_on, content_of
from tests.servers import HOST, PATIENT, Service, sfss_node

PATHS = 8
SIZES = (1, 3_000, 60_000, 200_000, 700_000, 3 * MIB, 6 * MIB)
pytestmark = pytest.mark.timeout(3600)


class Campaign:
    """Writers, one to a path, and readers; and what each path may hold."""

    def __init__(self, service: Service, session: aiohttp.ClientSession, chance: random.Random) -> None:
        self._service = service
        self._session = session
        self._chance = chance
        self._count = 0
        self.possible: dict[str, list[bytes | None]] = {f"killed/{n}": [None] for n in range(PATHS)}
        self.acknowledged = self.failed = self.read = self.cut = 0

    def _url(self, path: str) -> URL:
        return URL(f"{self._service.url}/file").with_query(path=path)

    async def write(self, path: str) -> None:
        """One call. The first that is possible then is what was acknowledged last."""
        chance = self._chance
        self._count += 1
        content = None
        if chance.random() > 0.1:
            content = content_of(f"{path} {self._count}", chance.choice(SIZES) + chance.randrange(1000))
        possible = self.possible[path]
        possible.append(content)
        try:
            if content is None:
                async with self._session.delete(self._url(path)) as answer:
                    is_done = answer.status in (204, 404)
            else:
                async with self._session.put(self._url(path), data=self._body(content)) as answer:
                    is_done = answer.status == 200
        except aiohttp.ClientError:
            is_done = False
            await asyncio.sleep(0.05)
        if is_done:
            self.acknowledged += 1
            del possible[: possible.index(content)]
            del possible[1:]
        else:
            self.failed += 1

    async def _body(self, content: bytes) -> AsyncIterator[bytes]:
        pause = self._chance.choice((0.0, 0.0, 0.002, 0.01))
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]
            await asyncio.sleep(pause)

    async def look(self, path: str) -> None:
        """Read while all goes on: whatever comes whole was sent whole at some time."""
        sent = list(self.possible[path])
        try:
            async with self._session.get(self._url(path)) as answer:
                got = await answer.read() if answer.status == 200 else None
                assert answer.status in (200, 404, 504), await answer.text()
        except aiohttp.ClientError:  # the front was killed, or the file replaced and freed
            self.cut += 1
            await asyncio.sleep(0.05)
            return
        self.read += 1
        assert got is None or got in (*sent, *self.possible[path]) or self._was_replaced(got, path), (
            f"{path}: {len(got)} bytes that were never sent"
        )

    def _was_replaced(self, got: bytes, path: str) -> bool:
        """Whether it is one that was there while it was read, and is known no more."""
        return any(
            got == content_of(f"{path} {n}", len(got)) for n in range(max(0, self._count - 400), self._count + 1)
        )

    async def check(self) -> None:
        """What is there now is what was acknowledged last, or sent since.

        What was sent and came as far as one node only may show itself as late as when that node is asked.
        """
        for path, possible in self.possible.items():
            async with self._session.get(self._url(path)) as answer:
                assert answer.status in (200, 404), await answer.text()
                got = await answer.read() if answer.status == 200 else None
            assert got in possible, f"{path} holds neither what was acknowledged nor what was sent since"
            self.possible[path] = [got, *(content for content in possible[1:] if content != got)]

    @property
    def size(self) -> int:
        """Bytes of all large files, as they were checked."""
        return sum(len(content) for content, *_ in self.possible.values() if content and len(content) > 56 * KIB)


async def _size(nodes: Sequence[str]) -> int:
    """Bytes of all blocks."""
    return sum(block.header.size for block in await blocks_on(nodes))


async def _put_in_order(nodes: Sequence[str], copies: int) -> Summary:
    """Repair and sweep, when all that is left is old enough."""
    clients = [MemcachedNode(parse_address(node), largest_value=2 * MIB, **PATIENT) for node in nodes]
    async with connected(Cluster(Topology(clients, Quorum(copies, copies, 1)))) as cluster:
        await Repair(cluster.topology, tombstone_ttl=86400).run()
        return await Sweep(cluster, upload_time=-MARGIN, copies_of=lambda _: copies).run()


@pytest.mark.parametrize("copies", [1, 2])
async def test_no_part_of_a_file_is_ever_seen_and_nothing_acknowledged_is_lost(
    tmp_path: Path, long: bool, chance: random.Random, copies: int
) -> None:
    kills = 100 if long else 6
    with contextlib.ExitStack() as stack:
        nodes = [
            f"{HOST}:{stack.enter_context(sfss_node(tmp_path / f'node{n}', '--durability', 'os'))[0]}" for n in range(3)
        ]
        settings = {
            "SFSS_STORAGE_NODES": ",".join(nodes),
            "SFSS_STORAGE_COPIES": str(copies),
            "SFSS_STORAGE_WRITE_QUORUM": str(copies),  # so that every read sees the same
            "SFSS_LIMITS_RECORD_SIZE": "64KiB",
            "SFSS_LIMITS_MAX_FILE_SIZE": "1GiB",
            "SFSS_LIMITS_LINGER": "0.2",
        }
        service = stack.enter_context(Service(tmp_path, settings=settings))
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
            campaign = Campaign(service, session, chance)
            stop = asyncio.Event()

            async def again(call: str, path: str) -> None:
                while not stop.is_set():
                    await getattr(campaign, call)(path)

            for _ in range(kills):
                stop.clear()
                async with asyncio.TaskGroup() as group:
                    for path in campaign.possible:
                        group.create_task(again("write", path))
                        group.create_task(again("look", path))
                    await asyncio.sleep(chance.uniform(0.05, 1.0))
                    assert service.process is not None
                    service.process.kill()
                    service.process.wait()
                    stop.set()
                await asyncio.to_thread(service.start)
                await campaign.check()
            assert "Traceback" not in service.log.read_text()
            summary = await _put_in_order(nodes, copies)
            await campaign.check()
        print(f"{kills} kills: {campaign.acknowledged} writes acknowledged, {campaign.failed} failed; {campaign.read}"
              f" reads, {campaign.cut} cut; {summary.stripes_swept} of {summary.stripes}"
              f" stripes were no file's, {summary.bytes_freed // MIB} MiB")  # fmt: skip
        assert summary.well
        assert await _size(nodes) == campaign.size * copies
        assert campaign.acknowledged > 2 * kills
        assert campaign.failed > kills
