"""What a node's data takes on disk: days of overwriting, deleting, expiring in fast motion; and what compression does.

    python -m benchmarks.space [--megabytes 200] [--turnover 5] [--only NAME ...]

A real node over the wire, in its default durability. *live* is what its items come to: values, and for each item its
key, twice, and the fields of head and body. *disk* is what the data directory takes, its log included. Each day starts
with what the one before has left, is written as fast as the node takes it, and ends with a rest, which lasts until the
rest's bound holds, at most a minute. The bounds stand below as WRITING and RESTING.

Prints tables for ``RESULTS.rst``. Exit status: 0; 1 if a bound didn't hold.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shlex
import socket
import sys
import tempfile
import threading
import time
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import report
from tests.servers import HOST, sfss_node

KIB, MIB = 1024, 1024 * 1024

REST = 60.0  # seconds in which what is dead has to come back without further writes
SETTLED = 8.0  # seconds without a change after which a directory counts as compacted: a node rests after 5
LOOK_EVERY = 0.1  # seconds between looks at the directory
FIELDS = 36 + 20  # bytes of a head's and a body's fixed fields
BATCH = 4 * MIB  # bytes of values that are sent before their answers are read
LIFE = 2  # seconds that an item of the day of expiry has
SHOWN = 4  # moments of each day that the table shows


class Bound(NamedTuple):
    """What is promised: at most ``share`` times the live bytes, and ``fixed`` bytes."""

    share: float
    fixed: int

    def of(self, live: int) -> float:
        return self.share * live + self.fixed

    def __str__(self) -> str:
        return f"{self.share} x live + {self.fixed // MIB} MiB"


WRITING = Bound(2.0, 512 * MIB)
RESTING = Bound(1.25, 128 * MIB)


class Node:
    """A node, and what a client knows of it: the bytes of each of its items."""

    def __init__(self, port: int, data: Path) -> None:
        self.data = data
        self.keys: list[bytes] = []
        self.live = 0  # bytes
        self.highest = 0.0  # disk, as a share of the bound while writing
        self._sizes: dict[bytes, int] = {}
        self._socket = socket.create_connection((HOST, port), 60)
        self._answers = self._socket.makefile("rb")
        self._requests: list[bytes] = []
        self._pending = 0  # bytes

    def put(self, key: bytes, value: bytes, exptime: int = 0) -> None:
        self._request(b"set %b 0 %d %d\r\n%b\r\n" % (key, exptime, len(value), value))
        self._forget(key)
        if not exptime:
            self._sizes[key] = len(value) + 2 * (len(key) + 1) + FIELDS
            self.live += self._sizes[key]

    def delete(self, key: bytes) -> None:
        self._request(b"delete %b\r\n" % key)
        self._forget(key)

    def empty(self) -> None:
        self._request(b"flush_all\r\n")
        self.settle()
        self.keys.clear()
        self._sizes.clear()
        self.live = 0

    def settle(self) -> None:
        """Read what is still to be answered. Raises AssertionError if the node refused anything."""
        for request in self._requests:
            answer = self._answers.readline()
            assert answer in (b"STORED\r\n", b"DELETED\r\n", b"OK\r\n"), (request[:60], answer)
        self._requests.clear()
        self._pending = 0

    def get(self, key: bytes) -> bytes:
        self._socket.sendall(b"get %b\r\n" % key)
        size = int(self._answers.readline().split()[3])
        value = self._answers.read(size)
        assert self._answers.read(7) == b"\r\nEND\r\n"
        return value

    def disk(self) -> int:
        """Bytes that the file system has given to the data directory."""
        total = 0
        for entry in os.scandir(self.data):
            try:
                total += entry.stat().st_blocks * 512
            except FileNotFoundError:  # RocksDB deletes what it no longer needs at any time
                continue
        return total

    def close(self) -> None:
        self._answers.close()
        self._socket.close()

    def _forget(self, key: bytes) -> None:
        self.live -= self._sizes.pop(key, 0)

    def _request(self, request: bytes) -> None:
        self._socket.sendall(request)
        self._requests.append(request[:60])
        self._pending += len(request)
        if self._pending >= BATCH:
            self.settle()


class Values:
    """Values that nothing can compress: 60 % of 200 B to 1 KiB, 30 % to 64 KiB, 10 % to 1 MiB."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._bytes = chance.randbytes(4 * MIB)

    def __call__(self) -> bytes:
        part = self._chance.random()
        low, high = (200, KIB) if part < 0.6 else (KIB, 64 * KIB) if part < 0.9 else (64 * KIB, MIB)
        start = self._chance.randrange(len(self._bytes) - high)
        return self._bytes[start : start + self._chance.randrange(low, high)]


# --- the days: each gives what to do next, without end ---

Step = Callable[[], int]  # does it; bytes that it wrote


class Days:
    """What is done to the items of ``node``; a step returns the bytes of the value that it wrote."""

    def __init__(self, node: Node, chance: random.Random) -> None:
        self._node = node
        self._chance = chance
        self._value = Values(chance)
        self._number = itertools.count()
        self._ranks: list[float] = []

    def fill(self) -> int:
        """One new item."""
        self._node.keys.append(self._key())
        return self._put(self._node.keys[-1])

    def uniform(self) -> int:
        """Any item is overwritten."""
        return self._put(self._chance.choice(self._node.keys))

    def skewed(self) -> int:
        """A few items are overwritten often, most hardly ever (Zipf, 0.99)."""
        if len(self._ranks) != len(self._node.keys):
            self._ranks = list(itertools.accumulate(1 / rank**0.99 for rank in range(1, len(self._node.keys) + 1)))
            self._chance.shuffle(self._node.keys)
        return self._put(self._node.keys[bisect(self._ranks, self._chance.random() * self._ranks[-1])])

    def turnover(self) -> int:
        """Any item is deleted, and a new one written."""
        number = self._chance.randrange(len(self._node.keys))
        self._node.delete(self._node.keys[number])
        self._node.keys[number] = self._key()
        return self._put(self._node.keys[number])

    def expiry(self) -> int:
        """A new item that soon expires, and that nobody asks for again."""
        value = self._value()
        self._node.put(self._key(), value, LIFE)
        return len(value)

    def _put(self, key: bytes) -> int:
        value = self._value()
        self._node.put(key, value)
        return len(value)

    def _key(self) -> bytes:
        number = next(self._number)
        return b"/photos/2026/%08d-%d.jpg" % (number * 2654435761 % 10**8, number)


NAMES = ("uniform", "skewed", "turnover", "expiry")


class Moment(NamedTuple):
    """One row of the table."""

    day: str
    what: str
    seconds: float
    live: int
    disk: int
    bound: Bound

    @property
    def held(self) -> bool:
        return self.disk <= self.bound.of(self.live)

    def row(self) -> list[str]:
        over = f"{self.disk / self.live:.2f}" if self.live > MIB else "-"
        room = f"{self.bound.of(self.live) / MIB:,.0f}"
        figures = [f"{self.seconds:.0f}", f"{self.live / MIB:,.0f}", f"{self.disk / MIB:,.0f}", over, room]
        return [self.day, self.what, *figures, "yes" if self.held else "NO"]


HEAD = ("day", "moment", "s", "live MiB", "disk MiB", "disk/live", "bound MiB", "held")


class Peak:
    """The fullest moment of a day, looked for in a thread of its own."""

    def __init__(self, node: Node, day: str) -> None:
        self._node = node
        self._day = day
        self._start = time.monotonic()
        self._ended = threading.Event()
        self._worst = self._now()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> Moment:
        self._ended.set()
        self._thread.join()
        return self._worst

    def _look(self) -> None:
        while not self._ended.wait(LOOK_EVERY):
            self._worst = max(self._worst, self._now(), key=lambda moment: moment.disk - WRITING.share * moment.live)

    def _now(self) -> Moment:
        seconds = time.monotonic() - self._start
        return Moment(self._day, "peak", seconds, self._node.live, self._node.disk(), WRITING)


def live_through(node: Node, day: str, step: Step, goal: int) -> Iterator[Moment]:
    """Write ``goal`` bytes, then rest."""
    peak, start, written = Peak(node, day), time.monotonic(), 0
    for part in range(1, SHOWN + 1):
        while written < goal * part // SHOWN:
            written += step()
        node.settle()
        yield Moment(
            day, f"{written / MIB:,.0f} MiB written", time.monotonic() - start, node.live, node.disk(), WRITING
        )
    yield peak.end()
    yield rest(node, day)


def rest(node: Node, day: str) -> Moment:
    """The moment from which the rest's bound holds, or the one after a minute."""
    start = time.monotonic()
    while True:
        seconds = time.monotonic() - start
        moment = Moment(day, "rest", seconds, node.live, node.disk(), RESTING)
        if moment.held or seconds > REST:
            return moment
        time.sleep(LOOK_EVERY)


# --- compression ---


def texts(chance: random.Random, total: int) -> list[bytes]:
    """Sources and pages of this repository, in pieces of 2 to 60 KiB."""
    root = Path(__file__).parent.parent
    files = [*root.glob("sfss/**/*.py"), *root.glob("tests/**/*.py"), *root.glob("docs/**/*.rst")]
    whole = b"".join(chance.sample([file.read_bytes() for file in files], len(files)))
    return _pieces(chance, whole, 2 * KIB, 60 * KIB, total)


def noise(chance: random.Random, total: int) -> list[bytes]:
    """Random bytes, as a JPEG's are to a compressor, in the same sizes."""
    return _pieces(chance, chance.randbytes(4 * MIB), 2 * KIB, 60 * KIB, total)


def documents(chance: random.Random, total: int) -> list[bytes]:
    """Small JSON, some 300 bytes each."""
    made: list[bytes] = []
    size = 0
    while size < total:
        words = " ".join(chance.choice(("red", "photo", "draft", "shared", "private", "video")) for _ in range(12))
        fields = (
            f'"created": "2026-11-{chance.randrange(1, 31):02}", "size": {chance.randrange(MIB)}, "text": "{words}"'
        )
        made.append(f'{{"id": {len(made)}, "sha256": "{chance.randbytes(32).hex()}", {fields}}}'.encode())
        size += len(made[-1])
    return made


def _pieces(chance: random.Random, whole: bytes, low: int, high: int, total: int) -> list[bytes]:
    made: list[bytes] = []
    size = 0
    while size < total:
        length = chance.randrange(low, high)
        start = chance.randrange(max(1, len(whole) - length))
        made.append(whole[start : start + length])
        size += len(made[-1])
    return made


KINDS: dict[str, Callable[[random.Random, int], list[bytes]]] = {
    "text, 2 to 60 KiB": texts,
    "random, 2 to 60 KiB": noise,
    "JSON, 300 B": documents,
}
KIND_HEAD = ("data", "items", "values MiB", "disk MiB", "values/disk", "put CPU us", "get CPU us")


def compress(directory: Path, kind: str, total: int) -> list[str]:
    """A row of what a node makes of such data; CPU is the node's process's, its background work included."""
    chance = random.Random(kind)
    values = KINDS[kind](chance, total)
    directory.mkdir()
    data = directory / "node"
    with sfss_node(data) as (port, process):
        node, start = Node(port, data), _cpu(process.pid)
        keys = [b"/texts/%08d" % number for number in range(len(values))]
        for key, value in zip(keys, values, strict=True):
            node.put(key, value)
        node.settle()
        filled = _cpu(process.pid) - start
        node.close()
    with sfss_node(data) as (port, process):  # a stop writes everything out, and a start begins with an empty cache
        node = Node(port, data)
        disk, start = _at_rest(node), _cpu(process.pid)
        asked = [chance.randrange(len(keys)) for _ in range(5000)]
        for number in asked:
            assert node.get(keys[number]) == values[number]
        read = _cpu(process.pid) - start
        node.empty()
        node.close()
    size = sum(map(len, values))
    costs = [f"{filled / len(values) * 1e6:.0f}", f"{read / len(asked) * 1e6:.0f}"]
    return [kind, f"{len(values):,}", f"{size / MIB:.1f}", f"{disk / MIB:.1f}", f"{size / disk:.2f}", *costs]


def _at_rest(node: Node) -> int:
    """What the data takes once that has not changed for a while: a start compacts what the last run has left."""
    since, disk = time.monotonic(), node.disk()
    while time.monotonic() - since < SETTLED:
        time.sleep(LOOK_EVERY)
        if (now := node.disk()) != disk:
            since, disk = time.monotonic(), now
    return disk


def _cpu(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


# --- the command ---


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sfss-bench-") as name:
        directory = Path(name)
        print(
            report.field_list(report.facts(shlex.join(["python", "-m", "benchmarks.space", *arguments]), directory, {}))
        )
        print(f"\nBounds: while writing {WRITING}; within {REST:.0f} s of rest {RESTING}\n", flush=True)
        moments = list(_days(directory / "days", options.megabytes * MIB, options.turnover, options.only or NAMES))
        print(report.table([HEAD, *(moment.row() for moment in moments)], left=2), flush=True)
        kinds = [compress(directory / f"kind-{number}", kind, 32 * MIB) for number, kind in enumerate(KINDS)]
        print("\n" + report.table([KIND_HEAD, *kinds], left=1))
    return 0 if all(moment.held for moment in moments) else 1


def _days(data: Path, size: int, turnover: int, names: Sequence[str]) -> Iterator[Moment]:
    chance = random.Random(2026)
    data.mkdir()
    with sfss_node(data) as (port, _):
        node = Node(port, data)
        days = Days(node, chance)
        yield from live_through(node, "fill", days.fill, size)
        for name in names:
            yield from live_through(node, name, getattr(days, name), size * turnover)
        node.empty()
        yield rest(node, "flush_all")
        node.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.space", description="What a node's data takes on disk.")
    parser.add_argument("--megabytes", type=int, default=200, metavar="N", help="of values (default: %(default)s)")
    parser.add_argument("--turnover", type=int, default=5, metavar="N",
                        help="how often each day writes as much as there is (default: %(default)s)")  # fmt: skip
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME",
                        help=f"only this day; may be given several times. There are {', '.join(NAMES)}")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
