"""How fast files are listed: the stream, pages, folders; over three nodes, each file on one of them.

    python -m benchmarks.listing [--files 1000000] [--escaped] [--durability os] [--data DIR]

The front and the nodes are processes of their own on this machine, and share its cores with the client, which only
takes bytes. ``--escaped``: the names have blanks and percent signs, which sort elsewhere as keys. Prints a fragment for
``RESULTS.rst``. Exit status: 0; 1 if a list hasn't every file once, in order.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import shlex
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from urllib.parse import urlencode

from benchmarks import report
from benchmarks.node_bench import MIB, say
from benchmarks.watched import Node, Watched
from sfss import memcache, paths, record
from sfss.cluster.ring import Ring
from sfss.record import Header, Kind
from tests.servers import HOST, Service

BODY = b"x" * 100
IN_FOLDER = 1000  # files
AT_ONCE = 2000  # records that are sent before an answer is waited for
PAGES = 50  # of each size, from the beginning on
LOOKS = 20
RUNS = 3


class Names:
    """The paths of so many files."""

    def __init__(self, count: int, escaped: bool) -> None:
        self.count = count
        self._form = "my photos/100% of {:04}/no {:07}.jpg" if escaped else "photos/{:04}/img-{:07}.jpg"
        self.top = "my photos/" if escaped else "photos/"

    def __iter__(self) -> Iterator[str]:
        return (self._form.format(number // IN_FOLDER, number) for number in range(self.count))


class Streamed(NamedTuple):
    """One stream of all files. ``front`` and ``nodes`` are seconds of their CPU time."""

    seconds: float
    first: float  # seconds until its first bytes
    bytes: int
    front: float
    nodes: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _options(arguments)
    names = Names(options.files, options.escaped)
    with tempfile.TemporaryDirectory(prefix="sfss-bench-", dir=options.data) as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        command = shlex.join(["python", "-m", "benchmarks.listing", *arguments])
        facts = [*report.facts(command, directory, {}), ("Load before", report.load_average())]
        print(report.field_list([*facts, ("Files", f"{names.count:,}, such as {next(iter(names))}")]), flush=True)
        nodes = [stack.enter_context(Node(directory / str(n), options.durability)) for n in range(3)]
        for node in nodes:
            node.start()
        say("filling")
        _fill(nodes, names)
        addresses = ",".join(f"n{number}={HOST}:{node.port}" for number, node in enumerate(nodes))
        service = stack.enter_context(Service(directory, settings={"SFSS_STORAGE_NODES": addresses}))
        assert service.process is not None
        front = Watched("front", service.port)
        front.pid = service.process.pid
        others = report.pause(5)
        before = [server.memory() for server in (front, *nodes)]
        say("streaming")
        streams = [_stream(service.port, front, nodes) for _ in range(RUNS)]
        _tell_streams(names, streams)
        say("paging")
        _tell_pages(service.port, names)
        _tell_memory([front, *nodes], before)
        print(f"\nOthers kept {others:.2f} cores busy before.")
        say("checking")
        return 0 if _is_right(service.port, names) else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.listing", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--files", type=int, default=1_000_000, help="how many (default: %(default)s)")
    parser.add_argument("--escaped", action="store_true", help="with names that sort elsewhere as keys")
    parser.add_argument("--durability", choices=("fsync", "os"), default="os", help="the nodes' (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="where the nodes' data go (default: the system's place for such)")
    return parser.parse_args(arguments)


def _fill(nodes: Sequence[Node], names: Names) -> None:
    """Records as a front would make them, straight to the nodes where it would look for them."""
    ring = Ring([f"n{number}" for number in range(len(nodes))])
    by_name = {f"n{number}": node for number, node in enumerate(nodes)}
    with contextlib.ExitStack() as stack:
        sockets = {name: stack.enter_context(socket.create_connection((HOST, n.port))) for name, n in by_name.items()}
        waiting: dict[str, list[bytes]] = {name: [] for name in by_name}
        checksum, version = record.payload_checksum(BODY), time.time_ns() // 1000
        for number, path in enumerate(names):
            sha256 = hashlib.sha256(path.encode()).digest()
            header = Header(Kind.FILE, version + number, 1, len(BODY), sha256, len(BODY), checksum)
            key = paths.key_of(path)
            requests = waiting[name := ring.owners(key)[0]]
            requests.append(memcache.storage(b"set", key, record.encode(header, BODY)))
            if len(requests) == AT_ONCE:
                _send(sockets[name], requests)
        for name, requests in waiting.items():
            _send(sockets[name], requests)


def _send(sock: socket.socket, requests: list[bytes]) -> None:
    sock.sendall(b"".join(requests))
    answers = b""
    while answers.count(b"\n") < len(requests):
        answers += sock.recv(2**16)
    assert answers == b"STORED\r\n" * len(requests), answers[:200]
    requests.clear()


def _stream(port: int, front: Watched, nodes: Sequence[Node]) -> Streamed:
    used = front.cpu(), sum(node.cpu() for node in nodes)
    began = time.perf_counter()
    first, size = 0.0, 0
    for piece in _pieces(port):
        first = first or time.perf_counter() - began
        size += len(piece)
    seconds = time.perf_counter() - began
    return Streamed(seconds, first, size, front.cpu() - used[0], sum(node.cpu() for node in nodes) - used[1])


def _pieces(port: int) -> Iterator[bytes]:
    with contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=60)) as connection:
        connection.request("GET", "/files", headers={"Accept": "application/x-ndjson"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        while piece := answer.read1(2**20):
            yield piece


def _tell_streams(names: Names, streams: Sequence[Streamed]) -> None:
    rows = [["run", "objects/s", "MB/s", "first bytes", "CPU of the front", "of the nodes"]]
    rows += [
        [
            str(number),
            f"{names.count / run.seconds:,.0f}",
            f"{run.bytes / run.seconds / 1e6:.1f}",
            f"{run.first * 1000:.1f} ms",
            f"{run.front / names.count * 1e6:.2f} µs/object",
            f"{run.nodes / names.count * 1e6:.2f} µs/object",
        ]
        for number, run in enumerate(streams, 1)
    ]
    print("\nThe stream of all:\n")
    print(report.table(rows, 1), flush=True)


def _tell_pages(port: int, names: Names) -> None:
    rows = [["pages", "objects/s", "first: median", "longest", "then: median", "longest"]]
    with contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=60)) as connection:
        for what, query in (
            ("of 100", {"limit": 100}),
            ("of 1,000", {"limit": 1000}),
            ("of 10,000", {"limit": 10_000}),
            ("of 100 folders", {"limit": 100, "delimiter": "/", "prefix": names.top}),
            ("of 1,000 folders", {"limit": 1000, "delimiter": "/", "prefix": names.top}),
        ):
            first = [_page(connection, query)[0] for _ in range(LOOKS)]
            times: list[float] = []
            entries, after = 0, ""
            while after is not None and len(times) < PAGES:
                seconds, page = _page(connection, query | {"after": after})
                times.append(seconds)
                entries += len(page["files"]) + len(page["prefixes"])
                after = page["next"]
            later = times[1:] or times
            rows.append([what, f"{entries / sum(times):,.0f}", *_milliseconds(first), *_milliseconds(later)])
    print("\nPages, one after the other by one client, from the beginning on:\n")
    print(report.table(rows, 1), flush=True)


def _milliseconds(seconds: Sequence[float]) -> list[str]:
    return [f"{median(seconds) * 1000:.1f} ms", f"{max(seconds) * 1000:.1f} ms"]


def _page(connection: http.client.HTTPConnection, query: dict[str, Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    connection.request("GET", "/files?" + urlencode(query))
    answer = connection.getresponse()
    body = answer.read()
    seconds = time.perf_counter() - began
    assert answer.status == 200, body
    return seconds, json.loads(body)


def _tell_memory(servers: Sequence[Watched], before: Sequence[Any]) -> None:
    rows = [["memory", "before", "most, by then"]]
    for server, was in zip(servers, before, strict=True):
        rows.append([server.name, f"{was.now / MIB:.0f} MiB", f"{server.memory().peak / MIB:.0f} MiB"])
    print()
    print(report.table(rows, 1), flush=True)


def _is_right(port: int, names: Names) -> bool:
    told = (json.loads(line)["path"] for line in b"".join(_pieces(port)).splitlines())
    expected = iter(names)
    right = all(path == next(expected, None) for path in told) and next(expected, None) is None
    if not right:
        print("\nWrong: the stream hasn't every file once, in order.")
    return right


if __name__ == "__main__":
    sys.exit(main())
