"""The contenders: each is a set of real servers on 127.0.0.1 with what it needs to be measured, ended with its block.

None shares a server with another, except that one nginx (one worker) serves all of nginx's: what one leaves behind
(compactions, a full cache) is not paid for by the next.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from benchmarks.load import Bodies, Load, Target, check, name_of, put
from sfss import memcache
from tests.servers import HOST, Service, free_port, memcached, process, sfss_node, wait_for

GET = Load("get", "GET", "GET", 1_000)
NEW = Load("new", "PUT of new files", "PUT", 10_000, fresh=True)
OVER = Load("over", "PUT over files that are there", "PUT", 10_000)
MAX_CHECKED = 500  # files that are read again after a run, spread over all
LOADS = (GET, NEW, OVER)
MEMORY = "4096"  # MiB for a memcached: none may evict
ALWAYS = 1_000_000_000  # requests after which nginx may close a connection: never here, as the others never do


class Nginx:
    """One nginx with one worker: static files, files kept in memcached, WebDAV."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.memcached_port = free_port()
        directory.mkdir(parents=True)

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
        with memcached("-m", MEMORY, port=self.memcached_port), process(command):
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
worker_processes 1;
daemon off;
pid {self.directory}/nginx.pid;
error_log {self.directory}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  keepalive_requests {ALWAYS};
  client_max_body_size 0;
  {paths}
  upstream cache {{
    server {HOST}:{self.memcached_port};
    keepalive 64;
    keepalive_requests {ALWAYS};
  }}
  server {{
    listen {HOST}:{self.port};
    location /static/ {{ root {self.directory}; }}
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


def programs() -> dict[str, str]:
    """What is measured and with what, each with the command that prints its version."""
    return {"nginx": f"{_nginx_binary()} -v", "memcached": "memcached -V", "wrk": "wrk -v"}


def _nginx_binary() -> str:
    """Debian keeps it out of a user's PATH."""
    binary = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    assert binary, "nginx is not installed: `make bench` installs it, or: apt-get install nginx"
    return binary


class Bench(NamedTuple):
    """What a contender is set up with."""

    directory: Path  # its own, to keep its data in
    bodies: Bodies
    nginx: Nginx  # running


@contextlib.contextmanager
def _sfss_over_memcached(bench: Bench) -> Iterator[Target]:
    with memcached("-m", MEMORY) as node, _front(bench, node) as target:
        put(target, bench.bodies, range(GET.files))
        yield target


@contextlib.contextmanager
def _sfss_over_node(bench: Bench, durability: str = "fsync") -> Iterator[Target]:
    data = bench.directory / "node"
    options = ("--durability", durability)
    with sfss_node(data, *options) as (node, _), _front(bench, node) as target:
        put(target, bench.bodies, range(GET.files))
    # Started again it has what was written in its files, not in the memory that takes new writes.
    with sfss_node(data, *options) as (node, _), _front(bench, node) as target:
        yield target


@contextlib.contextmanager
def _front(bench: Bench, node: int) -> Iterator[Target]:
    """One front process over one node."""
    with contextlib.ExitStack() as stack:
        service = Service(bench.directory, settings={"SFSS_STORAGE_NODES": f"{HOST}:{node}"})
        stack.push(service)  # before it is started: it must be ended if the start fails, too
        service.start()
        yield Target(service.port, "/file?path=")


@contextlib.contextmanager
def _nginx_memcached(bench: Bench) -> Iterator[Target]:
    target = Target(bench.nginx.port, "/memcached/")
    with socket.create_connection((HOST, bench.nginx.memcached_port), 10) as sock:
        for number in range(GET.files):
            key = (target.prefix + name_of(number)).encode()
            sock.sendall(memcache.storage(b"set", key, bench.bodies[number]))
            answer = sock.recv(100)
            assert answer == b"STORED\r\n", answer
    yield target


@contextlib.contextmanager
def _nginx_static(bench: Bench) -> Iterator[Target]:
    for number in range(GET.files):
        file = bench.nginx.directory / "static" / name_of(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bench.bodies[number])
    yield Target(bench.nginx.port, "/static/")


@contextlib.contextmanager
def _nginx_dav(bench: Bench) -> Iterator[Target]:
    yield Target(bench.nginx.port, "/dav/")


class Contender(NamedTuple):
    """One row of a table. ``start`` gives where it answers, with the files that are to be read already there."""

    name: str
    what: str
    load: Load
    reference: str  # the name of the contender that this one is compared with
    start: Callable[[Bench], AbstractContextManager[Target]]


CONTENDERS = (
    Contender("get-memcached", "sfss over memcached", GET, "get-nginx", _sfss_over_memcached),
    Contender("get-node", "sfss over one sfss node", GET, "get-nginx", _sfss_over_node),
    Contender("get-nginx", "nginx's memcached module", GET, "get-nginx", _nginx_memcached),
    Contender("get-static", "nginx, static files", GET, "get-nginx", _nginx_static),
    *(
        Contender(f"{load.name}-{name}", what, load, f"{load.name}-nginx", start)
        for load in (NEW, OVER)
        for name, what, start in (
            ("memcached", "sfss over memcached", _sfss_over_memcached),
            ("node-fsync", "sfss over one sfss node, fsync", _sfss_over_node),
            ("node-os", "sfss over one sfss node, os", functools.partial(_sfss_over_node, durability="os")),
            ("nginx", "nginx's WebDAV, no fsync", _nginx_dav),
        )
    ),
)


def verify(contender: Contender, target: Target, bodies: Bodies) -> None:
    """See that every file that will be read is right, and that what is written comes back. Raises Wrong."""
    if contender.load.method == "GET":
        check(target, bodies, range(contender.load.files))
        return
    some = (0, 1, contender.load.files - 1)
    put(target, bodies, some)
    put(target, bodies, some)  # in place of what is there
    check(target, bodies, some)


def verify_after(contender: Contender, target: Target, bodies: Bodies, folder: str, requests: int) -> None:
    """See that files are right after a run that answered the first so many requests in ``folder``. Raises Wrong."""
    # wrk makes number 1 to look at it, and sends number 2 first
    files = requests if contender.load.fresh else min(requests, contender.load.files)
    step = max(1, files // MAX_CHECKED)
    check(target, bodies, range(2, files, step), folder)
