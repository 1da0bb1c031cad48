"""The access log: a line for each request, and nothing else; no secret, no forged line, and nobody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from sfss.config import parse_network
from sfss.web import access_log, heads, log_writer
from sfss.web.access_lines import Request
from sfss.web.access_log import AccessLog
from sfss.web.tally import Tally
from tests.conftest import Client, Nodes, StartFront
from tests.servers import Service, wait_for
from tests.web.raw import Raw, request

ROOT = Path(__file__).parent.parent.parent
ID = re.compile(r"[0-9a-f]{12}-[0-9a-f]{8}")


class Log:
    """Its file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    async def lines(self, count: int) -> list[dict[str, Any]]:
        """All of them, when there are so many."""
        deadline = time.monotonic() + 10
        while True:
            text = self.file.read_text() if self.file.exists() else ""
            if text.count("\n") >= count:
                assert text.count("\n") == count, text
                return [json.loads(line) for line in text.splitlines()]
            assert time.monotonic() < deadline, text
            await asyncio.sleep(0.05)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "access.log")


Front = Any


@pytest.fixture
async def logged(start_front: StartFront, our_nodes: Nodes, log: Log) -> Client:
    return await start_front(our_nodes, log={"access": str(log.file)})


async def test_each_request_has_a_line_on_both_ways(logged: Client, log: Log) -> None:
    await logged.put("/file?path=log/a", data=b"12345")
    await logged.get("/file?path=log/a", headers={"Authorization": "Bearer nonsense"})
    await logged.get("/file?path=log/none")
    await logged.head("/file?path=log/a")
    await logged.post("/file?path=log/b", data={"upload_file": io.BytesIO(b"form")})
    lines = await log.lines(5)
    assert [(line["method"], line["status"], line["bytes"]) for line in lines[:2]] == [("PUT", 200, 0), ("GET", 200, 5)]
    assert [(line["method"], line["status"]) for line in lines[2:]] == [("GET", 404), ("HEAD", 200), ("POST", 201)]
    assert lines[0]["received"] == 5
    assert lines[4]["received"] > 4
    assert lines[3]["bytes"] == 0
    for line in lines:
        assert line["logger"] == "sfss.access"
        assert line["client"] == "127.0.0.1"
        assert line["url"].startswith("/file?path=log/")
        assert 0 < line["seconds"] < 60
        assert ID.fullmatch(line["request_id"])
        assert abs(time.time() - datetime.fromisoformat(line["time"]).timestamp()) < 60
    assert len({line["request_id"] for line in lines}) == 5


@pytest.mark.parametrize("for_aiohttp", [False, True])
@pytest.mark.parametrize("field", ["X-Request-ID", "x-request-id"])
async def test_a_request_s_id_comes_back_and_is_in_the_problem_and_the_log(
    logged: Client, log: Log, for_aiohttp: bool, field: str
) -> None:
    raw = await Raw.to(logged)
    more = ("Trailer: X",) if for_aiohttp else ()  # aiohttp's then
    answer = await raw.ask(request("GET", "/file?path=log/none", f"{field}: abc.DEF-1_2/3=", *more))
    raw.close()
    assert answer.headers["x-request-id"] == "abc.DEF-1_2/3="
    assert json.loads(answer.body)["request_id"] == "abc.DEF-1_2/3="
    assert [line["request_id"] for line in await log.lines(1)] == ["abc.DEF-1_2/3="]


@pytest.mark.parametrize("for_aiohttp", [False, True])
@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é", 'a"b', "a;b", "<x>", "a\tb", "a\\n"])
async def test_an_id_that_could_forge_anything_is_as_good_as_none(
    logged: Client, given: str, for_aiohttp: bool
) -> None:
    raw = await Raw.to(logged)
    more = ("Trailer: X",) if for_aiohttp else ()
    answer = await raw.ask(request("GET", "/file?path=log/none", f"X-Request-ID: {given}", *more))
    raw.close()
    assert ID.fullmatch(answer.headers["x-request-id"])


@pytest.mark.parametrize("value", ["a\nTransfer-Encoding: chunked", "a\rb", "a\x00b", "a\x7fb"])
async def test_what_is_no_field_is_not_overlooked_for_its_name(logged: Client, value: str) -> None:
    raw = await Raw.to(logged)
    answer = await raw.ask(request("PUT", "/file?path=log/smuggled", f"X-Request-ID: {value}", body=b"x"))
    raw.close()
    assert answer.status == 400  # aiohttp's


async def test_requests_with_other_ids_share_what_was_read_of_their_heads(logged: Client) -> None:
    raw = await Raw.to(logged)
    before = heads._fields.cache_info().misses
    for number in range(10):
        await raw.ask(request("GET", "/file?path=log/none", f"X-Request-ID: {number}", "X-Other: shared"))
    raw.close()
    assert heads._fields.cache_info().misses - before == 1


async def test_no_secret_is_in_it(logged: Client, log: Log) -> None:
    secret = "sfss_abcdefgh_" + "a" * 32
    signature = "A" * 43
    urls = [
        f"/file?path=a&signature={signature}&expires=1",
        f"/file?path=a&%73ignature={signature}",
        f"/file?path={secret}",
        f"/livez?{secret}",
        f"/uploads/{secret}",
    ]
    raw = await Raw.to(logged)
    for url in urls:
        await raw.ask(request("GET", url, f"Authorization: Bearer {secret}"))
    raw.close()
    lines = await log.lines(len(urls))
    text = log.file.read_text()
    assert "a" * 32 not in text
    assert signature not in text
    assert {line["key"] for line in lines} == {"abcdefgh"}


async def test_no_line_can_be_forged_by_what_is_asked_for(logged: Client, log: Log) -> None:
    urls = ['/file?path="}', "/x%0a%0d%e2%80%a8y", "/é\u2028\u202e", "/" + "y" * 5000, "/a?b=\\u000a"]
    for url in (*urls, "/end"):
        raw = await Raw.to(logged)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):  # of what aiohttp takes for no HTTP
            await raw.ask(request("GET", url))
        raw.close()
    while not log.file.exists() or "/end" not in log.file.read_text():
        await asyncio.sleep(0.05)
    text = log.file.read_text()
    assert text.isascii()
    lines = [json.loads(line) for line in text.splitlines()]
    assert 4 <= len(lines) <= len(urls) + 1
    assert all(line["url"].isprintable() and len(line["url"]) < 2100 for line in lines)
    assert any(line["url"].endswith("yyy...") for line in lines)


async def test_behind_a_proxy_the_client_is_who_the_proxy_says(
    start_front: StartFront, our_nodes: Nodes, log: Log
) -> None:
    server = {"trusted_proxies": ["127.0.0.1"]}
    front = await start_front(our_nodes, log={"access": str(log.file)}, server=server)
    for forwarded in ("192.0.2.7", "6.6.6.6, 192.0.2.8", "nonsense\u2028"):
        await front.get("/file?path=none", headers={"X-Forwarded-For": forwarded})
        await front.get("/livez", headers={"X-Forwarded-For": forwarded})
    addresses = [line["client"] for line in await log.lines(6)]
    assert addresses == ["192.0.2.7"] * 2 + ["192.0.2.8"] * 2 + ["127.0.0.1"] * 2


async def test_a_client_who_goes_away_has_a_line_that_says_so(logged: Client, log: Log) -> None:
    raw = await Raw.to(logged)
    raw.writer.write(b"PUT /file?path=log/gone HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc")
    await raw.writer.drain()
    await asyncio.sleep(0.4)
    raw.close()
    (line,) = await log.lines(1)
    assert (line["method"], line["url"], line["bytes"]) == ("PUT", "/file?path=log/gone", line["bytes"])
    assert line["status"] in (400, 499)
    assert line["client"] == "127.0.0.1"


@pytest.mark.parametrize("how", ["renamed", "removed", "cut off"])
async def test_the_file_can_be_rotated_at_any_time(logged: Client, log: Log, how: str) -> None:
    await logged.get("/livez")
    await log.lines(1)
    if how == "renamed":
        log.file.rename(log.file.with_suffix(".1"))
    elif how == "removed":
        log.file.unlink()
    else:
        os.truncate(log.file, 0)
    await logged.get("/readyz")
    assert [line["url"] for line in await log.lines(1)] == ["/readyz"]


async def test_a_folder_that_is_away_costs_lines_and_no_answers(
    start_front: StartFront, our_nodes: Nodes, tmp_path: Path
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = Log(folder / "access.log")
    front = await start_front(our_nodes, log={"access": str(log.file)})
    log.file.unlink()
    folder.rename(tmp_path / "away")
    assert (await front.get("/livez")).status == 200
    await asyncio.sleep(2 * access_log.PAUSE)
    (tmp_path / "away").rename(folder)
    await front.get("/readyz")
    assert [line["url"] for line in await log.lines(1)] == ["/readyz"]
    metrics = await (await front.get("/metrics?nodes=false")).text()
    assert 'sfss_access_log_lost_lines_total{reason="failed"} 1.0' in metrics


def test_a_file_that_can_not_be_opened_is_named(tmp_path: Path) -> None:
    for settings in ({"SFSS_LOG_ACCESS": str(tmp_path)}, {"SFSS_LOG_ACCESS": "/proc/none", "SFSS_SERVER_WORKERS": "2"}):
        command = [sys.executable, "-m", "sfss", "--port", "0"]
        environment = {"PATH": "/usr/bin", "SFSS_STORAGE_NODES": "127.0.0.1:1", **settings}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=ROOT)
        assert done.returncode == 2, done.stderr
        assert f"log.access: {settings['SFSS_LOG_ACCESS']} can't be opened for writing" in done.stderr


def a_log(file: str, tally: Tally, **more: Any) -> AccessLog:
    return AccessLog(file, as_json=True, tally=tally, **more)


def note(log: AccessLog, url: str = "/x", peer: str = "192.0.2.1") -> None:
    log.write([(time.perf_counter_ns(), 20_000, 200, 0, peer, b"id", Request("GET", url, CIMultiDict(), 0))])


async def test_a_reader_that_stands_still_stalls_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a pipe that is full: lines are dropped and counted, the rest are whole, and the end comes all the same."""
    monkeypatch.setattr(access_log, "BACKLOG", 200_000)
    monkeypatch.setattr(access_log, "TOGETHER", 20_000)
    monkeypatch.setattr(log_writer, "_LAST_WORDS", 0.3)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        tally = Tally.alone()
        log = a_log(str(fifo), tally)
        log.start()
        slowest = 0.0
        for _ in range(10_000):
            began = time.perf_counter()
            note(log)
            slowest = max(slowest, time.perf_counter() - began)
            if not _ % 100:
                await asyncio.sleep(0)
        assert slowest < 1.0
        assert tally.total("dropped_lines") > 1000
        began = time.monotonic()
        await log.close()
        assert time.monotonic() - began < 5
        got = os.read(reader, 1 << 20)
        lines = got.splitlines(keepends=True)
        assert all(json.loads(line)["url"] == "/x" for line in lines if line.endswith(b"\n"))
        assert len(lines) > 100
    finally:
        fcntl.fcntl(reader, fcntl.F_SETFL, 0)
        os.close(reader)


async def test_its_writer_is_woken_a_few_times_a_second_however_much_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, given = a_log(str(tmp_path / "log"), Tally.alone()), []
    monkeypatch.setattr(log._writer, "write", lambda data, lines: given.append(lines))
    for _ in range(1000):
        note(log)
    assert given == []
    await asyncio.sleep(2 * access_log.PAUSE)
    assert given == [1000]
    for _ in range(access_log.TOGETHER // 100):  # bytes of a line, at least
        note(log)
    assert given[1:] != []
    await log.close()


async def test_a_clock_that_is_set_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "log"
    log = a_log(str(file), Tally.alone())
    log.start()
    note(log)
    await asyncio.sleep(2 * access_log.PAUSE)
    hour = 3600 * 10**9
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + hour)
    note(log)
    await log.close()
    first, second = (datetime.fromisoformat(json.loads(line)["time"]) for line in file.read_text().splitlines())
    assert 3600 <= (second - first).total_seconds() < 3700


async def test_what_is_left_is_written_at_the_end(tmp_path: Path) -> None:
    file, tally = tmp_path / "log", Tally.alone()
    log = a_log(str(file), tally)
    log.start()
    for _ in range(1000):
        note(log)
    await log.close()
    assert file.read_text().count("\n") == 1000


async def test_as_text_it_is_a_line_too(tmp_path: Path) -> None:
    file = tmp_path / "log"
    log = AccessLog(str(file), as_json=False, tally=Tally.alone(), trusted=[parse_network("10.0.0.0/8")])
    log.start()
    note(log, "/a\n\u2028b", peer="10.0.0.1")
    await log.close()
    shape = r"\d{4}-\d\d-\d\dT[\d:.]{12}Z INFO sfss\.access: 10\.0\.0\.1 GET /a\\n\\u2028b 200 0 bytes 2e-05 s id id\n"
    assert re.fullmatch(shape, file.read_text())


def test_all_workers_write_whole_lines_to_one_file(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with Service(tmp_path, "--workers", "2", settings={"SFSS_LOG_ACCESS": str(log)}) as service:
        for number in range(60):
            with urllib.request.urlopen(f"{service.url}/livez?{number}", timeout=30) as answer:
                answer.read()
        wait_for(lambda: log.read_text().count("/livez?") == 60)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    asked = [line["url"] for line in lines if line["url"].startswith("/livez?")]
    assert sorted(asked) == sorted(f"/livez?{number}" for number in range(60))
    assert len({line["request_id"].partition("-")[0] for line in lines}) == 2


def test_true_is_the_log_itself(tmp_path: Path) -> None:
    with Service(tmp_path, settings={"SFSS_LOG_ACCESS": "true"}) as service:
        with urllib.request.urlopen(f"{service.url}/livez?here", timeout=30) as answer:
            answer.read()
        wait_for(lambda: "/livez?here" in service.log.read_text())
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    assert {"sfss.access", "sfss.node", "sfss.backends"} <= {line["logger"] for line in lines}
