"""The client of one node that speaks Redis's protocol: Redis, Valkey, KeyDB, Kvrocks, Dragonfly; or a cluster of them.

It keeps one pipelined connection to each server (``connection.py``), opens it again by itself, and learns what the
server can promise each time it connects. While there is none every call fails at once. What is asked is a command of
Redis's; what changes anything is a script (``resp/scripts.py``), which the server carries out in one step: it looks
whether it may, and keeps the index of keys. ``set`` looks, too: a write that comes after a newer one does nothing.

An item is 8 bytes of its own, the token of ``gets``, and the record. STATS and lists go over a second connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any

from sfss import record
from sfss.addresses import Address
from sfss.backends.base import Capabilities, Epoch, Heads, Listed, Versioned
from sfss.backends.checks import check_key
from sfss.backends.keeper import Keeper
from sfss.backends.resp import probe, refusals
from sfss.backends.resp.access import access
from sfss.backends.resp.dialing import Dialer, Known, Line
from sfss.backends.resp.index import Index, all_keys
from sfss.backends.resp.links import URLS_OWN, Link, Place, Primaries, Single
from sfss.backends.resp.scripts import (
    ADD_SHA,
    DELETE_SHA,
    HEAD,
    INDEX,
    REMOVE_SHA,
    REPLACE_SHA,
    SET_SHA,
    SOURCES,
    TOKEN,
    new_token,
    token_of,
)
from sfss.backends.resp.wire import Answer, Refusal, packed
from sfss.backends.stream import STOPPING
from sfss.errors import NodeAway, NodeBroken, NodeError, NodeRefused, NodeTimeout, SfssError
from sfss.told import Tasks, Tell, settle

REDIRECTIONS = 5  # that a command follows through a cluster which changes
RACES = 3  # looks at what seemed newer than what was to be set, and wasn't

_Fits = Callable[[Answer], bool]


class RedisNode:
    """A ``Backend``. Times in seconds; ``largest_value`` bounds what is read and written, in bytes.

    Raises ConfigError if the address's URL can't be used.
    """

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
        self._timeout = timeout
        self._dialer = Dialer(
            self._name,
            access(address),
            largest_value=largest_value,
            connect_timeout=connect_timeout,
            timeout=timeout,
        )
        self.traffic = self._dialer.traffic
        self._keeper = Keeper(self._name, self._connect, self._what, retry_after)
        self._seeds: deque[Place] = deque([URLS_OWN])  # whom to ask next who is there: the members of a cluster in turn
        self._asides: dict[Place, Line] = {}  # the connections for figures and lists
        self._opening = asyncio.Lock()  # guards that each of those is opened once
        self._index = Index(self._dialer, functools.partial(self._aside, URLS_OWN))
        self._clustered = False
        self._waiting = Tasks()  # what there was no room for at once, or takes several steps

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
        self._drop_asides(NodeAway, STOPPING)

    async def get(self, key: bytes) -> bytes | None:
        return _record(await self._item(key, b"GET", key))

    def get_soon(self, key: bytes, tell: Tell[bytes | None]) -> None:
        def told(item: bytes | None) -> None:
            tell(_record(item))

        self._ask_soon((b"GET", key), told, self.get, tell)

    async def gets(self, key: bytes) -> Versioned | None:
        item = await self._item(key, b"GET", key)
        return None if item is None else Versioned(item[TOKEN:], token_of(item))

    async def head(self, key: bytes) -> bytes | None:
        size = HEAD
        while True:
            head = _record(await self._item(key, *_beginning(key, size)) or None)  # empty: there is no item
            end = record.header_end(head or b"") or 0
            if head is None or end <= size:
                return head
            size = end  # and again, if a record with a still longer header has come meanwhile

    def head_soon(self, key: bytes, tell: Tell[bytes | None]) -> None:
        def told(item: bytes | None) -> None:
            head = _record(item or None)
            if head is not None and (record.header_end(head) or 0) > HEAD:
                self._waiting.run(self.head(key), tell)
            else:
                tell(head)

        self._ask_soon(_beginning(key, HEAD), told, self.head, tell)

    async def set(self, key: bytes, data: bytes, expiry: int = 0) -> bool:
        for _ in range(RACES):
            if await self._call(_is_number, len(data), *self._set(key, data, expiry)) == 1:
                return True
            there = await self.gets(key)
            if there is None:
                continue
            if record.is_older(data, there.data[: record.header_end(there.data)]):
                return False
            if await self.replace(key, data, there.token, expiry):  # what lies there is damaged, and only seemed newer
                return True
        raise NodeRefused(self._name, f"what lay there changed {RACES} times while a record was stored")

    def set_soon(self, key: bytes, data: bytes, tell: Tell[bool]) -> None:
        def told(outcome: Answer | SfssError) -> None:
            if outcome == 1:
                tell(True)
            elif isinstance(outcome, SfssError):
                tell(outcome)
            else:  # it was not stored, or not there
                self._waiting.run(self.set(key, data), tell)

        check_key(key)
        link = self._keeper.connection
        if len(data) > self._largest():
            tell(refusals.too_large(self._name, self._largest()))
        elif link is None:
            tell(self._keeper.is_away())
        elif not link.line_of(key).begin(_is_number, len(data), told, packed, *self._set(key, data, 0)):
            self._waiting.run(self.set(key, data), tell)

    async def add(self, key: bytes, data: bytes) -> bool:
        return await self._call(_is_number, len(data), *self._script(ADD_SHA, key, new_token() + data, b"0")) == 1

    async def replace(self, key: bytes, data: bytes, token: int, expiry: int = 0) -> bool:
        words = self._script(REPLACE_SHA, key, new_token() + data, b"%d" % expiry, token.to_bytes(TOKEN))
        return await self._call(_is_number, len(data), *words) == 1

    async def delete(self, key: bytes) -> bool:
        return await self._call(_is_number, 0, *self._script(DELETE_SHA, key)) == 1

    async def remove(self, key: bytes, token: int) -> bool:
        words = self._script(REMOVE_SHA, key, b"", b"", token.to_bytes(TOKEN))
        return await self._call(_is_number, 0, *words) == 1

    async def scan(self, after: bytes, count: int, until: bytes = b"") -> list[Listed]:
        self._check_scan()
        return await self._index.scan(after, count, until)

    async def heads(self, after: bytes, count: int, until: bytes = b"") -> Heads:
        self._check_scan()
        return await self._index.heads(after, count, until)

    async def any_in(self, ranges: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        self._check_scan()
        return await self._index.any_in(ranges)

    async def keys(self) -> AsyncGenerator[list[bytes], None]:
        for place in self._link().places:
            async with contextlib.aclosing(all_keys(self._dialer, await self._aside(place))) as walk:
                async for keys in walk:
                    yield keys

    async def stats(self) -> dict[str, str]:
        link = self._link()
        try:
            async with asyncio.timeout(self._timeout):  # over all members of a cluster, and what has to be opened
                told = [await self._dialer.info(await self._aside(place), b"", b"commandstats")
                        for place in link.places]  # fmt: skip
        except TimeoutError:
            raise NodeTimeout(self._name, f"no INFO within {self._timeout:g} s") from None
        return probe.figures(told, self._dialer.access.database)

    # --- within ---

    def _script(self, sha: bytes, key: bytes, *words: bytes) -> tuple[bytes, ...]:
        """A script over an item, and over the index where there is one."""
        return (b"EVALSHA", sha, *((b"1", key) if self._clustered else (b"2", key, INDEX)), *words)

    def _set(self, key: bytes, data: bytes, expiry: int) -> tuple[bytes, ...]:
        return self._script(SET_SHA, key, new_token() + data, b"%d" % expiry, record.order_bytes(data))

    async def _item(self, key: bytes, *words: bytes) -> bytes | None:
        item = await self._call(_is_bulk, 0, *words)
        assert item is None or isinstance(item, bytes)  # by _is_bulk
        return item

    async def _call(self, fits: _Fits, size: int, *words: bytes) -> Answer:
        """The answer to a command, which holds a record of ``size`` bytes. Raises what a refusal means."""
        key = _key_of(words)
        check_key(key)
        if size > self._largest():
            raise refusals.too_large(self._name, self._largest())
        link = self._link()
        deadline = asyncio.get_running_loop().time() + self._timeout
        answer = await link.line_of(key).call(fits, size, packed, *words)
        if not isinstance(answer, Refusal):
            return answer
        try:
            async with asyncio.timeout_at(deadline):
                return await self._again(link, fits, size, words, answer)
        except TimeoutError:
            raise NodeTimeout(
                self._name, f"no answer within {self._timeout:g} s; the outcome of a write is unknown"
            ) from None

    async def _again(self, link: Link, fits: _Fits, size: int, words: tuple[bytes, ...], refusal: Refusal) -> Answer:
        """A command that was refused, as it is, or where it is, or raises what the refusal means."""
        line, asks = link.line_of(_key_of(words)), False
        for _ in range(REDIRECTIONS):
            if refusals.code(refusal) == "NOSCRIPT" and words[0] == b"EVALSHA":
                words = (b"EVAL", SOURCES[words[1]], *words[2:])  # somebody has flushed them, or it is a new member
            elif elsewhere := await link.redirected(refusal):
                line, asks = elsewhere
            else:
                break
            answer = await (_after_asking(line, fits, size, words) if asks else line.call(fits, size, packed, *words))
            if not isinstance(answer, Refusal):
                return answer
            refusal = answer
        self.traffic.failed("refused")
        error = refusals.meaning(self._name, refusal, self._largest())
        if refusals.code(refusal) in refusals.GONE:
            link.drop(NodeBroken, str(error).removeprefix(f"node {self._name}: "))
        raise error

    def _ask_soon(
        self,
        words: tuple[bytes, bytes] | tuple[bytes, bytes, bytes, bytes],
        told: Callable[[bytes | None], None],
        otherwise: Callable[[bytes], Coroutine[Any, Any, bytes | None]],
        tell: Tell[bytes | None],
    ) -> None:
        """Have an item told to ``told``; errors go to ``tell``, and so does what ``otherwise`` makes of the key."""
        key = words[1]

        def heard(outcome: Answer | SfssError) -> None:
            if outcome is None or isinstance(outcome, bytes):
                told(outcome)
            elif isinstance(outcome, SfssError):
                tell(outcome)
            else:
                self._waiting.run(otherwise(key), tell)

        check_key(key)
        link = self._keeper.connection
        if link is None:
            tell(self._keeper.is_away())
        elif not link.line_of(key).ask(_is_bulk, packed(*words), heard):
            self._waiting.run(otherwise(key), tell)

    def _link(self) -> Link:
        link = self._keeper.connection
        if link is None:
            raise self._keeper.is_away()
        return link

    def _largest(self) -> int:
        return self.capabilities.largest_value if self.capabilities else self._largest_value

    def _what(self) -> Capabilities:
        assert self.capabilities is not None
        return self.capabilities

    def _check_scan(self) -> None:
        self._link()
        if not self._what().scan:
            raise NodeRefused(self._name, f"it is a {self._what().kind} without scan")

    async def _aside(self, place: Place) -> Line:
        """The connection for figures and lists; it is opened if there is none."""
        link = self._link()
        async with self._opening:
            aside = self._asides.get(place)
            if aside is None or aside.lost.done():
                aside = self._asides[place] = await self._dialer.line(*place)
                if self._keeper.connection is not link:  # meanwhile: it may be to another server
                    aside.drop(NodeAway, self._keeper.away or "it was just connected to anew")
        return aside

    def _drop_asides(self, failure: type[NodeError], why: str) -> None:
        for aside in self._asides.values():
            aside.drop(failure, why)
        self._asides.clear()

    async def _connect(self) -> Link:
        self._drop_asides(NodeBroken, "the node is connected to anew")  # after a failover it may be another server
        place = self._seeds[0]
        self._seeds.rotate(-1)
        line = await self._dialer.line(*place)
        try:
            known = await self._dialer.known(line)
            if not known.clustered:
                link: Link = Single(line)
                self.capabilities, stores = await self._indexed(link, line, known), [known.store]
            else:
                link, self.capabilities, stores = await self._joined(line, place)
                line.drop(NodeBroken, STOPPING)
        except BaseException:
            line.drop(NodeBroken, STOPPING)
            raise
        self.epoch, self._clustered = known.epoch, known.clustered
        self.identity = frozenset(filter(None, stores))  # a cluster is known by any of its members
        self._seeds = deque((URLS_OWN, *link.places)) if known.clustered else self._seeds
        return link

    async def _indexed(self, link: Link, line: Line, known: Known) -> Capabilities:
        """What the server can do, with its index of keys; where that isn't whole it is made so, beside all else."""
        if await self._dialer.in_time(self._index.is_whole(line, keeps=known.keeps)):
            return known.capabilities._replace(scan=True)

        def told(outcome: bool | SfssError) -> None:
            if outcome is True and self.capabilities is not None:
                self.capabilities = self.capabilities._replace(scan=True)

        if known.keeps:
            self._waiting.run(self._index.make_whole(link.lost), told)
        return known.capabilities

    async def _joined(self, seed: Line, place: Place) -> tuple[Primaries, Capabilities, list[str]]:
        """The cluster that a server belongs to, what all its members can do, and who they are."""
        members = Primaries(self._dialer)
        try:
            await self._dialer.in_time(members.connect(seed, place))
            told = await asyncio.gather(*map(self._dialer.known, members.lines))
        except BaseException:
            members.drop(NodeBroken, STOPPING)
            raise
        return members, probe.together([known.capabilities for known in told]), [known.store for known in told]


async def _after_asking(line: Line, fits: _Fits, size: int, words: tuple[bytes, ...]) -> Answer:
    """The answer of a member that takes a slot over: ASKING holds for the very next command of a connection."""
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    asked = line.begin(_is_bulk, 0, _unheard, packed, b"ASKING")
    if not asked or not line.begin(fits, size, functools.partial(settle, answer), packed, *words):
        line.drop(NodeBroken, "there was no room behind ASKING")  # or it would hold for another's command
        raise NodeBroken(line.node, "too busy, in a cluster that moves its keys: try again")
    return await answer


def _unheard(_: Answer | SfssError) -> None:
    """What ASKING comes to shows by the command behind it."""


def _beginning(key: bytes, size: int) -> tuple[bytes, bytes, bytes, bytes]:
    """What asks for the item's first bytes, so many of them the record's."""
    return b"GETRANGE", key, b"0", b"%d" % (TOKEN + size - 1)


def _key_of(words: tuple[bytes, ...]) -> bytes:
    return words[3] if words[0].startswith(b"EVAL") else words[1]


def _record(item: bytes | None) -> bytes | None:
    return None if item is None else item[TOKEN:]


def _is_bulk(answer: Answer) -> bool:
    return answer is None or isinstance(answer, bytes | Refusal)


def _is_number(answer: Answer) -> bool:
    return isinstance(answer, int | Refusal)
