"""Many files: what of a folder is to go where, jobs that see to it, and what became of them.

A folder goes up as the files in it, by their names; hidden ones too. What it has of links and of what is no file
(pipes, sockets ...) is named and left out, and so is what a download has not ended yet; empty folders are no files.
What comes down is put below one folder, and never elsewhere, whatever a service calls its files.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sfss.client import words
from sfss.client.api import PAGE, Client, sha256_of
from sfss.client.failures import TRY_AGAIN, Broken, Failure, common_status
from sfss.client.local import open_local
from sfss.client.progress import Progress
from sfss.client.resume import PART
from sfss.client.retry import RETRIES, Patience

_AHEAD = 10  # pages of jobs that are known beforehand, for the sake of the time left
_UNKNOWN = -1  # size
_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # there is no room for any file


class Job(NamedTuple):
    """A file that is to go up or down, or to be removed; ``local`` is its name here, if it goes up."""

    path: str
    local: Path = Path()
    size: int = _UNKNOWN  # bytes
    etag: str = ""  # of the service's file, where it is known


class Tally:
    """What became of the jobs."""

    def __init__(self) -> None:
        self.files = self.bytes = self.same = self.left_out = 0
        self.statuses: list[int] = []  # of the failures
        self._started = time.monotonic()

    @property
    def seen(self) -> int:
        """How many there were."""
        return self.files + self.same + len(self.statuses)

    @property
    def exit_status(self) -> int:
        """That of all of them."""
        return common_status(self.statuses)

    def failed(self, name: str, failure: Exception) -> None:
        """Count a failure, and say what it was."""
        self.statuses.append(failure.exit_status if isinstance(failure, Failure) else 1)
        text = str(failure) if isinstance(failure, Failure) else getattr(failure, "strerror", None) or str(failure)
        words.complain(f"sfss: {name}: {text}")

    def leave_out(self, name: str, why: str) -> None:
        """Count what isn't taken, and say why."""
        self.left_out += 1
        words.complain(f"sfss: {name}: {why}")

    def summary(self, done: str) -> str:
        """``sent 3 files, 1,234 bytes in 0.1 s, 1.2 MB/s; ...``; ``done`` is the first word."""
        seconds = time.monotonic() - self._started
        text = f"{done} {self.files:,} {'file' if self.files == 1 else 'files'}"
        if self.bytes:
            text += f", {self.bytes:,} bytes in {seconds:.1f} s, {words.megabytes(self.bytes / max(seconds, 1e-6))}/s"
        others = {"there already": self.same, "left out": self.left_out, "failed": len(self.statuses)}
        return "; ".join([text, *(f"{number:,} {what}" for what, number in others.items() if number)])


class Jobs:
    """Sees to jobs, some at a time. ``retries``: of each file; one after that some have failed for want of a node."""

    def __init__(self, tally: Tally, progress: Progress, *, at_a_time: int, retries: int = RETRIES) -> None:
        self.tally = tally
        self.progress = progress
        self._at_a_time = at_a_time
        self._retries = retries
        self._stopped = False

    @property
    def retries(self) -> int:
        """Of the next file."""
        return min(self._retries, 1) if TRY_AGAIN in self.tally.statuses else self._retries

    async def run(self, pages: AsyncIterator[list[Job]], work: Callable[[Job], Awaitable[None]]) -> None:
        """Do ``work`` for each; a failure is counted, and the rest goes on, unless it is that the service is away."""
        ready: asyncio.Queue[list[Job] | None] = asyncio.Queue(_AHEAD)
        turn = asyncio.Lock()
        jobs = _handed_out(ready)
        self.progress.more = True

        async def work_on() -> None:
            while not self._stopped:
                async with turn:
                    job = await anext(jobs, None)
                if job is None or self._stopped:
                    return
                await self._attempt(job, work)

        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._look_ahead(pages, ready))
            workers = [group.create_task(work_on()) for _ in range(self._at_a_time)]
            await asyncio.wait(workers)
            looking.cancel()

    async def _look_ahead(self, pages: AsyncIterator[list[Job]], ready: asyncio.Queue[list[Job] | None]) -> None:
        try:
            async for page in pages:
                self.progress.expect(sum(max(job.size, 0) for job in page), len(page))
                await ready.put(page)
        except Failure as failure:
            self.tally.failed("there may be more files", failure)
        self.progress.more = False
        await ready.put(None)

    async def _attempt(self, job: Job, work: Callable[[Job], Awaitable[None]]) -> None:
        try:
            await work(job)
        except (Failure, OSError) as failure:
            if self._stopped:
                return
            self.tally.failed(str(job.local) if job.local.name else job.path, failure)
            if isinstance(failure, Broken) or getattr(failure, "errno", None) in _HOPELESS:  # so would the others be
                self._stopped = True
                words.complain("sfss: stopped; the same command goes on from here")
        self.progress.file_done()


async def _handed_out(ready: asyncio.Queue[list[Job] | None]) -> AsyncIterator[Job]:
    while (page := await ready.get()) is not None:
        for job in page:
            yield job


# --- up ---


def job_of(name: str, path: str) -> Job:
    """To send a local file, whose size is known as far as there is such a file."""
    return Job(path, Path(name), _size(Path(name)))


async def files_to_send(folders: Iterable[Job], tally: Tally, *, follow_links: bool) -> AsyncIterator[list[Job]]:
    """The files in local folders, each of which is to go where its job says; or a file itself."""
    files = itertools.chain.from_iterable(_files(job.local, job.path, tally, follow_links, ()) for job in folders)
    while page := await asyncio.to_thread(lambda: list(itertools.islice(files, PAGE))):
        yield page


def _files(
    place: Path, path: str, tally: Tally, follow_links: bool, within: tuple[tuple[int, int], ...]
) -> Iterator[Job]:
    """``within``: device and number of the folders that this one is in."""
    try:
        state = place.stat()
        number = (state.st_dev, state.st_ino)
        names = sorted(os.listdir(place)) if stat.S_ISDIR(state.st_mode) and number not in within else []  # noqa: PTH208
    except OSError as error:
        tally.failed(str(place), error)
        return
    if stat.S_ISREG(state.st_mode):
        yield Job(path, place, state.st_size)
    elif not stat.S_ISDIR(state.st_mode):
        tally.leave_out(str(place), "no file, left out")
    elif number in within:
        tally.leave_out(str(place), "a link to a folder that it is in, left out")
    for name in names:
        inner = place / name
        if name.endswith(PART):
            tally.leave_out(str(inner), "a download that has not ended, left out")
        elif inner.is_symlink() and not follow_links:
            tally.leave_out(str(inner), "a link, left out (--follow-links takes what it names)")
        else:
            yield from _files(inner, f"{path}/{name}" if path else name, tally, follow_links, (*within, number))


async def is_stored(client: Client, job: Job, patience: Patience) -> bool:
    """Whether the service has this very file already."""
    while True:
        try:
            stored = await client.stat(job.path)
            break
        except Failure as failure:
            if not failure.passing:  # most of all: there is none
                return False
            await patience.wait(failure)
    return stored.size == job.size and await _has(job.local, stored.etag)


# --- down ---


async def files_stored(client: Client, prefix: str, retries: int = RETRIES) -> AsyncIterator[list[Job]]:
    """The files of a service whose paths begin so. Raises Failure."""
    after: str | None = ""
    patience = Patience(retries, prefix)
    while after is not None:
        try:
            files, after = await client.list(prefix, after)
        except Failure as failure:
            await patience.wait(failure)
            continue
        patience.moved()
        yield [Job(file.path, Path(), file.size, file.etag) for file in files]


def make_way(root: Path, prefix: str, path: str) -> Path:
    """Where the file at ``path`` goes below ``root``; the folders on the way are made.

    Raises Failure if its name can't be that of a file there, or would lead out of ``root``; and OSError.
    """
    root = root.resolve()
    steps = path.removeprefix(prefix).split("/")
    if not path.startswith(prefix) or not all(map(_is_plain, steps)):
        raise Failure("its path can't be the name of a file here: fetch it by itself, and give it another name")
    place = root
    for step in steps[:-1]:
        place = place / step
        if place.is_symlink() and not place.resolve().is_relative_to(root):
            raise Failure(f"{place} is a link that leads out of {root}: nothing is put there")
        if place.exists() and not place.is_dir():
            raise Failure(f"{place} is a file: no folder can be there, too")
        place.mkdir(exist_ok=True)
    target = place / steps[-1]
    if not Path(os.path.realpath(target)).is_relative_to(root):
        raise Failure(f"{target} is a link that leads out of {root}: nothing is put there")
    return target


async def is_fetched(job: Job, target: Path) -> bool:
    """Whether this very file is there already."""
    return _size(target) == job.size and await _has(target, job.etag)


def _size(file: Path) -> int:
    """Of a regular file; _UNKNOWN for what is none."""
    try:
        state = file.stat()
    except OSError:
        return _UNKNOWN
    return state.st_size if stat.S_ISREG(state.st_mode) else _UNKNOWN


async def _has(file: Path, etag: str) -> bool:
    with open_local(file) as local:
        return await local.sha256() == sha256_of(etag)


def _is_plain(step: str) -> bool:
    """Whether it can be the name of a file or folder, and of none of ours."""
    return step not in ("", ".", "..") and "\0" not in step and "\\" not in step and not step.endswith(PART)
