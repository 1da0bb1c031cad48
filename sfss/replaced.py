"""What becomes of the blocks of a large file in whose place something else is put."""

from __future__ import annotations

from typing import Protocol

from sfss import manifest
from sfss.cluster.replication import Cluster
from sfss.errors import Damaged
from sfss.manifest import NOTHING, Manifest
from sfss.record import Header, Kind, Record
from sfss.stripes import Stripes


class Kept(Protocol):
    """Where records are."""

    async def get(self, key: bytes) -> Record | None: ...


async def striped_there(cluster: Kept, path: str, key: bytes, there: Header | None) -> Manifest:
    """The blocks of the file whose header is there; none if it has none, or they can't be told."""
    if there is None or there.kind != Kind.MANIFEST:
        return NOTHING
    try:
        found = await cluster.get(key)
        return striped(path, found) if found is not None and found.header.order == there.order else NOTHING
    except Damaged:  # it is to be replaced, whatever it is
        return NOTHING


def free(cluster: Cluster, stripes: Stripes, path: str, key: bytes, replaced: Manifest) -> None:
    """Free the blocks of a file that was seen, and has been replaced or deleted since.

    Unless it is there again: if its write was still on its way to other nodes when it was seen, and was told there that
    it is too old, then it has been written anew, above what took its place.
    """

    async def is_there_again() -> bool:
        found = await cluster.get_latest(key, surely=True)  # else it may be of a node that was away
        if found is None or found.header.kind != Kind.MANIFEST:
            return False
        return not replaced.stripes.isdisjoint(striped(path, found).stripes)

    stripes.free(replaced, unless=is_there_again)


def striped(path: str, found: Record) -> Manifest:
    """The blocks that a file's record names. Raises Damaged."""
    whole = manifest.decode(found.payload)
    if whole.size != found.header.size:
        raise Damaged(f"the manifest of '{path}' names blocks of {whole.size} bytes, of {found.header.size}")
    return whole
