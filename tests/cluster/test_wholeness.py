"""A node that has lost what it had is not believed when it says that there is none, until repair has filled it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sfss.cluster import wholeness
from sfss.cluster.repair import Repair
from sfss.errors import NodeTimeout, Unavailable
from tests.cluster.support import Farm, found, until, version


@pytest.fixture
def farm(safe: Farm) -> Farm:
    return safe


@pytest.fixture
def key() -> bytes:
    return b"/whole/" + secrets.token_hex(8).encode()


async def repair(farm: Farm) -> None:
    """Which marks the nodes."""
    assert (await Repair(farm.cluster.topology, tombstone_ttl=86400).run()).well


async def leave_on_two(farm: Farm, key: bytes, number: int) -> None:
    """A version that the first two owners have acknowledged, and the third one has missed."""
    owners = farm.owners(key)[:3]
    assert await farm.cluster.put(key, version(number))
    await until(lambda: all(name in farm.versions(key) for name in owners))
    for name in owners[:2]:
        farm.leave(name, key, version(number + 1))


async def test_what_it_had_acknowledged_with_one_other_is_found_all_the_same(farm: Farm, key: bytes) -> None:
    await repair(farm)
    await leave_on_two(farm, key, 1)
    await farm.empty(farm.owners(key)[0])
    for _ in range(20):
        assert await found(farm.cluster, key) == 2


async def test_no_404_is_said_on_its_word(farm: Farm, key: bytes) -> None:
    owners = farm.owners(key)[:3]
    await repair(farm)
    for name in owners[:2]:  # of which the third one knows nothing
        farm.leave(name, key, version(1))
    await farm.empty(owners[0])
    await farm.stop(owners[1])
    await farm.settled(away=1)
    with pytest.raises(Unavailable, match=f"node {owners[0]} has lost what it had: run sfss repair"):
        await found(farm.cluster, key)
    await farm.start(owners[1])
    await farm.settled()
    assert await found(farm.cluster, key) == 1


async def test_when_repair_has_filled_it_it_is_believed_again(farm: Farm, key: bytes) -> None:
    await repair(farm)
    await leave_on_two(farm, key, 1)
    owners = farm.owners(key)[:3]
    await farm.empty(owners[0])
    await repair(farm)
    assert await found(farm.cluster, key) == 2
    await farm.stop(owners[1])
    await farm.settled(away=1)
    assert await found(farm.cluster, key) == 2
    assert await farm.cluster.get(b"/whole/never" + key) is None


async def test_in_a_cluster_that_is_new_all_are_believed(farm: Farm, key: bytes) -> None:
    assert await farm.cluster.get(key) is None
    name = farm.owners(key)[0]
    await farm.empty(name)
    assert await farm.cluster.get(key) is None


class Held:
    """Holds back, or fails, the first mark on some nodes. A stand-in for a disk that is slow or full just then."""

    def __init__(self, farm: Farm, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.goes_on = asyncio.Event()
        self.fails = False
        for name in names:
            node = farm.cluster.topology.nodes[name]
            monkeypatch.setattr(node, "set", functools.partial(self._set, name, node.set))

    async def _set(self, name: str, really: Callable[..., Awaitable[bool]], key: bytes, *rest: Any) -> bool:
        if key == wholeness.MARK:
            self.asked += 1
            await self.goes_on.wait()
            if self.fails:
                raise NodeTimeout(name, "no answer")
        return await really(key, *rest)


async def test_a_new_cluster_says_404_while_its_nodes_are_marked_one_after_the_other(
    farm: Farm, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wholeness, "_AGAIN", 0.0)
    slow = farm.owners(key)[:2]
    held = Held(farm, slow, monkeypatch)
    repairing = asyncio.create_task(repair(farm))
    await until(lambda: held.asked == 2)
    assert await farm.cluster.get(key) is None
    held.goes_on.set()
    await repairing
    assert await farm.cluster.get(key) is None
    await farm.empty(slow[0])  # the marks count
    assert await wholeness.missing_marks(farm.cluster.topology.nodes.values()) == [farm.cluster.topology.nodes[slow[0]]]


async def test_where_one_can_t_be_marked_nobody_s_mark_counts_yet(
    farm: Farm, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wholeness, "_AGAIN", 0.0)
    with monkeypatch.context() as meanwhile:
        held = Held(farm, farm.owners(key)[:2], meanwhile)
        held.fails = True
        held.goes_on.set()
        await repair(farm)
        assert await farm.cluster.get(key) is None
    await repair(farm)
    await farm.empty(farm.owners(key)[0])
    assert await wholeness.missing_marks(farm.cluster.topology.nodes.values())


async def test_a_node_that_came_anew_during_the_repair_is_not_marked(farm: Farm) -> None:
    began = time.monotonic()
    name = farm.names[0]
    await farm.empty(name)
    with contextlib.suppress(Unavailable):
        await wholeness.mark(farm.cluster.topology.nodes.values(), began)
    missing = await wholeness.missing_marks(farm.cluster.topology.nodes.values())
    assert [node.address.name for node in missing] == [name]


async def test_fronts_learn_of_marks_that_are_set_while_they_are_connected(
    farm: Farm, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wholeness, "_AGAIN", 0.0)
    assert await farm.cluster.get(key) is None  # nobody has one
    await repair(farm)
    for name in farm.owners(key)[:2]:
        farm.leave(name, key, version(1))
    await farm.empty(farm.owners(key)[0])
    assert await found(farm.cluster, key) == 1
