"""A thread that writes the lines of the access log, so that nobody else waits for a disk or a pipe.

The file is opened anew when another one, or none, lies at its path: whoever rotates logs may rename or remove it, or
cut it off (``copytruncate``), and need tell nobody. Several workers append to the same file, whole lines each.
"""

from __future__ import annotations

import os
import queue
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from sfss.errors import ConfigError

_LAST_WORDS = 2.0  # seconds for what is left when the front stops
_STDERR = 2
_NOWHERE = -1
_PIPE_BUF = 4096


class LogWriter:
    """A thread that writes lines. What it has written and lost only it counts, so that nobody need be locked out."""

    def __init__(self, file: str) -> None:
        self.lost = 0  # lines
        self.why = ""  # the last were
        self._file = file
        self._fd = _STDERR
        self._is_file = False  # a regular one, which takes all at once, behind what others have appended
        self._identity = (0, 0)
        self._is_torn = False  # what was written last ends in the midst of a line
        self._given = self._done = 0  # bytes
        self._queue: queue.SimpleQueue[tuple[bytes | bytearray, int] | None] = queue.SimpleQueue()
        # It must not keep the process from ending, where nobody reads what it writes.
        self._thread = threading.Thread(target=self._run, name="sfss-access-log", daemon=True)
        if file:
            try:
                self._open()
            except OSError as error:
                raise ConfigError(f"log.access: {file} can't be opened for writing: {error.strerror}") from None
        else:
            self._look()

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""
        return self._given - self._done

    def start(self) -> None:
        self._thread.start()

    def write(self, data: bytes | bytearray, lines: int) -> None:
        """Soon."""
        self._given += len(data)
        self._queue.put((data, lines))

    def close(self) -> None:
        """Returns when all is written, or that takes too long."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(_LAST_WORDS)
        if not self._thread.is_alive() and self._fd not in (_STDERR, _NOWHERE):
            os.close(self._fd)
            self._fd = _NOWHERE

    def _run(self) -> None:
        while (given := self._queue.get()) is not None:
            data, lines = given
            try:
                if self._file and self._has_moved():
                    self._open()
                self._put(b"\n" + data if self._is_torn else data)
            except OSError as error:
                self.why = error.strerror or str(error)
                self.lost += lines
            self._done += len(data)

    def _open(self) -> None:
        if self._fd not in (_STDERR, _NOWHERE):
            fd, self._fd = self._fd, _NOWHERE
            os.close(fd)
        self._is_torn = False
        self._fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._look()

    def _look(self) -> None:
        """At what is open."""
        found = os.fstat(self._fd)
        self._is_file, self._identity = stat.S_ISREG(found.st_mode), (found.st_dev, found.st_ino)

    def _has_moved(self) -> bool:
        try:
            found = Path(self._file).stat()
            return self._fd == _NOWHERE or (found.st_dev, found.st_ino) != self._identity
        except FileNotFoundError:
            return True

    def _put(self, data: bytes | bytearray) -> None:
        # Of a pipe only so much is sure not to be mixed with what others write.
        for piece in (data,) if self._is_file else _pieces(data):
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
                self._is_torn = bool(rest)  # if the disk is full in the midst of a line


def _pieces(data: bytes | bytearray) -> Iterator[bytes]:
    """Whole lines, as many as a pipe takes at once."""
    piece = b""
    for line in data.splitlines(keepends=True):
        if len(piece) + len(line) > _PIPE_BUF and piece:
            yield piece
            piece = b""
        piece += line
    if piece:
        yield piece
