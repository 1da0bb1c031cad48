"""memcached, or a node of ours, as a source.

It is asked for its keys by ``lru_crawler metadump``: ``sfss/listing.py`` tells what is to be known of it.

Items are read with ``mg``, which tells their TTL in the same moment and takes keys of any bytes; with ``get`` where
``mn`` isn't known.
"""

from __future__ import annotations

import asyncio
import re
import time

from sfss import listing
from sfss.errors import Unavailable
from sfss.node.importing.peer import Peer, spelled
from sfss.node.importing.source import Entry, Item, Spool, found, misfit

BUSY = 0.5  # seconds until a crawler that was busy is asked again
CLOCKS = 2  # seconds by which two ways to say the same expiry may differ

_VALUE = re.compile(rb"VA \d+ f(\d+) t(-?\d+)((?: [WXZ])*)")
_STALE = b"X"


async def begin_listing(peer: Peer) -> tuple[bytes, bool]:
    """Ask for the listing: what comes of it first, or its refusal; and whether it is a walk that leaves out nothing."""
    deadline = time.monotonic() + peer.patience
    for walk in listing.WALKS:
        while True:
            peer.send(b"lru_crawler metadump %b\r\n" % walk)
            head = b""
            while b"\n" not in head:
                head += await peer.receive()
            if not head.startswith(listing.BUSY) or time.monotonic() > deadline:
                break
            await asyncio.sleep(BUSY)
        if not head.startswith(listing.NO_SUCH_WALK):
            break
    return head, walk == listing.WALKS[0]


class Memcached:
    """``head`` is what has come of the listing already; ``whole``, whether nothing is left out.

    ``meta`` is whether it knows the meta commands.
    """

    exact = False  # what has expired is counted too

    def __init__(self, lister: Peer, reader: Peer, head: bytes, items: int | None, *, whole: bool, meta: bool) -> None:
        self.items = items
        self.caution = "" if whole else f"{lister.name} may leave out items that are in use: import from it once more"
        self._lister = lister
        self._reader = reader
        self._head = head
        self._meta = meta

    async def walk(self, spool: Spool) -> None:
        rest = self._head
        while True:
            lines, rest, ended = listing.whole_lines(rest)
            spool.put(lines)
            if ended:
                spool.end()
                return
            if len(rest) > listing.MAX_DUMP_LINE:
                raise Unavailable(f"{self._lister.name} lists what is no item: {rest[:200]!r}")
            rest += await self._lister.receive()

    def entry(self, line: bytes) -> Entry:
        told = listing.dumped(line)
        if told is None:
            raise Unavailable(f"{self._lister.name} lists what is no item: {line[:200]!r}")
        return Entry(told.key, told.key, told.expiry)

    def ask(self, entries: list[Entry]) -> None:
        for entry in entries:
            if self._meta:
                self._reader.send(b"mg %b v f t u%b\r\n" % spelled(entry.name))  # u: not as a use of the item
            else:
                self._reader.send(b"get %b\r\n" % entry.name)

    async def item(self, entry: Entry) -> Item | None:
        if not self._meta:
            answer = await found(self._reader, entry.name)
            return answer and Item(entry.name, answer.flags, entry.expiry, answer.block)
        line, block = await self._reader.answer()
        if line == b"EN":
            return None
        told = _VALUE.fullmatch(line)
        if block is None or told is None:
            raise misfit(self._reader, line)
        if _STALE in told[3]:  # to be replaced by something fresh, which it would pass for at the target
            return None
        return Item(entry.name, int(told[1]), _expiry(entry.expiry, int(told[2])), block)

    def close(self) -> None:
        self._lister.close()
        self._reader.close()


def _expiry(listed: int, left: int) -> int:
    """The date that was listed, which is exact, unless the item was written since, or the source's clock is wrong."""
    if left < 0:
        return 0
    expiry = int(time.time()) + left
    return listed if abs(listed - expiry) <= CLOCKS else expiry
