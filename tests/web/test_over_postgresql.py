"""A front over PostgreSQL nodes: what users do, by HTTP and by SQL, and with other kinds of nodes beside them."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator

import pytest

from tests.conftest import Client, Nodes, StartFront
from tests.postgres import Postgres, migrate

MIB = 2**20
COPIES = {"copies": 2, "write_quorum": 1}


@pytest.fixture
def database(shared_postgres: Postgres) -> Iterator[str]:
    with shared_postgres.database() as url:
        migrate(url, "--partitions", "16")
        yield url


async def put(front: Client, path: str, body: bytes) -> str:
    async with front.put("/file", params={"path": path}, data=body) as answer:
        assert answer.status == 200, await answer.text()
        return answer.headers["ETag"]


async def get(front: Client, path: str) -> bytes | None:
    async with front.get("/file", params={"path": path}) as answer:
        assert answer.status in (200, 404), await answer.text()
        return await answer.read() if answer.status == 200 else None


async def test_small_and_large_files_come_back_change_are_listed_and_go(
    start_front: StartFront, postgres_nodes: Nodes
) -> None:
    front = await start_front(postgres_nodes, limits={"max_file_size": "16MiB"}, storage=COPIES)
    files = {
        "pg/small": b"x",
        "pg/фото/кот 1.jpg": os.urandom(5000),
        "pg/large": os.urandom(5 * MIB),
        "p" * 400: b"long",
    }
    for path, body in files.items():
        await put(front, path, b"before")
        await put(front, path, body)
    for path, body in files.items():
        assert await get(front, path) == body
    async with front.get("/file?path=pg/large", headers={"Range": f"bytes={2 * MIB - 1}-{3 * MIB}"}) as answer:
        assert await answer.read() == files["pg/large"][2 * MIB - 1 : 3 * MIB + 1]
    async with front.get("/files?prefix=p") as answer:
        told = await answer.json()
        assert [file["path"] for file in told["files"]] == sorted(files, key=str.encode)
    for path in files:
        async with front.delete("/file", params={"path": path}) as answer:
            assert answer.status == 204
        assert await get(front, path) is None


async def test_status_has_the_figures_of_each_and_no_password(start_front: StartFront, postgres_nodes: Nodes) -> None:
    front = await start_front([node.replace("sfss@", "sfss:secret@") for node in postgres_nodes])
    async with front.get("/status") as answer:
        text = await answer.text()
        told = await answer.json()
    assert len(told) == 3
    for figures in told.values():
        assert figures["partitions"] == "16"
        assert {"version", "curr_items", "bytes", "uptime", "xact_commit"} <= figures.keys()
    async with front.get("/status?format=full") as answer:
        text += await answer.text()
    assert "secret" not in text


async def test_of_racing_creators_one_wins(start_front: StartFront, postgres_nodes: Nodes) -> None:
    write_once = [{"prefix": "once/", "write_once": True}]
    fronts = [await start_front(postgres_nodes, policy=write_once, storage=COPIES) for _ in range(2)]
    for number in range(10):

        async def create(creator: int, path: str = f"once/{os.urandom(4).hex()}/{number}") -> int:
            async with fronts[creator % 2].post("/file", params={"path": path}, data=b"%d" % creator) as answer:
                return answer.status

        statuses = await asyncio.gather(*(create(creator) for creator in range(6)))
        assert sorted(statuses) == [201, 409, 409, 409, 409, 409]


async def test_what_sql_puts_is_served_and_what_http_puts_is_exported(
    start_front: StartFront, shared_postgres: Postgres, database: str
) -> None:
    front = await start_front([database], limits={"max_file_size": "16MiB"})
    folder, body = shared_postgres.folder(), os.urandom(300_000)
    (folder / "a.jpg").write_bytes(body)

    async def sql(statement: str) -> str:
        answer, error = await asyncio.to_thread(shared_postgres.says, database, statement)
        assert not error, error
        return answer

    for path in ("images/a.jpg", "images/кот 100%.jpg", "long/" * 60 + "a.jpg"):
        await sql(f"select IMPORT('{path}', '{folder}/a.jpg')")
        async with front.get("/file", params={"path": path}) as answer:
            assert answer.status == 200
            assert answer.headers["ETag"] == f'"{hashlib.sha256(body).hexdigest()}"'
            assert answer.headers["Content-Type"] == "image/jpeg"
            assert await answer.read() == body
        etag = await put(front, path, b"by HTTP")
        assert await sql(f"select EXIST('{path}')") == "t"
        await sql(f"select EXPORT('{path}', '{folder}/{etag[1:9]}-{len(path)}')")
        assert (folder / f"{etag[1:9]}-{len(path)}").read_bytes() == b"by HTTP"
    large = os.urandom(5 * MIB)
    await put(front, "large", large)
    assert await sql(f"select EXPORT('large', '{folder}/large')") == str(len(large))
    assert (folder / "large").read_bytes() == large
    assert await sql("select size, in_blocks from post.listing where path = 'large'") == f"{len(large)}|t"
    await sql("delete from post.files where kind = 3 and key like '#%/2'")
    error = (await asyncio.to_thread(shared_postgres.says, database, f"select EXPORT('large', '{folder}/x')"))[1]
    assert "cut into blocks, and not all of them lie in this database" in error
    async with front.get("/files?prefix=images/") as answer:
        assert [file["path"] for file in (await answer.json())["files"]] == ["images/a.jpg", "images/кот 100%.jpg"]
    async with front.delete("/file?path=images/a.jpg") as answer:
        assert answer.status == 204
    assert await sql("select EXIST('images/a.jpg')") == "f"
    await sql(f"select IMPORT('images/a.jpg', '{folder}/a.jpg')")
    assert await get(front, "images/a.jpg") == body
    await sql("select DELETE('images/a.jpg')")
    assert await get(front, "images/a.jpg") is None
    await sql(f"select IMPORT('listed', '{folder}/a.jpg')")
    async with front.get("/files?prefix=listed") as answer:
        (told,) = (await answer.json())["files"]
        assert (told["size"], told["etag"].strip('"')) == (len(body), hashlib.sha256(body).hexdigest())


async def test_they_stand_beside_nodes_of_other_kinds(
    start_front: StartFront, postgres_nodes: Nodes, our_nodes: Nodes
) -> None:
    nodes = [*postgres_nodes[:2], *our_nodes[:1]]
    front = await start_front(
        nodes, limits={"max_file_size": "16MiB"}, storage={"copies": 3, "write_quorum": 2, "read_quorum": 2}
    )
    files = {f"beside/{number}": os.urandom(2 * MIB if number == 0 else 2000) for number in range(20)}
    for path, body in files.items():
        await put(front, path, body)
    for path, body in files.items():
        assert await get(front, path) == body
    async with front.get("/files?prefix=beside/") as answer:
        assert len((await answer.json())["files"]) == len(files)
