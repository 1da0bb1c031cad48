"""What a node counts, and how STATS tells it: memcached's names with memcached's meanings, and some of our own.

Here are plain numbers and their report. Nothing here decides anything.
"""

from __future__ import annotations

import os
import resource
import struct
import threading
import time
from dataclasses import dataclass, fields

import sfss
from sfss.node.store import Store

VERSION = f"{sfss.__version__}-sfss"  # a front knows our node by the end of it


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
    slow_cmd: int = 0
    fsyncs: int = 0
    failed_fsyncs: int = 0
    failed_cmd: int = 0  # commands that an exception ended, a bug's or the disk's

    def reset(self) -> None:
        """Begin again at nought."""
        for field in fields(self):
            setattr(self, field.name, 0)


@dataclass
class Stats:
    """A node's counters, and what else its STATS reply tells."""

    store: Store
    counters: Counters
    durability: str
    max_item_size: int
    max_connections: int
    curr_connections: int = 0
    started: float = 0.0  # on the monotonic clock

    def reset(self) -> None:
        """What ``stats reset`` does: what counts events begins at nought, what tells a state stays."""
        self.counters.reset()
        self.store.read_errors = self.store.write_errors = 0

    def figures(self) -> list[tuple[str, object]]:
        """All names and figures, in the order in which they are told."""
        return [*self._process(), *self._state(), *self._events(), *self._disk()]

    def _process(self) -> list[tuple[str, object]]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return [
            ("pid", os.getpid()),
            ("uptime", int(time.monotonic() - self.started)),
            ("time", int(time.time())),
            ("version", VERSION),
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
            ("evictions", 0),  # never: dashboards for memcached ask
            ("item_size_max", self.max_item_size),
            ("durability", self.durability),
        ]

    def _events(self) -> list[tuple[str, object]]:
        counted = [(field.name, getattr(self.counters, field.name)) for field in fields(self.counters)]
        return [*counted, ("read_errors", self.store.read_errors), ("write_errors", self.store.write_errors)]

    def _disk(self) -> list[tuple[str, object]]:
        disk = os.statvfs(self.store.directory)
        total = disk.f_blocks * disk.f_frsize
        return [
            ("avail_space", disk.f_bavail * disk.f_frsize),
            ("total_space", total),
            ("limit_maxbytes", total),
        ]
