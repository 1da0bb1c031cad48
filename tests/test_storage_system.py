"""The test storage system (docs/test-storage.rst): over seven real Redis, as conf/test-storage.toml sets it up."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import struct
import sys
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfss import config, manifest, record
from sfss.assembly import backend
from sfss.record import Kind
from tests.redis import DURABLE, Redis, redis
from tests.servers import Service, process, wait_for
from tests.test_cli import run

CONF = Path(__file__).resolve().parent.parent / "conf" / "test-storage.toml"
SHORT_TERM, LONG_TERM = 6380, range(6381, 6387)  # ports, as they stand there
CLIENT = "test-client"
# With a machine that has other tests to run, too.
PATIENT = {"SFSS_STORAGE_TIMEOUT": "10", "SFSS_STORAGE_CONNECT_TIMEOUT": "5", "SFSS_WRITE_BEHIND_TIMEOUT": "10"}


class System:
    """The front, and what is behind it."""

    def __init__(self, front: Service, configuration: Path, servers: dict[int, Redis]) -> None:
        self.front = front
        self.configuration = configuration
        self.servers = servers
        self.settings = config.load(str(configuration), PATIENT)

    def put(self, name: str, content: bytes) -> int:
        """Its first interface, as a client of it has it; the status."""
        return _posted(self, name, content)[0]

    def get(self, name: str) -> bytes:
        """Its second one."""
        query = urllib.parse.urlencode({"client_id": CLIENT, "name": name})
        status, body = _status_and_body(urllib.request.Request(f"{self.front.url}/files?{query}"))
        assert status == 200, body
        told = json.loads(body)
        assert told["name"] == name
        return base64.b64decode(told["data"])

    async def pieces(self, name: str) -> dict[str, bytes]:
        """What each long-term storage has of a file, read from the storages themselves; nothing before it is there."""
        found: dict[str, dict[int, bytes]] = {}
        for address in self.settings.nodes:
            node = backend(self.settings, address)
            await node.start()
            try:
                async with contextlib.aclosing(node.keys()) as batches:
                    blocks = [key async for batch in batches for key in batch if manifest.parse_block_key(key)]
                for key in blocks:
                    if (data := await node.get(key)) is None:
                        continue
                    there, parsed = record.decode(data), manifest.parse_block_key(key)
                    assert parsed is not None
                    assert there.header.kind is Kind.BLOCK
                    if there.header.path == f"clients/{CLIENT}/{name}":
                        found.setdefault(str(address), {})[parsed[1]] = bytes(there.payload)
            finally:
                await node.close()
        return {node: b"".join(blocks[number] for number in sorted(blocks)) for node, blocks in found.items()}


def _posted(system: System, name: str, content: bytes) -> tuple[int, bytes]:
    body = {"client_id": CLIENT, "name": name, "data": base64.b64encode(content).decode()}
    headers = {"Content-Type": "application/json"}
    return _status_and_body(urllib.request.Request(f"{system.front.url}/files", json.dumps(body).encode(), headers))


def _status_and_body(request: urllib.request.Request) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """As a user starts it: seven Redis, the front, two workers."""
    directory = tmp_path_factory.mktemp("system")
    configuration, text = directory / "test-storage.toml", CONF.read_text()
    with contextlib.ExitStack() as stack:
        servers = {}
        for port in (SHORT_TERM, *LONG_TERM):
            servers[port] = stack.enter_context(redis(directory / str(port), *DURABLE))
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{servers[port].port}")
        configuration.write_text(text)
        front = stack.enter_context(Service(directory, "--config", str(configuration), settings=PATIENT))
        for _ in range(2):
            with (directory / "worker.log").open("ab") as log:
                worker = [sys.executable, "-m", "sfss", "worker", "--config", str(configuration)]
                stack.enter_context(process(worker, stderr=log, env={**os.environ, **PATIENT}))
        yield System(front, configuration, servers)


def test_its_configuration_is_six_pieces_on_six_long_term_storages_and_one_short_term() -> None:
    settings = config.load(str(CONF))
    assert [address.port for address in settings.nodes] == list(LONG_TERM)
    rules = settings.by_prefix["clients/"]
    assert (rules.pieces, rules.write_behind) == (6, f"redis://127.0.0.1:{SHORT_TERM}")
    assert settings.by_prefix[""].pieces == 6
    shown = run("config", "check", "--config", str(CONF))
    assert (shown.returncode, shown.stderr) == (0, "")


async def in_pieces(system: System, name: str) -> dict[str, bytes]:
    """All six, when the workers have moved them."""
    async with asyncio.timeout(30):
        while len(found := await system.pieces(name)) < len(LONG_TERM):
            await asyncio.sleep(0.1)
    return found


async def test_a_json_file_there_and_back(system: System) -> None:
    content = json.dumps({"test": 1, "of": ["a", "json", "file"], "text": "Ж" * 500}, indent=2).encode()
    assert system.put("test01.json", content) == 200
    assert system.get("test01.json") == content
    pieces = await in_pieces(system, "test01.json")
    assert len({len(piece) for piece in pieces.values()}) <= 2  # equal, but for what doesn't divide by six
    assert sum(map(len, pieces.values())) == len(content)
    assert all(piece in content for piece in pieces.values())
    assert system.get("test01.json") == content
    listed = _status_and_body(urllib.request.Request(f"{system.front.url}/files?prefix=clients/{CLIENT}/test01"))
    assert [file["path"] for file in json.loads(listed[1])["files"]] == [f"clients/{CLIENT}/test01.json"]


async def test_a_png_there_and_back(system: System, tmp_path: Path) -> None:
    content = picture()
    assert system.put("storage.png", content) == 200
    (tmp_path / "storage_from_storage.png").write_bytes(system.get("storage.png"))
    assert (tmp_path / "storage_from_storage.png").read_bytes() == content
    pieces = await in_pieces(system, "storage.png")
    assert sorted(pieces) == sorted(str(address) for address in system.settings.nodes)
    assert max(map(len, pieces.values())) - min(map(len, pieces.values())) <= 6
    assert system.get("storage.png") == content


def picture(width: int = 640, height: int = 400) -> bytes:
    """A PNG of some 250 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((x * x ^ y * 7 + x * y) & 255 for x in range(width)) for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows, 0)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    "body", ["{}", '{"client_id": "c", "name": "n"}', '{"client_id": "c", "name": "n", "data": "?"}', "x"]
)
def test_a_problem_with_the_parameters_is_400(system: System, body: str) -> None:
    request = urllib.request.Request(f"{system.front.url}/files", body.encode(), {"Content-Type": "application/json"})
    assert _status_and_body(request)[0] == 400
    for query in ("client_id=c", "name=n", "client_id=&name=n"):
        assert _status_and_body(urllib.request.Request(f"{system.front.url}/files?{query}"))[0] == 400


def test_its_page_names_what_is_there() -> None:
    page = (CONF.parent.parent / "docs" / "test-storage.rst").read_text()
    for named in re.findall(r"``((?:conf|tests|docs)/[\w./-]+)``", page):
        assert (CONF.parent.parent / named).exists(), named


def test_while_the_short_term_storage_is_away_it_is_500_and_then_all_goes_on(system: System) -> None:
    assert system.put("before", b"before") == 200
    system.servers[SHORT_TERM].kill()
    query = urllib.parse.urlencode({"client_id": CLIENT, "name": "before"})
    request = urllib.request.Request(f"{system.front.url}/files?{query}")
    for status, body in (_posted(system, "after", b"after"), _status_and_body(request)):
        assert (status, json.loads(body)["type"]) == (500, "urn:sfss:storage-failed")
    system.servers[SHORT_TERM].start()
    wait_for(lambda: system.put("after", b"after") == 200, what="the short-term storage")
    assert (system.get("before"), system.get("after")) == (b"before", b"after")
