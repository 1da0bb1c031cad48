"""What ``benchmarks.large`` measures with: two servers and their processes, a source of bytes, curl, many at once."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks.contenders import Nginx
from benchmarks.node_bench import MIB
from benchmarks.watched import Watched
from tests.servers import HOST, Service, free_ports

_READ = 4 * MIB
_AT_ONCE = 4  # files that are read at a time to be checked
_STRIDE = 9 * MIB  # from where one of many begins in the source to where the next one does
_PATIENCE = 900.0  # seconds for one of many to be answered


class Wrong(Exception):
    """What came back isn't what was sent, or an error was."""


class Done(NamedTuple):
    """One transfer, or many at once."""

    bytes: int
    seconds: float
    cpu: Mapping[str, float]  # seconds of CPU time, by who used them

    @property
    def rate(self) -> float:
        """MB/s."""
        return self.bytes / self.seconds / 1e6


class Server:
    """Where files go to and come from, and the processes that see to it."""

    def __init__(self, name: str, port: int, put: str, get: str, watched: Sequence[Watched]) -> None:
        self.name = name
        self.port = port
        self.watched = watched
        self._put = put
        self._get = get

    def url(self, name: str, *, put: bool = False) -> str:
        """Of a file."""
        return f"http://{HOST}:{self.port}{self.target(name, put=put)}"

    def target(self, name: str, *, put: bool = False) -> str:
        """The URL without its host."""
        return (self._put if put else self._get) + name

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU time by kind of process: that is what its name begins with."""
        used: dict[str, float] = {}
        for process in self.watched:
            kind = process.name.split()[0]
            used[kind] = used.get(kind, 0.0) + process.cpu()
        return used

    def forget_peaks(self) -> None:
        """Have the kernel begin anew to note the most memory that each process has."""
        for process in self.watched:
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")


@contextlib.contextmanager
def sfss(directory: Path, nodes: int, pieces: int, limits: Mapping[str, str]) -> Iterator[Server]:
    """One front over embedded nodes; all files are cut in so many pieces."""
    config = directory / "sfss.toml"
    lines = ["[limits]", 'max_file_size = "1TiB"', *(f'{key} = "{value}"' for key, value in limits.items())]
    config.write_text("\n".join([*lines, "[[policy]]", 'prefix = ""', f"pieces = {pieces}", ""]))
    first_port = str(free_ports(nodes))
    settings = {"SFSS_EMBEDDED_NODES": str(nodes), "SFSS_EMBEDDED_FIRST_PORT": first_port}
    with Service(directory, "--config", str(config), settings=settings) as service:
        assert service.process is not None
        front = Watched("front")
        front.pid = service.process.pid
        watched = [front]
        for address, pid in sorted(service.node_pids().items()):
            name, _, where = address.rpartition("=")
            node = Watched(f"node {name or where}", int(where.rpartition(":")[2]), service.data / (name or where))
            node.pid = pid
            watched.append(node)
        yield Server("sfss", service.port, "/file?path=", "/file?path=", watched)


@contextlib.contextmanager
def nginx(directory: Path) -> Iterator[Server]:
    """One worker: WebDAV for PUT, and the same files as static ones."""
    server = Nginx(directory)
    with server.running():
        master = int((directory / "nginx.pid").read_text())
        pids = [master, *map(int, Path(f"/proc/{master}/task/{master}/children").read_text().split())]
        watched = [Watched(f"nginx {n}") for n in range(len(pids))]
        for process, pid in zip(watched, pids, strict=True):
            process.pid = pid
        # The location with WebDAV sends its files as any other does.
        yield Server("nginx", server.port, "/dav/", "/dav/", watched)


class Source:
    """A file of random bytes, in which no two parts are alike."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for start in range(0, size, _READ):
                piece = os.urandom(min(_READ, size - start))
                digest.update(piece)
                file.write(piece)
        self.sha256 = digest.hexdigest()


def up(source: Source, server: Server, name: str, fsynced: Path | None = None) -> Done:
    """PUT, with curl; ``fsynced``: the file that it becomes, which is to be on the disk before the time is taken."""
    before, began = server.cpu(), time.perf_counter()
    client = _curl("--fail-with-body", "-T", str(source.path), server.url(name, put=True))
    if fsynced is not None:
        with fsynced.open("rb") as file:
            os.fsync(file.fileno())
    return _done(source.size, began, server, before, client)


def down(size: int, server: Server, name: str) -> Done:
    """GET, with curl, which throws it away."""
    before, began = server.cpu(), time.perf_counter()
    client = _curl("--fail", "--output", "/dev/null", server.url(name))
    return _done(size, began, server, before, client)


def _curl(*words: str) -> float:
    """Run it; gives the seconds of CPU time that it used. Raises Wrong, with what it, or the server, said."""
    command = ["curl", "--silent", "--show-error", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        assert child.stdout is not None
        said = child.stdout.read().decode().strip()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise Wrong(f"curl ended with {child.returncode}: {said}")
    return usage.ru_utime + usage.ru_stime


def _done(size: int, began: float, server: Server, before: Mapping[str, float], client: float) -> Done:
    seconds = time.perf_counter() - began
    used = {kind: now - before[kind] for kind, now in server.cpu().items()}
    return Done(size, seconds, {**used, "client": client})


def check(server: Server, name: str, sha256: str) -> None:
    """Read it again, all of it. Raises Wrong."""
    digest = hashlib.sha256()
    with urllib.request.urlopen(server.url(name), timeout=60) as answer:
        while piece := answer.read(_READ):
            digest.update(piece)
    if digest.hexdigest() != sha256:
        raise Wrong(f"{name} on {server.name} came back with another SHA-256 than it had")


def remove(server: Server, name: str) -> None:
    """DELETE."""
    urllib.request.urlopen(urllib.request.Request(server.url(name), method="DELETE"), timeout=60).close()


# --- many at once ---


def up_many(source: Source, server: Server, names: Sequence[str], size: int) -> Done:
    """PUTs of so many files at once, each another part of the source. Raises Wrong."""
    before, client, began = server.cpu(), time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(lambda number: _put_part(source, server, names[number], number, size), range(len(names))))
    return _done(size * len(names), began, server, before, time.process_time() - client)


def _put_part(source: Source, server: Server, name: str, number: int, size: int) -> None:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=_PATIENCE)
    with contextlib.closing(connection), source.path.open("rb") as file:
        connection.putrequest("PUT", server.target(name, put=True))
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        connection.sock.sendfile(file, _begins(source, number, size), size)
        answer = connection.getresponse()
        said = answer.read()
    if answer.status not in (200, 201):
        raise Wrong(f"{name} was answered with {answer.status}: {said[:200].decode(errors='replace')}")


def check_many(source: Source, server: Server, names: Sequence[str], size: int) -> None:
    """Read all of them again. Raises Wrong."""

    def one(number: int) -> None:
        digest, left = hashlib.sha256(), size
        with source.path.open("rb") as file:
            file.seek(_begins(source, number, size))
            while left:
                piece = file.read(min(_READ, left))
                digest.update(piece)
                left -= len(piece)
        check(server, names[number], digest.hexdigest())

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(one, range(len(names))))


def _begins(source: Source, number: int, size: int) -> int:
    """Where one of many begins in the source."""
    return number * _STRIDE % (source.size - size + 1)
