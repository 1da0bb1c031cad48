"""``sfss reindex``: its options, its progress and its words. What it does stands in ``sfss/catalogue/reindex.py``.

Exit statuses: 0 the catalogue is as the nodes are now; 1 it isn't, or nodes or the database are away; 2 a setting or an
option is wrong; 130 stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from sfss.errors import ConfigError, SfssError

if TYPE_CHECKING:  # a node, which has the same command line, needs none of it
    from sfss.catalogue.catalogue import Catalogue
    from sfss.catalogue.reindex import Figures

EVERY, EVERY_LINE = 0.2, 10.0  # seconds between two words of progress, on a terminal and elsewhere

Connected = Callable[[], AbstractAsyncContextManager["Catalogue"]]


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the parser, which still lacks the options for settings, and what is to be run."""
    parser = commands.add_parser(
        "reindex",
        help="make the rows of the catalogue anew from the nodes",
        description="Walks over all files of all nodes and has the catalogue (catalogue.url) say of each what is so."
        " Fronts may serve meanwhile. It can be stopped at any moment, and run again at any time. Exit status: 0 all"
        " rows are right now; 1 they aren't, and it is said why; 130 stopped.",
    )
    parser.add_argument("--check", action="store_true", help="change nothing; say what differs, with exit status 1")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    return parser


def run(options: argparse.Namespace, connected: Connected) -> int:
    """Run the command; returns the exit status. ``connected`` is called in an event loop."""
    for name in ("sfss.backends", "sfss.catalogue"):
        logging.getLogger(name).setLevel(logging.WARNING)  # that all are here goes without saying
    return asyncio.run(_run(options, connected))


async def _run(options: argparse.Namespace, connected: Connected) -> int:
    async with connected() as catalogue:
        try:
            await catalogue.open()
            reindex = catalogue.reindex(check=options.check)
            figures = reindex.figures
            walking = asyncio.create_task(reindex.run() if options.check else catalogue.run(reindex))
            finished = await _watch(walking, figures)
        except ConfigError:
            raise
        except SfssError as error:
            print(f"sfss: {error}", file=sys.stderr)
            return 1
    print(_as_json(figures) if options.json else "\n".join(_words(figures, check=options.check)))
    if not finished:
        return 130
    return 1 if options.check and figures.differences else 0


async def _watch(walking: asyncio.Task[Figures], figures: Figures) -> bool:
    """Show how far it is; False if a signal stopped it. Raises what the walk raises."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, walking.cancel)
    is_terminal = sys.stderr.isatty()
    while not (await asyncio.wait([walking], timeout=EVERY if is_terminal else EVERY_LINE))[0]:
        rate = figures.files / max(figures.seconds, 0.001)
        line = f"{figures.files:,} files, {figures.differences:,} differ, {rate:,.0f} files/s"
        sys.stderr.write(f"\r{line}\x1b[K" if is_terminal else f"{line}\n")
        sys.stderr.flush()
    if is_terminal:
        sys.stderr.write("\r\x1b[K")
    if walking.cancelled():
        return False
    walking.result()
    return True


def _words(figures: Figures, *, check: bool) -> list[str]:
    if not figures.finished:
        how = "stopped before the end: run it again"
    elif not figures.differences:
        how = "the catalogue was right"
    elif check:
        how = "the catalogue differs: run sfss reindex"
    else:
        how = "the catalogue is right now"
    lines = [f"{figures.files:,} files, in {figures.seconds:.1f} s: {how}"]
    for name, number in (("missing", figures.missing), ("of no file", figures.extra), ("different", figures.different)):
        if number:
            lines.append(f"  rows that {'are' if check else 'were'} {name:<12} {number:>12,}")
    lines += [f"  {named}" for named in figures.named]
    return lines


def _as_json(figures: Figures) -> str:
    return json.dumps(
        {
            "files": figures.files,
            "missing": figures.missing,
            "extra": figures.extra,
            "different": figures.different,
            "finished": figures.finished,
            "seconds": figures.seconds,
            "named": figures.named,
        },
        ensure_ascii=False,
    )
