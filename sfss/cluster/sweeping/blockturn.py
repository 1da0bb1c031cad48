"""One block's turn in a sweep: a sound copy is brought to each of its homes that lacks one.

A block never changes, so any sound copy is as good as another, and there is no version to compare.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence

from sfss import record
from sfss.backends.base import Backend
from sfss.cluster.blocks import Blocks
from sfss.cluster.summary import Summary
from sfss.errors import Damaged, NodeRefused, SfssError
from sfss.record import Kind


class _Copy(enum.Enum):
    """What a node was seen to have."""

    NONE = enum.auto()
    DAMAGED = enum.auto()
    SEEN = enum.auto()  # its header is sound, and more wasn't looked at
    SOUND = enum.auto()  # it was read whole


class BlockTurn:
    """The turn of the block ``key``, of ``size`` bytes; ``homes`` are those of its nodes that there are.

    ``told``: who has listed it. ``everybody`` is asked if those have no sound copy. ``whole``: read every copy's
    payload, not just its header.
    """

    def __init__(
        self,
        key: bytes,
        size: int,
        homes: Sequence[Backend],
        told: Sequence[Backend],
        everybody: Collection[Backend],
        blocks: Blocks,
        summary: Summary,
        *,
        whole: bool,
    ) -> None:
        self._key = key
        self._size = size
        self._homes = homes
        self._told = told
        self._everybody = everybody
        self._blocks = blocks
        self._summary = summary
        self._whole = whole
        self._copies: dict[Backend, _Copy] = {}  # of the nodes that have answered

    async def run(self) -> None:
        """Put right what can be."""
        for node in self._homes:
            await self._look_at(node, whole=self._whole)
        if self.is_home:
            return
        data = await self._fetch()
        for node in self._homes:
            if data is not None and self._copies.get(node) in (_Copy.NONE, _Copy.DAMAGED):
                await self._write(node, data)

    @property
    def is_home(self) -> bool:
        """Whether each of its homes has a copy."""
        return all(self._copies.get(node) in (_Copy.SEEN, _Copy.SOUND) for node in self._homes)

    @property
    def is_lost(self) -> bool:
        """Whether there is no sound copy on any node, for all have said so."""
        return all(self._copies.get(node) in (_Copy.NONE, _Copy.DAMAGED) for node in self._everybody)

    async def is_home_and_sound(self) -> bool:
        """Whether each of its homes has a copy, and one of them, at least, was read whole: a header doesn't tell."""
        for node in self._homes:
            if _Copy.SOUND not in map(self._copies.get, self._homes):
                await self._look_at(node, whole=True)
        return self.is_home and _Copy.SOUND in map(self._copies.get, self._homes)

    async def remove(self, node: Backend) -> bool:
        """Remove the copy of a node that is none of the homes."""
        return await remove(self._key, node, self._blocks, self._summary)

    async def _fetch(self) -> bytes | None:
        """The block's record, checked; None if no node gives it."""
        seen = [node for node in self._homes if self._copies.get(node) in (_Copy.SEEN, _Copy.SOUND)]
        for node in dict.fromkeys((*seen, *self._told, *self._everybody)):
            if self._copies.get(node) not in (_Copy.NONE, _Copy.DAMAGED):
                data = await self._look_at(node, whole=True)
                if self._copies.get(node) == _Copy.SOUND:
                    return data
        return None

    async def _look_at(self, node: Backend, *, whole: bool) -> bytes | None:
        """What the node has; it is noted, if it says so."""
        self._copies.pop(node, None)
        if node.away is not None or node.capabilities is None:  # the summary names it once, not with each block
            return None
        whole = whole or not node.capabilities.head
        data: bytes | None = None
        try:
            async with self._blocks.gate(node):
                data = await (node.get(self._key) if whole else node.head(self._key))
            self._copies[node] = self._judged(data, whole=whole)
        except (NodeRefused, Damaged) as error:  # a node of ours whose own checksum fails says so
            self._copies[node] = _Copy.DAMAGED
            self._summary.damaged_found += 1
            if isinstance(error, NodeRefused):
                self._summary.note_error(node.address.name, error)
        except SfssError as error:
            self._summary.note_error(node.address.name, error)
        return data

    def _judged(self, data: bytes | None, *, whole: bool) -> _Copy:
        """Raises Damaged."""
        if data is None:
            return _Copy.NONE
        header = record.decode(data).header if whole else record.decode_header(data)[0]
        if header.kind != Kind.BLOCK or header.payload_size != self._size:
            raise Damaged(f"it is a {header.kind.name.lower()} of {header.payload_size} bytes")
        if whole:
            self._summary.bytes_read += len(data)
        return _Copy.SOUND if whole else _Copy.SEEN

    async def _write(self, node: Backend, data: bytes) -> None:
        try:
            async with self._blocks.gate(node):
                await node.set(self._key, data)
        except SfssError as error:
            self._summary.note_error(node.address.name, error)
            return
        self._summary.damaged_mended += self._copies[node] == _Copy.DAMAGED
        self._summary.blocks_copied += 1
        self._summary.bytes_written += len(data)
        self._copies[node] = _Copy.SOUND


async def remove(key: bytes, node: Backend, blocks: Blocks, summary: Summary) -> bool:
    """Remove a block from a node; False if that failed."""
    try:
        blocks.check_apart()  # one of the nodes may have come, or come anew, meanwhile
        async with blocks.gate(node):
            await node.delete(key)
    except SfssError as error:
        summary.note_error(node.address.name, error)
        return False
    return True
