"""The benchmarks beside nginx, in one run: what must show, and each section of ``plan.py``.

    python -m benchmarks.suite [--sections NAME ...] [--rounds N] [--seconds S] [--quick] [--pictures DIR]

Prints a fragment for ``RESULTS.rst``, which says how to read it, and writes its pictures; interrupted, it prints what
it has. Exit status: 0, whatever the figures are; 1 if a contender has no figure; 2 if nothing can be measured here;
130 if it was broken off.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from types import FrameType
from typing import NoReturn

from benchmarks import report
from benchmarks.compiler import NoCompiler
from benchmarks.contenders import programs
from benchmarks.pictures import picture
from benchmarks.plan import SECTIONS, Section, Table
from benchmarks.results import MUSTS, Outcomes, label, show, value, verdicts
from benchmarks.running import Bench, Options, say

HERE = Path(__file__).parent
PICTURES, QUICK_PICTURES = HERE / "pictures", HERE / "out"
TABLES = tuple(table.name for section in SECTIONS.values() for table in section.tables)
QUICK = Options(seconds=0.3, rounds=1, warming=False, pause=0.1, most_files=200)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    options = parser.parse_args(arguments)
    sections = _wanted(options)
    if not sections:
        parser.error(f"none of these sections has the tables {', '.join(options.tables)}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    with tempfile.TemporaryDirectory(prefix="sfss-bench-") as name:
        directory = Path(name)
        if report.file_system(directory).startswith(report.IN_MEMORY):
            print(f"{name} is in memory: set TMPDIR to a directory on a disk", file=sys.stderr)
            return 2
        directory.chmod(0o755)  # nginx's worker may have a user of its own
        command = shlex.join(["python", "-m", "benchmarks.suite", *arguments])
        try:
            tools = {**programs(), "C compiler": f"{os.environ.get('CC', 'cc')} --version"}
            bench = Bench(directory, _how_long(options))
        except (NoCompiler, AssertionError) as error:
            print(error, file=sys.stderr)
            return 2
        facts = [*report.facts(command, directory, tools), ("Load before", report.load_average())]
        broken_off = _measure(bench, sections)
        _tell_how(facts, bench, broken_off)
        _tell(sections, bench.outcomes, options.pictures or (QUICK_PICTURES if options.quick else PICTURES))
        sys.stdout.flush()
        say("removing what was written")
    if broken_off:
        return 130
    return 1 if any(outcome.trouble for outcome in bench.outcomes.values()) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite", description="sfss beside nginx.")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, metavar="NAME",
                        help=f"only these; there are {', '.join(SECTIONS)}")  # fmt: skip
    parser.add_argument("--tables", nargs="+", choices=TABLES, metavar="NAME",
                        help=f"only these of theirs; there are {', '.join(TABLES)}")  # fmt: skip
    parser.add_argument("--rounds", type=_positive, metavar="N", help="(default: 5 of the centre, 3 of the others)")
    parser.add_argument("--seconds", type=_seconds, metavar="S", help="of each run (default: 2)")
    parser.add_argument("--quick", action="store_true", help="see that all of it works; the figures are worth nothing")
    parser.add_argument("--pictures", type=Path, metavar="DIR",
                        help="for them (default: benchmarks/pictures; with --quick benchmarks/out)")  # fmt: skip
    return parser


def _wanted(options: argparse.Namespace) -> list[Section]:
    """The sections to be measured, each with those of its tables that are."""
    sections = [SECTIONS[name] for name in options.sections or SECTIONS]
    tables = options.tables or TABLES
    cut = [section._replace(tables=tuple(t for t in section.tables if t.name in tables)) for section in sections]
    return [section for section in cut if section.tables]


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def _seconds(text: str) -> float:
    if not 0 < (number := float(text)) <= 3600:
        raise ValueError(text)
    return number


def _how_long(options: argparse.Namespace) -> Options:
    usual = QUICK if options.quick else Options(seconds=2.0, rounds=None)
    return usual._replace(seconds=options.seconds or usual.seconds, rounds=options.rounds or usual.rounds)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    """A signal ends the run by way of all the blocks that end a server, and then what there is is told."""
    raise KeyboardInterrupt(number)


def _measure(bench: Bench, sections: Sequence[Section]) -> str | None:
    """Why it didn't come to its end."""
    try:
        for section in sections:
            bench.measure(section)
    except KeyboardInterrupt:
        return "it was interrupted"
    except (OSError, subprocess.SubprocessError) as error:  # a disk that is full, a server that doesn't end
        return str(error)
    return None


# --- what came of it ---


def _tell_how(facts: list[tuple[str, str]], bench: Bench, broken_off: str | None) -> None:
    others = mean(bench.others or [0.0])
    facts.append(("Others", f"{others:.2f} cores busy with other work, on average of the pauses between the runs"))
    if broken_off:
        facts.append(("Broken off", f"{broken_off}; what follows is what there was by then"))
    print(report.field_list(facts))


def _tell(sections: Sequence[Section], outcomes: Outcomes, pictures: Path) -> None:
    if any(name in {must.table for must in MUSTS} for name, _ in outcomes):
        print(f"\nWhat must show:\n\n{verdicts(outcomes)}")
    for section in sections:
        if any(table.name == name for table in section.tables for name, _ in outcomes):
            print(f"\n**{section.title}**")
        for table in section.tables:
            if any(name == table.name for name, _ in outcomes):
                print(f"\n{table.title}:\n\n{show(table, outcomes)}")
                _tell_troubles(table, outcomes)
                _draw(table, outcomes, pictures)


def _tell_troubles(table: Table, outcomes: Outcomes) -> None:
    for row in table.rows:
        outcome = outcomes.get((table.name, row))
        if outcome is not None and outcome.trouble:
            at = f" ({value(table, row)})" if table.varies else ""
            print(f"\nNo figure for {label(table, row)}{at}: {outcome.trouble}")


def _draw(table: Table, outcomes: Outcomes, pictures: Path) -> None:
    if drawn := picture(table, outcomes):
        pictures.mkdir(parents=True, exist_ok=True)
        (pictures / f"{table.name}.svg").write_text(drawn)
        print(f"\n.. image:: pictures/{table.name}.svg\n   :alt: {table.title}")


if __name__ == "__main__":
    sys.exit(main())
