"""The client of one node that speaks memcached's text protocol: sfss's own, memcached, Beansdb, GoBeansDB.

It keeps one pipelined connection, opens it again by itself, and learns what the node can do each time it connects.
While there is no connection every call fails at once. Nothing is sent that a Beansdb would misread: flags and expiry
are 0, and ``add`` and ``cas`` are never used on a node that wasn't seen to have them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
from collections.abc import Callable

from sfss.backends.base import Capabilities, Versioned
from sfss.backends.connection import Connection
from sfss.backends.statistics import Statistics
from sfss.config import Address
from sfss.errors import NodeAway, NodeError, NodeRefused, OutOfSpace, SfssError, TooLarge
from sfss.memcache import (
    DELETED,
    END,
    EXISTS,
    NOT_FOUND,
    NOT_STORED,
    OUT_OF_MEMORY,
    OUT_OF_SPACE,
    STORED,
    VALUE_TOO_LARGE,
    VERSION,
    Reply,
    command,
    retrieval,
    storage,
)

log = logging.getLogger("sfss.backends")

OUR_MARK = "-sfss"  # at the end of the version that our own node gives
FIRST_RETRY = 0.05  # seconds after a lost connection; then twice as long each time, up to retry_after
# memcached counts an item's header, key and suffix into its limit. It also drops what lay under the key when it
# refuses the new value, so a value that might not fit must never be sent.
ITEM_OVERHEAD = 512
BEANSDB_LARGEST = 50 * 1024 * 1024  # bytes; Beansdb's MAX_VALUE_LEN
_Fits = Callable[[Reply], bool]
_REFUSALS = (b"ERROR", b"CLIENT_ERROR ", b"SERVER_ERROR ")


class MemcachedNode:
    """A ``Backend``. ``timeout`` and ``retry_after`` in seconds; ``largest_value`` bounds what is read, in bytes."""

    def __init__(
        self,
        address: Address,
        *,
        largest_value: int,
        connect_timeout: float = 0.5,
        timeout: float = 2.0,
        retry_after: float = 2.0,
    ) -> None:
        self.address = address
        self.capabilities: Capabilities | None = None
        self._name = str(address)
        self._largest_value = largest_value
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._retry_after = retry_after
        self._connection: Connection | None = None
        self._why_away = "not yet connected to"
        self._keeper: asyncio.Task[None] | None = None
        self._statistics = Statistics(address, timeout)

    @property
    def away(self) -> str | None:
        return None if self._connection else self._why_away

    async def start(self) -> None:
        tried = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep_connected(tried), name=f"connection to {self._name}")
        await tried.wait()

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self._statistics.close()

    async def get(self, key: bytes) -> bytes | None:
        reply = await self._call(retrieval(b"get", key), functools.partial(_is_value_of, key))
        return reply.values[0].data if reply.values else None

    async def gets(self, key: bytes) -> Versioned | None:
        reply = await self._call(retrieval(b"gets", key), functools.partial(_is_value_of, key))
        return Versioned(reply.values[0].data, reply.values[0].cas) if reply.values else None

    async def head(self, key: bytes) -> bytes | None:
        verb = b"head" if self.capabilities and self.capabilities.head else b"get"
        reply = await self._call(retrieval(verb, key), functools.partial(_is_value_of, key))
        return reply.values[0].data if reply.values else None

    async def set(self, key: bytes, data: bytes) -> None:
        self._check_size(data)
        if (await self._call(storage(b"set", key, data), _is_stored)).line != STORED:
            # Beansdb: the very same bytes lay there already, which a record's version rules out, or a bad key.
            raise NodeRefused(self._name, "answered NOT_STORED")

    async def add(self, key: bytes, data: bytes) -> bool:
        self._check_size(data)
        return (await self._call(storage(b"add", key, data), _is_add)).line == STORED

    async def replace(self, key: bytes, data: bytes, token: int, expiry: int = 0) -> bool:
        self._check_size(data)
        return (await self._call(storage(b"cas", key, data, cas=token, expiry=expiry), _is_cas)).line == STORED

    async def delete(self, key: bytes) -> bool:
        return (await self._call(command(b"delete", key), _is_delete)).line == DELETED

    async def stats(self) -> dict[str, str]:
        return await self._statistics.ask()

    # --- within ---

    async def _call(self, request: bytes, fits: _Fits) -> Reply:
        if self._connection is None:
            raise NodeAway(self._name, f"away: {self._why_away}")
        reply = await self._connection.call(request, fits)
        if reply.line.startswith(_REFUSALS):
            raise self._refusal(reply.line)
        return reply

    def _refusal(self, line: bytes) -> SfssError:
        if line == VALUE_TOO_LARGE:
            return self._too_large()
        if line.startswith((OUT_OF_MEMORY, OUT_OF_SPACE)):
            return OutOfSpace(f"node {self._name} has no room: {line.decode(errors='replace')}; add space or nodes")
        return NodeRefused(self._name, f"answered {line[:200].decode(errors='replace')}")

    def _check_size(self, data: bytes) -> None:
        if self.capabilities and len(data) > self.capabilities.largest_value:
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        kind, largest = (self.capabilities.kind, self.capabilities.largest_value) if self.capabilities else ("", 0)
        setting = {"sfss": "--max-item-size", "memcached": "-I"}.get(kind, "the largest value")
        return TooLarge(
            f"node {self._name} ({kind}) takes records of at most {largest} bytes: raise {setting} of that node,"
            " or send a smaller file",
            limit=largest,
            setting=setting,
        )

    async def _keep_connected(self, tried: asyncio.Event) -> None:
        """Connect, wait for the connection's end, connect again; for ever, with growing pauses between failures."""
        pause = FIRST_RETRY
        while True:
            try:
                connection = await self._connect()
            except SfssError as error:
                self._note_away(str(error).removeprefix(f"node {self._name}: "))
                tried.set()
                await asyncio.sleep(pause * random.uniform(0.75, 1.0))  # so that many fronts don't knock in step
                pause = min(pause * 2, self._retry_after)
                continue
            log.info("node %s is here: %s %s", self._name, *(self.capabilities or ())[:2])
            self._connection = connection
            pause = FIRST_RETRY
            tried.set()
            try:
                await connection.lost
            finally:
                self._connection = None
                connection.drop(NodeAway(self._name, "the service is stopping"))
            self._note_away(str(connection.error or "the connection ended"))

    def _note_away(self, why: str) -> None:
        if why != self._why_away:
            log.warning("node %s is away: %s; files on it answer 504 until it is back", self._name, why)
        self._why_away = why

    async def _connect(self) -> Connection:
        """A connection over which the node has said who it is; whatever it is that fails becomes a NodeError."""
        loop = asyncio.get_running_loop()
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._name, timeout=self._timeout, max_value=self._largest_value),
                    self.address.host,
                    self.address.port,
                )
                self.capabilities = await self._ask_who(connection)
                return connection
        except TimeoutError:
            error = NodeError(self._name, f"no connection, or no answer on it, within {self._connect_timeout:g} s")
        except OSError as failure:
            error = NodeError(self._name, f"can't be connected to ({failure.strerror or failure})")
        except NodeError as failure:
            error = failure
        except BaseException:
            if connection is not None:
                connection.drop(NodeAway(self._name, "the service is stopping"))
            raise
        if connection is not None:
            connection.drop(error)
        raise error

    async def _ask_who(self, connection: Connection) -> Capabilities:
        """What the node is. A server that isn't there to be talked to (too many connections) raises NodeRefused."""
        version_reply, stats_reply = await asyncio.gather(
            connection.call(command(b"version"), _is_version), connection.call(command(b"stats"), _is_stats)
        )
        for reply in (version_reply, stats_reply):
            if _refused(reply):
                raise self._refusal(reply.line)
        version = version_reply.line.removeprefix(VERSION).strip().decode(errors="replace")
        stats = stats_reply.stats
        if version.endswith(OUR_MARK):
            return Capabilities(
                "sfss", version, durable=True, evicting=False, cas=True, ttl=True, head=True,
                largest_value=_number(stats, b"item_size_max", self._largest_value),
            )  # fmt: skip
        if b"limit_maxbytes" in stats:
            settings = (await connection.call(command(b"stats", b"settings"), _is_stats)).stats
            return Capabilities(
                "memcached", version, durable=False, evicting=settings.get(b"evictions") != b"off",
                cas=settings.get(b"cas_enabled") != b"no", ttl=True, head=False,
                largest_value=_number(settings, b"item_size_max", 1024 * 1024) - ITEM_OVERHEAD,
            )  # fmt: skip
        return Capabilities(
            "beansdb", version, durable=True, evicting=False, cas=False, ttl=False, head=False,
            largest_value=BEANSDB_LARGEST,
        )  # fmt: skip


def _refused(reply: Reply) -> bool:
    return reply.line.startswith(_REFUSALS)


def _is_value_of(key: bytes, reply: Reply) -> bool:
    if reply.line != END:
        return _refused(reply)
    return not reply.stats and (not reply.values or [value.key for value in reply.values] == [key])


def _is_one_of(*lines: bytes) -> _Fits:
    return lambda reply: reply.line in lines or _refused(reply)


_is_stored = _is_one_of(STORED, NOT_STORED)
_is_add = _is_one_of(STORED, NOT_STORED)
_is_cas = _is_one_of(STORED, EXISTS, NOT_FOUND)
_is_delete = _is_one_of(DELETED, NOT_FOUND)


def _is_version(reply: Reply) -> bool:
    return reply.line.startswith(VERSION) or _refused(reply)


def _is_stats(reply: Reply) -> bool:
    return (reply.line == END and not reply.values) or _refused(reply)


def _number(figures: dict[bytes, bytes], name: bytes, otherwise: int) -> int:
    figure = figures.get(name, b"")
    return int(figure) if figure.isdigit() else otherwise
