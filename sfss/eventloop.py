"""The event loop of whatever serves: uvloop's, with which fronts and nodes need a tenth less of CPU time, or more.

Nothing depends on which it is. ``docs/decisions/0017-quick-way.rst`` and ``0019-node-speed.rst`` have the figures.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

new = uvloop.new_event_loop

# After so many new objects more than have gone, of those that may be in cycles, the newest are looked at; after so many
# such looks the older ones; after so many of these all. Python's own are 700, 10 and 10.
_COLLECTED = (5_000, 20, 50)


def run(work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run``."""
    with asyncio.Runner(loop_factory=new) as runner:
        return runner.run(work)


def settled() -> None:
    """What is there now stays as long as the process: have the garbage collector look at it no more, and at all else
    more seldom.

    All modules together are 42,000 objects at a front, and 21,000 at a node. To look at them again takes 20 ms and
    5 ms, in which nobody is answered, each time that a quarter as many new ones have come and stayed.

    What requests leave behind is hardly ever a cycle, which the collector is for; but each connection is some dozens of
    objects, and with ten thousand of them a look at all took 120 ms, a third of a front's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTED)
