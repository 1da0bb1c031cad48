"""The access log: a line for each request, which nobody waits for.

Theory of operation. What is known of a request is put aside, as it is, when it has been answered. Some moments later,
or when there are many, all that has come is made lines of at once. A few times a second these are given to a thread,
which writes: to wake it takes as long as to make a hundred lines, for it and the loop then pass Python's lock to and
fro. If it can't keep up, for the disk is slow, or nobody reads at the other end of the pipe, up to ``BACKLOG`` bytes
wait; beyond that lines are dropped, and counted. So a log never stalls what it is a log of.

The file is opened anew when another one, or none, lies at its path: whoever rotates logs may rename or remove it, or
cut it off (``copytruncate``), and need tell nobody. Several workers append to the same file, whole lines each.

No line holds a secret (``access/keys.hidden``), nor anything that could begin another line, or turn a terminal around.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import queue
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from multidict import MultiMapping

from sfss import logs
from sfss.access import keys
from sfss.config import Network
from sfss.errors import ConfigError
from sfss.web.forwarded import FIELDS, Client, client
from sfss.web.headers import combined
from sfss.web.heads import Head
from sfss.web.tally import Tally

log = logging.getLogger("sfss.access")

PAUSE = 0.2  # seconds that a line may wait until it is given to the writer
TOGETHER = 512 * 1024  # bytes of lines that are given to it before that
MANY = 256  # that are made at once, at most: so long the loop does nothing else, a third of a millisecond
BACKLOG = 4 * 1024 * 1024  # bytes of lines that wait to be written
LONGEST = 2048  # characters of a URL, of which the rest is left out: a pipe takes 4096 bytes of several writers whole
_LAST_WORDS = 2.0  # seconds for what is left when the front stops
_COMPLAINTS = 60.0  # seconds between two warnings that lines are lost
_STDERR = 2


class Request(NamedTuple):
    """What is to be said of a request that went aiohttp's way."""

    method: str
    url: str
    headers: MultiMapping[str]
    received: int  # bytes of its body


class Line(msgspec.Struct, tag_field="logger", tag="sfss.access", omit_defaults=True, gc=False):
    """A line, as JSON has it: the names are a promise."""

    time: str  # when the request came
    request_id: str
    client: str  # the address
    method: str
    url: str
    status: int  # 499: nobody was there any more to be answered
    bytes: int  # of the answer's body
    seconds: float
    received: int = 0  # bytes of the request's body
    key: str = ""  # the id of the key that was shown, be it good or not


# As it is put aside: when it began, and how long it took, in ns of perf_counter; status, bytes, peer, id, and the rest.
_Noted = tuple[int, int, int, int, str, bytes, Head | Request]


class AccessLog:
    """Of one process, in one event loop."""

    def __init__(self, file: str, *, as_json: bool, tally: Tally, trusted: Sequence[Network] = ()) -> None:
        """``file``: "" for standard error. Raises ConfigError if it can't be opened."""
        self._as_json = as_json
        self._tally = tally
        self._trusted = trusted
        self._noted: list[_Noted] = []
        self._ready: list[bytes] = []  # lines that the writer is to be given ...
        self._ready_bytes = self._ready_lines = 0  # ... and how many bytes and lines that is
        self._timer: asyncio.TimerHandle | None = None
        self._writer = _Writer(file)
        self._unwritten = 0  # lines, of those that the writer has lost, that are counted
        self._complained = -_COMPLAINTS
        self._encoder = msgspec.json.Encoder()
        self._address = functools.lru_cache(1024)(self._behind)

    def start(self) -> None:
        """Begin to write. To be called in the event loop."""
        self._writer.start()

    def note(
        self, began: int, took: int, status: int, size: int, peer: str, request_id: bytes, about: Head | Request
    ) -> None:
        """A request has been answered, with a body of ``size`` bytes. Times are in ns, by ``time.perf_counter_ns``."""
        noted = self._noted
        noted.append((began, took, status, size, peer, request_id, about))
        if len(noted) >= MANY:
            self._make()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE, self._flush)

    async def close(self) -> None:
        """Write what is left, if it can be written soon."""
        self._flush()
        await asyncio.to_thread(self._writer.close)
        self._count_unwritten()

    # --- within ---

    def _flush(self) -> None:
        """Give what has come to the writer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._make()
        self._hand_over()

    def _make(self) -> None:
        """Make lines of what has come."""
        noted, self._noted = self._noted, []
        if not noted:
            return
        if self._writer.waiting + self._ready_bytes > BACKLOG:
            self._tally.add("dropped_lines", len(noted))
            self._complain("the reader of the access log, or its disk, is too slow, and lines are dropped: read faster,"
                           " or switch it off (log.access)")  # fmt: skip
            return
        lines = self._lines_of(noted)
        self._ready.append(lines)
        self._ready_bytes += len(lines)
        self._ready_lines += len(noted)
        if self._ready_bytes >= TOGETHER:
            self._hand_over()

    def _hand_over(self) -> None:
        """Give the lines to the writer."""
        self._count_unwritten()
        if self._ready:
            self._writer.write(b"".join(self._ready), self._ready_lines)
            self._ready = []
            self._ready_bytes = self._ready_lines = 0

    def _lines_of(self, noted: Sequence[_Noted]) -> bytes:
        """The lines. Of what is asked most in a fraction of the time: in that there is nothing to hide."""
        lines: list[Line] = []
        add, trusted = lines.append, self._trusted
        offset = time.time_ns() - time.perf_counter_ns()
        last, when = -1, ""
        for each in noted:
            began, took, status, size, peer, request_id, about = each
            if (now := (began + offset) // 1_000_000) != last:  # many come in the same millisecond
                last, when = now, logs.iso(now / 1000)
            if type(about) is Head and about.query is None and about.fields.shows_no_key:
                page, path, length = about.page, about.plain_path, about.fields.length or 0
                url = (page if path is None else page + b"?path=" + path).decode()
                if "sfss_" not in url and len(url) <= LONGEST:
                    client = self._client(peer, about.fields.headers) if trusted else peer
                    method, seconds = about.method.decode(), took // 1000 / 1e6
                    add(Line(when, request_id.decode(), client, method, url, status, size, seconds, length))
                    continue
            add(self._line(each, when))
        return self._encoder.encode_lines(lines) if self._as_json else "".join(map(_text, lines)).encode()

    def _line(self, noted: _Noted, when: str) -> Line:
        _, took, status, size, peer, request_id, about = noted
        headers: MultiMapping[str]
        if isinstance(about, Head):
            headers, method, received = about.fields.headers, about.method.decode(), about.fields.length or 0
            url = about.target.decode()
            is_open = about.plain_path is None and about.query is not None
        else:
            method, url, headers, received = about
            method, url, is_open = logs.one_line(method)[:32], _ascii(url), True
        if is_open or "sfss_" in url:
            url = keys.hidden(url)
        return Line(
            time=when,
            request_id=request_id.decode(),
            client=self._client(peer, headers) if self._trusted else peer,
            method=method,
            url=url if len(url) <= LONGEST else f"{url[:LONGEST]}...",
            status=status,
            bytes=size,
            seconds=round(took / 1e9, 6),
            received=received,
            key=keys.id_shown(headers.get("Authorization", "")),
        )

    def _client(self, peer: str, headers: MultiMapping[str]) -> str:
        return self._address(peer, combined(headers, FIELDS[:1]).get(FIELDS[0], ""))

    def _behind(self, peer: str, forwarded: str) -> str:
        return client(Client(peer, "", ""), {FIELDS[0]: forwarded}, self._trusted).address

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


_NOWHERE = -1
_PIPE_BUF = 4096


class _Writer:
    """A thread that writes lines. What it has written and lost only it counts, so that nobody need be locked out."""

    def __init__(self, file: str) -> None:
        self.lost = 0  # lines
        self.why = ""  # the last were
        self._file = file
        self._fd = _STDERR
        self._is_torn = False  # what was written last ends in the midst of a line
        self._given = self._done = 0  # bytes
        self._queue: queue.SimpleQueue[tuple[bytes, int] | None] = queue.SimpleQueue()
        # It must not keep the process from ending, where nobody reads what it writes.
        self._thread = threading.Thread(target=self._run, name="sfss-access-log", daemon=True)
        if file:
            try:
                self._open()
            except OSError as error:
                raise ConfigError(f"log.access: {file} can't be opened for writing: {error.strerror}") from None

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""
        return self._given - self._done

    def start(self) -> None:
        self._thread.start()

    def write(self, data: bytes, lines: int) -> None:
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

    def _has_moved(self) -> bool:
        try:
            return self._fd == _NOWHERE or not os.path.samestat(Path(self._file).stat(), os.fstat(self._fd))
        except FileNotFoundError:
            return True

    def _put(self, data: bytes) -> None:
        # A regular file takes all at once, behind what others have appended. Of a pipe only so much is sure not to be
        # mixed with what others write.
        whole = stat.S_ISREG(os.fstat(self._fd).st_mode)
        for piece in (data,) if whole else _pieces(data):
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
                self._is_torn = bool(rest)  # if the disk is full in the midst of a line


def _pieces(data: bytes) -> Iterator[bytes]:
    """Whole lines, as many as a pipe takes at once."""
    piece = b""
    for line in data.splitlines(keepends=True):
        if len(piece) + len(line) > _PIPE_BUF and piece:
            yield piece
            piece = b""
        piece += line
    if piece:
        yield piece


def _text(line: Line) -> str:
    """``2026-11-29T03:41:01.123Z INFO sfss.access: 192.0.2.1 GET /file?path=a 200 12 bytes 0.000812 s ...``."""
    came = f" {line.received} received" if line.received else ""
    key = f" key {line.key}" if line.key else ""
    return (
        f"{line.time} INFO sfss.access: {line.client or '-'} {line.method} {line.url} {line.status} {line.bytes} bytes"
        f"{came} {line.seconds:g} s{key} id {line.request_id}\n"
    )


def _ascii(text: str) -> str:
    """As it came, but for what isn't ASCII, or isn't printable."""
    return logs.one_line(text if text.isascii() else text.encode("ascii", "backslashreplace").decode())
