"""The access log: a line for each request, which nobody waits for.

Theory of operation. Lines are made of many requests at once, some milliseconds after they were answered (``watch.py``
says why). A few times a second all lines are given to a thread, which writes: to wake it takes as long as to make
hundreds of them, for it and the loop then pass Python's lock to and fro. If it can't keep up, for the disk is slow, or
nobody reads at the other end of the pipe, up to ``BACKLOG`` bytes wait; beyond that lines are dropped, and counted. So
a log never stalls what it is a log of.

What a line says is ``access_lines.py``'s, and, of what is asked most, ``quick_lines.py``'s; how it is written
``log_writer.py``'s.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Sequence

from sfss.config import Network
from sfss.web.access_lines import Request, Row, as_text, line
from sfss.web.forwarded import FIELDS, Client, client
from sfss.web.headers import combined
from sfss.web.heads import Head
from sfss.web.log_writer import LogWriter
from sfss.web.quick_lines import QuickLines
from sfss.web.tally import Tally

log = logging.getLogger("sfss.access")

PAUSE = 0.2  # seconds that a line may wait until it is given to the writer
TOGETHER = 2 * 1024 * 1024  # bytes of lines that are given to it before that
BACKLOG = 16 * 1024 * 1024  # bytes of lines that wait to be written
_COMPLAINTS = 60.0  # seconds between two warnings that lines are lost


class AccessLog:
    """Of one process, in one event loop."""

    def __init__(self, file: str, *, as_json: bool, tally: Tally, trusted: Sequence[Network] = ()) -> None:
        """``file``: "" for standard error. Raises ConfigError if it can't be opened."""
        self._as_json = as_json
        self._tally = tally
        self._trusted = trusted
        self._quick = QuickLines()
        self._lines = bytearray()  # that the writer is to be given, ...
        self._count = 0  # ... and how many they are
        self._timer: asyncio.TimerHandle | None = None
        self._epoch = 0  # when perf_counter_ns was 0, in ns
        self._writer = LogWriter(file)
        self._unwritten = 0  # lines, of those that the writer has lost, that are counted
        self._complained = -_COMPLAINTS
        self._behind = functools.lru_cache(1024)(self._client)

    def start(self) -> None:
        """Begin to write. To be called in the event loop."""
        self._writer.start()

    def write(self, rows: Sequence[Row]) -> None:
        """Soon, lines of requests that have been answered. Their times are by ``time.perf_counter_ns``."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE, self._flush)
            self._epoch = time.time_ns() - time.perf_counter_ns()
        if self._trusted:
            rows = [(*row[:4], self._behind(row[4], _forwarded(row[-1])), *row[5:]) for row in rows]
        if self._as_json:
            self._lines += self._quick.of(rows, self._epoch)
        else:
            self._lines += b"".join([as_text(line(row, self._epoch)) for row in rows])
        self._count += len(rows)
        if len(self._lines) >= TOGETHER:
            self._hand_over()

    async def close(self) -> None:
        """Write what is left, if it can be written soon."""
        self._flush()
        await asyncio.to_thread(self._writer.close)
        self._count_unwritten()

    # --- within ---

    def _client(self, peer: str, forwarded: str) -> str:
        """The address of who asks through that peer."""
        return client(Client(peer, "", ""), {FIELDS[0]: forwarded}, self._trusted).address

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hand_over()

    def _hand_over(self) -> None:
        """Give the lines to the writer."""
        self._count_unwritten()
        lines, self._lines = self._lines, bytearray()
        count, self._count = self._count, 0
        if not count:
            return
        if self._writer.waiting + len(lines) <= BACKLOG:
            self._writer.write(lines, count)
        else:
            self._tally.add("dropped_lines", count)
            self._complain("the reader of the access log, or its disk, is too slow, and lines are dropped: read faster,"
                           " or switch it off (log.access)")  # fmt: skip

    def _count_unwritten(self) -> None:
        lost, self._unwritten = self._writer.lost - self._unwritten, self._writer.lost
        if lost:
            self._tally.add("unwritten_lines", lost)
            self._complain(f"the access log can't be written, and {lost} lines are lost: {self._writer.why}; make room,"
                           " or set log.access to where sfss may write")  # fmt: skip

    def _complain(self, words: str) -> None:
        now = time.monotonic()
        if now - self._complained >= _COMPLAINTS:
            self._complained = now
            log.warning("%s", words)


def _forwarded(about: Head | Request) -> str:
    """For whom the proxies say that they ask."""
    headers = about.fields.headers if isinstance(about, Head) else about.headers
    return combined(headers, FIELDS[:1]).get(FIELDS[0], "")
