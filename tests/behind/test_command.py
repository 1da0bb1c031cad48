"""``sfss worker`` as operators run it; and what the catalogue says of what waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis import Redis as Client
from yarl import URL

from sfss import cli
from sfss.addresses import parse_address
from tests.behind.support import Bench, file_at, listed, put, read, until
from tests.catalogue.support import ask, is_in_order
from tests.servers import sfss_node


class Done(NamedTuple):
    """What a command ended with."""

    status: int | None
    out: str
    err: str


class Shell:
    """Runs ``sfss worker`` by the settings of a bench."""

    def __init__(self, bench: Bench, directory: Path) -> None:
        self._file = directory / "sfss.toml"
        self._bench = bench

    def write(self, **sections: Any) -> None:
        """The configuration."""
        bench = self._bench
        write_behind = {"claim_after": 1.0, **bench.sections.get("write_behind", {})}
        every = {"storage": {"nodes": bench.nodes}, "write_behind": write_behind, **sections}
        lines = []
        for section, keys in every.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        lines += ["[[policy]]", f"prefix = {json.dumps(bench.prefix)}", f"write_behind = {json.dumps(bench.url)}"]
        self._file.write_text("\n".join(lines))

    @property
    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith("SFSS_")}

    def command(self, *arguments: str) -> list[str]:
        """A command line."""
        return [sys.executable, "-m", "sfss", *arguments, "--config", str(self._file)]

    async def run(self, *arguments: str) -> Done:
        """Run it to its end."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment
        )
        out, err = await process.communicate()
        return Done(process.returncode, out.decode(), err.decode())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """A worker that runs."""
        process = await asyncio.create_subprocess_exec(
            *self.command("worker"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@pytest.fixture
def shell(bench: Bench, tmp_path: Path) -> Shell:
    shell = Shell(bench, tmp_path)
    shell.write()
    return shell


async def test_a_worker_that_is_sent_sighup_goes_by_the_nodes_that_there_are_then(
    bench: Bench, shell: Shell, tmp_path: Path
) -> None:
    front = await bench.front()
    with sfss_node(tmp_path / "node") as (port, _):
        async with shell.running() as worker:
            path = bench.path()
            await put(front, path, b"before")
            await until(lambda: _moved(bench))
            assert await bench.on_nodes(path) is not None
            bench.nodes = [f"127.0.0.1:{port}"]
            shell.write(storage={"nodes": ["nowhere at all"]})  # which changes nothing
            await _told(worker, b"is not taken")
            shell.write(log={"format": "text"})
            await _told(worker, b"read again: 1 nodes")
            path = bench.path()
            await put(front, path, b"behind")
            await until(lambda: _moved(bench))
            assert await bench.on_nodes(path) is not None


async def _told(worker: asyncio.subprocess.Process, word: bytes) -> None:
    """Have it read its configuration again, until it says that."""
    assert worker.stderr is not None
    worker.send_signal(signal.SIGHUP)
    async with asyncio.timeout(20):
        while word not in await worker.stderr.readline():
            pass


async def test_a_worker_moves_what_waits_until_it_is_told_to_stop(bench: Bench, shell: Shell) -> None:
    front = await bench.front()
    paths = [bench.path() for _ in range(20)]
    for path in paths:
        await put(front, path, path.encode())
    async with shell.running() as worker:
        await until(lambda: _moved(bench))
        status = await shell.run("worker", "status", "--json")
        assert status.status == 0, status.err
        told = json.loads(status.out)
        assert (told["files"], told["tasks"], told["dead"], len(told["workers"])) == (0, 0, 0, 1)
        worker.send_signal(signal.SIGTERM)
        out, err = await worker.communicate()
        assert (worker.returncode, b"error" in err.lower()) == (0, False), err
        assert str(parse_address(bench.url)).encode() in out
    for path in paths:
        assert await read(front, path) == path.encode()
    assert (await bench.figures()).workers == {}
    status = await shell.run("worker", "status")
    assert "files that wait" in status.out


async def _moved(bench: Bench) -> bool:
    return (await bench.figures()).files == 0


async def test_dead_letters_are_seen_and_tried_again(bench: Bench, shell: Shell) -> None:
    front = await bench.front()
    paths = [bench.path(name) for name in "abc"]
    for path in paths:
        await put(front, path, b"hello")
    with Client.from_url(bench.url) as client:
        for path in paths:
            client.hset(f"{{sfss}}:file:{path}", "p", b"hellO")
        assert await bench.drain() == 0
        dead = await shell.run("worker", "dead", "--json")
        letters = [json.loads(line) for line in dead.out.splitlines()]
        assert sorted(letter["path"] for letter in letters) == paths
        assert all("damaged" in letter["why"] for letter in letters)
        for path in paths:
            client.hset(f"{{sfss}}:file:{path}", "p", b"hello")
    first = next(letter["id"] for letter in letters if letter["path"] == paths[0])
    again = await shell.run("worker", "requeue", first, "1-1")
    assert (again.status, "1 dead" in again.out, "no dead letter 1-1" in again.err) == (1, True, True), again
    once = await shell.run("worker", "--once")
    assert (once.status, "1 files moved" in once.out) == (0, True), once
    assert (await shell.run("worker", "requeue", "--all")).status == 0
    assert await bench.drain() == 0
    assert (await bench.figures()).files == 0
    for path in paths:
        assert await read(front, path) == b"hello"


@pytest.mark.parametrize("arguments", [[], ["1-1", "--all"]])
def test_which_dead_letters_are_to_be_tried_again_has_to_be_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str]
) -> None:
    file = tmp_path / "sfss.toml"
    file.write_text('[[policy]]\nprefix = ""\nwrite_behind = "redis://127.0.0.1:1"')
    assert cli.main(["worker", "requeue", *arguments, "--config", str(file)]) == 2
    assert "--all" in capsys.readouterr().err


def test_where_nothing_is_written_behind_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["worker"]) == 2
    assert "no policy has it" in capsys.readouterr().err


async def test_a_store_that_is_away_is_said_to_be(bench: Bench, shell: Shell) -> None:
    bench.url = "redis://:verysecret@127.0.0.1:1/0"
    shell.write()
    for arguments in (("--once",), ("status",)):
        done = await shell.run("worker", *arguments)
        assert done.status == 1
        assert "127.0.0.1:1" in done.err
        assert "verysecret" not in done.err + done.out


async def test_a_file_s_row_comes_when_it_is_on_the_nodes_and_lists_and_searches_know_better(
    bench: Bench, shell: Shell, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'catalogue.db'}"
    front = await bench.front(catalogue={"url": url})
    await until(lambda: is_in_order(front))
    shell.write(catalogue={"url": url})
    path, gone = bench.path("a"), bench.path("b")

    async def rows() -> list[tuple[object, ...]]:
        where = f"path LIKE '{bench.prefix}%' AND state = 'stored'"
        found = await ask(url, f"SELECT path, size FROM files WHERE {where} ORDER BY path")
        return [tuple(row.values()) for row in found]

    async def search() -> tuple[list[str], bool]:
        async with front.get(URL("/files").with_query(search=bench.prefix, prefix=bench.prefix)) as answer:
            page = await answer.json()
            assert answer.status == 200, page
            return [file["path"] for file in page["files"]], page["complete"]

    await put(front, path, b"hello")
    await put(front, gone, b"x")
    assert await rows() == []
    assert await listed(front, prefix=bench.prefix) == [path, gone]
    assert (await shell.run("worker", "--once")).status == 0
    await until(lambda: is_in_order(front))
    assert await rows() == [(path, 5), (gone, 1)]
    assert await search() == ([path, gone], True)
    assert (await front.delete(file_at(gone))).status == 204
    await put(front, path, b"hello again")
    assert await rows() == [(path, 5), (gone, 1)]
    assert await search() == ([path, gone], False)
    assert await listed(front, prefix=bench.prefix) == [path]
    done = await shell.run("reindex", "--check")
    assert bench.prefix not in done.out, done  # other tests' files have no rows here
    assert (await shell.run("worker", "--once")).status == 0
    assert await rows() == [(path, 11)]
    assert await listed(front, prefix=bench.prefix) == [path]
