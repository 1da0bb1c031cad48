"""Memory for values that are on their way in: together they may take so much, and who comes then waits for his turn.

A connection is read without asking while what its value still lacks is little. A larger one asks for room, and is read
on when it has it; TCP holds its client back meanwhile. Room is given in the order in which it was asked for, and kept
until the value is carried out, for it may wait for the disk with many others. Whoever has room and sends nothing for a
while, when others wait, is cut off: else a few such clients would keep everybody out.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from sfss.node.engine import KIB, MIB

FREE = 64 * KIB  # bytes to come for which nobody has to ask
ROOM = 256 * MIB  # bytes of all values that are on their way in
STALL = 10.0  # seconds without a byte
EVERY = 1.0  # seconds between looks at those who have room, while others wait


class Sender(Protocol):
    """A connection on which a value is on its way."""

    def read_on(self) -> None:
        """There is room now."""

    def stalled(self) -> None:
        """It has room that others wait for, and nothing came for long: close at once, if more is to come."""


class Intake:
    """Gives room, and takes it back."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._given: dict[Sender, int] = {}
        self._seen: dict[Sender, float] = {}  # when those who have room last sent something
        self._asking: dict[Sender, int] = {}
        self._used = 0
        self._looking = False  # a look is due

    def ask(self, sender: Sender, size: int) -> bool:
        """Whether there is room for ``size`` bytes now. If not, ``sender.read_on`` is called when there is."""
        if not self._asking and self._fits(size):
            self._give(sender, size)
            return True
        self._asking[sender] = size
        self._look_later()
        return False

    def saw(self, sender: Sender) -> None:
        """Something came from one who has room, or asked for it: who waits for it isn't late."""
        if sender in self._given:
            self._seen[sender] = self._loop.time()

    def done(self, sender: Sender) -> None:
        """The value is carried out, or won't come: who had room, or asked for it, needs it no more."""
        self._asking.pop(sender, None)
        self._used -= self._given.pop(sender, 0)
        self._seen.pop(sender, None)
        while self._asking:
            first = next(iter(self._asking))
            if not self._fits(self._asking[first]):
                break
            self._give(first, self._asking.pop(first))
            first.read_on()

    def _fits(self, size: int) -> bool:
        return not self._used or self._used + size <= ROOM

    def _give(self, sender: Sender, size: int) -> None:
        self._given[sender] = size
        self._seen[sender] = self._loop.time()
        self._used += size

    def _look_later(self) -> None:
        if self._asking and not self._looking:
            self._looking = True
            self._loop.call_later(EVERY, self._look)

    def _look(self) -> None:
        self._looking = False
        if self._asking:
            late = self._loop.time() - STALL
            for sender in [sender for sender, seen in self._seen.items() if seen < late]:
                sender.stalled()
        self._look_later()
