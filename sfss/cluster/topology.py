"""Which nodes keep which key, by one configuration: immutable, so that whatever has begun goes on with it.

While nodes join or leave there are two rings: the old one, of those that stay and those that leave, and the new one, of
those that stay and those that join. A key whose owners differ has a *group* of each, and what holds of a quorum holds
of both groups: a write has its quorum in each, and so has a read. So the fronts that know the old ring only, those that
know both, and later those that know the new ring only see each other's writes, as long as the first and the last kind
aren't there at the same time (``docs/operations/growing.rst``).

How many copies there are, and what a write and a read need, may differ by how a key begins: policies say so for paths.
Keys that don't tell their path, and what sfss keeps for itself, get what is asked for most (``strongest``).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sfss.backends.base import Backend
from sfss.cluster.ring import Ring
from sfss.errors import Unavailable
from sfss.prefixes import Prefixes

HASHED = b"#"  # what keys begin with that don't tell their path, and all that are no path's
_REMEMBERED = 10_000  # keys whose places are; some 2 MiB
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


def strongest(quorums: Collection[Quorum]) -> Quorum:
    """As many copies as any of them has, and no less of them for a write and a read than any asks for.

    If reads of several copies see all by one of them, or did by the strongest of some of them, they do by this one: the
    others may have come later. That a single copy is always seen isn't taken over: of the copies that another policy
    makes of such a file, not one might be away then.
    """
    copies, write, read = map(max, zip(*quorums, strict=True))
    # Two do for some: the one whose reads, and the one whose writes are the largest of these.
    pairs = [Quorum(*map(max, *pair)) for pair in itertools.combinations_with_replacement(set(quorums), 2)]
    seeing = [quorum.write for quorum in pairs if quorum.copies > 1 and quorum.sees_all]
    if seeing and read + write <= copies:
        # Larger reads, not larger writes: so they see, too, what was written before there were so many copies.
        read = copies - min(seeing) + 1
    return Quorum(copies, write, read)


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

    def counting(self, group: Group) -> Sequence[Backend]:
        """The nodes of a group whose copies count towards a quorum."""
        return group.owners if self.quorum.sees_all else [*group.owners, *group.spares]

    def suffices(self, nodes: Container[Backend], needed: int) -> bool:
        """Whether these are ``needed`` of each group. A ring that was made for fewer copies may have fewer."""
        for group in self.groups:
            if sum([node in nodes for node in self.counting(group)]) < min(needed, len(group.owners)):
                return False
        return True


def _decider(group: Group) -> Backend:
    able = (node for node in group.owners if node.capabilities is None or node.capabilities.cas)
    return next(able, group.owners[0])


class _Kept(NamedTuple):
    """How some keys are kept, and their places that have been made, by the names on the rings."""

    quorum: Quorum
    places: dict[tuple[tuple[str, ...], ...], Place]


class Topology:
    """The nodes and the rings."""

    def __init__(
        self,
        nodes: Iterable[Backend],
        quorum: Quorum = ONE_COPY,
        *,
        joining: Iterable[Backend] = (),
        leaving: Iterable[Backend] = (),
        by_prefix: Mapping[bytes, Quorum] | None = None,
        weights: Mapping[str, int] | None = None,
        welcomed: Collection[str] = (),
    ) -> None:
        """``nodes`` stay; none of them joins or leaves. The new ring has as many as there are copies, at least.

        ``by_prefix``: for the keys of paths that begin so, in the place of ``quorum``; the longest one counts.
        ``weights``: on the ring, by name; without, all are alike. ``welcomed``: of those that join, the names of those
        that every front knows, so that large files may lie there.
        """
        staying, joining, leaving = list(nodes), list(joining), list(leaving)
        self.nodes: Mapping[str, Backend] = {node.address.name: node for node in (*staying, *joining, *leaving)}
        self.quorum = quorum
        by_prefix = by_prefix or {}
        most = strongest({quorum, *by_prefix.values()})
        self.copies = most.copies  # of the keys that have most
        quorums = {**by_prefix, HASHED: most} if by_prefix else {}
        self._kept = Prefixes({prefix: _Kept(its_own, {}) for prefix, its_own in quorums.items()}, _Kept(quorum, {}))
        self.joining: Sequence[Backend] = joining
        self.leaving: Sequence[Backend] = leaving
        # What large files may not be put on, for there may be fronts that couldn't find it there.
        self.strange: Collection[Backend] = [node for node in joining if node.address.name not in welcomed]
        count = _width(most)
        self._ring = Ring([node.address.name for node in (*staying, *joining)], count, weights)
        # Most look-ups are of keys that were looked up before; a miss costs a tenth more.
        self._place = functools.lru_cache(_REMEMBERED)(self._look_up)
        self._old = self._ring
        if joining or leaving:
            old = [node.address.name for node in (*staying, *leaving)]
            self._old = Ring(old, count, weights) if old else self._ring

    @property
    def moving(self) -> bool:
        """Whether nodes join or leave."""
        return self._old is not self._ring

    @property
    def size(self) -> int:
        """How many nodes stay or join: no key has more copies."""
        return len(self.nodes) - len(self.leaving)

    def place(self, key: bytes) -> Place:
        """Where the copies of what lies under ``key`` belong."""
        return self._place(key)

    def _look_up(self, key: bytes) -> Place:
        names: tuple[tuple[str, ...], ...] = (self._ring.owners(key),)
        if self._old is not self._ring and (old := self._old.owners(key)) != names[0]:
            names = (*names, old)
        quorum, places = self._kept.of(key)
        place = places.get(names)
        if place is None:
            place = places[names] = self._make(names, quorum)
        return place

    def quorums(self, beginning: bytes) -> set[Quorum]:
        """Those of all files whose keys begin so, or would if they weren't hashed."""
        return {kept.quorum for kept in (*self._kept.under(beginning), self._kept.of(HASHED))}

    def points(self) -> list[tuple[str, int]]:
        """Those of the ring of all nodes that stay or join, each with its node's name."""
        return self._ring.points()

    def order(self, key: bytes) -> Iterator[Backend]:
        """All nodes that stay or join, from the key's point on the ring on."""
        return (self.nodes[name] for name in self._ring.order(key))

    def _make(self, rings: Sequence[Sequence[str]], quorum: Quorum) -> Place:
        copies = quorum.copies
        rows = dict.fromkeys(tuple(self.nodes[name] for name in names[: _width(quorum)]) for names in rings)
        groups = [Group(row[:copies], row[copies:]) for row in rows]
        if quorum.sees_all and {*groups[0].owners} == {*groups[-1].owners}:
            groups = groups[:1]  # only the spares differ, and they don't count
        owners = list(dict.fromkeys(node for group in groups for node in group.owners))
        spares = dict.fromkeys(node for group in groups for node in group.spares if node not in owners)
        only = owners[0] if copies == 1 and len(owners) == 1 else None
        return Place(quorum, groups, owners, list(spares), self.joining, only)


class Unsure(Topology):
    """Of a front that doesn't know which nodes there are besides those of its configuration.

    None of those has answered since the start, or it is long ago. So nothing is to be looked for, and nothing put, by
    their ring alone: all fails as while they are away, until one has told.
    """

    def place(self, key: bytes) -> Place:
        self._check()
        return super().place(key)

    def quorums(self, beginning: bytes) -> set[Quorum]:
        self._check()
        return super().quorums(beginning)

    def order(self, key: bytes) -> Iterator[Backend]:
        self._check()
        return super().order(key)

    def _check(self) -> None:
        here = [str(node.address) for node in self.nodes.values() if node.away is None]
        if here:  # else whoever is asked says better why it can't be had
            raise Unavailable(
                f"node {', '.join(here)} is being asked which other nodes there are, and hasn't told yet: try again"
            )


def _width(quorum: Quorum) -> int:
    """How many nodes a key has: owners, and spares where there are several copies."""
    return 1 if quorum.copies == 1 else quorum.copies + SPARES
