"""How a node serves, beside memcached: gets and sets of all kinds, and gets of what isn't in memory.

Sections ``serve``, ``cold`` and ``pipelined`` of ``benchmarks.node``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from benchmarks.memload import Items, Measured, finished
from benchmarks.node_bench import SETTLING, Bench, say
from benchmarks.watched import Node, Slowed, Watched, forget, remember, wait_until_quiet

CONNECTIONS = (1, 16, 256)
HOT = 10_000  # items that are asked for again and again
PAUSE = 0.3  # seconds before each run, or some more of them until the servers have done what they had put off
PATIENCE = 5.0  # seconds that this may take
LONGER = 2  # times as long as other runs, for they are not repeated, are those of gets that aren't in memory
PROBE = ("--every", 10, "--pipeline", 500)  # a request each 10 ms, whatever becomes of those before
SLOW_READS = 100  # a second, of the slow disk
SLOW = f"on a disk of {SLOW_READS} reads/s"
WARMING = 1  # seconds of a round before the first one of each kind, which doesn't count
SERVED = ("connections", "server", "requests/s", "lowest", "highest", "ratio", "p50 µs", "p99 µs", "p99.9 µs",
          "CPU s/100k", "load")  # fmt: skip
COLD = ("files", "connections", "requests/s", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "read B", "hot p50", "hot p99",
        "hot max")  # fmt: skip


class Kind(NamedTuple):
    """One kind of requests, and memload's options for it."""

    title: str
    options: tuple[object, ...]


# As a front asks: few files, so that all are in memory, over one connection with as many requests in flight as it has
# clients. What counts is what a request costs the server.
FRONT = ("--connections", 1, "--pipeline", 32)
FILES = Items(5_000, 4 * 1024, 4 * 1024)
PIPELINED = ("requests", "server", "requests/s", "ratio", "p50 µs", "p99 µs", "CPU µs each")
PIPELINED_KINDS = (Kind("gets", ()), Kind("sets", ("--sets", 100)))

KINDS = (
    Kind(f"Gets of {HOT:,} items", ("--hot", HOT)),
    Kind("Gets of any item", ()),
    Kind("Gets of what isn't there", ("--miss",)),
    Kind("Gets, and one set in ten requests", ("--sets", 10)),
    Kind("Sets of items that are there", ("--sets", 100)),
)


# --- serve ---


class Entry:
    """A server, and what was measured of it for one row."""

    def __init__(self, server: Watched) -> None:
        self.server = server
        self.rounds: list[Measured] = []
        self.cpu: list[float] = []  # seconds of the server's in each of them
        self.is_right = True


def serve(bench: Bench, servers: Sequence[Watched]) -> None:
    """Requests of all kinds to servers that hold the same items; the last one is what the others are compared with."""
    for server in servers:
        server.confine(bench.other_cores)
        if server.data:
            remember(server.data)  # they were started with their files not in memory; that is what ``cold`` is for
    for kind in KINDS:
        rows: list[tuple[str, ...]] = [SERVED]
        for connections in CONNECTIONS:
            say(f"{kind.title}, {connections} connections")
            entries = [Entry(server) for server in servers]
            for number in range(connections > CONNECTIONS[0], bench.options.rounds + 1):  # 0 is to warm up
                # There and back, so that a drift of the machine weighs on all alike.
                for entry in entries[:: -1 if number % 2 else 1]:
                    bench.others.append(wait_until_quiet(servers, PATIENCE, PAUSE))
                    _measure(bench, entry, kind, connections, number)
            rows += [_row(connections, entry, entries[-1]) for entry in entries]
        bench.tell_table(kind.title, rows, left=2)
    wait_until_quiet(servers, SETTLING, pause=1)
    for server in servers:
        bench.expect(server, bench.items.number)
    disks = [f"{one.size_on_disk() / bench.items.number:,.0f} ({one.name})" for one in servers if one.data]
    bench.tell(f"\nAfter all these sets, bytes on disk for an item: {'; '.join(disks)}.")


def serve_pipelined(bench: Bench, servers: Sequence[Watched]) -> None:
    """One connection and many requests in flight; the last server is what the others are compared with."""
    for server in servers:
        server.confine(bench.other_cores)
        bench.is_right(f"{server.name}, filled", bench.load.run(server.port, FILES, "--load", *FRONT))
    rows: list[tuple[str, ...]] = [PIPELINED]
    for kind in PIPELINED_KINDS:
        say(f"{kind.title}, pipelined")
        entries = [Entry(server) for server in servers]
        for number in range(bench.options.rounds + 1):  # 0 is to warm up
            for entry in entries[:: -1 if number % 2 else 1]:
                bench.others.append(wait_until_quiet(servers, PATIENCE, PAUSE))
                _measure_one(bench, entry, f"{kind.title}, pipelined", FILES, (*kind.options, *FRONT), number)
        rows += [_pipelined_row(kind, entry, entries[-1]) for entry in entries]
    bench.tell_table("One connection, 32 requests in flight, 4 KiB", rows, left=2)


def _pipelined_row(kind: Kind, entry: Entry, reference: Entry) -> tuple[str, ...]:
    if not entry.is_right:
        return (kind.title, entry.server.name, "no figure", *[""] * 4)
    rounds = entry.rounds
    return (
        kind.title,
        entry.server.name,
        f"{median(one.rate for one in rounds):,.0f}",
        f"{_ratio(rounds, reference.rounds):.2f}" if reference.is_right else "-",
        *(f"{median(getattr(one, name) for one in rounds):,.0f}" for name in ("p50", "p99")),
        f"{sum(entry.cpu) / sum(one.requests for one in rounds) * 1e6:.1f}",
    )


def _measure(bench: Bench, entry: Entry, kind: Kind, connections: int, number: int) -> None:
    what = f"{kind.title}, {connections} connections"
    _measure_one(bench, entry, what, bench.items, (*kind.options, "--connections", connections), number)


def _measure_one(
    bench: Bench, entry: Entry, what: str, items: Items, options: tuple[object, ...], number: int
) -> None:  # fmt: skip
    os.sync()
    before = entry.server.cpu()
    measured = bench.load.run(
        entry.server.port, items, *options, "--seed", number + 1,
        "--seconds", bench.options.seconds if number else WARMING, core=bench.own_core)  # fmt: skip
    entry.is_right &= bench.is_right(f"{entry.server.name}, {what}", measured)
    if number:
        entry.rounds.append(measured)
        entry.cpu.append(entry.server.cpu() - before)


def _row(connections: int, entry: Entry, reference: Entry) -> tuple[str, ...]:
    if not entry.is_right:
        return (str(connections), entry.server.name, "no figure", *[""] * 8)
    rounds = entry.rounds
    rates = [one.rate for one in rounds]
    p50, p99, p999 = ([getattr(one, name) for one in rounds] for name in ("p50", "p99", "p999"))
    return (
        str(connections),
        entry.server.name,
        *(f"{rate:,.0f}" for rate in (median(rates), min(rates), max(rates))),
        f"{_ratio(rounds, reference.rounds):.2f}" if reference.is_right else "-",
        *(f"{median(latencies):,.0f}" for latencies in (p50, p99, p999)),
        f"{sum(entry.cpu) / sum(one.requests for one in rounds) * 1e5:.2f}",
        f"{median(one.cpu / one.seconds for one in rounds):.0%}",
    )


def _ratio(rounds: Sequence[Measured], reference: Sequence[Measured]) -> float:
    """The median over the rounds of the ratio to the reference in the same round."""
    return median(one.rate / beside.rate for one, beside in zip(rounds, reference, strict=True))


# --- cold ---


def read_cold(bench: Bench, node: Node) -> None:
    """Gets from a node, which serves, when its files are in memory and when they aren't; and of one item."""
    rows: list[tuple[str, ...]] = [COLD]
    for files, prepare in (("in memory", remember), ("on disk", forget), (SLOW, forget)):
        for connections in CONNECTIONS:
            say(f"gets from files {files}, {connections} connections")
            node.stop()
            prepare(node.data)
            node.start("/bench/00000000")
            node.confine(bench.other_cores)
            try:
                with Slowed(node.pid, node.data, SLOW_READS) if files == SLOW else contextlib.nullcontext():
                    rows.append((files, str(connections), *_read_beside(bench, node, connections)))
            except OSError as error:
                say(f"no disk can be made slow here: {error}")
    bench.tell_table("Gets of any item after a start; beside them, of one item every 10 ms", rows, left=2)


def _read_beside(bench: Bench, node: Node, connections: int) -> tuple[str, ...]:
    """One run; its part of the row."""
    seconds = ("--seconds", LONGER * bench.options.seconds)
    read = node.transferred("read_bytes")
    probe = bench.load.start(node.port, bench.items, "--hot", 1, *PROBE, *seconds, core=bench.own_core)
    try:
        measured = bench.load.run(node.port, bench.items, "--connections", connections, *seconds, core=bench.own_core)
    finally:
        hot = finished(probe)
    what = f"{node.name}, started again, {connections} connections"
    if not bench.is_right(what, measured) or not bench.is_right(f"{what}, one item beside", hot):
        return ("no figure", *[""] * 8)
    figures = (
        measured.rate,
        *(measured.p50, measured.p99, measured.p999, measured.max),
        (node.transferred("read_bytes") - read) / measured.requests,
        *(hot.p50, hot.p99, hot.max),
    )
    return tuple(f"{figure:,.0f}" for figure in figures)
