"""The requests of a bench, over files of its own: phases, each of one kind of request; and the removal of the files.

``bench_run`` is ``sfss bench``, whose processes each have a Bench; ``bench`` is ``simple_client.py``'s, three phases.
Every byte that is read is compared. While files are overwritten it is known which contents each may have: the one
that was acknowledged last before the read began, or a later one.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import NamedTuple

from sfss.client import words
from sfss.client.api import Client
from sfss.client.failures import Broken, Different, Failure, Refused
from sfss.client.figures import HEADING, ClientTime, Figures, Measured
from sfss.client.progress import Progress

_NOISE_SHIFTS = 65521  # a prime, so that all shifts are used before one comes again
_SWEEP_SECONDS = 5.0  # how long an interrupted bench may take to remove what it wrote
_SWEEP_GRACE = 0.2  # of these, for writes cut off on their way to land, so that they are removed too
_PAUSE = 0.1  # seconds after a request without an answer, lest thousands fail where one says it all
_GIVE_UP = 5.0  # seconds without any answer, after which a service has gone
_NOT_STORED = {
    400,
    401,
    403,
    404,
    405,
    411,
    412,
    413,
    415,
    429,
}  # what a service, or a proxy, says before it takes a file

Action = Callable[[int], Awaitable[None]]
Choice = tuple[str, Action, int]  # a part's name, its request, and for which file


class Plan(NamedTuple):
    """What is to be done by one of ``processes``, which has the ``number``. It has no fewer files than connections."""

    files: int
    size: int  # bytes of each
    connections: int
    seconds: float = 10.0  # of each phase that has a length
    reads: int = 90  # percent of the mixed phase
    rate: float = 0.0  # requests/s of all processes together; 0: as many as there can be
    number: int = 0
    processes: int = 1


class _File:
    """What a file that may lie on the server can hold. Contents are numbered, by file, from 0."""

    def __init__(self) -> None:
        self.sent = -1  # the last content that was sent
        self.acknowledged = -1  # the last that was acknowledged
        self.unsure: set[int] = set()  # contents whose write failed, which may have landed, or may land yet
        self.etag = ""  # of the acknowledged one

    def possible(self, since: int) -> set[int]:
        """What a read may find that began when ``since`` was acknowledged."""
        return self.unsure | set(range(max(since, 0), self.sent + 1))


class Bench:
    """A run over files of its own, ``folder/<number>``."""

    def __init__(self, client: Client, folder: str, plan: Plan) -> None:
        self.folder = folder
        self._client = client
        self._plan = plan
        self._noise = os.urandom(plan.size + _NOISE_SHIFTS)
        self._left: dict[int, _File] = {}  # files that may lie on the server, oldest first
        self._writing: set[int] = (
            set()
        )  # no two writes of one file at a time: which is the later is the service's to say
        self._rotation = itertools.cycle(range(plan.files))
        self._readable: list[int] = []
        self._heard = 0.0  # when the service has answered the last time
        self._gone: Failure | None = None

    @property
    def left(self) -> int:
        """How many files may lie on the server."""
        return len(self._left)

    async def phase(self, name: str, progress: Progress | None = None) -> Measured:
        """Run one of PHASES. Raises Failure if the service has gone, or there is no file that could be read."""
        self._heard, self._gone = time.perf_counter(), None
        parts: dict[str, Figures] = {}
        self._readable = [index for index, file in self._left.items() if file.acknowledged >= 0]
        if name not in ("put-new", "delete") and not self._readable:
            raise Failure("no file of the bench could be written: there is nothing to read")
        begun, client = time.perf_counter(), ClientTime.now()
        unsent = 0
        if name in EACH:
            size = 0 if name == "delete" else self._plan.size
            await self._attempt_each(*self._each(name), parts.setdefault("", Figures(size)), progress)
        else:
            unsent = await self._attempt_for(self._choices(name, parts), parts, begun)
        if self._gone:
            raise self._gone
        elapsed = time.perf_counter() - begun
        return Measured(elapsed, ClientTime.now().share_since(client, elapsed), unsent, parts)

    async def sweep(self) -> tuple[int, int]:
        """Remove what has been written, as far as _SWEEP_SECONDS reach; how many files that was, of how many."""
        found = self.left
        if not found:
            return 0, 0
        try:
            async with asyncio.timeout(_SWEEP_SECONDS):
                await asyncio.sleep(_SWEEP_GRACE)
                while self._left:
                    await self._attempt_each(self._delete, list(self._left), Figures(0), None, forever=True)
        except TimeoutError:
            pass  # the numbers tell
        return found - self.left, found

    async def forget(self) -> None:
        """Leave the files where they are."""
        self._left.clear()

    # --- how ---

    async def _attempt_each(
        self, action: Action, indices: Iterable[int], figures: Figures, progress: Progress | None, forever: bool = False
    ) -> None:
        """Run ``action`` for all ``indices``, ``connections`` at a time; ``forever``: though the service has gone."""
        queue = iter(indices)  # shared: each index goes to the first worker that is free

        async def work() -> None:
            for index in queue:
                failure = await self._attempt(figures, action(index))
                if progress and not failure:
                    progress.advance(figures.size)
                if self._gone and not forever:
                    return

        await self._work(work)

    async def _attempt_for(self, choose: Callable[[], Choice], parts: dict[str, Figures], begun: float) -> int:
        """Run what ``choose`` says for so long, as often as can be or at a constant rate; how many weren't sent."""
        end, rate, started = begun + self._plan.seconds, self._plan.rate, 0
        numbers = itertools.count(self._plan.number, self._plan.processes)
        now = time.perf_counter

        async def work() -> None:
            nonlocal started
            while not self._gone:
                due = begun + next(numbers) / rate if rate else now()
                if due >= end or now() >= end:
                    return
                if due > now():
                    await asyncio.sleep(due - now())
                started += 1
                kind, action, index = choose()
                await self._attempt(parts[kind], action(index), due if rate else None)

        await self._work(work)
        ticks = range(self._plan.number, math.ceil(rate * self._plan.seconds), self._plan.processes)
        return max(0, len(ticks) - started)

    async def _work(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._plan.connections):
                group.create_task(work())

    async def _attempt(self, figures: Figures, request: Awaitable[None], due: float | None = None) -> Failure | None:
        """One request; after one without an answer, a pause; after many, the service has gone."""
        failure = await figures.attempt(request, f"{self.folder}/", due)
        if not isinstance(failure, Broken):
            self._heard = time.perf_counter()
            return failure
        if time.perf_counter() - self._heard > _GIVE_UP:
            self._gone = failure
        await asyncio.sleep(_PAUSE)
        return failure

    # --- what ---

    def _each(self, name: str) -> tuple[Action, Sequence[int]]:
        if name == "put-new":
            return self._write, range(self._plan.files)
        return (self._read, self._readable) if name == "get-each" else (self._delete, list(self._left))

    def _choices(self, name: str, parts: dict[str, Figures]) -> Callable[[], Choice]:
        """What gives one request after the other; makes the parts that it names."""
        size, readable = self._plan.size, self._readable
        if name == "mixed":
            parts |= {"GET": Figures(size), "PUT": Figures(size)}
            return lambda: (
                ("GET", self._read, random.choice(readable))
                if random.random() * 100 < self._plan.reads
                else ("PUT", self._overwrite, 0)
            )
        actions = {
            "get": self._read,
            "get-missing": self._read_missing,
            "get-304": self._read_unchanged,
            "put": self._overwrite,
        }
        parts[""] = Figures(size if name in ("get", "put") else 0)
        action = actions[name]
        if name == "get-304":  # what a failed write may have changed has an ETag that nobody knows
            readable = [index for index in readable if not self._left[index].unsure]
            if not readable:
                raise Failure("no file of the bench has an ETag that is known for certain")
        return lambda: ("", action, random.choice(readable))

    async def _write(self, index: int) -> None:
        file = self._left.setdefault(index, _File())  # before it is sent: a write without an answer may have arrived
        file.sent += 1
        generation = file.sent
        self._writing.add(index)
        try:
            etag = await self._client.put(self._path(index), self._content(index, generation), self._plan.size)
        except BaseException as error:
            if not (isinstance(error, Refused) and error.status in _NOT_STORED):
                file.unsure.add(generation)
            elif file.acknowledged < 0 and not file.unsure:
                del self._left[index]  # nothing of it can be there
            raise
        finally:
            self._writing.discard(index)
        file.acknowledged, file.etag = generation, etag

    async def _overwrite(self, _: int) -> None:
        """The next file in turn that is not being written."""
        await self._write(next(index for index in self._rotation if index not in self._writing))

    async def _read(self, index: int) -> None:
        since = self._left[index].acknowledged
        async with self._client.get(self._path(index)) as content:
            body = b"".join([piece async for piece in content.pieces])
        if not any(body == self._content(index, number) for number in self._left[index].possible(since)):
            raise Different("the bytes read are not the bytes written")

    async def _read_missing(self, _: int) -> None:
        path = f"{self.folder}/missing-{secrets.token_hex(8)}"
        await self._expect(404, path, {}, "a file that was never written is there")

    async def _read_unchanged(self, index: int) -> None:
        headers = {"If-None-Match": self._left[index].etag}
        await self._expect(304, self._path(index), headers, "a file that hasn't changed was sent again")

    async def _expect(self, status: int, path: str, headers: dict[str, str], otherwise: str) -> None:
        try:
            async with self._client.request("GET", self._client.url("/file", path=path), headers=headers):
                pass
        except Refused as refusal:
            if refusal.status == status:
                return
            raise
        raise Different(otherwise)

    async def _delete(self, index: int) -> None:
        try:
            await self._client.delete(self._path(index))
        except Refused as refusal:
            if refusal.status != 404 or self._left[index].acknowledged >= 0:  # else it may well have left nothing
                raise
        del self._left[index]

    def _path(self, index: int) -> str:
        return f"{self.folder}/{index}"

    def _content(self, index: int, generation: int) -> bytes:
        """``size`` bytes that no other file and no other content of it has, in no part: numbers, then shifted noise."""
        shift = (index * 61 + generation * 7919) % _NOISE_SHIFTS
        start = index.to_bytes(8, "little") + generation.to_bytes(8, "little")
        return (start + self._noise[shift : shift + self._plan.size])[: self._plan.size]


# Names of the phases, which are promised, and what the table calls them. Those of EACH end when all files are done.
PHASES = {
    "put-new": "PUT, new",
    "get-each": "GET, each once",
    "get": "GET, hot",
    "get-missing": "GET, not there",
    "get-304": "GET, 304",
    "put": "PUT, over",
    "mixed": "mixed",
    "delete": "DELETE",
}
EACH = ("put-new", "get-each", "delete")


async def bench(client: Client, files: int, size: int, concurrency: int) -> None:
    """Write, read and delete so many files of ``size`` bytes, ``concurrency`` at a time, and print the figures.

    Raises Failure if any request failed or any byte differed.
    """
    await client.ping()  # one line now instead of as many errors as there are files
    words.say(f"{files:,} files of {size:,} bytes, {concurrency} requests at a time, to {client.service}")
    run = Bench(client, f"bench/{secrets.token_hex(8)}", Plan(files, size, concurrency))
    failed = 0
    try:
        words.say_row(HEADING)
        for name, title in (("put-new", "writes"), ("get-each", "reads"), ("delete", "deletes")):
            with Progress(title, size * files, visible=name != "delete") as progress:
                measured = await run.phase(name, progress)
            words.say_row(measured.total.row(title, measured.elapsed))
            measured.total.complain(title)
            failed += measured.total.failed
    except BaseException:  # Ctrl-C, or the service has gone, or nobody reads what is printed
        found = run.left
        try:
            await run.sweep()
        finally:  # also after a second Ctrl-C
            words.complain(swept(found - run.left, found, run.folder))
        raise
    if failed:
        raise Failure(f"{failed:,} requests of the bench failed")


def swept(removed: int, found: int, folder: str) -> str:
    """How far a removal went."""
    rest = f"; the others lie under {folder}/" if removed < found else ""
    return f"removed {removed:,} of {found:,} bench files{rest}"
