"""Whose turn it is to repair, or to sweep, and what came of it: two small records that all fronts read and change.

It is written under a condition, as a file is that two callers want to create, so that of several fronts one walks. That
it is only one saves work and is not needed for safety: repairs may run side by side. So clocks that differ by some
seconds do no harm; those that are far off go by the nodes', as versions do. A cluster whose nodes can't decide
conditions is walked by several fronts at worst.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from sfss import record
from sfss.cluster.replication import Cluster
from sfss.errors import Damaged
from sfss.record import Header, Kind

KEY = b"#sfss/repair"  # what begins with #sfss/ is no file's, and walks pass over it
SWEEP = b"#sfss/sweep"
_TRIES = 5  # of a change, while others change it too


class State(msgspec.Struct, frozen=True):
    """What the fronts agree on. Times in seconds since the epoch, by ``Cluster.now``."""

    holder: int = 0  # the front that walks, or walked last
    until: float = 0.0  # it has said that it goes on before then; later it is gone
    finished: float = 0.0  # the end of the last walk that came to the end
    well: bool = False  # whether all was as it should be then
    under_replicated: int = 0  # files, or blocks where it is a sweep, that lacked a copy then
    damaged: int = 0  # files of which no sound copy was left then, or not of all their blocks
    paused_until: float = 0.0  # nobody is to walk before then
    uploads_open: int = 0  # resumable uploads that were open then, where it is a sweep


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(State)


async def read(cluster: Cluster, key: bytes = KEY) -> State:
    """What is agreed on; the defaults if nothing is. Raises Unavailable."""
    try:
        found = await cluster.get(key)
        return State() if found is None else _decoder.decode(found.payload)
    except (Damaged, msgspec.DecodeError):  # it is no great loss
        return State()


async def change(cluster: Cluster, front: int, make: Callable[[State], State | None], key: bytes = KEY) -> State | None:
    """Put what ``make`` makes of the state in its place; None if it makes None of it. Raises Unavailable."""
    for _ in range(_TRIES):
        there, token = await cluster.get_for_update(key)
        new = make(await read(cluster, key))
        if new is None:
            return None
        if await cluster.put_if(key, _record(new, front, cluster.now(), there), token):
            return new
    return None


def _record(state: State, front: int, now: int, there: Header | None) -> bytes:
    version = max(now, there.version + 1 if there is not None else 0)
    return record.of_state(Kind.FILE, _encoder.encode(state), version, front)[1]
