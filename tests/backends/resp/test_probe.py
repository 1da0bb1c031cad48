"""What a server is seen to be by what it tells of itself: others than the Redis that tests have, too."""

from __future__ import annotations

import pytest

from sfss.backends.resp.probe import figures, judge, parse_info, together

AOF = "aof_enabled:1"
ALWAYS = {"appendonly": "yes", "appendfsync": "always"}


def info(*lines: str) -> dict[str, str]:
    return parse_info("\r\n".join(("# Server", "redis_version:7.2.4", *lines)).encode())


@pytest.mark.parametrize(
    ("lines", "settings", "kind", "version", "durable", "evicting"),
    [
        ([AOF], ALWAYS, "redis", "7.2.4", True, False),
        ([AOF], {"appendfsync": "everysec"}, "redis", "7.2.4", False, False),
        ([AOF], None, "redis", "7.2.4", False, False),
        ([AOF], {}, "redis", "7.2.4", False, False),
        (["server_name:valkey", "valkey_version:8.0.1", AOF], ALWAYS, "valkey", "8.0.1", True, False),
        (["mvcc_depth:0", AOF], ALWAYS, "keydb", "7.2.4", True, False),
        (["kvrocks_version:2.9.0"], {"rocksdb.write_options.sync": "yes"}, "kvrocks", "2.9.0", True, False),
        (["kvrocks_version:2.9.0"], {"rocksdb.write_options.sync": "no"}, "kvrocks", "2.9.0", False, False),
        (["kvrocks_version:2.9.0"], None, "kvrocks", "2.9.0", False, False),
        (["dragonfly_version:df-v1.2"], {"maxmemory": "0"}, "dragonfly", "df-v1.2", False, False),
        ([AOF, "maxmemory:1000", "maxmemory_policy:allkeys-lfu"], ALWAYS, "redis", "7.2.4", True, True),
        ([AOF, "maxmemory:0", "maxmemory_policy:allkeys-lfu"], ALWAYS, "redis", "7.2.4", True, False),
        ([AOF, "maxmemory:1000", "maxmemory_policy:noeviction"], None, "redis", "7.2.4", False, False),
    ],
)
def test_the_worse_is_assumed_where_a_server_does_not_tell(
    lines: list[str], settings: dict[str, str] | None, kind: str, version: str, durable: bool, evicting: bool
) -> None:
    can = judge(info(*lines), settings, 1000)
    assert (can.kind, can.version, can.durable, can.evicting) == (kind, version, durable, evicting)
    assert len(can.caveats) == (not durable) + evicting
    assert can.largest_value == 1000


def test_a_cluster_promises_what_each_of_its_members_does() -> None:
    good = judge(info(AOF), ALWAYS, 1000, cluster=True)
    bad = judge(info(AOF, "maxmemory:9", "maxmemory_policy:allkeys-lru"), {"appendfsync": "no"}, 500, cluster=True)
    both = together([good, bad])
    assert (both.durable, both.evicting, both.largest_value) == (False, True, 500)
    assert both.caveats == bad.caveats
    assert together([good, good]) == good


def test_the_figures_of_a_cluster_are_added_up() -> None:
    one = info("db0:keys=3,expires=0,avg_ttl=0", "used_memory:100", "cmdstat_get:calls=7,usec=9", "executable:")
    assert figures([one], 0)["curr_items"] == "3"
    assert figures([one], 0)["db0_avg_ttl"] == "0"
    assert figures([one], 0)["executable"] == ""
    assert "limit_maxbytes" not in figures([info("maxmemory:0")], 0), "that is no bound"
    assert figures([info("maxmemory:7")], 0)["limit_maxbytes"] == "7"
    both = figures([one, one], 0)
    assert (both["curr_items"], both["bytes"], both["cmd_get"], both["members"]) == ("6", "200", "14", "2")
