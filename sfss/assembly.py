"""The cluster that settings make: its nodes, their ring, how many copies.

Three things say so: the configuration, the namespaces that were made while fronts served (``standing.py``), and the
roll of nodes that have come by themselves (``cluster/members.py``). Whoever goes by one of them alone would look for
files where they are not, or take copies for too many; so this is the one place where a topology is made.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sfss import paths
from sfss.addresses import Address, parse_address
from sfss.backends.base import Backend
from sfss.cluster.copies import Counts
from sfss.cluster.members import Members, Plan
from sfss.cluster.replication import Cluster
from sfss.cluster.topology import Quorum, Topology, Unsure
from sfss.config import Rules, Settings
from sfss.errors import ConfigError, Damaged, Unavailable
from sfss.membership import USUAL, Roll, State, on_ring
from sfss.record import MAX_OVERHEAD
from sfss.registry import Registry
from sfss.standing import DOCUMENT, NOTHING, Made, with_made

if TYPE_CHECKING:  # who has no short-term store needs no Redis client
    from sfss.behind.store import ShortTerm

_NO_PATH = b"//"  # no path's key begins so
_ANY_NUMBER = 2**31  # of nodes

# By the scheme of a node's address: the module of its client, which is imported only where such a node is named; the
# client's class; and the extra that brings the packages which it needs.
_CLIENTS = {
    "memcached": ("sfss.backends.memcached", "MemcachedNode", ""),
    "redis": ("sfss.backends.redis", "RedisNode", "redis"),
    "rediss": ("sfss.backends.redis", "RedisNode", "redis"),
    "postgresql": ("sfss.backends.postgresql", "PostgresNode", "postgresql"),
}


def create_cluster(settings: Settings, counts: Counts | None = None) -> Cluster:
    """The cluster that the settings name, not connected yet."""
    topology = _topology(settings, NOTHING, Roll(), {})
    return Cluster(topology, tombstone_ttl=settings.storage.tombstone_ttl, counts=counts)


def create_members(settings: Settings, cluster: Cluster) -> Members:
    """Who is on the ring besides the nodes that the settings name; it connects the cluster when it starts."""
    return Members(cluster, plan(settings), refresh=settings.registration.refresh)


def create_parts(settings: Settings) -> tuple[Cluster, Members, Registry]:
    """For commands: the cluster; the nodes that have come by themselves, which connect it; what fronts share."""
    cluster = create_cluster(settings)
    return cluster, create_members(settings, cluster), Registry(cluster)


def plan(settings: Settings, made: Made = NOTHING) -> Plan:
    """What to make of a roll. ``settings`` have the namespaces that were ``made``, too."""
    seeds = [address.name for address in settings.nodes]
    named = [*seeds, *(address.name for address in (*settings.joining, *settings.leaving))]
    return Plan(seeds, named, settings.moving, functools.partial(_topology, settings, made))


def check_clients(settings: Settings) -> None:
    """Raises ConfigError if the package that a client needs isn't installed, or its URL can't be used.

    Of nodes, and of short-term stores.
    """
    for address in (*settings.nodes, *settings.joining, *settings.leaving):
        backend(settings, address)
    for url in settings.short_term:
        short_term(settings, url)


def backend(settings: Settings, address: Address) -> Backend:
    """A node at an address, of the kind that its scheme names; not connected yet. Raises as ``check_clients``."""
    storage = settings.storage
    return _client(address.scheme)(
        address,
        # What was stored under a larger limit than today's must still be readable.
        largest_value=max(2 * settings.limits.record_size, 2**26) + MAX_OVERHEAD,
        connect_timeout=storage.connect_timeout,
        timeout=storage.timeout,
        retry_after=storage.retry_after,
    )


def _client(scheme: str) -> Callable[..., Backend]:
    module, name, extra = _CLIENTS[scheme]
    try:
        client: Callable[..., Backend] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if not extra or package == "sfss":
            raise
        raise ConfigError(
            f"storage.nodes: {scheme}:// needs the package {package}, which is not installed: pip install"
            f" 'sfss[{extra}]'"
        ) from None
    return client


def short_term(settings: Settings, url: str) -> ShortTerm:
    """A short-term store, not connected yet. Raises ConfigError."""
    try:
        from sfss.backends.resp.access import access
        from sfss.behind.store import ShortTerm
    except ImportError as error:
        raise ConfigError(
            f"write_behind: {error.name} isn't installed, which short-term stores need: pip install 'sfss[redis]'"
        ) from None
    access(parse_address(url), "write_behind")  # its options are those of nodes, and no others
    return ShortTerm(
        url,
        timeout=settings.write_behind.timeout,
        retry_after=settings.storage.retry_after,
        max_tasks=settings.write_behind.max_tasks,
        max_bytes=settings.write_behind.max_bytes,
    )


def _topology(settings: Settings, made: Made, roll: Roll | None, known: Mapping[Address, Backend]) -> Topology:
    """Nodes that are ``known`` stay as they are, connected. Of the roll (None: it isn't known) come those not named.

    ``settings`` have the namespaces that were made, too; ``made`` tells of those besides what settings can't.
    """

    def backends(configured: Sequence[Address], state: State) -> list[Backend]:
        registered = [node.address for node in others if node.state is state]
        return [known.get(address) or backend(settings, address) for address in (*configured, *registered)]

    named = {on_ring(address.name) for address in (*settings.nodes, *settings.joining, *settings.leaving)}
    all_nodes = (roll or Roll()).nodes
    others = [node for node in all_nodes if on_ring(node.name) not in named]
    weights = {node.name: node.weight for node in all_nodes}
    nodes = backends(settings.nodes, State.MEMBER)
    joining, leaving = backends(settings.joining, State.JOINING), backends(settings.leaving, State.LEAVING)
    return (Topology if roll is not None else Unsure)(
        nodes,
        _quorum(settings.general),
        joining=joining,
        leaving=leaving,
        by_prefix=_quorums(settings, made, len(nodes) + len(joining)),
        weights={node.address.name: weights.get(node.address.name, USUAL) for node in (*nodes, *joining, *leaving)},
        welcomed=[node.name for node in others] if roll is not None and roll.settled else [],
    )


def _quorums(settings: Settings, made: Made, nodes: int) -> dict[bytes, Quorum]:
    """By the beginnings of keys."""
    general = _quorum(settings.general)
    quorums = {paths.unhashed(prefix): _fitting(_quorum(rules), nodes) for prefix, rules in settings.by_prefix.items()}
    copies = min(made.copies, nodes)
    if copies > general.copies:  # under what no path begins with: it counts for hashed keys only
        quorums[_NO_PATH] = general._replace(copies=copies)
    return quorums


def shape(settings: Settings, made: Made) -> object:
    """All that a topology is made of, but for the roll: what differs is another topology."""
    nodes = settings.nodes, settings.joining, settings.leaving
    return nodes, made.copies, _quorum(settings.general), _quorums(settings, made, _ANY_NUMBER)


def _quorum(rules: Rules) -> Quorum:
    return Quorum(rules.copies, rules.write_quorum, rules.read_quorum)


def _fitting(quorum: Quorum, nodes: int) -> Quorum:
    """What can be had of it on so many nodes: there may be fewer by now than when a namespace was made."""
    return Quorum(*(min(number, nodes) for number in quorum))


async def adopt_namespaces(
    cluster: Cluster,
    members: Members,
    registry: Registry,
    settings: Settings,
    changed: Callable[[], None] = lambda: None,
) -> Settings:
    """The settings with the namespaces that were made, by which the cluster goes from now on: for commands.

    ``changed`` is called when ``registry``, once started, sees that they are others. Raises Unavailable, Damaged if it
    can't be read which there are. Where none should be, but some are, these are heeded, too: the fronts may be set up
    in another way, and a repair that knew of fewer copies would remove some.
    """
    document = registry.document(DOCUMENT, Made, NOTHING)
    try:
        made = await registry.refresh(document)
    except (Unavailable, Damaged):
        if settings.namespaces.api:
            raise
        return settings
    finally:
        document.heeding.append(lambda _: changed())
    if made == NOTHING:
        return settings
    settings = with_made(settings, made)
    await members.reconfigure(plan(settings, made))
    return settings
