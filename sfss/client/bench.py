"""A bench of a service: files of its own written, read and deleted, with rates and latencies."""

from __future__ import annotations

import asyncio
import collections
import math
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from sfss.client import words
from sfss.client.api import Client
from sfss.client.failures import Failure, Refused
from sfss.client.progress import Progress

_NOISE_SHIFTS = 65521  # a prime, so that all shifts are used before one comes again
_SWEEP_SECONDS = 5.0  # how long an interrupted bench may take to remove what it wrote
_SWEEP_GRACE = 0.2  # of these, for writes cut off on their way to land, so that they are removed too

Action = Callable[[int], Awaitable[None]]


async def bench(client: Client, files: int, size: int, concurrency: int) -> None:
    """Write, read and delete so many files of ```size``` bytes, ```concurrency``` at a time, and print the figures.

    Raises Failure if any request failed or any byte differed.
    """
    await client.ping()  # one line now instead of as many errors as there are files
    words.say(f"{files:,} files of {size:,} bytes, {concurrency} requests at a time, to {client.service}")
    run = Bench(client, files, size, concurrency)
    try:
        failed = await run.all()
    except asyncio.CancelledError:  # Ctrl-C
        await run.sweep()
        raise
    if failed:
        raise Failure(f"{failed:,} requests of the bench failed")


class Bench:
    """One run over files of its own, ``bench/<random>/<number>``: three phases, timed one by one."""

    def __init__(self, client: Client, files: int, size: int, concurrency: int) -> None:
        self._client = client
        self._files, self._size, self._concurrency = files, size, concurrency
        self._prefix = f"bench/{secrets.token_hex(8)}"
        self._noise = os.urandom(self._size + _NOISE_SHIFTS)
        self._left: dict[int, bool] = {}  # files that may lie on the server, oldest first: is the write acknowledged?

    async def all(self) -> int:
        """Run the three phases and print a line of figures for each; the number of requests that failed."""
        words.say_row(Figures.HEADING)
        failed = await self._phase("writes", self._write, range(self._files))
        written = [index for index, acknowledged in self._left.items() if acknowledged]
        failed += await self._phase("reads", self._read, written)
        return failed + await self._phase("deletes", self._delete, list(self._left))

    async def sweep(self) -> None:
        """Remove what an interrupted run has written, as far as _SWEEP_SECONDS reach, and say how far they did."""
        found = len(self._left)
        try:
            async with asyncio.timeout(_SWEEP_SECONDS):
                await asyncio.sleep(_SWEEP_GRACE)
                await self._attempt_all(self._delete, list(self._left), Figures(0))
        except TimeoutError:
            pass  # what is left is said below
        finally:  # also after a second Ctrl-C
            rest = f"; the others lie under {self._prefix}/" if self._left else ""
            words.complain(f"removed {found - len(self._left):,} of {found:,} bench files{rest}")

    async def _phase(self, name: str, action: Action, indices: Sequence[int]) -> int:
        size = 0 if name == "deletes" else self._size
        with Progress(name, size * len(indices), visible=size > 0) as progress:
            figures = Figures(size, progress)
            started = time.perf_counter()
            await self._attempt_all(action, indices, figures)
            elapsed = time.perf_counter() - started
        words.say_row(figures.row(name, elapsed))
        for error, times in figures.errors.most_common(3):
            words.complain(f"{name}: {times:,} x {error}")
        return figures.errors.total()

    async def _attempt_all(self, action: Action, indices: Iterable[int], figures: Figures) -> None:
        """Run ``action`` for all ``indices``, ``concurrency`` at a time."""
        queue = iter(indices)  # shared: each index goes to the first worker that is free

        async def work() -> None:
            for index in queue:
                await figures.attempt(action(index))

        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(work())

    async def _write(self, index: int) -> None:
        self._left[index] = False  # noted before it is sent: a write without an answer may have arrived all the same
        await self._client.put(self._path(index), self._content(index), self._size)
        self._left[index] = True

    async def _read(self, index: int) -> None:
        async with self._client.get(self._path(index)) as content:
            if b"".join([piece async for piece in content.pieces]) != self._content(index):
                raise Failure("the bytes read are not the bytes written")

    async def _delete(self, index: int) -> None:
        try:
            await self._client.delete(self._path(index))
        except Refused as refusal:
            if refusal.status != 404 or self._left[index]:  # a write that failed may well have left nothing
                raise
        del self._left[index]

    def _path(self, index: int) -> str:
        return f"{self._prefix}/{index}"

    def _content(self, index: int) -> bytes:
        """``size`` bytes that no other file of this run has, in no part: the number, then noise, shifted each time."""
        shift = index * 61 % _NOISE_SHIFTS
        return (index.to_bytes(8, "little") + self._noise[shift : shift + self._size])[: self._size]


class Figures:
    """What one phase of the bench came to. Only requests that succeeded count for rates and latencies."""

    HEADING = (
        f"{'':<8}{'requests/s':>12}{'MB/s':>10}{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'p99.9 ms':>10}"
        f"{'max ms':>10}{'errors':>9}"
    )

    def __init__(self, size: int, progress: Progress | None = None) -> None:
        self.latencies: list[float] = []  # seconds, one for each success
        self.errors: collections.Counter[str] = collections.Counter()  # by what they said
        self._size = size  # bytes moved by each request; 0: none to speak of
        self._progress = progress

    async def attempt(self, request: Awaitable[None]) -> None:
        """Time one request; a Failure is counted, not raised."""
        started = time.perf_counter()
        try:
            await request
        except Failure as failure:
            self.errors[re.sub(r"bench/\w+/\d+", "bench/...", str(failure))] += 1  # the same, for whichever file
            return
        self.latencies.append(time.perf_counter() - started)
        if self._progress:
            self._progress.advance(self._size)

    def row(self, name: str, elapsed: float) -> str:
        """The line under HEADING. MB are 10**6 bytes of content, latencies milliseconds."""
        rate = len(self.latencies) / elapsed
        megabytes = f"{rate * self._size / 1e6:,.2f}" if self._size else "-"
        ordered = sorted(self.latencies)
        times = "".join(f"{percentile(ordered, share):>10}" for share in (0.5, 0.9, 0.99, 0.999, 1))
        return f"{name:<8}{rate:>12,.1f}{megabytes:>10}{times}{self.errors.total():>9,}"


def percentile(ordered: Sequence[float], share: float) -> str:
    """The time, in ms, within which `share` of the requests were done (nearest rank): one that really occurred."""
    if not ordered:
        return "-"
    return f"{ordered[math.ceil(share * len(ordered)) - 1] * 1e3:,.2f}"
