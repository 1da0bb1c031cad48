"""/status, /livez and /readyz."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from pathlib import Path

from sfss.web.app import STATUS
from tests.conftest import Client, Nodes, StartFront
from tests.servers import HOST, free_port, sfss_node, stop_in_its_tracks


async def test_status_gives_every_node_s_figures_as_strings(front: Client, nodes: Nodes) -> None:
    answer = await front.get("/status")
    status = await answer.json()
    assert answer.status == 200
    assert sorted(status) == sorted(nodes)
    for stats in status.values():
        assert int(stats["curr_items"]) >= 0
        assert int(stats["pid"]) > 0
        assert all(isinstance(figure, str) for figure in stats.values())


async def test_full_status_adds_the_front_and_what_it_knows_of_the_nodes(
    start_front: StartFront, our_nodes: Nodes
) -> None:
    front = await start_front(our_nodes)
    await front.get("/file?path=none")
    status = await (await front.get("/status?format=full")).json()
    assert sorted(status) == ["storages", "webserver"]
    assert sorted(status["storages"]) == sorted(our_nodes)
    webserver = status["webserver"]
    assert webserver["responses"]["404"] == "1"
    assert int(webserver["methods"]["GET"]["requests"]) >= 1
    assert 0 < float(webserver["methods"]["GET"]["seconds"]) < 60
    assert webserver["warnings"] == []
    for node in our_nodes:
        assert webserver["nodes"][node]["kind"] == "sfss"
        assert webserver["nodes"][node]["durable"] is True
        assert webserver["nodes"][node]["away"] is None


async def test_full_status_warns_of_nodes_that_throw_files_away(
    start_front: StartFront, memcached_nodes: Nodes
) -> None:
    front = await start_front(memcached_nodes)
    webserver = (await (await front.get("/status?format=full")).json())["webserver"]
    assert [node in warning for node, warning in zip(memcached_nodes, webserver["warnings"], strict=True)] == [True] * 3


async def test_full_status_warns_of_two_nodes_that_are_one(start_front: StartFront, our_nodes: Nodes) -> None:
    again = our_nodes[0].replace(HOST, "localhost")
    front = await start_front([*our_nodes, again])
    [warning] = (await (await front.get("/status?format=full")).json())["webserver"]["warnings"]
    assert f"nodes {our_nodes[0]} and {again} are one store under two names" in warning


async def test_a_format_that_is_none_is_refused(front: Client) -> None:
    answer = await front.get("/status?format=xml")
    assert answer.status == 400
    assert "full" in (await answer.json(content_type=None))["detail"]


async def test_a_node_that_is_away_is_empty_and_the_rest_are_there(start_front: StartFront, our_nodes: Nodes) -> None:
    away = f"{HOST}:{free_port()}"
    front = await start_front([*our_nodes, away])
    status = await (await front.get("/status")).json()
    assert status[away] == {}
    assert all(status[node] for node in our_nodes)
    assert (await front.get("/readyz")).status == 200


async def test_a_node_that_hangs_costs_no_more_than_its_deadline(start_front: StartFront, our_nodes: Nodes) -> None:
    with contextlib.closing(socket.create_server((HOST, 0))) as hanging:  # accepts, for the kernel does, and is silent
        node = f"{HOST}:{hanging.getsockname()[1]}"
        front = await start_front([*our_nodes, node], storage={"timeout": 0.3, "connect_timeout": 0.2})
        for _ in range(2):
            begun = time.monotonic()
            status = await (await front.get("/status")).json()
            assert time.monotonic() - begun < 0.6
            assert status[node] == {}


async def test_status_is_right_again_after_a_node_hung(start_front: StartFront, tmp_path: Path) -> None:
    with sfss_node(tmp_path / "node") as (port, process):
        front = await start_front([f"{HOST}:{port}"], storage={"timeout": 0.3})
        stop_in_its_tracks(process)
        assert (await front.get("/status")).status == 504
        process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + 3
        while (answer := await front.get("/status")).status == 504:
            assert time.monotonic() < deadline
        status = await answer.json()
        assert status[f"{HOST}:{port}"]["pid"] == str(process.pid)


async def test_with_no_node_at_all_status_is_504_and_the_front_is_alive_but_not_ready(start_front: StartFront) -> None:
    front = await start_front([f"{HOST}:{free_port()}"])
    answer = await front.get("/status")
    assert answer.status == 504
    assert answer.headers["Retry-After"] == "2"
    assert (await front.get("/livez")).status == 200
    ready = await front.get("/readyz")
    assert ready.status == 503
    assert "can't be connected to" in str(await ready.json())


async def test_health_is_ok_degraded_or_down_as_nodes_are_here(start_front: StartFront, tmp_path: Path) -> None:
    port = free_port()
    with sfss_node(tmp_path / "one") as (first, _):
        front = await start_front(
            [f"{HOST}:{first}", f"{HOST}:{port}"], storage={"retry_after": 0.1, "connect_timeout": 1.0}
        )
        answer = await front.get("/health")
        told = await answer.json()
        assert (answer.status, told["status"], told["nodes"]["here"]) == (200, "degraded", 1)
        assert list(told["nodes"]["away"]) == [f"{HOST}:{port}"]
        with sfss_node(tmp_path / "two", port=port):
            while (told := await (await front.get("/health")).json())["nodes"]["here"] < 2:
                await asyncio.sleep(0.05)
            assert (told["status"], told["nodes"]["away"], told["checks"]) == ("ok", {}, {})
            front.app[STATUS].checks["catalogue"] = lambda: "it is away"
            answer = await front.get("/health")
            told = await answer.json()
            assert (answer.status, told["status"], told["checks"]) == (200, "degraded", {"catalogue": "it is away"})
    while (answer := await front.get("/health")).status == 200:
        await asyncio.sleep(0.05)
    assert (answer.status, (await answer.json())["status"]) == (503, "down")
