"""The roll of nodes that have announced themselves: what is kept of each, and how the roll may change. Pure.

It goes through *stages*, and a stage never follows another before all fronts know that one: then of two fronts that
know different stages, they are neighbours, which see each other's writes (``cluster/topology.py``). A node that joins
is *joining* until what moves to it has been moved, then a *member*; one that leaves is *leaving*, and then no more.
"""

from __future__ import annotations

import enum
import math
import re
import statistics
from collections.abc import Iterable, Sequence

import msgspec

from sfss.addresses import Address

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
# A weight counts quarters: 4 is a node like the others. Few steps, so that nodes that are nearly alike are alike.
USUAL = 4
STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class State(enum.StrEnum):
    """What a node is, on its way."""

    JOINING = "joining"
    MEMBER = "member"
    LEAVING = "leaving"


class Member(msgspec.Struct, frozen=True):
    """A node that has announced itself. ``id`` is its data directory's; ``capacity`` in bytes, when it joined."""

    name: str
    host: str
    port: int
    id: str
    capacity: int
    weight: int = USUAL
    state: State = State.JOINING

    @property
    def address(self) -> Address:
        return Address(self.host, self.port, self.name)


class Roll(msgspec.Struct, frozen=True):
    """All of them. The defaults are what holds where none ever came."""

    nodes: tuple[Member, ...] = ()
    settled: bool = True  # every front knows this stage
    untidy: bool = False  # copies are left where they no longer belong

    @property
    def doing(self) -> str:
        """What goes on for those that come and go, in a word."""
        if not self.settled:
            return "telling"  # all fronts
        return "moving" if self.moving else "tidying" if self.untidy else "nothing"

    def get(self, name: str) -> Member | None:
        """The one of that name."""
        return next((node for node in self.nodes if node.name == name), None)

    def of(self, state: State) -> Sequence[Member]:
        """Those in that state."""
        return [node for node in self.nodes if node.state is state]

    @property
    def moving(self) -> bool:
        """Whether some join or leave."""
        return any(node.state is not State.MEMBER for node in self.nodes)

    @property
    def is_open(self) -> bool:
        """Whether nodes may begin to join or leave now.

        Also while others just do: all who know one of these stages, or the one before them, know the same old ring.
        """
        return self.settled or self.moving


def joined_by(roll: Roll, node: Member) -> Roll:
    """One more joins."""
    return msgspec.structs.replace(roll, nodes=(*roll.nodes, node), settled=False)


def left_by(roll: Roll, name: str) -> Roll:
    """One begins to leave; one that hadn't become a member yet, too, for files may lie there already."""
    nodes = tuple(
        msgspec.structs.replace(node, state=State.LEAVING) if node.name == name else node for node in roll.nodes
    )
    return msgspec.structs.replace(roll, nodes=nodes, settled=False)


def moved_to(roll: Roll, name: str, address: Address, id: str) -> Roll:
    """One answers elsewhere now. That is no stage: its name places the files, and stays."""
    nodes = tuple(
        msgspec.structs.replace(node, host=address.host, port=address.port, id=id) if node.name == name else node
        for node in roll.nodes
    )
    return msgspec.structs.replace(roll, nodes=nodes)


def settled(roll: Roll) -> Roll:
    """All fronts know it."""
    return msgspec.structs.replace(roll, settled=True)


def moved(roll: Roll) -> Roll:
    """Everything is where it belongs by the new ring: who joined is a member, who left is gone."""
    nodes = tuple(
        msgspec.structs.replace(node, state=State.MEMBER) for node in roll.nodes if node.state is not State.LEAVING
    )
    return Roll(nodes=nodes, settled=False, untidy=True)


def tidied(roll: Roll) -> Roll:
    """Nothing is left where it doesn't belong."""
    return msgspec.structs.replace(roll, untidy=False)


def on_ring(name: str) -> str:
    """A node's name as the ring has it, which leaves memcached's own port out."""
    return name.removesuffix(":11211")


def weight_for(capacity: int, others: Iterable[tuple[int, int]]) -> int:
    """The weight of a node beside ``others``, of which the capacity in bytes and the weight are given."""
    shares = [size * USUAL / weight for size, weight in others if size > 0]
    if not shares or capacity <= 0:
        return USUAL
    wanted = USUAL * capacity / statistics.median(shares)
    return min(STEPS, key=lambda step: abs(math.log(step / wanted)))
