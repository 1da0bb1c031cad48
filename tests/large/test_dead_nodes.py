"""Nodes that die or stand still in the middle of downloads and uploads, as processes under SIGKILL and SIGSTOP."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.large.streams import Client, Content
from tests.large.support import MIB
from tests.servers import HOST, Service, free_port, sfss_node, stop_in_its_tracks, wait_for

COUNT = 4
pytestmark = pytest.mark.timeout(1800)


class Nodes:
    """Node processes, which may be killed and come back."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.ports = [free_port() for _ in range(COUNT)]
        self.running: list[tuple[contextlib.ExitStack, subprocess.Popen[bytes]]] = []

    def start(self, number: int) -> tuple[contextlib.ExitStack, subprocess.Popen[bytes]]:
        stack = contextlib.ExitStack()
        return stack, stack.enter_context(sfss_node(self._directory / f"node{number}", port=self.ports[number]))[1]

    def disturb(self, number: int, how: signal.Signals) -> None:
        child = self.running[number][1]
        if how == signal.SIGSTOP:
            stop_in_its_tracks(child)
        else:
            child.send_signal(how)

    def heal(self, number: int, how: signal.Signals) -> None:
        stack, child = self.running[number]
        if how == signal.SIGSTOP:
            child.send_signal(signal.SIGCONT)
        else:
            child.wait(20)
            stack.close()
            self.running[number] = self.start(number)

    @contextlib.contextmanager
    def all(self) -> Iterator[Nodes]:
        try:
            for number in range(COUNT):
                self.running.append(self.start(number))
            yield self
        finally:
            for stack, child in self.running:
                child.kill()
                stack.close()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with Nodes(tmp_path).all() as running:
        yield running


@contextlib.asynccontextmanager
async def front(nodes: Nodes, directory: Path, copies: int) -> AsyncIterator[tuple[Client, Service]]:
    settings = {
        "SFSS_STORAGE_NODES": ",".join(f"{HOST}:{port}" for port in nodes.ports),
        "SFSS_STORAGE_COPIES": str(copies),
        "SFSS_STORAGE_RETRY_AFTER": "0.2",
        "SFSS_LIMITS_MAX_FILE_SIZE": "2GiB",
    }
    with Service(directory, settings=settings) as service:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600)) as session:
            yield Client(service, session), service
        assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_with_two_copies_any_one_node_may_go_in_the_middle_of_a_download(
    nodes: Nodes, tmp_path: Path, long: bool, chance: random.Random, how: signal.Signals
) -> None:
    content = Content("film", (1024 if long else 64) * MIB + 12345)
    async with front(nodes, tmp_path, copies=2) as (client, service):
        await client.put("film", content)
        for number in range(COUNT):

            async def then(number: int = number) -> None:
                await asyncio.to_thread(nodes.disturb, number, how)

            began, size = time.monotonic(), content.size // MIB
            at = chance.randrange(content.size // 2)
            assert await client.get("film", content, at=at, then=then), "it was cut"
            print(f"node {number} {how.name} at {at // MIB} MiB: {size / (time.monotonic() - began):.0f} MiB/s")
            await asyncio.to_thread(nodes.heal, number, how)
            await asyncio.to_thread(wait_for, service.all_nodes_are_here, 60, "the nodes")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_with_one_copy_the_connection_is_cut_and_the_file_never_padded(
    nodes: Nodes, tmp_path: Path, chance: random.Random, how: signal.Signals
) -> None:
    content = Content("film", 64 * MIB + 12345)
    async with front(nodes, tmp_path, copies=1) as (client, service):
        await client.put("film", content)
        number = chance.randrange(COUNT)

        async def then() -> None:
            await asyncio.to_thread(nodes.disturb, number, how)

        assert not await client.get("film", content, at=chance.randrange(MIB, content.size // 2), then=then)
        await asyncio.to_thread(nodes.heal, number, how)
        await asyncio.to_thread(wait_for, service.all_nodes_are_here, 60, "the nodes")
        assert await client.get("film", content), "and it is whole when the node is back"


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_an_upload_goes_on_over_the_nodes_that_are_left(
    nodes: Nodes, tmp_path: Path, chance: random.Random, how: signal.Signals, copies: int
) -> None:
    """Its blocks do; with one copy it fails if the node that goes is to have the manifest. Then the old file stays."""
    old, new = Content("old", 8 * MIB), Content("new", 48 * MIB + 5)
    async with front(nodes, tmp_path, copies) as (client, service):
        await client.put("film", old)
        number, at = chance.randrange(COUNT), chance.randrange(new.pieces)

        class Disturbing(Content):
            async def stream(self) -> AsyncIterator[bytes]:
                for place in range(self.pieces):
                    if place == at:
                        await asyncio.to_thread(nodes.disturb, number, how)
                    yield self.piece(place)

        is_kept = True
        try:
            await client.put("film", Disturbing(new.name, new.size))
        except AssertionError as error:
            assert "504" in str(error) or "unavailable" in str(error)
            is_kept = False
        await asyncio.to_thread(nodes.heal, number, how)
        await asyncio.to_thread(wait_for, service.all_nodes_are_here, 60, "the nodes")
        assert is_kept or copies == 1
        if is_kept:  # one of two copies is enough for a read: it may be the one that was away, until it is put right
            await client.comes("film", new, before=old)
        else:
            assert await client.get("film", old)
