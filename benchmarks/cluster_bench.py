"""What the sections of ``benchmarks.cluster`` share: the command line's options, and where findings go."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.cluster_farm import Copies, Farm
from benchmarks.cluster_load import Clients, Load, told

PAUSE = 0.5  # seconds


class Options(argparse.Namespace):
    """The command line."""

    files: int
    rate: int
    seconds: int
    durability: str
    sections: list[str]
    data: Path


class Bench:
    """What a run has to work with, and what it has found out."""

    def __init__(self, options: Options, directory: Path) -> None:
        self.options = options
        self.troubles: list[str] = []
        self.others: list[float] = []  # cores that others' work kept busy before each cluster was started
        self._directory = directory
        self._farms = 0

    def farm(self, copies: Copies, **options: Any) -> Farm:
        """A cluster in a directory of its own; ``options`` are those of Farm."""
        self.others.append(report.pause(PAUSE))
        self._farms += 1
        directory = self._directory / f"farm-{self._farms}"
        return Farm(directory, copies, durability=self.options.durability, **options)

    def tell(self, title: str, rows: Sequence[Sequence[str]], left: int) -> None:
        """A table is there."""
        print(f"\n{title}:\n\n{report.table(rows, left)}", flush=True)

    def expect(self, holds: bool, what: str) -> None:
        """Note ``what`` as wrong unless it holds."""
        if not holds:
            self.troubles.append(what)

    def look_at(self, name: str, load: Load, copies: Copies) -> None:
        """Note what went wrong for clients."""
        for phase, found in load.phases.items():
            self.expect(not found.failed, f"{name}, {phase}: {told(found.failed)}")
            self.expect(not (found.old and copies.see_all), f"{name}, {phase}: {found.old} answers were old")

    async def check(self, name: str, clients: Clients) -> str:
        """Read every file; how many aren't what was acknowledged."""
        outcomes = await clients.check()
        wrong = {what: count for what, count in outcomes.items() if what}
        self.expect(not wrong, f"{name}, at the end: {wrong} of {outcomes.total()} files")
        return told(wrong)


def say(what: str) -> None:
    """Progress, for whoever waits."""
    print(what, file=sys.stderr, flush=True)


def mb(size: float) -> str:
    """Megabytes, as a table has them."""
    return f"{size / 1e6:,.1f}"
