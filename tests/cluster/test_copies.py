"""Copies over real nodes that come and go: what is acknowledged is found, and a 404 is said only for sure."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path

import pytest

from sfss.cluster.replication import Cluster, Token
from sfss.cluster.topology import Quorum
from sfss.errors import Damaged, NodeTimeout, Unavailable
from sfss.record import Kind
from tests.cluster.support import Farm, found, started, until, version
from tests.node.support import there


@pytest.fixture
def key() -> bytes:
    return b"/copies/" + secrets.token_hex(8).encode()


async def test_a_record_lies_on_its_owners_and_nowhere_else(farm: Farm, key: bytes) -> None:
    assert await farm.cluster.put(key, version(1))
    owners = farm.owners(key)[: farm.quorum.copies]
    await until(lambda: set(farm.versions(key)) == set(owners))
    assert await found(farm.cluster, key) == 1
    header = await farm.cluster.head(key)
    assert header is not None
    assert header.version == 1


async def test_what_nobody_has_is_not_there(farm: Farm, key: bytes) -> None:
    assert await farm.cluster.get(key) is None
    assert await farm.cluster.head(key) is None


async def test_any_one_node_may_be_away(farm: Farm, key: bytes) -> None:
    for number, name in enumerate(farm.owners(key)[: farm.quorum.copies], 1):
        assert await farm.cluster.put(key, version(number * 10))
        await until(lambda: len(farm.versions(key)) >= farm.quorum.copies)
        await farm.stop(name)
        assert await found(farm.cluster, key) == number * 10
        assert await farm.cluster.put(key, version(number * 10 + 1))
        assert await found(farm.cluster, key) == number * 10 + 1
        await farm.start(name)
        await farm.settled()
        assert await found(farm.cluster, key) in (
            {number * 10 + 1} if farm.quorum.sees_all else {number * 10, 31, 21, 11}
        )
    assert farm.cluster.counts()["handoffs"] > 0


async def test_a_spare_takes_the_copy_of_an_owner_that_is_away(farm: Farm, key: bytes) -> None:
    first = farm.owners(key)[0]
    await farm.stop(first)
    await farm.settled(away=1)
    assert await farm.cluster.put(key, version(7))
    await until(lambda: len(farm.versions(key)) == farm.quorum.copies)
    assert farm.owners(key)[farm.quorum.copies] in farm.versions(key)


async def test_a_write_that_only_spares_took_is_not_hidden_when_the_owners_are_back(quick: Farm, key: bytes) -> None:
    owners = quick.owners(key)[:2]
    await quick.stop(*owners)
    await quick.settled(away=2)
    assert await quick.cluster.put(key, version(7))
    await quick.start(*owners)
    await quick.settled()
    assert await found(quick.cluster, key) == 7
    await until(lambda: set(owners) <= set(quick.versions(key)))  # and the read brought it home
    assert quick.cluster.counts()["mended"] >= 2


async def test_that_there_is_no_file_is_not_said_while_a_copy_may_be_hidden(farm: Farm, key: bytes) -> None:
    owners = farm.owners(key)[: farm.quorum.copies]
    away = farm.quorum.write
    await farm.stop(*owners[:away])
    await farm.settled(away=away)
    with pytest.raises(Unavailable, match="too few to be sure"):
        await farm.cluster.get(key)
    await farm.start(*owners[:away])
    await farm.settled()
    assert await farm.cluster.get(key) is None


async def test_a_write_without_a_quorum_is_not_acknowledged_and_says_why(safe: Farm, key: bytes) -> None:
    owners = safe.owners(key)[:3]
    await safe.stop(*owners[:2])
    await safe.settled(away=2)
    with pytest.raises(Unavailable, match=f"its write_quorum is 2.*{owners[0]}.*try again, that is safe"):
        await safe.cluster.put(key, version(7))


async def test_a_read_sees_the_newest_of_what_two_of_three_have(safe: Farm, key: bytes) -> None:
    owners = safe.owners(key)[:3]
    assert await safe.cluster.put(key, version(1))
    await until(lambda: len(safe.versions(key)) == 3)
    for number, name in enumerate(owners, 2):
        await safe.stop(name)
        await safe.settled(away=1)
        assert await safe.cluster.put(key, version(number))
        assert await found(safe.cluster, key) == number
        await safe.start(name)
        await safe.settled()
        for _ in range(5):
            assert await found(safe.cluster, key) == number
    async with asyncio.timeout(10):  # reads look at the third copy, too, now and then
        while len({safe.versions(key)[name] for name in owners}) > 1:
            await found(safe.cluster, key)
    assert safe.cluster.counts()["mended"] >= 1


async def test_a_deleted_file_is_not_brought_back_by_a_node_that_was_away(farm: Farm, key: bytes) -> None:
    owners = farm.owners(key)[: farm.quorum.copies]
    assert await farm.cluster.put(key, version(1))
    await until(lambda: len(farm.versions(key)) == farm.quorum.copies)
    await farm.stop(owners[0])
    await farm.settled(away=1)
    assert await farm.cluster.put(key, version(2, Kind.TOMBSTONE))
    await farm.start(owners[0])
    await farm.settled()
    if farm.quorum.sees_all:
        assert await found(farm.cluster, key) is None
    # Where a read may see an older version, it does so no more once it has been put right.
    async with asyncio.timeout(10):
        while any(farm.nodes[name].store.head(key) is None for name in owners) or any(
            [await found(farm.cluster, key) for _ in range(3)]
        ):
            record = await farm.cluster.get(key)
            if record is not None and record.header.kind == Kind.FILE and not farm.quorum.sees_all:
                await farm.cluster.put(key, version(3, Kind.TOMBSTONE))
            await asyncio.sleep(0.02)


async def test_a_slow_node_does_not_slow_what_others_have(
    farm: Farm, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await farm.cluster.put(key, version(1))
    await until(lambda: len(farm.versions(key)) == farm.quorum.copies)
    slow = farm.nodes[farm.owners(key)[0]]
    waiting = 0.4
    slow.store.memory.clear()
    fetch, loop = slow.reader.fetch, asyncio.get_running_loop()
    monkeypatch.setattr(slow.reader, "fetch", lambda keys, wake: loop.call_later(waiting, fetch, list(keys), wake))
    began = time.perf_counter()
    assert await found(farm.cluster, key) == 1
    assert time.perf_counter() - began < waiting / 2
    assert farm.cluster.counts()["hedges"] >= 1


async def test_a_damaged_copy_is_not_served_and_is_put_right(farm: Farm, key: bytes) -> None:
    assert await farm.cluster.put(key, version(1000))
    await until(lambda: len(farm.versions(key)) == farm.quorum.copies)
    owners = farm.owners(key)[: farm.quorum.copies]
    for name in owners[:-1]:
        store = farm.nodes[name].store
        damaged = bytearray(version(1000))
        damaged[-1] ^= 1
        store.put(key, 0, 0, bytes(damaged), store.claim(key))
    assert await found(farm.cluster, key) == 1000
    await until(lambda: all(bytes(there(farm.nodes[name].store.get(key)).data) == version(1000) for name in owners))
    assert farm.cluster.counts()["damaged"] == len(owners) - 1


async def test_where_all_copies_are_damaged_none_is_served_and_it_is_said_so(farm: Farm, key: bytes) -> None:
    damaged = bytearray(version(1000))
    damaged[-1] ^= 1
    assert await farm.cluster.put(key, bytes(damaged))
    await until(lambda: len(farm.versions(key)) == farm.quorum.copies)
    with pytest.raises(Damaged, match="is not served"):
        await farm.cluster.get(key)


async def test_of_racing_creators_exactly_one_wins(farm: Farm, key: bytes) -> None:
    other = farm.new_cluster()
    await other.start()

    async def create(cluster: Cluster, number: int) -> bool:
        header, token = await cluster.get_for_update(key)
        return header is None and await cluster.put_if(key, version(number), token)

    won = await asyncio.gather(*(create((farm.cluster, other)[number % 2], number) for number in range(1, 21)))
    assert sum(won) == 1
    assert await found(farm.cluster, key) == won.index(True) + 1
    await other.close()


async def test_a_condition_is_decided_by_the_first_owner_or_not_at_all(farm: Farm, key: bytes) -> None:
    await farm.stop(farm.owners(key)[0])
    await farm.settled(away=1)
    with pytest.raises(Unavailable):
        await farm.cluster.get_for_update(key)


async def unless_mended(farm: Farm, key: bytes, token: Token) -> Token:
    """The token, or one that has come in its place: a read that mends may bring a node the same version once more."""
    await until(lambda: not farm.cluster._copies._behind)
    _, later = await farm.cluster.get_for_update(key)
    return later if later.states != token.states else token


async def test_a_first_owner_that_was_away_decides_by_the_newest_version(safe: Farm, key: bytes) -> None:
    first = safe.owners(key)[0]
    assert await safe.cluster.put(key, version(1))
    await until(lambda: len(safe.versions(key)) == 3)
    await safe.stop(first)
    await safe.settled(away=1)
    assert await safe.cluster.put(key, version(2))
    await safe.start(first)
    await safe.settled()
    header, token = await safe.cluster.get_for_update(key)
    assert header is not None
    assert header.version == 2
    token = await unless_mended(safe, key, token)
    assert await safe.cluster.put_if(key, version(3), token)
    assert not await safe.cluster.put_if(key, version(4), token)
    assert await found(safe.cluster, key) == 3


async def test_a_first_owner_that_was_away_learns_of_the_deletion_before_it_decides(safe: Farm, key: bytes) -> None:
    assert await safe.cluster.put(key, version(5, Kind.TOMBSTONE))
    await until(lambda: len(safe.versions(key)) == 3)
    safe.leave(safe.owners(key)[0], key, version(1))
    header, token = await safe.cluster.get_for_update(key)
    assert header is not None
    assert (header.kind, header.version) == (Kind.TOMBSTONE, 5)
    token = await unless_mended(safe, key, token)
    assert await safe.cluster.put_if(key, version(6), token)
    assert await found(safe.cluster, key) == 6


async def test_a_front_that_never_saw_the_first_owner_decides_nothing_in_its_place(farm: Farm, key: bytes) -> None:
    await farm.stop(farm.owners(key)[0])
    other = farm.new_cluster()
    await other.start()
    with pytest.raises(Unavailable):
        await other.get_for_update(key)
    await other.close()


async def test_to_look_at_a_state_takes_it_away_from_nobody(farm: Farm, key: bytes) -> None:
    assert await farm.cluster.put(key, version(1))
    await until(lambda: len(farm.versions(key)) == farm.quorum.copies)
    _, token = await farm.cluster.get_for_update(key)
    await farm.cluster.get_for_update(key)
    assert await farm.cluster.put_if(key, version(2), token)


@pytest.mark.parametrize("data", [version(2), version(2, Kind.TOMBSTONE)], ids=["file", "tombstone"])
async def test_no_read_goes_back_behind_another_that_saw_a_write_which_failed(
    safe: Farm, key: bytes, data: bytes
) -> None:
    assert await safe.cluster.put(key, version(1))
    owners = safe.owners(key)[:3]
    await until(lambda: set(owners) <= set(safe.versions(key)))
    safe.leave(owners[0], key, data)
    header = await safe.cluster.head(key)
    assert header is not None
    assert header.version == 2
    # At once, not some time later: then another read might ask two others.
    assert list(safe.versions(key).values()).count(len(data)) >= 2


async def test_a_damaged_copy_of_a_newer_version_is_not_spread(safe: Farm, key: bytes) -> None:
    assert await safe.cluster.put(key, version(1))
    owners = safe.owners(key)[:3]
    await until(lambda: set(owners) <= set(safe.versions(key)))
    damaged = bytearray(version(1000))
    damaged[-1] ^= 1
    safe.leave(owners[0], key, bytes(damaged))
    header = await safe.cluster.head(key)
    assert header is not None
    assert header.version == 1000
    assert len(set(safe.versions(key).values())) == 2
    await safe.cluster.put(key, version(10))  # whether or not it is refused: it doesn't fail


async def test_who_is_told_of_a_newer_version_then_finds_it(tmp_path: Path, key: bytes) -> None:
    async with started(tmp_path, Quorum(3, 3, 1)) as farm:
        assert await farm.cluster.put(key, version(1))
        farm.leave(farm.owners(key)[2], key, version(50))  # of a front whose clock is ahead, and which failed
        assert not await farm.cluster.put(key, version(10))
        assert await found(farm.cluster, key) == 50  # whichever node is asked


@pytest.mark.parametrize("place", [1, 2])
async def test_reads_that_ask_one_node_look_at_the_others_now_and_then(quick: Farm, key: bytes, place: int) -> None:
    assert await quick.cluster.put(key, version(1))
    owners = quick.owners(key)
    await until(lambda: set(owners[:2]) <= set(quick.versions(key)))
    quick.leave(owners[place], key, version(2))  # the one that took it while the others were away
    async with asyncio.timeout(10):
        while await found(quick.cluster, key) != 2:
            pass


async def test_a_copy_that_fails_behind_the_answer_is_taken_by_a_spare(
    farm: Farm, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = farm.owners(key)

    async def never(_key: bytes, _data: bytes) -> bool:
        await asyncio.sleep(0.3)
        raise NodeTimeout(owners[1], "no answer")

    monkeypatch.setattr(farm.cluster.topology.nodes[owners[1]], "set", never)
    assert await farm.cluster.put(key, version(1))
    assert farm.cluster.counts()["late_failures"] == 0
    await until(lambda: owners[farm.quorum.copies] in farm.versions(key))
    await until(lambda: farm.cluster.counts()["late_failures"] == 1)


async def create_beside(safe: Farm, key: bytes, others: list[str], data: bytes) -> int | None:
    """A creation in version 9 that the first owner decides while ``others`` take another write. The size found then."""
    there, token = await safe.cluster.get_for_update(key)
    assert there is None
    for name in others:
        safe.leave(name, key, data)
    assert await safe.cluster.put_if(key, version(9), token)
    record = await safe.cluster.get(key)
    return None if record is None or record.header.kind == Kind.TOMBSTONE else len(record.payload)


async def test_a_creation_does_not_undo_what_others_have_acknowledged_meanwhile(safe: Farm, key: bytes) -> None:
    owners = safe.owners(key)[:3]
    assert await create_beside(safe, key, owners[1:], version(4)) == 4
    for name in owners:  # and no read of any two owners finds the other one
        await safe.stop(name)
        await safe.settled(away=1)
        record = await safe.cluster.get(key)
        assert record is not None
        assert len(record.payload) == 4
        await safe.start(name)
        await safe.settled()


async def test_a_creation_overwrites_what_nobody_can_have_acknowledged(safe: Farm, key: bytes) -> None:
    assert await create_beside(safe, key, [safe.owners(key)[1]], version(4)) == 9
    await until(lambda: len({safe.versions(key).get(name) for name in safe.owners(key)[:3]}) == 1)


async def test_a_creation_upon_a_deletion_is_right_at_any_time(safe: Farm, key: bytes) -> None:
    assert await create_beside(safe, key, safe.owners(key)[1:3], version(4, Kind.TOMBSTONE)) == 9


async def test_a_replacement_does_not_undo_a_deletion_that_came_between(safe: Farm, key: bytes) -> None:
    owners = safe.owners(key)[:3]
    assert await safe.cluster.put(key, version(1))
    await until(lambda: all(name in safe.versions(key) for name in owners))
    _, token = await safe.cluster.get_for_update(key)
    for name in owners[1:]:
        safe.leave(name, key, version(4, Kind.TOMBSTONE))
    assert await safe.cluster.put_if(key, version(9), token)
    assert await found(safe.cluster, key) is None
