"""What clients notice of a node that is killed, or stands still, and comes back. Section ``faults``."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from benchmarks.cluster_bench import Bench, say
from benchmarks.cluster_farm import Copies, Farm
from benchmarks.cluster_load import HEAD, Clients, Files, Load

FILES = 2000  # few: each is written and read again and again while the node is away
NODES = 3
LONG = 60.0  # seconds after which nobody waits for the copies any more
COUNTS = ("handoffs", "hedges", "mended", "late_failures")


class Fault(NamedTuple):
    """A way for a node to fail."""

    name: str
    is_killed: bool  # else it is stopped


FAULTS = (Fault("killed", is_killed=True), Fault("stopped", is_killed=False))
COPIES = (Copies(3, 2, 2), Copies(2, 1, 1))


async def show_faults(bench: Bench) -> None:
    """The tables."""
    rows: list[list[str]] = []
    healed: list[list[str]] = []
    for copies in COPIES:
        for fault in FAULTS:
            say(f"a node of {NODES} is {fault.name}, copies {copies}")
            found, after = await _fail(bench, copies, fault)
            rows += found
            healed.append(after)
    bench.tell("One of three nodes fails, and comes back", [["copies", "node", "when", *HEAD], *rows], 3)
    head = ["copies", "node", *(name.replace("_", " ") for name in COUNTS), "whole again s", "wrong files"]
    bench.tell("What the front did about it, and how soon every file had all its copies again", [head, *healed], 2)


async def _fail(bench: Bench, copies: Copies, fault: Fault) -> tuple[list[list[str]], list[str]]:
    """The rows of one fault: of each phase, and of what came of it."""
    name = f"copies {copies}, a node is {fault.name}"
    seconds = bench.options.seconds
    files = Files(FILES)
    async with bench.farm(copies, count=NODES) as farm, Clients(files, farm.ports) as clients:
        await clients.fill()
        await farm.pause_walks()  # what the fronts bring home by themselves is to be seen alone
        node = farm.nodes[0]
        async with Load(clients, bench.options.rate) as load:
            await asyncio.sleep(2)  # connections are made, latencies learnt
            load.begin("before")
            await asyncio.sleep(seconds)
            load.begin("the second of it")
            await asyncio.to_thread(node.kill if fault.is_killed else node.stop)
            await asyncio.sleep(1)
            load.begin("while it is away")
            await asyncio.sleep(seconds - 1)
            load.begin("it comes back")
            back = asyncio.create_task(_bring_back(farm, fault))
            await asyncio.sleep(seconds)
        healed = await back
        bench.look_at(name, load, copies)
        counts = (await farm.status())["copies"]
        wrong = await bench.check(name, clients)
    rows = [[str(copies), fault.name, phase, *found.row()] for phase, found in load.phases.items()]
    return rows, [str(copies), fault.name, *(f"{int(counts[of]):,}" for of in COUNTS), healed, wrong]


async def _bring_back(farm: Farm, fault: Fault) -> str:
    """Start the node again; how many seconds it took from when it served until no file lacked a copy."""
    if fault.is_killed:
        await farm.nodes[0].start()
    else:
        farm.nodes[0].go_on()
    began = time.monotonic()
    while time.monotonic() < began + LONG:
        if (await farm.status())["repair"]["under_replicated"] == "0":
            return f"{time.monotonic() - began:.1f}"
        await asyncio.sleep(0.1)
    return f"> {LONG:.0f}"
