"""What clients of memcached do every day works on a node: libmemcached's tools, pylibmc, pymemcache, aiomcache."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiomcache
import pylibmc
import pytest
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.exceptions import MemcacheClientError, MemcacheServerError

from tests.servers import HOST, sfss_node

MEMCACHED_TOOL = Path("/usr/share/memcached/scripts/memcached-tool")  # where the package memcached puts it


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with sfss_node(tmp_path_factory.mktemp("clients") / "data") as (port, _):
        yield port


@pytest.fixture
def port(shared: int) -> int:
    """That of a node in a process of its own, as it is when it starts; it is empty."""
    with closing(Client((HOST, shared))) as client:
        client.flush_all(noreply=False)
    return shared


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)


def test_memccapable_finds_nothing_wrong_with_the_text_protocol(port: int) -> None:
    """-a: all tests of the text protocol. The binary one, which memcached is giving up, the node doesn't have."""
    program = shutil.which("memccapable")
    assert program, "memccapable is not installed: `make test` installs it, or: apt-get install libmemcached-tools"
    done = run(program, "-h", HOST, "-p", port, "-a", "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All tests passed" in done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("[pass]") == 27


# --- memcached-tool ---


def tool(port: int, *words: str) -> list[str]:
    assert MEMCACHED_TOOL.exists(), "memcached-tool is missing: it comes with Debian's memcached"
    done = run("perl", MEMCACHED_TOOL, f"{HOST}:{port}", *words)
    assert done.returncode == 0, done
    return done.stdout.splitlines()


@pytest.fixture
def filled(port: int) -> int:
    with closing(Client((HOST, port))) as client:
        client.set("a", b"value", flags=3, noreply=False)
        client.set("/b%20c", b"two\r\nlines", expire=1000, noreply=False)
    return port


def test_memcached_tool_shows_stats_and_settings(filled: int) -> None:
    stats = dict(line.split() for line in tool(filled, "stats")[1:])
    assert stats["curr_items"] == "2"
    settings = dict(line.split(maxsplit=1) for line in tool(filled, "settings")[1:])
    assert settings["tcpport"].strip() == str(filled)
    assert tool(filled, "sizes")[0].split()[1:] == ["Size", "Count"]


def test_memcached_tool_displays_no_slabs(filled: int) -> None:
    assert tool(filled, "display")[0].split()[:3] == ["#", "Item_Size", "Max_age"]


def test_memcached_tool_lists_the_keys(filled: int) -> None:
    assert sorted(re.findall(r"key=(\S+) exp=", "\n".join(tool(filled, "keys")))) == ["%2Fb%2520c", "a"]


def test_what_memcached_tool_dumps_another_node_takes(filled: int, tmp_path: Path) -> None:
    done = subprocess.run(
        ["perl", str(MEMCACHED_TOOL), f"{HOST}:{filled}", "dump"], capture_output=True, timeout=60, check=True
    )
    with sfss_node(tmp_path / "data") as (other, _):
        load(other, done.stdout)
        with closing(Client((HOST, other))) as client:
            assert client.get_many(["a", "/b%20c"]) == {"a": b"value", "/b%20c": b"two\r\nlines"}


def load(port: int, commands: bytes) -> None:
    with closing(Client((HOST, port))) as client:
        assert client.raw_command(commands + b"mn", end_tokens=b"MN\r\n").split() == [b"STORED", b"STORED"]


# --- libmemcached ---


@pytest.mark.parametrize(
    "behaviors",
    [{}, {"tcp_nodelay": True, "no_block": True}, {"cas": True}, {"verify_keys": True, "ketama": True}],
    ids=["plain", "no_block", "cas", "ketama"],
)
def test_pylibmc(port: int, behaviors: dict[str, Any]) -> None:
    client = pylibmc.Client([f"{HOST}:{port}"], behaviors=behaviors)
    assert client.set("text", "häßlich")
    assert client.get("text") == "häßlich"
    assert client.set("object", {"a": [1, 2.5, None]})
    assert client.get("object") == {"a": [1, 2.5, None]}
    big = b"\0\xff\r\n" * 100_000
    assert client.set("big", big)
    assert client.get("big") == big
    assert client.set("packed", b"x" * 100_000, min_compress_len=1000)
    assert client.get("packed") == b"x" * 100_000
    assert client.get("none") is None
    assert client.get("none", "default") == "default"
    assert client.add("added", 1)
    assert not client.add("added", 2)
    assert client.replace("added", 10)
    assert not client.replace("none", 1)
    assert client.incr("added") == 11
    assert client.incr("added", 5) == 16
    assert client.decr("added", 6) == 10
    with pytest.raises(pylibmc.NotFound):
        client.incr("none")
    assert client.set("log", "b")
    assert client.append("log", "c")
    assert client.prepend("log", "a")
    assert client.get("log") == "abc"
    many = {f"key{n}": n for n in range(500)}
    assert client.set_multi(many) == []
    assert client.get_multi(list(many)) == many
    assert client.delete_multi(list(many)[:499])
    assert client.get_multi(list(many)) == {"key499": 499}
    assert client.touch("text", 100)
    assert not client.touch("none", 100)
    assert client.delete("text")
    assert not client.delete("text")
    assert client.set("short", 1, time=1000)
    assert client.get("short") == 1
    if behaviors.get("cas"):
        value, version = client.gets("added")
        assert client.cas("added", value + 1, version)
        assert not client.cas("added", 0, version)
    (server, stats), *_ = client.get_stats()
    assert server.startswith(f"{HOST}:{port}".encode())
    assert int(stats["curr_items"]) > 0
    assert client.flush_all()
    assert client.get("added") is None
    client.disconnect_all()


# --- pymemcache ---


@pytest.mark.parametrize("kind", [Client, PooledClient, HashClient])
def test_pymemcache(port: int, kind: Any) -> None:
    client = kind([(HOST, port)] if kind is HashClient else (HOST, port), default_noreply=False)
    assert client.set("a", b"1", expire=100)
    assert client.get("a") == b"1"
    assert client.set_many({"b": b"2", "c": b"3"}) == []
    assert client.get_many(["a", "b", "none"]) == {"a": b"1", "b": b"2"}
    _value, version = client.gets("a")
    assert client.cas("a", b"10", version) is True
    assert client.cas("a", b"11", version) is False
    assert client.cas("none", b"11", version) is None
    assert client.incr("a", 5) == 15
    assert client.decr("a", 1) == 14
    assert client.incr("none", 1) is None
    assert client.add("a", b"x") is False
    assert client.replace("none", b"x") is False
    assert client.append("a", b"!")
    assert client.prepend("a", b"?")
    assert client.get("a") == b"?14!"
    assert client.touch("a", 100)
    assert not client.touch("none", 100)
    with pytest.raises((MemcacheClientError, MemcacheServerError)):
        client.set("large", b"x" * (9 * 1024 * 1024))
    assert client.get("a") == b"?14!"
    client.set("quiet", b"1", noreply=True)
    assert client.get("quiet") == b"1"
    assert client.delete("a")
    assert not client.delete("a")
    assert client.delete_many(["b", "c"])
    client.flush_all()
    assert client.get("quiet") is None
    client.close()


def test_pymemcache_reads_stats_and_version_and_asks_what_is_raw(port: int) -> None:
    with closing(Client((HOST, port))) as client:
        assert client.stats()[b"curr_items"] == 0
        assert client.version().startswith(b"1.6.18+")
        assert client.raw_command(b"ms a 1 c\r\n1", end_tokens=b"\r\n").startswith(b"HD c")
        assert client.raw_command("mg a v", end_tokens="\r\n") == b"VA 1"


# --- aiomcache ---


async def test_aiomcache(port: int) -> None:
    client = aiomcache.Client(HOST, port, pool_size=4)
    assert await client.set(b"a", b"1", exptime=100)
    assert await client.get(b"a") == b"1"
    assert await client.add(b"b", b"2")
    assert not await client.add(b"b", b"3")
    assert await client.replace(b"b", b"20")
    assert not await client.replace(b"none", b"3")
    assert await client.multi_get(b"a", b"none", b"b") == (b"1", None, b"20")
    value, version = await client.gets(b"a")
    assert value == b"1"
    assert version is not None
    assert await client.cas(b"a", b"5", version)
    assert not await client.cas(b"a", b"6", version)
    assert await client.incr(b"a", 2) == 7
    assert await client.decr(b"a", 1) == 6
    assert await client.append(b"a", b"!")
    assert await client.prepend(b"a", b"?")
    assert await client.get(b"a") == b"?6!"
    assert await client.touch(b"a", 50)
    assert not await client.touch(b"none", 50)
    assert await client.delete(b"a")
    assert not await client.delete(b"a")
    assert (await client.version()).startswith(b"1.6.18+")
    assert int((await client.stats())[b"curr_items"] or 0) == 1
    keys = [b"key%d" % n for n in range(200)]
    await asyncio.gather(*(client.set(key, key) for key in keys))
    assert list(await asyncio.gather(*(client.get(key) for key in keys))) == keys
    await client.flush_all()
    assert await client.get(b"b") is None
    await client.close()
