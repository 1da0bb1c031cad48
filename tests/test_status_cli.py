"""``sfss status`` at a terminal, and again and again."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfss.status_cli import Status, _drawn, _duration, _rates, _size, _table
from tests.servers import Service, free_port

ROOT = Path(__file__).resolve().parent.parent
_COMMAND = [sys.executable, "-m", "sfss", "status"]


class Terminal:
    """A command at a terminal of 160 columns."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        environment = {"PATH": "/usr/bin:/bin", "TERM": "xterm", "COLUMNS": "160", "LINES": "50"}
        self.process = subprocess.Popen(
            [*_COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment
        )
        os.close(theirs)
        self.shown = ""

    def read_until(self, pattern: str, timeout: float = 30.0) -> str:
        """All that was shown, when that is among it."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.shown):
            assert time.monotonic() < deadline, self.shown
            if select.select([self._ours], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self._ours, 65536).decode(errors="replace")
                except OSError:  # the other end is closed
                    assert re.search(pattern, self.shown), self.shown
        return self.shown

    def wait(self, timeout: float = 20.0) -> int:
        """How it ended. Somebody goes on reading: at a terminal that nobody reads it would wait for ever."""
        deadline = time.monotonic() + timeout
        while (status := self.process.poll()) is None:
            assert time.monotonic() < deadline, self.shown
            if select.select([self._ours], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):  # the other end is closed
                    self.shown += os.read(self._ours, 65536).decode(errors="replace")
        return status

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    found: list[Terminal] = []
    yield found
    for terminal in found:
        terminal.close()


def test_at_a_terminal_it_is_drawn(service: Service, terminals: list[Terminal]) -> None:
    terminals.append(Terminal("--port", str(service.port)))
    shown = terminals[0].read_until("repair")
    assert terminals[0].wait() == 0
    assert "\x1b[" in shown
    assert shown.count("here") == 3
    assert "disk left" in shown


def test_watching_shows_rates_and_that_the_service_goes_and_comes(tmp_path: Path, terminals: list[Terminal]) -> None:
    with Service(tmp_path) as service:
        terminals.append(Terminal("--port", str(service.port), "--watch", "0.3"))
        terminal = terminals[0]
        terminal.read_until(r"\d/s")
        service.stop()
        terminal.read_until("no service answers at")
        terminal.shown = ""
        service.start()
        terminal.read_until(r"\d/s")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.wait() == 0
        assert "Traceback" not in terminal.shown


def test_watched_by_a_program_it_is_a_line_of_json_each_time(service: Service) -> None:
    command = [*_COMMAND, "--port", str(service.port), "--json", "--watch", "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert all(len(line["storages"]) == 3 for line in lines)


@pytest.mark.parametrize("pause", ["0", "-1", "99999", "nan"])
def test_a_pause_that_is_none_is_refused(pause: str) -> None:
    done = subprocess.run(
        [*_COMMAND, "--port", str(free_port()), f"--watch={pause}"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert "--watch" in done.stderr


def test_what_a_node_says_moves_no_cursor_and_is_no_markup() -> None:
    from rich.console import Console

    evil = "[bold]\x1b[2J\r\nforged\u202e"
    status = Status({evil: {"curr_items": evil, "version": evil, "uptime": "1"}, "b:1": {}},
                    {"version": evil, "warnings": [evil], "nodes": {"b:1": {"away": evil}},
                     "copies": {"handoffs": evil},
                     "workers": [{"requests": "1"}, {"requests": "2", "starts": "3"}]})  # fmt: skip
    console = Console(width=200, force_terminal=True, record=True)
    with console.capture() as captured:
        console.print(_drawn(status, {"all": 1.0, "5xx": 1.0}, evil))
    for text in (captured.get(), _table(status)):
        assert "\x1b[2J" not in text
        assert "\r" not in text
        assert "\u202e" not in text
        assert "[bold]" in text  # as it came
        assert not any(line.startswith("forged") for line in text.splitlines())


def test_what_waits_in_short_term_stores_is_told_drawn_and_plain() -> None:
    from rich.console import Console

    here = {"away": None, "files": "3", "max_files": "1000", "bytes": "2048", "max_bytes": "1048576", "tasks": "2",
            "oldest": "65", "dead": "1", "workers": {"w": "2"}, "memory": "4096", "max_memory": "0",
            "kind": "redis", "version": "7.0.15", "synced": "always"}  # fmt: skip
    stores = {"redis://a:1": here, "redis://b:2": {"away": "refused", "fault": None, "workers": {}}}
    status = Status({}, {"write_behind": stores})
    console = Console(width=300)
    with console.capture() as captured:
        console.print(_drawn(status))
    told = (
        "redis://a:1 (redis 7.0.15, synced: always): 3 of 1,000 files wait, 2.0 KiB of 1.0 MiB; 2 tasks, the oldest for"
        " 1 min; 1 dead letter; 1 worker; memory 4.0 KiB"
    )
    for text in (captured.get(), _table(status)):
        assert told in text
        assert "redis://b:2: away" in text


def test_rates_are_by_what_came_of_requests_and_none_after_a_restart() -> None:
    def status(**responses: str) -> Status:
        return Status({}, {"responses": {code.removeprefix("s"): count for code, count in responses.items()}})

    before = 10.0, status(s200="100", s404="10")
    assert _rates(before, status(s200="300", s404="10", s504="4"), 12.0) == {"all": 102, "2xx": 100, "4xx": 0, "5xx": 2}
    assert _rates(before, status(s200="5"), 12.0) == {}
    assert _rates(None, status(s200="5"), 12.0) == {}


def test_sizes_and_times_are_for_people() -> None:
    assert [_size(size) for size in (None, 5, "2048", 3 * 2**40)] == ["-", "5 B", "2.0 KiB", "3.0 TiB"]
    assert [_duration(time) for time in (5, 65, 3660, 90000, "x")] == ["5 s", "1 min", "1 h 1 min", "1 d 1 h", "0 s"]
