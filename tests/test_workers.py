"""Several processes that serve on one port: what they share, and what becomes of the rest when one of them dies."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sfss.web.watch import GATHERED
from tests.conftest import Nodes
from tests.servers import HOST, Service, answers, process, sfss_node, wait_for

WORKERS = 2
Webserver = dict[str, Any]


class Served(Service):
    """A service with workers over given nodes."""

    def __init__(self, directory: Path, nodes: Nodes, *options: str, settings: dict[str, str] | None = None) -> None:
        named = {"SFSS_STORAGE_NODES": ",".join(nodes)} if nodes else {}
        super().__init__(directory, "--workers", str(WORKERS), *options, settings={**named, **(settings or {})})

    def _serves(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"sfss ended with {self.process.returncode}: {self.log.read_text()}"
        return self.log.read_text().count(" serves http") > self._starts_before

    def start(self) -> Service:
        """Returns when all workers serve."""
        self._starts_before = self.log.read_text().count(" serves http") if self.log.exists() else 0
        return super().start()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, memcached_nodes: Nodes) -> Iterator[Service]:
    """For tests that kill nobody."""
    with Served(tmp_path_factory.mktemp("workers"), memcached_nodes) as service:
        yield service


@pytest.fixture
def own(tmp_path: Path, memcached_nodes: Nodes) -> Iterator[Service]:
    """For tests that do."""
    with Served(tmp_path, memcached_nodes) as service:
        yield service


def ask(
    connection: http.client.HTTPConnection, target: str, method: str = "GET", body: Any = None
) -> tuple[int, bytes]:
    connection.request(method, target, body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def webserver(connection: http.client.HTTPConnection) -> Webserver:
    return dict(json.loads(ask(connection, "/status?format=full")[1])["webserver"])


def full(service: Service) -> Webserver:
    """As one of the workers has it, whichever."""
    with contextlib.closing(http.client.HTTPConnection(HOST, service.port, timeout=20)) as connection:
        return webserver(connection)


def pids(service: Service) -> list[int]:
    return [int(worker["pid"]) for worker in full(service)["workers"]]


@contextlib.contextmanager
def a_connection_to_each(service: Service) -> Iterator[dict[int, http.client.HTTPConnection]]:
    """By the worker's process number."""
    found: dict[int, http.client.HTTPConnection] = {}
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            connection = http.client.HTTPConnection(HOST, service.port, timeout=20)
            stack.callback(connection.close)
            found.setdefault(int(webserver(connection)["pid"]), connection)
            if len(found) == WORKERS:
                break
        assert len(found) == WORKERS
        yield found


def is_there(pid: int) -> bool:
    """Whether it runs, or is stopped: not where it has ended and nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def listeners(port: int) -> int:
    """How many sockets listen there."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(local.endswith(f":{port:04X}") and state == "0A" for _, local, _, state, *_ in rows)


def freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    wait_for(lambda: all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks.iterdir()))


def run(directory: Path, *options: str, limit: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SFSS_")}
    command = [sys.executable, "-m", "sfss", *options]
    command = ["sh", "-c", f'{limit}; exec "$@"', "sh", *command] if limit else command
    return subprocess.run(
        command, cwd=directory, env={**environment, **settings}, capture_output=True, text=True, timeout=60
    )


# --- one port, one set of counts ---


def test_each_worker_serves_what_was_put_through_another(shared: Service) -> None:
    with a_connection_to_each(shared) as connections:
        for pid, connection in connections.items():
            assert ask(connection, f"/file?path=of/{pid}", "PUT", b"%d" % pid)[0] == 200
        for connection in connections.values():
            for pid in connections:
                assert ask(connection, f"/file?path=of/{pid}") == (200, b"%d" % pid)


def wait_until_counted() -> None:
    """Each worker counts what it answered within 20 ms; one that is asked, at once."""
    time.sleep(20 * GATHERED)


def test_what_the_workers_count_is_summed_and_each_tells_the_sum(shared: Service) -> None:
    wait_until_counted()
    before = full(shared)

    def client() -> None:
        with contextlib.closing(http.client.HTTPConnection(HOST, shared.port, timeout=20)) as connection:
            for _ in range(25):
                assert ask(connection, "/file?path=none")[0] == 404

    clients = [threading.Thread(target=client) for _ in range(40)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    wait_until_counted()
    with a_connection_to_each(shared) as connections:
        told = [webserver(connection) for connection in connections.values()]
    for after in told:
        assert int(after["responses"]["404"]) - int(before["responses"].get("404", 0)) == 1000
        assert int(after["requests"]) == sum(map(int, after["responses"].values()))
        assert int(after["requests"]) == sum(int(worker["requests"]) for worker in after["workers"])
        shares = [
            int(b["requests"]) - int(a["requests"]) for a, b in zip(before["workers"], after["workers"], strict=True)
        ]
        assert all(share > 100 for share in shares), shares  # of 40 connections one has fewer than 4 once in 10^8 runs


def test_status_lists_the_workers(shared: Service) -> None:
    with a_connection_to_each(shared) as connections:
        for pid, connection in connections.items():
            told = webserver(connection)
            assert told["pid"] == str(pid)
            assert {int(worker["pid"]) for worker in told["workers"]} == connections.keys()
            for worker in told["workers"]:
                assert worker["starts"] == "1"
                assert 0 <= int(worker["uptime"]) <= int(told["uptime"])


def test_each_worker_has_its_own_connections_to_the_nodes(tmp_path: Path) -> None:
    with sfss_node(tmp_path / "node") as (port, _), socket.create_connection((HOST, port)) as sock:
        stats = sock.makefile("rwb")

        def connected() -> int:
            stats.write(b"stats conns\r\n")
            stats.flush()
            return len({line.split(b":")[0] for line in iter(stats.readline, b"END\r\n")})

        alone = connected()
        with Served(tmp_path, [f"{HOST}:{port}"]):
            assert connected() >= alone + WORKERS


def test_it_says_once_that_it_serves(shared: Service) -> None:
    assert shared.log.read_text().count(f" serves http://{HOST}:{shared.port}\n") == 1


@pytest.mark.parametrize("host", [HOST, "::1", "localhost", "0.0.0.0"])
def test_all_workers_share_the_port_where_any_would_do(host: str, tmp_path: Path, memcached_nodes: Nodes) -> None:
    command = [sys.executable, "-m", "sfss", "--workers", "3", "--host", host, "--port", "0"]
    log = tmp_path / "log"
    with log.open("wb") as file:
        environment = {**os.environ, "SFSS_STORAGE_NODES": ",".join(memcached_nodes)}
        environment["SFSS_ACCESS_ANONYMOUS"] = "read,write"
        with process(command, cwd=tmp_path, env=environment, stdout=file, stderr=file):
            port = int(wait_for(lambda: re.search(r" serves http://\S+:(\d+)\n", log.read_text()))[1])
            reached: set[str] = set()
            for _ in range(200):
                target = {"0.0.0.0": HOST}.get(host, host)
                with contextlib.closing(http.client.HTTPConnection(target, port, timeout=20)) as connection:
                    reached.add(webserver(connection)["pid"])
            assert len(reached) == 3


def test_auto_is_a_worker_for_each_core_that_sfss_may_use(tmp_path: Path) -> None:
    told = run(tmp_path, "config", "check", SFSS_SERVER_WORKERS="auto").stdout
    assert f"\nworkers = {len(os.sched_getaffinity(0))}\n" in told
    core = min(os.sched_getaffinity(0))
    told = run(tmp_path, "config", "check", "--workers", "auto", limit=f"taskset -p -c {core} $$ >/dev/null").stdout
    assert "\nworkers = 1\n" in told


# --- a worker dies ---


def test_a_killed_worker_is_back_and_no_count_has_fallen(own: Service) -> None:
    with a_connection_to_each(own) as connections:
        for connection in connections.values():
            for _ in range(10):
                ask(connection, "/file?path=none")
        victim, other = connections
        wait_until_counted()
        before = webserver(connections[other])
        os.kill(victim, signal.SIGKILL)
        seen = int(before["requests"])

        def is_back() -> bool:
            nonlocal seen
            told = webserver(connections[other])  # the other one goes on
            assert int(told["requests"]) > seen - 1
            seen = int(told["requests"])
            now = {int(worker["pid"]) for worker in told["workers"]}
            return other in now and victim not in now and 0 not in now

        wait_for(is_back)
        after = webserver(connections[other])
    assert after["responses"]["404"] == before["responses"]["404"] == "20"
    assert sorted(worker["starts"] for worker in after["workers"]) == ["1", "2"]
    assert int(after["uptime"]) >= int(before["uptime"])
    with a_connection_to_each(own) as connections:
        assert connections.keys() == set(pids(own))
        assert all(webserver(connection)["responses"]["404"] == "20" for connection in connections.values())


def test_what_has_come_in_at_a_killed_worker_waits_for_the_next(own: Service) -> None:
    victims = pids(own)
    for pid in victims:
        freeze(pid)
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection((HOST, own.port), 20)) for _ in range(20)]
        for sock in waiting:
            sock.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        assert [sock.recv(12) for sock in waiting] == [b"HTTP/1.1 200"] * 20


def test_a_worker_that_is_told_to_stop_ends_what_it_does_and_the_others_serve(own: Service) -> None:
    with a_connection_to_each(own) as connections:
        one, other = connections
        upload = begin_upload(connections[one], "of/one", 100)
        os.kill(one, signal.SIGTERM)
        wait_for(lambda: listeners(own.port) == WORKERS - 1)
        for _ in range(50):
            assert int(full(own)["pid"]) != one
        upload.sendall(b"x" * 50)
        assert upload.recv(12) == b"HTTP/1.1 200"
        wait_for(lambda: one not in pids(own) and 0 not in pids(own))
        assert other in pids(own)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
               "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def test_a_worker_that_can_t_come_back_leaves_its_share_to_the_others(
    certificate: tuple[Path, Path], tmp_path: Path, memcached_nodes: Nodes
) -> None:
    tls = {"SFSS_SERVER_TLS_CERTIFICATE": str(certificate[0]), "SFSS_SERVER_TLS_KEY": str(certificate[1])}
    trust = ssl.create_default_context(cafile=str(certificate[0]))
    with Served(tmp_path, memcached_nodes, settings=tls) as service:

        def workers() -> dict[str, bool]:
            url = f"https://{HOST}:{service.port}/status?format=full"
            with urllib.request.urlopen(url, context=trust, timeout=10) as answer:
                told = json.load(answer)["webserver"]
            return {worker["pid"]: worker["pid"] == told["pid"] for worker in told["workers"]}

        good = certificate[1].read_bytes()
        certificate[1].write_bytes(b"what?")
        (victim,) = (int(pid) for pid, answers in workers().items() if not answers)
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: service.log.read_text().count("can't be used") > 1)
        for _ in range(50):
            assert "0" in workers()
        certificate[1].write_bytes(good)
        wait_for(lambda: "0" not in workers())
        wait_for(lambda: str(victim) not in workers() and list(workers().values()) == [True, False])
        wait_for(lambda: list(workers().values()) == [False, True])


# --- stop, and reload ---


def begin_upload(connection: http.client.HTTPConnection, path: str, size: int) -> socket.socket:
    """The half of it, when the worker has asked for it."""
    sock: socket.socket = connection.sock
    sock.sendall(b"PUT /file?path=%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
                 % (path.encode(), size))  # fmt: skip
    assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    sock.sendall(b"x" * (size // 2))
    return sock


def refused(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 20).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False
    return False


def test_a_stop_ends_what_is_in_flight_at_each_worker_and_a_second_one_doesn_t_cut_it(tmp_path: Path) -> None:
    with Served(tmp_path, []) as service, a_connection_to_each(service) as connections:
        assert service.process is not None
        uploads = [begin_upload(connection, f"of/{pid}", 100) for pid, connection in connections.items()]
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            service.process.send_signal(number)
            wait_for(lambda: refused(service.port))
        for upload in uploads:
            upload.sendall(b"x" * 50)
            assert upload.recv(12) == b"HTTP/1.1 200"
        assert service.process.wait(20) == 0
        assert not any(map(is_there, connections))
        assert "Traceback" not in service.log.read_text()
        service.start()
        for pid in connections:
            with urllib.request.urlopen(f"{service.url}/file?path=of/{pid}", timeout=10) as answer:
                assert answer.read() == b"x" * 100


def test_what_isn_t_done_in_time_is_cut_off(tmp_path: Path, memcached_nodes: Nodes) -> None:
    with Served(tmp_path, memcached_nodes, settings={"SFSS_SERVER_SHUTDOWN_TIMEOUT": "0.5"}) as service:
        with a_connection_to_each(service) as connections:
            uploads = [begin_upload(connection, f"of/{pid}", 100) for pid, connection in connections.items()]
            assert service.stop() == 0
            assert [upload.recv(12) for upload in uploads] == [b""] * WORKERS
        assert service.log.read_text().count("1 requests were not done within 0.5 s") == WORKERS


def test_nobody_outlives_a_service_that_is_killed(tmp_path: Path) -> None:
    with Served(tmp_path, []) as service:
        assert service.process is not None
        workers = pids(service)
        service.process.kill()
        service.process.wait()
        wait_for(lambda: not any(map(is_there, workers)), what="the workers to end")
        wait_for(lambda: not any(answers(port) for port in service.node_ports), what="the nodes to end")
        service.start()
        assert not set(workers) & set(pids(service))


def test_what_is_read_again_reaches_every_worker_and_those_that_come_later(
    tmp_path: Path, memcached_nodes: Nodes
) -> None:
    file = tmp_path / "sfss.toml"

    def configure(nodes: Nodes) -> None:
        file.write_text(f"[storage]\nnodes = {json.dumps(nodes)}\n")

    configure(memcached_nodes[:2])
    with Served(tmp_path, [], "--config", str(file)) as service, a_connection_to_each(service) as connections:
        assert service.process is not None
        configure(["what?"])
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "is not taken, all stays as it was: storage.nodes: 'what?'" in service.log.read_text())
        configure(memcached_nodes)
        service.process.send_signal(signal.SIGHUP)
        for connection in connections.values():
            wait_for(lambda connection=connection: set(webserver(connection)["nodes"]) == set(memcached_nodes))  # type: ignore[misc]
        assert service.log.read_text().count("is not taken") == 1
        wait_for(lambda: service.log.read_text().count("the configuration was read again: 3 nodes") == WORKERS)
        for pid in connections:
            os.kill(pid, signal.SIGHUP)  # is for the service, and does nothing to them
        assert connections.keys() == set(pids(service))
        os.kill(next(iter(connections)), signal.SIGKILL)
        wait_for(lambda: next(iter(connections)) not in pids(service) and 0 not in pids(service))
        with a_connection_to_each(service) as connections:
            for connection in connections.values():
                assert set(webserver(connection)["nodes"]) == set(memcached_nodes)


# --- what can't be ---


def made_key(node: str) -> dict[str, str]:
    """The header that shows a new one."""
    command = [sys.executable, "-m", "sfss", "key", "create"]
    environment = {**os.environ, "SFSS_STORAGE_NODES": node}
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return {"Authorization": f"Bearer {made.stdout.strip()}"}


def let_in(connection: http.client.HTTPConnection, headers: dict[str, str], times: int) -> int:
    """How many of so many requests were answered by something else than 429."""
    found = []
    for _ in range(times):
        connection.request("GET", "/file?path=none", headers=headers)
        answer = connection.getresponse()
        answer.read()
        found.append(answer.status)
    assert {*found} <= {404, 429}
    return found.count(404)


def test_a_key_has_one_burst_at_all_workers_and_none_anew_when_one_is_killed(tmp_path: Path) -> None:
    rates = {"SFSS_ACCESS_KEY_RATE": "0.001", "SFSS_ACCESS_KEY_BURST": "20"}
    with sfss_node(tmp_path / "node") as (port, _):
        node = f"{HOST}:{port}"
        key, another, late = made_key(node), made_key(node), made_key(node)
        with Served(tmp_path, [node], settings=rates) as service:
            with a_connection_to_each(service) as connections:
                one, two = connections.values()
                assert [let_in(connection, key, 1) for _ in range(12) for connection in (one, two)] == [1] * 20 + [
                    0
                ] * 4
                assert [let_in(one, another, 15), let_in(two, another, 15)] == [15, 5]
                assert [let_in(one, late, 10), let_in(two, late, 5)] == [10, 5]
                killed = next(iter(connections))
                os.kill(killed, signal.SIGKILL)
                wait_for(lambda: killed not in pids(service) and 0 not in pids(service))
            with a_connection_to_each(service) as connections:
                for connection in connections.values():
                    assert let_in(connection, key, 3) == let_in(connection, another, 3) == 0
                assert [let_in(connection, late, 10) for connection in connections.values()] == [5, 0]


def test_an_address_has_one_burst_at_all_workers_and_the_others_have_theirs(tmp_path: Path) -> None:
    rates = {"SFSS_ACCESS_ADDRESS_RATE": "0.001", "SFSS_ACCESS_ADDRESS_BURST": "100"}

    def from_there(address: str, service: Service, times: int) -> int:
        """Over as many connections as it takes for each worker to have some, as good as surely."""
        count = 0
        for _ in range(times // 10):
            connection = http.client.HTTPConnection(HOST, service.port, timeout=20, source_address=(address, 0))
            with contextlib.closing(connection):
                count += let_in(connection, {}, 10)
        return count

    with Served(tmp_path, [], settings=rates) as service:
        assert from_there("127.0.0.3", service, 200) == 100
        assert from_there("127.0.0.4", service, 90) == 90
        assert from_there("127.0.0.3", service, 20) == 0
        assert from_there("127.0.0.4", service, 90) == 10


def test_a_second_service_on_the_same_port_is_told_so(shared: Service, tmp_path: Path, memcached_nodes: Nodes) -> None:
    for workers in ("1", "2"):
        second = run(tmp_path, "--port", str(shared.port), "--workers", workers, SFSS_STORAGE_NODES=memcached_nodes[0])
        assert second.returncode == 2
        assert f"port {shared.port} of 127.0.0.1 can't be taken" in second.stderr


def test_a_port_that_one_process_has_is_refused(tmp_path: Path, memcached_nodes: Nodes) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = str(taken.getsockname()[1])
        second = run(tmp_path, "--port", port, "--workers", "2", SFSS_STORAGE_NODES=memcached_nodes[0])
        assert second.returncode == 2
        assert f"port {port} of 127.0.0.1 can't be taken" in second.stderr


def test_what_is_wrong_with_tls_is_said_once_and_nothing_starts(tmp_path: Path) -> None:
    tls = {"SFSS_SERVER_TLS_CERTIFICATE": "none", "SFSS_SERVER_TLS_KEY": "none"}
    done = run(tmp_path, "--workers", "3", "--port", "0", **tls)
    assert done.returncode == 2
    assert re.fullmatch(r"sfss: server\.tls_certificate none and server\.tls_key none can't be used: .*\n", done.stderr)


def test_a_worker_that_can_t_start_ends_the_start_and_says_why_once(tmp_path: Path, memcached_nodes: Nodes) -> None:
    nodes = ",".join(memcached_nodes)
    done = run(tmp_path, "--workers", "3", "--port", "0", limit="ulimit -n 400", SFSS_STORAGE_NODES=nodes)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("at most 400 files may be open here") == 1
    assert "Traceback" not in done.stderr
