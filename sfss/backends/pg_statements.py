"""What is said to a PostgreSQL node about one key: in one statement each, to the one table in which the key's row lies.

A statement is a transaction of its own, and changes one row: no two of them can wait for each other. Placeholders:
$1 is the key; of what writes, $2 to $10 are the fields of ``Row``, $11 is the expiry in seconds, 0 for none; $12, or $2
of what doesn't write, is a token. Whether a row is there is decided by the server's clock.

Pure, but for the names of the tables, which are those of ``sfss/post/sql``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sfss import manifest, record
from sfss.errors import Damaged
from sfss.record import Header, Kind

SWEPT_AT_ONCE = 1000  # rows of a table: far less than may take too long
_ALIVE = "(f.expires IS NULL OR f.expires > now())"
_FOUND = "f.header, coalesce(f.content, c.content) AS content, f.revision, f.version, f.path, f.size, f.digest"
_FIELDS = ("header", "content", "size", "kind", "version", "front", "digest", "whole", "stripes")
_EXPIRY = "CASE WHEN $11::bigint > 0 THEN now() + $11::bigint * interval '1 second' END"
_INSERT = (
    f"INSERT INTO {{table}} AS f (key, {', '.join(_FIELDS)}, expires)"
    f" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, {_EXPIRY})"
)
_OVERWRITE = (
    f"ON CONFLICT (key) DO UPDATE SET {', '.join(f'{field} = EXCLUDED.{field}' for field in _FIELDS)},"
    " expires = EXCLUDED.expires, revision = EXCLUDED.revision, shared = NULL, path = NULL"
)
_ASSIGN = ", ".join(f"{field} = ${number}" for number, field in enumerate(_FIELDS, 2))


class Statements(NamedTuple):
    """Those for one table. Each gives one row if it did something, none if not."""

    get: str
    head: str
    set: str
    add: str
    replace: str
    delete: str
    remove: str
    note_header: str
    sweep: str  # gives how many it removed


class Row(NamedTuple):
    """A value as the fields of a row: of a record, its parts."""

    header: bytes  # prefix and header; empty of what is no record
    content: bytes | memoryview
    size: int
    kind: int | None
    version: int | None
    front: int | None
    digest: bytes | None
    whole: int | None = None  # these two of what names the blocks of a large file
    stripes: list[str] | None = None


class Tables:
    """Which table has a key: the one of all, or the one that the first ``digits`` of the key's MD5 name."""

    def __init__(self, digits: int) -> None:
        self._digits = digits
        names = [f"{number:0{digits}x}" for number in range(16**digits)] if digits else [""]
        self._all = {name: _statements(name) for name in names}

    def __iter__(self) -> Iterator[Statements]:
        return iter(self._all.values())

    def of(self, key: bytes) -> tuple[int, Statements]:
        """The first byte of the key's MD5, and what is said to its table."""
        digest = hashlib.md5(key, usedforsecurity=False).digest()
        return digest[0], self._all[digest[:1].hex()[: self._digits]]


def row(data: bytes) -> Row:
    """A value, split."""
    end = record.header_end(data)
    if end is None or end > len(data):
        return _no_record(data)
    try:
        header = record.decode_bare_header(data[:end])
    except Damaged:  # kept as it is: whoever reads it finds it damaged
        return _no_record(data)
    if not (0 <= header.version < 2**63 and 0 <= header.front < 2**63):
        return _no_record(data)
    content = memoryview(data)[end:]
    found = Row(data[:end], content, len(content), header.kind, header.version, header.front, _digest(header))
    return found._replace(whole=header.size, stripes=_stripes(content)) if header.kind == Kind.MANIFEST else found


def imported(row: Mapping[str, Any]) -> tuple[bytes, bool]:
    """The prefix and header of a file that SQL's IMPORT() has put, which are the same whoever makes them.

    And whether the content is the one that was put: if it isn't, or is lost, it doesn't fit the header either.
    """
    content, digest = row["content"] or b"", hashlib.sha256(row["content"] or b"").digest()
    sound = digest == row["digest"]
    checksum = record.payload_checksum(content) if sound else bytes(16)
    size = row["size"]
    return record.encode(
        Header(Kind.FILE, row["version"], 0, size, row["digest"], size, checksum, path=row["path"])
    ), sound


def _no_record(data: bytes) -> Row:
    return Row(b"", data, len(data), None, None, None, None)


def _digest(header: Header) -> bytes | None:
    """What rows with the same content have in common; None where nobody looks for equal ones."""
    if header.kind == Kind.FILE:
        return header.sha256 or None
    return header.payload_xxh3 if header.kind == Kind.BLOCK else None


def _stripes(payload: memoryview) -> list[str] | None:
    """Where the blocks of a large file are, for SQL's EXPORT(); None if what should tell it is damaged."""
    try:
        return [f"{extent.stripe}/{extent.blocks}" for extent in manifest.decode(payload).extents]
    except Damaged:
        return None


def _statements(name: str) -> Statements:
    table = f"post.files_{name}" if name else "post.files"
    found = f"SELECT {_FOUND} FROM {table} AS f LEFT JOIN post.contents AS c ON c.hash = f.shared"
    insert = _INSERT.format(table=table)
    return Statements(
        get=f"{found} WHERE f.key = $1 AND {_ALIVE}",
        head=f"SELECT f.header FROM {table} AS f WHERE f.key = $1 AND {_ALIVE}",
        set=f"{insert} {_OVERWRITE} WHERE f.version IS NULL OR EXCLUDED.version IS NULL OR f.expires <= now()"
        " OR (f.version, f.front) <= (EXCLUDED.version, EXCLUDED.front) RETURNING 1",
        add=f"{insert} {_OVERWRITE} WHERE f.expires <= now() RETURNING 1",
        replace=f"UPDATE {table} AS f SET {_ASSIGN}, expires = {_EXPIRY}, revision = nextval('post.revisions'),"
        f" shared = NULL, path = NULL WHERE f.key = $1 AND f.revision = $12 AND {_ALIVE} RETURNING 1",
        delete=f"DELETE FROM {table} AS f WHERE f.key = $1 RETURNING {_ALIVE} AS was_there",
        remove=f"DELETE FROM {table} AS f WHERE f.key = $1 AND f.revision = $2 AND {_ALIVE} RETURNING 1",
        note_header=f"UPDATE {table} AS f SET header = $3 WHERE f.key = $1 AND f.revision = $2 AND f.header IS NULL"
        " RETURNING 1",
        sweep=f"WITH gone AS (DELETE FROM {table} AS f WHERE f.expires <= now() AND f.key IN (SELECT e.key FROM"
        f" {table} AS e WHERE e.expires <= now() LIMIT {SWEPT_AT_ONCE}) RETURNING 1) SELECT count(*) FROM gone",
    )


# Over all tables, merged by their indexes. They begin behind a key, which has at least one byte, so that '' begins all.
_LISTED = "f.key, f.header, f.size, f.revision"
_BEHIND = f"FROM post.files AS f WHERE f.key > $1 AND {_ALIVE}"
SCAN = f"SELECT {_LISTED} {_BEHIND} ORDER BY f.key LIMIT $2"
SCAN_UNTIL = f"SELECT {_LISTED} {_BEHIND} AND f.key < $3 ORDER BY f.key LIMIT $2"
KEYS = f"SELECT f.key {_BEHIND} ORDER BY f.key LIMIT $2"
FIRSTS = (
    f"SELECT (SELECT f.key FROM post.files AS f WHERE f.key > a.after AND {_ALIVE} ORDER BY f.key LIMIT 1) AS key"
    " FROM unnest($1::bytea[]) WITH ORDINALITY AS a (after, number) ORDER BY a.number"
)
# What has expired is removed by one client at a time, for whom nobody waits.
EXPIRED = "SELECT EXISTS (SELECT FROM post.files AS f WHERE f.expires <= now())"
MAY_SWEEP = "SELECT pg_try_advisory_xact_lock(1936094067, 3)"
STATISTICS = """
SELECT pg_backend_pid() AS pid, current_setting('server_version') AS version,
       extract(epoch FROM clock_timestamp())::bigint AS time,
       extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::bigint AS uptime,
       (SELECT coalesce(sum(n_live_tup), 0)::bigint FROM pg_stat_user_tables
        WHERE schemaname = 'post' AND relname LIKE 'files%') AS curr_items,
       (SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables WHERE schemaname = 'post') AS dead_rows,
       (SELECT count(*) FROM pg_inherits WHERE inhparent = 'post.files'::regclass) AS partitions,
       pg_database_size(current_database()) AS bytes, pg_total_relation_size('post.contents') AS shared_bytes,
       current_setting('max_connections') AS max_connections, current_setting('fsync') AS fsync,
       current_setting('synchronous_commit') AS synchronous_commit, s.numbackends AS curr_connections,
       s.xact_commit, s.xact_rollback, s.blks_read, s.blks_hit, s.tup_returned, s.tup_fetched, s.tup_inserted,
       s.tup_updated, s.tup_deleted, s.deadlocks, s.temp_bytes
FROM pg_stat_database AS s WHERE s.datname = current_database()
"""
