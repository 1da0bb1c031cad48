"""What a front says of files that wait is what it says of any others, from the first moment on."""

from __future__ import annotations

import asyncio
import hashlib
import re

import pytest
from redis import Redis as RedisClient

from sfss.addresses import parse_address
from sfss.assembly import short_term
from sfss.behind.front import WriteBehind
from sfss.behind.landing import Landing
from sfss.behind.store import ShortTerm
from sfss.policies import Policies
from sfss.stripes import Stripes
from sfss.web.app import reload
from tests.behind.support import MIB, Bench, file_at, listed, put, read
from tests.conftest import Nodes
from tests.redis import Redis


async def test_a_file_is_there_from_the_first_moment_at_every_front_and_on_the_nodes_when_a_worker_was_at_it(
    bench: Bench,
) -> None:
    one, other = await bench.front(), await bench.front()
    path, content = bench.path("a.txt"), b"hello " * 100
    etag = await put(one, path, content, **{"X-Meta-Colour": "red"})
    assert etag == f'"{hashlib.sha256(content).hexdigest()}"'
    assert await bench.on_nodes(path) is None
    for when in ("waiting", "moved"):
        for front in (one, other):
            async with front.get(file_at(path)) as answer:
                assert (answer.status, await answer.read()) == (200, content), when
                assert answer.headers["ETag"] == etag
                assert answer.headers["Content-Type"] == "text/plain"
                assert answer.headers["X-Meta-Colour"] == "red"
                modified = answer.headers["Last-Modified"]
            async with front.head(file_at(path)) as answer:
                assert (answer.status, answer.headers["Content-Length"]) == (200, "600")
                assert answer.headers["Last-Modified"] == modified
            async with front.get(file_at(path), headers={"Range": "bytes=6-10"}) as answer:
                assert (answer.status, await answer.read()) == (206, b"hello")
            async with front.get(file_at(path), headers={"If-None-Match": etag}) as answer:
                assert answer.status == 304
            assert await listed(front, prefix=bench.prefix) == [path]
        if when == "waiting":
            assert await bench.drain() == 0
    found = await bench.on_nodes(path)
    assert found is not None
    assert bytes(found.payload) == content
    figures = await bench.figures()
    assert (figures.files, figures.bytes, figures.tasks, figures.dead) == (0, 0, 0, 0)


async def test_the_newest_of_several_writes_is_moved_once(bench: Bench) -> None:
    front = await bench.front()
    path = bench.path()
    for number in range(20):
        await put(front, path, b"%d" % number)
    assert (await bench.figures()).tasks == 1
    async with bench.working() as worker:
        while (await bench.figures()).tasks:
            await asyncio.sleep(0.02)
    assert worker.stored == 1
    assert await read(front, path) == b"19"


async def test_a_deletion_waits_as_a_file_does(bench: Bench) -> None:
    front, other = await bench.front(), await bench.front()
    path, never_moved = bench.path("moved"), bench.path("never moved")
    await put(front, path, b"x")
    await bench.drain()
    await put(front, never_moved, b"y")
    for each in (path, never_moved):
        assert (await front.delete(file_at(each))).status == 204
        for asked in (front, other):
            assert await read(asked, each) is None
            assert (await asked.delete(file_at(each))).status == 404
    assert await listed(front, prefix=bench.prefix) == []
    assert await bench.on_nodes(path) is not None
    assert await bench.drain() == 0
    assert await bench.on_nodes(path) is None
    assert await listed(front, prefix=bench.prefix) == []
    assert await read(front, path) is None
    await put(front, path, b"again")
    assert await read(other, path) == b"again"
    await bench.drain()
    assert await read(other, path) == b"again"


@pytest.mark.parametrize("moved", [False, True])
async def test_conditions_are_judged_by_what_waits_and_then_by_the_nodes(bench: Bench, moved: bool) -> None:
    front = await bench.front()
    path = bench.path()

    async def status(content: bytes, **headers: str) -> int:
        answer = await front.put(
            file_at(path), data=content, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        return answer.status

    assert await status(b"0", If_Match="*") == 412
    assert await status(b"1", If_None_Match="*") == 200
    if moved:
        await bench.drain()
    assert await status(b"2", If_None_Match="*") == 412
    etag = f'"{hashlib.sha256(b"1").hexdigest()}"'
    assert await status(b"2", If_Match='"other"') == 412
    assert await status(b"2", If_Match=etag) == 200
    if moved:
        await bench.drain()
    assert await status(b"3", If_Match=etag) == 412
    assert (await front.delete(file_at(path), headers={"If-Match": etag})).status == 412
    assert await read(front, path) == b"2"
    new = f'"{hashlib.sha256(b"2").hexdigest()}"'
    assert (await front.delete(file_at(path), headers={"If-Match": new})).status == 204
    assert await status(b"4", If_None_Match="*") == 200


async def test_of_racing_creators_at_several_fronts_one_wins_while_workers_work(bench: Bench) -> None:
    fronts = [await bench.front() for _ in range(3)]
    async with bench.working():
        for _ in range(15):
            path = bench.path()
            answers = await asyncio.gather(
                *(fronts[n % 3].put(file_at(path), data=b"%d" % n, headers={"If-None-Match": "*"}) for n in range(9))
            )
            statuses = sorted(answer.status for answer in answers)
            assert statuses == [200] + [412] * 8
            (winner,) = [n for n, answer in enumerate(answers) if answer.status == 200]
            assert await read(fronts[0], path) == b"%d" % winner


async def test_of_writers_who_each_go_by_the_last_etag_none_is_lost_while_workers_work(bench: Bench) -> None:
    fronts = [await bench.front() for _ in range(2)]
    path = bench.path()
    await put(fronts[0], path, b"0")

    async def count(front: object, times: int) -> None:
        for _ in range(times):
            while True:
                async with front.get(file_at(path)) as answer:  # type: ignore[attr-defined]
                    number, etag = int(await answer.read()), answer.headers["ETag"]
                answer = await front.put(  # type: ignore[attr-defined]
                    file_at(path), data=b"%d" % (number + 1), headers={"If-Match": etag}
                )
                if answer.status == 200:
                    break
                assert answer.status == 412

    async with bench.working():
        await asyncio.gather(*(count(front, 15) for front in fronts for _ in range(2)))
    assert await read(fronts[0], path) == b"60"


async def test_write_once_means_what_it_means_elsewhere(bench: Bench) -> None:
    bench.policy = {"write_once": True}
    front = await bench.front()
    path = bench.path()
    assert (await front.post(file_at(path), data=b"1")).status == 201
    assert (await front.post(file_at(path), data=b"2")).status == 409
    await bench.drain()
    assert (await front.post(file_at(path), data=b"3")).status == 409
    assert (await front.delete(file_at(path))).status == 409
    assert await read(front, path) == b"1"


async def test_two_policies_may_have_two_stores(bench: Bench, short_term: Redis) -> None:
    url = f"{short_term.url}/15"
    with RedisClient.from_url(url) as client:
        client.flushdb()
    bench.sections = {"policy": [{"prefix": f"{bench.prefix}other/", "write_behind": url}]}
    front = await bench.front()
    names = ["a", "other/b", "p"]
    for name in names:
        await put(front, bench.path(name), name.encode())
    assert (await bench.figures()).files == 2
    assert await listed(front, prefix=bench.prefix) == [bench.path(name) for name in names]
    assert await listed(front, prefix=bench.prefix, delimiter="/") == [
        bench.path(name) for name in ("a", "other/", "p")
    ]
    async with front.get("/status?format=full") as answer:
        state = (await answer.json())["webserver"]["write_behind"]
    assert sorted(store["files"] for store in state.values()) == ["1", "2"]


async def test_the_full_status_says_how_a_store_is_and_what_there_is_room_for(bench: Bench) -> None:
    bench.sections = {"write_behind": {"max_tasks": 7, "max_bytes": "2MiB"}}
    front = await bench.front()
    await put(front, bench.path(), b"x")
    async with front.get("/status?format=full") as answer:
        ((name, state),) = (await answer.json())["webserver"]["write_behind"].items()
    assert name == str(parse_address(bench.url))
    assert {key: state.pop(key) for key in ("away", "fault", "workers")} == {"away": None, "fault": None, "workers": {}}
    assert all(isinstance(value, str) for value in state.values())
    assert {key: state[key] for key in ("files", "tasks", "dead", "max_files", "max_bytes", "kind", "synced")} == {
        "files": "1", "tasks": "1", "dead": "0", "max_files": "7", "max_bytes": str(2 * MIB), "kind": "redis",
        "synced": "never",
    }  # fmt: skip
    assert re.fullmatch(r"\d+\.\d+\.\d+", state["version"])
    assert int(state["memory"]) > 0
    assert int(state["max_memory"]) == 0
    assert 0 <= int(state["oldest"]) < 60


async def test_a_policy_may_get_a_store_while_sfss_serves(bench: Bench, our_nodes: Nodes) -> None:
    front = await bench.front(policy=[])
    path = bench.path()
    await put(front, path, b"before")
    assert (await bench.figures()).files == 0
    await reload(front.app, bench.settings)
    assert await read(front, path) == b"before"
    await put(front, path, b"behind")
    assert (await bench.figures()).files == 1
    assert await read(front, path) == b"behind"
    await bench.drain()
    assert await read(front, path) == b"behind"
    async with front.get("/health") as answer:
        assert (await answer.json())["checks"]["write-behind"] == "ok"


async def test_paths_outside_never_come_near_the_store(bench: Bench) -> None:
    front = await bench.front()
    path = f"elsewhere-{bench.prefix}x"
    await put(front, path, b"x")
    assert (await bench.figures()).files == 0
    assert await bench.on_nodes(path) is not None
    assert await read(front, path) == b"x"


async def test_two_changes_at_once_make_one_store(bench: Bench) -> None:
    made: list[ShortTerm] = []

    def make(url: str) -> ShortTerm:
        made.append(short_term(bench.settings, url))
        return made[-1]

    policies = Policies(bench.settings)
    async with bench.cluster() as cluster:
        stripes = Stripes(cluster, bench.settings.limits)
        behind = WriteBehind(cluster, Landing(cluster, stripes, policies, None), policies, make)
        await asyncio.gather(behind.change([bench.url]), behind.change([bench.url]))
        await behind.close()
        await stripes.close()
    assert len(made) == 1
