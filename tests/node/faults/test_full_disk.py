"""A disk that fills: it is told, reads go on, nothing acknowledged is lost, and writes come back when there is room.

The disk is a tmpfs in a mount namespace of its own: root may make one anywhere, and who isn't root is root in a user
namespace. Nothing of it is seen outside, and it ends with the process that holds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sfss.node.engine import KIB, MIB
from tests.node.faults.history import FAILED, Ledger, check_shared
from tests.node.faults.load import Mix, check_all, drive, holdings, reading, statistics
from tests.node.faults.nodes import Node, log_size, started
from tests.node.support import PATIENCE, set_request
from tests.servers import wait_for

SIZE = 12 * MIB
CONNECTIONS = 3
SPARE = 64 * KIB  # what another one's file leaves of the disk: it grows until it has filled all but this
OUT_OF_SPACE = b"SERVER_ERROR out of space storing object\r\n"
RESUMED = 10.0  # seconds within which writes are taken again when there is room


@dataclass
class SmallDisk:
    """A file system of ``SIZE``, seen only from the namespace of the process that holds it."""

    holder: int
    mounted: Path

    @property
    def root(self) -> Path:
        """Where it can be reached from outside."""
        return Path(f"/proc/{self.holder}/root{self.mounted}")

    def enter(self) -> list[str]:
        """The command before another one that runs it inside."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self.holder), *user, "--mount", "--root", f"--wd={Path.cwd()}"]

    def free(self) -> int:
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """Another one's file grows."""
        with (self.root / "other").open("ab", buffering=0) as other, contextlib.suppress(OSError):
            while (free := self.free()) > SPARE:
                other.write(bytes(min(free - SPARE, MIB)))

    def make_room(self) -> None:
        (self.root / "other").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    mounted = tmp_path / "disk"
    mounted.mkdir()
    new = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f"mount -t tmpfs -o size={SIZE} tmpfs '{mounted}' && echo mounted && exec cat"
    with subprocess.Popen([*new, "sh", "-c", mount], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        said = holder.stdout.readline()
        assert said, "this test mounts a tmpfs: be root, or let users make namespaces (unshare --user --mount)"
        yield SmallDisk(holder.pid, mounted)
        holder.kill()


class Filling:
    """A node on a small disk, and what is asked of it."""

    def __init__(self, disk: SmallDisk, seed: str, directory: Path) -> None:
        self.disk = disk
        self.log = directory / "log"
        self.chance = random.Random(seed)
        self.ledgers = [Ledger(b"c%d" % number, forgetful=True) for number in range(CONNECTIONS)]
        self.mixes = [Mix(ledger, (seed, ledger.name), large=30_000, quiet=False) for ledger in self.ledgers]
        self.shared = 0

    @property
    def data(self) -> Path:
        return self.disk.root / "data"

    def started(self) -> contextlib.AbstractContextManager[Node]:
        return started(self.disk.mounted / "data", self.log, before=self.disk.enter())

    async def load(self, port: int, count: int) -> None:
        await asyncio.gather(*(
            drive(port, ledger, mix, self.chance, count=count)
            for ledger, mix in zip(self.ledgers, self.mixes, strict=True)
        ))  # fmt: skip

    async def check(self, port: int) -> None:
        """What it holds after a restart."""
        held = await holdings(port)
        self.shared = check_shared(self.ledgers, self.shared, held)
        check_all(self.ledgers, held)

    async def until_full(self, port: int) -> None:
        self.disk.fill()
        before = self.failures()
        for _ in range(100):
            await self.load(port, 20)
            if self.failures() > before + 10:
                return
        raise AssertionError("the disk didn't fill")

    def failures(self) -> int:
        return sum(ledger.failed for ledger in self.ledgers)

    async def until_writes_resume(self, port: int) -> float:
        """Make room; after how many seconds writes are taken again."""
        self.disk.make_room()
        began = time.monotonic()
        async with reading(port) as connection:
            while True:
                connection.writer.write(set_request(b"probe", b"1"))
                if await connection.reply() == b"STORED\r\n":
                    break
                assert time.monotonic() - began < RESUMED, self.log.read_text()[-3000:]
                await asyncio.sleep(0.05)
            connection.writer.write(b"delete probe\r\n")
            assert await connection.reply() == b"DELETED\r\n"
        return time.monotonic() - began


@pytest.mark.timeout(600)
async def test_a_disk_that_fills_loses_nothing_and_is_told_and_reads_go_on(
    disk: SmallDisk, tmp_path: Path, seed: str, long: bool
) -> None:
    """Filled under load, killed while full, started while full, and with room again; some rounds of it."""
    filling = Filling(disk, seed, tmp_path)
    for _ in range(20 if long else 2):
        with filling.started() as node:
            port = node.port()
            await filling.check(port)
            await filling.load(port, 60)
            await filling.until_full(port)
            await told_and_reads_go_on(filling, port)
            node.process.kill()
            node.process.wait()
        await start_on_the_full_disk(filling)
        filling.disk.make_room()
        with filling.started() as node:
            port = node.port()
            await filling.check(port)
            before = filling.failures()
            await filling.load(port, 60)
            assert filling.failures() == before
            node.process.terminate()
            assert node.process.wait(PATIENCE) == 0, node.said()
        assert log_size(filling.data) == 0


@pytest.mark.timeout(600)
async def test_writes_come_back_by_themselves_with_room(disk: SmallDisk, tmp_path: Path, seed: str, long: bool) -> None:
    filling = Filling(disk, seed, tmp_path)
    with filling.started() as node:
        port = node.port()
        for _ in range(10 if long else 1):
            await filling.load(port, 60)
            await filling.until_full(port)
            print(f"writes were back after {await filling.until_writes_resume(port):.1f} s")
    assert set(sum((ledger.errors for ledger in filling.ledgers), Counter())) == {OUT_OF_SPACE}


async def told_and_reads_go_on(filling: Filling, port: int) -> None:
    async with reading(port) as connection:
        connection.writer.write(set_request(b"large", b"x" * MIB) + b"get none\r\n")
        assert (await connection.reply()).startswith(FAILED)
        assert await connection.reply() == b"END\r\n"
        stats = await statistics(connection)
        assert int(stats["write_errors"]) + int(stats["failed_fsyncs"]) > 0
        for ledger in filling.ledgers:
            for key, states in list(ledger.now.items())[:20]:
                connection.writer.write(b"get %b\r\n" % key)
                reply = await connection.reply()
                assert not reply.startswith(FAILED)
                assert any((state is None) == (reply == b"END\r\n") for state in states)


async def start_on_the_full_disk(filling: Filling) -> None:
    """It serves what it has, or says that it can't."""
    with filling.started() as node:
        wait_for(lambda: node.process.poll() is not None or "data in" in node.said(), timeout=PATIENCE, what="a node")
        if node.process.poll() is None:
            await filling.check(node.port())
        else:
            assert "No space left" in node.said(), node.said()
