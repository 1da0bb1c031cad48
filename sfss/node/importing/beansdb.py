"""Beansdb and GoBeansDB as sources. Both list a tree of their keys' hashes.

``get @`` is ``0/ <hash> <count>`` to ``f/ ...``, and so is ``get @0``, and what lies below, down to lines of the form
``<key> <hash> <version>``; a version below 0 is of a key that was deleted (douban/beansdb: ``hs_list`` of ``hstore.c``,
``list_dir`` of ``htree.c``).

GoBeansDB keeps no keys in its tree: there such a line has, in place of the key, its hash in 16 hex digits
(douban/gobeansdb: ``ListDir`` of ``store/htree.go``), and ``get @@<hash>`` is the record as it lies on its disk, with
the key (``StorageClient.Get`` of ``gobeansdb/store.go``, ``WriteRecord.append`` of ``store/datafile.go``). The upper
half of the hash is fnv1a of the key, of signed bytes (``store/key.go``); so it is noticed if the record is another one,
which has been moved there meanwhile. Two keys of one hash share a line: the other one isn't listed.

Nothing expires there.
"""

from __future__ import annotations

import struct

from sfss.errors import Unavailable
from sfss.node.importing.peer import Peer
from sfss.node.importing.source import Entry, Item, Spool, Unreadable, found

LISTED = 16  # directories that are asked for at once
DEEPEST = 16  # digits of a path

_DIRECTORIES = [b"%x/" % digit for digit in range(16)]
_RECORD = struct.Struct("<IIIiII")  # GoBeansDB's: checksum, time, flags, version, sizes of the key and of the value
_COMPRESSED = 0x10000  # a flag of its own, of a value that it could not unpack


class Beansdb:
    """``root`` is the answer to ``get @``; ``hashed``: whether it is a GoBeansDB."""

    exact = True
    caution = ""

    def __init__(self, lister: Peer, reader: Peer, root: bytes, *, hashed: bool) -> None:
        directories = _directories(root)
        self.items: int | None = len(_live(root)) if directories is None else sum(directories.values())
        self._lister = lister
        self._reader = reader
        self._root = root
        self._hashed = hashed

    async def walk(self, spool: Spool) -> None:
        paths = self._add(b"", self._root, spool)
        while paths:
            paths, some = paths[:-LISTED], paths[-LISTED:]
            for path in some:
                self._lister.send(b"get @%b\r\n" % path)
            for path in some:
                try:
                    answer = await found(self._lister, b"@" + path)
                except Unreadable as error:
                    raise Unavailable(f"{self._lister.name} doesn't list @{path.decode()}: {error}") from None
                if answer:
                    paths += self._add(path, answer.block, spool)
        spool.end()

    def _add(self, path: bytes, listing: bytes, spool: Spool) -> list[bytes]:
        """Put the keys of a listing into the spool; the paths of directories that it names instead."""
        directories = _directories(listing)
        if directories is None:
            spool.put(b"".join(key + b"\n" for key in _live(listing)))
            return []
        if len(path) >= DEEPEST:
            raise Unavailable(f"{self._lister.name} lists a tree that doesn't end, at @{path.decode()}")
        return [path + name[:1] for name, count in directories.items() if count]

    def entry(self, line: bytes) -> Entry:
        return Entry(line, None if self._hashed else line)

    def ask(self, entries: list[Entry]) -> None:
        for entry in entries:
            self._reader.send(b"get %b%b\r\n" % (b"@@" if self._hashed else b"", entry.name))

    async def item(self, entry: Entry) -> Item | None:
        if self._hashed:
            answer = await found(self._reader, b"@@" + entry.name)
            return answer and _unpacked(answer.block, entry.name)
        answer = await found(self._reader, entry.name)
        return answer and Item(entry.name, answer.flags, 0, answer.block)

    def close(self) -> None:
        self._lister.close()
        self._reader.close()


def _words(listing: bytes) -> list[list[bytes]]:
    """A name and two numbers of each line."""
    return [words for line in listing.split(b"\n") if len(words := line.rsplit(b" ", 2)) == 3]


def _directories(listing: bytes) -> dict[bytes, int] | None:
    """Names and counts, if it is a list of directories."""
    lines = _words(listing)
    if [name for name, _, _ in lines] != _DIRECTORIES:
        return None
    return {name: int(count) if count.isdigit() else 1 for name, _, count in lines}


def _live(listing: bytes) -> list[bytes]:
    """The keys that are there, of a list of keys. What begins with @ or ? can't be asked for, and isn't counted."""
    return [
        key for key, _, version in _words(listing) if not version.startswith(b"-") and not key.startswith((b"@", b"?"))
    ]


def _unpacked(record: bytes, place: bytes) -> Item | None:
    """The item of a GoBeansDB record, which was asked for by its key's hash; None if it was deleted."""
    if len(record) < _RECORD.size:
        raise Unreadable(f"a record of {len(record)} bytes")
    _, _, flags, version, key_size, size = _RECORD.unpack_from(record)
    if len(record) != _RECORD.size + key_size + size:
        raise Unreadable("a record that doesn't end where its lengths say")
    if flags & _COMPRESSED:
        raise Unreadable("a record that the source could not unpack")
    start = _RECORD.size + key_size
    key = record[_RECORD.size : start]
    if b"%08x" % _fnv1a(key) != place[:8]:
        raise Unreadable("the record of another key: the source is collecting its garbage")
    return Item(key, flags, 0, record[start:]) if version > 0 else None


def _fnv1a(key: bytes) -> int:
    number = 0x811C9DC5
    for byte in key:
        number = ((number ^ (byte if byte < 0x80 else byte | 0xFFFFFF00)) * 0x01000193) & 0xFFFFFFFF
    return number
