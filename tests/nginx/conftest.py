"""One front and one nginx before it, which the tests of a worker share; others start their own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.nginx.server import Nginx
from tests.servers import Service

MIB = 2**20
LARGEST = 32 * MIB  # bytes of a file of the shared front's


@pytest.fixture(scope="session")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {
        "SFSS_LIMITS_MAX_FILE_SIZE": str(LARGEST),
        "SFSS_SERVER_TRUSTED_PROXIES": "127.0.0.1",
        "SFSS_ACCESS_ANONYMOUS": "read,write",
    }
    with Service(tmp_path_factory.mktemp("front"), settings=settings) as running:
        yield running


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory, front: Service) -> Iterator[Nginx]:
    with Nginx(tmp_path_factory.mktemp("nginx"), [front.port]).running() as running:
        yield running


@pytest.fixture
def path() -> str:
    """One that no other test has."""
    return f"test/{secrets.token_hex(8)}.txt"
