"""What an operator sees of the nodes besides their own figures."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from sfss.cluster.view import _shares
from tests.conftest import Nodes, StartFront
from tests.servers import HOST, free_port, sfss_node


def test_shares_are_what_lies_before_each_point_and_make_up_the_ring() -> None:
    quarter = 2**30
    shares = _shares([("a", quarter), ("b", 2 * quarter), ("a", 3 * quarter)])
    assert shares == pytest.approx({"a": 0.75, "b": 0.25})  # what is behind the last point is the first one's


async def test_every_node_is_told_with_its_name_its_share_and_how_long_it_took(
    start_front: StartFront, our_nodes: Nodes
) -> None:
    began = time.time()
    front = await start_front([f"one={our_nodes[0]}", *our_nodes[1:]], storage={"copies": 2})
    webserver = (await (await front.get("/status?format=full")).json())["webserver"]
    nodes = webserver["nodes"]
    assert [nodes[node]["name"] for node in our_nodes] == ["one", *our_nodes[1:]]
    assert sum(float(node["share"]) for node in nodes.values()) == pytest.approx(1, abs=0.001)
    assert all(0.15 < float(node["share"]) < 0.55 for node in nodes.values())
    assert all(0 < float(node["took"]) < 10 for node in nodes.values())
    assert all(began - 1 <= float(node["since"]) <= time.time() + 1 for node in nodes.values())
    assert {node["state"] for node in nodes.values()} == {"member"}
    assert webserver["ring"] == {"nodes": "3", "copies": "2", "moving": "no"}
    assert webserver["rebalance"]["state"] == "nothing"
    assert int(webserver["memory"]) > 10 * 2**20


async def test_nodes_that_join_or_leave_are_told_so(start_front: StartFront, our_nodes: Nodes) -> None:
    stays, joins, leaves = our_nodes
    front = await start_front([stays], storage={"joining": [joins], "leaving": [leaves]})
    webserver = (await (await front.get("/status?format=full")).json())["webserver"]
    assert [webserver["nodes"][node]["state"] for node in (stays, joins, leaves)] == ["member", "joining", "leaving"]
    assert float(webserver["nodes"][leaves]["share"]) == 0  # of the ring that is to be
    assert webserver["ring"] == {"nodes": "2", "copies": "1", "moving": "yes"}


async def test_since_when_a_node_is_away_is_known_though_nobody_has_asked(
    start_front: StartFront, our_nodes: Nodes, tmp_path: Path
) -> None:
    port = free_port()
    node = f"{HOST}:{port}"
    with sfss_node(tmp_path / "node", port=port):
        front = await start_front([our_nodes[0], node])
    gone = time.time()
    await asyncio.sleep(2.5)
    told = (await (await front.get("/status?format=full")).json())["webserver"]["nodes"][node]
    assert told["away"]
    assert "took" not in told
    assert gone - 2 < float(told["since"]) < gone + 2
