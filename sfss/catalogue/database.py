"""The one place that knows SQLAlchemy: connections to SQLite or PostgreSQL, and their errors in our words.

One connection writes, so that what is written stands in one order, and a few read. SQLite gets a write-ahead log: who
reads doesn't wait for who writes. It syncs that log at each commit until the front's own row in ``fronts`` is there,
and then only when it folds the log into the file (``relax``): a power cut that takes the last rows takes the front
with them, and that row tells of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from sfss.addresses import hidden
from sfss.catalogue import schema
from sfss.errors import CatalogueAway, ConfigError

log = logging.getLogger("sfss.catalogue")

SQLITE = "sqlite"
_DRIVERS = {SQLITE: "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_READERS = 4  # connections
_TOLD = {"application_name": "sfss", "jit": "off"}  # no statement of ours is long enough to be worth compiling
_LONGEST = 10.0  # seconds of a transaction that writes
_PARTING = 2.0  # seconds for a connection to end that nobody waits for any more


class _Locked(CatalogueAway):
    """Somebody else has SQLite's lock."""


class Transaction:
    """A transaction, as far as it concerns those who say something in it."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def run(
        self, statement: sa.TextClause, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> int:
        """Execute it, or for each of several rows; how many rows one without several has changed."""
        if rows is not None and not rows:
            return 0
        return (await self._connection.execute(statement, rows)).rowcount

    async def run_together(self, statement: sa.TextClause, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute it once for all these rows, which it reads from the JSON ``:rows``."""
        if rows:
            await self._connection.execute(statement, {"rows": _json(rows)})

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._connection.dialect.name

    async def rows(self, statement: sa.TextClause, values: Mapping[str, Any] | None = None) -> Sequence[sa.Row[Any]]:
        """What a SELECT finds."""
        return (await self._connection.execute(statement, values)).all()


class _Opened(NamedTuple):
    """Connections that belong together."""

    engines: Sequence[AsyncEngine]  # the first one is the writer's
    writer: AsyncConnection
    identity: tuple[int, int] | None  # of the file that is open
    lock: asyncio.Lock  # of who writes
    readers: set[object]


class Database:
    """Not connected until ``open``."""

    def __init__(self, url: str, *, timeout: float) -> None:
        """``timeout``: seconds for a connection to be made, and for SQLite's lock. Raises ConfigError."""
        self.words = hidden(url)
        self._timeout = timeout
        self._url = _parsed(url)
        self.dialect = self._url.get_backend_name()
        self._file = Path(self._url.database or "") if self.dialect == SQLITE else None
        self._compiled: dict[sa.TextClause, str] = {}  # statements that are run alone, as the driver reads them
        self._opened: _Opened | None = None
        self._parting: set[asyncio.Task[None]] = set()
        self._new_engine().sync_engine.dispose()  # the driver is there, or that is said now

    async def open(self) -> bool:
        """Connect, and bring the tables up to date; whether they are new. Raises CatalogueAway, ConfigError."""
        self.part()
        deadline = asyncio.get_running_loop().time() + self._timeout
        while True:
            try:
                return await self._open()
            except _Locked:  # who makes the file what it is to be doesn't wait for the others who do, in SQLite
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(0.02)

    async def _open(self) -> bool:
        engines = [self._new_engine(writes=True), self._new_engine()]
        writer: AsyncConnection | None = None
        try:
            with _translated(self.words):
                if self._file is not None:
                    await asyncio.to_thread(_make, self._file)
                identity = self._identity()
                writer = await engines[0].connect()
                async with writer.begin():
                    await _check_encoding(writer)
                    is_new = await schema.bring_up_to_date(writer, self.words)
            if identity != self._identity():
                raise CatalogueAway(f"the catalogue {self.words} has been removed or replaced")
        except BaseException:
            self._run(_close(engines, writer))
            raise
        self._opened = _Opened(engines, writer, identity, asyncio.Lock(), set())
        return is_new

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[Transaction]:
        """One transaction, committed at the end of the block; one at a time. Raises CatalogueAway."""
        opened = self._now()
        async with opened.lock:
            if opened is not self._now():
                raise CatalogueAway(f"the catalogue {self.words} was away meanwhile")
            with _translated(self.words):
                async with asyncio.timeout(_LONGEST), opened.writer.begin():
                    yield Transaction(opened.writer)

    async def run_alone(self, statement: sa.TextClause, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute it once for all these rows, as ``Transaction.run_together``, and have it committed.

        A statement that is all of its transaction needs neither BEGIN nor COMMIT, and so a third of the ways to the
        database and back; at the driver itself, for SQLAlchemy has no such way. Raises CatalogueAway.
        """
        opened = self._now()
        async with opened.lock:
            if opened is not self._now():
                raise CatalogueAway(f"the catalogue {self.words} was away meanwhile")
            sql = self._compiled.get(statement)
            if sql is None:
                sql = self._compiled[statement] = str(statement.compile(dialect=opened.writer.dialect))
            with _translated(self.words):
                async with asyncio.timeout(_LONGEST):
                    raw = (await opened.writer.get_raw_connection()).driver_connection
                    assert raw is not None
                    if self._file is not None:
                        await raw.execute_insert(sql, [_json(rows)])
                    else:
                        await raw.execute(sql, _json(rows))

    @contextlib.asynccontextmanager
    async def reading(self, timeout: float | None = None) -> AsyncIterator[Transaction]:
        """A view of what is committed, for ``timeout`` seconds at most. Raises CatalogueAway."""
        opened, me = self._now(), object()
        opened.readers.add(me)
        try:
            with _translated(self.words):
                async with asyncio.timeout(timeout or self._timeout), opened.engines[1].connect() as connection:
                    yield Transaction(connection)
        finally:
            opened.readers.discard(me)

    async def relax(self) -> None:
        """Have SQLite sync its log from time to time only. What was committed before this is on disk."""
        if self._file is not None:
            with _translated(self.words):
                raw = await self._now().writer.get_raw_connection()
                assert raw.driver_connection is not None
                cursor = await raw.driver_connection.execute("PRAGMA synchronous = NORMAL")
                await cursor.close()

    def part(self) -> None:
        """Let go of all connections, and wait for none."""
        opened, self._opened = self._opened, None
        if opened is not None:
            self._run(_part_with(opened))

    async def close(self) -> None:
        """Let go of all connections, some seconds at most."""
        self.part()
        if self._parting:
            await asyncio.wait(self._parting, timeout=3 * _PARTING)

    def _now(self) -> _Opened:
        """The connections. Raises CatalogueAway."""
        if self._opened is None:
            raise CatalogueAway(f"the catalogue {self.words} is not open")
        if self._opened.identity != self._identity():
            raise CatalogueAway(f"the catalogue {self.words} has been removed or replaced")
        return self._opened

    def _run(self, parting: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(parting)
        self._parting.add(task)
        task.add_done_callback(self._parting.discard)

    def _identity(self) -> tuple[int, int] | None:
        """Which file lies where the database should; SQLite itself goes on with one that was removed."""
        if self._file is None:
            return None
        try:
            stat = os.stat(self._file)  # noqa: PTH116  each transaction asks, and this is the quicker one
        except OSError:
            return (0, 0)
        return stat.st_dev, stat.st_ino

    def _new_engine(self, *, writes: bool = False) -> AsyncEngine:
        options: dict[str, Any] = {"hide_parameters": True, "pool_size": 1 if writes else _READERS, "max_overflow": 0,
                                   "pool_timeout": self._timeout}  # fmt: skip
        try:
            if self._file is None:
                return create_async_engine(
                    self._url,
                    connect_args={"timeout": self._timeout, "server_settings": _TOLD},
                    **options,
                )
            engine = create_async_engine(self._url, connect_args={"timeout": self._timeout}, **options)
        except ImportError as error:
            raise ConfigError(
                f"catalogue.url: {error.name} isn't installed, which this database needs: pip install 'sfss[catalogue]'"
            ) from None
        sa.event.listen(engine.sync_engine, "connect", _set_up_sqlite)
        sa.event.listen(engine.sync_engine, "begin", _begin_to_write if writes else _begin_to_read)
        return engine


def _json(rows: Sequence[Mapping[str, Any]]) -> str:
    return msgspec.json.encode(rows).decode()


async def _part_with(opened: _Opened) -> None:
    """When nobody uses them any more, or can be waited for."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PARTING), opened.lock:
            while opened.readers:  # noqa: ASYNC110  seldom, and soon over
                await asyncio.sleep(0.02)
    await _close(opened.engines, opened.writer)


async def _close(engines: Sequence[AsyncEngine], writer: AsyncConnection | None) -> None:
    steps: list[Callable[[], Coroutine[Any, Any, None]]] = [engine.dispose for engine in engines]
    if writer is not None:
        steps[:0] = [writer.close]
        if writer.in_transaction():  # it was left in the middle of something
            steps[:0] = [writer.invalidate]
    for step in steps:
        try:
            async with asyncio.timeout(_PARTING):
                await step()
        except Exception as error:  # noqa: BLE001  it is of no use any more, in whatever state it was
            log.debug("a connection to the catalogue ended badly: %r", error)


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
        parsed = parsed.set(drivername=_DRIVERS[parsed.drivername])
    except (sa.exc.ArgumentError, KeyError, ValueError):
        raise ConfigError(f"catalogue.url: {hidden(url)} can't be read as the URL of a database") from None
    if (mode := parsed.query.get("sslmode")) is not None:  # as libpq calls it
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": str(mode)})
    return parsed


def _make(file: Path) -> None:
    """Make it, for nobody else's eyes: it has the name of every file.

    One that is there is not opened: to close it again would take away the locks that SQLite has on it in this process.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_to_write(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_to_read(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


async def _check_encoding(connection: AsyncConnection) -> None:
    """Raises ConfigError."""
    if connection.dialect.name == "postgresql":
        encoding = (await connection.exec_driver_sql("SHOW server_encoding")).scalar()
        if encoding != "UTF8":
            raise ConfigError(
                f"catalogue.url: the database's encoding is {encoding}, and paths need UTF8: make another"
            )


@contextlib.contextmanager
def _translated(words: str) -> Any:
    """The border: whatever a driver raises is a CatalogueAway, in a line that tells no statement and no password."""
    try:
        yield
    except (CatalogueAway, ConfigError):
        raise
    except TimeoutError:
        raise CatalogueAway(f"the catalogue {words} doesn't answer in time") from None
    except sa.exc.DBAPIError as error:
        raise _kind(error.orig)(f"the catalogue {words}: {_line(error.orig)}") from None
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise CatalogueAway(f"the catalogue {words}: {_line(error)}") from None
    except Exception as error:  # asyncpg's and SQLite's own, while it connects
        if type(error).__module__.split(".")[0] not in ("asyncpg", "sqlite3", "aiosqlite"):
            raise
        raise _kind(error)(f"the catalogue {words}: {_line(error)}") from None


def _kind(error: BaseException | None) -> type[CatalogueAway]:
    return _Locked if "database is locked" in str(error) else CatalogueAway


def _line(error: BaseException | None) -> str:
    text = str(error).strip().split("\n")[0]
    return text.rpartition(">: ")[2] or type(error).__name__  # SQLAlchemy puts the driver's class before it
