"""What a command answers: bytes, or pieces that are made one after the other as they are sent. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

END = b"END\r\n"


class Pieces:
    """A reply that comes in pieces, which are VALUEs or empty; whoever sends them adds END at the end."""

    def __init__(self, pieces: Iterator[bytes], keys: Sequence[bytes] = (), reads: Sequence[bytes] = ()) -> None:
        """The pieces are made one by one; piece by piece they read, of these ``keys``, what ``reads`` says."""
        self._pieces = pieces
        self._keys = keys
        self._reads = reads
        self._made = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._made += 1
        return next(self._pieces)

    def needs(self, count: int) -> list[bytes]:
        """The entries that the next so many pieces will read."""
        return [kind + key for key in self._keys[self._made : self._made + count] for kind in self._reads]


Reply = bytes | Pieces
