"""The entries in memory: what they are, how many, and that no read that was overtaken by a write is believed."""

from __future__ import annotations

import random

import pytest

from sfss.node.memory import COST, SHARE, UNKNOWN, Memory


def test_what_was_read_or_written_is_found_and_what_was_not_is_unknown() -> None:
    memory = Memory(100_000)
    memory.keep(b"read", b"1")
    memory.wrote(b"written", b"2")
    memory.keep(b"absent", None)
    assert [memory.find(key) for key in (b"read", b"written", b"absent", b"other")] == [b"1", b"2", None, UNKNOWN]
    assert [key in memory for key in (b"read", b"absent", b"other")] == [True, True, False]


def test_the_least_recently_used_goes_first_and_the_bound_holds() -> None:
    memory = Memory(100 * (COST + 4 + 100))
    for number in range(100):
        memory.keep(b"%04d" % number, bytes(100))
    assert memory.find(b"0000") is not UNKNOWN
    memory.keep(b"0100", bytes(100))
    assert (b"0000" in memory, b"0001" in memory) == (True, False)
    chance = random.Random(1)
    for number in range(5000):
        key = b"%04d" % chance.randrange(300)
        memory.wrote(key, None if number % 7 == 0 else bytes(chance.randrange(3000)))
        assert memory.bytes <= memory.limit
    entries = memory.entries
    assert memory.bytes == sum(COST + len(key) + len(entry or b"") for key, entry in entries.items())
    memory.clear()
    assert (len(memory), memory.bytes) == (0, 0)


def test_an_entry_that_would_drive_out_too_many_is_not_kept_and_nor_is_the_one_before_it() -> None:
    memory = Memory(100_000)
    memory.wrote(b"a", b"small")
    memory.wrote(b"a", bytes(100_000 // SHARE))
    assert memory.find(b"a") is UNKNOWN
    assert memory.bytes == 0


def test_what_a_read_brings_is_found_until_it_is_settled_and_kept_if_it_may_be() -> None:
    memory = Memory(100_000)
    keys, failed = [b"small", b"large", b"absent", b"failed"], OSError("bad sector")
    memory.bring(memory.begin(keys), keys, [b"1", bytes(50_000), None, failed])
    assert [memory.find(key) for key in keys] == [b"1", bytes(50_000), None, failed]
    memory.settle()
    assert [memory.find(key) for key in keys] == [b"1", UNKNOWN, None, UNKNOWN]


@pytest.mark.parametrize("new", [b"new", None, bytes(50_000)], ids=["written", "removed", "too large to be kept"])
def test_a_read_that_was_overtaken_by_a_write_brings_nothing(new: bytes | None) -> None:
    memory = Memory(100_000)
    read = memory.begin([b"a", b"b"])
    memory.wrote(b"a", new)
    memory.bring(read, [b"a", b"b"], [b"old", b"2"])
    assert memory.find(b"a") != b"old"
    assert memory.find(b"b") == b"2"


def test_of_two_reads_with_a_write_in_between_only_the_second_counts() -> None:
    memory = Memory(100_000)
    first = memory.begin([b"a"])
    memory.wrote(b"a", bytes(50_000))
    second = memory.begin([b"a"])
    memory.bring(first, [b"a"], [b"old"])
    assert memory.find(b"a") is UNKNOWN
    memory.bring(second, [b"a"], [bytes(50_000)])
    assert memory.find(b"a") == bytes(50_000)


def test_what_was_brought_is_not_found_any_more_once_it_is_overwritten() -> None:
    memory = Memory(100_000)
    memory.bring(memory.begin([b"a"]), [b"a"], [bytes(50_000)])
    memory.wrote(b"a", bytes(60_000))
    assert memory.find(b"a") is UNKNOWN


def test_a_read_that_was_under_way_when_everything_went_brings_nothing() -> None:
    memory = Memory(100_000)
    read = memory.begin([b"a"])
    memory.clear()
    memory.bring(read, [b"a"], [b"old"])
    assert memory.find(b"a") is UNKNOWN
