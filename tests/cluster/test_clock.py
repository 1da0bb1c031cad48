"""Versions go by the nodes' clocks where this machine's is far off."""

from __future__ import annotations

import logging
import time
from typing import Any, NamedTuple, cast

import pytest

from sfss.addresses import parse_address
from sfss.backends.base import Epoch
from sfss.backends.memcached import MemcachedNode
from sfss.cluster.clock import Clock
from tests.conftest import Nodes

HOUR = 3600.0


class Node(NamedTuple):
    """As much of a node as a clock sees."""

    epoch: Epoch | None
    since: float | None = 1.0


def clock(*ahead: float | None) -> Clock:
    """By nodes whose clocks are so many seconds ahead of ours."""
    epoch = time.time() - time.monotonic()
    return Clock(lambda: cast(Any, [Node(None if off is None else Epoch(epoch + off, 0.5)) for off in ahead]))


@pytest.mark.parametrize(
    ("ahead", "off"),
    [
        ([], 0.0),
        ([None, None], 0.0),
        ([1.0, -1.0, 0.5], 0.0),  # ours is as good as theirs
        ([HOUR, HOUR, HOUR], HOUR),
        ([-HOUR], -HOUR),
        ([HOUR, 0.0, 0.0], 0.0),  # a node's clock may be wrong, too
        ([HOUR, None, HOUR], HOUR),
    ],
)
def test_it_is_ours_unless_it_is_far_from_the_median_of_the_nodes(ahead: list[float | None], off: float) -> None:
    assert clock(*ahead).now() / 1e6 == pytest.approx(time.time() + off, abs=0.5)


def test_a_clock_that_is_off_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        off = clock(HOUR)
        off.now()
        off.now()
    assert [record.getMessage() for record in caplog.records] == [
        "this machine's clock is 3600.0 s behind the nodes': versions go by theirs. Set the clock"
    ]


def test_a_clock_that_is_set_right_after_the_nodes_were_asked_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    right, steady = time.time_ns, time.monotonic
    monkeypatch.setattr(time, "time_ns", lambda: right() - int(HOUR * 1e9))  # and so it was at all nodes
    nodes = [Node(Epoch(time.time_ns() / 1e9 - steady(), 0.5), steady())]
    ours = Clock(lambda: cast(Any, nodes))
    assert ours.now() / 1e6 == pytest.approx(time.time() - HOUR, abs=0.5)
    monkeypatch.setattr(time, "time_ns", right)  # by NTP
    monkeypatch.setattr(time, "monotonic", lambda: steady() + 2)
    assert ours.now() / 1e6 == pytest.approx(time.time(), abs=3)
    nodes[:] = [Node(Epoch(time.time() - HOUR - time.monotonic(), 0.5), time.monotonic() + 1)]  # it was asked anew
    monkeypatch.setattr(time, "monotonic", lambda: steady() + 4)
    assert ours.now() / 1e6 == pytest.approx(time.time() - HOUR, abs=5)


async def test_real_nodes_tell_their_time(nodes: Nodes) -> None:
    node = MemcachedNode(parse_address(nodes[0]), largest_value=1000)
    assert node.epoch is None
    await node.start()
    assert node.epoch is not None
    assert node.epoch.seconds + time.monotonic() == pytest.approx(time.time(), abs=node.epoch.within + 0.1)
    assert node.epoch.within < (0.5 if node.capabilities and node.capabilities.kind == "sfss" else 3)
    await node.close()
