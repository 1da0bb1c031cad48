"""The tables, from numbered ``.sql`` files: brought up to date in one transaction, by one process at a time."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sfss.catalogue.changes import moment
from sfss.errors import ConfigError
from sfss.sqlfiles import numbered

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_VERSIONS = (
    "CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT PRIMARY KEY, name TEXT NOT NULL, at TEXT NOT NULL)"
)
_LOCK = 0x73667373  # PostgreSQL's advisory lock of ours; SQLite has just one writer at a time
_ONLY = re.compile(r"^-- only (\w+)$", re.MULTILINE)


async def bring_up_to_date(connection: AsyncConnection, database: str) -> bool:
    """Within a transaction; whether the tables are new, and so empty. Raises ConfigError if they are too new."""
    dialect = connection.dialect.name
    if dialect == "postgresql":
        await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        if (await connection.exec_driver_sql("SELECT current_schema()")).scalar() is None:  # somebody dropped it
            await connection.exec_driver_sql("CREATE SCHEMA public")
    await connection.exec_driver_sql(_VERSIONS)
    there = (await connection.exec_driver_sql("SELECT max(version) FROM schema_versions")).scalar() or 0
    known, now = numbered("sfss.catalogue"), moment(time.time_ns() // 1000)
    if there > max(known):
        raise ConfigError(
            f"catalogue.url: the tables in {database} are of version {there}, and this sfss knows {max(known)}: a newer"
            " one has made them. Run that one, or name another database: sfss fills it from the nodes"
        )
    for number, (name, text) in known.items():
        if number > there:
            for statement in statements(text, dialect):
                await connection.exec_driver_sql(statement)
            await connection.exec_driver_sql(
                f"INSERT INTO schema_versions (version, name, at) VALUES ({number}, '{name}', '{now}')"  # noqa: S608
            )
    if there == 0:  # noted at once, and not by who has made them: he may be killed
        await connection.exec_driver_sql(
            f"INSERT INTO state (name, value, since) VALUES ('behind', '{new_token()}', '{now}')"  # noqa: S608
        )
    return there == 0


def statements(text: str, dialect: str) -> Iterator[str]:
    """Those of a script that are for this database. A statement ends with a semicolon at the end of a line."""
    for part in re.split(r";$", text, flags=re.MULTILINE):
        only = _ONLY.search(part)
        statement = re.sub(r"--.*$", "", part, flags=re.MULTILINE).strip()
        if statement and (only is None or only[1] == dialect):
            yield statement


def new_token() -> str:
    """For a note that is to be told from the next one of its kind."""
    return secrets.token_hex(8)
