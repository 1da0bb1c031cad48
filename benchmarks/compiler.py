"""The loads are programs in C, which share the cores with what is measured: they are made at run time."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


class NoCompiler(Exception):
    """There is nothing to make a program with; the message says what to do."""


def build(source: Path, directory: Path) -> Path:
    """The program that is made of ``source`` in ``directory``. Raises NoCompiler."""
    compiler = os.environ.get("CC", "cc")
    if not shutil.which(compiler):
        raise NoCompiler(f"the load (benchmarks/{source.name}) has to be compiled, and there is no '{compiler}': "
                         "apt-get install gcc libc6-dev, or name another compiler in CC")  # fmt: skip
    binary = directory / source.stem
    command = [compiler, "-O2", "-o", str(binary), str(source)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise NoCompiler(f"{made.stderr}benchmarks/{source.name} can't be compiled; if a header is missing: "
                         "apt-get install libc6-dev")  # fmt: skip
    return binary
