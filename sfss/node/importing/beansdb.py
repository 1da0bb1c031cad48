"""Beansdb and GoBeansDB as sources. Both list a tree of their keys' hashes: see ``sfss/listing.py``.

Nothing expires there.
"""

from __future__ import annotations

from sfss import listing
from sfss.errors import ProtocolError, Unavailable
from sfss.node.importing.peer import Peer
from sfss.node.importing.source import Entry, Item, Spool, Unreadable, found

LISTED = 16  # directories that are asked for at once


class Beansdb:
    """``root`` is the answer to ``get @``; ``hashed``: whether it is a GoBeansDB."""

    exact = True
    caution = ""

    def __init__(self, lister: Peer, reader: Peer, root: bytes, *, hashed: bool) -> None:
        directories = listing.directories(root)
        self.items: int | None = len(listing.live(root)) if directories is None else sum(directories.values())
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

    def _add(self, path: bytes, told: bytes, spool: Spool) -> list[bytes]:
        """Put the keys of a listing into the spool; the paths of directories that it names instead."""
        directories = listing.directories(told)
        if directories is None:
            spool.put(b"".join(key + b"\n" for key in listing.live(told)))
            return []
        if len(path) >= listing.DEEPEST:
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


def _unpacked(data: bytes, place: bytes) -> Item | None:
    """The item of a GoBeansDB record, which was asked for by its key's hash; None if it was deleted."""
    try:
        record = listing.record(data, place)
    except ProtocolError as error:
        raise Unreadable(str(error)) from None
    if record.compressed:
        raise Unreadable("a record that the source could not unpack")
    return Item(record.key, record.flags, 0, record.data) if record.version > 0 else None
