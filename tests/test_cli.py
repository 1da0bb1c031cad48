"""The command line: what it says, and with which exit status."""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import sfss
from sfss import cli
from tests.servers import Service, free_port


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sfss", *arguments]
    return subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["node", "--help"],
        ["status", "--help"],
        ["nodes", "--help"],
        ["ls", "-h"],
        ["du", "-h"],
        ["put", "-h"],
        ["get", "-h"],
        ["rm", "-h"],
        ["stat", "-h"],
        ["config", "check", "-h"],
        ["key", "-h"],
        ["key", "create", "-h"],
        ["sign", "-h"],
    ],
)
def test_help_is_there_for_every_command(arguments: list[str]) -> None:
    help = run(*arguments)
    assert help.returncode == 0
    assert help.stdout.startswith("usage: sfss")
    assert help.stderr == ""


def subcommands(words: Sequence[str] = ()) -> Mapping[str, argparse.ArgumentParser]:
    """The parsers of the commands among which words are looked for."""
    parser = cli._parser(words)
    (found,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return found.choices


def test_a_command_is_the_same_alone_as_among_all() -> None:
    every = subcommands()
    assert {"node", "put", "repair", "worker", "config"} <= every.keys()
    for name, parser in every.items():
        alone = subcommands([name, "--host", "x"])
        assert alone[name].format_help() == parser.format_help()
        assert (name in ("put", "get", "rm", "stat", "bench")) == ("bench" in alone)
    assert subcommands(["--host", "node"]).keys() == every.keys()


def test_a_node_s_command_line_loads_no_other_command() -> None:
    code = "import sys; from sfss import cli; cli._parser(['node']); print(*(m for m in sys.modules if '_cli' in m))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "\n"


def test_version_is_the_package_s() -> None:
    assert run("--version").stdout == f"sfss {sfss.__version__}\n"


def test_config_check_shows_what_the_settings_come_to(tmp_path: Path) -> None:
    file = tmp_path / "sfss.toml"
    file.write_text('[server]\nport = 1234\n[limits]\nmax_file_size = "1MiB"\n')
    checked = run("config", "check", "--config", str(file), SFSS_STORAGE_NODES="a:1,b:2")
    assert checked.returncode == 0
    assert "port = 1234" in checked.stdout
    assert "max_file_size = 1048576" in checked.stdout
    assert "files go to a:1, b:2" in checked.stdout


def test_config_check_does_not_show_secrets(tmp_path: Path) -> None:
    checked = run("config", "check", SFSS_REGISTRATION_SECRET="s3cr3t")
    assert checked.returncode == 0
    assert "s3cr3t" not in checked.stdout + checked.stderr
    assert "# secret is set, and not shown" in checked.stdout


def test_config_check_shows_policies_with_what_they_leave_out_and_can_be_read_again(tmp_path: Path) -> None:
    file = tmp_path / "sfss.toml"
    file.write_text('[[policy]]\nprefix = "bilder/ü\\""\ncopies = 2\n[[policy]]\nprefix = ""\npieces = 3\n')
    checked = run("config", "check", "--config", str(file))
    first, second = checked.stdout.partition("[[policy]]\n")[2].split("[[policy]]\n")
    assert first.startswith('prefix = "bilder/ü\\""\ncopies = 2\nwrite_quorum = 1\nread_quorum = 1\nmax_file_size = 20')
    assert second.startswith('prefix = ""\npieces = 3\ncopies = 1\n')
    file.write_text(checked.stdout)
    assert run("config", "check", "--config", str(file)).stdout == checked.stdout


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[server]\nprot = 1", "server.prot is no setting of sfss: did you mean server.port?"),
        ("[server]\nport = 99999", "server.port: expected `int` <= 65535"),
        ("[server", "is not TOML"),
        ("[storage]\nnodes = ['nowhere']", "storage.nodes: 'nowhere' is not a node"),
        ("[[policy]]\nprefix = 'a/'\ncopies = 4", "copies of the policy for 'a/': 4 copies need as many nodes"),
        (
            "[server]\ntls_certificate = 'a'\ntls_key = 'b'",
            "server.tls_certificate a and server.tls_key b can't be used",
        ),
    ],
)
def test_config_check_names_what_is_wrong(tmp_path: Path, toml: str, message: str) -> None:
    file = tmp_path / "sfss.toml"
    file.write_text(toml)
    for arguments in (["config", "check", "--config", str(file)], ["--config", str(file)]):
        checked = run(*arguments)
        assert checked.returncode == 2
        assert message in checked.stderr
        assert checked.stderr.startswith("sfss: ")


def test_a_configuration_that_isn_t_there_is_named() -> None:
    assert "/none/such.toml can't be read: No such file" in run("--config", "/none/such.toml").stderr


def test_a_host_that_can_t_be_the_name_of_one_is_named() -> None:
    refused = run("--host", "a" * 64, "--port", "8255", SFSS_STORAGE_NODES="127.0.0.1:1", SFSS_ACCESS_ANONYMOUS="")
    assert refused.returncode == 2
    assert "can't be taken" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_while_it_starts_it_stops_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    """The moment matters: the signal comes when the first node has been heard of, and the service isn't up yet."""
    service = Service(tmp_path)
    command = [sys.executable, "-m", "sfss", "--port", str(service.port)]
    environment = {"PATH": "/usr/bin:/bin", "SFSS_EMBEDDED_FIRST_PORT": str(service.first_node_port)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as starting:
        assert starting.stderr is not None
        assert "data in" in starting.stderr.readline()
        starting.send_signal(number)
        said = starting.stderr.read()
    assert starting.returncode == 0, said
    assert "Traceback" not in said


def test_an_address_that_can_t_be_had_is_named() -> None:
    refused = run("--host", "192.0.2.1", "--port", "8255", SFSS_STORAGE_NODES="127.0.0.1:1", SFSS_ACCESS_ANONYMOUS="")
    assert refused.returncode == 2
    assert "port 8255 of 192.0.2.1 can't be taken" in refused.stderr


def test_status_shows_a_line_for_each_node(service: Service) -> None:
    shown = run("status", "--port", str(service.port))
    assert shown.returncode == 0
    assert len(shown.stdout.splitlines()) == 4
    assert f"127.0.0.1:{service.first_node_port}" in shown.stdout


def test_status_as_json_is_the_service_s_own(service: Service) -> None:
    status = json.loads(run("status", "--json", "--port", str(service.port)).stdout)
    assert len(status["storages"]) == 3


@pytest.mark.parametrize(
    "answer",
    [b"<html>hello</html>", b"{}", b"[1]", b'{"storages": 5, "webserver": {}}', b"\xff",
     b'{"storages": {"a:1": {"curr_items": 5}}, "webserver": {"warnings": []}}'],
)  # fmt: skip
def test_status_of_something_else_says_what_to_do(answer: bytes) -> None:
    shown = status_of(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "is no sfss: name one with --host and --port" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 500 Oops\r\nContent-Length: 3\r\n\r\nhey", b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n[]",
     b"garbage\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"],
)  # fmt: skip
def test_status_of_a_server_that_fails_is_one_line(answer: bytes) -> None:
    shown = status_of(answer)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert len(shown.stderr.splitlines()) == 1


def test_status_gives_the_reason_of_a_service_without_nodes() -> None:
    problem = b'{"detail": "none of the 3 nodes answers"}'
    shown = status_of(b"HTTP/1.1 504 Away\r\nContent-Length: %d\r\n\r\n%s" % (len(problem), problem))
    assert shown.returncode == 1
    assert "none of the 3 nodes answers" in shown.stderr


def status_of(answer: bytes, command: str = "status") -> subprocess.CompletedProcess[str]:
    """What ``sfss status``, or another command, says of a server that gives this answer, once."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return run(command, "--port", str(server.getsockname()[1]))


def test_status_of_nobody_says_what_to_do() -> None:
    shown = run("status", "--port", str(free_port()))
    assert shown.returncode == 1
    assert "no service answers" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "99999"], "--port: 99999"),
        (["--max-item-size", "much"], "--max-item-size: 'much' is not a size"),
        (["--cache", "much"], "--cache: 'much' is not a size"),
        (["--capacity", "much"], "--capacity: 'much' is not a size"),
        (["--register", "front"], "--register: 'front' is no front"),
        (["--name", "a"], "name one with --register URL"),
        (["--register", "http://a:1", "--host", "0.0.0.0"], "--advertise: the node listens on 0.0.0.0"),
        (["--cache", "1MiB"], "--cache: 1048576 bytes are too few, give at least 4MiB"),
    ],
)
def test_a_wrong_option_of_the_node_is_named(tmp_path: Path, arguments: list[str], message: str) -> None:
    refused = run("node", "--data", str(tmp_path / "data"), *arguments)
    assert refused.returncode == 2
    assert message in refused.stderr
