"""What the sections of ``benchmarks.node`` share: the command line's options, the load, and where findings go."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.memload import Items, Measured, Memload
from benchmarks.watched import Watched

MIB = 2**20
SETTLING = 120.0  # seconds that a server is waited for that works on after it was filled


class Options(argparse.Namespace):
    """The command line."""

    items: int
    rounds: int
    seconds: int
    sections: list[str]
    sizes: list[int]
    idle: int
    data: Path
    rst: Path | None


class Bench:
    """What a run has to work with, and what it has found out."""

    def __init__(self, options: Options, directory: Path) -> None:
        self.options = options
        self.items = Items(options.items, *options.sizes)
        self.directory = directory
        self.load = Memload(directory)
        cores = sorted(os.sched_getaffinity(0))
        self.own_core = cores[-1]  # the load's, where requests/s are compared
        self.other_cores = set(cores[:-1] or cores)  # the servers'
        self.others: list[float] = []  # cores that others' work kept busy before each run
        self.troubles: list[str] = []
        self._sections: list[str] = []

    def tell(self, text: str) -> None:
        """A piece of the fragment is there."""
        print(text, flush=True)
        self._sections.append(text)
        if self.options.rst:
            self.options.rst.write_text("\n".join(self._sections))

    def tell_table(self, title: str, rows: Sequence[Sequence[str]], left: int) -> None:
        """The same, a table."""
        self.tell(f"\n{title}:\n\n{report.table(rows, left)}")

    def is_right(self, name: str, measured: Measured) -> bool:
        """Whether the figures count; if not it is noted why."""
        if measured.trouble:
            self.troubles.append(f"{name}: {measured.trouble}")
        return measured.trouble is None

    def expect(self, server: Watched, items: int) -> None:
        """Note it if a server doesn't hold so many items."""
        there, evicted = server.stat("curr_items"), server.stat("evictions")
        if there != items or evicted:
            self.troubles.append(f"{server.name}: {there:,} items of {items:,}, {evicted:,} evicted")


def say(what: str) -> None:
    """Progress, for whoever waits."""
    print(what, file=sys.stderr, flush=True)
