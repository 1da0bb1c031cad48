"""Which records name some stripes, whose blocks don't tell where to look for them: all records are looked through."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from sfss import record
from sfss.backends.base import Listed
from sfss.cluster.sweeping.claims import OURS, named_by
from sfss.cluster.sweeping.witnesses import Witnesses
from sfss.cluster.walk import ALL_BUT_BLOCKS, UNKNOWN, Ranges, Walk
from sfss.errors import BadRequest, Damaged, Unavailable
from sfss.record import Kind

_NAMING = (Kind.MANIFEST, Kind.UPLOAD)


async def trace(
    stripes: Iterable[str], witnesses: Witnesses, new_walk: Callable[[Ranges], Walk]
) -> dict[str, bytes | None]:
    """By stripe, the key of a record that names it; None if none does, for sure. Raises Unavailable, Damaged."""
    found: dict[str, bytes | None] = dict.fromkeys(stripes)
    walk = new_walk(ALL_BUT_BLOCKS)
    async with contextlib.aclosing(walk.batches()) as batches:
        async for batch in batches:
            for key, told in batch.items():
                if key.startswith(OURS) and any(_may_name(item) for _, item in told):
                    for stripe in await _named(key, witnesses) & found.keys():
                        found[stripe] = key
    for node, why in walk.lost.items():
        raise Unavailable(f"node {node.address} doesn't tell all it has: {why}")
    return found


def _may_name(item: Listed) -> bool:
    """Whether it may be a record that names stripes."""
    if not item.header:
        return item.size == UNKNOWN
    try:
        return record.decode_bare_header(item.header).kind in _NAMING
    except Damaged:
        return True


async def _named(key: bytes, witnesses: Witnesses) -> frozenset[str]:
    try:
        named = named_by(await witnesses.newest(key))
    except BadRequest:  # a key that no front could have made
        return frozenset()
    return named.stripes if named is not None else frozenset()
