"""The ring: it finds each key where libmemcached puts it, and spreads and moves keys as ketama promises."""

from __future__ import annotations

import contextlib
import random
import re
from collections import Counter
from collections.abc import Iterator

import pylibmc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymemcache.client.base import Client
from uhashring import HashRing

from benchmarks.placement import KEYS, measure
from sfss.cluster.ring import Ring
from sfss.paths import key_of
from tests.servers import HOST, memcached, wait_for

NAMES = [f"10.0.0.{n}:7900" for n in range(1, 13)]
PATHS = [f"файлы/猫 {n}%/{n * 7919:x}.jpg" if n % 2 else f"photos/{n}.jpg" for n in range(2000)]

ordinary = settings(deadline=None, max_examples=100)


# --- against the real library and real servers ---


def _client(node: str) -> Client:
    host, _, port = node.rpartition(":")
    return Client((host, int(port)), timeout=5)


def _has_started(node: str) -> bool:
    with contextlib.suppress(OSError), contextlib.closing(_client(node)) as client:
        return bool(client.version())
    return False


@contextlib.contextmanager
def _on_memcacheds_own_port() -> Iterator[str]:
    """A memcached on port 11211, of a loopback address that nobody else is likely to use."""
    host = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(2, 254)}"
    with memcached(host=host, port=11211):
        wait_for(lambda: _has_started(f"{host}:11211"), what="memcached on port 11211")
        yield f"{host}:11211"


@pytest.fixture(params=["five on any ports", "one of them on 11211"])
def cluster(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    own_port = request.param == "one of them on 11211"
    with contextlib.ExitStack() as stack:
        nodes = [f"{HOST}:{stack.enter_context(memcached())}" for _ in range(4 if own_port else 5)]
        # libmemcached leaves this port out of the name that it hashes.
        yield [*nodes, stack.enter_context(_on_memcacheds_own_port())] if own_port else nodes


def test_every_key_lies_where_libmemcached_puts_it(cluster: list[str]) -> None:
    keys = [key_of(path) for path in PATHS]
    libmemcached = pylibmc.Client(cluster, behaviors={"ketama_weighted": True})
    for key in keys:
        assert libmemcached.set(key.decode(), b"x")
    ring = Ring(cluster)
    for node in cluster:
        with contextlib.closing(_client(node)) as client:
            there = set(client.get_many(keys))
        assert there == {key for key in keys if ring.owners(key) == (node,)}
        assert there, f"{node} has none of {len(keys)} keys: that can't be right"


@pytest.mark.parametrize("weights", [(4, 4, 4, 4, 8), (4, 6, 1, 3, 32)])
def test_every_key_lies_where_libmemcached_puts_it_by_weights(cluster: list[str], weights: tuple[int, ...]) -> None:
    keys = [key_of(path) for path in PATHS]
    told = [f"{node}:{weight}" for node, weight in zip(cluster, weights, strict=True)]
    libmemcached = pylibmc.Client(told, behaviors={"ketama_weighted": True})
    for key in keys:
        assert libmemcached.set(key.decode(), b"x")
    ring = Ring(cluster, weights=dict(zip(cluster, weights, strict=True)))
    for node in cluster:
        with contextlib.closing(_client(node)) as client:
            there = set(client.get_many(keys))
        assert there == {key for key in keys if ring.owners(key) == (node,)}


def test_the_library_that_it_is_held_against_is_set_to_ketama_over_md5() -> None:
    behaviors = pylibmc.Client([NAMES[0]], behaviors={"ketama_weighted": True}).behaviors
    assert (behaviors["hash"], behaviors["distribution"]) == ("md5", "consistent weighted")


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_it_agrees_with_uhashring(count: int) -> None:
    names = NAMES[:count]
    theirs, ours = HashRing(names, hash_fn="ketama"), Ring(names)
    for key in KEYS[:10_000]:
        assert ours.owners(key) == (theirs.get_node(key.decode()),)


@pytest.mark.parametrize("weights", [[1] * 12, [4] * 11 + [8], list(range(1, 13)), [32] + [1] * 11])
def test_it_agrees_with_uhashring_by_weights(weights: list[int]) -> None:
    by_name = dict(zip(NAMES, weights, strict=True))
    theirs = HashRing({name: {"weight": weight} for name, weight in by_name.items()}, hash_fn="ketama")
    ours = Ring(NAMES, weights=by_name)
    for key in KEYS[:10_000]:
        assert ours.owners(key) == (theirs.get_node(key.decode()),)


def test_nodes_that_are_alike_are_where_they_are_without_weights() -> None:
    assert Ring(NAMES, weights=dict.fromkeys(NAMES, 4))._owners == Ring(NAMES)._owners


@pytest.mark.parametrize(("key", "port"), [(b"/eq-1512290", 21011), (b"/eq-2563642", 21009), (b"/eq-3343395", 21015)])
def test_a_key_that_falls_on_a_point_belongs_to_it(key: bytes, port: int) -> None:
    # Seen in libmemcached 1.0 with these names. uhashring goes on to the next point: 1 key in 2**32 per point.
    names = [f"127.0.0.1:{port}" for port in range(21000, 21024)]
    assert Ring(names).owners(key) == (f"127.0.0.1:{port}",)


# --- what it promises by itself ---


@ordinary
@given(st.lists(st.sampled_from(NAMES), min_size=1, unique=True), st.integers(1, 5), st.binary(max_size=250))
def test_owners_are_distinct_nodes_and_as_many_as_there_are_copies(names: list[str], copies: int, key: bytes) -> None:
    owners = Ring(names, copies).owners(key)
    assert len(owners) == len(set(owners)) == min(copies, len(names))
    assert set(owners) <= set(names)


@ordinary
@given(st.permutations(NAMES), st.integers(1, 3), st.lists(st.binary(max_size=250), max_size=50))
def test_the_order_of_the_names_changes_nothing(names: list[str], copies: int, keys: list[bytes]) -> None:
    shuffled, ordered = Ring(names, copies), Ring(NAMES, copies)
    assert [shuffled.owners(key) for key in keys] == [ordered.owners(key) for key in keys]


def test_the_first_owner_is_the_same_however_many_copies_there_are() -> None:
    one, three = Ring(NAMES), Ring(NAMES, count=3)
    assert all(one.owners(key) == three.owners(key)[:1] for key in KEYS[:2000])


def test_where_an_owner_is_gone_the_next_one_takes_its_keys() -> None:
    gone = NAMES[4]
    whole, without = Ring(NAMES, count=3), Ring([name for name in NAMES if name != gone], count=2)
    for key in KEYS[:2000]:
        assert without.owners(key) == tuple(name for name in whole.owners(key) if name != gone)[:2]


@pytest.mark.parametrize("names", [[], ["a:1", "a:1"], ["a:11211", "a"]])
def test_without_names_of_their_own_there_is_no_ring(names: list[str]) -> None:
    with pytest.raises(ValueError, match=re.escape("a ring needs nodes, and different names for them")):
        Ring(names)


def test_names_come_back_as_they_were_given() -> None:
    names = ["a:11211", "b:11211", "embedded-0"]
    assert {owner for key in KEYS[:1000] for owner in Ring(names).owners(key)} == set(names)


# --- the figures ---

# `python -m benchmarks.placement` measured, over 100,000 keys: least and most in % of the mean, standard deviation in
# %, and the share of keys that moves when one more node joins.
#
#   names             nodes   least    most  deviation   moved  1/(N+1)
#   embedded-N            3    92.9   108.2        6.3   22.8%    25.0%
#   embedded-N            6    94.9   104.4        3.5   14.7%    14.3%
#   embedded-N           12    87.5   108.0        5.4    7.5%     7.7%
#   10.0.0.N:7900         3    90.4   111.5        8.7   25.7%    25.0%
#   10.0.0.N:7900         6    84.7   109.1        8.5   15.2%    14.3%
#   10.0.0.N:7900        12    89.1   109.1        6.5    8.1%     7.7%
#
# 160 points to a node let the load vary by 1/sqrt(160), 8 %: over 60 other sets of names the emptiest node had 76 % of
# the mean, the fullest 131 %, the deviation was 7 % on average and 15 % at most.


@pytest.mark.parametrize("name", ["embedded-{}", "10.0.0.{}:7900"])
@pytest.mark.parametrize("count", [3, 6, 12])
def test_the_load_is_spread_and_only_the_joining_node_takes_keys(count: int, name: str) -> None:
    first = 0 if name.startswith("embedded") else 1
    spread = measure(count, lambda n: name.format(n + first), KEYS)
    assert spread.least > 80
    assert spread.most < 120
    assert spread.deviation < 10
    assert spread.strays == 0
    assert 0.85 < spread.moved / spread.ideal < 1.15


def test_a_node_of_twice_the_weight_has_twice_the_keys_of_another_one() -> None:
    weights = {**dict.fromkeys(NAMES, 4), NAMES[5]: 8}
    ring = Ring(NAMES, weights=weights)
    counts = Counter(ring.owners(key)[0] for key in KEYS)
    usual = (len(KEYS) - counts[NAMES[5]]) / (len(NAMES) - 1)
    assert 1.7 < counts[NAMES[5]] / usual < 2.3


def test_two_nodes_that_share_a_point_are_in_the_same_order_whoever_is_named_first() -> None:
    one, other = "10.0.1.15:7900", "10.0.3.32:7900"  # both have the point 3698404325
    names = [one, other, *NAMES]
    rings = [Ring(names, 3), Ring(names[::-1], 3)]
    assert rings[0]._owners == rings[1]._owners
    assert len(rings[0]._positions) == 160 * len(names)
