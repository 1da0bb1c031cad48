r"""The wire form of ``scan``, sans-IO, for both ends: items in key order, each with all that is known but its body.

A request is ``scan <from> <to> <count>``. A bound is ``[key`` (the key belongs to the range), ``(key`` (it doesn't),
``-`` (from the first key on) or ``+`` (to the last). The reply is, for each item, and then ``END``::

    ITEM <key> <flags> <expiry> <cas> <time> <size> <length>
    <length bytes: the prefix and header of the value if it is a record of sfss, else none>

Keys are any bytes (meta commands take them in base64). In a line a blank, a control character and the backslash are
written ``\xHH``, so that the keys of sfss, which have none of them, stand as they are.

Fewer than ``count`` items mean that the range has no more; else go on with ``(`` and the last key. It is all told at
length in ``docs/node-protocol.rst``. What never lives here: sockets, storage.

For who lists millions there is ``scan <from> <to> <count> rows``, which takes a fraction of the time. Its reply is
blocks, and then ``END``: ``ROWS <length>``, and so many bytes of msgpack, an array of ``[key, header, size, cas]``.
With ``heads`` in the place of ``rows`` the blocks are ``HEADS <length>`` and ``[[key, ...], [header, ...]]``: the least
work.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from sfss.errors import ProtocolError
from sfss.memcache import CLIENT_ERROR, END, ERROR, MAX_LINE, SERVER_ERROR
from sfss.record import MAX_HEADER, PREFIX_SIZE

MAX_COUNT = 10_000  # items of one reply: some 2 MB, so that no reply takes long
FIRST, LAST = b"-", b"+"  # the bounds of everything
ROWS, HEADS = b"rows", b"heads"  # the words that ask for blocks
MAX_BLOCK = 1024 * 1024  # bytes of one

_UNSAFE = re.compile(rb"[\x00-\x20\x7f\\]")
_ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2}))?")

_ERRORS = (SERVER_ERROR, CLIENT_ERROR, ERROR)
_BLOCK = {word: re.compile(word.upper() + rb" ([0-9]{1,9})") for word in (ROWS, HEADS)}

Row = tuple[bytes, bytes, int, int]  # key, header, size, cas: as of an Item


class Item(NamedTuple):
    """One ITEM of a reply."""

    key: bytes
    flags: int
    expiry: int  # seconds since the epoch, 0 for never
    cas: int
    time: int  # of writing, microseconds since the epoch by the node's clock
    size: int  # bytes of the value
    header: bytes  # the record's prefix and header; empty if the value isn't a record


def request(start: bytes, end: bytes, count: int) -> bytes:
    """Ask for ``count`` items between two bounds."""
    return b"scan %b %b %d\r\n" % (start, end, count)


def blocks_request(start: bytes, end: bytes, count: int, word: bytes) -> bytes:
    """The same in blocks, as ``ROWS`` or as ``HEADS``."""
    return b"scan %b %b %d %b\r\n" % (start, end, count, word)


def written(key: bytes) -> bytes:
    """``key`` as it stands in a line."""
    return _UNSAFE.sub(lambda found: b"\\x%02x" % found[0][0], key)


def read(word: bytes) -> bytes:
    """The key that stands in a line as ``word``. Raises ProtocolError."""
    return _ESCAPE.sub(_read_escape, word) if b"\\" in word else word


def _read_escape(found: re.Match[bytes]) -> bytes:
    if found[1] is None:
        raise ProtocolError("a backslash in a key is written \\x5c")
    return bytes((int(found[1], 16),))


def at(key: bytes) -> bytes:
    """The bound that ``key`` lies within."""
    return b"[" + written(key)


def beyond(key: bytes) -> bytes:
    """The bound that ``key`` lies without: from it, what comes after; to it, what comes before."""
    return b"(" + written(key)


def item(found: Item) -> bytes:
    """One ITEM as it is sent."""
    key, flags, expiry, cas, time, size, header = found
    return b"ITEM %b %d %d %d %d %d %d\r\n%b\r\n" % (written(key), flags, expiry, cas, time, size, len(header), header)


def block(rows: list[Row]) -> bytes:
    """Some rows as they are sent."""
    return _block(ROWS, rows)


def heads_block(keys: list[bytes], headers: list[bytes]) -> bytes:
    """The keys of some items and their headers as they are sent."""
    return _block(HEADS, (keys, headers))


def _block(word: bytes, content: object) -> bytes:
    packed = msgspec.msgpack.encode(content)
    return b"%b %d\r\n%b\r\n" % (word.upper(), len(packed), packed)


class BlockParser:
    """Makes blocks, still packed, of the reply to one request for ``word``, however its bytes are split.

    ``last_line`` is as of ``ItemParser``; ``rest`` is what has come behind it. No more is kept than the part of one
    block.
    """

    def __init__(self, word: bytes = ROWS) -> None:
        self.last_line: bytes | None = None
        self._beginning = _BLOCK[word]
        self._buffer = bytearray()

    @property
    def rest(self) -> bytes:
        return bytes(self._buffer) if self.last_line is not None else b""

    def feed(self, data: bytes) -> list[bytes]:
        """The blocks that ``data`` completes. Raises ProtocolError where no node would have sent this."""
        self._buffer += data
        blocks: list[bytes] = []
        position = 0
        while self.last_line is None and (end := self._buffer.find(b"\r\n", position)) >= 0:
            line = bytes(self._buffer[position:end])
            if line == END or line.startswith(_ERRORS):
                self.last_line = line
                position = end + 2
                break
            found = self._beginning.fullmatch(line)
            if found is None or int(found[1]) > MAX_BLOCK:
                raise ProtocolError(f"not a block of at most {MAX_BLOCK} bytes: {line[:100]!r}")
            after = end + 2 + int(found[1]) + 2
            if len(self._buffer) < after:
                break
            if self._buffer[after - 2 : after] != b"\r\n":
                raise ProtocolError("a block doesn't end where its length says")
            blocks.append(bytes(self._buffer[end + 2 : after - 2]))
            position = after
        del self._buffer[:position]
        if self.last_line is None and self._buffer.find(b"\r\n", 0, MAX_LINE + 2) < 0 and len(self._buffer) > MAX_LINE:
            raise ProtocolError(f"a line of a scan's reply is longer than {MAX_LINE} bytes")
        return blocks


class ItemParser:
    """Makes items of the reply to one request, however its bytes are split; keeps no more than the part of one item.

    ``last_line`` is None until the reply is whole: then END, or an error, which makes void what came before it.
    """

    def __init__(self) -> None:
        self.last_line: bytes | None = None
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Item]:
        """The items that ``data`` completes. Raises ProtocolError where no node would have sent this."""
        self._buffer += data
        items: list[Item] = []
        position = 0
        while self.last_line is None:
            end = self._buffer.find(b"\r\n", position)
            if (len(self._buffer) - 1 if end < 0 else end) - position > MAX_LINE:
                raise ProtocolError(f"a line of a scan's reply is longer than {MAX_LINE} bytes")
            if end < 0:
                break
            line = bytes(self._buffer[position:end])
            if line == END or line.startswith(_ERRORS):
                self.last_line = line
                position = end + 2
                break
            begun, length = _begin(line)
            after = end + 2 + length + 2
            if len(self._buffer) < after:
                break
            if self._buffer[after - 2 : after] != b"\r\n":
                raise ProtocolError("a header doesn't end where its length says")
            items.append(begun._replace(header=bytes(self._buffer[end + 2 : after - 2])))
            position = after
        del self._buffer[:position]
        if self._buffer and self.last_line is not None:
            raise ProtocolError(f"more than the reply to one scan: {bytes(self._buffer[:100])!r}")
        return items


def _begin(line: bytes) -> tuple[Item, int]:
    """What an ITEM line says, and the length of the header that follows."""
    words = line.split(b" ")
    if len(words) != 8 or words[0] != b"ITEM" or not all(len(word) <= 20 and word.isdigit() for word in words[2:]):
        raise ProtocolError(f"not an ITEM line: {line[:100]!r}")
    flags, expiry, cas, time, size, length = map(int, words[2:])
    if length > PREFIX_SIZE + MAX_HEADER:
        raise ProtocolError(f"a header of {length} bytes: no record has more than {PREFIX_SIZE + MAX_HEADER}")
    return Item(read(words[1]), flags, expiry, cas, time, size, b""), length
