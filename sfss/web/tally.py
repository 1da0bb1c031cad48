"""What the processes that serve have counted, in memory that they share.

A row of 64-bit cells for each worker, which it alone writes, and everybody reads and sums up. Each is written in one
instruction: a worker that is killed, wherever it is, leaves no half of a number. The next worker in its place goes on
with its row. So nothing that was counted is lost, and no sum ever falls. (Requests are counted some milliseconds after
they were answered: see ``watch.py``.) What is no count but a state of the worker's
(GAUGES) ends with it.

A row has, one behind the other: a block for each of METHODS, what has a name, how late the loop was, and a place for
each of many nodes. To count something more, add its name to NAMES; a histogram has a cell for each of its buckets, one
for what is above them, and one for the sum.
"""

from __future__ import annotations

import mmap
import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import xxhash

from sfss.traffic import BOUNDS as NODE_BOUNDS
from sfss.traffic import REASONS, Taken

METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "other")
WITH_BODIES = ("PUT", "POST", "PATCH")  # of which the size counts that came, and not the one that went
# A block: responses by their HTTP status, how long they took, and how much they, or their requests, have of a body.
_STATUSES = 600
# Seconds.
DURATIONS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = tuple(4**power for power in range(4, 16))  # bytes, 256 to 1 GiB
_NANOSECONDS = tuple(int(bound * 1e9) for bound in DURATIONS)
_TIMES, _BYTES = _STATUSES, _STATUSES + len(DURATIONS) + 2
_ALL_TIME, _ALL_BYTES = _BYTES - 1, _BYTES + len(SIZES) + 1
_BLOCK = 640

# What this place's worker is ...
ABOUT = ("pid", "started", "since", "starts")  # times in microseconds since the epoch

# ... and what is counted: copies of files, as cluster/copies.py says what each is, ...
COPIES = ("handoffs", "hedges", "mended", "late_failures", "damaged")

# ... lines of the access log that were lost, for nobody took them or the disk was full, ...
LOG = ("dropped_lines", "unwritten_lines")

# ... what repair and sweeps, and the catalogue, did, as their own words for it are, ...
DONE = ("copies_written", "blocks_copied", "stripes_swept", "bytes_freed", "changes", "transactions")

# ... and how things are with it, as it has looked last.
GAUGES = ("in_flight", "connections", "uploads", "lacking", "owed")

NAMES = (*ABOUT, *COPIES, *LOG, *DONE, *GAUGES)
_NAMED = len(METHODS) * _BLOCK
_AT = {name: _NAMED + number for number, name in enumerate(NAMES)}

LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)  # seconds
_LAG = _NAMED + 128

MOST_NODES = 256  # that are counted; of more nothing is told
_NODES = _LAG + 64
_NODE = 32  # cells: the hash of its name, failures by REASONS, answers by NODE_BOUNDS
_ANSWERS = 1 + len(REASONS)
_ANSWER_TIME = _ANSWERS + len(NODE_BOUNDS) + 1

_CELLS = 14336  # of a row: some pages of its own, of which only those are used that are written
assert _ALL_BYTES < _BLOCK
assert _NAMED + len(NAMES) <= _LAG
assert _ANSWER_TIME < _NODE
assert _NODES + MOST_NODES * _NODE <= _CELLS


class Histogram(NamedTuple):
    """How often something was at most each of some bounds, and above them; and the sum of all."""

    counts: list[int]  # not added up
    sum: float

    @classmethod
    def of(cls, rows: Sequence[memoryview[int]], first: int, bounds: int, unit: float = 1.0) -> Histogram:
        """Of all rows, from the cell ``first`` on; ``unit``: what one of its sum is."""
        cells = _sums([row[first : first + bounds + 2] for row in rows])
        return cls(cells[:-1], cells[-1] * unit)


class Answered(NamedTuple):
    """What came of requests with one method."""

    statuses: dict[int, int]
    seconds: Histogram  # by DURATIONS
    bytes: Histogram  # by SIZES


class NodeTraffic(NamedTuple):
    """What came of requests to one node."""

    seconds: Histogram  # by NODE_BOUNDS
    failures: dict[str, int]  # by REASONS


class Place(NamedTuple):
    """One of the workers, and what it and those before it in its place have counted."""

    pid: int  # 0: none is there, one is being started
    started: float  # seconds since the epoch; ``since``, of a row, is when the first one in this place was
    starts: int  # processes so far
    requests: int


class Tally:
    """Counts for one worker, and reads what all of them have counted. One thread counts."""

    def __init__(self, memory: mmap.mmap | int, worker: int = 0) -> None:
        """``memory``: for ``size`` bytes; or the descriptor of a file of that many. ``worker``: whose row, from 0."""
        self._memory = mmap.mmap(memory, 0) if isinstance(memory, int) else memory
        self._cells = memoryview(self._memory).cast("Q")
        self._worker = worker
        self._row = self._rows()[worker]
        self.before_reading: Callable[[], None] = lambda: None  # counts what this worker has put aside
        self._nodes: dict[str, int | None] = {}  # where each is in the row; None: there is no room for it

    @staticmethod
    def size(workers: int) -> int:
        """In bytes, of the memory for so many."""
        return workers * _CELLS * 8

    @classmethod
    def alone(cls) -> Tally:
        """Of a process that has no others beside it."""
        return cls(mmap.mmap(-1, cls.size(1)))

    def begin(self) -> None:
        """This process is the one in this place now."""
        now = time.time_ns() // 1000
        self.add("starts")
        self._row[_AT["started"]] = now
        self._row[_AT["since"]] = self._row[_AT["since"]] or now
        self._row[_AT["pid"]] = os.getpid()
        _forget_gauges(self._row)

    def ended(self, worker: int) -> None:
        """The process in that place isn't there any more. For who watches it."""
        row = self._rows()[worker]
        row[_AT["pid"]] = 0
        _forget_gauges(row)

    @property
    def since(self) -> float:
        """Since when it is counted. In seconds since the epoch."""
        return min(filter(None, (row[_AT["since"]] for row in self._rows())), default=time.time_ns() // 1000) / 1e6

    def responded(self, status: int, method: str | bytes = "GET", nanoseconds: int = 0, size: int = 0) -> None:
        """Count a response: how long it took, and the bytes of its body, or of the request's where that brings some."""
        row, at = self._row, _BLOCK_OF.get(method, _OTHER)
        row[at + status] += 1
        row[at + _TIMES + bisect_left(_NANOSECONDS, nanoseconds)] += 1
        row[at + _ALL_TIME] += nanoseconds
        row[at + _BYTES + bisect_left(SIZES, size)] += 1
        row[at + _ALL_BYTES] += size

    def responded_all(
        self, method: bytes, statuses: Iterable[int], nanoseconds: Sequence[int], sizes: Sequence[int]
    ) -> None:
        """The same of many with one method: in a cell is counted once what they have in common."""
        row, at = self._row, _BLOCK_OF.get(method, _OTHER)
        for first, values in (
            (at, statuses),
            (at + _TIMES, [bisect_left(_NANOSECONDS, each) for each in nanoseconds]),
            (at + _BYTES, [bisect_left(SIZES, each) for each in sizes]),
        ):
            for value, count in Counter(values).items():
                row[first + value] += count
        row[at + _ALL_TIME] += sum(nanoseconds)
        row[at + _ALL_BYTES] += sum(sizes)

    def add(self, name: str, amount: int = 1) -> None:
        """Count something that has a name."""
        self._row[_AT[name]] += amount

    def put(self, name: str, value: int) -> None:
        """Say how something of GAUGES is now."""
        self._row[_AT[name]] = value

    def late(self, seconds: float) -> None:
        """The event loop had something done so much too late."""
        self._row[_LAG + bisect_left(LAGS, seconds)] += 1
        self._row[_LAG + len(LAGS) + 1] += int(seconds * 1e9)

    def exchanged(self, node: str, taken: Taken) -> None:
        """That came of requests to a node."""
        at = self._place_of(node)
        if at is None:
            return
        cells = (*taken.failures, *taken.answers, int(taken.seconds * 1e9))
        for number, count in enumerate(cells, at + 1):
            if count:
                self._row[number] += count

    def cells(self, names: Sequence[str]) -> memoryview[int]:
        """Those of this worker, of names that stand one behind the other in NAMES."""
        first = _AT[names[0]]
        assert [_AT[name] for name in names] == list(range(first, first + len(names)))
        return self._row[first : first + len(names)]

    def total(self, name: str) -> int:
        """What all workers have counted of that."""
        return sum(row[_AT[name]] for row in self._rows())

    def each(self, name: str) -> list[int]:
        """The same of each worker."""
        return [row[_AT[name]] for row in self._rows()]

    def responses(self) -> dict[int, int]:
        """Those of all workers, by status."""
        found: dict[int, int] = {}
        for answered in self.answered().values():
            for status, count in answered.statuses.items():
                found[status] = found.get(status, 0) + count
        return dict(sorted(found.items()))

    def answered(self) -> dict[str, Answered]:
        """What came of the requests of all workers, by method; of those methods that somebody has used."""
        self.before_reading()
        rows, found = self._rows(), {}
        for method, at in _BLOCKS.items():
            sums = _sums([row[at : at + _STATUSES] for row in rows])
            if any(sums):
                found[method] = Answered(
                    {status: count for status, count in enumerate(sums) if count},
                    Histogram.of(rows, at + _TIMES, len(DURATIONS), 1e-9),
                    Histogram.of(rows, at + _BYTES, len(SIZES)),
                )
        return found

    def lags(self) -> Histogram:
        """How late the loops of all workers were, by LAGS."""
        return Histogram.of(self._rows(), _LAG, len(LAGS), 1e-9)

    def traffic(self, node: str) -> NodeTraffic:
        """What came of the requests of all workers to that node."""
        which = _hash(node)
        rows = [(row, at) for row in self._rows() if (at := _place_in(row, which)) is not None]
        cells = _sums([row[at : at + _NODE] for row, at in rows] or [memoryview(bytes(8 * _NODE)).cast("Q")])
        counts = cells[_ANSWERS:_ANSWER_TIME]
        failures = dict(zip(REASONS, cells[1:_ANSWERS], strict=True))
        return NodeTraffic(Histogram(counts, cells[_ANSWER_TIME] / 1e9), failures)

    def places(self) -> list[Place]:
        """Of every worker."""
        self.before_reading()
        return [
            Place(
                row[_AT["pid"]],
                row[_AT["started"]] / 1e6,
                row[_AT["starts"]],
                sum(sum(row[at : at + _STATUSES].tolist()) for at in _BLOCKS.values()),
            )
            for row in self._rows()
        ]

    def _place_of(self, node: str) -> int | None:
        """Where that node is in this worker's row, or may be from now on; None if all places are taken."""
        if node not in self._nodes:
            which = _hash(node)
            at = _place_in(self._row, which)
            if at is None and (at := _place_in(self._row, 0)) is not None:
                self._row[at] = which
            self._nodes[node] = at
        return self._nodes[node]

    def _rows(self) -> list[memoryview[int]]:
        return [self._cells[first : first + _CELLS] for first in range(0, len(self._cells), _CELLS)]


_BLOCKS: Mapping[str, int] = {method: number * _BLOCK for number, method in enumerate(METHODS)}
_BLOCK_OF = dict[str | bytes, int](_BLOCKS) | {method.encode(): at for method, at in _BLOCKS.items()}
_OTHER = _BLOCKS[METHODS[-1]]


def _forget_gauges(row: memoryview[int]) -> None:
    for name in GAUGES:
        row[_AT[name]] = 0


def _sums(rows: Sequence[memoryview[int]]) -> list[int]:
    """Of all cells in the same place."""
    return rows[0].tolist() if len(rows) == 1 else list(map(sum, zip(*(row.tolist() for row in rows), strict=True)))


def _hash(node: str) -> int:
    return xxhash.xxh3_64_intdigest(node.encode()) or 1


def _place_in(row: memoryview[int], which: int) -> int | None:
    """Where the node of that hash is; the first free place, for 0."""
    hashes = row[_NODES : _NODES + MOST_NODES * _NODE : _NODE].tolist()
    return _NODES + hashes.index(which) * _NODE if which in hashes else None
