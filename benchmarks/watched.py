"""Servers that are watched from outside: an ``sfss node`` that can be killed and started again, a memcached, and what
Linux tells of their memory, their CPU time and their disk. What load they get is not known here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pymemcache.client.base import Client

from benchmarks import report
from tests.servers import HOST, answers, free_port, memcached

PATIENCE = 300.0  # seconds for a node to open its directory, or to stop
POLL = 0.002  # seconds between two questions whether a node answers: how exact the time to open is
SHARED = (".sst", ".blob")  # RocksDB's files that are never changed, only removed: a link is as good as a copy
QUIET = 0.1  # cores that servers with nothing to do may use


class Memory(NamedTuple):
    """Bytes of a process that are in memory."""

    now: int
    peak: int
    anonymous: int  # of those now: its own, not of files


class Opened(NamedTuple):
    """How long a node took from its start, in seconds, and what memory it had then."""

    version: float  # until it answered ``version``
    get: float  # until it had answered its first ``get``
    memory: int  # bytes, after that


class Watched:
    """A server that runs, known by its port and process; ``data`` is where its files are, if it has any."""

    def __init__(self, name: str, port: int = 0, data: Path | None = None) -> None:
        self.name = name
        self.port = port
        self.data = data
        self.pid = 0

    def stat(self, name: str) -> int:
        """A figure that it tells of itself; 0 if it doesn't know that one."""
        with contextlib.closing(Client((HOST, self.port), timeout=PATIENCE)) as client:
            return int(client.stats().get(name.encode(), 0))

    def cpu(self) -> float:
        """Seconds of CPU time that it has used, to 10 ms."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> Memory:
        """Its memory now."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        figures = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
        now, peak, anonymous = (int(figures[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM", "RssAnon"))
        return Memory(now, peak, anonymous)

    def transferred(self, which: str) -> int:
        """Bytes that it has caused to be read from disk (``read_bytes``), or to be written (``write_bytes``)."""
        lines = Path(f"/proc/{self.pid}/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{which}:"))

    def confine(self, cores: set[int]) -> None:
        """All its threads, and those that they will make, run on these."""
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores)

    def size_on_disk(self) -> int:
        """Bytes that its files take there, as ``du`` tells."""
        total = 0
        for file in self.data.iterdir() if self.data else ():
            with contextlib.suppress(FileNotFoundError):  # files come and go
                total += file.stat().st_blocks * 512
        return total


class Node(Watched):
    """An ``sfss node`` over ``data``; it is started by ``start``, and ends with the block at the latest."""

    data: Path

    def __init__(self, data: Path, durability: str) -> None:
        super().__init__(f"node, {durability}", data=data)
        self._durability = durability
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, key: str = "any") -> Opened:
        """Start, and get ``key``. Raises RuntimeError if the node ends, or is silent."""
        self.port = free_port()
        command = [sys.executable, "-m", "sfss", "node", "--port", str(self.port), "--data", str(self.data),
                   "--durability", self._durability]  # fmt: skip
        log = self.data.parent / f"{self.data.name}.log"
        with log.open("ab") as output:
            begun = time.monotonic()
            self._process = subprocess.Popen(command, stderr=output)
        self.pid = self._process.pid
        while not answers(self.port):
            if self._process.poll() is not None or time.monotonic() > begun + PATIENCE:
                raise RuntimeError(f"the node doesn't serve; it said: {log.read_text()[-500:]}")
            time.sleep(POLL)
        version = time.monotonic() - begun
        with contextlib.closing(Client((HOST, self.port), timeout=PATIENCE)) as client:
            value = client.get(key)
        if value is not None and not value.startswith(key.encode()):
            raise RuntimeError(f"{key} has another value than was written")
        return Opened(version, time.monotonic() - begun, self.memory().now)

    def stop(self) -> float:
        """SIGTERM; how many seconds it took to end."""
        assert self._process is not None
        begun = time.monotonic()
        self._process.terminate()
        self._process.wait(PATIENCE)
        return time.monotonic() - begun

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()


@contextlib.contextmanager
def watched_memcached(megabytes: int) -> Iterator[Watched]:
    """A memcached of one thread, which with the load takes two cores, and does more so than with four."""
    with memcached("-m", str(megabytes), "-c", "4096", "-t", "1") as port:
        server = Watched("memcached", port)
        server.pid = server.stat("pid")
        yield server


class Peak:
    """The most that a server's files take on disk while the block runs."""

    def __init__(self, server: Watched) -> None:
        self.bytes = 0
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            self.bytes = max(self.bytes, self._server.size_on_disk())


def wait_until_quiet(servers: Sequence[Watched], patience: float, pause: float) -> float:
    """Wait until they have done what they had put off; gives how many cores others kept busy in the last ``pause``."""
    deadline = time.monotonic() + patience
    while True:
        before = sum(server.cpu() for server in servers)
        busy = report.pause(pause)
        own = (sum(server.cpu() for server in servers) - before) / pause
        if own < QUIET or time.monotonic() > deadline:
            return max(0.0, busy - own)


def twin(data: Path, other: Path) -> None:
    """Make ``other`` a data directory of the same content, of a node that has stopped; it takes hardly any room."""
    other.mkdir()
    for file in data.iterdir():
        if file.suffix in SHARED:
            (other / file.name).hardlink_to(file)
        elif file.is_file():
            shutil.copy(file, other)


def forget(data: Path) -> None:
    """Have the kernel drop what it has of a directory's files in memory; nobody else's, and without being root."""
    for file in data.iterdir():
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())  # what isn't written stays in memory
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def remember(data: Path) -> None:
    """Have the kernel take a directory's files into memory, as far as there is room for them."""
    for file in data.iterdir():
        if file.is_file():
            with file.open("rb", buffering=0) as opened:
                while opened.read(2**20):
                    pass


class Slowed:
    """The disk under ``data`` made slow for one process: so many reads a second. Linux's cgroups do it, for root."""

    def __init__(self, pid: int, data: Path, reads: int) -> None:
        """Raises OSError where that can't be done."""
        disk = Path(f"/sys/dev/block/{os.major(data.stat().st_dev)}:{os.minor(data.stat().st_dev)}").resolve()
        number = ((disk.parent if (disk / "partition").exists() else disk) / "dev").read_text().strip()
        old = Path("/sys/fs/cgroup/blkio")
        self._group = (old if old.is_dir() else Path("/sys/fs/cgroup")) / f"sfss-slow-{pid}"
        self._above = self._group.parent
        self._group.mkdir()
        try:
            if old.is_dir():
                (self._group / "blkio.throttle.read_iops_device").write_text(f"{number} {reads}")
            else:
                (self._group / "io.max").write_text(f"{number} riops={reads}")
            (self._group / "cgroup.procs").write_text(str(pid))
        except OSError:
            self._group.rmdir()
            raise
        self._pid = pid

    def __enter__(self) -> Slowed:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # the process may have ended
            (self._above / "cgroup.procs").write_text(str(self._pid))
        self._group.rmdir()


def memory_available() -> int:
    """Bytes that programs may still take of this machine's memory."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
