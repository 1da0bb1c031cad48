"""Real servers for tests: each is started on free ports of 127.0.0.1, and ended with the test or session it is for."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
PATIENT = {"timeout": 10.0, "connect_timeout": 5.0}  # of a node, with a machine that has other tests to run, too
# Below the kernel's own ephemeral range (32768 on), and a range to each pytest-xdist worker, so that a port found free
# stays free until the server that it was found for has it. Two runs at once on one machine begin at different ranges.
_RANGES, _PORTS = 20, 1000
_RUN = zlib.crc32(os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid())).encode())
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_FIRST = 12000 + (_RUN + _WORKER) % _RANGES * _PORTS
_next_port = itertools.cycle(range(_FIRST, _FIRST + _PORTS))


def free_port() -> int:
    """A port that nobody listens on."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    while True:
        first = next(_next_port)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + count):
                stack.enter_context(socket.create_server((HOST, port)))
                if port > first:
                    next(_next_port)
            return first


def wait_for(condition: Callable[[], Any], timeout: float = 20.0, what: str = "") -> Any:
    """The first true answer of ``condition``; fails the test after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {timeout} s for {what or condition}"
        time.sleep(0.02)
    return answer


def answers(port: int) -> bool:
    """Whether a memcached-protocol server answers there."""
    try:
        with socket.create_connection((HOST, port), 1) as sock:
            sock.sendall(b"version\r\n")
            return sock.recv(100).startswith(b"VERSION")
    except OSError:
        return False


def empty(node: str) -> None:
    """Have a node, ``host:port``, forget all that it has; nobody may be writing to it."""
    host, _, port = node.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as sock:
        sock.sendall(b"flush_all\r\n")
        assert sock.recv(100) == b"OK\r\n"


@contextlib.contextmanager
def process(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that doesn't outlive the block."""
    with subprocess.Popen(command, **options) as child:
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()


def stop_in_its_tracks(child: subprocess.Popen[bytes]) -> None:
    """SIGSTOP, and wait until it has taken hold of every thread: until then one of them may still answer."""
    child.send_signal(signal.SIGSTOP)

    def state(thread: Path) -> str:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]

    wait_for(lambda: all(state(thread) == "T" for thread in Path(f"/proc/{child.pid}/task").iterdir()), what="a stop")


@contextlib.contextmanager
def memcached(*options: str, port: int | None = None, host: str = HOST) -> Iterator[int]:
    """A real memcached; gives its port."""
    binary = shutil.which("memcached")
    assert binary, "memcached is not installed: `make test` installs it, or: apt-get install memcached"
    port = port or free_port()
    user = ["-u", "root"] if os.geteuid() == 0 else []
    with process([binary, *user, "-l", host, "-p", str(port), "-U", "0", *options]):
        if host == HOST:
            wait_for(lambda: answers(port), what="memcached")
        yield port


@contextlib.contextmanager
def sfss_node(data: Path, *options: str, port: int | None = None) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A real ``sfss node`` over ``data``; gives its port and process."""
    port = port or free_port()
    command = [sys.executable, "-m", "sfss", "node", "--port", str(port), "--data", str(data), *options]
    with (data.parent / f"{data.name}.log").open("ab") as log, process(command, stderr=log) as child:
        wait_for(lambda: answers(port), what=f"sfss node on {port}")
        yield port, child


class Service:
    """A running ``sfss`` as its users run it: a process of its own, with three embedded nodes."""

    def __init__(self, directory: Path, *options: str, settings: dict[str, str] | None = None) -> None:
        self.host = HOST
        self.port = free_port()
        self.first_node_port = free_ports(3)
        self.directory = directory
        self.data = directory / "sfss-data"
        self.log = directory / "sfss.log"
        self.python: tuple[str, ...] = (sys.executable,)  # the command that runs Python
        self._options = options
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SFSS_")},
            "SFSS_EMBEDDED_FIRST_PORT": str(self.first_node_port),
            **(settings or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def start(self) -> Service:
        """Start, and wait until it serves."""
        command = [*self.python, "-m", "sfss", "--port", str(self.port), *self._options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.directory, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        wait_for(self._serves, timeout=60, what=f"the service; its log is {self.log}")
        return self

    def stop(self) -> int:
        """Stop as an operator would; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(60)

    @property
    def node_ports(self) -> range:
        """The embedded nodes'."""
        return range(self.first_node_port, self.first_node_port + 3)

    def node_pids(self) -> dict[str, int]:
        """The process number of each embedded node that answers."""
        with urllib.request.urlopen(f"{self.url}/status", timeout=10) as answer:
            return {node: int(stats["pid"]) for node, stats in json.load(answer).items() if stats}

    def node_pids_now(self) -> dict[str, int]:
        """The same, and empty while no node answers."""
        try:
            return self.node_pids()
        except urllib.error.HTTPError:
            return {}

    def all_nodes_are_here(self) -> bool:
        """Whether the front can use every node."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=10) as answer:
                return set(json.load(answer)["nodes"].values()) == {"here"}
        except urllib.error.HTTPError:
            return False

    def _serves(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"sfss ended with {self.process.returncode}: {self.log.read_text()}"
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False

    def __enter__(self) -> Service:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
