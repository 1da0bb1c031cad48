"""Lists and searches by the catalogue: rows as the files that they are of, in the order of their paths' bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text

from sfss.catalogue.changes import STORED
from sfss.catalogue.database import SQLITE, Transaction
from sfss.cluster.listing import Found
from sfss.file_needs import Search
from sfss.record import Header, Kind

PAGE = 5000  # files that are read at once
_LAST, _SURROGATES = 0x10FFFF, (0xD7FF, 0xE000)
_COLUMNS = "path, size, sha256, content_type, version, front"


def behind_all(prefix: str) -> str | None:
    """The first text that comes behind all that begin so, in the order of bytes; None if there is none.

    UTF-8 sorts as its characters' numbers do.
    """
    for end in range(len(prefix), 0, -1):
        last = ord(prefix[end - 1])
        if last < _LAST:
            return prefix[: end - 1] + chr(_SURROGATES[1] if last == _SURROGATES[0] else last + 1)
    return None


class Query:
    """A statement over the files that are stored, put together piece by piece."""

    def __init__(self, prefix: str) -> None:
        self._conditions = ["state = :state"]
        self._values: dict[str, Any] = {"state": STORED}
        if prefix:
            self.where("path >= :prefix", prefix=prefix)
            if (end := behind_all(prefix)) is not None:
                self.where("path < :end", end=end)

    def where(self, condition: str, **values: object) -> None:
        """Only those."""
        self._conditions.append(condition)
        self._values.update(values)

    async def rows(self, transaction: Transaction, limit: int, columns: str = _COLUMNS) -> Sequence[Any]:
        """The first ones, in order."""
        statement = f"SELECT {columns} FROM files WHERE {' AND '.join(self._conditions)} ORDER BY path LIMIT :limit"  # noqa: S608
        return await transaction.rows(text(statement), {**self._values, "limit": limit})


async def page(transaction: Transaction, prefix: str, after: str, limit: int) -> list[Found]:
    """The first files behind ``after`` that begin so."""
    query = Query(prefix)
    if after:
        query.where("path > :after", after=after)
    return [_found(row) for row in await query.rows(transaction, limit)]


async def page_of_folders(transaction: Transaction, prefix: str, after: str, limit: int) -> list[Found]:
    """The same with one folder in the place of all that has a slash behind the prefix. Each folder is one look."""
    found: list[Found] = []
    step = 16  # files that are looked at at once: more where there are few folders among them
    while len(found) < limit:
        start = behind_all(after) if after.endswith("/") else None
        query = Query(prefix)
        if start is not None:
            query.where("path >= :start", start=start)
        elif after:
            query.where("path > :after", after=after)
        asked = min(step, limit - len(found))
        rows = await query.rows(transaction, asked)
        for row in rows:
            end = row.path.find("/", len(prefix)) + 1
            after = row.path[:end] if end else row.path
            found.append(Found(after, None) if end else _found(row))
            if end:
                break
        else:
            if len(rows) < asked:
                break
            step = min(4 * step, PAGE)
    return found


async def search(transaction: Transaction, wanted: Search, after: str, limit: int, dialect: str) -> list[Found]:
    """The first files behind ``after`` that are as they are wanted."""
    query = Query(wanted.prefix)
    if after:
        query.where("path > :after", after=after)
    if wanted.text:
        found_in = "instr(path, :text)" if dialect == SQLITE else "strpos(path, :text)"
        query.where(f"{found_in} > 0", text=wanted.text)
    if wanted.type is not None:
        query.where("content_type = :type", type=wanted.type)
    if wanted.min_size is not None:
        query.where("size >= :min_size", min_size=wanted.min_size)
    if wanted.max_size is not None:
        query.where("size <= :max_size", max_size=wanted.max_size)
    return [_found(row) for row in await query.rows(transaction, limit)]


def _found(row: Any) -> Found:
    """A file as a list by the nodes has it, but for what is about its record only."""
    header = Header(
        kind=Kind.FILE,
        version=row.version,
        front=row.front,
        size=row.size,
        sha256=bytes.fromhex(row.sha256),
        payload_size=0,
        payload_xxh3=b"",
        type=row.content_type,
    )
    return Found(row.path, header)
