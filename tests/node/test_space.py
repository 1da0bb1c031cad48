"""What was overwritten, deleted or flushed gives its space back, without being asked and while the node serves.

In small: ``benchmarks/space.py`` shows the bound at its real size.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sfss.node import engine, space
from sfss.node.engine import KIB, MIB
from sfss.node.server import Server
from tests.node.support import connected, running, set_request, talk

SET = 8 * MIB  # bytes of values that are alive


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    for module, name, figure in (
        (engine, "WRITE_BUFFER", 512 * KIB), (engine, "BLOB_FILE", 512 * KIB), (space, "EVERY", 0.05),
        (space, "LEAST", 4 * MIB), (space, "LEAST_LEFT", 1 * MIB), (space, "REST", 0.3), (space, "WORTH", 10),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, figure)
    async with running(tmp_path / "data", durability="os") as server:
        yield server


def on_disk(node: Server) -> int:
    """Bytes of tables, blob files and logs."""
    total = 0
    for file in node.settings.data.iterdir():
        if file.suffix in (".sst", ".blob", ".log"):
            with contextlib.suppress(FileNotFoundError):  # it goes just now
                total += file.stat().st_size
    return total


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


async def overwrite(node: Server, times: int, size: int) -> int:
    """The whole set, so many times over, in any order; returns the most that lay on disk meanwhile."""
    count = SET // size if size > KIB else SET // size // 4  # small ones take their time
    chance, keys, most = random.Random(1), [b"key%05d" % number for number in range(count)], 0
    for _ in range(times):
        chance.shuffle(keys)
        for start in range(0, len(keys), 50):
            requests = b"".join(set_request(key, chance.randbytes(size)) for key in keys[start : start + 50])
            assert (await talk(node.port, requests)).count(b"STORED") == len(keys[start : start + 50])
            most = max(most, on_disk(node))
    return most


@pytest.mark.parametrize("size", [300, 32 * KIB], ids=["in the tree", "in blob files"])
async def test_what_is_overwritten_gives_its_space_back(node: Server, size: int) -> None:
    times = 3 if size == 300 else 12
    most = await overwrite(node, times, size)
    alive = node.store.bytes + node.store.items * 150
    assert most < 2 * alive + 24 * MIB
    await until(lambda: on_disk(node) < 1.25 * alive + 2 * MIB, f"{alive} are alive, {most} were there at most")
    async with connected(node.port) as client:
        assert await client.until_end(b"get key00000\r\n") != b"END\r\n"


async def test_flush_all_gives_all_space_back(node: Server) -> None:
    await overwrite(node, 1, 32 * KIB)
    assert await talk(node.port, b"flush_all\r\n") == b"OK\r\n"
    await until(lambda: on_disk(node) < 100 * KIB, "flush_all kept its space")


async def test_what_is_deleted_gives_its_space_back(node: Server) -> None:
    await overwrite(node, 1, 32 * KIB)
    await talk(node.port, b"".join(b"delete key%05d\r\n" % number for number in range(SET // (32 * KIB) - 10)))
    await until(lambda: on_disk(node) < 2 * MIB, "what was deleted kept its space")
    assert node.store.items == 10


async def test_many_deletions_do_not_stay_in_the_way_of_walks(node: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "DELETED", 100)
    monkeypatch.setattr(space, "REST", 1000.0)
    await talk(node.port, b"".join(set_request(b"key%05d" % number, b"x") for number in range(500)))
    await talk(node.port, b"".join(b"delete key%05d\r\n" % number for number in range(500)))
    await until(lambda: node.store.figure("num-deletes-active-mem-table") == 0, "deletions stayed in memory")


async def test_a_node_at_rest_is_left_alone_until_something_is_worth_it(
    node: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    steered: list[dict[str, str]] = []
    steer = node.store.steer
    monkeypatch.setattr(node.store, "steer", lambda options: [steered.append(options), steer(options)])  # type: ignore[func-returns-value]
    for number in range(5):
        await talk(node.port, set_request(b"key%d" % number, b"x"))
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    assert steered == []
    await talk(node.port, b"".join(set_request(b"key%d" % number, b"x") for number in range(20)))
    await until(lambda: bool(steered), "no rest")
    assert steered == [{"level0_file_num_compaction_trigger": "1"}]
    await talk(node.port, b"".join(set_request(b"key%d" % number, b"x") for number in range(20)))
    await until(lambda: len(steered) > 1, "the rest did not end")
    assert steered[1] == {"level0_file_num_compaction_trigger": "4"}


async def test_what_rocksdb_refused_to_be_told_is_told_again(node: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    steer = node.store.steer

    def refuse_twice(options: dict[str, str]) -> None:
        told.extend(options.values())
        if len(told) % 3:
            raise OSError("No space left on device")
        steer(options)

    monkeypatch.setattr(node.store, "steer", refuse_twice)
    for count in (3, 6):  # the rest, and its end
        await talk(node.port, b"".join(set_request(b"key%d" % number, b"x") for number in range(20)))
        await until(lambda count=count: len(told) >= count, f"was told {told} only")  # type: ignore[misc]
    assert told[:6] == ["1"] * 3 + ["4"] * 3
