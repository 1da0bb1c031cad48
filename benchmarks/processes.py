"""What Linux tells of groups of processes from outside: the CPU time that they used, and the memory they hold."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def tree(pids: Iterable[int]) -> list[int]:
    """These processes and all their descendants."""
    children: dict[int, list[int]] = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                children.setdefault(int(_stat(int(directory.name))[1]), []).append(int(directory.name))
    found = list(pids)
    for pid in found:  # which grows meanwhile
        found += children.get(pid, [])
    return found


def cpu(pids: Iterable[int]) -> float:
    """Seconds of CPU time that they have used, to 10 ms, with those of their descendants, ended ones too."""
    total = 0
    for pid in tree(pids):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            total += sum(map(int, _stat(pid)[11:15]))  # utime, stime, and both of the children that it has waited for
    return total / _TICK


def resident(pids: Iterable[int]) -> int:
    """Bytes in memory: of one process all that it has there, of several what they share only once (PSS)."""
    processes = tree(pids)
    if len(processes) == 1:
        return _kilobytes(processes[0], "status", "VmRSS") * 1024
    return sum(_kilobytes(pid, "smaps_rollup", "Pss") for pid in processes) * 1024


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _kilobytes(pid: int, file: str, name: str) -> int:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
