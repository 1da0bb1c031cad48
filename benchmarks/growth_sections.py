"""The sections of ``benchmarks.growth``: what grows in each, what is measured at each size, and what is told of it."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import report
from benchmarks.curves import Line, chart
from benchmarks.growth_load import CHECKED, PATIENCE, Load, Point, Wrong, check, measure, median, nothing, put
from benchmarks.growth_servers import FRONT_PREFIX, Nginx, fill, front, many_nodes, start
from benchmarks.watched import Node, Watched, forget, remember, wait_until_quiet
from tests.servers import HOST, wait_for

FILES = (10_000, 100_000, 1_000_000)
LONG = 10_000_000  # of --long
NODES = (1, 2, 4, 8, 16, 32, 64)
THREE_COPIES = (4, 16, 64)  # nodes at which files with three copies are measured, too
CONNECTIONS = (1, 10, 100, 1_000, 10_000)
SIZE = 4096  # bytes of a file, where their number isn't what grows
READ = 1_000  # files that are read then
USUAL = 32  # connections, where they aren't what grows
PAUSE = 0.3  # seconds before each run, after what others left to be written has been written
SETTLING = 600.0  # seconds that a node may go on working after it was filled
LONGER = {1_000: 2, 10_000: 5}  # connections from which on a run is longer: to open them is a part of it

HEAD = ("requests/s", "p50 ms", "p99 ms", "front us", "nodes us", "load us", "cores", "limit", "front MiB",
        "nodes MiB")  # fmt: skip


class Row(NamedTuple):
    """A point, and where it stands: ``x`` is what has grown; ``more`` are cells of columns that a section has."""

    x: int
    what: str
    point: Point
    more: tuple[str, ...] = ()


class Told(NamedTuple):
    """What a section came to."""

    rows: list[Row]
    grown: str  # the head of the column of x
    more: tuple[str, ...] = ()  # and of its own columns
    note: str = ""


class Bench:
    """How it is measured, in a directory of its own, with the words of the run."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        self.directory = directory
        self.rounds, self.seconds = options.rounds, options.seconds
        self.quick, self.long, self.size = options.quick, options.long, options.file_size
        self.others: list[float] = []  # cores that others' work kept busy before each run
        self._runs = 0

    def points(self, all_of: Sequence[int]) -> Sequence[int]:
        """Which sizes are measured; those that are quick, if it shall be so."""
        return all_of[:2] if self.quick else all_of

    def run(
        self, port: int, prefix: str, load: Load, front: Watched | None, nodes: Sequence[Watched],
        connections: int = USUAL,
    ) -> Point:  # fmt: skip
        """The median of the rounds, after a short run to warm up. Files that were written are read again and compared.

        Each round of PUTs has a folder of its own.
        """
        points = []
        longer = max(times for least, times in {0: 1, **LONGER}.items() if connections >= least)
        for number in range(self.rounds + 1):
            self._runs += 1
            now = load._replace(folder=f"new-{self._runs}") if load.method == "PUT" else load
            seconds = self.seconds * longer if number else 2 * longer - 1
            say(f"  {load.method}, {f'round {number}' if number else 'warming up'}")
            os.sync()
            self.others.append(report.pause(PAUSE))
            point = measure(port, prefix, now, front, nodes, self.directory, seconds=seconds, connections=connections)
            wait_for(lambda: _lets_in(port), what=f"the connections of the run to port {port} to end")
            points += [point] if number else []
            if point.trouble:
                return point
            if trouble := _look(port, prefix, now, point.requests - 2 * connections):
                return nothing(trouble)
        found = median(points)
        say("  " + "  ".join(_cells(found)))  # should the run be broken off, it wasn't in vain
        return found


def _lets_in(port: int) -> bool:
    """Whether a server has room for a connection: it takes so many at most, and those of a run are there until it has
    seen them end.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status != http.HTTPStatus.SERVICE_UNAVAILABLE
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def say(what: str) -> None:
    """Tell whoever waits."""
    print(what, file=sys.stderr, flush=True)


def _look(port: int, prefix: str, load: Load, written: int) -> str | None:
    """What is wrong with some of the files that a run was about. Of its last requests not all were answered."""
    first = 1 if load.method == "PUT" else 0  # wrk makes number 0 to look at it, and doesn't send it
    there = load.files or written
    if there <= first or prefix == Nginx.FIXED:
        return None
    try:
        check(port, prefix, load, random.sample(range(first, there), min(CHECKED, there - first)))
    except Wrong as wrong:
        return str(wrong)
    return None


# --- files ---


def files(bench: Bench) -> Told:
    """One node with ever more files, one front: reads of any of them, and writes of new ones."""
    rows: list[Row] = []
    filled = 0
    with Node(bench.directory / "grown", "fsync") as node:
        start(node)
        for count in (*bench.points(FILES), *([LONG] if bench.long else [])):
            load = Load("GET", "growth", bench.size, count)
            say(f"files: filling up to {count:,}")
            rate = fill(node.port, load, range(filled, count))
            filled = count
            wait_until_quiet([node], SETTLING, pause=1)
            for what, prepare in (("GET", remember), ("GET, cold", forget)):
                node.stop()
                prepare(node.data)
                start(node)
                if (there := node.stat("curr_items")) < count:
                    raise Wrong(f"of {count:,} files the node has {there:,} after its start")
                rows += _files_read(bench, node, load, what)
            rows += _files_written(bench, node, load)
            rows[-1] = rows[-1]._replace(more=(*rows[-1].more[:-1], f"{rate:,.0f}"))
    shutil.rmtree(bench.directory / "grown")
    return Told(
        rows, "files", ("node's disk reads", "KiB read", "disk MiB", "filled/s"), _FILES.format(size=bench.size)
    )


_FILES = """\
Files have {size:,} bytes. The node was filled with records as fronts write them, 1,024 sets in flight (*filled/s*), and
started again. "cold": the kernel has nothing of its files in memory (one short run). *node's disk reads*: how often a
request went to the node's files, past its own cache (96 MiB); *KiB read*: what of these came from the disk and not from
the kernel's memory; *disk MiB*: all that the node's files take. What PUTs add stays there for the next size."""


def _files_read(bench: Bench, node: Node, load: Load, what: str) -> list[Row]:
    with _running_front(bench, [node]) as running:
        before = node.stat("cmd_get"), node.stat("disk_reads"), node.transferred("read_bytes")
        if what == "GET":
            point = bench.run(running.port, FRONT_PREFIX, load, running, [node])
        else:  # just once, and at once: every file that is read isn't cold any more
            point = measure(running.port, FRONT_PREFIX, load, running, [node], bench.directory,
                            seconds=max(1, bench.seconds // 3), connections=USUAL)  # fmt: skip
        gets = max(node.stat("cmd_get") - before[0], 1)
        reads = (node.stat("disk_reads") - before[1]) / gets
        kib = (node.transferred("read_bytes") - before[2]) / gets / 1024
    return [Row(load.files, what, point, (f"{reads:.2f}", f"{kib:.1f}", f"{node.size_on_disk() / 2**20:,.0f}", ""))]


def _files_written(bench: Bench, node: Node, load: Load) -> list[Row]:
    with _running_front(bench, [node]) as running:
        point = bench.run(running.port, FRONT_PREFIX, Load("PUT", "", load.size), running, [node])
    return [Row(load.files, "PUT", point, ("", "", f"{node.size_on_disk() / 2**20:,.0f}", ""))]


# --- nodes ---


def nodes(bench: Bench) -> Told:
    """Ever more node processes on this machine, behind one front."""
    rows: list[Row] = []
    for count in bench.points(NODES):
        for copies in (1, 3) if count in THREE_COPIES else (1,):
            say(f"nodes: {count}, copies: {copies}")
            own = bench.directory / f"nodes-{count}-{copies}"
            own.mkdir()
            with many_nodes(own, count) as started, _running_front(bench, started, copies) as running:
                rows += _both(bench, count, running, started, "" if copies == 1 else f", {copies} copies")
            shutil.rmtree(own)
    return Told(rows, "nodes", note=_NODES)


_NODES = f"""\
Files have {SIZE:,} bytes, {READ:,} of them are read. "3 copies": a write awaits all three, a read asks one node, and
another if that is slow. All nodes run on this machine, under fsync: they share its cores and its one disk."""


def _both(
    bench: Bench, x: int, running: Watched, started: Sequence[Watched], of: str, clients: int = USUAL
) -> list[Row]:
    """Reads and writes through one front."""
    load = Load("GET", "growth", SIZE, READ)
    put(running.port, FRONT_PREFIX, load, range(READ))
    reads = bench.run(running.port, FRONT_PREFIX, load, running, started, clients)
    writes = bench.run(running.port, FRONT_PREFIX, Load("PUT", "", SIZE), running, started, clients)
    return [Row(x, f"GET{of}", reads), Row(x, f"PUT{of}", writes)]


# --- connections ---


def connections(bench: Bench) -> Told:
    """Ever more clients of one front, and of nginx beside it."""
    rows: list[Row] = []
    load = Load("GET", "growth", SIZE, READ)
    for count in bench.points(CONNECTIONS):
        say(f"connections: {count:,}")
        own = bench.directory / f"connections-{count}"
        own.mkdir()
        with many_nodes(own, 1) as started, _running_front(bench, started) as running:
            rows += _both(bench, count, running, started, "", count)
        nginx = Nginx(own / "nginx", load)
        with nginx.running() as (worker, memcached):
            point = bench.run(nginx.port, Nginx.MEMCACHED, load, worker, [memcached], count)
            rows.append(Row(count, "GET, nginx over memcached", point))
            point = bench.run(nginx.port, Nginx.FIXED, load, worker, [], count)
            rows.append(Row(count, "GET, nginx, one file", point))
        shutil.rmtree(own)
    return Told(rows, "connections", note=_CONNECTIONS)


_CONNECTIONS = f"""\
Files have {SIZE:,} bytes, {READ:,} of them are read, over one node. With nginx, *front* is its one worker and *nodes*
the memcached behind it. "one file": always the same, open and in memory; its limit is the load's, and the machine's."""


@contextlib.contextmanager
def _running_front(bench: Bench, over: Sequence[Watched], copies: int = 1) -> Iterator[Watched]:
    settings = {"SFSS_STORAGE_COPIES": str(copies), "SFSS_STORAGE_WRITE_QUORUM": str(copies)}
    with front(bench.directory, over, settings) as running:
        yield running


# --- what is told ---

SECTIONS: dict[str, Callable[[Bench], Told]] = {"files": files, "nodes": nodes, "connections": connections}
TITLES = {
    "files": "Cost against the number of files",
    "nodes": "Cost against the number of nodes",
    "connections": "Cost against the number of connections",
}


def table(told: Told) -> str:
    """The section's table; a row with trouble has no figures."""
    return report.table([("what", told.grown, *HEAD, *told.more), *map(_row, told.rows)], left=1)


def _row(row: Row) -> tuple[str, ...]:
    cells = ("no figure", *[""] * (len(HEAD) - 1)) if row.point.trouble else _cells(row.point)
    return (row.what, f"{row.x:,}", *cells, *row.more)


def _cells(point: Point) -> tuple[str, ...]:
    """What stands under HEAD."""
    return (
        f"{point.rate:,.0f}", f"{point.p50:,.2f}", f"{point.p99:,.2f}", f"{point.front:,.0f}", f"{point.nodes:,.0f}",
        f"{point.load:,.0f}", f"{point.cores:.2f}", point.limit, f"{point.front_mib:,.0f}", f"{point.nodes_mib:,.0f}",
    )  # fmt: skip


def picture(told: Told, title: str) -> str:
    """Requests/s of each kind against what has grown. Raises ValueError if there is no figure."""
    kinds = list(dict.fromkeys(row.what for row in told.rows))
    lines = [
        Line(kind, [(row.x, row.point.rate) for row in told.rows if row.what == kind and not row.point.trouble])
        for kind in kinds
    ]
    return chart(title.replace("Cost", "Requests/s"), told.grown, "requests/s", lines)
