"""kill -9 at any moment: what was acknowledged is there, and what was not is there whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.node.faults.history import Ledger, check_shared
from tests.node.faults.load import Mix, Plan, check_all, drive, holdings
from tests.node.faults.nodes import Node, log_size, started
from tests.node.support import PATIENCE

CONNECTIONS = 5


class Campaign:
    """One directory, killed again and again under load."""

    def __init__(self, data: Path, seed: str, durability: str) -> None:
        self.data = data
        self.durability = durability
        self.chance = random.Random(seed)
        self.ledgers = [Ledger(b"c%d" % number, forgetful=True) for number in range(CONNECTIONS)]
        self.mixes = [Mix(ledger, (seed, ledger.name)) for ledger in self.ledgers]
        self.shared = 0
        self.kills = self.stops = 0

    @property
    def heard(self) -> int:
        """Requests answered."""
        return sum(ledger.heard for ledger in self.ledgers)

    async def run(self, kills: int, answers: int) -> None:
        """At least so many of both: by chance all kills may come early."""
        while self.kills < kills or self.heard < answers:
            if self.chance.random() < 0.2:
                await self._die_while_starting()
            await self._live()
        with self._started() as node:
            await self._check(node.port())

    def _started(self) -> AbstractContextManager[Node]:
        return started(self.data, self.data.with_suffix(".log"), durability=self.durability)

    async def _die_while_starting(self) -> None:
        """Playing the log back must be whole or not at all too, and may be cut short any number of times."""
        for _ in range(self.chance.randrange(1, 3)):
            with self._started():
                await asyncio.sleep(self.chance.uniform(0.05, 0.2))
            self.kills += 1

    async def _live(self) -> None:
        graceful = self.chance.random() < 0.15
        with self._started() as node:
            port = node.port()
            await self._check(port)
            plan = Plan(node.process.terminate if graceful else node.process.kill)
            ending = self.chance.choice(("answers", "requests", "time"))
            if ending == "answers":
                plan.answers = int(10 ** self.chance.uniform(0, 2.7))
            elif ending == "requests":
                plan.requests = int(10 ** self.chance.uniform(0, 2.7))
            load = asyncio.gather(*(
                drive(port, ledger, mix, random.Random(self.chance.random()), plan)
                for ledger, mix in zip(self.ledgers, self.mixes, strict=True)
            ))  # fmt: skip
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.chance.uniform(0, 0.5) if ending == "time" else PATIENCE):
                    await asyncio.shield(load)
            plan.act()
            await asyncio.wait_for(load, PATIENCE)
            status = node.process.wait(PATIENCE)
        if graceful:
            self.stops += 1
            assert status == 0, node.said()
            assert log_size(self.data) == 0  # nothing is left to be played back
        self.kills += not graceful

    async def _check(self, port: int) -> None:
        held = await holdings(port)
        self.shared = check_shared(self.ledgers, self.shared, held)
        check_all(self.ledgers, held)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("durability", ["fsync", "os"])
async def test_kill_9_loses_nothing_acknowledged_and_halves_nothing(
    tmp_path: Path, seed: str, long: bool, durability: str
) -> None:
    campaign = Campaign(tmp_path / "data", seed, durability)
    began = time.monotonic()
    try:
        kills = (300 if durability == "fsync" else 50) if long else (7 if durability == "fsync" else 4)
        await campaign.run(kills, 100 * kills if long else 100)
    finally:
        print(f"seed {seed}: {campaign.kills} kills, {campaign.stops} stops, {campaign.heard:,} requests answered, "
              f"{time.monotonic() - began:.1f} s")  # fmt: skip
