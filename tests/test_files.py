"""The file service through two fronts whose clocks differ. What each call does is tested through HTTP, in ``web``."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from sfss.addresses import parse_address
from sfss.backends.memcached import MemcachedNode
from sfss.cluster.replication import Cluster
from sfss.cluster.topology import Topology
from sfss.config import Limits, Settings
from sfss.files import Files
from sfss.policies import Policies
from tests.conftest import Nodes
from tests.servers import PATIENT

HOUR = 3600 * 1_000_000  # in microseconds
MIB = 2**20


@pytest.fixture
async def fronts(our_nodes: Nodes) -> AsyncIterator[tuple[Files, Files]]:
    """Two of them; the second one's clock is an hour ahead."""
    async with AsyncExitStack() as stack:
        pair = []
        for ahead in (0, HOUR):
            cluster = Cluster(
                Topology(MemcachedNode(parse_address(node), largest_value=MIB, **PATIENT) for node in our_nodes)
            )
            await cluster.start()
            stack.push_async_callback(cluster.close)
            files = Files(cluster, policies=Policies(Settings()), limits=Limits())
            files._last_version = time.time_ns() // 1000 + ahead
            pair.append(files)
        yield pair[0], pair[1]


@pytest.fixture
def path() -> str:
    return f"files/{secrets.token_hex(8)}"


async def put(files: Files, path: str, content: bytes, *, conditional: bool = False) -> int:
    """Returns the version that it has."""

    async def body() -> AsyncIterator[bytes]:
        yield content

    return (await files.put(path, body(), condition=(lambda _: None) if conditional else None)).modified


async def read(files: Files, path: str) -> bytes:
    content = (await files.open(path)).content
    assert content is not None
    return bytes(content)


@pytest.mark.parametrize("conditional", [False, True])
async def test_a_write_through_a_front_whose_clock_is_behind_is_not_lost(
    fronts: tuple[Files, Files], path: str, conditional: bool
) -> None:
    behind, ahead = fronts
    first = await put(ahead, path, b"first")
    second = await put(behind, path, b"second", conditional=conditional)
    assert second > first
    for files in fronts:
        assert await read(files, path) == b"second"
        assert (await files.stat(path)).modified == second
    third = await put(behind, path, b"third")  # it has learnt
    assert third > second
    assert await read(ahead, path) == b"third"


async def test_of_writes_through_both_at_once_one_wins_and_all_are_answered(
    fronts: tuple[Files, Files], path: str
) -> None:
    contents = [b"%d" % number for number in range(10)]
    versions = await asyncio.gather(*(put(fronts[number % 2], path, contents[number]) for number in range(10)))
    assert len(set(versions)) == 10
    assert await read(fronts[0], path) == await read(fronts[1], path) == contents[versions.index(max(versions))]
