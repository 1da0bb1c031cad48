"""Resumable uploads that nobody goes on with: their states are put to an end; their stripes are nobody's then."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from sfss import paths, record, upload_state
from sfss.cluster.replication import Cluster
from sfss.cluster.summary import Summary
from sfss.cluster.sweeping.claims import named_by, state_of
from sfss.cluster.sweeping.witnesses import Witnesses
from sfss.cluster.walk import UPLOADS, Ranges, Walk
from sfss.errors import SfssError
from sfss.record import Header, Kind
from sfss.upload_state import State


async def forget_abandoned(
    cluster: Cluster, witnesses: Witnesses, new_walk: Callable[[Ranges], Walk], summary: Summary
) -> None:
    """Put a tombstone in the place of each upload's state whose time is over, unless it is still needed."""
    walk = new_walk(UPLOADS)
    async with contextlib.aclosing(walk.batches()) as batches:
        async for batch in batches:
            for key in batch:
                upload = upload_state.id_of(key)
                if upload is None:
                    continue
                try:
                    summary.uploads_expired += await _forget(cluster, witnesses, key, walk, summary)
                except SfssError as error:
                    summary.unsure.setdefault(upload, str(error))


async def _forget(cluster: Cluster, witnesses: Witnesses, key: bytes, walk: Walk, summary: Summary) -> bool:
    """Only if nobody has gone on with it just now. Raises Unavailable, Damaged."""
    there, token = await cluster.get_for_update(key)
    found = await cluster.get(key)
    state = state_of(found)
    if there is None or found is None or state is None or found.header.order != there.order:
        return False
    if not state.is_abandoned(walk.clock.now()):
        summary.uploads_open += not state.finished and state.final is None
        return False
    if await _is_needed(state, witnesses):
        return False
    version = max(cluster.now(), there.version + 1)
    header = Header(Kind.TOMBSTONE, version, there.front, 0, b"", 0, record.payload_checksum(b""))
    return await cluster.delete_if(key, record.encode(header, b""), token)


async def _is_needed(state: State, witnesses: Witnesses) -> bool:
    """Whether a file has a stripe of it, of which nothing but this state tells whose it is."""
    if state.into is None:
        return False
    named = named_by(await witnesses.newest(paths.key_of(state.into)))
    return named is not None and not named.stripes.isdisjoint(state.parts.stripes)
