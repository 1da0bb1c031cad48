"""One front beside nginx: GET and PUT of 4 KiB files, in alternating rounds of one run.

    python -m benchmarks.front [--rounds 5] [--seconds 3] [--connections 32] [--only NAME ...]

Prints a fragment for ``RESULTS.rst``. Exit status: 0; 1 if a contender made errors, for which no figure is given; 2 if
nothing can be measured here.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, median
from types import FrameType
from typing import NoReturn

from benchmarks import report
from benchmarks.contenders import CONTENDERS, LOADS, Bench, Contender, Nginx, programs, verify, verify_after
from benchmarks.load import FOLDER, SIZE, Bodies, Load, Measured, Target, Wrong, measure

PAUSE = 0.3  # seconds before each run, after what others left to be written has been written
NAMES = tuple(contender.name for contender in CONTENDERS)
HEAD = ("contender", "what", "requests/s", "lowest", "highest", "ratio", "p50 ms", "p99 ms")


class Entry:
    """A contender that runs, and what was measured of it."""

    def __init__(self, contender: Contender, target: Target) -> None:
        self.contender = contender
        self.target = target
        self.rounds: list[Measured] = []
        self.others: list[float] = []  # cores that others' work kept busy before each run
        self.trouble: str | None = None  # why no figure is given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    with tempfile.TemporaryDirectory(prefix="sfss-bench-") as name:
        directory = Path(name)
        if report.file_system(directory).startswith(report.IN_MEMORY):
            print(f"{name} is in memory: set TMPDIR to a directory on a disk", file=sys.stderr)
            return 2
        directory.chmod(0o755)  # nginx's worker may have a user of its own
        command = shlex.join(["python", "-m", "benchmarks.front", *arguments])
        facts = [*report.facts(command, directory, programs()), ("Load before", report.load_average())]
        bodies = Bodies(directory / "bodies", max(load.files for load in LOADS))
        entries = [entry for load in LOADS for entry in _run(directory / load.name, load, bodies, options)]
    others = mean(cores for entry in entries for cores in entry.others or [0.0])
    facts.append(("Others", f"{others:.2f} cores busy with other work, on average of the pauses between the runs"))
    print(report.field_list(facts))
    for load in LOADS:
        if shown := [entry for entry in entries if entry.contender.load == load]:
            rows = [HEAD, *(_row(entry, shown) for entry in shown)]
            print(f"\n{load.title}, {SIZE // 1024} KiB:\n\n{report.table(rows, left=2)}")
    failed = [entry for entry in entries if entry.trouble]
    for entry in failed:
        print(f"\nNo figure for {entry.contender.name}: {entry.trouble}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.front", description="One sfss front beside nginx.")
    parser.add_argument("--rounds", type=_positive, default=5, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--seconds", type=_positive, default=3, metavar="N", help="of each run (default: %(default)s)")
    parser.add_argument("--connections", type=_positive, default=32, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME",
                        help=f"only this one; may be given several times. There are {', '.join(NAMES)}")  # fmt: skip
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    """A signal ends the program by way of all the blocks that end a server."""
    sys.exit(128 + number)


# --- the run ---


def _run(directory: Path, load: Load, bodies: Bodies, options: argparse.Namespace) -> list[Entry]:
    """Start the contenders for one kind of load, measure them, end them."""
    entries: list[Entry] = []
    with contextlib.ExitStack() as stack:
        nginx = Nginx(directory / "nginx")
        stack.enter_context(nginx.running())
        for contender in CONTENDERS:
            if contender.load == load and contender.name in (options.only or NAMES):
                _say(f"starting {contender.name}")
                own = directory / contender.name
                own.mkdir()
                target = stack.enter_context(contender.start(Bench(own, bodies, nginx)))
                entries.append(Entry(contender, target))
                with _noting_what_is_wrong(entries[-1]):
                    verify(contender, target, bodies)
        for number in range(options.rounds + 1):  # the first one is to warm up
            # There and back, so that a drift of the machine weighs on all alike.
            for entry in entries[:: -1 if number % 2 else 1]:
                _say(f"{f'round {number} of {options.rounds}' if number else 'warming up'}: {entry.contender.name}")
                if entry.trouble is None:
                    measured = _measure(entry, number, bodies, options)
                    entry.rounds += [measured] if number else []
    return entries


def _measure(entry: Entry, number: int, bodies: Bodies, options: argparse.Namespace) -> Measured:
    """One run, and a look at what it has left."""
    load = entry.contender.load
    folder = f"round-{number}" if load.fresh else FOLDER
    os.sync()
    entry.others.append(report.pause(PAUSE))
    measured = measure(entry.target, load, bodies, folder, seconds=options.seconds, connections=options.connections)
    entry.trouble = measured.trouble
    if measured.trouble is None:
        answered = measured.requests - 10 * options.connections  # of the last ones not all were
        with _noting_what_is_wrong(entry):
            verify_after(entry.contender, entry.target, bodies, folder, answered)
    return measured


@contextlib.contextmanager
def _noting_what_is_wrong(entry: Entry) -> Iterator[None]:
    try:
        yield
    except Wrong as wrong:
        entry.trouble = str(wrong)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


# --- what came of it ---


def _row(entry: Entry, entries: Sequence[Entry]) -> tuple[str, ...]:
    name, what = entry.contender.name, entry.contender.what
    if entry.trouble:
        return (name, what, "no figure", "", "", "", "", "")
    rates = [measured.rate for measured in entry.rounds]
    return (
        name,
        what,
        *(f"{rate:,.0f}" for rate in (median(rates), min(rates), max(rates))),
        _ratio(entry, entries),
        f"{median(measured.p50 for measured in entry.rounds):.2f}",
        f"{median(measured.p99 for measured in entry.rounds):.2f}",
    )


def _ratio(entry: Entry, entries: Sequence[Entry]) -> str:
    """The median over the rounds of the ratio to the reference in the same round."""
    for reference in entries:
        if reference.contender.name == entry.contender.reference and reference.trouble is None:
            pairs = zip(entry.rounds, reference.rounds, strict=True)
            return f"{median(measured.rate / beside.rate for measured, beside in pairs):.2f}"
    return "-"


if __name__ == "__main__":
    sys.exit(main())
