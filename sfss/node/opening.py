"""Opening a data directory so that nothing that was acknowledged can be missing unnoticed. Knows files, not RocksDB.

RocksDB plays its write-ahead log back up to the first record that is torn or fails its checksum, and drops what lies
behind. After a power loss that is right: a torn record was never covered by a sync. After damage in the middle it would
drop acknowledged changes in silence, and the log alone can't tell the two apart. So can't a MANIFEST that is cut short.

Hence the *mark*: after each sync the store writes, into the file ``SYNCED`` beside the database, the number of the last
change that the sync covered (RocksDB's sequence number). A directory is first *looked at*, opened for reading only,
which changes nothing; when that doesn't reach the mark it is refused, and still whole for whoever is to save it.
``recover`` opens it all the same: every record that passes its checksum is played back, the files as they were are kept
in a directory within, and the store counts its items anew.

The mark is written without a sync of its own, and synced once a second at most: it never claims more than is on the
disk; it is exact however the process ended, and at most MARK_EVERY and a little behind after the power failed.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import logging
import mmap
import os
import re
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import xxhash

from sfss.errors import ConfigError
from sfss.node import logs, manifest

log = logging.getLogger("sfss.node")

MARK_FILE = "SYNCED"
MARK_EVERY = 1.0  # seconds between syncs of the mark: one more flush of the disk a second, while there are writes
KEPT = "damaged-%d"  # where ``recover`` keeps what it found: seconds since the epoch

_MARK = re.compile(rb"(sfss-synced 1 ([0-9]{20})) ([0-9a-f]{16})\n")
_OURS = re.compile(r"SYNCED|[0-9]+\.(sst|blob|log)|MANIFEST-(?!0*1$)[0-9]+")  # more than a first start that died leaves


_BLOCK = 32 * 1024  # of RocksDB's logs: no record reaches across its end
_RECORD = struct.Struct("<4xHB")  # a record's checksum, length and kind
_RECYCLABLE = range(5, 9)
_ANOTHER_KIND = 255


class Replay(enum.Enum):
    """How the write-ahead log is to be played back."""

    LOOK_WHOLE = enum.auto()  # for reading only; a record that is torn or damaged is an error
    LOOK = enum.auto()  # for reading only, to the first such record
    TO_THE_TEAR = enum.auto()  # to the first such record
    ALL_THAT_HOLDS = enum.auto()  # every record but those


class Database(Protocol):
    """What is needed of an open database here."""

    def latest_sequence_number(self) -> int: ...

    def close(self) -> None: ...


D = TypeVar("D", bound=Database)


def open_checked(directory: Path, open_in: Callable[[Replay], D], *, recover: bool = False) -> D:
    """What ``open_in`` opens in a locked directory: all that was ever synced, or, to ``recover``, what is left of it.

    Raises ConfigError where changes are missing, and whatever ``open_in`` raises; nothing was changed then.
    """
    if not (directory / "CURRENT").exists():
        _refuse_remains(directory)
        return open_in(Replay.TO_THE_TEAR)
    missing = _look_past_a_torn_end(directory, open_in)
    if not missing:
        _drop_behind_a_hole(directory)
        return open_in(Replay.TO_THE_TEAR)
    if not recover:
        raise ConfigError(f"{missing}. Nothing was changed. Restore the directory from a backup or from the other"
                          " copies, or start once with --recover to go on with what is left")  # fmt: skip
    kept = _keep(directory)
    _defuse(directory)
    log.error("recovering: %s; the files as they were are kept in %s; remove it when all is well", missing, kept)
    db = open_in(Replay.ALL_THAT_HOLDS)
    with contextlib.suppress(FileNotFoundError):
        (directory / MARK_FILE).unlink()  # it speaks of changes that are given up
    return db


def look(directory: Path, open_in: Callable[[Replay], D]) -> str | None:
    """What is missing from the directory, as the beginning of a sentence; None if nothing is. Changes nothing."""
    try:
        synced = read_mark(directory)
    except ValueError:
        return f"the data directory {directory} is damaged: its file {MARK_FILE} can't be read"
    if (why := endless(directory)) is not None:
        return why
    for file in _log_files(directory):
        if file.name.startswith("MANIFEST") and manifest.is_damaged(file.read_bytes()):
            raise ConfigError(f"the data directory {directory} is damaged: the end of {file.name}, which names the"
                              " tables. Nothing was changed. Restore it from a backup or from the other copies"
                              )  # fmt: skip
    torn: object = None
    try:
        db = open_in(Replay.LOOK_WHOLE)
    except Exception as error:
        if not str(error).startswith("Corruption"):
            raise
        torn = error
        db = open_in(Replay.LOOK)
    reached = db.latest_sequence_number()
    db.close()
    hole = logs.hole(directory)
    if hole and hole.last < reached:
        reached, torn = hole.last, torn or f"changes are missing before {hole.offset} of {hole.file.name}"
    if reached < synced:
        why = f" ({torn})" if torn else ""
        return (
            f"the data directory {directory} is damaged: its log ends at change {reached}{why}, but change {synced} had"
            " been acknowledged and synced"
        )
    if torn:
        log.warning("the write-ahead log in %s ends in a torn record, as after a power loss: what follows was never"
                    " synced and is dropped (%s)", directory, torn)  # fmt: skip
    return None


def endless(directory: Path) -> str | None:
    """Why RocksDB would never have opened the directory, as the beginning of a sentence; None if it will."""
    for file in _log_files(directory):
        for offset in recyclable(file):
            return f"the data directory {directory} is damaged: {file.name} has a record of no kind at {offset}"
    return None


def _look_past_a_torn_end(directory: Path, open_in: Callable[[Replay], D]) -> str | None:
    """``look``; where that fails for the end of the MANIFEST, without that. If it is no better, it is put back.

    If the records were never synced, nothing is missing without them. Else something is: tables that had been merged,
    the log that had been written out as a table, or what the mark says.
    """
    try:
        return look(directory, open_in)
    except Exception:
        file = _manifest(directory)
        data = file.read_bytes() if file else b""
        end = manifest.torn_at(data)
        if file is None or end is None:
            raise
        os.truncate(file, end)
        good = False
        try:
            if not logs.follow_the_tables(directory):
                raise
            missing = look(directory, open_in)
            good = missing is None
        finally:
            if not good:
                file.write_bytes(data)
        if good:
            log.warning("the end of %s is torn, as after a power loss: it was never synced and is dropped", file)
        return missing


def _drop_behind_a_hole(directory: Path) -> None:
    """What a power loss has left behind a hole in the logs was never synced, and RocksDB would play it back."""
    hole = logs.hole(directory)
    if hole is None:
        return
    behind = [file for file in logs.live(directory) if int(file.stem) > int(hole.file.stem)]
    for file in reversed(behind):  # the hole's own file last: until then it is found again
        os.truncate(file, 0)
    os.truncate(hole.file, hole.offset)


class Lock:
    """The right to a directory: one process's, and in it one owner's. Raises ConfigError if another has it.

    RocksDB's own lock comes with a database that is opened for writing, and is too late here; and it can't be looked at
    from the process that holds it without being lost (a process's POSIX locks end when it closes any descriptor of the
    file). This one is a flock of the directory itself: nothing is written for it, and it ends with its process.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            if isinstance(error, BlockingIOError):
                raise ConfigError(in_use(directory)) from None
            raise

    def release(self) -> None:
        os.close(self._descriptor)


def in_use(directory: Path) -> str:
    return f"the data directory {directory} is in use by another process: stop that one or name another directory"


def _refuse_remains(directory: Path) -> None:
    """Without CURRENT RocksDB takes a directory for an empty one, and deletes the items that lie in it."""
    found = sorted(file.name for file in directory.iterdir() if _OURS.fullmatch(file.name))
    if found:
        raise ConfigError(
            f"the data directory {directory} is damaged: it holds {found[0]} but no file CURRENT, which names the"
            " MANIFEST. Nothing was changed. Restore it from a backup or from the other copies, or name an empty one"
        )


def _log_files(directory: Path) -> list[Path]:
    """What RocksDB reads record by record when it opens the directory."""
    current = _manifest(directory)
    return [*([current] if current else []), *sorted(directory.glob("[0-9]*.log"))]


def _manifest(directory: Path) -> Path | None:
    """The MANIFEST that CURRENT names, if it names one that is there."""
    current = (directory / "CURRENT").read_bytes().decode("latin-1").strip()
    file = directory / current
    return file if _OURS.fullmatch(current) and file.is_file() else None


def recyclable(file: Path) -> Iterator[int]:
    """Where a log or MANIFEST has a record of a kind that none of ours has: its kind's offset.

    RocksDB's reader (rocksdict 0.3.29) never comes back from one behind the first record: the kinds 5 to 8 are of files
    that are used again, which this store never does, so here one flipped bit makes them.
    """
    if not file.stat().st_size:
        return
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for block in range(0, len(data), _BLOCK):
            position, end = block, min(block + _BLOCK, len(data))
            while position + _RECORD.size <= end:
                length, kind = _RECORD.unpack_from(data, position)
                if kind in _RECYCLABLE:
                    yield position + _RECORD.size - 1
                if kind == length == 0:
                    break
                position += _RECORD.size + length


def _defuse(directory: Path) -> None:
    """Give such records of the logs a kind that fails its checksum, in copies that take the files' place."""
    for file in directory.glob("[0-9]*.log"):
        offsets = list(recyclable(file))
        if offsets:
            data = bytearray(file.read_bytes())
            for offset in offsets:
                data[offset] = _ANOTHER_KIND
            copy = file.with_suffix(".defused")  # RocksDB leaves the name alone
            copy.write_bytes(data)
            copy.replace(file)


def _keep(directory: Path) -> Path:
    """Links to all files as they are, in a directory of their own: RocksDB deletes what it can't make sense of."""
    kept = directory / (KEPT % time.time())
    kept.mkdir()
    for file in list(directory.iterdir()):
        if file.is_file():
            os.link(file, kept / file.name)
    sync_directory(kept)
    return kept


# --- the mark ---


class Mark:
    """The number of the last change that is known to be on the disk. One thread at a time calls it."""

    def __init__(self, directory: Path) -> None:
        """Open the mark of a directory that ``open_checked`` has found good; made if it isn't there."""
        path = directory / MARK_FILE
        new = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._synced = time.monotonic()
        self._failed = False
        if new:
            self.advance(0, now=True)
            sync_directory(directory)

    def advance(self, number: int, *, now: bool = False) -> None:
        """All changes up to ``number`` are on the disk. ``now``: and so shall this be.

        A failure is logged, once, and no more: the changes are safe, only less is known of them after a crash.
        """
        try:
            os.pwrite(self._file, mark(number), 0)
            moment = time.monotonic()
            if now or moment - self._synced >= MARK_EVERY:
                os.fdatasync(self._file)
                self._synced = moment
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.warning(
                    "%s could not be written, so damage of the log may pass for a torn tail: %s; let it write there",
                    MARK_FILE,
                    error,
                )
            self._failed = True

    def close(self) -> None:
        os.close(self._file)


def mark(number: int) -> bytes:
    """The mark's file: one line, always as long, so that it is overwritten in place and in one sector."""
    line = b"sfss-synced 1 %020d" % number
    return b"%b %016x\n" % (line, xxhash.xxh3_64_intdigest(line))


def read_mark(directory: Path) -> int:
    """The number of the last change known to be synced; 0 if none is. Raises ValueError if the mark is damaged."""
    try:
        data = (directory / MARK_FILE).read_bytes()
    except FileNotFoundError:
        return 0
    if not data:  # made, and not yet written when the power failed
        return 0
    match = _MARK.fullmatch(data)
    if match is None or int(match[3], 16) != xxhash.xxh3_64_intdigest(match[1]):
        raise ValueError(f"{MARK_FILE} is damaged")
    return int(match[2])


def sync_directory(directory: Path) -> None:
    """Make durable which names a directory holds: a file is not safe while the directory that names it isn't."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
