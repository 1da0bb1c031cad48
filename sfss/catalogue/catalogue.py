"""The catalogue of one front, put together: what the file service and the uploads tell, and what they ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any

from sfss.catalogue import reading, statements
from sfss.catalogue.changes import FileChange, Rows, UploadChange
from sfss.catalogue.database import Database
from sfss.catalogue.marks import NAME, Marks
from sfss.catalogue.mending import Behind, Mending
from sfss.catalogue.reindex import Figures, Reindex
from sfss.catalogue.statements import Front
from sfss.catalogue.writer import Writer, nobody, written
from sfss.cluster.listing import Found
from sfss.cluster.replication import Cluster
from sfss.config import CatalogueSettings
from sfss.errors import CatalogueAway, Damaged, SfssError, Unavailable
from sfss.file_needs import Search
from sfss.manifest import Manifest
from sfss.record import Header
from sfss.registry import Registry
from sfss.upload_state import State

log = logging.getLogger("sfss.catalogue")

_SEARCHING = 30.0  # seconds for a search, which reads every row


class Catalogue:
    """``file_needs.Noting``, over a database."""

    def __init__(
        self, settings: CatalogueSettings, cluster: Cluster, registry: Registry, *, guess: Callable[[str], str]
    ) -> None:
        """``guess``: the content type of a path. Raises ConfigError."""
        front = Front.this()
        rows = Rows(lambda key: [node.address.name for node in cluster.topology.place(key).owners], guess)
        self._front = front
        self._cluster = cluster
        self._rows = rows
        self._database = Database(settings.url, timeout=settings.timeout)
        self._marks = Marks(registry, registry.document(NAME, dict[str, float], {}), front.front)
        self._writer = Writer(
            self._database, self._marks, rows, front, timeout=settings.timeout, most_owed=settings.owed
        )
        self._mending = Mending(self._database, cluster, rows, self._writer, self._marks, front)
        self._writer.back = self._mending.look_again

    async def start(self) -> None:
        """Connect, or begin to try. Raises ConfigError if the database can't ever be used."""
        await self._writer.start()
        self._mending.start()

    async def close(self) -> None:
        """Write what is left, and disconnect. Nothing may be told any more."""
        await self._mending.close()
        is_whole = await self._writer.close()
        if is_whole and not self._mending.doubts:
            try:
                async with asyncio.timeout(1.0), self._database.writing() as transaction:
                    await statements.unregister(transaction, self._front.front)
            except (SfssError, TimeoutError) as error:
                log.warning("the catalogue takes this end for a crash, and is made anew by itself: %s", error)
        await self._marks.close(owing=not is_whole)
        await self._database.close()

    # --- what is told ---

    def note_soon(self, path: str, header: Header, striped: Manifest, done: Callable[[], None]) -> None:
        """A file was stored or deleted; ``done`` is called when its row is there, or owed."""
        self._writer.note_soon(FileChange(path, header, striped), done)

    async def note(self, path: str, header: Header, striped: Manifest) -> None:
        """The same for coroutines."""
        await written(self._writer, FileChange(path, header, striped))

    def note_upload(self, upload: str, state: State | None) -> None:
        """An upload has come so far; None: it is one no more. Nobody waits for that."""
        ended = state is None or state.finished or state.final is not None
        self._writer.note_soon(UploadChange(upload, None if ended else state), nobody)

    def doubt(self, path: str) -> None:
        """Whether a write has been kept isn't known."""
        self._mending.doubt(path)

    def mirror(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Have these as all rows of ``namespaces`` or ``keys``, soon: a document of that kind is so now.

        ``rows``: ``name enabled layout pieces copies quota max_file_size write_once`` of each namespace; ``id name hash
        created expires`` of each key; what else is in them is kept as JSON. Nothing may be there that opens anything.
        """
        self._mending.mirror(table, rows)

    # --- what is asked ---

    async def list(
        self, prefix: str, after: str, *, folders: bool = False, wanted: int = 0
    ) -> AsyncGenerator[Sequence[Found], None]:
        """As ``Files.list``. Raises CatalogueAway where rows may be missing of what was acknowledged."""
        look = reading.page_of_folders if folders else reading.page
        if after > prefix and not after.startswith(prefix):
            return
        left = wanted + 1 if wanted else 0  # one more tells that there is more
        while True:
            limit = min(left, reading.PAGE) if left else reading.PAGE
            await self._check_whole()
            async with self._database.reading() as transaction:
                if await statements.behind(transaction) is not None:
                    raise CatalogueAway("the catalogue is behind: it is being made anew")
                found = await look(transaction, prefix, after, limit)
            if found:
                yield found
                after = found[-1].path
            left -= len(found) if left else 0
            if len(found) < limit or (wanted and left <= 0):
                return

    async def search(self, wanted: Search, after: str, limit: int) -> tuple[Sequence[Found], bool]:
        """The files that are as they are wanted, and whether all rows were there. Raises CatalogueAway."""
        is_whole = True
        try:
            await self._check_whole()
        except (CatalogueAway, Unavailable, Damaged):
            is_whole = False
        async with self._database.reading(_SEARCHING) as transaction:
            is_whole = is_whole and await statements.behind(transaction) is None
            return await reading.search(transaction, wanted, after, limit, self._database.dialect), is_whole

    def status(self) -> dict[str, object]:
        """What is known of it."""
        writer, mending = self._writer, self._mending
        walking, last = mending.walking, mending.last
        doing = "idle" if walking is None else "reindexing"
        return {
            "database": self._database.words,
            "away": writer.away or "",
            "owed": writer.owed,
            "behind": mending.behind or ("rows are owed" if self._marks.is_wanted else ""),
            "changes": writer.changes,
            "transactions": writer.transactions,
            "state": doing,
            "compared": walking.files if walking is not None else last.files if last is not None else 0,
        }

    # --- the command line ---

    async def open(self) -> None:
        """Connect, for ``reindex`` alone. Raises CatalogueAway, ConfigError."""
        await self._database.open()

    def reindex(self, *, check: bool) -> Reindex:
        """A walk over all files. It changes nothing if it is to ``check``."""
        return Reindex(self._database, self._cluster, self._rows, check=check)

    async def run(self, reindex: Reindex) -> Figures:
        """Walk; then take away the notes that said that it was needed. Raises as ``Reindex.run``."""
        before = await self._mending.look()
        gone = {front: at for front, at in before.marks.items() if self._marks.is_gone(at)}
        figures = await reindex.run()
        await self._mending.mended(Behind(before.token, before.dead, gone))
        return figures

    async def disconnect(self) -> None:
        """The end of ``open``."""
        await self._database.close()

    # --- within ---

    async def _check_whole(self) -> None:
        """Raises CatalogueAway, Unavailable, Damaged if a row may be missing that a front owes."""
        if self._writer.away is not None:
            raise CatalogueAway(self._writer.away)
        if await self._marks.seen():
            raise CatalogueAway("the catalogue is behind: a front owes rows")
