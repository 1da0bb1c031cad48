"""What is said while the short-term store is away, full, or not to be trusted: never less than the truth."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as Client
from yarl import URL

from tests.behind.support import Bench, file_at, listed, put, read
from tests.conftest import Client as Front
from tests.redis import DURABLE, Redis, redis

QUICK = {"timeout": 0.5}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of the test's own, which keeps what it acknowledges."""
    with redis(tmp_path / "redis", *DURABLE) as server:
        yield server


@pytest.fixture
def url(own: Redis) -> str:
    return own.url


@pytest.fixture(autouse=True)
def quick(bench: Bench) -> None:
    bench.sections = {"write_behind": QUICK, "storage": {"retry_after": 0.2}}


async def problem(answer: Any) -> tuple[int, str]:
    body = json.loads(await answer.read())
    return answer.status, body["type"].removeprefix("urn:sfss:")


async def until_here(front: Front, path: str) -> None:
    async with asyncio.timeout(20):
        while (await front.get(file_at(path))).status == 504:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_nothing_is_said_of_its_paths_while_it_is_away_and_all_is_as_it_was_when_it_is_back(
    bench: Bench, own: Redis, how: str
) -> None:
    front = await bench.front()
    waiting, moved, outside = bench.path("waiting"), bench.path("moved"), f"outside-{bench.prefix}x"
    await put(front, outside, b"outside")
    await put(front, moved, b"old")
    await bench.drain()
    await put(front, moved, b"new")
    await put(front, waiting, b"waiting")
    own.kill() if how == "killed" else own.freeze()
    for path in (waiting, moved, bench.path("nothing")):
        answer = await front.get(file_at(path))
        assert await problem(answer) == (504, "short-term-away")
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await front.head(file_at(path))).status == 504
        assert await problem(await front.put(file_at(path), data=b"x")) == (504, "short-term-away")
        assert await problem(await front.delete(file_at(path))) == (504, "short-term-away")
    assert await problem(await front.get(URL("/files").with_query(prefix=bench.prefix))) == (504, "short-term-away")
    assert await listed(front, prefix=f"outside-{bench.prefix}") == [outside]
    assert await read(front, outside) == b"outside"
    await put(front, outside, b"still")
    async with front.get("/health") as answer:
        told = await answer.json()
        assert told["status"] == "degraded"
        assert own.url.removeprefix("redis://") in told["checks"]["write-behind"]
    async with front.get("/status?format=full") as answer:
        assert any("is away" in warning for warning in (await answer.json())["webserver"]["warnings"])
    own.start() if how == "killed" else own.thaw()
    await until_here(front, waiting)
    assert await read(front, waiting) in (b"waiting", b"x")  # frozen, it may have taken what came then
    assert await read(front, moved) in (b"new", b"x", None)
    if how == "killed":
        assert await read(front, waiting) == b"waiting"
        assert await read(front, moved) == b"new"
        assert await read(front, bench.path("nothing")) is None


async def test_a_front_that_starts_while_it_is_away_serves_all_else(bench: Bench, own: Redis) -> None:
    own.kill()
    front = await bench.front()
    outside = f"outside-{bench.prefix}x"
    await put(front, outside, b"outside")
    assert (await front.get(file_at(bench.path("x")))).status == 504
    own.start()
    await until_here(front, bench.path("x"))
    await put(front, bench.path("x"), b"here")
    assert await read(front, bench.path("x")) == b"here"


async def test_when_its_memory_is_full_writes_get_503_and_deletions_and_workers_go_on(bench: Bench, own: Redis) -> None:
    front = await bench.front()
    with Client.from_url(own.url) as client:
        used = int(client.info("memory")["used_memory"])
        client.config_set("maxmemory", used + 3_000_000)
        kept = []
        for number in range(100):
            answer = await front.put(file_at(bench.path(f"{number}")), data=bytes(60_000))
            if answer.status != 200:
                break
            kept.append(bench.path(f"{number}"))
        assert await problem(answer) == (503, "backlog-full")
        assert int(answer.headers["Retry-After"]) >= 1
        assert 5 < len(kept) < 100
        for path in kept:
            assert await read(front, path) == bytes(60_000)
        assert await bench.drain() == 0
        await put(front, bench.path("again"), bytes(60_000))
        for path in kept:
            assert await read(front, path) == bytes(60_000)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [({"max_tasks": 3}, "write_behind.max_tasks"), ({"max_bytes": 3000}, "write_behind.max_bytes")],
)
async def test_beyond_the_bounds_that_are_set_writes_get_503_until_some_was_moved(
    bench: Bench, bounds: dict[str, Any], words: str
) -> None:
    bench.sections["write_behind"] = {**QUICK, **bounds}
    front = await bench.front()
    paths = [bench.path(f"{number}") for number in range(4)]
    kept = []
    for path in paths:
        answer = await front.put(file_at(path), data=bytes(800))
        if answer.status == 200:
            kept.append(path)
    assert kept == paths[:3]
    assert words in (await answer.json())["detail"]
    assert answer.status == 503
    await put(front, paths[0], bytes(700))  # which takes no more room
    assert (await front.delete(file_at(paths[1]))).status == 204
    assert await bench.drain() == 0
    await put(front, paths[3], bytes(800))


async def test_one_that_throws_records_away_when_it_is_full_gets_none(bench: Bench, own: Redis) -> None:
    with Client.from_url(own.url) as client:
        client.config_set("maxmemory", 100_000_000)
        client.config_set("maxmemory-policy", "allkeys-lru")
    front = await bench.front()
    answer = await front.put(file_at(bench.path("x")), data=b"x")
    assert await problem(answer) == (504, "short-term-away")
    assert await read(front, bench.path("x")) is None
    async with front.get("/status?format=full") as answer:
        (warning,) = [text for text in (await answer.json())["webserver"]["warnings"] if "short-term" in text]
    assert "maxmemory-policy noeviction" in warning


async def test_one_that_doesn_t_tell_what_it_is_set_to_is_used_with_a_warning(bench: Bench, own: Redis) -> None:
    with Client.from_url(own.url) as client:
        client.execute_command("ACL SETUSER limited on >verysecret ~* +@all -config -info")
    bench.url = own.url.replace("redis://", "redis://limited:verysecret@")
    front = await bench.front()
    await put(front, bench.path("x"), b"x")
    assert await bench.drain() == 0
    assert await read(front, bench.path("x")) == b"x"
    async with front.get("/status?format=full") as answer:
        (warning,) = [text for text in (await answer.json())["webserver"]["warnings"] if "short-term" in text]
    assert "doesn't tell" in warning


async def test_what_it_may_lose_is_said(bench: Bench, own: Redis) -> None:
    with Client.from_url(own.url) as client:
        client.config_set("appendfsync", "everysec")
    front = await bench.front()
    async with front.get("/status?format=full") as answer:
        (warning,) = [text for text in (await answer.json())["webserver"]["warnings"] if "short-term" in text]
    assert "appendfsync always" in warning


async def test_a_password_is_shown_nowhere(bench: Bench, own: Redis, caplog: pytest.LogCaptureFixture) -> None:
    with Client.from_url(own.url) as client:
        client.config_set("requirepass", "verysecret")
    bench.url = own.url.replace("redis://", "redis://:verysecret@")
    space = {"name": "space", "write_behind": bench.url}
    front = await bench.front(namespace=[space])
    path = bench.path("x")
    await put(front, path, b"x")
    own.kill()
    told = [await (await front.get(file_at(path))).text(), await (await front.get("/status?format=full")).text()]
    told += [await (await front.get("/health")).text(), await (await front.get("/namespaces")).text(), caplog.text]
    assert not any("verysecret" in text for text in told)
    bench.url = own.url.replace("redis://", "redis://:wrongsecret@")
    own.options = (*own.options, "--requirepass", "verysecret")
    own.start()
    other = await bench.front()
    text = await (await other.get(file_at(path))).text()
    assert '"status":504' in text
    assert "wrongsecret" not in text + caplog.text


@pytest.mark.parametrize("broken", ["header", "payload"])
async def test_a_damaged_record_is_not_served_and_becomes_a_dead_letter(bench: Bench, own: Redis, broken: str) -> None:
    front = await bench.front()
    path = bench.path("x")
    await put(front, path, b"hello")
    with Client.from_url(own.url) as client:
        client.hset(f"{{sfss}}:file:{path}", "h" if broken == "header" else "p", b"hellO")
    assert await problem(await front.get(file_at(path))) == (504, "damaged")
    assert await bench.drain() == 0
    store = await bench.store()
    (letter,) = await store.letters()
    assert letter.path == path
    assert "damaged" in letter.why
    await put(front, path, b"anew")
    assert await store.letters() == []
    assert await bench.drain() == 0
    assert await read(front, path) == b"anew"
