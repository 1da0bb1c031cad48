"""``sfss bench``: it checks what it reads, counts what fails, and removes what it wrote, however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sfss.client.api import Client
from sfss.client.bench import PHASES, Bench, Plan
from sfss.client.failures import (
    DIFFERENT,
    DONE,
    FAILED,
    INTERRUPTED,
    TRY_AGAIN,
    WRONG_USAGE,
    Broken,
    Different,
    Refused,
)
from sfss.client.figures import BUSY, ClientTime, Figures, Measured, together
from tests.client.support import Network, User, ended, store, stored
from tests.servers import Service, wait_for

SHORT = ("--files", "40", "--connections", "4", "--seconds", "0.3")
LONG = ("--files", "40", "--connections", "4", "--seconds", "30")


def listed(service: Service, prefix: str) -> list[str]:
    """The files under a prefix, by another hand than the client's."""
    url = f"{service.url}/files?prefix={urllib.parse.quote(prefix, safe='')}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return [file["path"] for file in json.load(answer)["files"]]


def figures_of(user: User, *arguments: str) -> dict[str, Any]:
    """What a bench says in JSON, of which all requests succeeded."""
    said: dict[str, Any] = json.loads(user.succeed("bench", "--json", *arguments))
    return said


def folder_of(child: subprocess.Popen[bytes]) -> str:
    """Where a running bench has its files; it says so first."""
    assert child.stdout is not None
    found = re.search(rb"under (\S+)/,", child.stdout.readline())
    assert found
    return found[1].decode()


def reads(service: Service, folder: str) -> None:
    """Wait until all files of LONG are written, and another phase has begun."""
    wait_for(lambda: len(listed(service, f"{folder}/")) == 40, what="the files")


# --- what it measures ---


def test_each_phase_has_figures_and_no_file_is_left(user: User, large_service: Service, path: str) -> None:
    said = figures_of(user, *SHORT, "--size", "5KiB", "--prefix", path)
    assert [phase["name"] for phase in said["phases"]] == list(PHASES)
    assert (said["files"], said["size"], said["connections"], said["kept"]) == (40, 5120, 4, None)
    for phase in said["phases"]:
        assert phase["requests"] > 0
        assert phase["failed"] == 0
        assert list(phase["latency_ms"].values()) == sorted(phase["latency_ms"].values())
        moved = 0 if phase["name"] in ("get-missing", "get-304", "delete") else 5120
        assert phase["bytes_per_second"] == pytest.approx(phase["requests_per_second"] * moved)
        assert phase["requests_per_second"] == pytest.approx(phase["requests"] / phase["seconds"])
        assert 0 < phase["client_cpu"] < 1.5
    by_name = {phase["name"]: phase for phase in said["phases"]}
    assert all(by_name[name]["requests"] == 40 for name in ("put-new", "get-each", "delete"))
    parts = by_name["mixed"]["parts"]
    assert sum(part["requests"] for part in parts.values()) == by_name["mixed"]["requests"]
    assert listed(large_service, path) == []


def test_the_table_has_a_row_for_each_phase(user: User, path: str) -> None:
    said = user.succeed("bench", *SHORT, "--reads", "50", "--prefix", path)
    for title in [*PHASES.values(), "  GET", "  PUT"]:
        shown = {"mixed": "mixed 50/50"}.get(title, title)
        assert re.search(rf"^{re.escape(shown)} +[\d,.]+ ", said, re.MULTILINE), title


def test_several_processes_share_the_work(user: User, large_service: Service, path: str) -> None:
    said = figures_of(user, *SHORT, "--processes", "3", "--prefix", path)
    by_name = {phase["name"]: phase for phase in said["phases"]}
    assert by_name["put-new"]["requests"] == by_name["delete"]["requests"] == 40
    assert listed(large_service, path) == []


def test_a_rate_is_kept(user: User, path: str) -> None:
    said = figures_of(user, *SHORT, "--seconds", "1", "--rate", "50", "--processes", "2", "--prefix", path)
    for phase in said["phases"]:
        if phase["name"] not in ("put-new", "get-each", "delete"):
            assert phase["requests"] + phase["unsent"] == 50


async def test_latency_counts_from_when_a_request_was_due() -> None:
    figures = Figures(0)
    await figures.attempt(asyncio.sleep(0), "x/", due=time.perf_counter() - 0.5)
    await figures.attempt(asyncio.sleep(0), "x/", due=time.perf_counter() - 0.0001)  # a timer's lateness
    late, in_time = figures.latencies
    assert late >= 0.5
    assert in_time < 0.5


def test_processes_together_are_as_busy_as_the_busiest() -> None:
    shares = []
    for number in (1, 2):
        figures = Figures(10)
        figures.latencies.extend([number / 10] * number)
        shares.append(Measured(number, ClientTime(number * 0.4, number * 0.1), number, {"": figures}))
    both = together(shares)
    assert (both.elapsed, both.client, both.unsent) == (2, ClientTime(0.8, 0.2), 3)
    assert sorted(both.total.latencies) == [0.1, 0.2, 0.2]
    assert both.client.is_busy
    assert not shares[0].client.is_busy
    assert both.as_json("get")["requests_per_second"] == 1.5
    assert ClientTime(BUSY, 0.01).is_busy


# --- what is wrong ---


def test_a_file_with_other_bytes_is_noticed(user: User, large_service: Service, path: str) -> None:
    with user.running("bench", *SHORT, "--seconds", "1", "--prefix", path) as child:
        folder = folder_of(child)
        wait_for(lambda: stored(large_service, f"{folder}/3"), what="a file")
        store(large_service, f"{folder}/3", b"another's")
        status, said = ended(child)
    assert status == DIFFERENT
    assert "x wrong bytes: the bytes read are not the bytes written" in said
    assert listed(large_service, path) == []


async def test_a_content_that_was_there_before_is_noticed(large_service: Service, path: str) -> None:
    async with Client(large_service.url, connections=2) as client:
        bench = Bench(client, path, Plan(files=1, size=100, connections=1, seconds=0.1))
        await bench.phase("put-new")
        old = stored(large_service, f"{path}/0")
        assert old is not None
        assert (await bench.phase("put")).exit_status == DONE
        assert stored(large_service, f"{path}/0") != old
        assert (await bench.phase("get")).exit_status == DONE
        store(large_service, f"{path}/0", old)
        stale = await bench.phase("get")
        assert stale.exit_status == DIFFERENT
        assert stale.total.errors["wrong bytes"].count == stale.total.failed > 0
        assert await bench.sweep() == (1, 1)


async def test_what_a_failed_write_may_have_left_is_no_wrong_file(
    large_service: Service, between: Network, path: str
) -> None:
    async with Client(f"http://127.0.0.1:{between.port}", connections=2) as client:
        bench = Bench(client, path, Plan(files=1, size=5000, connections=1, seconds=0.1))
        await bench.phase("put-new")
        before = stored(large_service, f"{path}/0")
        between.cut_after(5500)  # within the answer or just before: the write has landed, or not
        between.cut()
        written = await bench.phase("put")
        assert written.total.failed <= 1
        assert stored(large_service, f"{path}/0") != before or written.total.failed
        assert (await bench.phase("get")).exit_status == DONE
        await bench.sweep()


def test_what_the_service_refuses_is_told_by_status(service: Service, tmp_path: Path, path: str) -> None:
    user = User(tmp_path, service.port)
    done = user.run("bench", *SHORT, "--size", "3MiB", "--files", "4", "--prefix", path)
    assert done.returncode == FAILED
    assert re.search(rb"^PUT, new: 4 x 413: .*max_file_size", done.stderr, re.MULTILINE)
    assert b"no file could be written" in done.stderr
    assert b"removed 0 of 0" in done.stderr


async def test_reasons_don_t_repeat_for_each_file() -> None:
    async def fail(number: int) -> None:
        raise Refused(504, f"no node: bench/abc/{number} can't be read")

    figures = Figures(0)
    for number in range(5):
        await figures.attempt(fail(number), "bench/abc/")
    assert figures.errors["504"].count == figures.failed == 5
    assert figures.errors["504"].reasons == ["no node: FILE can't be read"]
    assert figures.statuses == {TRY_AGAIN}


async def test_kinds_of_errors_are_told_apart() -> None:
    async def fail(failure: Exception) -> None:
        raise failure

    figures = Figures(0)
    for failure in (Broken("away"), Different("spoilt"), Refused(507, "full")):
        await figures.attempt(fail(failure), "x/")
    assert set(figures.errors) == {"no answer", "wrong bytes", "507"}


# --- how it ends ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("processes", [1, 2])
def test_after_ctrl_c_nothing_is_left(
    user: User, large_service: Service, path: str, processes: int, number: signal.Signals
) -> None:
    with user.running("bench", *LONG, "--processes", str(processes), "--prefix", path) as child:
        reads(large_service, folder_of(child))
        child.send_signal(number)
        status, said = ended(child)
    assert status == INTERRUPTED
    assert "removed 40 of 40 bench files\n" in said
    assert listed(large_service, path) == []


@pytest.mark.parametrize("processes", [1, 2])
def test_nothing_is_left_when_nobody_reads_what_is_printed(
    user: User, large_service: Service, path: str, processes: int
) -> None:
    with user.running("bench", *SHORT, "--processes", str(processes), "--prefix", path) as child:
        assert child.stdout is not None
        folder_of(child)
        child.stdout.close()
        child.stdout = None
        status, said = ended(child)
    assert status == FAILED, said
    assert listed(large_service, path) == []


def test_what_is_kept_stays_after_ctrl_c_too(user: User, large_service: Service, path: str) -> None:
    with user.running("bench", *LONG, "--keep", "--prefix", path) as child:
        folder = folder_of(child)
        reads(large_service, folder)
        child.send_signal(signal.SIGINT)
        status, said = ended(child)
    assert (status, f"'sfss rm -r {folder}'" in said) == (INTERRUPTED, True)
    assert len(listed(large_service, path)) == 40


def test_a_kill_of_the_command_leaves_no_files_of_its_processes(user: User, large_service: Service, path: str) -> None:
    with user.running("bench", *LONG, "--processes", "2", "--prefix", path) as child:
        reads(large_service, folder_of(child))
        child.kill()
        child.wait()
    wait_for(lambda: listed(large_service, path) == [], what="the files to go")


def test_a_process_that_is_killed_ends_the_bench(user: User, large_service: Service, path: str) -> None:
    with user.running("bench", *LONG, "--processes", "2", "--prefix", path) as child:
        folder = folder_of(child)
        reads(large_service, folder)
        victim, _ = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        os.kill(int(victim), signal.SIGKILL)
        status, said = ended(child)
    assert status == FAILED
    assert f"a process of the bench has ended; what it wrote lies under {folder}/0/" in said
    assert {name.rsplit("/", 1)[0] for name in listed(large_service, path)} == {f"{folder}/0"}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_service_that_goes_away_ends_it_and_what_is_left_is_told(
    user: User, between: Network, large_service: Service, path: str, processes: int
) -> None:
    with user.running("bench", *LONG, "--processes", str(processes), "--prefix", path) as child:
        folder = folder_of(child)
        reads(large_service, folder)
        between.is_away = True
        between.cut()
        status, said = ended(child)
    assert status == TRY_AGAIN
    assert f"removed 0 of 40 bench files; the others lie under {folder}/" in said
    between.is_away = False
    user.succeed("rm", "-r", folder)


def test_a_service_that_comes_back_is_gone_on_with(
    user: User, between: Network, large_service: Service, path: str
) -> None:
    with user.running("bench", *SHORT, "--seconds", "1", "--json", "--prefix", path) as child:
        wait_for(lambda: len(listed(large_service, path)) == 40, what="the files")
        between.cut()
        assert child.stdout is not None
        out, err = child.communicate(timeout=60)
    said = json.loads(out)
    broken = sum(phase["errors"].get("no answer", {"count": 0})["count"] for phase in said["phases"])
    assert broken <= 4  # one for each connection, if they were in use
    assert child.returncode == (TRY_AGAIN if broken else DONE), err.decode()
    assert listed(large_service, path) == []


def test_a_service_that_isn_t_there_is_told_at_once(user: User, between: Network) -> None:
    between.is_away = True
    assert user.run("bench", *SHORT).returncode == TRY_AGAIN


# --- others' files ---


def test_it_refuses_to_begin_among_other_files_and_touches_none(user: User, large_service: Service, path: str) -> None:
    store(large_service, f"{path}/0", b"mine")
    refused = user.run("bench", *SHORT, "--prefix", path)
    assert refused.returncode == FAILED
    assert f"there are files under {path}/ already ({path}/0)".encode() in refused.stderr
    assert listed(large_service, path) == [f"{path}/0"]
    figures_of(user, *SHORT, "--force", "--prefix", path)
    assert listed(large_service, path) == [f"{path}/0"]
    assert stored(large_service, f"{path}/0") == b"mine"


def test_what_is_kept_is_named(user: User, large_service: Service, path: str) -> None:
    said = figures_of(user, *SHORT, "--keep", "--prefix", path)
    assert len(listed(large_service, said["kept"])) == 40
    assert [phase["name"] for phase in said["phases"]] == [name for name in PHASES if name != "delete"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--files", "3", "--connections", "4"),
        ("--connections", "2", "--processes", "4"),
        ("--prefix", ""),
        ("--size", "0"),
        ("--reads", "101"),
        ("--seconds", "nan"),
    ],
)
def test_what_can_t_be_meant_is_wrong_usage(user: User, arguments: Sequence[str]) -> None:
    assert user.run("bench", *arguments).returncode == WRONG_USAGE


def test_more_connections_than_a_process_may_have_files_are_wrong_usage(user: User) -> None:
    done = user.run("bench", "--files", "500", "--connections", "500", within=["prlimit", "--nofile=200:200"])
    assert done.returncode == WRONG_USAGE
    assert b"take more --processes" in done.stderr


def test_more_connections_than_files_were_to_be_open_are_taken(user: User, path: str) -> None:
    few = ["prlimit", "--nofile=64:4096"]
    arguments = ["--files", "150", "--connections", "150", "--seconds", "0.3", "--json", "--prefix", path]
    done = user.run("bench", *arguments, within=few)
    assert done.returncode == DONE, done.stderr.decode()
