"""The cluster that commands go by: that of the fronts, with what they have made; and word when it is another."""

from __future__ import annotations

import asyncio

import pytest

from sfss import config
from sfss.assembly import adopt_namespaces, check_clients, create_cluster, create_members, plan
from sfss.errors import ConfigError
from sfss.membership import Member, Roll, State
from sfss.paths import key_of
from sfss.registry import Registry
from sfss.standing import Made, with_made
from tests.conftest import Nodes, StartFront


@pytest.fixture
def own_nodes(empty_nodes: Nodes) -> Nodes:
    return empty_nodes


def test_a_namespace_has_its_copies_on_nodes_that_came_by_themselves_and_on_no_more_than_there_are() -> None:
    settings = config.load(overrides={"storage": {"nodes": ["seed=a:1"]}, "registration": {"enabled": True}})
    made = Made(({"name": "n", "copies": 3},), copies=3)
    lay = plan(with_made(settings, made), made).lay
    for others, copies in ((3, 3), (1, 2), (0, 1)):
        nodes = [Member(f"came-{number}", "a", 2 + number, "id", 1, state=State.MEMBER) for number in range(others)]
        assert len(lay(Roll(tuple(nodes)), {}).place(key_of("n/a")).owners) == copies


async def test_commands_go_by_namespaces_that_were_made_and_hear_of_later_ones(
    start_front: StartFront, own_nodes: Nodes
) -> None:
    front = await start_front(own_nodes, namespaces={"api": True})
    assert (await front.put("/namespaces/early", json={"layout": "raid1", "copies": 2})).status == 201
    settings = config.load(overrides={"storage": {"nodes": own_nodes}})
    cluster = create_cluster(settings)
    members, registry, heard = create_members(settings, cluster), Registry(cluster, interval=0.05), asyncio.Event()
    await members.start()
    try:
        await adopt_namespaces(cluster, members, registry, settings, heard.set)
        assert len(cluster.topology.place(key_of("early/a")).owners) == 2
        await registry.start()
        await asyncio.sleep(0.2)
        assert not heard.is_set()
        assert (await front.put("/namespaces/late", json={"layout": "raid1", "copies": 3})).status == 201
        await asyncio.wait_for(heard.wait(), 10)
    finally:
        await registry.close()
        await members.close()
        await cluster.close()


@pytest.mark.parametrize(
    "end",
    ["/abc", "/0?db=5", "/0?decode_responses=true", "/0?foo=bar", "/0?socket_timeout=x", "/0?ssl_cert_reqs=none"],
)
def test_the_url_of_a_short_term_store_says_what_one_of_a_node_may_say_and_nothing_else(end: str) -> None:
    policy = {"prefix": "b/", "write_behind": f"redis://:verysecret@h:6379{end}"}
    settings = config.load(overrides={"policy": [policy]})
    with pytest.raises(ConfigError, match=r"^write_behind: ") as told:
        check_clients(settings)
    assert "verysecret" not in str(told.value)


def test_that_of_one_over_tls_with_a_password_is_fine() -> None:
    url = "rediss://user:secret@h/3?ssl_cert_reqs=none"
    check_clients(config.load(overrides={"policy": [{"prefix": "b/", "write_behind": url}]}))
