"""Lists tell what waits as if it were on the nodes: files, deletions, folders, page by page."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from yarl import URL

from sfss.behind import front as behind_front
from sfss.behind.store import ShortTerm
from tests.behind.support import Bench, file_at, listed, put, read, status
from tests.conftest import Client
from tests.large.support import content_of


@pytest.fixture(params=[5000, 3], ids=["all at once", "three at once"])
def together(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many that wait are looked at together."""
    monkeypatch.setattr(behind_front, "PAGE", request.param)
    return int(request.param)


async def pages(front: Client, limit: int, **query: str) -> list[str]:
    """All of a list, page by page, in the order in which it came."""
    told: list[str] = []
    after = ""
    while True:
        asked = {**query, "limit": str(limit), **({"after": after} if after else {})}
        async with front.get(URL("/files").with_query(asked)) as answer:
            assert answer.status == 200, await answer.text()
            page: dict[str, Any] = await answer.json()
        told += sorted([*(file["path"] for file in page["files"]), *page.get("prefixes", ())])
        if not page.get("next"):
            return told
        after = page["next"]


async def test_files_that_wait_are_told_among_those_on_the_nodes_in_order(bench: Bench, together: int) -> None:
    front = await bench.front()
    draw = random.Random(7)
    names = [f"{draw.choice('abc')}/{draw.choice('xyz')}/{number:03}" for number in range(40)]
    names += ["ж" * 400, "a" * 300]
    there: set[str] = set()
    for round in range(3):
        for name in draw.sample(names, 20):
            path = bench.path(name)
            if path in there and draw.random() < 0.4:
                assert (await front.delete(file_at(path))).status == 204
                there.remove(path)
            else:
                await put(front, path, name.encode())
                there.add(path)
        if round == 1:
            await bench.drain()
    assert (await bench.figures()).files > 5
    assert await listed(front, prefix=bench.prefix) == sorted(there)
    for limit in (1, 2, 7):
        assert await pages(front, limit, prefix=bench.prefix) == sorted(there)
    assert await listed(front, prefix=bench.path("b/")) == sorted(p for p in there if p.startswith(bench.path("b/")))
    after = sorted(there)[len(there) // 2]
    assert await listed(front, prefix=bench.prefix, after=after) == sorted(p for p in there if p > after)

    def folded(prefix: str) -> list[str]:
        ends = [(path, path.find("/", len(prefix)) + 1) for path in there if path.startswith(prefix)]
        return sorted({path[:end] if end else path for path, end in ends})

    for prefix in (bench.prefix, bench.path("a/"), bench.path("a/x/")):
        for limit in (1000, 1, 2):
            assert await pages(front, limit, prefix=prefix, delimiter="/") == folded(prefix), (prefix, limit)


async def test_a_folder_of_which_all_waits_to_be_deleted_isn_t_told(bench: Bench, together: int) -> None:
    front = await bench.front()
    names = [f"{folder}/{number}" for folder in "abc" for number in range(5)]
    for name in names:
        await put(front, bench.path(name), b"x")
    await bench.drain()
    for name in names:
        if not name.startswith("b") or name != "b/3":
            assert (await front.delete(file_at(bench.path(name)))).status == 204
    await put(front, bench.path("c/new"), b"x")
    told = await listed(front, prefix=bench.prefix, delimiter="/")
    assert told == [bench.path("b/"), bench.path("c/")]


async def test_what_is_listed_of_a_file_that_waits_is_what_is_listed_of_it_later(bench: Bench) -> None:
    front = await bench.front()
    await put(front, bench.path("x"), b"old")
    await bench.drain()
    await put(front, bench.path("x"), b"hello", **{"Content-Type": "x/y"})
    told = []
    for _ in range(2):
        async with front.get(URL("/files").with_query(prefix=bench.prefix)) as answer:
            told.append((await answer.json())["files"])
        await bench.drain()
    assert told[0] == told[1]
    assert told[0][0]["size"] == 5


async def test_files_that_come_and_are_moved_while_a_list_goes_on_are_missed_by_none(
    bench: Bench, together: int
) -> None:
    front = await bench.front()
    settled = {bench.path(f"{number:03}") for number in range(60)}
    for path in settled:
        await put(front, path, b"x")
    async with bench.working():
        for _ in range(4):
            for number in range(0, 60, 7):
                await put(front, bench.path(f"{number:03}"), b"y")
            assert set(await pages(front, 11, prefix=bench.prefix)) == settled


@pytest.mark.parametrize("before", ["waits", "is to be deleted", "is moved meanwhile"])
@pytest.mark.parametrize("query", [{}, {"delimiter": "/"}], ids=["flat", "folders"])
async def test_of_what_is_on_its_way_a_list_tells_no_more_than_a_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, before: str, query: dict[str, str]
) -> None:
    """The nodes have it already, and it isn't acknowledged."""
    bench.sections = {"limits": {"record_size": "64KiB", "max_file_size": "64MiB", "linger": 0.0}}
    front, other = await bench.front(), await bench.front()
    path, large = bench.path(), content_of("large", 200 * 1024)
    await put(front, path, b"one")
    if before == "is to be deleted":
        assert (await front.delete(file_at(path))).status == 204
    done, stands, goes_on = ShortTerm.done, asyncio.Event(), asyncio.Event()
    heads: list[str] = []

    async def slowly(self: ShortTerm, *args: Any, **given: Any) -> bool:
        stands.set()
        await goes_on.wait()
        return await done(self, *args, **given)

    monkeypatch.setattr(ShortTerm, "done", slowly)
    slow = asyncio.create_task(status(front.put(file_at(path), data=large)))
    await stands.wait()
    head = ShortTerm.head

    async def behind_that(self: ShortTerm, path: str) -> bytes | None:
        heads.append(path)
        if before == "is moved meanwhile":
            goes_on.set()
            await slow
        return await head(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(ShortTerm, "head", behind_that)
        async with other.get(URL("/files").with_query(prefix=bench.prefix, **query)) as answer:
            told = [(file["path"], file["size"]) for file in (await answer.json())["files"]]
    assert heads == [path]  # nothing is asked of others
    there = await read(other, path)
    assert told == ([] if there is None else [(path, len(there))])
    assert (there == large) is (before == "is moved meanwhile")
    goes_on.set()
    assert await slow == 200
    assert await bench.drain() == 0
    assert (await read(other, path) == large) is True
