"""How many connections the front takes, so that it never runs out of file descriptors.

Without descriptors nobody can be let in, and no node be reached that was away. So there is always room for some more
than are served; those are told so.
"""

from __future__ import annotations

import asyncio
import json
import resource
from typing import NamedTuple, cast

from aiohttp import web

from sfss.errors import ConfigError
from sfss.web.connection import MakeConnection

MAX_CONNECTIONS = 10_000  # some 20 KiB each, idle
MOST_WAITING = (
    1024  # connections, as nodes have it: who comes when there are so many tries again after a second, or three
)
_SHARE = 4  # the part of all descriptors that may wait; twice as many are held back
_ENOUGH = 512  # descriptors without which it isn't worth serving


class Room(NamedTuple):
    """How many connections there may be, and how many more the kernel keeps until they are accepted."""

    connections: int
    waiting: int


def room() -> Room:
    """Takes as many descriptors as it may, and needs. Raises ConfigError.

    Held back are those of connections that are accepted at once only to be turned away, and as many for connections to
    nodes and for files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + 2 * MOST_WAITING
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        soft = wanted
    if soft <= _ENOUGH:
        raise ConfigError(f"at most {soft} files may be open here, too few to serve: allow 1024 or more (ulimit -n)")
    waiting = min(MOST_WAITING, soft // _SHARE)
    return Room(min(MAX_CONNECTIONS, soft - 2 * waiting), waiting)


class Door:
    """Makes the protocol of each connection that comes in: the server's, or one that says that there are too many."""

    def __init__(self, server: web.Server, most: int, make: MakeConnection) -> None:
        self._server = server
        self._most = most
        self._make = make

    def __call__(self) -> asyncio.Protocol:
        return self._make(self._server) if len(self._server.connections) < self._most else _TurnedAway()


class _TurnedAway(asyncio.Protocol):
    """Answers 503 to whatever comes, and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        body = json.dumps(
            {"type": "urn:sfss:http", "title": "Too many connections", "status": 503,
             "detail": "this front has as many connections as it can take: try again, or another front"}
        ).encode()  # fmt: skip
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
        )
        stream = cast(asyncio.Transport, transport)
        stream.write(head.encode() + body)
        stream.close()
