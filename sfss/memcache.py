"""memcached's text protocol, sans-IO: bytes in, events out, and the reverse. Both ends of the wire share it.

What lives here: framing, limits, the words of requests and replies. What never does: sockets, clocks, storage.
Source: memcached's ``doc/protocol.txt``, and what memcached 1.6 and Beansdb do where it is silent.

A client feeds what it reads to a ``ReplyParser`` and gets ``Reply`` objects, in the order of its requests. A server
feeds a ``RequestParser`` and gets ``Request`` objects and ``Refusal`` ones, which hold the error to answer with.
However the bytes are split on their way, the events are the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from sfss.errors import ProtocolError

MAX_KEY = 250  # bytes; Beansdb's limit too
DEFAULT_MAX_VALUE = 1024 * 1024  # bytes; memcached's -I
MAX_LINE = 2048  # bytes of a request that names one key, or of a reply: memcached's own limit
MAX_KEYS_LINE = 64 * 1024  # bytes of a request that may name many keys
MAX_LENGTH = 2**31 - 3  # memcached takes a longer block for a mistake and doesn't swallow it

METASET = b"ms"  # the meta command that has a block
STORAGE = frozenset((b"set", b"add", b"replace", b"append", b"prepend", b"cas"))
# How many words come before a `noreply` at the least: `delete noreply` deletes that key. And the storage commands.
NOREPLY = {b"delete": 2, b"incr": 2, b"decr": 2, b"touch": 2, b"flush_all": 1, b"verbosity": 1,
           b"cache_memlimit": 2, b"watch": 1}  # fmt: skip
MANY_KEYS = (b"get ", b"gets ", b"gat ", b"gats ", b"bget ")

END = b"END"
STORED = b"STORED"
NOT_STORED = b"NOT_STORED"
EXISTS = b"EXISTS"
NOT_FOUND = b"NOT_FOUND"
DELETED = b"DELETED"
TOUCHED = b"TOUCHED"
OK = b"OK"
RESET = b"RESET"
ERROR = b"ERROR"
CLIENT_ERROR = b"CLIENT_ERROR"
SERVER_ERROR = b"SERVER_ERROR"
VERSION = b"VERSION"
META_DONE, META_EXISTS, META_NOT_FOUND = b"HD", b"EX", b"NF"  # the answers to md

BAD_FORMAT = b"CLIENT_ERROR bad command line format"
BAD_CHUNK = b"CLIENT_ERROR bad data chunk"
LINE_TOO_LONG = b"CLIENT_ERROR line too long"
VALUE_TOO_LARGE = b"SERVER_ERROR object too large for cache"
OUT_OF_SPACE = b"SERVER_ERROR out of space"  # how our node says it

_LINE_END = b"\r\n"
_STORED_LINE = STORED + _LINE_END
_VALUE_END = b"\r\nEND\r\n"
_ONE_VALUE = re.compile(rb"VALUE ([^ \r\n]{1,250}) ([0-9]{1,10}) ([0-9]{1,10})\r\n")
_LINES = frozenset((END, STORED, NOT_STORED, EXISTS, NOT_FOUND, DELETED, TOUCHED, OK, RESET, ERROR,
                    META_DONE, META_EXISTS, META_NOT_FOUND))  # fmt: skip
_PREFIXES = (b"SERVER_ERROR", b"CLIENT_ERROR", b"VERSION ", b"ERROR ")
_PIECE = 4 * 1024  # bytes of a piece of a large value, at the least
_MAX_VALUES = 1000  # of one reply; nobody here asks for so many
_MAX_STATS = 100_000  # lines of one STATS reply; a server that sends more is broken ...
_MAX_STATS_SIZE = 8 * 1024 * 1024  # ... or more bytes, or never comes to an end


class _Large:
    """A large value on its way, in the pieces in which it comes: a buffer that grows would be copied at each turn."""

    def __init__(self, size: int, begun: bytes) -> None:
        self.lacks = size - len(begun)  # bytes to come
        self._pieces = [begun]

    def take(self, data: bytes | memoryview) -> int:
        """Take of ``data`` what belongs to it; return how many bytes that are."""
        piece = bytes(data[: self.lacks])
        self.lacks -= len(piece)
        if len(self._pieces[-1]) < _PIECE:  # many small ones would take more than their bytes
            self._pieces[-1] += piece
        else:
            self._pieces.append(piece)
        return len(piece)

    def whole(self) -> bytes:
        """All of it."""
        return b"".join(self._pieces)


# --- the client's end: requests out, replies in ---------------------------------------------------------------------


class Value(msgspec.Struct, frozen=True, gc=False):
    """One ``VALUE`` of a reply. ``cas`` is 0 where the request didn't ask for it."""

    key: bytes
    flags: int
    data: bytes
    cas: int


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One whole reply: its last line, and what came before it."""

    line: bytes
    values: list[Value]
    stats: dict[bytes, bytes]


def retrieval(verb: bytes, *keys: bytes) -> bytes:
    """A request like ``get key key``, whose reply is VALUEs and END."""
    return b"%b %b\r\n" % (verb, b" ".join(keys))


def storage(verb: bytes, key: bytes, data: bytes, *, expiry: int = 0, cas: int | None = None) -> bytes:
    """A request like ``set``, flags 0; ``expiry`` in seconds, 0 for never (Beansdb takes it for a version: 0 there)."""
    if cas is None:
        line = b"%b %b 0 %d %d\r\n" % (verb, key, expiry, len(data))
    else:
        line = b"%b %b 0 %d %d %d\r\n" % (verb, key, expiry, len(data), cas)
    return b"".join((line, data, _LINE_END))  # to format large data is to copy it more than once


def command(*words: bytes) -> bytes:
    """Any request of one line."""
    return b" ".join(words) + b"\r\n"


class ReplyParser:
    """Makes replies of what a server sends.

    ``max_value`` bounds the values of one reply together, and so the memory held: no more than a reply is kept.
    """

    def __init__(self, max_value: int = DEFAULT_MAX_VALUE) -> None:
        self._max_value = max_value
        self._rest = b""  # what came and is not whole
        self._block: tuple[bytes, int, int, int] | None = None  # key, flags, cas, size: a VALUE whose data is to come
        self._large: _Large | None = None  # that data, where it is large
        self._values: list[Value] = []
        self._values_size = 0  # bytes, with those of a VALUE whose data is to come
        self._stats: dict[bytes, bytes] = {}
        self._stats_size = 0  # bytes of their lines

    @property
    def idle(self) -> bool:
        """True if no reply has begun: all that came was whole."""
        return not (self._rest or self._block or self._values or self._stats)

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that ``data`` completes, in order.

        Raises ProtocolError where no server of this protocol would have sent this; the parser is of no more use then.
        """
        replies: list[Reply] = []
        if self._large is not None and self._large.lacks:
            data = data[self._large.take(data) :]
            if not data:
                return replies
        if self._rest:
            data = self._rest + data
        position = 0
        while position < len(data):
            if self._block:
                after = self._take_block(data, position)
            elif (one := _ONE_VALUE.match(data, position)) and not self._values:
                after = self._take_one(data, one, replies)
            else:
                after = self._take_line(data, position, replies)
            if after == position:
                break
            position = after
        self._rest = data[position:]
        if self._block and self._large is None and self._block[-1] - len(self._rest) > _PIECE:
            self._large = _Large(self._block[-1], self._rest)
            self._rest = b""
        return replies

    def _take_one(self, data: bytes, line: re.Match[bytes], replies: list[Reply]) -> int:
        """Read a reply of one value in one step, if it is all here and like that, as nearly all are."""
        key, flags, size = line.groups()
        start = line.end()
        end = start + int(size)
        if end - start > self._max_value or not data.startswith(_VALUE_END, end):
            return self._take_line(data, line.start(), replies)
        replies.append(Reply(END, [Value(key, int(flags), data[start:end], 0)], {}))
        return end + len(_VALUE_END)

    def _take_line(self, data: bytes, position: int, replies: list[Reply]) -> int:
        """Read one line from ``position``; return where the next begins, or ``position`` if it isn't whole."""
        if data.startswith(_STORED_LINE, position) and not (self._values or self._stats):  # as nearly all are
            replies.append(Reply(STORED, [], {}))
            return position + len(_STORED_LINE)
        end = data.find(_LINE_END, position, position + MAX_LINE + 2)
        if end < 0:
            if len(data) - position >= MAX_LINE + 2:
                raise ProtocolError(f"a reply's line is longer than {MAX_LINE} bytes")
            return position
        line = data[position:end]
        if line.startswith(b"VALUE "):
            self._block = self._value_header(line)
        elif line.startswith(b"STAT "):
            name, _, value = line[5:].partition(b" ")
            self._stats[name] = value
            self._stats_size += len(line)
            if len(self._stats) > _MAX_STATS or self._stats_size > _MAX_STATS_SIZE:
                raise ProtocolError(f"a STATS reply of more than {_MAX_STATS} lines or {_MAX_STATS_SIZE} bytes")
        else:
            replies.append(self._last_line(line))
        return end + 2

    def _value_header(self, line: bytes) -> tuple[bytes, int, int, int]:
        words = line.split(b" ")
        if not 4 <= len(words) <= 5 or not b"".join(words[2:]).isdigit() or b"" in words:
            raise ProtocolError(f"not a VALUE line: {line[:100]!r}")
        size = int(words[3])
        self._values_size += size
        if self._values_size > self._max_value or len(self._values) >= _MAX_VALUES:
            raise ProtocolError(f"a value of {size} bytes: of one reply at most {self._max_value} were expected")
        return words[1], int(words[2]), int(words[4]) if len(words) == 5 else 0, size

    def _take_block(self, data: bytes, position: int) -> int:
        """Read the data of the VALUE that was begun, if all of it is here."""
        assert self._block is not None
        key, flags, cas, size = self._block
        end = position + (size if self._large is None else 0)
        if len(data) < end + 2:
            return position
        if not data.startswith(_LINE_END, end):
            raise ProtocolError("a value doesn't end where its length says")
        content = data[position:end] if self._large is None else self._large.whole()
        self._values.append(Value(key, flags, content, cas))
        self._block = self._large = None
        return end + 2

    def _last_line(self, line: bytes) -> Reply:
        failed = line.startswith(SERVER_ERROR)  # may cut a reply short: what came of it is void
        begun = bool(self._values or self._stats)
        known = line in _LINES or line.startswith(_PREFIXES) or line.isdigit()
        if not known or (begun and not (line == END or failed)):
            raise ProtocolError(f"not a line of memcached's protocol here: {line[:100]!r}")
        values, stats = self._values, self._stats
        self._values_size = self._stats_size = 0
        self._values, self._stats = [], {}  # never those of an earlier reply, into which the next value would go
        return Reply(line, [], {}) if failed else Reply(line, values, stats)


# --- the server's end: requests in, replies out ----------------------------------------------------------------------


class Request(NamedTuple):
    """One request. For a storage command ``data`` is its block, and ``args`` are key, flags, expiry, size and cas."""

    verb: bytes
    args: list[bytes]
    data: bytes
    noreply: bool


class Refusal(NamedTuple):
    """A request that was not one: answer ``line``, unless ``noreply``; hang up after it if ``fatal``."""

    line: bytes
    noreply: bool = False
    fatal: bool = False


def value(key: bytes, flags: int, data: bytes | memoryview, cas: int | None = None, behind: bytes = b"") -> bytes:
    """One VALUE of a reply; ``cas`` where it was asked for. ``behind``: what comes behind it."""
    if cas is None:
        line = b"VALUE %b %d %d\r\n" % (key, flags, len(data))
    else:
        line = b"VALUE %b %d %d %d\r\n" % (key, flags, len(data), cas)
    return b"".join((line, data, _LINE_END, behind))


def stats(figures: Iterable[tuple[str, object]]) -> bytes:
    """A STATS reply."""
    return b"".join(f"STAT {name} {figure}\r\n".encode() for name, figure in figures) + b"END\r\n"


class RequestParser:
    """Makes requests of what a client sends.

    A block of more than ``max_value`` bytes is refused at its first line and swallowed as it comes, so that nothing of
    it is kept and nothing of it is taken for a command. Memory held between calls: one request's worth.
    """

    def __init__(self, max_value: int = DEFAULT_MAX_VALUE) -> None:
        self._max_value = max_value
        self._buffer = bytearray()
        self._pending: Request | None = None  # a storage command whose block is to come ...
        self.size = 0  # ... and that block's size
        self._large: _Large | None = None  # that block, where it is large
        self._swallow = 0  # bytes to come that belong to a refused request

    @property
    def idle(self) -> bool:
        """True if no request has begun: all that came was whole."""
        return not (self._buffer or self._pending or self._swallow)

    @property
    def lacks(self) -> int:
        """Bytes to come of the block that has begun; 0 if none has."""
        if self._pending is None:
            return 0
        size = self.size if self._large is None else self._large.lacks
        return max(size + 2 - len(self._buffer), 0)

    def feed(self, data: bytes | memoryview) -> list[Request | Refusal]:
        """The requests that ``data`` completes, in order. After a fatal Refusal the parser is of no more use."""
        events: list[Request | Refusal] = []
        if self._large is not None and self._large.lacks:
            data = data[self._large.take(data) :]
            if not data:
                return events
        self._buffer += data
        position = 0
        while position < len(self._buffer):
            if self._swallow:
                after = min(position + self._swallow, len(self._buffer))
                self._swallow -= after - position
            elif self._pending:
                after = self._take_block(position, events)
            else:
                after = self._take_line(position, events)
            if after == position:
                break
            position = after
        del self._buffer[:position]
        if self._pending and self._large is None and self.size - len(self._buffer) > _PIECE:
            self._large = _Large(self.size, bytes(self._buffer))
            self._buffer.clear()
        return events

    def _take_line(self, position: int, events: list[Request | Refusal]) -> int:
        end = self._buffer.find(b"\n", position)
        length = (len(self._buffer) if end < 0 else end) - position
        if length > MAX_LINE and length > self._line_limit(position):
            events.append(Refusal(LINE_TOO_LONG, fatal=True))
            return len(self._buffer)
        if end < 0:
            return position
        line = bytes(self._buffer[position:end]).removesuffix(b"\r")
        words = [word for word in line.split(b" ") if word]  # blanks alone part words: a tab belongs to its key
        if not words:
            events.append(Refusal(ERROR))
        elif words[0] in STORAGE:
            self._begin_storage(words, events)
        elif words[0].isupper() and words[-1].startswith(b"HTTP/"):
            # A browser, or a service that was led here: its request's body must not be taken for commands.
            events.append(Refusal(b"", noreply=True, fatal=True))
            return len(self._buffer)
        elif words[0] == METASET:
            self._begin_metaset(words, events)
        else:
            noreply = words[-1] == b"noreply" and len(words) > NOREPLY.get(words[0], len(words))
            events.append(Request(words[0], words[1 : len(words) - noreply], b"", noreply))
        return end + 1

    def _line_limit(self, position: int) -> int:
        many = bytes(self._buffer[position : position + 5]).startswith(MANY_KEYS)
        return MAX_KEYS_LINE if many else MAX_LINE

    def _begin_storage(self, words: list[bytes], events: list[Request | Refusal]) -> None:
        """Take the first line of a storage command: wait for its block, or refuse it and swallow what will come."""
        arguments = 5 if words[0] == b"cas" else 4
        if not 0 <= len(words) - 1 - arguments <= 1:
            events.append(Refusal(ERROR))
            return
        noreply = words[-1] == b"noreply" and len(words) > arguments + 1  # memcached ignores any other word there
        args = words[1 : arguments + 1]
        size = int(args[3]) if _is_number(args[3]) else -1
        if not 0 <= size <= MAX_LENGTH:
            events.append(Refusal(BAD_FORMAT, noreply))
            return
        numbers_hold = _is_number(args[1]) and 0 <= int(args[1]) < 2**32 and all(map(_is_number, args[2:]))
        if len(args[0]) > MAX_KEY or not numbers_hold:
            events.append(Refusal(BAD_FORMAT, noreply))
            self._swallow = size + 2
        elif size > self._max_value:
            events.append(Refusal(VALUE_TOO_LARGE, noreply))
            self._swallow = size + 2
        else:
            self._pending, self.size = Request(words[0], args, b"", noreply), size

    def _begin_metaset(self, words: list[bytes], events: list[Request | Refusal]) -> None:
        """The same for ``ms <key> <size> <flags>*``: its errors are always said. Of flags nothing is known here."""
        size = int(words[2]) if len(words) > 2 and _is_number(words[2]) else -1
        if not 0 <= size <= MAX_LENGTH:
            events.append(Refusal(BAD_FORMAT if len(words) > 1 else ERROR))
        elif len(words[1]) > MAX_KEY or size > self._max_value:
            events.append(Refusal(BAD_FORMAT if len(words[1]) > MAX_KEY else VALUE_TOO_LARGE))
            self._swallow = size + 2
        else:
            self._pending, self.size = Request(METASET, words[1:], b"", False), size

    def _take_block(self, position: int, events: list[Request | Refusal]) -> int:
        assert self._pending is not None
        end = position + (self.size if self._large is None else 0)
        if len(self._buffer) < end + 2:
            return position
        if self._buffer[end : end + 2] == _LINE_END:
            with memoryview(self._buffer) as view:
                data = bytes(view[position:end]) if self._large is None else self._large.whole()
            events.append(self._pending._replace(data=data))
        else:
            events.append(Refusal(BAD_CHUNK, self._pending.noreply))
        self._pending = self._large = None
        return end + 2


def _is_number(word: bytes) -> bool:
    """A decimal integer as memcached's safe_strtol takes it, of a length that can't be a trap."""
    return len(word) <= 20 and (word[1:] if word[:1] in b"+-" else word).isdigit()
