"""``RedisNode`` over real servers: Redis that keeps nothing, that keeps everything, and a cluster of three."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sfss.addresses import Address, parse_address
from sfss.backends.base import Backend
from sfss.backends.redis import RedisNode
from tests.backends.contract import MIB, CasContract, ScanContract
from tests.redis import DURABLE, Redis, redis, redis_cluster

SIZE = 8 * MIB


def new_client(address: Address, **options: float) -> RedisNode:
    return RedisNode(address, largest_value=SIZE, **options)


pytestmark = pytest.mark.usefixtures("nothing_leaks")


class OverRedis(CasContract):
    def client(self, address: Address) -> Backend:
        if not address.url:  # of nobody
            address = parse_address(f"redis://{address.host}:{address.port}")
        return new_client(address)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """One that keeps nothing on its disk, shared."""
    with redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """One that forgets nothing, shared."""
    with redis(tmp_path_factory.mktemp("redis"), *DURABLE) as server:
        yield server


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Redis]]:
    """A cluster, shared."""
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


class TestOverRedis(OverRedis, ScanContract):
    @pytest.fixture
    def address(self, plain: Redis) -> Address:
        return parse_address(plain.url)


class TestOverDurableRedis(OverRedis, ScanContract):
    @pytest.fixture
    def address(self, durable: Redis) -> Address:
        return parse_address(f"{durable.url}/3")


class TestOverRedisCluster(OverRedis):
    @pytest.fixture
    def address(self, clustered: list[Redis]) -> Address:
        return parse_address(clustered[0].url)
