"""What an operator looks for in the nodes, besides what they tell themselves: for ``/status`` and who draws it.

Since when each is here, or away; what it is on the ring, and how much of that is its own. It is this front's view, and
looks once a second: what lasts less than that may not be seen. A look is at what the front knows anyhow, and sends
nothing to any node; it goes on while nobody asks, for else the first who does would hear nothing of what was.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping

from sfss.cluster.replication import Cluster
from sfss.cluster.topology import Topology

EVERY = 1.0  # seconds between two looks
_WHOLE_RING = 2**32  # positions


class View:
    """Of one front's cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._since: dict[str, tuple[bool, float]] = {}  # whether it is away, and since when; by address
        self._shares: tuple[Topology | None, Mapping[str, float]] = (None, {})  # of the topology that it was last
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look. To be called in the event loop."""
        self._task = asyncio.create_task(self._look_again_and_again(), name="who is here since when")

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def nodes(self) -> dict[str, dict[str, str]]:
        """Of each node, by its address: ``name`` (on the ring), ``state``, ``share`` and ``since``.

        ``state`` is member, joining or leaving; ``share``, from 0 to 1, is how much of the ring it is the first owner
        of: the new ring, while nodes come and go. ``since``, in seconds since the epoch, is when it came or went.
        """
        self._look()
        topology, shares = self._cluster.topology, self._shares_now()
        joining, leaving = set(topology.joining), set(topology.leaving)
        return {
            str(node.address): {
                "name": name,
                "state": "joining" if node in joining else "leaving" if node in leaving else "member",
                "share": f"{shares.get(name, 0.0):.4f}",
                "since": f"{self._since[str(node.address)][1]:.0f}",
            }
            for name, node in topology.nodes.items()
        }

    def ring(self) -> dict[str, str]:
        """How many nodes have a place on it, how many copies there are of what has most, and whether files move."""
        topology = self._cluster.topology
        return {
            "nodes": str(topology.size),
            "copies": str(topology.copies),
            "moving": "yes" if topology.moving else "no",
        }

    # --- within ---

    async def _look_again_and_again(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(EVERY)

    def _look(self) -> None:
        now = time.time()
        here = {str(node.address): node.away is not None for node in self._cluster.topology.nodes.values()}
        for address in self._since.keys() - here.keys():
            del self._since[address]
        for address, is_away in here.items():
            if address not in self._since or self._since[address][0] is not is_away:
                self._since[address] = (is_away, now)

    def _shares_now(self) -> Mapping[str, float]:
        """Worked out once for each topology: a hundred nodes have 16,000 points."""
        topology = self._cluster.topology
        if self._shares[0] is not topology:
            self._shares = (topology, _shares(topology.points()))
        return self._shares[1]


def _shares(points: list[tuple[str, int]]) -> dict[str, float]:
    """How much of the ring lies before each node's points: those keys are its own."""
    found: dict[str, float] = {}
    before = points[-1][1] - _WHOLE_RING
    for name, position in points:
        found[name] = found.get(name, 0.0) + (position - before) / _WHOLE_RING
        before = position
    return found
