"""Over which connection a key's commands go: the one to a server, or that to the member of a cluster that has the key.

A cluster is used whole, or not at all: where the connection to one of its members ends, all are ended, and it is asked
anew who serves what. So it does itself: while nobody serves some of its keys it refuses all of them, unless it is told
otherwise.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Protocol

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from sfss.backends.resp.dialing import Dialer, Line
from sfss.backends.resp.wire import Answer, Refusal
from sfss.backends.stream import STOPPING
from sfss.errors import NodeBroken, NodeError, NodeRefused

Place = tuple[str, int]  # the host and port of a member
URLS_OWN: Place = "", 0  # those of the URL
_REDIRECTION = re.compile(r"(MOVED|ASK) (\d+) (.*):(\d+)")


class Link(Protocol):
    """The connections that one node is made of."""

    @property
    def lost(self) -> asyncio.Future[None]: ...

    @property
    def why(self) -> str | None: ...

    @property
    def places(self) -> Sequence[Place]:
        """Where its servers are."""

    def line_of(self, key: bytes) -> Line:
        """Where a key's commands go."""

    async def redirected(self, refusal: Refusal) -> tuple[Line, bool] | None:
        """Where to go instead, and whether ASKING must go before; None where a refusal doesn't say so.

        Raises NodeError if one can't get there.
        """

    def drop(self, failure: type[NodeError], why: str) -> None: ...


class Single:
    """One server."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.lost = line.lost
        self.places = (URLS_OWN,)
        self.drop = line.drop

    @property
    def why(self) -> str | None:
        return self._line.why

    def line_of(self, key: bytes) -> Line:
        return self._line

    async def redirected(self, refusal: Refusal) -> tuple[Line, bool] | None:
        return None


class Primaries:
    """A cluster: which of its primaries serves which slots, and a connection to each."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._members: dict[Place, Line] = {}
        self._slots: list[Line] = []  # by number, the member that serves it
        self._coming = asyncio.Lock()  # guards that each member is connected to once
        self._why: str | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def why(self) -> str | None:
        return self._why

    @property
    def lines(self) -> Sequence[Line]:
        return list(self._members.values())

    @property
    def places(self) -> Sequence[Place]:
        return list(self._members)

    async def connect(self, seed: Line, place: Place) -> None:
        """Ask a member who serves what, and connect to all of those. Raises NodeError."""
        host = place[0] or self._dialer.access.host
        slots: list[Line | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, place in _served(await self._dialer.ask(seed, b"CLUSTER", b"SLOTS"), host):
            line = await self._member(place)
            slots[first : last + 1] = [line] * (last + 1 - first)
        self._slots = [line for line in slots if line is not None]
        if lacks := slots.count(None):
            raise NodeRefused(
                self._dialer.node,
                f"its cluster has {lacks} of {len(slots)} slots that nobody serves: `redis-cli --cluster fix`",
            )

    def line_of(self, key: bytes) -> Line:
        return self._slots[key_slot(key)]

    async def redirected(self, refusal: Refusal) -> tuple[Line, bool] | None:
        match = _REDIRECTION.match(refusal)
        if match is None:
            return None
        line = await self._member((match[3] or self._dialer.access.host, int(match[4])))
        if match[1] == "MOVED" and int(match[2]) < len(self._slots):
            self._slots[int(match[2])] = line
        return line, match[1] == "ASK"

    def drop(self, failure: type[NodeError], why: str) -> None:
        if self._why is None:
            self._why = why
        for line in self._members.values():
            line.drop(failure, why)
        if not self.lost.done():
            self.lost.set_result(None)

    async def _member(self, place: Place) -> Line:
        """The connection to a member, which is opened if there is none."""
        async with self._coming:
            line = self._members.get(place)
            if line is None:
                line = await self._dialer.line(*place)
                if self._why is not None:  # meanwhile
                    line.drop(NodeBroken, STOPPING)
                    raise NodeBroken(self._dialer.node, self._why)
                self._members[place] = line
                line.lost.add_done_callback(lambda _: self._lost(place, line))
            return line

    def _lost(self, place: Place, line: Line) -> None:
        self.drop(NodeBroken, f"its member {place[0]}:{place[1]} was lost: {line.why}")


def _served(answer: Answer, host: str) -> list[tuple[int, int, Place]]:
    """The ranges of slots with the primary of each, as CLUSTER SLOTS tells; ``host`` is that of who tells.

    What makes no sense is left out, and so are slots without a primary.
    """
    served = []
    for row in answer if isinstance(answer, list) else ():
        match row:
            case [int(first), int(last), [bytes() | None as at, int(port), *_], *_] if 0 <= first <= last:
                place = (at or b"").decode(errors="replace") or host, port
                served.append((first, min(last, REDIS_CLUSTER_HASH_SLOTS - 1), place))
    return served
