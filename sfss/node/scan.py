"""All items in key order: ``scan``, which is ours, and memcached's ``lru_crawler metadump``. No body is ever read.

A walk holds nothing open: it reads heads in slices, each behind the last key of the one before. So a client that reads
slowly, or stops, pins neither memory nor files; and a key that is there from the walk's beginning to its end is told
once, whatever is written meanwhile. What is written, changed or removed during the walk may be told or not.

A reply comes in pieces of one item, so that whoever sends them gives other connections their turn in between. An item
that has expired is an empty piece: a walk past a million of them must not hold the others up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import quote_from_bytes

from sfss import scan as wire
from sfss.errors import ProtocolError
from sfss.memcache import BAD_FORMAT, ERROR, MAX_KEY, OK
from sfss.node import entries
from sfss.node.entries import HEAD, Head, Stored
from sfss.node.replies import Pieces, Reply
from sfss.node.stats import Counters
from sfss.node.store import Store

SLICE = 200  # heads read at a time: a fraction of a millisecond ...
IN_A_BLOCK = 500  # ... as these are, where blocks are made of them

_BAD_BOUND = b"CLIENT_ERROR bad bound: from is [KEY, (KEY or -, to is [KEY, (KEY or +\r\n"
_BAD_COUNT = b"CLIENT_ERROR bad count: 1 to %d\r\n" % wire.MAX_COUNT
_NO_CRAWLER = b"CLIENT_ERROR lru crawler disabled\r\n"
_NOT_STARTED = b"ERROR failed to start lru crawler thread\r\n"
_BAD_CLASS = b"BADCLASS invalid class id\r\n"
_BAD_SLEEP = b"CLIENT_ERROR sleep must be one second or less\r\n"

CLASS = 1  # all items are of one slab class, as far as memcached's clients ask
_CLASSES = 64  # ids that memcached takes are below
_MAX_SLEEP = 1_000_000  # microseconds
# What memcached needs for an item beside its key and value: struct, cas, the key's NUL, the value's CR LF.
_ITEM_COST, _FLAGS_COST = 48 + 8 + 1 + 2, 4


def scan(store: Store, count: Counters, args: list[bytes]) -> Reply:
    """``scan <from> <to> <count> [rows|heads]``; ``sfss/scan.py`` has the grammar."""
    if len(args) not in (3, 4) or (len(args) == 4 and args[3] not in _FORMS):
        return ERROR + b"\r\n"
    start, end = _bound(args[0], wire.FIRST), _bound(args[1], wire.LAST)
    if start is None or end is None:
        return _BAD_BOUND
    if not re.fullmatch(rb"[0-9]{1,9}", args[2]) or not 1 <= int(args[2]) <= wire.MAX_COUNT:
        return _BAD_COUNT
    count.cmd_scan += 1
    # The key that follows another one at once is that with a NUL behind it.
    first = start + b"\0" if args[0].startswith(b"(") else start
    stop = end + b"\0" if args[1].startswith(b"[") else end
    # The walk itself is done by the loop. Where it begins is read as if the head there were asked for.
    told = _items if len(args) == 3 else partial(_blocks, _FORMS[args[3]])
    return Pieces(told(store, first, stop, int(args[2])), [start], [HEAD])


def _bound(word: bytes, everything: bytes) -> bytes | None:
    """The key that a bound names, empty if it is ``everything``; None if it is no bound."""
    if word == everything:
        return b""
    try:
        key = wire.read(word[1:])
    except ProtocolError:
        return None
    return key if word[:1] in (b"[", b"(") and 1 <= len(key) <= MAX_KEY else None


def _items(store: Store, start: bytes, end: bytes, count: int) -> Iterator[bytes]:
    for key, head in _walk(store, start, end, min(count, SLICE)):
        if _has_expired(store, head):
            yield b""
            continue
        yield wire.item(wire.Item(key, *head[:6]))
        count -= 1
        if not count:
            return


def _blocks(form: _Form, store: Store, start: bytes, end: bytes, count: int) -> Iterator[bytes]:
    """A hundred items cost little more than one, and the loop has its turns in between."""
    while count and (stored := store.stored_heads(start, end, min(count, IN_A_BLOCK))):
        there = entries.unexpired(stored, store.clock())
        count -= len(there)
        yield form(there) if there else b""
        start = stored[-1][0][len(HEAD) :] + b"\0"


def _rows(stored: Stored) -> bytes:
    return wire.block(list(zip(*entries.keys_and_headers(stored), *entries.sizes_and_versions(stored), strict=True)))


def _heads(stored: Stored) -> bytes:
    return wire.heads_block(*entries.keys_and_headers(stored))


_Form = Callable[[Stored], bytes]
_FORMS: dict[bytes, _Form] = {wire.ROWS: _rows, wire.HEADS: _heads}


def _walk(store: Store, start: bytes, end: bytes, at_once: int) -> Iterator[tuple[bytes, Head]]:
    while heads := store.heads(start, end, at_once):
        yield from heads
        start = heads[-1][0] + b"\0"


def _has_expired(store: Store, head: Head) -> bool:
    return head.expiry != 0 and head.expiry <= store.clock()


def lru_crawler(store: Store, args: list[bytes]) -> Reply:
    """``lru_crawler metadump``. What else memcached has of it is answered as by one whose crawler is switched off."""
    verb = args[0] if args else b""
    if len(args) == 1 and verb in (b"enable", b"disable"):
        return _NOT_STARTED if verb == b"enable" else OK + b"\r\n"
    if len(args) != 2 or verb not in (b"metadump", b"crawl", b"sleep", b"tocrawl"):
        return ERROR + b"\r\n"
    if verb == b"metadump":
        return _metadump(store, args[1])
    if verb == b"crawl":
        return _NO_CRAWLER
    if not re.fullmatch(rb"[0-9]{1,20}", args[1]):
        return BAD_FORMAT + b"\r\n"
    return _BAD_SLEEP if verb == b"sleep" and int(args[1]) > _MAX_SLEEP else OK + b"\r\n"


def _metadump(store: Store, which: bytes) -> Reply:
    """``all``, ``hash`` (the same in another order, in memcached) or ids of slab classes, with commas between."""
    if which in (b"all", b"hash"):
        return Pieces(_lines(store))
    classes = [int(word) if re.fullmatch(rb"[0-9]{1,9}", word) else 0 for word in which.split(b",") if word]
    if not classes or not all(0 < number < _CLASSES for number in classes):
        return _BAD_CLASS
    return Pieces(_lines(store) if CLASS in classes else iter(()))


def cost(key: bytes, head: Head) -> int:
    """Bytes that the item would take in memcached's memory: its ``size``."""
    return _ITEM_COST + (_FLAGS_COST if head.flags else 0) + len(key) + head.size


def _lines(store: Store) -> Iterator[bytes]:
    """Each item as memcached tells it. Nobody notes when an item is read: ``la`` is when it was written."""
    for key, head in _walk(store, b"", b"", SLICE):
        if _has_expired(store, head):
            yield b""
            continue
        yield b"key=%b exp=%d la=%d cas=%d fetch=no cls=%d size=%d\n" % (
            quote_from_bytes(key, safe="~").encode(),
            head.expiry or -1,
            head.time // 1_000_000,
            head.cas,
            CLASS,
            cost(key, head),
        )
