"""Settings: a TOML file, the environment and the command line become frozen, typed objects, or a ConfigError.

Nothing is built here and nothing is read at import. The order, first wins: command line, ``SFSS_SECTION_KEY`` in the
environment, the file, the default. Policies stand in the file only. ``conf/sfss.toml`` explains each key and its
consequence; a test holds that page against these classes.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta

from sfss import paths
from sfss.errors import BadPath, ConfigError
from sfss.memcache import MAX_KEY

KIB, MIB, GIB, TIB = (1024**power for power in (1, 2, 3, 4))
LARGEST_FILE = TIB
SMALLEST_RECORD, LARGEST_RECORD = 64 * KIB, 64 * MIB  # a record is held in memory whole, at fronts and at nodes
MOST_WORKERS = 256

Port = Annotated[int, Meta(ge=1, le=65535)]
Text = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]*$")]
Seconds = Annotated[float, Meta(gt=0, le=3600)]
ManySeconds = Annotated[float, Meta(gt=0, le=365 * 86400)]
Copies = Annotated[int, Meta(ge=1, le=16)]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Size(int):
    """A number of bytes; written ``65536``, ``"64KiB"``, ``"2MiB"``, ``"1GiB"`` or ``"1TiB"``."""


class WorkerCount(int):
    """A number of processes; ``"auto"`` is as many as this one may use cores of the machine."""


class Address(NamedTuple):
    """Where a node answers, and the name by which the ring places it."""

    host: str
    port: int
    name: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[server]``: where the front answers."""

    host: Text = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8255  # 0: any free one
    workers: WorkerCount = WorkerCount(1)
    tls_certificate: Text = ""
    tls_key: Text = ""
    shutdown_timeout: Seconds = 30.0
    trusted_proxies: tuple[str, ...] = ()  # as parse_network takes them


class Storage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[storage]``: the nodes, and how long to wait for them."""

    nodes: tuple[str, ...] = ()  # as parse_address takes them; none: the embedded ones
    joining: tuple[str, ...] = ()  # not among nodes yet
    leaving: tuple[str, ...] = ()  # not among nodes any more
    copies: Copies = 1
    write_quorum: Copies = 1
    read_quorum: Copies = 1
    connect_timeout: Seconds = 0.5
    timeout: Seconds = 2.0
    retry_after: Seconds = 2.0
    tombstone_ttl: Annotated[int, Meta(ge=60, le=30 * 86400)] = 86400  # seconds


class Embedded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[embedded]``: the nodes that sfss starts itself where ``storage.nodes`` names none."""

    nodes: Annotated[int, Meta(ge=1, le=64)] = 3
    first_port: Port = 7900
    data: Text = "sfss-data"
    durability: str = "fsync"

    def addresses(self) -> tuple[Address, ...]:
        """Their names place them, so that a change of ``first_port`` moves no file."""
        return tuple(Address("127.0.0.1", self.first_port + n, f"embedded-{n}") for n in range(self.nodes))


class Repair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[repair]``: how fronts look after the copies behind what they serve."""

    background: bool = True
    interval: Annotated[float, Meta(ge=60, le=30 * 86400)] = 86400.0  # seconds
    sweep_interval: Annotated[float, Meta(ge=60, le=30 * 86400)] = 3600.0  # seconds
    share: Annotated[float, Meta(gt=0, le=1)] = 0.1


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[limits]``: what is refused, and when a caller is given up."""

    max_file_size: Size = Size(2 * MIB)
    record_size: Size = Size(MIB)
    transfer_memory: Size = Size(128 * MIB)
    body_timeout: Seconds = 60.0
    upload_time: ManySeconds = 86400.0
    upload_expiry: ManySeconds = 7 * 86400.0
    linger: Annotated[float, Meta(ge=0, le=86400)] = 60.0


SPREAD = 8  # nodes that share a large file where no policy says how many; all of them, where there are fewer


class Rules(NamedTuple):
    """What holds for a path."""

    pieces: int  # that every file is cut in
    spread: int  # nodes over which one is spread that is larger than a record
    copies: int
    write_quorum: int
    read_quorum: int
    max_file_size: int
    setting: str  # what to call the one that sets max_file_size


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[policy]]``: what holds for the paths that begin with ``prefix``, and with no longer one of another policy.

    What is None is as for all paths; but no quorum is larger than there are copies.
    """

    prefix: str
    pieces: Annotated[int, Meta(ge=1, le=64)] | None = None
    copies: Copies | None = None
    write_quorum: Copies | None = None
    read_quorum: Copies | None = None
    max_file_size: Size | None = None

    @property
    def words(self) -> str:
        """What to call it."""
        return f"the policy for '{self.prefix}'"

    def over(self, general: Rules) -> Rules:
        """The rules that it makes of those for all paths."""
        copies = self.copies or general.copies
        rules = general._replace(
            pieces=self.pieces or general.pieces,
            spread=self.pieces or general.spread,
            copies=copies,
            write_quorum=self.write_quorum or min(general.write_quorum, copies),
            read_quorum=self.read_quorum or min(general.read_quorum, copies),
        )
        if self.max_file_size is None:
            return rules
        return rules._replace(max_file_size=self.max_file_size, setting=f"max_file_size of {self.words}")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set."""

    server: Server = Server()
    storage: Storage = Storage()
    embedded: Embedded = Embedded()
    repair: Repair = Repair()
    limits: Limits = Limits()
    policy: tuple[Policy, ...] = ()

    @property
    def general(self) -> Rules:
        """What holds where no policy does."""
        storage, limits = self.storage, self.limits
        return Rules(
            pieces=1,
            spread=SPREAD,
            copies=storage.copies,
            write_quorum=storage.write_quorum,
            read_quorum=storage.read_quorum,
            max_file_size=limits.max_file_size,
            setting="limits.max_file_size",
        )

    @property
    def by_prefix(self) -> Mapping[str, Rules]:
        """What holds under each policy's prefix."""
        return {policy.prefix: policy.over(self.general) for policy in self.policy}

    @property
    def rules(self) -> Collection[Rules]:
        """All that hold anywhere."""
        return self.general, *self.by_prefix.values()

    @property
    def trusted_proxies(self) -> tuple[Network, ...]:
        """Those who may say for whom they ask."""
        return tuple(map(parse_network, self.server.trusted_proxies))

    @property
    def nodes(self) -> tuple[Address, ...]:
        """The nodes that files lie on: the named ones, or the embedded."""
        return tuple(map(parse_address, self.storage.nodes)) or self.embedded.addresses()

    @property
    def moving(self) -> bool:
        """Whether nodes join or leave."""
        return bool(self.storage.joining or self.storage.leaving)

    @property
    def joining(self) -> tuple[Address, ...]:
        """The nodes that files are being moved to."""
        return tuple(map(parse_address, self.storage.joining))

    @property
    def leaving(self) -> tuple[Address, ...]:
        """The nodes that files are being moved away from."""
        return tuple(map(parse_address, self.storage.leaving))


_DEFAULTS = Settings()

# What a front that is sent SIGHUP takes over from its settings, besides the policies; all else takes a restart.
RELOADED = frozenset(
    f"storage.{key}" for key in ("nodes", "joining", "leaving", "copies", "write_quorum", "read_quorum")
)
_SECTIONS = [name for name in Settings.__struct_fields__ if name != "policy"]


def load(
    file: str | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Settings from a TOML ``file``, an ``environment`` and ``overrides`` by section, the later ones winning.

    Raises ConfigError, which names the key and says what it may be.
    """
    merged: dict[str, Any] = {}
    for source in (_read(file) if file else {}, _from_environment(environment or {}), overrides or {}):
        for section, keys in source.items():
            if section == "policy":
                if not isinstance(keys, list | tuple):
                    raise ConfigError("policy: write each as a section of a list, [[policy]], with its keys below")
                merged[section] = keys
                continue
            if section not in _SECTIONS:
                raise ConfigError(f"{section} is no setting of sfss{_nearest(section)}")
            if not isinstance(keys, Mapping):
                raise ConfigError(f"{section}: write it as a section, [{section}], with its keys below")
            merged.setdefault(section, {}).update(keys)
    try:
        settings = msgspec.convert(merged, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), merged.get("policy", ()))) from None
    check_together(settings)
    return settings


def parse_size(text: str) -> Size:
    """``"2MiB"`` -> 2097152. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,15})\s*(|B|KiB|MiB|GiB|TiB)", text.strip())
    if not match:
        raise ValueError(f"'{text}' is not a size: write bytes, or a number with KiB, MiB, GiB or TiB, e.g. \"2MiB\"")
    return Size(int(match[1]) * {"": 1, "B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}[match[2]])


def parse_workers(text: str) -> WorkerCount:
    """``"auto"`` -> 4, on four cores; ``"2"`` -> 2. Raises ValueError."""
    if text.strip() == "auto":
        return WorkerCount(min(len(os.sched_getaffinity(0)), MOST_WORKERS))
    if not re.fullmatch(r"\s*\d{1,9}\s*", text, re.ASCII) or not 1 <= int(text) <= MOST_WORKERS:
        raise ValueError(f"'{text}' is no number of workers: write 1 to {MOST_WORKERS}, or \"auto\" for one per core")
    return WorkerCount(text)


def parse_address(text: str) -> Address:
    """``"host:port"`` or ``"name=host:port"``; an IPv6 host stands in brackets. Raises ValueError."""
    name, _, where = text.rpartition("=")
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:\s]+):(\d{1,5})", where)
    if not match or not 1 <= int(match[2]) <= 65535:
        raise ValueError(f'\'{text}\' is not a node: write "host:port", or "name=host:port"')
    if "=" in text and not re.fullmatch(rf"[!-<>-~]{{1,{MAX_KEY}}}", name):
        raise ValueError(f"'{text}': a node's name is made of visible ASCII characters other than '='")
    return Address(match[1].strip("[]"), int(match[2]), name or where)


def encode(settings: Settings) -> bytes:
    """Settings in one line, for another process of this program."""
    return msgspec.json.encode(settings, enc_hook=int)  # of Size and WorkerCount


def decode(line: bytes) -> Settings:
    """What ``encode`` has made."""
    return msgspec.json.decode(line, type=Settings, dec_hook=_decode)


def parse_network(text: str) -> Network:
    """``"10.0.0.5"``, ``"10.0.0.0/8"``, ``"2001:db8::/32"``. Raises ValueError."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"'{text}' is neither an address nor a network: write 10.0.0.5, or 10.0.0.0/8") from None
    if ipaddress.ip_address(text.partition("/")[0]) != network.network_address:
        raise ValueError(f"'{text}' is an address with its network: write the one or the other, {network}")
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped:
        raise ValueError(f"'{text}' is IPv4 in the form of IPv6: write it as IPv4")
    return network


def as_dict(settings: Settings) -> dict[str, dict[str, Any]]:
    """Every section with its keys and their values; policies, a list, are none."""
    return {section: msgspec.structs.asdict(getattr(settings, section)) for section in _SECTIONS}


def _read(file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(file).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"the configuration {file} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {file} is not TOML: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    sections = get_type_hints(Settings)
    for variable, text in environment.items():
        prefix, _, rest = variable.partition("_")
        section, _, key = rest.lower().partition("_")
        if prefix != "SFSS" or variable == "SFSS_CONFIG" or _is_kubernetes_own(variable, text):
            continue
        if section == "policy":
            raise ConfigError(
                f"{variable} in the environment: policies can't be set there; write [[policy]] in a file, and name"
                " that with --config or SFSS_CONFIG"
            )
        if section not in _SECTIONS or key not in sections[section].__struct_fields__:
            raise ConfigError(f"{variable} in the environment is no setting of sfss{_nearest(f'{section}.{key}')}")
        listed = [word for word in re.split(r"[,\s]+", text) if word]
        found.setdefault(section, {})[key] = listed if isinstance(as_dict(_DEFAULTS)[section][key], tuple) else text
    return found


def _is_kubernetes_own(variable: str, text: str) -> bool:
    """Kubernetes tells every container of a service named ``sfss`` in variables of these names."""
    if re.fullmatch(r"SFSS_SERVICE_HOST|SFSS_SERVICE_PORT(_\w+)?|SFSS_PORT_\d+_\w+", variable):
        return True
    return variable == "SFSS_PORT" and "://" in text


def _decode(type_: type, given: object) -> object:
    if type_ is Size:
        if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
            return Size(given)
        return parse_size(str(given))
    if type_ is WorkerCount:
        return parse_workers(str(given))
    raise NotImplementedError(type_)


def _explain(message: str, policies: Sequence[object]) -> str:
    """msgspec's 'Expected `int`, got `str` - at `$.server.port`', with the setting's name in front."""
    what, _, where = message.partition(" - at ")
    key = where.strip("`").removeprefix("$").lstrip(".")
    if unknown := re.search(r"unknown field `(.+?)`", what):
        name = f"{key}.{unknown[1]}".lstrip(".")
        return f"{_worded(name, policies)} is no setting of sfss{_nearest(re.sub(_NUMBER, '', name))}"
    if missing := re.search(r"missing required field `(.+?)`", what):
        key, what = f"{key}.{missing[1]}", 'it is missing; write e.g. prefix = "images/", or "" for all paths'
    if "matching regex" in what:
        what = "it holds a control character: leave that out"
    return f"{_worded(key, policies) or 'the configuration'}: {what[0].lower()}{what[1:]}"


def _worded(key: str, policies: Sequence[object]) -> str:
    """``policy[0].copies`` as ``copies of the policy for 'images/'``; other keys as they are."""
    match = re.fullmatch(rf"policy{_NUMBER}\.?(.*)", key)
    if not match:
        return key
    policy = policies[int(match[1])]
    prefix = policy.get("prefix") if isinstance(policy, Mapping) else None
    which = Policy(prefix).words if isinstance(prefix, str) else f"policy number {int(match[1]) + 1}"
    return f"{match[2]} of {which}" if match[2] else which


_NUMBER = r"\[(\d+)\]"


def _default(name: str) -> object:
    section, _, key = name.partition(".")
    return as_dict(_DEFAULTS)[section][key]


def _nearest(name: str) -> str:
    every = [f"{section}.{key}" for section, keys in as_dict(_DEFAULTS).items() for key in keys]
    every += [f"policy.{key}" for key in Policy.__struct_fields__]
    near = difflib.get_close_matches(name, [*every, *Settings.__struct_fields__], 1)
    return f": did you mean {near[0]}?" if near else f": there are {', '.join(every)}"


def check_together(settings: Settings) -> None:
    """What no single key can tell, or not in words. Raises ConfigError."""
    for name, text in (("server.host", settings.server.host), ("embedded.data", settings.embedded.data)):
        if not text:
            raise ConfigError(f"{name}: it is empty; leave it out for {_default(name)}")
    if bool(settings.server.tls_certificate) != bool(settings.server.tls_key):
        raise ConfigError("server.tls_certificate and server.tls_key go together: give both, or neither")
    try:
        _ = settings.trusted_proxies
    except ValueError as error:
        raise ConfigError(f"server.trusted_proxies: {error}") from None
    if settings.embedded.durability not in ("fsync", "os"):
        raise ConfigError(f'embedded.durability: \'{settings.embedded.durability}\' is neither "fsync" nor "os"')
    if settings.embedded.first_port + settings.embedded.nodes > 65536:
        raise ConfigError("embedded.first_port: the embedded nodes' ports would go beyond 65535")
    _check_sizes(settings)
    _check_nodes(settings)


def _check_sizes(settings: Settings) -> None:
    limits = settings.limits
    for rules in settings.rules:
        if rules.max_file_size > LARGEST_FILE:
            raise ConfigError(f"{rules.setting}: {rules.max_file_size} bytes; at most 1TiB are possible")
    if not SMALLEST_RECORD <= limits.record_size <= LARGEST_RECORD:
        raise ConfigError(f"limits.record_size: {limits.record_size} bytes; 64KiB to 64MiB are possible")
    if limits.transfer_memory < MIB:
        raise ConfigError(f"limits.transfer_memory: {limits.transfer_memory} bytes; 1MiB at least is needed")


def _check_nodes(settings: Settings) -> None:
    lists: dict[str, tuple[Address, ...]] = {}
    for name in ("nodes", "joining", "leaving"):
        try:
            lists[name] = getattr(settings, name)
        except ValueError as error:
            raise ConfigError(f"storage.{name}: {error}") from None
    count = len(lists["nodes"]) + len(lists["joining"])
    there = f"and there are {count}" + (" when those of storage.leaving are gone" if lists["leaving"] else "")
    _check_copies(settings, count, there)
    _check_policies(settings, count, there)
    every = [(name, node) for name, nodes in lists.items() for node in nodes]
    # The ring leaves memcached's own port out of a name, as libmemcached does.
    for told in (lambda node: node.name.removesuffix(":11211"), str):
        seen: dict[str, str] = {}
        for name, node in every:
            if (text := told(node)) in seen:
                where = f"storage.{name}: '{text}' stands there twice"
                raise ConfigError(
                    where
                    if seen[text] == name
                    else f"storage.{name}: '{text}' is in storage.{seen[text]} too; a node"
                    " joins, stays or leaves: write it in one of the lists"
                )
            seen[text] = name


def _check_copies(settings: Settings, nodes: int, there: str) -> None:
    storage = settings.storage
    for name, quorum in (("write_quorum", storage.write_quorum), ("read_quorum", storage.read_quorum)):
        if quorum > storage.copies:
            raise ConfigError(f"storage.{name}: {quorum} of {storage.copies} copies can't be; raise storage.copies")
    if storage.copies > nodes:
        raise ConfigError(f"storage.copies: {storage.copies} copies need as many nodes, {there}")


def _check_policies(settings: Settings, nodes: int, there: str) -> None:
    seen: set[str] = set()
    for policy in settings.policy:
        try:
            paths.check(f"{policy.prefix}x")
        except BadPath as error:
            raise ConfigError(f"prefix of {policy.words}: no path begins so: {error}") from None
        if policy.prefix in seen:
            raise ConfigError(f"{policy.words} stands there twice: write all of it in one [[policy]]")
        seen.add(policy.prefix)
        rules = policy.over(settings.general)
        for name, quorum in (("write_quorum", rules.write_quorum), ("read_quorum", rules.read_quorum)):
            if quorum > rules.copies:
                raise ConfigError(
                    f"{name} of {policy.words}: {quorum} of {rules.copies} copies can't be; raise its copies"
                )
        for name, number in (("copies", rules.copies), ("pieces", rules.pieces)):
            if number > nodes:
                raise ConfigError(f"{name} of {policy.words}: {number} {name} need as many nodes, {there}")
