"""What the nodes hold, by their own lists: whether each owner has the same version of a key, and nobody else any."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from sfss import record
from sfss.backends.base import Backend
from sfss.cluster.topology import Topology
from sfss.cluster.walk import OUR_OWN
from sfss.errors import Unavailable
from sfss.record import Kind

MOST = 10_000  # keys on a node; a campaign makes some hundreds

Census = Mapping[bytes, Mapping[Backend, bytes]]  # key -> node -> the record's header there


async def census(topology: Topology, *, but: Collection[str] = ()) -> Census:
    """What lies on the nodes, but those of these names; one after the other, so of different moments."""
    found: dict[bytes, dict[Backend, bytes]] = {}
    for name, node in topology.nodes.items():
        if name in but:
            continue
        for key, header in (await _list(node)).items():
            found.setdefault(key, {})[node] = header
    return found


def not_home(topology: Topology, found: Census, *, but: Collection[str] = ()) -> list[str]:
    """The keys of which not all owners (but those of these names) have the same version, or another node has one."""
    wrong = []
    for key, holders in found.items():
        owners = [node for node in topology.place(key).owners if node.address.name not in but]
        if set(holders) != set(owners) or len(set(holders.values())) != 1:
            there = ", ".join(f"{node.address.name} {_told(header)}" for node, header in holders.items())
            wrong.append(f"{key.decode()}: owners {[node.address.name for node in owners]}, held by {there}")
    return wrong


def disagreeing(topology: Topology, found: Census, *, but: Collection[str] = ()) -> set[bytes]:
    """The keys of which the owners (but those of these names) haven't all the same version."""
    wrong = set()
    for key, holders in found.items():
        headers = {holders.get(node) for node in topology.place(key).owners if node.address.name not in but}
        if len(headers) != 1:
            wrong.add(key)
    return wrong


def tombstones(found: Census) -> int:
    """How many keys have one somewhere."""
    return sum(
        any(record.decode_header(header)[0].kind == Kind.TOMBSTONE for header in holders.values())
        for holders in found.values()
    )


async def _list(node: Backend) -> dict[bytes, bytes]:
    async with asyncio.timeout(60):
        while True:
            try:
                items = await node.scan(b"", MOST)
                break
            except Unavailable:  # the machine has much to do
                await asyncio.sleep(0.1)
    assert len(items) < MOST
    return {item.key: item.header for item in items if not item.key.startswith(OUR_OWN)}


def _told(header: bytes) -> str:
    found = record.decode_header(header)[0]
    return f"{found.version} ({found.kind.name.lower()})"
