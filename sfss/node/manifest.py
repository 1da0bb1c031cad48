"""Whether the end of a MANIFEST is torn, as a crash leaves it, or damaged. Reads RocksDB's log format; pure.

A MANIFEST names the tables and blob files. RocksDB takes a record of it that claims to go on behind the file's end for
one that a crash has torn, drops it with all that follows, and deletes the files that are then not named. One flipped
bit in a length does that. In a torn record nothing is whole; behind or in a damaged one there is something that passes
its checksum.
"""

from __future__ import annotations

import struct

BLOCK = 32 * 1024  # no record reaches across the end of one
HEADER = struct.Struct("<IHB")  # checksum (crc32c, masked), length, kind
_KINDS = range(1, 5)  # whole, first, middle, last
_MASK = 0xA282EAD8


def is_damaged(data: bytes) -> bool:
    """Whether records at the end of this MANIFEST would be dropped that were once whole."""
    start = len(data) - len(data) % BLOCK
    position = start
    while position + HEADER.size <= len(data):
        _, length, kind = HEADER.unpack_from(data, position)
        if kind == length == 0:
            return any(data[position:])
        if position + HEADER.size + length > len(data):
            return holds(data, position, len(data)) or any(
                _is_whole(data, later) for later in range(position + 1, len(data) - HEADER.size)
            )
        position += HEADER.size + length
    return False


def torn_at(data: bytes) -> int | None:
    """Where, near the end, a record begins that isn't whole; None if there is none.

    So does a power loss leave records of which some sectors reached the disk; one behind them may be whole. RocksDB
    refuses to open that. Whether they had been synced can't be told from this file alone.
    """
    position = 0
    while position + HEADER.size <= len(data):
        left = BLOCK - position % BLOCK
        _, length, kind = HEADER.unpack_from(data, position)
        end = position + HEADER.size + length
        if left < HEADER.size or (kind == length == 0 and not any(data[position : position + left])):
            position += left
        elif kind in _KINDS and end <= len(data) and holds(data, position, end):  # one has no content in each MANIFEST
            position = end
        else:
            return None if len(data) - position > BLOCK or holds(data, position, len(data)) else position
    return None


def _is_whole(data: bytes, position: int) -> bool:
    _, length, kind = HEADER.unpack_from(data, position)
    end = position + HEADER.size + length
    return length > 0 and kind in _KINDS and end <= len(data) and holds(data, position, end)


def holds(data: bytes, position: int, end: int) -> bool:
    """Whether a record that goes to ``end`` passes its checksum, which covers its kind and its content."""
    checksum = crc32c(data[position + HEADER.size - 1 : end])
    masked = ((checksum >> 15 | checksum << 17) + _MASK) & 0xFFFFFFFF
    return masked == int.from_bytes(data[position : position + 4], "little")


def crc32c(data: bytes) -> int:
    """Castagnoli's; slow, and made for the last block of a small file."""
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum = _TABLE[(checksum ^ byte) & 0xFF] ^ checksum >> 8
    return checksum ^ 0xFFFFFFFF


def _entry(number: int) -> int:
    for _ in range(8):
        number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
    return number


_TABLE = tuple(map(_entry, range(256)))
