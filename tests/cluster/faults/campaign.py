"""Clients of several fronts over a farm of nodes, what they were told, and what is done to the nodes meanwhile.

How it is judged is in ``history.py`` and ``census.py``; which campaigns there are, in the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from sfss.cluster.background import Background
from sfss.cluster.clock import Clock
from sfss.cluster.repair import Repair
from sfss.cluster.replication import Cluster
from sfss.cluster.summary import Summary
from sfss.cluster.topology import Quorum
from sfss.config import Limits, Settings
from sfss.errors import NotFound, PreconditionFailed, Unavailable
from sfss.files import Files, Info
from sfss.policies import Policies
from tests.cluster.faults.census import census, disagreeing, not_home
from tests.cluster.faults.farm import DISTURBANCES, Farm, Kind, Node, Ours
from tests.cluster.faults.history import Call

DAY = 86400
MOST_CALLS, MOST_UNKNOWN = 300, 8  # on one path; among the unknown are those that go on
CLIENTS = 8
KINDS = ("put", "create", "delete", "read", "stat")
PAUSE = 0.01  # seconds between a client's calls: many more would only wait for each other on a test's machine
PATIENT = 20.0  # seconds to wait for a node where no call may fail
LONGEST = 120.0  # seconds to wait for what must come, on a machine that has much to do


def absent(info: Info | None) -> None:
    """A condition: nothing is there."""
    if info is not None:
        raise PreconditionFailed("it is there")


def content_of(name: str) -> bytes:
    """What says of itself where it belongs, and is as long as it says."""
    size = 50 + hashlib.md5(name.encode(), usedforsecurity=False).digest()[0] ** 2 // 2
    return (name.encode() + b"|").ljust(size, b".") + hashlib.sha256(name.encode()).digest()


class Campaign:
    """Clients that call on ``paths`` paths, each kind of call as often as ``weights`` say, and what they were told."""

    def __init__(self, farm: Farm, seed: str, members: Sequence[int]) -> None:
        self.farm = farm
        self.seed = seed
        self.members = list(members)  # the numbers of the nodes that are in use
        self.paths = 20
        self.weights = (25, 8, 7, 40, 20)
        self.clusters: list[Cluster] = []
        self.fronts: list[Files] = []
        self.repairers: list[Background] = []
        self.histories: dict[str, list[Call]] = defaultdict(list)
        self.phase = "quiet"
        self.times: dict[str, list[float]] = defaultdict(list)  # seconds, by phase
        self.failed: dict[str, Counter[str]] = defaultdict(Counter)  # kinds of calls, by phase
        self.done: Counter[str] = Counter()  # by repairs, and to nodes
        self._operator: Cluster | None = None  # who repairs, as a process of its own
        self._going: set[Call] = set()
        self._clients: list[asyncio.Task[None]] = []
        self._disturbed: set[Node] = set()
        self._clock = itertools.count(1)
        self._number = itertools.count(1)
        self._names: dict[bytes, str] = {}  # by the digest of the content
        self._last_failures: dict[str, str] = {}  # by the kind of the call
        self._generations: Counter[int] = Counter()

    async def connect(self, *ahead: int) -> None:
        """As many fronts, whose clocks are ahead by so many microseconds."""
        for microseconds in ahead:
            cluster = await self.farm.front(self.members)
            self.clusters.append(cluster)
            files = Files(cluster, policies=Policies(Settings()), limits=Limits())
            files._last_version = time.time_ns() // 1000 + microseconds if microseconds else 0
            self.fronts.append(files)
        self._operator = await self.farm.front(self.members)

    def set_clock(self, number: int, ahead: int) -> None:
        """Let the clock of a front's machine be wrong by so many microseconds."""
        cluster = self.clusters[number]
        cluster._clock = Clock(cluster.topology.nodes.values, ahead=ahead)

    async def close(self) -> None:
        await asyncio.gather(*(repairer.close() for repairer in self.repairers))
        await asyncio.gather(*(cluster.close() for cluster in self._all_clusters))

    @property
    def operator(self) -> Cluster:
        assert self._operator is not None
        return self._operator

    @property
    def _all_clusters(self) -> list[Cluster]:
        return [*self.clusters, self.operator]

    async def settled(self, *nodes: Node) -> None:
        """All fronts see these nodes, or all."""
        names = {node.address for node in nodes or self.farm.nodes}
        async with asyncio.timeout(LONGEST):
            while any(why and name in names for front in self._all_clusters for name, why in front.ready().items()):
                await asyncio.sleep(0.01)

    # --- load ---

    @contextlib.asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Clients at work."""
        stopping = asyncio.Event()
        self._clients = [asyncio.create_task(self._client(number, stopping)) for number in range(CLIENTS)]
        try:
            yield
        finally:
            stopping.set()
            await asyncio.gather(*self._clients)

    async def load_plainly(self, stopping: asyncio.Event) -> None:
        """Reads and plain writes, each path one client's."""

        async def client(number: int) -> None:
            chance = random.Random(f"{self.seed} client {number}")
            while not stopping.is_set():
                path = f"plain/{number}/{chance.randrange(self.paths)}"
                [kind] = chance.choices(("put", "read", "stat"), (30, 50, 20))
                await self.call(self.fronts[number % len(self.fronts)], path, kind, number)
                await asyncio.sleep(chance.uniform(0, 2 * PAUSE))

        await asyncio.gather(*map(client, range(CLIENTS)))

    async def _client(self, number: int, stopping: asyncio.Event) -> None:
        chance = random.Random(f"{self.seed} client {number}")
        while not stopping.is_set():
            path = self._path(min(chance.randrange(self.paths), chance.randrange(self.paths)))  # some are in demand
            [kind] = chance.choices(KINDS, self.weights)
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
        self._going.add(call)
        phase, began = self.phase, time.perf_counter()
        try:
            await self._make(files, path, call)
            call.outcome = "done"
        except NotFound:
            call.outcome = "missing"
        except PreconditionFailed:
            call.outcome = "exists"
        except Unavailable as error:
            self._last_failures[kind] = f"{phase}: {error}"
        finally:
            self._going.discard(call)
        if call.outcome != "unknown":
            call.end = next(self._clock)
        else:
            self.failed[phase][kind] += 1
        self.times[phase].append(time.perf_counter() - began)
        return call

    async def read_at_last(self, files: Files, path: str) -> Call:
        """A read when all is well again, but for a machine that has much to do."""
        async with asyncio.timeout(LONGEST):
            while (call := await self.call(files, path, "read", -1)).outcome == "unknown":
                await asyncio.sleep(0.1)
        return call

    async def read_all_at_last(self) -> dict[str, list[Call]]:
        """What each front tells of each path."""
        return {path: [await self.read_at_last(files, path) for files in self.fronts] for path in list(self.histories)}

    async def _make(self, files: Files, path: str, call: Call) -> None:
        if call.kind == "delete":
            await files.delete(path)
        elif call.kind == "read":
            file = await files.open(path)
            call.version, call.value = file.info.modified, self._name_of(path, file.info.sha256)
            assert file.content is not None
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

    async def ended(self) -> None:
        """What goes on at this moment has come to its end, and what goes on behind it."""
        going = set(self._going)
        while going & self._going:
            await asyncio.sleep(0.005)
        if behind := [task for cluster in self.clusters for task in cluster._copies._behind]:
            await asyncio.wait(behind)

    async def _quiet(self) -> None:
        """Nothing goes on any more, when nobody calls."""
        while self._going or any(cluster._copies._behind for cluster in self.clusters):
            await self.ended()

    def _check_clients(self) -> None:
        for client in self._clients:
            if client.done():
                client.result()

    # --- trouble ---

    @contextlib.asynccontextmanager
    async def trouble(
        self, together: int = 1, kinds: Sequence[str] = DISTURBANCES, calm: float = 0.3
    ) -> AsyncIterator[None]:
        """Up to so many of the nodes in use are disturbed at a time, and none for up to ``calm`` seconds in between."""
        stopping = asyncio.Event()

        async def trouble(number: int) -> None:
            chance = random.Random(f"{self.seed} faults {number}")
            while not stopping.is_set():
                await asyncio.sleep(chance.uniform(0.05, calm))
                members = [self.farm.nodes[number] for number in self.members]
                spared = [node for node in members if node not in self._disturbed]
                await self.disturb(chance.choice(spared), chance.choice(kinds), chance.uniform(0.2, 0.9))

        troubles = [asyncio.create_task(trouble(number)) for number in range(together)]
        try:
            yield
        finally:
            stopping.set()
            await asyncio.gather(*troubles)
        await self.settled()

    async def disturb(self, node: Node, how: str, seconds: float) -> None:
        """For so long; returns when all fronts see the node again."""
        self._check_clients()
        self._disturbed.add(node)
        self.done[how] += 1
        self.phase = how
        await node.disturb(how)
        await asyncio.sleep(seconds)
        await node.heal(how)
        self.phase = f"after {how}"
        await self.settled(node)
        self.phase = "quiet"
        self._disturbed.discard(node)

    async def renew(self, number: int) -> None:
        """Empty a node that is not in use."""
        node = self.farm.nodes[number]
        while node in self._disturbed:  # from when it was
            await asyncio.sleep(0.05)
        await node.kill()
        node.forget()
        await node.start()

    async def empty(self, number: int) -> None:
        """Kill a node and start it with nothing."""
        self.phase = "emptied"
        self.done["emptied"] += 1
        node = self.farm.nodes[number]
        await node.kill()
        node.forget()
        await node.start()
        await self.settled()

    async def empty_when_settled(self, number: int) -> None:
        """The same, when the other owners of all that the node has are seen to have it.

        Two owners acknowledge a write, and the third one's copy may still be on its way, or have failed. Were one of
        the two emptied then, only one would know of the write. So what goes on when the node dies ends first; and where
        a copy has failed, which is rare, the node is started with what it had, and the copies are put in order before
        it is tried again. What is written while it is dead is on both others.
        """
        node = self.farm.nodes[number]
        while True:
            self.phase = "emptied"
            await node.kill()
            await self.ended()
            if await self._others_have_all(f"node{number}"):
                break
            self.done["not emptied"] += 1
            await node.start()
            await self.settled()
            await self.put_in_order()
        await self.empty(number)

    async def _others_have_all(self, but: str) -> bool:
        """Whether the owners of each key, but this one, are seen to have the same version at a moment from now on."""
        topology = self.operator.topology
        left = set(await census(topology, but=[but]))
        for _ in range(20):
            left &= disagreeing(topology, await census(topology, but=[but]), but=[but])
            if not left:
                return True
            await asyncio.sleep(0.05)
        return False

    # --- repair and growth ---

    async def put_in_order(self, *, moving_only: bool = False) -> None:
        """Repairs, until one says that all is well."""
        summary: Summary | None = None
        try:
            async with asyncio.timeout(LONGEST):
                while not (summary := await self.repair(moving_only=moving_only)).well:
                    self._check_clients()
                    await asyncio.sleep(0.05)  # a node is away
        except TimeoutError:
            raise AssertionError(f"no repair says that all is well: {summary}") from None

    async def repair(self, *, moving_only: bool = False, tombstone_ttl: int = DAY) -> Summary:
        topology = self.operator.topology
        summary = await Repair(topology, tombstone_ttl=tombstone_ttl, moving_only=moving_only, patience=2.0).run()
        self.done["repairs"] += 1
        for what in ("copies_written", "strays_removed", "tombstones_removed"):
            self.done[what] += getattr(summary, what)
        return summary

    def look_after(self, interval: float, tombstone_ttl: int = DAY) -> None:
        """Have each front repair in the background."""
        for cluster in self.clusters:
            repairer = Background(cluster, interval=interval, share=1.0, tombstone_ttl=tombstone_ttl)
            repairer.start()
            self.repairers.append(repairer)

    async def go_over(
        self,
        chance: random.Random,
        nodes: Sequence[int],
        joining: Sequence[int] = (),
        leaving: Sequence[int] = (),
    ) -> None:
        """All fronts, in any order, each at some moment; then what moves is moved (``docs/operations/growing.rst``)."""
        await self.operator.change(self.farm.topology(nodes, joining, leaving, known=self.operator))
        self.members = [*nodes, *joining, *leaving]
        for cluster in chance.sample(self.clusters, len(self.clusters)):
            await cluster.change(self.farm.topology(nodes, joining, leaving, known=cluster))
            await asyncio.sleep(chance.uniform(0, 0.15))
        await self.ended()  # it goes on with the nodes that it began with
        await self.put_in_order(moving_only=True)
        self.done["went over"] += 1

    async def check_order(self) -> None:
        """When nobody calls: repair, and see that all owners have the same version of each key, and nobody else any."""
        await self._quiet()
        await self.put_in_order()
        topology = self.operator.topology
        found = await census(topology)
        wrong = not_home(topology, found)
        assert not wrong, "\n".join(wrong)
        assert found

    async def check_background(self) -> None:
        """When nobody calls: the fronts bring all copies home by themselves, and know it."""
        began, topology = time.monotonic(), self.operator.topology
        async with asyncio.timeout(LONGEST):
            while any(repairer.status()["under_replicated"] for repairer in self.repairers):
                await asyncio.sleep(0.05)
            knew = time.monotonic() - began
            while not_home(topology, await census(topology)):
                await asyncio.sleep(0.05)
        print(
            f"no file lacked a copy after {knew:.1f} s, and no copy was astray after {time.monotonic() - began:.1f} s"
        )

    def report(self) -> None:
        """Requests, failures and latencies of each phase."""
        print(f"{'phase':18} calls      p50      p99 ms  failed")
        for phase, times in sorted(self.times.items()):
            if len(times) > 1:
                cuts = statistics.quantiles([seconds * 1000 for seconds in times], n=100)
                failed = ", ".join(f"{kind} {count}" for kind, count in sorted(self.failed[phase].items()))
                print(f"{phase:18} {len(times):5} {cuts[49]:8.1f} {cuts[98]:8.1f}     {failed or 'none'}")
        print(", ".join(f"{what.replace('_', ' ')} {count}" for what, count in self.done.items() if count))
        for kind, why in self._last_failures.items():
            print(f"the last {kind} that failed, {why}")
        print(*(cluster.counts() for cluster in self.clusters), sep="\n")


@contextlib.asynccontextmanager
async def campaign(
    directory: Path,
    seed: str,
    nodes: int,
    quorum: Quorum,
    *ahead: int,
    timeout: float = 0.5,
    members: Sequence[int] = (),
    kind: Kind | None = None,
) -> AsyncIterator[Campaign]:
    """A farm of so many nodes, of which ``members`` or all are in use, and a front for each clock in ``ahead``.

    The nodes are of a ``kind``, or ours.
    """
    async with Farm(directory, nodes, quorum, timeout, kind or Ours()).running() as farm:
        made = Campaign(farm, seed, members or range(nodes))
        try:
            await made.connect(*ahead)
            await made.settled()
            yield made
        finally:
            made.report()
            await made.close()
