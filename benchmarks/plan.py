"""What the suite measures: sections, each of which varies one thing around the centre, which is 4 KiB, 32 connections,
one worker. To measure something else, add a row here.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import NamedTuple

from benchmarks import contenders
from benchmarks.contenders import Contender
from benchmarks.httpload import MIB, Files

KIB = 1024
CENTRE, CONNECTIONS = 4 * KIB, 32
SIZES = (KIB, 4 * KIB, 64 * KIB, MIB)


class Kind(NamedTuple):
    """One kind of requests, with httpload's options for it."""

    name: str
    options: tuple[object, ...] = ()
    folder: str = "files"  # of the files that are asked for
    files: int = 1_000  # of them, unless that were more than
    at_most: int = 64 * MIB  # bytes
    filled: bool = True  # they are there before
    writes: bool = False
    warmed: bool = False  # all files are asked for before each run: a cache that forgets has them


GET = Kind("GET")
NOT_MODIFIED = Kind("304")
MISSING = Kind("404", ("--miss",), "absent", filled=False)
NEW = Kind("PUT new", ("--puts", 100, "--fresh"), "new", 1_000_000, 256 * MIB, filled=False, writes=True)
OVER = Kind("PUT over", ("--puts", 100), "over", 10_000, 256 * MIB, writes=True)
MIXED = Kind("90 % GET, 10 % PUT", ("--puts", 10), writes=True)
HALF = Kind("GET at half of the top rate")  # of that which GET had in the same section
WARM = Kind("GET, warm", warmed=True)
COLD = Kind("GET, cold", folder="cold", files=20_000, at_most=256 * MIB)


class Row(NamedTuple):
    """What is measured: a kind of requests to a contender."""

    contender: str
    kind: Kind = GET
    size: int = CENTRE
    connections: int = CONNECTIONS
    workers: int = 1

    @property
    def files(self) -> Files:
        """What is asked for; of new files, as many at most."""
        return Files(f"{self.kind.folder}-{self.size}", min(self.kind.files, self.kind.at_most // self.size), self.size)


class Table(NamedTuple):
    """Rows that are measured side by side; the figure that ``compares`` them is set beside that of a reference."""

    name: str
    title: str
    rows: tuple[Row, ...]
    reference: str | Kind | None = None  # a contender in the like row, or a kind of the same contender
    varies: str = ""  # the field of a row that differs: size, connections, workers
    compares: str = "rate"

    def reference_of(self, row: Row) -> Row | None:
        """The row that ``row`` is compared with."""
        if isinstance(self.reference, Kind):
            other = row._replace(kind=self.reference)
        else:
            other = row._replace(contender=self.reference or "")
        return other if other in self.rows else None


class Section(NamedTuple):
    """Tables that are measured one after the other on the same servers."""

    name: str
    title: str
    tables: tuple[Table, ...]
    rounds: int = 3

    @property
    def rows(self) -> tuple[Row, ...]:
        """All that is measured of it."""
        return tuple(row for table in self.tables for row in table.rows)


GETTERS = ("sfss-memcached", "sfss-node", "nginx-memcached", "nginx-static")
PUTTERS = ("sfss-node", "nginx-dav")


def _nginx_in_front() -> tuple[Contender, ...]:
    """``nginx-cache``, GET through nginx with a warm cache, and ``nginx-disk``, ``nginx-read`` and ``nginx-stock``,
    nginx with the same bytes from its disk by ``sendfile``, by reading and untuned, where that module is there.
    """
    if importlib.util.find_spec("benchmarks.nginx_front") is None:
        return ()
    found: tuple[Contender, ...] = importlib.import_module("benchmarks.nginx_front").CONTENDERS
    return found


_IN_FRONT = _nginx_in_front()
CONTENDERS = {(each.name, each.workers): each for each in (*contenders.CONTENDERS, *_IN_FRONT)}


def _centre() -> Section:
    """What must show, in one run."""
    cost = tuple(Row(name, kind) for name in GETTERS[:2] for kind in (GET, NOT_MODIFIED, MISSING))
    warm = tuple(Row(each.name, WARM) for each in _IN_FRONT)
    in_front = Table("in-front", "GET through nginx with a warm cache, 4 KiB", warm, "nginx-disk")
    return Section(
        "centre",
        "The centre: 4 KiB, 32 connections, one worker",
        (
            Table("get", "GET, 4 KiB", tuple(map(Row, GETTERS)), "nginx-memcached"),
            Table("answers", "GET, 304 and 404", cost, GET),
            Table(
                "half",
                "GET at half of each one's own top rate",
                tuple(Row(name, HALF) for name in GETTERS[:3]),
                "nginx-memcached",
                compares="p99",
            ),
            *([in_front] if _IN_FRONT else []),
            Table("put", "PUT of new files, 4 KiB", tuple(Row(name, NEW) for name in PUTTERS), "nginx-dav"),
        ),
        rounds=5,
    )


def _varied(field: str, variants: tuple[Row, ...], title: str) -> Section:
    """GET and PUT along one field of a row."""
    gets = tuple(row._replace(contender=name) for row in variants for name in GETTERS)
    puts = tuple(row._replace(contender=name, kind=NEW) for row in variants for name in PUTTERS)
    return Section(
        field,
        title,
        (
            Table(f"{field}-get", f"GET, by {field}", gets, "nginx-memcached", field),
            Table(f"{field}-put", f"PUT of new files, by {field}", puts, "nginx-dav", field),
        ),
    )


def _kinds() -> Section:
    ours = ("sfss-memcached", "sfss-node", "sfss-node-os")
    return Section(
        "kinds",
        "Kinds of requests: 4 KiB, 32 connections, one worker",
        (
            Table("missing", "GET of no file", tuple(Row(name, MISSING) for name in GETTERS), "nginx-memcached"),
            Table(
                "not-modified",
                "GET with If-None-Match, answered 304",
                tuple(Row(name, NOT_MODIFIED) for name in ("sfss-memcached", "sfss-node", "nginx-static")),
                "nginx-static",
            ),
            Table("mixed", MIXED.name, tuple(Row(name, MIXED) for name in (*ours, "nginx-dav")), "nginx-dav"),
            Table("new", "PUT of new files", tuple(Row(name, NEW) for name in (*ours, "nginx-dav")), "nginx-dav"),
            Table(
                "over",
                "PUT over files that are there",
                tuple(Row(name, OVER) for name in (*ours, "nginx-dav")),
                "nginx-dav",
            ),
            Table(
                "cold",
                "GET of files that aren't in memory, each once",
                (Row("sfss-node", COLD), Row("nginx-static", COLD)),
                "nginx-static",
            ),
        ),
    )


def _stores() -> Section:
    names = ("sfss-memcached", "sfss-node", "sfss-three", "sfss-three-2of3", "sfss-three-1of3")
    return Section(
        "stores",
        "What the front stands on: 4 KiB, 32 connections, one worker",
        tuple(
            Table(f"stores-{name}", title, tuple(Row(each, kind) for each in names), "sfss-node")
            for name, title, kind in (("get", "GET", GET), ("mixed", MIXED.name, MIXED), ("put", "PUT of new", NEW))
        ),
    )


SECTIONS = {
    section.name: section
    for section in (
        _centre(),
        _varied("size", tuple(Row("", size=n) for n in SIZES), "Sizes: 32 connections, one worker"),
        _varied("connections", tuple(Row("", connections=n) for n in (1, 32, 256)), "Connections: 4 KiB, one worker"),
        _varied("workers", tuple(Row("", workers=n) for n in (1, 2)), "Workers: 4 KiB, 32 connections"),
        _kinds(),
        _stores(),
    )
}
