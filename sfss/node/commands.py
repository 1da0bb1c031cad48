"""What each command does: a request in, its reply out, upon the store. Replies are memcached's own words (1.6).

Where the node means to differ from memcached:

* Nothing is evicted, and ``flush_all`` deletes for good.
* A value that is too large leaves the one before it in place: a request that was refused has done nothing.
* An expiry time never wraps at 32 bits.
* ``version`` ends in ``-sfss``.

One command is ours. ``head <key>*`` is answered like ``get``, but of a value that is a record of sfss it brings the
prefix and the header alone, and of any other value nothing::

    head /a.txt /b.txt
    VALUE /a.txt 0 83
    <the record's 16 bytes of prefix and 67 of header>
    VALUE /b.txt 0 0

    END

It never reads a body, whatever the size of the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

from sfss import memcache
from sfss.memcache import MAX_KEY, Request
from sfss.node.stats import VERSION, Stats
from sfss.node.store import Item, Store

Reply = bytes | Iterator[bytes]  # an iterator's pieces are VALUEs, or empty; whoever sends them adds END at the end

END = b"END\r\n"
# Their replies wait for the disk, whatever they say: NOT_FOUND may tell of a removal that a power loss would undo.
WRITING = frozenset((*memcache.STORAGE, b"delete", b"incr", b"decr", b"touch", b"gat", b"gats", b"flush_all"))

_STORED = b"STORED\r\n"
_NOT_STORED = b"NOT_STORED\r\n"
_EXISTS = b"EXISTS\r\n"
_NOT_FOUND = b"NOT_FOUND\r\n"
_DELETED = b"DELETED\r\n"
_TOUCHED = b"TOUCHED\r\n"
_OK = b"OK\r\n"
_RESET = b"RESET\r\n"
_ERROR = b"ERROR\r\n"  # an unknown command, or a wrong number of words: said even to a noreply, as memcached does
_BAD_FORMAT = memcache.BAD_FORMAT + b"\r\n"
_BAD_DELETE = memcache.BAD_FORMAT + b".  Usage: delete <key> [noreply]\r\n"
_BAD_EXPTIME = b"CLIENT_ERROR invalid exptime argument\r\n"
_BAD_DELTA = b"CLIENT_ERROR invalid numeric delta argument\r\n"
_NOT_A_NUMBER = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"

_RELATIVE = 60 * 60 * 24 * 30  # seconds; a larger exptime is a date
_PAST = 1  # a date that is over: what a negative exptime means
_U64 = 2**64
_SIGNED = re.compile(rb"[+-]?0*[0-9]{1,19}")
# As strtoull reads, and memcached after it: blanks, a sign, digits, and then a blank, a NUL or the end.
_UNSIGNED = re.compile(rb"[ \t-\r]*([+-]?)0*([0-9]{1,20})(?=[ \t-\r\0]|\Z)")


class Commands:
    """The commands, bound to a store and to the counters they move."""

    def __init__(self, store: Store, stats: Stats) -> None:
        self._store = store
        self._stats = stats
        self._count = stats.counters
        self._table: dict[bytes, Callable[[Request], Reply]] = {
            b"get": lambda request: self._retrieve(request.args, self._get),
            b"gets": lambda request: self._retrieve(request.args, self._gets),
            b"head": lambda request: self._retrieve(request.args, self._head),
            b"gat": lambda request: self._touch_and_retrieve(request, with_cas=False),
            b"gats": lambda request: self._touch_and_retrieve(request, with_cas=True),
            b"set": self._storage,
            b"add": self._storage,
            b"replace": self._storage,
            b"append": self._storage,
            b"prepend": self._storage,
            b"cas": self._storage,
            b"delete": self._delete,
            b"incr": self._arithmetic,
            b"decr": self._arithmetic,
            b"touch": self._touch,
            b"flush_all": self._flush_all,
            b"stats": self._statistics,
            b"version": lambda _: b"VERSION %b\r\n" % VERSION.encode(),
            b"verbosity": self._verbosity,
        }

    def answer(self, request: Request) -> Reply:
        """Carry out ``request``. The reply is empty where noreply forbids one.

        Whatever the store raises comes through; nothing was done then, or as the store says.
        """
        command = self._table.get(request.verb)
        reply = command(request) if command else _ERROR
        return b"" if request.noreply and reply is not _ERROR else reply

    # --- retrieval ---

    def _retrieve(self, keys: list[bytes], fetch: Callable[[bytes], bytes]) -> Reply:
        if not keys:
            return _ERROR
        if max(map(len, keys)) > MAX_KEY:
            return _BAD_FORMAT
        if len(keys) == 1:
            return fetch(keys[0]) + END
        return map(fetch, keys)  # not all at once: together they may be of any size

    def _get(self, key: bytes) -> bytes:
        item = self._store.get(key)
        self._count_get(hit=item is not None)
        return _value(key, item) if item else b""

    def _gets(self, key: bytes) -> bytes:
        item = self._store.get(key)
        self._count_get(hit=item is not None)
        return _value(key, item, item.cas) if item else b""

    def _head(self, key: bytes) -> bytes:
        head = self._store.head(key)
        self._count_get(hit=head is not None)
        return memcache.value(key, head.flags, head.header) if head else b""

    def _count_get(self, *, hit: bool) -> None:
        self._count.cmd_get += 1
        self._count.get_hits += hit
        self._count.get_misses += not hit

    def _touch_and_retrieve(self, request: Request, *, with_cas: bool) -> Reply:
        if not request.args:
            return _ERROR
        expiry = self._expiry(request.args[0])
        if expiry is None:
            return _BAD_EXPTIME
        if len(request.args) == 1:
            return END  # memcached's own oddity: `gat 0` is a gat of no keys

        def fetch(key: bytes) -> bytes:
            self._count.cmd_touch += 1
            item = self._store.touch(key, expiry)
            if item is None:
                self._count.touch_misses += 1
                return b""
            self._count.touch_hits += 1
            return _value(key, item, item.cas if with_cas else None)

        return self._retrieve(request.args[1:], fetch)

    # --- storage ---

    def _storage(self, request: Request) -> bytes:
        """set, add, replace, append, prepend, cas."""
        verb, key = request.verb, request.args[0]
        expiry = self._expiry(request.args[2])
        if expiry is None or (verb == b"cas" and not 0 <= int(request.args[4]) < _U64):
            return _BAD_FORMAT
        self._count.cmd_set += 1
        old = self._store.claim(key)
        if verb == b"cas":
            if old is None:
                self._count.cas_misses += 1
                return _NOT_FOUND
            if old.cas != int(request.args[4]):
                self._count.cas_badval += 1
                return _EXISTS
            self._count.cas_hits += 1
        elif verb != b"set" and (old is None) != (verb == b"add"):
            return _NOT_STORED
        if verb in (b"append", b"prepend"):
            return self._join(key, request.data, before=verb == b"prepend")
        self._store.put(key, int(request.args[1]), expiry, request.data, old)
        self._count.total_items += 1
        return _STORED

    def _join(self, key: bytes, data: bytes, *, before: bool) -> bytes:
        """append and prepend to an item that is there: flags and expiry stay its own."""
        old, item = self._store.claim(key), self._store.get(key)
        if old is None or item is None or old.size + len(data) > self._stats.max_item_size:
            return _NOT_STORED  # for what grows too large too, in memcached
        joined = b"".join((data, item.data) if before else (item.data, data))
        self._store.put(key, item.flags, item.expiry, joined, old)
        self._count.total_items += 1
        return _STORED

    def _arithmetic(self, request: Request) -> bytes:
        """incr, decr."""
        if not 2 <= len(request.args) + request.noreply <= 3:
            return _ERROR
        key = request.args[0]
        if len(key) > MAX_KEY:
            return _BAD_FORMAT
        delta = _unsigned(request.args[1]) if len(request.args) > 1 else None
        if delta is None:
            return _BAD_DELTA
        up = request.verb == b"incr"
        old, item = self._store.claim(key), self._store.get(key)
        if old is None or item is None:
            self._count_arithmetic(up, hit=False)
            return _NOT_FOUND
        number = _unsigned(item.data)
        if number is None:
            return _NOT_A_NUMBER
        self._count_arithmetic(up, hit=True)
        result = b"%d" % ((number + delta) % _U64 if up else max(number - delta, 0))
        # A shorter number doesn't make the value shorter, it is padded: memcached changes it in place.
        self._store.put(key, item.flags, item.expiry, result.ljust(old.size), old)
        return result + b"\r\n"

    def _count_arithmetic(self, up: bool, *, hit: bool) -> None:
        if up:
            self._count.incr_hits += hit
            self._count.incr_misses += not hit
        else:
            self._count.decr_hits += hit
            self._count.decr_misses += not hit

    # --- the rest that writes ---

    def _delete(self, request: Request) -> bytes:
        words = len(request.args) + request.noreply
        if not request.args or words > 3:
            return _ERROR
        if request.args[1:] not in ([], [b"0"]):  # 0: the time of an old memcached's delayed delete
            return _BAD_DELETE
        key = request.args[0]
        if len(key) > MAX_KEY:
            return _BAD_FORMAT
        self._count.cmd_delete += 1
        old = self._store.claim(key)
        if old is None:
            self._count.delete_misses += 1
            return _NOT_FOUND
        self._store.remove(key, old)
        self._count.delete_hits += 1
        return _DELETED

    def _touch(self, request: Request) -> bytes:
        if not 2 <= len(request.args) + request.noreply <= 3:
            return _ERROR
        if len(request.args[0]) > MAX_KEY:
            return _BAD_FORMAT
        expiry = self._expiry(request.args[1]) if len(request.args) > 1 else None
        if expiry is None:
            return _BAD_EXPTIME
        self._count.cmd_touch += 1
        if self._store.touch(request.args[0], expiry) is None:
            self._count.touch_misses += 1
            return _NOT_FOUND
        self._count.touch_hits += 1
        return _TOUCHED

    def _flush_all(self, request: Request) -> bytes:
        if len(request.args) + request.noreply > 2:
            return _ERROR
        at = self._expiry(request.args[0]) if request.args else 0
        if at is None:
            return _BAD_EXPTIME
        self._count.cmd_flush += 1
        self._store.flush_all(at)
        return _OK

    # --- what only tells ---

    def _statistics(self, request: Request) -> bytes:
        if not request.args:
            self._store.settle()
            return memcache.stats(self._stats.figures())
        if request.args[0] == b"reset":
            self._stats.reset()
            return _RESET
        return _ERROR

    def _verbosity(self, request: Request) -> bytes:
        """Taken and without effect: the node's log is set up by its own options."""
        words = len(request.args) + request.noreply
        if not 1 <= words <= 2:
            return _ERROR
        if request.args and (not request.args[0].isdigit() or _unsigned(request.args[0]) is None):
            return _BAD_FORMAT
        return _OK

    def _expiry(self, exptime: bytes) -> int | None:
        """The second at which an item with this ``exptime`` is over; 0 for never; None if it isn't a number.

        Up to 30 days it counts from now, rounded up: an item lives at least as long as it was asked to.
        """
        if not _SIGNED.fullmatch(exptime):
            return None
        seconds = int(exptime)
        if not -(2**63) <= seconds < 2**63:
            return None
        if seconds == 0 or seconds > _RELATIVE:
            return seconds
        return _PAST if seconds < 0 else math.ceil(self._store.clock() + seconds)


def _value(key: bytes, item: Item, cas: int | None = None) -> bytes:
    return memcache.value(key, item.flags, item.data, cas)


def _unsigned(text: bytes | memoryview) -> int | None:
    """The number that ``text`` begins with, as memcached's safe_strtoull reads it; None if there is none."""
    match = _UNSIGNED.match(text)
    if match is None:
        return None
    number = int(match[2])
    if number >= _U64:
        return None
    if match[1] != b"-":
        return number
    number = -number % _U64  # strtoull negates; memcached refuses what then has the highest bit
    return number if number < 2**63 else None
