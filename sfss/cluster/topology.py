"""Which nodes keep which key, by one configuration: immutable, so that whatever has begun goes on with it.

While nodes join or leave there are two rings: the old one, of those that stay and those that leave, and the new one, of
those that stay and those that join. A key whose owners differ has a *group* of each, and what holds of a quorum holds
of both groups: a write has its quorum in each, and so has a read. So the fronts that know the old ring only, those that
know both, and later those that know the new ring only see each other's writes, as long as the first and the last kind
aren't there at the same time (``docs/operations/growing.rst``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sfss.backends.base import Backend
from sfss.cluster.ring import Ring

SPARES = 2  # nodes behind the owners that may take a copy in place of one that is away


class Quorum(NamedTuple):
    """How many copies there are, and how many of them a write and a read need."""

    copies: int
    write: int
    read: int

    @property
    def sees_all(self) -> bool:
        """Whether every read sees every write that was acknowledged before it."""
        return self.read + self.write > self.copies

    @property
    def seen(self) -> int:
        """How many owners must have a version so that every read sees it."""
        return self.copies - self.read + 1


ONE_COPY = Quorum(1, 1, 1)


class Group(NamedTuple):
    """A key's nodes by one ring."""

    owners: Sequence[Backend]
    spares: Sequence[Backend]


class Place(NamedTuple):
    """Where a key's copies lie. ``owners`` and ``spares`` are those of all groups, no node twice."""

    quorum: Quorum
    groups: Sequence[Group]  # the new ring's first; one only, unless the key moves
    owners: Sequence[Backend]
    spares: Sequence[Backend]
    joining: Sequence[Backend]  # the nodes, of all keys, that are being filled
    only: Backend | None  # the one node that has the key's only copy, if that is so

    @property
    def deciders(self) -> Sequence[Backend]:
        """Who decides about conditions, one after the other: by the old ring, then by the new one.

        Of each it is the first owner that can; the first, if none can. Of one that was never connected to it isn't
        known: it is asked, and fails.
        """
        return list(dict.fromkeys(_decider(group) for group in reversed(self.groups)))


def _decider(group: Group) -> Backend:
    able = (node for node in group.owners if node.capabilities is None or node.capabilities.cas)
    return next(able, group.owners[0])


class Topology:
    """The nodes and the rings."""

    def __init__(
        self,
        nodes: Iterable[Backend],
        quorum: Quorum = ONE_COPY,
        *,
        joining: Iterable[Backend] = (),
        leaving: Iterable[Backend] = (),
    ) -> None:
        """``nodes`` stay; none of them joins or leaves. There are at least ``quorum.copies`` in the new ring."""
        staying, joining, leaving = list(nodes), list(joining), list(leaving)
        self.nodes: Mapping[str, Backend] = {node.address.name: node for node in (*staying, *joining, *leaving)}
        self.quorum = quorum
        self.joining: Sequence[Backend] = joining
        self.leaving: Sequence[Backend] = leaving
        count = 1 if quorum.copies == 1 else quorum.copies + SPARES
        self._ring = Ring([node.address.name for node in (*staying, *joining)], count)
        self._old = self._ring
        if joining or leaving:
            old = [node.address.name for node in (*staying, *leaving)]
            self._old = Ring(old, count) if old else self._ring
        self._places: dict[tuple[tuple[str, ...], ...], Place] = {}

    @property
    def moving(self) -> bool:
        """Whether nodes join or leave."""
        return self._old is not self._ring

    def place(self, key: bytes) -> Place:
        """Where the copies of what lies under ``key`` belong."""
        names: tuple[tuple[str, ...], ...] = (self._ring.owners(key),)
        if self._old is not self._ring and (old := self._old.owners(key)) != names[0]:
            names = (*names, old)
        place = self._places.get(names)
        if place is None:
            place = self._places[names] = self._make(names)
        return place

    def _make(self, rings: Sequence[Sequence[str]]) -> Place:
        copies = self.quorum.copies
        nodes = [[self.nodes[name] for name in names] for names in rings]
        groups = [Group(row[:copies], row[copies:]) for row in nodes]
        if self.quorum.sees_all and {*groups[0].owners} == {*groups[-1].owners}:
            groups = groups[:1]  # only the spares differ, and they don't count
        owners = list(dict.fromkeys(node for group in groups for node in group.owners))
        spares = dict.fromkeys(node for group in groups for node in group.spares if node not in owners)
        only = owners[0] if copies == 1 and len(owners) == 1 else None
        return Place(self.quorum, groups, owners, list(spares), self.joining, only)
