"""SIGHUP: a running service goes over to other nodes, and drops nothing; what is wrong changes nothing."""

from __future__ import annotations

import json
import re
import signal
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import Nodes
from tests.servers import Service, wait_for


@pytest.fixture
def nodes(empty_nodes: Nodes) -> list[str]:
    return [f"n{number}={node}" for number, node in enumerate(empty_nodes)]


def configure(file: Path, **storage: object) -> None:
    lines = [f"{key} = {json.dumps(value)}" for key, value in storage.items()]
    file.write_text("\n".join(["[storage]", *lines]) + "\n")


def seen(service: Service) -> dict[str, str]:
    with urllib.request.urlopen(f"{service.url}/readyz", timeout=10) as answer:
        return dict(json.load(answer)["nodes"])


def reload(service: Service) -> None:
    assert service.process is not None
    service.process.send_signal(signal.SIGHUP)


def address(node: str) -> str:
    return node.partition("=")[2]


def test_nodes_join_and_leave_while_the_service_goes_on(nodes: list[str], tmp_path: Path) -> None:
    file = tmp_path / "sfss.toml"
    configure(file, nodes=nodes[:2])
    with Service(tmp_path, "--config", str(file)) as service:
        stop, errors, done = threading.Event(), [], []

        def client(number: int) -> None:
            round = 0
            while not stop.is_set():
                round += 1
                content = b"%d %d" % (number, round)
                url = f"{service.url}/file?path=reload/{number}/{round % 50}"
                try:
                    urllib.request.urlopen(urllib.request.Request(url, data=content, method="PUT"), timeout=10).close()
                    with urllib.request.urlopen(url, timeout=10) as answer:
                        assert answer.read() == content
                except (OSError, AssertionError) as error:
                    errors.append(error)
                done.append(number)

        clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
        for thread in clients:
            thread.start()
        for storage in (
            {"nodes": nodes[:2], "joining": nodes[2:]},
            {"nodes": nodes},
            {"nodes": nodes[1:], "leaving": nodes[:1]},
        ):
            before = len(done)
            wait_for(lambda before=before: len(done) > before + 50)  # type: ignore[misc]
            configure(file, **storage)
            reload(service)
            expected = {address(node) for names in storage.values() for node in names}
            wait_for(lambda expected=expected: set(seen(service)) == expected)  # type: ignore[misc]
        before = len(done)
        wait_for(lambda: len(done) > before + 50)
        stop.set()
        for thread in clients:
            thread.join()
        assert errors == []
        assert set(seen(service).values()) == {"here"}


@pytest.mark.parametrize(
    ("storage", "says"),
    [
        ({"nodes": ["what?"]}, "storage.nodes: 'what\\?' is not a node"),
        ({"nodes": []}, "between the embedded nodes and named ones only a restart can change"),
        ({"nodes": ["a=127.0.0.1:1"], "leaving": ["a=127.0.0.1:1"]}, "'a' is in storage.nodes too"),
        ({"copies": 2, "nodes": ["a=127.0.0.1:1"], "leaving": ["b=127.0.0.1:2"]}, "copies need as many nodes"),
    ],
)
def test_a_wrong_configuration_is_told_and_changes_nothing(
    nodes: list[str], tmp_path: Path, storage: dict[str, object], says: str
) -> None:
    file = tmp_path / "sfss.toml"
    configure(file, nodes=nodes)
    with Service(tmp_path, "--config", str(file)) as service:
        before = seen(service)
        configure(file, **storage)
        reload(service)
        wait_for(lambda: re.search(f"is not taken, all stays as it was: .*{says}", service.log.read_text()))
        assert seen(service) == before


def test_what_takes_a_restart_is_said(nodes: list[str], tmp_path: Path) -> None:
    file = tmp_path / "sfss.toml"
    configure(file, nodes=nodes)
    with Service(tmp_path, "--config", str(file)) as service:
        configure(file, nodes=nodes, timeout=3.0)
        reload(service)
        wait_for(lambda: "storage.timeout has changed: that takes a restart" in service.log.read_text())
        wait_for(lambda: "the configuration was read again: 3 nodes" in service.log.read_text())


def test_what_takes_a_restart_is_not_taken_over(tmp_path: Path) -> None:
    """Embedded nodes: their number places the files."""
    file = tmp_path / "sfss.toml"
    file.write_text("[embedded]\nnodes = 3\n")
    with Service(tmp_path, "--config", str(file)) as service:
        before = seen(service)
        file.write_text("[embedded]\nnodes = 2\n")
        reload(service)
        wait_for(lambda: "embedded.nodes has changed: that takes a restart" in service.log.read_text())
        wait_for(lambda: "the configuration was read again: 3 nodes" in service.log.read_text())
        assert seen(service) == before


def put(service: Service, path: str, content: bytes) -> int:
    request = urllib.request.Request(f"{service.url}/file?path={path}", data=content, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def copies(service: Service) -> int:
    """How many items there are on all nodes, marks and notes of sfss's own aside."""
    with urllib.request.urlopen(f"{service.url}/status", timeout=10) as answer:
        return sum(int(stats["curr_items"]) for stats in json.load(answer).values())


def test_policies_come_and_go_while_the_service_goes_on(nodes: list[str], tmp_path: Path) -> None:
    file = tmp_path / "sfss.toml"
    configure(file, nodes=nodes)
    general = file.read_text() + "[repair]\nbackground = false\n"
    file.write_text(general)

    def adopt(service: Service, policies: str) -> None:
        lines = service.log.read_text().count("the configuration was read again")
        file.write_text(general + policies)
        reload(service)
        wait_for(lambda: service.log.read_text().count("the configuration was read again") > lines)

    with Service(tmp_path, "--config", str(file)) as service:
        assert put(service, "images/small", b"x" * 100) == 200
        before = copies(service)
        adopt(service, '[[policy]]\nprefix = "images/"\ncopies = 3\nwrite_quorum = 3\nmax_file_size = 10\n')
        assert put(service, "images/large", b"x" * 100) == 413
        assert put(service, "other/large", b"x" * 100) == 200
        assert copies(service) == before + 1
        assert put(service, "images/new", b"x" * 10) == 200
        assert copies(service) == before + 1 + 3
        adopt(service, "")
        assert put(service, "images/large", b"x" * 100) == 200
        assert copies(service) == before + 1 + 3 + 1


def test_what_a_policy_needs_must_be_there_without_a_restart(tmp_path: Path) -> None:
    """Embedded nodes: what the file says of their number is not taken over."""
    file = tmp_path / "sfss.toml"
    file.write_text("[embedded]\nnodes = 3\n")
    with Service(tmp_path, "--config", str(file)) as service:
        file.write_text("[embedded]\nnodes = 5\n[[policy]]\nprefix = 'images/'\npieces = 5\n")
        reload(service)
        says = "all stays as it was: pieces of the policy for 'images/': 5 pieces need as many nodes, and there are 3"
        wait_for(lambda: says in service.log.read_text())
        assert put(service, "images/cat.jpg", b"x") == 200
