"""Kinds of nodes side by side: GET and PUT of 4 KiB through a front over one node of each, in alternating rounds.

    python -m benchmarks.kinds [--rounds 5] [--seconds 2]

Needs what ``make test`` installs: memcached, Redis, PostgreSQL; a kind whose server isn't there is left out.
Prints a fragment for ``RESULTS.rst``. The kinds don't promise the same: the table says what each write is worth.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import report, rounds
from benchmarks.httpload import Httpload
from benchmarks.rounds import Contender
from tests.postgres import postgres
from tests.redis import DURABLE, redis
from tests.servers import HOST, Service, memcached, sfss_node

PROGRAMS = {"memcached": "memcached --version", "redis-server": "redis-server --version", "psql": "psql --version"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kinds", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run (default: %(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sfss-kinds-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        load = Httpload(directory)
        survives: dict[str, str] = {}
        kinds = list(_kinds(directory, stack, survives))
        for kind in kinds:
            rounds.fill(load, kind)
        rounds.run(load, kinds, options.rounds, options.seconds)
        programs = {program: version for program, version in PROGRAMS.items() if shutil.which(program)}
        print(report.field_list(report.facts("python -m benchmarks.kinds", directory, programs)))
        print(f"\n{report.table(_table(kinds, survives), left=3)}")
    return 0


def _kinds(directory: Path, stack: contextlib.ExitStack, survives: dict[str, str]) -> Iterator[Contender]:
    """A front over a node of each kind; ``survives`` is told what an acknowledged write does there."""
    for name, what, node in _nodes(directory, stack):
        place = directory / f"front of {name}"
        place.mkdir()
        service = Service(place, settings={"SFSS_STORAGE_NODES": f"node={node}"})
        stack.push(service)
        survives[name] = what
        yield Contender(name, service.start())


def _nodes(directory: Path, stack: contextlib.ExitStack) -> Iterator[tuple[str, str, str]]:
    """The name of each kind, what a write survives there, and where a node of it answers."""
    port, _ = stack.enter_context(sfss_node(directory / "node"))
    yield "sfss node", "power failure", f"{HOST}:{port}"
    if shutil.which("memcached"):
        yield "memcached", "nothing", f"{HOST}:{stack.enter_context(memcached('-m', '1024'))}"
    if shutil.which("redis-server"):
        everysec = ("--appendonly", "yes", "--appendfsync", "everysec")
        for fsync, survives, setting in (("always", "power failure", DURABLE), ("everysec", "being killed", everysec)):
            server = stack.enter_context(redis(directory / f"redis-{fsync}", *setting))
            yield f"Redis, {fsync}", survives, server.url
    if list(Path("/usr/lib/postgresql").glob("*/bin/postgres")) or shutil.which("postgres"):
        url = stack.enter_context(stack.enter_context(postgres()).database())
        made = subprocess.run([sys.executable, "-m", "sfss", "post", "migrate", "--url", url], capture_output=True)
        if made.returncode == 0:
            yield "PostgreSQL", "power failure", url
        else:
            print(f"PostgreSQL is left out: {made.stderr.decode().splitlines()[-1:]}", file=sys.stderr)


def _table(kinds: list[Contender], survives: Mapping[str, str]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("4 KiB", "node", "a write survives", "requests/s", "lowest", "highest", "ratio", "p50 ms", "p99 ms")
    ]
    for each in rounds.compared(kinds):
        name = each.contender.name
        rows.append((each.request, name, survives[name], *each.cells, f"{each.ratio:.2f}", *each.times))
    return rows


if __name__ == "__main__":
    sys.exit(main())
