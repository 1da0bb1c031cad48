"""Many uploads and downloads at once: all correct, and memory that doesn't grow with them beyond what is said.

A front has what it is itself, ``limits.transfer_memory`` for blocks on their way, and for each stream the block that it
collects, the one on its way that it may always have, and what its connection has taken from the network. And half as
much again, for blocks are copied as they pass from chunks to a record and from there to a node, and the allocator keeps
what is between those in use.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

import aiohttp
import pytest

from tests.large.streams import Client, Content, forget_peak, memory, peak_memory
from tests.large.support import KIB, MIB
from tests.servers import Service

COUNT = 100
RECORD, TRANSFER = MIB, 128 * MIB  # limits.record_size and limits.transfer_memory, as they are by default
BUFFER = 512 * KIB  # of a connection
BOUND = 1.5 * (TRANSFER + COUNT * (2 * RECORD + BUFFER))

pytestmark = pytest.mark.timeout(3600)


async def together(calls: Iterable[Awaitable[object]]) -> float:
    """Seconds that they take."""
    began = time.monotonic()
    await asyncio.gather(*calls)
    return time.monotonic() - began


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[tuple[Client, Service]]:
    with Service(tmp_path, settings={"SFSS_LIMITS_MAX_FILE_SIZE": "1GiB"}) as service:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(3600)) as session:
            yield Client(service, session), service


async def test_a_hundred_uploads_and_downloads_at_once_are_all_correct_and_memory_is_bounded(
    running: tuple[Client, Service], long: bool
) -> None:
    client, service = running
    assert service.process is not None
    front, nodes = service.process.pid, await asyncio.to_thread(service.node_pids)
    files = {f"{n}": Content(f"{n}", (100 if long else 3) * MIB + n) for n in range(COUNT)}
    total = sum(content.size for content in files.values()) / MIB
    await client.put("first", Content("first", 3 * MIB))  # all that is imported late is
    before = memory(front)

    def measured(what: str, seconds: float) -> None:
        peak = peak_memory(front) - before
        at_nodes = max(peak_memory(pid) for pid in nodes.values())
        print(f"{what}: {total:.0f} MiB, {total / seconds:.0f} MiB/s; the front took {peak // MIB} MiB"
              f" above {before // MIB}, a node {at_nodes // MIB} in all")  # fmt: skip
        assert peak < BOUND
        forget_peak(front)

    call: Callable[[str, Content], Awaitable[object]]
    # In the short form once more, over what is there; in the long one that would take another 10 GB of disk.
    for what, call in (("up", client.put), ("down", client.get), ("over", client.put))[: 2 if long else 3]:
        measured(what, await together(call(path, content) for path, content in files.items()))
