"""Nodes are killed, stopped, cut off and slowed, one at a time: clients are told what one register would tell.

Where the quorums don't promise that, nothing that was acknowledged is lost. Figures are printed: see them with ``-s``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sfss.cluster import copies
from sfss.cluster.replication import Cluster
from sfss.cluster.topology import Quorum
from sfss.errors import NotFound, PreconditionFailed, Unavailable
from sfss.files import Files, Info
from tests.cluster.faults.farm import DISTURBANCES, Farm, Node
from tests.cluster.faults.history import Call, WrongAnswer, check, check_versions, check_weakly

HOUR = 3600 * 1_000_000  # in microseconds
MIB = 2**20
PATHS = 20
MOST_CALLS, MOST_UNKNOWN = 300, 8  # on one path; among the unknown are those that go on
CLIENTS = 8
SHORT, LONG = 2.5, 240.0  # seconds of disturbances; SFSS_FAULTS_SECONDS for others
KINDS = ("put", "create", "delete", "read", "stat")
WEIGHTS = (25, 8, 7, 40, 20)
PAUSE = 0.01  # seconds between a client's calls: many more would only wait for each other on a test's machine


def absent(info: Info | None) -> None:
    """A condition: nothing is there."""
    if info is not None:
        raise PreconditionFailed("it is there")


def content_of(name: str) -> bytes:
    """What says of itself where it belongs, and is as long as it says."""
    size = 50 + hashlib.md5(name.encode(), usedforsecurity=False).digest()[0] ** 2 // 2
    return (name.encode() + b"|").ljust(size, b".") + hashlib.sha256(name.encode()).digest()


class Campaign:
    """Clients, and what they were told."""

    def __init__(self, farm: Farm, seed: str) -> None:
        self.farm = farm
        self.seed = seed
        self.clusters: list[Cluster] = []
        self.fronts: list[Files] = []
        self.histories: dict[str, list[Call]] = defaultdict(list)
        self.phase = "quiet"
        self.times: dict[str, list[float]] = defaultdict(list)  # seconds, by phase
        self.failed: dict[str, Counter[str]] = defaultdict(Counter)  # kinds of calls, by phase
        self._clock = itertools.count(1)
        self._number = itertools.count(1)
        self._names: dict[bytes, str] = {}  # by the digest of the content
        self._last_failure = ""
        self._generations: Counter[int] = Counter()
        self._ended = False

    async def connect(self, *ahead: int) -> None:
        for microseconds in ahead:
            cluster = await self.farm.front()
            self.clusters.append(cluster)
            files = Files(cluster, max_file_size=MIB)
            files._last_version = time.time_ns() // 1000 + microseconds if microseconds else 0
            self.fronts.append(files)

    async def settled(self, *nodes: Node) -> None:
        """All fronts see these nodes, or all."""
        names = [node.address for node in nodes or self.farm.nodes]
        async with asyncio.timeout(60):
            while any(cluster.ready()[name] for cluster in self.clusters for name in names):
                await asyncio.sleep(0.01)

    async def run(self, seconds: float, together: int = 1) -> None:
        """Clients at work, while up to so many nodes are disturbed at a time."""
        clients = [asyncio.create_task(self._client(number)) for number in range(CLIENTS)]
        spared = list(self.farm.nodes)
        until = time.monotonic() + seconds
        await asyncio.sleep(0.3)

        async def trouble(number: int) -> None:
            chance = random.Random(f"{self.seed} faults {number}")
            while time.monotonic() < until and not any(client.done() for client in clients):
                node = spared.pop(chance.randrange(len(spared)))
                await self.disturb(node, chance.choice(DISTURBANCES), chance.uniform(0.2, 0.9))
                spared.append(node)
                await asyncio.sleep(chance.uniform(0.05, 0.3))

        await asyncio.gather(*(trouble(number) for number in range(together)))
        await self.settled()
        self._ended = True
        await asyncio.gather(*clients)

    async def disturb(self, node: Node, how: str, seconds: float) -> None:
        self.phase = how
        await node.disturb(how)
        await asyncio.sleep(seconds)
        await node.heal(how)
        self.phase = f"after {how}"
        await self.settled(node)
        self.phase = "quiet"

    async def run_plainly(self, node: Node, seconds: float) -> None:
        """Reads and plain writes, so long before, while and after a node is dead."""
        stopping = asyncio.Event()

        async def client(number: int) -> None:
            chance = random.Random(f"{self.seed} client {number}")
            while not stopping.is_set():
                path = f"plain/{number}/{chance.randrange(PATHS)}"
                [kind] = chance.choices(("put", "read", "stat"), (30, 50, 20))
                await self.call(self.fronts[number % len(self.fronts)], path, kind, number)
                await asyncio.sleep(chance.uniform(0, 2 * PAUSE))

        clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
        self.phase = "before"
        await asyncio.sleep(seconds)
        self.phase = "killed"
        await node.disturb("killed")
        await asyncio.sleep(seconds)
        await node.heal("killed")
        self.phase = "after"
        await self.settled()
        await asyncio.sleep(seconds)
        stopping.set()
        await asyncio.gather(*clients)

    async def _client(self, number: int) -> None:
        chance = random.Random(f"{self.seed} client {number}")
        while not self._ended:
            path = self._path(min(chance.randrange(PATHS), chance.randrange(PATHS)))  # some are in demand
            [kind] = chance.choices(KINDS, WEIGHTS)
            await self.call(self.fronts[number % len(self.fronts)], path, kind, number)
            await asyncio.sleep(chance.uniform(0, 2 * PAUSE))

    def _path(self, number: int) -> str:
        """Another one when enough has happened to the last: the checker's work grows fast with what is unknown."""
        path = f"faults/{number}/{self._generations[number]}"
        calls = self.histories[path]
        if len(calls) >= MOST_CALLS or sum(call.writes and call.outcome == "unknown" for call in calls) >= MOST_UNKNOWN:
            self._generations[number] += 1
        return path

    async def call(self, files: Files, path: str, kind: str, client: int) -> Call:
        """Make a call and note what came of it. Any other error than may come out of Files goes through."""
        call = Call(kind, client, next(self._clock))
        if kind in ("put", "create"):
            call.value = f"{path} {client} {next(self._number)}"
        self.histories[path].append(call)
        phase, began = self.phase, time.perf_counter()
        try:
            await self._make(files, path, call)
            call.outcome = "done"
        except NotFound:
            call.outcome = "missing"
        except PreconditionFailed:
            call.outcome = "exists"
        except Unavailable as error:
            self._last_failure = f"{call}: {error}"
        if call.outcome != "unknown":
            call.end = next(self._clock)
        else:
            self.failed[phase][kind] += 1
        self.times[phase].append(time.perf_counter() - began)
        return call

    async def read_at_last(self, files: Files, path: str) -> Call:
        """A read when all is well again, but for a machine that has much to do."""
        async with asyncio.timeout(30):
            while (call := await self.call(files, path, "read", -1)).outcome == "unknown":
                await asyncio.sleep(0.1)
        return call

    async def _make(self, files: Files, path: str, call: Call) -> None:
        if call.kind == "delete":
            await files.delete(path)
        elif call.kind == "read":
            file = await files.open(path)
            call.version, call.value = file.info.modified, self._name_of(path, file.info.sha256)
            assert bytes(file.content) == content_of(call.value)
        elif call.kind == "stat":
            info = await files.stat(path)
            call.version, call.value = info.modified, self._name_of(path, info.sha256)
        else:
            assert call.value is not None
            content = content_of(call.value)
            self._names[hashlib.sha256(content).digest()] = call.value

            async def body() -> AsyncIterator[bytes]:
                yield content

            info = await files.put(path, body(), condition=absent if call.kind == "create" else None)
            call.version = info.modified

    def _name_of(self, path: str, digest: bytes) -> str:
        name = self._names[digest]
        assert name.split()[0] == path
        return name

    def report(self) -> None:
        """Requests, failures and latencies of each phase."""
        print(f"{'phase':18} calls      p50      p99 ms  failed")
        for phase, times in sorted(self.times.items()):
            if len(times) > 1:
                cuts = statistics.quantiles([seconds * 1000 for seconds in times], n=100)
                failed = ", ".join(f"{kind} {count}" for kind, count in sorted(self.failed[phase].items()))
                print(f"{phase:18} {len(times):5} {cuts[49]:8.1f} {cuts[98]:8.1f}     {failed or 'none'}")
        print(f"the last failure: {self._last_failure}")
        print(*(cluster.counts() for cluster in self.clusters), sep="\n")


@contextlib.asynccontextmanager
async def campaign(
    directory: Path, seed: str, nodes: int, quorum: Quorum, *ahead: int, timeout: float = 0.5
) -> AsyncIterator[Campaign]:
    async with Farm(directory, nodes, quorum, timeout).running() as farm:
        made = Campaign(farm, seed)
        try:
            await made.connect(*ahead)
            await made.settled()
            yield made
        finally:
            made.report()
            await asyncio.gather(*(cluster.close() for cluster in made.clusters))


@pytest.fixture
def seconds(long: bool) -> float:
    return float(os.environ.get("SFSS_FAULTS_SECONDS") or (LONG if long else SHORT))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("together", [1, 2])
async def test_with_two_and_two_of_three_copies_clients_see_one_register(
    tmp_path: Path, seed: str, seconds: float, together: int
) -> None:
    async with campaign(tmp_path, seed, 5, Quorum(3, 2, 2), 0, HOUR) as made:
        await made.run(seconds, together)
        for path in list(made.histories):
            for files in made.fronts:
                await made.read_at_last(files, path)
    for calls in made.histories.values():
        check_versions(calls)
        check(calls)


@pytest.mark.timeout(3600)
async def test_with_one_and_one_of_two_copies_nothing_is_lost_and_no_404_is_false(
    tmp_path: Path, seed: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with campaign(tmp_path, seed, 4, Quorum(2, 1, 1), 0, 0) as made:
        await made.run(seconds)
        await asyncio.sleep(1)  # what goes on behind answers
        during = {path: list(calls) for path, calls in made.histories.items()}
        monkeypatch.setattr(copies, "COMPARED", 1)  # or else it takes many reads until one of them looks at all nodes

        async def mend(path: str) -> list[Call]:
            for _ in range(10):
                await made.read_at_last(made.fronts[0], path)
                await asyncio.sleep(0.05)
            return [await made.read_at_last(files, path) for files in made.fronts]

        final = dict(zip(during, await asyncio.gather(*map(mend, during)), strict=True))
    for path, calls in during.items():
        check_weakly(calls, final[path])


@pytest.mark.timeout(3600)
async def test_with_two_and_two_of_three_copies_nobody_is_turned_away_because_a_node_is_dead(
    tmp_path: Path, seed: str, long: bool
) -> None:
    async with campaign(tmp_path, seed, 5, Quorum(3, 2, 2), 0, 0, timeout=2.0) as made:
        await made.run_plainly(random.Random(seed).choice(made.farm.nodes), 20 if long else 0.8)
    assert sum(sum(kinds.values()) for kinds in made.failed.values()) == 0
    for calls in made.histories.values():
        check_versions(calls)
        check(calls)


def told(*lines: tuple[str, int, float, str, str | None]) -> list[Call]:
    return [
        Call(kind, 0, start, value, end, outcome, 0 if value is None else int(value))
        for kind, start, end, outcome, value in lines
    ]


LATER = float("inf")
WRITE_1 = ("put", 1, 2, "done", "1")


@pytest.mark.parametrize(
    "calls",
    [
        told(WRITE_1, ("read", 3, 4, "done", "1")),
        told(("put", 1, 9, "done", "1"), ("read", 3, 4, "missing", None), ("read", 5, 6, "done", "1")),
        told(WRITE_1, ("put", 3, LATER, "unknown", "2"), ("read", 5, 6, "done", "1"), ("read", 7, 8, "done", "2")),
        told(WRITE_1, ("delete", 3, LATER, "unknown", None), ("create", 5, 6, "done", "2")),
        told(("create", 1, 5, "done", "1"), ("create", 2, 6, "exists", "2"), ("stat", 7, 8, "done", "1")),
    ],
)
def test_the_checker_takes_what_a_register_may_tell(calls: list[Call]) -> None:
    check(calls)
    check_versions(calls)


@pytest.mark.parametrize(
    "calls",
    [
        told(WRITE_1, ("read", 3, 4, "missing", None)),
        told(WRITE_1, ("put", 3, 4, "done", "2"), ("read", 5, 6, "done", "1")),
        told(WRITE_1, ("put", 3, 20, "done", "2"), ("read", 5, 6, "done", "2"), ("read", 7, 8, "done", "1")),
        told(WRITE_1, ("delete", 3, 4, "done", None), ("read", 5, 6, "done", "1")),
        told(("create", 1, 5, "done", "1"), ("create", 2, 6, "done", "2")),
        told(WRITE_1, ("create", 3, 4, "done", "2")),
        told(("create", 1, 2, "exists", "1")),
    ],
)
def test_the_checker_finds_what_none_would(calls: list[Call]) -> None:
    with pytest.raises(WrongAnswer):
        check(calls)
