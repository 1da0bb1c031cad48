"""How a process that serves is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal


def set_when_told(stop: asyncio.Event) -> None:
    """On SIGTERM and SIGINT. asyncio's own handlers end with the loop: a second signal would then cut the end short."""
    loop = asyncio.get_running_loop()

    def told(*_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the end is near as it is
            loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)


def told_enough() -> None:
    """All is done: a signal more must not turn the exit status into its own."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
