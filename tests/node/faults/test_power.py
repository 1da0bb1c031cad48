"""The power fails at any moment: what was acknowledged is on the disk; what was not, there whole or not at all."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.node.faults.disk import Luck
from tests.node.faults.history import WrongAnswer
from tests.node.faults.power import CONNECTIONS, Recorded


@pytest.mark.timeout(1800)
async def test_a_power_loss_takes_nothing_acknowledged_and_halves_nothing(
    tmp_path: Path, seed: str, long: bool
) -> None:
    """A node from its first start to a kill in the midst of a load, another to a graceful stop, and cuts all over."""
    for run in range(4 if long else 1):
        directory = tmp_path / str(run)
        directory.mkdir()
        recorded = Recorded(directory, f"{seed} {run}")
        requests = 600 if long else 120
        began = time.monotonic()
        await recorded.live(requests, signal.SIGKILL, after=requests * CONNECTIONS * 3 // 4)
        await recorded.live(requests, signal.SIGTERM)
        traced = time.monotonic() - began
        count = 300 if long else 30
        recorded.cuts(count)
        print(f"{recorded.disk.moment:,} moments in {traced:.1f} s, {recorded.answers:,} answers, "
              f"{count} cuts in {time.monotonic() - began - traced:.1f} s")  # fmt: skip
        shutil.rmtree(directory)


async def test_what_a_node_without_fsync_loses_is_found(tmp_path: Path, seed: str) -> None:
    """Or else the test above would show nothing."""
    recorded = Recorded(tmp_path, seed)
    await recorded.live(50, signal.SIGKILL, durability="os")
    with pytest.raises(WrongAnswer):
        recorded.cut(recorded.disk.moment + 1, Luck.NOTHING)
    recorded.cut(recorded.disk.moment + 1, Luck.ALL)


async def test_an_fsync_that_fails_is_told_and_what_it_was_for_is_never_taken_for_safe(
    tmp_path: Path, seed: str, long: bool
) -> None:
    for run in range(10 if long else 1):
        directory = tmp_path / str(run)
        directory.mkdir()
        recorded = Recorded(directory, f"{seed} {run}", quiet=False)
        first = random.Random(f"{seed} {run}").randrange(9, 22)  # of each thread: behind those of the start
        await recorded.live(120, signal.SIGKILL, "-e", f"inject=fdatasync:error=EIO:when={first}..{first + 2}")
        assert any(ledger.failed for ledger in recorded.ledgers)
        assert int(recorded.stats["failed_fsyncs"]) + int(recorded.stats["write_errors"])
        await recorded.live(30, signal.SIGTERM)
        recorded.cuts(50 if long else 8)
        shutil.rmtree(directory)
