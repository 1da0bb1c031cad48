"""The bar: what it says, and that it is drawn on terminals only."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from types import SimpleNamespace

import pytest

from sfss.client import progress, words
from sfss.client.progress import Meter, Progress
from tests.client.support import Network, User, command, environment, noise


class Terminal:
    """Standard error, as a terminal is; ``now`` is the time in seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.text = ""
        self.now = 100.0
        monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=self))
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setenv("COLUMNS", "200")

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass

    @property
    def line(self) -> str:
        """What is seen now."""
        return self.text.rpartition("\r")[2].rstrip()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(monkeypatch)


def test_it_says_share_size_rate_and_time_left(terminal: Terminal) -> None:
    with Progress("sending", 40_000_000) as bar:
        for _ in range(10):
            terminal.now += 1
            bar.advance(1_000_000)
        assert terminal.line == "sending   [######..................]  25%  10.0 MB  1.0 MB/s  0:30 left"
        for _ in range(10):
            terminal.now += 1
            bar.advance(2_000_000)
        assert terminal.line == "sending   [##################......]  75%  30.0 MB  2.0 MB/s  0:05 left"
        bar.advance(10_000_000)
    assert terminal.line == "sending   [########################] 100%  40.0 MB  2.0 MB/s"
    assert terminal.text.endswith("\n")


def test_files_are_counted_and_no_end_is_foretold_while_more_come(terminal: Terminal) -> None:
    with Progress("sending", files=0) as bar:
        bar.more = True
        bar.expect(10_000_000, 3)
        terminal.now += 1
        bar.advance(1_000_000)
        bar.file_done()
        terminal.now += 1
        bar.file_done()
        assert terminal.line == "sending   [##......................]  10%  2 of 3+ files  1.0 MB  0.5 MB/s"


def test_what_is_there_already_is_no_rate_and_what_went_back_is_no_share(terminal: Terminal) -> None:
    with Progress("sending", 10_000_000) as bar:
        meter = Meter(bar)
        meter.at(5_000_000)
        terminal.now += 1
        meter.advance(1_000_000)
        assert terminal.line.startswith("sending   [##############..........]  60%  6.0 MB  1.0 MB/s")
        terminal.now += 1
        meter.at(4_000_000)
        assert terminal.line.startswith("sending   [#########...............]  40%  4.0 MB")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (65, "1:05"), (3600 + 62, "1:01:02"), (360_000, "100:00:00")]
)
def test_times_are_written_as_on_a_clock(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_a_line_for_a_person_plays_no_tricks_on_the_terminal() -> None:
    assert words.one_line("a\x1b[2Jb\r\nc\u202ed\udcff") == "a [2Jb c d\\udcff"


def test_put_and_get_draw_it_on_a_terminal(user: User, between: Network, path: str) -> None:
    (user.directory / "cat").write_bytes(noise(6_000_000))
    between.pause = 0.005
    for arguments in (["put", "cat", path], ["get", path, "copy"]):
        seen = on_a_terminal(user, arguments)
        assert re.search(rb"\r(sending|receiving) +\[#+\.+\] +\d+%  \d\.\d MB  \d+\.\d MB/s  \d+:\d\d left", seen), seen
        assert re.search(rb"\[#+\] 100%  6\.0 MB ", seen), seen


def on_a_terminal(user: User, arguments: list[str]) -> bytes:
    """What a command, which succeeds, draws on a terminal."""
    ours, theirs = pty.openpty()
    seen = b""
    try:
        with subprocess.Popen(
            command(user.port, *arguments), cwd=user.directory, env=environment(user.state), stderr=theirs,
            stdout=subprocess.DEVNULL,
        ) as child:  # fmt: skip
            while b"] 100%" not in seen:
                seen += os.read(ours, 4096)
            assert child.wait(30) == 0
    finally:
        os.close(ours)
        os.close(theirs)
    return seen
