"""Keys, signed URLs and addresses behind nginx: what one gets for his key no other gets, by no cache and no trick."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from tests.nginx.server import Nginx
from tests.nginx.test_smuggling import AMBIGUOUS, TOLERATED, answers_to
from tests.servers import HOST, Service, wait_for

SECRET = "a-signing-secret-of-the-tests"
CONTENT = b"what nobody else may see"
OUTSIDE = "127.0.0.9"  # an address that isn't let in


class Guarded(NamedTuple):
    """nginx before a front that wants to see keys."""

    nginx: Nginx
    front: Service
    key: str  # that may everything
    settings: dict[str, str]

    @property
    def shown(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "sfss", *arguments]
        ran = subprocess.run(command, env={**os.environ, **self.settings}, capture_output=True, text=True, check=True)
        return ran.stdout.strip()

    def put(self, path: str, content: bytes = CONTENT) -> None:
        assert self.nginx.ask("PUT", f"/file?path={path}", self.shown, content).status == 200


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("guarded")
    config = directory / "sfss.toml"
    config.write_text(f"""
        [server]
        trusted_proxies = ["127.0.0.1"]
        [access]
        anonymous = []
        signing_secrets = ["{SECRET}"]
        [[policy]]
        prefix = "immutable/public/"
        anonymous = ["read"]
    """)
    with Service(directory, "--config", str(config)) as front:
        settings = {"SFSS_EMBEDDED_FIRST_PORT": str(front.first_node_port), "SFSS_CONFIG": str(config)}
        found = Guarded(Nginx(directory / "nginx", [front.port]), front, "", settings)
        found = found._replace(key=found.run("key", "create"))
        with found.nginx.running():
            wait_for(lambda: found.nginx.ask("GET", "/file?path=none", found.shown).status == 404, what="the key")
            yield found


@pytest.mark.parametrize("url", ["/file?path={path}", "/f/{path}"])
def test_what_one_gets_with_his_key_is_not_kept_for_others(guarded: Guarded, path: str, url: str) -> None:
    guarded.put(path)
    url = url.format(path=path)
    for _ in range(3):
        answer = guarded.nginx.ask("GET", url, guarded.shown)
        assert (answer.status, answer.body, answer.cached) == (200, CONTENT, None)
        assert answer.headers["cache-control"] == "private"
        for others in ({}, {"Authorization": "Bearer x"}, {"Cache-Control": "no-cache"}, {"Cookie": "a=b"}):
            refused = guarded.nginx.ask("GET", url, others)
            assert (refused.status, refused.cached) in ((401, "MISS"), (401, "BYPASS"), (401, "EXPIRED"), (401, None))
            assert CONTENT not in refused.body
    fresh = guarded.nginx.ask("GET", url, {**guarded.shown, "Cache-Control": "no-cache"})
    assert (fresh.status, fresh.cached) == (200, None)
    assert guarded.nginx.ask("GET", url).status == 401


def test_what_one_gets_with_his_key_is_not_laid_down(guarded: Guarded) -> None:
    for folder, status in (("private", 401), ("public", 200)):
        path = f"immutable/{folder}/{time.monotonic_ns()}.txt"
        guarded.put(path)
        assert guarded.nginx.ask("GET", f"/{path}", guarded.shown).body == CONTENT
        assert not (guarded.nginx.stored / path).exists()
        answer = guarded.nginx.get(f"/{path}")
        assert (answer.status, answer.body == CONTENT) == (status, status == 200)
        assert (guarded.nginx.stored / path).exists() == (status == 200)


def test_a_signed_url_is_good_through_nginx_and_not_a_moment_longer(guarded: Guarded, path: str) -> None:
    guarded.put(path)
    signed = guarded.run("sign", "--expires", "3s", path)
    ends = int(signed.partition("expires=")[2].partition("&")[0])
    target = signed[signed.index("/file") :]
    asked = 0
    while time.time() < ends - 0.2:
        answer = guarded.nginx.get(target)
        assert (answer.status, answer.body, answer.headers["cache-control"]) == (200, CONTENT, "private")
        assert answer.cached != "HIT"
        asked += 1
        time.sleep(0.1)
    assert asked > 1
    time.sleep(max(ends - time.time(), 0))
    assert guarded.nginx.get(target).status == 403
    for other in (target + "x", target.replace("path=", "path=x"), target.replace("/file", "/files")):
        assert guarded.nginx.get(other).status in (401, 403)
    assert guarded.nginx.get(target.replace("/file?path=", "/f/", 1).replace("&", "?", 1)).status == 401


def test_keys_are_never_mixed_up_on_the_connections_that_nginx_keeps(guarded: Guarded, path: str) -> None:
    guarded.put(path)
    wrong: list[object] = []

    def ask(shown: dict[str, str], status: int) -> None:
        for _ in range(60):
            answer = guarded.nginx.ask("GET", f"/file?path={path}", shown)
            if answer.status != status or (CONTENT in answer.body) != (status == 200):
                wrong.append(answer)

    asking = [threading.Thread(target=ask, args=args) for args in [(guarded.shown, 200), ({}, 401)] * 3]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert not wrong


def doors(guarded: Guarded) -> list[Callable[[], socket.socket]]:
    return [guarded.nginx.connect, lambda: socket.create_connection((HOST, guarded.front.port), 10)]


def test_requests_behind_one_with_a_key_have_none(guarded: Guarded, path: str) -> None:
    guarded.put(path)
    line = f"Authorization: Bearer {guarded.key}\r\n"
    get = f"GET /file?path={path} HTTP/1.1\r\nHost: x\r\n"
    for connect in doors(guarded):
        received = answers_to(
            connect, f"{get}{line}\r\n{get}\r\n{get}{line}\r\n{get}Connection: close\r\n\r\n".encode()
        )
        statuses = [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]
        assert statuses == [b"200", b"401", b"200", b"401"]


@pytest.mark.parametrize("kind", [*AMBIGUOUS, *TOLERATED])
def test_nothing_that_is_smuggled_behind_a_key_is_answered_with_it(guarded: Guarded, kind: str) -> None:
    """The smuggled request bears no key, and names a file that only keys may read."""
    guarded.put("smuggled")
    first_line, _, rest = {**AMBIGUOUS, **TOLERATED}[kind].partition(b"\n")
    key = b"Authorization: Bearer " + guarded.key.encode() + first_line[-1:].replace(b"1", b"")
    for connect in doors(guarded):
        received = answers_to(connect, b"\n".join((first_line, key, rest)))
        assert CONTENT not in received, received


@pytest.mark.parametrize(
    "lines",
    [
        ["Authorization: Bearer x", "Authorization: Bearer {key}"],
        ["Authorization: Bearer {key}", "Authorization: Bearer x"],
        ["X: y\r\n Authorization: Bearer {key}"],
        ["X: y\rAuthorization: Bearer {key}"],
        ["Authorization : Bearer {key}"],
        ["Authorization\t: Bearer {key}"],
        ["Authorization_: Bearer {key}"],
        ["X-Authorization: Bearer {key}"],
        ["Connection: close, Authorization", "Authorization: Basic {key}"],
    ],
)
def test_headers_that_could_be_read_in_two_ways_let_nobody_in(guarded: Guarded, path: str, lines: list[str]) -> None:
    guarded.put(path)
    fields = "".join(f"{line}\r\n" for line in lines).format(key=guarded.key)
    for connect in doors(guarded):
        received = answers_to(
            connect, f"GET /file?path={path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n".encode()
        )
        assert CONTENT not in received
        assert received[9:12] in (b"400", b"401", b""), received


PATHS = ["shut/x", "open/../shut/x", "open%2f..%2fshut%2fx", "open/%2e%2e/shut/x", "open//../shut/x",
         "open/%252e%252e/shut/x", "OPEN/../shut/x", "open/..%5cshut/x", "open/%00/../../shut/x"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_way_of_writing_a_path_leads_out_of_what_is_open(guarded: Guarded, path: str) -> None:
    guarded.put("immutable/shut/x")
    guarded.put("shut/x")
    path = path.replace("open", "immutable/public")
    targets = [f"/file?path={path}", f"/f/{path}", f"/{path}", f"/immutable/{path}"]
    for target in targets:
        received = answers_to(
            guarded.nginx.connect, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        )
        assert CONTENT not in received, target


def test_addresses_are_those_of_clients_whatever_they_say(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("addresses")
    settings = {
        "SFSS_SERVER_TRUSTED_PROXIES": HOST,
        "SFSS_ACCESS_ANONYMOUS": "read,write",
        "SFSS_ACCESS_DENY": OUTSIDE,
        "SFSS_ACCESS_ADDRESS_RATE": "0.01",
        "SFSS_ACCESS_ADDRESS_BURST": "6",
    }
    with Service(directory, settings=settings) as front, Nginx(directory / "nginx", [front.port]).running() as nginx:

        def ask(source: str, *lines: str, method: str = "GET") -> int:
            fields = "".join(f"{line}\r\n" for line in lines)
            text = (
                f"{method} /file?path=x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n{fields}\r\n"
            )
            received = answers_to(lambda: nginx.connect(source), text.encode())
            return int(received[9:12])

        for forged in (
            [],
            ["X-Forwarded-For: 127.0.0.1"],
            ["X-Forwarded-For: 198.51.100.7"],
            ["Forwarded: for=127.0.0.1"],
        ):
            assert ask(OUTSIDE, *forged) == 403
        assert ask("127.0.0.8", "X-Forwarded-For: 127.0.0.9", method="PUT") == 200
        # What is in nginx's cache was not let through for everybody, and so is not there.
        assert ask("127.0.0.8") == 200
        assert ask(OUTSIDE) == 403
        statuses = [ask("127.0.0.7", f"X-Forwarded-For: 198.51.100.{n}") for n in range(8)]
        assert statuses == [200] * 6 + [429] * 2
        assert ask("127.0.0.7", "X-Forwarded-For: 127.0.0.6") == 429
