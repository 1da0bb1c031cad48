"""The load: wrk on one contender over a set of small files, and what came of it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.servers import HOST

SIZE = 4096  # bytes of a file
PATIENCE = 30.0  # seconds that wrk may take beside its measuring: to make its requests, and to give up on a server
FOLDER = "bench"
MAX_SHOWN = 3  # of the answers that were wrong; the others are counted


class Target(NamedTuple):
    """Where a contender takes files: ``prefix`` and a file's name make the URL's path and query."""

    port: int
    prefix: str


class Bodies:
    """The contents of files 0 to ``count - 1``: random, so that no contender can compress them, and all different.

    They lie in one file, for wrk reads them too.
    """

    def __init__(self, file: Path, count: int) -> None:
        self.file = file
        self.count = count
        file.write_bytes(os.urandom(count * SIZE))
        self._all = file.read_bytes()

    def __getitem__(self, number: int) -> bytes:
        return self._all[number * SIZE : (number + 1) * SIZE]


class Load(NamedTuple):
    """One kind of request, over files 0 to ``files - 1`` in turn; of a ``fresh`` one every request has a new path."""

    name: str
    title: str
    method: str
    files: int
    fresh: bool = False


class Measured(NamedTuple):
    """What one run of wrk came to."""

    requests: int
    rate: float  # requests/s
    p50: float  # milliseconds
    p99: float  # milliseconds
    trouble: str | None  # why the figures don't count


class Wrong(Exception):
    """A contender doesn't do what it is measured for."""


def name_of(number: int, folder: str = FOLDER) -> str:
    """The name of a file, the same for all contenders."""
    return f"{folder}/{number:07d}.bin"


def put(target: Target, bodies: Bodies, numbers: Iterable[int]) -> None:
    """Write files. Raises Wrong if an answer isn't 200, 201 or 204."""
    _each(target, "PUT", bodies, numbers)


def check(target: Target, bodies: Bodies, numbers: Iterable[int], folder: str = FOLDER) -> None:
    """Read files. Raises Wrong if an answer isn't 200 with the right bytes."""
    _each(target, "GET", bodies, numbers, folder)


def measure(
    target: Target, load: Load, bodies: Bodies, folder: str = FOLDER, *, seconds: int, connections: int
) -> Measured:
    """One run of wrk: one thread, so many connections, each with one request in flight."""
    script = bodies.file.with_name("load.lua")
    script.write_text(_script(target, load, bodies, folder))
    command = [_wrk(), "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s", "--latency",
               "--script", str(script), f"http://{HOST}:{target.port}"]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=seconds + PATIENCE, check=False)
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
    if run.returncode or not lines:
        return Measured(0, 0.0, 0.0, 0.0, f"wrk failed: {(run.stderr or run.stdout).strip()[-200:]}")
    said = json.loads(lines[0])
    return Measured(said["requests"], said["requests"] / said["seconds"], said["p50"], said["p99"],
                    _trouble(load, said))  # fmt: skip


def _each(target: Target, method: str, bodies: Bodies, numbers: Iterable[int], folder: str = FOLDER) -> None:
    connection = http.client.HTTPConnection(HOST, target.port, timeout=PATIENCE)
    wrong: list[str] = []
    for number in numbers:
        name, content = name_of(number, folder), bodies[number % bodies.count]
        connection.request(method, target.prefix + name, content if method == "PUT" else None)
        with connection.getresponse() as answer:
            body = answer.read()
            if answer.status not in ((200,) if method == "GET" else (200, 201, 204)):
                wrong.append(f"{method} {name} answered {answer.status}")
            elif method == "GET" and body != content:
                wrong.append(f"GET {name} answered {len(body)} bytes that aren't the file's")
    connection.close()
    if wrong:
        raise Wrong("; ".join(wrong[:MAX_SHOWN]) + (f"; {len(wrong)} in all" if len(wrong) > MAX_SHOWN else ""))


def _trouble(load: Load, said: dict[str, float]) -> str | None:
    errors = {name: int(said[name]) for name in ("status", "connect", "read", "write", "timeout") if said[name]}
    if errors:
        return "errors: " + ", ".join(f"{count} {name}" for name, count in errors.items())
    if not said["requests"]:
        return "nothing was answered"
    # wrk counts statuses from 400 on as errors; another one without the file in it shows here
    if load.method == "GET" and said["bytes"] < said["requests"] * SIZE:
        return f"{said['bytes'] / said['requests']:.0f} bytes an answer, where a file has {SIZE}"
    return None


def _script(target: Target, load: Load, bodies: Bodies, folder: str) -> str:
    """For wrk. Requests are made before the clock starts where that can be: wrk shares the cores with the servers."""
    path = f'"{target.prefix}{folder}/%07d.bin"'
    return f"""\
local bodies, requests, number = {{}}, {{}}, 0
local function make(n)
  return wrk.format("{load.method}", string.format({path}, n), nil, bodies[n % {bodies.count}])
end
function init()
  local file = assert(io.open("{bodies.file}", "rb"))
  for n = 0, {bodies.count if load.method == "PUT" else 0} - 1 do bodies[n] = file:read({SIZE}) end
  for n = 0, {0 if load.fresh else load.files} - 1 do requests[n] = make(n) end
end
function request()
  number = number + 1
  return {"make(number)" if load.fresh else f"requests[number % {load.files}]"}
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
    assert binary, "wrk is not installed: `make bench` installs it, or: apt-get install wrk"
    return binary
