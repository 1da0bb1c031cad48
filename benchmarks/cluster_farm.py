"""A cluster as its operator has it: ``sfss node`` processes, fronts that share a configuration file, sfss's commands.

What load they get, and what is done to them, is not known here.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from sfss.addresses import parse_address
from sfss.backends.memcached import MemcachedNode
from tests.servers import HOST, Service, answers, free_port, stop_in_its_tracks

POLL = 0.02  # seconds between two looks whether something has happened
PATIENCE = 60.0  # seconds for it
LONG = 3600.0  # seconds
SLICE = 10_000  # items that a node lists at a time, its most
TAKEN = "the configuration was read again: "  # what a front says when it has gone over to it


class Copies(NamedTuple):
    """How many records there are of a file's, and how many of them a write and a read need."""

    copies: int
    write_quorum: int
    read_quorum: int

    @property
    def see_all(self) -> bool:
        """Whether a read sees every write that was acknowledged before it."""
        return self.read_quorum + self.write_quorum > self.copies

    def __str__(self) -> str:
        return f"{self.copies}, {self.write_quorum}/{self.read_quorum}"


class Held(NamedTuple):
    """What a node holds: items, and their bytes."""

    items: int
    bytes: int


class Node:
    """One node, which keeps its port and directory whatever happens to its process."""

    def __init__(self, name: str, directory: Path, durability: str) -> None:
        self.name = name
        self.port = free_port()
        self._data = directory / name
        self._durability = durability
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def setting(self) -> str:
        """As it stands in ``storage.nodes``."""
        return f"{self.name}={HOST}:{self.port}"

    async def start(self) -> None:
        """Start, and wait until it serves. Raises RuntimeError if it doesn't."""
        command = [sys.executable, "-m", "sfss", "node", "--port", str(self.port), "--data", str(self._data),
                   "--durability", self._durability]  # fmt: skip
        with self._data.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log)
        try:
            async with asyncio.timeout(PATIENCE):
                while not await asyncio.to_thread(answers, self.port):
                    await asyncio.sleep(POLL)
        except TimeoutError:
            said = self._data.with_suffix(".log").read_text()[-500:]
            raise RuntimeError(f"node {self.name} doesn't serve; it said: {said}") from None

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGSTOP: its connections stay open, and nothing is answered."""
        assert self._process is not None
        stop_in_its_tracks(self._process)

    def go_on(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def empty(self) -> None:
        """Kill it, remove all that it had, start it again."""
        self.kill()
        await asyncio.to_thread(shutil.rmtree, self._data)
        await self.start()

    async def held(self) -> Held:
        """What it holds now; what sfss keeps for itself is left out."""
        backend = MemcachedNode(parse_address(self.setting), largest_value=2**20)
        await backend.start()
        try:
            items, size, after = 0, 0, b""
            while listed := await backend.scan(after, SLICE):
                after = listed[-1].key
                files = [item for item in listed if not item.key.startswith(b"#")]
                items, size = items + len(files), size + sum(item.size for item in files)
            return Held(items, size)
        finally:
            await backend.close()


class Farm:
    """Nodes n1, n2, ... of which the first ``count`` are in use at first, and the fronts; ends with its block."""

    def __init__(
        self,
        directory: Path,
        copies: Copies,
        *,
        durability: str,
        count: int,
        spare: int = 0,
        fronts: int = 1,
        background: bool = True,
    ) -> None:
        """``spare``: nodes that run, and that nobody knows yet. ``background``: whether fronts repair by themselves."""
        self.copies = copies
        self._config = directory / "sfss.toml"
        self._background = background
        directory.mkdir()
        self.nodes = [Node(f"n{number + 1}", directory, durability) for number in range(count + spare)]
        self.configure(nodes=self.nodes[:count])
        self._fronts = []
        for number in range(fronts):
            (home := directory / f"front-{number}").mkdir()
            self._fronts.append(Service(home, "--config", str(self._config)))

    async def __aenter__(self) -> Farm:
        try:
            await asyncio.gather(*(node.start() for node in self.nodes))
            await asyncio.gather(*(asyncio.to_thread(front.start) for front in self._fronts))
        except BaseException:
            self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        for front in self._fronts:
            if front.process is not None:
                front.process.kill()
                front.process.wait()
        for node in self.nodes:
            node.kill()

    @property
    def ports(self) -> list[int]:
        """The fronts'."""
        return [front.port for front in self._fronts]

    def configure(self, *, nodes: Iterable[Node], joining: Iterable[Node] = (), leaving: Iterable[Node] = ()) -> None:
        """Write the configuration that all fronts and commands share."""
        lists = {"nodes": nodes, "joining": joining, "leaving": leaving}
        storage = {name: [node.setting for node in some] for name, some in lists.items()} | self.copies._asdict()
        lines = ["[storage]", *(f"{name} = {json.dumps(value)}" for name, value in storage.items()),
                 "[repair]", f"background = {json.dumps(self._background)}"]  # fmt: skip
        self._config.write_text("\n".join(lines) + "\n")

    async def reload(self) -> None:
        """Have the fronts go over to the configuration, one after the other."""
        for front in self._fronts:
            assert front.process is not None
            before = front.log.read_text().count(TAKEN)
            front.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(PATIENCE):
                while front.log.read_text().count(TAKEN) == before:
                    await asyncio.sleep(POLL)

    async def run(self, *command: str) -> dict[str, Any]:
        """``sfss repair`` or ``sfss rebalance``: its figures. Raises RuntimeError if it tells none."""
        told = await self._run(*command, "--json")
        try:
            return dict(json.loads(told))
        except ValueError:
            raise RuntimeError(f"sfss {' '.join(command)} tells no figures: {told}") from None

    async def pause_walks(self) -> None:
        """Have the fronts look after those files only of which they know that a copy is lacking."""
        await self._run("repair", "--pause", f"{LONG:g}")

    async def _run(self, *command: str) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sfss", *command, "--config", str(self._config), stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            return (await process.communicate())[0].decode()
        except BaseException:
            process.kill()
            raise

    async def status(self) -> dict[str, Any]:
        """What the first front says of itself."""

        def ask() -> dict[str, Any]:
            with urllib.request.urlopen(f"{self._fronts[0].url}/status?format=full", timeout=PATIENCE) as answer:
                return dict(json.load(answer)["webserver"])

        return await asyncio.to_thread(ask)
