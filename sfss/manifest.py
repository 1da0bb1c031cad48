"""Manifests: which blocks make up a large file, and where they lie. Pure; the payload of a record of that kind.

A *stripe* is a stream of bytes that was written in one go, cut into *blocks* of one size, the last one the rest of it.
Its id is never used twice and a block, once written, never changes, so that any copy of it is as good as the others. A
file is one stripe, or, after an upload in several goes, one behind the other: its *extents*.

The format, for humans, is in ``docs/record-format.rst``.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

import msgspec

from sfss.errors import Damaged

MAX_EXTENTS = 10_000  # of a manifest, so that it fits a record, whatever the nodes are called

_STRIPE = re.compile(rb"#(b[0-9a-f]{25})/(0|[1-9][0-9]{0,9})")


class Layout(msgspec.Struct, frozen=True, array_like=True):
    """The nodes of some stripes, by name, in order: raid0 over ``pieces`` of them, ``copies`` of each block."""

    nodes: tuple[str, ...]  # distinct; max(pieces, copies) of them
    pieces: int
    copies: int

    def homes(self, place: int) -> tuple[str, ...]:
        """The nodes of the block at a place: neighbours, so that two blocks on one node have their copies on two."""
        first = place % self.pieces
        return tuple(self.nodes[(first + copy) % len(self.nodes)] for copy in range(self.copies))


class Extent(msgspec.Struct, frozen=True, array_like=True):
    """A stripe, as a part of a file. Block *n* lies at the place ``first`` + *n* of its layout."""

    stripe: str
    size: int  # bytes, 1 or more
    block_size: int  # bytes of each block but the last
    layout: int  # which of the manifest's
    first: int = 0

    @property
    def blocks(self) -> int:
        """How many there are."""
        return -(-self.size // self.block_size)


class Manifest(msgspec.Struct, frozen=True, array_like=True, dict=True):
    """The blocks of a file, in order. Without extents, of nothing."""

    layouts: tuple[Layout, ...]
    extents: tuple[Extent, ...]

    @cached_property
    def size(self) -> int:
        """Bytes of all extents."""
        return sum(extent.size for extent in self.extents)

    @cached_property
    def stripes(self) -> frozenset[str]:
        """The ids of the stripes that it is made of."""
        return frozenset(extent.stripe for extent in self.extents)


class Block(NamedTuple):
    """A block, and which of its bytes are wanted."""

    key: bytes
    homes: tuple[str, ...]  # names of the nodes that have it
    size: int  # bytes
    start: int  # the first byte that is wanted, and the one behind the last
    stop: int


NOTHING = Manifest((), ())

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Manifest)


def encode(manifest: Manifest) -> bytes:
    """A manifest as a payload."""
    return _encoder.encode(manifest)


def decode(payload: bytes | memoryview) -> Manifest:
    """The manifest in a payload. Raises Damaged if it makes no sense: its checksum held, so it was written so."""
    try:
        manifest = _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise Damaged(f"the manifest can't be read: {error}") from None
    if not all(_is_sane(layout) for layout in manifest.layouts):
        raise Damaged("the manifest's nodes make no sense")
    for extent in manifest.extents:
        if not (extent.size > 0 < extent.block_size and 0 <= extent.layout < len(manifest.layouts)):
            raise Damaged(f"the manifest's stripe {extent.stripe} makes no sense")
    return manifest


def _is_sane(layout: Layout) -> bool:
    pieces, copies = layout.pieces, layout.copies
    return pieces > 0 < copies and len(layout.nodes) == max(pieces, copies) == len(set(layout.nodes))


def blocks(manifest: Manifest, start: int, stop: int) -> Iterator[Block]:
    """Those that hold the bytes of the file from ``start`` up to, but without, ``stop``; in order."""
    begins = 0
    for extent in manifest.extents:
        ends = begins + extent.size
        first, last = max(start, begins), min(stop, ends)
        if first < last:
            yield from _blocks_of(manifest, extent, first - begins, last - begins)
        begins = ends


def _blocks_of(manifest: Manifest, extent: Extent, start: int, stop: int) -> Iterator[Block]:
    layout, size = manifest.layouts[extent.layout], extent.block_size
    for number in range(start // size, -(-stop // size)):
        begins = number * size
        length = min(size, extent.size - begins)
        yield Block(
            block_key(extent.stripe, number),
            layout.homes(extent.first + number),
            length,
            max(start - begins, 0),
            min(stop - begins, length),
        )


def join(manifests: Iterable[Manifest]) -> Manifest:
    """One behind the other, as one; layouts that are the same stand in it once."""
    layouts: dict[Layout, int] = {}
    extents: list[Extent] = []
    for manifest in manifests:
        for extent in manifest.extents:
            layout = layouts.setdefault(manifest.layouts[extent.layout], len(layouts))
            extents.append(msgspec.structs.replace(extent, layout=layout))
    return Manifest(tuple(layouts), tuple(extents))


def cut(size: int, pieces: int, largest: int) -> int:
    """Bytes of the blocks in which ``size`` bytes are spread over so many pieces, equal but for the last block.

    Every piece has as many blocks as the others, where there are enough bytes; no block has more than ``largest``.
    """
    rounds = max(-(-size // (pieces * largest)), 1)
    return max(-(-size // (pieces * rounds)), 1)


def new_stripe(now: int) -> str:
    """An id for a stripe that begins now, in microseconds since the epoch."""
    return f"b{now:013x}{secrets.token_hex(6)}"


def began(stripe: str) -> int:
    """When a stripe began, in microseconds since the epoch."""
    return int(stripe[1:14], 16)


def block_key(stripe: str, number: int) -> bytes:
    """The key of a stripe's block."""
    return b"#%s/%d" % (stripe.encode(), number)


def parse_block_key(key: bytes) -> tuple[str, int] | None:
    """The stripe and the number that a key names; None if it isn't a block's."""
    match = _STRIPE.fullmatch(key)
    return (match[1].decode(), int(match[2])) if match else None
