"""/nodes: who may announce what, and what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sfss.cluster import members
from sfss.node.announcing import FILE, Registering
from sfss.node.server import Server
from sfss.web.app import MEMBERS
from tests.conftest import Client, StartFront
from tests.node.support import running
from tests.servers import HOST, free_port

SECRET = "s3cr3t"
Joined = tuple[Client, Server]


@contextlib.asynccontextmanager
async def a_node(directory: Path, **settings: Any) -> AsyncIterator[Server]:
    """That has an id, as one has that announces itself, and keeps silent."""
    registering = Registering([], name=directory.name)
    async with running(directory, durability="os", registering=registering, **settings) as node:
        yield node


def said(node: Server, **other: Any) -> dict[str, Any]:
    figures = dict(node.stats.standing())
    return {
        "name": figures["node_name"], "id": figures["node_id"], "address": f"{HOST}:{node.port}",
        "capacity": node.stats.size(), "version": "0", **other,
    }  # fmt: skip


async def post(front: Client, body: object, key: str = "") -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = await front.post("/nodes", json=body, headers=headers)
    return answer.status, await answer.json(content_type=None)


async def shown(front: Client) -> dict[str, dict[str, Any]]:
    answer = await front.get("/nodes")
    return {node["name"]: node for node in (await answer.json())["nodes"]}


@pytest.fixture
async def seeds(tmp_path: Path) -> AsyncIterator[list[Server]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running(tmp_path / f"s{n}", durability="os", capacity=10**9))
            for n in range(2)
        ]


@pytest.fixture
async def front(start_front: StartFront, seeds: list[Server]) -> Client:
    nodes = [f"s{number}={HOST}:{seed.port}" for number, seed in enumerate(seeds)]
    return await start_front(nodes, registration={"enabled": True, "refresh": 0.1, "share": 1.0})


async def test_registration_is_off_unless_it_is_on(start_front: StartFront, seeds: list[Server]) -> None:
    front = await start_front([f"{HOST}:{seed.port}" for seed in seeds])
    status, problem = await post(front, {})
    assert (status, problem["type"]) == (403, "urn:sfss:not-welcome")
    assert "registration.enabled" in problem["detail"]
    assert (await front.delete("/nodes/a")).status == 403
    assert (await front.get("/nodes")).status == 200


@pytest.mark.parametrize("key", ["", "wrong", "s3cr3", "s3cr3t!", "ключ"])
async def test_a_node_without_the_secret_is_not_taken(
    start_front: StartFront, seeds: list[Server], tmp_path: Path, key: str
) -> None:
    nodes = [f"{HOST}:{seed.port}" for seed in seeds]
    front = await start_front(nodes, registration={"enabled": True, "secret": SECRET})
    async with a_node(tmp_path / "a") as node:
        status, problem = await post(front, said(node), key)
        refused = (403, "urn:sfss:not-welcome") if key else (401, "urn:sfss:no-key")
        assert (status, problem["type"]) == refused
        assert SECRET not in str(problem)
        answer = await front.delete("/nodes/a", headers={"Authorization": f"Bearer {key}"})
        assert (answer.status, answer.headers.get("WWW-Authenticate")) == (
            refused[0],
            None if key else 'Bearer realm="sfss"',
        )
        assert (await post(front, said(node), SECRET))[0] == 201


async def test_a_node_joins_and_becomes_a_member(front: Client, tmp_path: Path) -> None:
    async with a_node(tmp_path / "a", capacity=2 * 10**9) as node:
        status, answer = await post(front, said(node))
        assert (status, answer["state"], answer["weight"]) == (201, "joining", 2.0)
        assert (await shown(front))["a"]["state"] == "joining"
        async with asyncio.timeout(20):
            while (await post(front, said(node))) != (200, {**answer, "state": "member", "is_new": False}):
                await asyncio.sleep(0.05)
        nodes = await shown(front)
        assert {name: node["state"] for name, node in nodes.items()} == {"s0": "seed", "s1": "seed", "a": "member"}
        assert nodes["a"]["weight"] == 2.0
        assert nodes["a"]["capacity"] == 2 * 10**9
        assert nodes["a"]["used"] + nodes["a"]["free"] == nodes["a"]["capacity"]
        assert 0 <= nodes["a"]["fill"] < 0.01
        assert nodes["a"]["heartbeat"] is not None
        assert nodes["s0"]["heartbeat"] is None


async def test_a_node_that_falls_silent_is_away_and_stays(front: Client, tmp_path: Path) -> None:
    async with a_node(tmp_path / "a") as node:
        assert (await post(front, said(node)))[0] == 201
    async with asyncio.timeout(20):
        while not (await shown(front))["a"]["away"]:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    assert (await shown(front))["a"]["state"] == "joining"
    answer = await front.delete("/nodes/a")
    assert (answer.status, "is away" in (await answer.json(content_type=None))["detail"]) == (409, True)


async def test_a_node_is_told_to_leave_and_is_gone_when_its_files_are_elsewhere(front: Client, tmp_path: Path) -> None:
    members = front.app[MEMBERS]
    async with a_node(tmp_path / "a") as node:
        await post(front, said(node))
        async with asyncio.timeout(20):
            while (await shown(front))["a"]["state"] != "member" or not members.roll.is_open:
                await asyncio.sleep(0.05)
        for number in range(50):
            assert (await front.put(f"/file?path=leaving/{number}", data=b"x%d" % number)).status == 200
        assert node.store.items > 3
        answer = await front.delete("/nodes/a")
        assert (answer.status, (await answer.json())["state"]) == (202, "leaving")
        async with asyncio.timeout(20):
            while "a" in await shown(front):
                await asyncio.sleep(0.05)
        for number in range(50):
            assert await (await front.get(f"/file?path=leaving/{number}")).read() == b"x%d" % number
        status, problem = await post(front, said(node))
        while status == 202:
            await asyncio.sleep(0.05)
            status, problem = await post(front, said(node))
        assert (status, problem["type"]) == (409, "urn:sfss:node-conflict")
        assert "isn't empty" in problem["detail"]


async def test_only_a_node_that_has_announced_itself_can_be_told_to_leave(front: Client) -> None:
    unknown, seed = await front.delete("/nodes/nobody"), await front.delete("/nodes/s0")
    assert (unknown.status, (await unknown.json(content_type=None))["type"]) == (404, "urn:sfss:no-node")
    assert (seed.status, (await seed.json(content_type=None))["type"]) == (409, "urn:sfss:node-conflict")


async def test_a_member_that_the_configuration_names_by_now_keeps_its_weight_and_leaves_by_that_only(
    start_front: StartFront, front: Client, seeds: list[Server], tmp_path: Path
) -> None:
    async with a_node(tmp_path / "a", capacity=2 * 10**9) as node:
        assert (await post(front, said(node)))[0] == 201
        async with asyncio.timeout(20):
            while (await shown(front))["a"]["state"] != "member":
                await asyncio.sleep(0.05)
        nodes = [f"s{number}={HOST}:{seed.port}" for number, seed in enumerate(seeds)]
        registration = {"enabled": True, "refresh": 0.1}
        other = await start_front([*nodes, f"a={HOST}:{node.port}"], registration=registration)
        there = (await shown(other))["a"]
        assert (there["state"], there["weight"]) == ("seed", 2.0)
        assert (await other.delete("/nodes/a")).status == 409
        assert (await post(other, said(node)))[1]["state"] == "seed"


async def test_a_node_of_the_configuration_is_known_already(front: Client, seeds: list[Server]) -> None:
    mine = {"name": "s0", "id": "0" * 32, "address": f"{HOST}:{seeds[0].port}"}
    status, answer = await post(front, mine)
    assert (status, answer["state"]) == (200, "seed")
    status, problem = await post(front, {**mine, "address": f"{HOST}:1"})
    assert (status, "the name s0 is that of a node of the configuration" in problem["detail"]) == (409, True)
    status, problem = await post(front, {**mine, "name": "loop"})
    assert (status, "is node s0 of the configuration already" in problem["detail"]) == (409, True)
    status, problem = await post(front, {**mine, "name": "loop", "address": f"localhost:{seeds[0].port}"})
    assert (status, "isn't the node that says so" in problem["detail"]) == (409, True)


async def test_what_answers_must_be_the_node(front: Client, tmp_path: Path) -> None:
    async with a_node(tmp_path / "a") as node:
        status, problem = await post(front, said(node, address=f"{HOST}:{free_port()}"))
        assert (status, "no node can be reached" in problem["detail"]) == (409, True)
        status, problem = await post(front, said(node, id="f" * 32))
        assert (status, "isn't the node that says so" in problem["detail"]) == (409, True)
        here = front.make_url("/").port
        status, problem = await post(front, said(node, address=f"{HOST}:{here}"))  # it speaks HTTP
        assert status == 409
        assert "a" not in await shown(front)


async def test_a_name_that_is_taken_is_refused_while_its_node_is_here_and_taken_over_if_it_is_said_to_be_gone(
    front: Client, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    async with a_node(tmp_path / "other" / "a") as other:
        async with a_node(tmp_path / "a") as node:
            assert (await post(front, said(node)))[0] == 201
            for takes_over in (False, True):
                status, problem = await post(front, said(other, takes_over=takes_over))
                assert (status, "the name a is taken" in problem["detail"]) == (409, True)
            status, problem = await post(front, said(node, name="b"))
            assert (status, "it can't have two names" in problem["detail"]) == (409, True)
        async with asyncio.timeout(20):
            while not (await shown(front))["a"]["away"]:
                await asyncio.sleep(0.05)
        status, problem = await post(front, said(other))
        assert (status, "--take-over" in problem["detail"]) == (409, True)
        assert (await post(front, said(other, takes_over=True)))[0] == 200
        assert (await shown(front))["a"]["address"] == f"{HOST}:{other.port}"


async def test_two_that_run_over_copies_of_one_data_directory_are_not_taken_for_one_that_moves(
    front: Client, tmp_path: Path
) -> None:
    async with a_node(tmp_path / "a") as node:
        assert (await post(front, said(node)))[0] == 201
        twin = tmp_path / "twin" / "a"
        twin.mkdir(parents=True)
        shutil.copy(tmp_path / "a" / FILE, twin)
        async with a_node(twin) as other:
            status, problem = await post(front, said(other))
            assert (status, "over a copy of its data directory" in problem["detail"]) == (409, True)
        assert (await post(front, said(node, address=f"localhost:{node.port}")))[0] == 200


async def test_a_front_that_stood_still_takes_nobody_who_is_here_for_one_that_has_gone(
    start_front: StartFront, seeds: list[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it has looked again it knows none of those that had come."""
    monkeypatch.setattr(members, "_GLANCE", 3600.0)  # it looks when it must only
    monkeypatch.setattr(members, "_FIRST_GLANCE", 3600.0)
    nodes = [f"s{number}={HOST}:{seed.port}" for number, seed in enumerate(seeds)]
    front = await start_front(nodes, registration={"enabled": True, "refresh": 60.0})

    async def stand_still() -> None:
        await front.app[MEMBERS]._forget()

    (tmp_path / "twin").mkdir()
    (tmp_path / "other").mkdir()
    async with a_node(tmp_path / "a") as node:
        assert (await post(front, said(node)))[0] == 201
        shutil.copytree(tmp_path / "a", tmp_path / "twin" / "a", ignore=lambda _, names: {*names} - {FILE})
        async with a_node(tmp_path / "twin" / "a") as twin, a_node(tmp_path / "other" / "a") as other:
            for another, says in (
                (said(twin), "over a copy of its data directory"),
                (said(other), "the name a is taken"),
                (said(other, takes_over=True), "the name a is taken"),
            ):
                await stand_still()
                status, problem = await post(front, another)
                assert (status, says in problem.get("detail", "")) == (409, True), problem
            await stand_still()
            assert (await shown(front))["a"]["address"] == f"{HOST}:{node.port}"
    await stand_still()
    answer = await front.delete("/nodes/a")
    assert (answer.status, "bring it back" in await answer.text()) == (409, True)


async def test_a_node_keeps_its_place_at_another_address(front: Client, tmp_path: Path) -> None:
    for _ in range(2):
        async with a_node(tmp_path / "a") as node:
            status, answer = await post(front, said(node))
            assert status in (200, 201)
            assert answer["state"] in ("joining", "member")
            assert (await shown(front))["a"]["address"] == f"{HOST}:{node.port}"


async def test_nodes_wait_while_the_configuration_has_others_come(
    start_front: StartFront, seeds: list[Server], tmp_path: Path
) -> None:
    nodes = [f"s{number}={HOST}:{seed.port}" for number, seed in enumerate(seeds)]
    front = await start_front(nodes[:1], storage={"joining": nodes[1:]}, registration={"enabled": True})
    async with a_node(tmp_path / "a") as node:
        status, problem = await post(front, said(node))
        assert (status, "storage.joining" in problem["detail"]) == (409, True)
        assert {name: it["state"] for name, it in (await shown(front)).items()} == {"s0": "seed", "s1": "joining"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "no announcement"),
        (b"[]", "no announcement"),
        (b'{"name": "a"}', "no announcement"),
        (b'{"name": "a b", "address": "a:1", "id": "00000000"}', "is no name for a node"),
        (b'{"name": "a", "address": "a", "id": "00000000"}', "is no address of a node"),
        (b'{"name": "a", "address": "b=a:1", "id": "00000000"}', "host:port"),
        (b'{"name": "a", "address": "a:1", "id": "x"}', "id is made of"),
        (b'{"name": "a", "address": "a:1", "id": "00000000", "capacity": -1}', "capacity"),
        (b" " * 20_000, "at most"),
    ],
)
async def test_what_is_no_announcement_is_refused_with_words(front: Client, body: bytes, says: str) -> None:
    answer = await front.post("/nodes", data=body)
    assert answer.status == 400
    assert says in (await answer.json(content_type=None))["detail"]
