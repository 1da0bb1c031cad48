"""``sfss get`` of a file: whole and checked or not at all, and on from where a break or a kill left it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sfss.client.resume import PART, find_part
from tests.client.support import Network, User, ended, noise, passed, sha256, store
from tests.servers import Service, free_port

SIZE = 12_000_000
SLACK = 1_000_000  # bytes that a cut connection may have had in flight
DATA = noise(SIZE)


@pytest.fixture
def file(large_service: Service, path: str) -> str:
    store(large_service, path, DATA)
    return path


def killed(user: User, between: Network, file: str) -> Path:
    """Kill a get of the file to ``cat`` in its middle; the part that it leaves."""
    between.pause = 0.01
    with user.running("get", file, "cat") as child:
        passed(between, 4_000_000)
        child.kill()
    between.pause = 0
    [part] = user.names()
    assert part.endswith(PART)
    return user.directory / part


def test_a_file_comes_whole_and_says_what_it_is(user: User, file: str) -> None:
    assert user.succeed("get", file, "cat") == f"fetched: cat, {SIZE:,} bytes, SHA-256 {sha256(DATA)}\n"
    assert (user.directory / "cat").read_bytes() == DATA
    assert user.names() == ["cat"]


def test_a_folder_that_is_there_gets_the_file_by_its_name(user: User, file: str) -> None:
    user.succeed("get", file, ".")
    (user.directory / "d").mkdir()
    user.succeed("get", "-q", file, "d/")
    assert user.names() == ["cat.jpg", "d/cat.jpg"]


def test_broken_connections_are_gone_over(user: User, between: Network, file: str) -> None:
    between.cut_after(3_000_000, 100, 2_000_000, 1_000_000)
    user.succeed("get", file, "cat")
    assert (user.directory / "cat").read_bytes() == DATA
    assert between.down < SIZE + 4 * SLACK  # nothing came twice


def test_a_break_on_the_way_to_standard_output_is_gone_over(user: User, between: Network, file: str) -> None:
    between.cut_after(3_000_000)
    assert user.run("get", file, "-").stdout == DATA


def test_when_retries_are_used_up_the_part_stays_and_the_next_get_goes_on(
    user: User, between: Network, file: str
) -> None:
    between.cut_after(3_000_000)
    failed = user.run("get", "--retries", "0", file, "cat")
    assert failed.returncode == 4
    assert failed.stderr.count(b"\n") == 1
    [part] = user.names()
    assert part.endswith(PART)
    before = between.down
    user.succeed("get", file, "cat")
    assert user.names() == ["cat"]
    assert (user.directory / "cat").read_bytes() == DATA
    assert between.down - before < SIZE - 2_000_000 + SLACK


def test_a_killed_get_leaves_no_target_and_the_next_one_goes_on(user: User, between: Network, file: str) -> None:
    part = killed(user, between, file)
    size, before = part.stat().st_size, between.down
    assert size > 1_000_000
    user.succeed("get", file, "cat")
    assert (user.directory / "cat").read_bytes() == DATA
    assert user.names() == ["cat"]
    assert between.down - before < SIZE - size + SLACK


def test_a_file_that_was_replaced_meanwhile_comes_as_it_is_now(
    user: User, between: Network, large_service: Service, file: str
) -> None:
    killed(user, between, file)
    store(large_service, file, DATA[::-1])
    user.succeed("get", file, "cat")
    assert (user.directory / "cat").read_bytes() == DATA[::-1]
    assert user.names() == ["cat"]


def test_a_part_that_was_spoilt_is_not_trusted(user: User, between: Network, file: str) -> None:
    part = killed(user, between, file)
    with part.open("r+b") as spoilt:
        spoilt.seek(1000)
        spoilt.write(bytes(5000))  # as a power cut may leave it
    user.succeed("get", file, "cat")
    assert (user.directory / "cat").read_bytes() == DATA
    assert user.names() == ["cat"]


@pytest.mark.parametrize("content", [DATA, DATA + b"more", bytes(SIZE)], ids=["whole", "too long", "spoilt"])
def test_a_part_of_all_bytes_is_used_if_it_is_right(user: User, between: Network, file: str, content: bytes) -> None:
    (user.directory / f".cat.{sha256(DATA)}{PART}").write_bytes(content)
    user.succeed("get", file, "cat")
    assert (user.directory / "cat").read_bytes() == DATA
    assert user.names() == ["cat"]
    assert (between.down < SLACK) is (content == DATA)


def test_ctrl_c_leaves_nothing(user: User, between: Network, file: str) -> None:
    between.pause = 0.01
    with user.running("get", file, "cat") as child:
        passed(between, 4_000_000)
        assert any(name.endswith(PART) for name in user.names())
        child.send_signal(signal.SIGINT)
        assert ended(child) == (130, "sfss: interrupted\n")
    assert user.names() == []


def test_what_stood_at_the_target_stands_there_until_the_new_one_is_whole(
    user: User, between: Network, file: str
) -> None:
    (user.directory / "cat").write_text("mine")
    between.pause = 0.01
    with user.running("get", file, "cat") as child:
        passed(between, 4_000_000)
        assert (user.directory / "cat").read_text() == "mine"
        child.kill()
    assert (user.directory / "cat").read_text() == "mine"


def test_two_gets_to_one_target_at_once_are_both_right(user: User, between: Network, file: str) -> None:
    between.pause = 0.002
    with user.running("get", file, "cat") as first, user.running("get", file, "cat") as second:
        assert ended(first) == (0, "")
        assert ended(second) == (0, "")
    assert (user.directory / "cat").read_bytes() == DATA
    assert user.names() == ["cat"]


def test_a_link_stays_and_what_it_names_is_replaced(user: User, file: str) -> None:
    (user.directory / "real").write_text("old")
    (user.directory / "cat").symlink_to("real")
    user.succeed("get", file, "cat")
    assert (user.directory / "cat").is_symlink()
    assert (user.directory / "real").read_bytes() == DATA


def test_a_part_of_somebody_else_or_a_link_in_its_place_is_left_alone(user: User, file: str) -> None:
    precious = user.directory / "precious"
    precious.write_text("mine")
    (user.directory / f".cat.{sha256(DATA)}{PART}").symlink_to(precious)
    user.succeed("get", file, "cat")
    assert (user.directory / "cat").read_bytes() == DATA
    assert precious.read_text() == "mine"


def test_a_name_of_any_length_and_form_has_a_part(tmp_path: Path) -> None:
    from sfss.client.resume import new_part

    names = ["é" * 127 + "x", "a" * 255, "a[*]?.txt", "new\nline", os.fsdecode(b"no\xff")]
    for name in names:
        part = new_part(tmp_path / name, "ab" * 32)
        part.write(b"half")
        part.leave()
        found = find_part(tmp_path / name)
        assert found, name
        found.read()
        assert (found.size, found.etag) == (4, "ab" * 32)
        found.leave()
    for name in names:
        found = find_part(tmp_path / name)
        assert found, name
        found.discard()
    assert not list(tmp_path.iterdir())


def test_a_reader_that_has_seen_enough_is_no_traceback(user: User, file: str) -> None:
    line = f"{sys.executable} -m sfss get --port {user.port} {file} - | head -c 4"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=30)
    assert (done.stdout, done.stderr) == (DATA[:4], b"")


@pytest.mark.parametrize(("closed", "status"), [(">&-", 0), ("2>&-", 0), ("<&-", 0), (">&- 2>&-", 0)])
def test_closed_standard_streams_are_no_traceback(user: User, file: str, closed: str, status: int) -> None:
    line = f"{sys.executable} -m sfss get --port {user.port} {file} cat {closed}"
    done = subprocess.run(["bash", "-c", line], cwd=user.directory, capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (status, b"")
    assert (user.directory / "cat").read_bytes() == DATA


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["get", "none/such", "cat"], 3, b"there is no file at 'none/such'"),
        (["get", "/etc/passwd", "cat"], 1, b"the path begins with '/'"),
        (["get", "none/such", "none/such"], 1, b"is no directory"),
        (["get", "none/such"], 2, b"what is missing"),
        (["get", "a/x", "b/x", "."], 2, b"the same name"),
        (["get", "a", "b", "-"], 2, b"one file"),
        (["get", "-r", "a", "-"], 2, b"get -r takes"),
        (["get", "--jobs", "0", "a", "b"], 2, b"no whole number"),
    ],
)
def test_what_went_wrong_is_said_in_a_line_and_by_the_status(
    user: User, arguments: list[str], status: int, words: bytes
) -> None:
    done = user.run(*arguments)
    assert (done.returncode, done.stdout) == (status, b"")
    assert words in done.stderr
    assert user.names() == []


def test_a_service_that_is_not_there_is_not_waited_for(user: User) -> None:
    user.port = free_port()
    done = user.run("get", "a", "cat")
    assert done.returncode == 4
    assert b"is sfss running there?" in done.stderr


UNTRUE = [
    pytest.param(f'200 OK\r\nETag: "{"0" * 64}"', 5, "NOT the same", id="not what the ETag says"),
    pytest.param("200 OK", 5, "ETag is missing", id="no ETag"),
    pytest.param("504 Away\r\nRetry-After: 0", 4, "HTTP 504", id="away"),
    pytest.param("500 Oops", 1, "HTTP 500", id="a bug"),
]


@pytest.mark.parametrize(("head", "status", "words"), UNTRUE)
async def test_an_answer_that_is_not_true_leaves_nothing(user: User, head: str, status: int, words: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: 4\r\nConnection: close\r\n\r\npart".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        user.port = server.sockets[0].getsockname()[1]
        done = await asyncio.to_thread(user.run, "get", "--retries", "1", "x", "cat")
    assert done.returncode == status
    assert words in done.stderr.decode()
    assert user.names() == []
