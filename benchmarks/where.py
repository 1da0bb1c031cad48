"""Where each microsecond of a GET and a PUT goes: the front's CPU time for a request, by step.

    python -m benchmarks.where [--seconds 8] [--only NAME ...]

Samples the front with py-spy while it is loaded by 32 connections, and shares out the CPU time that it used, as Linux
tells it, by the samples. What can be sampled are Python's functions: a step is all that is done in the functions of
some modules, with what they call in C. Prints a fragment for ``docs/speed.rst``. Exit status: 0; 2 if nothing can be
measured here.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from benchmarks import processes, report
from benchmarks.contenders import Running, programs, sfss_over_memcached, sfss_over_nodes
from benchmarks.httpload import Files, Httpload, Measured

CONNECTIONS = 32
FILES = Files("bench", 1000, 4096)
BEFORE = 1.0  # seconds of load before the first sample
RATE = 400  # samples a second

# By the end of a function's or a file's name, as py-spy writes them: the first that fits counts.
STEPS = (
    # uvloop's own work, and what the kernel does for it, stands in the function that it was called from.
    ("send (sfss/web/outbox.py", "send to the client"),
    ("_flush (sfss/backends/connection.py", "send to the node"),
    ("(asyncio/", "event loop, receiving"),
    ("(sfss/web/heads.py", "HTTP: read the request's head, write the answer's"),
    ("(sfss/web/", "HTTP: connection, request, conditions"),
    ("(aiohttp/", "aiohttp"),
    ("(multidict/", "aiohttp"),
    ("(yarl/", "aiohttp"),
    ("(sfss/record.py", "record: header, checksums"),
    ("(sfss/files.py", "files: path, version, what is told of a file"),
    ("(sfss/paths.py", "files: path, version, what is told of a file"),
    ("(sfss/cluster/", "cluster: ring, copies"),
    ("(sfss/memcache.py", "node: memcached's protocol"),
    ("(sfss/backends/", "node: connection, window, what was asked"),
)


class Load(NamedTuple):
    """One kind of request, and what it is sent to."""

    name: str
    title: str
    start: Callable[[Path], AbstractContextManager[Running]]
    options: tuple[object, ...]


LOADS = (
    Load("get", "GET, over memcached", sfss_over_memcached, ()),
    Load("304", "GET with the file's ETag, over memcached", sfss_over_memcached, ("--etags",)),
    Load("miss", "GET of what isn't there, over memcached", sfss_over_memcached, ("--miss",)),
    Load("get-node", "GET, over one node", sfss_over_nodes, ()),
    Load("put", "PUT over what is there, over one node, fsync", sfss_over_nodes, ("--puts", 100)),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.where", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=int, default=8, help="of each load (default: %(default)s)")
    parser.add_argument("--only", action="append", choices=[load.name for load in LOADS])
    options = parser.parse_args(arguments)
    profiler = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if profiler is None:
        print("py-spy is not installed: pip install '.[bench]'", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="sfss-where-") as name:
        directory = Path(name)
        print(report.field_list(report.facts("python -m benchmarks.where", directory, programs())))
        httpload = Httpload(directory)
        for load in LOADS:
            if load.name in (options.only or [load.name]):
                print(f"\n{load.title}:\n", flush=True)
                print(_measure(directory / load.name, load, httpload, profiler, options.seconds), flush=True)
    return 0


def _measure(directory: Path, load: Load, httpload: Httpload, profiler: str, seconds: int) -> str:
    """The table of one kind of request."""
    directory.mkdir()
    with load.start(directory) as running:
        (front,) = running.http
        options = _prepare(directory, load, httpload, running)

        def ask(for_seconds: float) -> Measured:
            done = httpload.run(running.target, FILES, "--connections", CONNECTIONS, *options, seconds=for_seconds)
            assert done.trouble is None, done.trouble
            return done

        ask(BEFORE)
        before = processes.cpu([front])
        each = 1e6 / ask(seconds).requests * (processes.cpu([front]) - before)
        samples = directory / "samples"
        command = [profiler, "record", "--pid", str(front), "--duration", str(seconds), "--rate", str(RATE),
                   "--format", "raw", "--output", str(samples)]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            ask(seconds + BEFORE)
        rows = [(step, f"{share * each:.1f}") for step, share in _shares(samples.read_text())]
        return report.table([("step", "us"), *rows, ("all", f"{each:.1f}")], left=1)


def _prepare(directory: Path, load: Load, httpload: Httpload, running: Running) -> tuple[object, ...]:
    """Have the files there, if they are to be; httpload's options."""
    if "--miss" not in load.options:
        running.fill(httpload, FILES)
    if "--etags" not in load.options:
        return load.options
    etags = directory / "etags"
    httpload.run(running.target, FILES, "--count", FILES.number, "--learn", etags)
    return ("--etags", etags)


def _shares(samples: str) -> Iterator[tuple[str, float]]:
    """Each step, with its part of all, the largest first."""
    found: Counter[str] = Counter()
    for line in samples.splitlines():
        stack, _, times = line.rpartition(" ")
        found[_step(stack.split(";")[-1].rpartition(":")[0])] += int(times)
    for name, count in found.most_common():
        yield name, count / found.total()


def _step(function: str) -> str:
    for name, step in STEPS:
        if name in function:
            return step
    return "everything else"


if __name__ == "__main__":
    sys.exit(main())
