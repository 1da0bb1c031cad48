"""What is on its way to the nodes, and is refused there, or left there: it is given up only if it never had its turn.

Fronts, workers and who helps land one record at once, stand still, and are refused by nodes that are full.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sfss import paths, record
from sfss.backends.base import Backend
from sfss.behind import store as behind_store
from sfss.behind.landing import Landing
from sfss.behind.pending import Pending
from sfss.behind.states import Task, text_of
from sfss.behind.store import ShortTerm
from sfss.cluster import copies, replication, spread
from sfss.errors import OutOfSpace, Unavailable
from sfss.record import Header, Kind, Record
from tests.behind.support import Bench, Upload, file_at, put, read, status
from tests.large.support import content_of

KIB = 1024
CREATE = {"If-None-Match": "*"}


@pytest.fixture(autouse=True)
def limits(bench: Bench) -> None:
    bench.sections = {
        "limits": {"record_size": "64KiB", "max_file_size": "64MiB", "linger": 0.0},
        "storage": {"copies": 3, "write_quorum": 2, "read_quorum": 2},
    }


class Still:
    """Somebody who stands still until he is to go on."""

    def __init__(self) -> None:
        self.stands = asyncio.Event()
        self._goes_on = asyncio.Event()

    async def here(self) -> None:
        """Stand still."""
        self.stands.set()
        await self._goes_on.wait()

    def go_on(self) -> None:
        self._goes_on.set()


def landing_of_blocks(patch: pytest.MonkeyPatch, *before: Callable[[], Any]) -> None:
    """What happens before the first landing of a record of blocks, and before the second; then they go on as ever."""
    land, rest = Landing.land, list(before)

    async def first_that(landing: Landing, path: str, found: Record) -> bool:
        if found.header.kind == Kind.MANIFEST and rest:
            await rest.pop(0)()
        return await land(landing, path, found)

    patch.setattr(Landing, "land", first_that)


async def full() -> None:
    raise OutOfSpace("full")


async def dead() -> None:
    raise Unavailable("it has died")


class Full:
    """While it is, all nodes but those that decide have no room for a record of blocks."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.is_full = True
        put_upon, put_newer = spread.put_upon, spread.put_newer

        async def upon(node: Backend, key: bytes, data: bytes, version: Header, state: spread.Upon) -> bool:
            self._check(version)
            return await put_upon(node, key, data, version, state)

        async def newer(node: Backend, key: bytes, data: bytes, version: Header) -> bool:
            self._check(version)
            return await put_newer(node, key, data, version)

        patch.setattr(spread, "put_upon", upon)
        patch.setattr(spread, "put_newer", newer)
        patch.setattr(replication, "put_newer", newer)
        patch.setattr(copies, "put_newer", newer)

    def _check(self, version: Header) -> None:
        if self.is_full and version.kind == Kind.MANIFEST:
            raise OutOfSpace("full")


def decided(patch: pytest.MonkeyPatch) -> Still:
    """The first to write upon a condition stands still when that is decided."""
    still, put_if = Still(), Pending.put_if

    async def later(pending: Pending, key: bytes, data: bytes, token: Any) -> bool:
        if not still.stands.is_set():
            await still.here()
        return await put_if(pending, key, data, token)

    patch.setattr(Pending, "put_if", later)
    return still


async def take(bench: Bench) -> Task:
    """A worker takes a task: the last that there is."""
    return (await (await bench.store()).take("w", 10))[-1]


# --- refused ---


async def test_who_finds_no_record_to_his_task_takes_away_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the same record, of an upload that has come again in the same order with another task, nor what waits."""
    front, store = await bench.front(), await bench.store()
    path, content, worker_s = bench.path(), content_of("tus", 200 * KIB), Still()
    await put(front, path, b"acknowledged")
    await store.join()
    tasks: list[Task] = []
    working: list[asyncio.Task[bool]] = []
    of = ShortTerm.of

    async def slow_of(self: ShortTerm, path: str, order: bytes) -> Any:
        found = await of(self, path, order)
        if self is store and found is None:
            await worker_s.here()
        return found

    async def takes_it_and_is_full() -> None:
        tasks.append(await take(bench))
        await full()

    async def goes_on_and_is_full() -> None:
        worker_s.go_on()
        await asyncio.gather(*working)
        await full()

    landing_of_blocks(monkeypatch, takes_it_and_is_full, goes_on_and_is_full)
    upload = await Upload.begun(front, path, content)
    assert await upload.send() == 507
    monkeypatch.setattr(ShortTerm, "of", slow_of)
    async with bench.cluster() as cluster:
        worker = await bench.worker(cluster)
        working.append(asyncio.create_task(worker._try(tasks[0])))
        await worker_s.stands.wait()
        assert await upload.end() == 507
    assert await read(front, path) == b"acknowledged"
    assert (await bench.figures())[:3] == (1, 12 + (await size_of_header(bench, path)), 1)


async def size_of_header(bench: Bench, path: str) -> int:
    data = await (await bench.store()).head(path)
    assert data is not None
    return len(data)


async def test_whom_nodes_refuse_gives_nothing_up_that_its_front_is_landing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that create one file one does."""
    front, other = await bench.front(), await bench.front()
    path, large, still = bench.path(), content_of("large", 200 * KIB), Still()
    landing_of_blocks(monkeypatch, still.here, full)
    slow = asyncio.create_task(status(front.put(file_at(path), data=large, headers=CREATE)))
    await still.stands.wait()
    assert await status(other.put(file_at(path), data=b"small", headers=CREATE)) == 504  # it is there, or will be
    assert await read(other, path) is None
    still.go_on()
    assert await slow == 200
    assert await status(other.put(file_at(path), data=b"small", headers=CREATE)) == 412
    assert (await read(other, path) == large) is True
    assert await bench.drain() == 0
    assert (await bench.figures())[:3] == (0, 0, 0)


async def test_507_is_only_said_when_no_worker_is_landing_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    front = await bench.front()
    path, large, still = bench.path(), content_of("large", 200 * KIB), Still()
    await put(front, path, b"acknowledged")
    await (await bench.store()).join()
    working: list[asyncio.Task[bool]] = []
    async with bench.cluster() as cluster:
        worker = await bench.worker(cluster)

        async def at_work_and_full() -> None:
            working.append(asyncio.create_task(worker._try(await take(bench))))
            await still.stands.wait()
            await full()

        landing_of_blocks(monkeypatch, at_work_and_full, still.here)
        assert await status(front.put(file_at(path), data=large)) == 504  # for it comes after all
        assert await read(front, path) == b"acknowledged"
        still.go_on()
        assert await working[0]
    assert (await read(front, path) == large) is True
    assert await bench.drain() == 0
    assert (await read(front, path) == large) is True


async def test_whoever_is_refused_last_gives_it_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    front = await bench.front()
    path, large, still = bench.path(), content_of("large", 200 * KIB), Still()
    await put(front, path, b"acknowledged")
    await bench.drain()
    working: list[asyncio.Task[bool]] = []
    async with bench.cluster() as cluster:
        worker = await bench.worker(cluster)

        async def at_work_and_full() -> None:
            working.append(asyncio.create_task(worker._try(await take(bench))))
            await still.stands.wait()
            await full()

        async def slowly_full() -> None:
            await still.here()
            await full()

        landing_of_blocks(monkeypatch, at_work_and_full, slowly_full)
        assert await status(front.put(file_at(path), data=large)) == 504
        assert (await bench.figures()).tasks == 1
        still.go_on()
        assert await working[0]
    assert (await bench.figures())[:3] == (0, 0, 0)
    assert await read(front, path) == b"acknowledged"


async def test_what_a_dead_front_may_have_stored_isn_t_given_up_by_whom_nodes_refuse(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, other = await bench.front(), await bench.front()
    path, large = bench.path(), content_of("large", 200 * KIB)
    was = await put(front, path, b"acknowledged")
    landing_of_blocks(monkeypatch, dead, full, full)
    assert await status(front.put(file_at(path), data=large)) == 504
    assert await status(other.put(file_at(path), data=b"next", headers={"If-Match": was})) == 504
    assert await bench.drain() == 1
    assert await bench.drain() == 0  # there is room
    assert (await read(other, path) == large) is True


async def test_what_some_nodes_have_taken_isn_t_507_and_comes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    front = await bench.front()
    path, large, nodes = bench.path(), content_of("large", 200 * KIB), Full(monkeypatch)
    await put(front, path, b"acknowledged")
    assert await status(front.put(file_at(path), data=large)) == 504
    assert await read(front, path) == b"acknowledged"
    assert await bench.drain() == 2  # its task, and that of what waits
    assert await read(front, path) == b"acknowledged"
    nodes.is_full = False
    assert await bench.drain() == 0
    assert (await read(front, path) == large) is True
    assert (await bench.figures())[:3] == (0, 0, 0)


@pytest.mark.parametrize("before", ["moved", "waits"])
async def test_a_condition_that_was_decided_before_some_nodes_took_another_file_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    front, other = await bench.front(), await bench.front()
    path, large = bench.path(), content_of("large", 200 * KIB)
    was = await put(front, path, b"one")
    if before == "moved":
        assert await bench.drain() == 0
    nodes, still = Full(monkeypatch), decided(monkeypatch)
    slow = asyncio.create_task(status(front.put(file_at(path), data=b"two", headers={"If-Match": was})))
    await still.stands.wait()
    assert await status(other.put(file_at(path), data=large)) == 504
    still.go_on()
    assert await slow == 504  # that one comes first, and can't yet
    nodes.is_full = False
    assert await bench.drain() == 0
    assert (await read(other, path) == large) is True


async def test_a_creation_isn_t_acknowledged_behind_one_that_some_nodes_have(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, other = await bench.front(), await bench.front()
    path, first, second = bench.path(), content_of("first", 200 * KIB), content_of("second", 200 * KIB)
    nodes, still = Full(monkeypatch), decided(monkeypatch)
    slow = asyncio.create_task(status(front.put(file_at(path), data=first, headers=CREATE)))
    await still.stands.wait()
    assert await status(other.put(file_at(path), data=second)) == 504
    nodes.is_full = False
    still.go_on()
    assert await slow == 412
    assert (await read(other, path) == second) is True


# --- what was decided upon something that was dropped ---


async def test_what_was_decided_upon_a_record_that_was_overtaken_on_the_nodes_is_decided_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, other = await bench.front(), await bench.front()
    path = bench.path()
    was = await put(front, path, b"waits")
    still = decided(monkeypatch)
    slow = asyncio.create_task(status(front.put(file_at(path), data=b"next", headers={"If-Match": was})))
    await still.stands.wait()
    async with bench.cluster() as cluster:  # past the store, as no front does
        header, payload = record.of_state(Kind.FILE, b"newer", cluster.now() + 10_000_000, 7)[0], b"newer"
        await cluster.put(paths.key_of(path), record.encode(header, payload))
    assert await bench.drain() == 0
    assert await read(other, path) == b"newer"
    still.go_on()
    assert await slow == 412
    assert await read(other, path) == b"newer"


# --- left there ---


@pytest.mark.parametrize("headers", [{}, CREATE], ids=["put", "create"])
@pytest.mark.parametrize("then", ["nothing", "create"])
async def test_a_front_that_comes_back_when_its_file_was_given_up_says_that_it_knows_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, then: str, headers: dict[str, str]
) -> None:
    front, other = await bench.front(), await bench.front()
    path, large, still = bench.path(), content_of("large", 200 * KIB), Still()
    landing_of_blocks(monkeypatch, still.here)
    slow = asyncio.create_task(status(front.put(file_at(path), data=large, headers=headers)))
    await still.stands.wait()
    with monkeypatch.context() as patch:
        patch.setattr(Landing, "may_be_swept", lambda *_: True)
        patch.setattr(Landing, "is_forsaken", lambda *_: True)
        assert await bench.drain() == 0
        if then == "create":
            await put(other, path, b"small", **CREATE)
    assert await bench.drain() == 0
    still.go_on()
    assert await slow == 504
    if then == "create":
        assert await read(other, path) == b"small"


async def test_of_several_that_were_given_up_each_front_learns_of_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, path = await bench.store(), bench.path()
    orders = [(number, 1) for number in (5, 7, 6)]
    for order in orders:
        await store.accept(path, order, b"h", b"p", expected="", going=True)
        assert await store.give_up(path, text_of(order))
    assert [await store.is_given_up(path, text_of(order)) for order in orders] == [True] * 3
    assert not await store.is_given_up(path, text_of((8, 1)))
    monkeypatch.setattr(behind_store, "UNDONE_TTL", 1)
    await store.accept(path, (9, 1), b"h", b"p", expected="", going=True)
    assert await store.give_up(path, text_of((9, 1)))
    await asyncio.sleep(1.1)
    assert not await store.is_given_up(path, text_of((9, 1)))
    assert (await bench.figures())[:3] == (0, 0, 0)


async def test_since_when_it_is_forsaken_is_counted_by_the_store_and_from_its_front_s_last_coming(
    bench: Bench,
) -> None:
    """Not from the moment in which its task was given back."""
    store, path, order = await bench.store(), bench.path(), (5, 1)
    await store.join()
    await store.accept(path, order, b"h", b"p", going=True)

    async def seconds() -> float:
        found = await store.of(path, text_of(order))
        assert found is not None
        assert found[1] is not None
        return found[1]

    assert 0 <= await seconds() < 2
    began = await seconds()
    (task,) = await store.take("w", 1)
    await asyncio.sleep(1.1)
    assert await store.give_back(task) is not None
    assert await seconds() > began + 1
    await asyncio.sleep(1.1)
    before = await seconds()
    await store.accept(path, order, b"h", b"p", going=True)
    assert await seconds() < before - 1
