"""Fronts that are killed at any moment of uploads: what was begun is ended, and nobody ever sees a part of a file."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import Nodes
from tests.large.support import content_of
from tests.servers import Service
from tests.web.tus import PIECE, VERSION

KIB = 2**10
FRONTS = 3
CLIENTS = 6


@pytest.fixture
def fronts(our_nodes: Nodes, tmp_path: Path) -> Iterator[list[Service]]:
    with ExitStack() as stack:
        running = []
        for number in range(FRONTS):
            directory = tmp_path / str(number)
            directory.mkdir()
            settings = {
                "SFSS_STORAGE_NODES": ",".join(our_nodes),
                "SFSS_LIMITS_MAX_FILE_SIZE": "64MiB",
                "SFSS_LIMITS_RECORD_SIZE": "64KiB",
            }
            running.append(Service(directory, settings=settings))
            stack.callback(running[-1].__exit__)
        yield [front.start() for front in running]


class Client:
    """Uploads files, one behind the other, through whatever front answers."""

    def __init__(self, fronts: list[Service], chance: random.Random) -> None:
        self.contents: dict[str, bytes] = {}  # of the files that it has begun
        self.ended = 0  # how many of them are there, for all that it was told
        self._fronts = fronts
        self._chance = chance
        self._folder = f"kills/{secrets.token_hex(8)}"

    async def run(self, until: asyncio.Event) -> None:
        async with aiohttp.ClientSession() as session:
            while not until.is_set():
                path = f"{self._folder}/{self.ended}"
                size = self._chance.choice([1, 1000, 56 * KIB, 200 * KIB, 3000 * KIB])
                self.contents[path] = content_of(path, size)
                await self._upload(session, path, self.contents[path])
                self.ended += 1

    async def _upload(self, session: aiohttp.ClientSession, path: str, content: bytes) -> None:
        upload = ""
        while True:
            front = self._chance.choice(self._fronts).url
            try:
                if not upload:
                    given = {**VERSION, "Upload-Length": str(len(content))}
                    async with session.post(f"{front}/uploads?path={path}", headers=given) as answer:
                        assert answer.status in (201, 504), await answer.text()
                        upload = answer.headers.get("Location", "")
                    continue
                async with session.head(front + upload, headers=VERSION) as answer:
                    assert answer.status in (200, 423), answer.status
                    offset = int(answer.headers.get("Upload-Offset", "-1"))
                if offset == len(content):
                    return
                if offset >= 0:
                    piece = content[offset : offset + self._chance.choice([100, 300 * KIB, 4000 * KIB])]
                    given = {**VERSION, **PIECE, "Upload-Offset": str(offset)}
                    async with session.patch(front + upload, headers=given, data=piece) as answer:
                        assert answer.status in (204, 409, 423, 504), await answer.text()
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.05)


async def kill_one_after_the_other(fronts: list[Service], seconds: float, chance: random.Random) -> int:
    """How many were killed."""
    killed, end = 0, asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        await asyncio.sleep(chance.random() * 0.5)
        front = fronts[killed % FRONTS]
        assert front.process is not None
        front.process.kill()
        front.process.wait()
        await asyncio.to_thread(front.start)
        killed += 1
    return killed


async def read(front: Service, session: aiohttp.ClientSession, path: str) -> bytes | None:
    """The file, checked; None if there is none, or nobody tells."""
    try:
        async with session.get(f"{front.url}/file?path={path}") as answer:
            if answer.status != 200:
                assert answer.status in (404, 504), await answer.text()
                return None
            content = await answer.read()
            assert answer.headers["ETag"] == f'"{hashlib.sha256(content).hexdigest()}"'
            return content
    except (aiohttp.ClientError, OSError):
        return None


async def test_nobody_sees_a_part_of_a_file(fronts: list[Service], long: bool) -> None:
    seed = int(os.environ.get("SFSS_FAULTS_SEED", secrets.randbits(32)))
    print("SFSS_FAULTS_SEED =", seed)
    chance = random.Random(seed)
    clients = [Client(fronts, chance) for _ in range(CLIENTS)]
    end = asyncio.Event()
    uploading = [asyncio.create_task(client.run(end)) for client in clients]

    async def look() -> None:
        async with aiohttp.ClientSession() as session:
            while not end.is_set():
                for path, content in chance.choice(clients).contents.copy().items():
                    assert await read(chance.choice(fronts), session, path) in (None, content)
                await asyncio.sleep(0.01)

    looking = asyncio.create_task(look())
    killed = await kill_one_after_the_other(fronts, 100 if long else 6, chance)
    end.set()
    await asyncio.gather(looking, *uploading)
    async with aiohttp.ClientSession() as session:
        for client in clients:
            for path, content in client.contents.items():
                assert await read(fronts[0], session, path) == content
    print(f"{killed} fronts were killed, {sum(client.ended for client in clients)} files are there")
    assert killed >= 2
