"""The progress bar on standard error, where that is a terminal; elsewhere nothing is drawn."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque

from sfss.client import words

_WIDTH = 24  # characters between the brackets
_INTERVAL = 0.1  # seconds between two drawings
_RECENT = 5.0  # seconds that the rate, and with it the time left, is taken from


class Progress:
    """``sending  [######......]  50%  3 of 6 files  1.2 MB  3.4 MB/s  0:05 left``; a context manager.

    ``total`` is in bytes. It, and the number of ``files`` (None: one file, which isn't counted), grow by ``expect``;
    while ``more`` is to be expected nobody can say how long it takes.
    """

    def __init__(self, label: str, total: int = 0, *, files: int | None = None, visible: bool = True) -> None:
        self._label, self._total, self._files = label, total, files
        self.more = False
        self._done = self._moved = self._files_done = 0
        self._visible = visible and sys.stderr is not None and sys.stderr.isatty()
        self._started = self._drawn = time.monotonic()
        self._samples = deque([(self._started, 0)])  # when, and how many bytes had moved by then

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._visible:
            self._draw(ended=True)
            sys.stderr.write("\n")

    def expect(self, size: int, files: int = 0) -> None:
        """There is more to do than was known."""
        self._total += size
        if self._files is not None:
            self._files += files

    def advance(self, size: int) -> None:
        """Count ``size`` more bytes that have moved."""
        self._moved += size
        self.skip(size)

    def skip(self, size: int) -> None:
        """Count bytes that need not move, for they are there; below 0: that have to move again."""
        self._done += size
        self._maybe_draw()

    def file_done(self) -> None:
        """Count one more file."""
        self._files_done += 1
        self._maybe_draw()

    def _maybe_draw(self) -> None:
        if self._visible and time.monotonic() - self._drawn >= _INTERVAL:
            self._draw()

    def _draw(self, *, ended: bool = False) -> None:
        self._drawn = time.monotonic()
        columns = shutil.get_terminal_size().columns - 1  # a line that wraps could not be drawn over
        sys.stderr.write(f"\r{self._line(ended=ended)[:columns]:<{min(columns, 100)}}")
        sys.stderr.flush()

    def _line(self, *, ended: bool) -> str:
        share = min(self._done / self._total, 1.0) if self._total else float(ended)
        bar = "#" * int(share * _WIDTH)
        rate = self._moved / max(self._drawn - self._started, 1e-6) if ended else self._recent_rate()
        percent = int(share * 100)  # not rounded: 100 is all of it
        parts = [f"{self._label:<9} [{bar:.<{_WIDTH}}] {percent:3}%"]
        if self._files is not None:
            parts.append(f"{self._files_done:,} of {self._files:,}{'+' if self.more else ''} files")
        parts += [words.megabytes(self._done), f"{words.megabytes(rate)}/s"]
        if rate and not ended and not self.more:
            parts.append(f"{words.duration(max(self._total - self._done, 0) / rate)} left")
        return "  ".join(parts)

    def _recent_rate(self) -> float:
        """Bytes a second."""
        self._samples.append((self._drawn, self._moved))
        while len(self._samples) > 2 and self._samples[1][0] < self._drawn - _RECENT:
            self._samples.popleft()
        since, moved = self._samples[0]
        return (self._moved - moved) / max(self._drawn - since, 1e-6)


class Meter:
    """One file's share of a progress, which may have to go back."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._offset = 0

    def at(self, offset: int) -> None:
        """So much of the file is there, whatever was counted."""
        self._progress.skip(offset - self._offset)
        self._offset = offset

    def advance(self, size: int) -> None:
        """Count ``size`` more bytes that have moved."""
        self._offset += size
        self._progress.advance(size)
