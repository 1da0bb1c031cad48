"""The sections of the configuration, but for those of paths (``rules.py``): frozen and typed, with their defaults.

``conf/sfss.toml`` explains each key and its consequence; a test holds that page against these classes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sfss.addresses import Address
from sfss.config.values import GIB, MIB, Copies, ManySeconds, Port, Rate, Seconds, Size, Text, WorkerCount


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


class Registration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[registration]``: nodes that announce themselves, and come on the ring by that."""

    enabled: bool = False
    secret: Text = ""
    refresh: Seconds = 30.0
    share: Annotated[float, Meta(gt=0, le=1)] = 0.5


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[limits]``: what is refused, and when a caller is given up."""

    max_file_size: Size = Size(2 * MIB)
    record_size: Size = Size(MIB)
    transfer_memory: Size = Size(128 * MIB)
    body_timeout: Seconds = 60.0
    upload_time: ManySeconds = 86400.0
    upload_expiry: ManySeconds = 7 * 86400.0
    linger: Annotated[float, Meta(ge=0, le=86400)] = 60.0


RIGHTS = ("read", "write")  # that everybody may be given


class Access(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[access]``: who is let in, and may do what. ``sfss/access`` judges by it."""

    anonymous: tuple[str, ...] = RIGHTS  # what everybody may, of RIGHTS
    signing_secrets: tuple[str, ...] = ()  # the first signs, all verify
    allow: tuple[str, ...] = ()  # as parse_network takes them; none: all
    deny: tuple[str, ...] = ()  # likewise; none: nobody
    key_rate: Rate = 0.0
    key_burst: Rate = 0.0
    address_rate: Rate = 0.0
    address_burst: Rate = 0.0


class CatalogueSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[catalogue]``: a database beside the nodes that is told of every file; none where ``url`` is empty."""

    url: Text = ""
    timeout: Annotated[float, Meta(gt=0, le=60)] = 1.0  # seconds
    owed: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000  # rows


class WriteBehindSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[write_behind]``: how the short-term stores are used that policies name, and what moves files out of them."""

    embedded: bool = False
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 16  # files that a worker moves at once
    max_bytes: Size = Size(GIB)
    max_tasks: Annotated[int, Meta(ge=1, le=100_000_000)] = 1_000_000
    timeout: Annotated[float, Meta(gt=0, le=60)] = 2.0  # seconds
    attempts: Annotated[int, Meta(ge=1, le=1000)] = 12
    longest_pause: Seconds = 60.0
    claim_after: Annotated[float, Meta(ge=0.5, le=3600)] = 30.0  # seconds


class Dashboard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[dashboard]``: the page at ``/``."""

    enabled: bool = True


class Namespaces(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[namespaces]``: how fronts deal with them; each one is a ``[[namespace]]``, or was made through the API."""

    api: bool = False
    required: bool = False
    count_interval: Annotated[float, Meta(ge=1, le=86400)] = 60.0  # seconds


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[log]``: what is written down of what happens, and of each request."""

    format: Literal["auto", "text", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    access: bool | Text = False  # True: to standard error; a text: to that file

    @property
    def access_file(self) -> str:
        """The file that has a line for each request, where there is to be one; "" for standard error."""
        return self.access if isinstance(self.access, str) else ""


class Ids(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[ids]``: files that are stored without a path, and found by the id that they get."""

    folder: Text = "by-id"


class Post(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[post]``: whether every path at the URL's root is a file, which is written once."""

    enabled: bool = False


class Json(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[json]``: files that come and go as JSON, by a client's id and a name; none where ``prefix`` is empty."""

    prefix: Text = ""
    max_file_size: Size = Size(8 * MIB)  # of what comes so, and is in memory whole
