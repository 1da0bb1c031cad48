"""memcached's meta commands, mn mg ms md ma me, upon the store; their replies are memcached 1.6.18's, byte for byte.

A request is a verb, a key, and flags of one letter that may have a token behind them: ``mg /a.txt v t O17``. A line
that can't be right is refused before anything is done, and an error is said in quiet mode (``q``) too.

An item may be stale, and somebody may have won it: been told (``W``) to bring what is fresh, while others are told
that somebody was (``Z``). An mg that wins changes the item, and so does one that makes it (``N``).

Where the node means to differ from memcached:

* Nobody notes when an item is read: ``l``, and ``la`` of me, count from when it was written, ``h`` is 0, ``fetch`` no.
* ``T`` of ma holds, and ``t`` tells it wherever it stands. memcached loses it where a number grows by a digit.
* A key is told as it was asked for, in base64 with ``b``. memcached tells it as it was written.
* ``exp`` of me is the seconds that are left. memcached 1.6.18 tells them negative, later ones don't.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import NamedTuple

from sfss import memcache
from sfss.memcache import BAD_FORMAT, EXISTS, MAX_KEY, NOT_FOUND, NOT_STORED, STORED, Request
from sfss.node import numbers
from sfss.node.changes import Changes
from sfss.node.entries import STALE, WON
from sfss.node.scan import CLASS, cost
from sfss.node.stats import Stats
from sfss.node.store import Store

_CRLF = b"\r\n"
_NO_DATA = memoryview(b"")
_MAX_WORDS = 19  # of a request
_MAX_OPAQUE = 32  # bytes, with its letter
_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")

_TOO_MANY = b"CLIENT_ERROR options flags too long"
_TOO_MANY_MG = b"CLIENT_ERROR options flags are too long"
_DUPLICATE = b"CLIENT_ERROR duplicate flag"
_INVALID = b"CLIENT_ERROR invalid flag"
_INVALID_OR_DUPLICATE = b"CLIENT_ERROR invalid or duplicate flag"  # all that md and ma have to say
_BAD_TOKEN = b"CLIENT_ERROR bad token in command line format"
_BAD_BASE64 = b"CLIENT_ERROR error decoding key"
_LONG_OPAQUE = b"CLIENT_ERROR opaque token too long"
_TOKEN_ERRORS = {
    **dict.fromkeys((b"N", b"T", b"R", b"C"), _BAD_TOKEN),
    b"F": BAD_FORMAT,
    b"J": b"CLIENT_ERROR invalid numeric initial value",
    b"D": b"CLIENT_ERROR invalid numeric delta value",
    b"M": b"CLIENT_ERROR incorrect length for M token",
    b"b": _BAD_BASE64,
}

_WORDS = {STORED: b"HD", EXISTS: b"EX", NOT_FOUND: b"NF", NOT_STORED: b"NS"}
_MODES = {b"": b"set", b"S": b"set", b"E": b"add", b"A": b"append", b"P": b"prepend", b"R": b"replace"}
_UP = {b"": True, b"I": True, b"+": True, b"D": False, b"-": False}
_KNOWN = frozenset(b"NTRlOPLkstcfvhuqFCMJDIb")


def flagged(request: Request, letter: bytes) -> bool:
    """Whether a meta command, other than ms, has this flag."""
    return any(word[:1] == letter for word in request.args[1:])


def key_of(request: Request) -> bytes:
    """The key that a meta command names; empty if it is none."""
    binary = request.args[1:2] == [b"b"] if request.verb == b"me" else flagged(request, b"b")
    return _from_base64(request.args[0]) if binary else request.args[0]


class _Refused(Exception):
    """The request is no request: the line that says why."""


class _Asked(NamedTuple):
    """A request as it was understood. Flags stand in the order in which they came; that of a reply is the same."""

    key: bytes
    flags: dict[bytes, bytes]  # letter -> token
    numbers: dict[bytes, int]  # letter -> what its token says; T and N as dates

    def told_back(self, figures: Mapping[bytes, int] | None = None, left: Mapping[bytes, int] | None = None) -> bytes:
        """The flags of a reply: O and k as they came, and those that ``figures`` has. ``left``: t's behind others."""
        known = dict(figures or {})
        told = []
        for letter, token in self.flags.items():
            if letter in known:
                told.append(b" %b%d" % (letter, known[letter]))
            elif letter == b"O":
                told.append(b" O" + token)
            elif letter == b"k":
                told.append(b" k%b b" % base64.b64encode(self.key) if b"b" in self.flags else b" k" + self.key)
            elif left and letter in left:
                known[b"t"] = left[letter]
        return b"".join(told)


class _Found(NamedTuple):
    """What mg tells of an item, as it was before. What wasn't asked for may be empty."""

    flags: int
    expiry: int
    cas: int
    time: int
    size: int
    marks: int
    data: memoryview


class _Outcome(NamedTuple):
    """What becomes of an item that an mg has asked for."""

    expiry: int
    marks: int
    expiries: dict[bytes, int]  # as they were given, flag by flag
    told: bytes  # of its marks


class Meta:
    """The meta commands, bound to a store and to the counters they move."""

    def __init__(self, store: Store, stats: Stats, changes: Changes) -> None:
        self._store = store
        self._count = stats.counters
        self._changes = changes
        self.table: dict[bytes, Callable[[Request], bytes]] = {
            b"mn": lambda _: b"MN\r\n",
            b"mg": lambda request: self._carry_out(self._get, request),
            b"ms": lambda request: self._carry_out(self._set, request),
            b"md": lambda request: self._carry_out(self._delete, request),
            b"ma": lambda request: self._carry_out(self._arithmetic, request),
            b"me": self._debug,
        }

    def _carry_out(self, command: Callable[[_Asked, bytes], bytes], request: Request) -> bytes:
        if not request.args:
            return memcache.ERROR + _CRLF
        try:
            return command(_understand(request, self._store.clock()), request.data)
        except _Refused as refused:
            line: bytes = refused.args[0]
            return line + _CRLF

    # --- mg ---

    def _get(self, asked: _Asked, _: bytes) -> bytes:
        found = self._fetch(asked)
        if found is None and b"N" not in asked.numbers:
            self._count_get(hit=False, touch=False)  # a touch that misses counts as a get, in memcached
            return b"" if b"q" in asked.flags else b"EN" + asked.told_back() + _CRLF
        outcome = _outcome(asked, found)
        if found is None:
            found = self._make(asked.key, outcome.expiry)
        elif (outcome.expiry, outcome.marks) != (found.expiry, found.marks):
            self._changes.amend(asked.key, outcome.expiry, outcome.marks)
        self._count_get(hit=True, touch=b"T" in asked.numbers)
        figures = {
            b"s": found.size,
            b"t": self._left(found.expiry),
            b"c": found.cas,
            b"f": found.flags,
            b"l": self._age(found.time),
            b"h": 0,
        }
        left = {letter: self._left(expiry) for letter, expiry in outcome.expiries.items()}
        told = asked.told_back(figures, left) + outcome.told
        if b"v" not in asked.flags:
            return b"HD" + told + _CRLF
        return b"".join((b"VA %d" % found.size, told, _CRLF, found.data, _CRLF))

    def _fetch(self, asked: _Asked) -> _Found | None:
        """A body is read only if it is wanted; a head only for what a body doesn't tell."""
        body = b"v" in asked.flags
        head = self._store.head(asked.key) if b"l" in asked.flags or not body else None
        if not body:
            return head and _Found(head.flags, head.expiry, head.cas, head.time, head.size, head.marks, _NO_DATA)
        item = self._store.get(asked.key)
        time = head.time if head else 0
        return item and _Found(item.flags, item.expiry, item.cas, time, len(item.data), item.marks, item.data)

    def _make(self, key: bytes, expiry: int) -> _Found:
        """The item that N makes, as it is told of: its expiry is for the flags to tell."""
        self._changes.make(key, expiry)
        head = self._store.head(key)  # none if its expiry is past
        return _Found(0, 0, head.cas if head else 0, int(self._store.clock() * 1e6), 0, 0, _NO_DATA)

    def would_change(self, request: Request) -> bool:
        """Whether this mg would change something, as things are."""
        if not request.args:
            return False
        try:
            asked = _understand(request, self._store.clock())
            found = self._fetch(asked)
        except Exception:  # noqa: BLE001  said in its turn
            return False
        if found is None:
            return b"N" in asked.numbers
        outcome = _outcome(asked, found)
        return (outcome.expiry, outcome.marks) != (found.expiry, found.marks)

    def _count_get(self, *, hit: bool, touch: bool) -> None:
        if touch:
            self._count.cmd_touch += 1
            self._count.touch_hits += 1
            return
        self._count.cmd_get += 1
        self._count.get_hits += hit
        self._count.get_misses += not hit

    # --- ms, md, ma ---

    def _set(self, asked: _Asked, data: bytes) -> bytes:
        mode = _MODES.get(asked.flags.get(b"M", b""))
        if mode is None:
            raise _Refused(b"CLIENT_ERROR invalid mode for ms M token")
        cas = asked.numbers.get(b"C")
        if cas is not None and mode in (b"set", b"replace"):
            mode = b"cas"
        get = asked.numbers.get
        late = b"I" in asked.flags
        word = self._changes.keep(mode, asked.key, get(b"F", 0), get(b"T", 0), data, cas or 0, late=late)
        if word == STORED and b"q" in asked.flags:
            return b""
        cas = self._after(asked)[b"c"] if word == STORED else 0
        return _WORDS[word] + asked.told_back({b"c": cas}) + _CRLF

    def _delete(self, asked: _Asked, _: bytes) -> bytes:
        cas = asked.numbers.get(b"C")
        if b"I" in asked.flags:
            refused = self._changes.make_stale(asked.key, cas, asked.numbers.get(b"T"))
        else:
            refused = self._changes.remove(asked.key, cas)
        if refused is None and b"q" in asked.flags:
            return b""
        return (b"HD" if refused is None else _WORDS[refused]) + asked.told_back() + _CRLF

    def _arithmetic(self, asked: _Asked, _: bytes) -> bytes:
        up = _UP.get(asked.flags.get(b"M", b""))
        if up is None:
            raise _Refused(b"CLIENT_ERROR invalid mode for ma M token")
        given = asked.numbers
        created = b"N" in given and self._store.claim(asked.key) is None
        # Both T and N name the expiry of an item that is made: the last of them holds.
        expiries = [given[letter] for letter in asked.flags if letter == b"T" or (created and letter == b"N")]
        result = self._changes.count(
            asked.key,
            given.get(b"D", 1),
            up=up,
            cas=given.get(b"C", 0),
            expiry=expiries[-1] if expiries else None,
            initial=given.get(b"J", 0) if created else None,
        )
        if not isinstance(result, int):
            if result not in _WORDS:
                raise _Refused(result)
            return _WORDS[result] + asked.told_back() + _CRLF
        if b"q" in asked.flags and not created:
            return b""
        told = asked.told_back(self._after(asked)) + _CRLF
        return b"VA %d%b%d\r\n" % (len(str(result)), told, result) if b"v" in asked.flags else b"HD" + told

    def _after(self, asked: _Asked) -> dict[bytes, int]:
        """What a reply may tell of an item that was changed. All nought if it is no more: its expiry is past."""
        head = self._store.head(asked.key) if asked.flags.keys() & {b"c", b"t"} else None
        return {b"c": head.cas, b"t": self._left(head.expiry)} if head else {b"c": 0, b"t": 0}

    # --- me ---

    def _debug(self, request: Request) -> bytes:
        """All that is known of an item, for humans. Its only flag is b, in the first place; others are ignored."""
        if not request.args or len(request.args[0]) > MAX_KEY:
            return BAD_FORMAT + _CRLF
        name, *flags = request.args
        key = _from_base64(name) if flags[:1] == [b"b"] else name
        if not key:
            return BAD_FORMAT + _CRLF
        head = self._store.head(key)
        if head is None:
            return b"EN\r\n"
        return b"ME %b exp=%d la=%d cas=%d fetch=no cls=%d size=%d\r\n" % (
            base64.b64encode(key) if key is not name else name,
            self._left(head.expiry),
            self._age(head.time),
            head.cas,
            CLASS,
            cost(key, head),
        )

    def _left(self, expiry: int) -> int:
        """Seconds until then, -1 for never."""
        return max(int(expiry - self._store.clock()), 0) if expiry else -1

    def _age(self, time: int) -> int:
        """Seconds since then, which is in microseconds."""
        return max(int(self._store.clock() - time / 1e6), 0)


def _outcome(asked: _Asked, found: _Found | None) -> _Outcome:
    """What becomes of what was found, or is made by N. Flags act in the order in which they stand."""
    expiry, marks = (found.expiry, found.marks) if found else (0, 0)
    won = found is None or marks == STALE
    expiries: dict[bytes, int] = {}
    for letter, number in asked.numbers.items():
        if letter == b"T" or (letter == b"N" and found is None):
            expiries[letter] = expiry = number
        elif letter == b"R" and found is not None and not marks & WON:
            won = won or 0 < expiry < number
    told = (b" Z" if marks & WON else b"") + (b" X" if marks & STALE else b"") + (b" W" if won else b"")
    return _Outcome(expiry, marks | WON if won else marks, expiries, told)


# --- requests ---


def _understand(request: Request, now: float) -> _Asked:
    """The request's key and flags. Raises _Refused, with memcached's words for the last thing that is wrong."""
    verb, name = request.verb, request.args[0]
    words = request.args[2:] if verb == b"ms" else request.args[1:]  # an ms has its size there
    if len(name) > MAX_KEY:
        raise _Refused(BAD_FORMAT)
    if len(request.args) >= _MAX_WORDS:
        raise _Refused(_TOO_MANY_MG if verb == b"mg" else _TOO_MANY)
    try:
        asked = _read_flags(name, words, now)
    except _Refused:
        if verb in (b"md", b"ma"):
            raise _Refused(_INVALID_OR_DUPLICATE) from None
        raise
    if 1 + len(asked.flags.get(b"O", b"")) > _MAX_OPAQUE:
        raise _Refused(_LONG_OPAQUE)
    return asked


def _read_flags(name: bytes, words: list[bytes], now: float) -> _Asked:
    flags: dict[bytes, bytes] = {}
    values: dict[bytes, int] = {}
    key, error = name, b""
    for word in words:
        letter, token = word[:1], word[1:]
        if letter in flags or letter >= b"\x7f":
            raise _Refused(_DUPLICATE)
        if letter[0] not in _KNOWN:
            raise _Refused(_INVALID)
        flags[letter] = token
        if letter == b"b":
            key = _from_base64(name)
        value = _number(letter, token, now)
        if value is not None:
            values[letter] = value
        bad = (letter == b"b" and not key) or (letter == b"M" and len(token) != 1)
        if bad or (letter in b"NTRCFJD" and value is None):
            error = error if letter == b"F" and error else _TOKEN_ERRORS[letter]
    if error:
        raise _Refused(error)
    return _Asked(key, flags, values)


def _number(letter: bytes, token: bytes, now: float) -> int | None:
    """What the token of a flag says that takes a number; None of another flag, or if it is none."""
    if letter in b"NTR":
        return numbers.expiry(token, now)
    if letter in b"CJD":
        return numbers.unsigned(token)
    if letter == b"F":
        number = numbers.unsigned(token)
        return number if number is not None and number < numbers.U32 else None
    return None


def _from_base64(text: bytes) -> bytes:
    """The key that ``text`` stands for; empty if it stands for none.

    As memcached reads it: what base64 doesn't know is passed over, and the first padding ends it.
    """
    letters = bytes(letter for letter in text if letter in _BASE64)
    if len(letters) % 4:
        return b""
    end = letters.find(b"=")
    if end < 0:
        return base64.b64decode(letters)
    last = end - end % 4  # where the block with the padding begins
    block = letters[last : last + 4]
    padding = block.count(b"=")
    if padding > 2:
        return b""
    return (base64.b64decode(letters[:last] + block.replace(b"=", b"A")))[:-padding]
