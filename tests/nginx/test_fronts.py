"""Fronts that go away, come back and die at work behind nginx; and what they are told of who asks."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nginx.conftest import MIB
from tests.nginx.server import Answer, Nginx
from tests.servers import HOST, Service, free_port, sfss_node, stop_in_its_tracks, wait_for

SETTINGS = {
    "SFSS_LIMITS_MAX_FILE_SIZE": "64MiB",
    "SFSS_SERVER_TRUSTED_PROXIES": "127.0.0.1",
    "SFSS_ACCESS_ANONYMOUS": "read,write",
}


@contextlib.contextmanager
def fronts(tmp_path: Path, node: int, count: int, **settings: str) -> Iterator[list[Service]]:
    """So many over one node."""
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(count):
            directory = tmp_path / f"front-{number}"
            directory.mkdir()
            given = {**SETTINGS, "SFSS_STORAGE_NODES": f"{HOST}:{node}", **settings}
            found.append(stack.enter_context(Service(directory, settings=given)))
        yield found


@contextlib.contextmanager
def behind(tmp_path: Path, services: list[Service]) -> Iterator[Nginx]:
    directory = tmp_path / "nginx"
    directory.mkdir()
    with Nginx(directory, [service.port for service in services]).running() as running:
        yield running


REQUESTS = [("GET", "/file?path=away/b"), ("PUT", "/file?path=away/a"), ("GET", "/status"), ("HEAD", "/uploads/u1"),
            ("GET", "/f/away/b"), ("GET", "/immutable/away")]  # fmt: skip


def kill(service: Service) -> None:
    assert service.process is not None
    service.process.kill()
    service.process.wait(20)


def problem(answer: Answer) -> tuple[int, str, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    document = json.loads(answer.body)
    assert document["status"] == answer.status
    return answer.status, document["type"], answer.headers.get("retry-after", "")


def test_while_no_front_is_there_clients_are_told_so_and_served_again_when_one_is(
    tmp_path: Path, our_nodes: list[str]
) -> None:
    node = int(our_nodes[0].rpartition(":")[2])
    with fronts(tmp_path, node, 1) as (front,), behind(tmp_path, [front]) as nginx:
        nginx.put("/file?path=away/a", b"a")
        for _ in range(2):
            front.stop()
            for method, target in REQUESTS:
                answer = nginx.ask(method, target, None, b"x" if method == "PUT" else None)
                assert answer.status == 502
                if method != "HEAD":
                    assert problem(answer) == (502, "urn:sfss:http", "2")
            assert nginx.get("/file?path=away/a", Range="bytes=0-0").status == 502
            front.start()
            # nginx may still hold connections to the front that was
            for number in range(10):
                assert nginx.put(f"/file?path=away/{number}", b"new").status == 200
                assert nginx.get(f"/file?path=away/{number}").body == b"new"


def test_one_front_of_two_is_killed_and_nobody_notices(tmp_path: Path, our_nodes: list[str]) -> None:
    node = int(our_nodes[0].rpartition(":")[2])
    with fronts(tmp_path, node, 2) as services, behind(tmp_path, services) as nginx:
        for number in range(20):
            assert nginx.put(f"/file?path=two/{number}", b"%d" % number).status == 200
        kill(services[0])
        for number in range(20):
            assert nginx.put(f"/file?path=two/new-{number}", b"new").status == 200
            assert nginx.get(f"/file?path=two/{number}").body == b"%d" % number
            assert nginx.ask("HEAD", f"/file?path=two/new-{number}").status == 200
        services[0].start()
        kill(services[1])
        # nginx looks after the first again when fail_timeout is over
        wait_for(lambda: nginx.get("/file?path=two/new-0").status == 200, what="the first to be used again")
        for number in range(20):
            assert nginx.get(f"/file?path=two/new-{number}").body == b"new"
            assert nginx.put(f"/file?path=two/{number}", b"newer").status == 200


def test_a_front_that_stands_still_is_passed_over_by_reads_of_others(tmp_path: Path, our_nodes: list[str]) -> None:
    """Its connections are accepted by the kernel, and nothing comes: a read goes to the other after the time-out."""
    node = int(our_nodes[0].rpartition(":")[2])
    with fronts(tmp_path, node, 2) as services:
        directory = tmp_path / "nginx"
        directory.mkdir()
        changes = {"proxy_read_timeout 60s;": "proxy_read_timeout 1s;"}
        with Nginx(directory, [service.port for service in services], changes=changes).running() as nginx:
            nginx.put("/file?path=still/a", b"a")
            assert services[0].process is not None
            stop_in_its_tracks(services[0].process)
            try:
                for number in range(6):
                    answer = nginx.get(f"/file?path=still/a&n={number}")
                    assert (answer.status, answer.body) == (200, b"a")
            finally:
                services[0].process.send_signal(signal.SIGCONT)


def _counts(service: Service) -> int:
    """How many 504 a front has answered."""
    connection = http.client.HTTPConnection(HOST, service.port, timeout=10)
    connection.request("GET", "/status?format=full")
    responses = json.load(connection.getresponse())["webserver"]["responses"]
    connection.close()
    return int(responses.get("504", 0))


@pytest.mark.parametrize("body", [b"x", bytes(900_000)])
def test_a_small_write_goes_to_another_front_where_the_first_is_not_reached(
    tmp_path: Path, our_nodes: list[str], body: bytes
) -> None:
    node = int(our_nodes[0].rpartition(":")[2])
    with fronts(tmp_path, node, 1) as (front,):
        directory = tmp_path / "nginx"
        directory.mkdir()
        # Two that aren't there, asked in turn, and never passed over for having failed.
        changes = {"max_fails=1 fail_timeout=2s": "max_fails=0"}
        with Nginx(directory, [free_port(), front.port], changes=changes).running() as nginx:
            for number in range(8):
                url = f"/file?path=small/{number}"
                assert nginx.put(url, body).status == 200
                assert nginx.get(url).body == body
                assert nginx.ask("DELETE", url).status == 204


def test_a_front_s_504_is_the_answer_and_not_a_reason_to_ask_another(tmp_path: Path, our_nodes: list[str]) -> None:
    with sfss_node(tmp_path / "node") as (node, process):
        both = f"{our_nodes[0]},{HOST}:{node}"
        with fronts(tmp_path, node, 2, SFSS_STORAGE_NODES=both) as services, behind(tmp_path, services) as nginx:
            paths = [f"/file?path=gone/{number}" for number in range(40)]
            for path in paths:
                assert nginx.put(path, b"x").status == 200
            process.kill()
            process.wait(20)
            before = [_counts(service) for service in services]
            answers = [nginx.get(path) for path in paths]
            failed = [answer for answer in answers if answer.status != 200]
            assert 0 < len(failed) < len(paths)
            for answer in failed:
                assert problem(answer) == (504, "urn:sfss:node-unavailable", "2")
            after = [_counts(service) for service in services]
            assert sum(after) - sum(before) == len(failed)


class _Deaf:
    """A front that takes requests, and hangs up on each; it counts them."""

    def __init__(self) -> None:
        self.port = free_port()
        self.requests: list[bytes] = []
        self._listening = socket.create_server((HOST, self.port))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listening.accept()
                with sock, contextlib.suppress(OSError):
                    self.requests.append(sock.recv(65536))

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


CHUNKED = {"Transfer-Encoding": "chunked"}
WRITES: list[tuple[str, str, dict[str, str], bytes | None]] = [
    ("PUT", "/file?path=a", {}, b"x"), ("PUT", "/file?path=a", {}, bytes(999_999)),
    ("PUT", "/file?path=a", {}, bytes(5 * MIB)), ("PUT", "/file?path=a", CHUNKED, b"1\r\nx\r\n0\r\n\r\n"),
    ("PUT", "/file?path=a", {"If-None-Match": "*"}, b""), ("PUT", "/files?path=a", {}, b"x"), ("PUT", "/f/a", {}, b"x"),
    ("PUT", "/immutable/a", {}, b"x"), ("POST", "/file?path=a", {}, b"x"), ("POST", "/files?path=a", {}, b"x"),
    ("POST", "/uploads?path=a", {}, b""), ("PATCH", "/uploads/u1", {}, b"x"), ("DELETE", "/file?path=a", {}, None),
    ("DELETE", "/f/a", {}, b""), ("DELETE", "/photos/a", {}, None), ("PUT", "/photos/a", {}, b"x"),
    ("DELETE", "/files/7", {}, None), ("PUT", "/namespaces/a", {}, b"{}"),
]  # fmt: skip
READS = [("GET", "/file?path=a", {}, None), ("HEAD", "/file?path=a", {}, None), ("GET", "/files", {}, None),
         ("GET", "/file?path=a", {"Range": "bytes=0-1"}, None), ("GET", "/f/a", {}, None),
         ("GET", "/immutable/a", {}, None), ("GET", "/file?path=a", {"If-Match": "*"}, None)]  # fmt: skip


@pytest.mark.parametrize(("request_", "times"), [(write, 1) for write in WRITES] + [(read, 2) for read in READS])
def test_a_write_that_was_sent_is_never_sent_again_and_a_read_is(
    tmp_path: Path, request_: tuple[str, str, dict[str, str], bytes | None], times: int
) -> None:
    deaf = [_Deaf(), _Deaf()]
    try:
        with Nginx(tmp_path, [front.port for front in deaf], workers=1).running() as nginx:
            assert nginx.ask(*request_).status == 502
        assert sum(len(front.requests) for front in deaf) == times
    finally:
        for front in deaf:
            front.close()


def test_a_download_that_breaks_off_is_seen_to(tmp_path: Path, our_nodes: list[str]) -> None:
    node = int(our_nodes[0].rpartition(":")[2])
    content = os.urandom(60 * MIB)
    with fronts(tmp_path, node, 1) as (front,), behind(tmp_path, [front]) as nginx:
        assert nginx.put("/file?path=broken", content).status == 200
        with nginx.connect() as sock:
            sock.sendall(b"GET /file?path=broken HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = http.client.HTTPResponse(sock)
            answer.begin()
            assert answer.read(10) == content[:10]
            kill(front)
            with pytest.raises(http.client.IncompleteRead):
                answer.read()


def test_a_front_knows_who_asks_and_not_what_he_says_of_himself(tmp_path: Path, our_nodes: list[str]) -> None:
    """The log of a download that is cut off because nobody reads it tells."""
    node = int(our_nodes[0].rpartition(":")[2])
    with (
        fronts(tmp_path, node, 1, SFSS_LIMITS_BODY_TIMEOUT="1") as (front,),
        behind(tmp_path, [front]) as nginx,
    ):
        assert nginx.put("/file?path=slow", bytes(60 * MIB)).status == 200
        with nginx.connect(source="127.0.0.2") as sock:
            sock.sendall(
                b"GET /file?path=slow HTTP/1.1\r\nHost: files.example.org\r\nX-Forwarded-For: 6.6.6.6\r\n"
                b"X-Forwarded-Proto: ftp\r\nX-Forwarded-Host: evil.example\r\nForwarded: for=6.6.6.6\r\n\r\n"
            )
            line = "https://files.example.org/file?path=slow for 127.0.0.2 was cut off: it was not read for 1 s"
            wait_for(lambda: line in front.log.read_text(), what="the download to be cut off")
        with socket.create_connection((HOST, front.port), 10, ("127.0.0.3", 0)) as sock:
            sock.sendall(b"GET /file?path=slow HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
            line = "http://x/file?path=slow for 127.0.0.3 was cut off"
            wait_for(lambda: line in front.log.read_text(), what="the download to be cut off")
        assert "6.6.6.6" not in front.log.read_text()
