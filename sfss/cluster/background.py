"""Repair that goes on behind a front: of files that are known to lack a copy, and at times a walk over all of them.

What a write could not bring to an owner is noted (``Copies.lacking``), and brought there when the owner is back: soon,
without a walk. What nobody has noted, as after a front has died, or a node was emptied, a walk finds (``rounds.py``),
which comes sooner if more was lacking than could be noted. The blocks of large files are swept over likewise, more
often, and with a single copy, too: what nobody has any more must go. Both wait while a node is away.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence

from sfss.backends.base import Listed
from sfss.cluster import lease, rounds
from sfss.cluster.apart import check_apart
from sfss.cluster.pace import Pace
from sfss.cluster.repair import Repair
from sfss.cluster.replication import Cluster
from sfss.cluster.rounds import Rounds
from sfss.cluster.summary import Summary
from sfss.cluster.sweeping.sweep import Sweep
from sfss.cluster.topology import Topology
from sfss.cluster.turn import Turn
from sfss.cluster.walk import UNKNOWN, Told, Walk
from sfss.cluster.wholeness import lack_marks
from sfss.errors import Unavailable

log = logging.getLogger("sfss.repair")

HEAL = 1.0  # seconds between two looks at what is lacking ...
AT_ONCE = 1000  # ... of which so many keys have their turn then, ...
TOGETHER = 4  # ... so many at a time ...
HEALING = 0.5  # ... and for that share of the time


class Background:
    """The repairing of one front. Intervals in seconds; ``share`` of the time for walks, above 0, up to 1."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        interval: float,
        share: float,
        tombstone_ttl: int,
        sweep_interval: float = 3600.0,
        upload_time: float = 86400.0,
        copies_of: Callable[[str], int] = lambda _: 1,
    ) -> None:
        """``upload_time`` and ``copies_of``: as of a sweep."""
        self._cluster = cluster
        self._lacking = cluster.lacking
        self._tombstone_ttl = tombstone_ttl
        self._was_away = False  # a node, since the last walk began
        self._healed = 0  # copies written without a walk
        front = secrets.randbits(32)

        def repair() -> Repair:
            return Repair(cluster.topology, tombstone_ttl=tombstone_ttl, share=share)

        def sweep() -> Sweep:
            return Sweep(cluster, upload_time=upload_time, copies_of=copies_of, share=share)

        self._walks = Rounds(cluster, lease.KEY, front, repair, interval=interval, again=rounds.AGAIN)
        self._sweeps = Rounds(cluster, lease.SWEEP, front, sweep, interval=sweep_interval, again=10 * rounds.AGAIN)
        self._tasks: Sequence[asyncio.Task[None]] = ()

    def start(self) -> None:
        """Begin. To be called in the event loop."""
        self._tasks = [
            asyncio.create_task(self._go_on(self._heal, HEAL), name="healing"),
            asyncio.create_task(self._go_on(self._look, rounds.LOOK), name="repair in the background"),
            asyncio.create_task(self._go_on(self._sweep, rounds.LOOK), name="sweep in the background"),
        ]

    async def close(self) -> None:
        """Stop where it is: the next walk, of this front or another, goes over all again."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def status(self) -> dict[str, object]:
        """What is known of the health of all files. ``under_replicated`` is 0 when every file has all its copies.

        ``lacking`` of them are those that this front knows of without a walk. ``listed`` of the ``items`` that the
        nodes had when the walk began have been looked at.

        What is said of sweeps is about the blocks of large files.
        """
        walks, sweeps = self._walks, self._sweeps
        walk, last = walks.walking, walks.state.under_replicated
        return {
            "lacking": len(self._lacking),
            "under_replicated": (walk.summary.under_replicated if walk is not None else last) + len(self._lacking),
            "damaged": walks.state.damaged,
            "state": walks.doing,
            "finished": int(walks.state.finished),
            "walked": walk.summary.keys if walk is not None else 0,
            "listed": walk.summary.listed if walk is not None else 0,
            "items": walks.items if walk is not None else 0,
            "copies_written": self._healed + walks.total("copies_written"),
            "sweep_state": sweeps.doing,
            "sweep_finished": int(sweeps.state.finished),
            "blocks_lacking": sweeps.state.under_replicated,
            "blocks_copied": sweeps.total("blocks_copied"),
            "stripes_swept": sweeps.total("stripes_swept"),
            "bytes_freed": sweeps.total("bytes_freed"),
            "uploads_open": sweeps.state.uploads_open,
        }

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
        check_apart(topology.nodes.values())
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
        self._healed += summary.copies_written
        return not (summary.under_replicated or summary.strays_left)

    # --- walks ---

    async def _look(self) -> None:
        """Walk if it is time to, and nobody else does."""
        topology, walks = self._cluster.topology, self._walks
        if topology.copies == 1:
            return
        check_apart(topology.nodes.values())
        await walks.read()
        if any(node.away for node in topology.nodes.values()):
            self._was_away = True
            return
        back = self._was_away and not walks.state.well  # what was left may have been left for that
        walks.urgent = back or self._lacking.overflown or await lack_marks(topology.nodes.values())
        if await walks.claim():
            self._lacking.overflown = self._was_away = False
            await self._walk(topology)

    async def _walk(self, topology: Topology) -> None:
        summary = await self._walks.walk(topology)
        if summary is None:
            return
        log.info(
            "repair has walked over %s keys in %.0f s: %s copies were written, %s files still lack one, %s are damaged",
            summary.keys, summary.seconds, summary.copies_written, summary.under_replicated, summary.damaged_keys,
        )  # fmt: skip
        self._was_away = bool(summary.away)
        self._sweeps.urgent |= summary.copies_written > 0  # where records were missing blocks may be, too

    async def _sweep(self) -> None:
        """Sweep if it is time to, and nobody else does. With a node away nothing could be removed."""
        topology = self._cluster.topology
        check_apart(topology.nodes.values())
        await self._sweeps.read()
        if any(node.away for node in topology.nodes.values()) or not await self._sweeps.claim():
            return
        summary = await self._sweeps.walk(topology)
        if summary is not None:
            log.info(
                "%s stripes of large files were swept over in %.0f s: %s copies of blocks were written, %s blocks still"
                " lack one, %s are lost; %s stripes were nobody's, and %s bytes were freed",
                summary.stripes, summary.seconds, summary.blocks_copied, summary.blocks_lacking, summary.blocks_lost,
                summary.stripes_swept, summary.bytes_freed,
            )  # fmt: skip
            for stripe, why in itertools.islice(summary.unsure.items(), 1):
                log.warning(
                    "of %s stripes it isn't sure whether a file has them: they stay, and the next sweep looks again;"
                    " as of %s: %s",
                    summary.stripes_unsure,
                    stripe,
                    why,
                )
