"""From stage to stage, when nodes come and go by themselves: what an operator does by hand for ``storage.joining``.

Every front waits until all must know the present stage: until every node has it, and twice the time has passed in which
each front reads it. Then one of them moves what is to be moved, as ``sfss rebalance`` does, and when all is well the
next stage begins. That several may move at once, or be stopped anywhere, does no harm; that a stage has ended is
noted under a condition.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable

from sfss.cluster.apart import check_apart
from sfss.cluster.members import Members
from sfss.cluster.repair import Repair
from sfss.cluster.replication import Cluster
from sfss.cluster.rounds import Rounds, Walking
from sfss.cluster.summary import Summary
from sfss.cluster.sweeping.sweep import Sweep
from sfss.errors import SfssError
from sfss.membership import Roll, State, moved, settled, tidied

log = logging.getLogger("sfss.members")

LEASE = b"#sfss/growth"
_EVERY = 5.0  # seconds between two looks whether there is something to do


class Growing:
    """What one front does for it, behind what it serves."""

    def __init__(
        self,
        cluster: Cluster,
        members: Members,
        *,
        tombstone_ttl: int,
        share: float = 1.0,
        upload_time: float = 86400.0,
        copies_of: Callable[[str], int] = lambda _: 1,
    ) -> None:
        """``share`` of the time for moving; the others as of a repair and a sweep."""
        self._cluster = cluster
        self._members = members
        self._wait = 2 * members.refresh

        def rebalance() -> Walking:
            repair = Repair(cluster.topology, tombstone_ttl=tombstone_ttl, share=share, moving_only=True)
            if not cluster.topology.leaving:
                return repair
            sweep = Sweep(cluster, upload_time=upload_time, copies_of=copies_of, share=share, summary=repair.summary)
            return _Both(repair, sweep)

        self._rounds = Rounds(cluster, LEASE, secrets.randbits(32), rebalance, interval=self._wait, again=self._wait)
        self._urgent_for: Roll | None = None  # the stage for which a walk was asked for at once
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin. To be called in the event loop."""
        self._task = asyncio.create_task(self._go_on(), name="nodes that come and go")

    async def close(self) -> None:
        """Stop where it is: another front goes on, or this one at its next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def status(self) -> dict[str, str]:
        """What goes on with those that come and go by themselves: ``state``, a word of ``Roll.doing``, and figures."""
        walking = self._rounds.walking
        summary = walking.summary if walking is not None else Summary()
        return {
            "state": self._members.roll.doing,
            "walked": str(summary.keys),
            "listed": str(summary.listed),
            "items": str(self._rounds.items if walking is not None else 0),
            "copies_written": str(summary.copies_written),
            "strays_removed": str(summary.strays_removed),
            "seconds": f"{summary.seconds:.0f}",
        }

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(min(_EVERY, self._members.refresh) * random.uniform(0.75, 1.0))
            try:
                await self.step()
            except SfssError as error:
                log.info("nodes that come and go wait: %s", error)
            except Exception:
                log.exception("nodes that come and go wait, for there is an error in sfss")

    async def step(self) -> None:
        """Do what can be done now. Raises Unavailable, Unsupported."""
        roll = self._members.roll
        if self._members.plan.moving or (roll.settled and not roll.moving and not roll.untidy):
            return
        if not roll.settled:
            if self._members.everywhere and time.monotonic() - self._members.since >= self._wait:
                await self._change(roll, settled)
            return
        topology = self._cluster.topology
        if any(node.away for node in topology.nodes.values()):
            return
        if await self._has_moved(roll):
            await self._change(roll, moved if roll.moving else tidied)

    async def _has_moved(self, roll: Roll) -> bool:
        """Move what is to be moved, if nobody else does; whether all is where it belongs."""
        topology, rounds = self._cluster.topology, self._rounds
        check_apart(topology.nodes.values())
        await rounds.read()
        if self._urgent_for != roll:
            self._urgent_for = roll
            rounds.urgent = True
        if not await rounds.claim():
            return False
        log.info("files are being moved: %s", _words(roll))
        summary = await rounds.walk(topology)
        if summary is None:
            return False
        log.info(
            "%s files were copied, %s copies removed, in %.0f s: %s", summary.repaired, summary.strays_removed,
            summary.seconds, "all is where it belongs" if summary.well else "something is left, it is tried again",
        )  # fmt: skip
        return summary.well

    async def _change(self, roll: Roll, make: Callable[[Roll], Roll]) -> None:
        """End the stage, if it is still this one."""
        new = await self._members.change(lambda there: make(there) if there == roll else there)
        if new.moving != roll.moving:
            log.info("now on the ring: %s", _words(new))


class _Both:
    """Two walks, one behind the other, that add to one summary."""

    def __init__(self, first: Repair, second: Sweep) -> None:
        self.summary = first.summary
        self.pace = first.pace
        self._first = first
        self._second = second

    async def run(self) -> Summary:
        """Both, once."""
        await self._first.run()
        self.pace = self._second.pace
        return await self._second.run()


def _words(roll: Roll) -> str:
    """Who is what."""
    return (
        "; ".join(
            f"{state.value}: {', '.join(node.name for node in roll.of(state))}" for state in State if roll.of(state)
        )
        or "no node that has announced itself"
    )
