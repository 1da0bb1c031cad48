"""``MemcachedNode`` over real memcached, over our own node, and over Beansdb's rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from sfss.addresses import Address
from sfss.backends.base import Backend, Capabilities
from sfss.backends.memcached import MemcachedNode
from sfss.errors import NodeRefused, OutOfSpace, TooLarge
from tests.backends.beansdb import Beansdb, beansdb
from tests.backends.contract import MIB, BackendContract, CasContract, ScanContract
from tests.servers import HOST, PATIENT, memcached


def node_at(port: int) -> Address:
    return Address(HOST, port, f"{HOST}:{port}")


def new_client(address: Address) -> MemcachedNode:
    return MemcachedNode(address, largest_value=64 * MIB, **PATIENT)


class OverMemcachedProtocol:
    def client(self, address: Address) -> Backend:
        return new_client(address)


class TestOverMemcached(OverMemcachedProtocol, CasContract):
    @pytest.fixture
    def address(self, memcached_nodes: list[str]) -> Address:
        return node_at(int(memcached_nodes[0].rpartition(":")[2]))

    async def test_it_is_seen_for_what_it_is(self, backend: Backend) -> None:
        assert backend.capabilities
        assert backend.capabilities.kind == "memcached"
        assert backend.capabilities.version.startswith("1.")
        assert backend.capabilities.evicting
        assert not backend.capabilities.durable


class TestOverOurNode(OverMemcachedProtocol, CasContract, ScanContract):
    @pytest.fixture
    def address(self, our_nodes: list[str]) -> Address:
        return node_at(int(our_nodes[0].rpartition(":")[2]))

    async def test_it_is_seen_for_what_it_is(self, backend: Backend) -> None:
        assert backend.capabilities
        assert backend.capabilities._replace(version="") == Capabilities(
            "sfss", "", True, False, True, True, True, True, 8 * MIB, versions=True
        )

    async def test_what_was_acknowledged_a_second_client_reads(self, backend: Backend, address: Address) -> None:
        other = new_client(address)
        await other.start()
        for number in range(50):
            await backend.set(b"/seen", b"%d" % number)
            assert await other.get(b"/seen") == b"%d" % number
        await other.close()


class OverBeansdb(OverMemcachedProtocol, BackendContract):
    @pytest.fixture
    async def node(self) -> AsyncIterator[Beansdb]:
        async with beansdb("bitcask") as running:
            yield running

    @pytest.fixture
    def address(self, node: Beansdb) -> Address:
        return node_at(node.port)

    @pytest.fixture
    def listed(self, backend: Backend, node: Beansdb) -> Backend:
        node.walked = True
        return backend

    async def test_it_is_seen_for_what_it_is(self, backend: Backend) -> None:
        assert backend.capabilities
        assert backend.capabilities == Capabilities(
            "beansdb", "0.6.0", True, False, False, False, False, False, 50 * MIB
        )

    async def test_add_and_cas_are_refused_here_for_it_would_read_the_data_as_commands(self, backend: Backend) -> None:
        for call in (backend.gets(b"/k"), backend.add(b"/k", b"stats"), backend.replace(b"/k", b"stats", 1),
                     backend.remove(b"/k", 1)):  # fmt: skip
            with pytest.raises(NodeRefused, match="beansdb without add and cas"):
                await call

    async def test_a_set_that_it_does_not_store_is_an_error(self, backend: Backend, node: Beansdb) -> None:
        with pytest.raises(NodeRefused, match="NOT_STORED"):
            await backend.set(b"@0", b"value")
        assert await backend.get(b"/@0") is None
        assert len(node.violations) == 2, "the set, and the look whether the same bytes lay there"
        node.violations.clear()


class TestOverBeansdb(OverBeansdb):
    """Its present generation, over Bitcask."""


class TestOverOldBeansdb(OverBeansdb):
    """Its first generation, over Tokyo Cabinet: the same bytes aren't stored twice."""

    @pytest.fixture
    async def node(self) -> AsyncIterator[Beansdb]:
        async with beansdb("tokyo") as running:
            yield running


class TestOverGoBeansdb(OverBeansdb):
    """GoBeansDB: a tree of hashes without keys."""

    @pytest.fixture
    async def node(self) -> AsyncIterator[Beansdb]:
        async with beansdb("go") as running:
            yield running


async def test_the_stand_in_reads_the_data_of_an_add_as_commands() -> None:
    """That the stand-in has teeth."""
    async with beansdb("bitcask") as standin:
        reader, writer = await asyncio.open_connection(HOST, standin.port)
        writer.write(
            b"add k 0 0 5\r\nvalue\r\nset k 0 0 1\r\nx\r\nset k 0 1 1\r\ny\r\nget @ k\r\nget ?k\r\ndelete k\r\nquit\r\n"
        )
        answer = (await reader.read()).decode().splitlines()
        writer.close()
        assert answer[:4] == ["ERROR", "ERROR", "STORED", "NOT_STORED"]
        assert answer[4].startswith("VALUE @ 0 ")
        assert answer[-7:] == ["VALUE k 0 1", "x", "END", "VALUE ?k 0 9", "1 0 0 1 0", "END", "DELETED"]
        assert len(standin.violations) == 5
        standin.violations.clear()


@pytest.fixture(scope="module")
def small_memcached() -> Iterator[int]:
    """A memcached as Debian starts it, but that doesn't evict and has little room."""
    with memcached("-M", "-m", "8") as port:
        yield port


@pytest.fixture
async def small(small_memcached: int) -> AsyncIterator[MemcachedNode]:
    client = new_client(node_at(small_memcached))
    await client.start()
    yield client
    await client.close()


async def test_memcacheds_limit_of_an_item_is_known_before_anything_is_sent(small: MemcachedNode) -> None:
    """memcached would throw away what lay there."""
    assert small.capabilities
    assert small.capabilities.largest_value == MIB - 512
    await small.set(b"/k" * 125, b"old")
    with pytest.raises(TooLarge, match=r"at most 1048064 bytes: raise -I") as caught:
        await small.set(b"/k" * 125, bytes(MIB - 511))
    assert caught.value.setting == "-I"
    assert await small.get(b"/k" * 125) == b"old"


async def test_the_largest_value_that_is_let_through_fits_whatever_its_key(small: MemcachedNode) -> None:
    assert small.capabilities
    await small.set(b"/k" * 125, bytes(small.capabilities.largest_value))
    assert await small.get(b"/k" * 125) == bytes(small.capabilities.largest_value)


async def test_a_memcached_that_does_not_evict_says_that_it_is_full(small: MemcachedNode) -> None:
    assert small.capabilities
    assert not small.capabilities.evicting
    sets = [small.set(b"/%d" % number, bytes(MIB // 2)) for number in range(32)]
    with pytest.raises(OutOfSpace, match=str(small.address)):
        await asyncio.gather(*sets)
    await small.delete(b"/0")
    await small.set(b"/0", bytes(1000))


async def test_a_memcached_without_cas_is_known_as_such() -> None:
    with memcached("-C") as port:
        client = new_client(node_at(port))
        await client.start()
        assert client.capabilities
        assert not client.capabilities.cas
        with pytest.raises(NodeRefused, match="memcached without add and cas"):
            await client.gets(b"/k")
        await client.close()


async def test_its_options_name_the_setting_to_raise_on_our_node(our_nodes: list[str]) -> None:
    client = new_client(node_at(int(our_nodes[0].rpartition(":")[2])))
    await client.start()
    with pytest.raises(TooLarge, match="raise --max-item-size of that node"):
        await client.set(b"/k", bytes(8 * MIB + 1))
    await client.close()
