"""The embedded nodes as processes: started, watched, stopped, and kept from each other's data."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from tests.servers import Service, answers, wait_for


@pytest.fixture
def own_service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def put(service: Service, path: str, content: bytes) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{service.url}/file?path={path}", data=content, method="PUT"))


def get(service: Service, path: str) -> bytes | None:
    try:
        with urllib.request.urlopen(f"{service.url}/file?path={path}") as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        assert error.code == 504
        return None


def test_a_node_that_dies_is_started_again_with_its_files(own_service: Service) -> None:
    with own_service as service:
        for n in range(30):
            put(service, f"file-{n}", b"%d" % n)
        before = service.node_pids()
        assert len(before) == 3
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(service.node_pids_now()) == 3, what="three nodes")
        assert not set(before.values()) & set(service.node_pids().values())
        for n in range(30):
            assert wait_for(partial(get, service, f"file-{n}")) == b"%d" % n


def test_a_stop_ends_the_nodes_and_a_start_finds_the_files(own_service: Service) -> None:
    with own_service as service:
        put(service, "kept", b"content")
        pids = service.node_pids().values()
        assert service.stop() == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        service.start()
        assert get(service, "kept") == b"content"


def test_no_node_outlives_a_service_that_is_killed(own_service: Service) -> None:
    with own_service as service:
        assert service.process is not None
        service.process.kill()
        service.process.wait()
        wait_for(lambda: not any(answers(port) for port in service.node_ports), what="the nodes to end")
        service.start()
        put(service, "a", b"b")
        assert get(service, "a") == b"b"


def run_second(service: Service, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**service._environment, **settings}
    command = [sys.executable, "-m", "sfss"]
    return subprocess.run(command, cwd=service.directory, env=environment, capture_output=True, text=True, timeout=60)


def test_a_second_service_on_the_same_data_is_told_so(own_service: Service) -> None:
    with own_service as service:
        second = run_second(service, SFSS_SERVER_PORT="0")
        assert second.returncode == 2
        assert "in use by another sfss" in second.stderr
        assert get_readyz(service)


def test_a_second_service_on_the_same_port_is_told_so(own_service: Service, tmp_path: Path) -> None:
    with own_service as service:
        second = run_second(service, SFSS_SERVER_PORT=str(service.port), SFSS_EMBEDDED_DATA=str(tmp_path / "other"))
        assert second.returncode == 2
        assert f"port {service.port} of 127.0.0.1 can't be taken" in second.stderr
        assert get_readyz(service)


def test_a_second_service_on_the_same_node_ports_is_told_so(own_service: Service, tmp_path: Path) -> None:
    with own_service as service:
        second = run_second(service, SFSS_SERVER_PORT="0", SFSS_EMBEDDED_DATA=str(tmp_path / "other"))
        assert second.returncode == 2
        assert re.search(rf"port ({'|'.join(map(str, service.node_ports))}) of 127.0.0.1 is in use", second.stderr)
        assert "Traceback" not in second.stderr
        assert get_readyz(service)


def test_other_node_ports_keep_the_files(own_service: Service) -> None:
    with own_service as service:
        for n in range(20):
            put(service, f"file-{n}", b"%d" % n)
        service.stop()
        moved = Service(service.directory)
        assert moved.first_node_port != service.first_node_port
        with moved:
            assert [get(moved, f"file-{n}") for n in range(20)] == [b"%d" % n for n in range(20)]


def get_readyz(service: Service) -> bool:
    with urllib.request.urlopen(f"{service.url}/readyz") as answer:
        return bool(answer.status == 200)
