"""Clients of a cluster: they read, write and delete small files at a fixed rate, and hold every answer against what
they were told before. What happens to the cluster meanwhile is not known here.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType

import aiohttp

from sfss.paths import key_of
from tests.servers import HOST

SIZE = 4096  # bytes of a file
GETS, PUTS = 0.70, 0.25  # of all requests; the others are DELETEs
TOGETHER = 32  # requests in flight where no rate is asked for
PATIENCE = 30.0  # seconds for an answer


class _File:
    """What is known of one file. Its writes, deletions among them, are numbered, and go on one at a time."""

    __slots__ = ("deletions", "known", "last", "writing")

    def __init__(self) -> None:
        self.last = 0  # the last write that has begun
        self.known = 0  # the last one that was acknowledged or seen: who reads now must see that one, or a later one
        self.deletions = {0}
        self.writing = False

    @property
    def is_there(self) -> bool:
        """Whether it is certain that the file is there and stays."""
        return not self.writing and self.known == self.last and self.last not in self.deletions


def _false_404(file: _File) -> str:
    """What a 404 for a file is that is there: it may have been gone some time before."""
    return "old" if len(file.deletions) > 1 else "false 404"


class Files:
    """The files, numbered from 0, each with its paths and contents: random bytes, all different, known by its write."""

    def __init__(self, count: int) -> None:
        self.all = [_File() for _ in range(count)]
        self._bytes = os.urandom(2**20)

    def path(self, number: int) -> str:
        return f"bench/{number:07d}.bin"

    def keys(self) -> list[bytes]:
        """The keys of all."""
        return [key_of(self.path(number)) for number in range(len(self.all))]

    def content(self, number: int, write: int) -> bytes:
        head = b"%d %d " % (number, write)
        start = (number * 31 + write * 7919) % (len(self._bytes) - SIZE)
        return head + self._bytes[start : start + SIZE - len(head)]

    def write_of(self, number: int, content: bytes) -> int | None:
        """Which write made this; None if none did."""
        words = content[:40].split(b" ", 2)
        write = int(words[1]) if len(words) == 3 and words[1].isdigit() else -1
        return write if 0 <= write <= self.all[number].last and content == self.content(number, write) else None


class Phase:
    """What came of the requests of a phase."""

    def __init__(self) -> None:
        self.requests = 0
        self.failed: Counter[str] = Counter()  # by status, or what else was wrong
        self.old = 0  # answers that told of a state before the last one that was acknowledged or seen
        self.unsure = 0  # 504 where 404 would have been right
        self.times: list[float] = []  # seconds, from when a request was due, of those that didn't fail

    def note(self, outcome: str, seconds: float) -> None:
        """A request has ended, and took so long."""
        self.requests += 1
        if outcome == "unsure":
            self.unsure += 1
        elif outcome and outcome != "old":
            self.failed[outcome] += 1
        else:
            self.old += outcome == "old"
            self.times.append(seconds)

    def row(self) -> list[str]:
        """Of the columns ``HEAD``."""
        times = sorted(self.times)
        worst = f"{1000 * times[-1]:.0f}" if times else "-"
        return [f"{self.requests:,}", told(self.failed), f"{self.unsure}", f"{self.old}", _ms(times, 0.5),
                _ms(times, 0.99), worst]  # fmt: skip


HEAD = ("requests", "failed", "unsure", "old", "p50 ms", "p99 ms", "max ms")


def told(wrong: Mapping[str, int]) -> str:
    """What was wrong, and how often; 0 if nothing was."""
    return ", ".join(f"{count}: {what}" for what, count in wrong.items()) or "0"


def _ms(times: Sequence[float], part: float) -> str:
    return f"{1000 * times[int(part * len(times))]:.1f}" if times else "-"


class Clients:
    """What speaks to the fronts, in turn, over connections that are kept."""

    def __init__(self, files: Files, ports: Iterable[int]) -> None:
        self.files = files
        self._urls = itertools.cycle([f"http://{HOST}:{port}/file" for port in ports])
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=PATIENCE))

    async def __aenter__(self) -> Clients:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def fill(self) -> None:
        """Write every file once. Raises RuntimeError if one isn't taken."""
        outcomes = await self._each(self.put)
        if set(outcomes) != {""}:
            raise RuntimeError(f"not all files could be written: {dict(outcomes)}")

    async def check(self) -> Counter[str]:
        """Read every file: how many answers were what, "" for right."""
        return await self._each(self.get)

    async def get(self, number: int) -> str:
        """Read a file; "" if what comes is right, else what is wrong: "GET 504", "old", "unsure" ..."""
        file = self.files.all[number]
        known = file.known
        status, content = await self._request("GET", number)
        may_be_gone = any(write >= known for write in file.deletions)
        if status == "404":
            return "" if may_be_gone else _false_404(file)
        if status != "200":
            return "unsure" if status == "504" and may_be_gone else f"GET {status}"
        write = self.files.write_of(number, content)
        if write is None:
            return "wrong bytes"
        file.known = max(file.known, write)
        return "" if write >= known else "old"

    async def put(self, number: int) -> str:
        """Write a file anew; as ``get``."""
        file = self.files.all[number]
        file.last, file.writing = file.last + 1, True
        status, _ = await self._request("PUT", number, self.files.content(number, file.last))
        return self._written(file, "PUT", status, "200")

    async def delete(self, number: int) -> str:
        """Delete a file that is there; as ``get``."""
        file = self.files.all[number]
        file.last, file.writing = file.last + 1, True
        file.deletions.add(file.last)
        status, _ = await self._request("DELETE", number)
        if status != "404":
            return self._written(file, "DELETE", status, "204")
        file.writing = False
        file.deletions.discard(file.last)
        file.known = file.last
        return _false_404(file)

    def _written(self, file: _File, method: str, status: str, expected: str) -> str:
        file.writing = False
        if status != expected:
            return f"{method} {status}"
        file.known = max(file.known, file.last)
        return ""

    async def _request(self, method: str, number: int, body: bytes | None = None) -> tuple[str, bytes]:
        """The status and the body of the answer; the name of the error where there is no answer."""
        query = {"path": self.files.path(number)}
        try:
            async with self._session.request(method, next(self._urls), params=query, data=body) as answer:
                return str(answer.status), await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            return type(error).__name__, b""

    async def _each(self, do: Callable[[int], Awaitable[str]]) -> Counter[str]:
        outcomes: Counter[str] = Counter()
        numbers = iter(range(len(self.files.all)))

        async def work() -> None:
            for number in numbers:
                outcomes[await do(number)] += 1

        await asyncio.gather(*(work() for _ in range(TOGETHER)))
        return outcomes


class Load:
    """So many requests a second while its block runs, each when it is due, whatever becomes of those before."""

    def __init__(self, clients: Clients, rate: float) -> None:
        self.phases: dict[str, Phase] = {}
        self._clients = clients
        self._rate = rate
        self._chance = random.Random(2026)
        self._requests: set[asyncio.Task[None]] = set()
        self._phase = Phase()
        self._task: asyncio.Task[None] | None = None

    def begin(self, phase: str) -> None:
        """Requests that are due from now on belong to this phase."""
        self._phase = self.phases.setdefault(phase, Phase())

    async def __aenter__(self) -> Load:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._requests and error is None:
            await asyncio.wait(self._requests)
        for request in self._requests:
            request.cancel()

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        for number in itertools.count():
            due = began + number / self._rate
            if (wait := due - clock()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self._request(self._phase, due))
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)

    async def _request(self, phase: Phase, due: float) -> None:
        outcome = await self._choose()
        phase.note(outcome, asyncio.get_running_loop().time() - due)

    def _choose(self) -> Coroutine[None, None, str]:
        files, kind = self._clients.files.all, self._chance.random()
        number = self._chance.randrange(len(files))
        if kind < GETS:
            return self._clients.get(number)
        fits = (lambda file: not file.writing) if kind < GETS + PUTS else (lambda file: file.is_there)
        while not fits(files[number]):
            number = self._chance.randrange(len(files))
        return (self._clients.put if kind < GETS + PUTS else self._clients.delete)(number)
