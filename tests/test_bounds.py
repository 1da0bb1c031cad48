"""What a write has to keep to: write-once paths, and quotas, whoever else writes meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from sfss.bounds import Bound, Tank, Used
from sfss.errors import NotFound, QuotaExceeded, Unavailable, WriteOnce


class Sized(NamedTuple):
    size: int


def tank(bytes: int | None = None, files: int | None = None, used: tuple[int, int] | None = (0, 0)) -> Tank:
    made = Tank("photos")
    made.bytes, made.files = bytes, files
    if used is not None:
        made.counted(Used(*used))
    return made


def bound(of: Tank | None, *, write_once: bool = False) -> Bound[Sized]:
    return Bound("photos/cat.jpg", None, write_once=write_once, tank=of)


async def sent(write: Bound[Sized], size: int, known: int | None = None, piece: int = 10) -> None:
    async def content() -> AsyncIterator[bytes]:
        for start in range(0, size, piece):
            yield bytes(min(piece, size - start))

    async for _ in write.checking(content(), known):
        pass


def test_what_is_written_once_takes_the_place_of_nothing() -> None:
    bound(None, write_once=True).condition(None)
    with pytest.raises(WriteOnce, match=r"photos/cat\.jpg"):
        bound(None, write_once=True).condition(Sized(1))


def test_the_callers_condition_is_asked_first() -> None:
    def never(there: Sized | None) -> None:
        raise NotFound("x")

    write: Bound[Sized] = Bound("x", never, write_once=True, tank=None)
    with pytest.raises(NotFound):
        write.condition(Sized(1))


def test_until_it_is_counted_nothing_is_taken() -> None:
    with pytest.raises(Unavailable, match="it isn't known yet how much is used"):
        bound(tank(100, used=None)).condition(None)


async def test_a_file_is_refused_as_soon_as_it_has_no_room() -> None:
    with pytest.raises(QuotaExceeded, match="100 bytes, of which 50 are used"):
        await sent(bound(tank(100, used=(50, 1))), 51, known=51)
    with pytest.raises(QuotaExceeded):
        await sent(bound(tank(100, used=(50, 1))), 51)
    await sent(bound(tank(100, used=(50, 1))), 50)


async def test_what_is_on_its_way_has_its_room_and_gives_it_back() -> None:
    one = tank(100)
    first, second = bound(one), bound(one)
    await sent(first, 60, known=60)
    with pytest.raises(QuotaExceeded, match="60 on their way"):
        await sent(second, 41)
    second.end()
    first.end()  # it has come to nothing
    assert one.coming == Used(0, 0)
    third = bound(one)
    await sent(third, 100)
    third.condition(None)
    third.kept(100)
    third.end()
    assert (one.used, one.coming) == (Used(100, 1), Used(0, 0))


async def test_a_file_that_replaces_another_is_counted_by_the_difference() -> None:
    one = tank(100, files=1, used=(90, 1))
    write = bound(one)
    write.condition(Sized(90))
    await sent(write, 100, known=100)
    write.condition(Sized(90))
    write.kept(100)
    write.end()
    assert one.used == Used(100, 1)
    smaller = bound(one)
    smaller.condition(Sized(100))
    await sent(smaller, 10)
    smaller.kept(10)
    smaller.end()
    assert one.used == Used(10, 1)


def test_of_many_new_files_at_once_no_more_come_than_there_may_be() -> None:
    one = tank(files=2)
    writes = [bound(one) for _ in range(3)]
    writes[0].condition(None)
    writes[1].condition(None)
    with pytest.raises(QuotaExceeded, match="may have 2 files"):
        writes[2].condition(None)


def test_to_delete_needs_no_room_and_gives_some_back() -> None:
    one = tank(10, files=1, used=(20, 2))
    write: Bound[Sized] = Bound("x", None, write_once=False, tank=one, is_deletion=True)
    write.condition(Sized(15))
    write.removed()
    write.end()
    assert one.used == Used(5, 1)


def test_what_comes_while_it_is_counted_is_rather_counted_twice_than_not() -> None:
    one = tank(1000)
    one.begin_count()
    write = bound(one)
    write.condition(None)
    write.kept(7)
    write.end()
    one.counted(Used(100, 1))
    assert one.used == Used(107, 2)
    one.begin_count()
    one.counted(Used(107, 2))
    assert one.used == Used(107, 2)
