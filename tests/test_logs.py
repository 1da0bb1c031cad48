"""The log: a line is a line, whatever is in it."""

from __future__ import annotations

import functools
import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfss import logs
from sfss.config import Log
from tests.servers import free_port, process, wait_for

NASTY = "a\r\n2026-01-01 00:00:00,000 ERROR forged\x1b[2J\u2028b\u2029c\x85d\x0be\u202ef\x00\x7f\ud800é漢"
_LINE_ENDS = re.compile("[\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(settings: Log, stream: io.StringIO, message: str = NASTY, process: str = "", **more: bool) -> str:
    logs.configure(settings, process, stream)
    try:
        raise ValueError(message)
    except ValueError:
        logging.getLogger("sfss.test").warning("what came: %s", message, **more)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("format", ["text", "json"])
def test_a_message_is_one_line_whatever_is_in_it(format: str) -> None:
    line = said(Log(format=format), io.StringIO())  # type: ignore[arg-type]
    assert line.endswith("\n")
    assert _LINE_ENDS.findall(line[:-1]) == []
    assert line[:-1].isprintable()
    assert "forged" in line


@pytest.mark.usefixtures("restored")
def test_a_trace_can_not_forge_a_line_either() -> None:
    lines = said(Log(format="text"), io.StringIO(), exc_info=True).removesuffix("\n").split("\n")
    assert len(lines) > 3
    assert all(line.startswith("  ") for line in lines[1:])
    assert all(line.isprintable() for line in lines)


@pytest.mark.usefixtures("restored")
def test_json_has_all_of_it_as_it_was() -> None:
    line = said(Log(format="json"), io.StringIO(), process="worker 2", exc_info=True)
    found = json.loads(line)
    assert found["message"] == f"what came: {NASTY}"
    assert (found["level"], found["logger"], found["process"]) == ("warning", "sfss.test", "worker 2")
    assert found["exception"].startswith("Traceback")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["time"])


@pytest.mark.usefixtures("restored")
def test_who_sits_at_a_terminal_gets_text_and_others_json() -> None:
    assert re.match(r"\d{4}-.* WARNING sfss.test: worker 1: what", said(Log(), Terminal(), process="worker 1"))
    assert said(Log(), io.StringIO()).startswith("{")
    assert said(Log(format="json"), Terminal()).startswith("{")
    assert not said(Log(format="text"), io.StringIO()).startswith("{")


@pytest.mark.usefixtures("restored")
def test_what_is_below_the_level_is_not_said() -> None:
    assert said(Log(level="error"), io.StringIO()) == ""


def _has_begun(log: Path) -> bool:
    return "durability" in log.read_text()


def test_a_node_logs_as_it_is_told(tmp_path: Path) -> None:
    for format in ("json", "text"):
        log = tmp_path / f"{format}.log"
        command = [sys.executable, "-m", "sfss", "node", "--port", str(free_port()), "--data", str(tmp_path / format)]
        with log.open("wb") as stream, process([*command, "--log-format", format], stderr=stream):
            wait_for(functools.partial(_has_begun, log))
        first = log.read_text().splitlines()[0]
        assert (json.loads(first)["logger"] if format == "json" else first.split()[3]) == "sfss.node" + (
            "" if format == "json" else ":"
        )


def test_a_level_that_is_none_is_named() -> None:
    command = [sys.executable, "-m", "sfss", "config", "check"]
    checked = subprocess.run(
        command, env={"PATH": "/usr/bin", "SFSS_LOG_LEVEL": "loud"}, capture_output=True, text=True
    )
    assert checked.returncode == 2
    assert "log.level" in checked.stderr
