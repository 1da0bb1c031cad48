"""The buckets of ``rates.py`` in memory that several processes share, so that who asks all of them has one bucket.

There is no lock, which a process that is killed would keep: each process writes places of its own only, and reads
everybody's. Of a bucket each keeps when its present *run* of tokens began, and how many it has given in it. When the
bucket is full again follows from all runs, in the order of their beginnings: each moves that moment on by a token's
time for each of its tokens, from its own beginning on if the bucket was full by then. Whoever gives one begins a run if
the bucket is full, or was since his last one ended; else his goes on. A count is written before the beginning that it
belongs to: so who is killed between the two leaves one token of a run that is over, and the next process in his place
goes on with what is there.

Two that ask at the same moment don't see each other: of n processes n - 1 may give one token too many so. They are
waited for afterwards, but for who was stopped before he wrote that he gave one, so long that the bucket was full again.

The memory has a table for each of TABLES, of sets; a bucket's hash says which set it is in, and each process has WAYS
places in each. When these are taken it gives up the bucket that is full, or is so first. As long as no more than WAYS
of a set aren't full at a time nobody is forgotten; who is has another burst. The hash has a seed of the memory's own,
so nobody can choose addresses that meet in a set, or in one bucket; and the rate and the burst: buckets by other
settings are other buckets.
"""

from __future__ import annotations

import mmap
import secrets

import xxhash

from sfss.access.rates import interval_of, patience_of

TABLES = ("key", "address")
SETS = 8192
WAYS = 8
_FIELDS = 3  # of a place: hash, run, count; those of a set stand together by field
_HEAD = 512  # cells before the tables, the first of which is the seed
_CELL = 8  # bytes


class SharedRates:
    """As ``Rates``, of all processes. ``now`` must be one clock for all: the machine's is."""

    def __init__(self, buckets: Buckets, table: str, rate: float, burst: float = 0.0) -> None:
        """``rate`` and ``burst`` as of ``Rates``."""
        self.rate = rate
        self._interval = interval_of(rate)
        self._patience = patience_of(rate, burst)
        self._hashes, self._times = buckets.table(table)
        self._places, self._own = buckets.places, buckets.own
        self._set = buckets.places * _FIELDS  # cells
        self._seed = xxhash.xxh3_64_intdigest(f"{rate!r} {burst!r}".encode(), buckets.seed)

    def take(self, who: str, now: float) -> float:
        """As of ``Rates``."""
        if not self._interval:
            return 0.0
        which = self._hash(who)
        first = which % SETS * self._set
        full, own, goes_on = self._read(first, which)
        wait = max(full, now) + self._interval - now - self._patience
        if wait > 1e-9:
            return wait
        if own is not None and goes_on and full > now:
            self._times[first + 2 * self._places + own] += 1.0
        else:
            self._begin(first, which, self._make_room(first) if own is None else own, now)
        return 0.0

    def _hash(self, who: str) -> int:
        found = xxhash.xxh3_64_intdigest(who.encode(errors="backslashreplace"), self._seed)
        return found or 1  # 0 is a place that is free

    def _read(self, first: int, which: int) -> tuple[float, int | None, bool]:
        """When a bucket is full, which of our places it has, and whether our run there goes on."""
        runs, own, ours, places = [], None, 0.0, self._places
        hashes = self._hashes[first : first + places].tolist()
        place = -1
        for _ in range(hashes.count(which)):
            place = hashes.index(which, place + 1)
            at = first + places + place
            run = self._times[at], self._times[at + places]
            if self._hashes[first + place] != which:  # given up meanwhile, and perhaps another's by now
                continue
            runs.append(run)
            if place in self._own:
                own, ours = place, run[0]
        runs.sort()
        full = since = 0.0  # the latter: when it was full the last time
        for began, given in runs:
            if began > full:
                full = since = began
            full += given * self._interval
        return full, own, ours >= since

    def _begin(self, first: int, which: int, place: int, now: float) -> None:
        """A run, with one token."""
        at = first + self._places + place
        self._times[at + self._places] = 1.0
        self._times[at] = now
        self._hashes[first + place] = which

    def _make_room(self, first: int) -> int:
        """Which of our places in a set is free now."""

        def full(place: int) -> float:
            which = self._hashes[first + place]
            return self._read(first, which)[0] if which else 0.0

        place = min(self._own, key=full)
        self._hashes[first + place] = 0  # before it is another's: see _read
        return place


class Buckets:
    """The memory that ``processes`` share, as the one with that ``number`` has it, from 0."""

    def __init__(self, memory: mmap.mmap | int, number: int) -> None:
        """``memory``: of ``size`` bytes, made by ``prepare``; or the descriptor of a file of that many."""
        self._memory = memoryview(_mapped(memory))
        cells = len(self._memory) // _CELL - _HEAD
        self.places = cells // (len(TABLES) * SETS * _FIELDS)  # in a set, of all processes
        self.own = range(number * WAYS, (number + 1) * WAYS)
        self.seed = self._memory.cast("Q")[0]

    @staticmethod
    def size(processes: int) -> int:
        """In bytes; those that nobody has written yet take no memory."""
        return (_HEAD + len(TABLES) * SETS * processes * WAYS * _FIELDS) * _CELL

    @staticmethod
    def prepare(memory: mmap.mmap | int) -> None:
        """Give it its seed; once, before anybody uses it. Else it must be all 0."""
        memoryview(_mapped(memory)).cast("Q")[0] = secrets.randbits(64)

    def table(self, name: str) -> tuple[memoryview[int], memoryview[float]]:
        """The cells of one of TABLES, as hashes and as times and counts."""
        size = SETS * self.places * _FIELDS * _CELL
        first = _HEAD * _CELL + TABLES.index(name) * size
        cells = self._memory[first : first + size]
        return cells.cast("Q"), cells.cast("d")

    def rates(self, table: str, rate: float, burst: float) -> SharedRates:
        """Of keys, or of addresses."""
        return SharedRates(self, table, rate, burst)


def _mapped(memory: mmap.mmap | int) -> mmap.mmap:
    return mmap.mmap(memory, 0) if isinstance(memory, int) else memory
