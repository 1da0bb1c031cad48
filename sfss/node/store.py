"""Items in RocksDB: how each change to a data directory is made whole, and how it is read. No sockets, no asyncio.

``entries`` has what lies under which key. Every change is one WriteBatch (head, body, where it is listed as expiring,
totals), so that after a crash it is there whole or not at all, and the totals are right without counting.

What is durable when: a change that returned is in the kernel's hands (it survives ``kill -9``); it is on the disk once
a ``sync`` that began after it has returned. Reads see a change at once.

Nothing here needs to wait for the disk in the thread that serves: ``missing`` says which entries a request needs that
are not in memory; a thread reads them (``read``); then the request finds them there. And while RocksDB is behind with
writing out what it took, ``crowded`` says so before RocksDB would make its caller wait.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from rocksdict import Cache, Checkpoint, WriteBatch

from sfss.errors import ConfigError, OutOfSpace
from sfss.node import engine, entries, opening
from sfss.node.engine import KIB, MIB
from sfss.node.entries import BODY, HEAD, Head, Item, Stored
from sfss.node.memory import UNKNOWN, Entry, Found, Memory, Unknown
from sfss.node.packing import Packing

log = logging.getLogger("sfss.node")

Put = tuple[bytes, int, bytes, bytes | memoryview, Head | None]  # see ``Store.put_all``

LOOK_EVERY = 8  # changes between looks whether RocksDB is behind, while it isn't
HEADS = 256 * KIB  # of heads that one step of a walk may hold at a time ...
BUNCH = 32  # ... and this many more, of which each may have 64 KiB, and hardly any has one
CAS_LEASE = 120 * 1_000_000  # item versions (microseconds) that are reserved on disk ahead of their use

# Memory for what is read, unless told otherwise: a third for the entries that were last read or written, the rest for
# RocksDB's own cache, of heads, small bodies, and every index and filter block.
CACHE = 96 * MIB
LEAST_CACHE = 4 * MIB  # a head must fit whatever its header: what it is read with may take a turn more to come
OWN_SHARE = 3


class Store:
    """An open data directory. One thread calls it, but for ``read`` and ``sync``, which may run in others meanwhile.

    Where RocksDB fails a read, its exception comes through (and ``read_errors`` counts it): a failure is never a miss.
    Where it fails a write, nothing has changed for later reads, and OutOfSpace or its exception comes through.
    """

    def __init__(
        self,
        directory: Path,
        clock: Callable[[], float] = time.time,
        *,
        cache: int = CACHE,
        recover: bool = False,
    ) -> None:
        """Open ``directory``, made if it isn't there, with ``cache`` bytes of memory for what is read.

        Raises ConfigError; ``recover`` as ``opening`` has it.
        """
        if cache < LEAST_CACHE:
            raise ConfigError(f"--cache: {cache} bytes are too few, give at least {LEAST_CACHE // MIB}MiB")
        self.directory = directory
        self.clock = clock
        self.memory = Memory(cache // OWN_SHARE)
        self.packing = Packing()
        self.read_errors = 0
        self.write_errors = 0
        self.changes = 0  # that were written, since the start
        self.flushes = 0  # times that everything was removed, and there was something
        self.unsynced = False  # whether something was written since the last sync began
        self._crowded = False  # when that was last looked at
        self._look_after = 0  # so many changes it is looked at again, at the latest
        self._failing = False  # whether the last write failed
        self._suspect = False  # whether the write-ahead log may have lost what a failed sync was to make durable
        self._due_from = entries.EXPIRY  # nothing is listed as expiring before this key, but what can't be removed
        with contextlib.ExitStack() as undo, engine.saying_why(directory):
            engine.make(directory)
            self._lock = opening.Lock(directory)
            undo.callback(self._lock.release)
            self._open_in = partial(engine.open_in, directory, Cache(cache - self.memory.limit))
            self._db = opening.open_checked(directory, self._open_in, recover=recover)
            undo.callback(engine.close_quietly, self._db)
            self._load(recover=recover)
            self._mark = opening.Mark(directory)
            undo.pop_all()

    def _load(self, *, recover: bool) -> None:
        if self._db.get(entries.FORMAT) is None and self._is_empty():
            self._db.put(entries.FORMAT, entries.LAYOUT)
        layout = self._db.get(entries.FORMAT)
        if layout not in (entries.LAYOUT, entries.WITHOUT_EXPIRIES):
            raise ConfigError(engine.why_not_this_layout(self.directory, layout))
        self.items, self.bytes = entries.read_totals(self._db.get(entries.TOTALS))
        self._flush_at = entries.number(self._db.get(entries.FLUSH))
        # All versions up to the bound may have been given; the clock may since have gone back, the bound has not.
        self._last_cas = entries.number(self._db.get(entries.CAS))
        self._cas_bound = max(self._last_cas, int(self.clock() * 1e6)) + CAS_LEASE
        self._db.put(entries.CAS, entries.packed(self._cas_bound))
        if recover or layout == entries.WITHOUT_EXPIRIES:
            self._recount()
            self._db.put(entries.FORMAT, entries.LAYOUT)
        self._db.flush_wal(True)

    def _recount(self) -> None:
        """Count the items, and list what expires, from their heads: changes are missing, and so are their totals."""
        items = size = 0
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(entries.EXPIRY, entries.EXPIRIES_END)
        iterator = self._db.iter(engine.walking())
        iterator.seek(HEAD)
        while iterator.valid() and iterator.key() < entries.HEADS_END:
            head = entries.read_head(iterator.value())
            items += 1
            size += head.size
            if head.expiry:
                batch.put(entries.expiry_key(head.expiry, iterator.key()[len(HEAD) :]), entries.packed(head.size))
            if batch.size_in_bytes() > MIB:
                self._db.write(batch)
                batch = WriteBatch(raw_mode=True)
            iterator.next()
        iterator.status()  # raises what ended it early
        self._write(batch, items, size)

    def _is_empty(self) -> bool:
        iterator = self._db.iter()
        iterator.seek_to_first()
        return not iterator.valid()

    # --- what a request needs ---

    def missing(self, needs: Iterable[bytes]) -> list[bytes]:
        """Those of these entries that have to be read from the disk: not in memory, and perhaps there."""
        missing = []
        memory = self.memory
        for key in needs:
            if key in memory.entries or key in memory.brought or key in memory.absent:
                continue
            if self._db.key_may_exist(key):
                missing.append(key)
            else:
                memory.note_absent(key)
        return missing

    def at_hand(self, key: bytes) -> Found | Unknown:
        """The entry, as far as it is known without the disk, or what has failed its read; else UNKNOWN."""
        found = self.memory.find(key)
        if found is UNKNOWN and not self._db.key_may_exist(key):
            self.memory.note_absent(key)
            return None
        return found

    def read(self, keys: list[bytes]) -> list[Found]:
        """What lies under these keys, each with its own failure. Runs in any thread; the GIL is free meanwhile."""
        try:
            return self._read_at_once(keys)
        except Exception as error:  # noqa: BLE001  whatever RocksDB raises for one of them
            if len(keys) == 1:
                return [error]
            return [self.read([key])[0] for key in keys]

    def _read_at_once(self, keys: list[bytes]) -> list[Found]:
        found: list[Found] = self._db.get(keys)  # type: ignore[arg-type, assignment]  # of a list it is a list
        return found

    def crowded(self) -> bool:
        """Whether changes should wait until RocksDB has written out more of what it took.

        Not after a change that failed: the next one shall fail too, or find that there is room again.
        """
        if self._crowded or self.changes % LOOK_EVERY == 0 or self.changes > self._look_after:
            self._crowded = self._is_crowded()
            self._look_after = self.changes + LOOK_EVERY
        return self._crowded and not self._failing

    def _is_crowded(self) -> bool:
        return (
            self.figure("num-immutable-mem-table") >= engine.CROWDED_MEMTABLES
            or int(self.engine("num-files-at-level0") or 0) >= engine.CROWDED_TABLES
        )

    # --- reading ---

    @property
    def awaits_flush(self) -> bool:
        """Whether a delayed flush_all is to be carried out some time: any command looks, then, if it is due."""
        return bool(self._flush_at)

    def get(self, key: bytes) -> Item | None:
        """The item, read in one go; None if there is none, or no more."""
        if self._flush_at and self._all_gone():
            return None
        entry = self._read(BODY + key)
        if entry is None:
            return None
        item = entries.read_body(entry)
        return None if self._expired(item.expiry) else item

    def head(self, key: bytes) -> Head | None:
        """What is known of the item without its body, which is not read; None if there is none, or no more."""
        if self._flush_at and self._all_gone():
            return None
        entry = self._read(HEAD + key)
        if entry is None:
            return None
        head = entries.read_head(entry)
        return None if self._expired(head.expiry) else head

    def heads(self, start: bytes, end: bytes, count: int) -> list[tuple[bytes, Head]]:
        """Keys and heads from ``start`` on, below ``end`` (empty: to the last), in key order; no body is read.

        At most ``count``, and fewer where headers are long (HEADS); there are none left only if the answer is empty.
        What has expired and was not removed yet is among them. Nothing stays open: go on behind the last key.
        """
        return [(key[len(HEAD) :], entries.read_head(entry)) for key, entry in self.stored_heads(start, end, count)]

    def stored_heads(self, start: bytes, end: bytes, count: int) -> Stored:
        """The same as ``entries`` has it, the keys too: for those who read millions."""
        if self._flush_at and self._all_gone():
            return []
        found: Stored = []
        size = 0
        for bunch in self._walk_in_bunches(HEAD + start, HEAD + end if end else entries.HEADS_END, count):
            found += bunch
            size += sum([len(entry) for _, entry in bunch])
            if len(found) >= count or size >= HEADS:
                break
        while found and size - len(found[-1][1]) >= HEADS:  # as few as reach it
            size -= len(found.pop()[1])
        return found[:count]

    def claim(self, key: bytes) -> Head | None:
        """``head`` for a writer, whose ``put`` or ``remove`` needs it: what has expired is removed, or this fails."""
        self.settle()
        entry = self._read(HEAD + key)
        if entry is None:
            return None
        head = entries.read_head(entry)
        if self._expired(head.expiry):
            self.remove(key, head)
            return None
        return head

    def _all_gone(self) -> bool:
        """Whether a delayed flush_all is due and can't be carried out: nothing is there then, whatever can be read."""
        with contextlib.suppress(Exception):
            self.settle()
            return False
        return True

    def _read(self, key: bytes) -> Entry:
        """The entry, from memory or else from the disk. Raises what has failed the read."""
        found = self.memory.find(key)
        if found is UNKNOWN:
            try:
                found = self._db.get(key)
            except Exception:
                self.read_errors += 1
                raise
            self.memory.keep(key, found)
        elif isinstance(found, Exception):
            self.read_errors += 1
            raise found
        return found

    def _walk_in_bunches(self, start: bytes, end: bytes, count: int) -> Iterator[Stored]:
        """What ``_walk`` gives, in two thirds of the time; at least ``count``, if there are so many."""
        size = min(count, BUNCH)
        if size == BUNCH:
            try:
                items = self._db.items(from_key=start, read_opt=engine.walking(end))
                while bunch := cast(Stored, list(itertools.islice(items, size))):
                    yield bunch
                    start = bunch[-1][0] + b"\0"
            except Exception:
                self.read_errors += 1
                raise
        walk = self._walk(start, end)  # for that ended without a word if it failed, and this raises
        while bunch := list(itertools.islice(walk, size)):
            yield bunch

    def _walk(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and entries in order, from ``start`` on and below ``end``."""
        try:
            iterator = self._db.iter(engine.walking(end))
            iterator.seek(start)
            while iterator.valid():
                yield iterator.key(), iterator.value()
                iterator.next()
            iterator.status()  # an iterator that fails looks like one that has come to the end
        except Exception:
            self.read_errors += 1
            raise

    def _expired(self, expiry: int) -> bool:
        return expiry != 0 and expiry <= self.clock()

    def engine(self, name: str) -> str | None:
        """A figure of RocksDB's: its property ``rocksdb.<name>``; None if it has none."""
        return self._db.property_value(f"rocksdb.{name}")

    def figure(self, name: str) -> int:
        """The same as a number; 0 if it has none."""
        return self._db.property_int_value(f"rocksdb.{name}") or 0

    def steer(self, options: dict[str, str]) -> None:
        """Change some of RocksDB's options while it runs. Takes some milliseconds, and holds up everybody meanwhile."""
        self._db.set_options(options)

    def write_out(self) -> None:
        """Write what is in memory to tables. Takes its time; runs in any thread."""
        self._db.flush(True)

    # --- writing ---

    def put(self, key: bytes, flags: int, expiry: int, data: bytes, old: Head | None, *, marks: int = 0) -> None:
        """Keep ``data`` under ``key``; ``old`` is what ``claim`` has just said of the key.

        An ``expiry`` that is past leaves the key empty.
        """
        now = self.clock()
        if expiry and expiry <= now:
            if old is not None:
                self.remove(key, old)
            return
        head = Head(flags, expiry, self._next_cas(now), int(now * 1e6), len(data), entries.header_of(data), marks)
        self._keep([(key, head, data, old)])

    def put_all(self, puts: Sequence[Put]) -> None:
        """Keep all of these, which never expire, in one change: all or none.

        Of each: the key, which is no other's; flags; the record's prefix and header (``entries.header_of``); the value;
        and what lies under the key now, which never expires either.
        """
        if puts:
            now = self.clock()
            time = int(now * 1e6)
            self._keep([
                (key, Head(flags, 0, self._next_cas(now), time, len(data), header), data, old)
                for key, flags, header, data, old in puts
            ])  # fmt: skip

    def amend(
        self, key: bytes, old: Head, *, expiry: int | None = None, marks: int | None = None, bump: bool = False
    ) -> None:
        """Change what is said of the item that ``claim`` has just told of; ``bump``: and give it a new version.

        Its value and its time stay. The body is written anew, for it holds what a get goes by.
        """
        item = self.get(key)
        if item is None:  # its time has come since
            return
        if expiry is not None and self._expired(expiry):
            self.remove(key, old)
            return
        head = old._replace(
            expiry=old.expiry if expiry is None else expiry,
            marks=old.marks if marks is None else marks,
            cas=self._next_cas(self.clock()) if bump else old.cas,
        )
        if head != old:
            self._keep([(key, head, item.data, old)])

    def touch(self, key: bytes, expiry: int) -> Item | None:
        """Give the item another ``expiry`` and return it as it was; None if there is none.

        The version (cas) stays, as in memcached.
        """
        old, item = self.claim(key), self.get(key)
        if old is None or item is None:
            return None
        self.amend(key, old, expiry=expiry)
        return item

    def remove(self, key: bytes, old: Head) -> None:
        """Remove the item that ``claim`` has just told of."""
        batch = WriteBatch(raw_mode=True)
        self._delete(batch, key, old.expiry)
        self._write(batch, self.items - 1, self.bytes - old.size)
        self._forget(key)

    def flush_all(self, at: int = 0) -> None:
        """Remove every item, or all that will be there ``at`` that second; a call undoes an earlier one's delay."""
        batch = WriteBatch(raw_mode=True)
        if at > self.clock():
            batch.put(entries.FLUSH, entries.packed(at))
            self._write(batch, self.items, self.bytes)
            self._flush_at = at
            return
        if self.items:  # a range that is deleted makes reads slower until it is written out; many, by much
            batch.delete_range(HEAD, entries.HEADS_END)
            batch.delete_range(BODY, entries.BODIES_END)
            batch.delete_range(entries.EXPIRY, entries.EXPIRIES_END)
            self.flushes += 1
        batch.delete(entries.FLUSH)
        self._write(batch, 0, 0)
        self.memory.clear()
        self._flush_at = 0

    def settle(self) -> None:
        """Carry out a delayed flush_all that is due. Before every command, so that none sees, or adds to, the past."""
        if self._flush_at and self._flush_at <= self.clock():
            self.flush_all()

    def _next_cas(self, now: float) -> int:
        """A version no item ever had."""
        self._last_cas = max(self._last_cas + 1, int(now * 1e6))
        return self._last_cas

    def _keep(self, puts: Sequence[tuple[bytes, Head, bytes | memoryview, Head | None]]) -> None:
        """Keys, heads, values, and what is there now; of each key one."""
        batch = WriteBatch(raw_mode=True)
        items, size, bound = self.items, self.bytes, self._cas_bound
        heads: Stored = []
        bodies: Stored = []
        for key, head, data, old in puts:
            heads.append((HEAD + key, entries.head_entry(head)))
            bodies.append((BODY + key, entries.body_entry(head, data)))
            batch.put(*heads[-1])
            if head.size >= engine.MIN_BLOB:
                self.packing.saw(data)
            if old is not None and old.expiry not in (0, head.expiry):
                batch.delete(entries.expiry_key(old.expiry, key))
            if head.expiry:
                listed = entries.expiry_key(head.expiry, key)
                batch.put(listed, entries.packed(head.size))
                self._due_from = min(self._due_from, listed)
            if old is None:
                items += 1
            else:
                size -= old.size
            size += head.size
        if head.cas + CAS_LEASE // 2 > bound:  # raised while half a lease is left
            bound = head.cas + CAS_LEASE
            batch.put(entries.CAS, entries.packed(bound))
        self._write(batch, items, size, bodies)
        self._cas_bound = bound
        for entry in (*heads, *bodies):
            self.memory.wrote(*entry)

    def _delete(self, batch: WriteBatch, key: bytes, expiry: int) -> None:
        batch.delete(HEAD + key)
        batch.delete(BODY + key)
        if expiry:
            batch.delete(entries.expiry_key(expiry, key))

    def _forget(self, key: bytes) -> None:
        self.memory.wrote(HEAD + key, None)
        self.memory.wrote(BODY + key, None)

    def _write(self, batch: WriteBatch, items: int, size: int, bodies: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Carry out the batch, with new totals, and ``bodies``: last, or what follows would move them."""
        batch.put(entries.TOTALS, entries.totals(items, size))
        for key, entry in bodies:
            batch.put(key, entry)
        try:
            self._db.write(batch)
        except Exception as error:
            # RocksDB writes its log first and the memtable after, so readers don't see the change. It may all the same
            # lie in the log, and be there after a restart: a failed write's outcome is unknown until then, but whole.
            self.write_errors += 1
            self._failing = True
            self._raise_if_full(error)
            raise
        self.items, self.bytes = items, size
        self.changes += len(bodies) or 1
        self.unsynced = True
        self._failing = False

    # --- after failures ---

    @property
    def failing(self) -> bool:
        """Whether the last change, or the last sync, has failed."""
        return self._failing or self._suspect

    def has_room(self) -> bool:
        """Whether there is as much room as RocksDB needs to go on."""
        disk = os.statvfs(self.directory)
        return disk.f_bavail * disk.f_frsize > 2 * engine.WRITE_BUFFER

    def _raise_if_full(self, error: BaseException) -> None:
        """Say it so if it is the disk that is full; RocksDB itself says it once, and then that there was an error."""
        if "No space left" in str(error) or not self.has_room():
            raise OutOfSpace("out of space storing object") from error

    def probe(self) -> None:
        """Make a change that changes nothing. Raises what ``put`` may."""
        self._write(WriteBatch(raw_mode=True), self.items, self.bytes)

    def reopen(self) -> None:
        """Open the database anew, as a start would: RocksDB doesn't always come back from a full disk by itself.

        Nobody may read or sync meanwhile. Nothing that was acknowledged is lost; what wasn't may be. Raises ConfigError
        if it can't be opened; everything fails then until it can.
        """
        self.memory.clear()
        with contextlib.suppress(Exception):  # a write that is refused already, or closed before
            self._db.close()
        with engine.saying_why(self.directory):
            self._db = opening.open_checked(self.directory, self._open_in)
        self._load(recover=False)
        self._failing = self._suspect = False

    # --- what has expired ---

    def due(self, count: int) -> list[tuple[int, bytes]]:
        """Expiries and keys of items that are over, the earliest first, at most ``count``. For ``expire``.

        Each is told of once, and again if ``expire`` fails or the item is given an expiry anew.
        """
        end = entries.expiry_key(int(self.clock()) + 1, b"")
        if self._due_from >= end:
            return []
        found: list[tuple[int, bytes]] = []
        behind = end
        for listed, entry in self._walk(self._due_from, end):
            found.append(entries.read_expiry(listed, entry)[:2])
            if len(found) == count:
                behind = listed + b"\0"
                break
        # Where these lay, RocksDB has to step over their remains: the next search begins behind them.
        self._due_from = behind
        return found

    def expire(self, due: Sequence[tuple[int, bytes]]) -> None:
        """Remove the items that ``due`` has told of, unless they were changed since; it needs their heads.

        One whose head can't be read stays, as dead as before, and is not told of again until the next start.
        """
        batch = WriteBatch(raw_mode=True)
        items, size = self.items, self.bytes
        gone = []
        for expiry, key in due:
            try:
                entry = self._read(HEAD + key)
                head = entries.read_head(entry) if entry is not None else None
            except Exception:  # noqa: BLE001, S112  counted; the others must not stay for it
                continue
            if head is None or head.expiry != expiry:
                batch.delete(entries.expiry_key(expiry, key))
            else:
                self._delete(batch, key, expiry)
                gone.append(key)
                items, size = items - 1, size - head.size
        try:
            self._write(batch, items, size)
        except Exception:
            self._due_from = min(self._due_from, entries.expiry_key(*due[0]))
            raise
        for key in gone:
            self._forget(key)

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
            self._raise_if_full(error)
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
            self._db.put(entries.CAS, entries.packed(self._last_cas))  # the rest of the lease was not used
            reached = self._db.latest_sequence_number()
            self._db.flush(True)
            self._mark.advance(reached, now=True)
