"""Both ends of a comparison: a real memcached, and a node that has its limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sfss import eventloop
from sfss.node.engine import MIB
from sfss.node.server import Server
from tests.conftest import Loops
from tests.node.support import STEADY, running
from tests.servers import memcached


def pytest_asyncio_loop_factories() -> Loops:
    """A node in a test's own loop runs on the loop of processes that serve."""
    return {"uvloop": eventloop.new}


@pytest.fixture(scope="module")
def real() -> Iterator[int]:
    """The port of a memcached."""
    with memcached(*STEADY) as port:
        yield port


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Server]:
    """A node with memcached's own limit of a value."""
    async with running(tmp_path / "data", durability="os", max_item_size=MIB) as server:
        yield server
