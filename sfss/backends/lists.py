"""What a node holds, over connections of their own: in order by its ``scan``, or else all its keys.

A connection for scans is opened when first needed and kept. It is dropped after any failure, a cancellation most of
all, and with it what was left unread. A walk over all keys has a connection to itself, for as long as it lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import operator
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from sfss import scan
from sfss.addresses import Address
from sfss.backends.base import Heads, Listed
from sfss.backends.checks import check_list
from sfss.backends.stream import PIECE, STOPPING, Stream
from sfss.backends.walks import keys_of_beansdb, keys_of_memcached
from sfss.errors import NodeAway, NodeBroken, NodeRefused, ProtocolError
from sfss.memcache import END, MAX_KEY

BATCH = 1000  # keys that are given at a time
OF_ROWS = 64 * 1024  # bytes of a scan that are received at once: less than a millisecond of work, in blocks
ASKED_AT_ONCE = 64  # ranges: some KB of requests
WALK_PATIENCE = 10  # time-outs: a memcached that walks a table with few keys in it says nothing for long

Block = TypeVar("Block")


class _Form(Generic[Block]):
    """What a scan can be asked for, and what its blocks are."""

    def __init__(self, word: bytes, block: type[Block], keys_of: Callable[[Block], list[bytes]]) -> None:
        self.word = word
        self.read = msgspec.msgpack.Decoder(block).decode
        self.keys_of = keys_of


def _keys_of_heads(block: Heads) -> list[bytes]:
    if len(block.keys) != len(block.headers):
        raise ProtocolError(f"{len(block.headers)} headers of {len(block.keys)} keys")
    return block.keys


_ROWS = _Form(scan.ROWS, list[Listed], lambda block: [row.key for row in block])
_HEADS = _Form(scan.HEADS, Heads, _keys_of_heads)


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

    async def scan(self, after: bytes, count: int, until: bytes = b"") -> list[Listed]:
        """``Backend.scan``. Raises NodeAway, NodeTimeout, NodeBroken, NodeRefused."""
        blocks = (await self._scans(_ROWS, [(after, until)], count))[0]
        return list(itertools.chain.from_iterable(blocks))

    async def heads(self, after: bytes, count: int, until: bytes = b"") -> Heads:
        """``Backend.heads``. Raises as ``scan``."""
        blocks = (await self._scans(_HEADS, [(after, until)], count))[0]
        keys = itertools.chain.from_iterable(block.keys for block in blocks)
        return Heads(list(keys), list(itertools.chain.from_iterable(block.headers for block in blocks)))

    async def any_in(self, ranges: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        """``Backend.any_in``. Raises as ``scan``."""
        found: list[bool] = []
        for start in range(0, len(ranges), ASKED_AT_ONCE):
            found += map(bool, await self._scans(_HEADS, ranges[start : start + ASKED_AT_ONCE], 1))
        return found

    async def _scans(self, form: _Form[Block], ranges: Sequence[tuple[bytes, bytes]], count: int) -> list[list[Block]]:
        """The blocks with what is in each range, all asked for at once; none of a range where there is nothing."""
        check_list(count, *(after for after, _ in ranges))
        async with self._turn:
            stream = await self._kept()
            try:
                for after, until in ranges:
                    start = scan.beyond(after) if after else scan.FIRST
                    stream.send(scan.blocks_request(start, _end(until), count, form.word))
                found, rest = [], b""
                for after, until in ranges:
                    blocks, rest = await _reply(stream, rest, form, after, count, until)
                    found.append(blocks)
                if rest:
                    raise NodeBroken(stream.node, f"more than the reply to a scan: {rest[:100]!r}")
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
        return await self._connect(self._timeout, OF_ROWS)

    async def _connect(self, timeout: float, piece: int = PIECE) -> Stream:
        if self._closed:
            raise NodeAway(str(self._address), STOPPING)
        stream = await Stream.open(self._address, self._connect_timeout, timeout, piece)
        self._open.add(stream)
        if self._closed:  # meanwhile
            self._drop(stream)
        return stream

    def _drop(self, stream: Stream) -> None:
        self._open.discard(stream)
        stream.close()


async def _reply(
    stream: Stream, data: bytes, form: _Form[Block], after: bytes, count: int, until: bytes
) -> tuple[list[Block], bytes]:
    """A whole reply, of which ``data`` has come; and what has come behind it."""
    parser = scan.BlockParser(form.word)
    blocks: list[Block] = []
    left = count
    while True:
        try:
            for packed in parser.feed(data):
                block = form.read(packed)
                if keys := form.keys_of(block):
                    _check_order(after, keys, until)
                    after = keys[-1]
                    left -= len(keys)
                    blocks.append(block)
            if left < 0:
                raise ProtocolError(f"a list of more than the {count} items that were asked for")
        except (ProtocolError, msgspec.DecodeError) as error:
            raise NodeBroken(stream.node, str(error)) from None
        if parser.last_line is not None:
            break
        data = await stream.receive()
    if parser.last_line != END:
        raise NodeRefused(stream.node, f"answered {parser.last_line[:200].decode(errors='replace')}")
    return blocks, parser.rest


def _end(until: bytes) -> bytes:
    """The bound; a key before one that is too long for a key may be the beginning of that."""
    if not until:
        return scan.LAST
    return scan.beyond(until) if len(until) <= MAX_KEY else scan.at(until[:MAX_KEY])


def _check_order(after: bytes, keys: list[bytes], until: bytes) -> None:
    """Raises ProtocolError: who goes on behind the last one would never come to an end."""
    before = [after, *keys]
    if not all(map(operator.lt, before, keys)):
        bad = next(key for last, key in itertools.pairwise(before) if last >= key)
        raise ProtocolError(f"a list out of order: {bad!r}")
    if until and keys[-1] >= until:
        raise ProtocolError(f"a list goes on to {keys[-1]!r}, behind {until!r}")
