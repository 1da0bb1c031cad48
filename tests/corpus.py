"""Ten thousand small files to store: real ones from this machine, under the names that users give to files."""

from __future__ import annotations

import itertools
import os
import random
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LARGEST = 2 * 1024 * 1024
# Real files of all kinds are where software is installed: sources, images, archives, libraries, tables, pages.
_SOURCES = (sys.prefix, sysconfig.get_path("stdlib"), "/usr/share", "/usr/lib")
_SYNTHETIC_SIZES = (0, 1, 2, 511, 512, 513, 4095, 4096, 65535, 65536, 1_000_000, LARGEST - 1, LARGEST)
_FOLDERS = (
    "plain/{name}", "фото/лето 2026/{name}", "照片/旅行/{name}", "日本語/写真/{name}", "emoji 🐈‍⬛/🏖️/{name}",
    "with  two spaces/{name} copy", "100%/{name}%20", "a+b=c&d/{name}#?", "émile/{name}~", "ümläut/ß/{name}",
    "עברית/{name}", "عربي/{name}", "deep/" * 40 + "{name}",
)  # fmt: skip


class Sample(NamedTuple):
    """A file's path in the service, and its content."""

    path: str
    content: bytes


def samples(count: int, seed: int = 1) -> Iterator[Sample]:
    """So many files with different paths; the same for the same seed on the same machine."""
    contents = itertools.chain(_synthetic(seed), _real_files())
    for number, content in enumerate(itertools.islice(contents, count)):
        folder = _FOLDERS[number % len(_FOLDERS)]
        path = folder.format(name=f"{number:05}")
        if number % 97 == 0:  # as long as a name may be, to the byte
            path = path + "/" + "ж" * ((1024 - len(path.encode()) - 1) // 2)
            path += "x" * (1024 - len(path.encode()))
        yield Sample(path, content)


def _synthetic(seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    for size in _SYNTHETIC_SIZES:
        yield chance.randbytes(size)


def _real_files() -> Iterator[bytes]:
    """Real files' contents; over again, each a little longer, if the machine has too few."""
    for lap in itertools.count():
        for file in _walk():
            try:
                content = file.read_bytes()
            except OSError:
                continue
            yield content + bytes(lap)


def _walk() -> Iterator[Path]:
    for source in _SOURCES:
        for folder, folders, names in os.walk(source):
            folders.sort()
            for name in sorted(names):
                file = Path(folder, name)
                if not file.is_symlink() and file.is_file() and file.stat().st_size < LARGEST - 10:
                    yield file
