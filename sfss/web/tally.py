"""What the processes that serve have counted, in memory that they share.

A row of 64-bit cells for each worker, which it alone writes, and everybody reads and sums up. Each is written in one
instruction: a worker that is killed, wherever it is, leaves no half of a number. The next worker in its place goes on
with its row. So nothing that was counted is lost, and no sum ever falls.

To count something more, add its name to NAMES; a histogram is a name for each of its buckets.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Sequence
from typing import NamedTuple

STATUSES = 1000  # the first cells: responses by their HTTP status

# What this place's worker is ...
ABOUT = ("pid", "started", "since", "starts")  # times in microseconds since the epoch

# ... and what is counted: copies of files, as cluster/copies.py says what each is.
COPIES = ("handoffs", "hedges", "mended", "late_failures", "damaged")

NAMES = (*ABOUT, *COPIES)
_CELLS = 2048  # of a row: some pages of its own, of which only those are used that are written
_AT = {name: STATUSES + number for number, name in enumerate(NAMES)}


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

    def ended(self, worker: int) -> None:
        """The process in that place isn't there any more. For who watches it."""
        self._rows()[worker][_AT["pid"]] = 0

    @property
    def since(self) -> float:
        """Since when it is counted. In seconds since the epoch."""
        return min(filter(None, (row[_AT["since"]] for row in self._rows())), default=time.time_ns() // 1000) / 1e6

    def responded(self, status: int) -> None:
        """Count a response."""
        self._row[status] += 1

    def add(self, name: str, amount: int = 1) -> None:
        """Count something that has a name."""
        self._row[_AT[name]] += amount

    def cells(self, names: Sequence[str]) -> memoryview[int]:
        """Those of this worker, of names that stand one behind the other in NAMES."""
        first = _AT[names[0]]
        assert [_AT[name] for name in names] == list(range(first, first + len(names)))
        return self._row[first : first + len(names)]

    def total(self, name: str) -> int:
        """What all workers have counted of that."""
        return sum(row[_AT[name]] for row in self._rows())

    def responses(self) -> dict[int, int]:
        """Those of all workers, by status."""
        sums = map(sum, zip(*(row[:STATUSES].tolist() for row in self._rows()), strict=True))
        return {status: count for status, count in enumerate(sums) if count}

    def places(self) -> list[Place]:
        """Of every worker."""
        return [
            Place(row[_AT["pid"]], row[_AT["started"]] / 1e6, row[_AT["starts"]], sum(row[:STATUSES].tolist()))
            for row in self._rows()
        ]

    def _rows(self) -> list[memoryview[int]]:
        return [self._cells[first : first + _CELLS] for first in range(0, len(self._cells), _CELLS)]
