"""What is fed to the client's end: replies, items of scans and records, right ones and spoilt; and what must hold.

Whatever comes, a parser gives a value or ProtocolError, and ``record.decode`` a record or Damaged; never anything else.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import msgspec

from sfss import memcache, record, scan
from sfss.errors import Damaged, ProtocolError
from sfss.memcache import MAX_LINE, ReplyParser
from sfss.scan import ItemParser
from tests.node.fuzz.grammar import KEYS, ODD_BODIES, ODD_KEYS, ODD_NUMBERS, Grammar, sealed

MAX_REPLY = 8192  # bytes of values
MOST_SECONDS = 0.5
MOST_HEADER = record.PREFIX_SIZE + record.MAX_HEADER

_LINES = (
    b"END", b"STORED", b"NOT_STORED", b"EXISTS", b"NOT_FOUND", b"DELETED", b"TOUCHED", b"OK", b"RESET", b"ERROR",
    b"42", b"VERSION 1.6.18", b"SERVER_ERROR out of memory", b"CLIENT_ERROR bad data chunk", b"HD", b"EN", b"VA 2 t0",
    b"MN", b"", b"SERVER_ERROR " + b"x" * (MAX_LINE - 13), b"SERVER_ERROR " + b"x" * MAX_LINE, b"x" * 3000,
    b"HTTP/1.1 400 Bad Request",
)  # fmt: skip
_FIELDS: tuple[object, ...] = (
    0, 1, 2, 3, 4, 5, -1, 2**63, 2**64 - 1, -(2**63), 1.5, True, None, b"", b"x" * 16, b"x" * 32, "", "text/plain", [],
    {}, {"a": "b"}, {"a": 1}, {1: "a"}, ["a"], [[[[]]]], "\0", "é" * 99, b"\xff" * 300, msgspec.msgpack.Ext(1, b"x"),
)  # fmt: skip


class Replies:
    """Draws what a server, or what is taken for one, may send."""

    def __init__(self, seed: str) -> None:
        self._grammar = Grammar(seed)
        self._chance = random.Random(seed)

    def reply(self) -> bytes:
        """Some replies behind each other, mostly spoilt."""
        return self._spoilt(b"".join(self._one() for _ in range(self._chance.randrange(1, 4))))

    def items(self) -> bytes:
        """The reply to a scan, mostly spoilt."""
        found = [self._item() for _ in range(self._chance.randrange(4))]
        return self._spoilt(b"".join(found) + self._chance.choice((b"END\r\n", b"SERVER_ERROR x\r\n", b"")))

    def record(self) -> bytes:
        """A record: spoilt anywhere, or with a header that makes no sense but whose checksum holds."""
        chance = self._chance
        payload = chance.randbytes(chance.randrange(20))
        fields: list[object] = [
            chance.randrange(1, 5), 1, 1, len(payload), bytes(32), len(payload), record.payload_checksum(payload), None,
            {"a": "b"}, "/a",
        ]  # fmt: skip
        packed = msgspec.msgpack.encode(fields)
        way = chance.random()
        if way < 0.3:
            return self._spoilt(sealed(packed) + payload)
        if way < 0.6:
            return sealed(self._grammar.spoilt(packed)[: record.MAX_HEADER]) + payload
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(fields) + 1)
            fields[at : at + chance.randrange(2)] = [chance.choice(_FIELDS)]
        if way < 0.98:
            return sealed(msgspec.msgpack.encode(fields)) + payload
        depth = chance.choice((10, 500, 3000))
        return sealed(b"\x9b" + packed[1:] + b"\x91" * depth + b"\xc0") + payload  # a later version's field

    def cuts(self, size: int) -> list[int]:
        """Where to cut so many bytes."""
        if size < 300 and self._chance.random() < 0.1:
            return list(range(size))
        return sorted(self._chance.randrange(size + 1) for _ in range(self._chance.randrange(1, 5)))

    def _one(self) -> bytes:
        chance = self._chance
        kind = chance.random()
        if kind < 0.3:
            return chance.choice(_LINES) + b"\r\n"
        if kind < 0.5:
            figures = [(f"n{n}", chance.choice((1, "x", "a b", ""))) for n in range(chance.randrange(5))]
            return memcache.stats(figures)
        values = [self._value() for _ in range(chance.randrange(4))]
        return b"".join(values) + chance.choice((b"END\r\n", b"END\r\n", b"SERVER_ERROR x\r\n", b"STORED\r\n"))

    def _value(self) -> bytes:
        chance = self._chance
        data = chance.choice(ODD_BODIES)
        cas = chance.choice((None, 7))
        if chance.random() < 0.8:
            return memcache.value(chance.choice(KEYS), 0, data, cas)
        words = [b"VALUE", chance.choice(ODD_KEYS), *(chance.choice((b"0", *ODD_NUMBERS)) for _ in range(2))]
        return b" ".join(words) + b"\r\n" + data + b"\r\n"

    def _item(self) -> bytes:
        chance = self._chance
        header = chance.choice((b"", b"SFSS", b"x" * 60, b"\r\nEND\r\n"))
        key = chance.choice(KEYS + ODD_KEYS)
        if chance.random() < 0.8:
            return scan.item(scan.Item(key, 0, 0, 5, 5, 100, header))
        words = [b"ITEM", key, *(chance.choice((b"0", b"3", *ODD_NUMBERS)) for _ in range(6))]
        return b" ".join(words) + b"\r\n" + header + b"\r\n"

    def _spoilt(self, stream: bytes) -> bytes:
        return self._grammar.spoilt(stream) if self._chance.random() < 0.7 else stream


def check_reply(stream: bytes, cuts: Sequence[int]) -> None:
    """Replies or ProtocolError, however it is split, and no more kept than one reply."""

    def parsed(pieces: Sequence[bytes]) -> object:
        parser = ReplyParser(MAX_REPLY)
        found = []
        try:
            for piece in pieces:
                found += parser.feed(piece)
                assert len(parser._rest) <= MAX_REPLY + 2, "more than the largest value was kept"
        except ProtocolError as error:
            return str(error)
        return found

    _alike(parsed, stream, cuts)


def check_items(stream: bytes, cuts: Sequence[int]) -> None:
    """The same of a scan's reply. Where there is more behind it, the pieces say what of it was right."""

    def parsed(pieces: Sequence[bytes]) -> object:
        parser = ItemParser()
        found = []
        try:
            for piece in pieces:
                found += parser.feed(piece)
                kept = len(parser._buffer)
                assert kept <= MAX_LINE + MOST_HEADER + 4, "more than the longest item was kept"
                assert parser._buffer.__alloc__() <= 2 * kept + 64, "memory for what hasn't come"
        except ProtocolError as error:
            return str(error).partition(":")[0]  # how much is behind the end depends on the split
        return found, parser.last_line

    _alike(parsed, stream, cuts)


def check_record(stream: bytes, cuts: Sequence[int]) -> None:
    """A record or Damaged, of the whole and of each part of it."""
    for part in (stream, *(stream[:cut] for cut in cuts)):
        began = time.thread_time()
        try:
            found = record.decode(part)
            assert found.header.payload_size == len(found.payload)
        except Damaged as error:
            assert str(error)
        record.header_end(part)
        assert time.thread_time() - began < MOST_SECONDS


def _alike(parsed: Callable[[Sequence[bytes]], object], stream: bytes, cuts: Sequence[int]) -> None:
    began = time.thread_time()
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parsed(pieces) == parsed([stream]), "the split makes a difference"
    assert time.thread_time() - began < MOST_SECONDS
