"""The ring: from a key to the nodes that own it. Pure: no network, no clock.

Ketama, point for point as libmemcached's ``ketama_weighted`` lays it (``libmemcached/hosts.cc``, ``hash.cc``), so any
libmemcached client that is told the same nodes finds each record's first owner. ``uhashring`` makes the points; here
the owners at each point are worked out once, so that a look-up is one MD5 and one bisection.

Nodes may have weights: each has its share of 40 hashes a node, four points to a hash, as libmemcached counts. So where
not all are alike one more of them changes the points of the others, too, by a little.

With 25, 47, 50 and some larger numbers of nodes, libmemcached's single-precision arithmetic loses 4 of each node's 160
points, and it finds 1 key in 40 elsewhere. That is not followed here: a node that joins would move others' keys.
"""

from __future__ import annotations

import hashlib
import itertools
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from uhashring import HashRing

_HASHES = 40  # to a node, on average
_DEFAULT_PORT = ":11211"  # libmemcached leaves memcached's own port out of the name that it hashes


class Ring:
    """Places keys on ``names``, which are distinct; the order in which they are given changes nothing."""

    def __init__(self, names: Sequence[str], count: int = 1, weights: Mapping[str, int] | None = None) -> None:
        """``count``: how many owners of a key there are; fewer if there are fewer nodes.

        ``weights`` by name, of all of them: only their ratios count.
        """
        by_ketama = {name.removesuffix(_DEFAULT_PORT): name for name in names}
        if len(by_ketama) != len(names) or not names:
            raise ValueError("a ring needs nodes, and different names for them")
        self._size = len(names)
        # One by one, for two nodes may share a point: uhashring's table of all would keep the last one's only.
        hashes = _hashes(by_ketama, weights)
        points = sorted(
            point
            for name, vnodes in hashes.items()
            for point in HashRing([name], hash_fn="ketama", vnodes=vnodes).get_points()
        )
        self._positions = [position for position, _ in points]  # sorted; 160 to a node, if all are alike
        self._owners = _owners_at([by_ketama[name] for _, name in points], min(count, len(names)))

    def owners(self, key: bytes) -> tuple[str, ...]:
        """The names of the first ``count`` distinct nodes from the key's point on."""
        at = bisect_left(self._positions, _point(key))
        return self._owners[at] if at < len(self._owners) else self._owners[0]

    def points(self) -> list[tuple[str, int]]:
        """Every point with the name of its node, round the ring."""
        return [(owners[0], position) for position, owners in zip(self._positions, self._owners, strict=True)]

    def order(self, key: bytes) -> Iterator[str]:
        """The names of all nodes, as they are met from the key's point on."""
        met: set[str] = set()
        point = _point(key)
        for at in itertools.count(bisect_left(self._positions, point)):
            if (name := self._owners[at % len(self._owners)][0]) not in met:
                met.add(name)
                yield name
            if len(met) == self._size:
                return


def _hashes(by_ketama: Mapping[str, str], weights: Mapping[str, int] | None) -> dict[str, int]:
    """How many hashes each node has."""
    if not weights:
        return dict.fromkeys(by_ketama, _HASHES)
    total = sum(weights[name] for name in by_ketama.values())
    return {hashed: max(_HASHES * len(by_ketama) * weights[name] // total, 1) for hashed, name in by_ketama.items()}


def _owners_at(names: list[str], count: int) -> list[tuple[str, ...]]:
    """For each point, the distinct names met from there on, round the ring."""
    found = []
    for start in range(len(names)):
        owners: dict[str, None] = {}
        for step in range(len(names)):
            owners[names[(start + step) % len(names)]] = None
            if len(owners) == count:
                break
        found.append(tuple(owners))
    return found


def _point(key: bytes) -> int:
    return int.from_bytes(hashlib.md5(key, usedforsecurity=False).digest()[:4], "little")
