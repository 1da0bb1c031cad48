"""Rates of several processes: one bucket for each who asks, whichever of them he asks, and whoever of them dies."""

from __future__ import annotations

import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfss.access.rates import Rates
from sfss.access.shared_rates import SETS, WAYS, Buckets, SharedRates
from tests.servers import wait_for

PROCESSES = 3


@pytest.fixture
def memory() -> mmap.mmap:
    memory = mmap.mmap(-1, Buckets.size(PROCESSES))
    Buckets.prepare(memory)
    return memory


def each(memory: mmap.mmap, rate: float, burst: float = 0.0, table: str = "key") -> list[SharedRates]:
    return [Buckets(memory, number).rates(table, rate, burst) for number in range(PROCESSES)]


def set_of(rates: SharedRates, who: str) -> int:
    return rates._hash(who) % SETS


def test_a_burst_is_one_whoever_is_asked_and_so_is_the_rate(memory: mmap.mmap) -> None:
    one, two, three = each(memory, 2, 5)
    assert [rates.take("a", 100.0) for rates in (one, two, three, one, two)] == [0.0] * 5
    assert [rates.take("a", 100.0) for rates in (one, two, three)] == [0.5] * 3
    assert three.take("a", 100.5) == 0.0
    assert [rates.take("a", 100.5) for rates in (one, two, three)] == [0.5] * 3
    assert [rates.take("a", 200.0) > 0 for rates in (one, one, one, one, two, two, three)] == [False] * 5 + [True] * 2


def test_each_is_counted_for_himself(memory: mmap.mmap) -> None:
    one, two, _ = each(memory, 1, 1)
    assert one.take("a", 10.0) == two.take("b", 10.0) == 0.0
    assert one.take("b", 10.0) > 0 < two.take("a", 10.0)


def test_a_key_and_an_address_are_two_and_so_is_who_is_counted_by_another_rate(memory: mmap.mmap) -> None:
    for rates in (each(memory, 1, 1), each(memory, 1, 1, "address"), each(memory, 1, 2), each(memory, 2, 1)):
        assert rates[0].take("a", 10.0) == 0.0
    assert each(memory, 1, 1)[2].take("a", 10.0) > 0


def test_without_a_rate_nobody_is_counted(memory: mmap.mmap) -> None:
    before = memory[:]
    rates = each(memory, 0)[0]
    assert [rates.take("a", 10.0) for _ in range(1000)] == [0.0] * 1000
    assert memory[:] == before


def test_the_next_process_in_a_place_goes_on_with_what_was_counted_there(memory: mmap.mmap) -> None:
    one, two, _ = each(memory, 1, 4)
    assert one.take("a", 10.0) == one.take("a", 10.0) == two.take("a", 10.0) == 0.0
    again = each(memory, 1, 4)[0]
    assert [again.take("a", 10.0) > 0 for _ in range(2)] == [False, True]


@given(
    st.floats(0.01, 1000),
    st.floats(0, 100),
    st.lists(st.tuples(st.floats(0, 10), st.integers(0, PROCESSES - 1), st.sampled_from("ab")), max_size=200),
)
def test_they_say_what_one_process_alone_would(rate: float, burst: float, asked: list[tuple[float, int, str]]) -> None:
    together, alone, now = each(mmap.mmap(-1, Buckets.size(PROCESSES)), rate, burst), Rates(rate, burst), 1000.0
    for pause, number, who in asked:
        now += pause
        assert together[number].take(who, now) == pytest.approx(alone.take(who, now), abs=1e-6)


def test_whoever_is_not_full_is_kept_when_there_are_too_many_of_a_set(memory: mmap.mmap) -> None:
    one, two, _ = each(memory, 1, 10)
    same_set = [who for who in map(str, range(SETS * 5 * WAYS)) if set_of(one, who) == 0][: 2 * WAYS]
    assert len(same_set) == 2 * WAYS
    busy, others = same_set[0], same_set[1:]
    for _ in range(10):
        assert one.take(busy, 1000.0) == 0.0
    for number, who in enumerate(others):  # each is full again when the next comes
        assert one.take(who, 1002.0 + number / 1000) == 0.0
    assert two.take(busy, 1000.0) > 0
    assert one.take(busy, 1000.0) > 0


def test_a_crowd_takes_no_more_memory_than_there_is(memory: mmap.mmap) -> None:
    one, two, _ = each(memory, 1, 1)
    for number in range(5 * SETS):
        one.take(f"{number}", 100.0)
        two.take("who asks all the time", 100.0)
    assert two.take("who asks all the time", 100.0) > 0
    assert len(memory) == Buckets.size(PROCESSES) < PROCESSES * 3.2e6


def test_who_chooses_names_cannot_know_which_meet(memory: mmap.mmap) -> None:
    other = mmap.mmap(-1, Buckets.size(PROCESSES))
    Buckets.prepare(other)
    here, there = each(memory, 1, 1)[0], each(other, 1, 1)[0]
    assert sum(set_of(here, str(n)) == set_of(there, str(n)) for n in range(1000)) < 10


# --- processes ---

_TAKES = """
import sys, time
from sfss.access.shared_rates import Buckets
number, rate, burst, until = int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])
rates, given = Buckets(int(sys.argv[1]), number).rates("key", rate, burst), 0
began = time.monotonic()
while (now := time.monotonic()) < until:
    given += rates.take("a", now) == 0.0
print(given, began)
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    with (tmp_path / "buckets").open("w+b") as file:
        file.truncate(Buckets.size(PROCESSES))
        Buckets.prepare(file.fileno())
        yield file.fileno()


def takes(file: int, number: int, rate: float, burst: float, until: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _TAKES, *map(str, (file, number, rate, burst, until))]
    return subprocess.Popen(command, pass_fds=(file,), stdout=subprocess.PIPE, text=True)


def test_of_processes_that_give_as_fast_as_they_can_all_together_give_no_more_than_one(file: int) -> None:
    rate, burst, until = 500.0, 100.0, time.monotonic() + 4.0
    children = [takes(file, number, rate, burst, until) for number in range(PROCESSES)]
    told = [child.communicate(timeout=60)[0].split() for child in children]
    counts, began = [int(count) for count, _ in told], min(float(at) for _, at in told)
    assert min(counts) > 0
    most = burst + rate * (until - began)
    assert 0.5 * most < sum(counts) <= most + PROCESSES - 1


def test_of_processes_that_are_killed_at_any_moment_no_bucket_is_held_up_or_begins_anew(file: int) -> None:
    rate, burst = 1.0, 1e6  # of which as much is given as there is time for
    began, chance, watching = time.monotonic(), random.Random(1), Buckets(file, 2).rates("key", rate, burst)
    which = watching._hash("a")

    def full() -> float:
        return watching._read(which % SETS * watching._set, which)[0]

    for _ in range(20):
        before = max(full(), began)
        child = takes(file, 0, rate, burst, began + 600)
        wait_for(lambda before=before: full() > before + 500, what="it to give 500 tokens")  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.02))
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        assert full() > before + 500
    assert full() > began + 20 * 500, "none is forgotten"
    assert watching.take("a", time.monotonic()) == 0.0
    small = Buckets(file, 2).rates("key", 10.0, 5.0)
    assert [small.take("a", time.monotonic() + 1) > 0 for _ in range(6)] == [False] * 5 + [True]


def test_whoever_is_killed_between_two_of_its_writes_leaves_what_counts_for_nothing(
    memory: mmap.mmap,
) -> None:
    """At each of them in turn; where others asked before, and where nobody did."""

    class Killed(Exception):
        pass

    class Cells:
        """Memory that is written so many times yet."""

        def __init__(self, cells: Any, left: list[int]) -> None:
            self._cells, self._left = cells, left

        def __getitem__(self, at: Any) -> Any:
            return self._cells[at]

        def __setitem__(self, at: int, value: float) -> None:
            if not self._left[0]:
                raise Killed
            self._left[0] -= 1
            self._cells[at] = value

    for who, asked_before in (("new", 0), ("old", 3)):
        for writes in range(4):
            name = f"{who} {writes}"
            dies, stays, _ = each(memory, 1, 5)
            for number in range(asked_before):
                assert (dies, stays)[number % 2].take(name, 10.0) == 0.0
            left = [writes]
            for cells in ("_hashes", "_times"):
                setattr(dies, cells, Cells(getattr(dies, cells), left))
            was_killed = False
            try:
                dies.take(name, 100.0)
            except Killed:
                was_killed = True
            given = sum(stays.take(name, 100.0) == 0.0 for _ in range(10))
            assert given in ((5, 4) if was_killed else (4,))
