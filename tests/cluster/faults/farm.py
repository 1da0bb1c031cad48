"""Real ``sfss node`` processes, each behind a proxy that can cut, stall and slow its connections."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from sfss.backends.base import Backend
from sfss.backends.memcached import MemcachedNode
from sfss.cluster.replication import Cluster
from sfss.cluster.topology import Quorum, Topology
from sfss.config import parse_address
from tests.servers import HOST, answers, free_ports

MIB = 2**20
SLOWNESS = 0.05  # seconds each way that a slowed connection takes longer
DISTURBANCES = ("killed", "restarted", "stopped", "refused", "black hole", "slow")


class Proxy:
    """Passes bytes on between a port and a node's."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self._target = target
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._pass, HOST, self.port)

    async def cut(self) -> None:
        """Refuse who comes, and hang up on who is there."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    def stall(self) -> None:
        """Take connections and bytes, and pass nothing on until ``heal``: then all of it."""
        self._flowing.clear()

    def slow(self) -> None:
        self._delay = SLOWNESS

    def heal(self) -> None:
        self._delay = 0.0
        self._flowing.set()

    async def close(self) -> None:
        await self.cut()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there_reader, there_writer = await asyncio.open_connection(HOST, self._target)
            self._writers.add(there_writer)
            ways = [
                asyncio.create_task(self._pump(reader, there_writer)),
                asyncio.create_task(self._pump(there_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.wait(ways)
                there_writer.transport.abort()
                self._writers.discard(there_writer)
        writer.transport.abort()
        self._writers.discard(writer)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self._flowing.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                sink.write(data)
                await sink.drain()


class Node:
    """A node's process and its proxy."""

    def __init__(self, data: Path, proxy: int, port: int) -> None:
        self.address = f"{HOST}:{proxy}"
        self.proxy = Proxy(proxy, port)
        self._data = data
        self._port = port
        self._process: Process | None = None

    async def start(self) -> None:
        with self._data.with_suffix(".log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "sfss", "node", "--port", str(self._port), "--data", str(self._data),
                "--durability", "os", stderr=log,
            )  # fmt: skip
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(answers, self._port):
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        await self._end(signal.SIGKILL)

    def forget(self) -> None:
        """Remove all that it has; to be called while it is dead."""
        shutil.rmtree(self._data)

    async def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            await self._process.wait()
            self._process = None

    async def disturb(self, how: str) -> None:
        assert self._process is not None
        if how == "killed":
            await self.kill()
        elif how == "restarted":
            await self._end(signal.SIGTERM)
        elif how == "stopped":
            self._process.send_signal(signal.SIGSTOP)
        elif how == "refused":
            await self.proxy.cut()
        elif how == "black hole":
            self.proxy.stall()
        else:
            self.proxy.slow()

    async def heal(self, how: str) -> None:
        if how in ("killed", "restarted"):
            await self.start()
        elif how == "stopped":
            assert self._process is not None
            self._process.send_signal(signal.SIGCONT)
        elif how == "refused":
            await self.proxy.open()
        else:
            self.proxy.heal()


class Farm:
    """The nodes, and clusters over them or over some of them, which wait ``timeout`` seconds for a node."""

    def __init__(self, directory: Path, count: int, quorum: Quorum, timeout: float) -> None:
        first = free_ports(2 * count)
        self.nodes = [Node(directory / f"node{n}", first + n, first + count + n) for n in range(count)]
        self.quorum = quorum
        self._timeout = timeout

    def topology(
        self,
        nodes: Sequence[int],
        joining: Sequence[int] = (),
        leaving: Sequence[int] = (),
        known: Cluster | None = None,
    ) -> Topology:
        """Nodes are given by their numbers; those that the cluster has already are taken from it."""
        there = {} if known is None else known.topology.nodes

        def some(numbers: Sequence[int]) -> list[Backend]:
            return [there.get(f"node{number}") or self._client(number) for number in numbers]

        return Topology(some(nodes), self.quorum, joining=some(joining), leaving=some(leaving))

    def _client(self, number: int) -> Backend:
        return MemcachedNode(
            parse_address(f"node{number}={self.nodes[number].address}"),
            largest_value=MIB, timeout=self._timeout, connect_timeout=0.6 * self._timeout, retry_after=0.1,
        )  # fmt: skip

    async def front(self, nodes: Sequence[int] = ()) -> Cluster:
        """A new cluster, connected, over these nodes or all."""
        cluster = Cluster(self.topology(nodes or range(len(self.nodes))))
        await cluster.start()
        return cluster

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Farm]:
        try:
            await asyncio.gather(*(node.start() for node in self.nodes))
            await asyncio.gather(*(node.proxy.open() for node in self.nodes))
            yield self
        finally:
            await asyncio.gather(*(node.proxy.close() for node in self.nodes), return_exceptions=True)
            await asyncio.gather(*(node.kill() for node in self.nodes))
