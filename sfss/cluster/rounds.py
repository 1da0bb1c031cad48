"""Walks of one kind, again and again: of all fronts one at a time does one, as they agree on by ``lease.py``.

One is due every ``interval`` seconds, or sooner if the last one left something. It works a share of the time, is paused
when that is asked for, and ends when nodes change.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import msgspec

from sfss.cluster import lease
from sfss.cluster.lease import State
from sfss.cluster.pace import Pace
from sfss.cluster.replication import Cluster
from sfss.cluster.summary import Summary
from sfss.cluster.topology import Topology
from sfss.errors import Unavailable

LOOK = 10.0  # seconds between two looks at the state: whether it is time, paused, ours
LEASE = 60.0  # seconds for which a front that walks is believed to go on
AGAIN = 60.0  # seconds until the next walk, if the last one left something


async def count_items(cluster: Cluster) -> int:
    """How many items the nodes that are here have, all told; 0 if none of them says."""
    try:
        figures = await cluster.stats()
    except Unavailable:
        return 0
    return sum(int(node.get("curr_items", "0")) for node in figures.values())


class Walking(Protocol):
    """A walk that goes on."""

    summary: Summary
    pace: Pace

    async def run(self) -> Summary:
        """All of it, once."""


class Rounds:
    """What one front has to do with them."""

    def __init__(
        self, cluster: Cluster, key: bytes, front: int, make: Callable[[], Walking], *, interval: float, again: float
    ) -> None:
        """``key`` of the record that the fronts agree by. ``again``: seconds, as AGAIN. ``make``: a walk as of now."""
        self.state = State()
        self.walking: Walking | None = None
        self.urgent = False  # not to be left until the interval is over
        self.items = 0  # that the nodes had when the walk began; 0: they don't tell
        self._cluster = cluster
        self._key = key
        self._front = front
        self._make = make
        self._interval = interval
        self._again = min(again, interval)
        self._before: Counter[str] = Counter()  # figures of all walks before

    def total(self, figure: str) -> int:
        """Of a summary, of all walks of this front."""
        now = getattr(self.walking.summary, figure) if self.walking is not None else 0
        return self._before[figure] + int(now)

    @property
    def doing(self) -> str:
        """In words."""
        if self.state.paused_until > self._now():
            return "paused"
        if self.walking is not None:
            return "walking"
        return "another front walks" if self.state.until > self._now() else "resting"

    async def read(self) -> None:
        """Learn what is agreed on. Raises Unavailable."""
        self.state = await lease.read(self._cluster, self._key)

    async def claim(self) -> bool:
        """Whether a walk is due, and this front is to do it. Raises Unavailable."""
        if not self._is_time(self.state):
            return False
        claimed = await lease.change(self._cluster, self._front, self._claim, self._key)
        if claimed is None:
            return False
        self.state = claimed
        return True

    async def walk(self, topology: Topology) -> Summary | None:
        """Until all is walked over: what came of it. None if nodes have changed, or another front has taken it over."""
        self.urgent = False
        self.items = await count_items(self._cluster)
        self.walking = self._make()
        running = asyncio.create_task(self.walking.run())
        # What is a stray by the nodes of before may be at home by those of now: it must not be removed any more.
        changed = asyncio.create_task(self._cluster.changed.wait())
        either = [running, changed]
        try:
            while self._cluster.topology is topology:
                done, _ = await asyncio.wait(either, timeout=LOOK, return_when=asyncio.FIRST_COMPLETED)
                if done or not await self._holds_on(self.walking):
                    break
            if not running.done():
                return None
            summary = running.result()
            await self._finish(summary)
            return summary
        finally:
            for task in either:
                task.cancel()
            await asyncio.wait(either)
            figures = dataclasses.asdict(self.walking.summary).items()
            self._before.update({name: figure for name, figure in figures if isinstance(figure, int)})
            self.walking = None

    def _now(self) -> float:
        """In seconds, as the state's times are."""
        return self._cluster.now() / 1e6

    def _is_time(self, state: State) -> bool:
        now = self._now()
        if state.paused_until > now or (state.until > now and state.holder != self._front):
            return False
        return self.urgent or now - state.finished > (self._interval if state.well else self._again)

    def _claim(self, state: State) -> State | None:
        if not self._is_time(state):
            return None
        return msgspec.structs.replace(state, holder=self._front, until=self._now() + LEASE)

    async def _holds_on(self, walking: Walking) -> bool:
        """Say that this front goes on, and pause or resume as is asked for; False if it isn't its turn any more."""

        def renew(state: State) -> State | None:
            ours = state.holder == self._front
            return msgspec.structs.replace(state, until=self._now() + LEASE) if ours else None

        try:
            state = await lease.change(self._cluster, self._front, renew, self._key)
        except Unavailable:  # a node is away: the walk has its own patience with that
            return True
        if state is None:
            return False
        self.state = state
        (walking.pace.pause if state.paused_until > self._now() else walking.pace.resume)()
        return True

    async def _finish(self, summary: Summary) -> None:
        def note(state: State) -> State:
            return msgspec.structs.replace(
                state,
                until=0.0,
                finished=self._now(),
                well=summary.well,
                under_replicated=summary.under_replicated + summary.blocks_lacking,
                damaged=summary.damaged_keys,
                uploads_open=summary.uploads_open,
            )

        self.state = await lease.change(self._cluster, self._front, note, self._key) or self.state
