"""simple_client.py, run as its users run it: one process for each command, against a real service."""

import asyncio
import configparser
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Protocol

import pytest

CLIENT = Path(__file__).resolve().parent.parent / "simple_client.py"
AWKWARD = ["a+b %20&c=d#e?f;g.txt", "año/日本/😀.bin", "100%/%2e%2e%2f", "'\"<>$(x)|*/~"]


class Service(Protocol):
    """What the fixture `service` provides: where a running sfss listens."""

    host: str
    port: int


def command(port: int, *args: str | Path) -> list[str]:
    return [sys.executable, str(CLIENT), *map(str, args), "--port", str(port)]


def run(port: int, *args: str | Path) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(command(port, *args), capture_output=True, timeout=30)
    assert b"Traceback" not in done.stderr
    return done


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def name() -> str:
    """A path that no other test uses."""
    return f"client/{secrets.token_hex(8)}"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A local file of more than one piece that holds every byte."""
    path = tmp_path / "local file"
    path.write_bytes(bytes(range(256)) * 2500 + b"end")
    return path


def test_what_is_posted_comes_back_the_same(service: Service, local: Path, name: str) -> None:
    done = run(service.port, "--host", service.host, "--path", name, "--filepath", local)
    assert (done.returncode, done.stderr) == (0, b"")  # and no bar where there is no terminal
    assert done.stdout.startswith(b"same: ")


def test_an_empty_file_comes_back_empty(service: Service, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").touch()
    done = run(service.port, "post", "--path", name, "--filepath", tmp_path / "empty")
    assert (done.returncode, done.stdout[:5]) == (0, b"same:"), done.stderr


def test_a_file_can_be_put_got_replaced_and_deleted(service: Service, local: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    for content in (local.read_bytes(), b"replaced"):
        local.write_bytes(content)
        assert run(service.port, "put", "--path", name, "--filepath", local).returncode == 0
        assert run(service.port, "get", "--path", name, "--filepath", copy).returncode == 0
        assert copy.read_bytes() == content
        assert run(service.port, "get", "--path", name).stdout == content
        assert run(service.port, "get", "--path", name, "--filepath", "-").stdout == content
    assert run(service.port, "delete", "--path", name).returncode == 0
    assert run(service.port, "delete", "--path", name).returncode == 1


@pytest.mark.parametrize("awkward", AWKWARD)
def test_an_awkward_name_names_one_file_and_no_other(service: Service, local: Path, name: str, awkward: str) -> None:
    done = run(service.port, "--path", f"{name}/{awkward}", "--filepath", local)
    assert done.returncode == 0, done.stderr
    quoted = urllib.parse.quote(f"{name}/{awkward}", safe="")  # by another hand: two equal mistakes would agree
    with urllib.request.urlopen(f"http://{service.host}:{service.port}/file?path={quoted}") as answer:
        assert answer.read() == local.read_bytes()


def test_a_missing_file_leaves_the_target_as_it_was(service: Service, tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    done = run(service.port, "get", "--path", name, "--filepath", target)
    assert done.returncode == 1
    assert re.fullmatch(rb".+: .+\n", done.stderr)  # title: detail
    assert not list(tmp_path.iterdir())
    target.write_text("mine")
    assert run(service.port, "get", "--path", name, "--filepath", target).returncode == 1
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


HEAD = "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nETag: {etag}\r\nConnection: close\r\n\r\n"
UNTRUE = [
    pytest.param(HEAD.format(size=1000, etag='"00"'), b"the answer broke off", id="less than announced"),
    pytest.param(HEAD.format(size=4, etag='"00"'), b"NOT the same", id="not what the ETag says"),
    pytest.param(HEAD.format(size=4, etag="").replace("ETag: \r\n", ""), b"ETag is missing", id="no ETag"),
]


def run_against(head: str, *args: str | Path) -> tuple[int | None, bytes]:
    """Exit status and stderr of the client when every request is answered with `head` and four bytes: "part"."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head.encode() + b"part")
        await writer.drain()
        writer.close()

    async def scenario() -> tuple[int | None, bytes]:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            line = command(server.sockets[0].getsockname()[1], *args)
            client = await asyncio.create_subprocess_exec(*line, stderr=asyncio.subprocess.PIPE)
            _, stderr = await client.communicate()
            return client.returncode, stderr

    return asyncio.run(scenario())


@pytest.mark.parametrize(("head", "complaint"), UNTRUE)
def test_an_answer_that_is_not_whole_and_true_leaves_nothing(tmp_path: Path, head: str, complaint: bytes) -> None:
    status, stderr = run_against(head, "get", "--path", "x", "--filepath", tmp_path / "target")
    assert status == 1
    assert complaint in stderr
    assert not list(tmp_path.iterdir())


def test_bytes_that_come_back_different_are_not_called_the_same(tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"parr")
    status, stderr = run_against(HEAD.format(size=4, etag='"00"'), "--path", "x", "--filepath", tmp_path / "local")
    assert status == 1
    assert re.match(rb"NOT the same: .* the first difference is at byte 3;", stderr)


def test_an_unreachable_server_is_named_with_what_to_do() -> None:
    port = unused_port()
    done = run(port, "get", "--path", "x")
    assert done.returncode == 1
    assert f"127.0.0.1:{port}".encode() in done.stderr
    assert f"sfss --host 127.0.0.1 --port {port}".encode() in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_local_file_that_cannot_be_sent_is_named(tmp_path: Path) -> None:
    for local, complaint in ((tmp_path / "none", b"No such file"), (tmp_path, b"is a directory")):
        done = run(unused_port(), "--path", "x", "--filepath", local)
        assert done.returncode == 1
        assert str(local).encode() in done.stderr
        assert complaint in done.stderr


def test_a_folder_can_be_put_and_got(service: Service, tmp_path: Path, name: str) -> None:
    for local in ("a", "b/c", "b/.d"):
        (tmp_path / "folder" / local).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / local).write_text(local)
    done = run(service.port, "put", "-r", "--jobs", "2", "--path", name, "--filepath", tmp_path / "folder")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"sent 3 files, 8 bytes in ")
    done = run(service.port, "get", "-r", "--path", name, "--filepath", tmp_path / "copy")
    assert (done.returncode, done.stdout[:15]) == (0, b"fetched 3 files"), done.stderr
    copies = [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert {str(path.relative_to(tmp_path / "copy")): path.read_text() for path in copies} == {
        local: local for local in ("a", "b/c", "b/.d")
    }


def test_it_needs_aiohttp_and_nothing_else_that_sfss_needs() -> None:
    setup = configparser.ConfigParser()
    setup.read(CLIENT.parent / "setup.cfg")
    needed = re.findall(r"^[\w-]+", setup["options"]["install_requires"].strip(), re.MULTILINE)
    others = [package.replace("-", "_") for package in needed if package != "aiohttp"]
    assert "msgspec" in others
    code = f"import sys, simple_client; print(*sorted(set({others}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CLIENT.parent, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_the_bench_prints_figures_and_leaves_no_files(service: Service) -> None:
    done = run(service.port, "--bench", "60", "--size", "5KiB", "--concurrency", "7")
    assert done.returncode == 0, done.stderr
    for phase in ("writes", "reads"):
        row = re.search(rf"^{phase} (.+)$", done.stdout.decode(), re.MULTILINE)
        assert row
        rate, megabytes, *times, errors = (float(figure.replace(",", "")) for figure in row[1].split())
        assert (len(times), errors) == (5, 0)
        assert times == sorted(times)
        assert megabytes == pytest.approx(rate * 5 * 1024 / 1e6, abs=0.1)


def test_an_interrupted_bench_ends_at_once_and_removes_its_files(service: Service) -> None:
    args = command(service.port, "--bench", "1000000", "--size", "100", "--concurrency", "4")
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as bench:
        assert bench.stdout
        bench.stdout.readline()  # the server has been reached, writing begins
        time.sleep(0.3)
        bench.send_signal(signal.SIGINT)
        _, stderr = bench.communicate(timeout=8)
    assert bench.returncode == 130
    removed = re.fullmatch(rb"removed ([\d,]+) of ([\d,]+) bench files\ninterrupted\n", stderr)
    assert removed, stderr
    assert removed[1] == removed[2]


def test_help_shows_every_option_and_examples() -> None:
    done = subprocess.run([sys.executable, str(CLIENT), "-h"], capture_output=True, text=True)
    assert done.returncode == 0
    for word in (
        "post",
        "--host",
        "--port",
        "--path",
        "--filepath",
        "--timeout",
        "--jobs",
        "--bench",
        "--size",
        "examples:",
    ):
        assert word in done.stdout


@pytest.mark.parametrize(
    "wrong", ["", "put --path x", "delete", "move --path x", "--bench 5 --size 4K", "post -r --path x"]
)
def test_wrong_usage_ends_with_status_2(wrong: str) -> None:
    assert run(8255, *wrong.split()).returncode == 2
