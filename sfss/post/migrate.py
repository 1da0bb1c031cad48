"""``sfss post migrate``: makes the tables and functions in a database, or brings them up to date.

All in one transaction, so that a database has them whole or not at all; one at a time, whoever runs it where.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from sfss.addresses import Address, hidden, parse_address
from sfss.backends.pg_connect import Connection, connect, hang_up, is_foreign, place, translated
from sfss.backends.pg_schema import OLDEST
from sfss.errors import ConfigError, NodeError, SfssError
from sfss.sqlfiles import numbered

PARTITIONS = {1: 0, 16: 1, 256: 2}  # and the digits that name one
USUAL = 256
LONGEST = 120.0  # seconds for all of it, for somebody else may be at it
_LOCK = 0x73667373, 1  # an advisory lock of ours: "sfss"; DEDUPLICATE has the second
_VERSIONS = """
CREATE SCHEMA IF NOT EXISTS post;
CREATE TABLE IF NOT EXISTS post.schema_versions (
    version BIGINT PRIMARY KEY, name TEXT NOT NULL, at TIMESTAMPTZ NOT NULL DEFAULT now()
);
"""
# What a front needs, and who calls the functions; by the names of roles, which are data.
_GRANT = """
GRANT USAGE ON SCHEMA post TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA post TO {role};
REVOKE INSERT, UPDATE, DELETE ON post.schema_versions, post.layout FROM {role};
GRANT USAGE ON ALL SEQUENCES IN SCHEMA post TO {role};
"""

Say = Callable[[str], None]


async def migrate(url: str, partitions: int | None, roles: Sequence[str], say: Say) -> None:
    """Bring the database up to date, and let ``roles`` use it.

    ``partitions`` counts only where there are none yet. Raises ConfigError, Unavailable.
    """
    address = _address(url)
    if partitions is not None and partitions not in PARTITIONS:
        raise ConfigError(f"--partitions {partitions}: {', '.join(map(str, PARTITIONS))} are possible")
    to = place(address)
    connection = await connect(to, str(address), timeout=10.0, settings={"jit": "off"})
    try:
        async with asyncio.timeout(LONGEST):
            await _migrate(connection, to.words, partitions, roles, say)
    except TimeoutError:
        raise NodeError(str(address), f"it took more than {LONGEST:g} s: somebody else may be at it") from None
    except SfssError:
        raise
    except Exception as error:
        if not is_foreign(error):
            raise
        raise _wrong(str(address), error) from None
    finally:
        hang_up(connection)


def _address(url: str) -> Address:
    try:
        address = parse_address(url)
    except ValueError:
        address = None
    if address is None or address.scheme != "postgresql":
        raise ConfigError(f"--url {hidden(url)}: write postgresql://user:password@host:port/database")
    return address


async def _migrate(connection: Connection, words: str, partitions: int | None, roles: Sequence[str], say: Say) -> None:
    await _check_server(connection, words)
    known = numbered("sfss.post")
    began = time.monotonic()
    async with connection.transaction(isolation="read_committed"):
        await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", *_LOCK)
        there = await _version(connection)
        if there > max(known):
            raise ConfigError(
                f"{words}: its tables are of version {there}, and this sfss knows {max(known)}: a newer one has made"
                " them; run that one"
            )
        if there == 0:
            await connection.execute(_VERSIONS)
        await _check_partitions(connection, there, partitions, words)
        for number, (name, text) in known.items():
            if number > there:
                await connection.execute(text)
                if number == 1:
                    await _make_partitions(connection, partitions or USUAL)
                await connection.execute(
                    "INSERT INTO post.schema_versions (version, name) VALUES ($1, $2)", number, name
                )
        for role in roles:
            await _grant(connection, role)
    _say_what_was_done(say, words, known, there, partitions or USUAL, time.monotonic() - began)
    for role in roles:
        say(f"{role} may read and write the files")


async def _check_server(connection: Connection, words: str) -> None:
    number, version, encoding = await connection.fetchrow(
        "SELECT current_setting('server_version_num')::integer, current_setting('server_version'),"
        " current_setting('server_encoding')"
    )
    if number < OLDEST:
        raise ConfigError(f"{words} is PostgreSQL {version}: {OLDEST // 10000} or later is needed")
    if encoding != "UTF8":
        raise ConfigError(f"{words}: the database's encoding is {encoding}, and paths need UTF8: make another")


async def _version(connection: Connection) -> int:
    if await connection.fetchval("SELECT to_regclass('post.schema_versions')") is None:
        return 0
    return await connection.fetchval("SELECT max(version) FROM post.schema_versions") or 0


async def _check_partitions(connection: Connection, there: int, wanted: int | None, words: str) -> None:
    if there == 0 or wanted is None:
        return
    digits = await connection.fetchval("SELECT digits FROM post.layout")
    if digits != PARTITIONS[wanted]:
        raise ConfigError(
            f"--partitions {wanted}: {words} has {16**digits} already, and rows don't move: make another database with"
            " as many as you want, and let it join the ring while this one leaves (docs/operations/growing.rst)"
        )


async def _make_partitions(connection: Connection, partitions: int) -> None:
    await connection.execute("SELECT post.make_partitions($1)", PARTITIONS[partitions])


async def _grant(connection: Connection, role: str) -> None:
    quoted = await connection.fetchval("SELECT quote_ident(rolname) FROM pg_roles WHERE rolname = $1", role)
    if quoted is None:
        raise ConfigError(f"--grant {role}: there is no such role: CREATE ROLE, or createuser, makes one")
    await connection.execute(_GRANT.format(role=quoted))


def _say_what_was_done(
    say: Say, words: str, known: Mapping[int, tuple[str, str]], there: int, partitions: int, took: float
) -> None:
    done = [name for number, (name, _) in known.items() if number > there]
    if not done:
        say(f"{words} is up to date: version {there}")
        return
    made = f", {partitions} partitions" if there == 0 and partitions > 1 else ""
    say(f"{words} is of version {max(known)} now: {', '.join(done)}{made}, in {took:.1f} s")


def _wrong(node: str, error: Exception) -> SfssError:
    code = getattr(error, "sqlstate", None)
    if code == "42501":
        return ConfigError(f"node {node}: {error}; run it as the database's owner, or as a superuser: then IMPORT and"
                           " EXPORT can be used, too")  # fmt: skip
    if code in ("42723", "42P07", "42P06"):
        return ConfigError(
            f"node {node}: {error}: another program has something of that name; use a database of its own"
        )
    return translated(node, error)
