"""Nodes under strace, and the power that fails at any moment of what it wrote down.

``docs/decisions/0008-power-loss.rst`` says what this shows, and why it may be believed.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from sfss.node import logs, manifest
from sfss.node.engine import KIB
from sfss.node.store import Store
from sfss.node.verify import verify
from tests.node.faults.disk import Disk, Luck
from tests.node.faults.history import SHARED, Answered, Ledger, Seen, WrongAnswer, states_after
from tests.node.faults.load import Mix, Plan, check_all, drive, holdings, reading, statistics
from tests.node.faults.nodes import started
from tests.node.faults.trace import strace
from tests.node.support import PATIENCE

CONNECTIONS = 3
TABLES = 32 * KIB  # of memory before a table is written: many of them in a short run


class Recorded:
    """Nodes on one disk, one after the other, under strace: what they did to it, and whom they answered what."""

    def __init__(self, directory: Path, seed: str, **mix: bool) -> None:
        self.directory = directory
        (directory / "disk").mkdir()
        self.disk = Disk(directory / "disk")
        self.chance = random.Random(seed)
        self.ledgers = [Ledger(b"c%d" % number) for number in range(CONNECTIONS)]
        self.mixes = [Mix(ledger, (seed, ledger.name), large=20_000, **mix) for ledger in self.ledgers]

    async def live(
        self, requests: int, ending: signal.Signals, *options: str, after: int = 0, durability: str = "fsync"
    ) -> None:
        """One node: from its start, over so many requests of each connection, to a signal.

        That comes when all have been answered, or ``after`` so many answers. ``options`` are strace's.
        """
        data, life = self.disk.root / "data", len(self.disk.starts)
        trace = self.directory / "trace"
        before = strace(trace, *options)
        with started(data, self.directory / "log", durability=durability, tables=TABLES, before=before) as node:
            port = node.port()
            if life:
                check_all(self.ledgers, await holdings(port))
            async with reading(port) as connection:
                pid = int((await statistics(connection))["pid"])
            plan = Plan(lambda: os.kill(pid, ending), answers=after)
            await asyncio.gather(*(
                drive(port, ledger, mix, self.chance, plan, requests, life)
                for ledger, mix in zip(self.ledgers, self.mixes, strict=True)
            ))  # fmt: skip
            if not plan.done:
                async with reading(port) as connection:
                    self.stats = await statistics(connection)
            plan.act()
            node.process.wait(PATIENCE)
        self.disk.follow(trace)
        trace.unlink()

    @property
    def answers(self) -> int:
        return sum(ledger.heard for ledger in self.ledgers)

    def cut(self, moment: int, luck: Luck) -> None:
        """What is there when the power comes back. Raises WrongAnswer, ConfigError or whatever shows that it is bad."""
        image = self.directory / "image"
        try:
            self.disk.build(image, moment, luck, self.chance)
            held = self._open(image / "data", moment)
            life = sum(start < moment for start in self.disk.starts) - 1
            for ledger in self.ledgers:
                self._check(ledger, moment, life, held)
            self._check_shared(moment, life, held)
        finally:
            shutil.rmtree(image, ignore_errors=True)

    def _open(self, data: Path, moment: int) -> dict[bytes, Seen]:
        # What a first start that was cut short has left, a torn MANIFEST, and what lies behind a hole in the logs, are
        # put right by a start.
        if self.disk.begun(moment) and not is_torn(data):
            self._verify(data)
        store = Store(data)
        try:
            held = {}
            for key, head in store.heads(b"", b"", 100_000):
                item = store.get(key)
                assert item is not None, key
                held[key] = Seen(bytes(item.data), head.flags, head.expiry, head.cas)
            assert (store.items, store.bytes) == (len(held), sum(len(seen.value) for seen in held.values()))
            store.put(b"after", 0, 0, b"", None)
            [(_, after)] = store.heads(b"after", b"afterwards", 1)
            told = [entry.cas for ledger in self.ledgers for entry in self._acknowledged(ledger.answered, moment)]
            assert after.cas > max([0, *told, *(seen.cas for seen in held.values())])
        finally:
            store.close()
        self._verify(data)
        return held

    def _verify(self, data: Path) -> None:
        report = verify(data)
        assert not report.damaged, report.findings

    def _acknowledged(self, answered: Sequence[Answered], moment: int) -> Sequence[Answered]:
        """Those whose answer had begun to be sent, and what went before them on their connection."""
        begun, count = self.disk.begun(moment), 0
        for number, entry in enumerate(answered, 1):
            if 0 <= entry.offset < begun.get(entry.connection, 0):
                count = number
        return answered[:count]

    def _history(self, ledger: Ledger, life: int) -> list[Answered]:
        lives = [*ledger.lives, [*ledger.answered, *map(Answered, ledger.waiting)]]
        return lives[max(life, 0)]

    def _check(self, ledger: Ledger, moment: int, life: int, held: dict[bytes, Seen]) -> None:
        history = self._history(ledger, life)
        sure = self._acknowledged(history, moment)
        tail = [entry.op for entry in history[len(sure) :]]
        ledger.match(states_after(sure), tail, {key: seen for key, seen in held.items() if ledger.owns(key)})

    def _check_shared(self, moment: int, life: int, held: dict[bytes, Seen]) -> None:
        histories = [self._history(ledger, life) for ledger in self.ledgers]
        sure = [entry for history in histories for entry in self._acknowledged(history, moment)]
        least = sum(entry.op.key == SHARED and entry.offset >= 0 and not entry.failed for entry in sure)
        most = sum(entry.op.key == SHARED for history in histories for entry in history)
        number = int(held[SHARED].value) if SHARED in held else 0
        if not least <= number <= most:
            raise WrongAnswer(f"the shared number is {number}: answered were {least}, and asked {most}")

    def cuts(self, count: int) -> None:
        """At moments all over the trace, half of them in the midst of a sync, with all kinds of luck."""
        lucks = list(Luck)
        for number in range(count):
            luck = lucks[number % len(lucks)]
            anywhere = self.chance.randrange(self.disk.moment + 2)
            moment = self.disk.tense(self.chance) if number % 2 else anywhere
            try:
                self.cut(moment, luck)
            except BaseException as error:
                error.add_note(f"the power failed at {moment} of {self.disk.moment}, and of the rest there was {luck}")
                raise


def is_torn(data: Path) -> bool:
    current = data / (data / "CURRENT").read_text().strip()
    return manifest.torn_at(current.read_bytes()) is not None or logs.hole(data) is not None
