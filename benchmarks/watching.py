"""What it costs a front to be watched: scrapes of /metrics under full load, the access log, and each part alone.

    python -m benchmarks.watching [--starts 6] [--rounds 2] [--seconds 2] [--every 1] [--turns 12] [--parts]

GETs and PUTs of 4 KiB over one node, in alternating rounds: a front as it is, and the same while a Prometheus asks it
every so many seconds, started several times. Then the access log, switched on and off in one process
(``benchmarks.log_cost``), in so many turns with it, and without, after each start.

A front is one process on one core, so what of the processor it spends on being watched is what it lacks for requests.
That is judged, for requests/s of neighbouring rounds differ by more than what is to be told: the processor's time of a
scrape, as a share of the usual 15 s, and of a request with a log to one without. Last comes how many microseconds each
part takes by itself; ``--parts``: only that.
Prints a fragment for ``RESULTS.rst``. Exit status: 0; 1 if a bound doesn't hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import threading
import time
import timeit
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import log_cost, processes, report, rounds
from benchmarks.httpload import Httpload
from benchmarks.log_cost import Cost, Mean
from benchmarks.rounds import GET, PUT_OVER, SIZE, Contender
from sfss.web import heads
from sfss.web.access_lines import Row
from sfss.web.access_log import AccessLog
from sfss.web.request_ids import RequestIds
from sfss.web.tally import Tally
from tests.servers import HOST, Service, sfss_node

ALONE, SCRAPED = "alone", "scraped"
MOST_OF_SCRAPES, MOST_OF_LOG = 0.01, 1.05  # of all the front's time; of a request's without a log
INTERVAL = 15  # seconds between two scrapes, as conf/prometheus.yml has it
TURN = 0.3  # seconds with the log, or without
_SCRAPES = 200
_GATHERED = 200  # requests whose lines are made together
_TIMES = 5_000  # that a part is done: of the log less than what may wait to be written, or lines would be dropped


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watching", description=__doc__.split("\n")[0])
    parser.add_argument("--starts", type=int, default=6, help="of the fronts (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="after each start (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run (default: %(default)s)")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between scrapes (default: %(default)s)")
    parser.add_argument(
        "--turns", type=int, default=12, help="of each kind, with a log and without (default: %(default)s)"
    )
    parser.add_argument("--parts", action="store_true", help="only the microseconds of each part")
    options = parser.parse_args(arguments)
    holds = True
    with tempfile.TemporaryDirectory(prefix="sfss-watching-") as name:
        directory = Path(name)
        print(report.field_list(report.facts("python -m benchmarks.watching", directory, {})))
        if not options.parts:
            contenders, scrape = _run_all(directory, options)
            print(f"\n{report.table(_table(contenders), left=2)}")
            share = scrape / INTERVAL
            holds = share < MOST_OF_SCRAPES
            print(f"\nA scrape takes {scrape * 1000:.1f} ms of the front's processor, {share:.3%} of {INTERVAL} s: "
                  f"{'less' if holds else 'NOT less'} than {MOST_OF_SCRAPES:.0%}.")  # fmt: skip
            costs = list(log_cost.measure(directory, Httpload(directory), options.starts, options.turns, TURN))
            rows, logs_hold = _logs(costs)
            holds &= logs_hold
            print(f"\n{report.table(rows, left=1)}")
        print(f"\n{report.table([('part', 'us'), *asyncio.run(_parts())], left=1)}")
    return 0 if holds else 1


def _run_all(directory: Path, options: argparse.Namespace) -> tuple[list[Contender], float]:
    """The contenders with their figures; and seconds of the processor for a scrape."""

    def beside(contender: Contender) -> contextlib.AbstractContextManager[None]:
        return _scraped(contender.service, options.every) if contender.name == SCRAPED else contextlib.nullcontext()

    with contextlib.ExitStack() as stack:
        load = Httpload(directory)
        contenders = list(_contenders(directory, stack))
        rounds.fill(load, contenders[0])  # all of them have one node
        for number in range(options.starts):
            if number:
                for service in {each.service for each in contenders}:
                    service.stop()
                    service.start()
            rounds.run(load, contenders, options.rounds, options.seconds, (GET, PUT_OVER), beside)
        return contenders, _scrape(contenders[0])


def _contenders(directory: Path, stack: contextlib.ExitStack) -> Iterator[Contender]:
    port, _ = stack.enter_context(sfss_node(directory / "node"))
    place = directory / "plain"
    place.mkdir()
    service = Service(place, settings={"SFSS_STORAGE_NODES": f"node={HOST}:{port}"})
    stack.push(service)
    front = service.start()
    yield Contender(ALONE, front)
    yield Contender(SCRAPED, front)


@contextlib.contextmanager
def _scraped(service: Service, every: float) -> Iterator[None]:
    """Ask for /metrics at once, and then again and again."""
    stop = threading.Event()

    def scrape() -> None:
        while True:
            _ask(service)
            if stop.wait(every):
                return

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _scrape(front: Contender) -> float:
    """Seconds of the front's processor for one, when nothing else is asked: what it does by itself is taken off."""
    before = processes.cpu([front.pid])
    began = time.perf_counter()
    for _ in range(_SCRAPES):
        _ask(front.service)
    took = time.perf_counter() - began
    asked = processes.cpu([front.pid]) - before
    time.sleep(took)
    return (asked - (processes.cpu([front.pid]) - before - asked)) / _SCRAPES


def _ask(service: Service) -> None:
    with urllib.request.urlopen(f"{service.url}/metrics", timeout=10) as answer:
        answer.read()


def _table(contenders: list[Contender]) -> list[tuple[str, ...]]:
    head = (
        "4 KiB",
        "watched",
        "requests/s",
        "lowest",
        "highest",
        "ratio",
        "p50 ms",
        "p99 ms",
        "front's us",
        "to alone's",
    )
    rows: list[tuple[str, ...]] = [head]
    for each in rounds.compared(contenders):
        cost = f"{each.cost:.1f}", f"{each.cost_ratio:.3f}"
        rows.append((each.request, each.contender.name, *each.cells, f"{each.ratio:.3f}", *each.times, *cost))
    return rows


def _logs(costs: list[Cost]) -> tuple[list[tuple[str, ...]], bool]:
    rows: list[tuple[str, ...]] = [
        ("the log, on to off", "starts", "requests/s", "error", "front's time", "error", "bound", "holds")
    ]
    all_hold = True
    for request in (GET, PUT_OVER):
        these = [cost for cost in costs if cost.request == request]
        rate, front_time = Mean.of([cost.rate for cost in these]), Mean.of([cost.time for cost in these])
        holds = front_time.value < MOST_OF_LOG
        all_hold &= holds
        cells = [f"{figure:.3f}" for figure in (*rate, *front_time)]
        rows.append((request, str(len(these)), *cells, f"less than {MOST_OF_LOG}", "yes" if holds else "NO"))
    return rows, all_hold


# --- the parts ---


async def _parts() -> list[tuple[str, str]]:
    """Microseconds of each, the least of several tries: so little the rest of the machine has had of it."""
    tally, ids = Tally.alone(), RequestIds()
    request = b"GET /file?path=files/00000123.bin HTTP/1.1\r\nHost: front\r\nUser-Agent: httpload\r\n\r\n"
    head = heads.parse(request, len(request) - 4)
    assert head is not None
    log = AccessLog("/dev/null", as_json=True, tally=tally)
    text = AccessLog("/dev/null", as_json=False, tally=tally)
    for each in (log, text):
        each.start()

    rows: list[Row] = [
        (time.perf_counter_ns(), 812_345, 200, SIZE, "192.0.2.1", b"0123456789ab-%08x" % number, head)
        for number in range(_GATHERED)
    ]
    statuses, times, sizes = [200] * _GATHERED, [812_345] * _GATHERED, [SIZE] * _GATHERED
    parts: dict[str, tuple[Callable[[], object], int]] = {  # and how many requests each is for
        "every request: the clock, twice": (lambda: (time.perf_counter_ns(), time.perf_counter_ns()), 1),
        "every request: counted": (lambda: tally.responded(200, b"GET", 812_345, SIZE), 1),
        f"the same, {_GATHERED} at once": (lambda: tally.responded_all(b"GET", statuses, times, sizes), _GATHERED),
        "every request: an id": (ids.new, 1),
        f"access log: a line of JSON, {_GATHERED} at once": (lambda: log.write(rows), _GATHERED),
        f"access log: a line of text, {_GATHERED} at once": (lambda: text.write(rows), _GATHERED),
        "an empty function": (lambda: None, 1),
    }
    table = []
    for name, (part, requests) in parts.items():
        tries = []
        for _ in range(7):
            tries.append(timeit.timeit(part, number=_TIMES // requests))
            await asyncio.sleep(0.2)  # the log's thread writes what it got
        table.append((name, f"{min(tries) / (_TIMES // requests * requests) * 1e6:.2f}"))
    for each in (log, text):
        await each.close()
    return table


if __name__ == "__main__":
    sys.exit(main())
