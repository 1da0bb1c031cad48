"""Ids of requests: by them whoever asked, the proxies between, the log and the access log speak of the same one. Pure.

``X-Request-ID`` comes with the request, from a client or a proxy, and goes back with the answer. One that isn't plain,
or is too long, could forge a line of somebody's log, and is as good as none; then one is made.
"""

from __future__ import annotations

import re
import secrets

from aiohttp import web
from multidict import MultiMapping

HEADER = "X-Request-ID"
REQUEST_ID = web.RequestKey("REQUEST_ID", str)
_PLAIN = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")
_LAST = tuple(b"%02x" % number for number in range(256))  # a number's last two digits: nothing is formatted each time


class RequestIds:
    """Makes them: of this process, and counted."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(6).encode()
        self._count = 0
        self._first = self._beginning()

    def new(self) -> bytes:
        """One that no other request has."""
        self._count = count = self._count + 1
        if not count & 0xFF:
            self._first = self._beginning()
        return self._first + _LAST[count & 0xFF]

    def _beginning(self) -> bytes:
        """All but the last two digits."""
        return b"%b-%06x" % (self._process, self._count >> 8)


def given(headers: MultiMapping[str]) -> bytes | None:
    """The one that came; None if there is none, or it can't be one."""
    value = headers.get(HEADER)
    return None if value is None else checked(value.encode(errors="surrogateescape"))


def checked(value: bytes) -> bytes | None:
    """The same; None if it can't be one."""
    return value if _PLAIN.fullmatch(value) else None


def id_of(request: web.Request) -> str:
    """The one that a request goes by; "" before it was given one."""
    found: str = request.get(REQUEST_ID, "")
    return found
