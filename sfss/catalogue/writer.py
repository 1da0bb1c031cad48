"""Rows in groups: what comes while a transaction runs is the next transaction, and whoever waits is told at its end.

While the database is away nobody waits: writes are acknowledged at once, and their rows are *owed*, the newest of each
path, until it is back. The first writes that find it away wait until that is known, one ``timeout``, and until the
others are warned (``marks.py``). If more is owed than can be held the rest is left to a reindex, and the database is
told so with the rows that are left.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Coroutine, Sequence, Set
from typing import Any, NamedTuple, TypeVar

from sfss.catalogue import statements
from sfss.catalogue.changes import Change, FileChange, Rows
from sfss.catalogue.database import Database
from sfss.catalogue.marks import Marks
from sfss.catalogue.statements import Front
from sfss.errors import CatalogueAway, ConfigError

log = logging.getLogger("sfss.catalogue")

T = TypeVar("T")

BATCH = 1000  # changes of a transaction
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0  # seconds between two tries to reach the database
PATIENCE = 10.0  # seconds for a transaction that nobody waits for


class _Waiting(NamedTuple):
    """A change, and what to call when its row is there, or owed."""

    change: Change
    done: Callable[[], None]


def nobody() -> None:
    """Waits for it."""


class Writer:
    """Writes what it is told of."""

    def __init__(
        self, database: Database, marks: Marks, rows: Rows, front: Front, *, timeout: float, most_owed: int
    ) -> None:
        """``timeout``: seconds for a transaction that somebody waits for. ``most_owed``: rows that are held."""
        self.away: str | None = "not yet connected to"  # why rows are owed, if they are
        self.changes = self.transactions = 0  # that were committed
        self.back: Callable[[], None] = nobody  # is called when the database is here, for the first time or again
        self._database = database
        self._marks = marks
        self._rows = rows
        self._front = front
        self._timeout = timeout
        self._most_owed = most_owed
        self._waiting: list[_Waiting] = []
        self._owed: dict[str, Change] = {}
        self._places: Set[int] = frozenset()  # that are rows of this database
        self._overflown = False
        self._doubted: str | None = None
        self._owing = False  # nobody waits for rows any more
        self._something = asyncio.Event()
        self._settled = asyncio.Event()  # it is known for the first time whether the database is here
        self._task: asyncio.Task[None] | None = None

    @property
    def owed(self) -> int:
        """How many rows."""
        return len(self._owed)

    async def start(self) -> None:
        """Begin; returns when it is known whether the database is here. Raises ConfigError if it can't be used."""
        self._task = asyncio.create_task(self._go_on(), name="catalogue")
        settled = asyncio.create_task(self._settled.wait())
        await asyncio.wait((settled, self._task), return_when=asyncio.FIRST_COMPLETED)
        settled.cancel()
        if self._task.done():
            self._task.result()

    def note_soon(self, change: Change, done: Callable[[], None]) -> None:
        """Call ``done`` when the row is there, or owed; perhaps before this returns."""
        if self._owing:
            self._owe(change)
            done()
        else:
            self._waiting.append(_Waiting(change, done))
            self._something.set()

    def doubt(self, why: str) -> None:
        """Somebody else has found the database away: connect anew, and see."""
        if self.away is None:
            self._doubted = why
            self._something.set()

    async def close(self) -> bool:
        """Write what is left, if that can be done at once; whether all rows are there."""
        deadline = asyncio.get_running_loop().time() + self._timeout
        # Looked at again and again, for once, at the end: an event would cost something with each group.
        while self._waiting and not self._owing and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        left, self._waiting = self._waiting, []
        for waiting in left:
            self._owe(waiting.change)
            _call(waiting.done)
        return not (self._owed or self._overflown) and self.away is None

    # --- within ---

    async def _go_on(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                await self._catch_up()
                pause = FIRST_PAUSE
                await self._write()
            except CatalogueAway as error:
                await self._go_away(str(error))
            except ConfigError as error:
                if not self._settled.is_set():  # at the start: better said than passed over
                    raise
                await self._go_away(str(error))
            except Exception as error:
                log.exception("the catalogue can't be written")
                await self._go_away(f"{type(error).__name__}, see the log")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _catch_up(self) -> None:
        """Connect, and write what is owed. Raises CatalogueAway, ConfigError."""
        self._doubted = None
        self._places = frozenset()
        is_new = await self._in_time(self._database.open(), PATIENCE if self._owing else self._timeout)
        if is_new:
            log.info("the catalogue %s is new: it is being filled from the nodes", self._database.words)
        while len(self._owed) > BATCH:
            some = dict(list(self._owed.items())[:BATCH])
            await self._in_time(self._commit(list(some.values())), PATIENCE)
            for key, change in some.items():
                if self._owed.get(key) is change:
                    del self._owed[key]
        # From here on whoever comes waits: what is owed now is all that there is.
        self._owing = False
        owed = list(self._owed.values())
        await self._in_time(self._commit(owed, first=True), self._timeout)
        self._owed.clear()
        self._overflown = False
        await self._in_time(self._database.relax(), self._timeout)
        self._marks.take_away()
        self.back()
        if self._settled.is_set():
            log.info("the catalogue is back: %s rows that were owed are there", len(owed))
        self.away = None
        self._settled.set()

    async def _write(self) -> None:
        """Group after group. Raises CatalogueAway."""
        while True:
            if not self._waiting:
                self._something.clear()
                await self._something.wait()
            if self._doubted is not None:
                raise CatalogueAway(self._doubted)
            group = self._waiting[:BATCH]
            await self._in_time(self._commit([waiting.change for waiting in group]), self._timeout)
            del self._waiting[: len(group)]
            for waiting in group:
                _call(waiting.done)

    async def _go_away(self, why: str) -> None:
        """From now on nobody waits."""
        if self.away is None or not self._settled.is_set():
            log.warning("%s. Files are stored and read as ever; the rows are owed until it is back: see to it", why)
        self.away = why
        self._settled.set()
        self._database.part()
        try:
            await self._marks.put()
        except Exception:  # whoever waits is to have his answer in any case
            log.exception("the mark that the catalogue is behind could not be put")
        self._owing = True
        left, self._waiting = self._waiting, []
        for waiting in left:
            self._owe(waiting.change)
            _call(waiting.done)

    def _owe(self, change: Change) -> None:
        there = self._owed.get(change.key)
        if there is None and len(self._owed) >= self._most_owed:
            if not self._overflown:
                log.warning("more than %s rows are owed to the catalogue: it needs a reindex", self._most_owed)
            self._overflown = True
        elif not (isinstance(there, FileChange) and isinstance(change, FileChange)
                  and there.header.order > change.header.order):  # fmt: skip
            self._owed[change.key] = change

    async def _in_time(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """What it returns. It is left to itself after ``timeout`` seconds: its connection may not even hear of an end.

        Raises CatalogueAway.
        """
        task = asyncio.create_task(work)
        try:
            done, _ = await asyncio.wait((task,), timeout=timeout)
        except asyncio.CancelledError:
            task.cancel()
            task.add_done_callback(_forget)
            raise
        if not done:
            task.cancel()
            task.add_done_callback(_forget)
            raise CatalogueAway(f"the catalogue {self._database.words} took longer than {timeout:g} s")
        return task.result()

    async def _commit(self, changes: Sequence[Change], *, first: bool = False) -> None:
        alone = None if first else statements.write_alone(changes, self._rows, self._places, self._database.dialect)
        if alone is not None:
            await self._database.run_alone(*alone)
        else:
            await self._commit_together(changes, first=first)
        self.changes += len(changes)
        self.transactions += 1

    async def _commit_together(self, changes: Sequence[Change], *, first: bool) -> None:
        async with self._database.writing() as transaction:
            places = await statements.write(transaction, changes, self._rows, frozenset() if first else self._places)
            if first:
                await statements.register(transaction, self._front)
                if self._overflown:
                    await statements.note_behind(transaction)
        self._places = places if first else self._places | places if places else self._places


def _forget(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _call(done: Callable[[], None]) -> None:
    """It raises nothing; but others are to be told in any case."""
    try:
        done()
    except Exception:
        log.exception("this is a bug in sfss")


async def written(writer: Writer, change: Change) -> None:
    """Come back when the row is there, or owed; for coroutines."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    writer.note_soon(change, functools.partial(_settle, future))
    await future


def _settle(future: asyncio.Future[None]) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):
        future.set_result(None)
