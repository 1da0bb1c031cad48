"""The servers that ``benchmarks.growth`` measures, each ended with its block: fronts, nodes, and nginx beside them.

And a node's filling: records as a front writes them, sent to the node itself, which takes them several times faster.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import resource
import shutil
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from socket import create_connection

from benchmarks.growth_load import Load, Wrong, content_of, name_of
from benchmarks.watched import PATIENCE, Node, Watched
from sfss import memcache
from sfss.paths import key_of
from sfss.record import Header, Kind, encode, payload_checksum
from tests.servers import HOST, Service, answers, free_port, process, wait_for

FRONT_PREFIX = "/file?path="
_CONNECTIONS, _BATCH = 8, 128  # of the filling: so many sets are in flight at a time
_ATTEMPTS = 5  # to start a node on a port of its own
_STORED = b"STORED\r\n"
_VERSION = 1_767_225_600_000_000  # of all that is filled: older than what a front writes


class Taken(Exception):
    """Another program's server answers where one of ours should: a port that was found free was taken meanwhile."""


def start(node: Node) -> None:
    """Start a node, and see that it is the one that answers. Raises Taken if that can't be had."""
    for _ in range(_ATTEMPTS):
        node.start()
        if node.stat("pid") == node.pid:
            return
        node.kill()  # it ends by itself, in time
    raise Taken(f"port {node.port}")


@contextlib.contextmanager
def front(directory: Path, nodes: Sequence[Watched], settings: Mapping[str, str] | None = None) -> Iterator[Watched]:
    """One front process over these nodes."""
    names = ",".join(f"{HOST}:{node.port}" for node in nodes)
    with contextlib.ExitStack() as stack:
        service = Service(directory, settings={"SFSS_STORAGE_NODES": names, **(settings or {})})
        stack.push(service)  # before it is started: it must be ended if the start fails, too
        service.start()
        assert service.process is not None
        watched = Watched("front", service.port)
        with urllib.request.urlopen(f"{service.url}/status?format=full", timeout=PATIENCE) as answer:
            watched.pid = int(json.load(answer)["webserver"]["pid"])  # that of the worker, if it has one
        if not _is_of(watched.pid, service.process.pid):
            raise Taken(f"port {service.port}")
        yield watched


@contextlib.contextmanager
def many_nodes(directory: Path, count: int) -> Iterator[list[Watched]]:
    """So many ``sfss node`` with directories of their own; they start side by side."""
    with contextlib.ExitStack() as stack:
        nodes = []
        for number in range(count):
            node = Watched("node", free_port(), directory / f"node-{number}")
            command = [sys.executable, "-m", "sfss", "node", "--port", str(node.port), "--data", str(node.data)]
            log = stack.enter_context((directory / "nodes.log").open("ab"))
            node.pid = stack.enter_context(process(command, stderr=log)).pid
            nodes.append(node)
        for node in nodes:
            wait_for(functools.partial(answers, node.port), PATIENCE, what=f"{count} nodes")
            if node.stat("pid") != node.pid:
                raise Taken(f"port {node.port}")
        yield nodes


def fill(port: int, load: Load, numbers: range) -> float:
    """Write the records of these files to a node; the sets/s it took. Raises Wrong for any other answer than STORED."""
    begun = time.monotonic()
    failed: list[BaseException] = []

    def write(own: range) -> None:
        try:
            _fill(port, load, own, failed)
        except BaseException as error:  # noqa: BLE001  (told by whoever waits)
            failed.append(error)

    threads = [threading.Thread(target=write, args=(numbers[n::_CONNECTIONS],)) for n in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return len(numbers) / max(time.monotonic() - begun, 1e-6)


def record_of(number: int, load: Load) -> bytes:
    """What a front would store of this file."""
    content = content_of(number, load.size)
    header = Header(Kind.FILE, _VERSION, 1, load.size, hashlib.sha256(content).digest(), load.size,
                    payload_checksum(content))  # fmt: skip
    return encode(header, content)


def _fill(port: int, load: Load, numbers: range, failed: Sequence[BaseException]) -> None:
    with create_connection((HOST, port), PATIENCE) as sock, sock.makefile("rb") as replies:
        for first in range(0, len(numbers), _BATCH):
            batch = numbers[first : first + _BATCH]
            keys = [key_of(name_of(number, load.folder)) for number in batch]
            sock.sendall(b"".join(
                memcache.storage(b"set", key, record_of(number, load)) for key, number in zip(keys, batch, strict=True)
            ))  # fmt: skip
            for _ in batch:
                if (reply := replies.readline(1000)) != _STORED:
                    raise Wrong(f"the node answered {reply!r} to a set")
            if failed:  # another one's failure ends all
                return


# --- nginx ---


class Nginx:
    """One worker of nginx: files kept in memcached under ``/memcached/``, a file of its own under ``/fixed/``.

    ``pids``: the worker's, and memcached's.
    """

    MEMCACHED, FIXED = "/memcached/", "/fixed/file?"

    def __init__(self, directory: Path, load: Load) -> None:
        """``directory`` is made; the files of ``load`` will be in memcached."""
        self.port, self.memcached_port = free_port(), free_port()
        self._directory, self._load = directory, load
        (directory / "fixed").mkdir(parents=True)
        (directory / "fixed" / "file").write_bytes(content_of(0, load.size))

    @contextlib.contextmanager
    def running(self) -> Iterator[tuple[Watched, Watched]]:
        """The worker, and memcached."""
        config = self._directory / "nginx.conf"
        config.write_text(self._config())
        command = [nginx_binary(), "-c", str(config), "-p", str(self._directory), "-e", f"{self._directory}/error.log"]
        binary = shutil.which("memcached")
        assert binary, "memcached is not installed: `make bench-growth` installs it, or: apt-get install memcached"
        user = ["-u", "root"] if os.geteuid() == 0 else []
        cache = [binary, *user, "-l", HOST, "-p", str(self.memcached_port), "-U", "0", "-t", "1", "-c", "20000"]
        with process(cache) as memcached, process(command) as master:
            wait_for(lambda: answers(self.memcached_port), what="memcached")
            worker = wait_for(lambda: _child_of(master.pid), what=f"nginx; its log is {self._directory}/error.log")
            self._fill()
            found = Watched("nginx", self.port), Watched("memcached", self.memcached_port)
            found[0].pid, found[1].pid = worker, memcached.pid
            if found[1].stat("pid") != memcached.pid:
                raise Taken(f"port {self.memcached_port}")
            yield found

    def _fill(self) -> None:
        with create_connection((HOST, self.memcached_port), PATIENCE) as sock:
            for number in range(self._load.files):
                key = f"{self.MEMCACHED}{name_of(number, self._load.folder)}".encode()
                sock.sendall(memcache.storage(b"set", key, content_of(number, self._load.size)))
                if (reply := sock.recv(100)) != _STORED:
                    raise Wrong(f"memcached answered {reply!r} to a set")

    def _config(self) -> str:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "\n  ".join(f"{kind}_temp_path {self._directory}/{kind};" for kind in kinds)
        return f"""\
{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1;
worker_rlimit_nofile {_descriptors()};
daemon off;
pid {self._directory}/nginx.pid;
error_log {self._directory}/error.log;
events {{ worker_connections 32768; }}
http {{
  access_log off;
  sendfile on;
  keepalive_requests 1000000000;
  {paths}
  open_file_cache max=16;
  upstream cache {{
    server {HOST}:{self.memcached_port};
    keepalive 10000;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {HOST}:{self.port} backlog=4096;
    location /fixed/ {{ root {self._directory}; }}
    location /memcached/ {{
      set $memcached_key $uri;
      memcached_pass cache;
    }}
  }}
}}
"""


def nginx_binary() -> str:
    """Debian keeps it out of a user's PATH."""
    binary = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    assert binary, "nginx is not installed: `make bench-growth` installs it, or: apt-get install nginx"
    return binary


def _is_of(pid: int, ancestor: int) -> bool:
    """Whether a process is this one, or was started by it or by its children."""
    while pid > 1 and pid != ancestor:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # not on this machine, or it has ended
            return False
    return pid == ancestor


def _descriptors() -> int:
    """How many files a process may open here, if it asks for as many as it may: nginx has two for each client."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)


def _child_of(pid: int) -> int:
    """A process's first child; 0 while it has none."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else 0
