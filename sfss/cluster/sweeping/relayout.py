"""Other homes for the blocks of a file, where those that its manifest names are going, have gone, or are too few."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import msgspec

from sfss import manifest, record, upload_state
from sfss.cluster.replication import Cluster
from sfss.cluster.sweeping.claims import named_by, state_of
from sfss.errors import Unavailable
from sfss.manifest import Layout, Manifest
from sfss.record import Record

_RACES = 4  # of a change, while others write to the same path


def relaid(layout: Layout, candidates: Sequence[str], copies: int) -> Layout:
    """The layout with all its nodes among the ``candidates``, and with as many copies as that; itself, if it is so.

    Who can stay stays in his place; so only what lay on the others moves, unless there are too few candidates. Those
    that come first are taken first, none is twice in it.
    """
    copies = max(layout.copies, copies)
    if copies == layout.copies and all(name in candidates for name in layout.nodes):
        return layout
    others = iter([name for name in candidates if name not in layout.nodes])
    kept = [name if name in candidates else next(others, None) for name in layout.nodes]
    nodes = [name for name in kept if name is not None]
    nodes += itertools.islice(others, max(max(layout.pieces, copies) - len(nodes), 0))
    pieces, copies = min(layout.pieces, len(nodes)), min(copies, len(nodes))
    new = Layout(tuple(nodes[: max(pieces, copies)]), pieces, copies)
    return layout if new == layout else new


async def move(cluster: Cluster, key: bytes, stripe: str, layouts: Mapping[Layout, Layout]) -> bool:
    """Have the record under ``key`` say that a stripe's blocks lie elsewhere, where they are by now.

    Only if it is still the one that was looked at: nothing that comes meanwhile is overwritten. False if it doesn't
    name the stripe so any more. Raises Unavailable, Damaged, OutOfSpace, TooLarge.
    """
    for _ in range(_RACES):
        there, token = await cluster.get_for_update(key)
        found = await cluster.get(key)
        named = named_by(found)
        if there is None or found is None or named is None or stripe not in named.stripes:
            return False
        if found.header.order != there.order:
            continue
        if (moved := _moved(named, stripe, layouts)) == named:
            return False
        if await cluster.put_if(key, _record(found, moved), token):
            return True
    raise Unavailable(f"what lies under {key.decode(errors='backslashreplace')} changed {_RACES} times meanwhile")


def _moved(named: Manifest, stripe: str, layouts: Mapping[Layout, Layout]) -> Manifest:
    parts = []
    for extent in named.extents:
        layout = named.layouts[extent.layout]
        if extent.stripe == stripe:
            layout = layouts.get(layout, layout)
        parts.append(Manifest((layout,), (msgspec.structs.replace(extent, layout=0),)))
    return manifest.join(parts)


def _record(found: Record, moved: Manifest) -> bytes:
    state = state_of(found)
    if state is None:
        payload = manifest.encode(moved)
    else:
        payload = upload_state.encode(msgspec.structs.replace(state, parts=moved))
    header = msgspec.structs.replace(
        found.header,
        version=found.header.version + 1,
        size=found.header.size if state is None else len(payload),
        payload_size=len(payload),
        payload_xxh3=record.payload_checksum(payload),
    )
    return record.encode(header, payload)
