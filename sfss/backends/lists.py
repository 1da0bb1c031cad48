"""What a node holds, over connections of their own: in order by its ``scan``, or else all its keys.

A connection for scans is opened when first needed and kept. It is dropped after any failure, a cancellation most of
all, and with it what was left unread. A walk over all keys has a connection to itself, for as long as it lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator

from sfss import scan
from sfss.backends.base import Listed
from sfss.backends.stream import STOPPING, Stream
from sfss.backends.walks import keys_of_beansdb, keys_of_memcached
from sfss.config import Address
from sfss.errors import BadRequest, NodeAway, NodeBroken, NodeRefused, ProtocolError
from sfss.memcache import END, MAX_KEY

BATCH = 1000  # keys that are given at a time
WALK_PATIENCE = 10  # time-outs: a memcached that walks a table with few keys in it says nothing for long


class Lists:
    """The lists of one node; ``timeout``, in seconds, is for each wait for more of a list."""

    def __init__(self, address: Address, *, connect_timeout: float, timeout: float) -> None:
        self._address = address
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._scanned: Stream | None = None  # connected, with nothing unread
        self._turn = asyncio.Lock()  # guards _scanned; who has it is done within a time-out, or goes on to receive
        self._open: set[Stream] = set()
        self._closed = False

    async def scan(self, after: bytes, count: int) -> list[Listed]:
        """``Backend.scan``. Raises NodeAway, NodeTimeout, NodeBroken, NodeRefused."""
        if len(after) > MAX_KEY or not 1 <= count <= scan.MAX_COUNT:
            raise BadRequest(f"a list is of 1 to {scan.MAX_COUNT} items behind a key of at most {MAX_KEY} bytes")
        async with self._turn:
            stream = await self._kept()
            try:
                found = await _scan(stream, after, count)
            except BaseException:
                self._drop(stream)
                raise
            self._scanned = stream
            return found

    async def keys(self, kind: str, wanted: re.Pattern[bytes]) -> AsyncGenerator[list[bytes], None]:
        """``Backend.keys``, of a node of that kind: the keys that are ``wanted``, others are left out."""
        walk = keys_of_beansdb if kind == "beansdb" else keys_of_memcached
        stream = await self._connect(self._timeout * WALK_PATIENCE)
        batch: list[bytes] = []
        try:
            async with contextlib.aclosing(walk(stream, self._timeout * WALK_PATIENCE)) as walked:
                async for keys in walked:
                    batch += filter(wanted.fullmatch, keys)
                    while len(batch) >= BATCH:
                        yield batch[:BATCH]
                        del batch[:BATCH]
            if batch:
                yield batch
        except ProtocolError as error:
            raise NodeBroken(stream.node, str(error)) from None
        finally:
            self._drop(stream)

    def close(self) -> None:
        """Hang up for good; lists that are on their way fail."""
        self._closed = True
        for stream in list(self._open):
            self._drop(stream)

    async def _kept(self) -> Stream:
        """The connection for scans, taken out until it is known to be good still; a new one if there is none."""
        stream, self._scanned = self._scanned, None
        if stream is not None and stream.idle:
            return stream
        if stream is not None:
            self._drop(stream)
        return await self._connect(self._timeout)

    async def _connect(self, timeout: float) -> Stream:
        if self._closed:
            raise NodeAway(str(self._address), STOPPING)
        stream = await Stream.open(self._address, self._connect_timeout, timeout)
        self._open.add(stream)
        if self._closed:  # meanwhile
            self._drop(stream)
        return stream

    def _drop(self, stream: Stream) -> None:
        self._open.discard(stream)
        stream.close()


async def _scan(stream: Stream, after: bytes, count: int) -> list[Listed]:
    """One request and its whole reply."""
    stream.send(scan.request(scan.beyond(after) if after else scan.FIRST, scan.LAST, count))
    parser = scan.ItemParser()
    found: list[Listed] = []
    last = after
    while parser.last_line is None:
        data = await stream.receive()
        try:
            for item in parser.feed(data):
                if item.key <= last:  # who goes on behind the last one would never come to an end
                    raise ProtocolError(f"a list out of order: {item.key!r} behind {last!r}")
                last = item.key
                found.append(Listed(item.key, item.header, item.size, item.cas))
            if len(found) > count:
                raise ProtocolError(f"a list of more than the {count} items that were asked for")
        except ProtocolError as error:
            raise NodeBroken(stream.node, str(error)) from None
    if parser.last_line != END:
        raise NodeRefused(stream.node, f"answered {parser.last_line[:200].decode(errors='replace')}")
    return found
