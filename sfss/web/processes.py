"""What a process has had of the machine, as Linux tells it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Used(NamedTuple):
    """By one process."""

    seconds: float  # of processors
    bytes: int  # of memory, now


def used_by(pid: int) -> Used | None:
    """None if it has just ended, or this is no Linux."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    return Used((int(words[11]) + int(words[12])) / ticks, int(words[21]) * page)
