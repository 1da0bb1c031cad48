"""A front that is stopped in good order, while large files are on their way up and down."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.large.streams import Client, Content
from tests.large.support import MIB
from tests.servers import HOST, Service, sfss_node

pytestmark = pytest.mark.timeout(300)


class Slow(Content):
    """Takes some seconds to send."""

    async def stream(self) -> AsyncIterator[bytes]:
        for number in range(self.pieces):
            yield self.piece(number)
            await asyncio.sleep(4 / self.pieces)


async def test_within_its_time_they_end_and_behind_it_they_are_cut_and_nothing_of_them_is_seen(tmp_path: Path) -> None:
    old, new = Content("old", 24 * MIB), Slow("new", 24 * MIB)
    with sfss_node(tmp_path / "0") as (one, _), sfss_node(tmp_path / "1") as (two, _):
        settings = {
            "SFSS_STORAGE_NODES": f"{HOST}:{one},{HOST}:{two}",
            "SFSS_LIMITS_MAX_FILE_SIZE": "1GiB",
            "SFSS_SERVER_SHUTDOWN_TIMEOUT": "1",
        }
        with Service(tmp_path, settings=settings) as service:
            async with aiohttp.ClientSession() as session:
                client = Client(service, session)
                await client.put("film", old)
                await client.put("quick", old)
                upload = asyncio.create_task(client.put("film", new))
                still = await session.get(client.url("film"))  # nobody reads it
                begun = asyncio.Event()

                async def then() -> None:
                    begun.set()

                download = asyncio.create_task(client.get("quick", old, at=1, then=then))
                await begun.wait()
                await asyncio.sleep(0.5)
                assert await asyncio.to_thread(service.stop) == 0
                assert await download
                with pytest.raises((aiohttp.ClientError, AssertionError)):
                    await upload
                with contextlib.suppress(aiohttp.ClientError):
                    assert len(await still.read()) == old.size
                still.close()
                for wrong in ("Traceback", "never retrieved", "was destroyed", "never awaited"):
                    assert wrong not in service.log.read_text()
                await asyncio.to_thread(service.start)
                assert await client.get("film", old)
                await client.put("film", Content("new", 24 * MIB))
                assert await client.get("film", Content("new", 24 * MIB))
