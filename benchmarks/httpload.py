"""``httpload.c`` from Python: made at run time, and run on a server. What it does, and tells, stands at its top.

Nothing here knows what is measured, or why.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from benchmarks.compiler import build

ERRORS = {"status": "with another status than is right", "wrong": "with another body", "broken": "that can't be read"}
PATIENCE = 60.0  # seconds that a run may take beside those it was told to measure
MIB = 2**20
_PLACES = 65536  # as httpload.c has them
_MARK = 16
_SCATTER = 2654435761
_SOURCE = Path(__file__).with_name("httpload.c")


class Wrong(Exception):
    """A server doesn't do what it is measured for."""


class Target(NamedTuple):
    """Where a server takes files: ``prefix`` and a file's name make the URL's path and query."""

    port: int
    prefix: str


class Files(NamedTuple):
    """Files 0 to ``number - 1`` of ``size`` bytes each, in a folder of that name."""

    folder: str
    number: int
    size: int


class Measured(NamedTuple):
    """What one run came to. Latencies are in microseconds."""

    requests: int = 0  # answered
    seconds: float = 0.0
    bytes: int = 0  # of the files sent or received
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    max: float = 0.0
    cpu: float = 0.0  # seconds of the load's own
    status: int = 0
    wrong: int = 0
    broken: int = 0
    said: str = ""  # the first error

    @property
    def rate(self) -> float:
        """Requests/s."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def trouble(self) -> str | None:
        """Why the figures don't count."""
        errors = [f"{getattr(self, name):,} answers {what}" for name, what in ERRORS.items() if getattr(self, name)]
        if errors or not self.requests:
            return "; ".join([*errors, self.said]) if errors else f"nothing was answered. {self.said}"
        return None


class Httpload:
    """The program, made in ``directory``, and the bytes that files up to ``largest`` are made of. Raises NoCompiler."""

    def __init__(self, directory: Path, largest: int = MIB) -> None:
        self._binary = build(_SOURCE, directory)
        self._filler = directory / "filler"
        self._bytes = os.urandom(_PLACES + largest)  # no server can compress them
        self._filler.write_bytes(self._bytes)

    def body(self, number: int, size: int) -> bytes:
        """What the file of that number holds."""
        start = number * _SCATTER % _PLACES
        return b"%015d\n" % number + self._bytes[start + _MARK : start + size]

    def run(self, target: Target, files: Files, *options: object, seconds: float = 0.0) -> Measured:
        """One run, for so many seconds if they are given."""
        command: list[object] = [self._binary, target.port, f"{target.prefix}{files.folder}/", "--filler", self._filler,
                                 "--files", files.number, "--size", files.size, *options]  # fmt: skip
        command += ["--seconds", seconds] if seconds else []
        try:
            done = subprocess.run(
                [str(word) for word in command], capture_output=True, text=True, timeout=seconds + PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            return Measured(said=f"It wasn't over {PATIENCE:.0f} s after its time.")
        if done.returncode:
            return Measured(said=f"httpload ended with {done.returncode}: {done.stderr.strip()}")
        return Measured(**json.loads(done.stdout), said=done.stderr.strip())


def name_of(files: Files, number: int) -> str:
    """The name of a file, as httpload has it."""
    return f"{files.folder}/{number:08d}.bin"
