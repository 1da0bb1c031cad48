"""memcached, or a node of ours, as a source.

It is asked for ``lru_crawler metadump hash``, which walks the table of keys. ``all``, for an older one that doesn't
know ``hash``, walks lists that items move along while they are read, and passes over those in use (in memcached's
``crawler.c``: ``item_crawler_thread``). Of 200,000 items of memcached 1.6.18 that two clients went on reading, it left
out 2,202, and another time 11,746, and told 11,490 twice; ``hash`` told each once.

A crawler must not be kept waiting: stuck on its client for a second, it leaves off within what it sends, and later
sends all of that again (``lru_crawler_write``).

Items are read with ``mg``, which tells their TTL in the same moment and takes keys of any bytes; with ``get`` where
``mn`` isn't known.
"""

from __future__ import annotations

import asyncio
import re
import time
from urllib.parse import unquote_to_bytes

from sfss.errors import Unavailable
from sfss.node.importing.peer import MAX_LINE, Peer, spelled
from sfss.node.importing.source import Entry, Item, Spool, found, misfit

BUSY = 0.5  # seconds until a crawler that was busy is asked again
CLOCKS = 2  # seconds by which two ways to say the same expiry may differ

_LISTED = re.compile(rb"key=(\S+) exp=(-?\d{1,18})(?: |\Z)")
_VALUE = re.compile(rb"VA \d+ f(\d+) t(-?\d+)((?: [WXZ])*)")
_STALE = b"X"
_END = b"END\r\n"


async def begin_listing(peer: Peer) -> tuple[bytes, bool]:
    """Ask for the listing: what comes of it first, or its refusal; and whether it is a walk that leaves out nothing."""
    deadline = time.monotonic() + peer.patience
    for walk in (b"hash", b"all"):
        while True:
            peer.send(b"lru_crawler metadump %b\r\n" % walk)
            head = b""
            while b"\n" not in head:
                head += await peer.receive()
            if not head.startswith(b"BUSY") or time.monotonic() > deadline:
                break
            await asyncio.sleep(BUSY)
        if not head.startswith(b"BADCLASS"):
            break
    return head, walk == b"hash"


def lists(head: bytes) -> bool:
    """Whether a listing begins so."""
    return head.startswith((b"key=", _END))


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
            lines, newline, rest = rest.rpartition(b"\n")
            lines += newline
            if lines == _END or lines.endswith(b"\n" + _END):
                spool.put(lines.removesuffix(_END))
                spool.end()
                return
            spool.put(lines)
            if len(rest) > MAX_LINE:
                raise Unavailable(f"{self._lister.name} lists what is no item: {rest[:200]!r}")
            rest += await self._lister.receive()

    def entry(self, line: bytes) -> Entry:
        """``key=<URL-encoded> exp=<seconds since the epoch, or -1> la=... cas=... fetch=... cls=... size=...``"""
        listed = _LISTED.match(line)
        if not listed:
            raise Unavailable(f"{self._lister.name} lists what is no item: {line[:200]!r}")
        key = unquote_to_bytes(listed[1])
        return Entry(key, key, max(int(listed[2]), 0))

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
