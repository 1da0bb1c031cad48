"""Damages one place of a data directory that lies still, and looks at what becomes of it. Runs in a process of its own.

So that a hang or a crash is one of what may become of it, and ends no test.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from sfss.errors import ConfigError
from sfss.node.store import Store
from sfss.node.verify import verify

# The kinds of files, by their names, and how many of the damages each gets.
SHARES = {
    "*.sst": 5, "*.blob": 4, "*.log": 5, "MANIFEST*": 4, "CURRENT": 1, "SYNCED": 2, "OPTIONS*": 1, "IDENTITY": 1,
    "rocksdict-config.json": 1, "LOG": 1,
}  # fmt: skip
SECTOR = 512


@dataclass
class Still:
    """A directory that no node serves, and what lies in it."""

    directory: Path
    items: dict[bytes, bytes]
    gone: list[bytes]  # keys that were removed


def run(stills: list[Still], work: Path, seed: str, count: int, tell: Connection) -> None:
    """Damage one or the other, ``count`` times; tell what before, and what became of it after."""
    chance = random.Random(seed)
    for _ in range(count):
        still = chance.choice(stills)
        image = work / "image"
        _copy(still.directory, image)
        kinds = [kind for kind in SHARES if any(file.stat().st_size for file in image.glob(kind))]
        kind = chance.choices(kinds, [SHARES[kind] for kind in kinds])[0]
        tell.send((kind, f"{still.directory.name}: {damage(image, kind, chance)}"))
        try:
            tell.send(look(image, still))
        except Exception:  # noqa: BLE001
            tell.send(f"WRONG: {traceback.format_exc()}")
        shutil.rmtree(image)


def _copy(directory: Path, image: Path) -> None:
    """Tables and blob files are never written to again, so links do; the one that is damaged is replaced."""
    image.mkdir()
    for file in directory.iterdir():
        if file.suffix in (".sst", ".blob"):
            (image / file.name).hardlink_to(file)
        elif file.is_file():
            shutil.copy(file, image)


def damage(image: Path, kind: str, chance: random.Random) -> str:
    """A bit, some bytes or a sector of one file of the kind; what and where."""
    file = chance.choice([file for file in sorted(image.glob(kind)) if file.stat().st_size])
    before = file.read_bytes()
    while True:
        data = bytearray(before)
        offset = chance.randrange(len(data))
        how = chance.choice(("a bit", "a bit", "a bit", "bytes", "a sector"))
        if how == "a bit":
            data[offset] ^= 1 << chance.randrange(8)
        elif how == "bytes":
            for place in range(offset, min(offset + chance.randrange(1, 64), len(data))):
                data[place] = chance.randrange(256)
        else:
            offset -= offset % SECTOR
            data[offset : offset + SECTOR] = bytes(len(data[offset : offset + SECTOR]))
        if data != before:
            break
    file.unlink()  # it may be a link
    file.write_bytes(data)
    return f"{how} at {offset} of {len(data)} in {file.name}"


def look(image: Path, still: Still) -> str:
    """'refused', 'errors', 'named' (by verify alone) or 'unread'; or, from 'WRONG' on, what must never be."""
    try:
        named = bool(verify(image).damaged)
    except ConfigError:
        named = True
    try:
        store = Store(image)
    except ConfigError:
        return "refused" if named else "WRONG: refused, and verify found nothing"
    with contextlib.closing(_Closing(store)):
        errors = 0
        for answer in _read(store, still):
            if answer.startswith("WRONG"):
                return answer
            errors += 1
    if errors and not named:
        return f"WRONG: {errors} errors, and verify found nothing"
    return "errors" if errors else "named" if named else "unread"


class _Closing:
    """A store that has met damage says so when it is closed, too."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._store.close()


def _read(store: Store, still: Still) -> Iterator[str]:
    """What went wrong with each item: an error, or something that must never be."""
    for key, data in still.items.items():
        try:
            item, head = store.get(key), store.head(key)
        except Exception as error:  # noqa: BLE001
            yield str(error)
            continue
        if item is None or head is None:
            yield f"WRONG: a miss for {key!r}"
        elif bytes(item.data) != data or head.size != len(data) or item.flags != head.flags or item.cas != head.cas:
            yield f"WRONG: another value for {key!r}"
    for key in still.gone:
        try:
            item = store.get(key)
        except Exception as error:  # noqa: BLE001
            yield str(error)
        else:
            if item is not None:
                yield f"WRONG: {key!r} is there again"
