"""Several processes with one catalogue, files in pieces, and writes of which nobody knows what they came to."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from pathlib import Path

import aiohttp

from tests.catalogue.support import ask, file_at, is_in_order, put, until
from tests.conftest import Nodes, StartFront
from tests.servers import HOST, Service, sfss_node, stop_in_its_tracks


async def test_workers_share_a_catalogue_and_leave_nothing_behind(own_nodes: Nodes, url: str, tmp_path: Path) -> None:
    settings = {"SFSS_CATALOGUE_URL": url, "SFSS_STORAGE_NODES": ",".join(own_nodes), "SFSS_CATALOGUE_TIMEOUT": "5"}
    stored: dict[str, str] = {}
    with Service(tmp_path, "--workers", "2", settings=settings) as service:
        async with aiohttp.ClientSession(service.url) as client:

            async def store(number: int) -> None:
                content = secrets.token_bytes(100)
                async with client.put(file_at(f"{number}"), data=content, headers={"Connection": "close"}) as answer:
                    assert answer.status == 200
                stored[f"{number}"] = hashlib.sha256(content).hexdigest()

            await asyncio.gather(*map(store, range(100)))
            assert len(await ask(url, "SELECT * FROM fronts")) == 2
        await asyncio.to_thread(service.stop)
    assert {row["path"]: row["sha256"] for row in await ask(url, "SELECT path, sha256 FROM files")} == stored
    assert await ask(url, "SELECT * FROM fronts") == []


async def test_a_file_in_equal_pieces_is_a_row_for_each_node_and_copy(
    start_front: StartFront, own_nodes: Nodes, url: str
) -> None:
    policy = [{"prefix": "cut/", "pieces": 2, "copies": 2}]
    front = await start_front(own_nodes, catalogue={"url": url}, policy=policy, limits={"max_file_size": "64MiB"})
    await until(lambda: is_in_order(front))
    for size in (1000, 8 * 2**20):
        await put(front, "cut/a", bytes(size))
        pieces = await ask(url, "SELECT number, copy, node, size, first_byte FROM pieces ORDER BY number, copy")
        assert [(piece["number"], piece["copy"]) for piece in pieces] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert sum(piece["size"] for piece in pieces) == 2 * size
        assert all(abs(piece["size"] - size // 2) < 10 for piece in pieces)  # equal but for the last block's rest
        for number in range(2):
            assert {piece["node"] for piece in pieces if piece["number"] == number} == set(own_nodes)
        assert pieces[0]["node"] != pieces[2]["node"]
        assert pieces[0]["first_byte"] == 0


async def test_a_write_of_which_nobody_knows_has_its_row_when_the_nodes_say_so(
    start_front: StartFront, url: str, tmp_path: Path
) -> None:
    with sfss_node(tmp_path / "node") as (port, node):
        storage = {"timeout": 0.5, "connect_timeout": 0.5, "retry_after": 0.1}
        front = await start_front([f"{HOST}:{port}"], catalogue={"url": url}, storage=storage)
        await until(lambda: is_in_order(front))
        stop_in_its_tracks(node)
        async with front.put(file_at("a"), data=b"a") as answer:
            assert answer.status == 504  # the node has it in its socket, and takes it when it goes on
        node.send_signal(18)

        async def is_there_as_it_is() -> bool:
            async with front.get(file_at("a")) as answer:
                there = answer.status == 200
            return there == bool(await ask(url, "SELECT * FROM files WHERE path = 'a'")) and there

        await until(is_there_as_it_is)
