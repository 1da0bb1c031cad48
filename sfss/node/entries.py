"""What lies in a data directory, byte by byte: the keys and entries of RocksDB's one column family. Pure.

The first byte of a key says what lies under it (all numbers big-endian):

===========  ===========================================================================================
``h`` + key  the *head*: flags u32, marks u16, expiry u48, cas u64, time u64, size u64, then the record's
             prefix and header if the value is a record of sfss, else nothing
``d`` + key  the *body*: flags u32, marks u16, expiry u48, cas u64, then the value
``x`` + ...  for an item that expires, ``x`` + expiry u64 + key: its value's size u64
``m`` + ...  about the directory: ``mformat`` (layout's number and name), ``mtotals`` (items u64, bytes of
             values u64), ``mcas`` (u64, no item version above it was ever given), ``mflush`` (u64, when a
             delayed flush_all is due)
===========  ===========================================================================================

expiry is in seconds since the epoch, 0 for never; time, when the value was written, in microseconds. A plain get reads
the body alone, and so the body repeats what a get answers. Heads lie together in key order, and stay in the LSM tree
while large bodies go to blob files: all keys with their records' headers can be read without touching one body. What
expires lies in the order of its expiry: what is over is found without looking at the rest.

Layout 1 had neither marks (their bits were nought) nor ``x`` entries.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from sfss import record
from sfss.node.numbers import MAX_EXPIRY

LAYOUT = b"2 sfss-items"  # number and name; a change of anything in the table above is a new number
WITHOUT_EXPIRIES = b"1 sfss-items"

HEAD, BODY, EXPIRY = b"h", b"d", b"x"
HEADS_END, BODIES_END, EXPIRIES_END = b"i", b"e", b"y"  # the first keys behind all of a kind
FORMAT, TOTALS, CAS, FLUSH = b"mformat", b"mtotals", b"mcas", b"mflush"

# Marks of memcached's meta commands.
STALE = 1  # what was meant to take its place has not come yet
WON = 2  # a client was told to bring that; the others need not
_MARKS_AT = MAX_EXPIRY.bit_length()

_HEAD_FIELDS = struct.Struct(">IQQQQ")
_EXPIRY_FIELD, _NEVER = slice(6, 12), bytes(6)  # of them, and of a body's
_BODY_FIELDS = struct.Struct(">IQQ")
_TOTALS_FIELDS = struct.Struct(">QQ")
_NUMBER = struct.Struct(">Q")
_TOO_SHORT = "an entry is shorter than its fields"


class Item(NamedTuple):
    """What a get answers."""

    flags: int
    expiry: int
    cas: int
    data: memoryview
    marks: int = 0


class Head(NamedTuple):
    """All that is known of an item without its body."""

    flags: int
    expiry: int
    cas: int
    time: int
    size: int
    header: bytes  # the record's prefix and header; empty if the value isn't a record
    marks: int = 0


def head_entry(head: Head) -> bytes:
    """A head as it is stored."""
    flags, expiry, cas, time, size, header, marks = head
    return _HEAD_FIELDS.pack(flags, expiry | marks << _MARKS_AT, cas, time, size) + header


def read_head(entry: bytes) -> Head:
    """Raises ValueError if the entry is too short."""
    try:
        flags, expiry, cas, time, size = _HEAD_FIELDS.unpack_from(entry)
    except struct.error:
        raise ValueError(_TOO_SHORT) from None
    return Head(flags, expiry & MAX_EXPIRY, cas, time, size, entry[_HEAD_FIELDS.size :], expiry >> _MARKS_AT)


# Of heads that lie together the keys, with their first byte, and the entries: what is wanted of many is read at once.
Stored = list[tuple[bytes, bytes]]


def unexpired(heads: Stored, now: float) -> Stored:
    """Those whose time, in seconds, hasn't come. Raises ValueError if an entry is too short."""
    if min({len(entry) for _, entry in heads}, default=_HEAD_FIELDS.size) < _HEAD_FIELDS.size:
        raise ValueError(_TOO_SHORT)
    if {entry[_EXPIRY_FIELD] for _, entry in heads} <= {_NEVER}:
        return heads
    return [(key, entry) for key, entry in heads if not 0 < read_head(entry).expiry <= now]


def keys_and_headers(heads: Stored) -> tuple[list[bytes], list[bytes]]:
    """The items' keys, and what ``Head`` calls header."""
    return [key[len(HEAD) :] for key, _ in heads], [entry[_HEAD_FIELDS.size :] for _, entry in heads]


def sizes_and_versions(heads: Stored) -> tuple[list[int], list[int]]:
    """What ``Head`` calls size, and cas."""
    fields = [_HEAD_FIELDS.unpack_from(entry) for _, entry in heads]
    return [size for *_, size in fields], [cas for _, _, cas, _, _ in fields]


def body_entry(head: Head, data: bytes | memoryview) -> bytes:
    """A body as it is stored; its fields are its head's."""
    return b"".join((_BODY_FIELDS.pack(head.flags, head.expiry | head.marks << _MARKS_AT, head.cas), data))


def read_body(entry: bytes) -> Item:
    """Raises ValueError if the entry is too short."""
    try:
        flags, expiry, cas = _BODY_FIELDS.unpack_from(entry)
    except struct.error:
        raise ValueError(_TOO_SHORT) from None
    data = memoryview(entry)[_BODY_FIELDS.size :]
    return Item(flags, expiry & MAX_EXPIRY, cas, data, expiry >> _MARKS_AT)


def plain_value(entry: bytes) -> tuple[int, memoryview] | None:
    """Flags and value of a body that never expires; None of any other, which ``read_body`` is for."""
    if len(entry) < _BODY_FIELDS.size or entry[_EXPIRY_FIELD] != _NEVER:
        return None
    return int.from_bytes(entry[:4]), memoryview(entry)[_BODY_FIELDS.size :]


def plain_header(entry: bytes) -> tuple[int, bytes] | None:
    """The same of a head: flags, and the record's prefix and header."""
    if len(entry) < _HEAD_FIELDS.size or entry[_EXPIRY_FIELD] != _NEVER:
        return None
    return int.from_bytes(entry[:4]), entry[_HEAD_FIELDS.size :]


def header_of(data: bytes | memoryview) -> bytes:
    """What a head keeps of the value: the record's prefix and header, or nothing."""
    end = record.header_end(data)
    return bytes(data[:end]) if end is not None and end <= len(data) else b""


def expiry_key(expiry: int, key: bytes) -> bytes:
    """Under which an item that expires is listed."""
    return EXPIRY + _NUMBER.pack(expiry) + key


def read_expiry(entry_key: bytes, entry: bytes) -> tuple[int, bytes, int]:
    """Expiry, key and size of an item that is listed so."""
    at = len(EXPIRY)
    return number(entry_key[at : at + _NUMBER.size]), entry_key[at + _NUMBER.size :], number(entry)


def totals(items: int, size: int) -> bytes:
    return _TOTALS_FIELDS.pack(items, size)


def read_totals(entry: bytes | None) -> tuple[int, int]:
    """Items, and bytes of their values; nought where there is no entry yet."""
    items, size = _TOTALS_FIELDS.unpack(entry or bytes(_TOTALS_FIELDS.size))
    return items, size


def packed(value: int) -> bytes:
    return _NUMBER.pack(value)


def number(entry: bytes | None) -> int:
    """Nought where there is no entry yet."""
    return int(_NUMBER.unpack(entry)[0]) if entry else 0
