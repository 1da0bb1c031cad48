"""Which namespaces hold: the configuration's, and those that were made; at each front, at each moment."""

from __future__ import annotations

import asyncio
import secrets
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sfss import config
from sfss.cluster.background import Background
from sfss.config import Settings
from sfss.standing import Made, with_made
from sfss.web.app import CLUSTER, POLICIES, REGISTRY, STANDING, reload
from tests.cluster.support import until
from tests.conftest import Client, Nodes, StartFront, three_nodes
from tests.servers import HOST, Service, free_port, sfss_node, wait_for

NODES = ["a:1", "b:1", "c:1"]


def settings(*namespaces: dict[str, Any], nodes: list[str] = NODES) -> Settings:
    return config.load(overrides={"storage": {"nodes": nodes}, "namespace": list(namespaces)})


def test_those_of_the_configuration_win() -> None:
    made = Made(({"name": "a", "enabled": False}, {"name": "b", "enabled": False}))
    found = with_made(settings({"name": "a"}), made).namespace
    assert [(namespace.name, namespace.enabled) for namespace in found] == [("a", True), ("b", False)]


def test_one_that_asks_for_more_nodes_than_the_settings_name_asks_for_them_all_the_same() -> None:
    made = Made(({"name": "a", "copies": 3}, {"name": "b", "layout": "raid0", "pieces": 3}))
    rules = with_made(settings(nodes=NODES[:2]), made).by_prefix
    assert (rules["a/"].copies, rules["b/"].pieces) == (3, 3)


def test_what_a_newer_version_has_written_is_shut() -> None:
    made = Made(({"name": "a", "colour": "red"}, {"name": "b", "layout": "raid6"}, {"name": "c"}, {"name": "/"}))
    found = with_made(settings(), made).namespace
    assert [(namespace.name, namespace.enabled) for namespace in found] == [("a", False), ("b", False), ("c", True)]


@pytest.fixture(scope="module")
def our_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Namespaces that are made hold at every front over the same nodes."""
    with three_nodes(tmp_path_factory.mktemp("nodes")) as nodes:
        yield nodes


@pytest.fixture
def name() -> str:
    return f"n{secrets.token_hex(6)}"


@pytest.fixture
async def front(start_front: StartFront, our_nodes: Nodes) -> Client:
    return await start_front(our_nodes, namespaces={"api": True})


def copies(front: Client, path: str) -> tuple[int, int]:
    """As the cluster has it of the path's key, and as its rules say."""
    key = b"/" + path.encode()
    return front.app[CLUSTER].topology.place(key).quorum.copies, front.app[POLICIES].of(path).copies


async def test_the_front_that_is_asked_goes_by_it_at_once_and_others_when_they_look(
    start_front: StartFront, our_nodes: Nodes, front: Client, name: str
) -> None:
    other = await start_front(our_nodes, namespaces={"api": True})
    assert (await front.put(f"/namespaces/{name}", json={"copies": 3})).status == 201
    assert copies(front, f"{name}/a") == (3, 3)
    assert copies(other, f"{name}/a") == (1, 1)
    await other.app[REGISTRY]._look_at_all()
    await until(lambda: copies(other, f"{name}/a") == (3, 3))
    late = await start_front(our_nodes, namespaces={"api": True})
    assert copies(late, f"{name}/a") == (3, 3)


async def test_a_front_that_is_to_make_none_goes_by_those_that_others_made(
    start_front: StartFront, our_nodes: Nodes, front: Client, name: str
) -> None:
    assert (await front.put(f"/namespaces/{name}", json={"enabled": False})).status == 201
    other = await start_front(our_nodes)
    assert (await other.put("/file", params={"path": f"{name}/a"}, data=b"a")).status == 403
    assert (await other.patch(f"/namespaces/{name}", json={"enabled": True})).status == 409
    assert (await front.patch(f"/namespaces/{name}", json={"enabled": True})).status == 200
    await other.app[REGISTRY]._look_at_all()
    assert (await other.put("/file", params={"path": f"{name}/a"}, data=b"a")).status in (200, 201)


async def test_a_reload_keeps_those_that_were_made(front: Client, our_nodes: Nodes, name: str) -> None:
    await front.put(f"/namespaces/{name}", json={"copies": 2})
    other = f"{name}-2"
    configured = config.load(overrides={"storage": {"nodes": our_nodes}, "namespace": [{"name": other, "copies": 2}]})
    await reload(front.app, configured)
    assert (copies(front, f"{name}/a"), copies(front, f"{other}/a")) == ((2, 2), (2, 2))
    assert front.app[STANDING].is_configured(other)
    await reload(front.app, replace(configured, namespace=()))
    assert (copies(front, f"{name}/a"), copies(front, f"{other}/a")) == ((2, 2), (1, 1))


async def test_what_has_no_prefix_keeps_the_copies_that_it_was_written_with(
    start_front: StartFront, our_nodes: Nodes, front: Client, name: str
) -> None:
    await front.put(f"/namespaces/{name}", json={"copies": 3})
    long = "x" * 300
    assert (await front.delete(f"/namespaces/{name}")).status == 204
    late = await start_front(our_nodes, namespaces={"api": True})
    for each in (front, late):
        topology = each.app[CLUSTER].topology
        assert topology.place(b"#" + long.encode()[:52]).quorum.copies == 3
        assert topology.place(f"/{name}/a".encode()).quorum.copies == 1


async def test_nothing_is_repaired_before_it_is_known_how_many_copies_there_are(
    start_front: StartFront, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the configuration alone some of a namespace's copies would be too many."""
    started: list[Background] = []
    monkeypatch.setattr(Background, "start", lambda each: started.append(each))
    port = free_port()
    front = await start_front(
        [f"{HOST}:{port}"],
        namespaces={"api": True},
        storage={"retry_after": 0.1, "connect_timeout": 1.0},
        repair={},
    )
    await asyncio.sleep(0.3)
    assert not started
    with sfss_node(tmp_path / "node", port=port):
        await until(lambda: started)
        assert front.app[STANDING].are_known


async def test_requests_go_on_while_namespaces_come_and_go(front: Client, name: str) -> None:
    stop = asyncio.Event()
    statuses: list[int] = []

    async def client(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            path = {"path": f"{name}-files/{number}/{turn % 20}"}
            content = f"{number} {turn}".encode()
            statuses.append((await front.put("/file", params=path, data=content)).status)
            answer = await front.get("/file", params=path)
            statuses.append(answer.status)
            assert await answer.read() == content

    clients = [asyncio.create_task(client(number)) for number in range(4)]
    for turn in range(10):
        fields = {"copies": 3} if turn % 2 else {"quota": "1GiB"}
        assert (await front.put(f"/namespaces/{name}-{turn}", json=fields)).status == 201
        assert (await front.delete(f"/namespaces/{name}-{turn}")).status == 204
    stop.set()
    await asyncio.gather(*clients)
    assert set(statuses) == {200}


def status(service: Service, path: str, method: str = "GET", data: bytes | None = None) -> int:
    request = urllib.request.Request(f"{service.url}{path}", data=data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_all_workers_heed_them_and_a_restart_finds_them_again(tmp_path: Path) -> None:
    file = tmp_path / "sfss.toml"
    file.write_text('[namespaces]\napi = true\n[[namespace]]\nname = "configured"\n')
    service = Service(tmp_path, "--config", str(file), "--workers", "2")
    with service:
        assert status(service, "/configured/a", "PUT", b"a") == 200
        body = b'{"enabled": false}'
        assert status(service, "/namespaces/made", "PUT", body) == 201
        wait_for(lambda: {status(service, "/made/a") for _ in range(20)} == {403}, 30)
        file.write_text('[namespaces]\napi = true\n[[namespace]]\nname = "configured"\nenabled = false\n')
        assert service.process is not None
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: {status(service, "/configured/a") for _ in range(20)} == {403})
        assert {status(service, "/made/a") for _ in range(20)} == {403}
    with service:
        wait_for(lambda: status(service, "/made/a") != 504)
        assert {status(service, path) for path in ("/made/a", "/configured/a") for _ in range(10)} == {403}
        assert status(service, "/namespaces/made", "PATCH", b'{"enabled": true}') == 200
        wait_for(lambda: {status(service, "/made/a") for _ in range(20)} == {404}, 30)
