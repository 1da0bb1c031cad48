"""How many instructions a front has the processor carry out for a request: what no neighbour on the machine can blur.

    python -m benchmarks.instructions [--beside TREE] [--only NAME ...]

Runs a front over memcached under valgrind's callgrind, and counts only while it is loaded. What is counted is the
front's own code, Python's and the libraries'; not the kernel's work for it. Neighbouring runs differ by a hundredth, so
that what a change costs, or saves, is seen on a machine where requests/s differ by a half.
``--beside``: a checkout of another commit is counted in the same run (git worktree add TREE COMMIT). Prints a table.
Exit status: 0; 2 if nothing can be counted here.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks import report
from benchmarks.contenders import MEMCACHED
from benchmarks.httpload import Files, Httpload, Measured, Target
from tests.servers import HOST, Service, memcached

CONNECTIONS = 8
FILES = Files("bench", 400, 4096)
COUNT = 5000  # requests that are counted
PATIENCE = 600  # seconds that they may take
HERE = Path(__file__).parent.parent
PATIENT = {"SFSS_STORAGE_TIMEOUT": "60", "SFSS_STORAGE_CONNECT_TIMEOUT": "60"}  # all takes fifty times as long
VALGRIND = ("valgrind", "--tool=callgrind", "--instr-atstart=no", "--trace-children=no")


class Load(NamedTuple):
    """One kind of request."""

    name: str
    title: str
    options: tuple[object, ...] = ()
    settings: Mapping[str, str] = {}


LOADS = (
    Load("put", "PUT over what is there", ("--puts", 100, "--edition", 1)),
    Load("get", "GET", ("--edition", 1)),
    Load("304", "GET with the file's ETag", ("--etags",)),
    Load("miss", "GET of what isn't there", ("--miss",)),
    Load("log", "GET, with an access log", (), {"SFSS_LOG_ACCESS": "access.log"}),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__.split("\n")[0])
    parser.add_argument("--beside", type=Path, metavar="TREE", help="another checkout, counted too")
    parser.add_argument("--only", action="append", choices=[load.name for load in LOADS])
    options = parser.parse_args(arguments)
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: apt-get install valgrind", file=sys.stderr)
        return 2
    trees = [HERE, *([options.beside.resolve()] if options.beside else [])]
    with tempfile.TemporaryDirectory(prefix="sfss-instructions-") as name:
        directory = Path(name)
        print(report.field_list(report.facts("python -m benchmarks.instructions", directory, {})))
        rows = [("4 KiB, over memcached", *(["here"] if len(trees) == 1 else ["here", "beside", "ratio"]))]
        httpload = Httpload(directory)
        for load in LOADS:
            if load.name in (options.only or [load.name]):
                # What needs a setting of its own another commit may not know.
                counts = [
                    _counted(directory / f"{load.name}-{n}", tree, load, httpload)
                    for n, tree in enumerate(trees[:1] if load.settings else trees)
                ]
                ratio = f"{counts[0] / counts[1]:.3f}" if len(counts) > 1 else ""
                cells = [*(f"{count:,.0f}" for count in counts), ""][: len(trees)]
                rows.append((load.title, *cells, *([ratio] if len(trees) > 1 else [])))
    print(f"\nInstructions for a request:\n\n{report.table(rows, left=1)}")
    return 0


def _counted(directory: Path, tree: Path, load: Load, httpload: Httpload) -> float:
    """Instructions for one request of that kind."""
    directory.mkdir()
    with _front(directory, tree, load.settings) as service:
        target = Target(service.port, "/file?path=")

        def ask(count: int, *options: object) -> Measured:
            counted = ("--connections", CONNECTIONS, "--count", count)
            done = httpload.run(target, FILES, *counted, *options, seconds=PATIENCE)
            assert done.trouble is None, done.trouble
            return done

        edition = ("--edition", 1) if "--edition" in load.options else ()
        if "--miss" not in load.options:
            ask(FILES.number, "--puts", 100, *edition)
        asked = load.options
        if "--etags" in asked:
            ask(FILES.number, "--learn", directory / "etags")
            asked = ("--etags", directory / "etags")
        ask(FILES.number, *asked)  # what is made at the first of them isn't counted
        began = time.monotonic()
        _control(service, "--instr=on")
        requests = ask(COUNT, *asked).requests
        _control(service, "--dump")
        took = time.monotonic() - began
        # What a front does each second comes to much where a second has so few requests: it is counted, and taken off.
        time.sleep(took)
        _control(service, "--dump")
    asked_for, idle = (_total(directory, number) for number in (1, 2))
    return (asked_for - idle) / requests


def _total(directory: Path, number: int) -> int:
    """Instructions in the dump of that number."""
    (dump,) = directory.glob(f"callgrind.*.{number}")
    lines = dump.read_text(errors="replace").splitlines()
    return int(next(line for line in lines if line.startswith("totals:")).split()[1])


@contextlib.contextmanager
def _front(directory: Path, tree: Path, settings: Mapping[str, str]) -> Iterator[Service]:
    with memcached(*MEMCACHED) as port:
        asked = {"SFSS_STORAGE_NODES": f"node={HOST}:{port}", "PYTHONPATH": str(tree), **PATIENT, **settings}
        service = Service(directory, settings=asked)
        service.python = (*VALGRIND, f"--callgrind-out-file={directory}/callgrind.%p", sys.executable)
        with service:
            yield service


def _control(service: Service, order: str) -> None:
    assert service.process is not None
    subprocess.run(["callgrind_control", order, str(service.process.pid)], check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
