"""How RocksDB is set up, opened and walked through; why it can't be opened, in words. What lies in it: ``entries``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
)

from sfss.errors import ConfigError
from sfss.node import entries, opening
from sfss.node.opening import Replay

KIB, MIB = 1024, 1024 * 1024

# Three nodes run on a laptop: with the figures below a node's memory stays under some 200 MiB whatever it holds.
WRITE_BUFFER = 32 * MIB  # a memtable; when full it is written out as one table and one blob file
MAX_TOTAL_WAL = 256 * MIB  # what a start after a crash may have to replay: a second or two
MAX_OPEN_FILES = 1000  # of RocksDB; the rest of a usual limit is for connections
WRITTEN_AT_ONCE = 1 * MIB  # a file being written goes to the disk in such pieces, so that no sync has to wait for a lot
BACKGROUND_JOBS = 2  # flushes and compactions at a time; more would take the cores from the clients
MIN_BLOB = 1 * KIB  # a smaller body is cheaper to move along in the tree than to look up beside it
BLOB_FILE = 64 * MIB  # the unit in which overwritten and deleted bodies give their space back (see ``space``)
# Deleted keys lie in the way of a walk, and take room, until a compaction drops them. So a table is compacted at once
# when of so many neighbours so many are deletions, or that share of all.
DELETED_WINDOW, DELETED_TRIGGER, DELETED_RATIO = 1000, 500, 0.5
INDEX_PIECE = 4 * KIB  # bytes
BLOOM_BITS = 10  # a key: 1 % of look-ups of absent keys reach a data block
INFO_LOG, INFO_LOGS = 4 * MIB, 4  # RocksDB's own LOG: size of a file, and how many are kept

# When so many memtables, or tables of the lowest level, wait to be written out, RocksDB makes its callers wait, and so
# the whole process. The node holds writers back when there are fewer, and goes on reading.
STOP_MEMTABLES, CROWDED_MEMTABLES = 6, 3
STOP_TABLES, CROWDED_TABLES = 40, 10


@contextlib.contextmanager
def saying_why(directory: Path) -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(_why_not_open(directory, error)) from error


def open_in(directory: Path, blocks: Cache, replay: Replay) -> Rdict:
    options = _options(blocks)
    options.set_wal_recovery_mode(_REPLAY[replay]())
    if replay in (Replay.LOOK, Replay.LOOK_WHOLE):
        db = Rdict(str(directory), options, access_type=AccessType.read_only(error_if_log_file_exist=False))
    else:
        db = Rdict(str(directory), options)
    reading = ReadOptions()
    reading.set_verify_checksums(True)
    db.set_read_options(reading)
    return db


def close_quietly(db: Rdict) -> None:
    """Where opening has failed: that is what is to be told, and not that closing fails too, as it may on damage."""
    with contextlib.suppress(Exception):
        db.close()


# A torn tail is what every power loss leaves. It ends the log: what lies behind was never covered by a sync, which
# ``opening`` has made sure of, or else the order of writes, and with it the totals, would break.
# tolerate_corrupted_tail_records lets garbage in only where the file ends, and a disk's cache leaves it elsewhere too.
_REPLAY = {
    Replay.LOOK_WHOLE: DBRecoveryMode.absolute_consistency,
    Replay.LOOK: DBRecoveryMode.point_in_time,
    Replay.TO_THE_TEAR: DBRecoveryMode.point_in_time,
    Replay.ALL_THAT_HOLDS: DBRecoveryMode.skip_any_corrupted_record,
}


def make(directory: Path) -> None:
    """Make the directory and its parents, durably: a file is not safe while the directory that names it isn't."""
    if not directory.is_dir():
        if not directory.parent.is_dir():
            make(directory.parent)
        directory.mkdir(exist_ok=True)
    elif (directory / "CURRENT").exists():
        return
    with contextlib.suppress(PermissionError):  # another's directory, and so not made by us just now
        opening.sync_directory(directory.parent)


def _options(blocks: Cache) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_paranoid_checks(True)
    options.set_block_based_table_factory(_tables(blocks))
    options.set_compression_type(DBCompressionType.none())
    options.set_bottommost_compression_type(DBCompressionType.zstd())  # where nine of ten entries lie
    options.set_write_buffer_size(WRITE_BUFFER)
    options.set_max_write_buffer_number(STOP_MEMTABLES)
    options.set_level_zero_slowdown_writes_trigger(STOP_TABLES)
    options.set_level_zero_stop_writes_trigger(STOP_TABLES)
    options.set_max_total_wal_size(MAX_TOTAL_WAL)
    options.set_max_open_files(MAX_OPEN_FILES)
    options.set_advise_random_on_open(False)  # the kernel then reads ahead of a walk, twice as fast from a cold disk
    options.set_max_background_jobs(BACKGROUND_JOBS)
    # No rate limiter: one that tunes itself goes down to a twentieth of its bound in ten idle seconds, and up by 5 % in
    # each ten. Whoever wrote more waited a second and more for memtables to be written (decision 0019).
    options.set_bytes_per_sync(WRITTEN_AT_ONCE)
    options.set_wal_bytes_per_sync(WRITTEN_AT_ONCE)
    options.set_avoid_unnecessary_blocking_io(True)  # dead files are deleted in the background, not by a client's write
    options.set_keep_log_file_num(INFO_LOGS)
    options.set_max_log_file_size(INFO_LOG)
    options.add_compact_on_deletion_collector_factory(DELETED_WINDOW, DELETED_TRIGGER, DELETED_RATIO)
    options.set_enable_blob_files(True)
    options.set_min_blob_size(MIN_BLOB)
    options.set_blob_file_size(BLOB_FILE)
    # In the background, when a memtable is written out. Text shrinks to a third or less; what is compressed already
    # is left as it is, after a look that costs 1.6 ns a byte, and costs a read nothing.
    options.set_blob_compression_type(DBCompressionType.zstd())
    options.set_enable_blob_gc(False)  # ``space`` switches it on while there is something to collect
    return options


def _tables(blocks: Cache) -> BlockBasedOptions:
    tables = BlockBasedOptions()
    tables.set_block_cache(blocks)
    tables.set_bloom_filter(BLOOM_BITS, False)
    # Indexes and filters count against the cache, or memory would grow with the number of keys.
    tables.set_cache_index_and_filter_blocks(True)
    tables.set_pin_l0_filter_and_index_blocks_in_cache(True)
    # In pieces, or a table's whole index would be read, and be in the way of everything else, for one key of it.
    tables.set_index_type(BlockBasedIndexType.two_level_index_search())
    tables.set_partition_filters(True)
    tables.set_metadata_block_size(INDEX_PIECE)
    tables.set_pin_top_level_index_and_filter(True)
    return tables


def walking(end: bytes | None = None) -> ReadOptions:
    """How a walk, to below ``end``, reads: checked, and without emptying the cache of what clients ask for."""
    reading = ReadOptions()
    if end is not None:
        reading.set_iterate_upper_bound(end)
    reading.set_verify_checksums(True)
    reading.fill_cache(False)  # type: ignore[call-arg]  # the stub forgets it
    return reading


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


def why_not_this_layout(directory: Path, layout: bytes | None) -> str:
    if layout is None:
        return f"the data directory {directory} holds a database of another program: name another one with --data"
    return (
        f"the data directory {directory} has the layout '{layout.decode(errors='replace')}', and this version of sfss "
        f"reads '{entries.LAYOUT.decode()}': run the version that wrote it, or name another directory with --data"
    )
