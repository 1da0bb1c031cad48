"""A cluster whose nodes fail, are emptied, join and leave while clients go on: what they notice, and what it costs.

    python -m benchmarks.cluster [--sections faults repair growth] [--files 10000] [--rate 300] [--seconds 8]
                                 [--durability fsync] [--data DIR]

* ``faults``: one of three nodes is killed (kill -9), or stands still (SIGSTOP), and comes back;
* ``repair``: a node loses all that it has, and ``sfss repair`` fills it again; and a repair where all is well;
* ``growth``: three nodes become four, and three again.

All servers are processes of their own on this machine, and share its cores with the clients. Every answer is held
against what was acknowledged before. Prints a fragment for ``RESULTS.rst``. Exit status: 0; 1 if a request failed, or a
file is not what was acknowledged, which is told.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from benchmarks import report
from benchmarks.cluster_bench import Bench, Options
from benchmarks.cluster_faults import show_faults
from benchmarks.cluster_load import SIZE
from benchmarks.cluster_moves import show_growth, show_repairs

SECTIONS = {"faults": show_faults, "repair": show_repairs, "growth": show_growth}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _options(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # the program ends by way of all the blocks that end a server
    with tempfile.TemporaryDirectory(prefix="sfss-bench-", dir=options.data) as name:
        directory = Path(name)
        command = shlex.join(["python", "-m", "benchmarks.cluster", *arguments])
        facts = [*report.facts(command, directory, {}), ("Load before", report.load_average())]
        files = f"{options.files:,}, of {SIZE:,} bytes; durability {options.durability}"
        print(report.field_list([*facts, ("Files", files)]), flush=True)
        bench = Bench(options, directory)
        asyncio.run(_run(bench))
    print(f"\nOthers kept {mean(bench.others):.2f} cores busy, on average of the pauses before each cluster.")
    for trouble in bench.troubles:
        print(f"\nWrong: {trouble}")
    return 1 if bench.troubles else 0


async def _run(bench: Bench) -> None:
    for section in bench.options.sections:
        await SECTIONS[section](bench)


def _options(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description="A cluster under faults.")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="NAME",
                        help=f"only these; there are {', '.join(SECTIONS)}")  # fmt: skip
    parser.add_argument("--files", type=int, default=10_000, metavar="N",
                        help="that are moved (default: %(default)s)")  # fmt: skip
    parser.add_argument("--rate", type=int, default=300, metavar="N",
                        help="requests/s while a node fails (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seconds", type=int, default=8, metavar="N",
                        help="of each phase of a failure (default: %(default)s)")  # fmt: skip
    parser.add_argument("--durability", choices=("fsync", "os"), default="fsync", help="(default: %(default)s)")
    parser.add_argument("--data", type=Path, metavar="DIR", default=Path(tempfile.gettempdir()),
                        help="a directory to keep the data in meanwhile (default: %(default)s)")  # fmt: skip
    options = parser.parse_args(arguments, Options())
    if options.files < 100 or options.rate < 1 or options.seconds < 2:
        parser.error("--files: at least 100; --rate: at least 1; --seconds: at least 2")
    return options


if __name__ == "__main__":
    sys.exit(main())
