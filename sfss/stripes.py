"""Streams of bytes to blocks on nodes, and back. What a file is isn't known here, nor HTTP.

A stream never waits for memory that another one holds: each may have a block in flight, whoever else there is, and
reads ahead, or writes behind, as much more as the budget of all streams has left. So the front's memory for large files
is ``limits.transfer_memory``, and for each stream the block in flight and, on its way in, the one that it collects; and
what is on its way to a node, four blocks at most, is there twice more, as a request and in the socket's buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from sfss import manifest, record
from sfss.cluster.blocks import PATIENCE, PAUSE
from sfss.cluster.replication import Cluster
from sfss.config import SMALLEST_RECORD
from sfss.errors import BodyTimeout, SfssError, Unavailable
from sfss.manifest import NOTHING, Block, Extent, Layout, Manifest
from sfss.policies import Rules
from sfss.record import MAX_OVERHEAD, Header, Kind

if TYPE_CHECKING:
    from hashlib import _Hash

    from sfss.config import Limits

ALWAYS_FITS = SMALLEST_RECORD - MAX_OVERHEAD  # bytes that one record has room for, whatever is set
AHEAD = 8  # blocks that a stream has in flight at most
_TELL_BYTES, _TELL_SECONDS = 32 * 2**20, 2.0  # at least so much must have been kept anew before it is told of
_FREED_TOGETHER = 16  # blocks
_WORTH_A_THREAD = 64 * 1024  # bytes of a block; what is smaller is quicker hashed than handed over

_Bytes = bytes | memoryview

# Is called with the beginning of the stream that is kept by now, whole blocks of it.
Kept = Callable[[Manifest], Awaitable[None]]


class Stripes:
    """The large streams of one front."""

    def __init__(self, cluster: Cluster, limits: Limits) -> None:
        self._cluster = cluster
        self._limits = limits
        self._budget = int(limits.transfer_memory)  # bytes that are left of it
        self._readers: dict[str, int] = {}  # how many read a stripe
        self._reader_left = asyncio.Event()
        self._freeing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Leave what waits to be freed to the sweep."""
        for task in self._freeing:
            task.cancel()
        if self._freeing:
            await asyncio.wait(self._freeing)

    @property
    def largest(self) -> int:
        """Bytes that fit one record. A node that takes less than the smallest that can be set refuses them itself."""
        return max(min(self._limits.record_size, self._cluster.blocks.largest) - MAX_OVERHEAD, ALWAYS_FITS)

    @property
    def upload_time(self) -> float:
        """Seconds after which blocks that no record names may be swept."""
        return self._limits.upload_time

    # --- writing ---

    async def write(
        self,
        content: AsyncIterator[bytes],
        rules: Rules,
        *,
        path: str | None,
        front: int = 0,
        upload: str | None = None,
        size: int | None = None,
        first: int = 0,
        layout: Layout | None = None,
        digest: _Hash | None = None,
        kept: Kept | None = None,
    ) -> Manifest:
        """Keep a stream as a stripe, for the file at ``path`` or the tus ``upload``; returns when all of it is kept.

        ``size`` of the content, in bytes, if it is known. ``layout``, and which place in it the ``first`` block takes:
        to go on with what another stripe began. ``digest`` is fed all that passes. ``kept`` is told, from time to time,
        of what is kept by then.
        Raises BodyTimeout if it takes longer than limits.upload_time; TooLarge, OutOfSpace, Unavailable; what
        ``content`` and ``kept`` raise. Then what was written is freed, but for that which ``kept`` was told of.
        """
        writing = _Writing(
            self._cluster, rules, self.largest,
            path=path, front=front, upload=upload, first=first, layout=layout, digest=digest,
        )  # fmt: skip
        deadline = time.monotonic() + self._limits.upload_time
        told, told_at = 0, time.monotonic()
        try:
            async with contextlib.aclosing(writing.cut(content, size)) as cut:
                async for block in cut:
                    await self._make_room(writing, sum(map(len, block)))
                    writing.send(block)
                    del block  # it is not to be held while the next one comes
                    now = self._check_time(deadline)
                    new = writing.kept - told
                    if kept is not None and (new >= _TELL_BYTES or (new > 0 and now - told_at >= _TELL_SECONDS)):
                        told, told_at = writing.kept, now
                        await kept(writing.manifest(told))
            while writing.in_flight:
                await self._wait(writing)
            self._check_time(deadline)
        except BaseException:
            writing.cancel()
            self.free(writing.manifest(writing.sent), start=told, linger=0.0)
            raise
        finally:
            self._budget += sum(writing.taken)
        return writing.manifest(writing.sent)

    async def _make_room(self, writing: _Writing, size: int) -> None:
        """Have memory for one block more; the first one in flight is free."""
        while writing.in_flight and (writing.has_landed or writing.in_flight >= AHEAD or size > self._budget):
            await self._wait(writing)
        writing.taken.append(size if writing.in_flight else 0)
        self._budget -= writing.taken[-1]

    async def _wait(self, writing: _Writing) -> None:
        given_back = await writing.wait()  # first: meanwhile others take of the budget
        self._budget += given_back

    def _check_time(self, deadline: float) -> float:
        """The time; raises BodyTimeout behind the deadline."""
        if (now := time.monotonic()) > deadline:
            raise BodyTimeout(f"it took longer than {self._limits.upload_time:g} s (limits.upload_time)")
        return now

    # --- reading ---

    async def read(self, whole: Manifest, start: int, stop: int) -> AsyncGenerator[memoryview, None]:
        """The bytes from ``start`` up to, but without, ``stop``, each block checked; to be closed by the caller.

        Raises Unavailable, when the first block has been read only after some seconds' patience; Damaged; Gone if the
        file has been replaced or deleted so long ago that it is freed.
        """
        ahead: deque[tuple[Block, asyncio.Task[memoryview], int]] = deque()
        wanted = manifest.blocks(whole, start, stop)
        upcoming = next(wanted, None)
        begun = False
        self._count(whole, +1)
        try:
            while True:
                while upcoming is not None and len(ahead) < AHEAD and (not ahead or upcoming.size <= self._budget):
                    taken = upcoming.size if ahead else 0
                    self._budget -= taken
                    get = self._cluster.blocks.get(upcoming.key, upcoming.homes, upcoming.size)
                    ahead.append((upcoming, asyncio.ensure_future(get), taken))
                    upcoming = next(wanted, None)
                if not ahead:
                    return
                block, task, taken = ahead[0]
                payload = await (self._patiently(block, task) if begun else task)
                begun = True
                yield payload[block.start : block.stop]
                ahead.popleft()
                self._budget += taken
        finally:
            self._count(whole, -1)
            for _, task, taken in ahead:
                task.cancel()
                self._budget += taken
            await asyncio.gather(*(task for _, task, _ in ahead), return_exceptions=True)

    async def _patiently(self, block: Block, task: asyncio.Task[memoryview]) -> memoryview:
        """What is asked for, again if need be: who has read so far would rather wait than begin anew."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await task
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(PAUSE)
            task = asyncio.ensure_future(self._cluster.blocks.get(block.key, block.homes, block.size))

    def _count(self, whole: Manifest, change: int) -> None:
        for stripe in whole.stripes:
            count = self._readers.get(stripe, 0) + change
            if count:
                self._readers[stripe] = count
            else:
                del self._readers[stripe]
        if change < 0:
            self._reader_left.set()
            self._reader_left = asyncio.Event()

    # --- freeing ---

    def free(
        self,
        old: Manifest,
        *,
        start: int = 0,
        linger: float | None = None,
        unless: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """Remove the blocks of a file that is no more, from byte ``start`` on, behind the answer.

        After ``linger`` seconds (as limits.linger says, if it isn't given), and when nobody here reads it any more;
        ``unless`` it is in use then after all, which is asked just before.
        What isn't removed, because a node or this front goes away, is left to the sweep.
        """
        if start < old.size:
            linger = self._limits.linger if linger is None else linger
            task = asyncio.create_task(self._free(old, start, linger, unless))
            self._freeing.add(task)
            task.add_done_callback(self._freeing.discard)

    async def _free(
        self, old: Manifest, start: int, linger: float, unless: Callable[[], Awaitable[bool]] | None
    ) -> None:
        await asyncio.sleep(linger)
        while any(stripe in self._readers for stripe in old.stripes):
            await self._reader_left.wait()
        try:
            if unless is not None and await unless():
                return
        except SfssError:  # it can't be told now
            return
        every = manifest.blocks(old, start, old.size)

        async def work() -> None:
            for block in every:
                await self._cluster.blocks.remove(block.key, block.homes)

        await asyncio.gather(*(work() for _ in range(_FREED_TOGETHER)))


class _Writing:
    """One stripe on its way to the nodes."""

    def __init__(
        self,
        cluster: Cluster,
        rules: Rules,
        largest: int,
        *,
        path: str | None,
        front: int,
        upload: str | None,
        first: int,
        layout: Layout | None,
        digest: _Hash | None,
    ) -> None:
        self.sent = 0  # bytes that have been sent, or are to be
        self.kept = 0  # of them, those from the beginning on that are kept
        self.taken: deque[int] = deque()  # of the budget, by each block in flight
        self._cluster = cluster
        self._rules = rules
        self._largest = largest
        self._path = path
        self._front = front
        self._upload = upload
        self._first = first
        self._layout = layout
        self._digest = digest
        self._in_order = asyncio.Lock()  # in which the digest is fed
        self._stripe = manifest.new_stripe(cluster.now())
        self._block_size = largest
        self._count = 0
        self._in_flight: deque[asyncio.Task[int]] = deque()

    @property
    def in_flight(self) -> int:
        """How many blocks are."""
        return len(self._in_flight)

    @property
    def has_landed(self) -> bool:
        """Whether the oldest one is kept, or has failed."""
        return self._in_flight[0].done()

    async def cut(self, content: AsyncIterator[bytes], size: int | None) -> AsyncGenerator[Sequence[_Bytes], None]:
        """The content, a block at a time, each in the pieces in which it came; of ``size`` bytes, if that is known."""
        pieces: deque[_Bytes] = deque()
        have = 0
        if size is not None:
            self._lay_out(size)
        async for chunk in content:
            pieces.append(chunk)
            have += len(chunk)
            while have >= self._block_size:
                have -= self._block_size
                yield _take(pieces, self._block_size)
        if have and not self._count:  # now it is known
            self._lay_out(have)
        while have:
            size = min(have, self._block_size)
            have -= size
            yield _take(pieces, size)

    def send(self, block: Sequence[_Bytes]) -> None:
        """Begin to send the next one."""
        if not self._layout:
            self._lay_out(None)
        assert self._layout is not None
        homes = self._layout.homes(self._first + self._count)
        size = sum(map(len, block))
        self._in_flight.append(asyncio.create_task(self._send(self._count, block, size, homes)))
        self._count += 1
        self.sent += size

    async def wait(self) -> int:
        """Until the oldest one is kept; returns what it had taken of the budget. Raises what it failed with."""
        self.kept += await self._in_flight[0]
        self._in_flight.popleft()
        return self.taken.popleft()

    def cancel(self) -> None:
        """Have all that is in flight end where it is."""
        for task in self._in_flight:
            task.cancel()
            task.add_done_callback(_forget)

    def manifest(self, size: int) -> Manifest:
        """Of the first ``size`` bytes."""
        if not size or self._layout is None:
            return NOTHING
        return Manifest((self._layout,), (Extent(self._stripe, size, self._block_size, 0, self._first),))

    def _lay_out(self, size: int | None) -> None:
        """Settle how long blocks are and where they go; ``size`` of the whole, if it is known."""
        spread = self._rules.spread
        if size is not None:
            self._block_size = manifest.cut(size, self._rules.pieces, self._largest)
            spread = min(spread, max(-(-size // self._block_size), 1))
        if self._layout is None:
            self._layout = self._cluster.blocks.layout(b"#" + self._stripe.encode(), spread, self._rules.copies)

    async def _send(self, number: int, block: Sequence[_Bytes], size: int, homes: Sequence[str]) -> int:
        async with self._in_order:
            if size < _WORTH_A_THREAD:
                data = self._seal(block)
            else:
                data = await asyncio.to_thread(self._seal, block)
        del block  # the record has it now, and may have to wait for its nodes
        needed = min(self._rules.write_quorum, len(homes))
        await self._cluster.blocks.put(manifest.block_key(self._stripe, number), data, homes, needed)
        return size

    def _seal(self, block: Sequence[_Bytes]) -> bytes:
        """The block's record."""
        size = sum(map(len, block))
        if self._digest is not None:
            for piece in block:
                self._digest.update(piece)
        header = Header(
            kind=Kind.BLOCK,
            version=manifest.began(self._stripe),
            front=self._front,
            size=size,
            sha256=b"",
            payload_size=size,
            payload_xxh3=record.payload_checksum(*block),
            meta={"upload": self._upload} if self._upload else None,
            path=self._path,
        )
        return record.encode(header, *block)


def _take(pieces: deque[_Bytes], size: int) -> Sequence[_Bytes]:
    """The first ``size`` bytes, which are taken away from the pieces."""
    taken: list[_Bytes] = []
    while size:
        piece = pieces.popleft()
        if len(piece) > size:
            view = memoryview(piece)
            pieces.appendleft(view[size:])
            piece = view[:size]
        taken.append(piece)
        size -= len(piece)
    return taken


def _forget(task: asyncio.Task[int]) -> None:
    if not task.cancelled():
        task.exception()  # its stream has failed for another reason
