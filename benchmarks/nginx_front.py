"""nginx with a warm cache beside the same nginx with the same bytes on its disk: GET, in alternating rounds of one run.

    python -m benchmarks.nginx_front [--rounds 5] [--seconds 3] [--connections 32] [--files 100]

One worker of nginx on ``conf/nginx.conf``, without TLS, before one front over memcached. What differs is the location:
the static ones, with the same ``open_file_cache`` and the same log, are put into the configuration for it. A second
nginx keeps answers for a minute, so that what the fetching each second costs can be seen.

Prints a fragment for ``RESULTS.rst``. Exit status: 0; 1 if a contender made errors, for which no figure is given; 2 if
nothing can be measured here.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import report
from benchmarks.contenders import programs
from benchmarks.load import SIZE, Bodies, Load, Measured, Target, Wrong, check, measure, name_of, put
from tests.nginx.server import Nginx
from tests.servers import HOST, Service, memcached

IN_MEMORY = "/dev/shm"  # a tmpfs that anybody may write to
PAUSE = 0.3  # seconds before each run
HEAD = ("contender", "what", "requests/s", "lowest", "highest", "ratio", "p50 ms", "p99 ms")
# Both are well tuned: sendfile with the head held back for its first piece, and reading into a buffer.
STATIC = """\
        location /sendfile/ { alias %s/; sendfile on; tcp_nopush on; }
        location /read/ { alias %s/; }
        location /exact/ { rewrite ^/exact/(.*)$ /sfss-front?path=$1? last; }
"""
HERE = "        location = /file {\n"  # before which they are put


MINUTE = {"proxy_cache_valid 200 1s;": "proxy_cache_valid 200 60s;", "inactive=10s": "inactive=100s"}


class Contender(NamedTuple):
    """One row of the table: where the files are; ``minute``: at the second nginx."""

    name: str
    what: str
    prefix: str
    minute: bool = False


REFERENCES = (
    Contender("sendfile", "from nginx's disk, sendfile", "/sendfile/"),
    Contender("read", "from nginx's disk, read", "/read/"),
)
CONTENDERS = (
    *REFERENCES,
    Contender("cached", "nginx's cache, valid for a second", "/file?path="),
    Contender("minute", "nginx's cache, valid for a minute", "/file?path=", minute=True),
    Contender("clean", "as cached, by a clean URL", "/f/"),
    Contender("stored", "laid down by nginx (proxy_store)", "/immutable/"),
    Contender("exact", "asked of the front each time", "/exact/"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sfss-bench-") as name:
        directory = Path(name)
        if report.file_system(directory).startswith(report.IN_MEMORY):
            print(f"{name} is in memory: set TMPDIR to a directory on a disk", file=sys.stderr)
            return 2
        directory.chmod(0o755)  # nginx's worker may have a user of its own
        command = shlex.join(["python", "-m", "benchmarks.nginx_front", *arguments])
        facts = [*report.facts(command, directory, programs()), ("Load before", report.load_average())]
        rounds, trouble = _run(directory, options)
    print(report.field_list(facts))
    print(f"\nGET, {SIZE // 1024} KiB, of {options.files} files in turn:\n")
    print(report.table([HEAD, *(_row(contender, rounds) for contender in CONTENDERS)], left=2))
    for why in trouble:
        print(f"\nNo figure for {why}")
    return 1 if trouble else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nginx_front", description="nginx's cache and its disk.")
    for name, default in (("rounds", 5), ("seconds", 3), ("connections", 32), ("files", 100)):
        parser.add_argument(f"--{name}", type=_positive, default=default, metavar="N", help="(default: %(default)s)")
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


# --- the run ---

Rounds = dict[str, list[Measured]]


def _run(directory: Path, options: argparse.Namespace) -> tuple[Rounds, list[str]]:
    """What was measured of each contender, round by round; and why there are no figures of some."""
    bodies = Bodies(directory / "bodies", options.files)
    rounds: Rounds = {contender.name: [] for contender in CONTENDERS}
    trouble: dict[str, str] = {}
    with _started(directory, bodies, options.files) as ports:
        for number in range(options.rounds + 1):  # the first one is to warm up
            # There and back, so that a drift of the machine weighs on all alike.
            for contender in CONTENDERS[:: -1 if number % 2 else 1]:
                _say(f"{f'round {number} of {options.rounds}' if number else 'warming up'}: {contender.name}")
                with _noting(trouble, contender):
                    measured = _measure(Target(ports[contender.minute], contender.prefix), bodies, options)
                    rounds[contender.name] += [measured] if number else []
    return {name: found for name, found in rounds.items() if name not in trouble}, [
        f"{name}: {why}" for name, why in trouble.items()
    ]


@contextlib.contextmanager
def _started(directory: Path, bodies: Bodies, files: int) -> Iterator[tuple[int, int]]:
    """A front with the files, by both of their names, and an nginx and the other before it; the ports of these."""
    static = directory / "static"
    for number in range(files):
        file = static / name_of(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bodies[number])
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(memcached("-m", "1024"))
        front = Service(directory, settings={"SFSS_STORAGE_NODES": f"{HOST}:{node}"})
        stack.push(front)  # before it is started: it must be ended if the start fails, too
        front.start()
        for prefix in ("", "immutable/"):
            put(Target(front.port, f"/file?path={prefix}"), bodies, range(files))
        static_too = {HERE: STATIC % (static, static) + HERE}
        ports = [
            stack.enter_context(_nginx(directory / name, front, changes))
            for name, changes in (("second", static_too), ("minute", MINUTE))
        ]
        yield ports[0], ports[1]


@contextlib.contextmanager
def _nginx(directory: Path, front: Service, changes: Mapping[str, str]) -> Iterator[int]:
    """Its cache lies in memory, as in the shipped configuration, so that no disk is measured."""
    with tempfile.TemporaryDirectory(prefix="sfss-bench-", dir=IN_MEMORY) as cache:
        directory.mkdir()
        Path(cache).chmod(0o755)
        own = {**changes, f"{directory}/lib/sfss-cache": f"{cache}/cache"}
        with Nginx(directory, [front.port], tls=False, workers=1, tells=False, changes=own).running() as nginx:
            yield nginx.port


def _measure(target: Target, bodies: Bodies, options: argparse.Namespace) -> Measured:
    """Raises Wrong if there were errors, or files aren't right after it."""
    load = Load("get", "GET", "GET", options.files)
    report.pause(PAUSE)
    # A warm cache is one that is asked: what wasn't for two seconds is fetched anew first.
    check(target, bodies, range(options.files))
    measured = measure(target, load, bodies, seconds=options.seconds, connections=options.connections)
    if measured.trouble:
        raise Wrong(measured.trouble)
    check(target, bodies, range(0, options.files, 10))
    return measured


@contextlib.contextmanager
def _noting(trouble: dict[str, str], contender: Contender) -> Iterator[None]:
    """A contender that is in trouble isn't measured any more."""
    if contender.name in trouble:
        return
    try:
        yield
    except Wrong as wrong:
        trouble[contender.name] = str(wrong)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


# --- what came of it ---


def _row(contender: Contender, rounds: Rounds) -> tuple[str, ...]:
    found = rounds.get(contender.name)
    if not found:
        return (contender.name, contender.what, "no figure", "", "", "", "", "")
    rates = [measured.rate for measured in found]
    return (
        contender.name,
        contender.what,
        *(f"{rate:,.0f}" for rate in (median(rates), min(rates), max(rates))),
        _ratio(found, rounds),
        f"{median(measured.p50 for measured in found):.2f}",
        f"{median(measured.p99 for measured in found):.2f}",
    )


def _ratio(found: Sequence[Measured], rounds: Rounds) -> str:
    """The median over the rounds of the ratio to the better of nginx's two ways from its disk, by its median."""
    there = [rounds[reference.name] for reference in REFERENCES if reference.name in rounds]
    if not there:
        return "-"
    best = max(there, key=lambda of: median(measured.rate for measured in of))
    return f"{median(measured.rate / beside.rate for measured, beside in zip(found, best, strict=True)):.2f}"


if __name__ == "__main__":
    sys.exit(main())
