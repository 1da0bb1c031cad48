"""A front with a catalogue next to one without: GET and PUT of 4 KiB over one node, in alternating rounds of one run.

    python -m benchmarks.catalogue [--rounds 5] [--seconds 2]

Needs what ``make test`` installs: SQLAlchemy with its drivers, and PostgreSQL, which is left out where it isn't there.
Prints a fragment for ``RESULTS.rst``. Exit status: 0; 1 if a bound of the last column doesn't hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks import report, rounds
from benchmarks.httpload import Httpload
from benchmarks.rounds import GET, PUT_NEW, PUT_OVER, Contender
from tests.postgres import postgres
from tests.servers import HOST, Service, sfss_node, wait_for

BOUNDS = {GET: 0.95, PUT_NEW: 0.5, PUT_OVER: 0.5}
NONE = "no catalogue"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalogue", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run (default: %(default)s)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sfss-catalogue-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        load = Httpload(directory)
        contenders = list(_contenders(directory, stack))
        for contender in contenders:
            _fill(load, contender)
        rounds.run(load, contenders, options.rounds, options.seconds)
        for contender in contenders[1:]:
            _check(contender)
        programs = {"PostgreSQL": "psql --version"} if len(contenders) > 2 else {}
        print(report.field_list(report.facts("python -m benchmarks.catalogue", directory, programs)))
        rows, holds = _table(contenders)
        print(f"\n{report.table(rows, left=2)}")
    return 0 if holds else 1


def _contenders(directory: Path, stack: contextlib.ExitStack) -> Iterator[Contender]:
    urls = {NONE: "", "SQLite": f"sqlite:///{directory / 'catalogue.db'}"}
    if shutil.which("postgres") or list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        urls["PostgreSQL"] = stack.enter_context(stack.enter_context(postgres()).database())
    for name, url in urls.items():
        place = directory / name.replace(" ", "-")
        place.mkdir()
        port, _ = stack.enter_context(sfss_node(place / "node"))
        settings = {"SFSS_STORAGE_NODES": f"node={HOST}:{port}", "SFSS_CATALOGUE_URL": url}
        service = Service(place, settings=settings)
        stack.push(service)
        service.start()
        yield Contender(name, service)


def _fill(load: Httpload, contender: Contender) -> None:
    """The files that are read; then wait until the catalogue is in order."""
    rounds.fill(load, contender)
    wait_for(lambda: _status(contender).get("behind", "") == "", timeout=60, what="the catalogue")


def _status(contender: Contender) -> dict[str, str]:
    with urllib.request.urlopen(f"{contender.service.url}/status?format=full", timeout=10) as answer:
        found: dict[str, str] = json.load(answer)["webserver"].get("catalogue", {})
        return found


def _check(contender: Contender) -> None:
    """See that no row is owed: the figures are those of rows that were there before the answers."""
    found = _status(contender)
    assert (found["away"], found["owed"], found["behind"]) == ("", "0", ""), found


def _table(contenders: list[Contender]) -> tuple[list[tuple[str, ...]], bool]:
    rows: list[tuple[str, ...]] = [
        ("4 KiB", "catalogue", "requests/s", "lowest", "highest", "ratio", "p50 ms", "p99 ms", "bound", "holds")
    ]
    holds = True
    for each in rounds.compared(contenders):
        name = each.contender.name
        held, bound = rounds.judged(each.ratio, BOUNDS[each.request] if name != NONE else None)
        holds &= held
        rows.append((each.request, name, *each.cells, f"{each.ratio:.2f}", *each.times, *bound))
    return rows, holds


if __name__ == "__main__":
    sys.exit(main())
