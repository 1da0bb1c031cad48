"""Items in RocksDB: what a data directory holds, and how each change to it is made whole. No sockets, no asyncio.

One column family; the first byte of a key says what lies under it (all numbers big-endian):

===========  ===========================================================================================
``h`` + key  the *head*: flags u32, expiry u64, cas u64, time u64, size u64, then the record's prefix and
             header if the value is a record of sfss, else nothing
``d`` + key  the *body*: flags u32, expiry u64, cas u64, then the value
``m`` + ...  about the directory: ``mformat`` (layout's number and name), ``mtotals`` (items u64, bytes of
             values u64), ``mcas`` (u64, no item version above it was ever given), ``mflush`` (u64, when a
             delayed flush_all is due)
===========  ===========================================================================================

expiry is in seconds since the epoch, 0 for never; time, when the value was written, in microseconds. A plain get reads
the body alone, and so the body repeats what a get answers. Heads lie together in key order, and stay in the LSM tree
while large bodies go to blob files: all keys with their records' headers can be read without touching one body.

Every change is one WriteBatch (head, body, totals), so that after a crash it is there whole or not at all, and the
totals are right without counting.

What is durable when: a change that returned is in the kernel's hands (it survives ``kill -9``); it is on the disk once
a ``sync`` that began after it has returned. Reads see a change at once.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
)

from sfss import record
from sfss.errors import ConfigError, OutOfSpace
from sfss.node import opening
from sfss.node.opening import Replay

log = logging.getLogger("sfss.node")

KIB, MIB = 1024, 1024 * 1024

LAYOUT = b"1 sfss-items"  # number and name; a change of anything in the table above is a new number

# Three nodes run on a laptop: with the figures below a node's memory stays under some 200 MiB whatever it holds.
BLOCK_CACHE = 64 * MIB  # heads, small bodies, and every index and filter block: RocksDB's only cache
WRITE_BUFFER = 32 * MIB  # a memtable; when full it is written out as one table and one blob file
WRITE_BUFFERS = 3  # one being filled, two being written out: a burst doesn't wait for the disk at once
MAX_TOTAL_WAL = 256 * MIB  # what a start after a crash may have to replay: a second or two
MAX_OPEN_FILES = 1000  # of RocksDB; the rest of a usual limit is for connections
BACKGROUND_JOBS = 2  # flushes and compactions at a time; more would take the cores from the clients
MIN_BLOB = 1 * KIB  # a smaller body is cheaper to move along in the tree than to look up beside it
BLOB_FILE = 64 * MIB  # the unit in which overwritten and deleted bodies give their space back
BLOB_GC_AGE = 0.5  # compaction moves the living out of the older half of the blob files ...
BLOB_GC_FORCE = 0.5  # ... and is started for it when half of what they hold is dead
# Deleted keys lie in the way of a walk, and take room, until a compaction drops them. So a table is compacted at once
# when of so many neighbours so many are deletions, or that share of all.
DELETED_WINDOW, DELETED_TRIGGER, DELETED_RATIO = 1000, 500, 0.5
BLOOM_BITS = 10  # a key: 1 % of look-ups of absent keys reach a data block
INFO_LOG, INFO_LOGS = 4 * MIB, 4  # RocksDB's own LOG: size of a file, and how many are kept

HEADS = 256 * KIB  # of heads that one step of a walk may hold at a time
CAS_LEASE = 120 * 1_000_000  # item versions (microseconds) that are reserved on disk ahead of their use

_HEAD, _BODY = b"h", b"d"
_HEADS_END, _BODIES_END = b"i", b"e"  # the first keys behind all heads and all bodies
_FORMAT, _TOTALS, _CAS, _FLUSH = b"mformat", b"mtotals", b"mcas", b"mflush"

_HEAD_FIELDS = struct.Struct(">IQQQQ")
_BODY_FIELDS = struct.Struct(">IQQ")
_TOTALS_FIELDS = struct.Struct(">QQ")
_NUMBER = struct.Struct(">Q")


class Item(NamedTuple):
    """What a get answers."""

    flags: int
    expiry: int
    cas: int
    data: memoryview


class Head(NamedTuple):
    """All that is known of an item without its body."""

    flags: int
    expiry: int
    cas: int
    time: int
    size: int
    header: bytes  # the record's prefix and header; empty if the value isn't a record


class Store:
    """An open data directory. One thread calls it, but for ``sync``, which may run in another meanwhile.

    Where RocksDB fails a read, its exception comes through (and ``read_errors`` counts it): a failure is never a miss.
    Where it fails a write, nothing has changed for later reads, and OutOfSpace or its exception comes through.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time, *, recover: bool = False) -> None:
        """Open ``directory``, made if it isn't there. Raises ConfigError; ``recover`` as ``opening`` has it."""
        self.directory = directory
        self.clock = clock
        self.read_errors = 0
        self.write_errors = 0
        self.unsynced = False  # whether something was written since the last sync began
        self._suspect = False  # whether the write-ahead log may have lost what a failed sync was to make durable
        with contextlib.ExitStack() as undo, _saying_why(directory):
            _make(directory)
            self._lock = opening.Lock(directory)
            undo.callback(self._lock.release)
            self._db = opening.open_checked(directory, partial(_open_in, directory), recover=recover)
            undo.callback(self._db.close)
            self._load()
            if recover:
                self._recount()
            self._mark = opening.Mark(directory)
            undo.pop_all()

    def _load(self) -> None:
        if self._db.get(_FORMAT) is None and self._is_empty():
            self._db.put(_FORMAT, LAYOUT)
        layout = self._db.get(_FORMAT)
        if layout != LAYOUT:
            raise ConfigError(_why_not_this_layout(self.directory, layout))
        self.items, self.bytes = _TOTALS_FIELDS.unpack(self._db.get(_TOTALS) or bytes(_TOTALS_FIELDS.size))
        self._flush_at = self._number(_FLUSH)
        # All versions up to the bound may have been given; the clock may since have gone back, the bound has not.
        self._last_cas = self._number(_CAS)
        self._cas_bound = max(self._last_cas, int(self.clock() * 1e6)) + CAS_LEASE
        self._db.put(_CAS, _NUMBER.pack(self._cas_bound))
        self._db.flush_wal(True)

    def _recount(self) -> None:
        """Count the items, and what they come to, from their heads: changes are missing, and so are their totals."""
        items = size = 0
        iterator = self._db.iter()
        iterator.seek(_HEAD)
        while iterator.valid() and iterator.key() < _HEADS_END:
            items += 1
            size += _HEAD_FIELDS.unpack_from(iterator.value())[4]
            iterator.next()
        iterator.status()  # raises what ended it early
        self._write(WriteBatch(raw_mode=True), items, size)

    def _is_empty(self) -> bool:
        iterator = self._db.iter()
        iterator.seek_to_first()
        return not iterator.valid()

    def _number(self, name: bytes) -> int:
        stored = self._db.get(name)
        return int(_NUMBER.unpack(stored)[0]) if stored else 0

    # --- reading ---

    def get(self, key: bytes) -> Item | None:
        """The item, read in one go; None if there is none, or no more."""
        if self._flush_at and self._all_gone():
            return None
        entry = self._read(_BODY + key)
        if entry is None:
            return None
        flags, expiry, cas = _BODY_FIELDS.unpack_from(entry)
        if expiry and expiry <= self.clock():
            self.head(key)
            return None
        return Item(flags, expiry, cas, memoryview(entry)[_BODY_FIELDS.size :])

    def head(self, key: bytes) -> Head | None:
        """What is known of the item without its body, which is not read; None if there is none, or no more."""
        if self._flush_at and self._all_gone():
            return None
        head = _parse_head(self._read(_HEAD + key))
        if head is None or not self._expired(head.expiry):
            return head
        # A full disk must not turn reads into errors: what has expired is gone even while it can't be removed.
        with contextlib.suppress(Exception):  # counted where it was raised
            self.remove(key, head)
        return None

    def heads(self, start: bytes, end: bytes, count: int) -> list[tuple[bytes, Head]]:
        """Keys and heads from ``start`` on, below ``end`` (empty: to the last), in key order; no body is read.

        At most ``count``, and fewer where headers are long (HEADS); there are none left only if the answer is empty.
        What has expired and was not removed yet is among them. Nothing stays open: go on behind the last key.
        """
        if self._flush_at and self._all_gone():
            return []
        reading = _walking()
        reading.set_iterate_upper_bound(_HEAD + end if end else _HEADS_END)
        found: list[tuple[bytes, Head]] = []
        size = 0
        try:
            iterator = self._db.iter(reading)
            iterator.seek(_HEAD + start)
            while iterator.valid() and len(found) < count and size < HEADS:
                entry = iterator.value()
                found.append((iterator.key()[len(_HEAD) :], _head(entry)))
                size += len(entry)
                iterator.next()
            iterator.status()  # an iterator that fails looks like one that has come to the end
        except Exception:
            self.read_errors += 1
            raise
        return found

    def claim(self, key: bytes) -> Head | None:
        """``head`` for a writer, whose ``put`` or ``remove`` needs it: what has expired is removed, or this fails."""
        self.settle()
        head = _parse_head(self._read(_HEAD + key))
        if head is not None and self._expired(head.expiry):
            self.remove(key, head)
            return None
        return head

    def _all_gone(self) -> bool:
        """Whether a delayed flush_all is due and can't be carried out: nothing is there then, whatever can be read."""
        with contextlib.suppress(Exception):
            self.settle()
            return False
        return True

    def _read(self, key: bytes) -> bytes | None:
        try:
            entry: bytes | None = self._db.get(key)
        except Exception:
            self.read_errors += 1
            raise
        return entry

    def _expired(self, expiry: int) -> bool:
        return expiry != 0 and expiry <= self.clock()

    def engine(self, name: str) -> str | None:
        """A figure of RocksDB's: its property ``rocksdb.<name>``; None if it has none."""
        return self._db.property_value(f"rocksdb.{name}")

    # --- writing ---

    def put(self, key: bytes, flags: int, expiry: int, data: bytes, old: Head | None) -> None:
        """Keep ``data`` under ``key``; ``old`` is what ``claim`` has just said of the key.

        An ``expiry`` that is past leaves the key empty.
        """
        now = self.clock()
        if expiry and expiry <= now:
            if old is not None:
                self.remove(key, old)
            return
        batch = WriteBatch(raw_mode=True)
        cas, bound = self._next_cas(now, batch)
        end = record.header_end(data)
        header = data[:end] if end is not None and end <= len(data) else b""
        batch.put(_HEAD + key, _HEAD_FIELDS.pack(flags, expiry, cas, int(now * 1e6), len(data)) + header)
        batch.put(_BODY + key, _BODY_FIELDS.pack(flags, expiry, cas) + data)
        if old is None:
            self._write(batch, self.items + 1, self.bytes + len(data))
        else:
            self._write(batch, self.items, self.bytes + len(data) - old.size)
        self._cas_bound = bound

    def remove(self, key: bytes, old: Head) -> None:
        """Remove the item that ``claim`` has just told of."""
        batch = WriteBatch(raw_mode=True)
        batch.delete(_HEAD + key)
        batch.delete(_BODY + key)
        self._write(batch, self.items - 1, self.bytes - old.size)

    def touch(self, key: bytes, expiry: int) -> Item | None:
        """Give the item another ``expiry`` and return it; None if there is none.

        The body is written anew, for it holds the expiry that a get goes by. The version (cas) stays, as in memcached.
        """
        old, item = self.claim(key), self.get(key)
        if old is None or item is None:
            return None
        if self._expired(expiry):
            self.remove(key, old)
        elif expiry != item.expiry:
            batch = WriteBatch(raw_mode=True)
            head = _HEAD_FIELDS.pack(old.flags, expiry, old.cas, old.time, old.size) + old.header
            batch.put(_HEAD + key, head)
            batch.put(_BODY + key, _BODY_FIELDS.pack(item.flags, expiry, item.cas) + item.data)
            self._write(batch, self.items, self.bytes)
        return item

    def flush_all(self, at: int = 0) -> None:
        """Remove every item, or all that will be there ``at`` that second; a call undoes an earlier one's delay."""
        batch = WriteBatch(raw_mode=True)
        if at > self.clock():
            batch.put(_FLUSH, _NUMBER.pack(at))
            self._write(batch, self.items, self.bytes)
            self._flush_at = at
            return
        batch.delete_range(_HEAD, _HEADS_END)
        batch.delete_range(_BODY, _BODIES_END)
        batch.delete(_FLUSH)
        self._write(batch, 0, 0)
        self._flush_at = 0

    def settle(self) -> None:
        """Carry out a delayed flush_all that is due. Before every command, so that none sees, or adds to, the past."""
        if self._flush_at and self._flush_at <= self.clock():
            self.flush_all()

    def _next_cas(self, now: float, batch: WriteBatch) -> tuple[int, int]:
        """A version no item ever had, and the bound once ``batch`` is written: raised while half a lease is left."""
        cas = self._last_cas = max(self._last_cas + 1, int(now * 1e6))
        bound = self._cas_bound
        if cas + CAS_LEASE // 2 > bound:
            bound = cas + CAS_LEASE
            batch.put(_CAS, _NUMBER.pack(bound))
        return cas, bound

    def _write(self, batch: WriteBatch, items: int, size: int) -> None:
        batch.put(_TOTALS, _TOTALS_FIELDS.pack(items, size))
        try:
            self._db.write(batch)
        except Exception as error:
            # RocksDB writes its log first and the memtable after, so readers don't see the change. It may all the same
            # lie in the log, and be there after a restart: a failed write's outcome is unknown until then, but whole.
            self.write_errors += 1
            if "No space left" in str(error):
                raise OutOfSpace("out of space storing object") from error
            raise
        self.items, self.bytes = items, size
        self.unsynced = True

    # --- durability ---

    def sync(self) -> None:
        """Make durable all that was written before this call. May run in another thread; the GIL is free meanwhile.

        After a failure nobody knows what of the log reached the disk: the kernel may have dropped the pages and will
        call the next fsync of the same file good. The changes are in the memtable still, so the next sync writes that
        out as tables, fsynced on their own, before it trusts a log again; until it succeeds, each sync fails. What a
        failed sync covered was not acknowledged; readers see it, and a crash may or may not undo it, each change whole.
        """
        reached = self._db.latest_sequence_number()
        try:
            if self._suspect:
                self._db.flush(True)
            self._db.flush_wal(True)
        except BaseException as error:
            self._suspect = self.unsynced = True
            if "No space left" in str(error):
                raise OutOfSpace("out of space storing object") from error
            raise
        self._suspect = False
        self._mark.advance(reached)

    def checkpoint(self, path: Path) -> None:
        """Make, at a ``path`` on this file system that isn't there, the directory as it is now. Runs where syncs run.

        Tables and blob files are links: it takes the time of writing out what is in memory, and no space at first.
        """
        reached = self._db.latest_sequence_number()
        self._db.flush(True)  # which lets the loop go on; the rest doesn't, and then has little to write
        Checkpoint(self._db).create_checkpoint(str(path))
        (path / opening.MARK_FILE).write_bytes(opening.mark(reached))

    def close(self) -> None:
        """Write everything out, so that the next open has nothing to replay, and let go of the directory."""
        with contextlib.ExitStack() as after:
            after.callback(self._lock.release)
            after.callback(self._mark.close)
            after.callback(self._db.close)
            self._db.put(_CAS, _NUMBER.pack(self._last_cas))  # the rest of the lease was not used
            reached = self._db.latest_sequence_number()
            self._db.flush(True)
            self._mark.advance(reached, now=True)


def _parse_head(entry: bytes | None) -> Head | None:
    return None if entry is None else _head(entry)


def _head(entry: bytes) -> Head:
    flags, expiry, cas, written, size = _HEAD_FIELDS.unpack_from(entry)
    return Head(flags, expiry, cas, written, size, entry[_HEAD_FIELDS.size :])


# --- looking ---


def _walking() -> ReadOptions:
    """How a walk reads: checked, and without emptying the cache of what clients ask for."""
    reading = ReadOptions()
    reading.set_verify_checksums(True)
    reading.fill_cache(False)  # type: ignore[call-arg]  # the stub forgets it
    return reading


class Cursor:
    """A walk over all heads or all bodies in key order, past what can't be read. ``seek`` and ``next`` may raise."""

    def __init__(self, db: Rdict, prefix: bytes) -> None:
        self._iterator = db.iter(_walking())
        self._prefix = prefix
        self.key: bytes | None = None  # where it is; None behind the last
        self.entry = b""

    def seek(self, key: bytes) -> None:
        """Go to the first entry from ``key`` on."""
        self.key = None
        self._iterator.seek(self._prefix + key)
        self._take()

    def next(self) -> None:
        self._iterator.next()
        self._take()

    def _take(self) -> None:
        self.key = None
        if not self._iterator.valid():
            self._iterator.status()  # raises what ended it early
            return
        key = self._iterator.key()
        if key.startswith(self._prefix):
            self.key, self.entry = key[len(self._prefix) :], self._iterator.value()


class Look:
    """A data directory opened to be read and not changed, by whoever verifies it. Raises ConfigError."""

    def __init__(self, directory: Path) -> None:
        with contextlib.ExitStack() as undo, _saying_why(directory):
            if not (directory / "CURRENT").exists():
                raise ConfigError(f"{directory} is not a data directory, or damaged: it has no file CURRENT")
            self._lock = opening.Lock(directory)
            undo.callback(self._lock.release)
            self.missing = opening.look(directory, partial(_open_in, directory))  # in words; None if nothing is
            self._db = _open_in(directory, Replay.LOOK)
            undo.callback(self._db.close)
            layout = self._db.get(_FORMAT)
            if layout != LAYOUT:
                raise ConfigError(_why_not_this_layout(directory, layout))
            self.items, self.bytes = _TOTALS_FIELDS.unpack(self._db.get(_TOTALS) or bytes(_TOTALS_FIELDS.size))
            undo.pop_all()

    def heads(self) -> Cursor:
        return Cursor(self._db, _HEAD)

    def bodies(self) -> Cursor:
        return Cursor(self._db, _BODY)

    def close(self) -> None:
        self._db.close()
        self._lock.release()


def parse(head: bytes, body: bytes) -> tuple[Head, Item]:
    """What the two entries of an item say. Raises ValueError if one is too short."""
    try:
        flags, expiry, cas = _BODY_FIELDS.unpack_from(body)
        return _head(head), Item(flags, expiry, cas, memoryview(body)[_BODY_FIELDS.size :])
    except struct.error:
        raise ValueError("an entry is shorter than its fields") from None


# --- opening ---


@contextlib.contextmanager
def _saying_why(directory: Path) -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(_why_not_open(directory, error)) from error


def _open_in(directory: Path, replay: Replay) -> Rdict:
    options = _options()
    options.set_wal_recovery_mode(_REPLAY[replay]())
    if replay in (Replay.LOOK, Replay.LOOK_WHOLE):
        db = Rdict(str(directory), options, access_type=AccessType.read_only(error_if_log_file_exist=False))
    else:
        db = Rdict(str(directory), options)
    reading = ReadOptions()
    reading.set_verify_checksums(True)
    db.set_read_options(reading)
    return db


# A torn tail is what every power loss leaves. It ends the log: what lies behind was never covered by a sync, which
# ``opening`` has made sure of, or else the order of writes, and with it the totals, would break.
# tolerate_corrupted_tail_records lets garbage in only where the file ends, and a disk's cache leaves it elsewhere too.
_REPLAY = {
    Replay.LOOK_WHOLE: DBRecoveryMode.absolute_consistency,
    Replay.LOOK: DBRecoveryMode.point_in_time,
    Replay.TO_THE_TEAR: DBRecoveryMode.point_in_time,
    Replay.ALL_THAT_HOLDS: DBRecoveryMode.skip_any_corrupted_record,
}


def _make(directory: Path) -> None:
    """Make the directory and its parents, durably: a file is not safe while the directory that names it isn't."""
    if directory.is_dir():
        return
    if not directory.parent.is_dir():
        _make(directory.parent)
    directory.mkdir(exist_ok=True)
    opening.sync_directory(directory.parent)


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_paranoid_checks(True)
    options.set_block_based_table_factory(_tables())
    options.set_compression_type(DBCompressionType.none())
    options.set_write_buffer_size(WRITE_BUFFER)
    options.set_max_write_buffer_number(WRITE_BUFFERS)
    options.set_max_total_wal_size(MAX_TOTAL_WAL)
    options.set_max_open_files(MAX_OPEN_FILES)
    options.set_max_background_jobs(BACKGROUND_JOBS)
    options.set_avoid_unnecessary_blocking_io(True)  # dead files are deleted in the background, not by a client's write
    options.set_keep_log_file_num(INFO_LOGS)
    options.set_max_log_file_size(INFO_LOG)
    options.add_compact_on_deletion_collector_factory(DELETED_WINDOW, DELETED_TRIGGER, DELETED_RATIO)
    options.set_enable_blob_files(True)
    options.set_min_blob_size(MIN_BLOB)
    options.set_blob_file_size(BLOB_FILE)
    options.set_blob_compression_type(DBCompressionType.none())
    options.set_enable_blob_gc(True)
    options.set_blob_gc_age_cutoff(BLOB_GC_AGE)
    options.set_blob_gc_force_threshold(BLOB_GC_FORCE)
    return options


def _tables() -> BlockBasedOptions:
    tables = BlockBasedOptions()
    tables.set_block_cache(Cache(BLOCK_CACHE))
    tables.set_bloom_filter(BLOOM_BITS, False)
    # Indexes and filters count against the cache, or memory would grow with the number of keys.
    tables.set_cache_index_and_filter_blocks(True)
    tables.set_pin_l0_filter_and_index_blocks_in_cache(True)
    return tables


def _why_not_open(directory: Path, error: Exception) -> str:
    what = str(error)
    if isinstance(error, FileExistsError | NotADirectoryError) or directory.is_file():
        return f"the data directory {directory} is not a directory: name another one with --data"
    if "lock file" in what or "lock hold by current process" in what:  # not "block checksum mismatch"
        return opening.in_use(directory)
    if isinstance(error, PermissionError) or "Permission denied" in what:
        return f"the data directory {directory} can't be written: let the user who runs the node own it ({what})"
    if what.startswith(("Corruption", "IO error: No such file")):
        return (
            f"the data directory {directory} is damaged and can't be opened: {what}. Restore it from a backup or from"
            " the other copies"
        )
    return f"the data directory {directory} can't be opened: {what}"


def _why_not_this_layout(directory: Path, layout: bytes | None) -> str:
    if layout is None:
        return f"the data directory {directory} holds a database of another program: name another one with --data"
    return (
        f"the data directory {directory} has the layout '{layout.decode(errors='replace')}', and this version of sfss "
        f"reads '{LAYOUT.decode()}': run the version that wrote it, or name another directory with --data"
    )
