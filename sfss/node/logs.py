"""Whether something is missing in the midst of RocksDB's write-ahead logs. Reads their format; pure, but for the files.

Each change has a number, and each record of a log says which its first is and how many it has. When the power fails, a
log's end may be lost while the next log's beginning is on the disk already, and so may a page in the midst of a log be:
no sync had covered them. RocksDB takes the zeros, or the end, that it finds in such a place for the end of what was
written there, and plays back what lies behind: changes upon others that are not there.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sfss.node.manifest import BLOCK, HEADER, holds

_WHOLE, _FIRST = 1, 2  # kinds of records that begin a batch of changes
_BATCH = struct.Struct("<QI")  # how one begins: the number of its first change, and how many there are
_TEXTS, _NUMBERS = {1, 2**13 + 1}, {2, 3, 4, 9, 10, 203}  # tags that stand at the beginning of a record of a MANIFEST
_LOG_NUMBER, _NEXT_FILE, _LAST_CHANGE = 2, 3, 4  # the oldest log that isn't in tables, and so on


class Hole(NamedTuple):
    """Where changes are missing: behind the change ``last``, before the record at ``offset`` of ``file``."""

    last: int
    file: Path
    offset: int


def hole(directory: Path) -> Hole | None:
    """The first hole in the logs that a start would play back; None if there is none. The MANIFEST must be good."""
    last = None
    for file in live(directory):
        for offset, first, count in _batches(file):
            if last is not None and first > last + 1:
                # What isn't a record ends the log, for RocksDB too: there is no hole then, only an end.
                return Hole(last, file, offset) if _is_record(file, offset) else None
            last = first + count - 1
    return None


def _is_record(file: Path, offset: int) -> bool:
    """Whether the record there passes its checksum."""
    with file.open("rb") as opened:
        opened.seek(offset)
        data = opened.read(BLOCK)
    _, length, _ = HEADER.unpack_from(data)
    return holds(data, 0, HEADER.size + length)


def live(directory: Path) -> list[Path]:
    """The logs that a start plays back, in their order: what is in older ones lies in tables."""
    oldest = _last_told(directory, _LOG_NUMBER)
    logs = {int(file.stem): file for file in directory.glob("[0-9]*.log")}
    return [logs[number] for number in sorted(logs) if number >= oldest]


def follow_the_tables(directory: Path) -> bool:
    """Whether the logs go on where the tables that the MANIFEST names leave off."""
    for file in live(directory):
        for _, first, _ in _batches(file):
            return first <= _last_told(directory, _LAST_CHANGE) + 1
    next_file = _last_told(directory, _NEXT_FILE)
    return all(int(file.stem) < next_file for file in directory.glob("[0-9]*.sst"))  # a later one isn't named


def _batches(file: Path) -> Iterator[tuple[int, int, int]]:
    """Of each batch of changes: the offset of its first record, the number of its first change, how many it has."""
    if not file.stat().st_size:
        return
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        begin, beginning = 0, bytes(_BATCH.size)
        for offset, kind, start, end in _records(data):
            if kind in (_WHOLE, _FIRST):
                begin, beginning = offset, b""
            if len(beginning) < _BATCH.size:
                beginning += data[start : min(end, start + _BATCH.size - len(beginning))]
                if len(beginning) == _BATCH.size:
                    yield begin, *_BATCH.unpack(beginning)


def _records(data: mmap.mmap | bytes) -> Iterator[tuple[int, int, int, int]]:
    """Of each record: its offset, its kind, and from where to where its content goes. Checksums are not looked at."""
    for block in range(0, len(data), BLOCK):
        position, end = block, min(block + BLOCK, len(data))
        while position + HEADER.size <= end:
            _, length, kind = HEADER.unpack_from(data, position)
            if kind == length == 0:
                break
            yield position, kind, position + HEADER.size, position + HEADER.size + length
            position += HEADER.size + length


def _last_told(directory: Path, tag: int) -> int:
    """What the last whole record of the MANIFEST that has this number says; 0 if none has."""
    manifest = (directory / (directory / "CURRENT").read_text().strip()).read_bytes()
    records = [record for record in _records(manifest) if record[1] in (_WHOLE, _FIRST)]
    for offset, _, start, end in reversed(records):
        number = _told(manifest[start:end]).get(tag)
        if number is not None and end <= len(manifest) and holds(manifest, offset, end):
            return number
    return 0


def _told(record: bytes) -> dict[int, int]:
    """The numbers that a record of a MANIFEST begins with. Behind them stand the files, which are not read."""
    told: dict[int, int] = {}
    position = 0
    while position < len(record):
        tag, position = _number(record, position)
        if tag not in _TEXTS | _NUMBERS:
            break
        value, position = _number(record, position)
        if tag in _TEXTS:
            position += value
        else:
            told[tag] = value
    return told


def _number(data: bytes, position: int) -> tuple[int, int]:
    """The number that stands there, seven bits to a byte, the lowest first; and what comes behind it."""
    value = shift = 0
    while position < len(data):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            break
    return value, position
