"""A service that takes large files, and somebody who uses it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.support import Network, User, network
from tests.servers import Service


@pytest.fixture(scope="session")
def large_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Shared, so leave it running."""
    settings = {"SFSS_LIMITS_MAX_FILE_SIZE": "64MiB"}
    with Service(tmp_path_factory.mktemp("large"), settings=settings) as running:
        yield running


@pytest.fixture
def between(large_service: Service) -> Iterator[Network]:
    """The network between the user and the service."""
    with network(large_service) as found:
        yield found


@pytest.fixture
def user(tmp_path: Path, between: Network) -> User:
    return User(tmp_path, between.port)


@pytest.fixture
def path() -> str:
    """One that no other test uses."""
    return f"{secrets.token_hex(4)}/cat.jpg"
