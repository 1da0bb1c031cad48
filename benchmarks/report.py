"""What a run is told with: the machine it ran on, and tables, as reStructuredText."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import sfss

IN_MEMORY = ("tmpfs", "ramfs")
_PACKAGES = ("aiohttp", "msgspec", "rocksdict", "uhashring", "xxhash")
_ROOT = Path(__file__).parent.parent


def facts(command: str, directory: Path, programs: Mapping[str, str]) -> list[tuple[str, str]]:
    """What a figure is worth nothing without. ``programs``: the command that prints each one's version."""
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    versions = ", ".join(f"{name} {_version(program)}" for name, program in programs.items())
    return [
        ("Command", f"``{command}``"),
        ("Date", f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %z}"),
        ("Machine", f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {_memory()}"),
        ("System", f"{_system()}, Linux {platform.release()}"),
        ("Data", f"on {file_system(directory)}"),
        # a build that is optimized by a profile, as Debian's, is up to a fifth quicker than one that is not, as pyenv's
        ("Python", f"{platform.python_implementation()} {platform.python_version()}, {Path(sys.executable).resolve()}"),
        ("Versions", "; ".join(filter(None, (packages, versions)))),
        ("sfss", f"{sfss.__version__}, {_commit()}"),
    ]


def load_average() -> str:
    """How busy the machine is: processes that want a core, on average of the last minute and of five."""
    one, five, _ = os.getloadavg()
    return f"{one:.2f} ({five:.2f} over five minutes)"


def pause(seconds: float) -> float:
    """Sleep; how many cores were busy meanwhile. Between runs, when all servers are idle, that is others' work."""
    before = _ticks_busy()
    time.sleep(seconds)
    return (_ticks_busy() - before) / os.sysconf("SC_CLK_TCK") / seconds


def file_system(directory: Path) -> str:
    """The kind of file system that ``directory`` lies on, and its device."""
    best, found = "", "an unknown file system"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        device, mounted, kind = line.split(" ")[:3]
        if directory.resolve().is_relative_to(mounted) and len(mounted) >= len(best):
            best, found = mounted, f"{kind} ({device})"
    return found


def field_list(fields: Sequence[tuple[str, str]]) -> str:
    """``:Name: text``, a line each."""
    return "\n".join(f":{name}: {text}" for name, text in fields)


def table(rows: Sequence[Sequence[str]], left: int) -> str:
    """A simple table; the first row is its head, the first ``left`` columns stand left and the others right."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    rule = "  ".join("=" * width for width in widths)
    sides = "<" * left + ">" * (len(widths) - left)
    form = "  ".join(f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True))
    lines = [form.format(*row).rstrip() for row in rows]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def _ticks_busy() -> int:
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return user + nice + system + irq + softirq + steal


def _version(command: str) -> str:
    run = subprocess.run(command.split(), capture_output=True, text=True, timeout=10, check=False)
    found = re.search(r"\d+\.\d+(\.\d+)*", run.stdout + run.stderr)
    return found[0] if found else "of unknown version"


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _commit() -> str:
    """Which sources were measured."""

    def git(*words: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(_ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        changed = " with changes of its own" if git("status", "--porcelain", "--", "sfss") else ""
        return f"commit {git('rev-parse', '--short', 'HEAD')}{changed}"
    except (OSError, subprocess.SubprocessError):
        return "of no commit"
