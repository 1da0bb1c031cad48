"""What an access log costs a front: one and the same process with its log switched on and off, again and again.

Two processes of the same program differ by several percent for as long as they live, by where their memory happens to
lie: more than what is to be told here. So a front is run whose log a signal switches, over memcached; GETs and PUTs of
4 KiB by 32 connections, in turns on, off, off, on. ``benchmarks.watching`` prints what comes of it.
"""

from __future__ import annotations

import asyncio
import math
import os
import runpy
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import processes
from benchmarks.contenders import MEMCACHED
from benchmarks.httpload import Files, Httpload, Target
from benchmarks.rounds import CONNECTIONS, FILES, GET, PUT_OVER, REQUESTS, SIZE
from sfss.web.watch import Watch
from tests.servers import HOST, Service, memcached

_ON, _OFF = signal.SIGUSR2, signal.SIGWINCH  # which a front uses for nothing


class Cost(NamedTuple):
    """Of one start of a front, for one kind of request, with the log to without."""

    request: str
    rate: float  # requests/s, the ratio of the medians
    time: float  # of the front's processor for a request, likewise


def measure(directory: Path, load: Httpload, starts: int, turns: int, seconds: float) -> Iterator[Cost]:
    """``turns`` of so many seconds each, with a log and as many without, after each start."""
    with memcached(*MEMCACHED) as port:
        for number in range(starts):
            place = directory / f"switched-{number}"
            place.mkdir()
            settings = {"SFSS_STORAGE_NODES": f"node={HOST}:{port}", "SFSS_LOG_ACCESS": str(place / "access.log")}
            service = Service(place, settings={**settings, "PYTHONPATH": str(Path(__file__).parent.parent)})
            service.python = (sys.executable, "-m", __spec__.name)
            with service:
                for request in (GET, PUT_OVER):
                    yield _cost(service, load, request, turns, seconds)


class Mean(NamedTuple):
    """Of a figure of all starts, with its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, values: list[float]) -> Mean:
        """``error`` is nan for a single one."""
        error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else math.nan
        return cls(statistics.mean(values), error)


def _cost(service: Service, load: Httpload, request: str, turns: int, seconds: float) -> Cost:
    assert service.process is not None
    pid, target = service.process.pid, Target(service.port, "/file?path=")
    options, folder = REQUESTS[request]
    files = Files(folder, FILES, SIZE)
    load.run(target, files, "--puts", 100, "--count", FILES, "--connections", 16)
    load.run(target, files, *options, "--connections", CONNECTIONS, seconds=seconds)  # warms up
    figures: dict[signal.Signals, list[tuple[float, float]]] = {_ON: [], _OFF: []}
    for turn in range(2 * turns):
        wanted = (_ON, _OFF, _OFF, _ON)[turn % 4]
        os.kill(pid, wanted)
        time.sleep(0.05)
        before = processes.cpu([pid])
        done = load.run(target, files, *options, "--connections", CONNECTIONS, seconds=seconds)
        assert done.trouble is None, f"{request}: {done.trouble}"
        figures[wanted].append((done.rate, (processes.cpu([pid]) - before) / done.requests))
    on, off = ([statistics.median(column) for column in zip(*figures[each], strict=True)] for each in (_ON, _OFF))
    return Cost(request, on[0] / off[0], on[1] / off[1])


# --- the front ---


def _run_front() -> None:
    """``sfss`` itself, but that a signal switches its log."""
    start = Watch.start

    def started(self: Watch) -> None:
        start(self)
        log, loop = self._log, asyncio.get_running_loop()

        def switch(*, on: bool) -> None:
            self._log = log if on else None

        loop.add_signal_handler(_ON, lambda: switch(on=True))
        loop.add_signal_handler(_OFF, lambda: switch(on=False))

    Watch.start = started  # type: ignore[method-assign]
    del sys.argv[1:3]  # -m sfss
    runpy.run_module("sfss", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run_front()
