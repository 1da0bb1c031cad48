"""``sfss repair``, ``sfss rebalance`` and ``sfss sweep``: their options, their progress and their words.

What they do stands in ``sfss/cluster/repair.py`` and ``sfss/cluster/sweeping/sweep.py``, what the figures mean in
``docs/operations/repair.rst``. Exit statuses: 0 all is well now; 1 something is left, and the words say what to do; 2 a
setting or an option is wrong; 130 stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from sfss.addresses import hidden
from sfss.config import Settings
from sfss.errors import Damaged, OneStore, Unavailable
from sfss.policies import Policies

if TYPE_CHECKING:  # a node, which has the same command line, needs none of it
    from sfss.cluster.members import Members
    from sfss.cluster.replication import Cluster
    from sfss.cluster.rounds import Walking
    from sfss.cluster.summary import Summary
    from sfss.registry import Registry

EVERY = 0.2  # seconds between two words of progress on a terminal ...
EVERY_LINE = 10.0  # ... and elsewhere, where each is a line
UNSURE_NAMED = 3  # stripes


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> list[argparse.ArgumentParser]:
    """Add their parsers, which still lack the options for settings, and what is to be run."""
    repair = commands.add_parser(
        "repair",
        help="bring every copy of every file where it belongs",
        description="Walks over all keys of all nodes, and brings every file to as many nodes as it should lie on, in"
        " its newest version. Fronts may serve meanwhile. It can be stopped at any moment, and run again at any time."
        " Exit status: 0 all is well now; 1 something is left, and it is said what to do; 130 stopped.",
    )
    repair.add_argument("--scrub", action="store_true", help="read every copy whole, too, and mend what is damaged")
    repair.add_argument("--pause", type=_seconds, metavar="SECONDS",
                        help="repair nothing, but have the fronts' own walks wait; 0: they may go on")  # fmt: skip
    rebalance = commands.add_parser(
        "rebalance",
        help="move files to nodes that join and from nodes that leave",
        description="While storage.joining or storage.leaving name nodes: copies every file to the nodes where it will"
        " belong. Otherwise: removes the copies that lie where they no longer belong. docs/operations/growing.rst has"
        " all the steps. No file ever has fewer copies than before. Exit status: as of repair.",
    )
    rebalance.set_defaults(scrub=False, pause=None)
    sweep = commands.add_parser(
        "sweep",
        help="free what broken uploads and replaced files have left, and mend large files",
        description="Walks over the blocks of large files: removes those that no file has any more and that are older"
        " than limits.upload_time, and brings the others to all the nodes where they should lie. The fronts do it by"
        " themselves ([repair] sweep_interval), and sfss repair does it, too. Exit status: as of repair.",
    )
    sweep.set_defaults(scrub=False, pause=None)
    for parser, moving_only in ((repair, False), (rebalance, True), (sweep, False)):
        parser.add_argument("--share", type=_share, default=1.0, metavar="SHARE",
                            help="of the time that it may work; the rest of the time it rests (default: 1, no rest)"
                            )  # fmt: skip
        parser.add_argument("--json", action="store_true", help="print the summary as JSON")
        parser.set_defaults(moving_only=moving_only, blocks_only=parser is sweep, thorough=parser is repair)
    return [repair, rebalance, sweep]


def _share(text: str) -> float:
    return _number(text, 1e-6, 1, "share: give a number above 0 and up to 1, such as 0.2")


def _seconds(text: str) -> float:
    return _number(text, 0, 30 * 86400, "time: give seconds, up to 30 days of them")


def _number(text: str, least: float, most: float, what: str) -> float:
    with contextlib.suppress(ValueError):
        if least <= float(text) <= most:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text} is no {what}")


Make = Callable[[], "tuple[Cluster, Members, Registry]"]
# Gives the settings with the namespaces that were made, has the cluster go by them, and tells when they are others.
Adopt = Callable[["Cluster", "Members", "Registry", Settings, Callable[[], None]], Awaitable[Settings]]


def run(options: argparse.Namespace, settings: Settings, make: Make, adopt: Adopt) -> int:
    """Run one of the commands; returns the exit status. ``make`` is called in an event loop."""
    logging.getLogger("sfss.backends").setLevel(logging.WARNING)  # that nodes are here goes without saying
    return asyncio.run(_run(options, settings, make, adopt))


async def _run(options: argparse.Namespace, settings: Settings, make: Make, adopt: Adopt) -> int:
    cluster, members, registry = make()
    await members.start()
    try:
        try:
            settings = await adopt(cluster, members, registry, settings, lambda: cluster.changed.set())
        except (Unavailable, Damaged) as error:
            print(f"sfss: which namespaces there are, and how many copies theirs have, can't be read: {error}",
                  file=sys.stderr)  # fmt: skip
            return 1
        await registry.start()
        if options.pause is not None:
            return await _pause(cluster, options.pause)
        try:
            return await _repair(cluster, options, settings)
        except OneStore as error:
            print(f"sfss: {error}", file=sys.stderr)
            return 2
    finally:
        await registry.close()
        await members.close()
        await cluster.close()


async def _repair(cluster: Cluster, options: argparse.Namespace, settings: Settings) -> int:
    from sfss.cluster.repair import Repair
    from sfss.cluster.rounds import count_items
    from sfss.cluster.summary import Summary
    from sfss.cluster.sweeping.sweep import Sweep

    summary = Summary()
    changed = cluster.changed
    repair = Repair(
        cluster.topology,
        tombstone_ttl=settings.storage.tombstone_ttl,
        scrub=options.scrub,
        share=options.share,
        moving_only=options.moving_only,
        summary=summary,
    )
    policies = Policies(settings)
    sweep = Sweep(
        cluster,
        upload_time=settings.limits.upload_time,
        copies_of=lambda path: policies.of(path).copies,
        scrub=options.scrub,
        thorough=options.thorough,
        share=options.share,
        summary=summary,
    )
    walks: list[Walking] = [sweep] if options.blocks_only else [repair, sweep]
    total = 0 if options.blocks_only else await count_items(cluster)
    finished = await _watch(walks, summary, total, changed)
    if changed.is_set() and not finished:  # what is at home, or nobody's, by the nodes of before may not be by these
        print("sfss: nodes have come or gone, or namespaces, meanwhile: run it again, what is done stays done",
              file=sys.stderr)  # fmt: skip
        return 1
    steps = _next_steps(settings, summary) if options.moving_only and summary.well else []
    if options.json:
        print(json.dumps({**summary.as_dict(), "next": steps}, indent=2, ensure_ascii=False))
    else:
        print("\n".join([_verdict(summary), *_figures(summary), *_left(summary), *steps]))
    if not finished:
        return 130
    return 0 if summary.well else 1


async def _pause(cluster: Cluster, seconds: float) -> int:
    """Note for all fronts that none is to walk for so long."""
    from sfss.cluster import lease

    until = cluster.now() / 1e6 + seconds if seconds else 0.0
    try:
        front = secrets.randbits(32)
        noted = [
            await lease.change(cluster, front, lambda state: msgspec.structs.replace(state, paused_until=until), key)
            for key in (lease.KEY, lease.SWEEP)
        ]
    except Unavailable as error:
        print(f"sfss: it could not be noted: {error}", file=sys.stderr)
        return 1
    if None in noted:
        print("sfss: the fronts were noting something themselves: try again", file=sys.stderr)
        return 1
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(until))
    print(f"the fronts' walks wait until {when}; --pause 0 ends that" if seconds else "the fronts' walks may go on")
    return 0


# --- progress ---


async def _watch(walks: Sequence[Walking], summary: Summary, total: int, changed: asyncio.Event) -> bool:
    """Run them, and show how far they are; False if a signal stopped them, or nodes have ``changed``.

    ``total`` of items; 0: not known.
    """

    async def run() -> None:
        for walk in walks:
            await walk.run()

    async def stop_when_changed() -> None:
        await changed.wait()
        running.cancel()

    running = asyncio.create_task(run())
    stopping = asyncio.create_task(stop_when_changed())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    is_terminal = sys.stderr.isatty()
    while not (await asyncio.wait([running], timeout=EVERY if is_terminal else EVERY_LINE))[0]:
        text = _progress(summary, total)
        sys.stderr.write(f"\r{text}\x1b[K" if is_terminal else f"{text}\n")
        sys.stderr.flush()
    stopping.cancel()
    if is_terminal:
        sys.stderr.write("\r\x1b[K")
    if running.cancelled():
        return False
    running.result()
    return True


def _progress(summary: Summary, total: int) -> str:
    summary.tick()
    rate = summary.listed / max(summary.seconds, 0.001)
    words = [f"{summary.keys:,} keys"]
    if summary.blocks:
        words.append(f"{summary.blocks:,} blocks")
    if total:
        words.append(f"{min(summary.listed / total, 1):.0%}")
    words += [f"{rate:,.0f} copies/s seen", f"{summary.bytes_written / 1e6:,.1f} MB moved"]
    if total and summary.listed:
        words.append(f"{_time(max(total - summary.listed, 0) / rate)} left")
    return ", ".join(words)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


# --- words ---


def _verdict(summary: Summary) -> str:
    if summary.well:
        how = "all is well"
    elif summary.finished:
        how = "something is left, see below"
    else:
        how = "stopped before the end: run it again, what is done stays done"
    blocks = f", {summary.blocks:,} blocks" if summary.blocks else ""
    return f"{summary.keys:,} keys{blocks}, {summary.listed:,} copies seen, in {summary.seconds:.1f} s: {how}"


def _figures(summary: Summary) -> Iterator[str]:
    """A line for each figure that isn't 0."""
    figures = {
        "as they should be": summary.ok,
        "not moving, passed over": summary.passed,
        "repaired": summary.repaired,
        "copies written": summary.copies_written,
        "bytes read": summary.bytes_read,
        "bytes written": summary.bytes_written,
        "strays removed": summary.strays_removed,
        "strays on nodes without cas, kept": summary.strays_kept,
        "deletions forgotten": summary.tombstones_removed,
        "deletions kept in mind": summary.tombstones_young,
        "damaged copies found": summary.damaged_found,
        "damaged copies mended": summary.damaged_mended,
        "not of sfss, not touched": summary.foreign,
        "stripes of large files": summary.stripes,
        "that nobody had, swept": summary.stripes_swept,
        "that nobody has, too young": summary.stripes_young,
        "copies of blocks written": summary.blocks_copied,
        "copies of blocks removed": summary.blocks_removed,
        "bytes freed": summary.bytes_freed,
        "files with blocks moved": summary.manifests_moved,
        "uploads expired": summary.uploads_expired,
    }
    return (f"  {name:<34} {number:>15,}" for name, number in figures.items() if number)


def _left(summary: Summary) -> Iterator[str]:
    """What isn't well, and what to do about it."""
    for node, why in summary.away.items():
        yield f"left out: node {node}: {why}. Bring it back and run this again; if it is gone, replace it"
    if summary.under_replicated:
        yield f"left: {summary.under_replicated:,} keys lack a copy: run this again when the nodes can take it"
    if summary.damaged_keys:
        yield (
            f"left: of {summary.damaged_keys:,} keys no sound copy is left in the newest version. Store these files"
            f" again, or delete them: {', '.join(summary.damaged_named)}"
            f"{' ...' if summary.damaged_keys > len(summary.damaged_named) else ''}"
        )
    if summary.blocks_lacking:
        yield f"left: {summary.blocks_lacking:,} blocks lack a copy: run this again when the nodes can take it"
    if summary.blocks_lost:
        yield f"left: {summary.blocks_lost:,} blocks of these files are lost"
    if summary.stripes_unsure:
        some = "; ".join(f"{stripe}: {why}" for stripe, why in list(summary.unsure.items())[:UNSURE_NAMED])
        yield f"left: of {summary.stripes_unsure:,} stripes it isn't sure now whether a file has them: {some}"
    if summary.strays_left:
        yield f"left: {summary.strays_left:,} copies lie where they don't belong and can't go yet: run this again"
    for node, count in summary.errors.items():
        yield f"node {node} failed {count:,} calls; the last: {summary.why[node]}"


def _next_steps(settings: Settings, summary: Summary) -> list[str]:
    """What comes after a rebalance that left nothing."""
    if not settings.moving:
        return ["every file is where it belongs, and nowhere else"]
    joining, leaving = (", ".join(map(hidden, nodes)) for nodes in (settings.storage.joining, settings.storage.leaving))
    steps = [f"move {joining} from storage.joining to storage.nodes"] if joining else []
    steps += [f"strike {leaving} from storage.leaving"] if leaving else []
    again = "when all have read it, run sfss rebalance again"
    if summary.outgoing:
        again += f", to remove {summary.outgoing:,} copies that no longer belong where they are"
        # The mark of a single copy's deletion expires, and what lay elsewhere would come home.
        if any(rules.copies == 1 for rules in settings.rules):
            again += f", before {settings.storage.tombstone_ttl / 3600:g} hours have passed (storage.tombstone_ttl)"
    return [
        "every file is where the new configuration wants it, provided that all fronts know it. Now:",
        f"  on every front and worker, {' and '.join(steps)}; then have it read that: kill -HUP",
        f"  {again}",
    ]
