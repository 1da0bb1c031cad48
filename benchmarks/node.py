"""One sfss node beside memcached: memory and disk for an item, time to open, requests/s, and what a slow disk does.

    python -m benchmarks.node [--items 1000000] [--rounds 3] [--seconds 2] [--sections NAME ...]
                              [--sizes 100 1024] [--idle 30] [--data DIR] [--rst FILE]

* ``fill``: how fast the servers take all items, and what memory and disk one then needs;
* ``open``: how long the node takes to start on them, after a stop and after a kill -9;
* ``serve``: gets and sets over 1, 16 and 256 connections, in alternating rounds;
* ``cold``: gets of what isn't in memory, and how long someone waits meanwhile who asks for what is;
* ``pipelined``: gets and sets over one connection with 32 requests in flight, of 4 KiB, as a front asks.

Prints a fragment for ``RESULTS.rst``; with ``--rst`` it is in that file too, as far as it has come. What a run needs is
told before it begins. Exit status: 0; 1 if a server made errors, which are told; 2 if nothing can be measured here.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from benchmarks import report
from benchmarks.compiler import NoCompiler
from benchmarks.memload import Items
from benchmarks.node_bench import MIB, Bench, Options, say
from benchmarks.node_fill import FEWER, fill, start_again
from benchmarks.node_serve import (
    CONNECTIONS,
    HOT,
    KINDS,
    LONGER,
    PAUSE,
    PIPELINED_KINDS,
    WARMING,
    read_cold,
    serve,
    serve_pipelined,
)
from benchmarks.watched import Node, memory_available, twin, watched_memcached

SECTIONS = ("fill", "open", "serve", "cold", "pipelined")
MAX_ITEMS = 50_000_000  # that memload knows
SERVERS = 3  # that are compared


class Needs(NamedTuple):
    """What a run will take, about."""

    minutes: float
    disk: float  # bytes
    memory: float  # bytes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _options(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # the program ends by way of all the blocks that end a server
    options.data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sfss-bench-", dir=options.data) as name:
        directory = Path(name)
        if trouble := _why_not_here(directory, options):
            print(trouble, file=sys.stderr)
            return 2
        try:
            bench = Bench(options, directory)
        except NoCompiler as error:
            print(error, file=sys.stderr)
            return 2
        programs = {"memcached": "memcached -V", "C compiler": f"{os.environ.get('CC', 'cc')} --version"}
        command = shlex.join(["python", "-m", "benchmarks.node", *arguments])
        facts = [*report.facts(command, directory, programs), ("Load before", report.load_average())]
        bench.tell(report.field_list([*facts, ("Items", _what(bench.items))]))
        _run(bench)
    if bench.others:
        bench.tell(f"\nOthers kept {mean(bench.others):.2f} cores busy, on average of the pauses between the runs.")
    for trouble in bench.troubles:
        bench.tell(f"\nWrong: {trouble}")
    return 1 if bench.troubles else 0


def _options(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.node", description="One sfss node beside memcached.")
    parser.add_argument("--items", type=int, default=1_000_000, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=2, metavar="N", help="of each run (default: %(default)s)")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="NAME",
                        help=f"only these; there are {', '.join(SECTIONS)}")  # fmt: skip
    parser.add_argument("--sizes", type=int, nargs=2, default=[100, 1024], metavar=("SMALLEST", "LARGEST"),
                        help="bytes of a value, spread evenly between these (default: 100 1024)")  # fmt: skip
    parser.add_argument("--idle", type=int, default=30, metavar="SECONDS",
                        help="before memory is looked at again (default: %(default)s)")  # fmt: skip
    parser.add_argument("--data", type=Path, metavar="DIR", default=Path(tempfile.gettempdir()),
                        help="a directory to keep the data in meanwhile (default: %(default)s)")  # fmt: skip
    parser.add_argument("--rst", type=Path, metavar="FILE", help="write there, too, what is printed")
    options = parser.parse_args(arguments, Options())
    if not HOT <= options.items <= MAX_ITEMS or min(options.rounds, options.seconds) < 1 or options.idle < 0:
        parser.error(f"--items: {HOT:,} to {MAX_ITEMS:,}; --rounds and --seconds: at least 1")
    if not 15 <= options.sizes[0] <= options.sizes[1] <= MIB // 2:
        parser.error("--sizes: SMALLEST at least 15, LARGEST not less, and at most 512 KiB")
    return options


def _why_not_here(directory: Path, options: Options) -> str | None:
    """Tell what the run will need; why it can't be had."""
    needs = _needs(options)
    say(f"this takes about {needs.minutes:.0f} minutes, {needs.disk / 1e9:.1f} GB of disk and "
        f"{needs.memory / 1e9:.1f} GB of memory")  # fmt: skip
    if report.file_system(directory).startswith(report.IN_MEMORY):
        return f"{directory} is in memory: name a directory on a disk with --data"
    if shutil.disk_usage(directory).free < needs.disk:
        return f"there isn't so much room in {directory}: name another directory with --data"
    if memory_available() < needs.memory:
        return "there isn't so much memory: ask for fewer --items"
    return None


def _needs(options: Options) -> Needs:
    """The rates and seconds in it were measured on two cores."""
    items = Items(options.items, *options.sizes)
    seconds = 10 + items.number / 30_000 + items.number / 300_000
    if "fill" in options.sections:
        seconds += 10 + items.number / FEWER / 18_000 + options.idle
    if "open" in options.sections:
        seconds += options.rounds * (5 + items.number / 1e6 + options.seconds)
    if "serve" in options.sections:
        rounds = len(CONNECTIONS) * options.rounds
        seconds += len(KINDS) * SERVERS * (WARMING + rounds * options.seconds + (1 + rounds) * 2 * PAUSE)
    if "pipelined" in options.sections:
        seconds += 10 + len(PIPELINED_KINDS) * SERVERS * options.rounds * (options.seconds + 2 * PAUSE)
    if "cold" in options.sections:
        seconds += 2 * len(CONNECTIONS) * (5 + LONGER * options.seconds)
    return Needs(
        minutes=seconds / 60,
        disk=items.number * (items.payload + 60) * 1.6 + 1e9,
        memory=items.number * (items.payload * 1.2 + 200) + 1e9,
    )


def _what(items: Items) -> str:
    if items.smallest == items.largest:
        return f"{items.number:,}, of {items.largest:,} bytes"
    return f"{items.number:,}, of {items.smallest:,} to {items.largest:,} bytes, {items.payload:,.0f} on average"


def _run(bench: Bench) -> None:
    """The sections that are asked for, each on what the one before has left."""
    sections = bench.options.sections
    room = int(bench.items.number * (bench.items.payload * 1.3 + 150) / MIB) + 256  # so that it never evicts
    with contextlib.ExitStack() as stack:
        memcached = stack.enter_context(watched_memcached(room))
        node = stack.enter_context(Node(bench.directory / "os", "os"))
        node.start()
        fill(bench, node, memcached)
        if "open" in sections:
            start_again(bench, node)
        if "serve" in sections:
            node.stop()
            twin(node.data, bench.directory / "fsync")
            node.start()
            with Node(bench.directory / "fsync", "fsync") as syncing:
                syncing.start()
                serve(bench, [syncing, node, memcached])
        if "cold" in sections:
            read_cold(bench, node)
        if "pipelined" in sections:  # last: it gives other values to some items
            with Node(bench.directory / "pipelined", "fsync") as syncing:
                syncing.start()
                serve_pipelined(bench, [syncing, node, memcached])


if __name__ == "__main__":
    sys.exit(main())
