"""``GET /files``: pages, streams, and what is said when neither can be had."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest
from yarl import URL

from sfss.cluster import listing
from sfss.cluster.listing import Found
from sfss.errors import Damaged
from sfss.web import listing as listing_of_web
from sfss.web.listing import MAX_LIMIT, NDJSON
from tests.conftest import Client, Nodes, StartFront
from tests.servers import HOST, memcached
from tests.test_record import header_of

STREAM = {"Accept": NDJSON}


@pytest.fixture
async def front(our_nodes: Nodes, start_front: StartFront) -> Client:
    """Only nodes that scan can be listed."""
    return await start_front(our_nodes)


@pytest.fixture
def folder() -> str:
    """The nodes are shared: a place of one's own."""
    return f"{secrets.token_hex(4)}/"


async def put(front: Client, *names: str, body: bytes = b"x") -> None:
    answers = await asyncio.gather(*(front.put(URL("/file").with_query(path=name), data=body) for name in names))
    assert {answer.status for answer in answers} <= {200}


async def page(front: Client, **query: str | int) -> Any:
    answer = await front.get(URL("/files").with_query(query))
    assert (answer.status, answer.content_type) == (200, "application/json"), await answer.text()
    assert answer.headers["Vary"] == "Accept"
    return await answer.json()


async def lines(front: Client, **query: str | int) -> list[Any]:
    answer = await front.get(URL("/files").with_query(query), headers=STREAM)
    assert (answer.status, answer.content_type) == (200, NDJSON), await answer.text()
    return [json.loads(line) for line in (await answer.read()).splitlines()]


async def test_a_file_is_told_as_get_tells_it(front: Client, folder: str) -> None:
    name = folder + "фото 1.jpg"
    await put(front, name, body=b"content")
    await front.put(URL("/file").with_query(path=folder + "typed"), data=b"", headers={"Content-Type": "text/x-rst"})
    found = await page(front, prefix=folder)
    head = await front.head(URL("/file").with_query(path=name))
    file, typed = found["files"][1], found["files"][0]
    assert {key: found[key] for key in found if key != "files"} == {"prefix": folder, "prefixes": [], "next": None}
    assert list(file) == ["path", "size", "etag", "type", "modified"]
    assert (file["path"], file["size"]) == (name, head.content_length)
    assert file["etag"] == head.headers["ETag"] == f'"{hashlib.sha256(b"content").hexdigest()}"'
    assert file["type"] == head.headers["Content-Type"] == "image/jpeg"
    modified = datetime.datetime.fromisoformat(file["modified"])
    assert modified.replace(microsecond=0) == parsedate_to_datetime(head.headers["Last-Modified"])
    assert (typed["type"], typed["size"]) == ("text/x-rst", 0)
    assert await lines(front, prefix=folder) == found["files"]


def test_a_time_is_told_to_the_microsecond_and_none_is_too_late_to_be_told() -> None:
    day = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    times = [0, 1, 10**6, 10**15 + 1, 1_763_670_000_123_456, 4_102_444_799_999_999]
    files = listing_of_web._files([Found("a", header_of(b"", version=version)) for version in [*times, 2**63]])
    assert [file.modified for file in files[:-1]] == [day + datetime.timedelta(microseconds=time) for time in times]
    assert files[-1].modified.year == 9999


async def test_pages_follow_one_another_by_next(front: Client, folder: str) -> None:
    names = [f"{folder}{number:02}" for number in range(25)] + [f"{folder}deep/{number}" for number in range(5)]
    await put(front, *names)
    told: list[str] = []
    query: dict[str, str | int] = {"prefix": folder, "limit": 10}
    for expected in (10, 10, 10):
        found = await page(front, **query)
        assert len(found["files"]) == expected
        told += [file["path"] for file in found["files"]]
        query["after"] = found["next"] or ""
    assert found["next"] is None, "a last page that is full is known to be the last"
    assert told == names
    found = await page(front, prefix=folder, after=names[-1])
    assert (found["files"], found["next"]) == ([], None)


async def test_with_a_delimiter_folders_stand_for_what_is_in_them(front: Client, folder: str) -> None:
    await put(front, *(folder + name for name in ("a", "b/1", "b/2/3", "b.c", "d/1", "e")))
    found = await page(front, prefix=folder, delimiter="/")
    assert [file["path"] for file in found["files"]] == [folder + name for name in ("a", "b.c", "e")]
    assert found["prefixes"] == [folder + "b/", folder + "d/"]
    first = await page(front, prefix=folder, delimiter="/", limit=3)
    assert (first["prefixes"], first["next"]) == ([folder + "b/"], folder + "b/")
    second = await page(front, prefix=folder, delimiter="/", limit=3, after=first["next"])
    assert (second["prefixes"], [file["path"] for file in second["files"]]) == ([folder + "d/"], [folder + "e"])
    told = await lines(front, prefix=folder, delimiter="/")
    assert [line.get("path") or line["prefix"] for line in told] == [
        folder + name for name in ("a", "b.c", "b/", "d/", "e")
    ]
    assert [line for line in told if "prefix" in line] == [{"prefix": folder + "b/"}, {"prefix": folder + "d/"}]


async def test_a_stream_has_as_many_lines_as_there_are_files_or_as_are_asked_for(front: Client, folder: str) -> None:
    names = [f"{folder}{number:04}" for number in range(2500)]
    for start in range(0, 2500, 500):
        await put(front, *names[start : start + 500])
    assert [file["path"] for file in await lines(front, prefix=folder)] == names
    assert [file["path"] for file in await lines(front, prefix=folder, limit=2100)] == names[:2100]
    assert len((await page(front, prefix=folder))["files"]) == 1000
    assert await lines(front, prefix=folder + "nothing") == []


async def test_what_was_deleted_is_gone_from_the_list(front: Client, folder: str) -> None:
    await put(front, folder + "stays", folder + "goes")
    await front.delete(URL("/file").with_query(path=folder + "goes"))
    assert [file["path"] for file in (await page(front, prefix=folder))["files"]] == [folder + "stays"]


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        (f"limit={MAX_LIMIT + 1}", NDJSON),
        ("delimiter=.", "delimiter"),
        ("prefix=a&prefix=b", "more than one prefix"),
        ("prefix=%ff", "UTF-8"),
        ("after=a%00b", "control character"),
        ("prefix=" + "x" * 1025, "1024"),
    ],
)
async def test_what_cannot_be_asked_is_told_so(front: Client, query: str, what: str) -> None:
    answer = await front.get(URL(f"/files?{query}", encoded=True))
    assert (answer.status, answer.content_type) == (400, "application/problem+json")
    problem = await answer.json()
    assert problem["type"] == "urn:sfss:bad-request"
    assert what in problem["detail"]


@pytest.mark.parametrize("headers", [{}, STREAM], ids=["page", "stream"])
async def test_a_node_that_cannot_list_is_named(
    our_nodes: Nodes, start_front: StartFront, headers: dict[str, str]
) -> None:
    with memcached() as port:
        front = await start_front([our_nodes[0], f"{HOST}:{port}"])
        answer = await front.get("/files", headers=headers)
        assert (answer.status, answer.content_type) == (501, "application/problem+json")
        problem = await answer.json()
    assert (problem["type"], problem["node"]) == ("urn:sfss:unsupported", f"{HOST}:{port}")
    assert "memcached" in problem["detail"]


@pytest.mark.parametrize("headers", [{}, STREAM], ids=["page", "stream"])
async def test_a_node_that_is_away_is_named(our_nodes: Nodes, start_front: StartFront, headers: dict[str, str]) -> None:
    front = await start_front([our_nodes[0], f"{HOST}:1"])
    answer = await front.get("/files", headers=headers)
    problem = await answer.json()
    assert (answer.status, problem["type"], problem["node"]) == (504, "urn:sfss:node-unavailable", f"{HOST}:1")
    assert answer.headers["Retry-After"]


async def test_a_stream_that_fails_on_its_way_is_cut_off_and_not_ended(
    front: Client, folder: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await put(front, *(f"{folder}{number:03}" for number in range(200)))
    monkeypatch.setattr(listing, "SLICE", 10)
    found, told = listing._found, 0

    def fails_later(keys: Sequence[bytes], headers: Mapping[bytes, bytes]) -> list[Found]:
        nonlocal told
        told += len(keys)
        if told > 100:
            raise Damaged("of the disk")
        return found(keys, headers)

    monkeypatch.setattr(listing, "_found", fails_later)
    with pytest.raises(aiohttp.ClientPayloadError):
        await lines(front, prefix=folder)
    assert "cut off" in caplog.text
    monkeypatch.undo()
    assert len(await lines(front, prefix=folder)) == 200


async def test_a_reader_that_goes_away_ends_the_stream(
    front: Client, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{folder}{number:04}" + "x" * 200 for number in range(3000)]
    for start in range(0, 3000, 500):
        await put(front, *names[start : start + 500])
    before = asyncio.all_tasks()
    for _ in range(3):
        answer = await front.get(URL("/files").with_query(prefix=folder), headers=STREAM)
        await answer.content.readline()
        answer.close()
    assert len(await lines(front, prefix=folder)) == 3000
    async with asyncio.timeout(10):
        while len(asyncio.all_tasks()) > len(before) + 1:
            await asyncio.sleep(0.02)
    assert "bug" not in caplog.text


async def test_other_methods_are_told_what_can_be_done(front: Client) -> None:
    answer = await front.delete("/files")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET,POST,PUT")
