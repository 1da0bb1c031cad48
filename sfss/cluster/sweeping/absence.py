"""Files of which a whole stripe is nowhere: the blocks that nodes list can't tell of those, but their manifests can."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from sfss import manifest, record
from sfss.backends.base import Backend, Listed
from sfss.cluster.pace import Pace
from sfss.cluster.replication import Cluster
from sfss.cluster.summary import Summary
from sfss.cluster.sweeping.claims import OURS, Claim, named_by
from sfss.cluster.turns import Turns
from sfss.cluster.walk import ALL_BUT_BLOCKS, UNKNOWN, Ranges, Walk
from sfss.errors import Damaged, SfssError
from sfss.record import Kind


async def look_for_lost(cluster: Cluster, new_walk: Callable[[Ranges], Walk], pace: Pace, summary: Summary) -> None:
    """Note in the summary the files that have no block of one of their stripes on any node, all nodes being there."""
    nodes = list(cluster.topology.nodes.values())
    turns = Turns()
    walk = new_walk(ALL_BUT_BLOCKS)

    async def turn(key: bytes) -> None:
        async with pace.step():
            await _look_at(cluster, nodes, key, summary)

    try:
        async with contextlib.aclosing(walk.batches()) as batches:
            async for batch in batches:
                for key, told in batch.items():
                    if key.startswith(OURS) and any(_may_be_manifest(item) for _, item in told):
                        await turns.begin(turn(key), cluster.blocks.largest if told[0].item.size == UNKNOWN else 0)
        await turns.finish()
    finally:
        await turns.cancel()
    summary.away |= {node.address.name: why for node, why in walk.lost.items()}


def _may_be_manifest(item: Listed) -> bool:
    if not item.header:
        return item.size == UNKNOWN
    try:
        return record.decode_bare_header(item.header).kind == Kind.MANIFEST
    except Damaged:  # which the repair says
        return False


async def _look_at(cluster: Cluster, nodes: list[Backend], key: bytes, summary: Summary) -> None:
    try:
        found = await cluster.get(key)
        named = named_by(found)
        if found is None or found.header.kind != Kind.MANIFEST or named is None:
            return
        for stripe in named.stripes:
            claim = Claim(key, named, stripe)
            if await _is_lost(nodes, claim, stripe) and await _is_still_named(cluster, key, stripe):
                summary.blocks_lost += claim.blocks
                summary.note_lost(key)
                return
    except SfssError:  # it is damaged or out of reach, which the repair says
        return


async def _is_lost(nodes: list[Backend], claim: Claim, stripe: str) -> bool:
    """Whether no node has any of its blocks. Raises Unavailable."""
    for number in range(claim.blocks):
        block = manifest.block_key(stripe, number)
        homes = claim.homes(number, {})
        for node in sorted(nodes, key=lambda node: node.address.name not in homes):
            if await node.head(block) is not None:
                return False
    return True


async def _is_still_named(cluster: Cluster, key: bytes, stripe: str) -> bool:
    named = named_by(await cluster.get(key))
    return named is not None and stripe in named.stripes
