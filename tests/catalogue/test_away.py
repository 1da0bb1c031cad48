"""What each request does while the catalogue is away, slow or lost: the table in docs/operations/catalogue.rst."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest

from sfss.web.app import CATALOGUE
from tests.catalogue.support import ask, execute, file_at, is_in_order, listed, put, road_to, status, until
from tests.conftest import Client, Nodes, StartFront
from tests.postgres import Postgres
from tests.servers import Service, wait_for

TIMEOUT = 0.5  # seconds, catalogue.timeout
SOON = 0.4  # seconds for a write that waits for no catalogue, on a machine that has other tests to run


class Trouble:
    """A database that can be made to be away; ``url`` is where plain SQL finds it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def away(self) -> AbstractAsyncContextManager[None]:
        """While the block lasts."""
        raise NotImplementedError


class Killed(Trouble):
    """PostgreSQL, killed, and started again."""

    def __init__(self, url: str, server: Postgres) -> None:
        super().__init__(url)
        self.server = server

    @contextlib.asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        self.server.kill()
        yield
        await asyncio.to_thread(self.server.start)


class Frozen(Killed):
    """PostgreSQL, which answers nothing."""

    @contextlib.asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        with self.server.frozen():
            yield


class Locked(Trouble):
    """SQLite, while somebody else writes and doesn't come to an end."""

    @contextlib.asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        file = self.url.removeprefix("sqlite:///")
        connection = sqlite3.connect(file, isolation_level=None, timeout=20, check_same_thread=False)
        await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")  # the front in this loop may have to end first
        yield
        connection.execute("ROLLBACK")
        connection.close()


@pytest.fixture(params=["killed", "frozen", "locked"])
def trouble(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Trouble]:
    if request.param == "locked":
        yield Locked(f"sqlite:///{tmp_path / 'catalogue.db'}")
        return
    server: Postgres = request.getfixturevalue("own_postgres")
    with server.database() as url:
        yield {"killed": Killed, "frozen": Frozen}[request.param](url, server)


@pytest.fixture
async def front(start_front: StartFront, own_nodes: Nodes, trouble: Trouble) -> Client:
    front = await start_front(own_nodes, catalogue={"url": trouble.url, "timeout": TIMEOUT})
    await until(lambda: is_in_order(front))
    return front


async def checksums(url: str) -> dict[str, str]:
    return {row["path"]: row["sha256"] for row in await ask(url, "SELECT * FROM files WHERE state = 'stored'")}


@contextlib.asynccontextmanager
async def quick() -> AsyncIterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SOON


class TestAway:
    async def test_writes_are_acknowledged_and_their_rows_come_later(self, front: Client, trouble: Trouble) -> None:
        stored = {"before": await put(front, "before", b"before"), "gone": await put(front, "gone", b"gone")}
        async with trouble.away():
            began = time.monotonic()
            stored["first"] = await put(front, "first", b"first")
            assert time.monotonic() - began < 2 * TIMEOUT + 2 * SOON
            for number in range(20):
                async with quick():
                    stored[f"{number}"] = await put(front, f"{number}", b"%d" % number)
            async with quick(), front.delete(file_at("gone")) as answer:
                assert answer.status == 204
            del stored["gone"]
            found = await status(front)
            assert found["away"]
            assert int(found["owed"]) >= 20
        await until(lambda: is_in_order(front))
        assert await checksums(trouble.url) == stored

    async def test_reads_go_on_as_ever(self, front: Client, trouble: Trouble) -> None:
        await put(front, "a", b"content")
        async with trouble.away():
            for method in ("GET", "HEAD"):
                async with quick(), front.request(method, file_at("a")) as answer:
                    assert answer.status == 200
            async with quick(), front.get(file_at("none")) as answer:
                assert answer.status == 404

    async def test_lists_are_by_the_nodes_and_whole(self, front: Client, trouble: Trouble) -> None:
        await put(front, "a/1", b"x")
        async with trouble.away():
            await put(front, "a/2", b"x")
            await put(front, "b/3", b"x")
            assert await listed(front) == ["a/1", "a/2", "b/3"]
            assert await listed(front, delimiter="/") == ["a/", "b/"]

    async def test_another_front_lists_no_less_than_was_acknowledged(
        self, start_front: StartFront, own_nodes: Nodes, tmp_path: Path
    ) -> None:
        url = f"sqlite:///{tmp_path / 'catalogue.db'}"
        fronts = [await start_front(own_nodes, catalogue={"url": url, "timeout": TIMEOUT}) for _ in range(2)]
        for each in fronts:
            await until(lambda each=each: is_in_order(each))  # type: ignore[misc]
        async with Locked(url).away():  # the other one can read, and doesn't write: it doesn't notice
            await put(fronts[0], "owed", b"x")
            assert (await status(fronts[1]))["away"] == ""
            assert await listed(fronts[1]) == ["owed"]
        await until(lambda: is_in_order(fronts[0]))
        assert await listed(fronts[1]) == ["owed"]

    async def test_a_search_says_that_it_cannot_be_had(self, front: Client, trouble: Trouble) -> None:
        async with trouble.away():
            await put(front, "a", b"x")
            async with front.get("/files?search=a") as answer:
                assert answer.status == 504
                assert (await answer.json())["type"] == "urn:sfss:catalogue-away"
                assert "Retry-After" in answer.headers

    async def test_a_front_starts_and_stores_and_catches_up(
        self, start_front: StartFront, own_nodes: Nodes, trouble: Trouble
    ) -> None:
        settings = {"url": trouble.url, "timeout": TIMEOUT}
        await start_front(own_nodes, catalogue=settings)  # so that SQLite has a file that can be locked
        async with trouble.away():
            front = await start_front(own_nodes, catalogue=settings)
            stored = {"a": await put(front, "a", b"a")}
            assert await listed(front) == ["a"]
        await until(lambda: is_in_order(front))
        assert await checksums(trouble.url) == stored

    async def test_more_than_can_be_owed_is_made_up_for_by_a_reindex(
        self, start_front: StartFront, own_nodes: Nodes, trouble: Trouble
    ) -> None:
        front = await start_front(own_nodes, catalogue={"url": trouble.url, "timeout": TIMEOUT, "owed": 5})
        await until(lambda: is_in_order(front))
        async with trouble.away():
            stored = {f"{number}": await put(front, f"{number}", b"%d" % number) for number in range(30)}
            assert (await status(front))["owed"] == "5"

        async def is_whole() -> bool:
            return await is_in_order(front) and await checksums(trouble.url) == stored

        await until(is_whole)


class TestEnds:
    async def test_a_front_that_ends_owing_rows_leaves_word_of_it(
        self, start_front: StartFront, own_nodes: Nodes, own_postgres: Postgres, tmp_path: Path
    ) -> None:
        with own_postgres.database() as url:
            settings = {"SFSS_CATALOGUE_URL": url, "SFSS_STORAGE_NODES": ",".join(own_nodes)}
            with Service(tmp_path, settings=settings) as service, contextlib.nullcontext():
                async with aiohttp.ClientSession(service.url) as client:
                    own_postgres.kill()
                    async with client.put(file_at("a"), data=b"a") as answer:
                        assert answer.status == 200
                await asyncio.to_thread(service.stop)
            own_postgres.start()
            front = await start_front(own_nodes, catalogue={"url": url})

            async def is_whole() -> bool:
                return list(await checksums(url)) == ["a"]

            await until(is_whole)
            await until(lambda: is_in_order(front))

    @pytest.mark.parametrize("kill", [True, False])
    async def test_a_crash_is_seen_and_mended_and_a_clean_end_is_none(
        self, start_front: StartFront, own_nodes: Nodes, url: str, tmp_path: Path, kill: bool
    ) -> None:
        settings = {"SFSS_CATALOGUE_URL": url, "SFSS_STORAGE_NODES": ",".join(own_nodes)}
        with Service(tmp_path, settings=settings) as service:
            async with aiohttp.ClientSession(service.url) as client, client.put(file_at("a"), data=b"a") as answer:
                assert answer.status == 200
            wait_for(lambda: "was different" in service.log.read_text() or "were different" in service.log.read_text())
            assert service.process is not None
            if kill:
                service.process.kill()
                await asyncio.to_thread(service.process.wait)
            else:
                await asyncio.to_thread(service.stop)
        left = await ask(url, "SELECT * FROM fronts")
        assert len(left) == kill
        await execute(url, "DELETE FROM files")  # as if the crash had come before the row
        front = await start_front(own_nodes, catalogue={"url": url})
        await until(lambda: is_in_order(front))
        if kill:

            async def is_mended() -> bool:
                fronts = await ask(url, "SELECT * FROM fronts")
                return len(fronts) == 1 and list(await checksums(url)) == ["a"]

            await until(is_mended)


class TestLost:
    async def test_a_database_that_is_lost_is_made_anew(
        self, start_front: StartFront, own_nodes: Nodes, url: str
    ) -> None:
        front = await start_front(own_nodes, catalogue={"url": url, "timeout": TIMEOUT})
        await until(lambda: is_in_order(front))
        stored = {name: await put(front, name, name.encode()) for name in "abc"}
        front.app[CATALOGUE].mirror("namespaces", [{"name": "pics", "enabled": True}])
        await lose(url)
        async with front.get(file_at("a")) as answer:
            assert await answer.read() == b"a"
        stored["d"] = await put(front, "d", b"d")
        assert await listed(front) == ["a", "b", "c", "d"]

        async def is_whole() -> bool:
            with contextlib.suppress(Exception):  # while there are no tables yet
                names = [row["name"] for row in await ask(url, "SELECT name FROM namespaces")]
                return await is_in_order(front) and await checksums(url) == stored and names == ["pics"]
            return False

        await until(is_whole)
        assert await listed(front) == ["a", "b", "c", "d"]

    async def test_one_that_was_restored_from_a_backup_is_brought_up_to_date(
        self, start_front: StartFront, own_nodes: Nodes, url: str
    ) -> None:
        front = await start_front(own_nodes, catalogue={"url": url})
        await until(lambda: is_in_order(front))
        stored = {"a": await put(front, "a", b"a")}
        await execute(
            url, "DELETE FROM files", "DELETE FROM places", "DELETE FROM fronts"
        )  # as it was before all of them

        async def is_whole() -> bool:
            pieces = await ask(url, "SELECT DISTINCT path FROM pieces")
            return await checksums(url) == stored and [piece["path"] for piece in pieces] == ["a"]

        await until(is_whole, timeout=60)


async def lose(url: str) -> None:
    """Take the whole database away."""
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).unlink(missing_ok=True)  # it may not have been made anew yet
    else:
        await execute(url, "DROP SCHEMA public CASCADE")


class Load:
    """Clients that store, overwrite, read and delete files, each its own, and note what they were told."""

    def __init__(self, front: Client) -> None:
        self._front = front
        self.there: dict[str, bytes | None] = {}
        self.requests = 0
        self.slowest = 0.0
        self._stop = False

    @contextlib.asynccontextmanager
    async def going(self, clients: int = 8) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._go_on(f"load/{number}"))
            try:
                yield
            finally:
                self._stop = True

    async def _go_on(self, folder: str) -> None:
        chance = random.Random(folder)
        while not self._stop:
            path = f"{folder}/{chance.randrange(30)}"
            there = self.there.get(path)
            began = time.monotonic()
            what = chance.random()
            if what < 0.6:
                content = secrets.token_bytes(chance.choice((10, 4096, 70_000)))
                async with self._front.put(file_at(path), data=content) as answer:
                    assert answer.status == 200, await answer.text()
                self.there[path] = content
            elif what < 0.7 and there is not None:
                async with self._front.delete(file_at(path)) as answer:
                    assert answer.status == 204, await answer.text()
                self.there[path] = None
            else:
                async with self._front.get(file_at(path)) as answer:
                    assert (await answer.read() if answer.status == 200 else None) == there
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.requests += 1

    async def settled(self, url: str) -> None:
        """Come back when the catalogue is in order, and has so many files as there should be."""
        count = sum(content is not None for content in self.there.values())

        async def is_settled() -> bool:
            with contextlib.suppress(Exception):  # while there are no tables yet
                return await is_in_order(self._front) and len(await checksums(url)) == count
            return False

        await until(is_settled)

    async def check(self, url: str) -> None:
        """Every file is there, and readable, and its checksum stands in the catalogue; and there is nothing else."""
        for path, content in self.there.items():
            async with self._front.get(file_at(path)) as answer:
                assert (await answer.read() if answer.status == 200 else None) == content, path
        expected = {
            path: hashlib.sha256(content).hexdigest() for path, content in self.there.items() if content is not None
        }
        found = await checksums(url)
        assert found == expected
        pieces = await ask(url, "SELECT path, sum(size) AS size FROM pieces WHERE copy = 0 GROUP BY path")
        assert {row["path"]: int(row["size"]) for row in pieces} == {
            path: len(content) for path, content in self.there.items() if content is not None
        }


class TestUnderLoad:
    async def test_a_catalogue_that_is_killed_and_lost_again_and_again_loses_no_file(
        self, start_front: StartFront, own_nodes: Nodes, own_postgres: Postgres, long: bool
    ) -> None:
        with own_postgres.database() as url:
            front = await start_front(own_nodes, catalogue={"url": url, "timeout": TIMEOUT})
            await until(lambda: is_in_order(front))
            load = Load(front)
            async with load.going():
                for _ in range(10 if long else 2):
                    await asyncio.sleep(0.5)
                    own_postgres.kill()
                    await asyncio.sleep(0.5)
                    await asyncio.to_thread(own_postgres.start)
                    await asyncio.sleep(1.5)
                    await execute(url, "DROP SCHEMA public CASCADE")
                    await asyncio.sleep(1.5)
                    with own_postgres.frozen():
                        await asyncio.sleep(1.0)
                    await asyncio.sleep(1.0)
            assert load.requests > 100
            await load.settled(url)
            await load.check(url)

    async def test_a_file_that_is_removed_again_and_again_loses_no_file(
        self, start_front: StartFront, own_nodes: Nodes, tmp_path: Path
    ) -> None:
        url = f"sqlite:///{tmp_path / 'catalogue.db'}"
        front = await start_front(own_nodes, catalogue={"url": url, "timeout": TIMEOUT})
        await until(lambda: is_in_order(front))
        load = Load(front)
        async with load.going():
            for _ in range(3):
                await asyncio.sleep(1.0)
                await lose(url)
        await load.settled(url)
        await load.check(url)


async def test_a_front_that_is_cut_off_from_the_database_owes_rows_and_the_others_know(
    start_front: StartFront, own_nodes: Nodes, shared_postgres: Postgres
) -> None:
    with shared_postgres.database() as url:
        async with road_to(shared_postgres.port) as road:
            far = url.replace(f":{shared_postgres.port}/", f":{road.port}/")
            cut_off = await start_front(own_nodes, catalogue={"url": far, "timeout": TIMEOUT})
            other = await start_front(own_nodes, catalogue={"url": url, "timeout": TIMEOUT})
            for each in (cut_off, other):
                await until(lambda each=each: is_in_order(each))  # type: ignore[misc]
            road.cut()
            await put(cut_off, "a", b"x")
            assert await listed(other) == ["a"]
            assert await checksums(url) == {}
            road.is_open = True
            await until(lambda: is_in_order(cut_off))
            assert list(await checksums(url)) == ["a"]
