"""The contenders: each is a set of real servers on 127.0.0.1 that keeps files, ended with its block.

None shares a server with another: what one leaves behind (compactions, a full cache) is not paid for by the next. What
they are asked, and how often, is not known here.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.httpload import Files, Httpload, Target, Wrong, name_of
from benchmarks.watched import Watched
from sfss import memcache
from tests.servers import HOST, Service, free_port, memcached, process, sfss_node, wait_for

MEMCACHED = ("-m", "4096", "-I", "4m", "-c", "4096")  # MiB: none may evict; as large records as a node takes
ALWAYS = 1_000_000_000  # requests after which nginx may close a connection: never here, as the others never do


class Running(NamedTuple):
    """A contender that runs."""

    target: Target
    http: list[int]  # the processes that answer, but for their children
    store: list[int]  # those that keep the files, where they are others
    fill: Callable[[Httpload, Files], None]  # writes files; raises Wrong


class Contender(NamedTuple):
    """``start`` runs it over a directory of its own; what ``keeps`` its files has them there when it starts again."""

    name: str
    what: str
    keeps: bool
    start: Callable[[Path], AbstractContextManager[Running]]
    workers: int = 1

    @property
    def title(self) -> str:
        """``what``, and how many workers do it."""
        return self.what if self.workers == 1 else f"{self.what}, {self.workers} workers"


def put_all(target: Target, load: Httpload, files: Files) -> None:
    """Write files by HTTP. Raises Wrong."""
    done = load.run(target, files, "--puts", 100, "--count", files.number, "--connections", 16)
    if done.trouble:
        raise Wrong(f"when it was filled: {done.trouble}")


# --- sfss ---


@contextlib.contextmanager
def sfss_over_memcached(directory: Path, workers: int = 1) -> Iterator[Running]:
    """A front over one memcached."""
    with memcached(*MEMCACHED) as port, _front(directory, [port], [_pid(port)], workers) as running:
        yield running


@contextlib.contextmanager
def sfss_over_nodes(
    directory: Path,
    *,
    durability: str = "fsync",
    nodes: int = 1,
    copies: int = 1,
    quorum: int = 1,
    workers: int = 1,
) -> Iterator[Running]:
    """A front over so many of our nodes; ``quorum``: of copies, for writing and for reading."""
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(sfss_node(directory / f"node-{n}", "--durability", durability)) for n in range(nodes)
        ]
        ports, pids = [port for port, _ in started], [child.pid for _, child in started]
        settings = {
            "SFSS_STORAGE_COPIES": str(copies),
            "SFSS_STORAGE_WRITE_QUORUM": str(quorum),
            "SFSS_STORAGE_READ_QUORUM": str(quorum),
        }
        yield stack.enter_context(_front(directory, ports, pids, workers, settings))


@contextlib.contextmanager
def _front(
    directory: Path, nodes: Sequence[int], pids: list[int], workers: int, settings: dict[str, str] | None = None
) -> Iterator[Running]:
    # The names place the files: where a node's port is another one when it starts again, they stay where they are.
    addresses = ",".join(f"node-{n}={HOST}:{port}" for n, port in enumerate(nodes))
    settings = {"SFSS_STORAGE_NODES": addresses, **(settings or {})}
    if workers != 1:
        settings["SFSS_SERVER_WORKERS"] = str(workers)
    with contextlib.ExitStack() as stack:
        service = Service(directory, settings=settings)
        stack.push(service)  # before it is started: it must be ended if the start fails, too
        service.start()
        assert service.process is not None
        target = Target(service.port, "/file?path=")
        yield Running(target, [service.process.pid], pids, functools.partial(put_all, target))


def _pid(memcached_port: int) -> int:
    return Watched("memcached", memcached_port).stat("pid")


# --- nginx ---


class Nginx:
    """One nginx: static files, files kept in memcached, WebDAV. The files of WebDAV are the static ones."""

    def __init__(self, directory: Path, workers: int = 1) -> None:
        self.directory = directory
        self.workers = workers
        self.port = free_port()
        self.memcached_port = free_port()
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        """The master's."""
        return int((self.directory / "nginx.pid").read_text())

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """nginx and the memcached behind it."""
        config = self.directory / "nginx.conf"
        config.write_text(self._config())
        command = [
            _nginx_binary(),
            "-c",
            str(config),
            "-p",
            str(self.directory),
            "-e",
            str(self.directory / "error.log"),
        ]
        with memcached(*MEMCACHED, port=self.memcached_port), process(command):
            wait_for(self._answers, what=f"nginx; its log is {self.directory / 'error.log'}")
            yield

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1):
            return True
        return False

    def _config(self) -> str:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "\n  ".join(f"{kind}_temp_path {self.directory}/{kind};" for kind in kinds)
        return f"""\
{"user root;" if os.geteuid() == 0 else ""}
worker_processes {self.workers};
daemon off;
pid {self.directory}/nginx.pid;
error_log {self.directory}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  log_not_found off;
  sendfile on;
  keepalive_requests {ALWAYS};
  client_max_body_size 0;
  {paths}
  upstream cache {{
    server {HOST}:{self.memcached_port};
    keepalive 256;
    keepalive_requests {ALWAYS};
  }}
  server {{
    listen {HOST}:{self.port}{" reuseport" if self.workers > 1 else ""};
    location /static/ {{ alias {self.directory}/dav/; }}
    location /memcached/ {{
      set $memcached_key $uri;
      memcached_pass cache;
    }}
    location /dav/ {{
      root {self.directory};
      dav_methods PUT;
      create_full_put_path on;
    }}
  }}
}}
"""


@contextlib.contextmanager
def nginx_files(directory: Path, get: str = "/static/", workers: int = 1) -> Iterator[Running]:
    """nginx over files; ``get``: whether they are read as static ones or by WebDAV's location."""
    server = Nginx(directory, workers)
    with server.running():
        fill = functools.partial(put_all, Target(server.port, "/dav/"))
        yield Running(Target(server.port, get), [server.pid], [], fill)


@contextlib.contextmanager
def nginx_memcached(directory: Path, workers: int = 1) -> Iterator[Running]:
    """nginx's memcached module, which can't write."""
    server = Nginx(directory, workers)
    prefix = "/memcached/"

    def fill(load: Httpload, files: Files) -> None:
        with socket.create_connection((HOST, server.memcached_port), 10) as sock:
            for number in range(files.number):
                key = (prefix + name_of(files, number)).encode()
                sock.sendall(memcache.storage(b"set", key, load.body(number, files.size)))
                answer = sock.recv(100)
                assert answer == b"STORED\r\n", answer

    with server.running():
        yield Running(Target(server.port, prefix), [server.pid], [_pid(server.memcached_port)], fill)


def programs() -> dict[str, str]:
    """What is measured and with what, each with the command that prints its version."""
    return {"nginx": f"{_nginx_binary()} -v", "memcached": "memcached -V"}


def _nginx_binary() -> str:
    """Debian keeps it out of a user's PATH."""
    binary = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    assert binary, "nginx is not installed: `make bench` installs it, or: apt-get install nginx"
    return binary


# --- all of them ---


def _with_workers(workers: int) -> tuple[Contender, ...]:
    """Those that are measured with any number of workers, of the front or of nginx."""
    return tuple(
        Contender(name, what, keeps, functools.partial(start, workers=workers), workers)
        for name, what, keeps, start in (
            ("sfss-memcached", "sfss over memcached", False, sfss_over_memcached),
            ("sfss-node", "sfss over one node, fsync", True, sfss_over_nodes),
            ("nginx-memcached", "nginx's memcached module", False, nginx_memcached),
            ("nginx-static", "nginx, static files", True, nginx_files),
            ("nginx-dav", "nginx's WebDAV, no fsync", True, functools.partial(nginx_files, get="/dav/")),
        )
    )


def _over_nodes(name: str, what: str, **options: Any) -> Contender:
    return Contender(name, what, True, functools.partial(sfss_over_nodes, **options))


CONTENDERS = (
    *_with_workers(1),
    *_with_workers(2),
    _over_nodes("sfss-node-os", "sfss over one node, os", durability="os"),
    _over_nodes("sfss-three", "sfss over three nodes, 1 copy", nodes=3),
    _over_nodes("sfss-three-2of3", "sfss over three nodes, 3 copies, quorums 2", nodes=3, copies=3, quorum=2),
    _over_nodes("sfss-three-1of3", "sfss over three nodes, 3 copies, quorums 1", nodes=3, copies=3),
)
