"""The client of one node that is a PostgreSQL with the tables of ``sfss post migrate``.

Each record is a row (``sfss/post/sql``), in the one of many tables that the key's MD5 names, and each call is one
statement to that table (``pg_statements.py``). A few connections, opened as they are needed, are asked and told
(``pg_lanes.py``); lists go over one of their own (``pg_lists.py``). ``set`` looks: a write that comes late, after a
newer one, does nothing.

What SQL's IMPORT() has put has no header. Whoever reads it first makes one, always the same, and notes it.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from sfss.addresses import Address
from sfss.backends import pg_connect, pg_lists, pg_statements
from sfss.backends.base import Capabilities, Epoch, Heads, Listed, Versioned
from sfss.backends.checks import check_key
from sfss.backends.keeper import Keeper
from sfss.backends.pg_connect import Connection
from sfss.backends.pg_lanes import Lanes, Rows
from sfss.backends.pg_lists import Lists
from sfss.backends.pg_schema import KIND, look
from sfss.backends.pg_statements import Statements, Tables
from sfss.errors import NodeError, SfssError, TooLarge
from sfss.told import Tasks, Tell, outcome
from sfss.traffic import Traffic

log = logging.getLogger("sfss.backends")

SWEEPS = 60.0  # seconds, more or less, between two looks for rows that have expired
LONG = 1024 * 1024  # bytes: what is longer is hashed by a thread


class PostgresNode:
    """A ``Backend``. Times in seconds; ``largest_value`` bounds what is written, in bytes.

    Raises ConfigError if the address's URL can't be used.
    """

    def __init__(
        self,
        address: Address,
        *,
        largest_value: int,
        connect_timeout: float = 0.5,
        timeout: float = 2.0,
        retry_after: float = 2.0,
    ) -> None:
        self.address = address
        self.traffic = Traffic()
        self.capabilities: Capabilities | None = None
        self.epoch: Epoch | None = None
        self.identity: frozenset[str] = frozenset()
        self._name = str(address)
        self._place = pg_connect.place(address)
        self._largest_value = largest_value
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._settings = {  # of a session; where one may be another's the next moment, of each transaction
            "jit": "off",
            "default_transaction_isolation": "read committed",
            "statement_timeout": str(int(timeout * 1000)),
            "plan_cache_mode": "force_generic_plan",
        }
        self._tables = Tables(0)
        self._keeper = Keeper(self._name, self._connect, self._what, retry_after)
        local = {} if self._place.prepared else self._settings | pg_lists.SETTINGS
        self._lists = Lists(self._name, self._open_for_lists, self.head, timeout, local)
        self._waiting = Tasks()  # what takes several steps
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def since(self) -> float | None:
        return self._keeper.since

    @property
    def away(self) -> str | None:
        return self._keeper.away

    async def start(self) -> None:
        await self._keeper.start()
        self._sweeper = asyncio.create_task(self._sweep(), name=f"sweeps of {self._name}")

    async def close(self) -> None:
        lanes = self._keeper.connection
        await self._keeper.close()
        if lanes is not None:
            await lanes.ended()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
        await self._waiting.close()
        self._lists.close()

    async def get(self, key: bytes) -> bytes | None:
        return await outcome(functools.partial(self.get_soon, key))

    def get_soon(self, key: bytes, tell: Tell[bytes | None]) -> None:
        def told(found: Versioned | SfssError | None) -> None:
            tell(found.data if isinstance(found, Versioned) else found)

        self._gets_soon(key, told)

    async def gets(self, key: bytes) -> Versioned | None:
        return await outcome(functools.partial(self._gets_soon, key))

    async def head(self, key: bytes) -> bytes | None:
        return await outcome(functools.partial(self.head_soon, key))

    def head_soon(self, key: bytes, tell: Tell[bytes | None]) -> None:
        def told(rows: Rows | SfssError) -> None:
            if isinstance(rows, SfssError):
                tell(rows)
            elif not rows:
                tell(None)
            elif rows[0]["header"] is not None:
                tell(rows[0]["header"])
            else:
                self._waiting.run(self._head_of_imported(key), tell)

        lanes = self._lanes_for(key, tell)
        if lanes is not None:
            number, statements = self._tables.of(key)
            lanes.ask(number, statements.head, (key,), told)

    async def set(self, key: bytes, data: bytes, expiry: int = 0) -> bool:
        return await self._write(key, data, lambda statements: statements.set, expiry)

    def set_soon(self, key: bytes, data: bytes, tell: Tell[bool]) -> None:
        self._write_soon(key, data, lambda statements: statements.set, (0,), tell)

    async def add(self, key: bytes, data: bytes) -> bool:
        return await self._write(key, data, lambda statements: statements.add, 0)

    async def replace(self, key: bytes, data: bytes, token: int, expiry: int = 0) -> bool:
        return await self._write(key, data, lambda statements: statements.replace, expiry, token)

    async def delete(self, key: bytes) -> bool:
        rows = await self._order(key, lambda statements: statements.delete)
        return bool(rows) and bool(rows[0]["was_there"])

    async def remove(self, key: bytes, token: int) -> bool:
        return bool(await self._order(key, lambda statements: statements.remove, token))

    async def scan(self, after: bytes, count: int, until: bytes = b"") -> list[Listed]:
        self._check_here()
        return await self._lists.scan(after, count, until)

    async def heads(self, after: bytes, count: int, until: bytes = b"") -> Heads:
        self._check_here()
        return await self._lists.heads(after, count, until)

    async def any_in(self, ranges: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        self._check_here()
        return await self._lists.any_in(ranges)

    async def keys(self) -> AsyncGenerator[list[bytes], None]:
        self._check_here()
        async for batch in self._lists.keys():
            yield batch

    async def stats(self) -> dict[str, str]:
        self._check_here()
        return await self._lists.statistics()

    # --- what goes over the lanes ---

    def _gets_soon(self, key: bytes, tell: Tell[Versioned | None]) -> None:
        def told(rows: Rows | SfssError) -> None:
            if isinstance(rows, SfssError):
                tell(rows)
            elif not rows:
                tell(None)
            elif (header := rows[0]["header"]) is not None:
                content = rows[0]["content"] or b""  # None: it is lost, and the record is seen to be damaged
                tell(Versioned(header + content, rows[0]["revision"]))
            else:
                self._waiting.run(self._imported(key, rows[0]), tell)

        lanes = self._lanes_for(key, tell)
        if lanes is not None:
            number, statements = self._tables.of(key)
            lanes.ask(number, statements.get, (key,), told)

    async def _imported(self, key: bytes, row: Any) -> Versioned:
        """A file that has no header yet, with one; it is noted, if the file is still that.

        What doesn't fit what the row tells of it is seen to be damaged by whoever reads it, and no header is noted.
        """
        content: bytes = row["content"] or b""
        make = functools.partial(pg_statements.imported, row)
        header, sound = await asyncio.to_thread(make) if len(content) > LONG else make()
        lanes = self._keeper.connection
        if sound and lanes is not None:
            number, statements = self._tables.of(key)
            lanes.order(number, statements.note_header, (key, row["revision"], header), _whatever)
        return Versioned(header + content, row["revision"])

    async def _head_of_imported(self, key: bytes) -> bytes | None:
        found = await self.gets(key)
        return None if found is None else pg_statements.row(found.data).header

    async def _write(
        self, key: bytes, data: bytes, which: Callable[[Statements], str], expiry: int, *token: int
    ) -> bool:
        return await outcome(functools.partial(self._write_soon, key, data, which, (expiry, *token)))

    def _write_soon(
        self,
        key: bytes,
        data: bytes,
        which: Callable[[Statements], str],
        numbers: tuple[int, ...],
        tell: Tell[bool],
    ) -> None:
        def told(rows: Rows | SfssError) -> None:
            tell(rows if isinstance(rows, SfssError) else bool(rows))

        lanes = self._lanes_for(key, tell)
        if lanes is None:
            return
        if self.capabilities and len(data) > self.capabilities.largest_value:
            tell(self._too_large())
            return
        number, statements = self._tables.of(key)
        lanes.order(number, which(statements), (key, *pg_statements.row(data), *numbers), told)

    async def _order(self, key: bytes, which: Callable[[Statements], str], *token: int) -> Rows:
        def begin(tell: Tell[Rows]) -> None:
            lanes = self._lanes_for(key, tell)
            if lanes is not None:
                number, statements = self._tables.of(key)
                lanes.order(number, which(statements), (key, *token), tell)

        return await outcome(begin)

    def _lanes_for(self, key: bytes, tell: Tell[Any]) -> Lanes | None:
        """None if the node is away, which is told. Raises BadRequest."""
        check_key(key)
        if self._keeper.connection is None:
            tell(self._keeper.is_away())
        return self._keeper.connection

    def _too_large(self) -> TooLarge:
        assert self.capabilities is not None
        limit = self.capabilities.largest_value
        return TooLarge(
            f"node {self._name} ({KIND}) takes records of at most {limit} bytes: send a smaller file, or have it cut"
            " into smaller blocks (limits.record_size)",
            limit=limit,
            setting="limits.record_size",
        )

    # --- connecting ---

    async def _connect(self) -> Lanes:
        """Connections by which the node has been seen to be one that can be used. Raises NodeError."""
        deadline = asyncio.get_running_loop().time() + self._connect_timeout
        connection = await self._open(self._settings, self._connect_timeout)
        asked = time.monotonic()
        try:
            looking = look(connection, self._name, self._place.words, self._largest_value)
            seen = await pg_connect.within(deadline - asyncio.get_running_loop().time(), connection, looking)
        except BaseException as error:
            pg_connect.hang_up(connection)
            if isinstance(error, TimeoutError):
                raise NodeError(self._name, f"no answer within {self._connect_timeout:g} s") from None
            raise
        answered = time.monotonic()
        self.epoch = Epoch(seen.time - (asked + answered) / 2, (answered - asked) / 2)
        self.capabilities, self.identity = seen.capabilities, frozenset({seen.store})
        self._tables = Tables(seen.digits)
        return Lanes(
            self._name,
            connection,
            functools.partial(self._open, self._settings, self._timeout),
            _run if self._place.prepared else functools.partial(_run_in_transaction, self._settings),
            count=self._place.connections,
            timeout=self._timeout,
            traffic=self.traffic,
        )

    async def _open(self, settings: dict[str, str], timeout: float) -> Connection:
        return await pg_connect.connect(self._place, self._name, timeout=timeout, settings=settings)

    async def _open_for_lists(self) -> Connection:
        return await self._open(self._settings | pg_lists.SETTINGS, self._timeout)

    def _what(self) -> Capabilities:
        assert self.capabilities is not None
        return self.capabilities

    def _check_here(self) -> None:
        if self._keeper.connection is None:
            raise self._keeper.is_away()

    async def _sweep(self) -> None:
        """From time to time, for ever. What isn't swept now is the next time."""
        while True:
            await asyncio.sleep(SWEEPS * random.uniform(0.5, 1.5))  # so that fronts don't all look at once
            if self._keeper.connection is not None:
                try:
                    await self._lists.sweep(self._tables)
                except SfssError as error:
                    log.info("rows that have expired stay a while longer: %s", error)


async def _run(connection: Connection, statement: str, arguments: tuple[Any, ...]) -> Rows:
    return list(await connection.fetch(statement, *arguments))


async def _run_in_transaction(
    settings: dict[str, str], connection: Connection, statement: str, arguments: tuple[Any, ...]
) -> Rows:
    """Where pgbouncer gives another server's connection to each transaction."""
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(f"SET LOCAL statement_timeout = '{settings['statement_timeout']}'")
        return list(await connection.fetch(statement, *arguments))


def _whatever(_: Rows | SfssError) -> None:
    """Of what is only good to have done."""
