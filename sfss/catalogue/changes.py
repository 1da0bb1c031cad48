"""What becomes of files and uploads, and the rows that this makes. Pure.

A file's row is as its record on the nodes, whose order (``version``, ``front``) decides which of two is the newer.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import uuid
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sfss import manifest, paths
from sfss.manifest import Manifest
from sfss.record import Header, Kind
from sfss.upload_state import State

STORED, DELETED = "stored", "deleted"  # states of a file

Row = Mapping[str, Any]

_LAST_TIME = 253_402_300_799_000_000  # microseconds since the epoch, of the last year that ISO 8601 has
_EPOCH = datetime.datetime(1970, 1, 1)
_UUID = re.compile(r"(?:.*/)?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")
_PATHS = uuid.UUID("5f5f5566-7366-7373-8000-706174687321").bytes  # the space of names in which paths are


class FileChange(NamedTuple):
    """A file was stored, or deleted if the header is a tombstone's."""

    path: str
    header: Header
    striped: Manifest  # of a file that is one

    @property
    def key(self) -> str:
        return self.path


class UploadChange(NamedTuple):
    """An upload has come so far; None: it is an upload no more."""

    upload: str
    state: State | None

    @property
    def key(self) -> str:
        return f"/{self.upload}"  # no path begins so


Change = FileChange | UploadChange


class Rows:
    """Makes rows. ``owners``: the names of the nodes that keep a key; ``guess``: a path's content type."""

    def __init__(self, owners: Callable[[bytes], Sequence[str]], guess: Callable[[str], str]) -> None:
        self._owners = owners
        self._guess = guess
        self._places: dict[tuple[str, ...], int] = {}

    def file(self, path: str, header: Header) -> dict[str, Any]:
        """The row of ``files``."""
        deleted = header.kind == Kind.TOMBSTONE
        key = paths.key_of(path).decode()
        return {
            "path": path,
            "file_id": file_id(path),
            "size": header.size,
            "sha256": header.sha256.hex(),
            "content_type": "" if deleted else header.type or self._guess(path),
            "modified": moment(header.version),
            "version": header.version,
            "front": header.front,
            "state": DELETED if deleted else STORED,
            "record_key": None if key == f"/{path}" else key,
            "place": self._place(key.encode()) if header.kind == Kind.FILE else None,
        }

    def places(self, wanted: Container[int]) -> list[dict[str, Any]]:
        """The rows of ``places`` of these, as far as a file was seen there."""
        return [
            {"place": place, "copy": copy, "node": node}
            for nodes, place in self._places.items()
            if place in wanted
            for copy, node in enumerate(nodes)
        ]

    def every_place(self) -> list[dict[str, Any]]:
        """The rows of ``places`` of all at which a file was seen."""
        return self.places(set(self._places.values()))

    def pieces(self, path: str, header: Header, striped: Manifest) -> list[dict[str, Any]]:
        """The rows of ``striped_pieces``: what each node has of a file that is cut into blocks."""
        order = {"path": path, "version": header.version, "front": header.front}
        return [{**order, **piece} for piece in pieces_of(striped)]

    def _place(self, key: bytes) -> int:
        nodes = tuple(self._owners(key))
        place = self._places.get(nodes)
        if place is None:  # always the same for the same nodes, whoever makes it
            digest = hashlib.sha256("\n".join(nodes).encode()).digest()
            place = self._places[nodes] = int.from_bytes(digest[:8]) >> 1
        return place


def pieces_of(striped: Manifest) -> Iterator[dict[str, Any]]:
    """What each node has of a striped file: of each stripe the blocks at one place of its layout, as one piece.

    The blocks of a piece are ``pieces * block_size`` bytes from each other, so that the first one tells all of them.
    """
    number = begins = 0
    for extent in striped.extents:
        layout = striped.layouts[extent.layout]
        for place in range(min(layout.pieces, extent.blocks)):
            blocks = -(-(extent.blocks - place) // layout.pieces)
            is_last = place + (blocks - 1) * layout.pieces == extent.blocks - 1
            size = blocks * extent.block_size - (extent.blocks * extent.block_size - extent.size if is_last else 0)
            for copy, node in enumerate(layout.homes(extent.first + place)):
                yield {
                    "number": number,
                    "copy": copy,
                    "node": node,
                    "record_key": manifest.block_key(extent.stripe, place).decode(),
                    "blocks": blocks,
                    "size": size,
                    "first_byte": begins + place * extent.block_size,
                    "block_size": extent.block_size,
                }
            number += 1
        begins += extent.size


def upload_row(upload: str, state: State) -> dict[str, Any]:
    """The row of ``uploads``."""
    return {
        "upload": upload,
        "path": state.path,
        "size": state.length,
        "received": state.offset,
        "expires": moment(state.expires),
    }


def file_id(path: str) -> str:
    """A UUID for the file at a path, always the same: the one that the path ends with, or one made of the path."""
    named = _UUID.fullmatch(path)
    if named is not None:
        return named[1]
    # uuid.uuid5, in a third of the time
    digest = bytearray(hashlib.sha1(_PATHS + path.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def moment(microseconds: int) -> str:
    """A time since the epoch as text, in UTC, whose order is that of time: ``2026-11-28T23:54:04.123456Z``."""
    at = _EPOCH + datetime.timedelta(microseconds=min(max(microseconds, 0), _LAST_TIME))
    return f"{at.isoformat(timespec='microseconds')}Z"
