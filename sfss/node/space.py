"""Giving back the space of what was overwritten, deleted or flushed, while the node serves.

Large bodies lie in blob files, and what is dead in those goes only when RocksDB moves what is alive out of them. Left
to itself it does so with every compaction, whether it is worth it or not: measured, 4.6 to 6 bytes written for one. So
it is switched on while the dead are too large a share, a few of the oldest files at a time, and off when they aren't.

Whether large bodies are compressed when they are written out goes by what comes (``packing``); while bodies are moved
they are, for those were written at another time.

What was deleted from the tree goes with compactions, which come when there are enough tables. When nothing was written
for a while what is in memory is written out, and tables are merged however few there are: then all of it comes back.

The bound that this keeps (``benchmarks/space.py`` shows it): while it is written to, a node takes at most twice what is
alive and 512 MiB; after a minute of rest 1.25 times that and 128 MiB. With compression it is less.
"""

from __future__ import annotations

import asyncio
import contextlib

from sfss.node.engine import MIB
from sfss.node.store import Store

EVERY = 0.5  # seconds between looks
# Dead bytes in blob files beyond this share of all, and beyond so many, are collected ...
SHARE, LEAST = 1 / 3, 256 * MIB
# ... until they are below these; at rest, from these on.
SHARE_LEFT, LEAST_LEFT = 0.2, 64 * MIB
AT_ONCE = 4  # blob files whose living bodies are moved at a time
REST = 5.0  # seconds without a change that are a rest
WORTH = 1000  # changes since the last rest that are worth one: it costs some milliseconds
DELETED = 20_000  # deletions in memory that lie in the way of walks: a step over them takes its time
TABLES, TABLES_AT_REST = 4, 1  # tables of the lowest level that are merged


class Space:
    """Looks at the store now and then, in the loop; what takes its time is done by a thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._collecting = False
        self._packing = True
        self._resting = False
        self._seen = 0  # changes, at the last look
        self._rested = 0  # changes, at the last rest
        self._flushes = 0
        self._since = self._loop.time()  # when the last change was seen
        self._writing_out: asyncio.Task[None] | None = None

    async def at_rest(self) -> None:
        """Wait for what is being written out."""
        if self._writing_out is not None:
            await asyncio.wait([self._writing_out])

    def begin_again(self) -> None:
        """The database was opened anew, and has the options that it has at first."""
        self._collecting = self._resting = False
        self._packing = True

    def look(self) -> None:
        """See what is to be done. Raises whatever RocksDB does."""
        self._note_changes()
        if self._store.flushes != self._flushes:
            self._rest()
            self._flushes = self._store.flushes
        elif self._is_idle():
            self._rest()
        elif self._resting and self._store.changes - self._rested >= WORTH:
            self._end_rest()
        elif self._store.figure("num-deletes-active-mem-table") >= DELETED:
            self._write_out()
        self._collect()
        self._pack()

    def _note_changes(self) -> None:
        if self._store.changes != self._seen:
            self._seen = self._store.changes
            self._since = self._loop.time()

    def _is_idle(self) -> bool:
        enough = self._store.changes - self._rested >= WORTH
        return enough and self._loop.time() - self._since >= REST

    def _rest(self) -> None:
        self._write_out()
        if not self._resting:
            self._store.steer({"level0_file_num_compaction_trigger": str(TABLES_AT_REST)})
            self._resting = True
        self._rested = self._store.changes  # last: if RocksDB refuses, the next look tries again

    def _end_rest(self) -> None:
        self._store.steer({"level0_file_num_compaction_trigger": str(TABLES)})
        self._resting = False

    def _write_out(self) -> None:
        if self._writing_out is None or self._writing_out.done():
            self._writing_out = asyncio.create_task(self._write_out_now())

    async def _write_out_now(self) -> None:
        with contextlib.suppress(Exception):  # RocksDB counts it, and tries again by itself
            await asyncio.to_thread(self._store.write_out)

    def _collect(self) -> None:
        """Switch the collection of dead bodies on or off."""
        dead, size = self._store.figure("live-blob-file-garbage-size"), self._store.figure("live-blob-file-size")
        start = (SHARE_LEFT, LEAST_LEFT) if self._resting else (SHARE, LEAST)
        if not self._collecting and _is_beyond(dead, size, *start):
            oldest = min(AT_ONCE / max(self._store.figure("num-blob-files"), 1), 1.0)
            self._store.steer({
                "enable_blob_garbage_collection": "true",
                "blob_garbage_collection_age_cutoff": f"{oldest:.6f}",
                "blob_garbage_collection_force_threshold": "0.0",  # go on with the oldest until told to stop
            })  # fmt: skip
            self._collecting = True
        elif self._collecting and not _is_beyond(dead, size, SHARE_LEFT, LEAST_LEFT):
            self._store.steer({
                "enable_blob_garbage_collection": "false",
                "blob_garbage_collection_force_threshold": "1.0",
            })  # fmt: skip
            self._collecting = False

    def _pack(self) -> None:
        """Switch compression on or off."""
        wanted = self._store.packing.is_worth_it() or self._collecting
        if wanted != self._packing:
            self._store.steer({"blob_compression_type": "kZSTD" if wanted else "kNoCompression"})
            self._packing = wanted


def _is_beyond(dead: int, size: int, share: float, least: int) -> bool:
    return dead > max(share * size, least)
