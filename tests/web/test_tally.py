"""What several processes count: summed up, whole, and never less than it was."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sfss.cluster.copies import Counts
from sfss.traffic import BOUNDS, Taken
from sfss.web.tally import COPIES, MOST_NODES, NAMES, Tally


@pytest.fixture
def memory() -> mmap.mmap:
    return mmap.mmap(-1, Tally.size(3))


def test_what_the_workers_count_is_summed(memory: mmap.mmap) -> None:
    workers = [Tally(memory, worker) for worker in range(3)]
    for times, worker in enumerate(workers, 1):
        for _ in range(times):
            worker.responded(200)
        worker.add("mended", 10)
    workers[2].responded(504)
    for worker in workers:
        assert worker.responses() == {200: 6, 504: 1}
        assert worker.total("mended") == 30
        assert [place.requests for place in worker.places()] == [1, 2, 4]


def test_who_comes_after_a_worker_goes_on_with_its_counts(memory: mmap.mmap) -> None:
    first = Tally(memory, 1)
    first.begin()
    first.responded(200)
    since = first.since
    Tally(memory).ended(1)
    assert first.places()[1].pid == 0
    second = Tally(memory, 1)
    second.begin()
    second.responded(200)
    assert second.responses() == {200: 2}
    assert second.since == since
    place = second.places()[1]
    assert (place.pid, place.starts, place.requests) == (os.getpid(), 2, 2)
    assert place.started > since


def test_what_copies_count_is_seen_at_once_by_everybody(memory: mmap.mmap) -> None:
    counts = Counts(Tally(memory, 2).cells(Counts.NAMES))
    assert Counts.NAMES == COPIES
    for times, name in enumerate(Counts.NAMES, 1):
        for _ in range(times):
            setattr(counts, name, getattr(counts, name) + 1)
    assert [Tally(memory).total(name) for name in COPIES] == [1, 2, 3, 4, 5]
    assert Counts().cells == [0] * 5


def test_every_name_stands_there_once() -> None:
    assert len(set(NAMES)) == len(NAMES)


COUNT = """
import sys
from sfss.web.tally import Tally
tally = Tally(int(sys.argv[1]), 1)
tally.begin()
while True:
    tally.responded(200)
"""


def test_a_worker_that_is_killed_leaves_no_half_of_a_number(tmp_path: Path) -> None:
    """The count goes over a border of 32 bits, where a half would show, again and again."""
    root = Path(__file__).parent.parent.parent
    with (tmp_path / "tally").open("w+b") as file:
        file.truncate(Tally.size(2))
        tally = Tally(file.fileno())
        row = Tally(file.fileno(), 1)
        for starts in range(1, 6):
            border = starts << 32
            row.add("handoffs")  # another cell beside it
            row._row[200] = seen = border - 20_000
            command = [sys.executable, "-c", COUNT, str(file.fileno())]
            with subprocess.Popen(command, cwd=root, pass_fds=[file.fileno()]) as child:
                deadline = time.monotonic() + 20
                while seen < border + 20_000:
                    assert time.monotonic() < deadline
                    before, seen = seen, tally.responses()[200]
                    assert before <= seen < border + (1 << 31)
                child.send_signal(signal.SIGKILL)
            assert seen <= tally.responses()[200] < border + (1 << 31)
            assert tally.places()[1].starts == starts
        assert tally.total("handoffs") == 5


def _taken(answers: int, seconds: float, timeouts: int) -> Taken:
    return Taken([0, answers, *[0] * (len(BOUNDS) - 1)], seconds, [timeouts, 0, 0])


def test_requests_to_a_node_are_summed_whatever_its_place_in_each_row(memory: mmap.mmap) -> None:
    first, second = Tally(memory, 0), Tally(memory, 1)
    first.exchanged("a:1", _taken(1, 0.5, 0))
    first.exchanged("b:1", _taken(2, 1.0, 1))
    second.exchanged("b:1", _taken(3, 1.5, 0))
    Tally(memory, 1).exchanged("b:1", _taken(1, 0.0, 1))  # the next one in its place
    told = Tally(memory, 2).traffic("b:1")
    assert (told.seconds.counts[1], told.seconds.sum, told.failures["timeout"]) == (6, 2.5, 2)
    assert Tally(memory).traffic("a:1").seconds.counts[1] == 1
    assert sum(Tally(memory).traffic("c:1").seconds.counts) == 0


def test_of_more_nodes_than_there_is_room_for_nothing_is_told_and_nothing_breaks(memory: mmap.mmap) -> None:
    tally = Tally(memory, 1)
    for number in range(MOST_NODES + 10):
        tally.exchanged(f"node{number}:1", _taken(1, 0.0, 0))
    counted = [sum(tally.traffic(f"node{number}:1").seconds.counts) for number in range(MOST_NODES + 10)]
    assert counted == [1] * MOST_NODES + [0] * 10
    assert Tally(memory, 2).responses() == {}
    assert Tally(memory, 2).places()[2].starts == 0


def test_a_worker_s_state_ends_with_it_and_its_counts_do_not(memory: mmap.mmap) -> None:
    tally = Tally(memory, 1)
    tally.begin()
    tally.put("in_flight", 3)
    tally.add("handoffs", 4)
    assert (tally.total("in_flight"), tally.each("in_flight")) == (3, [0, 3, 0])
    Tally(memory).ended(1)
    assert (tally.total("in_flight"), tally.total("handoffs")) == (0, 4)


def test_methods_statuses_times_and_sizes_are_kept_apart(memory: mmap.mmap) -> None:
    tally = Tally(memory, 2)
    tally.responded(599, "GET", 10**18, 2**50)
    tally.responded(100, b"HEAD", 0, 0)
    tally.responded(200, "PROPFIND", 500_000, 256)
    told = Tally(memory).answered()
    assert {method: answered.statuses for method, answered in told.items()} == {
        "GET": {599: 1}, "HEAD": {100: 1}, "other": {200: 1},
    }  # fmt: skip
    assert (told["GET"].seconds.counts[-1], told["GET"].bytes.counts[-1]) == (1, 1)
    assert told["GET"].seconds.sum == pytest.approx(1e9)
    assert (told["other"].seconds.counts[0], told["other"].bytes.counts[0]) == (1, 1)  # bounds are within
    assert sum(map(sum, (answered.seconds.counts for answered in told.values()))) == 3
    assert tally.total("pid") == 0


def test_many_counted_at_once_are_the_same_as_each_by_itself() -> None:
    many, one = Tally.alone(), Tally.alone()
    statuses, times, sizes = [200, 404, 200, 504], [1, 10**12, 500_000, 500_001], [0, 256, 257, 2**50]
    for method in (b"GET", b"PUT", b"GET", b"PROPFIND"):
        many.responded_all(method, statuses, times, sizes)
        for status, nanoseconds, size in zip(statuses, times, sizes, strict=True):
            one.responded(status, method, nanoseconds, size)
    assert many.answered() == one.answered()


def test_who_reads_has_what_was_put_aside_counted_before() -> None:
    tally = Tally.alone()
    tally.before_reading = lambda: tally.responded(200)
    assert [place.requests for place in tally.places()] == [1]
    assert tally.responses() == {200: 2}
