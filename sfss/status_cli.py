"""``sfss status``: what /status?format=full tells, drawn at a terminal, as a plain table elsewhere, or as JSON.

Words about an answer: no connections here. What nodes say of themselves is shown without what could move the cursor.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from sfss.errors import ConfigError
from sfss.logs import one_line

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_FULL = 0.9  # of a disk, from which on it is worth a colour
_PAUSE, _SHORTEST, _LONGEST = 2.0, 0.2, 3600.0  # seconds between two looks

Show = Callable[[http.client.HTTPResponse], int]


class Ask(Protocol):
    """Asks the service for its status, and gives the answer to ``show``; 1 if that fails, and ``say`` is told why."""

    def __call__(self, show: Show, say: Callable[[str], None]) -> int: ...


class Status(msgspec.Struct):
    """What is shown of /status?format=full."""

    storages: dict[str, dict[str, str]]
    webserver: dict[str, Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of the command."""
    parser.add_argument("--json", action="store_true", help="print /status?format=full as it is; one line each time"
                        " with --watch")  # fmt: skip
    parser.add_argument("--watch", metavar="SECONDS", type=float, nargs="?", const=_PAUSE,
                        help=f"look again and again, and show requests per second (default: every {_PAUSE:g} s)"
                        )  # fmt: skip


def run(options: argparse.Namespace, ask: Ask) -> int:
    """Show it, once or until interrupted; returns the exit status."""
    if options.watch is not None:
        if not _SHORTEST <= options.watch <= _LONGEST:
            raise ConfigError(f"--watch: {options.watch:g} s is no pause: {_SHORTEST:g} to {_LONGEST:g} are possible")
        with contextlib.suppress(KeyboardInterrupt):  # that is how it ends
            _watch(options, ask)
        return 0

    def show(answer: http.client.HTTPResponse) -> int:
        body = answer.read()
        status = msgspec.json.decode(body, type=Status)
        if options.json:
            print(json.dumps(json.loads(body), indent=2, ensure_ascii=False))
        elif sys.stdout.isatty():
            from rich.console import Console  # here, for few commands need it

            Console().print(_drawn(status))
        else:
            print(_table(status))
        return 0

    return ask(show, lambda why: print(f"sfss: {why}", file=sys.stderr))


def _watch(options: argparse.Namespace, ask: Ask) -> None:
    with _screen(as_json=options.json) as put:
        before: tuple[float, Status] | None = None
        while True:
            heard: list[bytes] = []
            why: list[str] = []

            def hear(answer: http.client.HTTPResponse, heard: list[bytes] = heard) -> int:
                heard.append(answer.read())
                msgspec.json.decode(heard[0], type=Status)  # it is one, or the caller says what it is
                return 0

            if ask(hear, why.append) == 0:
                status, now = msgspec.json.decode(heard[0], type=Status), time.monotonic()
                put(heard[0], status, _rates(before, status, now), "")
                before = now, status
            else:
                put(b"", before[1] if before else None, {}, "; ".join(why))
            time.sleep(options.watch)


_Put = Callable[[bytes, Status | None, Mapping[str, float], str], None]


@contextlib.contextmanager
def _screen(*, as_json: bool) -> Iterator[_Put]:
    """Where each look is shown: in the place of the one before at a terminal, behind it elsewhere."""
    if as_json or not sys.stdout.isatty():

        def put_line(body: bytes, status: Status | None, _: Mapping[str, float], why: str) -> None:
            if why:
                print(f"sfss: {why}", file=sys.stderr, flush=True)
            elif as_json:
                print(json.dumps(json.loads(body), ensure_ascii=False), flush=True)
            elif status is not None:
                print(f"{_table(status)}\n", flush=True)

        yield put_line
        return
    from rich.live import Live

    with Live(screen=True, auto_refresh=False) as live:

        def put(_: bytes, status: Status | None, rates: Mapping[str, float], why: str) -> None:
            live.update(_drawn(status, rates, why), refresh=True)

        yield put


def _rates(before: tuple[float, Status] | None, status: Status, now: float) -> dict[str, float]:
    """Requests in a second since the look before, by what came of them; empty where that isn't known."""
    if before is None:
        return {}
    then, last = before
    seconds = now - then
    if seconds <= 0:
        return {}
    old, new = last.webserver.get("responses", {}), status.webserver.get("responses", {})
    grown = {code: _number(count) - _number(old.get(code, 0)) for code, count in new.items()}
    if min(grown.values(), default=0) < 0:  # it was started anew meanwhile
        return {}
    rates = {"all": sum(grown.values()) / seconds}
    for code, count in grown.items():
        kind = f"{code[:1]}xx"
        rates[kind] = rates.get(kind, 0.0) + count / seconds
    return rates


# --- drawn ---


def _drawn(status: Status | None, rates: Mapping[str, float] | None = None, why: str = "") -> Group:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    if why:
        parts.append(Text(f"{one_line(why)}\nIt is looked for again and again; what stands below is from before.\n",
                          "bold red"))  # fmt: skip
    if status is not None:
        parts += [_head(status.webserver, rates or {}), _nodes(status), *_rest(status.webserver)]
        parts += [Text(f"warning: {one_line(str(each))}", "yellow") for each in status.webserver.get("warnings", [])]
    return Group(*parts)


def _head(webserver: Mapping[str, Any], rates: Mapping[str, float]) -> RenderableType:
    from rich.text import Text

    text = Text()
    text.append(f"sfss {one_line(str(webserver.get('version', '?')))}", "bold")
    requests = _number(webserver.get("requests", 0))
    text.append(f"   up {_duration(webserver.get('uptime', 0))}   {requests:,.0f} requests")
    if rates:
        text.append(f"   {rates['all']:,.0f}/s", "bold green")
        for kind, style in (("4xx", "yellow"), ("5xx", "bold red")):
            if rates.get(kind):
                text.append(f"   {rates[kind]:,.1f}/s {kind}", style)
    return text


def _nodes(status: Status) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("node", "state", "items", "bytes", "disk left", "hits", "memory", "up", "version"):
        table.add_column(name, justify="left" if name in ("node", "state", "version") else "right")
    known: Mapping[str, Any] = status.webserver.get("nodes", {})
    for node, stats in status.storages.items():
        away = known.get(node, {}).get("away") if isinstance(known.get(node), dict) else None
        if away or not stats:
            state = Text(one_line(f"away: {away}" if away else "no answer"), "bold red")
        else:
            state = Text("here", "green")
        gets = _number(stats.get("cmd_get", 0))
        table.add_row(
            Text(one_line(node)), state,
            _count(stats.get("curr_items")), _size(stats.get("bytes")), _space(stats),
            f"{_number(stats.get('get_hits', 0)) / gets:.0%}" if gets else "-",
            _size(_number(stats["rusage_maxrss"]) * 1024 if "rusage_maxrss" in stats else None),
            _duration(stats["uptime"]) if "uptime" in stats else "-", Text(one_line(stats.get("version", "-"))),
        )  # fmt: skip
    return table


def _space(stats: Mapping[str, str]) -> RenderableType:
    from rich.text import Text

    if "avail_space" not in stats:
        return Text("-")
    left, whole = _number(stats["avail_space"]), _number(stats.get("total_space", 0))
    return Text(_size(left), "bold red" if whole and left < (1 - _FULL) * whole else "")


def _rest(webserver: Mapping[str, Any]) -> Sequence[RenderableType]:
    """Workers, copies, repair, the catalogue, write-behind: a line each, where there is something to tell."""
    from rich.text import Text

    lines = []
    workers = webserver.get("workers", [])
    if len(workers) > 1:
        each = ", ".join(
            f"{number}: {_number(worker.get('requests', 0)):,.0f} requests"
            + (f", started {worker['starts']} times" if _number(worker.get("starts", 1)) > 1 else "")
            for number, worker in enumerate(workers, 1)
        )
        lines.append(("workers", each))
    for name in ("copies", "repair", "catalogue"):
        if figures := webserver.get(name):
            lines.append((name, ", ".join(f"{key} {value}" for key, value in figures.items() if value != "")))
    lines += [("write-behind", words) for words in _stores(webserver)]
    return [Text.assemble((f"{name}  ", "bold"), one_line(words)) for name, words in lines]


def _stores(webserver: Mapping[str, Any]) -> Iterator[str]:
    """The short-term stores of write-behind, each in words; what is wrong with them stands among the warnings."""
    stores: Mapping[str, Mapping[str, Any]] = webserver.get("write_behind", {})
    for store, state in stores.items():
        about = (
            f" ({state['kind']} {state.get('version', '')}, synced: {state.get('synced', '?')})"
            if "kind" in state
            else ""
        )
        if state.get("away") or "files" not in state:
            yield f"{store}{about}: away"
            continue
        yield (
            f"{store}{about}: {_of(_count, state, 'files')} files wait, {_of(_size, state, 'bytes')};"
            f" {_many(state.get('tasks'), 'task')}, the oldest for {_duration(state.get('oldest'))};"
            f" {_many(state.get('dead'), 'dead letter')}; {_many(len(state.get('workers', {})), 'worker')};"
            f" memory {_of(_size, state, 'memory')}"
        )


def _of(words: Callable[[object], str], state: Mapping[str, Any], name: str) -> str:
    """How much there is, and of what it may be, where there is such a bound."""
    most = state.get(f"max_{name}")
    return words(state.get(name)) + (f" of {words(most)}" if _number(most) else "")


# --- plain ---


def _table(status: Status) -> str:
    columns = ("items", "bytes", "gets", "hits", "sets", "uptime", "version")
    keys = ("curr_items", "bytes", "cmd_get", "get_hits", "cmd_set", "uptime", "version")
    rows = [("node", *columns)]
    for node, stats in status.storages.items():
        figures = (one_line(stats.get(key, "-")) for key in keys)
        rows.append((one_line(node), *(figures if stats else ("away", *["-"] * 6))))
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    warnings = [f"warning: {one_line(str(warning))}" for warning in status.webserver.get("warnings", [])]
    behind = [f"write-behind: {one_line(words)}" for words in _stores(status.webserver)]
    return "\n".join([*lines, *behind, *warnings])


def _number(figure: object) -> float:
    try:
        return float(str(figure))
    except ValueError:
        return 0.0


def _count(figure: object) -> str:
    return "-" if figure is None else f"{_number(figure):,.0f}"


def _many(figure: object, word: str) -> str:
    return f"{_count(figure)} {word}" + ("" if _number(figure) == 1 else "s")


def _size(figure: object) -> str:
    if figure is None:
        return "-"
    size = _number(figure)
    for unit in _UNITS[:-1]:
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"


def _duration(figure: object) -> str:
    """``3 d 4 h``, ``4 h 5 min``, ``5 min``, ``6 s``."""
    seconds = int(_number(figure))
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds} s"
