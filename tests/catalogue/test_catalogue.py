"""What a front tells the catalogue of, and lists and finds by it: over SQLite and PostgreSQL alike."""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
import secrets
import subprocess
import sys
from typing import Any

import pytest

from tests.catalogue.support import ask, execute, file_at, is_in_order, listed, put, status, until
from tests.conftest import Client, Nodes, StartFront

MIB = 2**20
LARGE = {"max_file_size": "64MiB"}
# Where the order of bytes, that of letters and that of SQL's languages differ.
NAMES = [
    "a",
    "B",
    "b",
    "Z",
    "_",
    "a b",
    "a-b",
    "a/b",
    "a/b/c",
    "a/c",
    "a0",
    "ab",
    "é",
    "z",
    "я",
    "Я",
    "\U0001f408",
    "﹏",
]


@pytest.fixture
async def front(start_front: StartFront, empty_nodes: Nodes, url: str) -> Client:
    """A front whose catalogue is in order; on nodes without others' files, which it would look through first."""
    front = await start_front(empty_nodes, catalogue={"url": url}, limits=LARGE)
    await until(lambda: is_in_order(front))
    return front


@pytest.fixture
def folder() -> str:
    return f"catalogue/{secrets.token_hex(6)}"


async def row(url: str, path: str) -> dict[str, object]:
    (found,) = await ask(url, f"SELECT * FROM files WHERE path = '{path}'")
    return found


class TestWriting:
    async def test_a_file_s_row_is_there_before_its_answer(self, front: Client, url: str, folder: str) -> None:
        for number in range(20):
            sha256 = await put(front, f"{folder}/{number}", b"%d" % number, **{"Content-Type": "text/x-rst"})
            found = await row(url, f"{folder}/{number}")
            assert (found["sha256"], found["size"], found["state"]) == (sha256, len(str(number)), "stored")
            assert found["content_type"] == "text/x-rst"

    async def test_every_way_to_store_a_file_makes_its_row(self, front: Client, url: str, folder: str) -> None:
        content = random.Random(1).randbytes(3 * MIB)
        ways: dict[str, dict[str, Any]] = {
            "quick": {"data": b"small"},
            "large": {"data": content},
            "record": {"data": content[:200_000]},
            "condition": {"data": b"new", "headers": {"If-None-Match": "*"}},
            "form": {"data": {"upload_file": io.BytesIO(b"of a form")}},
        }
        for name, options in ways.items():
            async with front.post(file_at(f"{folder}/{name}"), **options) as answer:
                assert answer.status == 201, await answer.text()
                assert (await row(url, f"{folder}/{name}"))["sha256"] == answer.headers["ETag"].strip('"')
        pieces = await ask(url, f"SELECT * FROM pieces WHERE path = '{folder}/large' ORDER BY number")
        assert sum(piece["size"] for piece in pieces) == len(content)
        assert len(await ask(url, f"SELECT * FROM pieces WHERE path = '{folder}/quick'")) == 1

    async def test_a_resumable_upload_is_a_row_until_it_is_a_file(self, front: Client, url: str, folder: str) -> None:
        tus = {"Tus-Resumable": "1.0.0"}
        async with front.post(f"/uploads?path={folder}/up", headers={**tus, "Upload-Length": "6"}) as answer:
            where = answer.headers["Location"]
        offset = {"Content-Type": "application/offset+octet-stream"}
        await front.patch(where, data=b"abc", headers={**tus, **offset, "Upload-Offset": "0"})

        async def uploads() -> list[tuple[object, ...]]:
            rows = await ask(url, f"SELECT path, size, received FROM uploads WHERE path = '{folder}/up'")
            return [tuple(each.values()) for each in rows]

        async def is_noted() -> bool:
            return await uploads() == [(f"{folder}/up", 6, 3)]

        await until(is_noted)
        await front.patch(where, data=b"def", headers={**tus, **offset, "Upload-Offset": "3"})
        assert (await row(url, f"{folder}/up"))["sha256"] == hashlib.sha256(b"abcdef").hexdigest()

        async def is_gone() -> bool:
            return await uploads() == []

        await until(is_gone)

    async def test_a_deleted_file_s_row_says_so_and_has_no_pieces(self, front: Client, url: str, folder: str) -> None:
        await put(front, f"{folder}/a", b"a")
        for headers in ({}, {"If-Match": "*"}):
            await put(front, f"{folder}/a", b"a")
            async with front.delete(file_at(f"{folder}/a"), headers=headers) as answer:
                assert answer.status == 204
            assert (await row(url, f"{folder}/a"))["state"] == "deleted"
            assert await ask(url, f"SELECT * FROM pieces WHERE path = '{folder}/a'") == []

    async def test_a_file_that_is_replaced_leaves_none_of_its_pieces(
        self, front: Client, url: str, folder: str
    ) -> None:
        for content in (bytes(4 * MIB), b"small", bytes(3 * MIB), b""):
            await put(front, f"{folder}/a", content)
            pieces = await ask(url, f"SELECT number, copy, size FROM pieces WHERE path = '{folder}/a'")
            assert sum(piece["size"] for piece in pieces) == len(content)
            assert len({(piece["number"], piece["copy"]) for piece in pieces}) == len(pieces) > 0

    async def test_of_writers_at_once_the_row_is_that_of_the_one_who_won(
        self, start_front: StartFront, front: Client, empty_nodes: Nodes, url: str, folder: str
    ) -> None:
        other = await start_front(empty_nodes, catalogue={"url": url}, limits=LARGE)
        for _ in range(10):
            await asyncio.gather(
                *(put((front, other)[n % 2], f"{folder}/{n % 3}", secrets.token_bytes(9)) for n in range(24))
            )
            for number in range(3):
                async with front.get(file_at(f"{folder}/{number}")) as answer:
                    content = await answer.read()
                assert (await row(url, f"{folder}/{number}"))["sha256"] == hashlib.sha256(content).hexdigest()

    async def test_many_writes_share_a_transaction(self, front: Client, folder: str) -> None:
        before = await status(front)
        await asyncio.gather(*(put(front, f"{folder}/{number}", b"x") for number in range(200)))
        after = await status(front)
        changes, transactions = (int(after[name]) - int(before[name]) for name in ("changes", "transactions"))
        assert changes == 200
        assert transactions < 150

    async def test_what_is_refused_makes_no_row(self, front: Client, url: str, folder: str) -> None:
        await put(front, f"{folder}/a", b"a")
        async with front.put(file_at(f"{folder}/a"), data=b"b", headers={"If-None-Match": "*"}) as answer:
            assert answer.status == 412
        async with front.delete(file_at(f"{folder}/none")) as answer:
            assert answer.status == 404
        assert (await row(url, f"{folder}/a"))["sha256"] == hashlib.sha256(b"a").hexdigest()
        assert await ask(url, f"SELECT * FROM files WHERE path = '{folder}/none'") == []

    async def test_nodes_and_the_ring_are_rows(self, front: Client, url: str, empty_nodes: Nodes) -> None:
        async def are_there() -> bool:
            return len(await ask(url, "SELECT name FROM nodes WHERE state = 'here'")) == len(empty_nodes)

        await until(are_there)
        assert {found["name"] for found in await ask(url, "SELECT name FROM nodes")} == set(empty_nodes)
        assert len(await ask(url, "SELECT * FROM ring_points")) == 160 * len(empty_nodes)
        (space,) = await ask(url, "SELECT min(available_space) AS least FROM nodes")
        assert space["least"] > 0


class TestListing:
    async def test_pages_go_on_behind_what_is_in_a_namespace_that_is_shut(
        self, start_front: StartFront, empty_nodes: Nodes, url: str, folder: str
    ) -> None:
        options, folder = {"catalogue": {"url": url}}, folder.replace("/", "-")
        open_to_all = await start_front(empty_nodes, **options)
        for path in (f"{folder}a/1", f"{folder}a/2", f"{folder}a/3", f"{folder}b/1", f"{folder}b/2"):
            await put(open_to_all, path, b"x")
        front = await start_front(empty_nodes, **options, namespace=[{"name": f"{folder}a", "enabled": False}])
        found, after = [], folder
        while after is not None:
            page = {"after": after, "prefix": folder, "limit": "1"}
            async with front.get("/files", params=page) as answer:
                told = await answer.json()
            found += [file["path"] for file in told["files"]]
            after = told["next"]
        assert found == [f"{folder}b/1", f"{folder}b/2"]

    async def test_a_list_is_the_same_as_by_the_nodes(
        self, start_front: StartFront, front: Client, empty_nodes: Nodes, folder: str
    ) -> None:
        plain = await start_front(empty_nodes)
        for name in NAMES:
            await put(front, f"{folder}/{name}", b"x")
        await put(front, f"{folder}/{'long' * 90}", b"x")
        await front.delete(file_at(f"{folder}/ab"))
        queries = [{"prefix": f"{folder}/{start}"} for start in ("", "a", "a/", "é", "none")]
        queries += [{**query, "delimiter": "/"} for query in queries]
        queries += [
            {**query, "after": f"{folder}/{after}"} for query in queries for after in ("a", "a/", "a/b", "Z", "я")
        ]
        queries += [{**query, "limit": "2"} for query in queries]
        for query in queries:
            async with plain.get("/files", params=query) as expected, front.get("/files", params=query) as found:
                assert await found.json() == await expected.json(), query

    async def test_all_pages_together_are_all_files_and_folders(self, front: Client, folder: str) -> None:
        await asyncio.gather(*(put(front, f"{folder}/{n % 7}/{n:03}", b"x") for n in range(150)))
        for delimiter, count in (("", 150), ("/", 7)):
            found: list[str] = []
            after = ""
            while after is not None:
                query = {"prefix": f"{folder}/", "delimiter": delimiter, "limit": "4", "after": after}
                async with front.get("/files", params=query) as answer:
                    page = await answer.json()
                found += [*(file["path"] for file in page["files"]), *page["prefixes"]]
                after = page["next"]
            assert found == sorted(set(found))
            assert len(found) == count

    async def test_whoever_has_his_answer_finds_the_file_in_the_list(self, front: Client, folder: str) -> None:
        async def write_and_look(number: int) -> None:
            await put(front, f"{folder}/{number}", b"x")
            assert f"{folder}/{number}" in await listed(front, prefix=folder)
            await front.delete(file_at(f"{folder}/{number}"))
            assert f"{folder}/{number}" not in await listed(front, prefix=folder)

        await asyncio.gather(*map(write_and_look, range(40)))

    async def test_files_on_nodes_that_cannot_list_are_listed(
        self, start_front: StartFront, memcached_nodes: Nodes, url: str, folder: str
    ) -> None:
        front = await start_front(memcached_nodes, catalogue={"url": url})
        await execute(url, "DELETE FROM state WHERE name = 'behind'")  # its tables are new, and so were its nodes
        await put(front, f"{folder}/a", b"x")
        assert await listed(front, prefix=folder) == [f"{folder}/a"]


class TestSearch:
    async def test_a_part_of_the_path_the_type_and_the_size_are_searched_for(self, front: Client, folder: str) -> None:
        for name, size in (("cat.jpg", 10), ("CAT.jpg", 20), ("100%_cat.png", 30), ("dog/кот.jpg", 40)):
            await put(front, f"{folder}/{name}", bytes(size))

        async def found(**query: str) -> list[str]:
            return [path.removeprefix(f"{folder}/") for path in await listed(front, prefix=folder, **query)]

        assert await found(search="cat.j") == ["cat.jpg"]
        assert await found(search="%_c") == ["100%_cat.png"]
        assert await found(search="кот") == ["dog/кот.jpg"]
        assert await found(search="%") == ["100%_cat.png"]
        assert await found(type="image/jpeg", min_size="20") == ["CAT.jpg", "dog/кот.jpg"]
        assert await found(max_size="10") == ["cat.jpg"]
        assert await found(search="no such") == []

    async def test_a_search_comes_in_pages_and_says_whether_it_is_whole(self, front: Client, folder: str) -> None:
        for number in range(5):
            await put(front, f"{folder}/{number}", b"x")
        query = {"search": folder[-6:], "prefix": folder, "limit": "2"}
        async with front.get("/files", params=query) as answer:
            page = await answer.json()
        assert ([file["path"][-1] for file in page["files"]], page["complete"]) == (["0", "1"], True)
        async with front.get("/files", params={**query, "after": page["next"], "limit": "3"}) as answer:
            page = await answer.json()
        assert ([file["path"][-1] for file in page["files"]], page["next"]) == (["2", "3", "4"], None)

    async def test_what_cannot_be_searched_for_is_400(self, front: Client) -> None:
        for query in ("search=%FF", "search=a&delimiter=/", "min_size=x", "max_size=-1", "search=a&search=b"):
            async with front.get(f"/files?{query}") as answer:
                assert answer.status == 400, query


async def test_without_a_catalogue_a_search_is_501_and_nothing_of_it_is_loaded(
    start_front: StartFront, empty_nodes: Nodes
) -> None:
    front = await start_front(empty_nodes)
    async with front.get("/files?search=a") as answer:
        assert answer.status == 501
        assert (await answer.json())["type"] == "urn:sfss:no-catalogue"
    async with front.get("/status?format=full") as answer:
        assert "catalogue" not in (await answer.json())["webserver"]
    code = (
        "import sys, sfss.config, sfss.web.app as app; app.create_app(sfss.config.load());"
        "print(*(m for m in sys.modules if m.startswith(('sqlalchemy', 'sfss.catalogue', 'aiosqlite', 'asyncpg'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
