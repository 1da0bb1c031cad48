"""Fronts that don't let everybody do everything, and what is sent to them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from aiohttp import ClientResponse
from yarl import URL

from sfss import config
from sfss.access import keys, signing
from sfss.access.keys import ADMIN, READ, WRITE, Scope
from sfss.registry import Document
from sfss.web.app import REGISTRY, reload
from tests.conftest import Client, Nodes
from tests.servers import HOST
from tests.web.raw import Answer, Raw, request
from tests.web.tus import Tus

SECRET = "a-signing-secret-of-the-tests"
CONTENT = b"what nobody else may see"
WAYS: dict[str, tuple[str, ...]] = {"quick": (), "aiohttp": ("Trailer: X-None",)}
LARGE = {"limits": {"max_file_size": "8MiB", "record_size": "64KiB"}}  # files of several blocks


class Front:
    """A front that doesn't let everybody do everything, and a folder on it that no other test has."""

    def __init__(self, client: Client, nodes: Nodes) -> None:
        self.client = client
        self.nodes = nodes
        self.made: set[str] = set()
        self.folder = secrets.token_hex(6)
        self.inner = f"{self.folder}/in/"
        self.outer = f"{self.folder}/out/secret"

    @property
    def document(self) -> Document[keys.Keys]:
        return self.client.app[REGISTRY]._documents[keys.NAME][0]  # type: ignore[no-any-return]

    async def key(self, *scopes: Scope, lifetime: float | None = None) -> str:
        """A new key, known to this front at once; its Authorization line."""
        made = keys.make("", scopes, now=time.time(), lifetime=lifetime)
        self.made.add(made.id)
        await self.client.app[REGISTRY].change(self.document, lambda known: {**known, made.id: made.key})
        return f"Authorization: Bearer {made.text}"

    async def change(self, edit: Callable[[keys.Key], keys.Key], line: str) -> None:
        id = line.split("_")[1]
        registry = self.client.app[REGISTRY]
        await registry.change(self.document, lambda known: {**known, id: edit(known[id])})

    async def forget_keys(self) -> None:
        """Leave the nodes to the next test as they were."""
        await self.client.app[REGISTRY].change(
            self.document, lambda known: {id: key for id, key in known.items() if id not in self.made}
        )

    async def reload(self, **access: Any) -> None:
        await reload(self.client.app, config.load(overrides={"storage": {"nodes": self.nodes}, "access": access}))

    async def ask(self, method: str, url: str, *lines: str, body: bytes = b"", source: str = HOST) -> Answer:
        """One request, on a connection of its own."""
        reader, writer = await asyncio.open_connection(self.client.host, self.client.port, local_addr=(source, 0))
        raw = Raw(reader, writer)
        try:
            raw.writer.write(request(method, url, *lines, body=body))
            return await raw.answer(bodiless=method == "HEAD")
        finally:
            raw.close()

    async def status(self, method: str, url: str, *lines: str, **options: Any) -> int:
        return (await self.ask(method, url, *lines, **options)).status

    async def store(self) -> str:
        """Put a file inside the key's scope and one outside; the line of a key that may everything."""
        master = await self.key(Scope("", (READ, WRITE, ADMIN)))
        for path in (f"{self.inner}mine", self.outer):
            assert await self.status("PUT", f"/file?path={path}", master, body=CONTENT) == 200
        return master


class WithKey(Tus):
    """A client of uploads that shows a key; none, if its line is ""."""

    def __init__(self, front: Front, line: str) -> None:
        super().__init__(front.client)
        self.shown = {"Authorization": line.partition(": ")[2]} if line else {}

    async def request(
        self, method: str, url: str | URL, headers: dict[str, Any] | None = None, body: Any = None
    ) -> ClientResponse:
        return await super().request(method, url, {**(headers or {}), **self.shown}, body)


def url_signed(path: str, method: str = "GET", *, life: float = 60, secret: str = SECRET) -> str:
    signed = signing.sign(secret, method, path, int(time.time() + life))
    return f"/file?path={quote(path)}&expires={signed.expires}&signature={signed.signature}"


Start = Callable[..., Awaitable[Front]]
