"""What a node needs of a machine, beside memcached: memory and disk for its items, and time to take them and to start.

Sections ``fill`` and ``open`` of ``benchmarks.node``.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from benchmarks.memload import PIPELINED, Items, Measured
from benchmarks.node_bench import MIB, SETTLING, Bench, say
from benchmarks.watched import Memory, Node, Opened, Peak, Watched, forget, wait_until_quiet

FEWER = 10  # one in so many of the items is enough to fill a node that syncs
CHECKED = 100_000  # gets that see whether a node that was killed has its items

# --- fill ---


class Filled(NamedTuple):
    """A server that was filled, and what that came to."""

    server: Watched
    items: Items
    measured: Measured
    settled: float  # seconds that it worked on afterwards
    cpu: float  # seconds of the server's, until then
    start: Memory
    full: Memory
    disk: tuple[int, int, int]  # bytes: what it takes then, took at most, and has written


def fill(bench: Bench, node: Node, memcached: Watched) -> None:
    """Fill both, from which all other sections go on; and another node, to be measured only."""
    filled = [_filled(bench, node, bench.items), _filled(bench, memcached, bench.items)]
    if "fill" not in bench.options.sections:
        return
    with Node(bench.directory / "fewer", "fsync") as fewer:
        fewer.start()
        filled.insert(0, _filled(bench, fewer, bench.items._replace(number=bench.items.number // FEWER)))
        say(f"waiting for {bench.options.idle} seconds")
        time.sleep(bench.options.idle)
        _tell_speed(bench, filled)
        _tell_memory(bench, filled)
    shutil.rmtree(fewer.data)


def _filled(bench: Bench, server: Watched, items: Items) -> Filled:
    say(f"filling {server.name} with {items.number:,} items")
    start, cpu, written = server.memory(), server.cpu(), server.transferred("write_bytes")
    with Peak(server) as peak:
        measured = bench.load.run(server.port, items, "--load", *PIPELINED)
        full, begun = server.memory(), time.monotonic()
        wait_until_quiet([server], SETTLING, pause=1)
    settled = time.monotonic() - begun
    bench.is_right(server.name, measured)
    bench.expect(server, items.number)
    disk = server.size_on_disk(), peak.bytes, server.transferred("write_bytes") - written
    return Filled(server, items, measured, settled, server.cpu() - cpu, start, full, disk)


def _tell_speed(bench: Bench, filled: Sequence[Filled]) -> None:
    head = ("server", "items", "items/s", "CPU s", "settled s", "value", "disk", "at most", "written")
    rows = [
        (
            one.server.name,
            f"{one.items.number:,}",
            f"{one.measured.rate:,.0f}",
            f"{one.cpu / one.items.number * 1e5:.2f}",
            f"{one.settled:.0f}",
            f"{one.measured.bytes / one.items.number:,.0f}",
            *(f"{figure / one.items.number:,.0f}" if one.server.data else "-" for figure in one.disk),
        )
        for one in filled
    ]
    bench.tell_table("Filling; CPU seconds for 100,000 items, and bytes for an item", [head, *rows], left=1)


def _tell_memory(bench: Bench, filled: Sequence[Filled]) -> None:
    head = ("server", "items", "empty", "filled", "idle", "anonymous", "peak", "bytes/item", "less values")
    rows: list[tuple[str, ...]] = [head]
    for one in filled:
        idle = one.server.memory()
        values = 0 if one.server.data else one.measured.bytes
        mib = (one.start.now, one.full.now, idle.now, idle.anonymous, idle.peak)
        rows.append((
            one.server.name,
            f"{one.items.number:,}",
            *(f"{figure / MIB:,.0f}" for figure in mib),
            f"{idle.now / one.items.number:,.0f}",
            f"{(idle.now - values) / one.items.number:,.0f}",
        ))  # fmt: skip
    bench.tell_table(f"Resident memory in MiB; idle: {bench.options.idle} seconds later", rows, left=1)


# --- open ---


def start_again(bench: Bench, node: Node) -> None:
    """Starts of a node that is filled and serves, as it does at the end."""
    starts: dict[str, list[Opened]] = {}
    stops: list[float] = []
    key = f"/bench/{bench.items.number // 2:08d}"
    for number in range(1, bench.options.rounds + 1):
        say(f"opening, round {number} of {bench.options.rounds}")
        with Node(bench.directory / f"empty-{number}", "os") as other:
            starts.setdefault("on an empty directory", []).append(other.start())
        stops.append(node.stop())
        starts.setdefault("after SIGTERM", []).append(node.start(key))
        node.stop()
        forget(node.data)
        starts.setdefault("after SIGTERM, files not in memory", []).append(node.start(key))
        _kill_while_it_writes(bench, node)
        starts.setdefault(f"after kill -9, {bench.options.seconds} s into sets", []).append(node.start(key))
        bench.expect(node, bench.items.number)
    bench.is_right(
        f"{node.name}, after kill -9", bench.load.run(node.port, bench.items, "--count", CHECKED, *PIPELINED)
    )
    rows = [("start", "version s", "at most", "get s", "at most", "MiB"), *map(_opened, starts, starts.values())]
    bench.tell_table("From a node's start to its first answers, and its memory then", rows, left=1)
    bench.tell(f"\nSIGTERM took {median(stops):.2f} s, {max(stops):.2f} at most.")


def _opened(name: str, opened: Sequence[Opened]) -> tuple[str, ...]:
    versions, gets = [one.version for one in opened], [one.get for one in opened]
    seconds = (median(versions), max(versions), median(gets), max(gets))
    memory = median(one.memory for one in opened)
    return (name, *(f"{figure:.3f}" for figure in seconds), f"{memory / MIB:,.0f}")


def _kill_while_it_writes(bench: Bench, node: Node) -> None:
    longer = bench.options.seconds + 60  # than it lives
    writing = bench.load.start(node.port, bench.items, "--sets", 100, "--seconds", longer, *PIPELINED,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        time.sleep(bench.options.seconds)
        node.kill()
    finally:
        writing.kill()
        writing.communicate()
