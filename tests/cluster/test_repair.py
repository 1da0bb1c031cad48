"""Repair over real nodes: every copy comes home, nothing else is touched, and no more is moved than need be."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from sfss.addresses import parse_address
from sfss.backends.base import Backend, Versioned
from sfss.backends.memcached import MemcachedNode
from sfss.cluster.pace import Pace
from sfss.cluster.repair import Repair
from sfss.cluster.replication import Cluster
from sfss.cluster.spread import put_newer
from sfss.cluster.summary import Summary
from sfss.cluster.topology import ONE_COPY, Quorum, Topology
from sfss.cluster.turn import Turn
from sfss.cluster.walk import Walk
from sfss.errors import NodeRefused, OutOfSpace
from sfss.record import Kind, decode_header
from tests.backends.beansdb import beansdb
from tests.cluster.support import QUICK, SAFE, TIMEOUT, Farm, connected, found, started, until, version
from tests.node.support import running
from tests.servers import HOST, memcached
from tests.test_record import make

DAY = 86400
LONG_AGO = (int(time.time()) - 10 * DAY) * 1_000_000  # a version of then
KEYS = [b"/repair/%d" % number for number in range(300)]


@pytest.fixture
def key() -> bytes:
    return b"/repair/" + secrets.token_hex(8).encode()


def repair_of(cluster: Cluster, **options: Any) -> Repair:
    return Repair(cluster.topology, **{"tombstone_ttl": DAY, "patience": 0.3, "slice": 50, **options})


async def repaired(cluster: Cluster, **options: Any) -> Summary:
    return await repair_of(cluster, **options).run()


def owners_of(farm: Farm, key: bytes) -> list[str]:
    return farm.owners(key)[: farm.quorum.copies]


def spare_of(farm: Farm, key: bytes) -> str:
    return farm.owners(key)[farm.quorum.copies]


def fill(farm: Farm, keys: Iterable[bytes] = KEYS, number: int = 1) -> None:
    """A record under each key on each of its owners, as finished writes leave it."""
    for key in keys:
        for name in owners_of(farm, key):
            farm.leave(name, key, version(number))


def are_home(farm: Farm, keys: Iterable[bytes] = KEYS, number: int = 1) -> bool:
    """Whether every owner has its copy, and nobody else has any."""
    return all(farm.versions(key) == dict.fromkeys(owners_of(farm, key), len(version(number))) for key in keys)


def damaged(data: bytes, at: int = -1) -> bytes:
    spoilt = bytearray(data)
    spoilt[at] ^= 1
    return bytes(spoilt)


def tombstone(number: int) -> bytes:
    return make(b"", version=number, kind=Kind.TOMBSTONE)


def held(farm: Farm, name: str, key: bytes) -> bytes | None:
    item = farm.nodes[name].store.get(key)
    return None if item is None else bytes(item.data)


# --- what is well, and what is missing ---


async def test_where_all_agree_nothing_but_lists_is_asked_for(farm: Farm) -> None:
    fill(farm)
    summary = await repaired(farm.cluster)
    assert summary.well
    assert (summary.keys, summary.ok, summary.listed) == (300, 300, 300 * farm.quorum.copies)
    assert (summary.bytes_read, summary.bytes_written) == (0, 0)
    counts = [server.stats.counters for server in farm.nodes.values()]
    marks = (2, 2)  # each node is asked for the mark that it lacks nothing, and given it, in two steps
    assert [(count.cmd_get, count.cmd_set) for count in counts] == [marks] * len(counts)


async def test_an_emptied_node_gets_all_that_it_should_have_and_no_byte_is_moved_twice(farm: Farm) -> None:
    for number, key in enumerate(KEYS):
        fill(farm, [key], number + 1)
    emptied = farm.names[0]
    its_own = [number + 1 for number, key in enumerate(KEYS) if emptied in owners_of(farm, key)]
    await farm.empty(emptied)
    summary = await repaired(farm.cluster)
    assert all(are_home(farm, [key], number + 1) for number, key in enumerate(KEYS))
    needed = sum(len(version(number)) for number in its_own)
    assert (summary.bytes_read, summary.bytes_written) == (needed, needed)
    assert (summary.copies_written, summary.repaired, summary.ok) == (len(its_own), len(its_own), 300 - len(its_own))
    assert summary.well


async def test_the_newest_version_wins_wherever_it_lies(farm: Farm) -> None:
    fill(farm)
    newer = {key: random.randrange(2, 50) for key in KEYS}
    for key, number in newer.items():
        farm.leave(random.choice(farm.owners(key)), key, version(number))
    summary = await repaired(farm.cluster)
    assert all(are_home(farm, [key], number) for key, number in newer.items())
    assert summary.well
    assert summary.repaired == 300


async def test_of_two_writes_at_one_moment_the_same_one_wins_on_all(farm: Farm, key: bytes) -> None:
    first, second, *_ = farm.owners(key)
    records = [make(b"of %d" % front, version=7, front=front) for front in (1, 2)]
    farm.leave(first, key, records[1])
    farm.leave(second, key, records[0])
    assert (await repaired(farm.cluster)).well
    assert [held(farm, name, key) for name in owners_of(farm, key)] == [records[1]] * farm.quorum.copies


async def test_a_version_of_a_clock_that_is_ahead_is_a_version_like_any_other(farm: Farm, key: bytes) -> None:
    ahead = (int(time.time()) + 10 * DAY) * 1_000_000
    for data in (make(b"file", version=ahead), tombstone(ahead + 1)):
        farm.leave(farm.owners(key)[0], key, data)
        assert (await repaired(farm.cluster)).well
        assert [held(farm, name, key) for name in owners_of(farm, key)] == [data] * farm.quorum.copies


async def test_of_what_is_not_of_sfss_nothing_is_touched(farm: Farm, key: bytes) -> None:
    owner, *_ = owners_of(farm, key)
    for name, foreign in ((owner, key), (spare_of(farm, key), b"session:1"), (owner, b"#sfss/repair")):
        farm.leave(name, foreign, b"something else")
    summary = await repaired(farm.cluster)
    assert summary.foreign == 2
    assert summary.keys == 2
    assert held(farm, owner, key) == held(farm, spare_of(farm, key), b"session:1") == b"something else"
    assert held(farm, owner, b"#sfss/repair") == b"something else"
    assert summary.copies_written == summary.strays_removed == 0


async def test_what_is_not_of_sfss_is_not_replaced_by_a_record(farm: Farm, key: bytes) -> None:
    first, second, *_ = farm.owners(key)
    farm.leave(first, key, b"something else")
    farm.leave(second, key, version(5))
    summary = await repaired(farm.cluster)
    assert held(farm, first, key) == b"something else"
    assert (summary.foreign, summary.under_replicated) == (1, 1)


# --- handed off, and no longer an owner ---


async def test_a_copy_that_was_handed_off_comes_home_and_leaves_the_spare(farm: Farm, key: bytes) -> None:
    first = farm.owners(key)[0]
    await farm.stop(first)
    await farm.settled(away=1)
    assert await farm.cluster.put(key, version(7))
    await until(lambda: spare_of(farm, key) in farm.versions(key))
    await farm.start(first)
    await farm.settled()
    summary = await repaired(farm.cluster)
    assert are_home(farm, [key], 7)
    assert (summary.copies_written, summary.strays_removed, summary.well) == (1, 1, True)


@pytest.mark.parametrize("number", [1, 5, 9], ids=["older", "the same", "newer"])
async def test_what_lies_where_it_does_not_belong_goes_when_it_is_home(farm: Farm, key: bytes, number: int) -> None:
    fill(farm, [key], 5)
    farm.leave(spare_of(farm, key), key, version(number))
    summary = await repaired(farm.cluster)
    assert are_home(farm, [key], max(5, number))
    assert summary.strays_removed == 1
    assert summary.copies_written == (farm.quorum.copies if number > 5 else 0)


async def test_a_copy_on_a_spare_stays_while_an_owner_is_away(farm: Farm, key: bytes) -> None:
    fill(farm, [key])
    spare, owner = spare_of(farm, key), farm.owners(key)[0]
    farm.leave(spare, key, version(1))
    await farm.stop(owner)
    await farm.settled(away=1)
    summary = await repaired(farm.cluster)
    assert spare in farm.versions(key)
    assert (summary.strays_left, summary.under_replicated, summary.well) == (1, 1, False)
    assert list(summary.away) == [owner]


async def test_the_last_sound_copy_is_not_taken_from_the_spare(farm: Farm, key: bytes) -> None:
    """The owners' headers are sound, and say so in the lists; their payloads are not."""
    for name in owners_of(farm, key):
        farm.leave(name, key, damaged(version(5)))
    farm.leave(spare_of(farm, key), key, version(5))
    summary = await repaired(farm.cluster)
    assert [held(farm, name, key) for name in owners_of(farm, key)] == [version(5)] * farm.quorum.copies
    assert (summary.damaged_found, summary.damaged_mended) == (farm.quorum.copies,) * 2
    assert summary.strays_removed == 1
    assert summary.well


async def test_a_copy_on_a_spare_stays_while_an_owner_has_no_room(
    farm: Farm, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, spare = farm.owners(key)[0], spare_of(farm, key)
    farm.leave(spare, key, version(5))

    async def no_room(_key: bytes, _data: bytes, _expiry: int = 0) -> bool:
        raise OutOfSpace("node has no room")

    monkeypatch.setattr(farm.cluster.topology.nodes[full], "set", no_room)
    summary = await repaired(farm.cluster)
    assert set(farm.versions(key)) == {*owners_of(farm, key), spare} - {full}
    assert (summary.strays_left, summary.under_replicated, summary.well) == (1, 1, False)
    monkeypatch.undo()
    assert (await repaired(farm.cluster)).well
    assert are_home(farm, [key], 5)


async def test_a_spares_copy_that_has_changed_since_it_was_listed_is_looked_at_again(
    farm: Farm, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(farm, [key], 5)
    spare = spare_of(farm, key)
    farm.leave(spare, key, version(1))
    node = farm.cluster.topology.nodes[spare]
    head, gets = node.head, node.gets

    async def changing_head(key: bytes) -> bytes | None:
        farm.leave(spare, key, version(2))
        return await head(key)

    async def changing_gets(key: bytes) -> Versioned | None:
        farm.leave(spare, key, version(9))
        return await gets(key)

    monkeypatch.setattr(node, "head", changing_head)
    monkeypatch.setattr(node, "gets", changing_gets)
    assert (await repaired(farm.cluster)).strays_left == 1
    assert held(farm, spare, key) == version(9)


async def test_a_write_to_a_spare_that_comes_in_between_is_not_removed(
    farm: Farm, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(farm, [key])
    spare = spare_of(farm, key)
    farm.leave(spare, key, version(1))
    node = farm.cluster.topology.nodes[spare]
    remove = node.remove

    async def late(key: bytes, token: int) -> bool:
        farm.leave(spare, key, version(2))
        return await remove(key, token)

    monkeypatch.setattr(node, "remove", late)
    summary = await repaired(farm.cluster)
    assert held(farm, spare, key) == version(2)
    assert (summary.strays_removed, summary.strays_left) == (0, 1)
    monkeypatch.undo()
    assert (await repaired(farm.cluster)).well
    assert are_home(farm, [key], 2)


# --- damage ---


async def test_a_header_that_is_damaged_is_seen_without_a_scrub(farm: Farm, key: bytes) -> None:
    fill(farm, [key], 9)
    owner = farm.owners(key)[0]
    farm.leave(owner, key, damaged(version(9), at=20))
    summary = await repaired(farm.cluster)
    assert are_home(farm, [key], 9)
    assert (summary.damaged_found, summary.damaged_mended, summary.well) == (1, 1, True)


async def test_a_record_that_is_cut_short_is_seen_without_a_scrub(farm: Farm, key: bytes) -> None:
    for name in owners_of(farm, key)[1:]:
        farm.leave(name, key, version(9))
    farm.leave(farm.owners(key)[0], key, version(9)[:-1])
    assert (await repaired(farm.cluster)).damaged_mended == 1
    assert are_home(farm, [key], 9)


async def test_a_scrub_reads_every_copy_and_mends_what_is_damaged(farm: Farm) -> None:
    fill(farm, number=9)
    spoilt = KEYS[::10]
    for key in spoilt:
        farm.leave(random.choice(owners_of(farm, key)), key, damaged(version(9)))
    assert (await repaired(farm.cluster)).damaged_found == 0, "headers don't tell"
    summary = await repaired(farm.cluster, scrub=True)
    assert (summary.damaged_found, summary.damaged_mended) == (len(spoilt), len(spoilt))
    assert summary.bytes_read == 300 * farm.quorum.copies * len(version(9))
    assert summary.well
    again = await repaired(farm.cluster, scrub=True)
    assert (again.damaged_found, again.ok) == (0, 300)


async def test_what_a_node_can_not_read_from_its_disk_is_rewritten(
    farm: Farm, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(farm, [key], 9)
    node = farm.cluster.topology.nodes[farm.owners(key)[0]]

    async def fails(_key: bytes) -> bytes | None:
        raise NodeRefused(node.address.name, "answered SERVER_ERROR a block's checksum doesn't hold")

    monkeypatch.setattr(node, "get", fails)
    summary = await repaired(farm.cluster, scrub=True)
    assert (summary.damaged_found, summary.damaged_mended, summary.copies_written) == (1, 1, 1)
    assert "checksum" in summary.why[node.address.name]


async def test_a_record_without_a_sound_copy_is_named_and_left_as_it_is(farm: Farm, key: bytes) -> None:
    for name in owners_of(farm, key):
        farm.leave(name, key, damaged(version(9)))
    summary = await repaired(farm.cluster, scrub=True)
    assert (summary.damaged_keys, summary.damaged_named, summary.well) == (1, [key.decode()], False)
    assert {held(farm, name, key) for name in owners_of(farm, key)} == {damaged(version(9))}


async def test_an_older_version_is_not_spread_in_the_place_of_a_damaged_newer_one(safe: Farm, key: bytes) -> None:
    owners = owners_of(safe, key)
    safe.leave(owners[0], key, damaged(version(9)))
    safe.leave(owners[1], key, version(5))
    summary = await repaired(safe.cluster)
    assert summary.damaged_keys == 1
    assert [held(safe, name, key) for name in owners] == [damaged(version(9)), version(5), None]


# --- deletions ---


async def test_a_deletion_is_brought_to_all_owners_like_any_version(farm: Farm, key: bytes) -> None:
    fill(farm, [key])
    farm.leave(farm.owners(key)[0], key, tombstone(time.time_ns() // 1000))
    summary = await repaired(farm.cluster)
    assert await found(farm.cluster, key) is None
    assert len({held(farm, name, key) for name in owners_of(farm, key)}) == 1
    assert (summary.tombstones_young, summary.tombstones_removed) == (1, 0)
    assert summary.well


async def test_an_old_deletion_is_forgotten_when_all_have_it(farm: Farm) -> None:
    for key in KEYS:
        for name in owners_of(farm, key):
            farm.leave(name, key, tombstone(LONG_AGO))
    summary = await repaired(farm.cluster)
    assert not any(farm.versions(key) for key in KEYS)
    assert summary.tombstones_removed == 300
    assert (summary.well, summary.bytes_read) == (True, 0)


async def test_with_an_old_deletion_goes_what_it_deleted_wherever_that_lies(farm: Farm, key: bytes) -> None:
    farm.leave(farm.owners(key)[0], key, tombstone(LONG_AGO))
    for name in (farm.owners(key)[1], spare_of(farm, key)):
        farm.leave(name, key, version(1))
    summary = await repaired(farm.cluster)
    assert farm.versions(key) == {}
    assert (summary.tombstones_removed, summary.strays_removed, summary.well) == (1, 1, True)


async def test_a_node_that_was_away_brings_nothing_back(farm: Farm, key: bytes) -> None:
    """It holds what was deleted long ago; while it is away the deletion is kept, wherever the node stands."""
    for returning in (farm.owners(key)[0], spare_of(farm, key), farm.owners(key)[-1]):
        await farm.stop(returning)
        await farm.settled(away=1)
        for name in set(owners_of(farm, key)) - {returning}:
            farm.leave(name, key, tombstone(LONG_AGO))
        summary = await repaired(farm.cluster)
        assert (summary.tombstones_removed, summary.well) == (0, False)
        await farm.start(returning)
        await farm.settled()
        farm.leave(returning, key, version(1))
        assert (await repaired(farm.cluster)).well
        assert await found(farm.cluster, key) is None
        assert farm.versions(key) == {}


async def test_an_old_deletion_is_kept_while_any_node_is_away(farm: Farm, key: bytes) -> None:
    """Also where it must be brought to an owner first, and where the node that is away is none."""
    for away in (farm.owners(key)[0], spare_of(farm, key), farm.owners(key)[-1]):
        await farm.stop(away)
        await farm.settled(away=1)
        here = [name for name in owners_of(farm, key) if name != away]
        farm.leave(here[0], key, tombstone(LONG_AGO))
        summary = await repaired(farm.cluster)
        assert summary.tombstones_removed == 0
        assert set(farm.versions(key)) >= set(here)
        await farm.start(away)
        await farm.settled()


async def test_outside_a_walk_no_deletion_is_forgotten(farm: Farm, key: bytes) -> None:
    """Nobody knows then what lies on the nodes that aren't asked."""
    for name in owners_of(farm, key):
        farm.leave(name, key, tombstone(LONG_AGO))
    topology, summary = farm.cluster.topology, Summary()
    walk = Walk(topology.nodes.values(), Pace())
    await Turn(key, [], topology, walk, summary, tombstone_ttl=DAY, whole=False).run()
    assert (summary.tombstones_removed, summary.tombstones_young) == (0, 1)
    assert len(farm.versions(key)) == farm.quorum.copies


async def test_a_file_that_is_written_anew_while_its_deletion_is_forgotten_stays(
    farm: Farm, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in owners_of(farm, key):
        farm.leave(name, key, tombstone(LONG_AGO))
    anew = make(b"anew", version=LONG_AGO + 1)
    for name in owners_of(farm, key):
        node = farm.cluster.topology.nodes[name]

        async def late(key: bytes, token: int, name: str = name, remove: Any = node.remove) -> Any:
            farm.leave(name, key, anew)
            return await remove(key, token)

        monkeypatch.setattr(node, "remove", late)
    await repaired(farm.cluster)
    assert [held(farm, name, key) for name in owners_of(farm, key)] == [anew] * farm.quorum.copies


# --- while others write, and when something fails ---


async def test_writes_and_deletions_during_repairs_are_kept(farm: Farm) -> None:
    """Repairs run one behind the other, two at a time, while fronts write; then what the last writer was told holds."""
    keys = KEYS[:40]
    told: dict[bytes, int | None] = {}
    never = 2**32  # seconds: these versions count from the epoch
    stop = asyncio.Event()

    async def client(key: bytes) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            gone = random.random() < 0.3
            data = version(number, Kind.TOMBSTONE if gone else Kind.FILE)
            assert await farm.cluster.put(key, data)
            told[key] = None if gone else number
            await asyncio.sleep(random.random() / 50)

    async def spoil() -> None:
        """Copies go astray, and get lost."""
        while not stop.is_set():
            key = random.choice(keys)
            name = random.choice(owners_of(farm, key))
            if (data := held(farm, name, key)) is not None:
                farm.leave(spare_of(farm, key), key, data)
            await asyncio.sleep(0.002)

    async def repair() -> Summary:
        last = Summary()
        while not stop.is_set():
            last = await repaired(farm.cluster, scrub=random.random() < 0.5, tombstone_ttl=never)
        return last

    clients = [asyncio.create_task(client(key)) for key in keys]
    others = [asyncio.create_task(spoil()), asyncio.create_task(repair()), asyncio.create_task(repair())]
    await asyncio.sleep(2)
    stop.set()
    await asyncio.gather(*clients, *others)
    await asyncio.sleep(0.2)  # what goes on behind the last answers
    await repaired(farm.cluster, tombstone_ttl=never)
    assert {key: await found(farm.cluster, key) for key in keys} == told
    assert all(set(farm.versions(key)) == set(owners_of(farm, key)) for key in keys)


async def test_a_repair_that_is_stopped_anywhere_is_completed_by_the_next(farm: Farm) -> None:
    fill(farm, number=3)
    await farm.empty(farm.names[0])
    for key in KEYS[::7]:
        farm.leave(spare_of(farm, key), key, version(4))
    done = 0
    for pause in (0.0, 0.01, 0.02, 0.04):
        repair = repair_of(farm.cluster)
        task = asyncio.create_task(repair.run())
        await asyncio.sleep(pause)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        done += repair.summary.copies_written
    summary = await repaired(farm.cluster)
    assert summary.well
    assert all(are_home(farm, [key], 4 if key in KEYS[::7] else 3) for key in KEYS)
    needed = sum(farm.quorum.copies if key in KEYS[::7] else farm.names[0] in owners_of(farm, key) for key in KEYS)
    on_their_way = 4 * 16 * farm.quorum.copies  # when it was stopped: perhaps written, and not counted
    assert needed - on_their_way <= done + summary.copies_written <= needed


async def test_two_repairs_at_once_leave_what_one_leaves(farm: Farm) -> None:
    fill(farm, number=3)
    await farm.empty(farm.names[0])
    for key in KEYS[::3]:
        farm.leave(spare_of(farm, key), key, version(3))
    summaries = await asyncio.gather(*(repaired(farm.cluster) for _ in range(2)))
    assert are_home(farm, number=3)
    assert [summary.well for summary in summaries] == [True, True]


async def test_a_node_that_dies_in_the_middle_is_named_and_the_rest_is_done(farm: Farm) -> None:
    fill(farm)
    emptied, dying = farm.names[:2]
    await farm.empty(emptied)
    repair = repair_of(farm.cluster, slice=10)
    task = asyncio.create_task(repair.run())
    await until(lambda: repair.summary.copies_written > 10)
    await farm.stop(dying)
    summary = await task
    assert list(summary.away) == [dying]
    assert not summary.well
    assert summary.under_replicated > 0
    for key in KEYS:
        here = set(owners_of(farm, key)) - {dying}
        if here != {emptied}:
            assert here <= set(farm.versions(key))
    await farm.start(dying)
    await farm.settled()
    assert (await repaired(farm.cluster)).well
    assert are_home(farm)


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "never repaired"])
async def test_a_node_that_is_emptied_in_the_middle_is_not_called_well(farm: Farm, marked: bool) -> None:
    fill(farm)
    if marked:
        assert (await repaired(farm.cluster)).well
    repair = repair_of(farm.cluster, slice=10, share=0.2, patience=10)
    task = asyncio.create_task(repair.run())
    await until(lambda: repair.summary.keys > len(KEYS) // 2)
    emptied = farm.names[0]
    await farm.empty(emptied)
    summary = await task
    assert not summary.well
    assert list(summary.away) == [emptied]
    assert (await repaired(farm.cluster)).well
    assert are_home(farm)


async def test_a_node_that_comes_back_in_the_middle_as_it_was_is_well(farm: Farm) -> None:
    fill(farm)
    assert (await repaired(farm.cluster)).well
    repair = repair_of(farm.cluster, slice=10, share=0.2, patience=10)
    task = asyncio.create_task(repair.run())
    await until(lambda: repair.summary.keys > len(KEYS) // 2)
    await farm.stop(farm.names[0])
    await farm.start(farm.names[0])
    assert (await task).well


async def test_a_node_without_room_is_counted_and_keeps_the_others_from_nothing(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(farm, number=5)
    full, emptied = farm.names[:2]
    await farm.empty(full)
    await farm.empty(emptied)

    async def no_room(_key: bytes, _data: bytes, _expiry: int = 0) -> bool:
        raise OutOfSpace("node has no room")

    monkeypatch.setattr(farm.cluster.topology.nodes[full], "set", no_room)
    lost = [key for key in KEYS if set(owners_of(farm, key)) <= {full, emptied}]
    its_own = [key for key in KEYS if full in owners_of(farm, key) and key not in lost]
    summary = await repaired(farm.cluster)
    assert summary.errors == {full: len(its_own)}
    assert (summary.under_replicated, summary.well) == (len(its_own), False)
    assert all(are_home(farm, [key], 5) for key in KEYS if full not in owners_of(farm, key) and key not in lost)


async def test_a_node_without_room_keeps_an_emptied_one_from_being_believed_again_no_longer_than_need_be(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(farm)
    assert (await repaired(farm.cluster)).well
    emptied, node = farm.names[0], farm.cluster.topology.nodes[farm.names[1]]

    async def no_room(key: bytes, data: bytes, expiry: int = 0) -> bool:
        raise OutOfSpace("no room")

    await farm.empty(emptied)
    monkeypatch.setattr(node, "set", no_room)
    mine = next(key for key in KEYS if node.address.name in owners_of(farm, key))
    farm.leave(next(name for name in owners_of(farm, mine) if name != node.address.name), mine, version(2))
    summary = await repaired(farm.cluster)
    assert summary.under_replicated == 1
    keys = (b"/repair/none/%d" % number for number in range(1000))
    assert await found(farm.cluster, next(key for key in keys if emptied in owners_of(farm, key))) is None
    monkeypatch.undo()
    assert (await repaired(farm.cluster)).well


async def test_a_record_that_a_node_does_not_take_is_counted(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        sizes = (8192, 512)
        servers = [
            await stack.enter_async_context(running(tmp_path / str(size), max_item_size=size, durability="os"))
            for size in sizes
        ]
        cluster = await stack.enter_async_context(cluster_of([server.port for server in servers], QUICK))
        store = servers[0].store
        for key, data in ((b"/large", bytes(1000)), (b"/small", bytes(10))):
            store.put(key, 0, 0, make(data), store.claim(key))
        summary = await repaired(cluster)
        assert (summary.repaired, summary.under_replicated) == (1, 1)
        assert "--max-item-size" in next(iter(summary.why.values()))


# --- nodes of other kinds ---


@contextlib.asynccontextmanager
async def cluster_of(ports: Iterable[int], quorum: Quorum = SAFE) -> AsyncIterator[Cluster]:
    nodes = [
        MemcachedNode(
            parse_address(f"{HOST}:{port}"), largest_value=2**20, timeout=TIMEOUT, connect_timeout=5.0, retry_after=0.1
        )
        for port in ports
    ]
    async with connected(Cluster(Topology(nodes, quorum))) as cluster:
        yield cluster


@contextlib.asynccontextmanager
async def of_kinds(directory: Path, kinds: str, quorum: Quorum) -> AsyncIterator[Cluster]:
    """A node for each letter: ours, memcached, Beansdb."""
    async with contextlib.AsyncExitStack() as stack:
        ports = []
        for number, kind in enumerate(kinds):
            if kind == "o":
                server = await stack.enter_async_context(running(directory / str(number), durability="os"))
                ports.append(server.port)
            elif kind == "m":
                ports.append(stack.enter_context(memcached()))
            else:
                ports.append((await stack.enter_async_context(beansdb("bitcask", walked=True))).port)
        yield await stack.enter_async_context(cluster_of(ports, quorum))


async def holders(cluster: Cluster, key: bytes) -> dict[Backend, bytes]:
    found = {node: await node.get(key) for node in cluster.topology.nodes.values()}
    return {node: data for node, data in found.items() if data is not None}


@pytest.mark.parametrize("kinds", ["mmmm", "bbbb", "ommb", "oomm"])
async def test_copies_come_home_whatever_the_kinds_of_nodes(tmp_path: Path, kinds: str) -> None:
    async with of_kinds(tmp_path, kinds, QUICK) as cluster:
        keys = KEYS[:100]
        for key in keys:
            place = cluster.topology.place(key)
            for node in random.sample([*place.owners, *place.spares], random.randrange(1, 4)):
                await put_newer(node, key, data := version(random.randrange(1, 9)), decode_header(data)[0])
        newest = {key: max((await holders(cluster, key)).values(), key=len) for key in keys}
        summary = await repaired(cluster)
        assert (summary.keys, summary.under_replicated, summary.strays_left) == (100, 0, 0)
        assert summary.well
        for key in keys:
            there = await holders(cluster, key)
            owners = cluster.topology.place(key).owners
            assert [there.pop(node) for node in owners] == [newest[key]] * 2
            assert all(node.capabilities and not node.capabilities.cas for node in there)
        assert summary.strays_kept == sum([len(await holders(cluster, key)) - 2 for key in keys])
        again = await repaired(cluster)
        assert (again.copies_written, again.strays_removed, again.well) == (0, 0, True)


@pytest.mark.parametrize("kinds", ["mmm", "omm"])
async def test_old_deletions_are_forgotten_by_nodes_that_do_not_scan(tmp_path: Path, kinds: str, key: bytes) -> None:
    async with of_kinds(tmp_path, kinds, QUICK) as cluster:
        for node in cluster.topology.place(key).owners:
            await node.set(key, tombstone(LONG_AGO))
        assert (await repaired(cluster)).tombstones_removed == 1
        assert await holders(cluster, key) == {}


async def test_a_copy_that_a_list_left_out_does_not_come_back_when_its_deletion_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A memcached's list may be older than what it has."""
    async with of_kinds(tmp_path, "oom", QUICK) as cluster:
        key = next(key for key in KEYS if _kinds(cluster, key) == ["sfss", "sfss"])
        place = cluster.topology.place(key)
        for node in place.owners:
            await node.set(key, tombstone(LONG_AGO))
        [spare] = place.spares
        await spare.set(key, version(1))

        async def none() -> AsyncGenerator[list[bytes], None]:
            yield []

        monkeypatch.setattr(spare, "keys", none)
        await repaired(cluster)
        there = await holders(cluster, key)
        assert spare not in there or len(there) == 3
        monkeypatch.undo()
        assert (await repaired(cluster)).well
        assert await holders(cluster, key) == {}


async def test_a_deletion_stays_where_it_can_not_be_removed_without_risk(tmp_path: Path) -> None:
    async with of_kinds(tmp_path, "obo", QUICK) as cluster:
        key = next(key for key in KEYS if sorted(_kinds(cluster, key)) == ["beansdb", "sfss"])
        for node in cluster.topology.place(key).owners:
            await node.set(key, tombstone(LONG_AGO))
        summary = await repaired(cluster)
        assert (summary.tombstones_removed, summary.well) == (0, True)
        assert len(await holders(cluster, key)) == 2


def _kinds(cluster: Cluster, key: bytes) -> list[str]:
    return [node.capabilities.kind for node in cluster.topology.place(key).owners if node.capabilities]


# --- growth ---


@contextlib.asynccontextmanager
async def growing(farm: Farm, nodes: str, joining: str = "", leaving: str = "") -> AsyncIterator[Cluster]:
    """A cluster over some of the farm's nodes, by their numbers."""

    def some(numbers: str) -> list[MemcachedNode]:
        return [
            MemcachedNode(
                parse_address(farm.names[int(number)]),
                largest_value=2**20,
                timeout=TIMEOUT,
                connect_timeout=5.0,
                retry_after=0.1,
            )
            for number in numbers
        ]

    topology = Topology(some(nodes), farm.quorum, joining=some(joining), leaving=some(leaving))
    async with connected(Cluster(topology)) as cluster:
        yield cluster


@pytest.mark.parametrize("quorum", [ONE_COPY, SAFE, QUICK], ids=["1 copy", "3 copies", "2 copies"])
@pytest.mark.parametrize(("joining", "leaving"), [("4", ""), ("", "0"), ("4", "0")], ids=["joins", "leaves", "both"])
async def test_a_rebalance_brings_files_to_their_new_nodes_and_the_next_one_clears_the_old(
    tmp_path: Path, quorum: Quorum, joining: str, leaving: str
) -> None:
    async with started(tmp_path, quorum) as farm:
        staying = "123" if leaving else "0123"
        async with growing(farm, staying + leaving) as old, growing(farm, staying + joining) as new:

            def names(cluster: Cluster, key: bytes) -> set[str]:
                return {node.address.name for node in cluster.topology.place(key).owners}

            for key in KEYS:
                for name in names(old, key):
                    farm.leave(name, key, version(1))
            moving = {key for key in KEYS if names(old, key) != names(new, key)}
            async with growing(farm, staying, joining, leaving) as both:
                summary = await repaired(both, moving_only=True)
            needed = sum(len(names(new, key) - names(old, key)) for key in KEYS)
            assert (summary.copies_written, summary.well) == (needed, True)
            assert summary.bytes_read == sum(len(version(1)) for key in moving)
            assert all(set(farm.versions(key)) == names(old, key) | names(new, key) for key in KEYS)
            too_many = {(name, key) for key in KEYS for name in names(old, key) - names(new, key)}
            to_be_removed = [name for name, _ in too_many if name not in {farm.names[int(n)] for n in leaving}]
            assert summary.outgoing == len(to_be_removed)

            cleared = await repaired(new, moving_only=True)
            assert (cleared.strays_removed, cleared.copies_written, cleared.well) == (len(to_be_removed), 0, True)
            here = {*new.topology.nodes}
            assert all(set(farm.versions(key)) & here == names(new, key) for key in KEYS)
            done = await repaired(new, moving_only=True)
            assert (done.passed, done.keys, done.bytes_read) == (300, 300, 0)


async def test_files_are_readable_and_writable_while_a_node_joins(farm: Farm) -> None:
    async with growing(farm, "0123") as old, growing(farm, "0123", joining="4") as both:
        for key in KEYS:
            assert await old.put(key, version(1))
        repair = asyncio.create_task(repaired(both, moving_only=True, slice=10, share=0.5))
        told = dict.fromkeys(KEYS, 1)
        while not repair.done():
            key = random.choice(KEYS)
            told[key] += 1
            assert await random.choice((old, both)).put(key, version(told[key]))
            assert await found(both, key) == told[key]
            if farm.quorum.sees_all:
                assert await found(old, key) == told[key]
        assert (await repair).well
    async with growing(farm, "01234") as new:
        await repaired(new, moving_only=True)
        assert {key: await found(new, key) for key in KEYS} == told


# --- pace ---


async def test_it_rests_as_its_share_says(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn takes as long as the machine lets it; the rest behind it is so many times as long."""
    monkeypatch.setattr("sfss.cluster.turns.TOGETHER", 1)
    turns: list[tuple[float, float]] = []
    really, clock = Turn.run, asyncio.get_running_loop().time

    async def run(self: Turn) -> None:
        began = clock()
        await really(self)
        turns.append((began, clock()))

    monkeypatch.setattr(Turn, "run", run)
    fill(farm)
    await farm.empty(farm.names[0])
    task = asyncio.create_task(repair_of(farm.cluster, share=0.25).run())
    await until(lambda: len(turns) > 6)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    for (began, ended), (next_began, _) in itertools.pairwise(turns):
        assert next_began - ended > 3 * (ended - began) - 0.002  # a loop's timers are of whole milliseconds


@pytest.mark.parametrize(("share", "rest"), [(1.0, 0.0), (0.5, 0.1), (0.25, 0.3)])
async def test_a_rest_is_as_long_as_the_step_was(share: float, rest: float) -> None:
    pace, began = Pace(share), time.perf_counter()
    async with pace.step():
        await asyncio.sleep(0.1)
        worked = time.perf_counter() - began
    assert time.perf_counter() - began - worked >= rest * 0.9


async def test_while_it_is_paused_it_does_nothing(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    going: set[Turn] = set()
    really = Turn.run

    async def run(self: Turn) -> None:
        going.add(self)
        await really(self)
        going.remove(self)

    monkeypatch.setattr(Turn, "run", run)
    fill(farm)
    await farm.empty(farm.names[0])
    repair = repair_of(farm.cluster)
    repair.pace.pause()
    task = asyncio.create_task(repair.run())
    await asyncio.sleep(0.1)
    assert repair.summary.listed == 0
    repair.pace.resume()
    await until(lambda: repair.summary.copies_written > 5)
    repair.pace.pause()
    await until(lambda: not going)  # those that had begun
    written = repair.summary.copies_written
    await asyncio.sleep(0.1)
    assert repair.summary.copies_written == written
    repair.pace.resume()
    assert (await task).well


async def test_a_write_while_a_stray_goes_is_not_taken_for_a_missing_copy(
    safe: Farm, monkeypatch: pytest.MonkeyPatch, key: bytes
) -> None:
    fill(safe, [key])
    safe.leave(spare_of(safe, key), key, version(1))
    first = safe.cluster.topology.place(key).owners[0]
    get = first.get

    async def get_after_a_write(asked: bytes) -> bytes | None:
        if asked == key:
            monkeypatch.undo()
            fill(safe, [key], 2)
        return await get(asked)

    monkeypatch.setattr(first, "get", get_after_a_write)
    assert (await repaired(safe.cluster)).well
