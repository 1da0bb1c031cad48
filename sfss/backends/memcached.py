"""The client of one node that speaks memcached's text protocol: sfss's own, memcached, Beansdb, GoBeansDB.

It keeps one pipelined connection, opens it again by itself, and learns what the node can do each time it connects.
While there is no connection every call fails at once. Nothing is sent that a Beansdb would misread: flags are 0, and
an expiry, ``gets``, ``add`` and ``cas`` are refused here on a node that wasn't seen to have them. STATS and lists go
over connections of their own.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import ParamSpec

from sfss.addresses import Address
from sfss.backends.base import Capabilities, Epoch, Heads, Listed, Versioned
from sfss.backends.checks import KEY, check_key
from sfss.backends.connection import Connection
from sfss.backends.keeper import Keeper
from sfss.backends.lists import Lists
from sfss.backends.statistics import Statistics
from sfss.backends.stream import STOPPING, not_connected
from sfss.errors import NodeBroken, NodeError, NodeRefused, OutOfSpace, SfssError, TooLarge
from sfss.memcache import (
    DELETED,
    END,
    EXISTS,
    META_DONE,
    META_EXISTS,
    META_NOT_FOUND,
    NOT_FOUND,
    NOT_STORED,
    OUT_OF_SPACE,
    SERVER_ERROR,
    STORED,
    VALUE_TOO_LARGE,
    VERSION,
    Reply,
    ReplyParser,
    command,
    retrieval,
    storage,
)
from sfss.told import Tasks, Tell
from sfss.traffic import Traffic

OUR_MARK = "-sfss"  # at the end of the version that our own node gives
# memcached counts an item's header, key and suffix into its limit. It also drops what lay under the key when it
# refuses the new value, so a value that might not fit must never be sent.
ITEM_OVERHEAD = 512
LONGEST_EXPIRY = 30 * 24 * 3600  # seconds; a larger number is taken for a date
AT_ONCE = -1  # the expiry of what is gone as soon as it is stored
BEANSDB_LARGEST = 50 * 1024 * 1024  # bytes; Beansdb's MAX_VALUE_LEN
# memcached's two ways to say that there is none for a value, large ones being taken in chunks, and our node's.
_NO_ROOM = (b"SERVER_ERROR out of memory storing", b"SERVER_ERROR Out of memory during read", OUT_OF_SPACE)
_EVICTS = "throws files away when it is full (memcached without -M): don't keep files there"
_SET = functools.partial(storage, b"set")
_ADD = functools.partial(storage, b"add")
_Fits = Callable[[Reply], bool]
_P = ParamSpec("_P")
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
        self.epoch: Epoch | None = None
        self.identity: frozenset[str] = frozenset()
        self._name = str(address)
        self._largest_value = largest_value
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._keeper = Keeper(self._name, self._connect, self._what, retry_after)
        self._statistics = Statistics(address, timeout)
        self._lists = Lists(address, connect_timeout=connect_timeout, timeout=timeout)
        self._waiting = Tasks()  # what there was no room for at once
        self.traffic = Traffic()

    @property
    def since(self) -> float | None:
        return self._keeper.since

    @property
    def away(self) -> str | None:
        return self._keeper.away

    async def start(self) -> None:
        await self._keeper.start()

    async def close(self) -> None:
        await self._keeper.close()
        await self._waiting.close()
        self._lists.close()
        await self._statistics.close()

    async def get(self, key: bytes) -> bytes | None:
        reply = await self._retrieve(b"get", key)
        return reply.values[0].data if reply.values else None

    def get_soon(self, key: bytes, tell: Tell[bytes | None]) -> None:
        self._retrieve_soon(b"get", key, tell)

    async def gets(self, key: bytes) -> Versioned | None:
        self._check_cas()
        reply = await self._retrieve(b"gets", key)
        return Versioned(reply.values[0].data, reply.values[0].cas) if reply.values else None

    async def head(self, key: bytes) -> bytes | None:
        reply = await self._retrieve(self._verb_of_head(), key)
        return reply.values[0].data if reply.values else None

    def head_soon(self, key: bytes, tell: Tell[bytes | None]) -> None:
        self._retrieve_soon(self._verb_of_head(), key, tell)

    async def set(self, key: bytes, data: bytes, expiry: int = 0) -> bool:
        request = functools.partial(storage, b"set", expiry=self._expiry(expiry)) if expiry else _SET
        stored = await self._store(_is_set, request, key, data)
        if not stored and self.capabilities and self.capabilities.kind == "sfss":
            return False
        return stored or await self._lies_there(key, data)

    def set_soon(self, key: bytes, data: bytes, tell: Tell[bool]) -> None:
        check_key(key)
        if self.capabilities and len(data) > self.capabilities.largest_value:
            tell(self._too_large())
        elif (connection := self._keeper.connection) is None:
            tell(self._keeper.is_away())
        else:
            told = functools.partial(self._tell_stored, key, data, tell)
            if not connection.begin(_is_set, len(data), told, _SET, key, data):
                self._waiting.run(self.set(key, data), tell)

    async def add(self, key: bytes, data: bytes) -> bool:
        self._check_cas()
        return await self._store(_is_add, _ADD, key, data)

    async def replace(self, key: bytes, data: bytes, token: int, expiry: int = 0) -> bool:
        self._check_cas()
        request = functools.partial(storage, b"cas", cas=token, expiry=self._expiry(expiry))
        return await self._store(_is_cas, request, key, data)

    async def delete(self, key: bytes) -> bool:
        check_key(key)
        return (await self._call(_is_delete, 0, command, b"delete", key)).line == DELETED

    async def remove(self, key: bytes, token: int) -> bool:
        self._check_cas()
        check_key(key)
        if self.capabilities and self.capabilities.kind == "sfss":
            return (await self._call(_is_md, 0, command, b"md", key, b"C%d" % token)).line == META_DONE
        # Not by memcached's md: that of 1.6.6 removes what has another token too (RevenueCat/meta-memcache-py#12).
        return await self._store(_is_cas, functools.partial(storage, b"cas", cas=token, expiry=AT_ONCE), key, b"")

    async def scan(self, after: bytes, count: int, until: bytes = b"") -> list[Listed]:
        self._check_scan()
        return await self._lists.scan(after, count, until)

    async def heads(self, after: bytes, count: int, until: bytes = b"") -> Heads:
        self._check_scan()
        return await self._lists.heads(after, count, until)

    async def any_in(self, ranges: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        self._check_scan()
        return await self._lists.any_in(ranges)

    def keys(self) -> AsyncGenerator[list[bytes], None]:
        return self._lists.keys(self._here().kind, KEY)

    async def stats(self) -> dict[str, str]:
        return await self._statistics.ask()

    # --- within ---

    async def _retrieve(self, verb: bytes, key: bytes) -> Reply:
        check_key(key)
        return await self._call(functools.partial(_is_value_of, key), 0, retrieval, verb, key)

    def _tell_stored(self, key: bytes, data: bytes, tell: Tell[bool], outcome: Reply | SfssError) -> None:
        if isinstance(outcome, SfssError):
            tell(outcome)
        elif outcome.line == STORED:
            tell(True)
        elif _refused(outcome):
            tell(self._refusal(outcome.line))
        elif self.capabilities and self.capabilities.kind == "sfss":
            tell(False)
        else:
            self._waiting.run(self._lies_there(key, data), tell)

    async def _lies_there(self, key: bytes, data: bytes) -> bool:
        """True: Beansdb says NOT_STORED when the very same bytes do already, as after a set that was tried again."""
        if await self.get(key) != data:
            raise NodeRefused(self._name, "answered NOT_STORED")
        return True

    def _verb_of_head(self) -> bytes:
        return b"head" if self.capabilities and self.capabilities.head else b"get"

    def _retrieve_soon(self, verb: bytes, key: bytes, tell: Tell[bytes | None]) -> None:
        check_key(key)
        connection = self._keeper.connection
        if connection is None:
            tell(self._keeper.is_away())
            return
        fits = functools.partial(_is_value_of, key)
        told = functools.partial(self._tell_value, tell)
        if not connection.ask(fits, b"%b %b\r\n" % (verb, key), told):
            self._waiting.run(self._retrieve(verb, key), told)

    def _tell_value(self, tell: Tell[bytes | None], outcome: Reply | SfssError) -> None:
        if isinstance(outcome, SfssError):
            tell(outcome)
        elif outcome.line == END:
            tell(outcome.values[0].data if outcome.values else None)
        else:
            tell(self._refusal(outcome.line))

    async def _store(self, fits: _Fits, request: Callable[[bytes, bytes], bytes], key: bytes, data: bytes) -> bool:
        check_key(key)
        if self.capabilities and len(data) > self.capabilities.largest_value:
            raise self._too_large()
        reply = await self._call(fits, len(data), request, key, data)
        return reply.line == STORED

    async def _call(self, fits: _Fits, size: int, request: Callable[_P, bytes],
                    *args: _P.args, **kwargs: _P.kwargs) -> Reply:  # fmt: skip
        """``Connection.call``, where the node's errors are raised."""
        connection = self._keeper.connection
        if connection is None:
            raise self._keeper.is_away()
        return self._checked(await connection.call(fits, size, request, *args, **kwargs))

    def _here(self) -> Capabilities:
        """What the node can do, which is here."""
        if self._keeper.connection is None or self.capabilities is None:
            raise self._keeper.is_away()
        return self.capabilities

    def _what(self) -> Capabilities:
        assert self.capabilities is not None
        return self.capabilities

    def _checked(self, reply: Reply) -> Reply:
        if _refused(reply):
            raise self._refusal(reply.line)
        return reply

    def _refusal(self, line: bytes) -> SfssError:
        self.traffic.failed("refused")
        if line == VALUE_TOO_LARGE:
            return self._too_large()
        if line.startswith(_NO_ROOM):
            return OutOfSpace(f"node {self._name} has no room: {line.decode(errors='replace')}; add space or nodes")
        return NodeRefused(self._name, f"answered {line[:200].decode(errors='replace')}")

    def _check_cas(self) -> None:
        if self.capabilities and not self.capabilities.cas:
            raise NodeRefused(self._name, f"it is a {self.capabilities.kind} without add and cas")

    def _check_scan(self) -> None:
        if not self._here().scan:
            raise NodeRefused(self._name, f"it is a {self._here().kind} without scan")

    def _expiry(self, seconds: int) -> int:
        """As it is sent: a date, if it is far off. Raises NodeRefused if the node would take it for something else."""
        if seconds and self.capabilities and not self.capabilities.ttl:
            raise NodeRefused(self._name, f"it is a {self.capabilities.kind} without expiry")
        return seconds if seconds <= LONGEST_EXPIRY else int(time.time()) + seconds

    def _too_large(self) -> TooLarge:
        kind, largest = (self.capabilities.kind, self.capabilities.largest_value) if self.capabilities else ("", 0)
        setting = {"sfss": "--max-item-size", "memcached": "-I"}.get(kind, "the largest value")
        return TooLarge(
            f"node {self._name} ({kind}) takes records of at most {largest} bytes: raise {setting} of that node,"
            " or send a smaller file",
            limit=largest,
            setting=setting,
        )

    async def _connect(self) -> Connection[Reply]:
        """A connection over which the node has said who it is; whatever fails becomes an SfssError."""
        loop = asyncio.get_running_loop()
        connection: Connection[Reply] | None = None
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._name, ReplyParser(self._largest_value), self._timeout),
                    self.address.host,
                    self.address.port,
                )
                self.capabilities = await self._ask_who(connection)
                connection.traffic = self.traffic
                return connection
        except BaseException as failure:
            if connection is not None:
                connection.drop(NodeBroken, STOPPING)
            if (why := not_connected(failure, self._connect_timeout)) is None:
                raise
            raise NodeError(self._name, why) from None

    async def _ask_who(self, connection: Connection[Reply]) -> Capabilities:
        """What the node is. A server that isn't there to be talked to (too many connections) raises NodeRefused."""
        # One after the other: who is refused is hung up on, and what else is in flight would hide the reason.
        version_reply = self._checked(await connection.call(_is_version, 0, command, b"version"))
        asked = time.monotonic()
        stats = self._checked(await connection.call(_is_stats, 0, command, b"stats")).stats
        self.epoch = _epoch(stats, asked, time.monotonic())
        self.identity = frozenset({stats[b"node_run"].decode(errors="replace")} if b"node_run" in stats else ())
        version = version_reply.line.removeprefix(VERSION).strip().decode(errors="replace")
        if version.endswith(OUR_MARK):
            return Capabilities(
                "sfss", version, durable=True, evicting=False, cas=True, ttl=True, head=True,
                scan=b"scan_max" in stats,
                largest_value=_number(stats, b"item_size_max", self._largest_value), versions=True,
            )  # fmt: skip
        if b"limit_maxbytes" in stats:
            settings = (await connection.call(_is_stats, 0, command, b"stats", b"settings")).stats
            evicting = settings.get(b"evictions") != b"off"
            return Capabilities(
                "memcached", version, durable=False, evicting=evicting,
                cas=settings.get(b"cas_enabled") != b"no", ttl=True, head=False, scan=False,
                largest_value=_number(settings, b"item_size_max", 1024 * 1024) - ITEM_OVERHEAD,
                caveats=(_EVICTS,) if evicting else (),
            )  # fmt: skip
        return Capabilities(
            "beansdb", version, durable=True, evicting=False, cas=False, ttl=False, head=False, scan=False,
            largest_value=BEANSDB_LARGEST,
        )  # fmt: skip


def _refused(reply: Reply) -> bool:
    return reply.line.startswith(_REFUSALS)


def _is_value_of(key: bytes, reply: Reply) -> bool:
    if reply.line != END:
        return _refused(reply)
    values = reply.values
    return not reply.stats and (not values or (len(values) == 1 and values[0].key == key))


def _is_one_of(*lines: bytes, errors: tuple[bytes, ...] = _REFUSALS) -> _Fits:
    return lambda reply: reply.line in lines or reply.line.startswith(errors)


# ERROR and CLIENT_ERROR don't fit a request with data: the server goes on to take the data for commands.
_is_set = _is_add = _is_one_of(STORED, NOT_STORED, errors=(SERVER_ERROR,))
_is_cas = _is_one_of(STORED, EXISTS, NOT_FOUND, errors=(SERVER_ERROR,))
_is_md = _is_one_of(META_DONE, META_EXISTS, META_NOT_FOUND)
_is_delete = _is_one_of(DELETED, NOT_FOUND)


def _is_version(reply: Reply) -> bool:
    return reply.line.startswith(VERSION) or _refused(reply)


def _is_stats(reply: Reply) -> bool:
    return (reply.line == END and not reply.values) or _refused(reply)


def _epoch(stats: dict[bytes, bytes], asked: float, answered: float) -> Epoch | None:
    """By the time that a node told somewhen between two moments: ours to the microsecond, others in seconds.

    memcached counts them by a timer of its own, from the second in which it started: it was seen to be one late.
    """
    halfway, within = (asked + answered) / 2, (answered - asked) / 2
    if told := _number(stats, b"time_usec", 0):
        return Epoch(told / 1e6 - halfway, within)
    told = _number(stats, b"time", 0)
    return Epoch(told + 0.5 - halfway, 2.0 + within) if told else None


def _number(figures: dict[bytes, bytes], name: bytes, otherwise: int) -> int:
    figure = figures.get(name, b"")
    return int(figure) if figure.isdigit() else otherwise
