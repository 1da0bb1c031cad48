"""Policies: how many copies a record has, and what its reads and writes promise, goes by how its path begins."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sfss import paths
from sfss.addresses import parse_address
from sfss.backends.memcached import MemcachedNode
from sfss.cluster import lease, rounds
from sfss.cluster.background import Background
from sfss.cluster.listing import Listing
from sfss.cluster.repair import Repair
from sfss.cluster.summary import Summary
from sfss.cluster.topology import HASHED, ONE_COPY, Place, Quorum, Topology, strongest
from sfss.errors import Unavailable
from sfss.record import Kind
from tests.cluster.support import QUICK, SAFE, Farm, found, started, until, version
from tests.test_record import make

DAY = 86400
WEAK = Quorum(3, 1, 1)
KEYS = [b"/safe/%d" % number for number in range(60)]
OTHERS = [b"/other/%d" % number for number in range(60)]
LONG = [paths.key_of(f"{folder}/{number}{'x' * 300}") for folder in ("safe", "other") for number in range(30)]

names = st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=8, unique=True)
quorums = st.integers(1, 3).flatmap(lambda n: st.builds(Quorum, st.just(n), st.integers(1, n), st.integers(1, n)))


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncIterator[Farm]:
    """Five nodes, and one copy of everything, until a policy says otherwise."""
    async with started(tmp_path, ONE_COPY) as farm:
        yield farm


async def adopt(farm: Farm, **by_prefix: Quorum) -> None:
    """Have policies for these folders."""
    quorums = {b"/%s/" % folder.encode(): quorum for folder, quorum in by_prefix.items()}
    await farm.cluster.change(Topology(farm.cluster.topology.nodes.values(), ONE_COPY, by_prefix=quorums))


async def fill(farm: Farm, keys: Iterable[bytes] = (*KEYS, *OTHERS, *LONG), number: int = 1) -> None:
    for key in keys:
        assert await farm.cluster.put(key, version(number))
    await until(lambda: all(are_home(farm, key) for key in keys))


def owners(farm: Farm, key: bytes) -> set[str]:
    return {node.address.name for node in farm.cluster.topology.place(key).owners}


def are_home(farm: Farm, key: bytes) -> bool:
    """Whether every owner has its copy, and nobody else any."""
    return set(farm.versions(key)) == owners(farm, key)


async def repaired(farm: Farm) -> Summary:
    return await Repair(farm.cluster.topology, tombstone_ttl=DAY, patience=0.3).run()


async def listed(farm: Farm, prefix: str = "") -> set[str]:
    async with contextlib.aclosing(Listing(farm.cluster.topology, prefix).batches()) as batches:
        return {file.path async for batch in batches for file in batch}


def topology(
    nodes: Iterable[str], quorum: Quorum, joining: Iterable[str] = (), leaving: Iterable[str] = (), **policies: Quorum
) -> Topology:
    """Of nodes that are nowhere."""

    def some(names: Iterable[str]) -> list[MemcachedNode]:
        return [MemcachedNode(parse_address(f"{name}=x:1"), largest_value=1) for name in names]

    by_prefix = {b"/%s/" % folder.encode(): quorum for folder, quorum in policies.items()}
    return Topology(some(nodes), quorum, joining=some(joining), leaving=some(leaving), by_prefix=by_prefix)


def shown(place: Place) -> object:
    """A place without the nodes themselves, of which each topology has its own."""
    groups = [[[node.address.name for node in nodes] for nodes in group] for group in place.groups]
    rest = [[node.address.name for node in nodes] for nodes in (place.owners, place.spares, place.joining)]
    return place.quorum, groups, rest, place.only and place.only.address.name


# --- which quorum ---


@settings(deadline=None, max_examples=50)
@given(names, quorums, quorums, quorums, st.integers(0, 2), st.integers(0, 2), st.binary(min_size=1, max_size=8))
def test_a_policys_keys_lie_as_if_all_keys_had_its_quorum(
    names: list[str], general: Quorum, one: Quorum, other: Quorum, joining: int, leaving: int, rest: bytes
) -> None:
    moves = {"joining": names[3 : 3 + joining], "leaving": names[5 : 5 + leaving]}
    mixed = topology(names[:3], general, **moves, one=one, other=other)  # type: ignore[arg-type]
    for key, quorum in {
        b"/one/" + rest: one,
        b"/other/" + rest: other,
        b"/one" + rest.replace(b"/", b"-"): general,
        b"#" + rest: strongest([general, one, other]),
    }.items():
        assert shown(mixed.place(key)) == shown(topology(names[:3], quorum, **moves).place(key))  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.lists(quorums, min_size=1))
def test_what_tells_no_path_has_no_less_than_any_policy_asks_for(given: list[Quorum]) -> None:
    found = strongest(given)
    assert found.copies == max(quorum.copies for quorum in given)
    assert found.write >= max(quorum.write for quorum in given)
    assert found.read >= max(quorum.read for quorum in given)
    assert max(found.write, found.read) <= found.copies
    if any(quorum.sees_all and quorum.copies > 1 for quorum in given):
        assert found.sees_all


@settings(deadline=None)
@given(st.lists(quorums, min_size=1), st.integers(4, 5))
@example([Quorum(3, 1, 2), Quorum(3, 2, 1)], 4)  # of which neither sees all, and both together do
def test_reads_of_what_tells_no_path_see_what_was_written_before_a_policy_with_more_copies_came(
    given: list[Quorum], copies: int
) -> None:
    """One that comes with quorums of 1, as it should."""
    before = strongest(given)
    after = strongest([*given, Quorum(copies, 1, 1)])
    if before.copies > 1 and before.sees_all:
        assert before.write + after.read > after.copies


def test_a_single_policy_is_the_strongest() -> None:
    for quorum in (ONE_COPY, QUICK, SAFE, WEAK, Quorum(5, 2, 2)):
        assert strongest([quorum]) == quorum


def test_where_there_are_no_policies_nothing_differs() -> None:
    plain = topology("abcde", QUICK)
    assert plain.place(HASHED).quorum == plain.place(b"/x").quorum == QUICK
    assert plain.quorums(b"/") == {QUICK}


def test_of_a_folder_those_quorums_are_known_that_are_in_it() -> None:
    mixed = topology("abcde", QUICK, safe=SAFE, weak=WEAK)
    longest = strongest([QUICK, SAFE, WEAK])
    assert mixed.quorums(b"/safe/x") == {SAFE, longest}
    assert mixed.quorums(b"/weak/") == {WEAK, longest}
    assert mixed.quorums(b"/other") == {QUICK, longest}
    assert mixed.quorums(b"/sa") == mixed.quorums(b"/safe/") | {QUICK}
    assert mixed.quorums(b"/") == {QUICK, SAFE, WEAK, longest}


# --- what follows from it ---


async def test_each_path_has_the_copies_of_its_policy(farm: Farm) -> None:
    await adopt(farm, safe=SAFE)
    await fill(farm)
    assert {len(farm.versions(key)) for key in KEYS} == {3}
    assert {len(farm.versions(key)) for key in OTHERS} == {1}
    assert {len(farm.versions(key)) for key in LONG} == {3}


async def test_with_a_node_away_what_has_copies_is_read_written_and_deleted(farm: Farm) -> None:
    await adopt(farm, safe=SAFE)
    await fill(farm)
    away = farm.names[0]
    await farm.stop(away)
    await farm.settled(away=1)
    for key in (*KEYS, *LONG):
        assert await found(farm.cluster, key) == 1
        assert await farm.cluster.put(key, version(2))
        assert await found(farm.cluster, key) == 2
        assert await farm.cluster.delete(key, version(3, Kind.TOMBSTONE))
        assert await found(farm.cluster, key) is None
    alone = {key for key in OTHERS if owners(farm, key) == {away}}
    assert 0 < len(alone) < len(OTHERS)
    for key in OTHERS:
        if key in alone:
            with pytest.raises(Unavailable):
                await found(farm.cluster, key)
        else:
            assert await found(farm.cluster, key) == 1


async def test_only_the_mark_of_a_single_copys_deletion_goes_by_itself(farm: Farm) -> None:
    await adopt(farm, safe=SAFE)
    for key in (KEYS[0], OTHERS[0], LONG[0]):
        assert await farm.cluster.put(key, version(1))
        assert await farm.cluster.delete(key, version(2, Kind.TOMBSTONE))
        _, token = await farm.cluster.get_for_update(key)
        assert await farm.cluster.delete_if(key, version(3, Kind.TOMBSTONE), token)
        heads = [head for node in farm.nodes.values() if (head := node.store.head(key)) is not None]
        assert [head.expiry > 0 for head in heads] == [key == OTHERS[0]] * len(heads)


async def test_an_emptied_node_is_not_believed_about_what_has_copies(farm: Farm) -> None:
    await adopt(farm, safe=SAFE)
    assert (await repaired(farm)).well  # which marks the nodes
    first, second, _ = (node.address.name for node in farm.cluster.topology.place(KEYS[0]).owners)
    for name in (first, second):  # which have acknowledged it
        farm.leave(name, KEYS[0], version(1))
    await farm.empty(first)
    await farm.stop(second)
    await farm.settled(away=1)
    with pytest.raises(Unavailable, match=f"node {first} has lost what it had"):
        await found(farm.cluster, KEYS[0])


# --- policies that come and change ---


async def test_while_a_policys_copies_are_raised_every_file_is_found_and_repair_brings_them(farm: Farm) -> None:
    await fill(farm)
    await adopt(farm, safe=WEAK)
    for key in (*KEYS, *OTHERS, *LONG):
        assert await found(farm.cluster, key) == 1
    summary = await repaired(farm)
    assert summary.well
    # Some were brought home by the reads.
    assert 0 < summary.copies_written <= 2 * len((*KEYS, *LONG))
    assert all(are_home(farm, key) for key in (*KEYS, *OTHERS, *LONG))
    await adopt(farm, safe=SAFE)
    await farm.stop(farm.names[0])
    await farm.settled(away=1)
    for key in (*KEYS, *LONG):
        assert await found(farm.cluster, key) == 1
        assert await farm.cluster.get(key + b"-never") is None


async def test_raising_copies_moves_nothing_that_is_of_no_policy(farm: Farm) -> None:
    await fill(farm, (*KEYS, *OTHERS))
    await adopt(farm, safe=WEAK)
    summary = await repaired(farm)
    assert (summary.ok, summary.repaired, summary.copies_written) == (len(OTHERS), len(KEYS), 2 * len(KEYS))
    assert (summary.strays_removed, summary.strays_left) == (0, 0)


async def test_when_a_policys_copies_are_lowered_repair_removes_those_that_are_too_many(farm: Farm) -> None:
    await adopt(farm, safe=SAFE)
    await fill(farm)
    await adopt(farm)
    for key in (*KEYS, *OTHERS, *LONG):
        assert await found(farm.cluster, key) == 1
    assert await farm.cluster.delete(KEYS[0], version(2, Kind.TOMBSTONE))
    assert await farm.cluster.delete(LONG[0], version(2, Kind.TOMBSTONE))
    summary = await repaired(farm)
    assert summary.well
    assert all(are_home(farm, key) for key in (*KEYS[1:], *OTHERS, *LONG[1:]))
    for key in (KEYS[0], LONG[0]):
        assert await found(farm.cluster, key) is None


async def test_an_old_deletion_is_forgotten_however_many_copies_it_has(farm: Farm) -> None:
    await adopt(farm, safe=SAFE)
    long_ago = (int(time.time()) - 10 * DAY) * 1_000_000
    for key in (*KEYS, *OTHERS, *LONG):
        for name in owners(farm, key):
            farm.leave(name, key, make(b"", version=long_ago, kind=Kind.TOMBSTONE))
    summary = await repaired(farm)
    assert summary.tombstones_removed == len((*KEYS, *OTHERS, *LONG))
    assert not any(farm.versions(key) for key in (*KEYS, *OTHERS, *LONG))


async def test_in_the_background_copies_are_looked_after_where_only_a_policy_has_some(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "LOOK", 0.05)
    await adopt(farm, safe=SAFE)
    await fill(farm)
    assert (await repaired(farm)).well
    lost = {key for key in OTHERS if owners(farm, key) == {farm.names[0]}}
    await farm.empty(farm.names[0])
    repairer = Background(farm.cluster, interval=DAY, share=1.0, tombstone_ttl=DAY)
    repairer.start()
    try:
        await until(lambda: repairer.status()["finished"])
    finally:
        await repairer.close()
    assert all(are_home(farm, key) for key in (*KEYS, *LONG))
    assert {key for key in OTHERS if not farm.versions(key)} == lost
    assert (await lease.read(farm.cluster)).well


# --- lists ---


async def leave_files(farm: Farm, folder: str, count: int) -> set[str]:
    """Short and long paths, as finished writes leave them."""
    paths_ = {f"{folder}/{number}{'x' * 300 * (number % 2)}" for number in range(count)}
    for path in paths_:
        key = paths.key_of(path)
        for name in owners(farm, key):
            farm.leave(name, key, make(b"x", version=1, path=path if paths.is_hashed(key) else None))
    return paths_


@pytest.mark.parametrize("policy", [SAFE, WEAK, Quorum(4, 3, 2)], ids=str)
async def test_a_list_of_a_policys_paths_is_whole_as_far_as_it_promises_and_of_others_as_far_as_those_do(
    farm: Farm, policy: Quorum
) -> None:
    await adopt(farm, safe=policy)
    safe, other = await leave_files(farm, "safe", 60), await leave_files(farm, "other", 60)
    assert await listed(farm) == safe | other
    for away in range(1, 4):
        await farm.stop(farm.names[away])
        await farm.settled(away=away)
        if away < policy.write:
            assert await listed(farm, "safe/") == safe
            assert await listed(farm, "safe/1") == {path for path in safe if path.startswith("safe/1")}
        else:
            with pytest.raises(Unavailable):
                await listed(farm, "safe/")
        for prefix in ("", "other/", "s"):  # where a node may have the only copy
            with pytest.raises(Unavailable):
                await listed(farm, prefix)


async def test_a_list_is_whole_in_small_pages_too(farm: Farm) -> None:
    await adopt(farm, safe=SAFE)
    files = sorted(await leave_files(farm, "safe", 40) | await leave_files(farm, "other", 40))
    after = ""
    told: list[str] = []
    page: list[str] = []
    while not told or len(page) >= 7:
        page = []
        async with contextlib.aclosing(Listing(farm.cluster.topology, "", after, wanted=7).batches()) as batches:
            async for batch in batches:
                page += [file.path for file in batch]
                if len(page) >= 7:
                    break
        told += page[:7]
        after = told[-1]
    assert told == files


async def test_an_emptied_node_counts_as_away_for_lists_where_a_policy_has_copies(farm: Farm) -> None:
    await adopt(farm, safe=SAFE)
    safe = await leave_files(farm, "safe", 40)
    assert (await repaired(farm)).well
    await farm.empty(farm.names[0])
    assert await listed(farm, "safe/") == safe
    with pytest.raises(Unavailable, match="has lost what it had: run sfss repair"):
        await listed(farm)
    assert (await repaired(farm)).well
    assert await listed(farm) == safe
