"""What the tests of write-behind share."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from aiohttp import ClientResponse
from yarl import URL

from sfss import config
from sfss.assembly import create_cluster, short_term
from sfss.behind.landing import Landing
from sfss.behind.states import Figures
from sfss.behind.store import ShortTerm
from sfss.behind.worker import Worker
from sfss.cluster.replication import Cluster
from sfss.config import Settings
from sfss.policies import Policies
from sfss.record import Header, Kind, Record
from sfss.stripes import Stripes
from tests.conftest import Client, Nodes, StartFront

MIB = 2**20


def file_at(path: str) -> URL:
    return URL("/file").with_query(path=path)


async def until(condition: Callable[[], Awaitable[object]], timeout: float = 20.0) -> None:
    """Come back when it holds."""
    async with asyncio.timeout(timeout):
        while not await condition():
            await asyncio.sleep(0.02)


async def put(front: Client, path: str, content: bytes, **headers: str) -> str:
    """ShortTerm a file; its ETag."""
    async with front.put(file_at(path), data=content, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return answer.headers["ETag"]


async def read(front: Client, path: str) -> bytes | None:
    """A file; None if there is none."""
    async with front.get(file_at(path)) as answer:
        assert answer.status in (200, 404), await answer.text()
        return await answer.read() if answer.status == 200 else None


async def status(request: AbstractAsyncContextManager[ClientResponse]) -> int:
    """Of an answer that is read to its end."""
    async with request as answer:
        await answer.read()
        return answer.status


class Upload:
    """A resumable upload to a path, of content that comes in one go."""

    _TUS: Final = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}

    def __init__(self, front: Client, where: str, content: bytes) -> None:
        self._front = front
        self._where = where
        self._content = content

    @classmethod
    async def begun(cls, front: Client, path: str, content: bytes, **headers: str) -> Upload:
        """One that has no byte yet."""
        about = f"path {base64.b64encode(path.encode()).decode()}"
        told = {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(content)), "Upload-Metadata": about, **headers}
        async with front.post("/uploads", headers=told) as answer:
            assert answer.status == 201, await answer.text()
            return cls(front, answer.headers["Location"], content)

    async def send(self) -> int:
        """All bytes; the status."""
        return await self._patch(self._front, self._content, 0)

    async def end(self, front: Client | None = None) -> int:
        """Ask for the file once more, when all bytes are there; the status."""
        return await self._patch(front or self._front, b"", len(self._content))

    async def look(self, front: Client | None = None) -> int:
        """The status that it is told with."""
        return await status((front or self._front).head(self._where, headers={"Tus-Resumable": "1.0.0"}))

    async def _patch(self, front: Client, content: bytes, offset: int) -> int:
        return await status(front.patch(self._where, data=content, headers={**self._TUS, "Upload-Offset": str(offset)}))


async def listed(front: Client, **query: str) -> list[str]:
    """The paths of a list, and its folders."""
    async with front.get(URL("/files").with_query(query)) as answer:
        assert answer.status == 200, await answer.text()
        page = await answer.json()
        return sorted([*(file["path"] for file in page["files"]), *page.get("prefixes", ())])


class Bench:
    """Fronts that write behind under ``prefix``, and what is behind them."""

    def __init__(self, nodes: Nodes, url: str, start_front: StartFront) -> None:
        self.nodes = nodes
        self.url = url
        self.prefix = f"behind-{secrets.token_hex(6)}/"
        self._start_front = start_front
        self._stack = contextlib.AsyncExitStack()
        self._stores: dict[str, ShortTerm] = {}
        self.policy: dict[str, Any] = {}
        self.sections: dict[str, Any] = {}

    def path(self, name: str = "") -> str:
        """A path that is written behind."""
        return self.prefix + (name or secrets.token_hex(6))

    @property
    def _told(self) -> dict[str, Any]:
        sections = {**self.sections}
        sections["write_behind"] = {"timeout": 5.0, "claim_after": 1.0, **sections.get("write_behind", {})}
        policy = {"prefix": self.prefix, "write_behind": self.url, **self.policy}
        return {**sections, "policy": [policy, *sections.get("policy", [])]}

    async def front(self, **sections: Any) -> Client:
        """One more front."""
        return await self._start_front(self.nodes, **{**self._told, **sections})

    @property
    def settings(self) -> Settings:
        """Those of fronts, for what is made without one."""
        storage = {"nodes": self.nodes, "timeout": 10.0, **self.sections.get("storage", {})}
        return config.load(overrides={**self._told, "storage": storage})

    @contextlib.asynccontextmanager
    async def cluster(self) -> AsyncIterator[Cluster]:
        """The nodes, past all that waits."""
        cluster = create_cluster(self.settings)
        await cluster.start()
        try:
            yield cluster
        finally:
            await cluster.close()

    async def store(self) -> ShortTerm:
        """The short-term store, past all fronts."""
        if (store := self._stores.get(self.url)) is not None:
            return store
        store = self._stores[self.url] = short_term(self.settings, self.url)
        await store.start()
        self._stack.push_async_callback(store.close)
        return store

    async def worker(self, cluster: Cluster, **more: Any) -> Worker:
        """A worker, which doesn't run yet."""
        settings = self.settings
        stripes = Stripes(cluster, settings.limits)
        self._stack.push_async_callback(stripes.close)
        landing = Landing(cluster, stripes, Policies(settings), more.get("catalogue"))
        return Worker(await self.store(), landing, cluster, settings.write_behind)

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[Worker]:
        """A worker that works."""
        stop = asyncio.Event()
        async with self.cluster() as cluster:
            worker = await self.worker(cluster)
            running = asyncio.create_task(worker.run(stop, patience=10.0))
            try:
                yield worker
            finally:
                stop.set()
                await running

    async def drain(self) -> int:
        """Move all that waits, once; how much is left."""
        async with self.cluster() as cluster:
            worker = await self.worker(cluster)
            return await worker.run_once()

    async def figures(self) -> Figures:
        """How the store is."""
        store = await self.store()
        return await store.figures()

    async def on_nodes(self, path: str) -> Record | None:
        """The record that the nodes have; None if they have none, or a tombstone."""
        from sfss import paths

        async with self.cluster() as cluster:
            found = await cluster.get(paths.key_of(path))
        return None if found is None or found.header.kind == Kind.TOMBSTONE else found

    async def header(self, path: str) -> Header:
        """Its header."""
        found = await self.on_nodes(path)
        assert found is not None
        return found.header

    async def close(self) -> None:
        """Disconnect."""
        await self._stack.aclose()
