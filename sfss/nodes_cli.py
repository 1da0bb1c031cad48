"""``sfss nodes``: a table of the nodes of a running service, and how full they are. No connections here."""

from __future__ import annotations

import argparse
import http.client
import json
import time
from collections.abc import Callable, Sequence

import msgspec

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_COLUMNS = ("node", "address", "state", "weight", "used", "free", "fill", "heard")

Show = Callable[[http.client.HTTPResponse], int]


class _Node(msgspec.Struct):
    """What is shown of one."""

    name: str
    address: str
    state: str
    weight: float
    away: str | None = None
    used: int | None = None
    free: int | None = None
    fill: float | None = None
    heartbeat: int | None = None


class _Nodes(msgspec.Struct):
    doing: str
    nodes: list[_Node]


_DOING = {
    "telling": "all fronts are being told of nodes that come or go, or have just come",
    "moving": "files are being moved",
    "tidying": "copies are being removed where they no longer belong",
}


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    add_settings: Callable[[argparse.ArgumentParser], None],
    ask: Callable[[argparse.Namespace, Show], int],
) -> None:
    """Add the parser. ``ask`` asks the service, and gives what it answers to a function."""
    parser = commands.add_parser("nodes", help="show the nodes of a running service, and how full they are")
    add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print /nodes as it is")

    def run(options: argparse.Namespace) -> int:
        return ask(options, lambda answer: _show(answer.read(), as_json=options.json))

    parser.set_defaults(run=run)


def _show(body: bytes, *, as_json: bool) -> int:
    told = msgspec.json.decode(body, type=_Nodes)
    if as_json:
        print(json.dumps(json.loads(body), indent=2, ensure_ascii=False))
    else:
        print("\n".join([table(told.nodes, time.time()), *filter(None, [_DOING.get(told.doing)])]))
    return 0


def table(nodes: Sequence[_Node], now: float) -> str:
    """The nodes in lines, at a time in seconds since the epoch."""
    rows = [_COLUMNS, *(_row(node, now) for node in nodes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*lines, *(f"{node.name} is away: {node.away}" for node in nodes if node.away)])


def _row(node: _Node, now: float) -> tuple[str, ...]:
    return (
        node.name,
        node.address,
        f"{node.state}, away" if node.away else node.state,
        f"{node.weight:g}",
        _size(node.used),
        _size(node.free),
        "-" if node.fill is None else f"{node.fill:.1%}",
        "-" if node.heartbeat is None else f"{max(now - node.heartbeat, 0):.0f} s ago",
    )


def _size(size: float | None) -> str:
    if size is None:
        return "-"
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
