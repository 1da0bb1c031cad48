"""The keys that are known to lack a copy, at this front: it noted them when an owner didn't take a write. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable

LIMIT = 100_000  # keys that are noted; what comes then is left to a walk


class Lacking:
    """A bounded set of keys, the oldest first. Its length counts those that were taken until they are done with."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.overflown = False  # more were lacking than could be noted, since a walk last began
        self._keys: dict[bytes, None] = {}
        self._taken: set[bytes] = set()
        self._limit = limit

    def __len__(self) -> int:
        return len(self._keys) + len(self._taken)

    def note(self, key: bytes) -> None:
        """An owner of the key may lack its newest version."""
        if len(self._keys) < self._limit or key in self._keys:
            self._keys[key] = None
        else:
            self.overflown = True

    def take(self, count: int, is_wanted: Callable[[bytes], bool]) -> list[bytes]:
        """Up to ``count`` keys that are wanted, of the oldest twice as many; others are looked at the next time."""
        for key in list(itertools.islice(self._keys, 2 * count)):
            del self._keys[key]
            if len(self._taken) < count and is_wanted(key):
                self._taken.add(key)
            else:
                self._keys[key] = None  # behind the others
        return list(self._taken)

    def done(self, key: bytes, *, still_lacks: bool) -> None:
        """One of the keys that were taken has had its turn."""
        self._taken.discard(key)
        if still_lacks:
            self.note(key)
