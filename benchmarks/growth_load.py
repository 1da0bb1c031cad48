"""What ``benchmarks.growth`` asks of servers: wrk's requests for files by number, and what each request costs whom.

A file's number makes its name and its content, so that a million of them need no list. Names of neighbouring numbers
lie far apart, as users' do: in the order of their names, which a node keeps, the files come as if they were shuffled.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import resource
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.watched import Watched
from tests.servers import HOST

MOST = 10**8  # numbers
SCATTER = 61_803_399  # coprime to MOST, and so small that Lua's numbers hold its products with 10**7 exactly
BODIES = 64  # contents that PUTs have, in turn
PATIENCE = 60.0  # seconds that wrk may take beside its measuring, and to give up on an answer
CHECKED = 100  # files that are read again before, and after, and compared
_NOISE = random.Random(1).randbytes(2**20)
_SHIFTS = 65_521  # a prime
_FULL = 0.93  # of a core: a process that uses more of one can't do more


class Wrong(Exception):
    """A server doesn't do what it is measured for."""


class Load(NamedTuple):
    """One kind of request. GET: of files 0 to ``files - 1``, at random; PUT: of one new file after the other."""

    method: str
    folder: str
    size: int  # bytes of a file
    files: int = 0


class Point(NamedTuple):
    """What one run came to. Costs are microseconds of CPU time a request."""

    requests: int
    rate: float  # requests/s
    p50: float  # milliseconds
    p99: float
    front: float
    nodes: float  # all of them together
    load: float  # wrk's own
    cores: float  # that the whole machine had busy meanwhile
    limit: str  # what there was no more of
    front_mib: float  # resident, behind the run
    nodes_mib: float  # all of them together
    trouble: str | None = None  # why the figures don't count


def name_of(number: int, folder: str) -> str:
    """A file's path. Each number below MOST has a name of its own."""
    return f"{folder}/{number * SCATTER % MOST:08d}"


def content_of(number: int, size: int) -> bytes:
    """Bytes that no compression makes smaller, of no two files the same (of 8 bytes or more)."""
    shift = number * 61 % _SHIFTS
    return (number.to_bytes(8, "big") + _NOISE[shift : shift + size])[:size]


def put(port: int, prefix: str, load: Load, numbers: Iterable[int]) -> None:
    """Write files of these numbers. Raises Wrong."""
    for number, answer in _each(port, prefix, load, "PUT", numbers):
        if answer[0] not in (200, 201, 204):
            raise Wrong(f"PUT {name_of(number, load.folder)} answered {answer[0]}")


def check(port: int, prefix: str, load: Load, numbers: Iterable[int]) -> None:
    """Read files, and compare each. Raises Wrong."""
    for number, (status, body) in _each(port, prefix, load, "GET", numbers):
        content = content_of(number % BODIES if load.method == "PUT" else number, load.size)
        if (status, body) != (200, content):
            raise Wrong(f"GET {name_of(number, load.folder)} answered {status}, {len(body)} bytes that aren't right")


def measure(
    port: int, prefix: str, load: Load, front: Watched | None, nodes: Sequence[Watched], directory: Path,
    *, seconds: int, connections: int,
) -> Point:  # fmt: skip
    """One run of wrk: one thread, so many connections with one request in flight each. ``front`` may be another's."""
    script = directory / "growth.lua"
    script.write_text(_script(prefix, load, directory))
    command = [_wrk(), "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s", "--latency",
               "--timeout", f"{PATIENCE:.0f}s", "--script", str(script), f"http://{HOST}:{port}"]  # fmt: skip
    watched = [*([front] if front else []), *nodes]
    before, busy, own, begun = [one.cpu() for one in watched], ticks_busy(), _cpu_of_children(), time.monotonic()
    run = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 3 * PATIENCE, check=False)
    elapsed = time.monotonic() - begun
    used = [one.cpu() - cpu for one, cpu in zip(watched, before, strict=True)]
    cores = (ticks_busy() - busy) / os.sysconf("SC_CLK_TCK") / elapsed
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
    if run.returncode or not lines:
        return nothing(f"wrk failed: {(run.stderr or run.stdout).strip()[-200:]}")
    said = json.loads(lines[0])
    of_front, of_nodes = (used[0], used[1:]) if front else (0.0, used)
    each = 1e6 / max(said["requests"], 1)
    return Point(
        requests=int(said["requests"]),
        rate=said["requests"] / said["seconds"],
        p50=said["p50"],
        p99=said["p99"],
        front=each * of_front,
        nodes=each * sum(of_nodes),
        load=each * (_cpu_of_children() - own),
        cores=cores,
        limit=limit(cores, len(os.sched_getaffinity(0)), of_front / elapsed, [cpu / elapsed for cpu in of_nodes]),
        front_mib=front.memory().now / 2**20 if front else 0.0,
        nodes_mib=sum(node.memory().now for node in nodes) / 2**20,
        trouble=_trouble(load, said),
    )


def nothing(trouble: str) -> Point:
    """A point without figures."""
    return Point(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, "-", 0.0, 0.0, trouble)


def median(points: Sequence[Point]) -> Point:
    """The one of them with the middle rate; one that has trouble goes before all others."""
    troubled = [point for point in points if point.trouble]
    return troubled[0] if troubled else sorted(points, key=lambda point: point.rate)[len(points) // 2]


def limit(cores: float, there: int, front: float, nodes: Sequence[float]) -> str:
    """What a run had no more of; all in cores. A front has one core, and the machine all that are there.

    ``waits``: nobody was at an end, so answers waited for the disk, or for one another.
    """
    if front >= _FULL:
        return "front"
    if cores >= there * _FULL:
        return "machine"
    return "node" if nodes and max(nodes) >= _FULL else "waits"


def ticks_busy() -> int:
    """Clock ticks in which a core of the machine was busy."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return user + nice + system + irq + softirq + steal


def _each(
    port: int, prefix: str, load: Load, method: str, numbers: Iterable[int]
) -> Iterable[tuple[int, tuple[int, bytes]]]:
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE)
    try:
        for number in numbers:
            body = content_of(number, load.size) if method == "PUT" else None
            connection.request(method, prefix + name_of(number, load.folder), body)
            with connection.getresponse() as answer:
                yield number, (answer.status, answer.read())
    finally:
        connection.close()


def _cpu_of_children() -> float:
    """Of those that have ended, in seconds: while a run lasts, wrk alone does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _trouble(load: Load, said: dict[str, float]) -> str | None:
    errors = {name: int(said[name]) for name in ("status", "connect", "read", "write", "timeout") if said[name]}
    if errors:
        return "errors: " + ", ".join(f"{count:,} {name}" for name, count in errors.items())
    if not said["requests"]:
        return "nothing was answered"
    # wrk counts statuses from 400 on as errors; another one without the file in it shows here
    if load.method == "GET" and said["bytes"] < said["requests"] * load.size:
        return f"{said['bytes'] / said['requests']:.0f} bytes an answer, where a file has {load.size}"
    return None


def _script(prefix: str, load: Load, directory: Path) -> str:
    bodies = directory / "bodies"
    bodies.write_bytes(b"".join(content_of(number, load.size) for number in range(BODIES)))
    is_put = load.method == "PUT"
    return f"""\
local bodies, number = {{}}, 0
math.randomseed({random.randrange(2**31)})  -- another one each time: what a run read before is in memory
function init()
  local file = assert(io.open("{bodies}", "rb"))
  for n = 0, {BODIES if is_put else 0} - 1 do bodies[n] = file:read({load.size}) end
end
function request()
  local n = number
  {"number = number + 1" if is_put else f"n = math.random(0, {max(load.files, 1) - 1})"}
  local path = string.format("{prefix}{load.folder}/%08d", (n * {SCATTER}) % {MOST})
  return wrk.format("{load.method}", path, nil, bodies[n % {BODIES}])
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{{"requests": %d, "seconds": %f, "bytes": %d, "p50": %f, "p99": %f,'
      .. ' "status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}}\\n',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
"""


def _wrk() -> str:
    binary = shutil.which("wrk")
    assert binary, "wrk is not installed: `make bench-growth` installs it, or: apt-get install wrk"
    return binary
