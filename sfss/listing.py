"""How other servers tell their keys, sans-IO: memcached's ``lru_crawler metadump``, Beansdb's and GoBeansDB's trees.

**memcached** sends a line for each item, ``key=<URL-encoded> exp=<seconds since the epoch, or -1> la=...``, and then
``END``. ``metadump hash`` walks the table of keys. ``all``, for an older one that doesn't know ``hash``, walks lists
that items move along while they are read, and passes over those in use (in memcached's ``crawler.c``:
``item_crawler_thread``). Of 200,000 items of memcached 1.6.18 that two clients went on reading, it left out 2,202, and
another time 11,746, and told 11,490 twice; ``hash`` told each once. A crawler must not be kept waiting: stuck on its
client for a second, it leaves off within what it sends, and later sends all of that again (``lru_crawler_write``). So
its lines go into a ``Spool``.

**Beansdb** and **GoBeansDB** list a tree of their keys' hashes. ``get @`` is ``0/ <hash> <count>`` to ``f/ ...``, and
so is ``get @0``, and what lies below, down to lines of the form ``<key> <hash> <version>``; a version below 0 is of a
key that was deleted (douban/beansdb: ``hs_list`` of ``hstore.c``, ``list_dir`` of ``htree.c``).

GoBeansDB keeps no keys in its tree: there such a line has, in place of the key, its hash in 16 hex digits
(douban/gobeansdb: ``ListDir`` of ``store/htree.go``), and ``get @@<hash>`` is the record as it lies on its disk, with
the key (``StorageClient.Get`` of ``gobeansdb/store.go``, ``WriteRecord.append`` of ``store/datafile.go``). The upper
half of the hash is fnv1a of the key, of signed bytes (``store/key.go``); so it is noticed if the record is another one,
which has been moved there meanwhile. Two keys of one hash share a line: the other one isn't listed.

What never lives here: sockets.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from sfss.errors import ProtocolError

WALKS = (b"hash", b"all")  # what metadump may be asked for; the first that a server knows is the best it has
NO_SUCH_WALK = b"BADCLASS"  # how the answer begins of one that doesn't know it ...
BUSY = b"BUSY"  # ... and of one that lists for somebody else already
MAX_DUMP_LINE = 8 * 1024  # bytes: a key, written out, and what stands around it
DEEPEST = 16  # digits of a path in a tree

_DUMPED = re.compile(rb"key=(\S+) exp=(-?\d{1,18})(?: |\Z)")
_END = b"END\r\n"
_DIRECTORIES = [b"%x/" % digit for digit in range(16)]
_RECORD = struct.Struct("<IIIiII")  # GoBeansDB's: checksum, time, flags, version, sizes of the key and of the value
_COMPRESSED = 0x10000  # a flag of its own, of a value that it could not unpack


# --- memcached -------------------------------------------------------------------------------------------------------


class Dumped(NamedTuple):
    """What a line of a metadump says. ``expiry`` is in seconds since the epoch, 0 for never."""

    key: bytes
    expiry: int


def is_dump(head: bytes) -> bool:
    """Whether a metadump begins so; else it is a refusal."""
    return head.startswith((b"key=", _END))


def whole_lines(data: bytes) -> tuple[bytes, bytes, bool]:
    """The whole lines of a metadump that ``data`` has, what is left of it, and whether that was the end."""
    lines, newline, rest = data.rpartition(b"\n")
    lines += newline
    ended = lines == _END or lines.endswith(b"\n" + _END)
    return lines.removesuffix(_END) if ended else lines, rest, ended


def dumped(line: bytes) -> Dumped | None:
    """What a line of a metadump says; None if it is none."""
    found = _DUMPED.match(line)
    return found and Dumped(unquote_to_bytes(found[1]), max(int(found[2]), 0))


# --- Beansdb and GoBeansDB -------------------------------------------------------------------------------------------


def is_hashed(figures: dict[bytes, bytes]) -> bool:
    """Whether a Beansdb with these STATS is a GoBeansDB, whose tree has hashes for keys; all of C's have that line."""
    return b"pointer_size" not in figures


def directories(listing: bytes) -> dict[bytes, int] | None:
    """Names and counts, if it is a list of directories."""
    lines = _words(listing)
    if [name for name, _, _ in lines] != _DIRECTORIES:
        return None
    return {name: int(count) if count.isdigit() else 1 for name, _, count in lines}


def live(listing: bytes) -> list[bytes]:
    """The keys, or hashes, of a list of them that are there. What begins with @ or ? can't be asked for: left out."""
    return [
        key for key, _, version in _words(listing) if not version.startswith(b"-") and not key.startswith((b"@", b"?"))
    ]


def _words(listing: bytes) -> list[list[bytes]]:
    """A name and two numbers of each line."""
    return [words for line in listing.split(b"\n") if len(words := line.rsplit(b" ", 2)) == 3]


class Record(NamedTuple):
    """A GoBeansDB record. A ``version`` below 0 is of a key that was deleted."""

    key: bytes
    flags: int
    version: int
    data: bytes

    @property
    def compressed(self) -> bool:
        """Whether ``data`` is what the server could not unpack."""
        return bool(self.flags & _COMPRESSED)


def record(data: bytes, place: bytes) -> Record:
    """The answer to ``get @@<place>``. Raises ProtocolError if it isn't the record of that place."""
    if len(data) < _RECORD.size:
        raise ProtocolError(f"a record of {len(data)} bytes")
    _, _, flags, version, key_size, size = _RECORD.unpack_from(data)
    if len(data) != _RECORD.size + key_size + size:
        raise ProtocolError("a record that doesn't end where its lengths say")
    start = _RECORD.size + key_size
    key = data[_RECORD.size : start]
    if b"%08x" % _fnv1a(key) != place[:8]:
        raise ProtocolError("the record of another key: the source is collecting its garbage")
    return Record(key, flags, version, data[start:])


def _fnv1a(key: bytes) -> int:
    number = 0x811C9DC5
    for byte in key:
        number = ((number ^ (byte if byte < 0x80 else byte | 0xFFFFFF00)) * 0x01000193) & 0xFFFFFFFF
    return number
