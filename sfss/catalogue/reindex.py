"""The rows anew from the nodes, and how they differ: file by file, in the order of paths, while fronts go on.

Both are read in that order, range by range, and compared. A file that has no row, an older one, or one that says
something else gets its row; what is written meanwhile wins by its order. A row that no node has a file for, or whose
version is newer than theirs, is looked at again on the nodes, and goes only if it is older than this walk.

To ``check`` is the same without a change. What seems to differ is looked at again after a moment, three times, and
longer where the file has just been stored: its row is on its way, and the database may be busy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sfss import manifest, paths, upload_state
from sfss.catalogue import statements
from sfss.catalogue.changes import STORED, FileChange, Row, Rows, upload_row
from sfss.catalogue.database import Database
from sfss.cluster.listing import Found, Listing
from sfss.cluster.pace import Pace
from sfss.cluster.replication import Cluster
from sfss.cluster.walk import UPLOADS, Walk
from sfss.errors import Unavailable
from sfss.manifest import NOTHING, Manifest
from sfss.record import Header, Kind

_TOGETHER = 8  # records that are read at once
_WRITTEN = 500  # files whose rows are written in one transaction: writers wait for no more than that
_LOOKS, _PAUSE = 3, 0.5  # at what seems to differ, and seconds between them
_ON_ITS_WAY = 5.0  # seconds in which the row of a file that has just been stored may still come
MISSING, EXTRA = "missing", "extra"
MOVED = ("different (place)", "different (pieces)")  # the file itself is right


@dataclass
class Figures:
    """What a walk has come to."""

    files: int = 0  # on the nodes, so far
    missing: int = 0  # rows that were
    extra: int = 0  # rows of no file
    different: int = 0
    uploads: int = 0
    seconds: float = 0.0
    finished: bool = False
    named: list[str] = field(default_factory=list)  # some of the differences, in words

    MOST_NAMED = 20

    @property
    def differences(self) -> int:
        return self.missing + self.extra + self.different

    def note(self, path: str, how: str) -> None:
        """A difference. ``how``: missing, extra, or which columns differ."""
        if how == MISSING:
            self.missing += 1
        elif how == EXTRA:
            self.extra += 1
        else:
            self.different += 1
        if len(self.named) < self.MOST_NAMED:
            self.named.append(f"{how}: {path}")


class Reindex:
    """One walk. ``pause`` is awaited between its steps, for who has something else to do."""

    def __init__(
        self,
        database: Database,
        cluster: Cluster,
        rows: Rows,
        *,
        check: bool = False,
        pause: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.figures = Figures()
        self._database = database
        self._cluster = cluster
        self._rows = rows
        self._check = check
        self._pause = pause
        self._started = 0

    async def run(self) -> Figures:
        """Walk over all. Raises Unavailable, Unsupported, Damaged; CatalogueAway: what was done stays done."""
        clock = asyncio.get_running_loop().time
        began = clock()
        self._started = self._cluster.now()
        after = ""
        async with contextlib.aclosing(Listing(self._cluster.topology).batches()) as batches:
            async for found in batches:
                self.figures.seconds = clock() - began
                for first in range(0, len(found), _WRITTEN):
                    some = found[first : first + _WRITTEN]
                    await self._compare(some, after, some[-1].path)
                    after = some[-1].path
                    self.figures.files += len(some)
                    if self._pause is not None:
                        await self._pause()
        while (until := await self._some_further(after)) is not None:  # what is left there is of no file
            await self._compare((), after, until)
            after = until
        if not self._check:
            async with self._database.writing() as transaction:
                await statements.write_places(transaction, self._rows)
            await self._uploads()
        self.figures.seconds = clock() - began
        self.figures.finished = True
        return self.figures

    async def _compare(self, found: Sequence[Found], after: str, until: str) -> None:
        """One range, of which these are all files that the nodes have."""
        headers = {file.path: file.header for file in found if file.header is not None}
        rows, pieces = await self._there(after, until)
        striped = await self._manifests({path: h for path, h in headers.items() if h.kind == Kind.MANIFEST})
        wrong: dict[str, str] = {}
        for path, header in headers.items():
            change = FileChange(path, header, striped.get(path, NOTHING))
            if path in striped or header.kind != Kind.MANIFEST:  # else it has been replaced since
                how = self._difference(change, rows.get(path), pieces.get(path, ()))
                if how is not None:
                    wrong[path] = how
        wrong |= {path: EXTRA for path, row in rows.items() if row["state"] == STORED and path not in headers}
        if not wrong:
            return
        if self._check:
            await self._look_again(wrong)
            return
        newer: list[FileChange] = []
        moved: list[FileChange] = []
        for path, how in wrong.items():
            row, there = rows.get(path), headers.get(path)
            if there is not None and (row is None or _order(row) < there.order):
                newer.append(FileChange(path, there, striped.get(path, NOTHING)))
                self.figures.note(path, how)
            elif there is not None and how in MOVED:
                moved.append(FileChange(path, there, striped.get(path, NOTHING)))
                self.figures.note(path, how)
            else:
                await self._settle(path, how)
        if newer or moved:
            async with self._database.writing() as transaction:
                await statements.write(transaction, newer, self._rows)
                await statements.write_place(transaction, moved, self._rows)

    async def _settle(self, path: str, how: str) -> None:
        """Of a row that is newer than the file, or as new and says something else; or there is no file."""
        change = await self._file(path)
        async with self._database.writing() as transaction:
            row, pieces = await statements.file_at(transaction, path)
            if row is None or row["version"] >= self._started:  # it was written meanwhile
                return
            if change is None:
                await statements.drop_file(transaction, path, _order(row))
            elif self._difference(change, row, pieces) is None:
                return
            else:
                await statements.write_as_it_is(transaction, change, self._rows)
        self.figures.note(path, how)

    async def _look_again(self, wrong: Iterable[str]) -> None:
        """Count what still differs."""
        left = dict.fromkeys(wrong, "")
        last = self._cluster.now() + int(_ON_ITS_WAY * 1e6)
        look = 0
        while left:
            if look:
                await asyncio.sleep(_PAUSE)
            look += 1
            for path in list(left):
                change, how = await self._how_it_is(path)
                if how is None:
                    del left[path]
                elif look >= _LOOKS and not (self._has_just_come(change) and self._cluster.now() < last):
                    self.figures.note(path, how)
                    del left[path]

    async def _how_it_is(self, path: str) -> tuple[FileChange | None, str | None]:
        """A file as it is now, and how its row differs."""
        change = await self._file(path)
        async with self._database.reading() as transaction:
            row, pieces = await statements.file_at(transaction, path)
        if change is not None:
            return change, self._difference(change, row, pieces)
        return None, EXTRA if row is not None and row["state"] == STORED else None

    def _has_just_come(self, change: FileChange | None) -> bool:
        return change is not None and change.header.version > self._cluster.now() - int(_ON_ITS_WAY * 1e6)

    def _difference(self, change: FileChange, row: Row | None, pieces: Iterable[Row]) -> str | None:
        """How the rows of a file differ from what they should be; None if they don't."""
        if row is None or (row["state"] != STORED and _order(row) < change.header.order):
            return MISSING
        wanted = self._rows.file(change.path, change.header)
        columns = [column for column, value in wanted.items() if row[column] != value]
        if columns:
            return f"different ({', '.join(columns)})"
        there = {(p["number"], p["copy"]): dict(p) for p in pieces if _order(p) == change.header.order}
        should = {(p["number"], p["copy"]): p for p in self._rows.pieces(*change)}
        return None if there == should else MOVED[1]

    # --- what there is ---

    async def _some_further(self, after: str) -> str | None:
        async with self._database.reading() as transaction:
            return await statements.path_further(transaction, after, 2 * _WRITTEN)

    async def _there(self, after: str, until: str) -> tuple[dict[str, Row], dict[str, list[Row]]]:
        async with self._database.reading() as transaction:
            rows = {row["path"]: row for row in await statements.files_between(transaction, after, until)}
            pieces: dict[str, list[Row]] = {}
            for piece in await statements.pieces_between(transaction, after, until):
                pieces.setdefault(piece["path"], []).append(piece)
        return rows, pieces

    async def _manifests(self, headers: Mapping[str, Header]) -> dict[str, Manifest]:
        """Those of these files; of none that has been replaced meanwhile."""
        found: dict[str, Manifest] = {}
        left = iter(headers.items())

        async def read() -> None:
            for path, header in left:
                change = await self._file(path)
                if change is not None and change.header.order == header.order:
                    found[path] = change.striped

        await asyncio.gather(*(read() for _ in range(min(_TOGETHER, len(headers)))))
        return found

    async def _file(self, path: str) -> FileChange | None:
        """The file as it is now; None if there is none."""
        key = paths.key_of(path)
        header = await self._cluster.head(key)
        if header is None or header.kind not in (Kind.FILE, Kind.MANIFEST):
            return None
        if header.kind == Kind.FILE:
            return FileChange(path, header, NOTHING)
        found = await self._cluster.get(key)
        if found is None or found.header.kind not in (Kind.FILE, Kind.MANIFEST):
            return None
        is_striped = found.header.kind == Kind.MANIFEST
        return FileChange(path, found.header, manifest.decode(found.payload) if is_striped else NOTHING)

    async def _uploads(self) -> None:
        """All the rows of uploads that can be gone on with."""
        open_ones: list[dict[str, Any]] = []
        walk = Walk(self._cluster.topology.nodes.values(), Pace(), within=UPLOADS)
        async with contextlib.aclosing(walk.batches()) as batches:
            async for batch in batches:
                for key in batch:
                    upload, found = upload_state.id_of(key), await self._cluster.get(key)
                    if upload is not None and found is not None and found.header.kind == Kind.UPLOAD:
                        state = upload_state.decode(found.payload)
                        if not (state.finished or state.final):
                            open_ones.append(upload_row(upload, state))
        if walk.lost:
            raise Unavailable(f"the uploads aren't all known: {'; '.join(walk.lost.values())}")
        async with self._database.writing() as transaction:
            await statements.write_uploads(transaction, open_ones)
        self.figures.uploads = len(open_ones)


def _order(row: Row) -> tuple[int, int]:
    return row["version"], row["front"]
