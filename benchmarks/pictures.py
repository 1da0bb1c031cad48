"""Pictures of the suite's tables, as SVG that is readable on a light page and on a dark one. Pure.

Bars of what a table compares, with the range of the rounds; for what varies, lines of requests/s, p99 and CPU seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from benchmarks.plan import CONTENDERS, Row, Table
from benchmarks.results import Outcome, Outcomes, label, value

WIDTH = 800
_STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #768390 }
.title { font-size: 14px; font-weight: 600 }
.rule { stroke: #768390; stroke-opacity: .35 }
.range { stroke: #768390; stroke-width: 2 }
</style>"""
_OURS = ("#2f81f7", "#8957e5", "#1f9e98", "#bf4b8a", "#6cb6ff")
_THEIRS = ("#d1622b", "#ae7c14", "#8b949e")
_BAR, _LEFT, _TOP = 22, 300, 34
_PANEL, _HIGH = 240, 190  # of one panel of lines


def picture(table: Table, outcomes: Outcomes) -> str | None:
    """The table's picture; None if nothing in it has a figure."""
    shown = [(row, outcome) for row in table.rows if (outcome := outcomes.get((table.name, row))) and outcome.counts]
    if not shown:
        return None
    return _lines(table, shown) if table.varies else _bars(table, shown)


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    return "\n".join([head, _STYLE, _text(0, 16, title, kind="title"), *parts, "</svg>\n"])


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    as_kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{as_kind}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _colours(rows: Sequence[Row]) -> dict[str, str]:
    """Cold ones for ours, warm ones for others', by the contender's name."""
    names = list(dict.fromkeys(row.contender for row in rows))
    found: dict[str, str] = {}
    for colours, are_ours in ((_OURS, True), (_THEIRS, False)):
        these = [name for name in names if name.startswith("sfss") == are_ours]
        found |= {name: colours[n % len(colours)] for n, name in enumerate(these)}
    return found


# --- bars ---

_UNITS = {"rate": ("requests/s", "{:,.0f}"), "p99": ("p99 in ms", "{:.2f}")}


def _bars(table: Table, shown: Sequence[tuple[Row, Outcome]]) -> str:
    figure, (unit, form) = table.compares, _UNITS[table.compares]
    most = max(max(outcome.of(figure)) for _, outcome in shown)
    scale = (WIDTH - _LEFT - 70) / most
    colours, parts = _colours([row for row, _ in shown]), []
    for n, (row, outcome) in enumerate(shown):
        y, typical = _TOP + n * (_BAR + 8), outcome.median(figure)
        middle, width, colour = y + _BAR / 2, scale * typical, colours[row.contender]
        low, high = (_LEFT + scale * end for end in (min(outcome.of(figure)), max(outcome.of(figure))))
        parts += [
            _text(_LEFT - 8, middle + 4, label(table, row), "end"),
            f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>',
            _line(low, middle, high, middle, "range"),
            *(_line(x, middle - 4, x, middle + 4, "range") for x in (low, high)),
            _text(high + 8, middle + 4, form.format(typical)),
        ]
    return _svg(_TOP + len(shown) * (_BAR + 8), f"{table.title}: {unit}, and the range of the rounds", parts)


# --- lines ---


class _Panel(NamedTuple):
    """One figure, along what varies."""

    title: str
    figures: tuple[str, ...]  # of a round, which are summed

    def of(self, outcome: Outcome) -> float:
        return sum(outcome.median(figure) for figure in self.figures)


_PANELS = (_Panel("requests/s", ("rate",)), _Panel("p99, ms", ("p99",)),
           _Panel("CPU s per 1,000 requests", ("http", "store")))  # fmt: skip


def _lines(table: Table, shown: Sequence[tuple[Row, Outcome]]) -> str:
    """Panels beside each other, upwards by powers of ten."""
    colours = _colours([row for row, _ in shown])
    parts = [part for n, panel in enumerate(_PANELS) for part in _panel(table, shown, panel, n, colours)]
    below = _TOP + 20 + _HIGH + 40
    for n, (name, colour) in enumerate(colours.items()):
        x, y = n % 2 * WIDTH / 2, below + n // 2 * 20
        what = next(each.what for (known, _), each in CONTENDERS.items() if known == name)
        parts += [f'<rect x="{x:g}" y="{y - 9:g}" width="14" height="8" fill="{colour}"/>', _text(x + 20, y, what)]
    return _svg(below + (len(colours) + 1) // 2 * 20, table.title, parts)


def _panel(
    table: Table, shown: Sequence[tuple[Row, Outcome]], panel: _Panel, number: int, colours: dict[str, str]
) -> list[str]:
    values = list(dict.fromkeys(value(table, row) for row, _ in shown))
    found = [(row, figure) for row, outcome in shown if (figure := panel.of(outcome)) > 0]
    if not found:
        return []
    low = math.floor(math.log10(min(figure for _, figure in found)))
    high = max(low + 1, math.ceil(math.log10(max(figure for _, figure in found))))
    left, top = number * (_PANEL + 24) + 44, _TOP + 20
    step = (_PANEL - 60) / max(1, len(values) - 1)

    def place(row: Row, figure: float) -> tuple[float, float]:
        up = (math.log10(figure) - low) / (high - low)
        return left + 8 + step * values.index(value(table, row)), top + _HIGH * (1 - up)

    parts = [_text(left, top - 10, panel.title)]
    for power in range(low, high + 1):
        y = top + _HIGH * (1 - (power - low) / (high - low))
        parts += [_line(left, y, left + _PANEL - 44, y, "rule"), _text(left - 4, y + 4, _short(10.0**power), "end")]
    parts += [_text(left + 8 + step * n, top + _HIGH + 16, each, "middle") for n, each in enumerate(values)]
    for name, colour in colours.items():
        points = [place(row, figure) for row, figure in found if row.contender == name]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts += [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
                  *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)]  # fmt: skip
    return parts


def _short(figure: float) -> str:
    return f"{figure / 1000:g}k" if figure >= 1000 else f"{figure:g}"
