"""``sfss reindex``: what differs is found, said and put right, and what is written meanwhile wins."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.catalogue.support import ask, execute, file_at, is_in_order, put, until
from tests.catalogue.test_away import Load, checksums
from tests.conftest import Client, Nodes, StartFront
from tests.servers import HOST, free_port

Done = subprocess.CompletedProcess[str]


@pytest.fixture
async def front(start_front: StartFront, own_nodes: Nodes, url: str) -> Client:
    front = await start_front(own_nodes, catalogue={"url": url}, limits={"max_file_size": "8MiB"})
    await until(lambda: is_in_order(front))
    return front


async def reindex(nodes: Nodes, url: str, *options: str) -> Done:
    """As an operator runs it."""
    environment = {"SFSS_STORAGE_NODES": ",".join(nodes), "SFSS_CATALOGUE_URL": url, "PATH": "/bin",
                   "PYTHONPATH": str(Path(__file__).parent.parent.parent)}  # fmt: skip
    command = [sys.executable, "-m", "sfss", "reindex", *options]
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=100
    )


async def test_a_check_says_what_differs_and_changes_nothing_and_a_reindex_puts_it_right(
    front: Client, own_nodes: Nodes, url: str
) -> None:
    stored = {name: await put(front, name, name.encode() * 9) for name in ("same", "missing", "size", "sum", "piece")}
    stored["large"] = await put(front, "large", bytes(3 * 2**20))
    assert (await reindex(own_nodes, url, "--check")).stdout.endswith("the catalogue was right\n")
    await execute(
        url,
        "DELETE FROM files WHERE path = 'missing'",
        "UPDATE files SET size = 1 WHERE path = 'size'",
        "UPDATE files SET sha256 = 'x' WHERE path = 'sum'",
        "DELETE FROM striped_pieces WHERE path = 'large' AND number = 1",
        "UPDATE files SET place = 7 WHERE path = 'piece'",
        "INSERT INTO files SELECT 'extra', file_id, size, sha256, content_type, modified, version, front, state,"
        " record_key, place FROM files WHERE path = 'same'",
    )
    before = await ask(url, "SELECT * FROM files ORDER BY path")
    done = await reindex(own_nodes, url, "--check")
    assert done.returncode == 1, done.stderr
    for line in ("missing: missing", "different (size): size", "different (sha256): sum", "different (pieces): large",
                 "different (place): piece", "extra: extra"):  # fmt: skip
        assert f"  {line}\n" in done.stdout
    assert "same" not in done.stdout.partition("\n")[2]
    assert await ask(url, "SELECT * FROM files ORDER BY path") == before
    done = await reindex(own_nodes, url, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["missing"], figures["extra"], figures["different"]) == (1, 1, 4)
    assert await checksums(url) == stored
    done = await reindex(own_nodes, url, "--check")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stdout


async def test_a_reindex_under_load_leaves_nothing_wrong(front: Client, own_nodes: Nodes, url: str) -> None:
    load = Load(front)
    async with load.going():
        for _ in range(3):
            await asyncio.sleep(0.3)
            await execute(url, "DELETE FROM files", "DELETE FROM striped_pieces", "DELETE FROM places")
            done = await reindex(own_nodes, url)
            assert done.returncode == 0, done.stderr
            done = await reindex(own_nodes, url, "--check")
            assert done.returncode == 0, done.stdout
    await load.check(url)


async def test_uploads_that_are_open_are_rows_again(front: Client, own_nodes: Nodes, url: str) -> None:
    for length in ("6", "7"):
        async with front.post(
            "/uploads?path=up", headers={"Tus-Resumable": "1.0.0", "Upload-Length": length}
        ) as answer:
            assert answer.status == 201
            where = answer.headers["Location"]
    async with front.delete(where, headers={"Tus-Resumable": "1.0.0"}) as answer:
        assert answer.status == 204
    await execute(url, "DELETE FROM uploads")
    assert (await reindex(own_nodes, url)).returncode == 0
    assert [row["size"] for row in await ask(url, "SELECT size FROM uploads")] == [6]


async def test_without_all_nodes_or_a_database_it_says_so(front: Client, own_nodes: Nodes, url: str) -> None:
    await put(front, "a", b"a")
    done = await reindex([*own_nodes[:1], f"{HOST}:{free_port()}"], url)
    assert (done.returncode, await checksums(url)) == (1, {"a": (await checksums(url))["a"]})
    assert "away" in done.stderr
    done = await reindex(own_nodes, f"postgresql://sfss:secret@{HOST}:{free_port()}/none")
    assert done.returncode == 1
    assert "secret" not in done.stderr + done.stdout
    done = await reindex(own_nodes, "")
    assert done.returncode == 2
    assert "catalogue.url" in done.stderr


async def test_a_file_that_was_stored_past_the_front_is_found(
    front: Client, start_front: StartFront, own_nodes: Nodes, url: str
) -> None:
    plain = await start_front(own_nodes)
    sha256 = await put(plain, "past", b"past")
    await put(front, "gone", b"gone")
    async with plain.delete(file_at("gone")) as answer:
        assert answer.status == 204
    done = await reindex(own_nodes, url, "--check")
    assert {"  missing: past", "  extra: gone"} <= set(done.stdout.splitlines())
    await reindex(own_nodes, url)
    assert await checksums(url) == {"past": sha256}
