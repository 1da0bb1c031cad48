"""What a node counts, and how STATS tells it: memcached's names with memcached's meanings, and some of our own.

Here are plain numbers and their report. Nothing here decides anything.

``stats`` with a word tells more: ``settings conns items slabs sizes`` as memcached does, as far as a store that has
neither slabs nor LRU can; ``rocksdb`` is ours. Like memcached, it takes no offence at words behind that.
"""

from __future__ import annotations

import os
import resource
import secrets
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, fields
from typing import Protocol

import sfss
from sfss import memcache
from sfss.node.replies import END, Pieces, Reply
from sfss.node.store import Store
from sfss.scan import MAX_COUNT

# Whose protocol, and then whose program. Clients go by the former: libmemcached takes what is below 1.6 for a server
# that has fewer commands, and answers otherwise. A front knows our node by the end.
VERSION = f"1.6.18+{sfss.__version__}-sfss"

# One reply of any size: memcached can forbid it in these words. `lru_crawler metadump` has pieces.
_NO_CACHEDUMP = b"CLIENT_ERROR stats cachedump not allowed\r\n"
_NO_DETAIL = b"CLIENT_ERROR stats detail not allowed\r\n"
_DETAIL_USAGE = b"CLIENT_ERROR usage: stats detail on|off|dump\r\n"
_OK = memcache.OK + b"\r\n"
_ERROR = memcache.ERROR + b"\r\n"

# RocksDB's properties that `stats rocksdb` tells, under their own names. None takes it more than microseconds.
_ROCKSDB = (
    "estimate-num-keys", "estimate-live-data-size", "total-sst-files-size", "live-sst-files-size",
    "num-blob-files", "total-blob-file-size", "live-blob-file-size", "live-blob-file-garbage-size",
    "cur-size-all-mem-tables", "size-all-mem-tables", "num-immutable-mem-table",
    "mem-table-flush-pending", "num-running-flushes",
    "compaction-pending", "num-running-compactions", "estimate-pending-compaction-bytes",
    "is-write-stopped", "actual-delayed-write-rate", "background-errors", "num-snapshots",
    "block-cache-capacity", "block-cache-usage", "block-cache-pinned-usage", "estimate-table-readers-mem",
    *(f"num-files-at-level{level}" for level in range(7)),
)  # fmt: skip


@dataclass(slots=True)
class Counters:
    """What happened since the start, or since ``stats reset``."""

    total_items: int = 0
    total_connections: int = 0
    rejected_connections: int = 0
    cmd_get: int = 0
    cmd_set: int = 0
    cmd_delete: int = 0
    cmd_touch: int = 0
    cmd_flush: int = 0
    cmd_scan: int = 0
    get_hits: int = 0
    get_misses: int = 0
    delete_hits: int = 0
    delete_misses: int = 0
    incr_hits: int = 0
    incr_misses: int = 0
    decr_hits: int = 0
    decr_misses: int = 0
    cas_hits: int = 0
    cas_misses: int = 0
    cas_badval: int = 0
    touch_hits: int = 0
    touch_misses: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    older_records: int = 0  # sets that were not carried out, for a newer version of the record lies there
    slow_cmd: int = 0
    disk_reads: int = 0  # entries that were not in memory, and were read by threads
    held_writes: int = 0  # times that a change had to wait until RocksDB had written out more
    crawler_reclaimed: int = 0  # items that had expired and were removed by the node itself
    fsyncs: int = 0
    failed_fsyncs: int = 0
    failed_cmd: int = 0  # commands that an exception ended, a bug's or the disk's

    def reset(self) -> None:
        """Begin again at nought."""
        for counter in fields(self):
            setattr(self, counter.name, 0)


class Connected(Protocol):
    """A connection, as far as it is told of."""

    def figures(self) -> list[tuple[str, object]]:
        """What ``stats conns`` says of it; nothing if it has gone."""


@dataclass
class Stats:
    """A node's counters, and what else its STATS reply tells."""

    store: Store
    counters: Counters
    durability: str
    max_item_size: int
    max_connections: int
    curr_connections: int = 0
    connections: Collection[Connected] = ()
    started: float = 0.0  # on the monotonic clock
    address: tuple[str, int] = ("", 0)  # where the node listens
    capacity: int = 0  # bytes that it is to be taken to have; 0: those of its disk
    run: str = field(default_factory=lambda: secrets.token_hex(8))  # of this process: no other node has it
    standing: Callable[[], list[tuple[str, object]]] = list  # what it is to fronts, if it announces itself

    def reset(self) -> None:
        """What ``stats reset`` does: what counts events begins at nought, what tells a state stays."""
        self.counters.reset()
        self.store.read_errors = self.store.write_errors = 0

    def figures(self) -> list[tuple[str, object]]:
        """All names and figures, in the order in which they are told."""
        return [*self._process(), *self._state(), *self._events(), *self._disk()]

    def about(self, topic: bytes, *words: bytes) -> Reply:
        """The reply to ``stats <topic>``."""
        if topic == b"conns":
            return Pieces(self._conns())
        if topic == b"detail":
            return self._detail(words[0] if words else b"")
        reports: dict[bytes, Callable[[], list[tuple[str, object]]]] = {
            b"settings": self._settings,
            b"items": self._items,
            b"slabs": lambda: [("active_slabs", 0), ("total_malloced", 0)],  # as of a memcached that is empty
            b"sizes": lambda: [("sizes_status", "disabled")],  # as memcached's are, unless it was told otherwise
            b"rocksdb": self._rocksdb,
        }
        if topic not in reports:
            return _NO_CACHEDUMP if topic == b"cachedump" else _ERROR
        return memcache.stats(reports[topic]())

    def _conns(self) -> Iterator[bytes]:
        """One by one, for there may be ten thousand."""
        for connection in list(self.connections):
            yield memcache.stats(connection.figures()).removesuffix(END)

    def _detail(self, word: bytes) -> bytes:
        """Figures for each prefix of a key: always off. They would cost every request, and memory for every prefix."""
        return {b"on": _NO_DETAIL, b"off": _OK, b"dump": END}.get(word, _DETAIL_USAGE)

    def _settings(self) -> list[tuple[str, object]]:
        """What memcached has a name for, and holds here; then what only we have."""
        host, port = self.address
        return [
            ("maxbytes", self._space()[1]),
            ("maxconns", self.max_connections),
            ("tcpport", port),
            ("udpport", 0),
            ("inter", host),
            ("verbosity", 0),
            ("oldest", 0),
            ("evictions", "off"),
            ("domain_socket", "NULL"),
            ("shutdown_command", "no"),
            ("num_threads", 1),
            ("stat_key_prefix", ":"),
            ("detail_enabled", "no"),
            ("cas_enabled", "yes"),
            ("binding_protocol", "ascii"),
            ("auth_enabled_sasl", "no"),
            ("auth_enabled_ascii", "no"),
            ("item_size_max", self.max_item_size),
            ("maxconns_fast", "yes"),  # one connection too many is told so, and doesn't wait
            ("lru_crawler", "no"),
            ("flush_enabled", "yes"),
            ("dump_enabled", "yes"),
            ("track_sizes", "no"),
            ("idle_timeout", 0),
            ("ssl_enabled", "no"),
            ("durability", self.durability),
            ("scan_max", MAX_COUNT),
        ]

    def _items(self) -> list[tuple[str, object]]:
        """All items are of class 1; of an empty class memcached tells nothing."""
        self.store.settle()
        if not self.store.items:
            return []
        nought = ("evicted", "evicted_nonzero", "evicted_time", "outofmemory", "tailrepairs")
        return [
            ("items:1:number", self.store.items),
            ("items:1:mem_requested", self.store.bytes),
            *((f"items:1:{name}", 0) for name in nought),
        ]

    def _rocksdb(self) -> list[tuple[str, object]]:
        figures = [(name.replace("-", "_"), self.store.engine(name)) for name in _ROCKSDB]
        return [(name, figure) for name, figure in figures if figure is not None]

    def _process(self) -> list[tuple[str, object]]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return [
            ("pid", os.getpid()),
            ("uptime", int(time.monotonic() - self.started)),
            ("time", int(time.time())),
            ("time_usec", time.time_ns() // 1000),
            ("version", VERSION),
            ("node_run", self.run),
            ("pointer_size", struct.calcsize("P") * 8),
            ("rusage_user", f"{usage.ru_utime:.6f}"),
            ("rusage_system", f"{usage.ru_stime:.6f}"),
            ("rusage_maxrss", usage.ru_maxrss),  # KiB on Linux
            ("threads", threading.active_count()),
        ]

    def _state(self) -> list[tuple[str, object]]:
        return [
            ("max_connections", self.max_connections),
            ("curr_connections", self.curr_connections),
            ("curr_items", self.store.items),
            ("bytes", self.store.bytes),
            ("cache_bytes", self.store.memory.bytes),
            ("cache_entries", len(self.store.memory)),
            ("cache_limit", self.store.memory.limit),
            ("evictions", 0),  # never: dashboards for memcached ask
            ("item_size_max", self.max_item_size),
            ("durability", self.durability),
            ("scan_max", MAX_COUNT),  # items of one `scan`; who finds it here may ask for one
        ]

    def _events(self) -> list[tuple[str, object]]:
        return [
            *((counter.name, getattr(self.counters, counter.name)) for counter in fields(self.counters)),
            ("read_errors", self.store.read_errors),
            ("write_errors", self.store.write_errors),
            ("background_errors", self.store.engine("background-errors") or 0),  # of flushes and compactions
        ]

    def _disk(self) -> list[tuple[str, object]]:
        avail, total = self._space()
        given = [("capacity", self.capacity), ("used_space", self.store.bytes)] if self.capacity else []
        return [("avail_space", avail), ("total_space", total), ("limit_maxbytes", total), *given, *self.standing()]

    def size(self) -> int:
        """Bytes that it has room for in all. May be called in any thread."""
        return self.capacity or self._space()[1]

    def _space(self) -> tuple[int, int]:
        """Bytes of the file system: what is left for us, and all."""
        disk = os.statvfs(self.store.directory)
        return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
