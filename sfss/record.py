"""Records: what lies under a key on a node. A prefix and a header, then the payload. Pure.

The grammar, for humans in ``docs/record-format.rst`` with a worked example:

======  =====  ===============================================================================
offset  bytes  what
======  =====  ===============================================================================
0       4      magic, ``SFSS``
4       1      format number, 1
5       1      zero
6       2      H, the header's length, big-endian
8       8      xxh3-64, big-endian, of bytes 0 to 7 and of the header
16      H      the header, a msgpack array (``Header``)
16+H    rest   the payload: its length and xxh3-128 stand in the header
======  =====  ===============================================================================

Any flipped bit, and any byte too few or too many, is noticed: ``Damaged``. A format number that this version doesn't
know is Damaged too, with a message that says so: it was written by a newer sfss.
"""

from __future__ import annotations

import contextlib
import enum
import struct
from collections.abc import Sequence

import msgspec
import xxhash

from sfss.errors import Damaged

_PREFIX = struct.Struct(">4sBBHQ")
_MAGIC = b"SFSS"
_FORMAT = 1
_START = _MAGIC + bytes((_FORMAT, 0))
_CHECKED = 8  # how much of the prefix its checksum covers: all before itself

_LONGEST_INTEGER = 9  # bytes
_WIDTHS = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}  # bytes behind msgpack's mark of an integer from 128 on

PREFIX_SIZE = _PREFIX.size
ORDER_AT = PREFIX_SIZE + 2  # where what orders records begins: behind the array's head and the kind
MAX_HEADER = 0xFFFF  # bytes, by the field's width
# What a file's record may be longer than the file: prefix, a full header's fields, path and metadata within limits.
MAX_OVERHEAD = 8192


class Kind(enum.IntEnum):
    """What a record is; the numbers are on disk, for good."""

    FILE = 1  # the payload is a whole file
    MANIFEST = 2  # the payload names the blocks of a large file
    BLOCK = 3  # the payload is one piece of a large file
    TOMBSTONE = 4  # there was a file; the payload is empty
    UPLOAD = 5  # the payload is the state of an upload
    DOCUMENT = 6  # the payload is something that all fronts share (``registry.py``)


class Header(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All that is known of a record without its payload. Fields are only ever added, at the end, with a default."""

    kind: Kind
    version: int  # microseconds since the epoch at the writing front, made monotonic there; the highest wins
    front: int  # which front wrote it: breaks ties between equal versions
    size: int  # bytes of the content: the whole file's, for a file and for a manifest
    sha256: bytes  # of the content, 32 bytes; empty where there is none (a block, a tombstone, an upload's state)
    payload_size: int  # bytes of the payload
    payload_xxh3: bytes  # xxh3-128 of the payload, 16 bytes
    type: str | None = None  # Content-Type as it was given; None: to be guessed from the path
    meta: dict[str, str] | None = None  # the user's own words on the file
    path: str | None = None  # where the key is a hash of it: checked on reading; of a block: its file's, if known

    @property
    def order(self) -> tuple[int, int]:
        """What decides which of two records for one key is the newer: the greater wins."""
        return self.version, self.front


class Record(msgspec.Struct, frozen=True, gc=False):
    """A header and its payload, both checked against each other."""

    header: Header
    payload: bytes | memoryview


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Header)


def payload_checksum(*payload: bytes | bytearray | memoryview) -> bytes:
    """xxh3-128 of the payload, 16 bytes; it may be in pieces."""
    if len(payload) == 1:
        return xxhash.xxh3_128_digest(payload[0])
    checksum = xxhash.xxh3_128()
    for piece in payload:
        checksum.update(piece)
    return checksum.digest()


def encode(header: Header, *payload: bytes | bytearray | memoryview) -> bytes:
    """The record's bytes; the payload may be in pieces, which are copied just once.

    The header's ``payload_size`` and ``payload_xxh3`` must be the whole payload's.
    """
    packed = _encoder.encode(header)
    if len(packed) > MAX_HEADER:
        raise ValueError(f"a header of {len(packed)} bytes: at most {MAX_HEADER} fit")
    start = _PREFIX.pack(_MAGIC, _FORMAT, 0, len(packed), 0)[:_CHECKED]
    checksum = xxhash.xxh3_64_digest(start + packed)
    return b"".join((start, checksum, packed, *payload))


def of_state(kind: Kind, payload: bytes, version: int, front: int) -> tuple[Header, bytes]:
    """The header and the bytes of a record that is no file's, nor a part of one: something that fronts share."""
    header = Header(kind, version, front, len(payload), b"", len(payload), payload_checksum(payload))
    return header, encode(header, payload)


def decode_header(data: bytes | memoryview) -> tuple[Header, int]:
    """The header at the start of ``data``, which may end right behind it, and where the payload begins.

    Raises Damaged.
    """
    end = header_end(data)
    if end is None:
        raise Damaged(_why_no_header(data))
    if len(data) < end:
        raise Damaged(f"the record ends after {len(data)} bytes, in its header")
    packed = data[PREFIX_SIZE:end]
    checksum = data[_CHECKED:PREFIX_SIZE]
    if xxhash.xxh3_64_digest(bytes(data[:_CHECKED]) + packed) != checksum:
        raise Damaged("the checksum of the record's header doesn't hold")
    try:
        return _decoder.decode(packed), end
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # the last: of a field a thousand lists deep
        raise Damaged(f"the record's header can't be read: {error}") from None


def decode_bare_header(data: bytes) -> Header:
    """The header that ``data`` begins and ends with, as nodes list it; in half the time of ``decode_header``.

    Raises Damaged.
    """
    header = _decode_checked(data, data[PREFIX_SIZE:])
    if header is not None:
        return header
    header, end = decode_header(data)
    if end != len(data):
        raise Damaged(f"{len(data) - end} bytes behind the record's header, where there should be none")
    return header


def decode_bare_headers(datas: Sequence[bytes]) -> list[Header]:
    """The same of many at once, in half the time again. Raises Damaged if one of them is, and doesn't say which."""
    digest = xxhash.xxh3_64_digest
    sound = [
        data[PREFIX_SIZE:]
        for data in datas
        if data.startswith(_START) and digest(data[:_CHECKED] + data[PREFIX_SIZE:]) == data[_CHECKED:PREFIX_SIZE]
    ]
    if len(sound) == len(datas):
        with contextlib.suppress(msgspec.DecodeError, ValueError, RecursionError):
            return list(map(_decoder.decode, sound))
    raise Damaged("one of the records has a header that can't be read")


def decode(data: bytes) -> Record:
    """The record in ``data``, its payload checked; the payload is a view on ``data``, not a copy.

    Raises Damaged.
    """
    end = PREFIX_SIZE + (data[6] << 8 | data[7]) if len(data) >= PREFIX_SIZE else 0
    header = _decode_checked(data, data[PREFIX_SIZE:end]) or decode_header(data)[0]
    payload = memoryview(data)[end:]
    if len(payload) != header.payload_size:
        raise Damaged(f"the record's payload has {len(payload)} bytes where {header.payload_size} belong")
    if xxhash.xxh3_128_digest(payload) != header.payload_xxh3:
        raise Damaged("the checksum of the record's payload doesn't hold")
    return Record(header, payload)


def decode_head(data: bytes) -> Header:
    """``decode_header``, of a record's ``bytes``, without where it ends: in half the time. Raises Damaged."""
    end = PREFIX_SIZE + (data[6] << 8 | data[7]) if len(data) >= PREFIX_SIZE else 0
    return _decode_checked(data, data[PREFIX_SIZE:end]) or decode_header(data)[0]


def _decode_checked(data: bytes, packed: bytes) -> Header | None:
    """The header that is ``packed`` behind the prefix, if it is sound: in half the time of ``decode_header``."""
    if data.startswith(_START) and xxhash.xxh3_64_digest(data[:_CHECKED] + packed) == data[_CHECKED:PREFIX_SIZE]:
        try:
            return _decoder.decode(packed)
        except (msgspec.DecodeError, ValueError, RecursionError):  # the last: of a field a thousand lists deep
            pass
    return None


def is_older(data: bytes, there: bytes) -> bool:
    """Whether ``data`` is a record, and older than the one whose prefix and header ``there`` is.

    False where either is none, or is damaged: then there is nothing to go by.
    """
    if not there or not data.startswith(_MAGIC):
        return False
    try:
        return decode_bare_header(data[: header_end(data)]).order < decode_bare_header(there).order
    except Damaged:
        return False


def order_bytes(data: bytes) -> bytes:
    """The version and the front of a record as they lie in it, at ``ORDER_AT``; nothing if ``data`` isn't a record.

    For nodes that compare records byte by byte, the greater being the newer: msgpack's integers have their width in
    front, and as few bytes as will do. Nothing is checked: ``is_older`` says whether a record that seems newer is one.
    """
    if not data.startswith(_START) or len(data) < ORDER_AT + 2 * _LONGEST_INTEGER:
        return b""
    end = ORDER_AT
    for _ in range(2):
        width = _WIDTHS.get(data[end], 0 if data[end] < 0x80 else None)
        if width is None:  # a negative one, or none at all
            return b""
        end += 1 + width
    return data[ORDER_AT:end]


def header_end(data: bytes | memoryview) -> int | None:
    """Where the header of what may be a record ends, from its first 16 bytes alone; None if it isn't a record.

    A node uses it to keep headers apart from payloads; it checks nothing that takes a checksum.
    """
    if len(data) < PREFIX_SIZE:
        return None
    magic, number, zero, length, _ = _PREFIX.unpack_from(data)
    if magic != _MAGIC or number != _FORMAT or zero != 0:
        return None
    return PREFIX_SIZE + int(length)


def _why_no_header(data: bytes | memoryview) -> str:
    if len(data) < PREFIX_SIZE:
        return f"the record ends after {len(data)} bytes, in its prefix"
    if data[:4] != _MAGIC:
        return "what lies under the key is not a record of sfss: another program wrote it, or it is damaged"
    if data[4] == _FORMAT:
        return f"the record's sixth byte is {data[5]} where 0 belongs: it is damaged"
    return f"the record's format is {data[4]}, and this version of sfss reads {_FORMAT}: damaged, or of a newer one"
