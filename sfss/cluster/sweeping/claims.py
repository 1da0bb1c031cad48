"""Who has a stripe: the file, or the unfinished upload, whose record names it. Nothing is written here.

A block's header tells for which path it was written, or for which upload, whose state tells the path. There is a quick
look, as a front has it, which can tell that a stripe is somebody's; and a sure one, which can tell that it is nobody's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from sfss import manifest, paths, upload_state
from sfss.cluster.replication import Cluster
from sfss.cluster.sweeping.witnesses import Witnesses
from sfss.errors import Damaged
from sfss.manifest import Extent, Layout, Manifest
from sfss.record import Header, Kind, Record

OURS = b"/", b"#"  # what the keys of sfss begin with
_REMEMBERED = 16  # records: a file of many stripes is asked for each of them

_Look = Callable[[bytes], Awaitable[Record | None]]


class Origin(NamedTuple):
    """For what a stripe was written."""

    path: str | None
    upload: str | None


class Claim:
    """What a record says of one stripe that it names."""

    def __init__(self, key: bytes, named: Manifest, stripe: str) -> None:
        self.key = key  # of the record
        self.layouts = named.layouts
        # One that came to be named twice, by an upload that was made of others, is the same each time.
        self.extents = [extent for extent in named.extents if extent.stripe == stripe]
        self._longest: Extent = max(self.extents, key=lambda extent: extent.size)
        self.blocks = self._longest.blocks

    def size(self, number: int) -> int:
        """Bytes of one of its blocks."""
        return min(self._longest.block_size, self._longest.size - number * self._longest.block_size)

    def homes(self, number: int, layouts: dict[Layout, Layout]) -> list[str]:
        """Names of the nodes of one of its blocks, where some layouts have others in their places."""
        homes: dict[str, None] = {}
        for extent in self.extents:
            if number < extent.blocks:
                layout = self.layouts[extent.layout]
                homes |= dict.fromkeys(layouts.get(layout, layout).homes(extent.first + number))
        return list(homes)


class Claims:
    """The look-ups of one sweep."""

    def __init__(self, cluster: Cluster, witnesses: Witnesses) -> None:
        self._cluster = cluster
        self._witnesses = witnesses
        self._known: OrderedDict[bytes, Manifest] = OrderedDict()
        self.searched: dict[str, bytes | None] = {}  # whose records had to be searched for, and which has been found

    async def quick(self, stripe: str, origin: Origin) -> Claim | None:
        """Who has it, by a front's reads; None if they don't tell. Raises Unavailable, Damaged."""
        for key in self._keys(stripe, origin):
            if (known := self._known.get(key)) is not None and stripe in known.stripes:
                return Claim(key, known, stripe)
        return (await self._ask(stripe, origin, self._cluster.get))[0]

    async def fresh(self, stripe: str, key: bytes) -> Claim | None:
        """What the record under ``key`` says now, by a front's read. Raises Unavailable, Damaged."""
        self._known.pop(key, None)
        return self._claim(stripe, key, await self._cluster.get(key))

    async def sure(self, stripe: str, origin: Origin) -> tuple[Claim | None, bool]:
        """Who has it, None if nobody has; and whether that is all, or other records than those might name it.

        Raises Unavailable, Damaged if it can't be known now.
        """
        return await self._ask(stripe, origin, self._witnesses.newest)

    async def _ask(self, stripe: str, origin: Origin, look: _Look) -> tuple[Claim | None, bool]:
        # The uploads first: when one is finished its file is there before its state lets go of the stripes.
        at_paths = [origin.path]
        searched = self.searched.get(stripe)
        # What was found to be named by an upload's state may have become a file since.
        uploads = [origin.upload, None if searched is None else upload_state.id_of(searched)]
        for upload in uploads:
            if upload is None:
                continue
            key = upload_state.key_of(upload)
            found = await look(key)
            if (claim := self._claim(stripe, key, found)) is not None:
                return claim, True
            if (state := state_of(found)) is not None:
                at_paths += [state.path, state.into]
                if state.final not in uploads:
                    uploads.append(state.final)
        keys = dict.fromkeys(paths.key_of(path) for path in at_paths if path is not None)
        # Only of blocks of partial uploads the headers don't tell the path; and the states of those tell who took them.
        is_all = bool(keys) or stripe in self.searched or len(at_paths) > 1
        if searched is not None:
            keys[searched] = None
        for key in keys:
            if (claim := self._claim(stripe, key, await look(key))) is not None:
                return claim, True
        return None, is_all

    def _keys(self, stripe: str, origin: Origin) -> list[bytes]:
        keys = [] if origin.path is None else [paths.key_of(origin.path)]
        keys += [] if origin.upload is None else [upload_state.key_of(origin.upload)]
        searched = self.searched.get(stripe)
        return keys if searched is None else [*keys, searched]

    def _claim(self, stripe: str, key: bytes, found: Record | None) -> Claim | None:
        named = named_by(found)
        if found is None or named is None or stripe not in named.stripes:
            return None
        self._known[key] = named
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return Claim(key, named, stripe)


def named_by(found: Record | None) -> Manifest | None:
    """The blocks that a record names; None if it is of a kind that names none. Raises Damaged."""
    if found is None:
        return None
    if found.header.kind == Kind.MANIFEST:
        return manifest.decode(found.payload)
    state = state_of(found)
    return None if state is None else state.parts


def state_of(found: Record | None) -> upload_state.State | None:
    """The upload whose state a record is; None if it isn't any's. Raises Damaged."""
    if found is None or found.header.kind != Kind.UPLOAD:
        return None
    return upload_state.decode(found.payload)


def origin_of(header: Header) -> Origin:
    """For what a block was written. Raises Damaged if it is none."""
    if header.kind != Kind.BLOCK:
        raise Damaged(f"it is a {header.kind.name.lower()} where a block belongs")
    return Origin(header.path, (header.meta or {}).get("upload"))
