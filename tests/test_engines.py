"""The whole service over engines as nodes, named by their URLs, as its users run it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from sfss.addresses import parse_address
from sfss.backends.base import Backend
from sfss.backends.memcached import MemcachedNode
from sfss.backends.redis import RedisNode
from sfss.cluster.repair import Repair
from sfss.cluster.replication import Cluster
from sfss.cluster.topology import Topology
from tests.cluster.support import MIB, QUICK, SAFE, connected, found, version
from tests.redis import DURABLE, Redis, redis
from tests.servers import HOST, PATIENT, Service, memcached, sfss_node, wait_for
from tests.test_cli import run

PASSWORD = "very-secret"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Redis]]:
    """Three that forget nothing, and want a password."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(redis(tmp_path / f"redis-{n}", *DURABLE, "--requirepass", PASSWORD)) for n in range(3)
        ]


@pytest.fixture
def service(tmp_path: Path, servers: list[Redis]) -> Iterator[Service]:
    nodes = [f"files-{n}=redis://:{PASSWORD}@{HOST}:{server.port}/1" for n, server in enumerate(servers)]
    settings = {
        "SFSS_STORAGE_NODES": ",".join(nodes),
        "SFSS_STORAGE_COPIES": "2",
        "SFSS_STORAGE_RETRY_AFTER": "0.2",
        "SFSS_SERVER_WORKERS": "2",
    }
    with Service(tmp_path, settings=settings) as running:
        yield running


def ask(service: Service, target: str, data: bytes | None = None, method: str = "GET") -> tuple[int, bytes]:
    request = urllib.request.Request(f"{service.url}{target}", data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def answer(service: Service, target: str) -> Any:
    status, body = ask(service, target)
    assert status == 200, body
    return json.loads(body)


def test_files_small_and_large_come_back_are_listed_and_survive_a_restart_of_everything(
    service: Service, servers: list[Redis]
) -> None:
    large = os.urandom(2 * MIB - 1)
    for number in range(30):
        assert ask(service, f"/file?path=dir/{number:02}", b"small %d" % number, "PUT")[0] == 200
    assert ask(service, "/file?path=large", large, "PUT")[0] == 200
    assert ask(service, "/file?path=dir/07", method="DELETE")[0] == 204
    names = [f"dir/{number:02}" for number in range(30) if number != 7]
    assert [file["path"] for file in answer(service, "/files?prefix=dir/")["files"]] == names

    assert service.stop() == 0
    for server in servers:
        server.kill()
        server.start()
    service.start()
    wait_for(service.all_nodes_are_here)
    assert ask(service, "/file?path=large") == (200, large)
    assert ask(service, "/file?path=dir/07")[0] == 404
    for number in range(30):
        if number != 7:
            assert ask(service, f"/file?path=dir/{number:02}") == (200, b"small %d" % number)
    assert [file["path"] for file in answer(service, "/files?prefix=dir/")["files"]] == names

    servers[0].kill()
    for name in names:
        assert ask(service, f"/file?path={name}")[0] == 200, "there is another copy"


def test_status_tells_of_each_node_and_nobody_tells_passwords(service: Service, servers: list[Redis]) -> None:
    names = {f"{HOST}:{server.port}/1" for server in servers}
    assert ask(service, "/file?path=a", b"content", "PUT")[0] == 200
    status = answer(service, "/status")
    assert status.keys() == names
    assert sum(int(stats["curr_items"]) for stats in status.values()) >= 2
    full = answer(service, "/status?format=full")
    assert all(node["kind"] == "redis" and node["durable"] for node in full["webserver"]["nodes"].values())
    assert full["webserver"]["warnings"] == []
    shown = run("status", "--port", str(service.port), "--json")
    assert shown.returncode == 0, shown.stderr
    assert names <= json.loads(shown.stdout)["storages"].keys()
    pages = json.dumps(full) + shown.stdout + run("status", "--port", str(service.port)).stdout
    assert PASSWORD not in pages
    log = service.log.read_text()
    assert f"redis://:***@{HOST}:{servers[0].port}/1" in log, "where it says where it keeps its files"
    assert PASSWORD not in log
    command_lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in command_lines.splitlines() if PASSWORD in line and "redis-server" not in line]


def test_what_a_node_does_not_promise_is_warned_of(tmp_path: Path) -> None:
    with (
        redis(tmp_path / "redis", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as server,
        Service(tmp_path, settings={"SFSS_STORAGE_NODES": server.url}) as service,
    ):
        warnings = answer(service, "/status?format=full")["webserver"]["warnings"]
        throws, forgets = sorted(warnings, reverse=True)
        assert throws.startswith(f"node {HOST}:{server.port} throws files away when it is full (maxmemory-policy")
        assert forgets.startswith(f"node {HOST}:{server.port} keeps files in memory only")
        lines = [line for line in service.log.read_text().splitlines() if line.startswith("{")]
        assert set(warnings) <= {json.loads(line)["message"] for line in lines}


def test_config_check_shows_nodes_without_their_passwords_and_says_what_is_wrong_with_their_urls() -> None:
    checked = run("config", "check", SFSS_STORAGE_NODES=f"a=redis://files:{PASSWORD}@h/2,rediss://:{PASSWORD}@g")
    assert checked.returncode == 0, checked.stderr
    assert 'nodes = ["a=redis://files:***@h/2", "rediss://:***@g"]' in checked.stdout
    assert "files go to h:6379/2, g:6379" in checked.stdout
    assert PASSWORD not in checked.stdout + checked.stderr
    for url in (f"redis://:{PASSWORD}@h/x", f"rediss://:{PASSWORD}@h?ssl_ca_certs=/not/there"):
        for arguments in (("config", "check"), ("--port", "0")):
            failed = run(*arguments, SFSS_STORAGE_NODES=url)
            assert failed.returncode == 2
            assert failed.stderr.startswith("sfss: storage.nodes: redis")
            assert PASSWORD not in failed.stderr


@pytest.mark.parametrize(("package", "url"), [("redis", "redis://h"), ("hiredis", "rediss://h")])
def test_a_package_that_is_not_installed_is_named_before_anything_starts(package: str, url: str) -> None:
    for arguments in (["config", "check"], [], ["--workers", "2"], ["repair"]):
        code = f"import sys; sys.modules[{package!r}] = None; from sfss.cli import main; sys.exit(main({arguments}))"
        environment = {**os.environ, "SFSS_STORAGE_NODES": url, "SFSS_SERVER_PORT": "0"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2, done.stderr
        assert done.stderr == (
            f"sfss: storage.nodes: {url.partition(':')[0]}:// needs the package {package}, which is not installed:"
            " pip install 'sfss[redis]'\n"
        )


def test_who_has_no_such_nodes_needs_no_such_packages() -> None:
    code = (
        "import sys, sfss.web.app, sfss.service, sfss.assembly; from sfss import config;"
        "sfss.assembly.check_clients(config.load()); "
        "print(*(m for m in sys.modules if m.startswith(('redis', 'hiredis', 'asyncpg', 'sfss.backends.resp'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""


# --- kinds mixed ---


@pytest.fixture(params=[SAFE, QUICK], ids=["3 copies, 2 and 2", "2 copies, 1 and 1"])
async def mixed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A front over one node of each kind that is there to be had."""
    with (
        redis(tmp_path / "redis", *DURABLE) as server,
        memcached() as port,
        sfss_node(tmp_path / "ours") as (ours, _),
    ):
        nodes: list[Backend] = [
            RedisNode(parse_address(f"redis={server.url}"), largest_value=MIB, **PATIENT),
            MemcachedNode(parse_address(f"memcached=memcached://{HOST}:{port}"), largest_value=MIB, **PATIENT),
            MemcachedNode(parse_address(f"ours={HOST}:{ours}"), largest_value=MIB, **PATIENT),
        ]
        async with connected(Cluster(Topology(nodes, request.param))) as cluster:
            yield cluster


async def test_a_cluster_may_be_of_all_kinds_and_repair_fills_each(mixed: Cluster) -> None:
    keys = [b"/mixed/%d" % number for number in range(60)]
    for key in keys:
        assert await mixed.put(key, version(1))
        assert await found(mixed, key) == 1
    topology = mixed.topology

    async def all_have(number: int) -> bool:
        heads = [await node.head(key) for key in keys for node in topology.place(key).owners]
        return all(head is not None and version(number).startswith(head) for head in heads)

    async with asyncio.timeout(10):
        while not await all_have(1):
            await asyncio.sleep(0.01)
    for number, key in enumerate(keys):
        owners = topology.place(key).owners
        await owners[number % len(owners)].delete(key)
    summary = await Repair(topology, tombstone_ttl=86400).run()
    assert summary.well
    assert summary.copies_written == len(keys)
    assert await all_have(1)
    for key in keys:
        assert await mixed.put(key, version(2))
    async with asyncio.timeout(10):
        while not await all_have(2):
            await asyncio.sleep(0.01)
