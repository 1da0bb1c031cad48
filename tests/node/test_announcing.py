"""A node that announces itself: who it is lasts as long as its data, and a front that is away costs it nothing."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sfss.errors import ConfigError
from sfss.node import announcing
from sfss.node.announcing import Registering
from sfss.node.server import Server
from tests.node.support import running, talk
from tests.servers import HOST, free_port, wait_for

HEARTBEAT = 0.05


class Front(http.server.ThreadingHTTPServer):
    """Hears announcements, and answers as it is told to."""

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.heard: list[tuple[str, dict[str, Any], str | None]] = []
        self.answer = (200, {"name": "a", "state": "member", "weight": 1.0})
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Front)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.heard.append((self.path, body, self.headers["Authorization"]))
        status, answer = self.server.answer
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def front() -> Iterator[Front]:
    with Front() as made:
        yield made
        made.shutdown()


def to(*urls: str, **options: Any) -> Registering:
    return Registering(urls, heartbeat=HEARTBEAT, **options)


async def wait(condition: Any) -> None:
    await asyncio.to_thread(wait_for, condition)


async def stats(node: Server) -> dict[str, str]:
    lines = (await talk(node.port, b"stats\r\nquit\r\n")).decode().split("\r\n")
    return dict(line.split(" ", 2)[1:] for line in lines if line.startswith("STAT "))


async def test_it_says_who_and_where_it_is_and_how_large_again_and_again(tmp_path: Path, front: Front) -> None:
    async with running(tmp_path / "a", registering=to(f"{front.url}/", name="a", key="secret"), capacity=1000) as node:
        await wait(lambda: len(front.heard) > 2)
        path, said, key = front.heard[-1]
        told = await stats(node)
        assert (path, key) == ("/nodes", "Bearer secret")
        assert (said["name"], said["address"], said["capacity"]) == ("a", f"{HOST}:{node.port}", 1000)
        assert (told["node_name"], told["node_id"], told["capacity"]) == ("a", said["id"], "1000")
        await wait(lambda: front.heard)
        assert time.time() - int((await stats(node))["announced"]) < 60
    heard = len(front.heard)
    await asyncio.sleep(4 * HEARTBEAT)
    assert len(front.heard) <= heard + 1


async def test_it_is_the_same_on_another_port_and_another_one_on_an_empty_directory(
    tmp_path: Path, front: Front
) -> None:
    for data in ("a", "a", "b"):
        heard = len(front.heard)
        async with running(tmp_path / data, registering=to(front.url)):
            await wait(lambda heard=heard: len(front.heard) > heard)
    said = {body["address"]: (body["name"], body["id"]) for _, body, _ in front.heard}
    assert len(said) == 3
    assert len(set(said.values())) == 2
    assert all(name == f"node-{id[:8]}" for name, id in said.values())


async def test_a_node_keeps_its_name(tmp_path: Path) -> None:
    assert announcing.identity(tmp_path, "a") == announcing.identity(tmp_path) == announcing.identity(tmp_path, "a")
    with pytest.raises(ConfigError, match="those of the node a, and files are looked for by that name"):
        announcing.identity(tmp_path, "b")


async def test_a_front_that_is_away_is_told_once_and_tried_until_it_is_here(
    tmp_path: Path, front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    away = f"http://{HOST}:{free_port()}"
    caplog.set_level(logging.INFO, "sfss.node")
    async with running(tmp_path / "a", registering=to(away, front.url, name="a", key="s3cr3t")):
        await wait(lambda: len(front.heard) > 5)
        front.answer = (403, {"detail": "not here"})
        await wait(lambda: "refuses it (403): not here" in caplog.text)
        front.answer = (500, [])  # type: ignore[assignment]
        await wait(lambda: "answers 500, and not as a front of sfss does" in caplog.text)
    assert caplog.text.count(f"{away} can't be reached") == 1
    assert caplog.text.count("knows it as a, member, weight 1") == 1
    assert "s3cr3t" not in caplog.text


async def test_a_front_that_hangs_holds_up_neither_requests_nor_the_end(tmp_path: Path) -> None:
    with contextlib.closing(socket.create_server((HOST, 0))) as hanging:  # accepts, for the kernel does, and is silent
        url = f"http://{HOST}:{hanging.getsockname()[1]}"
        async with running(tmp_path / "a", registering=to(url)) as node:
            assert (await stats(node))["announced"] == "0"
            begun = time.monotonic()
        assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("options", "host", "says"),
    [
        ({"urls": ["ftp://a"]}, HOST, "--register: 'ftp://a' is no front"),
        ({"urls": ["http://a:x"]}, HOST, "is no front"),
        ({"key": "a\nb"}, HOST, "--register-key: it is made of"),
        ({"name": "a b"}, HOST, "--name: 'a b' can't be one"),
        ({"advertise": "here"}, HOST, "--advertise: 'here' is no address"),
        ({"advertise": "a=b:1"}, HOST, "--advertise: 'a=b:1' is no address"),
        ({}, "0.0.0.0", "--advertise: the node listens on 0.0.0.0"),
        ({"heartbeat": 0}, HOST, "--heartbeat"),
    ],
)
def test_what_cannot_be_announced_is_refused_with_words(options: dict[str, Any], host: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        announcing.check(Registering(**{"urls": ["http://front"], **options}), host)


def test_a_file_that_does_not_tell_who_the_node_is_is_named(tmp_path: Path) -> None:
    (tmp_path / announcing.FILE).write_bytes(b"{")
    with pytest.raises(ConfigError, match="says which node this is"):
        announcing.identity(tmp_path)


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(Registering(["http://front"], key="secret"))
