"""Addresses that are let in, or kept out. Pure."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence

from sfss.config import Network

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_REMEMBERED = 4096
_HOME = 64  # bits of an IPv6 address that one client can't change


class Addresses:
    """Who may come in: whoever is in ``allow``, or everybody where that is empty; but nobody in ``deny``."""

    def __init__(self, allow: Sequence[Network], deny: Sequence[Network]) -> None:
        self._allow = tuple(allow)
        self._deny = tuple(deny)
        self.is_open = not (allow or deny)
        self.admits = functools.lru_cache(_REMEMBERED)(self._admits)

    def _admits(self, text: str) -> bool:
        """Whether that address may come in. One that can't be read may not, where not everybody may."""
        if self.is_open:
            return True
        address = _parsed(text)
        if address is None or any(address in network for network in self._deny):
            return False
        return not self._allow or any(address in network for network in self._allow)


@functools.lru_cache(_REMEMBERED)
def client_of(text: str) -> str:
    """By what to count who has that address: whoever has an IPv6 address has as many as he likes, in one /64."""
    address = _parsed(text)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((address, _HOME), strict=False))
    return str(address) if address is not None else text


def _parsed(text: str) -> _Address | None:
    """An IPv4 address in IPv6's form, as a socket of both has them, is one."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
