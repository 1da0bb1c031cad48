"""What a short-term store says of itself, and of what waits in it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

Order = tuple[int, int]  # version and front, as a record's header has them


class Accepted(enum.Enum):
    """What became of a record that was to wait."""

    KEPT = b"kept"
    OLD = b"old"  # something as new, or newer, waits there
    CHANGED = b"changed"  # the state isn't the one that was expected
    GOING = b"going"  # one of blocks is on its way, which is to come to its end first
    LOOK = b"look"  # nothing waits there; what is on the nodes may be newer, and hasn't been looked at


class Seen(NamedTuple):
    """What waits at a path: the header of its record, if one does; and the state (``scripts.py``)."""

    state: str
    header: bytes | None
    is_going: bool = False  # one of blocks is on its way, in the version that is the state


class Task(NamedTuple):
    """One record is to be moved."""

    id: bytes
    path: str
    order: bytes  # as the store has it


class Letter(NamedTuple):
    """A dead letter: a record that could not be moved."""

    id: str
    path: str
    order: bytes
    why: str
    attempts: int
    since: float  # seconds since the epoch


class About(NamedTuple):
    """What a store is."""

    kind: str  # "redis", "valkey"
    version: str
    synced: str  # when it writes down what it acknowledges: "always everysec no", "never" (no file), "unknown"


class Figures(NamedTuple):
    """How a store is; this is what ``/status`` shows, and ``sfss worker status``."""

    files: int  # that wait, dead letters among them
    bytes: int  # that they have
    tasks: int
    oldest: float  # seconds for which the oldest task waits; 0 if there is none
    dead: int
    workers: Mapping[str, int]  # that are alive: how many tasks each is at
    max_files: int  # that may wait (write_behind.max_tasks) ...
    max_bytes: int  # ... and the bytes they may have (write_behind.max_bytes)
    memory: int | None  # bytes that the store has taken, by whatever is in it; None if it doesn't tell
    max_memory: int | None  # that it may take; 0: it has no bound; None if it doesn't tell


def text_of(order: Order) -> bytes:
    """An order as the store has it: as texts compare, the pairs do."""
    return b"%020d%010d" % order
