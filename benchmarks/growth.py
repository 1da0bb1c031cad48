"""How cost grows: with the number of files, of nodes, of connections; and what of it is the machine's limit.

    python -m benchmarks.growth [--sections files,nodes,connections] [--rounds 3] [--seconds 3] [--long] [--quick]

Prints a fragment for ``RESULTS.rst``, and draws a picture for each section. Exit status: 0; 1 if a point made errors,
for which no figure is given; 2 if nothing can be measured here.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from types import FrameType
from typing import NoReturn

from benchmarks import report
from benchmarks.growth_sections import LONG, SECTIONS, TITLES, USUAL, Bench, Told, picture, table
from benchmarks.growth_servers import nginx_binary

PICTURES = Path(__file__).with_name("pictures")
ROOM = 4  # bytes of disk for each byte of files: what is written, and rewritten before it is freed

COLUMNS = """\
The load is wrk: one thread, {connections} connections (where they don't grow) on loopback, each with one request in
flight; it shares the cores with the servers. Each figure is that of the run with the median rate of {rounds} of
{seconds} seconds, twice as long from 1,000 connections on and five times with 10,000: to open them is a part of it.
Some of the files are read again after each run, and compared.

*front us*, *nodes us*, *load us*: CPU time for a request, of the front, of all nodes together, of wrk. *cores*: how
many the whole machine had busy. *limit*: what there was no more of: "front" or "node", which filled a core; "machine":
all cores were busy; "waits": neither, answers waited for the disk or for one another. *MiB*: resident, behind the
run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    with tempfile.TemporaryDirectory(prefix="sfss-growth-", dir=options.data) as name:
        directory = Path(name)
        if trouble := _why_not(directory, options):
            print(trouble, file=sys.stderr)
            return 2
        directory.chmod(0o755)  # nginx's worker may have a user of its own
        programs = {"nginx": f"{nginx_binary()} -v", "memcached": "memcached -V", "wrk": "wrk -v"}
        command = shlex.join(["python", "-m", "benchmarks.growth", *arguments])
        print(report.field_list([*report.facts(command, directory, programs), ("Load before", report.load_average())]))
        words = COLUMNS.format(connections=USUAL, rounds=options.rounds, seconds=options.seconds)
        print(f"\n{words}", flush=True)
        bench = Bench(directory, options)
        status = max([_tell(section, SECTIONS[section](bench), options.pictures) for section in options.sections])
        print(f"\nOthers kept {mean(bench.others):.2f} cores busy, on average of the pauses between the runs.")
        return status


def _tell(section: str, told: Told, pictures: Path) -> int:
    """Print what a section came to, and draw it; the exit status."""
    title = TITLES[section]
    print(f"\n{title}\n{'~' * len(title)}\n\n{told.note}\n\n{table(told)}")
    failed = [row for row in told.rows if row.point.trouble]
    for row in failed:
        print(f"\nNo figure for {row.what} at {row.x:,}: {row.point.trouble}")
    if len(failed) < len(told.rows):
        pictures.mkdir(parents=True, exist_ok=True)
        (pictures / f"growth-{section}.svg").write_text(picture(told, title))
        print(f"\n.. image:: pictures/growth-{section}.svg")
    sys.stdout.flush()
    return 1 if failed else 0


def _why_not(directory: Path, options: argparse.Namespace) -> str | None:
    """Why nothing can be measured there."""
    if report.file_system(directory).startswith(report.IN_MEMORY):
        return f"{directory} is in memory: set TMPDIR or --data to a directory on a disk"
    wanted = ROOM * LONG * options.file_size if options.long and "files" in options.sections else 0
    free = shutil.disk_usage(directory).free
    if free < wanted:
        return f"{wanted / 2**30:.0f} GiB may be needed for {LONG:,} files, and {free / 2**30:.0f} are free in" \
               f" {directory}: choose a smaller --file-size, or another --data"  # fmt: skip
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description="How cost grows.")
    parser.add_argument("--sections", type=_sections, default=tuple(SECTIONS), metavar="NAME,...",
                        help=f"which of {', '.join(SECTIONS)} (default: all)")  # fmt: skip
    parser.add_argument("--rounds", type=_positive, default=3, metavar="N", help="of each point (default: %(default)s)")
    parser.add_argument("--seconds", type=_positive, default=3, metavar="N", help="of each run (default: %(default)s)")
    parser.add_argument("--long", action="store_true",
                        help=f"up to {LONG:,} files: 10 GB of disk and half an hour more")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="only the first two sizes of each section")
    parser.add_argument("--file-size", type=_positive, default=1024, metavar="BYTES",
                        help="of the section `files` (default: %(default)s)")  # fmt: skip
    parser.add_argument("--data", metavar="DIR", help="where the servers' files go (default: $TMPDIR or /tmp)")
    parser.add_argument("--pictures", type=Path, default=PICTURES, metavar="DIR", help="(default: %(default)s)")
    return parser


def _sections(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(SECTIONS):
        raise argparse.ArgumentTypeError(f"there are {', '.join(SECTIONS)}")
    return names


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    """A signal ends the program by way of all the blocks that end a server."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
