"""Landing: a record counts as landed when as many nodes have it as a write asks for, whoever put it on the first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sfss import paths, record
from sfss.behind.landing import Landing
from sfss.cluster import copies, replication, spread
from sfss.cluster.copies import Copies
from sfss.cluster.topology import Quorum
from sfss.config import Limits, Settings
from sfss.errors import OutOfSpace, Unavailable
from sfss.files import Files
from sfss.policies import Policies
from sfss.record import Kind, Record
from sfss.stripes import Stripes
from tests.cluster.support import Farm, started, version

PATH = "a"


@pytest.fixture(params=[Quorum(3, 2, 1), Quorum(3, 2, 2)], ids=["one reads", "two read"])
async def farm(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Farm]:
    async with started(tmp_path, request.param) as farm:
        yield farm


@pytest.fixture
async def half(farm: Farm) -> Record:
    """A record that one write brought onto the first owner, and no further; the other nodes are away."""
    key, data = paths.key_of(PATH), version(100)
    first, *others = farm.owners(key)
    farm.leave(first, key, data)
    await farm.stop(*others)
    await farm.settled(away=4)
    return record.decode(data)


async def test_what_only_the_first_node_has_isn_t_landed(farm: Farm, half: Record) -> None:
    key = paths.key_of(PATH)
    stripes = Stripes(farm.cluster, Limits())
    landing = Landing(farm.cluster, stripes, Policies(Settings()))
    with pytest.raises(Unavailable):
        await landing.land(PATH, half)
    await farm.start(*farm.owners(key)[1:])
    await farm.settled()
    assert await landing.land(PATH, half)
    assert len([node for node in farm.owners(key)[:3] if node in farm.versions(key)]) >= 2
    await stripes.close()


async def test_nor_is_an_upload_a_file_by_that(farm: Farm, half: Record) -> None:
    key, header = paths.key_of(PATH), half.header
    files = Files(farm.cluster, policies=Policies(Settings()), limits=Limits())

    async def claimed() -> bool:
        return await files.put_claimed(PATH, bytes(half.payload), header.sha256, header.order)

    with pytest.raises(Unavailable):
        await claimed()
    await farm.start(*farm.owners(key)[1:])
    await farm.settled()
    assert await claimed()
    assert len([node for node in farm.owners(key)[:3] if node in farm.versions(key)]) >= 2
    await files.close()


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.TOMBSTONE])
async def test_what_is_older_never_comes_above_it(farm: Farm, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it comes onto so many nodes, while they are asked, that elsewhere it might have been acknowledged."""
    key, data = paths.key_of(PATH), version(105, kind)
    first, *others = farm.owners(key)[:3]
    for name in (first, *others):
        farm.leave(name, key, version(103))
    decide = farm.cluster._decide

    async def just_then(*args: Any, **given: Any) -> bool:
        if farm.nodes[first].store.head(key) is not None:
            for name in others:
                farm.leave(name, key, version(104))
        return await decide(*args, **given)

    monkeypatch.setattr(farm.cluster, "_decide", just_then)
    stripes = Stripes(farm.cluster, Limits())
    assert await Landing(farm.cluster, stripes, Policies(Settings())).land(PATH, record.decode(data))
    there = await farm.cluster.get(key)
    assert there is not None
    assert (there.header.version, there.header.kind) == (105, kind)
    assert len([size for size in farm.versions(key).values() if size == len(data)]) >= 2
    await stripes.close()


@pytest.mark.parametrize("has_it", [True, False])
async def test_that_nodes_refuse_it_is_said_only_if_they_have_nothing_of_it(farm: Farm, has_it: bool) -> None:
    """A node whose disk is full when it syncs may have it all the same."""
    key = paths.key_of(PATH)
    node = farm.cluster.topology.nodes[farm.owners(key)[0]]
    add = node.add

    async def full(key: bytes, data: bytes) -> bool:
        if has_it:
            await add(key, data)
        raise OutOfSpace("no room")

    node.add = full  # type: ignore[method-assign]
    stripes = Stripes(farm.cluster, Limits())
    landing = Landing(farm.cluster, stripes, Policies(Settings()))
    with pytest.raises(Unavailable if has_it else OutOfSpace):
        await landing.land(PATH, record.decode(version(100)))
    await stripes.close()


@pytest.mark.parametrize("is_full", [True, False])
async def test_what_one_node_has_isn_t_landed_by_what_the_others_have(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    """Which a read may find instead: they have an older file, and no room."""
    key, data = paths.key_of(PATH), version(105)
    first, *others = farm.owners(key)[:3]
    farm.leave(first, key, data)
    for name in others:
        farm.leave(name, key, version(103))
    order, put_newer = Copies.order, spread.put_newer

    async def full(*_: Any) -> bool:
        if is_full:
            raise OutOfSpace("no room")
        return await put_newer(*_)

    monkeypatch.setattr(Copies, "order", lambda copies, nodes: order(copies, nodes)[::-1])
    for module in (spread, copies, replication):
        monkeypatch.setattr(module, "put_newer", full)
    stripes = Stripes(farm.cluster, Limits())
    landing = Landing(farm.cluster, stripes, Policies(Settings()))
    if is_full:
        with pytest.raises(Unavailable):
            await landing.land(PATH, record.decode(data))
    else:
        assert await landing.land(PATH, record.decode(data))
        assert len([size for size in farm.versions(key).values() if size == len(data)]) >= 2
    await stripes.close()
