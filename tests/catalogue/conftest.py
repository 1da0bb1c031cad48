"""Databases, each kind in turn, and nodes that only one test has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Nodes


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database of each kind in turn, in which there is nothing."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'catalogue.db'}"
    else:
        with request.getfixturevalue("shared_postgres").database() as found:
            yield found


@pytest.fixture
def own_nodes(empty_nodes: Nodes) -> Nodes:
    """Two nodes with nothing on them."""
    return empty_nodes[:2]
