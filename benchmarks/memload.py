"""``memload.c`` from Python: made at run time, and run on a server. What it does, and tells, stands at its top.

Nothing here knows what is measured, or why.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from benchmarks.compiler import build

ERRORS = ("missing", "wrong", "refused", "broken")
PIPELINED = ("--connections", "16", "--pipeline", "64")  # to write much, not to measure: 1,024 requests in flight
_SOURCE = Path(__file__).with_name("memload.c")


class Items(NamedTuple):
    """What a server is filled with: items 0 to ``number - 1``, whose values have ``smallest`` to ``largest`` bytes."""

    number: int
    smallest: int
    largest: int

    @property
    def payload(self) -> float:
        """Bytes of a value, on average."""
        return (self.smallest + self.largest) / 2


class Measured(NamedTuple):
    """What one run came to. Latencies are in microseconds."""

    requests: int  # answered
    seconds: float
    bytes: int  # of the values sent or received
    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    cpu: float  # seconds of the load's own
    missing: int
    wrong: int
    refused: int
    broken: int

    @property
    def rate(self) -> float:
        """Requests/s."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def trouble(self) -> str | None:
        """Why the figures don't count."""
        errors = {name: getattr(self, name) for name in ERRORS if getattr(self, name)}
        if errors:
            return "answers that were " + ", ".join(f"{name}: {count:,}" for name, count in errors.items())
        return None if self.requests else "nothing was answered"


class Memload:
    """The program, made in ``directory``. Raises NoCompiler."""

    def __init__(self, directory: Path) -> None:
        self._binary = build(_SOURCE, directory)

    def run(self, port: int, items: Items, *options: object, core: int | None = None) -> Measured:
        """One run; ``core``: where it runs."""
        return finished(self.start(port, items, *options, core=core))

    def start(
        self, port: int, items: Items, *options: object, core: int | None = None, stderr: int | None = None
    ) -> subprocess.Popen[str]:
        """The same, which goes on meanwhile; ``finished`` waits for it."""
        words = [port, "--items", items.number, "--sizes", items.smallest, items.largest, *options]
        command = [str(self._binary), *map(str, words)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
        if core is not None:
            os.sched_setaffinity(child.pid, {core})
        return child


def finished(child: subprocess.Popen[str]) -> Measured:
    """What a run came to, when it ends; it is killed if whoever waits is interrupted."""
    with child:
        try:
            said = child.communicate()[0]
        except BaseException:
            child.kill()
            raise
    assert child.returncode == 0, f"memload ended with {child.returncode}"
    return Measured(**json.loads(said))
