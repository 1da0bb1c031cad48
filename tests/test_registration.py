"""Nodes that register, all of them processes: they take their share while files are read and written; none is lost."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Nodes
from tests.servers import HOST, Service, sfss_node, wait_for

SECRET = "s3cr3t"
CLIENTS = 4


@pytest.fixture
def seeds(empty_nodes: Nodes) -> list[str]:
    return [f"s{number}={node}" for number, node in enumerate(empty_nodes)]


def a_front(directory: Path, seeds: list[str], *options: str, **settings: str) -> Service:
    directory.mkdir(exist_ok=True)
    return Service(
        directory,
        *options,
        settings={
            "SFSS_STORAGE_NODES": ",".join(seeds),
            "SFSS_REGISTRATION_ENABLED": "true",
            "SFSS_REGISTRATION_SECRET": SECRET,
            "SFSS_REGISTRATION_REFRESH": "1",
            "SFSS_REGISTRATION_SHARE": "1",
            **settings,
        },
    )


@contextlib.contextmanager
def a_node(data: Path, *fronts: Service, key: str = SECRET) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """That registers with these fronts."""
    options = [option for front in fronts for option in ("--register", front.url)]
    with sfss_node(
        data, *options, "--name", data.name, "--register-key", key, "--heartbeat", "0.2", "--durability", "os"
    ) as node:
        yield node


def nodes(front: Service) -> dict[str, dict[str, Any]]:
    with urllib.request.urlopen(f"{front.url}/nodes", timeout=10) as answer:
        return {node["name"]: node for node in json.load(answer)["nodes"]}


def states(front: Service) -> dict[str, str]:
    return {name: node["state"] for name, node in nodes(front).items()}


def are_members(front: Service, *names: str) -> bool:
    there = states(front)
    return all(there.get(name) == "member" for name in names)


def is_quiet(front: Service) -> bool:
    """Whether all that follows from nodes that have come is done."""
    with urllib.request.urlopen(f"{front.url}/nodes", timeout=10) as answer:
        return bool(json.load(answer)["doing"] == "nothing")


def put(front: Service, path: str, content: bytes) -> None:
    request = urllib.request.Request(f"{front.url}/file?path={path}", data=content, method="PUT")
    urllib.request.urlopen(request, timeout=20).close()


def get(front: Service, path: str) -> bytes:
    with urllib.request.urlopen(f"{front.url}/file?path={path}", timeout=20) as answer:
        return bytes(answer.read())


def status(front: Service, path: str) -> int:
    try:
        get(front, path)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def items(front: Service, name: str) -> int:
    address = nodes(front)[name]["address"]
    with urllib.request.urlopen(f"{front.url}/status", timeout=10) as answer:
        return int(json.load(answer)[address]["curr_items"])


class Load:
    """Clients that put files through one front and read them through another, new ones and old ones, all the time."""

    def __init__(self, fronts: list[Service]) -> None:
        self.fronts = fronts
        self.files: dict[str, bytes] = {}
        self.errors: list[object] = []
        self.rounds = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def more(self, rounds: int) -> None:
        """Wait until so many more rounds are done."""
        until = self.rounds + rounds
        wait_for(lambda: self.rounds >= until or self.errors, timeout=60)

    def _client(self, number: int) -> None:
        own: dict[str, bytes] = {}
        choice = random.Random(number)
        while not self._stop.is_set() and not self.errors:
            path = f"load/{number}/{choice.randrange(150)}"
            content = b"%d of %d" % (self.rounds, number)
            try:
                put(choice.choice(self.fronts), path, content)
                own[path] = self.files[path] = content
                for read in (path, choice.choice(list(own))):
                    found = get(choice.choice(self.fronts), read)
                    if found != own[read]:
                        self.errors.append((read, found, own[read]))
            except OSError as error:
                self.errors.append((path, str(error), getattr(error, "url", "")))
            self.rounds += 1


def assert_all_there(front: Service, files: dict[str, bytes]) -> None:
    wrong = [path for path, content in files.items() if get(front, path) != content]
    assert not wrong


THREE_COPIES = {"SFSS_STORAGE_COPIES": "3", "SFSS_STORAGE_WRITE_QUORUM": "2", "SFSS_STORAGE_READ_QUORUM": "2"}


@pytest.mark.parametrize("storage", [{}, THREE_COPIES], ids=["one copy", "three copies"])
def test_a_node_added_under_load_takes_its_share_and_none_is_lost_or_out_of_reach(
    seeds: list[str], tmp_path: Path, storage: dict[str, str], long: bool
) -> None:
    """``--long``: under more of it, before and after."""
    rounds = 600 if long else 240
    with ExitStack() as stack:
        one = stack.enter_context(a_front(tmp_path / "f0", seeds, **storage))
        other = stack.enter_context(a_front(tmp_path / "f1", seeds, "--workers", "2", **storage))
        with Load([one, other]) as load:
            load.more(rounds)
            with a_node(tmp_path / "new", one, other):
                wait_for(lambda: load.errors or are_members(one, "new"), timeout=60)
                wait_for(lambda: load.errors or are_members(other, "new"), timeout=60)
                load.more(rounds // 2)
                wait_for(lambda: load.errors or is_quiet(one), timeout=60)  # what moved is where it was no more
                load.more(rounds // 2)
                assert load.errors == []
                load.__exit__()
                assert_all_there(one, load.files)
                assert_all_there(other, load.files)
                there = {name: items(one, name) for name in states(one)}
                copies = int(storage.get("SFSS_STORAGE_COPIES", "1"))
                assert sum(there.values()) < copies * len(load.files) + 10 * len(there), there
                assert there["new"] > 0.1 * copies * len(load.files), there
                assert one.stop() == 0
                # A front that is told of the seeds only finds all.
                with a_front(tmp_path / "f2", seeds, **storage) as fresh:
                    assert_all_there(fresh, load.files)
                    assert states(fresh) == {"s0": "seed", "s1": "seed", "s2": "seed", "new": "member"}


def test_two_nodes_at_two_fronts_at_once_both_come(seeds: list[str], tmp_path: Path) -> None:
    with a_front(tmp_path / "f0", seeds) as one, a_front(tmp_path / "f1", seeds) as other:
        files = {f"both/{number}": b"%d" % number for number in range(100)}
        for path, content in files.items():
            put(one, path, content)
        with a_node(tmp_path / "a", one, other), a_node(tmp_path / "b", other, one):
            wait_for(lambda: are_members(one, "a", "b") and are_members(other, "a", "b"), timeout=60)
            for front in (one, other):
                assert_all_there(front, files)


def test_a_seventh_node_is_used_by_large_files_that_are_new_and_the_old_ones_stay_where_they_are(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        seeds = [
            f"s{number}={HOST}:{stack.enter_context(sfss_node(tmp_path / f's{number}', '--durability', 'os'))[0]}"
            for number in range(6)
        ]
        front = stack.enter_context(a_front(tmp_path / "f", seeds, SFSS_LIMITS_RECORD_SIZE="64KiB"))
        files: dict[str, bytes] = {}

        def write(count: int) -> None:
            for _ in range(count):
                path = f"large/{len(files)}"
                files[path] = random.Random(path).randbytes(700_000)
                put(front, path, files[path])

        write(5)
        before = {name: items(front, name) for name in states(front)}
        stack.enter_context(a_node(tmp_path / "seventh", front))
        while not are_members(front, "seventh"):
            write(1)
        assert_all_there(front, files)
        assert all(items(front, name) >= before[name] - 5 for name in before)  # blocks stay, manifests may move
        there = items(front, "seventh")
        write(5)
        assert items(front, "seventh") >= there + 5  # a block of each, at least
        assert_all_there(front, files)


def test_a_node_that_is_told_to_leave_is_gone_when_small_and_large_files_are_elsewhere(
    seeds: list[str], tmp_path: Path
) -> None:
    files = {f"leaves/{number}": random.Random(number).randbytes(300_000 if number < 20 else 100)
             for number in range(80)}  # fmt: skip
    with (
        a_front(tmp_path / "f0", seeds, SFSS_LIMITS_RECORD_SIZE="64KiB") as front,
        a_front(tmp_path / "f1", seeds, SFSS_LIMITS_RECORD_SIZE="64KiB") as other,
    ):
        with a_node(tmp_path / "a", front):
            wait_for(lambda: are_members(front, "a") and is_quiet(front), timeout=60)
            for path, content in files.items():
                put(front, path, content)
            assert items(front, "a") > 20
            leave = urllib.request.Request(
                f"{front.url}/nodes/a", method="DELETE", headers={"Authorization": f"Bearer {SECRET}"}
            )
            urllib.request.urlopen(leave, timeout=10).close()
            while "a" in states(front) or "a" in states(other):
                assert_all_there(other, files)
        for there in (front, other):
            assert_all_there(there, files)
        assert sfss("repair", SFSS_STORAGE_NODES=",".join(seeds)).returncode == 0


def test_a_node_that_dies_while_it_joins_goes_on_when_it_is_back(seeds: list[str], tmp_path: Path) -> None:
    files = {f"joins/{number}": b"%d" % number for number in range(100)}
    with a_front(tmp_path / "f0", seeds) as front, a_front(tmp_path / "f1", seeds) as other:
        for path, content in files.items():
            put(front, path, content)
        with a_node(tmp_path / "a", front) as (_, process):
            wait_for(lambda: states(other).get("a") == "joining")
            process.kill()
            process.wait()
            wait_for(lambda: nodes(front)["a"]["away"])
            time.sleep(5)  # longer than it takes to join
            assert states(front)["a"] == "joining"
        with a_node(tmp_path / "a", front):
            wait_for(lambda: are_members(front, "a") and are_members(other, "a"), timeout=60)
            assert_all_there(front, files)
            assert_all_there(other, files)


def test_a_node_that_dies_is_away_and_files_on_it_are_back_when_it_is(seeds: list[str], tmp_path: Path) -> None:
    files = {f"dies/{number}": b"%d" % number for number in range(100)}
    with a_front(tmp_path / "f", seeds) as front:
        with a_node(tmp_path / "a", front) as (_, process):
            wait_for(lambda: are_members(front, "a"), timeout=60)
            for path, content in files.items():
                put(front, path, content)
            process.kill()
            process.wait()
            wait_for(lambda: nodes(front)["a"]["away"])
            assert {status(front, path) for path in files} == {200, 504}
            assert states(front)["a"] == "member"
        with a_node(tmp_path / "a", front):  # on another port
            wait_for(lambda: not nodes(front)["a"]["away"])
            assert_all_there(front, files)


def test_without_the_secret_nothing_happens_and_both_logs_say_why(seeds: list[str], tmp_path: Path) -> None:
    with a_front(tmp_path / "f", seeds) as front, a_node(tmp_path / "a", front, key="wrong"):
        log = tmp_path / "a.log"
        wait_for(lambda: "refuses it (403)" in log.read_text())
        assert "a" not in states(front)
        assert SECRET not in log.read_text() + front.log.read_text()


def sfss(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sfss", *arguments],
        env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_sfss_nodes_shows_them_and_repair_knows_those_that_came(seeds: list[str], tmp_path: Path) -> None:
    files = {f"repaired/{number}": b"%d" % number for number in range(100)}
    with a_front(tmp_path / "f", seeds) as front, a_node(tmp_path / "a", front):
        wait_for(lambda: are_members(front, "a") and is_quiet(front), timeout=60)
        for path, content in files.items():
            put(front, path, content)
        shown = sfss("nodes", "--port", str(front.port))
        assert shown.returncode == 0, shown.stderr
        rows = [line.split() for line in shown.stdout.splitlines()]
        assert rows[0] == ["node", "address", "state", "weight", "used", "free", "fill", "heard"]
        assert [(row[0], row[2], row[3]) for row in rows[1:]] == [
            ("a", "member", "1"), ("s0", "seed", "1"), ("s1", "seed", "1"), ("s2", "seed", "1"),
        ]  # fmt: skip
        assert len(json.loads(sfss("nodes", "--json", "--port", str(front.port)).stdout)["nodes"]) == 4
        before = items(front, "a")
        for command in ("repair", "rebalance", "sweep"):
            done = sfss(command, SFSS_STORAGE_NODES=",".join(seeds))
            assert done.returncode == 0, done.stdout + done.stderr
        assert items(front, "a") >= before
        assert_all_there(front, files)
