"""What outlives a process, so that the next one can go on: parts of downloads, and notes of uploads.

A *part* is a download that isn't whole yet, a file beside its target, ``.cat.jpg.ETAG.sfss-part``: its name says what
it is a part of. A *note* says where an upload is: ``$XDG_STATE_HOME/sfss/uploads`` (``~/.local/state``) has one for
each that isn't finished. Who works on either holds a lock on it; a second process works beside it, remembering nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from sfss.client.failures import Failure

PART = ".sfss-part"  # what the names of parts end with
_ETAG = 64  # hex digits of a SHA-256
_LONGEST_LABEL = 120  # bytes of a target's name that its parts' names repeat; file systems take 255
_PIECE = 1024 * 1024
_FORGOTTEN = 8 * 86400.0  # seconds after which a note is of no use: services keep an upload for a week


# --- downloads ---


class Part:
    """What there is of a download, and its SHA-256 so far; written by one thread at a time.

    ``etag`` is the ETag of what it is a part of: 64 hex digits, or "" if no other process could go on with it.
    """

    def __init__(self, place: Path, file: BinaryIO, etag: str) -> None:
        self.etag = etag
        self.size = 0
        self.digest = hashlib.sha256()
        self._place = place
        self._file = file

    def read(self) -> None:
        """Take in what a process before has left."""
        self._file.seek(0)
        while piece := self._file.read(_PIECE):
            self.digest.update(piece)
            self.size += len(piece)

    def write(self, piece: bytes) -> None:
        """Add the next bytes."""
        self._file.write(piece)
        self.digest.update(piece)
        self.size += len(piece)

    def finish(self, target: Path) -> None:
        """Give it the target's name, in place of what may stand there."""
        self._file.flush()
        os.fsync(self._file.fileno())  # the name must not reach the disk before the bytes do
        self._place.replace(target)
        self._file.close()

    def leave(self) -> None:
        """Keep it for another process, if it can be of use."""
        if self.etag and self.size:
            with contextlib.suppress(OSError):  # the end of it could not be written: what could is a part, too
                self._file.close()
        else:
            self.discard()

    def discard(self) -> None:
        """Remove it."""
        self._place.unlink(missing_ok=True)  # before the lock goes, so that it is ours
        with contextlib.suppress(OSError):  # what can't be written any more needn't be
            self._file.close()


def find_part(target: Path) -> Part | None:
    """The largest part that another process has left of ``target``, which still has to be ``read``; others go."""
    found = [(place, file) for place in _parts_of(target) if (file := _lock(place, 0))]
    found.sort(key=lambda part: os.fstat(part[1].fileno()).st_size)
    parts = [Part(place, file, place.name.removesuffix(PART)[-_ETAG:]) for place, file in found]
    for part in parts[:-1]:
        part.discard()
    return parts[-1] if parts else None


def new_part(target: Path, etag: str) -> Part:
    """An empty part; ``etag`` as of ``Part``. Raises Failure if nothing can be put there, OSError."""
    if not target.parent.is_dir():
        raise Failure(f"{target.parent} is no directory: make it first")
    place = target.with_name(f".{_label(target)}.{etag}{PART}")
    file = _lock(place, os.O_CREAT) if etag else None
    if file is None:  # no name for it, or another process has that one
        place, etag = target.with_name(f".sfss-{secrets.token_hex(8)}{PART}"), ""
        file = place.open("xb")
    file.truncate(0)
    return Part(place, file, etag)


def _parts_of(target: Path) -> list[Path]:
    start = f".{_label(target)}."
    form = re.compile(f"{re.escape(start)}[0-9a-f]{{{_ETAG}}}{re.escape(PART)}", re.DOTALL)
    try:
        return [target.with_name(name) for name in os.listdir(target.parent) if form.fullmatch(name)]  # noqa: PTH208
    except OSError:
        return []


def _label(target: Path) -> str:
    name = os.fsencode(target.name)
    if len(name) <= _LONGEST_LABEL:
        return target.name
    # What is cut off in the middle of a character is still a name, to a file system.
    return f"{os.fsdecode(name[:_LONGEST_LABEL])}-{hashlib.sha256(name).hexdigest()[:16]}"


# --- uploads ---


class Source(NamedTuple):
    """What tells a local file, in one state, that is to become a file of a service."""

    service: str
    path: str
    file: str  # its absolute local name
    size: int
    modified: int  # nanoseconds

    @property
    def note(self) -> str:
        """The name of its note, which it shares with other states of the file."""
        return hashlib.sha256("\0".join(self[:3]).encode("utf-8", "surrogateescape")).hexdigest()[:32]


class Note:
    """What is known of an upload: its ``url``, and ``stale``, that of an upload of an older state; "" for none."""

    def __init__(self, source: Source, file: BinaryIO | None) -> None:
        self.url = self.stale = ""
        self._source, self._file = source, file
        if file is not None:
            self._read(file)

    def remember(self, url: str) -> None:
        """Note where the upload is."""
        self.url = url
        if self._file is not None:
            state = {**self._source._asdict(), "url": url}
            with contextlib.suppress(OSError):  # then the next process begins anew
                self._file.seek(0)
                self._file.truncate()
                self._file.write(json.dumps(state, ensure_ascii=True).encode())
                self._file.flush()

    def forget(self) -> None:
        """There is nothing to go on with any more."""
        self.url = ""

    def _read(self, file: BinaryIO) -> None:
        try:
            state = json.loads(file.read())
            url = str(state["url"])
            if (state["size"], state["modified"]) == (self._source.size, self._source.modified):
                self.url = url
            else:
                self.stale = url
        except (ValueError, LookupError, TypeError):
            pass  # it is new, or the process that wrote it was killed then


@contextlib.contextmanager
def note_of(source: Source, directory: Path | None = None) -> Iterator[Note]:
    """The note of an upload; one that nothing was noted in goes with the block.

    Where nothing can be kept (another process has it, the disk is full ...) it is one that only this process has.
    """
    place, file = (directory or state_directory()) / f"{source.note}.json", None
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _tidy(place.parent)
        file = _lock(place, os.O_CREAT, 0o600)
    except OSError:
        pass
    note = Note(source, file)
    try:
        yield note
    finally:
        if file is not None:
            if not note.url:
                place.unlink(missing_ok=True)
            file.close()


def state_directory() -> Path:
    """Where notes lie; others must not read them, for who knows an upload's URL may write to it."""
    given = os.environ.get("XDG_STATE_HOME", "")
    base = Path(given) if given.startswith("/") else Path("~/.local/state").expanduser()
    return base / "sfss" / "uploads"


def _tidy(directory: Path) -> None:
    """Remove what nobody came back for."""
    for place in directory.glob("*.json"):
        with contextlib.suppress(OSError):
            if place.stat().st_mtime < time.time() - _FORGOTTEN and (file := _lock(place, 0)):
                place.unlink()
                file.close()


# --- locks ---


def _lock(place: Path, flags: int, mode: int = 0o666) -> BinaryIO | None:
    """The file, for reading and writing and for this process alone; None if there is none, or it can't be had so.

    With O_CREAT it is made. Raises OSError if it can't be.
    """
    while True:
        try:
            file = os.fdopen(os.open(place, os.O_RDWR | os.O_NOFOLLOW | flags, mode), "r+b")
        except OSError:
            if flags & os.O_CREAT and not os.path.lexists(place):
                raise
            return None
        state = os.fstat(file.fileno())
        try:
            if state.st_uid != os.geteuid():  # in a folder that is everybody's
                raise BlockingIOError
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(state, place.stat(follow_symlinks=False)):
                return file
        except FileNotFoundError:
            pass
        except OSError:  # another process has it, or this file system has no locks
            file.close()
            return None
        file.close()  # who had it has removed it, or given it another name, since it was opened
        if not flags & os.O_CREAT:
            return None
