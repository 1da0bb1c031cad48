"""What a PostgreSQL has to be, so that files can be kept there, and what is asked of it to see whether it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sfss.backends.base import Capabilities
from sfss.backends.pg_connect import LARGEST, Connection, is_foreign, translated
from sfss.errors import NodeError

KIND = "postgresql"
SCHEMA = 2  # the version of the tables that this client knows: the number of the last file in sfss/post/sql
OLDEST = 130000  # of PostgreSQL, as server_version_num

_WHO = """
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::integer AS number,
       current_setting('server_encoding') AS encoding, current_setting('synchronous_commit') AS commits,
       coalesce(current_setting('fsync', true), 'on') AS fsync, pg_is_in_recovery() AS replica,
       extract(epoch FROM pg_postmaster_start_time()) || '/' ||
       (SELECT oid FROM pg_database WHERE datname = current_database()) AS store,
       current_setting('transaction_read_only') AS read_only, extract(epoch FROM clock_timestamp())::float8 AS time,
       coalesce((SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = 'post'), true) AS allowed,
       (SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = 'post' AND c.relname = 'layout') AS layouts
"""
_LAYOUT = (
    "SELECT (SELECT max(version) FROM post.schema_versions) AS version, (SELECT digits FROM post.layout) AS digits"
)


class Seen(NamedTuple):
    """What a database was seen to be."""

    capabilities: Capabilities
    store: str  # the moment of the server's start, and the database's number there: no other one has both
    digits: int  # of a key's MD5, that name its partition
    time: float  # by its clock, seconds since the epoch


async def look(connection: Connection, node: str, words: str, largest: int) -> Seen:
    """What a node can do; ``words`` is its URL for people. Raises NodeError if its files can't be kept there."""
    try:
        who = await connection.fetchrow(_WHO)
        _check(node, who, words)
        layout = await connection.fetchrow(_LAYOUT)
    except Exception as error:
        if not is_foreign(error):
            raise
        raise translated(node, error) from None
    _check_version(node, layout["version"], words)
    caveats = _caveats(who["fsync"], who["commits"])
    capabilities = Capabilities(
        KIND, who["version"], durable=not caveats, evicting=False, cas=True, ttl=True, head=True, scan=True,
        largest_value=min(largest, LARGEST), versions=True, caveats=caveats,
    )  # fmt: skip
    return Seen(capabilities, who["store"], layout["digits"], who["time"])


def _caveats(fsync: str, commits: str) -> tuple[str, ...]:
    found = []
    if fsync != "on":
        found.append("has fsync = off: a power cut may cost all that it has")
    if commits == "off":
        found.append("has synchronous_commit = off: its last writes may be lost when it or its machine stops")
    return tuple(found)


def _check(node: str, who: Mapping[str, Any], words: str) -> None:
    if who["number"] < OLDEST:
        raise NodeError(node, f"is PostgreSQL {who['version']}: {OLDEST // 10000} or later is needed")
    if who["replica"] or who["read_only"] == "on":
        raise NodeError(node, "takes no changes: it is a replica, or was made read-only; name the primary")
    if who["encoding"] != "UTF8":
        raise NodeError(node, f"the database's encoding is {who['encoding']}, and paths need UTF8: make another")
    if not who["layouts"]:
        raise NodeError(node, f"there are no tables of sfss in {words}: run: sfss post migrate --url {words}")
    if not who["allowed"]:
        raise NodeError(node, f"{words} may not use the tables of sfss: run: sfss post migrate --url ... --grant USER")


def _check_version(node: str, version: int, words: str) -> None:
    if version < SCHEMA:
        raise NodeError(node, f"its tables are of version {version}, and {SCHEMA} is needed: run: sfss post migrate"
                        f" --url {words}")  # fmt: skip
    if version > SCHEMA:
        raise NodeError(node, f"its tables are of version {version}, and this sfss knows {SCHEMA}: a newer one has made"
                        " them; run that one")  # fmt: skip
