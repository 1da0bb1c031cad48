"""The event loop of whatever serves: uvloop's, with which fronts and nodes need a tenth less of CPU time, or more.

Nothing depends on which it is. ``docs/decisions/0017-quick-way.rst`` and ``0019-node-speed.rst`` have the figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

new = uvloop.new_event_loop


def run(work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run``."""
    with asyncio.Runner(loop_factory=new) as runner:
        return runner.run(work)
