"""The suite's runs: every contender has its figures or the reason why it has none, and its servers end with the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import plan, processes
from benchmarks.contenders import Contender, Running, sfss_over_memcached
from benchmarks.plan import GET, HALF, NEW, NOT_MODIFIED, OVER, Row, Section, Table
from benchmarks.running import Bench, Options

QUICK = Options(seconds=0.1, rounds=2, warming=False, pause=0.05, most_files=200)


@pytest.fixture
def contenders(monkeypatch: pytest.MonkeyPatch) -> list[Running]:
    """Adds "broken", which doesn't start, and "spoiled", whose files are others than were asked for."""
    seen: list[Running] = []

    class Spoiled:
        def __init__(self, directory: Path) -> None:
            self._real = sfss_over_memcached(directory)

        def __enter__(self) -> Running:
            seen.append(self._real.__enter__())
            return seen[0]._replace(fill=lambda load, files: seen[0].fill(load, files._replace(folder="elsewhere")))

        def __exit__(self, *_: object) -> None:
            self._real.__exit__(None, None, None)

    def broken(_directory: Path) -> Spoiled:
        raise AssertionError("sfss ended with 2:\nserver.workers: no\n")

    for name, start in (("broken", broken), ("spoiled", Spoiled)):
        monkeypatch.setitem(plan.CONTENDERS, (name, 1), Contender(name, name, False, start))
    return seen


def test_who_is_right_has_figures_and_who_isn_t_has_a_reason(tmp_path: Path, contenders: list[Running]) -> None:
    right = [Row("sfss-memcached", kind) for kind in (GET, NOT_MODIFIED, NEW, OVER)]
    wrong, half = [Row("broken"), Row("spoiled")], Row("sfss-memcached", HALF)
    bench = Bench(tmp_path, QUICK)
    bench.measure(Section("any", "Any", (Table("small", "Small", (*right, *wrong)), Table("half", "Half", (half,)))))
    for key in (*(("small", row) for row in right), ("half", half)):
        outcome = bench.outcomes[key]
        assert (outcome.trouble, sorted(outcome.rounds)) == (None, [1, 2])
        assert all(each.rate > 0 and each.http_memory > 2**20 for each in outcome.rounds.values())
    assert bench.outcomes["small", wrong[0]].trouble == "server.workers: no"
    assert "before the first round" in str(bench.outcomes["small", wrong[1]].trouble)
    assert not any(Path(f"/proc/{pid}").exists() for pid in contenders[0].http)


def test_cpu_and_memory_are_those_of_a_process_and_all_that_it_started() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\ntime.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        try:
            deadline = time.monotonic() + 30
            while processes.cpu([child.pid]) < 0.3:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert len(found := processes.tree([child.pid])) == 2
            assert processes.resident([child.pid]) > processes.resident(found[1:]) / 2 > 2**20
        finally:
            for pid in reversed(processes.tree([child.pid])):
                os.kill(pid, signal.SIGTERM)
