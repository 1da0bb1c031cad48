"""The karma8 service (docs/karma8.rst): over six real nodes, as conf/karma8.toml sets it up."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from sfss import config, record
from sfss.access import keys
from sfss.access.keys import Scope
from sfss.paths import key_of
from sfss.web.app import CLUSTER, REGISTRY
from tests.cluster.support import until
from tests.conftest import Client, StartFront
from tests.large.support import MIB, blocks_on, connected, content_of
from tests.servers import HOST, free_port, sfss_node
from tests.test_cli import run

CONF = Path(__file__).resolve().parent.parent / "conf" / "karma8.toml"
PIECES, SERVERS = 5, 6


class Servers:
    """The six, which may be killed and come back with what they had."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ports = [free_port() for _ in range(SERVERS)]
        self._running: dict[int, tuple[contextlib.ExitStack, Any]] = {}
        self.addresses = [f"{HOST}:{port}" for port in self._ports]

    @property
    def names(self) -> list[str]:
        """As the configuration has them."""
        return [f"storage{number + 1}={address}" for number, address in enumerate(self.addresses)]

    def start(self, *numbers: int) -> None:
        for number in numbers or range(SERVERS):
            stack = contextlib.ExitStack()
            data, port = self._directory / f"storage{number + 1}", self._ports[number]
            self._running[number] = stack, stack.enter_context(sfss_node(data, "--durability", "os", port=port))[1]

    def kill(self, *numbers: int) -> None:
        for number in numbers:
            stack, child = self._running.pop(number)
            child.kill()
            stack.close()

    def stop(self) -> None:
        self.kill(*list(self._running))


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    six = Servers(tmp_path)
    try:
        six.start()
        yield six
    finally:
        six.stop()


@pytest.fixture
async def gateway(servers: Servers, start_front: StartFront) -> Client:
    with CONF.open("rb") as file:
        sections = tomllib.load(file)
    del sections["server"], sections["storage"]["nodes"]
    sections["storage"] |= {"retry_after": 0.2, "timeout": 2.0}
    return await start_front(servers.names, **sections)


def test_its_configuration_is_five_pieces_on_six_servers() -> None:
    settings = config.load(str(CONF))
    assert len(settings.nodes) == SERVERS > PIECES
    assert settings.by_prefix["customer1/"].pieces == PIECES
    assert settings.by_prefix["mirror/"].copies == settings.by_prefix["mirror/"].write_quorum == 2
    assert (settings.limits.upload_expiry, settings.repair.sweep_interval) == (3600, 300)
    shown = run("config", "check", "--config", str(CONF))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert '[[namespace]]\nname = "customer1"\nenabled = true\nlayout = "raid0"\npieces = 5\n' in shown.stdout


@pytest.mark.parametrize("size", [1000, 5 * MIB, 23 * MIB + 3])
async def test_a_file_lies_in_five_equal_pieces_on_five_of_the_servers(
    gateway: Client, servers: Servers, size: int
) -> None:
    content = content_of("karma8", size)
    assert (await gateway.put("/customer1/film", data=content)).status == 200
    pieces: dict[str, int] = {}
    for block in await blocks_on(servers.addresses, "customer1/film"):
        pieces[block.node] = pieces.get(block.node, 0) + block.header.size
    assert len(pieces) == PIECES
    rounds = -(-size // (PIECES * MIB))
    assert sum(pieces.values()) == size
    assert max(pieces.values()) - min(pieces.values()) <= PIECES * rounds  # of rounding up
    answer = await gateway.get("/customer1/film")
    assert (answer.status, await answer.read() == content) == (200, True)


async def test_pieces_on_the_servers_are_the_files_own_bytes(gateway: Client, servers: Servers) -> None:
    content = secrets.token_bytes(500_000)
    await gateway.put("/customer1/film", data=content)
    pieces: dict[int, bytes] = {}
    for block in await blocks_on(servers.addresses, "customer1/film"):
        async with connected(block.node) as node:
            data = await node.get(block.key)
        assert data is not None
        pieces[block.number] = bytes(record.decode(data).payload)
    assert [len(pieces[number]) for number in sorted(pieces)] == [100_000] * PIECES
    assert b"".join(pieces[number] for number in sorted(pieces)) == content


async def test_so_do_those_of_a_file_that_has_an_id(gateway: Client, servers: Servers) -> None:
    content = secrets.token_bytes(100_000)
    told = await (await gateway.post("/files", data=content)).json()
    blocks = await blocks_on(servers.addresses, f"by-id/{told['file_id']}")
    assert sorted(block.header.size for block in blocks) == [20_000] * PIECES
    assert len({block.node for block in blocks}) == PIECES
    assert await (await gateway.get(told["url"])).read() == content


async def test_every_server_gets_its_share(gateway: Client, servers: Servers) -> None:
    for number in range(60):
        assert (await gateway.put(f"/customer1/{number}", data=bytes(50_000))).status == 200
    filled = dict.fromkeys(servers.addresses, 0)
    for block in await blocks_on(servers.addresses):
        filled[block.node] += block.header.size
    fair = 60 * 50_000 / SERVERS
    assert all(0.5 * fair < size < 1.5 * fair for size in filled.values()), filled


async def test_a_mirrored_file_is_whole_on_two_servers(gateway: Client, servers: Servers) -> None:
    small, large = b"small", content_of("mirror", 3 * MIB + 1)
    assert (await gateway.put("/mirror/small", data=small)).status == 200
    assert (await gateway.put("/mirror/large", data=large)).status == 200
    holders = []
    for address in servers.addresses:
        async with connected(address) as node:
            if (data := await node.get(key_of("mirror/small"))) is not None:
                assert record.decode(data).payload == small
                holders.append(address)
    assert len(holders) == 2
    sizes: dict[str, int] = {}
    for block in await blocks_on(servers.addresses, "mirror/large"):
        sizes[block.node] = sizes.get(block.node, 0) + block.header.size
    assert list(sizes.values()) == [len(large)] * 2
    servers.kill(servers.addresses.index(holders[0]))
    assert await (await gateway.get("/mirror/small")).read() == small


async def test_an_unknown_namespace_and_a_disabled_one_get_their_errors(gateway: Client, servers: Servers) -> None:
    for namespace, status, kind in (("nobody", 404, "unknown-namespace"), ("archive", 403, "namespace-disabled")):
        for method in ("GET", "PUT", "DELETE"):
            answer = await gateway.request(method, f"/{namespace}/film", data=b"x" if method == "PUT" else None)
            told = await answer.json(content_type="application/problem+json")
            assert (answer.status, told["type"]) == (status, f"urn:sfss:{kind}")
            assert namespace in told["detail"]
    assert await blocks_on(servers.addresses) == []
    made = await gateway.put("/namespaces/nobody", json={"layout": "raid0", "pieces": PIECES})
    assert made.status == 201
    assert (await gateway.put("/nobody/film", data=bytes(10_000))).status == 200
    assert len({block.node for block in await blocks_on(servers.addresses, "nobody/film")}) == PIECES


async def test_forbidden_readers_and_writers_get_their_errors(gateway: Client, servers: Servers) -> None:
    """A customer's files are for who shows a key; what he may not is 403, who shows none gets 401."""
    assert (
        await gateway.put("/namespaces/closed", json={"layout": "raid0", "pieces": 5, "anonymous": []})
    ).status == 201
    assert (await gateway.put("/namespaces/shop", json={"anonymous": ["read"]})).status == 201
    registry = gateway.app[REGISTRY]
    document = registry._documents[keys.NAME][0]

    async def shown(*may: str) -> dict[str, str]:
        made = keys.make("", [Scope("closed/", may)], now=time.time())
        await registry.change(document, lambda known: {**known, made.id: made.key})
        return {"Authorization": f"Bearer {made.text}"}

    reader, writer = await shown("read"), await shown("write")
    content = secrets.token_bytes(10_000)

    async def said(method: str, url: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        async with gateway.request(method, url, headers=headers, data=content if method == "PUT" else None) as answer:
            problem = answer.content_type == "application/problem+json"
            return answer.status, (await answer.json(content_type=None))["type"] if problem else ""

    nobody, denied = (401, "urn:sfss:no-key"), (403, "urn:sfss:denied")
    assert await said("PUT", "/closed/film") == nobody
    assert await said("PUT", "/closed/film", reader) == denied
    assert await blocks_on(servers.addresses) == []
    assert await said("PUT", "/closed/film", writer) == (200, "")
    assert len({block.node for block in await blocks_on(servers.addresses, "closed/film")}) == PIECES
    for url in ("/closed/film", "/file?path=closed/film", "/file?path=%63losed%2Ffilm"):
        assert await said("GET", url) == nobody
        assert await said("GET", url, writer) == denied
        assert await said("GET", url, reader) == (200, "")
    assert await said("DELETE", "/closed/film", reader) == denied
    assert await said("PUT", "/shop/window") == nobody
    assert await said("GET", "/shop/window") == (404, "urn:sfss:not-found")
    assert await said("GET", "/files?prefix=closed/") == nobody
    assert await said("PUT", "/customer1/film") == (200, "")  # of which nothing was said


async def test_a_server_that_dies_during_an_upload_is_replaced_by_the_sixth(gateway: Client, servers: Servers) -> None:
    content = content_of("dies", 12 * MIB)
    with_manifest = gateway.app[CLUSTER].topology.place(key_of("customer1/film")).owners[0].address.name
    victim = next(n for n in range(SERVERS) if f"storage{n + 1}" != with_manifest)

    async def body() -> AsyncIterator[bytes]:
        for start in range(0, len(content), MIB):
            if start == 6 * MIB:
                await asyncio.to_thread(servers.kill, victim)
            yield content[start : start + MIB]

    assert (await gateway.put("/customer1/film", data=body())).status == 200
    servers.start(victim)
    await until(lambda: not any(gateway.app[CLUSTER].ready().values()))
    assert await (await gateway.get("/customer1/film")).read() == content


async def test_when_pieces_cant_be_stored_the_client_gets_an_error_and_the_file_never_appears(
    gateway: Client, servers: Servers
) -> None:
    content = content_of("fails", 12 * MIB)
    owner = gateway.app[CLUSTER].topology.place(key_of("customer1/film")).owners[0].address.name
    spared = next(n for n in range(SERVERS) if f"storage{n + 1}" != owner)
    victims = [n for n in range(SERVERS) if n != spared]

    async def body() -> AsyncIterator[bytes]:
        for start in range(0, len(content), MIB):
            if start == 6 * MIB:
                await asyncio.to_thread(servers.kill, *victims)
            yield content[start : start + MIB]

    answer = await gateway.put("/customer1/film", data=body())
    assert (answer.status, answer.content_type) == (504, "application/problem+json")
    servers.start(*victims)
    await until(lambda: not any(gateway.app[CLUSTER].ready().values()))
    assert (await gateway.get("/customer1/film")).status == 404
    page = await (await gateway.get("/files", params={"prefix": "customer1/"})).json()
    assert page["files"] == []
