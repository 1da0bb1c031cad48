"""Real nodes, each a process behind a proxy that can cut, stall and slow its connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from sfss.addresses import parse_address
from sfss.backends.base import Backend
from sfss.backends.memcached import MemcachedNode
from sfss.backends.postgresql import PostgresNode
from sfss.backends.redis import RedisNode
from sfss.cluster.replication import Cluster
from sfss.cluster.topology import Quorum, Topology
from tests.postgres import USER, Postgres, migrate, processes
from tests.redis import DURABLE, Redis, speaks_redis
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


class Kind(Protocol):
    """A kind of node: what its process is, and its client."""

    def command(self, data: Path, port: int) -> list[str]:
        """What starts one over a directory, which need not be there; it forgets nothing when it is killed."""

    def answers(self, port: int) -> bool:
        """Whether it can be used."""

    def processes(self, first: int) -> list[int]:
        """All that belong to one, by the first of them."""

    def forget(self, data: Path) -> None:
        """Remove all that one has, which is dead."""

    def client(self, name: str, port: int, **options: Any) -> Backend:
        """The client of one that is reached at a port, by its name on the ring."""


class _OfOneProcess:
    """What is the same of most."""

    def processes(self, first: int) -> list[int]:
        return [first]

    def forget(self, data: Path) -> None:
        shutil.rmtree(data)


class Ours(_OfOneProcess):
    """``sfss node``."""

    def command(self, data: Path, port: int) -> list[str]:
        return [sys.executable, "-m", "sfss", "node", "--port", str(port), "--data", str(data), "--durability", "os"]

    def answers(self, port: int) -> bool:
        return answers(port)

    def client(self, name: str, port: int, **options: Any) -> Backend:
        return MemcachedNode(parse_address(f"{name}={HOST}:{port}"), **options)


class OverRedis(_OfOneProcess):
    """Redis, with every write on its disk before it is acknowledged."""

    def command(self, data: Path, port: int) -> list[str]:
        data.mkdir(exist_ok=True)
        return Redis(data, *DURABLE, port=port).command

    def answers(self, port: int) -> bool:
        return speaks_redis(port)

    def client(self, name: str, port: int, **options: Any) -> Backend:
        return RedisNode(parse_address(f"{name}=redis://{HOST}:{port}"), **options)


class OverPostgres:
    """PostgreSQL: each a server with a database. They have directories of their own, until they are ``close``d."""

    def __init__(self) -> None:
        self._servers: dict[Path, Postgres] = {}
        self._pattern = Postgres()
        self._pattern.start()
        self._pattern.psql("postgres", "CREATE DATABASE files")
        migrate(f"postgresql://{USER}@{HOST}:{self._pattern.port}/files", "--partitions", "16")
        self._pattern.stop()

    def command(self, data: Path, port: int) -> list[str]:
        if data not in self._servers:
            self._servers[data] = Postgres(port, self._pattern)
        return self._servers[data].command

    def answers(self, port: int) -> bool:
        return any(
            server.psql("files", "SELECT 1") == "1" for server in list(self._servers.values()) if server.port == port
        )

    def processes(self, first: int) -> list[int]:
        return processes(first)

    def forget(self, data: Path) -> None:
        self._servers.pop(data).close()

    def client(self, name: str, port: int, **options: Any) -> Backend:
        return PostgresNode(parse_address(f"{name}=postgresql://{USER}@{HOST}:{port}/files?connections=4"), **options)

    def close(self) -> None:
        for server in (self._pattern, *self._servers.values()):
            server.close()


class Node:
    """A node's process and its proxy."""

    def __init__(self, kind: Kind, data: Path, proxy: int, port: int) -> None:
        self.address = f"{HOST}:{proxy}"
        self.proxy = Proxy(proxy, port)
        self._kind = kind
        self._data = data
        self._port = port
        self._process: Process | None = None

    async def start(self) -> None:
        command = await asyncio.to_thread(self._kind.command, self._data, self._port)
        async with asyncio.timeout(60):
            while True:
                if self._process is None or self._process.returncode is not None:  # what it was is still ending
                    with self._data.with_suffix(".log").open("ab") as log:
                        self._process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
                if await asyncio.to_thread(self._kind.answers, self._port):
                    return
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        await self._end(signal.SIGKILL)

    def forget(self) -> None:
        """Remove all that it has; to be called while it is dead."""
        self._kind.forget(self._data)

    async def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            if how == signal.SIGKILL:
                self._signal(how)
            else:
                self._process.send_signal(how)
            await self._process.wait()
            self._process = None

    def _signal(self, how: signal.Signals) -> None:
        """To all of its processes."""
        assert self._process is not None
        for pid in self._kind.processes(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)

    async def disturb(self, how: str) -> None:
        assert self._process is not None
        if how == "killed":
            await self.kill()
        elif how == "restarted":
            await self._end(signal.SIGINT)  # PostgreSQL waits for its clients if it is told to end by SIGTERM
        elif how == "stopped":
            self._signal(signal.SIGSTOP)
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
            self._signal(signal.SIGCONT)
        elif how == "refused":
            await self.proxy.open()
        else:
            self.proxy.heal()


class Farm:
    """The nodes, and clusters over them or over some of them, which wait ``timeout`` seconds for a node."""

    def __init__(self, directory: Path, count: int, quorum: Quorum, timeout: float, kind: Kind) -> None:
        first = free_ports(2 * count)
        self.nodes = [Node(kind, directory / f"node{n}", first + n, first + count + n) for n in range(count)]
        self.quorum = quorum
        self._kind = kind
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
        return self._kind.client(
            f"node{number}", self.nodes[number].proxy.port,
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
