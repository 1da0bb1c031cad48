"""The service of "Variant 2 with PostgreSQL" (docs/variant-2.rst), as conf/variant-2.toml sets it up.

Over real nodes and a real PostgreSQL, all of them processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sfss import config
from tests.catalogue.support import ask
from tests.large.streams import peak_memory
from tests.large.support import MIB, blocks_on, content_of
from tests.postgres import Postgres
from tests.servers import HOST, Service, sfss_node, wait_for

CONF = Path(__file__).resolve().parent.parent / "conf" / "variant-2.toml"
CHUNKS = 6
MEMORY = 512 * MIB  # that a gateway has at most, whatever the size: transfer_memory, and what it is made of
GIB = 1024 * MIB


class Variant:
    """The API gateway, its six storage servers, and the database."""

    def __init__(self, gateway: Service, servers: dict[str, str], url: str) -> None:
        self.gateway = gateway
        self.servers = servers  # addresses by name
        self.url = url

    async def rows(self, statement: str) -> list[dict[str, Any]]:
        return await ask(self.url, statement)


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory, shared_postgres: Postgres) -> Iterator[Variant]:
    """One that all tests fill; it stays as it is set up."""
    with _variant(tmp_path_factory.mktemp("variant"), shared_postgres) as running:
        yield running


@pytest.fixture
def own_variant(tmp_path: Path, shared_postgres: Postgres) -> Iterator[Variant]:
    """One to which servers may come."""
    with _variant(tmp_path, shared_postgres) as running:
        yield running


@contextlib.contextmanager
def _variant(directory: Path, database: Postgres) -> Iterator[Variant]:
    with ExitStack() as stack:
        url = stack.enter_context(database.database())
        servers = {}
        for number in range(1, CHUNKS + 1):
            name = f"storage-{number}"
            port, _ = stack.enter_context(sfss_node(directory / name, "--durability", "os"))
            servers[name] = f"{HOST}:{port}"
        yield Variant(stack.enter_context(_gateway(directory, servers, url)), servers, url)


def _gateway(directory: Path, servers: dict[str, str], url: str) -> Service:
    """By the configuration as it is shipped; but with these servers, and what takes its time is quicker."""
    text = CONF.read_text()
    for name, address in servers.items():
        text, found = re.subn(rf'"{name}=127\.0\.0\.1:\d+"', f'"{name}={address}"', text)
        assert found == 1
    for before, after in {
        'url = "postgresql://sfss@127.0.0.1/sfss"': f'url = "{url}"',
        "refresh = 30": "refresh = 1",
        "upload_time = 3600": "upload_time = 60",
        "upload_expiry = 3600": "upload_expiry = 2",
        "sweep_interval = 300": "sweep_interval = 60",
    }.items():
        assert before in text
        text = text.replace(before, after)
    own = directory / "variant-2.toml"
    own.write_text(text)
    return Service(directory, "--config", str(own))


def _form(content: bytes | AsyncIterator[bytes], name: str) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("file", content, filename=name)
    return form


async def _uploaded(client: aiohttp.ClientSession, content: Any, name: str) -> dict[str, Any]:
    async with client.post("/files", data=_form(content, name)) as answer:
        assert answer.status == 201, await answer.text()
        found: dict[str, Any] = await answer.json()
        return found


async def _until_healthy(client: aiohttp.ClientSession) -> None:
    """Until the catalogue was looked at, after the start."""
    async with asyncio.timeout(20):
        while True:
            async with client.get("/health") as answer:
                if (await answer.json())["checks"] == {"catalogue": "ok"}:
                    return
            await asyncio.sleep(0.1)


def test_its_configuration_is_six_chunks_on_six_servers() -> None:
    settings = config.load(str(CONF))
    assert len(settings.nodes) == settings.policy[0].pieces == CHUNKS
    assert settings.limits.max_file_size == 10 * GIB
    assert (settings.limits.upload_expiry, settings.repair.sweep_interval) == (3600, 300)
    assert (settings.registration.enabled, settings.registration.refresh) == (True, 30)


async def test_a_file_lies_in_six_equal_chunks_and_the_tables_say_so(variant: Variant) -> None:
    content = content_of("variant 2", 5 * MIB)
    async with aiohttp.ClientSession(variant.gateway.url) as client:
        told = await _uploaded(client, content, "kitten.jpg")
        assert (told["filename"], told["size"], told["content_type"]) == ("kitten.jpg", len(content), "image/jpeg")
        async with client.get(f"/files/{told['file_id']}") as answer:
            assert await answer.read() == content
            assert 'filename="kitten.jpg"' in answer.headers["Content-Disposition"]
        await _until_healthy(client)
    path = f"by-id/{told['file_id']}"
    sizes: dict[str, int] = {}
    for block in await blocks_on(list(variant.servers.values()), path):
        sizes[block.node] = sizes.get(block.node, 0) + block.header.size
    assert len(sizes) == CHUNKS
    assert max(sizes.values()) - min(sizes.values()) <= CHUNKS
    (file,) = await variant.rows(f"SELECT * FROM files WHERE file_id = '{told['file_id']}'")
    assert (file["size"], file["sha256"], file["state"]) == (
        len(content),
        hashlib.sha256(content).hexdigest(),
        "stored",
    )
    pieces = await variant.rows(
        f"SELECT pieces.number, nodes.address, pieces.size FROM pieces JOIN nodes ON nodes.name = pieces.node"
        f" WHERE path = '{path}' ORDER BY number"
    )
    assert {piece["address"]: piece["size"] for piece in pieces} == sizes
    points = await variant.rows("SELECT node, count(*) AS points FROM ring_points GROUP BY node")
    assert {row["node"] for row in points} == set(variant.servers)


async def test_a_hundred_uploads_at_once_are_all_there_and_the_catalogue_has_their_checksums(variant: Variant) -> None:
    contents = {f"{number}.bin": content_of(str(number), MIB + number) for number in range(100)}
    async with aiohttp.ClientSession(variant.gateway.url, connector=aiohttp.TCPConnector(limit=0)) as client:
        told = await asyncio.gather(*(_uploaded(client, content, name) for name, content in contents.items()))
        by_id = {one["file_id"]: contents[one["filename"]] for one in told}
        assert len(by_id) == len(contents)
        for file_id, content in by_id.items():
            async with client.get(f"/files/{file_id}") as answer:
                assert await answer.read() == content
    rows = await variant.rows("SELECT file_id, sha256 FROM files WHERE state = 'stored'")
    assert {row["file_id"]: row["sha256"] for row in rows if row["file_id"] in by_id} == {
        file_id: hashlib.sha256(content).hexdigest() for file_id, content in by_id.items()
    }


async def test_a_large_file_comes_back_whole(variant: Variant, long: bool) -> None:
    size = 10 * GIB if long else 96 * MIB
    part = content_of("large", 4 * MIB)

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(size // len(part)):
            yield part

    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(variant.gateway.url, timeout=timeout) as client:
        told = await _uploaded(client, parts(), "film.mp4")
        assert told["size"] == size
        digest = hashlib.sha256()
        async with client.get(f"/files/{told['file_id']}") as answer:
            async for chunk in answer.content.iter_any():
                digest.update(chunk)
        assert digest.hexdigest() == told["sha256"]
    process = variant.gateway.process
    assert process is not None
    peak = peak_memory(process.pid)
    print(f"{size // MIB} MiB up and down: the gateway had {peak // MIB} MiB at most")
    assert peak < MEMORY
    pieces = await variant.rows(f"SELECT size FROM pieces WHERE path = 'by-id/{told['file_id']}'")
    assert len(pieces) == CHUNKS
    assert sum(piece["size"] for piece in pieces) == size


async def test_an_interrupted_upload_never_appears_and_its_chunks_go(variant: Variant) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield content_of("broken", 3 * MIB)
        await asyncio.sleep(0.3)
        raise OSError

    servers = list(variant.servers.values())
    files = await variant.rows("SELECT path FROM files")
    before = {(block.node, block.key) for block in await blocks_on(servers)}
    async with aiohttp.ClientSession(variant.gateway.url) as client:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await _uploaded(client, broken(), "broken.bin")
    assert await variant.rows("SELECT path FROM files") == files
    async with asyncio.timeout(20):
        while {(block.node, block.key) for block in await blocks_on(servers)} - before:
            await asyncio.sleep(0.1)


async def test_an_upload_session_is_a_row_until_it_has_expired(variant: Variant) -> None:
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(8 * MIB), "Upload-Metadata": "path ZmlsbS5tcDQ="}
    async with aiohttp.ClientSession(variant.gateway.url) as client:
        async with client.post("/uploads", headers=headers) as answer:
            assert answer.status == 201, await answer.text()
            url = answer.headers["Location"]
        patch = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        async with client.patch(url, headers=patch, data=content_of("session", 3 * MIB)) as answer:
            assert answer.status == 204, await answer.text()
        async with asyncio.timeout(20):
            while await variant.rows("SELECT path, received FROM uploads") != [
                {"path": "film.mp4", "received": 3 * MIB}
            ]:
                await asyncio.sleep(0.1)
        await asyncio.sleep(2.5)
        async with client.head(url, headers={"Tus-Resumable": "1.0.0"}) as answer:
            assert answer.status == 410


async def test_keys_and_namespaces_are_rows_too(variant: Variant) -> None:
    command = [
        sys.executable,
        "-m",
        "sfss",
        "key",
        "create",
        "--name",
        "camera",
        "--prefix",
        "photos/",
        "--may",
        "write",
    ]
    settings = str(variant.gateway.directory / "variant-2.toml")
    made = await asyncio.to_thread(subprocess.run, [*command, "--config", settings], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    async with asyncio.timeout(60):
        while not (rows := await variant.rows("SELECT id, name, hash, details FROM keys")):
            await asyncio.sleep(0.5)
    assert [row["name"] for row in rows] == ["camera"]
    assert made.stdout.strip().rpartition("_")[2] not in str(rows)
    assert await variant.rows("SELECT name FROM namespaces") == []


async def test_a_seventh_server_joins_by_itself_and_gets_chunks(own_variant: Variant, tmp_path: Path) -> None:
    variant, gateway = own_variant, own_variant.gateway
    options = ("--register", gateway.url, "--name", "storage-7", "--heartbeat", "0.2", "--durability", "os")
    async with aiohttp.ClientSession(gateway.url) as client:
        before = await _uploaded(client, content_of("before", MIB), "before.bin")
        with sfss_node(tmp_path / "storage-7", *options) as (port, _):

            def is_a_member() -> bool:
                with contextlib.closing(_get(gateway, "/nodes")) as answer:
                    states = {node["name"]: node["state"] for node in json.load(answer)["nodes"]}
                return states.get("storage-7") == "member"

            await asyncio.to_thread(wait_for, is_a_member, 60.0, "storage-7 to be a member")
            seventh = f"{HOST}:{port}"
            for number in range(40):
                await _uploaded(client, content_of(f"after {number}", 60_000), "after.bin")
                if await blocks_on([seventh]):
                    break
            assert await blocks_on([seventh])
            async with client.get(f"/files/{before['file_id']}") as answer:
                assert await answer.read() == content_of("before", MIB)
            async with asyncio.timeout(30):
                while {row["name"] for row in await variant.rows("SELECT name FROM nodes")} != {
                    *variant.servers, "storage-7",
                }:  # fmt: skip
                    await asyncio.sleep(0.2)


def _get(gateway: Service, page: str) -> Any:
    return urllib.request.urlopen(f"{gateway.url}{page}", timeout=10)
