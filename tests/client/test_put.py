"""``sfss put`` of a file: it becomes visible whole or not at all, and goes on from where a break or a kill left it."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler

from sfss import config
from sfss.client.api import Once
from sfss.client.failures import Broken
from sfss.client.resume import Source, note_of
from sfss.web.app import create_app
from tests.client.support import Network, User, ended, network, noise, passed, sha256, store, stored
from tests.conftest import Nodes
from tests.servers import Service, answers, wait_for

SIZE = 30_000_000
KEPT = 12_000_000  # bytes sent before a break, of which the service has kept some
DATA = noise(SIZE, seed=2)


@pytest.fixture
def local(user: User) -> Path:
    """A local file that is sent as an upload."""
    file = user.directory / "cat"
    file.write_bytes(DATA)
    return file


def killed(user: User, between: Network, path: str) -> str:
    """Kill a put of the file ``cat`` in its middle; where its upload is."""
    between.pause = 0.01
    with user.running("put", "cat", path) as child:
        passed(between, KEPT)
        child.kill()
    between.pause = 0
    [note] = user.notes()
    text = note.read_text()
    return text.partition('"url": "')[2].partition('"')[0]


def test_a_small_file_and_a_large_one_are_stored(
    user: User, local: Path, between: Network, large_service: Service, path: str
) -> None:
    assert user.succeed("put", "cat", path) == f"stored: {path}, {SIZE:,} bytes, SHA-256 {sha256(DATA)}\n"
    assert stored(large_service, path) == DATA
    local.write_bytes(b"small")
    assert user.succeed("put", "-q", "cat", path) == ""
    assert stored(large_service, path) == b"small"
    local.write_bytes(b"")
    user.succeed("put", "cat", path)
    assert stored(large_service, path) == b""
    assert user.notes() == []


def test_a_folder_gets_the_file_by_its_name(user: User, local: Path, large_service: Service, path: str) -> None:
    local.write_bytes(b"small")
    user.succeed("put", "cat", f"{path}/")
    user.succeed("put", local, user.directory / "cat", f"{path}/twice")
    assert stored(large_service, f"{path}/cat") == b"small"
    assert stored(large_service, f"{path}/twice/cat") == b"small"


@pytest.mark.parametrize("size", [0, 5, 4 * 1024 * 1024, 4 * 1024 * 1024 + 1, 9_000_000])
def test_standard_input_is_stored(user: User, large_service: Service, path: str, size: int) -> None:
    user.succeed("put", "-", path, input=DATA[:size])
    assert stored(large_service, path) == DATA[:size]


def test_the_type_that_is_given_is_kept(user: User, local: Path, path: str) -> None:
    for size in (10, SIZE):
        local.write_bytes(DATA[:size])
        user.succeed("put", "--type", "text/x-cat", "cat", path)
        assert "type: text/x-cat\n" in user.succeed("stat", path)


def test_broken_connections_are_gone_over(
    user: User, local: Path, between: Network, large_service: Service, path: str
) -> None:
    between.cut_after(10_000_000, 500, 8_000_000)
    user.succeed("put", "cat", path)
    assert stored(large_service, path) == DATA
    assert between.up < SIZE + 18_000_000  # of what was cut off some was kept
    assert user.notes() == []


def test_a_killed_put_goes_on_from_what_the_service_has(
    user: User, local: Path, between: Network, large_service: Service, path: str
) -> None:
    store(large_service, path, b"old")
    killed(user, between, path)
    assert stored(large_service, path) == b"old"
    before = between.up
    user.succeed("put", "cat", path)
    assert stored(large_service, path) == DATA
    assert between.up - before < SIZE - 1_000_000
    assert user.notes() == []


@pytest.mark.parametrize("before_the_end", [577, 1000])  # within the answer, within the file
def test_a_put_whose_last_answer_was_lost_goes_on(
    user: User, local: Path, between: Network, large_service: Service, path: str, before_the_end: int
) -> None:
    user.succeed("put", "cat", path)
    passing = between.up + between.down  # all that there is, with the heads
    store(large_service, path, b"old")
    between.cut_after(passing - before_the_end)
    failed = user.run("put", "--retries", "0", "cat", path)
    assert failed.returncode == 4
    assert len(user.notes()) == 1
    assert stored(large_service, path) in (b"old", DATA)
    store(large_service, path, b"another's")
    user.succeed("put", "cat", path)
    assert stored(large_service, path) == DATA
    assert user.notes() == []


def test_a_file_that_changed_since_is_sent_anew(
    user: User, local: Path, between: Network, large_service: Service, path: str
) -> None:
    old = killed(user, between, path)
    local.write_bytes(DATA[::-1])
    user.succeed("put", "cat", path)
    assert stored(large_service, path) == DATA[::-1]
    assert not is_there(old)
    assert user.notes() == []


def test_an_upload_that_the_service_has_forgotten_is_begun_anew(
    user: User, local: Path, between: Network, large_service: Service, path: str
) -> None:
    request = urllib.request.Request(killed(user, between, path), method="DELETE", headers={"Tus-Resumable": "1.0.0"})
    urllib.request.urlopen(request, timeout=30).close()
    user.succeed("put", "cat", path)
    assert stored(large_service, path) == DATA


def test_when_retries_are_used_up_the_next_put_goes_on(
    user: User, local: Path, between: Network, large_service: Service, path: str
) -> None:
    between.cut_after(KEPT)
    failed = user.run("put", "--retries", "0", "cat", path)
    assert failed.returncode == 4, failed.stderr
    assert failed.stderr.count(b"\n") == 1
    assert stored(large_service, path) is None
    assert len(user.notes()) == 1
    user.succeed("put", "cat", path)
    assert stored(large_service, path) == DATA


def test_ctrl_c_leaves_nothing_on_the_service_and_what_was_there_stays(
    user: User, local: Path, between: Network, large_service: Service, path: str
) -> None:
    store(large_service, path, b"old")
    between.pause = 0.01
    with user.running("put", "cat", path) as child:
        passed(between, KEPT)
        [note] = user.notes()
        url = note.read_text().partition('"url": "')[2].partition('"')[0]
        assert is_there(url)
        between.pause = 0
        child.send_signal(signal.SIGINT)
        assert ended(child) == (130, "sfss: interrupted\n")
    assert not is_there(url)
    assert user.notes() == []
    assert stored(large_service, path) == b"old"


def test_standard_input_that_comes_slowly_is_stored(user: User, large_service: Service, path: str) -> None:
    with user.running("put", "--timeout", "1", "-", path) as child:
        assert child.stdin
        for start in range(0, 6_000_000, 2_000_000):
            child.stdin.write(DATA[start : start + 2_000_000])
            child.stdin.flush()
            time.sleep(1.2)
        assert ended(child) == (0, "")
    assert stored(large_service, path) == DATA[:6_000_000]


def test_standard_input_that_is_closed_is_named(user: User, path: str) -> None:
    line = f"{sys.executable} -m sfss put --port {user.port} - {path} <&-"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (2, b"sfss: standard input (-) is closed\n")


def test_standard_input_is_not_stored_when_the_connection_breaks(
    user: User, between: Network, large_service: Service, path: str
) -> None:
    store(large_service, path, b"old")
    between.cut_after(6_000_000)
    done = user.run("put", "-", path, input=DATA[:9_000_000])
    assert (done.returncode, done.stderr.count(b"\n")) == (4, 1)
    assert stored(large_service, path) == b"old"


async def test_a_body_that_was_begun_is_never_sent_a_second_time(large_service: Service, path: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"piece"

    body = Once(pieces(), "the service")
    assert [piece async for piece in body] == [b"piece"]
    with pytest.raises(Broken, match="the service"):  # aiohttp does so after a break, and would store nothing as a file
        aiter(body)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_standard_input_that_is_cut_off_leaves_what_was_there(
    user: User, between: Network, large_service: Service, path: str, how: signal.Signals
) -> None:
    store(large_service, path, b"old")
    with user.running("put", "-", path) as child:
        assert child.stdin
        child.stdin.write(DATA[:6_000_000])
        child.stdin.flush()
        passed(between, 5_000_000)
        child.send_signal(how)
        child.wait(30)  # though its standard input is open still
        assert child.returncode == (130 if how == signal.SIGINT else -how)
        assert child.stderr
        assert child.stderr.read() == (b"sfss: interrupted\n" if how == signal.SIGINT else b"")
    wait_for(lambda: not between.connections, what="the end of the connection")
    assert stored(large_service, path) == b"old"


def test_a_file_that_is_changed_while_it_is_sent_is_not_stored(
    user: User, local: Path, between: Network, large_service: Service, path: str
) -> None:
    between.pause = 0.005
    with user.running("put", "cat", path) as child:
        passed(between, KEPT)
        with local.open("r+b") as file:
            file.write(b"changed")
        between.pause = 0
        status, words = ended(child)
    assert (status, "was changed while it was being sent" in words) == (1, True)
    assert stored(large_service, path) is None
    assert user.notes() == []


def test_two_puts_of_one_file_at_once_are_both_right(
    user: User, local: Path, between: Network, large_service: Service, path: str
) -> None:
    between.pause = 0.001
    with user.running("put", "cat", path) as first, user.running("put", "cat", path) as second:
        assert ended(first) == (0, "")
        assert ended(second) == (0, "")
    assert stored(large_service, path) == DATA
    assert user.notes() == []


def test_without_a_place_for_notes_a_put_works(user: User, local: Path, large_service: Service, path: str) -> None:
    user.state.write_text("no folder")
    user.succeed("put", "cat", path)
    assert stored(large_service, path) == DATA


def test_a_file_over_the_limit_is_refused_before_it_is_sent(user: User, between: Network, path: str) -> None:
    with (user.directory / "cat").open("wb") as file:
        file.truncate(65 * 1024 * 1024)
    done = user.run("put", "cat", path)
    assert done.returncode == 1
    assert b"raise limits.max_file_size" in done.stderr
    done = user.run("put", "-", path, input=b"x" * 65 * 1024 * 1024)
    assert done.returncode == 1
    assert between.up < 80_000_000
    assert user.notes() == []


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["put", "none", "x"], 1, b"none: No such file"),
        (["put", ".", "x"], 1, b"-r"),
        (["put", "/dev/null", "x"], 1, b"not a regular file"),
        (["put", "/etc/hostname", "/x"], 1, b"the path begins with '/'"),
        (["put", "/etc/hostname", os.fsdecode(b"\xff")], 1, b"not valid UTF-8"),
        (["put", "x"], 2, b"what is missing"),
        (["put", "-", "x", "y"], 2, b"standard input"),
        (["rm", "none/such"], 3, b"there is no file"),
        (["rm", "-r", ""], 2, b"every file"),
        (["stat", "none/such"], 3, b"there is no file"),
    ],
)
def test_what_went_wrong_is_said_in_a_line_and_by_the_status(
    user: User, arguments: list[str], status: int, words: bytes
) -> None:
    done = user.run(*arguments)
    assert done.returncode == status
    assert words in done.stderr
    assert b": " in done.stderr
    assert done.stderr.startswith(b"sfss: ")


def test_ctrl_c_while_the_service_is_away_leaves_what_the_next_put_needs(
    user: User, local: Path, between: Network, large_service: Service, path: str
) -> None:
    between.pause = 0.01
    with user.running("put", "cat", path) as child:
        passed(between, KEPT)
        between.is_away = True
        between.cut()
        child.send_signal(signal.SIGINT)
        assert ended(child) == (130, "sfss: interrupted\n")
    assert len(user.notes()) == 1
    between.is_away, between.pause = False, 0
    user.succeed("put", "cat", path)
    assert stored(large_service, path) == DATA
    assert user.notes() == []


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_front_that_is_restarted_in_the_middle_is_gone_over(tmp_path: Path, how: str) -> None:
    with (
        Service(tmp_path, settings={"SFSS_LIMITS_MAX_FILE_SIZE": "64MiB"}) as service,
        network(service) as between,
    ):
        user = User(tmp_path, between.port)
        (user.directory / "cat").write_bytes(DATA)
        between.pause = 0.01
        with user.running("put", "cat", "a/cat") as child:
            passed(between, KEPT)
            assert service.process
            if how == "killed":
                service.process.kill()
                service.process.wait()
                wait_for(lambda: not any(map(answers, service.node_ports)), what="the nodes to end")
            else:
                service.process.terminate()
                between.cut()  # which it would wait for
                service.process.wait(60)
            service.start()
            between.pause = 0
            assert ended(child) == (0, "")
        assert stored(service, "a/cat") == DATA
        assert user.notes() == []


@pytest.fixture
async def without_uploads(our_nodes: Nodes) -> AsyncIterator[int]:
    """The port of a front that has no /uploads, as fronts had none once, in the test's own loop."""
    app = create_app(config.load(overrides={"storage": {"nodes": our_nodes}, "limits": {"max_file_size": "64MiB"}}))

    @web.middleware
    async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/uploads"):
            raise web.HTTPNotFound
        return await handler(request)

    app.middlewares.append(refuse)
    async with TestServer(app) as server:
        assert server.port
        yield server.port


async def test_a_service_without_uploads_gets_the_file_in_one_go(
    tmp_path: Path, without_uploads: int, path: str
) -> None:
    between = Network(without_uploads)
    user = User(tmp_path, between.port)
    (user.directory / "cat").write_bytes(DATA[:9_000_000])
    between.cut_after(7_000_000)
    await asyncio.to_thread(user.succeed, "put", "cat", path)
    await asyncio.to_thread(user.succeed, "get", path, "copy")
    assert (user.directory / "copy").read_bytes() == DATA[:9_000_000]
    assert user.notes() == []
    await asyncio.to_thread(between.close)


# --- notes ---


SOURCE = Source("http://127.0.0.1:1", "a/b", "/home/cat", 5, 7)


def test_a_note_is_remembered_for_one_state_of_one_file_and_others_cannot_read_it(tmp_path: Path) -> None:
    notes = tmp_path / "state" / "uploads"
    with note_of(SOURCE, notes) as note:
        assert (note.url, note.stale) == ("", "")
        note.remember("http://u/1")
    assert [stat.S_IMODE(place.stat().st_mode) for place in (notes, *notes.iterdir())] == [0o700, 0o600]
    with note_of(SOURCE, notes) as note:
        assert note.url == "http://u/1"
    for other in (SOURCE._replace(service="http://x"), SOURCE._replace(path="b"), SOURCE._replace(file="/home/dog")):
        with note_of(other, notes) as note:
            assert (note.url, note.stale) == ("", "")
    for changed in (SOURCE._replace(size=6), SOURCE._replace(modified=8)):
        with note_of(changed, notes) as note:
            assert (note.url, note.stale) == ("", "http://u/1")
            note.remember("http://u/1")
        with note_of(SOURCE, notes) as note:
            note.remember("http://u/1")
    with note_of(SOURCE, notes) as note:
        note.forget()
    assert list(notes.iterdir()) == []


def test_a_note_has_one_process_at_a_time(tmp_path: Path) -> None:
    with note_of(SOURCE, tmp_path) as first:
        first.remember("http://u/1")
        with note_of(SOURCE, tmp_path) as second:
            assert second.url == ""
            second.remember("http://u/2")
            second.forget()
    with note_of(SOURCE, tmp_path) as again:
        assert again.url == "http://u/1"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"url": 5}', b"\xff"])
def test_a_note_that_a_kill_cut_short_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{SOURCE.note}.json").write_bytes(content)
    with note_of(SOURCE, tmp_path) as note:
        assert (note.url, note.stale) == ("", "")


def test_notes_that_nobody_came_back_for_go(tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    for place in (old, new):
        place.write_text("{}")
    os.utime(old, (1, 1))
    with note_of(SOURCE, tmp_path):
        assert not old.exists()
        assert new.exists()


def is_there(upload: str) -> bool:
    """Whether the service has the upload."""
    request = urllib.request.Request(upload, method="HEAD", headers={"Tus-Resumable": "1.0.0"})
    try:
        urllib.request.urlopen(request, timeout=30).close()
        return True
    except urllib.error.HTTPError as error:
        assert error.code in (404, 410)
        return False
