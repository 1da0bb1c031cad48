"""What a Redis holds, in the order of the keys: by an index beside the items, which every write keeps (``scripts.py``).

Redis itself can tell its keys in no order only, all of them each time. The index costs the memory of a key and some
100 bytes for each item. Where items were there before it, it is made whole first, while files are served; until then,
where the server may throw the index away to make room, and in a cluster, whose members can't share one, there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from sfss.backends.base import Heads, Listed
from sfss.backends.checks import check_list
from sfss.backends.resp.dialing import Dialer, Line
from sfss.backends.resp.scripts import ANY_SHA, INDEX, INDEX_ALL_SHA, INDEXED, LIST_SHA, TOKEN, token_of
from sfss.errors import NodeBroken, SfssError

log = logging.getLogger("sfss.backends")

TOGETHER = 100  # items of one script: half a millisecond, in which the server does nothing else
RANGES_TOGETHER = 100  # likewise
LOOKED_THROUGH = 1000  # keys that are asked for at once, where there is no index
AGAIN = 1.0  # seconds until it is tried again to make the index whole
# What sfss makes of paths, and for itself, begins so: others' keys are left out.
_OURS = re.compile(rb"[/#][^\x00-\x20\x7f]{0,249}")


class Index:
    """The lists of one node; ``line`` gives the connection that they go over."""

    def __init__(self, dialer: Dialer, line: Callable[[], Awaitable[Line]]) -> None:
        self._dialer = dialer
        self._line = line
        self._turn = asyncio.Lock()  # guards that the server has one script of ours to do; a turn has an end

    async def scan(self, after: bytes, count: int, until: bytes) -> list[Listed]:
        """``Backend.scan``. Raises NodeError."""
        check_list(count, after)
        low, high = _range(after, until)
        found: list[Listed] = []
        while len(found) < count:
            some = min(count - len(found), TOGETHER)
            looked_at, last, row = self._list(await self._run(LIST_SHA, low, high, b"%d" % some), after)
            found += map(_listed, row[::3], row[1::3], row[2::3])
            if looked_at < some:
                break
            after, low = last, b"(" + last
        return found

    async def heads(self, after: bytes, count: int, until: bytes) -> Heads:
        """``Backend.heads``."""
        found = await self.scan(after, count, until)
        return Heads([item.key for item in found], [item.header for item in found])

    async def any_in(self, ranges: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        """``Backend.any_in``."""
        found: list[bool] = []
        for start in range(0, len(ranges), RANGES_TOGETHER):
            some = ranges[start : start + RANGES_TOGETHER]
            found += map(bool, await self._run(ANY_SHA, *itertools.chain.from_iterable(_range(*pair) for pair in some)))
        return found

    def _list(self, told: list[Any], after: bytes) -> tuple[int, bytes, list[Any]]:
        """What LIST tells, of keys behind one. Raises NodeBroken if it is nothing that our script would have said."""
        match told:
            case [int() as looked_at, bytes() as last, *row] if len(row) % 3 == 0 and (last > after or not looked_at):
                if {*map(type, row[::3]), *map(type, row[1::3])} <= {bytes} and {*map(type, row[2::3])} <= {int}:
                    return looked_at, last, row
        raise NodeBroken(self._dialer.node, f"answers a list with {str(told)[:100]}")

    async def _run(self, sha: bytes, *words: bytes) -> list[Any]:
        """What a script tells of the index. One at a time: a server does in a row what one connection has asked."""
        async with self._turn:
            told = await self._dialer.run(await self._line(), sha, b"1", INDEX, *words)
        if not isinstance(told, list):
            raise NodeBroken(self._dialer.node, f"answers a list with {str(told)[:100]}")
        return told

    async def is_whole(self, line: Line, *, keeps: bool) -> bool:
        """Whether it has all keys: it can't where the server may throw some away (not ``keeps``)."""
        if not keeps:
            await self._dialer.ask(line, b"DEL", INDEXED)
            return False
        if await self._dialer.ask(line, b"EXISTS", INDEXED) == 0:
            if await self._dialer.ask(line, b"DBSIZE") != 0:
                return False
            await self._dialer.ask(line, b"SET", INDEXED, b"1")
        return True

    async def make_whole(self, lost: asyncio.Future[None]) -> bool:
        """Put every key there is into it; goes on until that is done, or, False, the connection is ``lost``."""
        while not lost.done():
            try:
                line = await self._line()
                async with contextlib.aclosing(all_keys(self._dialer, line)) as walk:
                    async for keys in walk:
                        await self._dialer.run(line, INDEX_ALL_SHA, b"%d" % (1 + len(keys)), INDEX, *keys)
                await self._dialer.ask(line, b"SET", INDEXED, b"1")
                log.info("node %s has an index of its keys now, and lists them", self._dialer.node)
                return True
            except SfssError as error:
                log.warning("%s: its index of keys isn't whole yet; that is tried again", error)
            await asyncio.sleep(AGAIN)
        return False


async def all_keys(dialer: Dialer, line: Line) -> AsyncGenerator[list[bytes], None]:
    """All our keys of a server, up to 1,000 at a time, in no order; one may come twice when its table shrinks."""
    cursor, found = b"", list[bytes]()
    while cursor != b"0":
        match await dialer.ask(line, b"SCAN", cursor or b"0", b"COUNT", b"%d" % LOOKED_THROUGH):
            case [bytes() as cursor, list() as keys]:
                found += filter(_OURS.fullmatch, keys)
            case other:
                raise NodeBroken(dialer.node, f"answers SCAN with {str(other)[:100]}")
        while len(found) >= LOOKED_THROUGH or (found and cursor == b"0"):
            yield found[:LOOKED_THROUGH]
            del found[:LOOKED_THROUGH]


def _listed(key: bytes, beginning: bytes, size: int) -> Listed:
    return Listed(key, beginning[TOKEN:], max(size - TOKEN, 0), token_of(beginning))


def _range(after: bytes, until: bytes) -> tuple[bytes, bytes]:
    return b"(" + after if after else b"-", b"(" + until if until else b"+"
