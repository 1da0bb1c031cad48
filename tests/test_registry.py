"""Documents that fronts share: none of two changes is lost, and whoever looks sees what was acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sfss import config, registry
from sfss.assembly import create_cluster
from sfss.cluster.copies import Copies
from sfss.cluster.replication import Cluster
from sfss.errors import SfssError, TooLarge, Unavailable
from sfss.registry import Document, Registry
from tests.cluster.support import until
from tests.conftest import Nodes
from tests.servers import HOST, free_port, sfss_node

Names = dict[str, int]


@contextlib.asynccontextmanager
async def cluster_of(nodes: Nodes, **storage: object) -> AsyncIterator[Cluster]:
    cluster = create_cluster(config.load(overrides={"storage": {"nodes": nodes, "retry_after": 0.1, **storage}}))
    await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.close()


def a_document(cluster: Cluster, name: str, **options: float) -> tuple[Registry, Document[Names]]:
    one = Registry(cluster, **options)
    return one, one.document(name, dict[str, int], {})


async def test_a_document_is_empty_until_it_is_changed_and_then_what_it_became(nodes: Nodes) -> None:
    async with cluster_of(nodes) as cluster:
        one, document = a_document(cluster, "a")
        await one.start()
        assert (document.known, document.value) == (True, {})
        assert await one.change(document, lambda names: {**names, "x": 1}) == {"x": 1}
        other, seen = a_document(cluster, "a")
        await other.start()
        assert seen.value == {"x": 1}
        await one.close()
        await other.close()


async def test_of_many_changes_at_once_by_several_fronts_none_is_lost(our_nodes: Nodes) -> None:
    async with (
        cluster_of(our_nodes, copies=3, write_quorum=2, read_quorum=2) as cluster,
        cluster_of(our_nodes, copies=3, write_quorum=2, read_quorum=2) as another,
    ):
        fronts = [a_document(each, "race") for each in (cluster, another)]

        async def add(number: int) -> None:
            one, document = fronts[number % 2]
            while True:  # whoever is told that others were quicker tries again
                with contextlib.suppress(Unavailable):
                    await one.change(document, lambda names: {**names, str(number): number})
                    return

        await asyncio.gather(*map(add, range(20)))
        one, document = fronts[0]
        assert await one.refresh(document) == {str(number): number for number in range(20)}


async def test_a_front_notices_what_another_one_changed(our_nodes: Nodes) -> None:
    async with cluster_of(our_nodes) as cluster, cluster_of(our_nodes) as another:
        one, document = a_document(cluster, "told")
        other, seen = a_document(another, "told", interval=0.05)
        told: list[Names] = []
        seen.heed(told.append)
        await other.start()
        await one.change(document, lambda names: {**names, "new": 1})
        await until(lambda: told == [{}, {"new": 1}])
        await other.close()


async def test_what_cannot_be_read_at_the_start_is_unknown_until_it_can(tmp_path: Path) -> None:
    port = free_port()
    async with cluster_of([f"{HOST}:{port}"]) as cluster:
        one, document = a_document(cluster, "late", interval=0.05)
        await one.start()
        assert not document.known
        with pytest.raises(SfssError):
            await one.change(document, lambda names: {**names, "x": 1})
        with sfss_node(tmp_path / "node", port=port):
            await until(lambda: document.known)
            await one.change(document, lambda names: {**names, "x": 1})
        await asyncio.sleep(0.2)  # it is away again: what is known stays
        assert document.known
        assert document.value == {"x": 1}
        await one.close()


async def test_an_edit_that_raises_changes_nothing(our_nodes: Nodes) -> None:
    def refuse(_: Names) -> Names:
        raise ValueError("no")

    async with cluster_of(our_nodes) as cluster:
        one, document = a_document(cluster, "refused")
        with pytest.raises(ValueError, match="no"):
            await one.change(document, refuse)
        assert await one.refresh(document) == {}


async def test_a_document_that_would_not_fit_a_record_is_refused(our_nodes: Nodes) -> None:
    async with cluster_of(our_nodes) as cluster:
        one, document = a_document(cluster, "large")
        with pytest.raises(TooLarge, match="the large would take"):
            await one.change(document, lambda _: {"x" * registry.LARGEST: 1})
        assert await one.refresh(document) == {}


async def test_while_it_cannot_be_read_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async with cluster_of([f"{HOST}:{free_port()}"]) as cluster:
        one, document = a_document(cluster, "absent", interval=0.02)
        await one.start()
        await asyncio.sleep(0.3)
        assert not document.known
        await one.close()
    assert caplog.text.count("the absent can't be read, and they aren't known yet") == 1


async def test_a_copy_that_lags_behind_is_not_what_is_read(our_nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """With quorums of 1 a read may ask the node that has the document of before."""
    async with cluster_of(our_nodes, copies=3) as cluster:
        one, document = a_document(cluster, "lag")
        await one.change(document, lambda _: {"x": 1})
        owners = cluster.topology.place(document.key).owners
        old = await owners[0].get(document.key)
        assert old is not None
        await one.change(document, lambda _: {"x": 2})
        await asyncio.sleep(0.1)  # until all have it
        for node in owners[1:]:
            await node.delete(document.key)
            assert await node.set(document.key, old)
        monkeypatch.setattr(Copies, "order", lambda _, nodes: list(reversed(nodes)))  # who lags is the quickest
        other, seen = a_document(cluster, "lag")
        assert await other.refresh(seen) == {"x": 2}


async def test_who_knows_of_one_copy_finds_it_when_its_node_was_emptied(our_nodes: Nodes) -> None:
    """A document may say itself that there are more copies: of the namespaces, by which a front that starts goes."""
    async with cluster_of(our_nodes, copies=3) as cluster, cluster_of(our_nodes) as another:
        one, document = a_document(cluster, "emptied")
        await one.change(document, lambda _: {"x": 1})
        await asyncio.sleep(0.1)  # until all have it
        await cluster.topology.place(document.key).owners[0].delete(document.key)
        other, seen = a_document(another, "emptied")
        assert await other.refresh(seen) == {"x": 1}
        assert await other.change(seen, lambda names: {**names, "y": 2}) == {"x": 1, "y": 2}
        assert await one.refresh(document) == {"x": 1, "y": 2}
