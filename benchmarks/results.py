"""What came of the suite's runs: medians, ratios, tables, and whether what must show does.

All ratios are medians over the rounds of the ratio to the reference in the same round. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from benchmarks import report
from benchmarks.plan import CONTENDERS, GET, HALF, MISSING, NEW, NOT_MODIFIED, WARM, Kind, Row, Table

MIB = 2**20


class Round(NamedTuple):
    """One run of one row."""

    rate: float  # requests/s
    p50: float  # milliseconds, as the next ones
    p99: float
    p999: float
    http: float  # CPU seconds for 1,000 requests of the processes that answer
    store: float  # the same of those that keep the files, if others do
    load: float
    http_memory: int  # bytes that are resident
    store_memory: int


class Outcome:
    """What was measured of a row, by the number of the round."""

    def __init__(self) -> None:
        self.rounds: dict[int, Round] = {}
        self.trouble: str | None = None  # why no figure is given

    @property
    def counts(self) -> bool:
        """Whether there is a figure."""
        return bool(self.rounds) and self.trouble is None

    def of(self, figure: str) -> list[float]:
        """One figure of each round."""
        return [getattr(each, figure) for each in self.rounds.values()]

    def median(self, figure: str) -> float:
        """Its median; call it only where there ``counts``."""
        return median(self.of(figure))


Outcomes = dict[tuple[str, Row], Outcome]  # by the table's name


def ratio(outcome: Outcome | None, reference: Outcome | None, figure: str) -> float | None:
    """The median over the rounds that both have; None if there is no figure."""
    if outcome is None or reference is None or not (outcome.counts and reference.counts):
        return None
    both = outcome.rounds.keys() & reference.rounds.keys()
    pairs = [(getattr(outcome.rounds[n], figure), getattr(reference.rounds[n], figure)) for n in both]
    ratios = [mine / others for mine, others in pairs if others]
    return median(ratios) if ratios else None


# --- what must show ---


class Must(NamedTuple):
    """A bound of one ratio."""

    text: str
    table: str
    row: Row
    reference: Row
    bound: float
    at_least: bool = True  # else: at most
    aim: float | None = None
    figure: str = "rate"

    def verdict(self, outcomes: Outcomes) -> tuple[str, ...]:
        """A row of the table: text, bound, aim, measured, and whether it holds."""
        sides = outcomes.get((self.table, self.row)), outcomes.get((self.table, self.reference))
        measured = ratio(*sides, self.figure)
        word = "at least" if self.at_least else "at most"
        head = (self.text, f"{word} {self.bound:g}", "" if self.aim is None else f"{self.aim:g}")
        if measured is None:
            reasons = [side.trouble for side in sides if side and side.trouble]
            return (*head, "-", "no figure" if reasons else "not measured")
        if not self.is_within(measured, self.bound):
            return (*head, f"{measured:.3f}", "NO")
        aimed = self.aim is not None and self.is_within(measured, self.aim)
        return (*head, f"{measured:.3f}", "yes, and the aim" if aimed else "yes")

    def is_within(self, measured: float, bound: float) -> bool:
        """Whether it is on the right side of a bound."""
        return measured >= bound if self.at_least else measured <= bound


def _costs_no_more(kind: Kind, name: str, over: str) -> tuple[Must, ...]:
    sides = Row(name, kind), Row(name, GET)
    return (
        Must(f"A {kind.name} beside a 200, {over}: requests/s", "answers", *sides, 1.0),
        Must(f"A {kind.name} beside a 200, {over}: the front's CPU", "answers", *sides, 1.0, False, figure="http"),
    )


_OVERS = (("sfss-memcached", "over memcached"), ("sfss-node", "over our node"))
_FROM_DISK = (("nginx-stock", "as it comes"), ("nginx-disk", "tuned, sendfile"), ("nginx-read", "tuned, read"))
_NGINX = "beside nginx's memcached module"
MUSTS = (
    Must(f"GET 4 KiB over memcached, {_NGINX}", "get", Row("sfss-memcached"), Row("nginx-memcached"), 1.0, aim=1.25),
    Must(f"GET 4 KiB over our node, {_NGINX}", "get", Row("sfss-node"), Row("nginx-memcached"), 0.8),
    Must("PUT 4 KiB onto our node, fsync, beside nginx's WebDAV without", "put", Row("sfss-node", NEW),
         Row("nginx-dav", NEW), 1.0, aim=1.5),
    *(Must(f"GET through nginx, warm cache, beside nginx from disk, {how}", "in-front", Row("nginx-cache", WARM),
           Row(name, WARM), 0.9) for name, how in _FROM_DISK),
    *(must for kind in (NOT_MODIFIED, MISSING) for name, over in _OVERS for must in _costs_no_more(kind, name, over)),
    *(Must(f"p99 of GET {over} at half of the top rate, {_NGINX}", "half", Row(name, HALF),
           Row("nginx-memcached", HALF), 3.0, at_least=False, figure="p99") for name, over in _OVERS),
)  # fmt: skip


def verdicts(outcomes: Outcomes) -> str:
    """What must show, its bound, and whether it holds, as a table."""
    rows = [("what must show", "bound", "aim", "measured", "holds"), *(must.verdict(outcomes) for must in MUSTS)]
    return report.table(rows, left=1)


# --- tables ---

_Column = tuple[str, Callable[[Outcome], str]]


def _ms(figure: str) -> _Column:
    return f"{figure.replace('p999', 'p99.9')} ms", lambda outcome: f"{outcome.median(figure):.2f}"


def _cpu(name: str, figure: str) -> _Column:
    return f"{name} CPU", lambda outcome: f"{outcome.median(figure):.3f}"


def _memory(name: str, figure: str) -> _Column:
    return f"{name} MiB", lambda outcome: f"{outcome.median(figure) / MIB:,.0f}"


def _store(column: _Column) -> _Column:
    """A dash where what answers keeps the files itself."""
    name, form = column
    return name, lambda outcome: form(outcome) if outcome.median("store_memory") else "-"


_RATES: tuple[_Column, ...] = (
    ("requests/s", lambda outcome: f"{outcome.median('rate'):,.0f}"),
    ("lowest", lambda outcome: f"{min(outcome.of('rate')):,.0f}"),
    ("highest", lambda outcome: f"{max(outcome.of('rate')):,.0f}"),
)
_COSTS: tuple[_Column, ...] = (
    *map(_ms, ("p50", "p99", "p999")),
    *(_cpu("HTTP", "http"), _store(_cpu("store", "store")), _cpu("load", "load")),
    *(_memory("HTTP", "http_memory"), _store(_memory("store", "store_memory"))),
)


def label(table: Table, row: Row) -> str:
    """What a row is called: who does it, and what, where the table has several kinds."""
    contender = CONTENDERS[row.contender, row.workers]
    what = contender.what if table.varies == "workers" else contender.title
    return what if len({each.kind for each in table.rows}) == 1 else f"{what}: {row.kind.name}"


def value(table: Table, row: Row) -> str:
    """What a row has of that which the table varies."""
    found = getattr(row, table.varies)
    if table.varies != "size":
        return str(found)
    return f"{found // MIB} MiB" if found >= MIB else f"{found // 1024} KiB"


def show(table: Table, outcomes: Outcomes) -> str:
    """The table's figures."""
    varied = (table.varies,) if table.varies else ()
    compared = "ratio" if table.compares == "rate" else f"{table.compares} ratio"
    head = (*varied, "contender", *(name for name, _ in _RATES), compared, *(name for name, _ in _COSTS))
    rows = [head]
    for row in table.rows:
        if (outcome := outcomes.get((table.name, row))) is not None:
            start = (*((value(table, row),) if varied else ()), label(table, row))
            rows.append((*start, *_figures(table, row, outcome, outcomes)))
    return report.table(rows, left=1 + len(varied))


def _figures(table: Table, row: Row, outcome: Outcome, outcomes: Outcomes) -> tuple[str, ...]:
    if not outcome.counts:
        return ("no figure" if outcome.trouble else "not measured", *[""] * (len(_RATES) + len(_COSTS)))
    other = table.reference_of(row)
    compared = ratio(outcome, outcomes.get((table.name, other)), table.compares) if other else None
    shown = "-" if compared is None else f"{compared:.2f}"
    return (*(form(outcome) for _, form in _RATES), shown, *(form(outcome) for _, form in _COSTS))
