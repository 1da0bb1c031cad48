"""Repair that goes on behind a front: of files that are known to lack a copy, and at times a walk over all of them.

What a write could not bring to an owner is noted (``Copies.lacking``), and brought there when the owner is back: soon,
without a walk. What nobody has noted, as after a front has died, or a node was emptied, a walk finds. Of all fronts one
walks at a time (``lease.py``), every ``interval`` seconds; sooner if the last walk left something, or if more was
lacking than could be noted. It works a ``share`` of the time, waits while a node is away, and begins again when nodes
change.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from sfss.backends.base import Listed
from sfss.cluster import lease
from sfss.cluster.lease import State
from sfss.cluster.pace import Pace
from sfss.cluster.repair import Repair
from sfss.cluster.replication import Cluster
from sfss.cluster.summary import Summary
from sfss.cluster.topology import Topology
from sfss.cluster.turn import Turn
from sfss.cluster.walk import UNKNOWN, Told, Walk
from sfss.cluster.wholeness import missing_marks
from sfss.errors import Unavailable

log = logging.getLogger("sfss.repair")

LOOK = 10.0  # seconds between two looks at the state: whether it is time, paused, ours
LEASE = 60.0  # seconds for which a front that walks is believed to go on
AGAIN = 60.0  # seconds until the next walk, if the last one left something
HEAL = 1.0  # seconds between two looks at what is lacking ...
AT_ONCE = 1000  # ... of which so many keys have their turn then, ...
TOGETHER = 4  # ... so many at a time ...
HEALING = 0.5  # ... and for that share of the time


class Background:
    """The repairing of one front. ``interval`` in seconds; ``share`` of the time for walks, above 0, up to 1."""

    def __init__(self, cluster: Cluster, *, interval: float, share: float, tombstone_ttl: int) -> None:
        self._cluster = cluster
        self._lacking = cluster.lacking
        self._interval = interval
        self._share = share
        self._tombstone_ttl = tombstone_ttl
        self._front = secrets.randbits(32)
        self._state = State()
        self._urgent = False  # not to be left until the interval is over
        self._was_away = False  # a node, since the last walk began
        self._walking: Repair | None = None
        self._copies_written = 0  # but for those of the walk that goes on
        self._tasks: Sequence[asyncio.Task[None]] = ()

    def start(self) -> None:
        """Begin. To be called in the event loop."""
        self._tasks = [
            asyncio.create_task(self._go_on(self._heal, HEAL), name="healing"),
            asyncio.create_task(self._go_on(self._look, LOOK), name="repair in the background"),
        ]

    async def close(self) -> None:
        """Stop where it is: the next walk, of this front or another, goes over all again."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def status(self) -> dict[str, object]:
        """What is known of the health of all files. ``under_replicated`` is 0 when every file has all its copies."""
        state, walk = self._state, self._walking
        last = walk.summary.under_replicated if walk is not None else state.under_replicated
        return {
            "under_replicated": last + len(self._lacking),
            "damaged": state.damaged,
            "state": self._what_it_does(),
            "finished": int(state.finished),
            "walked": walk.summary.keys if walk is not None else 0,
            "copies_written": self._copies_written + (walk.summary.copies_written if walk is not None else 0),
        }

    def _what_it_does(self) -> str:
        if self._state.paused_until > self._now():
            return "paused"
        if self._walking is not None:
            return "walking"
        return "another front walks" if self._state.until > self._now() else "resting"

    def _now(self) -> float:
        """In seconds, as the state's times are."""
        return self._cluster.now() / 1e6

    async def _go_on(self, step: Callable[[], Awaitable[None]], pause: float) -> None:
        """``step`` again and again; whatever goes wrong is logged, and tried again."""
        while True:
            await asyncio.sleep(pause * random.uniform(0.75, 1.0))  # so that many fronts don't look in step
            try:
                await step()
            except Unavailable as error:
                log.info("repair waits: %s", error)
            except Exception:
                log.exception("repair goes on after an error of its own")

    # --- what is known to be lacking ---

    async def _heal(self) -> None:
        """Bring home what can be brought home now."""
        topology = self._cluster.topology
        ready = self._lacking.take(AT_ONCE, lambda key: all(not node.away for node in topology.place(key).owners))
        pace, keys = Pace(HEALING), iter(ready)

        async def work() -> None:
            for key in keys:
                is_home = False
                try:
                    async with pace.step():
                        if self._cluster.topology is topology:
                            is_home = await self._bring_home(key, topology)
                finally:
                    self._lacking.done(key, still_lacks=not is_home)

        await asyncio.gather(*(work() for _ in range(TOGETHER)))

    async def _bring_home(self, key: bytes, topology: Topology) -> bool:
        """Whether all copies of the key are where they belong then."""
        summary, nodes = Summary(), topology.nodes.values()
        # It looks at the spares too, as if they had told of the key: one of them may have taken a copy.
        told = [Told(node, Listed(key, b"", UNKNOWN, UNKNOWN)) for node in topology.place(key).spares]
        walk = Walk(nodes, Pace())
        await Turn(key, told, topology, walk, summary, tombstone_ttl=self._tombstone_ttl, whole=False).run()
        self._copies_written += summary.copies_written
        return not (summary.under_replicated or summary.strays_left)

    # --- walks ---

    async def _look(self) -> None:
        """Walk if it is time to, and nobody else does."""
        topology = self._cluster.topology
        if topology.quorum.copies == 1:
            return
        self._state = await lease.read(self._cluster)
        if any(node.away for node in topology.nodes.values()):
            self._was_away = True
            return
        back = self._was_away and not self._state.well  # what was left may have been left for that
        self._urgent = back or self._lacking.overflown or bool(await missing_marks(topology.nodes.values()))
        if not self._is_time(self._state):
            return
        claimed = await lease.change(self._cluster, self._front, self._claim)
        if claimed is not None:
            self._state = claimed
            await self._walk(topology)

    def _is_time(self, state: State) -> bool:
        now = self._now()
        if state.paused_until > now or (state.until > now and state.holder != self._front):
            return False
        return self._urgent or now - state.finished > (self._interval if state.well else AGAIN)

    def _claim(self, state: State) -> State | None:
        if not self._is_time(state):
            return None
        return msgspec.structs.replace(state, holder=self._front, until=self._now() + LEASE)

    async def _walk(self, topology: Topology) -> None:
        """Until all is walked over, or the nodes have changed, or another front has taken it over."""
        self._lacking.overflown = self._was_away = False
        self._walking = Repair(topology, tombstone_ttl=self._tombstone_ttl, share=self._share)
        running = asyncio.create_task(self._walking.run())
        # What is a stray by the nodes of before may be at home by those of now: it must not be removed any more.
        changed = asyncio.create_task(self._cluster.changed.wait())
        either = [running, changed]
        try:
            while self._cluster.topology is topology:
                done, _ = await asyncio.wait(either, timeout=LOOK, return_when=asyncio.FIRST_COMPLETED)
                if done or not await self._holds_on(self._walking):
                    break
            if running.done():
                await self._finish(running.result())
        finally:
            for task in either:
                task.cancel()
            await asyncio.wait(either)
            self._copies_written += self._walking.summary.copies_written
            self._walking = None

    async def _holds_on(self, walking: Repair) -> bool:
        """Say that this front goes on, and pause or resume as is asked for; False if it isn't its turn any more."""

        def renew(state: State) -> State | None:
            ours = state.holder == self._front
            return msgspec.structs.replace(state, until=self._now() + LEASE) if ours else None

        try:
            state = await lease.change(self._cluster, self._front, renew)
        except Unavailable:  # a node is away: the walk has its own patience with that
            return True
        if state is None:
            return False
        self._state = state
        (walking.pace.pause if state.paused_until > self._now() else walking.pace.resume)()
        return True

    async def _finish(self, summary: Summary) -> None:
        def note(state: State) -> State:
            return msgspec.structs.replace(
                state,
                until=0.0,
                finished=self._now(),
                well=summary.well,
                under_replicated=summary.under_replicated,
                damaged=summary.damaged_keys,
            )

        log.info(
            "repair has walked over %s keys in %.0f s: %s copies were written, %s files still lack one, %s are damaged",
            summary.keys, summary.seconds, summary.copies_written, summary.under_replicated, summary.damaged_keys,
        )  # fmt: skip
        self._was_away = bool(summary.away)
        self._state = await lease.change(self._cluster, self._front, note) or self._state
