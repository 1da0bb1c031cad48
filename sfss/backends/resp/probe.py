"""What a server tells of itself, by INFO and CONFIG GET: what it can promise, and its figures.

Where it doesn't tell, the worse is assumed: of CONFIG, which managed services forbid, most of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sfss.backends.base import Capabilities
from sfss.backends.resp.scripts import TOKEN

Info = Mapping[str, str]

# What is asked by CONFIG GET; a server that doesn't know one leaves it out.
SETTINGS = ("appendonly", "appendfsync", "maxmemory-policy", "proto-max-bulk-len", "rocksdb.write_options.sync")
_USUAL_BULK = 512 * 1024 * 1024  # bytes of a value, proto-max-bulk-len where nobody changed it

# Fields by which others than Redis are told: each has redis_version, too, the one that it is like.
_KINDS = (("valkey", "valkey_version"), ("kvrocks", "kvrocks_version"), ("dragonfly", "dragonfly_version"),
          ("keydb", "mvcc_depth"))  # fmt: skip

_SAFE = "set appendonly yes and appendfsync always"
_CAVEATS = {
    "everysec": f"may lose the files of its last second when its machine stops (appendfsync everysec): {_SAFE}",
    "no": f"may lose the files of its last half minute when its machine stops (appendfsync no): {_SAFE}",
    "off": f"keeps files in memory only, apart from snapshots, and loses them when it stops (appendonly no): {_SAFE}",
    "unknown": "doesn't tell when it writes to its disk (CONFIG GET is refused), and may lose what it acknowledges:"
    " let its user do +config|get, or ask who runs it",
    "kvrocks": "may lose its last files when its machine stops (rocksdb.write_options.sync no): set it to yes",
    "dragonfly": "keeps files in memory, apart from snapshots, and loses them when it stops",
}


def parse_info(text: bytes) -> dict[str, str]:
    """The fields of INFO's sections."""
    lines = text.decode(errors="replace").splitlines()
    pairs = (line.partition(":") for line in lines if not line.startswith("#"))
    return {name: value for name, colon, value in pairs if colon}


def judge(info: Info, settings: Info | None, largest: int, *, cluster: bool = False) -> Capabilities:
    """What a server can do, that tells this; ``settings`` are None where it doesn't tell them. ``largest`` in bytes."""
    kind = next((name for name, field in _KINDS if field in info), "redis")
    evicting = policy(info, settings) != "noeviction" and info.get("maxmemory") != "0"
    caveat = _durability(kind, info, settings)
    bulk = int((settings or {}).get("proto-max-bulk-len", _USUAL_BULK))
    caveats = [_CAVEATS[caveat]] if caveat else []
    if evicting:
        thrown = policy(info, settings)
        caveats.append(
            f"throws files away when it is full (maxmemory-policy {thrown}): set maxmemory-policy noeviction"
        )
    return Capabilities(
        kind,
        info.get(f"{kind}_version", info.get("redis_version", "")) + (", cluster" if cluster else ""),
        durable=not caveat,
        evicting=evicting,
        cas=True,
        ttl=True,
        head=True,
        scan=False,
        largest_value=min(bulk - TOKEN, largest),
        versions=True,
        caveats=tuple(caveats),
    )


def policy(info: Info, settings: Info | None) -> str:
    """What it throws away when it is full; one that doesn't know of this, none of it."""
    return info.get("maxmemory_policy") or (settings or {}).get("maxmemory-policy", "noeviction")


def together(members: Sequence[Capabilities]) -> Capabilities:
    """What a cluster can do: what each of its members can."""
    return members[0]._replace(
        durable=all(member.durable for member in members),
        evicting=any(member.evicting for member in members),
        largest_value=min(member.largest_value for member in members),
        caveats=tuple(dict.fromkeys(caveat for member in members for caveat in member.caveats)),
    )


def _durability(kind: str, info: Info, settings: Info | None) -> str:
    """Which caveat there is; empty if what it acknowledges is on its disk."""
    if kind == "dragonfly":
        return "dragonfly"
    if kind == "kvrocks":
        return "" if (settings or {}).get("rocksdb.write_options.sync") == "yes" else "kvrocks"
    if info.get("aof_enabled", "0") == "0":
        return "off"
    fsync = (settings or {}).get("appendfsync", "unknown")
    return "" if fsync == "always" else fsync if fsync in _CAVEATS else "unknown"


def figures(infos: Sequence[Info], database: int) -> dict[str, str]:
    """For people, by name: what other kinds of nodes tell, too, and by their names; then, of one server, all of INFO.

    Of several, which are a cluster, counts are added up.
    """
    first = infos[0]
    common = {
        "pid": first.get("process_id", "0"),
        "version": first.get("redis_version", ""),
        "uptime": first.get("uptime_in_seconds", "0"),
        **({"members": str(len(infos))} if len(infos) > 1 else {}),
    }
    for name, field, part in _COUNTS:
        found = (_part(info.get(field.format(database=database), ""), part) for info in infos)
        common[name] = str(sum(int(count) for count in found if count.isdigit()))
    if common["limit_maxbytes"] == "0":  # no bound; it would be taken for one
        del common["limit_maxbytes"]
    return {**(_flat(first) if len(infos) == 1 else {}), **common}


# What is counted of each server: our name, INFO's field, and which part of it.
_COUNTS = (
    ("curr_items", "db{database}", "keys"),
    ("bytes", "used_memory", ""),
    ("limit_maxbytes", "maxmemory", ""),
    ("curr_connections", "connected_clients", ""),
    ("cmd_get", "cmdstat_get", "calls"),
    ("cmd_set", "cmdstat_set", "calls"),
    ("get_hits", "keyspace_hits", ""),
    ("get_misses", "keyspace_misses", ""),
    ("evictions", "evicted_keys", ""),
)


def _flat(info: Info) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in info.items():
        if name.startswith("cmdstat_"):
            continue
        parts = _fields(value)
        flat |= {f"{name}_{part}": figure for part, figure in parts.items()} if parts else {name: value}
    return flat


def _part(value: str, part: str) -> str:
    return _fields(value).get(part, "") if part else value


def _fields(value: str) -> dict[str, str]:
    """``keys=3,expires=0``; nothing if it isn't of this form."""
    pairs = [part.partition("=") for part in value.split(",")]
    return {name: figure for name, _, figure in pairs} if all(equals for _, equals, _ in pairs) else {}
