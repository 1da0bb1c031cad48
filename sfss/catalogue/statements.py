"""What is said to the database, in SQL that SQLite and PostgreSQL read alike. When it is said isn't known here."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import TextClause, text

from sfss.catalogue.changes import STORED, Change, FileChange, Rows, moment, upload_row
from sfss.catalogue.database import SQLITE, Transaction
from sfss.catalogue.schema import new_token

_FILE = ("path", "file_id", "size", "sha256", "content_type", "modified", "version", "front", "state",
         "record_key", "place")  # fmt: skip
_PIECE = (
    "path",
    "number",
    "copy",
    "node",
    "record_key",
    "blocks",
    "size",
    "first_byte",
    "block_size",
    "version",
    "front",
)
_BIG = {"place", "number", "copy", "blocks", "size", "first_byte", "block_size", "version", "front"}


def _upsert(table: str, key: Sequence[str], columns: Sequence[str], values: str, where: str = "") -> str:
    changed = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in key)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) {values} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changed}"
        f"{f' WHERE {where}' if where else ''}"
    )


def _values(columns: Sequence[str]) -> str:
    return f"VALUES ({', '.join(f':{column}' for column in columns)})"


def _for_each(make: Callable[[str], str], columns: Sequence[str]) -> Mapping[str, TextClause]:
    """A statement for each dialect, made of how that reads the rows of the JSON ``:rows``."""
    typed = ", ".join(f"{column} {'BIGINT' if column in _BIG else 'TEXT'}" for column in columns)
    extracted = ", ".join(f"json_extract(value, '$.{column}') AS {column}" for column in columns)
    return {
        "postgresql": text(make(f"json_to_recordset(CAST(:rows AS json)) AS told({typed})")),
        SQLITE: text(make(f"(SELECT {extracted} FROM json_each(:rows)) AS told")),  # noqa: S608
    }


_NEWER = "(excluded.version, excluded.front) > (files.version, files.front)"
_PUT_FILES = _for_each(
    lambda told: _upsert("files", ["path"], _FILE, f"SELECT {', '.join(_FILE)} FROM {told} WHERE true", _NEWER),  # noqa: S608
    _FILE,
)
_PUT_PIECES = _for_each(
    lambda told: (
        f"INSERT INTO striped_pieces ({', '.join(_PIECE)}) SELECT {', '.join(_PIECE)} FROM {told} WHERE true"  # noqa: S608
        " ON CONFLICT (path, version, front, number, copy) DO NOTHING"
    ),
    _PIECE,
)
_OF_THAT_VERSION = "path = :path AND version = :version AND front = :front"
_MOVE_FILE = text(f"UPDATE files SET place = :place WHERE {_OF_THAT_VERSION}")  # noqa: S608
_DROP_FILE = text(f"DELETE FROM files WHERE {_OF_THAT_VERSION}")  # noqa: S608
_DROP_PIECES = text(f"DELETE FROM striped_pieces WHERE {_OF_THAT_VERSION}")  # noqa: S608
_PUT_PLACE = text(_upsert("places", ["place", "copy"], ("place", "copy", "node"), _values(("place", "copy", "node"))))

_UPLOAD = ("upload", "path", "size", "received", "expires")
_PUT_UPLOAD = text(_upsert("uploads", ["upload"], _UPLOAD, _values(_UPLOAD), "excluded.received >= uploads.received"))
_DROP_UPLOAD = text("DELETE FROM uploads WHERE upload = :upload")

_BEHIND = text(_upsert("state", ["name"], ("name", "value", "since"), _values(("name", "value", "since"))))
_CLAIM = text(
    _upsert("state", ["name"], ("name", "value", "since"), _values(("name", "value", "since")),
            "state.since < :now OR state.value = :value")
)  # fmt: skip
_FRONT = ("front", "host", "pid", "started", "seen")
_PUT_FRONT = text(_upsert("fronts", ["front"], _FRONT, _values(_FRONT)))


# --- files and uploads ---


async def write(
    transaction: Transaction, changes: Sequence[Change], rows: Rows, known: Container[int] = frozenset()
) -> set[int]:
    """The rows of these changes; of each file those of the newest version win, whatever comes first.

    ``known``: the places that are rows already. Returns those that are rows now, once this is committed.
    """
    places: set[int] = set()
    files = _newest(change for change in changes if isinstance(change, FileChange))
    if files:
        places = await _put_files(transaction, files, rows, known)
    if uploads := [change for change in changes if not isinstance(change, FileChange)]:
        open_ones = [upload_row(change.upload, change.state) for change in uploads if change.state is not None]
        await transaction.run(_PUT_UPLOAD, open_ones)
        await transaction.run(_DROP_UPLOAD, [{"upload": change.upload} for change in uploads if change.state is None])
    return places


def write_alone(
    changes: Sequence[Change], rows: Rows, known: Container[int], dialect: str
) -> tuple[TextClause, Sequence[Mapping[str, Any]]] | None:
    """What ``write`` would do, if that is one statement: of files that are one record each, at places that are rows."""
    files = [change for change in changes if isinstance(change, FileChange) and not change.striped.extents]
    if not changes or len(files) < len(changes):
        return None
    made = [rows.file(file.path, file.header) for file in _newest(files)]
    if any(row["place"] is not None and row["place"] not in known for row in made):
        return None
    return _PUT_FILES[dialect], made


async def write_place(transaction: Transaction, files: Sequence[FileChange], rows: Rows) -> None:
    """Where these files lie, in place of where they are said to, where the row is still of that version."""
    made = [rows.file(file.path, file.header) for file in files]
    await transaction.run(_PUT_PLACE, rows.places({row["place"] for row in made}))
    await transaction.run(_MOVE_FILE, made)
    await transaction.run(_DROP_PIECES, made)
    await _put_pieces(transaction, files, rows)


async def write_places(transaction: Transaction, rows: Rows) -> None:
    """All places that a file was seen at: a row may be lacking of one whose files' rows are right."""
    await transaction.run(_PUT_PLACE, rows.every_place())


async def write_as_it_is(transaction: Transaction, file: FileChange, rows: Rows) -> None:
    """The rows of a file in place of whatever there is: they were seen to be wrong."""
    await transaction.run(text("DELETE FROM striped_pieces WHERE path = :path"), {"path": file.path})
    await transaction.run(text("DELETE FROM files WHERE path = :path"), {"path": file.path})
    await _put_files(transaction, [file], rows)


async def drop_file(transaction: Transaction, path: str, order: tuple[int, int]) -> None:
    """Remove the rows of a file, if they still are those of that version."""
    values = {"path": path, "version": order[0], "front": order[1]}
    await transaction.run(_DROP_PIECES, values)
    await transaction.run(_DROP_FILE, values)


async def purge(transaction: Transaction, *, deleted_before: int, expired_before: int) -> None:
    """Forget what was deleted, and uploads that expired, before these times, in microseconds since the epoch."""
    await transaction.run(
        text("DELETE FROM files WHERE state <> :stored AND version < :before"),
        {"stored": STORED, "before": deleted_before},
    )
    await transaction.run(
        text(
            "DELETE FROM striped_pieces WHERE NOT EXISTS (SELECT 1 FROM files WHERE files.path = striped_pieces.path"
            " AND files.version = striped_pieces.version AND files.front = striped_pieces.front)"
        )
    )
    await transaction.run(text("DELETE FROM uploads WHERE expires < :before"), {"before": moment(expired_before)})


def _newest(files: Iterable[FileChange]) -> list[FileChange]:
    """Of each path the newest, in the order of paths: so of two fronts none waits for the other that waits for it."""
    newest: dict[str, FileChange] = {}
    for file in files:
        there = newest.get(file.path)
        if there is None or there.header.order < file.header.order:
            newest[file.path] = file
    return [newest[path] for path in sorted(newest)]


async def _put_files(
    transaction: Transaction, files: Iterable[FileChange], rows: Rows, known: Container[int] = frozenset()
) -> set[int]:
    files = list(files)
    made = [rows.file(file.path, file.header) for file in files]
    places = {row["place"] for row in made if row["place"] is not None and row["place"] not in known}
    await transaction.run(_PUT_PLACE, rows.places(places) if places else [])
    await transaction.run_together(_PUT_FILES[transaction.dialect], made)
    await _put_pieces(transaction, files, rows)
    return places


async def _put_pieces(transaction: Transaction, files: Iterable[FileChange], rows: Rows) -> None:
    pieces = [piece for file in files if file.striped.extents for piece in rows.pieces(*file)]
    await transaction.run_together(_PUT_PIECES[transaction.dialect], pieces)


async def files_between(transaction: Transaction, after: str, until: str) -> Sequence[Mapping[str, Any]]:
    """The rows of ``files`` behind a path, up to another one."""
    return await _between(transaction, "files", _FILE, after, until)


async def pieces_between(transaction: Transaction, after: str, until: str) -> Sequence[Mapping[str, Any]]:
    """The rows of ``striped_pieces``, likewise."""
    return await _between(transaction, "striped_pieces", _PIECE, after, until)


async def path_further(transaction: Transaction, after: str, count: int) -> str | None:
    """The path of the last of so many rows behind one; None if there is none."""
    some = "SELECT path FROM files WHERE path > :after ORDER BY path LIMIT :count"
    statement = text(f"SELECT max(path) AS path FROM ({some}) AS those")  # noqa: S608
    rows = await transaction.rows(statement, {"after": after, "count": count})
    path: str | None = rows[0].path
    return path


async def file_at(transaction: Transaction, path: str) -> tuple[Mapping[str, Any] | None, Sequence[Mapping[str, Any]]]:
    """The rows of ``files`` and ``striped_pieces`` of one file."""
    found: list[list[dict[str, Any]]] = []
    for table, columns in (("files", _FILE), ("striped_pieces", _PIECE)):
        statement = text(f"SELECT {', '.join(columns)} FROM {table} WHERE path = :path")  # noqa: S608
        found.append([dict(row._mapping) for row in await transaction.rows(statement, {"path": path})])  # noqa: SLF001
    return (found[0][0] if found[0] else None), found[1]


async def _between(
    transaction: Transaction, table: str, columns: Sequence[str], after: str, until: str
) -> Sequence[Mapping[str, Any]]:
    statement = f"SELECT {', '.join(columns)} FROM {table} WHERE path > :after AND path <= :until"  # noqa: S608
    rows = await transaction.rows(text(statement), {"after": after, "until": until})
    return [dict(row._mapping) for row in rows]  # noqa: SLF001


# --- fronts, and whether rows are missing ---


class Front(NamedTuple):
    """A process that writes here."""

    front: str
    host: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> Front:
        """This process; each time another one."""
        return cls(new_token(), _host(), os.getpid(), _now())


def _host() -> str:
    """Where the number of a process means the same one: a machine since its start, and a container in it."""
    try:
        booted = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {booted} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()} {new_token()}"  # nobody can tell


def _now() -> str:
    return moment(time.time_ns() // 1000)


async def register(transaction: Transaction, front: Front) -> None:
    """It writes from now on."""
    await transaction.run(_PUT_FRONT, {**front._asdict(), "seen": _now()})


async def renew(transaction: Transaction, front: Front) -> bool:
    """It still does; False if the database doesn't know of it any more, and so is not the one that it was."""
    statement = text("UPDATE fronts SET seen = :seen WHERE front = :front")
    return bool(await transaction.run(statement, {"seen": _now(), "front": front.front}))


async def unregister(transaction: Transaction, front: str) -> None:
    """It has ended, and all its rows are there, or were made anew."""
    await transaction.run(text("DELETE FROM fronts WHERE front = :front"), {"front": front})


async def dead_fronts(transaction: Transaction, silent_for: float) -> list[str]:
    """Those that ended without a word: on this machine that can be seen, of others by their silence, in seconds."""
    host, since = _host(), moment(time.time_ns() // 1000 - int(silent_for * 1e6))
    rows = await transaction.rows(text("SELECT front, host, pid, seen FROM fronts"))
    return [row.front for row in rows if row.seen < since or (row.host == host and not _runs(row.pid))]


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def note_behind(transaction: Transaction) -> None:
    """Rows may be missing, from now until a reindex that begins later has ended."""
    await transaction.run(_BEHIND, {"name": "behind", "value": new_token(), "since": _now()})


async def behind(transaction: Transaction) -> str | None:
    """The token of the last such note; None if there is none."""
    found = await transaction.rows(text("SELECT value FROM state WHERE name = 'behind'"))
    return found[0].value if found else None


async def forget_behind(transaction: Transaction, token: str) -> None:
    """Take the note away, if it is still that one."""
    await transaction.run(text("DELETE FROM state WHERE name = 'behind' AND value = :token"), {"token": token})


async def claim_reindex(transaction: Transaction, front: str, seconds: float) -> bool:
    """Whether it is this front's to make the rows anew, for so long; it may claim that again."""
    now = time.time_ns() // 1000
    values = {"name": "reindex", "value": front, "since": moment(now + int(seconds * 1e6)), "now": moment(now)}
    return bool(await transaction.run(_CLAIM, values))


async def give_up_reindex(transaction: Transaction, front: str) -> None:
    """It is anybody's again."""
    await transaction.run(text("DELETE FROM state WHERE name = 'reindex' AND value = :front"), {"front": front})


# --- mirrors ---

_NODE = ("name", "address", "state", "role", "last_seen", "records", "used_space", "available_space", "total_space")
_PUT_NODE = text(
    _upsert("nodes", ["name"], _NODE, _values(_NODE)).replace(  # what isn't known now stays as it was known last
        "last_seen = excluded.last_seen", "last_seen = COALESCE(excluded.last_seen, nodes.last_seen)"
    )
)


async def write_nodes(transaction: Transaction, nodes: Sequence[Mapping[str, Any]]) -> None:
    """These are the nodes now."""
    there = {row.name for row in await transaction.rows(text("SELECT name FROM nodes"))}
    for name in there - {node["name"] for node in nodes}:
        await transaction.run(text("DELETE FROM nodes WHERE name = :name"), {"name": name})
    await transaction.run(_PUT_NODE, nodes)


async def write_ring(transaction: Transaction, points: Sequence[tuple[str, int]]) -> None:
    """These are the ring's points now, each with its node."""
    numbers: dict[str, int] = {}
    wanted = set()
    for node, point in points:
        numbers[node] = numbers.get(node, -1) + 1
        wanted.add((node, numbers[node], point))
    rows = await transaction.rows(text("SELECT node, number, point FROM ring_points"))
    if {tuple(row) for row in rows} != wanted:
        await transaction.run(text("DELETE FROM ring_points"))
        await transaction.run(
            text("INSERT INTO ring_points (node, number, point) VALUES (:node, :number, :point)"),
            [{"node": node, "number": number, "point": point} for node, number, point in sorted(wanted)],
        )


async def write_uploads(transaction: Transaction, uploads: Sequence[Mapping[str, Any]]) -> None:
    """These are the open uploads, of all that there were when somebody looked."""
    await transaction.run(text("DELETE FROM uploads"))
    if uploads:
        await transaction.run(_PUT_UPLOAD, uploads)


_MIRRORED = {
    "namespaces": ("name", "enabled", "layout", "pieces", "copies", "quota", "max_file_size", "write_once"),
    "keys": ("id", "name", "hash", "created", "expires"),
}


async def mirror(transaction: Transaction, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """These are all the rows of ``namespaces`` or ``keys``. What has no column stands in ``details``, as JSON.

    Who calls it sees to it that nothing is in a row that would open anything: of secrets their hashes.
    """
    columns = _MIRRORED[table]
    await transaction.run(text(f"DELETE FROM {table}"))  # noqa: S608  one of the two
    every = [
        {**{column: row.get(column) for column in columns}, "details": json.dumps(row, default=str, sort_keys=True)}
        for row in rows
    ]
    if every:
        named = (*columns, "details")
        await transaction.run(text(f"INSERT INTO {table} ({', '.join(named)}) {_values(named)}"), every)
