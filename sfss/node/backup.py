"""Backups: a data directory copied while its node serves, or while it doesn't, and put back.

A copy is made under another name beside its target, every file and directory of it synced, and then renamed: the target
is there whole, or not at all. Of a directory that is served the node makes a checkpoint first (``control``), so that it
is of one moment; one that isn't is copied as it is, under its lock. A backup is a data directory like any other:
``verify`` reads it, and a node can run on it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from sfss.errors import ConfigError
from sfss.node import control, opening
from sfss.node.verify import Progress, Report, verify

ANSWER = 60.0  # seconds that a node may take for a checkpoint: it writes out its memory, and waits for a slow disk
PARTIAL = ".partial"  # what a copy is named until it is whole

# Not copied: RocksDB's diary, locks, the socket; and directories, which are checkpoints or what `recover` has kept.
_LEFT_OUT = ("LOCK", "LOG", control.SOCKET)

Copied = Callable[[int, int], None]  # bytes that were copied, of how many


def backup(data: Path, target: Path, copied: Copied = lambda _done, _of: None) -> int:
    """Copy the data directory to ``target``, which must not be there, or be empty. Returns how many bytes it has.

    It is on the disk when this returns. Raises ConfigError and OSError; nothing is left at the target then.
    """
    _check_target(target)
    if not (data / "CURRENT").exists():
        raise ConfigError(f"{data} is not a data directory, or damaged: it has no file CURRENT")
    with _still(data) as source:
        return _copy(source, target, copied)


def restore(source: Path, data: Path, copied: Copied = lambda _done, _of: None, read: Progress | None = None) -> Report:
    """Copy the backup ``source`` to ``data``, which must not be there, or be empty, and read all of the copy.

    Raises ConfigError and OSError, and ConfigError if the copy is damaged; nothing is left at ``data`` then.
    """
    _check_target(data)
    if not (source / "CURRENT").exists():
        raise ConfigError(f"{source} is not a backup: it has no file CURRENT")
    report = Report()

    def check(copy: Path) -> None:
        nonlocal report
        report = verify(copy, read) if read else verify(copy)
        if report.damaged:
            raise ConfigError(f"the backup {source} is damaged, and nothing was restored: {report.findings[0]}, and"
                              f" {report.damaged - 1} more; `sfss node verify --data {source}` lists them")  # fmt: skip

    _copy(source, data, copied, check)
    return report


def _check_target(target: Path) -> None:
    if target.is_symlink() or target.exists():
        if not target.is_dir():
            raise ConfigError(f"{target} is not a directory: name one that isn't there, or an empty one")
        if any(target.iterdir()):
            raise ConfigError(f"{target} is not empty: name a directory that isn't there, or an empty one")
    elif not target.absolute().parent.is_dir():
        raise ConfigError(f"{target.absolute().parent} is not there: make it first")


@contextlib.contextmanager
def _still(data: Path) -> Iterator[Path]:
    """A directory with what ``data`` holds at one moment, which doesn't change until this is over."""
    sock = control.connect(data)
    if sock is None:
        lock = opening.Lock(data)
        try:
            yield data
        finally:
            lock.release()
        return
    with sock:
        sock.settimeout(ANSWER)
        sock.sendall(b"checkpoint\n")
        word, _, rest = sock.makefile("r", encoding="utf-8", errors="replace").readline().rstrip("\n").partition(" ")
        if word != "OK":
            raise ConfigError(f"the node that serves {data} could make no checkpoint: {rest or 'it has hung up'}")
        yield data / rest


def _copy(source: Path, target: Path, copied: Copied, check: Callable[[Path], None] = lambda _copy: None) -> int:
    partial = target.with_name(target.name + PARTIAL)
    if partial.exists():
        raise ConfigError(f"{partial} is there already: another copy is being made, or one was killed; then remove it")
    files = sorted(file for file in source.iterdir() if file.is_file() and not file.name.startswith(_LEFT_OUT))
    size, done = sum(file.stat().st_size for file in files), 0
    partial.mkdir()
    try:
        for file in files:
            shutil.copyfile(file, partial / file.name)
            _sync(partial / file.name)
            done += file.stat().st_size
            copied(done, size)
        opening.sync_directory(partial)
        check(partial)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    opening.sync_directory(target.absolute().parent)
    return size


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
