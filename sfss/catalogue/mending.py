"""What goes on behind a front beside its rows: mirrors, what is doubtful, what is old, and a reindex where needed.

It is needed where the database says so itself (it is new, or had more owed to it than could be held), where a front
ended that still owed rows (its mark is left on the nodes), and where one was killed (its row in ``fronts`` is left).
One of the fronts does it, and then takes away just those notes that it had seen before it began.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sfss import manifest, paths
from sfss.catalogue import statements
from sfss.catalogue.changes import FileChange, Rows, moment
from sfss.catalogue.database import Database
from sfss.catalogue.marks import GONE, Marks, Seen
from sfss.catalogue.reindex import Figures, Reindex
from sfss.catalogue.statements import Front
from sfss.catalogue.writer import Writer, nobody
from sfss.cluster.replication import Cluster
from sfss.cluster.topology import Topology
from sfss.errors import CatalogueAway, Damaged, Unavailable, Unsupported
from sfss.manifest import NOTHING
from sfss.record import Kind

log = logging.getLogger("sfss.catalogue")

LOOK = 2.0  # seconds between two looks whether something is to be done
MIRROR = 10.0  # ... between two mirrors of the nodes
PURGE = 300.0  # ... between two times that what is old is forgotten
CLAIM = 60.0  # ... for which a front may say nothing while it makes all rows anew
UNSEEN = "nobody has looked yet"
_KEPT = 86400  # seconds for which a row tells that a file was deleted
_MOST_DOUBTED, _DOUBTED_FOR = 10_000, 10.0  # paths, and seconds
_RESTS = 0.5  # of the time of a reindex in the background, in which requests have the front to themselves


class Behind(NamedTuple):
    """Why rows may be missing."""

    token: str | None  # of the database's own note
    dead: list[str]  # fronts that were killed
    marks: Seen  # of fronts that owe rows, or owed some when they ended

    @property
    def why(self) -> str:
        """In words; '' if none is."""
        words = ["it is new, or lost rows that were owed"] if self.token else []
        words += ["a front was killed"] if self.dead else []
        words += ["a front owes rows"] if self.marks else []
        return ", ".join(words)


class Mending:
    """The work of one front, over its database and cluster."""

    def __init__(
        self, database: Database, cluster: Cluster, rows: Rows, writer: Writer, marks: Marks, front: Front
    ) -> None:
        self.behind = UNSEEN  # as it was seen last
        self.walking: Figures | None = None
        self.last: Figures | None = None
        self._database = database
        self._cluster = cluster
        self._rows = rows
        self._writer = writer
        self._marks = marks
        self._front = front
        self._doubted: dict[str, float] = {}  # and since when
        self._ring: Topology | None = None  # whose ring is rows
        self._doubts_too_much = False
        self._mirrors: dict[str, Sequence[Mapping[str, Any]]] = {}  # by table
        self._to_mirror: set[str] = set()  # tables that aren't as they should be yet
        self._due: dict[str, float] = {}  # by the name of a step: when it is to come again
        self._cannot: str | None = None  # why no reindex can be had of these nodes
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin. To be called in the event loop."""
        self._task = asyncio.create_task(self._go_on(), name="mending the catalogue")

    def look_again(self) -> None:
        """The database may be another one than it was."""
        self.behind = UNSEEN
        self._to_mirror.update(self._mirrors)
        self._ring = None
        self._due["mend"] = self._due["mirrors"] = 0.0

    async def close(self) -> None:
        """Stop where it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def doubt(self, path: str) -> None:
        """Nobody knows what a write came to: look at the nodes, later."""
        if len(self._doubted) < _MOST_DOUBTED:
            self._doubted[path] = time.monotonic()
        else:
            self._doubts_too_much = True

    @property
    def doubts(self) -> bool:
        """Whether there is something that only a walk over all files would find, if this front ended now."""
        return bool(self._doubted) or self._doubts_too_much

    def mirror(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Have these as all rows of ``namespaces`` or ``keys``, soon. As ``statements.mirror``."""
        self._mirrors[table] = list(rows)
        self._to_mirror.add(table)
        self._due["mirrors"] = 0.0

    # --- within ---

    async def _go_on(self) -> None:
        steps: Mapping[str, tuple[Callable[[], Awaitable[None]], float]] = {
            "mirrors": (self._write_mirrors, MIRROR),
            "doubts": (self._look_at_doubted, LOOK),
            "purge": (self._purge, PURGE),
            "mend": (self._mend, LOOK),
        }
        while True:
            await asyncio.sleep(LOOK * random.uniform(0.25, 0.5))
            for name, (step, pause) in steps.items():
                if self._writer.away is not None or time.monotonic() < self._due.get(name, 0.0):
                    continue
                self._due[name] = time.monotonic() + pause
                try:
                    await step()
                except CatalogueAway as error:
                    self._writer.doubt(str(error))
                except (Unavailable, Damaged) as error:
                    log.debug("the catalogue's %s wait: %s", name, error)
                except Exception:
                    log.exception("the catalogue's %s go on after an error of their own", name)

    async def _write_mirrors(self) -> None:
        nodes = await self._nodes()
        tables, self._to_mirror = self._to_mirror, set()
        topology = self._cluster.topology
        is_known = True
        try:
            async with self._database.writing() as transaction:
                is_known = await statements.renew(transaction, self._front)
                if not is_known:
                    await statements.note_behind(transaction)
                await statements.write_nodes(transaction, nodes)
                if self._ring is not topology:
                    await statements.write_ring(transaction, topology.points())
                for table in sorted(tables):
                    await statements.mirror(transaction, table, self._mirrors[table])
        except BaseException:
            self._to_mirror |= tables
            raise
        self._ring = topology
        if not is_known:
            self._writer.doubt("the catalogue isn't the one that it was: it was restored from a backup, or replaced")

    async def _nodes(self) -> list[dict[str, Any]]:
        """The rows of ``nodes``."""
        topology = self._cluster.topology
        try:
            stats = await self._cluster.stats()
        except Unavailable:
            stats = {}
        away, now = self._cluster.ready(), moment(self._cluster.now())
        rows = []
        for name, node in sorted(topology.nodes.items()):
            told = stats.get(str(node.address), {})
            role = "joins" if node in topology.joining else "leaves" if node in topology.leaving else "stays"
            total, available = _number(told, "total_space"), _number(told, "avail_space")
            rows.append(
                {
                    "name": name,
                    "address": str(node.address),
                    "state": "here" if away.get(str(node.address)) is None else "away",
                    "role": role,
                    "last_seen": now if told else None,
                    "records": _number(told, "curr_items"),
                    "used_space": _number(told, "bytes"),
                    "available_space": available,
                    "total_space": total,
                }
            )
        return rows

    async def _look_at_doubted(self) -> None:
        """Note what has become of them, and again for a while: a node may take later what it had received before."""
        for path, since in list(self._doubted.items()):
            key = paths.key_of(path)
            header = await self._cluster.head(key)
            striped = NOTHING
            if header is not None and header.kind == Kind.MANIFEST:
                found = await self._cluster.get(key)
                if found is None or found.header.order != header.order:
                    continue
                striped = manifest.decode(found.payload)
            if header is not None and header.kind in (Kind.FILE, Kind.MANIFEST, Kind.TOMBSTONE):
                self._writer.note_soon(FileChange(path, header, striped), nobody)
            if time.monotonic() - since > _DOUBTED_FOR:
                self._doubted.pop(path, None)

    async def _purge(self) -> None:
        now, kept = self._cluster.now(), max(_KEPT, self._cluster.tombstone_ttl)
        async with self._database.writing() as transaction:
            await statements.purge(transaction, deleted_before=now - kept * 1_000_000, expired_before=now)

    async def _mend(self) -> None:
        """Make all rows anew, if that is needed and nobody else does it."""
        seen = await self.look()
        self.behind = seen.why
        # A mark that is renewed is of a front that brings its rows itself when it can.
        left = Behind(seen.token, seen.dead, {front: at for front, at in seen.marks.items() if self._marks.is_gone(at)})
        if not left.why or self._cannot is not None:
            return
        async with self._database.writing() as transaction:
            if not await statements.claim_reindex(transaction, self._front.front, CLAIM):
                return
        log.info("the catalogue is behind (%s): its rows are made anew from the nodes", left.why)
        try:
            figures = await self._reindex()
            await self.mended(left)
        except Unsupported as error:
            self._cannot = str(error)
            log.warning("the catalogue stays behind, for it can't be made anew with nodes of this kind: %s", error)
            return
        finally:
            with contextlib.suppress(CatalogueAway):
                async with self._database.writing() as transaction:
                    await statements.give_up_reindex(transaction, self._front.front)
        self.last = figures
        self.behind = (await self.look()).why
        log.info(
            "the catalogue has been compared with %s files in %.0f s: %s rows were missing, %s were of no file, %s were"
            " different", figures.files, figures.seconds, figures.missing, figures.extra, figures.different,
        )  # fmt: skip

    async def _reindex(self) -> Figures:
        claimed = stepped = time.monotonic()

        async def pause() -> None:
            nonlocal claimed, stepped
            now = time.monotonic()
            await asyncio.sleep((now - stepped) * _RESTS / (1 - _RESTS))
            stepped = time.monotonic()
            if stepped - claimed > CLAIM / 4:
                async with self._database.writing() as transaction:
                    await statements.claim_reindex(transaction, self._front.front, CLAIM)
                    await statements.renew(transaction, self._front)  # else others would take it for dead meanwhile
                claimed = stepped

        reindex = Reindex(self._database, self._cluster, self._rows, pause=pause)
        self.walking = reindex.figures
        try:
            return await reindex.run()
        finally:
            self.walking = None

    async def look(self) -> Behind:
        """Whether rows may be missing. Raises CatalogueAway, Unavailable, Damaged."""
        async with self._database.reading() as transaction:
            token, dead = await statements.behind(transaction), await statements.dead_fronts(transaction, GONE)
        return Behind(token, [front for front in dead if front != self._front.front], dict(await self._marks.seen()))

    async def mended(self, before: Behind) -> None:
        """A walk has ended that began after this was seen: take those notes away."""
        async with self._database.writing() as transaction:
            if before.token is not None:
                await statements.forget_behind(transaction, before.token)
            for front in before.dead:
                await statements.unregister(transaction, front)
        if before.marks:
            await self._marks.strike(before.marks)


def _number(told: Mapping[str, str], name: str) -> int | None:
    text = told.get(name, "")
    return int(text) if text.isdigit() else None
