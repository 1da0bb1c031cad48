"""What a change does to an item, whoever asks for it: classic and meta commands differ in words only, not in here.

Each change is one write to the store, whole or not at all. The answers are memcached's words for what came of it; the
counters that memcached moves are moved here.
"""

from __future__ import annotations

from sfss import record
from sfss.memcache import EXISTS, NOT_FOUND, NOT_STORED, STORED
from sfss.node.entries import STALE, WON, Head
from sfss.node.numbers import U64, unsigned
from sfss.node.stats import Stats
from sfss.node.store import Store

NOT_A_NUMBER = b"CLIENT_ERROR cannot increment or decrement non-numeric value"


class Changes:
    """The changes, bound to a store and to the counters they move. A ``cas`` of 0 asks for no version."""

    def __init__(self, store: Store, stats: Stats) -> None:
        self._store = store
        self._stats = stats
        self._count = stats.counters

    def keep(
        self, mode: bytes, key: bytes, flags: int, expiry: int, data: bytes, cas: int = 0, *, late: bool = False
    ) -> bytes:
        """set, add, replace, append, prepend, cas: STORED, or why not.

        A set of a record that is older than the one that lies there isn't carried out: it came late.

        ``late``: a cas of an older version is welcome too, but what it brings is stale, and goes when the item goes.
        """
        self._count.cmd_set += 1
        old = self._store.claim(key)
        marks = 0
        if late and mode == b"cas" and old is not None and 0 < cas < old.cas:
            self._count.cas_hits += 1
            refused = None
            expiry, marks = old.expiry, old.marks | STALE
        elif mode == b"cas":
            refused = self._refuse_version(old, cas)
        elif mode == b"set":
            refused = NOT_STORED if old is not None and record.is_older(data, old.header) else None
            self._count.older_records += refused is not None
        else:
            refused = NOT_STORED if (old is None) != (mode == b"add") else None
        if refused:
            return refused
        if old is not None and mode in (b"append", b"prepend"):
            return self._join(key, old, data, cas, before=mode == b"prepend")
        self._store.put(key, flags, expiry, data, old, marks=marks)
        self._count.total_items += 1
        return STORED

    def _refuse_version(self, old: Head | None, cas: int) -> bytes | None:
        if old is None:
            self._count.cas_misses += 1
            return NOT_FOUND
        if old.cas != cas:
            self._count.cas_badval += 1
            return EXISTS
        self._count.cas_hits += 1
        return None

    def _join(self, key: bytes, old: Head, data: bytes, cas: int, *, before: bool) -> bytes:
        """append and prepend to an item that is there: flags and expiry stay its own."""
        if cas and old.cas != cas:
            return EXISTS
        item = self._store.get(key)
        if item is None or old.size + len(data) > self._stats.max_item_size:
            return NOT_STORED  # for what grows too large too, in memcached
        joined = b"".join((data, item.data) if before else (item.data, data))
        self._store.put(key, item.flags, item.expiry, joined, old)
        self._count.total_items += 1
        return STORED

    def count(
        self, key: bytes, delta: int, *, up: bool, cas: int = 0, expiry: int | None = None, initial: int | None = None
    ) -> int | bytes:
        """Add or take away ``delta``, and give the item another ``expiry`` where one is named: the number, or why not.

        At 64 bits it wraps, at nought it stops. Where there is no item, one is made if there is an ``initial`` number.
        """
        old, item = self._store.claim(key), self._store.get(key)
        if old is None and initial is not None:
            self._store.put(key, 0, expiry or 0, b"%d" % initial, None)
            self._count.total_items += 1
            return initial
        if old is None or item is None:
            self._count_arithmetic(up, hit=False)
            return NOT_FOUND
        if old.size and cas and old.cas != cas:
            return EXISTS
        number = unsigned(item.data)
        if number is None:
            return NOT_A_NUMBER
        self._count_arithmetic(up, hit=True)
        result = (number + delta) % U64 if up else max(number - delta, 0)
        # A shorter number doesn't make the value shorter, it is padded: memcached changes it in place. And so it keeps
        # its marks, while a longer number is a new item, and fresh.
        text = (b"%d" % result).ljust(old.size)
        marks = old.marks if len(text) == old.size else 0
        self._store.put(key, item.flags, item.expiry if expiry is None else expiry, text, old, marks=marks)
        return result

    def _count_arithmetic(self, up: bool, *, hit: bool) -> None:
        if up:
            self._count.incr_hits += hit
            self._count.incr_misses += not hit
        else:
            self._count.decr_hits += hit
            self._count.decr_misses += not hit

    def remove(self, key: bytes, cas: int | None = None) -> bytes | None:
        """delete, if the version is ``cas`` or none is asked for: None, or why not."""
        old = self._claim_to_remove(key, cas)
        if not isinstance(old, Head):
            return old
        self._store.remove(key, old)
        self._count.delete_hits += 1
        return None

    def make_stale(self, key: bytes, cas: int | None = None, expiry: int | None = None) -> bytes | None:
        """In the place of ``remove``: the item has a new version, and whoever asks next is to bring a fresh one."""
        old = self._claim_to_remove(key, cas)
        if not isinstance(old, Head):
            return old
        self._store.amend(key, old, expiry=expiry, marks=STALE, bump=True)
        return None

    def _claim_to_remove(self, key: bytes, cas: int | None) -> Head | bytes:
        self._count.cmd_delete += 1
        old = self._store.claim(key)
        if old is None or cas not in (None, old.cas):
            self._count.delete_misses += 1
            return NOT_FOUND if old is None else EXISTS
        return old

    # --- what asking for an item changes ---

    def make(self, key: bytes, expiry: int) -> None:
        """An empty item, which whoever is told of it is to fill."""
        self._store.put(key, 0, expiry, b"", self._store.claim(key), marks=WON)
        self._count.total_items += 1

    def amend(self, key: bytes, expiry: int, marks: int) -> None:
        """Give the item, if it is there still, another expiry, other marks, or both."""
        old = self._store.claim(key)
        if old is not None:
            self._store.amend(key, old, expiry=expiry, marks=marks)
