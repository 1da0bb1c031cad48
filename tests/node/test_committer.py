"""Syncs: on the loop while the disk is quick, in a thread while it isn't, and never two at a time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from sfss.node import committer as committing
from sfss.node.committer import Committer


class Disk:
    """As much of a store and of its counters as a committer knows: each sync takes so long, or fails."""

    def __init__(self) -> None:
        self.unsynced = False
        self.takes = 0.0
        self.fails = False
        self.fsyncs = self.failed_fsyncs = 0
        self.threads: list[threading.Thread] = []
        self.busy = 0

    @property
    def counters(self) -> Disk:
        return self

    def sync(self) -> None:
        with self.working():
            self.threads.append(threading.current_thread())
            if self.fails:
                raise OSError("Input/output error")

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        self.busy += 1
        try:
            assert self.busy == 1, "two at a time"
            time.sleep(self.takes)
            yield
        finally:
            self.busy -= 1


class Client:
    """Whoever holds a reply back."""

    def __init__(self) -> None:
        self.ticket = 0
        self.told: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    def release(self, ticket: int, error: bytes | None) -> None:
        if ticket >= self.ticket:
            self.told.set_result(error)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncs are tried on the loop from the start."""
    monkeypatch.setattr(committing, "PAUSE", 0.0)


def committer(disk: Disk) -> Committer:
    return Committer(cast(Any, disk), cast(Any, disk), durable=True)


async def write(committer: Committer, disk: Disk) -> bytes | None:
    """A change, and its answer."""
    client = Client()
    disk.unsynced = True
    assert committer.ticket(client)
    return await client.told


def on_the_loop(disk: Disk) -> list[bool]:
    return [thread is threading.main_thread() for thread in disk.threads]


async def test_at_first_a_thread_does_it(disk: Disk) -> None:
    committer_ = committer(disk)
    assert await write(committer_, disk) is None
    assert on_the_loop(disk) == [False]
    committer_.close()


@pytest.mark.usefixtures("quick")
async def test_the_syncs_of_a_quick_disk_are_done_on_the_loop(disk: Disk) -> None:
    committer_ = committer(disk)
    for _ in range(5):
        assert await write(committer_, disk) is None
    assert on_the_loop(disk) == [True] * 5
    committer_.close()


@pytest.mark.usefixtures("quick")
async def test_one_very_slow_sync_leaves_the_next_to_the_thread(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    committer_ = committer(disk)
    monkeypatch.setattr(committer_, "_pause", 0.15)
    disk.takes = 0.11
    await write(committer_, disk)
    disk.takes = 0.0
    await write(committer_, disk)
    await asyncio.sleep(0.4)
    await write(committer_, disk)
    assert on_the_loop(disk) == [True, False, True]
    committer_.close()


@pytest.mark.usefixtures("quick")
async def test_a_slow_one_now_and_then_changes_nothing(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "SHARE", 0.25)
    committer_ = committer(disk)
    for _ in range(6):  # 0.06 s, which may take 0.24
        disk.takes = 0.06
        await write(committer_, disk)
        disk.takes = 0.0
        await write(committer_, disk)
        await asyncio.sleep(0.3)
    assert on_the_loop(disk) == [True] * 12
    committer_.close()


@pytest.mark.usefixtures("quick")
async def test_slow_ones_that_come_to_much_of_the_time_leave_the_next_to_the_thread(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    committer_ = committer(disk)
    monkeypatch.setattr(committing, "PAUSE", 1.0)
    disk.takes = 0.02
    for _ in range(9):  # the fifth comes to 0.1 s, of which 0.01 were allowed
        await write(committer_, disk)
    assert 5 <= sum(on_the_loop(disk)) <= 7
    committer_.close()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("takes", "share", "pause", "seconds", "most"),
    [
        pytest.param(0.04, 0.02, 0.05, 1.2, 5, id="longer than it may at once"),  # after 0, 0.1, 0.3, 0.7 s
        pytest.param(0.3, committing.SHARE, 0.1, 2.5, 4, id="longer than a pause"),  # after 0, 0.6, 1.5 s
    ],
)
async def test_a_disk_that_stays_slow_is_tried_less_and_less_often(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, takes: float, share: float, pause: float, seconds: float, most: int
) -> None:
    committer_ = committer(disk)
    monkeypatch.setattr(committer_, "_pause", pause)
    monkeypatch.setattr(committing, "SHARE", share)
    disk.takes = takes
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await write(committer_, disk)
    assert 2 <= sum(on_the_loop(disk)) <= most
    committer_.close()


@pytest.mark.usefixtures("quick")
async def test_that_nobody_wrote_for_long_makes_no_disk_quick(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    committer_ = committer(disk)
    monkeypatch.setattr(committer_, "_pause", 0.1)
    for _ in range(2):  # tried once a burst: pauses of 0.2 and 0.4 s
        disk.takes = 0.11
        await write(committer_, disk)
        disk.takes = 0.0
        await write(committer_, disk)
        await asyncio.sleep(0.5)
    assert on_the_loop(disk) == [True, False] * 2
    committer_.close()


@pytest.mark.usefixtures("quick")
async def test_a_disk_that_was_quick_for_long_is_soon_tried_again(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    committer_ = committer(disk)
    monkeypatch.setattr(committing, "PAUSE", 0.02)
    monkeypatch.setattr(committer_, "_pause", 0.1)
    await write(committer_, disk)
    await asyncio.sleep(0.11)
    disk.takes = 0.11
    await write(committer_, disk)
    await asyncio.sleep(0.03)
    await write(committer_, disk)
    assert on_the_loop(disk) == [True] * 3
    committer_.close()


@pytest.mark.usefixtures("quick")
async def test_a_sync_on_the_loop_that_fails_is_told(disk: Disk) -> None:
    committer_ = committer(disk)
    disk.fails = True
    answer = await write(committer_, disk)
    assert answer is not None
    assert answer.startswith(b"SERVER_ERROR OSError: Input/output error")
    assert disk.failed_fsyncs == 1
    committer_.close()


@pytest.mark.usefixtures("quick")
async def test_no_sync_is_done_beside_what_runs_where_syncs_run(disk: Disk) -> None:
    committer_ = committer(disk)
    disk.takes = 0.001

    def function() -> None:
        with disk.working():
            time.sleep(0.05)

    running = asyncio.create_task(committer_.run(function))
    await asyncio.sleep(0)
    running.cancel()  # who has asked for it has gone; it goes on
    assert await write(committer_, disk) is None
    assert on_the_loop(disk) == [False]
    await asyncio.sleep(0.01)
    assert await write(committer_, disk) is None
    assert on_the_loop(disk) == [False, True]
    committer_.close()
