"""Fixtures that the tests of backends share."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from sfss import eventloop
from tests.conftest import Loops


def pytest_asyncio_loop_factories() -> Loops:
    """The loop that fronts have, and asyncio's own, which tells of timers that were left."""
    return {"uvloop": eventloop.new, "asyncio": asyncio.new_event_loop}


@pytest.fixture
async def nothing_leaks() -> AsyncIterator[None]:
    """No task, no timer of ours and, by their ResourceWarnings, no socket outlives a test."""
    yield
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    assert asyncio.all_tasks() - {asyncio.current_task()} == set()
    timers = [timer for timer in getattr(loop, "_scheduled", ()) if not timer.cancelled()]  # uvloop doesn't tell
    assert not [timer for timer in timers if "sfss" in repr(timer)]
    gc.collect()  # an unclosed socket's ResourceWarning fails the test
