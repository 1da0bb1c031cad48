"""Looking at a data directory without changing it, past what can't be read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rocksdict import Cache, Rdict

from sfss.errors import ConfigError
from sfss.node import engine, entries, opening
from sfss.node.entries import BODY, HEAD
from sfss.node.opening import Replay

CACHE = 96 * engine.MIB  # bytes for what is read


class Cursor:
    """A walk over all heads or all bodies in key order, past what can't be read. ``seek`` and ``next`` may raise."""

    def __init__(self, db: Rdict, prefix: bytes) -> None:
        self._iterator = db.iter(engine.walking())
        self._prefix = prefix
        self.key: bytes | None = None  # where it is; None behind the last
        self.entry = b""

    def seek(self, key: bytes) -> None:
        """Go to the first entry from ``key`` on."""
        self.key = None
        self._iterator.seek(self._prefix + key)
        self._take()

    def next(self) -> None:
        self._iterator.next()
        self._take()

    def _take(self) -> None:
        self.key = None
        if not self._iterator.valid():
            self._iterator.status()  # raises what ended it early
            return
        key = self._iterator.key()
        if key.startswith(self._prefix):
            self.key, self.entry = key[len(self._prefix) :], self._iterator.value()


class Look:
    """A data directory opened to be read and not changed, by whoever verifies it. Raises ConfigError."""

    def __init__(self, directory: Path) -> None:
        with contextlib.ExitStack() as undo, engine.saying_why(directory):
            if not (directory / "CURRENT").exists():
                raise ConfigError(f"{directory} is not a data directory, or damaged: it has no file CURRENT")
            self._lock = opening.Lock(directory)
            undo.callback(self._lock.release)
            if (why := opening.endless(directory)) is not None:
                raise ConfigError(
                    f"{why}: nothing of it can be read. Restore it from a backup or from the other copies"
                )
            open_in = partial(engine.open_in, directory, Cache(CACHE))
            self.missing = opening.look(directory, open_in)  # in words; None if nothing is
            self._db = open_in(Replay.LOOK)
            undo.callback(engine.close_quietly, self._db)
            layout = self._db.get(entries.FORMAT)
            if layout not in (entries.LAYOUT, entries.WITHOUT_EXPIRIES):
                raise ConfigError(engine.why_not_this_layout(directory, layout))
            self.lists_expiries = layout != entries.WITHOUT_EXPIRIES
            self.items, self.bytes = entries.read_totals(self._db.get(entries.TOTALS))
            undo.pop_all()

    def heads(self) -> Cursor:
        return Cursor(self._db, HEAD)

    def bodies(self) -> Cursor:
        return Cursor(self._db, BODY)

    def expiries(self) -> Iterator[tuple[int, bytes]]:
        """What is listed as expiring, and when; may raise."""
        cursor = Cursor(self._db, entries.EXPIRY)
        cursor.seek(b"")
        while cursor.key is not None:
            yield entries.read_expiry(entries.EXPIRY + cursor.key, cursor.entry)[:2]
            cursor.next()

    def expiry(self, key: bytes) -> int:
        """When the item expires by its head; 0 if it doesn't, or isn't there. May raise."""
        entry = self._db.get(HEAD + key)
        return entries.read_head(entry).expiry if entry else 0

    def close(self) -> None:
        self._db.close()
        self._lock.release()
