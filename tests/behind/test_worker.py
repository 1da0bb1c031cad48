"""Workers: what is acknowledged comes onto the nodes, once, whoever dies, and never in the place of something newer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sfss import paths, record
from sfss.behind.states import text_of
from sfss.behind.worker import Worker
from sfss.errors import TooLarge, Unavailable
from sfss.record import Header, Kind, Record
from tests.behind.support import Bench, file_at, put, read, until
from tests.redis import redis
from tests.servers import sfss_node


def made(content: bytes, version: int, kind: Kind = Kind.FILE) -> Record:
    header = Header(kind, version, 1, len(content), b"", len(content), record.payload_checksum(content))
    return Record(header, content)


async def test_what_a_dead_worker_had_is_taken_over(bench: Bench) -> None:
    front = await bench.front()
    path = bench.path()
    await put(front, path, b"hello")
    store = await bench.store()
    await store.join()
    (task,) = await store.take("dead", 10)
    assert task.path == path
    assert await store.take("another", 10) == []
    async with bench.working():
        await until(lambda: bench.on_nodes(path))
    assert (await bench.figures()).tasks == 0


async def test_what_a_living_worker_has_is_left_to_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    front = await bench.front()
    await put(front, bench.path(), b"hello")
    async with bench.cluster() as cluster:
        slow, quick = await bench.worker(cluster), await bench.worker(cluster)
        landings = []

        async def land(path: str, found: Record) -> bool:
            landings.append(path)
            await asyncio.sleep(2.5)  # more than twice the time after which a silent one is taken for dead
            return True

        monkeypatch.setattr(slow._landing, "land", land)
        monkeypatch.setattr(quick._landing, "land", land)
        stop = asyncio.Event()
        running = [asyncio.create_task(worker.run(stop, patience=5.0)) for worker in (slow, quick)]
        await until(lambda: _is_empty(bench))
        stop.set()
        await asyncio.gather(*running)
    assert len(landings) == 1


async def _is_empty(bench: Bench) -> bool:
    return (await bench.figures()).tasks == 0


async def test_a_worker_that_is_told_to_stop_gives_back_what_it_can_t_finish(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = await bench.front()
    path = bench.path()
    await put(front, path, b"hello")
    async with bench.cluster() as cluster:
        worker = await bench.worker(cluster)
        begun, stop = asyncio.Event(), asyncio.Event()

        async def land(path: str, found: Record) -> bool:
            begun.set()
            await asyncio.sleep(60)
            return True

        monkeypatch.setattr(worker._landing, "land", land)
        running = asyncio.create_task(worker.run(stop, patience=0.1))
        await begun.wait()
        stop.set()
        await running
        store = await bench.store()
        (task,) = await store.take("next", 10)  # at once
        assert task.path == path
        assert worker.name not in (await store.figures()).workers


async def test_an_older_version_never_takes_the_place_of_a_newer_one_on_the_nodes(bench: Bench) -> None:
    path = bench.path()
    key = paths.key_of(path)
    async with bench.cluster() as cluster:
        worker = await bench.worker(cluster)
        for kind in (Kind.FILE, Kind.TOMBSTONE):
            newer, older = made(b"newer", 2_000), made(b"" if kind is Kind.TOMBSTONE else b"older", 1_000, kind)
            await cluster.put(key, record.encode(newer.header, newer.payload))
            assert not await worker._landing.land(path, older)
            found = await cluster.get(key)
            assert found is not None
            assert bytes(found.payload) == b"newer"
        assert await worker._landing.land(path, newer)  # once more changes nothing
        newest = made(b"newest", 3_000)
        assert all(await asyncio.gather(*(worker._landing.land(path, newest) for _ in range(4))))
        assert not await worker._landing.land(path, newer)
        assert await worker._landing.land(path, made(b"", 4_000, Kind.TOMBSTONE))
        found = await cluster.get(key)
        assert found is None or found.header.kind == Kind.TOMBSTONE
        assert not await worker._landing.land(path, newest)


async def test_a_task_whose_record_was_overwritten_meanwhile_moves_nothing(bench: Bench) -> None:
    front = await bench.front()
    path = bench.path()
    await put(front, path, b"1")
    store = await bench.store()
    await store.join()
    (task,) = await store.take("slow", 1)
    await put(front, path, b"2")
    assert not await store.done(path, task.order, task.id)
    assert await read(front, path) == b"2"
    assert await bench.drain() == 0
    assert await read(front, path) == b"2"


@pytest.fixture
async def lone(bench: Bench, tmp_path: Path) -> AsyncIterator[contextlib.ExitStack]:
    """One node of its own, which can be taken away; it is on when this gives."""
    with contextlib.ExitStack() as stack:
        port, _ = stack.enter_context(sfss_node(tmp_path / "node"))
        bench.nodes = [f"127.0.0.1:{port}"]
        yield stack


async def test_while_nodes_are_away_files_wait_without_a_try_being_counted(
    bench: Bench, lone: contextlib.ExitStack, tmp_path: Path
) -> None:
    bench.sections = {"write_behind": {"attempts": 2}, "storage": {"retry_after": 0.2}}
    front = await bench.front()
    path = bench.path()
    port = int(bench.nodes[0].rpartition(":")[2])
    lone.close()
    await until(lambda: _away(front))
    for number in range(3):
        await put(front, f"{path}{number}", b"hello")  # which needs no node
    async with bench.working() as worker:
        await until(lambda: _tried(worker, 9))
        assert await read(front, f"{path}0") == b"hello"
        began = time.monotonic()
        with sfss_node(tmp_path / "node", port=port):
            await until(lambda: _is_empty(bench))
            assert time.monotonic() - began < 10
            assert (worker.stored, worker.buried) == (3, 0)
            assert await read(front, f"{path}0") == b"hello"


async def _away(front: object) -> bool:
    async with front.get("/readyz") as answer:  # type: ignore[attr-defined]
        return bool(answer.status == 503)


async def _tried(worker: Worker, times: int) -> bool:
    return worker.tried_again >= times


async def test_what_fails_with_all_nodes_here_is_tried_again_and_then_a_dead_letter_that_is_still_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.sections = {"write_behind": {"attempts": 3, "longest_pause": 0.3}}
    front = await bench.front()
    path, other = bench.path("bad"), bench.path("good")
    await put(front, path, b"hello")
    await put(front, other, b"hello")
    async with bench.cluster() as cluster:
        worker = await bench.worker(cluster)
        real, tries = worker._landing.land, []

        async def land(path: str, found: Record) -> bool:
            if path == other:
                return await real(path, found)
            tries.append(time.monotonic())
            raise Unavailable("it doesn't work")

        monkeypatch.setattr(worker._landing, "land", land)
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop, patience=5.0))
        await until(lambda: _is_empty(bench))
        stop.set()
        await running
    assert len(tries) == 3
    figures = await bench.figures()
    assert (figures.files, figures.tasks, figures.dead) == (1, 0, 1)
    assert await read(front, path) == b"hello"
    assert await bench.on_nodes(other) is not None
    store = await bench.store()
    (letter,) = await store.letters()
    assert (letter.path, letter.attempts, letter.why) == (path, 3, "it doesn't work")
    async with front.get("/status?format=full") as answer:
        webserver = (await answer.json())["webserver"]
    (state,) = webserver["write_behind"].values()
    assert (state["files"], state["tasks"], state["dead"]) == ("1", "0", "1")
    assert any("sfss worker dead" in warning for warning in webserver["warnings"])
    assert await store.revive(letter)
    assert not await store.revive(letter)
    assert await bench.drain() == 0
    assert (await bench.figures()).files == 0
    assert await read(front, path) == b"hello"


async def test_files_for_nodes_that_are_here_are_moved_past_any_number_of_others(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfss.behind.worker._HELD", 2)
    monkeypatch.setattr("sfss.behind.worker._ROUND", 0.5)
    bench.sections = {"write_behind": {"concurrency": 1}, "storage": {"retry_after": 0.2}}
    with contextlib.ExitStack() as stack:
        gone = stack.enter_context(contextlib.ExitStack())
        ports = [stack.enter_context(sfss_node(tmp_path / "here"))[0], gone.enter_context(sfss_node(tmp_path / "a"))[0]]
        bench.nodes = [f"127.0.0.1:{port}" for port in ports]
        front = await bench.front()
        async with bench.cluster() as cluster:
            of = cluster.topology.place
            gone.close()
            names = [bench.path(f"{number}") for number in range(60)]
            for path in names:
                await put(front, path, b"hello")
            here = [path for path in names if of(paths.key_of(path)).owners[0].address.port == ports[0]]
            assert 10 < len(here) < 50
            async with bench.working() as worker:

                async def are_moved() -> bool:
                    return worker.stored >= len(here)

                await until(are_moved)
                figures = await bench.figures()
                assert (figures.files, figures.tasks, figures.dead) == (60 - len(here), 60 - len(here), 0)
                tried = worker.tried_again
                await asyncio.sleep(1.0)
                assert worker.tried_again - tried < 5 * 60  # it doesn't go round and round
                stack.enter_context(sfss_node(tmp_path / "a", port=ports[1]))
                await until(lambda: _is_empty(bench))
                assert (worker.stored, worker.buried) == (60, 0)


@pytest.mark.parametrize("nodes", [1, 3])
async def test_a_node_that_takes_nothing_for_a_while_makes_no_dead_letters(
    bench: Bench, tmp_path: Path, nodes: int
) -> None:
    bench.sections = {"write_behind": {"attempts": 2, "longest_pause": 0.2}, "storage": {"retry_after": 0.2}}
    quorum = min(nodes, 2)  # more than are left that take anything
    bench.policy = {"copies": nodes, "write_quorum": quorum, "read_quorum": quorum}
    with contextlib.ExitStack() as stack:
        engines = [stack.enter_context(redis(tmp_path / f"{number}")) for number in range(nodes)]
        bench.nodes = [engine.url for engine in engines]
        front = await bench.front()
        path = bench.path()
        await put(front, path, b"hello")
        for engine in engines[-2:]:
            engine.ask("CONFIG", "SET", "min-replicas-to-write", "1")
        async with bench.working() as worker:
            await until(lambda: _tried(worker, 4))
            figures = await bench.figures()
            assert (figures.dead, worker.buried) == (0, 0)
            for engine in engines:
                engine.ask("CONFIG", "SET", "min-replicas-to-write", "0")
            await until(lambda: _is_empty(bench))
            assert (await bench.figures()).files == 0


async def test_what_can_t_ever_be_stored_is_a_dead_letter_at_once_and_may_be_deleted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = await bench.front()
    path = bench.path()
    await put(front, path, b"hello")
    async with bench.cluster() as cluster:
        worker = await bench.worker(cluster)

        async def land(path: str, found: Record) -> bool:
            raise TooLarge("too large for all nodes", limit=1, setting="limits.record_size")

        monkeypatch.setattr(worker._landing, "land", land)
        assert await worker.run_once() == 0
    assert (await bench.figures()).dead == 1
    assert (await front.delete(file_at(path))).status == 204
    assert (await bench.figures()).dead == 0
    assert await bench.drain() == 0
    assert await read(front, path) is None


async def test_the_mark_of_a_deletion_that_has_nothing_s_place_goes_in_its_time(bench: Bench) -> None:
    front = await bench.front()
    path = bench.path()
    await put(front, path, b"hello")
    assert (await front.delete(file_at(path))).status == 204
    assert await bench.drain() == 0
    async with bench.cluster() as cluster:
        (node,) = cluster.topology.place(paths.key_of(path)).owners
        reader, writer = await asyncio.open_connection(node.address.host, node.address.port)
        writer.write(b"mg %s t\r\n" % paths.key_of(path))
        answer = await reader.readline()
        writer.close()
    assert answer.startswith(b"HD t"), answer
    assert 0 < int(answer.split()[1][1:]) <= 86400


async def test_a_copy_on_the_nodes_that_is_damaged_is_replaced(bench: Bench) -> None:
    path = bench.path()
    key = paths.key_of(path)
    async with bench.cluster() as cluster:
        await cluster.put(key, b"SFSS, but damaged, and no record at all")
        worker = await bench.worker(cluster)
        assert await worker._landing.land(path, made(b"sound", 1_000))
        found = await cluster.get(key)
        assert found is not None
        assert bytes(found.payload) == b"sound"


async def test_an_idle_worker_asks_next_to_nothing(bench: Bench) -> None:
    from redis import Redis as Client

    with Client.from_url(bench.url) as client:
        async with bench.working():
            await asyncio.sleep(1.0)
            before = client.info("stats")["total_commands_processed"]
            await asyncio.sleep(2.0)
            assert client.info("stats")["total_commands_processed"] - before < 100  # with claim_after = 1 s


async def test_a_front_may_have_a_worker_in_itself(bench: Bench) -> None:
    bench.sections = {"write_behind": {"embedded": True}}
    front = await bench.front()
    path = bench.path()
    await put(front, path, b"hello")
    await until(lambda: bench.on_nodes(path))
    assert await read(front, path) == b"hello"
    async with front.get("/status?format=full") as answer:
        (state,) = (await answer.json())["webserver"]["write_behind"].values()
    assert len(state["workers"]) == 1


async def test_an_order_as_text_compares_as_it_does() -> None:
    orders = [(1, 2), (1, 2**32 - 1), (2, 0), (10, 0), (2**53, 1)]
    assert sorted(map(text_of, orders)) == [text_of(order) for order in sorted(orders)]


async def test_what_a_dead_worker_had_is_found_behind_all_that_living_ones_have(bench: Bench) -> None:
    front = await bench.front()
    for _ in range(60):
        await put(front, bench.path(), b"x")
    store = await bench.store()
    await store.join()
    tasks = await store.take("dead", 60)
    assert len(tasks) == 60
    await asyncio.sleep(0.3)
    await store.keep("living", tasks[:50])
    taken = await store.take_over("next", 0.25, 2)
    while more := await store.take_over("next", 0.25, 2):
        taken += more
    assert sorted(task.id for task in taken) == sorted(task.id for task in tasks[50:])


async def test_a_cancellation_is_heard_in_whatever_moment_of_a_command_it_comes(bench: Bench) -> None:
    """A worker whose task had lost one waited for it for ever, at its end."""
    store = await bench.store()
    await store.figures()

    async def ask_and_rest() -> None:
        await store.figures()
        await asyncio.sleep(3600)

    for turns in range(40):
        task = asyncio.create_task(ask_and_rest())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5)
        assert done, f"it was cancelled after {turns} turns of the loop"
        assert task.cancelled()
