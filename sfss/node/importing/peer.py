"""One connection to another server of memcached's protocol, from the client's end.

Requests go out as they are given; answers come in their order, whatever mixture of classic and meta commands was asked.
Every wait has an end: a server that sends nothing for ``patience`` seconds is an error that names it. What is sent in
one turn of the event loop goes out together.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import re
from collections import deque
from typing import NamedTuple

from sfss import scan
from sfss.addresses import Address
from sfss.errors import ProtocolError, Unavailable

PATIENCE = 30.0  # seconds
TOGETHER = 64 * 1024  # bytes of requests that are sent at once
RECEIVE = 256 * 1024  # bytes
MAX_LINE = 8 * 1024  # bytes of an answer's line: two keys, written out, and what stands around them
MAX_BLOCK = 1024**3  # bytes of a value: memcached's own bound of -I

_UNPLAIN = re.compile(rb"[\0\n\r ]")  # what a key can't have on a line
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class Answer(NamedTuple):
    """One answer's line, or one VALUE of it; ``block`` is what follows a ``VALUE`` or ``VA`` line, else None."""

    line: bytes
    block: bytes | None


class Answers:
    """Bytes in, answers out. Keeps no more than what was fed and one answer."""

    def __init__(self) -> None:
        self.ready: deque[Answer] = deque()
        self._buffer = bytearray()
        self._wanted = 0  # bytes that the buffer must have before anything more can be made of it

    def feed(self, data: bytes) -> None:
        """Raises ProtocolError; what came before stays in ``ready``."""
        buffer = self._buffer
        buffer += data
        if len(buffer) < self._wanted:
            return
        self._wanted = position = 0
        while (end := buffer.find(b"\r\n", position)) >= 0:
            line = bytes(buffer[position:end])
            size = _block_size(line)
            if size is None:
                self.ready.append(Answer(line, None))
                position = end + 2
                continue
            after = end + 2 + size + 2
            if len(buffer) < after:
                self._wanted = after - position
                break
            if buffer[after - 2 : after] != b"\r\n":
                raise ProtocolError("a value doesn't end where its length says")
            self.ready.append(Answer(line, bytes(buffer[end + 2 : after - 2])))
            position = after
        del buffer[:position]
        if not self._wanted and len(buffer) > MAX_LINE:
            raise ProtocolError(f"a line of more than {MAX_LINE} bytes")


def _block_size(line: bytes) -> int | None:
    """Bytes of the block that follows a line; None if none does."""
    if line.startswith(b"VALUE "):
        words, at = line.split(b" "), 3
    elif line.startswith(b"VA "):
        words, at = line.split(b" "), 1
    else:
        return None
    if len(words) <= at or not words[at].isdigit() or len(words[at]) > 10 or int(words[at]) > MAX_BLOCK:
        raise ProtocolError(f"not the line of a value: {line[:100]!r}")
    return int(words[at])


class Peer:
    """The connection. Every method that waits raises Unavailable, which names the server and says what went wrong."""

    def __init__(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: float = PATIENCE
    ) -> None:
        self.name = name
        self.patience = patience
        self._reader = reader
        self._writer = writer
        self._answers = Answers()
        self._requests: list[bytes] = []
        self._size = 0

    @classmethod
    async def connect(cls, name: str, address: Address, patience: float = PATIENCE) -> Peer:
        """``name`` is what it is called in errors."""
        try:
            async with asyncio.timeout(patience):
                reader, writer = await asyncio.open_connection(address.host, address.port, limit=RECEIVE)
        except TimeoutError:
            raise Unavailable(f"{name} can't be reached: nothing came for {patience:.0f} seconds") from None
        except (OSError, UnicodeError) as error:  # the latter: of a host that can't be the name of one
            raise Unavailable(f"{name} can't be reached: {_reason(error)}") from None
        return cls(name, reader, writer, patience)

    @property
    def address(self) -> tuple[str, int]:
        """Where the other end is: its address and port."""
        host, port = self._writer.get_extra_info("peername")[:2]
        return host, port

    @property
    def is_near(self) -> bool:
        """Whether the other end is on this machine."""
        host = self.address[0]
        return ipaddress.ip_address(host).is_loopback or host == self._writer.get_extra_info("sockname")[0]

    def send(self, *pieces: bytes) -> None:
        """Send them, in this turn of the loop or at its end. Never waits: who sends much bounds it by the answers."""
        if not self._requests:
            asyncio.get_running_loop().call_soon(self._flush)
        self._requests += pieces
        self._size += sum(map(len, pieces))
        if self._size >= TOGETHER:
            self._flush()

    def _flush(self) -> None:
        if self._requests:
            if not self._writer.is_closing():  # else it has broken, and who waits for an answer learns of it
                self._writer.write(b"".join(self._requests))
            self._requests.clear()
            self._size = 0

    async def answer(self) -> Answer:
        """The next answer."""
        ready = self._answers.ready
        while not ready:
            data = await self.receive()
            try:
                self._answers.feed(data)
            except ProtocolError as error:
                if not ready:
                    raise Unavailable(f"{self.name} makes no sense as memcached's protocol: {error}") from None
        return ready.popleft()

    async def ask(self, *words: bytes) -> Answer:
        """Send a request of one line; its answer's first line or VALUE."""
        self.send(b" ".join(words) + b"\r\n")
        return await self.answer()

    async def receive(self) -> bytes:
        """Some bytes as they come, never none. For listings, whose lines are no answers; don't mix the two."""
        try:
            async with asyncio.timeout(self.patience):
                data = await self._reader.read(RECEIVE)
        except TimeoutError:
            raise Unavailable(f"{self.name} has sent nothing for {self.patience:.0f} seconds") from None
        except OSError as error:
            raise Unavailable(f"the connection to {self.name} broke: {_reason(error)}") from None
        if not data:
            raise Unavailable(f"{self.name} has hung up")
        return data

    def close(self) -> None:
        """Hang up at once: of what was sent in part nothing is done."""
        self._writer.transport.abort()


async def statistics(peer: Peer) -> dict[bytes, bytes]:
    """What a server says to ``stats``."""
    figures = {}
    answer = await peer.ask(b"stats")
    while answer.line.startswith(b"STAT "):
        name, _, figure = answer.line[5:].partition(b" ")
        figures[name] = figure
        answer = await peer.answer()
    return figures


def spelled(key: bytes) -> tuple[bytes, bytes]:
    """A key as a meta command takes it, and the flag that goes with it: in base64 only if it can't stand as it is."""
    return (base64.b64encode(key), b" b") if _UNPLAIN.search(key) else (key, b"")


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None) or 0
    return os.strerror(number) if number > 0 else str(getattr(error, "strerror", None) or error)


def text(line: bytes) -> str:
    """A server's words for people."""
    return _CONTROL.sub(b"?", line[:200]).decode(errors="backslashreplace")


def shown(key: bytes) -> str:
    """A key for people: on one line, whatever is in it."""
    return scan.written(key).decode(errors="backslashreplace")
