"""Runs: many plain gets, or many plain sets, one behind the other in what came at once, carried out together.

A front has many requests under way on one connection. The way that any request can go (``RequestParser``,
``Commands``, ``Store``, one after the other) costs more than what is done for it. Here is a short way for what nearly
all of them are: ``get`` and ``head`` of one key, and ``set`` of a value that never expires and is here whole. They
are read straight from the bytes that came; a run of gets becomes one piece of output, a run of sets one change of the
database, of which all is kept, or nothing.

It takes nothing whose answer is not plain: an entry that isn't in memory, an item that expires, a delayed flush_all, a
crowded store, ``noreply``, an odd word. There it stops, and leaves the rest to the other way, which has the same answer
to everything that is taken here. Nothing may depend on which way a request went.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from sfss import record
from sfss.memcache import MAX_KEY, NOT_STORED, STORED, Request
from sfss.node import entries
from sfss.node.committer import failure
from sfss.node.engine import KIB
from sfss.node.entries import BODY, HEAD, Head
from sfss.node.stats import Stats
from sfss.node.store import Put, Store

OUTPUT = 256 * KIB  # bytes of replies of one run, and then what the last one has more
WRITTEN = 64 * KIB  # bytes of values that one change of the database may take, likewise; of more each costs more

_GET = re.compile(rb"(get|head) ([^ \r\n]{1,%d})\r\n" % MAX_KEY)
_SET = re.compile(rb"set ([^ \r\n]{1,%d}) (\d{1,9}) 0 (\d{1,8})\r\n" % MAX_KEY)
_LINE_END = b"\r\n"
_NOT_PLAIN = Head(0, 0, 0, 0, 0, b"")  # stands for one that the other way is to look at
_STORED, _NOT_STORED = STORED + _LINE_END, NOT_STORED + _LINE_END
_END, _VALUE_END = b"END\r\n", b"\r\nEND\r\n"


class Run(NamedTuple):
    """What was carried out: how many bytes of requests, how many of these, and their replies."""

    size: int
    requests: int
    replies: list[bytes]  # of sets one each; of gets all in one
    binds: bool  # whether they wait for the disk


class Runs:
    """The short way, bound to a store, to the counters that it moves, and to who is told of failures."""

    def __init__(self, store: Store, stats: Stats, report: Callable[[Request, Exception], None]) -> None:
        self._store = store
        self._max_value = stats.max_item_size
        self._count = stats.counters
        self._report = report

    def take(self, data: memoryview, most: int) -> Run | None:
        """Carry out those at the beginning of ``data``, ``most`` at most; None if there are none."""
        if self._store.awaits_flush:
            return None
        return self._gets(data, most) or self._sets(data, most)

    def _gets(self, data: memoryview, most: int) -> Run | None:
        pieces: list[bytes | memoryview] = []
        position = requests = hits = size = 0
        find = self._store.at_hand
        while requests < most and size < OUTPUT and (match := _GET.match(data, position)):
            verb, key = match.groups()
            plain = verb == b"get"
            entry = find((BODY if plain else HEAD) + key)
            if entry is None:
                pieces.append(_END)
            elif isinstance(entry, bytes) and (told := (entries.plain_value if plain else entries.plain_header)(entry)):
                flags, value = told
                pieces += b"VALUE %b %d %d\r\n" % (key, flags, len(value)), value, _VALUE_END
                hits += 1
                size += len(value)
            else:
                break
            requests += 1
            position = match.end()
        if not requests:
            return None
        self._count.cmd_get += requests
        self._count.get_hits += hits
        self._count.get_misses += requests - hits
        return Run(position, requests, [b"".join(pieces)], binds=False)

    def _sets(self, data: memoryview, most: int) -> Run | None:
        puts: list[Put] = []
        replies: list[bytes] = []
        keys: set[bytes] = set()
        position = size = 0
        while len(keys) < most and size < WRITTEN and (match := _SET.match(data, position)):
            key, flags, length = match.groups()
            begin = match.end()
            end = begin + int(length)
            if key in keys or int(length) > self._max_value or data[end : end + 2] != _LINE_END:
                break
            old = self._claim(key)
            if old is _NOT_PLAIN:
                break
            if not keys and self._store.crowded():
                return None
            value = data[begin:end]
            header = entries.header_of(value)
            if old is not None and record.is_older(header, old.header):
                replies.append(_NOT_STORED)
            else:
                replies.append(_STORED)
                puts.append((key, int(flags), header, value, old))
            keys.add(key)
            size += len(value)
            position = end + 2
        if not keys:
            return None
        self._count.cmd_set += len(keys)
        return Run(position, len(keys), self._keep(puts, replies), binds=True)

    def _claim(self, key: bytes) -> Head | None:
        """What lies under the key, or _NOT_PLAIN."""
        entry = self._store.at_hand(HEAD + key)
        if entry is None:
            return None
        if not isinstance(entry, bytes):
            return _NOT_PLAIN
        try:
            head = entries.read_head(entry)
        except ValueError:
            return _NOT_PLAIN
        return _NOT_PLAIN if head.expiry else head

    def _keep(self, puts: list[Put], replies: list[bytes]) -> list[bytes]:
        """Write them; the replies, those of the ones that could not be written replaced."""
        self._count.older_records += len(replies) - len(puts)
        try:
            self._store.put_all(puts)
        except Exception as error:  # noqa: BLE001  (reported, counted and answered)
            for key, *_ in puts:
                self._report(Request(b"set", [key], b"", False), error)
            return [failure(error) if reply is _STORED else reply for reply in replies]
        self._count.total_items += len(puts)
        return replies
