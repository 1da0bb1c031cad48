"""What the tests of write-behind share: a Redis, databases of it, fronts that use one, and workers in the same loop."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest
from redis import Redis as Client

from tests.behind.support import Bench
from tests.conftest import Nodes, StartFront
from tests.redis import Redis, redis

_databases = itertools.count()


@pytest.fixture(scope="session")
def short_term(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis, shared: leave it running."""
    with redis(tmp_path_factory.mktemp("short-term")) as server:
        yield server


@pytest.fixture
def url(short_term: Redis) -> str:
    """An empty database of it."""
    url = f"{short_term.url}/{next(_databases) % 15}"
    with Client.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
async def bench(our_nodes: Nodes, url: str, start_front: StartFront) -> AsyncIterator[Bench]:
    """Fronts over the shared nodes and that database, and workers, which aren't there until they are started."""
    bench = Bench(our_nodes, url, start_front)
    yield bench
    await bench.close()
