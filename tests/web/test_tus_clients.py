"""The public tus clients, tuspy and tus-js-client, upload through fronts that end in the middle, and come again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import pytest
from tusclient.client import TusClient

from sfss import record, upload_state
from tests.conftest import Nodes
from tests.large.support import connected
from tests.proxy import SlowRoad, slow_road
from tests.servers import Service
from tests.web.test_files import etag

MIB = 2**20
SIZE = 16 * MIB + 5
RATE = 4 * MIB  # bytes a second: so that there is a middle
ROOT = Path(__file__).parent.parent.parent


class Upload(Protocol):
    """Uploads a file to a path, through a port; returns when it is done."""

    async def __call__(self, port: int, file: Path, path: str, *, piece: int | None) -> None: ...


async def tuspy(port: int, file: Path, path: str, *, piece: int | None) -> None:
    with file.open("rb") as stream:
        client = TusClient(f"http://127.0.0.1:{port}/uploads?path={path}")
        uploader = client.uploader(file_stream=stream, chunk_size=piece or SIZE, retries=100, retry_delay=0.25)
        await asyncio.to_thread(uploader.upload)


async def tus_js(port: int, file: Path, path: str, *, piece: int | None, **options: Any) -> None:
    node = shutil.which("node")
    modules = ROOT / ".tools/tus-js"
    assert node, "node is not installed: `make test` installs it, or: apt-get install nodejs"
    assert (modules / "node_modules").exists(), (
        "tus-js-client is not installed: `make test` does it: tests/install-tus-js"
    )
    if piece is not None:
        options["chunkSize"] = piece
    given = {"file": str(file), "endpoint": f"http://127.0.0.1:{port}/uploads?path={path}", "options": options}
    child = await asyncio.create_subprocess_exec(
        node,
        str(Path(__file__).parent / "tus_js/upload.js"),
        json.dumps(given),
        env={**os.environ, "TUS_JS": str(modules)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        told, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert told.decode().splitlines()[-1] == "done", told.decode()[-1000:]


CLIENTS: dict[str, Upload] = {"tuspy": tuspy, "tus-js-client": tus_js}


@pytest.fixture(params=CLIENTS)
def upload(request: pytest.FixtureRequest) -> Upload:
    """Each client in turn."""
    return CLIENTS[request.param]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "film.mp4"
    file.write_bytes(secrets.token_bytes(SIZE))
    return file


@pytest.fixture
def path() -> str:
    return f"tests/{secrets.token_hex(8)}/film.mp4"


@pytest.fixture
def fronts(our_nodes: Nodes, tmp_path: Path) -> Iterator[list[Service]]:
    """Two of them, over the same nodes; the first one runs."""
    with ExitStack() as stack:
        both = []
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            settings = {
                "SFSS_STORAGE_NODES": ",".join(our_nodes),
                "SFSS_LIMITS_MAX_FILE_SIZE": "64MiB",
                "SFSS_SERVER_SHUTDOWN_TIMEOUT": "0.2",
            }
            both.append(Service(tmp_path / name, settings=settings))
            stack.callback(both[-1].__exit__)
        both[0].start()
        yield both


@pytest.fixture
async def road(fronts: list[Service]) -> AsyncIterator[SlowRoad]:
    async with slow_road(fronts[0].port, RATE) as road:
        yield road


async def stop_and_start(fronts: list[Service], road: SlowRoad) -> None:
    await asyncio.to_thread(fronts[0].stop)
    await asyncio.to_thread(fronts[0].start)


async def kill_and_start(fronts: list[Service], road: SlowRoad) -> None:
    process = fronts[0].process
    assert process is not None
    process.kill()
    process.wait()
    await asyncio.to_thread(fronts[0].start)


async def go_elsewhere(fronts: list[Service], road: SlowRoad) -> None:
    process = fronts[0].process
    assert process is not None
    process.kill()
    process.wait()
    road.leads_to = fronts[1].port
    await asyncio.to_thread(fronts[1].start)


BREAKS: dict[str, Callable[[list[Service], SlowRoad], Awaitable[None]]] = {
    "stopped and started": stop_and_start,
    "killed and started": kill_and_start,
    "killed, and another one goes on": go_elsewhere,
}


async def in_the_middle(uploading: asyncio.Task[None], road: SlowRoad, nodes: Nodes) -> None:
    """Wait until a good deal of it has passed, and the nodes know of some of that; then it goes on slowly."""
    async with asyncio.timeout(60):
        while road.passed < 0.7 * SIZE:
            await asyncio.sleep(0.02)
        road.rate = 200_000
        while not await noted(road.uploads[-1], nodes):
            await asyncio.sleep(0.02)
    assert not uploading.done()


async def noted(upload: str, nodes: Nodes) -> int:
    """How many of an upload's bytes are there, for all that the nodes know."""
    for address in nodes:
        async with connected(address) as node:
            data = await node.get(upload_state.key_of(upload))
            if data is not None:
                return upload_state.decode(record.decode(data).payload).offset
    return 0


async def is_there(front: Service, path: str, content: bytes) -> None:
    async with aiohttp.ClientSession() as client, client.get(f"{front.url}/file?path={path}") as answer:
        assert answer.status == 200
        assert hashlib.sha256(await answer.read()).digest() == hashlib.sha256(content).digest()
        assert answer.headers["ETag"] == etag(content)
        assert answer.headers["Content-Type"] == "video/mp4"


@pytest.mark.parametrize("piece", [None, MIB], ids=["in one go", "in pieces"])
@pytest.mark.parametrize("how", BREAKS)
async def test_an_upload_survives_a_front_that_is(
    upload: Upload,
    fronts: list[Service],
    our_nodes: Nodes,
    road: SlowRoad,
    file: Path,
    path: str,
    how: str,
    piece: int | None,
) -> None:
    uploading = asyncio.create_task(upload(road.port, file, path, piece=piece))
    await in_the_middle(uploading, road, our_nodes)
    before = len(road.offsets)
    await BREAKS[how](fronts, road)
    road.rate = 100 * MIB
    await uploading
    after = road.offsets[before]
    assert after > 0, "it began anew"
    assert road.passed < 1.8 * SIZE
    await is_there(fronts[0] if road.leads_to == fronts[0].port else fronts[1], path, file.read_bytes())


@pytest.mark.parametrize("how", BREAKS)
async def test_parallel_uploads_of_tus_js_client_survive_it(
    fronts: list[Service], our_nodes: Nodes, road: SlowRoad, file: Path, path: str, how: str
) -> None:
    uploading = asyncio.create_task(tus_js(road.port, file, path, piece=None, parallelUploads=3))
    await in_the_middle(uploading, road, our_nodes)
    await BREAKS[how](fronts, road)
    road.rate = 100 * MIB
    await uploading
    await is_there(fronts[0] if road.leads_to == fronts[0].port else fronts[1], path, file.read_bytes())


@pytest.mark.parametrize(
    "options",
    [
        {"uploadDataDuringCreation": True},
        {"overridePatchMethod": True},
        {"uploadLengthDeferred": True, "chunkSize": 5 * MIB},
        {"metadata": {"filename": "from the metadata", "filetype": "video/mp4"}},
    ],
    ids=lambda options: next(iter(options)),
)
async def test_tus_js_client_can_have_it_its_way(
    fronts: list[Service], file: Path, path: str, options: dict[str, Any]
) -> None:
    await tus_js(fronts[0].port, file, path, piece=None, **options)
    await is_there(fronts[0], path, file.read_bytes())


async def test_tuspy_s_checksums_hold(fronts: list[Service], file: Path, path: str) -> None:
    given = {"filename": path, "filetype": "video/mp4"}
    with file.open("rb") as stream:
        client = TusClient(f"{fronts[0].url}/uploads")
        uploader = client.uploader(file_stream=stream, chunk_size=3 * MIB, metadata=given, upload_checksum=True)
        await asyncio.to_thread(uploader.upload)
    await is_there(fronts[0], path, file.read_bytes())
