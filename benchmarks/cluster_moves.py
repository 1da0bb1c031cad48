"""Copies on the move: an emptied node is filled again, nodes join and leave. Sections ``repair`` and ``growth``.

Fronts don't repair by themselves here, so that what the commands do is seen alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from benchmarks.cluster_bench import Bench, mb, say
from benchmarks.cluster_farm import Copies, Farm, Node
from benchmarks.cluster_load import HEAD, Clients, Files, Load
from sfss.cluster.ring import Ring

LIGHT = 200  # requests/s of the clients
QUIET = 5.0  # seconds of load before and after


# --- repair ---


class Cluster(NamedTuple):
    """One that is repaired, and the shares of the time for which ``sfss repair`` works, one after the other."""

    copies: Copies
    nodes: int
    shares: Sequence[float]


CLUSTERS = (Cluster(Copies(3, 2, 2), 3, (1, 0.3)), Cluster(Copies(2, 1, 1), 4, (1,)))
REPAIRED = ("copies", "nodes", "share", "s", "copies/s", "it held", "copied", "by fronts", "least MB", "read MB",
            "written MB", "wrong files")  # fmt: skip
WALKED = ("copies", "nodes", "keys", "s", "keys/s", "read MB", "written MB")


async def show_repairs(bench: Bench) -> None:
    """The tables."""
    repaired: list[list[str]] = []
    noticed: list[list[str]] = []
    walked: list[list[str]] = []
    for cluster in CLUSTERS:
        files = Files(bench.options.files)
        farm = bench.farm(cluster.copies, count=cluster.nodes, background=False)
        async with farm, Clients(files, farm.ports) as clients:
            say(f"{bench.options.files:,} files are written, {cluster.copies} on {cluster.nodes} nodes")
            await clients.fill()
            walked.append(await _walk(bench, farm))
            for share in cluster.shares:
                say(f"a node of {cluster.nodes} is emptied, copies {cluster.copies}, share {share:g}")
                row, rows = await _empty(bench, farm, clients, share)
                repaired.append(row)
                noticed += rows
    bench.tell("A node is emptied, and sfss repair fills it again", [REPAIRED, *repaired], 1)
    bench.tell("What clients notice of it", [["copies", "nodes", "share", "when", *HEAD], *noticed], 4)
    bench.tell("sfss repair where all is well", [WALKED, *walked], 1)


async def _walk(bench: Bench, farm: Farm) -> list[str]:
    """The row of a repair that finds nothing to do, while nobody else asks for anything."""
    found = await farm.run("repair")
    bench.expect(found["well"], f"repair where all should be well: {found}")
    return [*_name(farm), f"{found['keys']:,}", f"{found['seconds']:.1f}", f"{found['keys'] / found['seconds']:,.0f}",
            mb(found["bytes_read"]), mb(found["bytes_written"])]  # fmt: skip


async def _empty(bench: Bench, farm: Farm, clients: Clients, share: float) -> tuple[list[str], list[list[str]]]:
    """The row of a repair, and those of what clients noticed."""
    node = farm.nodes[0]
    name = f"copies {farm.copies} on {len(farm.nodes)} nodes, a node is emptied, share {share:g}"
    held, before = await node.held(), await _mended(farm)
    async with Load(clients, LIGHT) as load:
        await asyncio.sleep(1)
        load.begin("before")
        await asyncio.sleep(QUIET)
        load.begin("it is emptied, and starts")
        await node.empty()
        load.begin("repair goes on")
        found = await farm.run("repair", "--share", f"{share:g}")
        load.begin("after")
        await asyncio.sleep(QUIET)
    bench.look_at(name, load, farm.copies)
    bench.expect(found["well"], f"{name}: {found}")
    copied, seconds = found["copies_written"], found["seconds"]
    row = [*_name(farm), f"{share:g}", f"{seconds:.1f}", f"{copied / seconds:,.0f}", f"{held.items:,}", f"{copied:,}",
           f"{await _mended(farm) - before:,}", mb(held.bytes), mb(found["bytes_read"]), mb(found["bytes_written"]),
           await bench.check(name, clients)]  # fmt: skip
    return row, [[*_name(farm), f"{share:g}", phase, *of.row()] for phase, of in load.phases.items()]


async def _mended(farm: Farm) -> int:
    """Copies that the front brought where they were missing, because it was asked for their files."""
    return int((await farm.status())["copies"]["mended"])


def _name(farm: Farm) -> list[str]:
    return [str(farm.copies), f"{len(farm.nodes)}"]


# --- growth ---

GROWN = (Copies(1, 1, 1), Copies(2, 1, 1))
IDEAL = 1 / 4  # of all copies move: the share of one of four nodes
TRIES = 3  # of a rebalance, which says that it is to be run again if a write came between
MOVED = ("copies", "step", "s", "runs", "copied", "of all", "by ring", "ideal", "read MB", "written MB", "removed")


class Step(NamedTuple):
    """A step of ``docs/operations/growing.rst``: a configuration, and ``sfss rebalance``."""

    name: str
    nodes: Sequence[Node]
    joining: Sequence[Node] = ()
    leaving: Sequence[Node] = ()

    @property
    def moves(self) -> bool:
        """Whether files are to move."""
        return bool(self.joining or self.leaving)

    def ring(self) -> list[str]:
        """The names of the nodes by the new ring."""
        return [node.name for node in (*self.nodes, *self.joining)]


async def show_growth(bench: Bench) -> None:
    """The tables."""
    moved: list[list[str]] = []
    noticed: list[list[str]] = []
    wrong: list[str] = []
    for copies in GROWN:
        files = Files(bench.options.files)
        farm = bench.farm(copies, count=3, spare=1, fronts=2, background=False)
        async with farm, Clients(files, farm.ports) as clients:
            say(f"{bench.options.files:,} files are written, {copies} on 3 nodes")
            await clients.fill()
            # From then on a node that has nothing is believed only if it is known that it lacks nothing.
            await farm.run("repair")
            say("a node joins, and another one leaves")
            steps, phases = await _grow(bench, farm, clients)
            moved += steps
            noticed += phases
            farm.nodes[0].kill()
            wrong.append(f"{await bench.check(f'growth, copies {copies}', clients)} (copies {copies})")
    bench.tell("A node joins three, and another one leaves", [MOVED, *moved], 2)
    bench.tell("What clients notice of it", [["copies", "step", *HEAD], *noticed], 2)
    print(f"\nFiles that are not what was acknowledged, in the end, without the node that left: {'; '.join(wrong)}.")


async def _grow(bench: Bench, farm: Farm, clients: Clients) -> tuple[list[list[str]], list[list[str]]]:
    """The rows of the steps, and of what clients noticed."""
    copies, keys = farm.copies, clients.files.keys()
    first, *others, new = farm.nodes
    last = Step("", [first, *others])
    moved: list[list[str]] = []
    async with Load(clients, LIGHT) as load:
        await asyncio.sleep(1)
        load.begin("before")
        await asyncio.sleep(QUIET)
        for step in (
            Step("n4 joins", [first, *others], joining=[new]),
            Step("n4 has joined", [first, *others, new]),
            Step("n1 leaves", [*others, new], leaving=[first]),
            Step("n1 has left", [*others, new]),
        ):
            load.begin(step.name)
            began = time.monotonic()
            runs = await _rebalance(farm, step)
            seconds = time.monotonic() - began
            bench.expect(runs[-1]["well"], f"growth, copies {copies}, {step.name}: {runs[-1]}")
            by_ring = _share_by_ring(keys, last.ring(), step.ring(), copies.copies) if step.moves else None
            figures = _figures(runs, len(keys) * copies.copies, by_ring)
            moved.append([str(copies), step.name, f"{seconds:.1f}", *figures])
            last = step
    bench.look_at(f"growth, copies {copies}", load, copies)
    return moved, [[str(copies), phase, *found.row()] for phase, found in load.phases.items()]


async def _rebalance(farm: Farm, step: Step) -> list[dict[str, Any]]:
    """Have the fronts go over to the step's configuration; the figures of each run of ``sfss rebalance``."""
    farm.configure(nodes=step.nodes, joining=step.joining, leaving=step.leaving)
    await farm.reload()
    runs = [await farm.run("rebalance")]
    while not runs[-1]["well"] and len(runs) < TRIES:
        runs.append(await farm.run("rebalance"))
    return runs


def _figures(runs: Sequence[dict[str, Any]], all_copies: int, by_ring: float | None) -> list[str]:
    """What they come to, of so many copies, beside the part that the ring says moves; None: nothing is to move."""

    def total(figure: str) -> int:
        return sum(int(run[figure]) for run in runs)

    copied = total("copies_written")
    shares = ["", "", ""]
    if by_ring is not None:
        shares = [f"{100 * share:.1f} %" for share in (copied / all_copies, by_ring, IDEAL)]
    return [f"{len(runs)}", f"{copied:,}", *shares, mb(total("bytes_read")), mb(total("bytes_written")),
            f"{total('strays_removed'):,}"]  # fmt: skip


def _share_by_ring(keys: Iterable[bytes], before: Sequence[str], after: Sequence[str], copies: int) -> float:
    """The part of all copies whose nodes by the new ring aren't among those by the old one."""
    old, new = Ring(before, copies), Ring(after, copies)
    moved = [len(set(new.owners(key)) - set(old.owners(key))) for key in keys]
    return sum(moved) / len(moved) / copies
