"""What a setting may be, and how it is written: sizes, numbers of processes, networks; and the bounds of some."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Annotated

from msgspec import Meta

KIB, MIB, GIB, TIB = (1024**power for power in (1, 2, 3, 4))
LARGEST_FILE = TIB
SMALLEST_RECORD, LARGEST_RECORD = 64 * KIB, 64 * MIB  # a record is held in memory whole, at fronts and at nodes
LARGEST_JSON = 256 * MIB  # of a file; it is in memory whole, once as it came and once as it is
MOST_WORKERS = 256

Port = Annotated[int, Meta(ge=1, le=65535)]
Text = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]*$")]
Seconds = Annotated[float, Meta(gt=0, le=3600)]
ManySeconds = Annotated[float, Meta(gt=0, le=365 * 86400)]
Copies = Annotated[int, Meta(ge=1, le=16)]
Rate = Annotated[float, Meta(ge=0, le=1e6)]  # requests/s, or so many at once
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Size(int):
    """A number of bytes; written ``65536``, ``"64KiB"``, ``"2MiB"``, ``"1GiB"`` or ``"1TiB"``."""


class WorkerCount(int):
    """A number of processes; ``"auto"`` is as many as this one may use cores of the machine."""


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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
