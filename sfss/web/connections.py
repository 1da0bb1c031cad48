"""How many connections the front takes, so that it never runs out of file descriptors.

Without descriptors asyncio can't accept, tries again at once, and logs each failure with its trace: gigabytes of log
within minutes, and no request served. So there is always room for a few more than are taken; those are told so.
"""

from __future__ import annotations

import asyncio
import json
import resource
from typing import cast

from aiohttp import web

from sfss.errors import ConfigError
from sfss.web.connection import MakeConnection

MAX_CONNECTIONS = 10_000  # some 20 KiB each, idle
BACKLOG = 256  # connections that the kernel keeps until they are accepted, and that asyncio accepts at once
RESERVE = 2 * BACKLOG  # descriptors for what is accepted at once, for the connections to nodes, and for files


def allowed() -> int:
    """How many connections there may be; takes as many descriptors as it may for them. Raises ConfigError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + RESERVE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft != resource.RLIM_INFINITY and soft <= RESERVE:
        raise ConfigError(f"at most {soft} files may be open here, too few to serve: allow 1024 or more (ulimit -n)")
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, soft - RESERVE)


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
