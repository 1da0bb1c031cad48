"""Whether what comes is worth being compressed. Pure.

RocksDB compresses a large body when it writes out what is in memory, in the background, but on a core that others want:
a value of 4 KiB costs it some 15 microseconds, more than anything else that is done for it. Of texts two thirds go; of
photographs, music, archives and what is encrypted nothing. So of some values a piece is tried, and ``space`` switches
compression off while hardly anything would be saved, and on again when something would.
"""

from __future__ import annotations

import zlib

EVERY = 64  # values, of which one is tried
PIECE = 4 * 1024  # bytes of it
ENOUGH = 16  # values tried since the last verdict
WORTH, WORTHLESS = 0.9, 0.95  # what would be left, as a share: from the one on it is switched on, from the other off


class Packing:
    """Looks at values that are written, and says what it would make of them."""

    def __init__(self) -> None:
        self._worth_it = True
        self._seen = 0
        self._tried = 0
        self._bytes = 0.0  # of the values tried, the later ones weighing more ...
        self._left = 0.0  # ... and what would be left of them

    def saw(self, value: bytes | memoryview) -> None:
        """This value is written."""
        self._seen += 1
        if self._seen % EVERY == 0:
            begin = max(len(value) - PIECE, 0) // 2
            piece = value[begin : begin + PIECE]
            self._tried += 1
            self._bytes += len(value)
            self._left += len(value) * min(len(zlib.compress(piece, 1)) / len(piece), 1.0)

    def is_worth_it(self) -> bool:
        """The verdict on what was written of late; the one before stays while little was tried. At first: yes."""
        if self._tried >= ENOUGH:
            self._worth_it = self._left / self._bytes < (WORTHLESS if self._worth_it else WORTH)
            self._tried = 0
            self._bytes, self._left = self._bytes / 2, self._left / 2
        return self._worth_it
