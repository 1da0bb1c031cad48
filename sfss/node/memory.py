"""Entries of the database that are in memory: those read or written of late, up to a bound. No RocksDB, no threads.

Whoever is to read entries asks here first, and what isn't here is read from the disk by a thread (``reader``). Such a
read takes its time, and meanwhile the entry may be written: then what it brings is out of date, and is not taken.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final


class Unknown(enum.Enum):
    UNKNOWN = enum.auto()


UNKNOWN: Final = Unknown.UNKNOWN  # nothing is known here: it has to be read

Entry = bytes | None  # None: known not to be there
Found = Entry | Exception  # what a read brings; the exception if it failed

COST = 250  # bytes that an entry takes beside its own and its key's: two objects' heads, and its place in the order
ABSENT = 1000  # entries that are known not to be there: those of the requests under way
SHARE = 8  # an entry of more than this part of the bound would drive out too many others: it isn't kept


class Memory:
    """What was last read or written, least recently used first to go. One thread calls it."""

    def __init__(self, limit: int) -> None:
        """Holds at most ``limit`` bytes, all told."""
        self.limit = limit
        self.bytes = 0
        self.entries: OrderedDict[bytes, Entry] = OrderedDict()  # to be looked into, not changed
        self._reads: dict[bytes, object] = {}  # entries that are being read, and by which read
        self.brought: dict[bytes, Found] = {}  # what the reads that are over just now have brought
        self.absent: set[bytes] = set()  # entries that were looked for of late, and are not there: only a hint

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, key: bytes) -> bool:
        return key in self.entries or key in self.brought or key in self.absent

    def find(self, key: bytes) -> Found | Unknown:
        """The entry, or why it couldn't be read; UNKNOWN if it isn't here."""
        entry: Found | Unknown = self.entries.get(key, UNKNOWN)
        if entry is UNKNOWN:
            return None if key in self.absent else self.brought.get(key, UNKNOWN)
        self.entries.move_to_end(key)
        return entry

    def wrote(self, key: bytes, entry: Entry) -> None:
        """The entry is this from now on, whatever a read that is under way may bring."""
        if self._reads:
            self._reads.pop(key, None)
        if self.brought:
            self.brought.pop(key, None)
        self.absent.discard(key)
        self.keep(key, entry)

    def keep(self, key: bytes, entry: Entry) -> None:
        """The entry was found to be this."""
        entries = self.entries
        if key in entries:
            self.bytes -= _cost(key, entries.pop(key))
        size = COST + len(key) + (len(entry) if entry else 0)
        if size > self.limit // SHARE:
            return
        entries[key] = entry
        self.bytes += size
        while self.bytes > self.limit:
            self.bytes -= _cost(*entries.popitem(last=False))

    def note_absent(self, key: bytes) -> None:
        """Nothing lies there now. It is known until it is written, or some more were noted."""
        if len(self.absent) >= ABSENT:
            self.absent.clear()
        self.absent.add(key)

    def clear(self) -> None:
        """All entries have changed."""
        self.entries.clear()
        self._reads.clear()
        self.brought.clear()
        self.absent.clear()
        self.bytes = 0

    # --- reads ---

    def begin(self, keys: Iterable[bytes]) -> object:
        """These entries are about to be read. Returns what names this read."""
        read = object()
        self._reads.update(dict.fromkeys(keys, read))
        return read

    def bring(self, read: object, keys: Sequence[bytes], found: Iterable[Found]) -> None:
        """The read is over. What it brought can be found until ``settle``, even what is too large to be kept."""
        for key, entry in zip(keys, found, strict=True):
            if self._reads.get(key) is not read:
                continue
            del self._reads[key]
            self.brought[key] = entry
            if not isinstance(entry, Exception):
                self.keep(key, entry)

    def settle(self) -> None:
        """Those who waited for what was brought have had it."""
        self.brought.clear()


def _cost(key: bytes, entry: Entry) -> int:
    return COST + len(key) + (len(entry) if entry else 0)
