"""What every source has in common: what it lists, what it gives, and the pipe between its two connections.

One of them lists the keys, as fast as the source can; the lines wait in a ``Spool`` until their items are read on the
other. So a listing is never kept waiting, and isn't held in memory.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from sfss import spool
from sfss.errors import Unavailable
from sfss.memcache import CLIENT_ERROR, END, SERVER_ERROR
from sfss.node.importing.peer import Peer, text

IN_MEMORY = 8 * 1024 * 1024  # bytes of listed lines that are kept in memory; beyond that they lie in a temporary file
BATCH = 64 * 1024  # bytes of listed lines that are made requests of at a time


class Item(NamedTuple):
    """What is to be imported. ``expiry`` is in seconds since the epoch, 0 for never."""

    key: bytes
    flags: int
    expiry: int
    data: bytes


class Entry(NamedTuple):
    """A line of a listing. ``key`` is None where the line has another name for it."""

    name: bytes
    key: bytes | None
    expiry: int = 0


class Unreadable(Exception):
    """The source answers for one item with an error, which this says; it goes on with the next one."""


class Source(Protocol):
    """A server, two connections to it."""

    @property
    def items(self) -> int | None:
        """How many it says to have; None if it doesn't."""

    @property
    def exact(self) -> bool:
        """Whether so many must be listed, if none is deleted meanwhile."""

    @property
    def caution(self) -> str:
        """What its user must know of its listing; empty if nothing."""

    async def walk(self, spool: Spool) -> None:
        """Put every line of the listing into the spool, and its end."""

    def entry(self, line: bytes) -> Entry:
        """What a line says."""

    def ask(self, entries: list[Entry]) -> None:
        """Ask for items."""

    async def item(self, entry: Entry) -> Item | None:
        """The oldest that was asked for; None if it has gone. Raises Unreadable."""

    def close(self) -> None:
        """Hang up."""


class Spool(spool.Spool):
    """The pipe between a source's two connections."""

    def __init__(self) -> None:
        super().__init__(IN_MEMORY, BATCH)


class Found(NamedTuple):
    """The VALUE of one key."""

    line: bytes
    block: bytes

    @property
    def flags(self) -> int:
        """An old Beansdb tells large ones as negative."""
        return int(self.line.split(b" ")[2]) % 2**32


async def found(peer: Peer, key: bytes) -> Found | None:
    """The answer to a ``get`` of this key; None for a miss. Raises Unreadable."""
    line, block = await peer.answer()
    if line == END:
        return None
    if block is None or not line.startswith(b"VALUE %b " % key):
        raise misfit(peer, line)
    if (end := await peer.answer()).line != END:
        raise misfit(peer, end.line)
    return Found(line, block)


def misfit(peer: Peer, line: bytes) -> Exception:
    """What to raise of a line that is no answer to what was asked: one item's error, or the end of all."""
    if line.startswith((SERVER_ERROR, CLIENT_ERROR)):
        return Unreadable(text(line))
    return Unavailable(f"{peer.name} makes no sense as memcached's protocol: it says '{text(line)}'")
