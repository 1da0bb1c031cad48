"""What each command does: a request in, its reply out, upon the store. Replies are memcached's own words (1.6).

Where the node means to differ from memcached:

* Nothing is evicted, and ``flush_all`` deletes for good.
* A value that is too large leaves the one before it in place: a request that was refused has done nothing.
* An expiry time never wraps at 32 bits.
* ``version`` is the memcached whose protocol this is, and then that of sfss.

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

import itertools
from collections.abc import Callable, Sequence

from sfss import memcache
from sfss.memcache import MAX_KEY, Request
from sfss.node import numbers
from sfss.node.changes import Changes
from sfss.node.entries import BODY, HEAD, Item
from sfss.node.meta import Meta, flagged, key_of
from sfss.node.replies import END, Pieces, Reply
from sfss.node.scan import lru_crawler, scan
from sfss.node.stats import VERSION, Stats
from sfss.node.store import Store

# Their replies wait for the disk, whatever they say: NOT_FOUND may tell of a removal that a power loss would undo. So
# does that of mn, which writes nothing: it ends a batch of quiet commands, and says that they all hold.
_WRITING = frozenset((*memcache.STORAGE, b"delete", b"incr", b"decr", b"touch", b"gat", b"gats", b"flush_all",
                      memcache.METASET, b"md", b"ma", b"mn"))  # fmt: skip

_TOUCHING = frozenset((b"gat", b"gats"))
_MANY = frozenset((b"get", b"gets", b"bget", b"head", *_TOUCHING))  # commands of many keys
_META = frozenset((b"mg", memcache.METASET, b"md", b"ma", b"me"))  # commands whose key may be in base64

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

# What a command reads: heads, bodies. Those of the meta commands depend on their flags: all that they may read.
_READING = {
    **dict.fromkeys((b"get", b"gets", b"bget"), (BODY,)),
    **dict.fromkeys((b"head", b"set", b"add", b"replace", b"cas", b"delete", b"md", b"me"), (HEAD,)),
    **dict.fromkeys(
        (b"gat", b"gats", b"append", b"prepend", b"incr", b"decr", b"touch", b"mg", memcache.METASET, b"ma"),
        (HEAD, BODY),
    ),
}

# The same of what is asked most, for which it is to be quick: with so many words it reads one entry, of its first.
_READING_ONE = {b"get": BODY, b"gets": BODY, b"head": HEAD, b"set": HEAD, b"add": HEAD, b"cas": HEAD, b"delete": HEAD}
_OF_ONE_KEY = {b"get": (1,), b"gets": (1,), b"head": (1,), b"set": (4,), b"add": (4,), b"cas": (5,), b"delete": (1,)}

# What may have to wait while there is no room for changes.
MAY_CHANGE = _WRITING - {b"mn"} | {b"mg"}


def changes(request: Request) -> bool:
    """Whether the request is to change something. An mg may, and nothing shows it: ``Commands.would_change``."""
    return request.verb in _WRITING and request.verb != b"mn"


def waits(request: Request) -> bool:
    """Whether the reply is sent only when all that was written until then is as durable as was promised.

    So is that of any request in which something was changed.
    """
    return request.verb in _WRITING or (request.verb == b"mg" and flagged(request, b"T"))


class Commands:
    """The commands, bound to a store and to the counters they move."""

    def __init__(self, store: Store, stats: Stats) -> None:
        self._store = store
        self._stats = stats
        self._count = stats.counters
        self._changes = Changes(store, stats)
        self._meta = Meta(store, stats, self._changes)
        self._table: dict[bytes, Callable[[Request], Reply]] = {
            b"get": lambda request: self._retrieve(request.verb, request.args, self._get),
            b"bget": lambda request: self._retrieve(
                request.verb, request.args, self._get
            ),  # memcached keeps it for old clients
            b"gets": lambda request: self._retrieve(request.verb, request.args, self._gets),
            b"head": lambda request: self._retrieve(request.verb, request.args, self._head),
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
            **self._meta.table,
            b"scan": lambda request: scan(store, stats.counters, request.args),
            b"lru_crawler": lambda request: lru_crawler(store, request.args),
            b"stats": self._statistics,
            b"version": lambda _: b"VERSION %b\r\n" % VERSION.encode(),
            b"verbosity": self._verbosity,
            **_REFUSED,
        }

    def answer(self, request: Request) -> Reply:
        """Carry out ``request``. The reply is empty where noreply forbids one.

        Whatever the store raises comes through; nothing was done then, or as the store says.
        """
        command = self._table.get(request.verb)
        reply = command(request) if command else _ERROR
        return b"" if request.noreply and reply is not _ERROR else reply

    def needs(self, request: Request) -> Sequence[bytes]:
        """The entries that the request will read; of many keys none yet, see ``Pieces``."""
        if (only := _READING_ONE.get(request.verb)) is not None and len(request.args) in _OF_ONE_KEY[request.verb]:
            return (only + request.args[0],)
        reads = _READING.get(request.verb)
        if reads is None or not request.args:
            return ()
        if request.verb in _MANY:
            keys = request.args[1:] if request.verb in _TOUCHING else request.args
            return [kind + keys[0] for kind in reads] if len(keys) == 1 else ()
        if request.verb == b"md" and flagged(request, b"I"):  # is not to be removed, but written anew
            reads = (HEAD, BODY)
        key = key_of(request) if request.verb in _META else request.args[0]
        return [kind + key for kind in reads]

    def would_change(self, request: Request) -> bool:
        """Whether the request has to wait while there is no room for changes. What it needs is in memory."""
        if request.verb != b"mg":
            return changes(request)
        return self._store.crowded() and self._meta.would_change(request)  # to look closer is worth it only in a crowd

    # --- retrieval ---

    def _retrieve(self, verb: bytes, keys: list[bytes], fetch: Callable[[bytes, bytes], bytes]) -> Reply:
        """``fetch`` gives what is under a key, and behind it what it is given."""
        if not keys:
            return _ERROR
        if max(map(len, keys)) > MAX_KEY:
            return _BAD_FORMAT
        if len(keys) == 1:
            return fetch(keys[0], END)
        # Not all at once: together they may be of any size.
        return Pieces(map(fetch, keys, itertools.repeat(b"")), keys, _READING[verb])

    def _get(self, key: bytes, behind: bytes) -> bytes:
        item = self._store.get(key)
        self._count_get(hit=item is not None)
        return _value(key, item, None, behind) if item else behind

    def _gets(self, key: bytes, behind: bytes) -> bytes:
        item = self._store.get(key)
        self._count_get(hit=item is not None)
        return _value(key, item, item.cas, behind) if item else behind

    def _head(self, key: bytes, behind: bytes) -> bytes:
        head = self._store.head(key)
        self._count_get(hit=head is not None)
        return memcache.value(key, head.flags, head.header, None, behind) if head else behind

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

        def fetch(key: bytes, behind: bytes) -> bytes:
            self._count.cmd_touch += 1
            item = self._store.touch(key, expiry)
            if item is None:
                self._count.touch_misses += 1
                return behind
            self._count.touch_hits += 1
            return _value(key, item, item.cas if with_cas else None, behind)

        return self._retrieve(request.verb, request.args[1:], fetch)

    # --- storage ---

    def _storage(self, request: Request) -> bytes:
        """set, add, replace, append, prepend, cas."""
        verb, key = request.verb, request.args[0]
        expiry = self._expiry(request.args[2])
        if expiry is None or (verb == b"cas" and not 0 <= int(request.args[4]) < numbers.U64):
            return _BAD_FORMAT
        cas = int(request.args[4]) if verb == b"cas" else 0
        return self._changes.keep(verb, key, int(request.args[1]), expiry, request.data, cas) + b"\r\n"

    def _arithmetic(self, request: Request) -> bytes:
        """incr, decr."""
        if not 2 <= len(request.args) + request.noreply <= 3:
            return _ERROR
        key = request.args[0]
        if len(key) > MAX_KEY:
            return _BAD_FORMAT
        delta = numbers.unsigned(request.args[1]) if len(request.args) > 1 else None
        if delta is None:
            return _BAD_DELTA
        result = self._changes.count(key, delta, up=request.verb == b"incr")
        return b"%d\r\n" % result if isinstance(result, int) else result + b"\r\n"

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
        refused = self._changes.remove(key)
        return _DELETED if refused is None else refused + b"\r\n"

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

    def _statistics(self, request: Request) -> Reply:
        if not request.args:
            self._store.settle()
            return memcache.stats(self._stats.figures())
        if request.args[0] == b"reset":
            self._stats.reset()
            return _RESET
        return self._stats.about(*request.args)

    def _verbosity(self, request: Request) -> bytes:
        """Taken and without effect: the node's log is set up by its own options."""
        words = len(request.args) + request.noreply
        if not 1 <= words <= 2:
            return _ERROR
        if request.args and (not request.args[0].isdigit() or numbers.unsigned(request.args[0]) is None):
            return _BAD_FORMAT
        return _OK

    def _expiry(self, exptime: bytes) -> int | None:
        return numbers.expiry(exptime, self._store.clock())


# --- what memcached has and the node has not: refused as by a memcached in which it is switched off ---


def _cache_memlimit(request: Request) -> bytes:
    if not 1 <= len(request.args) + request.noreply <= 2:
        return _ERROR
    megabytes = numbers.unsigned(request.args[0]) if request.args else None
    if megabytes is None or megabytes >= numbers.U32:
        return _ERROR
    if megabytes < 8:
        return b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n"
    if megabytes > 1_000_000_000:
        return b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n"
    return b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n"


def _slabs(request: Request) -> bytes:
    reassign = len(request.args) == 3 and request.args[0] == b"reassign"
    return b"CLIENT_ERROR slab reassignment disabled\r\n" if reassign else _ERROR


_REFUSED: dict[bytes, Callable[[Request], bytes]] = {
    b"cache_memlimit": _cache_memlimit,
    b"slabs": _slabs,
    b"shutdown": lambda _: b"ERROR: shutdown not enabled\r\n",
    b"watch": lambda _: b"CLIENT_ERROR watch commands not allowed\r\n",
    b"refresh_certs": lambda _: b"Error TLS not enabled\r\n",
    # lru, extstore: ERROR, as any unknown word
}


def _value(key: bytes, item: Item, cas: int | None, behind: bytes) -> bytes:
    return memcache.value(key, item.flags, item.data, cas, behind)
