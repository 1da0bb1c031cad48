"""A line chart as SVG: how something grows with something else, whose axis is logarithmic. Pure.

What it draws is in tables too; the picture is for the eye. Colours are told apart without hue as well: each line has
its name at its end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 40, 50  # margins; the names of the lines stand on the right
_COLOURS = ("#1b6ca8", "#c4551a", "#3d7d3f", "#7a4a9c", "#666666", "#a8871b")
_LABEL = 14  # pixels that a line's name takes


class Line(NamedTuple):
    """One of the chart's lines: points of x (above 0) and y (0 or more), in the order of x."""

    name: str
    points: Sequence[tuple[float, float]]


def chart(title: str, x_axis: str, y_axis: str, lines: Sequence[Line]) -> str:
    """The picture. Lines without a point are left out. Raises ValueError if there is no point at all."""
    lines = [line for line in lines if line.points]
    if not lines:
        raise ValueError("a chart of nothing")
    xs = sorted({x for line in lines for x, _ in line.points})
    step, top = _scale(max(y for line in lines for _, y in line.points))
    place = _Place(xs[0], xs[-1], top)
    body = [*_grid(place, xs, step, top), *_drawn(place, lines)]
    body += [_text(WIDTH / 2, 22, title, "middle", 15), _text(_LEFT + place.width / 2, HEIGHT - 10, x_axis, "middle")]
    body.append(_text(_LEFT - 60, _TOP - 12, y_axis))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    background = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    return "\n".join([head, background, *body, "</svg>\n"])


class _Place:
    """Where a point lies in the picture."""

    width, height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def __init__(self, first: float, last: float, top: float) -> None:
        self._first, self._span, self._top = math.log10(first), math.log10(last) - math.log10(first), top

    def x(self, value: float) -> float:
        share = (math.log10(value) - self._first) / self._span if self._span else 0.5
        return _LEFT + share * self.width

    def y(self, value: float) -> float:
        return _TOP + (1 - value / self._top) * self.height


def _scale(most: float) -> tuple[float, float]:
    """The step of a grid of at most five lines of round numbers, and where it ends."""
    raw = max(most, 1e-9) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return step, step * math.ceil(most / step - 1e-9) or step


def _grid(place: _Place, xs: Sequence[float], step: float, top: float) -> list[str]:
    drawn = []
    for number in range(round(top / step) + 1):
        y = place.y(number * step)
        drawn.append(f'<path d="M{_LEFT} {y:.1f}h{place.width}" stroke="#ddd"/>')
        drawn.append(_text(_LEFT - 8, y + 4, _words(number * step), "end"))
    drawn += [_text(place.x(x), HEIGHT - _BOTTOM + 18, _words(x), "middle") for x in xs]
    return drawn


def _drawn(place: _Place, lines: Sequence[Line]) -> list[str]:
    drawn, lowest = [], 0.0
    by_end = sorted(zip(lines, _COLOURS * len(lines), strict=False), key=lambda one: -one[0].points[-1][1])
    for line, colour in by_end:
        points = [(place.x(x), place.y(y)) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        lowest = max(points[-1][1] + 4, lowest + _LABEL)  # names don't cover each other
        drawn.append(_text(WIDTH - _RIGHT + 8, lowest, line.name, colour=colour))
    return drawn


def _words(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,g}"


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12, colour: str = "#222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
    )
