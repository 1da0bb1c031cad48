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
    """One kind of request, over files 0 to ``files - 1`` in turn."""

    method: str
    files: int


class Measured(NamedTuple):
    """What one run of wrk came to."""

    requests: int
    rate: float  # requests/s
    p50: float  # milliseconds
    p99: float  # milliseconds
    trouble: str | None  # why the figures don't count


class Wrong(Exception):
    """A contender doesn't do what it is measured for."""


def name_of(number: int) -> str:
    """The name of a file, the same for all contenders."""
    return f"bench/{number:05d}.bin"


def put(target: Target, bodies: Bodies, numbers: Iterable[int]) -> None:
    """Write files. Raises Wrong if an answer isn't 200, 201 or 204."""
    _each(target, "PUT", bodies, numbers)


def check(target: Target, bodies: Bodies, numbers: Iterable[int]) -> None:
    """Read files. Raises Wrong if an answer isn't 200 with the right bytes."""
    _each(target, "GET", bodies, numbers)


def measure(target: Target, load: Load, bodies: Bodies, *, seconds: int, connections: int) -> Measured:
    """One run of wrk: one thread, so many connections, each with one request in flight."""
    script = bodies.file.with_name("load.lua")
    script.write_text(_script(target, load, bodies))
    command = [_wrk(), "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s", "--latency",
               "--script", str(script), f"http://{HOST}:{target.port}"]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=seconds + PATIENCE, check=False)
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
    if run.returncode or not lines:
        return Measured(0, 0.0, 0.0, 0.0, f"wrk failed: {(run.stderr or run.stdout).strip()[-200:]}")
    said = json.loads(lines[0])
    return Measured(said["requests"], said["requests"] / said["seconds"], said["p50"], said["p99"],
                    _trouble(load, said))  # fmt: skip


def _each(target: Target, method: str, bodies: Bodies, numbers: Iterable[int]) -> None:
    connection = http.client.HTTPConnection(HOST, target.port, timeout=PATIENCE)
    wrong: list[str] = []
    for number in numbers:
        connection.request(method, target.prefix + name_of(number), bodies[number] if method == "PUT" else None)
        with connection.getresponse() as answer:
            body = answer.read()
            if answer.status not in ((200,) if method == "GET" else (200, 201, 204)):
                wrong.append(f"{method} {name_of(number)} answered {answer.status}")
            elif method == "GET" and body != bodies[number]:
                wrong.append(f"GET {name_of(number)} answered {len(body)} bytes that aren't the file's")
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


def _script(target: Target, load: Load, bodies: Bodies) -> str:
    """For wrk. The requests are made before the clock starts, so that a PUT costs wrk no more than it must."""
    body = f"bodies:read({SIZE})" if load.method == "PUT" else "nil"
    return f"""\
local requests, number = {{}}, 0
function init()
  local bodies = assert(io.open("{bodies.file}", "rb"))
  for n = 0, {load.files - 1} do
    local path = string.format("{target.prefix}{name_of(0).replace("00000", "%05d")}", n)
    requests[n] = wrk.format("{load.method}", path, nil, {body})
  end
end
function request()
  number = (number + 1) % {load.files}
  return requests[number]
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
