"""Who asks, where proxies stand between: what X-Forwarded-For, -Proto and -Host say, of those who may be believed.

Anybody can send these headers. So they count only where the connection comes from a trusted address; and of the
addresses in X-Forwarded-For, to which each proxy adds whom it heard it from, only as many from the right as trusted
proxies have added. What a client made up stands left of these, and is never looked at.

Pure but for ``asked_by``, which takes a request apart.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple

from aiohttp import web

from sfss.config import Network
from sfss.web.headers import combined

TRUSTED = web.AppKey("TRUSTED", tuple[Network, ...])

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_FOR, _PROTO, _HOST = FIELDS = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host")
_PORT = r"(?::[0-9]{1,5})?"
_WRITTEN = re.compile(rf"(?P<v4>[0-9.]+){_PORT}|\[(?P<v6>[0-9A-Fa-f:.]+)\]{_PORT}|(?P<bare>[0-9A-Fa-f:.]+)")
_NAME = re.compile(rf"(?:[0-9A-Za-z._-]{{1,253}}|\[[0-9A-Fa-f:.]{{2,45}}\]){_PORT}")


class Client(NamedTuple):
    """Who asked: the address of the last who isn't a trusted proxy, and how the URL begins that he asked for."""

    address: str  # "" where the transport has none
    scheme: str
    host: str


def client(peer: Client, headers: dict[str, str], trusted: Sequence[Network]) -> Client:
    """Who stands behind ``peer``, which is what the connection itself says; ``headers``: those of FIELDS that came.

    What can't be read isn't believed: an address that is none ends the walk at whoever said it.
    """
    address = _parsed(peer.address)
    if address is None or not _is_trusted(address, trusted):
        return peer
    for text in reversed(headers.get(_FOR, "").split(",")):
        if (before := _parsed(text)) is None:
            break
        address = before
        if not _is_trusted(address, trusted):
            break
    return Client(str(address), _scheme(headers) or peer.scheme, _host(headers) or peer.host)


def asked_by(request: web.Request) -> Client:
    """Who sent a request, by the addresses that the application trusts."""
    peer = Client(peer_of(request), request.scheme, request.host)
    trusted = request.app[TRUSTED]
    return client(peer, combined(request.headers, FIELDS), trusted)


def peer_of(request: web.BaseRequest) -> str:
    """The address at the other end of the connection; "" where it has none, or has ended."""
    name = request.transport.get_extra_info("peername") if request.transport is not None else None
    return name[0] if isinstance(name, tuple) else ""


def _parsed(text: str) -> _Address | None:
    """``192.0.2.1``, ``192.0.2.1:80``, ``2001:db8::1``, ``[2001:db8::1]:80``; an IPv4 address in IPv6's form is one."""
    match = _WRITTEN.fullmatch(text.strip(" \t").partition("%")[0])
    if match is None:
        return None
    try:
        address = ipaddress.ip_address(match["v4"] or match["v6"] or match["bare"])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_trusted(address: _Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _last(headers: dict[str, str], name: str) -> str:
    """What the nearest proxy said."""
    return headers.get(name, "").rpartition(",")[2].strip(" \t")


def _scheme(headers: dict[str, str]) -> str | None:
    scheme = _last(headers, _PROTO).lower()
    return scheme if scheme in ("http", "https") else None


def _host(headers: dict[str, str]) -> str | None:
    host = _last(headers, _HOST)
    return host if _NAME.fullmatch(host) else None
