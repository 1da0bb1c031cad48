"""A walk over all keys of all nodes: which nodes list a key, and what they say of it. Nothing is judged here.

Nodes that scan are read in slices, one slice ahead, and merged as they come. Of the others all keys are taken first,
and sorted (``sorting.py``); they come without headers. What is held at a time is some slices, however much there is.

A walk keeps ``within`` some ranges of keys. Blocks, which lie where a manifest says, and not where the ring does, are
gone over apart from all else (``sweeping/sweep.py``).

A node that fails has ``patience`` to come back, for the walk may take hours. After that it is lost: the walk goes on
without it, and what it still had to tell is not told.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import operator
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from sfss.backends.base import Backend, Listed
from sfss.cluster.clock import Clock
from sfss.cluster.pace import Pace
from sfss.cluster.sorting import SortedKeys
from sfss.errors import NodeBroken, Unavailable

SLICE = 1000  # keys of a node that are asked for at once ...
IN_MEMORY = 100_000  # ... but no more than these of all nodes together
PATIENCE = 10.0  # seconds
_TRIES = 0.1  # seconds between two tries whether it has come back

OUR_OWN = b"#sfss/"  # what sfss keeps for itself lies under keys that begin so
# Ranges of keys, in order: behind the one, and before the other if that isn't empty.
Ranges = Sequence[tuple[bytes, bytes]]
BLOCKS: Ranges = ((b"#b", b"#b\xff"),)
ALL_BUT_BLOCKS: Ranges = ((b"", b"#b"), (b"#b\xff", b""))
UPLOADS: Ranges = ((b"#u", b"#u\xff"),)

UNKNOWN = -1  # the size and token of what comes from a node that doesn't scan

_key_of = operator.itemgetter(0)  # of a Listed


class Told(NamedTuple):
    """What one node says of a key."""

    node: Backend
    item: Listed


Batch = Mapping[bytes, list[Told]]  # by key; no node is in a list twice


class Walk:
    """One walk. ``lost`` says which nodes it goes without, and why; ``listed`` counts what nodes told of.

    ``clock`` is theirs.
    """

    def __init__(
        self,
        nodes: Iterable[Backend],
        pace: Pace,
        *,
        within: Ranges = ALL_BUT_BLOCKS,
        slice: int = SLICE,
        patience: float = PATIENCE,
    ) -> None:
        self.lost: dict[Backend, str] = {}
        self.listed = 0
        self.clock = Clock(lambda: self._nodes)
        self._began = False
        self._nodes = list(nodes)
        self._pace = pace
        self._within = within
        self._slice = max(1, min(slice, IN_MEMORY // len(self._nodes)))
        self._patience = patience

    @property
    def hears_all(self) -> bool:
        """Whether what no node has told of, up to here, lies on none of them."""
        return self._began and not self.lost

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """All keys of its ranges once, in batches: those of a batch lie behind all those before, and come in no order.

        A node that is lost has told of all keys of the batches that came before it was.
        """
        self._began = True
        streams: list[_Stream] = []
        try:
            for node in self._nodes:
                if node.away is not None or node.capabilities is None:
                    self.lost[node] = node.away or "not yet connected to"
                else:
                    streams.append(_Stream(node, self._pace, self._within, self._slice, self._patience))
            await asyncio.gather(*map(self._fill, streams))
            while any(stream.items for stream in streams):
                yield self._merge(streams)
                await asyncio.gather(*(self._fill(stream) for stream in streams if stream.is_empty))
        finally:
            for stream in streams:
                await stream.close()

    async def _fill(self, stream: _Stream) -> None:
        try:
            await stream.fill()
        except Unavailable as error:
            self.lost[stream.node] = str(error)

    def _merge(self, streams: list[_Stream]) -> Batch:
        """All keys that no stream can tell of any more."""
        ends = [stream.items[-1].key for stream in streams if stream.items and not stream.ended]
        bound = min(ends) if ends else max(stream.items[-1].key for stream in streams if stream.items)
        batch: dict[bytes, list[Told]] = {}
        for stream in streams:
            node = stream.node
            items = stream.take(bound)
            self.listed += len(items)
            for item in items:
                key = item.key
                there = batch.get(key)
                if there is None:
                    batch[key] = [Told(node, item)]
                elif there[-1].node is not node:
                    there.append(Told(node, item))
        for key in [key for key in batch if key.startswith(OUR_OWN)]:
            del batch[key]
        return batch


class _Source(Protocol):
    """Where a node's list comes from."""

    async def next(self) -> list[Listed]:
        """The next slice; less than a whole one is the last. May be called again after it has raised Unavailable."""

    async def close(self) -> None:
        """Let go of it, when ``next`` isn't on its way."""


class _Scanned:
    """The list of a node that scans."""

    def __init__(self, node: Backend, within: Ranges, slice: int) -> None:
        self._node = node
        self._left = list(within)
        self._slice = slice
        self._come: list[Listed] = []  # of the next slice, before the node failed

    async def next(self) -> list[Listed]:
        while self._left and (missing := self._slice - len(self._come)):
            after, until = self._left[0]
            items = await self._node.scan(after, missing, until)
            if items and items[-1].key <= after:  # it would go round for ever
                raise NodeBroken(str(self._node.address), f"lists {items[-1].key!r} behind {after!r}")
            self._come += items
            self._left[:1] = [(items[-1].key, until)] if len(items) == missing else []
        slice, self._come = self._come, []
        return slice

    async def close(self) -> None:
        """There is nothing to let go of."""


class _Sorted:
    """The keys of a node that doesn't scan."""

    def __init__(self, node: Backend, within: Ranges, slice: int) -> None:
        self._node = node
        self._within = within
        self._slice = slice
        self._keys: SortedKeys | None = None

    async def next(self) -> list[Listed]:
        if self._keys is None:
            self._keys = await self._collect()
        return [Listed(key, b"", UNKNOWN, UNKNOWN) for key in await self._keys.take(self._slice)]

    async def close(self) -> None:
        if self._keys is not None:
            self._keys.close()

    async def _collect(self) -> SortedKeys:
        collected = SortedKeys()
        try:
            async with contextlib.aclosing(self._node.keys()) as batches:
                async for keys in batches:
                    await collected.add([key for key in keys if self._is_within(key)])
        except BaseException:
            collected.close()
            raise
        return collected

    def _is_within(self, key: bytes) -> bool:
        return any(after < key and (not until or key < until) for after, until in self._within)


class _Stream:
    """One node's list: what has come and isn't used up, and the next slice on its way."""

    def __init__(self, node: Backend, pace: Pace, within: Ranges, slice: int, patience: float) -> None:
        self.node = node
        self.items: list[Listed] = []
        self.ended = False
        self._pace = pace
        self._slice = slice
        self._patience = patience
        assert node.capabilities is not None
        self._source: _Source = (_Scanned if node.capabilities.scan else _Sorted)(node, within, slice)
        self._ahead: asyncio.Task[list[Listed]] | None = None

    @property
    def is_empty(self) -> bool:
        return not self.items and not self.ended

    async def fill(self) -> None:
        """Take the next slice, and have the one behind it fetched. Raises Unavailable, and has ended then."""
        self.ended = True  # unless there is more
        self.items = await (self._ahead or asyncio.ensure_future(self._fetch()))
        if len(self.items) == self._slice:
            self.ended = False
            self._ahead = asyncio.ensure_future(self._fetch())

    def take(self, bound: bytes) -> list[Listed]:
        """The items up to a key."""
        end = bisect.bisect_right(self.items, bound, key=_key_of)
        taken, self.items = self.items[:end], self.items[end:]
        return taken

    async def close(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)
        await self._source.close()

    async def _fetch(self) -> list[Listed]:
        clock = asyncio.get_running_loop().time
        deadline: float | None = None
        while True:
            try:
                async with self._pace.step():
                    return await self._source.next()
            except Unavailable:
                deadline = deadline or clock() + self._patience
                if clock() >= deadline:
                    raise
            await asyncio.sleep(_TRIES)
