"""Clients of several fronts that write behind, and what dies meanwhile: fronts, workers, the short-term store, a node.

Or has no room: what was answered by 507 is never seen.

All are processes, killed at any moment and started again. What clients were told is judged by
``tests/cluster/faults/history.py``: whether one register for each path could have told it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
from yarl import URL

from tests.cluster.faults.history import Call
from tests.redis import DURABLE, Redis
from tests.servers import HOST, answers, free_port, wait_for

FRONTS, WORKERS, NODES, CLIENTS, PATHS = 2, 2, 3, 8, 12
MOST_CALLS, MOST_UNKNOWN = 150, 6  # on one path; the check takes long where more are unknown
KINDS, WEIGHTS = ("put", "create", "delete", "read"), (30, 10, 8, 45)
PAUSE = 0.01  # seconds between a client's calls
PATIENT = 60.0  # seconds for what must come
FULL_NODE = str(Path(__file__).with_name("full_node.py"))


def content_of(name: str) -> bytes:
    """What says of itself where it belongs; one in eight is too large for a value of the store."""
    chance = hashlib.md5(name.encode(), usedforsecurity=False).digest()
    size = 150_000 if chance[0] < 32 else 20 + chance[1] ** 2
    return (name.encode() + b"|").ljust(size, b".") + hashlib.sha256(name.encode()).digest()


def name_of(content: bytes) -> str:
    """The opposite. Fails if it is anything else."""
    name = content.partition(b"|")[0].decode()
    assert content == content_of(name), f"what was read is not what was written as {name}"
    return name


class Program:
    """``sfss`` with these arguments, killed and started again."""

    def __init__(
        self, directory: Path, kind: str, *arguments: str, port: int = 0, main: Sequence[str] = ("-m", "sfss")
    ) -> None:
        self.kind = kind
        self.port = port
        self._command = [sys.executable, *main, *arguments]
        self._directory = directory
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to; who needs it waits."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SFSS_")}
        with (self._directory / f"{self.kind}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self._directory, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def kill(self) -> None:
        """SIGKILL, in the midst of whatever it does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)

    def stop(self) -> int:
        """As an operator would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def close(self) -> None:
        """End it."""
        if self.process is not None and self.process.poll() is None:
            self.kill()


class Campaign:
    """The processes, the clients, and what these were told."""

    def __init__(self, directory: Path, seed: str) -> None:
        self.random = random.Random(seed)
        self.directory = directory
        self.histories: dict[str, list[Call]] = defaultdict(list)
        self.killed: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.last_refusal = b""
        self.store = Redis(directory / "redis", *DURABLE)
        ports = [free_port() for _ in range(NODES)]
        self._full = [directory / f"full-{port}" for port in ports]  # where such a file is, the node has no room
        self.nodes = [
            Program(
                directory, f"node-{port}", "node", "--port", str(port), "--data", str(directory / f"n{port}"),
                port=port, main=(FULL_NODE, str(full)),
            )
            for port, full in zip(ports, self._full, strict=True)
        ]  # fmt: skip
        self._file = directory / "sfss.toml"
        self._file.write_text(
            f"""
            [storage]
            nodes = {json.dumps([f"{HOST}:{port}" for port in ports])}
            copies = 3
            write_quorum = 2
            read_quorum = 2
            retry_after = 0.2
            [limits]
            record_size = "64KiB"
            linger = 0
            [write_behind]
            claim_after = 1.0
            timeout = 2.0
            longest_pause = 1.0
            [[policy]]
            prefix = ""
            write_behind = "{self.store.url}"
            """
        )
        self.fronts = [
            Program(directory, f"front-{port}", "--config", str(self._file), "--port", str(port), port=port)
            for port in (free_port() for _ in range(FRONTS))
        ]
        self.workers = [
            Program(directory, f"worker-{number}", "worker", "--config", str(self._file)) for number in range(WORKERS)
        ]
        self._clock = itertools.count(1)
        self._number = itertools.count(1)
        self._paths = [f"path-{number}" for number in range(PATHS)]
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Returns when all serve."""
        for program in (*self.nodes, *self.fronts, *self.workers):
            if program in self.nodes:
                program.start()
                await asyncio.to_thread(wait_for, functools.partial(answers, program.port), PATIENT, program.kind)
        await asyncio.to_thread(self.store.start)
        for program in (*self.fronts, *self.workers):
            program.start()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15))
        for front in self.fronts:
            await self._serves(front)

    async def close(self) -> None:
        """End all."""
        if self._session is not None:
            await self._session.close()
        for program in (*self.fronts, *self.workers, *self.nodes):
            program.close()
        self.store.close()

    # --- what clients do ---

    @contextlib.asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Clients call on and on; at the end each ends its call."""
        stop = asyncio.Event()
        clients = [asyncio.create_task(self._call_on(number, stop)) for number in range(CLIENTS)]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*clients)

    async def _call_on(self, client: int, stop: asyncio.Event) -> None:
        while not stop.is_set():
            at = self.random.randrange(PATHS)
            calls = self.histories[self._paths[at]]
            unknown = sum(call.outcome == "unknown" and call.writes for call in calls)
            if len(calls) >= MOST_CALLS or unknown >= MOST_UNKNOWN:
                self._paths[at] = f"path-{next(self._number)}-later"
                continue
            (kind,) = self.random.choices(KINDS, WEIGHTS)
            await self.call(kind, client, self._paths[at], self.random.choice(self.fronts))
            await asyncio.sleep(PAUSE)

    async def call(self, kind: str, client: int, path: str, front: Program) -> Call:
        """One call, noted with what it was told."""
        value = f"{path}#{next(self._number)}" if kind in ("put", "create") else None
        call = Call(kind, client, next(self._clock), value)
        self.histories[path].append(call)
        try:
            status, content = await self._ask(
                kind, URL(f"http://{HOST}:{front.port}/file").with_query(path=path), value
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.told[type(error).__name__] += 1
            return call
        self.told[f"{kind} {status}"] += 1
        outcome = {
            ("put", 200): "done", ("create", 200): "done", ("create", 412): "exists", ("delete", 204): "done",
            ("delete", 404): "missing", ("read", 200): "done", ("read", 404): "missing",
        }.get((kind, status))  # fmt: skip
        if status == 507:  # nothing of it was stored, and it never comes: nobody may see it
            self.histories[path].remove(call)
            return call
        if outcome is None:
            assert status in (503, 504), f"{kind} of {path}: {status}, {content[:1000]!r}"
            self.last_refusal = content
            await asyncio.sleep(10 * PAUSE)
            return call
        if kind == "read" and outcome == "done":
            call.value = name_of(content)
        call.outcome, call.end = outcome, next(self._clock)
        return call

    async def _ask(self, kind: str, url: URL, value: str | None) -> tuple[int, bytes]:
        assert self._session is not None
        headers = {"If-None-Match": "*"} if kind == "create" else {}
        method = {"put": "PUT", "create": "PUT", "delete": "DELETE", "read": "GET"}[kind]
        data = content_of(value) if value is not None else None
        async with self._session.request(method, url, data=data, headers=headers) as answer:
            return answer.status, await answer.read()

    # --- what is done to the processes ---

    async def disturb(self, seconds: float, kinds: tuple[str, ...]) -> None:
        """Kill one after the other, and start it again; or have it sleep, and go on with what it was at.

        "full": some of the nodes, or none, have no room from then on, until the next time or the end.
        """
        until = time.monotonic() + seconds
        try:
            await self._disturb(until, kinds)
        finally:
            self._have_no_room(0)

    async def _disturb(self, until: float, kinds: tuple[str, ...]) -> None:
        while time.monotonic() < until:
            await asyncio.sleep(self.random.uniform(0.05, 0.5))
            kind = self.random.choice(kinds)
            self.killed[kind] += 1
            if kind == "store":
                await asyncio.to_thread(self.store.kill)
                await asyncio.sleep(self.random.uniform(0, 0.3))
                await asyncio.to_thread(self.store.start)
                continue
            if kind == "full":
                self._have_no_room(self.random.randrange(len(self.nodes) + 1))
                continue
            if kind.startswith("sleeping"):
                await self._put_to_sleep(kind.removeprefix("sleeping "))
                continue
            programs = {"front": self.fronts, "worker": self.workers, "node": self.nodes}[kind]
            program = self.random.choice(programs)
            await asyncio.to_thread(program.kill)
            await asyncio.sleep(self.random.uniform(0, 0.3))
            program.start()
            if kind == "front":
                await self._serves(program)
            if kind == "node":
                await asyncio.to_thread(wait_for, functools.partial(answers, program.port), PATIENT, program.kind)

    def _have_no_room(self, count: int) -> None:
        """So many of the nodes; the others have."""
        full = self.random.sample(self._full, count)
        for path in self._full:
            if path in full:
                path.touch()
            else:
                path.unlink(missing_ok=True)

    async def _put_to_sleep(self, kind: str) -> None:
        """For longer than a worker may be silent until it is taken for dead, or the store until it is given up."""
        processes = {
            "worker": [worker.process for worker in self.workers],
            "front": [front.process for front in self.fronts],
            "store": [self.store.process],
        }
        process = self.random.choice(processes[kind])
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self.random.uniform(0.5, 3.0))
        process.send_signal(signal.SIGCONT)

    async def _serves(self, front: Program) -> None:
        assert self._session is not None
        async with asyncio.timeout(PATIENT):
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with self._session.get(f"http://{HOST}:{front.port}/readyz") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.05)

    # --- what is left ---

    async def read_all(self) -> None:
        """Every path through every front, until it is told."""
        for path in list(self.histories):
            for front in self.fronts:
                until = time.monotonic() + PATIENT
                while (await self.call("read", 99, path, front)).outcome == "unknown":
                    assert time.monotonic() < until, f"{front.kind} doesn't tell {path}: {self.last_refusal!r}"
                    await asyncio.sleep(0.1)

    async def lists_what_is_read(self) -> None:
        """Of every path a list tells what the reads before it find, but for one that a late write has changed since.

        Those are writes whose outcome nobody knows: the reads behind the list find another thing then.
        """
        await self.read_all()
        before = self.present()
        listed = await self.listed()
        await self.read_all()
        changed = {*before} ^ {*self.present()}
        assert [path for path in listed if path not in changed] == [path for path in before if path not in changed]

    async def moved(self) -> None:
        """Come back when nothing waits any more."""
        assert self._session is not None
        async with asyncio.timeout(PATIENT):
            while True:
                url = f"http://{HOST}:{self.fronts[0].port}/status?format=full"
                async with self._session.get(url) as answer:
                    (state,) = (await answer.json())["webserver"]["write_behind"].values()
                assert state.get("dead", "0") == "0", "there are dead letters"
                if state.get("files") == "0" and state.get("tasks") == "0" and state.get("bytes") == "0":
                    return
                await asyncio.sleep(0.1)

    async def listed(self) -> list[str]:
        """Every path in a list, in its order."""
        assert self._session is not None
        async with self._session.get(f"http://{HOST}:{self.fronts[0].port}/files?limit=1000") as answer:
            assert answer.status == 200, await answer.text()
            return [file["path"] for file in (await answer.json())["files"]]

    def present(self) -> list[str]:
        """The paths at which the last read found a file."""
        return sorted(path for path, calls in self.histories.items() if calls[-1].outcome == "done")


@contextlib.asynccontextmanager
async def campaign(directory: Path, seed: str) -> AsyncIterator[Campaign]:
    """One whose processes run."""
    made = Campaign(directory, seed)
    try:
        await made.start()
        yield made
    finally:
        await made.close()
