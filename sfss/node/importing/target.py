"""The target: a node, to which items go, and what is counted of its answers."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from sfss.errors import OutOfSpace, Unavailable
from sfss.memcache import CLIENT_ERROR, NOT_STORED, OUT_OF_SPACE, STORED, VALUE_TOO_LARGE
from sfss.node.importing.peer import Answer, Peer, shown, spelled, text
from sfss.node.importing.report import Report
from sfss.node.importing.source import Item

WINDOW = 4 * 1024 * 1024  # bytes that are under way, or one item if that is larger
COST = 200  # bytes that an item counts for beside its key and value

Tell = Callable[[str], None]  # a line for people: names an item, or warns


class Writer:
    """The target's end: items go out, a window of them; what the node answers is counted."""

    def __init__(self, peer: Peer, report: Report, tell: Tell, *, overwrite: bool, verify: bool) -> None:
        self._peer = peer
        self._report = report
        self._tell = tell
        self._verb, self._mode = (b"set", b"MS") if overwrite else (b"add", b"ME")
        self._verify = verify
        self._sent: deque[_Sent] = deque()
        self._under_way = 0  # bytes
        self._moved = asyncio.Event()  # something was sent, or answered

    async def put(self, item: Item) -> None:
        """Send an item, when there is room for it."""
        size = len(item.key) + len(item.data) + COST
        while self._sent and self._under_way + size > WINDOW:
            await self._move()
        self._peer.send(self._head(item), item.data, b"\r\n")
        if self._verify:
            self._peer.send(b"mg %b v f%b\r\n" % spelled(item.key))
        self._sent.append(_Sent(item if self._verify else item._replace(data=b""), len(item.data), size))
        self._under_way += size
        self._moved.set()

    def _head(self, item: Item) -> bytes:
        """A storage command where the key allows it: the node has done with those in half the time."""
        word, base64 = spelled(item.key)
        if base64:
            return b"ms %b %d F%d T%d %b b\r\n" % (word, len(item.data), item.flags, item.expiry, self._mode)
        return b"%b %b %d %d %d\r\n" % (self._verb, word, item.flags, item.expiry, len(item.data))

    async def finish(self) -> None:
        """Wait for all answers."""
        while self._sent:
            await self._move()

    async def _move(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    async def take_answers(self) -> None:
        """Count what the node answers; until this is cancelled. Raises OutOfSpace, and Unavailable."""
        while True:
            while not self._sent:
                await self._move()
            sent = self._sent[0]
            holds = self._count(sent, (await self._peer.answer()).line)
            if self._verify:
                back = await self._peer.answer()
                if holds:
                    self._compare(sent.item, back)
            self._sent.popleft()
            self._under_way -= sent.cost
            self._moved.set()

    def _count(self, sent: _Sent, line: bytes) -> bool:
        """Whether the node has the item now."""
        report = self._report
        if line in (STORED, b"HD"):
            report.imported += 1
            report.bytes += sent.size
        elif line in (NOT_STORED, b"NS"):
            report.there += 1
        elif line.startswith(OUT_OF_SPACE):
            raise OutOfSpace(f"{self._peer.name} has no room: it says '{text(line)}'")
        elif line == VALUE_TOO_LARGE or line.startswith(CLIENT_ERROR):
            report.refused += 1
            self._tell(f"refused: {shown(sent.item.key)}, {sent.size:,} bytes: {text(line)}")
            return False
        else:
            raise Unavailable(f"{self._peer.name} can't store: it says '{text(line)}'")
        return True

    def _compare(self, item: Item, back: Answer) -> None:
        found = re.fullmatch(rb"VA \d+ f(\d+)(?: [WXZ])*", back.line)
        if found and (int(found[1]), back.block) == (item.flags, item.data):
            return
        if back.line == b"EN" and 0 < item.expiry <= time.time():
            return
        self._report.differing += 1
        has = "other flags or bytes" if found else f"'{text(back.line)}'"
        self._tell(f"differs: {shown(item.key)}: read back from the node, it is {has}")


class _Sent(NamedTuple):
    item: Item  # without its data, if that isn't needed any more
    size: int  # of its data, in bytes
    cost: int  # what it takes of the window
