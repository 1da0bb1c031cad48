"""What the cluster's tests share: nodes in the test's own loop, which come and go, and records that tell versions."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from sfss.addresses import parse_address
from sfss.backends.memcached import MemcachedNode
from sfss.cluster.replication import Cluster
from sfss.cluster.topology import Quorum, Topology
from sfss.node.server import Server
from sfss.record import Kind
from tests.node.support import running
from tests.servers import HOST, free_ports
from tests.test_record import make

NODES = 5
MIB = 2**20
TIMEOUT = 5.0  # seconds; nodes here come and go, and none is to seem silent because the machine is busy
SAFE, QUICK = Quorum(3, 2, 2), Quorum(2, 1, 1)


class Farm:
    """Nodes in the test's own loop, which can be stopped and started, and a cluster over them."""

    def __init__(self, directory: Path, quorum: Quorum) -> None:
        self.first = free_ports(NODES)
        self.directory = directory
        self.quorum = quorum
        self.servers: dict[str, contextlib.AsyncExitStack] = {}
        self.nodes: dict[str, Server] = {}
        self.names = [f"{HOST}:{self.first + number}" for number in range(NODES)]
        self.cluster = self.new_cluster()

    def new_cluster(self) -> Cluster:
        nodes = [
            MemcachedNode(parse_address(name), largest_value=MIB, timeout=TIMEOUT, connect_timeout=2.0, retry_after=0.1)
            for name in self.names
        ]
        return Cluster(Topology(nodes, self.quorum))

    async def start(self, *names: str) -> None:
        for name in names or self.names:
            stack = self.servers[name] = contextlib.AsyncExitStack()
            port = int(name.rpartition(":")[2])
            data = self.directory / str(port)
            self.nodes[name] = await stack.enter_async_context(running(data, port=port, durability="os"))

    async def stop(self, *names: str) -> None:
        for name in names:
            await self.servers.pop(name).aclose()
            del self.nodes[name]

    def owners(self, key: bytes) -> list[str]:
        """The owners, and then the spares."""
        place = self.cluster.topology.place(key)
        return [node.address.name for node in (*place.owners, *place.spares)]

    def versions(self, key: bytes) -> dict[str, int]:
        """What each node that is here has."""
        found = {}
        for name, server in self.nodes.items():
            head = server.store.head(key)
            if head is not None:
                found[name] = head.size
        return found

    def leave(self, name: str, key: bytes, data: bytes) -> None:
        """Put a record on one node, as a write leaves it that came no further."""
        store = self.nodes[name].store
        store.put(key, 0, 0, data, store.claim(key))

    async def settled(self, away: int = 0) -> None:
        """Come back when the cluster knows who is here."""
        await until(lambda: sum(why is not None for why in self.cluster.ready().values()) == away)

    async def empty(self, name: str) -> None:
        """Replace a node by one that has nothing."""
        await self.stop(name)
        shutil.rmtree(self.directory / name.rpartition(":")[2])
        await self.settled(away=1)
        await self.start(name)
        await self.settled()


@contextlib.asynccontextmanager
async def started(directory: Path, quorum: Quorum) -> AsyncIterator[Farm]:
    """A farm whose nodes and cluster are there."""
    farm = Farm(directory, quorum)
    await farm.start()
    try:
        async with connected(farm.cluster):
            yield farm
    finally:
        await farm.stop(*list(farm.servers))


@contextlib.asynccontextmanager
async def connected(cluster: Cluster) -> AsyncIterator[Cluster]:
    """The cluster, when all its nodes are here."""
    await cluster.start()
    try:
        await until(lambda: not any(cluster.ready().values()))
        yield cluster
    finally:
        await cluster.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def version(number: int, kind: Kind = Kind.FILE) -> bytes:
    """A record of that version, whose size tells it."""
    return make(b"x" * (number if kind == Kind.FILE else 0), version=number, kind=kind)


async def found(cluster: Cluster, key: bytes) -> int | None:
    """The version that a read finds; None if there is no file."""
    record = await cluster.get(key)
    if record is None or record.header.kind == Kind.TOMBSTONE:
        return None
    assert record.header.version == len(record.payload)
    return record.header.version
