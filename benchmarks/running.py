"""The suite's runs: starts the contenders of a section, fills them, and measures its tables in alternating rounds.

A contender that can't be started, gives wrong bytes or makes one error has no figure, and the reason is kept.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import processes, report
from benchmarks.contenders import Contender, Running
from benchmarks.httpload import Files, Httpload, Wrong
from benchmarks.plan import COLD, CONTENDERS, GET, HALF, NEW, NOT_MODIFIED, OVER, Row, Section, Table
from benchmarks.results import Outcome, Outcomes, Round

PAUSE = 0.3  # seconds before each run, or some more of them until the servers have done what they had put off
PATIENCE = 4.0  # seconds that this may take
QUIET = 0.1  # cores that servers with nothing to do may use
MAX_CHECKED = 500  # files that are read again after a run, spread over all
FAILURES = (Wrong, OSError, AssertionError, subprocess.SubprocessError)  # of one contender, or of who starts it
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


class Options(NamedTuple):
    """How long and how often."""

    seconds: float  # of each run
    rounds: int | None  # None: as many as the section has
    warming: bool = True  # a round before the first, which doesn't count
    pause: float = PAUSE
    most_files: int = 1_000_000  # of those that are there before


class Bench:
    """What the runs need, and what has come of them so far."""

    def __init__(self, directory: Path, options: Options) -> None:
        self.directory = directory
        self.options = options
        self.load = Httpload(directory)
        self.outcomes: Outcomes = {}
        self.others: list[float] = []  # cores that others' work kept busy before each run

    def measure(self, section: Section) -> None:
        """Measure all tables of a section; what has come of it stands in ``outcomes`` when it is interrupted, too."""
        with contextlib.ExitStack() as stack:
            servers = _Servers(self, section, stack)
            for table in section.tables:
                for row in table.rows:
                    self.outcomes[table.name, row] = Outcome()
                rounds = self.options.rounds or section.rounds
                for number in range(0 if self.options.warming else 1, rounds + 1):
                    # There and back, so that a drift of the machine weighs on all alike.
                    for row in table.rows[:: -1 if number % 2 else 1]:
                        when = f"round {number} of {rounds}" if number else "warming up"
                        say(f"{section.name}, {table.name}, {when}: {_words(row)}")
                        self._run(servers, table, row, number)

    def files(self, row: Row) -> Files:
        """What a row asks for; of new files, as many at most."""
        files = row.files
        return files._replace(number=min(files.number, self.options.most_files)) if row.kind.filled else files

    def _run(self, servers: _Servers, table: Table, row: Row, number: int) -> None:
        outcome = self.outcomes[table.name, row]
        if outcome.trouble is not None:
            return
        try:
            with servers.running(row) as running:
                measured = self._measure(servers, running, row, number)
        except FAILURES as error:
            outcome.trouble = _reason(error)
            say(f"  no figure: {outcome.trouble}")
            return
        if number:
            outcome.rounds[number] = measured

    def _measure(self, servers: _Servers, running: Running, row: Row, number: int) -> Round:
        """One run, and a look at what it has left. Raises Wrong."""
        options: list[object] = ["--connections", row.connections, *row.kind.options]
        files = self.files(row)
        if row.kind == NOT_MODIFIED:
            options += ["--etags", servers.etags(row)]
        elif row.kind == HALF:
            options += ["--rate", self._top_rate(row) / 2]
        elif row.kind == NEW:
            files = servers.new_folder(files)
        edition = ("--edition", number + 1) if row.kind == OVER else ()  # 0 is there already
        if row.kind in (NEW, COLD):
            options += ["--count", files.number]
        self._wait_until_quiet(servers)
        if row.kind.warmed:
            self.load.run(running.target, files, "--count", files.number)
        before = processes.cpu(running.http), processes.cpu(running.store)
        done = self.load.run(running.target, files, *options, *edition, seconds=self.options.seconds)
        after = processes.cpu(running.http), processes.cpu(running.store)
        if done.trouble:
            raise Wrong(done.trouble)
        memory = processes.resident(running.http), processes.resident(running.store)
        if row.kind.writes:
            # New ones: any of those that were written. Others: in the order of the run, so that it has written them.
            written = files._replace(number=min(done.requests, files.number)) if row.kind == NEW else files
            self._look_again(running, written, done.requests, edition)
        thousands = done.requests / 1000
        http, store = (end - start for start, end in zip(before, after, strict=True))
        return Round(done.rate, done.p50 / 1000, done.p99 / 1000, done.p999 / 1000, http / thousands, store / thousands,
                     done.cpu / thousands, *memory)  # fmt: skip

    def _look_again(self, running: Running, files: Files, count: int, edition: tuple[object, ...]) -> None:
        """See that files are right after a run that wrote them. Raises Wrong."""
        seen = self.load.run(running.target, files, "--count", min(count, files.number, MAX_CHECKED), *edition)
        if seen.trouble:
            raise Wrong(f"after it was written: {seen.trouble}")

    def _top_rate(self, row: Row) -> float:
        """What GET came to in the same section. Raises Wrong."""
        wanted = row._replace(kind=GET)
        for (_, other), outcome in self.outcomes.items():
            if other == wanted and outcome.counts:
                return outcome.median("rate")
        raise Wrong("its top rate isn't known")

    def _wait_until_quiet(self, servers: _Servers) -> None:
        """Wait until the servers have done what they had put off, and the disk has what was written."""
        os.sync()
        deadline = time.monotonic() + PATIENCE
        while True:
            before = processes.cpu(servers.pids)
            busy = report.pause(self.options.pause)
            own = (processes.cpu(servers.pids) - before) / self.options.pause
            if own < QUIET or time.monotonic() > deadline:
                self.others.append(max(0.0, busy - own))
                return


class _Servers:
    """The contenders of a section, started when they are first asked for, with the files that its rows need."""

    def __init__(self, bench: Bench, section: Section, stack: contextlib.ExitStack) -> None:
        self._bench = bench
        self._section = section
        self._stack = stack
        self._running: dict[Contender, Running | Exception] = {}
        self._filled: set[Path] = set()
        self._new = 0

    @property
    def pids(self) -> list[int]:
        """Of all that run."""
        return [pid for each in self._running.values() if isinstance(each, Running) for pid in each.http + each.store]

    def new_folder(self, files: Files) -> Files:
        """Files that nobody has written yet."""
        self._new += 1
        return files._replace(folder=f"{files.folder}-{self._new}")

    def etags(self, row: Row) -> Path:
        """The ETags that the contender gave a row's files."""
        return self._directory(CONTENDERS[row.contender, row.workers]) / f"{row.files.folder}.etags"

    @contextlib.contextmanager
    def running(self, row: Row) -> Iterator[Running]:
        """The contender that a row is measured on. Raises FAILURES."""
        contender = CONTENDERS[row.contender, row.workers]
        if row.kind == COLD:
            with self._cold(contender, row) as running:
                yield running
            return
        if contender not in self._running:
            try:
                self._running[contender] = self._start(contender)
            except FAILURES as error:
                self._running[contender] = error
        found = self._running[contender]
        if isinstance(found, Exception):
            raise found
        yield found

    def _start(self, contender: Contender) -> Running:
        """Started again once it is filled: a node has its files on disk then, not in the memory that takes new ones."""
        say(f"starting {contender.title}")
        needed = {self._bench.files(row) for row in self._section.rows
                  if (row.contender, row.workers) == (contender.name, contender.workers)
                  and row.kind.filled and row.kind != COLD}  # fmt: skip
        directory = self._directory(contender)
        if contender.keeps and needed:
            with contender.start(directory) as running:
                self._fill(running, needed)
            running = self._stack.enter_context(contender.start(directory))
        else:
            running = self._stack.enter_context(contender.start(directory))
            self._fill(running, needed)
        for files in needed:
            self._verify(running, files, directory)
        return running

    @contextlib.contextmanager
    def _cold(self, contender: Contender, row: Row) -> Iterator[Running]:
        """Started again with nothing of its files in memory."""
        directory, files = self._directory(contender, "-cold"), self._bench.files(row)
        if directory not in self._filled:
            with contender.start(directory) as running:
                self._fill(running, {files})
                self._verify(running, files, directory)
            self._filled.add(directory)
        with contender.start(directory) as running:
            forget(directory)
            yield running

    def _fill(self, running: Running, needed: Iterable[Files]) -> None:
        for files in needed:
            running.fill(self._bench.load, files)

    def _verify(self, running: Running, files: Files, directory: Path) -> None:
        """See that every file is right, and note its ETag. Raises Wrong."""
        done = self._bench.load.run(running.target, files, "--count", files.number, "--connections", 8,
                                    "--learn", directory / f"{files.folder}.etags")  # fmt: skip
        if done.trouble:
            raise Wrong(f"before the first round: {done.trouble}")

    def _directory(self, contender: Contender, mark: str = "") -> Path:
        directory = self._bench.directory / f"{self._section.name}-{contender.name}-{contender.workers}{mark}"
        directory.mkdir(exist_ok=True)
        return directory


def forget(directory: Path) -> None:
    """Have the kernel drop what it has of files in memory: of all, and of their places, where root may ask for it."""
    os.sync()
    try:
        DROP_CACHES.write_text("3")
    except OSError:
        for file in directory.rglob("*"):
            if file.is_file():
                with file.open("rb") as opened:
                    os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def say(what: str) -> None:
    """To whoever waits for the figures."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def _words(row: Row) -> str:
    of = f", {row.workers} workers" if row.workers > 1 else ""
    return f"{row.contender}{of}: {row.kind.name}, {row.size} bytes, {row.connections} connections"


def _reason(error: Exception) -> str:
    """Its last line that says something: a log ends with what counts."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
