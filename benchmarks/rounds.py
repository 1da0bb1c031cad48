"""Fronts beside each other, in alternating rounds of one run: files of 4 KiB, 32 connections, read and written."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks import processes
from benchmarks.httpload import Files, Httpload, Measured, Target
from tests.servers import Service

CONNECTIONS = 32
SIZE = 4096
FILES = 1000
PAUSE = 0.5  # seconds between two runs
# By what is asked: the options of httpload, and the folder; a new one for each round where {} stands in it.
GET, PUT_NEW, PUT_OVER = "GET", "PUT new", "PUT over"
REQUESTS: Mapping[str, tuple[tuple[object, ...], str]] = {
    GET: ((), "files"),
    PUT_NEW: (("--puts", 100, "--fresh"), "new-{}"),
    PUT_OVER: (("--puts", 100, "--edition", 0), "files"),
}


@dataclass
class Contender:
    """A front that runs, and its figures by what was asked, of each round."""

    name: str
    service: Service
    rates: dict[str, list[Measured]] = field(default_factory=dict)
    costs: dict[str, list[float]] = field(default_factory=dict)  # microseconds of the front's processor for a request

    @property
    def pid(self) -> int:
        assert self.service.process is not None
        return self.service.process.pid


class Compared(NamedTuple):
    """A contender's figures of one kind of request; the cells are as they stand in a table."""

    request: str
    contender: Contender
    ratio: float  # the median, over the rounds, of its rate to the first one's
    cells: tuple[str, ...]  # requests/s: median, lowest, highest
    times: tuple[str, ...]  # p50 ms, p99 ms
    cost: float  # microseconds of the front's processor for a request, in all rounds together ...
    cost_ratio: float  # ... and that to the first one's


def fill(load: Httpload, contender: Contender) -> None:
    """The files that are read."""
    done = load.run(
        _target(contender), Files("files", FILES, SIZE), "--puts", 100, "--count", FILES, "--connections", 16
    )
    assert done.trouble is None, f"{contender.name}: {done.trouble}"


def run(
    load: Httpload,
    contenders: Sequence[Contender],
    rounds: int,
    seconds: float,
    requests: Sequence[str] = tuple(REQUESTS),
    beside: Callable[[Contender], contextlib.AbstractContextManager[None]] = lambda _: contextlib.nullcontext(),
) -> None:
    """Ask each for each kind of request, in turns that change; ``seconds`` each. ``beside`` goes on meanwhile."""
    for number in range(rounds + 1):
        for request in requests:
            for contender in contenders[:: -1 if number % 2 else 1]:
                time.sleep(PAUSE)
                options, folder = REQUESTS[request]
                files = Files(folder.format(number), FILES, SIZE)
                before = processes.cpu([contender.pid])
                with beside(contender):
                    done = load.run(_target(contender), files, *options, "--connections", CONNECTIONS, seconds=seconds)
                assert done.trouble is None, f"{contender.name}, {request}: {done.trouble}"
                if number:  # the first round warms up
                    contender.rates.setdefault(request, []).append(done)
                    used = processes.cpu([contender.pid]) - before
                    contender.costs.setdefault(request, []).append(1e6 * used / done.requests)


def compared(contenders: Sequence[Contender]) -> Iterator[Compared]:
    """All of them, by what was asked, with the first one."""
    for request, reference in contenders[0].rates.items():
        for contender in contenders:
            measured = contender.rates[request]
            rates = [each.rate for each in measured]
            yield Compared(
                request,
                contender,
                statistics.median(one.rate / other.rate for one, other in zip(measured, reference, strict=True)),
                (f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f}", f"{max(rates):,.0f}"),
                (
                    f"{statistics.median(each.p50 for each in measured) / 1000:.2f}",
                    f"{statistics.median(each.p99 for each in measured) / 1000:.2f}",
                ),
                _cost(contender, request),
                _cost(contender, request) / _cost(contenders[0], request),
            )


def _cost(contender: Contender, request: str) -> float:
    """Microseconds of the front's processor for a request, in all rounds together."""
    weights = [measured.requests for measured in contender.rates[request]]
    return statistics.fmean(contender.costs[request], weights)


def judged(ratio: float, bound: float | None) -> tuple[bool, tuple[str, str]]:
    """Whether a bound holds, if there is one; and the cells that say so."""
    if bound is None:
        return True, ("", "")
    return ratio >= bound, (f"at least {bound:g}", "yes" if ratio >= bound else "NO")


def _target(contender: Contender) -> Target:
    return Target(contender.service.port, "/file?path=")
