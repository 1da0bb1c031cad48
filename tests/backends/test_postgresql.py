"""``PostgresNode`` over a real PostgreSQL keeps the contract; what is its own stands in ``tests/post/test_node.py``."""

from __future__ import annotations

import pytest

from sfss.addresses import Address, parse_address
from sfss.backends.base import Backend
from sfss.backends.postgresql import PostgresNode
from tests.backends.contract import MIB, CasContract, ScanContract


def new_client(address: Address, timeout: float = 10.0) -> PostgresNode:
    """Patient with a machine that has other tests to run, too."""
    return PostgresNode(address, largest_value=64 * MIB, connect_timeout=5.0, timeout=timeout, retry_after=0.2)


class OverPostgres(CasContract, ScanContract):
    def client(self, address: Address) -> Backend:
        return new_client(address)


class TestOverPostgres(OverPostgres):
    @pytest.fixture
    def address(self, postgres_url: str) -> Address:
        return parse_address(postgres_url)

    async def test_it_is_seen_for_what_it_is(self, backend: Backend) -> None:
        can = backend.capabilities
        assert can
        assert (can.kind, can.durable, can.evicting, can.largest_value) == ("postgresql", True, False, 64 * MIB)
        assert (can.cas, can.ttl, can.head, can.scan, can.versions, can.caveats) == (True, True, True, True, True, ())
        assert int(can.version.split(".")[0]) >= 13
