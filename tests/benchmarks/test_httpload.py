"""The load of the benchmarks counts right, and notices what is wrong: on a real front, and on servers that lie."""

from __future__ import annotations

import asyncio
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

import benchmarks
from benchmarks.compiler import build
from benchmarks.httpload import Files, Httpload, Measured, Target, name_of
from tests.servers import HOST, Service

SIZE = 4096
Answer = Callable[[int], Awaitable[bytes]]  # to the request of that number; empty: it hangs up
Serve = Callable[[Answer], Awaitable[Target]]


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Httpload:
    return Httpload(tmp_path_factory.mktemp("httpload"), largest=SIZE)


@pytest.fixture
def target(service: Service) -> Target:
    return Target(service.port, "/file?path=httpload/")


def filled(load: Httpload, target: Target, files: Files) -> Measured:
    done = load.run(target, files, "--puts", 100, "--count", files.number, "--connections", 8)
    assert done.trouble is None
    return done


def request(service: Service, method: str, files: Files, number: int, body: bytes | None = None) -> bytes:
    url = f"{service.url}/file?path=httpload/{name_of(files, number)}"
    with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=10) as answer:
        found: bytes = answer.read()
    return found


# --- on a real front ---


def test_every_answer_is_counted_and_every_file_is_the_one_that_was_put(
    load: Httpload, service: Service, target: Target
) -> None:
    files = Files("counted", 50, SIZE)
    assert filled(load, target, files).requests == 50
    assert all(request(service, "GET", files, n) == load.body(n, SIZE) for n in (0, 7, 49))
    done = load.run(target, files, "--count", 120, "--connections", 8)
    assert (done.requests, done.bytes, done.trouble) == (120, 120 * SIZE, None)
    assert 0 < done.p50 <= done.p99 <= done.p999 <= done.max


@pytest.mark.parametrize(
    ("what", "counts_as"),
    [("other bytes", (0, 1, 0)), ("another file", (0, 1, 0)), ("fewer bytes", (0, 1, 0)), ("nothing", (1, 0, 0))],
)
def test_one_file_among_many_that_isn_t_right_is_noticed(
    load: Httpload, service: Service, target: Target, what: str, counts_as: tuple[int, ...]
) -> None:
    files = Files(f"wrong-{what.replace(' ', '-')}", 20, SIZE)
    filled(load, target, files)
    right = load.body(3, SIZE)
    if what == "nothing":
        request(service, "DELETE", files, 3)
    else:
        bodies = {"other bytes": right[:-1] + bytes([right[-1] ^ 1]), "another file": load.body(4, SIZE)}
        request(service, "PUT", files, 3, bodies.get(what, right[:-1]))
    done = load.run(target, files, "--count", 20, "--connections", 4)
    assert (done.status, done.wrong, done.broken) == counts_as
    assert done.trouble
    assert name_of(files, 3) in done.trouble


def test_the_right_answer_to_its_etag_is_304_and_to_no_file_404(load: Httpload, target: Target, tmp_path: Path) -> None:
    files, absent, etags = Files("conditional", 10, SIZE), Files("absent", 10, SIZE), tmp_path / "etags"
    filled(load, target, files)
    assert load.run(target, files, "--count", 10, "--learn", etags).trouble is None
    assert load.run(target, files, "--count", 30, "--etags", etags).trouble is None
    assert load.run(target, absent, "--count", 30, "--miss").trouble is None
    assert load.run(target, files, "--count", 10, "--miss").status == 10
    etags.write_text('"another"\n' * 10)
    assert load.run(target, files, "--count", 10, "--etags", etags).status == 10


def test_new_files_have_a_path_each_and_mixed_ones_are_still_right(load: Httpload, target: Target) -> None:
    new = Files("fresh", 1, SIZE)
    done = load.run(target, new, "--puts", 100, "--fresh", "--connections", 8, "--count", 40, seconds=20)
    assert done.requests == 40
    assert load.run(target, new._replace(number=40), "--count", 40, "--connections", 8).trouble is None
    assert load.run(target, new._replace(number=40), "--puts", 50, "--count", 100, "--connections", 8).trouble is None


def test_at_a_rate_requests_come_when_they_are_due(load: Httpload, target: Target) -> None:
    files = Files("rate", 10, SIZE)
    filled(load, target, files)
    done = load.run(target, files, "--rate", 100, "--connections", 8, seconds=0.5)
    assert (done.requests, done.trouble) == (50, None)
    assert done.seconds > 0.48


# --- on servers that lie, and that pause ---


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[asyncio.Server] = []

    async def start(answer: Answer) -> Target:
        count = iter(range(10**9))

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while await reader.readuntil(b"\r\n\r\n"):
                    if not (said := await answer(next(count))):
                        break
                    writer.write(said)
                    if b"Connection: close" in said:
                        break
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            writer.close()

        servers.append(await asyncio.start_server(connected, HOST, 0))
        return Target(servers[-1].sockets[0].getsockname()[1], "/")

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno, and more",
    ],
)
async def test_an_answer_that_can_t_be_read_is_no_answer(load: Httpload, serve: Serve, said: bytes) -> None:
    async def answer(_number: int) -> bytes:
        return said

    target = await serve(answer)
    done = await asyncio.to_thread(load.run, target, Files("any", 4, SIZE), "--count", 4, "--connections", 2)
    assert (done.requests, done.broken) == (0, 2)  # one of each connection
    assert done.trouble


def test_a_file_that_wasn_t_written_over_is_noticed(load: Httpload, target: Target) -> None:
    files = Files("over", 10, SIZE)
    filled(load, target, files)
    assert load.run(target, files, "--count", 10, "--edition", 1).wrong == 10
    assert load.run(target, files, "--puts", 100, "--count", 9, "--edition", 1).trouble is None
    assert load.run(target, files, "--count", 10, "--edition", 1).wrong == 1


async def test_a_connection_that_the_server_says_it_closes_is_followed_by_another(load: Httpload, serve: Serve) -> None:
    async def answer(number: int) -> bytes:
        ending = b"Connection: close\r\n" if number % 5 == 4 else b""
        return b"HTTP/1.1 404 No\r\n%bContent-Length: 0\r\n\r\n" % ending

    target, files = await serve(answer), Files("closing", 10, SIZE)
    done = await asyncio.to_thread(load.run, target, files, "--miss", "--count", 23, "--connections", 2)
    assert (done.requests, done.trouble) == (23, None)


async def test_a_pause_is_told_as_all_that_were_due_meanwhile_saw_it(load: Httpload, serve: Serve) -> None:
    files = Files("paused", 10, SIZE)

    async def answer(number: int) -> bytes:
        if number == 0:
            await asyncio.sleep(0.7)
        return b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"

    options = ("--miss", "--connections", 1)
    closed = await asyncio.to_thread(load.run, await serve(answer), files, *options, seconds=1.0)
    due = await asyncio.to_thread(load.run, await serve(answer), files, *options, "--rate", 200, seconds=1.0)
    assert (closed.trouble, due.trouble, due.requests) == (None, None, 200)
    assert closed.p50 < 50_000 < due.p50  # those due in the middle of the second have waited for 0.2 s
    assert due.max >= 700_000


def test_what_doesn_t_answer_at_all_is_a_trouble(load: Httpload) -> None:
    done = load.run(Target(1, "/"), Files("any", 1, SIZE), "--count", 1)
    assert done.trouble
    assert "can't connect" in done.trouble


# --- arithmetic ---


def test_percentiles_are_right_to_a_bucket(tmp_path: Path) -> None:
    source = tmp_path / "percentiles.c"
    header = Path(benchmarks.__file__).with_name("load.h")
    source.write_text(
        f'#define _GNU_SOURCE\n#include <errno.h>\n#include "{header}"\n'
        "int main(void) { for (int n = 1; n <= 10000; n++) record(n * 1000); "
        'printf("%f %f %f %f", percentile(.5), percentile(.99), percentile(.999), percentile(1)); }\n'
    )
    said = subprocess.run([build(source, tmp_path)], capture_output=True, check=True, timeout=10).stdout
    for shown, right in zip(map(float, said.split()), (5_000, 9_900, 9_990, 10_000), strict=True):
        assert right <= shown <= right * 1.016


def test_the_time_that_a_run_may_take_is_bounded(load: Httpload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.httpload.PATIENCE", 0.0)
    begun = time.monotonic()
    assert load.run(Target(1, "/"), Files("any", 1, SIZE), "--count", 1).requests == 0
    assert time.monotonic() - begun < 10
