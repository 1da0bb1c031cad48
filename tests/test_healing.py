"""The commands of repair over real nodes: what they do, say, and end with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sfss import config, healing
from sfss.addresses import parse_address
from sfss.backends.memcached import MemcachedNode
from sfss.cluster import lease
from sfss.cluster.replication import Cluster
from sfss.cluster.summary import Summary
from sfss.cluster.topology import Quorum, Topology
from sfss.manifest import block_key, new_stripe
from sfss.node.server import Server
from sfss.record import Kind
from tests.cluster.support import version
from tests.node.support import running
from tests.servers import HOST, PATIENT, free_port
from tests.test_record import make

KEYS = [b"/healing/%d" % number for number in range(100)]


class Done(NamedTuple):
    """What a command ended with."""

    status: int | None
    out: str
    err: str


class Site:
    """Three nodes in the test's own loop, and a fourth one; files have two copies."""

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers
        self.nodes = [f"{HOST}:{server.port}" for server in servers]

    def fill(self, nodes: str, data: bytes = b"") -> None:
        """A record under each key on its owners among these nodes, given by their numbers."""
        for key in KEYS:
            for number in self.owners(nodes, key):
                self.leave(number, key, data or version(5))

    def leave(self, number: int, key: bytes, data: bytes) -> None:
        store = self.servers[number].store
        store.put(key, 0, 0, data, store.claim(key))

    def owners(self, nodes: str, key: bytes) -> list[int]:
        names = [self.nodes[int(number)] for number in nodes]
        topology = Topology((MemcachedNode(parse_address(name), largest_value=1) for name in names), Quorum(2, 1, 1))
        return [self.nodes.index(node.address.name) for node in topology.place(key).owners]

    def holders(self, key: bytes) -> list[int]:
        return [n for n, server in enumerate(self.servers) if server.store.head(key) is not None]

    def settings(self, nodes: str = "012", joining: str = "", leaving: str = "") -> dict[str, str]:
        lists = {"NODES": nodes, "JOINING": joining, "LEAVING": leaving}
        return {
            **{f"SFSS_STORAGE_{name}": ",".join(self.nodes[int(n)] for n in some) for name, some in lists.items()},
            "SFSS_STORAGE_COPIES": "2",
        }


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with contextlib.AsyncExitStack() as stack:
        yield Site([await stack.enter_async_context(running(tmp_path / str(n), durability="os")) for n in range(4)])


async def begin(*arguments: str, environment: dict[str, str], stderr: int = asyncio.subprocess.PIPE) -> (
    asyncio.subprocess.Process
):  # fmt: skip
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sfss", *arguments, env={"PATH": "/usr/bin:/bin", **environment},
        stdout=asyncio.subprocess.PIPE, stderr=stderr,
    )  # fmt: skip


async def run(*arguments: str, **environment: str) -> Done:
    process = await begin(*arguments, environment=environment)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return Done(process.returncode, out.decode(), err.decode())


async def test_repair_brings_copies_home_and_says_that_all_is_well(site: Site) -> None:
    site.fill("012")
    site.servers[0].store.flush_all()
    site.leave(2, key := next(key for key in KEYS if 2 not in site.owners("012", key)), version(5))
    done = await run("repair", **site.settings())
    assert (done.status, done.err) == (0, "")
    assert "100 keys" in done.out
    assert "all is well" in done.out
    assert all(site.holders(key) == sorted(site.owners("012", key)) for key in KEYS)
    written = sum(0 in site.owners("012", key) for key in KEYS)
    [line] = [line for line in done.out.splitlines() if "copies written" in line]
    assert line.split()[-1] == str(written)
    assert "strays removed" in done.out
    again = (await run("repair", **site.settings())).out
    assert "strays removed" not in again
    assert "100 keys, 206 copies seen" in again, "of the files; and two things of its own on each node"
    assert site.holders(key) == sorted(site.owners("012", key))


async def test_the_summary_as_json_has_every_figure(site: Site) -> None:
    site.fill("012")
    done = await run("repair", "--json", "--share", "0.5", **site.settings())
    summary = json.loads(done.out)
    assert (summary["well"], summary["finished"], summary["keys"], summary["ok"]) == (True, True, 100, 100)
    assert summary["away"] == summary["errors"] == {}


async def test_a_node_that_is_away_is_named_and_nothing_is_called_well(site: Site) -> None:
    site.fill("012")
    await site.servers[1].stop()
    done = await run("repair", **site.settings())
    assert done.status == 1
    assert f"left out: node {site.nodes[1]}: " in done.out
    assert "Connection refused" in done.out
    assert "keys lack a copy" in done.out
    assert "all is well" not in done.out


async def test_where_no_node_answers_it_says_so() -> None:
    done = await run("repair", SFSS_STORAGE_NODES=f"{HOST}:{free_port()}")
    assert done.status == 1
    assert "left out: node" in done.out
    assert "Traceback" not in done.err


async def test_a_scrub_names_the_files_that_are_lost(site: Site) -> None:
    site.fill("012")
    spoilt = bytearray(version(5))
    spoilt[-1] ^= 1
    for number in site.owners("012", KEYS[3]):
        site.leave(number, KEYS[3], bytes(spoilt))
    site.leave(site.owners("012", KEYS[4])[0], KEYS[4], bytes(spoilt))
    done = await run("repair", "--scrub", **site.settings())
    assert done.status == 1
    assert f"of 1 keys no sound copy is left in the newest version. Store these files again, or delete them: "\
           f"{KEYS[3].decode()}\n" in done.out  # fmt: skip
    [line] = [line for line in done.out.splitlines() if "damaged copies mended" in line]
    assert line.split()[-1] == "1"


async def test_rebalance_says_step_by_step_what_comes_next(site: Site) -> None:
    site.fill("012")
    done = await run("rebalance", **site.settings("12", joining="3", leaving="0"))
    assert (done.status, done.err) == (0, "")
    going = [key for key in KEYS if {1, 2} & set(site.owners("012", key)) - set(site.owners("123", key))]
    assert f"move {site.nodes[3]} from storage.joining to storage.nodes" in done.out
    assert f"strike {site.nodes[0]} from storage.leaving" in done.out
    assert f"to remove {len(going)} copies" in done.out
    assert all({*site.holders(key)} == {*site.owners("012", key), *site.owners("123", key)} for key in KEYS)
    done = await run("rebalance", **site.settings("123"))
    assert done.status == 0
    assert "every file is where it belongs, and nowhere else" in done.out
    assert all({*site.holders(key)} - {0} == {*site.owners("123", key)} for key in KEYS)


@pytest.mark.parametrize("copies", [1, 2])
async def test_where_a_policy_has_one_copy_it_is_said_until_when_the_old_ones_must_go(
    site: Site, tmp_path: Path, copies: int
) -> None:
    file = tmp_path / "sfss.toml"
    file.write_text(f'[[policy]]\nprefix = "single/"\ncopies = {copies}\n')
    site.fill("012")
    done = await run("rebalance", "--config", str(file), **site.settings("012", joining="3"))
    assert done.status == 0
    assert ("before 24 hours have passed" in done.out) == (copies == 1)


@pytest.mark.parametrize("command", ["repair", "rebalance", "sweep"])
async def test_one_node_under_two_names_is_refused_and_loses_nothing(site: Site, command: str) -> None:
    again = site.nodes[0].replace(HOST, "localhost")
    for key in KEYS:
        site.leave(0, key, version(5))
    lists = (
        {"NODES": site.nodes[0], "JOINING": again} if command == "rebalance" else {"NODES": f"{site.nodes[0]},{again}"}
    )
    done = await run(command, **{f"SFSS_STORAGE_{name}": nodes for name, nodes in lists.items()})
    assert done.status == 2
    assert f"nodes {site.nodes[0]} and {again} are one store under two names: take one of them out" in done.err
    assert all(site.holders(key) == [0] for key in KEYS)
    done = await run("repair", SFSS_STORAGE_NODES=site.nodes[0])
    assert done.status == 0, "and so it is as it was"
    assert all(site.holders(key) == [0] for key in KEYS)


def test_what_comes_next_tells_no_passwords() -> None:
    lists = {"nodes": ["a:1"], "joining": ["b=redis://:s3cret@b"], "leaving": ["postgresql://u:s3cret@c/d"]}
    steps = "\n".join(healing._next_steps(config.load(overrides={"storage": lists}), Summary()))
    assert "move b=redis://:***@b from storage.joining to storage.nodes" in steps
    assert "strike postgresql://u:***@c/d from storage.leaving" in steps


async def test_a_rebalance_that_left_something_does_not_say_go_on(site: Site) -> None:
    site.fill("012")
    await site.servers[3].stop()
    done = await run("rebalance", **site.settings("012", joining="3"))
    assert done.status == 1
    assert "storage.nodes" not in done.out
    assert f"left out: node {site.nodes[3]}" in done.out


async def leave_blocks(site: Site, days: float) -> list[bytes]:
    """Blocks on all nodes that no file has, of a stripe that began so many days ago; their keys."""
    stripe = new_stripe(int((time.time() - days * 86400) * 1e6))
    keys = [block_key(stripe, number) for number in range(3)]
    for key in keys:
        for number in range(3):
            site.leave(number, key, make(b"x" * 1000, kind=Kind.BLOCK, version=1, sha256=b"", path="a"))
    return keys


@pytest.mark.parametrize("command", ["sweep", "repair", "rebalance"])
async def test_what_no_file_has_any_more_is_swept(site: Site, command: str) -> None:
    site.fill("012")
    old, young = await leave_blocks(site, 2), await leave_blocks(site, 0.5)
    done = await run(command, "--json", **site.settings())
    assert (done.status, done.err) == (0, "")
    summary = json.loads(done.out)
    assert (summary["stripes"], summary["stripes_swept"], summary["stripes_young"]) == (2, 1, 1)
    assert (summary["blocks"], summary["blocks_removed"], summary["bytes_freed"] > 9000) == (6, 9, True)
    assert summary["keys"] == (0 if command == "sweep" else 100)
    assert not any(map(site.holders, old))
    assert [site.holders(key) for key in young] == 3 * [[0, 1, 2]]
    done = await run(command, **site.settings())
    assert "6 copies seen" not in done.out
    assert "3 blocks" in done.out
    assert "that nobody has, too young" in done.out


async def test_while_a_node_is_away_nothing_is_swept_and_it_is_said_why(site: Site) -> None:
    keys = await leave_blocks(site, 2)
    await site.servers[2].stop()
    done = await run("sweep", **site.settings())
    assert done.status == 1
    assert "of 1 stripes it isn't sure now whether a file has them" in done.out
    assert site.nodes[2] in done.out
    assert [site.holders(key)[:2] for key in keys] == 3 * [[0, 1]]


def on_first_copy(site: Site, number: int, do: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have that done when this node has just been given something, and hasn't answered: whoever gives it is at work."""
    store, given = site.servers[number].store, []

    def then(put: Callable[..., Any]) -> Callable[..., Any]:
        def puts(*arguments: Any, **options: Any) -> Any:
            done = put(*arguments, **options)
            given.append(done)
            if len(given) == 1:
                do()
            return done

        return puts

    for name in ("put", "put_all"):
        monkeypatch.setattr(store, name, then(getattr(store, name)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_it_with_what_it_has_done(
    site: Site, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.fill("012")
    site.servers[0].store.flush_all()
    on_first_copy(site, 0, lambda: process.send_signal(number), monkeypatch)
    process = await begin("repair", "--json", environment=site.settings())
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err) == (130, b"")
    summary = json.loads(out)
    assert (summary["finished"], summary["well"]) == (False, False)
    assert any(0 in site.holders(key) for key in KEYS)
    assert (await run("repair", **site.settings())).status == 0
    assert all(site.holders(key) == sorted(site.owners("012", key)) for key in KEYS)


async def test_on_a_terminal_it_shows_how_far_it_is(site: Site) -> None:
    site.fill("012", make(b"x" * 1000, version=1))
    site.servers[0].store.flush_all()
    ours, theirs = pty.openpty()
    process = await begin("repair", "--share", "0.02", environment=site.settings(), stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while b"left" not in shown:
            shown += await asyncio.to_thread(os.read, ours, 4096)
    process.terminate()
    await process.communicate()
    os.close(ours)
    assert b"keys, " in shown
    assert b"MB moved" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["repair", "--share", "0"], "0 is no share"),
        (["rebalance", "--share", "much"], "much is no share"),
        (["repair", "--share", "nan"], "nan is no share"),
        (["repair", "--pause", "-1"], "-1 is no time"),
        (["rebalance", "--scrub"], "unrecognized arguments: --scrub"),
    ],
)
async def test_a_wrong_option_is_named(arguments: list[str], message: str) -> None:
    done = await run(*arguments)
    assert done.status == 2
    assert message in done.err


async def test_walks_of_the_fronts_can_be_paused(site: Site) -> None:
    cluster = Cluster(
        Topology(
            (MemcachedNode(parse_address(node), largest_value=2**20, **PATIENT) for node in site.nodes[:3]),
            Quorum(2, 1, 1),
        )
    )
    await cluster.start()
    try:
        done = await run("repair", "--pause", "3600", **site.settings())
        assert done.status == 0
        assert "wait until" in done.out
        assert all([(await lease.read(cluster, kind)).paused_until > 0 for kind in (lease.KEY, lease.SWEEP)])
        assert (await run("repair", "--pause", "0", **site.settings())).status == 0
        assert all([(await lease.read(cluster, kind)).paused_until == 0 for kind in (lease.KEY, lease.SWEEP)])
    finally:
        await cluster.close()
