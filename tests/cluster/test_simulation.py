"""The simulation of a large cluster: what it adds up by arcs is what the ring says of each key."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import simulation
from benchmarks.simulation import COPIES, GB, key, names, seconds
from sfss.cluster.ring import Ring

ROOT = Path(__file__).resolve().parents[2]
KEYS = 20_000
NODES = 12
NOW, GROWN, SHRUNK = names(NODES), names(NODES + 1), names(NODES)[1:]

Owners = list[tuple[str, ...]]


@functools.cache
def _owners(*nodes: str) -> Owners:
    """Of each key, as the ring tells them."""
    ring = Ring(nodes, COPIES)
    return [ring.owners(key(number)) for number in range(KEYS)]


@pytest.fixture(scope="module")
def simulated() -> simulation.Simulation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "_CHUNK", 7_000)  # so that there are several, the last of them shorter
        ends = simulation.arcs(Ring(names(3 * NODES)))
        return simulation.simulate(NODES, ends, simulation.count(ends, KEYS, processes=2))


def test_every_key_counts_for_its_first_owner_and_for_all(simulated: simulation.Simulation) -> None:
    now = _owners(*NOW)
    for found, owners in (
        (simulated.first, Counter(nodes[0] for nodes in now)),
        (simulated.copies, Counter(node for nodes in now for node in nodes)),
    ):
        mean = owners.total() / NODES
        assert found.mean == mean
        assert (found.least, found.most) == (100 * min(owners.values()) / mean, 100 * max(owners.values()) / mean)
    assert simulated.sets == len({frozenset(nodes) for nodes in now})


@pytest.mark.parametrize(("change", "nodes"), [("joins", GROWN), ("leaves", SHRUNK)])
def test_what_moves_is_what_has_another_owner(simulated: simulation.Simulation, change: str, nodes: list[str]) -> None:
    found: simulation.Moved = getattr(simulated, change)
    pairs = list(zip(_owners(*NOW), _owners(*nodes), strict=True))
    assert found.first == pytest.approx(100 * sum(old[0] != new[0] for old, new in pairs) / KEYS)
    assert found.copies == pytest.approx(100 * sum(len({*new} - {*old}) for old, new in pairs) / KEYS / COPIES)


def test_a_lost_nodes_keys_are_with_their_other_owners_and_go_to_the_next(simulated: simulation.Simulation) -> None:
    lost = NOW[0]
    pairs = [(old, new) for old, new in zip(_owners(*NOW), _owners(*SHRUNK), strict=True) if lost in old]
    loss = simulation.Loss(
        sources=Counter(node for old, _ in pairs for node in old if node != lost),
        first=Counter(next(node for node in old if node != lost) for old, _ in pairs),
        targets=Counter(node for old, new in pairs for node in {*new} - {*old}),
    )
    assert loss in simulated.losses
    assert len(simulated.losses) == NODES


def test_only_the_node_that_joins_or_leaves_moves_keys(simulated: simulation.Simulation) -> None:
    assert simulated.broken() == 0


@pytest.mark.parametrize(
    ("before", "after", "first", "copies"),
    [
        ("abc", "jab", 0, 0),  # j joins
        ("abc", "ajb", 0, 0),
        ("jab", "abc", 0, 0),  # j leaves
        ("abc", "bac", 5, 0),
        ("abc", "abd", 0, 5),
        ("abc", "jde", 0, 10),
        ("abc", "def", 5, 15),
    ],
)
def test_a_key_that_moves_between_nodes_that_stay_is_a_stray(before: str, after: str, first: int, copies: int) -> None:
    found = simulation.moved([tuple(before)], [tuple(after)], [5], "j")
    assert (found.first_strays, found.copies_strays) == (first, copies)


def test_time_is_bytes_through_the_busiest_node() -> None:
    assert simulation.busiest(Counter(a=1, b=2, c=5)) == 5 / 8
    assert seconds(100 * GB, 1) == 800
    assert seconds(1000 * GB, 10, 0.02) == 16


def test_it_runs_and_prints_its_tables() -> None:
    command = [sys.executable, "-m", "benchmarks.simulation", "--keys", "5000", "--nodes", "20", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ":Keys: 5,000, hashed" in done.stdout
    assert done.stdout.count("\n\n=") == 6
