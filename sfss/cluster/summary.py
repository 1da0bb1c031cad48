"""What a repair, or a sweep, has found and done so far, in figures: ``docs/operations/repair.rst`` explains them."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field

from sfss.errors import SfssError

NAMED = 20  # keys of damaged records that are named; all are counted


@dataclass
class Summary:
    """Figures of one repair, and the sweep behind it, live while it goes on. Names of nodes are those of the ring."""

    listed: int = 0  # what the nodes told of: a key once for each node that has it
    keys: int = 0  # different keys that were walked over
    ok: int = 0  # of them, those on which all was as it should be
    passed: int = 0  # of them, those that a rebalance has nothing to do with
    repaired: int = 0  # of them, those of which a copy was written
    copies_written: int = 0
    bytes_read: int = 0  # of records that were read whole
    bytes_written: int = 0  # of records
    strays_removed: int = 0  # copies on nodes that are no owners of theirs, removed when all owners had one
    strays_left: int = 0  # such copies that can't go yet: an owner lacks its copy, or the node didn't let go of it
    strays_kept: int = 0  # such copies on nodes of a kind from which they can't be removed without risk
    outgoing: int = 0  # copies whose nodes stay, and own them by the old ring only: strays, once that is gone
    tombstones_removed: int = 0  # deletions that need no longer be kept in mind
    tombstones_young: int = 0  # deletions that are kept in mind: not old enough, or not all nodes are here to agree
    damaged_found: int = 0  # copies that don't pass their checksums
    damaged_mended: int = 0  # of them, those that were rewritten from a sound copy
    damaged_keys: int = 0  # keys of which no sound copy of the newest version is left
    damaged_named: list[str] = field(default_factory=list)  # the first of them
    foreign: int = 0  # keys under which lies something that isn't a record of sfss
    under_replicated: int = 0  # keys of which an owner has no copy yet, or isn't there to tell
    stripes: int = 0  # of large files; what was written in one go, and is kept or goes as one
    stripes_swept: int = 0  # of them, those that no file and no upload has any more, and that were removed
    stripes_young: int = 0  # of them, those that none has yet, but that are too young to be given up
    stripes_unsure: int = 0  # of them, those of which it can't be said now whether a file has them
    blocks: int = 0  # different blocks of stripes
    blocks_copied: int = 0  # copies of them that were missing or damaged at their homes, and were written there
    blocks_removed: int = 0  # copies of them that were removed: of swept stripes, and where they don't belong
    blocks_lacking: int = 0  # blocks of which a home has no copy yet, or isn't there to tell
    blocks_lost: int = 0  # blocks of which no sound copy is left; their files are among ``damaged_named``
    bytes_freed: int = 0  # of the copies that were removed, as far as nodes tell their size
    manifests_moved: int = 0  # files that were given other homes for their blocks
    uploads_open: int = 0  # resumable uploads that somebody may still go on with
    uploads_expired: int = 0  # resumable uploads that nobody went on with, and that were forgotten
    unsure: dict[str, str] = field(default_factory=dict)  # some of ``stripes_unsure``, and why
    errors: dict[str, int] = field(default_factory=dict)  # calls that failed, by node
    why: dict[str, str] = field(default_factory=dict)  # the last of its errors, by node
    away: dict[str, str] = field(default_factory=dict)  # nodes that were left out, all the time or from some moment on
    seconds: float = 0.0
    finished: bool = False  # it came to the end of the walk
    _began: float = field(default_factory=time.monotonic, repr=False)

    @property
    def well(self) -> bool:
        """Whether all is as it should be now, for what can be known."""
        left = self.away or self.under_replicated or self.damaged_keys or self.strays_left
        left_of_blocks = self.stripes_unsure or self.blocks_lacking or self.blocks_lost
        return self.finished and not left and not left_of_blocks

    def tick(self) -> None:
        """Note how long it has taken until now."""
        self.seconds = time.monotonic() - self._began

    def note_error(self, node: str, error: SfssError) -> None:
        """A call to a node failed."""
        self.errors[node] = self.errors.get(node, 0) + 1
        self.why[node] = str(error)

    def note_lost(self, key: bytes) -> None:
        """No sound copy of the key's newest version is left, or not of all its blocks."""
        self.damaged_keys += 1
        if len(self.damaged_named) < NAMED:
            self.damaged_named.append(key.decode(errors="backslashreplace"))

    def note_unsure(self, stripe: str, error: SfssError) -> None:
        """It can't be said whether a file has the stripe."""
        self.stripes_unsure += 1
        if len(self.unsure) < NAMED:
            self.unsure[stripe] = str(error)

    def as_dict(self) -> dict[str, object]:
        """The figures, for JSON."""
        found = dataclasses.asdict(self)
        del found["_began"]
        return {"well": self.well, **found}
