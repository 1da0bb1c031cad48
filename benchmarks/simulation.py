"""Placement by the ring in a large cluster, by arithmetic: balance, growth, copies, and the repair of a lost node.

    python -m benchmarks.simulation [--keys 100000000] [--nodes 10 100 1000] [--processes CORES]

Real keys are hashed, as many as ``--keys`` says, on all cores, and counted by the arc of the ring that they fall upon;
the arcs are those of the largest ring, which cut those of every other one here. What follows is taken from the tables
of the real ``Ring``. Repair is bandwidth only: a node can read at full speed while it writes at full speed, and disks
and the work for each file cost nothing.

Prints tables for ``RESULTS.rst``. Exit status: 0; 1 if a key moved between two nodes that stayed, or if two copies of
one lie on one node.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import math
import multiprocessing
import os
import shlex
import statistics
import struct
import sys
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from benchmarks import report
from sfss.cluster.ring import Ring
from sfss.paths import key_of

COPIES = 3
GB = 10**9
SIZES = (100 * GB, 1000 * GB, 4000 * GB)  # bytes that the lost node held
BANDWIDTHS = (1, 10, 25)  # Gbit/s of each node, in either direction
RING_COPIES = 5  # owners of a ring that is timed: 3 copies and 2 spares, as the cluster lays it
_CHUNK = 1_000_000  # keys that a process hashes at a time, in some 140 MB
_LAST = 2**32 - 1  # the ring's last point

Homes = list[tuple[str, ...]]  # the owners of the keys of each arc


class Balance(NamedTuple):
    """Of the mean number of keys to a node, in percent."""

    mean: float  # keys
    least: float
    most: float
    deviation: float  # standard


class Moved(NamedTuple):
    """What one node's joining or leaving moves, in percent of all; and what went between two nodes that stayed."""

    first: float  # keys with another first owner
    first_strays: int  # promised to be 0
    copies: float  # copies that have to be made, of all copies
    copies_strays: int  # promised to be 0


class Loss(NamedTuple):
    """The copies of one lost node, in keys: where else they lie, and whose they are once it has left."""

    sources: Counter[str]  # each key with all owners that it has left: they can give a half each
    first: Counter[str]  # each key with the first of them
    targets: Counter[str]  # each key with the owner that it gets in place of the lost one


class Simulation(NamedTuple):
    """What was found about one size of cluster."""

    nodes: int
    first: Balance
    copies: Balance
    joins: Moved
    leaves: Moved
    fewer: int  # keys on fewer nodes than COPIES; promised to be 0
    sets: int  # of nodes, that keep some key together
    losses: list[Loss]  # of each node in turn

    def broken(self) -> int:
        """How often a promise was broken."""
        return self.fewer + sum(move.first_strays + move.copies_strays for move in (self.joins, self.leaves))


def key(number: int) -> bytes:
    """The key of a file as a user may name it."""
    return key_of(f"photos/2026/{number:09}.jpg")


def names(count: int) -> list[str]:
    """Of nodes, as a configuration has them."""
    return [f"10.0.{n // 250}.{n % 250 + 1}:7900" for n in range(count)]


def arcs(ring: Ring) -> list[int]:
    """The last point of each arc of the ring, and that of what lies behind the last of them."""
    return sorted({*ring._positions, _LAST})  # noqa: SLF001


def homes(ring: Ring, ends: Sequence[int]) -> Homes:
    """The owners of the keys of each arc, of which ``ring`` has no point within any."""
    positions, owners = ring._positions, ring._owners  # noqa: SLF001
    return [owners[bisect_left(positions, end) % len(positions)] for end in ends]


def count(ends: Sequence[int], keys: int, processes: int) -> list[int]:
    """How many of so many keys fall upon each arc."""
    chunks = [range(start, min(start + _CHUNK, keys)) for start in range(0, keys, _CHUNK)]
    found = [0] * len(ends)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for counted in pool.imap_unordered(functools.partial(_count, ends), chunks):
            found = [some + more for some, more in zip(found, counted, strict=True)]
    return found


def _count(ends: Sequence[int], numbers: Iterable[int]) -> list[int]:
    # As Ring.owners does it, but sorted: then arcs are looked for among keys, and not each key among the arcs.
    digests = b"".join([hashlib.md5(key(number), usedforsecurity=False).digest() for number in numbers])
    points = sorted(point for (point,) in struct.iter_unpack("<I12x", digests))
    up_to = [0, *(bisect_right(points, end) for end in ends)]
    return [through - before for before, through in pairwise(up_to)]


def simulate(nodes: int, ends: Sequence[int], keys: Sequence[int]) -> Simulation:
    """What the ring of so many nodes, at least 5, makes of the ``keys`` on each arc; one joins, and one leaves."""
    joining = names(nodes + 1)
    staying, leaving = joining[1:nodes], joining[0]
    now = homes(Ring(joining[:nodes], COPIES + 1), ends)  # and the next in line
    kept = [owners[:COPIES] for owners in now]
    return Simulation(
        nodes,
        first=balance((owners[:1] for owners in kept), keys, nodes),
        copies=balance(kept, keys, nodes),
        joins=moved(kept, homes(Ring(joining, COPIES), ends), keys, joining[-1]),
        leaves=moved(kept, homes(Ring(staying, COPIES), ends), keys, leaving),
        fewer=sum(some for owners, some in zip(kept, keys, strict=True) if len(set(owners)) != COPIES),
        sets=len({frozenset(owners) for owners, some in zip(kept, keys, strict=True) if some}),
        losses=losses(now, keys),
    )


def balance(owners: Iterable[tuple[str, ...]], keys: Iterable[int], nodes: int) -> Balance:
    """How evenly the keys lie on their owners."""
    loads = _loads(owners, keys)
    mean = loads.total() / nodes
    shares = [100 * load / mean for load in loads.values()] + [0.0] * (nodes - len(loads))
    return Balance(mean, min(shares), max(shares), statistics.pstdev(shares))


def _loads(owners: Iterable[tuple[str, ...]], keys: Iterable[int]) -> Counter[str]:
    loads: Counter[str] = Counter()
    for nodes, some in zip(owners, keys, strict=True):
        for node in nodes:
            loads[node] += some
    return loads


def moved(before: Homes, after: Homes, keys: Sequence[int], mover: str) -> Moved:
    """What moves when ``mover`` joins or leaves."""
    first = first_strays = copies = copies_strays = 0
    for old, new, some in zip(before, after, keys, strict=True):
        if old == new:
            continue
        if old[0] != new[0]:
            first += some
            first_strays += some * (mover not in (old[0], new[0]))
        given, taken = set(old) - set(new), set(new) - set(old)
        copies += some * len(taken)
        copies_strays += some * min(len(given - {mover}), len(taken - {mover}))
    total = sum(keys)
    return Moved(100 * first / total, first_strays, 100 * copies / total / COPIES, copies_strays)


def losses(owners: Homes, keys: Sequence[int]) -> list[Loss]:
    """For each node, what its loss would mean. ``owners`` has one more than there are copies: who takes over."""
    found: dict[str, Loss] = {}
    for nodes, some in zip(owners, keys, strict=True):
        if not some:
            continue
        for lost in nodes[:COPIES]:
            loss = found.setdefault(lost, Loss(Counter(), Counter(), Counter()))
            others = [node for node in nodes[:COPIES] if node != lost]
            loss.first[others[0]] += some
            for other in others:
                loss.sources[other] += some
            loss.targets[nodes[COPIES]] += some
    return list(found.values())


def busiest(work: Counter[str]) -> float:
    """The busiest node's share of the work."""
    return max(work.values()) / work.total()


def seconds(size: int, gigabits: float, share: float = 1.0) -> float:
    """How long a node needs that has to take or give ``share`` of ``size`` bytes."""
    return size * share * 8 / (gigabits * 10**9)


def show(simulations: Sequence[Simulation]) -> str:
    """The tables."""
    parts = [
        "Keys, and copies of them, on a node:",
        _balances(simulations),
        "What moves when one node joins, and when one leaves:",
        _moves(simulations),
        f"Where the {COPIES} copies of a key lie:",
        _copies(simulations),
        "A node is lost. What the busiest of the others has to give, and to take if the lost one leaves:",
        _losses(simulations),
        f"Time to restore the copies of one lost node of {simulations[-1].nodes:,}:",
        _times(simulations[-1]),
        f"Laying a ring, {RING_COPIES} owners at each point:",
        _rings([simulation.nodes for simulation in simulations]),
    ]
    return "\n\n".join(parts)


def _balances(simulations: Sequence[Simulation]) -> str:
    rows = [
        (what, f"{one.nodes:,}", f"{of.mean:,.0f}", f"{of.least:.1f} %", f"{of.most:.1f} %", f"{of.deviation:.1f} %")
        for one in simulations
        for what, of in (("first owner", one.first), (f"all {COPIES} copies", one.copies))
    ]
    return report.table([("of", "nodes", "mean", "least", "most", "deviation"), *rows], 1)


def _moves(simulations: Sequence[Simulation]) -> str:
    rows = [
        (what, of, f"{one.nodes:,}", f"{share:.3f} %", f"{100 / least:.3f} %", f"{strays:,}")
        for one in simulations
        for what, move, least in (("joins", one.joins, one.nodes + 1), ("leaves", one.leaves, one.nodes))
        for of, share, strays in (
            ("first owner", move.first, move.first_strays),
            (f"all {COPIES} copies", move.copies, move.copies_strays),
        )
    ]
    return report.table([("one", "of", "nodes", "moved", "ideal", "elsewhere"), *rows], 2)


def _copies(simulations: Sequence[Simulation]) -> str:
    rows = []
    for one in simulations:
        partners = [len(loss.sources) for loss in one.losses]
        rows.append(
            (
                f"{one.nodes:,}",
                f"{one.fewer:,}",
                f"{min(partners):,}",
                f"{statistics.median(partners):,.0f}",
                f"{max(partners):,}",
                f"{one.sets:,}",
                f"{100 * one.sets / math.comb(one.nodes, COPIES):.3g} %",
            )
        )
    return report.table([("nodes", "on fewer", "partners: least", "median", "most", "sets", "of all sets"), *rows], 0)


def _losses(simulations: Sequence[Simulation]) -> str:
    rows = []
    for one in simulations:
        for what, ways in (
            ("gives, half of each", [loss.sources for loss in one.losses]),
            ("gives, as the first", [loss.first for loss in one.losses]),
            ("takes", [loss.targets for loss in one.losses]),
        ):
            shares = [100 * busiest(way) for way in ways]
            involved = statistics.median(len(way) for way in ways)
            rows.append(
                (
                    what,
                    f"{one.nodes:,}",
                    f"{involved:,.0f}",
                    f"{statistics.median(shares):.2f} %",
                    f"{max(shares):.2f} %",
                )
            )
    return report.table([("a node", "nodes", "of them do", "busiest: median", "most"), *rows], 1)


def _times(simulation: Simulation) -> str:
    # Whoever is busiest, giver or taker, is the last to be done.
    shares = [max(busiest(loss.sources), busiest(loss.targets)) for loss in simulation.losses]
    rows = [
        (
            f"{size // GB:,} GB",
            f"{gigabits}",
            _spoken(seconds(size, gigabits)),
            _spoken(seconds(size, gigabits, statistics.median(shares))),
            _spoken(seconds(size, gigabits, max(shares))),
        )
        for size in SIZES
        for gigabits in BANDWIDTHS
    ]
    return report.table([("it held", "Gbit/s", "in place", "by leaving: median", "most"), *rows], 0)


def _rings(sizes: Sequence[int]) -> str:
    rows = []
    for nodes in sizes:
        given, times = names(nodes), []
        for _ in range(3):
            began = time.perf_counter()
            Ring(given, RING_COPIES)
            times.append(time.perf_counter() - began)
        rows.append((f"{nodes:,}", f"{1000 * min(times):,.0f}"))
    return report.table([("nodes", "ms"), *rows], 0)


def _spoken(duration: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if duration >= length:
            return f"{duration / length:.1f} {unit}"
    return f"{duration:.1f} s"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.simulation", description="placement in a large cluster")
    parser.add_argument("--keys", type=int, default=100_000_000, metavar="N", help="keys to hash (%(default)s)")
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 100, 1000], metavar="N", help="sizes, 5 or more")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--processes", type=int, default=cores, metavar="N", help="that hash keys (%(default)s)")
    arguments = parser.parse_args()
    if min(arguments.nodes) <= COPIES + 1:
        parser.error(f"--nodes: at least {COPIES + 2} are needed, so that one can leave and there's a next in line")
    if arguments.keys < 1 or arguments.processes < 1:
        parser.error("--keys and --processes are at least 1")
    return arguments


def main() -> int:
    """Count the keys, and print the tables."""
    arguments = _arguments()
    began = time.perf_counter()
    ends = arcs(Ring(names(max(arguments.nodes) + 1)))
    keys = count(ends, arguments.keys, arguments.processes)
    counted = time.perf_counter() - began
    simulations = [simulate(nodes, ends, keys) for nodes in sorted(arguments.nodes)]
    command = shlex.join(["python", "-m", "benchmarks.simulation", *sys.argv[1:]])
    print(report.field_list([fact for fact in report.facts(command, Path(), {}) if fact[0] != "Data"]))
    print(f":Keys: {sum(keys):,}, hashed and counted in {counted:.0f} s by {arguments.processes} processes\n")
    print(show(simulations))
    return 1 if any(one.broken() for one in simulations) else 0


if __name__ == "__main__":
    sys.exit(main())
