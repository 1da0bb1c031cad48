"""A front over Beansdb, by its rules: all that it can do works, and nothing is sent that it would misread."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from typing import Literal

import pytest
from yarl import URL

from tests.backends.beansdb import beansdb
from tests.conftest import StartFront
from tests.servers import HOST
from tests.web.tus import Tus

NAMES = ["plain.txt", "фото/кот.jpg", "照片/猫 1.png", "100%.txt", "@at", "?asked", "#hash", "x" * 1024]


@pytest.mark.parametrize("generation", ["bitcask", "tokyo"])
async def test_files_come_change_and_go(start_front: StartFront, generation: Literal["bitcask", "tokyo"]) -> None:
    async with beansdb(generation) as server:
        front = await start_front([f"{HOST}:{server.port}"])
        for name in NAMES:
            url = URL("/file").with_query(path=name)
            first, second = name.encode() * 3, bytes(100_000)
            assert (await front.get(url)).status == 404
            assert (await front.post(url, data=first)).status == 201
            assert await (await front.get(url)).read() == first
            assert (await front.put(url, data=second)).status == 200
            assert (await front.put(url, data=second)).status == 200  # the same again is no error
            assert (await front.head(url)).content_length == len(second)
            assert (await front.get(url, headers={"Range": "bytes=0-9"})).status == 206
            assert (await front.delete(url)).status == 204
            assert (await front.delete(url)).status == 404
            assert (await front.get(url)).status == 404
        assert server.violations == []


@pytest.mark.parametrize("generation", ["bitcask", "tokyo"])
async def test_conditions_are_checked_without_add_and_cas(
    start_front: StartFront, generation: Literal["bitcask", "tokyo"]
) -> None:
    async with beansdb(generation) as server:
        front = await start_front([f"{HOST}:{server.port}"])
        url = URL("/file?path=a")
        etag = f'"{hashlib.sha256(b"one").hexdigest()}"'
        assert (await front.put(url, data=b"none", headers={"If-Match": "*"})).status == 412
        assert (await front.put(url, data=b"one", headers={"If-None-Match": "*"})).status == 200
        assert (await front.put(url, data=b"two", headers={"If-None-Match": "*"})).status == 412
        assert (await front.put(url, data=b"two", headers={"If-Match": etag})).status == 200
        assert (await front.delete(url, headers={"If-Match": etag})).status == 412
        assert (await front.delete(url, headers={"If-Match": "*"})).status == 204
        assert (await front.get(url)).status == 404
        assert server.violations == []


@pytest.mark.parametrize("generation", ["bitcask", "tokyo"])
async def test_of_racing_creators_at_one_front_one_wins_and_his_file_stays(
    start_front: StartFront, generation: Literal["bitcask", "tokyo"]
) -> None:
    async with beansdb(generation) as server:
        front = await start_front([f"{HOST}:{server.port}"], post={"enabled": True})
        for number in range(3):
            bodies = [secrets.token_bytes(100 if n % 2 else 150_000) for n in range(8)]
            answers = await asyncio.gather(*(front.post(f"/images/{number}", data=body) for body in bodies))
            statuses = [answer.status for answer in answers]
            assert sorted(statuses) == [201] + [405] * 7
            assert await (await front.get(f"/images/{number}")).read() == bodies[statuses.index(201)]
        assert server.violations == []


@pytest.mark.parametrize("generation", ["bitcask", "tokyo"])
async def test_uploads_come_in_pieces_and_are_terminated(
    start_front: StartFront, generation: Literal["bitcask", "tokyo"]
) -> None:
    async with beansdb(generation) as server:
        tus = Tus(await start_front([f"{HOST}:{server.port}"], limits={"record_size": "64KiB"}))
        for size in (10, 300_000):
            content = secrets.token_bytes(size)
            upload = await tus.upload("a", content, pieces=3)
            assert await tus.read("a") == content
            assert (await tus.delete(upload)).status == 204
            assert (await tus.head(upload)).status == 404
        assert server.violations == []


async def test_status_shows_what_it_is(start_front: StartFront) -> None:
    async with beansdb("bitcask") as server:
        node = f"{HOST}:{server.port}"
        front = await start_front([node])
        status = await (await front.get("/status?format=full")).json()
        assert status["webserver"]["nodes"][node]["kind"] == "beansdb"
        assert status["webserver"]["nodes"][node]["cas"] is False
        assert int(status["storages"][node]["pid"]) > 0
