"""Entries of the database that are in memory: those read or written of late, up to a bound. No RocksDB, no threads.

Whoever is to read entries asks here first, and what isn't here is read from the disk by a thread (``reader``). Such a
read takes its time, and meanwhile the entry may be written: then what it brings is out of date, and is not taken.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final


class _Unknown(enum.Enum):
    UNKNOWN = enum.auto()


UNKNOWN: Final = _Unknown.UNKNOWN  # nothing is known here: it has to be read

Entry = bytes | None  # None: known not to be there
Found = Entry | Exception  # what a read brings; the exception if it failed

COST = 250  # bytes that an entry takes beside its own and its key's: two objects' heads, and its place in the order
SHARE = 8  # an entry of more than this part of the bound would drive out too many others: it isn't kept


class Memory:
    """What was last read or written, least recently used first to go. One thread calls it."""

    def __init__(self, limit: int) -> None:
        """Holds at most ``limit`` bytes, all told."""
        self.limit = limit
        self.bytes = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._reads: dict[bytes, object] = {}  # entries that are being read, and by which read
        self._brought: dict[bytes, Found] = {}  # what the reads that are over just now have brought

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: bytes) -> bool:
        return key in self._entries or key in self._brought

    def find(self, key: bytes) -> Found | _Unknown:
        """The entry, or why it couldn't be read; UNKNOWN if it isn't here."""
        entry: Found | _Unknown = self._entries.get(key, UNKNOWN)
        if entry is UNKNOWN:
            return self._brought.get(key, UNKNOWN) if self._brought else UNKNOWN
        self._entries.move_to_end(key)
        return entry

    def wrote(self, key: bytes, entry: Entry) -> None:
        """The entry is this from now on, whatever a read that is under way may bring."""
        self._reads.pop(key, None)
        self._brought.pop(key, None)
        self.keep(key, entry)

    def keep(self, key: bytes, entry: Entry) -> None:
        """The entry was found to be this."""
        entries = self._entries
        size = _cost(key, entry)
        if key in entries:
            self.bytes -= _cost(key, entries.pop(key))
        if size > self.limit // SHARE:
            return
        entries[key] = entry
        self.bytes += size
        while self.bytes > self.limit:
            self.bytes -= _cost(*entries.popitem(last=False))

    def clear(self) -> None:
        """All entries have changed."""
        self._entries.clear()
        self._reads.clear()
        self._brought.clear()
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
            self._brought[key] = entry
            if not isinstance(entry, Exception):
                self.keep(key, entry)

    def settle(self) -> None:
        """Those who waited for what was brought have had it."""
        self._brought.clear()


def _cost(key: bytes, entry: Entry) -> int:
    return COST + len(key) + (len(entry) if entry else 0)
