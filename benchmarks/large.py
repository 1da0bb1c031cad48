"""Large files over six nodes, in six pieces, beside nginx: up, down, bytes by node, memory; and many uploads at once.

    python -m benchmarks.large [--size 1GiB] [--rounds 3] [--many 100] [--many-size 100MiB] [--cold] [--data DIR]

One front over embedded nodes as they come, every block on the disk before a PUT is answered; and one worker of nginx:
its WebDAV, without and with an fsync of the file before the time is taken, and the same file read as a static one. The
client is curl, which reads from a file and throws away what it gets; it has the same two cores as the servers. Prints
a fragment for ``RESULTS.rst``. Exit status: 0; 1 if a SHA-256 isn't what it was, or a node has not its share; 2 if
nothing can be measured here.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from benchmarks import large_bench, report
from benchmarks.contenders import programs
from benchmarks.large_bench import Done, Server, Source, Wrong
from benchmarks.node_bench import MIB, say
from benchmarks.watched import forget, wait_until_quiet
from sfss.config import parse_size

GIB = 2**30
NODES = 6
SHARE = 0.01  # how far a node's bytes may be from its share
SETTLING, PAUSE = 60.0, 0.5  # seconds that servers are waited for; and over which it is seen that they are quiet

UP, DOWN = "up", "down"
FSYNCED = "up, fsync"


class Memory(NamedTuple):
    """Bytes of a process in memory: before, and at the most while the file went up, and down."""

    before: int
    up: int
    down: int


class Findings:
    """What was measured, by the round."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, str], list[Done]] = {}  # by server and what it did
        self.memory: dict[str, Memory] = {}  # by process, the worst of all rounds
        self.bytes: dict[str, int] = {}  # by node, of one file
        self.others: list[float] = []  # cores that others' work kept busy before each run

    def note(self, server: str, what: str, done: Done) -> None:
        """A run, of which the command's user is told at once."""
        self.runs.setdefault((server, what), []).append(done)
        used = ", ".join(f"{who} {seconds:.2f}" for who, seconds in done.cpu.items())
        say(f"  {server} {what}: {done.rate:,.0f} MB/s in {done.seconds:.1f} s; CPU s: {used}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="sfss-bench-", dir=options.data) as name:
        directory = Path(name)
        if report.file_system(directory).startswith(report.IN_MEMORY):
            print(f"{name} is in memory: name a directory on a disk with --data", file=sys.stderr)
            return 2
        directory.chmod(0o755)  # nginx's worker may have a user of its own
        command = shlex.join(["python", "-m", "benchmarks.large", *arguments])
        tools = {"nginx": programs()["nginx"], "curl": "curl --version"}
        facts = [*report.facts(command, directory, tools), ("Load before", report.load_average())]
        try:
            findings, many = _measure(directory, options)
        except Wrong as wrong:
            print(f"No figures: {wrong}")
            return 1
    others = mean(findings.others)
    print(report.field_list([*facts, ("Others", f"{others:.2f} cores busy with other work, on average before a run")]))
    _tell_runs(findings)
    _tell_cpu(findings)
    _tell_memory(findings)
    right = _tell_shares(findings, options.size)
    if many is not None:
        print(f"\n{many}")
    return 0 if right else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=parse_size, default=GIB, help="of the file (default: 1GiB)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--many", type=int, default=0, metavar="N", help="uploads at once, behind the rounds (100)")
    parser.add_argument("--many-size", type=parse_size, default=100 * MIB, help="of each (default: 100MiB)")
    parser.add_argument("--cold", action="store_true", help="what is read is not in the kernel's memory")
    parser.add_argument("--limit", action="append", default=[], metavar="KEY=SIZE", help="a setting in [limits]")
    parser.add_argument("--only", choices=("sfss", "nginx"), help="one of them alone")
    parser.add_argument("--data", type=Path, help="where all data go (default: the system's place for such)")
    return parser.parse_args(arguments)


# --- the runs ---


def _measure(directory: Path, options: argparse.Namespace) -> tuple[Findings, str | None]:
    """All rounds, and many at once. Raises Wrong."""
    findings, many = Findings(), None
    say("making the source")
    source = Source(directory / "source", options.size)
    limits = {"linger": "0", **dict(limit.split("=", 1) for limit in options.limit)}
    with contextlib.ExitStack() as stack:
        servers: list[Server] = []
        if options.only != "nginx":
            servers.append(stack.enter_context(large_bench.sfss(directory, NODES, NODES, limits)))
        if options.only != "sfss":
            servers.append(stack.enter_context(large_bench.nginx(directory / "nginx")))
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            for server in servers[:: -1 if number % 2 else 1]:  # there and back, so that a drift weighs on both alike
                run = _of_sfss if server.name == "sfss" else _of_nginx
                run(server, source, f"round-{number}", directory, findings, options)
        if options.many and options.only != "nginx":
            many = _many(servers[0], source, options, findings)
    return findings, many


def _of_sfss(
    server: Server, source: Source, name: str, directory: Path, findings: Findings, options: argparse.Namespace
) -> None:
    before = {process.name: process.memory().now for process in server.watched}
    stored = _stored(server)
    server.forget_peaks()
    _settle(server, findings)
    findings.note("sfss", UP, large_bench.up(source, server, name))
    peak_up = _peaks(server)
    findings.bytes = {node: size - stored[node] for node, size in _stored(server).items()}
    _settle(server, findings)
    if options.cold:
        for node in server.watched[1:]:
            assert node.data is not None
            forget(node.data)
    server.forget_peaks()
    findings.note("sfss", DOWN, large_bench.down(source.size, server, name))
    large_bench.check(server, name, source.sha256)
    for process, peak in _peaks(server).items():
        worst = findings.memory.get(process, Memory(before[process], 0, 0))
        findings.memory[process] = Memory(worst.before, max(worst.up, peak_up[process]), max(worst.down, peak))
    large_bench.remove(server, name)


def _of_nginx(
    server: Server, source: Source, name: str, directory: Path, findings: Findings, options: argparse.Namespace
) -> None:
    file = directory / "nginx" / "dav" / name
    for what, fsynced in ((UP, None), (FSYNCED, file)):
        file.unlink(missing_ok=True)
        _settle(server, findings)
        findings.note("nginx", what, large_bench.up(source, server, name, fsynced))
    _settle(server, findings)
    if options.cold:
        forget(file.parent)
    findings.note("nginx", DOWN, large_bench.down(source.size, server, name))
    large_bench.check(server, name, source.sha256)
    file.unlink()


def _many(server: Server, source: Source, options: argparse.Namespace, findings: Findings) -> str:
    names = [f"many/{number}" for number in range(options.many)]
    _settle(server, findings)
    server.forget_peaks()
    say(f"{options.many} at once")
    done = large_bench.up_many(source, server, names, options.many_size)
    peaks = _peaks(server)
    say("checking")
    large_bench.check_many(source, server, names, options.many_size)
    nodes = [peak for name, peak in peaks.items() if name != "front"]
    used = ", ".join(f"{who} {seconds / done.bytes * GIB:.2f}" for who, seconds in done.cpu.items())
    return (
        f"{options.many} uploads of {options.many_size / MIB:.0f} MiB at once: {done.rate:,.0f} MB/s in"
        f" {done.seconds:.1f} s, all read again and right. Memory at the most: front {peaks['front'] / MIB:.0f} MiB,"
        f" nodes {min(nodes) / MIB:.0f} to {max(nodes) / MIB:.0f} MiB. CPU seconds a GiB: {used}."
    )


def _settle(server: Server, findings: Findings) -> None:
    os.sync()
    findings.others.append(wait_until_quiet(server.watched, SETTLING, PAUSE))


def _peaks(server: Server) -> dict[str, int]:
    return {process.name: process.memory().peak for process in server.watched}


def _stored(server: Server) -> dict[str, int]:
    """Bytes by node, as it tells them itself."""
    return {node.name: node.stat("bytes") for node in server.watched if node.port}


# --- what came of it ---


def _tell_runs(findings: Findings) -> None:
    rows = [["what", "MB/s", "lowest", "highest", "ratio", "to"]]
    for (server, what), runs in findings.runs.items():
        rates = [run.rate for run in runs]
        references = [(to, findings.runs.get(("nginx", to))) for to in ((DOWN,) if what == DOWN else (UP, FSYNCED))]
        for nth, (to, beside) in enumerate(references):
            if beside is None or (server == "nginx" and to != UP and to != DOWN):
                continue
            ratio = median(mine.rate / other.rate for mine, other in zip(runs, beside, strict=True))
            figures = [f"{rate:,.0f}" for rate in (median(rates), min(rates), max(rates))]
            shown = [f"{server} {what}", *figures] if nth == 0 else ["", "", "", ""]
            rows.append([*shown, f"{ratio:.2f}", f"nginx {to}"])
    print(f"\n{report.table(rows, 1)}")


def _tell_cpu(findings: Findings) -> None:
    """CPU seconds for a GiB, the median of the rounds, by who used them."""
    kinds = list(dict.fromkeys(kind for runs in findings.runs.values() for run in runs for kind in run.cpu))
    rows = [["CPU seconds a GiB", *kinds, "all"]]
    for (server, what), runs in findings.runs.items():
        figures: Mapping[str, float] = {
            kind: median(run.cpu[kind] / run.bytes * GIB for run in runs) for kind in runs[0].cpu
        }
        shown = [f"{figures[kind]:.2f}" if kind in figures else "" for kind in kinds]
        rows.append([f"{server} {what}", *shown, f"{sum(figures.values()):.2f}"])
    print(f"\n{report.table(rows, 1)}")


def _tell_memory(findings: Findings) -> None:
    rows = [["memory, MiB", "before", "most, up", "most, down"]]
    rows += [[name, *(f"{size / MIB:.0f}" for size in memory)] for name, memory in findings.memory.items()]
    if findings.memory:
        print(f"\n{report.table(rows, 1)}")


def _tell_shares(findings: Findings, size: int) -> bool:
    """How the bytes lie on the nodes; whether each has its share."""
    rows = [["node", "bytes", "of a sixth"]]
    share = size / NODES
    rows += [[name, f"{has:,}", f"{has / share:.4f}"] for name, has in findings.bytes.items()]
    if findings.bytes:
        print(f"\n{report.table(rows, 1)}")
    return all(abs(has / share - 1) <= SHARE for has in findings.bytes.values())


if __name__ == "__main__":
    sys.exit(main())
