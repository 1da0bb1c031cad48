"""Nodes in processes of their own, whose tables are small, so that a short load makes flushes and compactions."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sfss.node.engine import KIB
from tests.node.support import CHILD, PATIENCE
from tests.servers import wait_for

# uvloop doesn't ask who it is when it accepts a connection. So that a trace tells, this asks at once, before anything
# is sent: it puts itself before what a node does with a new connection.
ASKING = """
from sfss.node.connection import Connection
made = Connection.connection_made
def ask(self, transport):
    transport.get_extra_info("socket").getpeername()
    made(self, transport)
Connection.connection_made = ask
"""

TABLES = 256 * KIB  # of memory before a table is written, and of blob files


def program(tables: int) -> str:
    """What a node runs whose memtables and blob files have so many bytes; 0 for as many as ever."""
    small = f"from sfss.node import engine\nengine.WRITE_BUFFER = engine.BLOB_FILE = {tables}\n"
    return (small if tables else "") + ASKING + CHILD


class Node:
    """A node's process, from when it was started: ``port`` waits until it serves."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    def port(self) -> int:
        """Where it serves. Raises AssertionError, with what it said, if it ends before."""
        wait_for(lambda: self._serving() or self.process.poll() is not None, timeout=PATIENCE, what="a node")
        found = self._serving()
        assert found, self.said()
        return int(found[1])

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def _serving(self) -> re.Match[str] | None:
        return re.search(r"^sfss node \S+: 127\.0\.0\.1:(\d+), data in", self.said(), re.MULTILINE)


@contextlib.contextmanager
def started(
    data: Path, log: Path, *, durability: str = "fsync", tables: int = TABLES, before: Sequence[str] = ()
) -> Iterator[Node]:
    """A node over ``data``, by way of the command ``before``; killed at the end if it is still there."""
    command = [*before, sys.executable, "-c", program(tables), str(data), durability]
    with log.open("wb") as said, subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said) as process:
        try:
            yield Node(process, log)
        finally:
            for child in children(process.pid):  # of a strace: it must not die before what it traces
                os.kill(child, signal.SIGKILL)
            process.kill()


def children(pid: int) -> list[int]:
    """The processes that one has started and not yet buried."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def log_size(data: Path) -> int:
    """Bytes that a start has to play back."""
    return sum(file.stat().st_size for file in data.glob("[0-9]*.log"))
