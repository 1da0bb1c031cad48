"""How evenly the ring spreads keys, and how many of them move when one node joins. Takes seconds, needs no servers.

    python -m benchmarks.placement

*least*, *most* and *deviation* (standard deviation) are shares of the mean number of keys to a node. *moved* is the
share of all keys whose owner is another one after a node has joined; at best it is 1/(N+1).
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from sfss.cluster.ring import Ring
from sfss.paths import key_of

KEYS = [key_of(f"photos/2026/{n:06}.jpg") for n in range(100_000)]
SIZES = (3, 6, 12, 24)
NAMINGS: dict[str, Callable[[int], str]] = {
    "embedded-N": lambda n: f"embedded-{n}",
    "10.0.0.N:7900": lambda n: f"10.0.0.{n + 1}:7900",
    "N.example:11211": lambda n: f"node{n}.example:11211",
}


class Spread(NamedTuple):
    """All but ``strays`` in percent."""

    least: float  # keys of the emptiest node, of the mean
    most: float
    deviation: float
    moved: float  # keys with another owner when one more node is there, of all keys
    ideal: float
    strays: int  # of those, keys that went to another node than the new one; promised to be 0


def owners(nodes: list[str], keys: list[bytes]) -> list[str]:
    """The first owner of each key."""
    ring = Ring(nodes)
    return [ring.owners(key)[0] for key in keys]


def measure(count: int, name: Callable[[int], str], keys: list[bytes]) -> Spread:
    """The spread over ``count`` nodes, and what the next one moves."""
    nodes = [name(n) for n in range(count)]
    joining = name(count)
    before, after = owners(nodes, keys), owners([*nodes, joining], keys)
    mean = len(keys) / count
    loads = Counter(before)
    shares = [100 * loads[node] / mean for node in nodes]
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    return Spread(
        least=min(shares),
        most=max(shares),
        deviation=statistics.pstdev(shares),
        moved=100 * len(moved) / len(keys),
        ideal=100 / (count + 1),
        strays=sum(node != joining for node in moved),
    )


def main() -> None:
    """Print the table."""
    print(f"{len(KEYS):,} keys; least, most and deviation in % of the mean")
    print("names             nodes   least    most  deviation   moved  1/(N+1)  elsewhere")
    for naming, name in NAMINGS.items():
        for count in SIZES:
            spread = measure(count, name, KEYS)
            print(
                f"{naming:16} {count:6} {spread.least:7.1f} {spread.most:7.1f} {spread.deviation:10.1f}"
                f" {spread.moved:6.1f}% {spread.ideal:7.1f}% {spread.strays:10}"
            )


if __name__ == "__main__":
    main()
