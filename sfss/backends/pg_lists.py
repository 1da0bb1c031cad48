"""What a PostgreSQL node holds, in the order of its keys, over a connection of its own.

The rows of all tables are merged by the server, by their indexes: nothing is sorted, and no more is read than is told.
It takes a lock for each table and for each index, so one list at a time is asked for.

A file that SQL's IMPORT() has put has no header until it is first read. A list needs it, so it is made here, once.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from sfss.backends import pg_connect, pg_statements
from sfss.backends.base import Heads, Listed
from sfss.backends.checks import check_list
from sfss.backends.pg_connect import Connection, hang_up, is_foreign, translated
from sfss.backends.pg_statements import Statements, Tables
from sfss.backends.stream import STOPPING
from sfss.errors import NodeAway, NodeTimeout

BATCH = 1000  # keys that are given at a time, and rows that are fetched: some milliseconds of work
ASKED_AT_ONCE = 250  # ranges
# Whatever the server may think it knows of the tables: by their indexes, merged, planned once.
SETTINGS = {"enable_sort": "off", "enable_seqscan": "off", "enable_bitmapscan": "off",
            "plan_cache_mode": "force_generic_plan"}  # fmt: skip

T = TypeVar("T")


class Lists:
    """The lists of one node. ``timeout``, in seconds, is for each wait for more of one.

    ``open_`` connects, or raises NodeError; ``header_of`` gives the header of a file that hasn't got one yet. What is
    in ``local`` is set for each transaction anew.
    """

    def __init__(
        self,
        node: str,
        open_: Callable[[], Awaitable[Connection]],
        header_of: Callable[[bytes], Awaitable[bytes | None]],
        timeout: float,
        local: Mapping[str, str],
    ) -> None:
        self._node = node
        self._open = open_
        self._header_of = header_of
        self._timeout = timeout
        self._begin = "; ".join(["BEGIN", *(f"SET LOCAL {name} = '{value}'" for name, value in local.items())])
        self._connection: Connection | None = None  # with nothing under way
        self._used: Connection | None = None
        self._turn = asyncio.Lock()  # guards both
        self._closed = False

    async def scan(self, after: bytes, count: int, until: bytes) -> list[Listed]:
        """``Backend.scan``."""
        rows = await self._rows(after, count, until)
        return [Listed(key, header, len(header) + size, revision) for key, header, size, revision in rows]

    async def heads(self, after: bytes, count: int, until: bytes) -> Heads:
        """``Backend.heads``."""
        rows = await self._rows(after, count, until)
        return Heads([row[0] for row in rows], [row[1] for row in rows])

    async def any_in(self, ranges: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        """``Backend.any_in``."""
        found: list[bool] = []
        for start in range(0, len(ranges), ASKED_AT_ONCE):
            some = ranges[start : start + ASKED_AT_ONCE]
            check_list(1, *(after for after, _ in some))
            firsts = await self._fetch(pg_statements.FIRSTS, [after for after, _ in some])
            found += [
                first is not None and (not until or first < until)
                for (first,), (_, until) in zip(firsts, some, strict=True)
            ]
        return found

    async def keys(self) -> AsyncGenerator[list[bytes], None]:
        """``Backend.keys``."""
        last = b""
        while rows := await self._fetch(pg_statements.KEYS, last, BATCH):
            yield [key for (key,) in rows]
            last = rows[-1][0]

    async def statistics(self) -> dict[str, str]:
        """``Backend.stats``."""
        rows = await self._fetch(pg_statements.STATISTICS)
        return {name: str(value) for name, value in rows[0].items()}

    async def sweep(self, tables: Tables) -> int:
        """Remove what has expired, some of each table, unless somebody else does; how many rows that were.

        In a transaction for each: no row is held for long, and lists have their turns between.
        """

        async def work(table: Statements, transaction: _Transaction) -> int:
            may = await transaction.fetch(pg_statements.MAY_SWEEP)
            return (await transaction.fetch(table.sweep))[0][0] if may[0][0] else 0

        if not (await self._fetch(pg_statements.EXPIRED))[0][0]:
            return 0
        return sum([await self._use(functools.partial(work, table)) for table in tables])

    def close(self) -> None:
        """For good; what is under way fails."""
        self._closed = True
        for connection in (self._connection, self._used):
            if connection is not None:
                hang_up(connection)

    # --- within ---

    async def _rows(self, after: bytes, count: int, until: bytes) -> list[tuple[bytes, bytes, int, int]]:
        check_list(count, after)
        statement = pg_statements.SCAN_UNTIL if until else pg_statements.SCAN
        arguments = (after, count, until) if until else (after, count)
        rows = [tuple(row) for row in await self._fetch_in_pieces(statement, *arguments)]
        for number, (key, header, size, revision) in enumerate(rows):
            if header is None:  # or what has gone since; it is told all the same, or the list would seem to end here
                rows[number] = key, await self._header_of(key) or b"", size, revision
        return rows

    async def _fetch_in_pieces(self, statement: str, *arguments: Any) -> list[Any]:
        """So that the loop has its turns, and each piece its time."""

        async def work(transaction: _Transaction) -> list[Any]:
            rows: list[Any] = []
            cursor = await transaction.cursor(statement, *arguments)
            while True:
                piece = await transaction.within(cursor.fetch(BATCH))
                rows += piece
                if len(piece) < BATCH:
                    return rows

        return await self._use(work)

    async def _fetch(self, statement: str, *arguments: Any) -> list[Any]:
        return await self._use(lambda transaction: transaction.fetch(statement, *arguments))

    async def _use(self, work: Callable[[_Transaction], Awaitable[T]]) -> T:
        """Have the connection, alone, for a transaction. It ends after any failure, a cancellation most of all."""
        async with self._turn:
            if self._closed:
                raise NodeAway(self._node, f"away: {STOPPING}")
            connection, self._connection = self._connection, None
            if connection is None or connection.is_closed():
                connection = await self._open()
            self._used = connection
            transaction = _Transaction(connection, self._timeout)
            try:
                await transaction.execute(self._begin)
                done = await work(transaction)
                await transaction.execute("COMMIT")
            except BaseException as error:
                hang_up(connection)
                if isinstance(error, TimeoutError):
                    raise NodeTimeout(self._node, f"no list, or no more of it, within {self._timeout:g} s") from None
                if is_foreign(error):
                    raise translated(self._node, error) from None
                raise
            finally:
                self._used = None
            self._connection = connection
            return done


class _Transaction:
    """One on a connection, each step of which has its time."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout

    async def within(self, step: Coroutine[Any, Any, T]) -> T:
        return await pg_connect.within(self._timeout, self._connection, step)

    async def execute(self, statements: str) -> None:
        await self.within(self._connection.execute(statements))

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        return list(await self.within(self._connection.fetch(statement, *arguments)))

    async def cursor(self, statement: str, *arguments: Any) -> Any:
        """Of the rows that a statement gives: to be fetched by and by."""

        async def opened() -> Any:
            return await self._connection.cursor(statement, *arguments)

        return await self.within(opened())
