"""One write of a record to its owners: who has it, who takes it in place of another one, and when that is enough."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sfss import record
from sfss.backends.base import Backend
from sfss.cluster.topology import Place
from sfss.errors import Damaged, NodeError, NodeRefused, OutOfSpace, SfssError, TooLarge, Unavailable
from sfss.record import Header, Kind

if TYPE_CHECKING:
    from sfss.cluster.copies import Copies

_RACES = 16  # how often it is tried to write upon a state that others change


class Upon(NamedTuple):
    """What a condition was decided by."""

    seen: Header | None  # the newest version
    by_order: bool = False  # whatever is older has come before

    def is_passed(self, there: Header) -> bool:
        """Whether that is another write's, which came since. To create upon a deletion is right at any time."""
        if self.by_order:
            return False
        was_there = self.seen is not None and self.seen.kind != Kind.TOMBSTONE
        is_new = self.seen is None or there.order > self.seen.order
        return is_new and (was_there or there.kind != Kind.TOMBSTONE)


class Overtaken(SfssError):
    """On a node lies another write's record, which came since the condition was decided."""

    def __init__(self, data: bytes, version: Header) -> None:
        super().__init__("another write came between")
        self.data = data
        self.order = version.order


class Spread:
    """One write: asks the owners, and spares in the place of those that can't, until ``needed`` hold the record.

    With a ``version``, who has a newer one is content, and counts; without, that ends the write. If it is ``upon`` a
    state, what came between is overwritten where so few have it that it can't have been acknowledged. The error that
    too few have it has as its cause that of a node which is here and refuses it, if there is one.
    """

    def __init__(
        self,
        copies: Copies,
        key: bytes,
        data: bytes,
        place: Place,
        needed: int,
        version: Header | None = None,
        held: Sequence[Backend] = (),
        upon: Upon | None = None,
    ) -> None:
        self.refused_by: Backend | None = None  # for it has a newer version
        self.overtaken_by: bytes | None = None  # a record that may have been acknowledged since
        self._overtaken: dict[Backend, Overtaken] = {}
        self.failures: list[SfssError] = []
        self._copies = copies
        self._key = key
        self._data = data
        self._place = place
        self._needed = needed
        self._version = version
        self._upon = upon
        self._holders = list(held)
        self._spares = iter(node for node in place.spares if node not in held)
        self._asked: dict[asyncio.Task[bool], Backend] = {}  # that have not been heard yet

    async def run(self) -> bool:
        """False if it was refused."""
        for node in self._place.owners:
            if node not in self._holders:
                self._ask(node)
        while (self._asked or self._overtaken) and not (self._is_enough() and self._is_decided()):
            await self._listen()
            if self.refused_by is not None or self.overtaken_by is not None:
                return False
        if self._asked or self._overtaken:
            self._copies.later(self._finish())
        if not self._is_enough():
            said_no = (error for error in self.failures if isinstance(error, NodeRefused | OutOfSpace))
            raise self._why_not() from next(said_no, None)
        return True

    async def _finish(self) -> None:
        """Behind the answer, find a spare for the copies that their owners don't take after all."""
        before = len(self.failures)
        while self._asked or (self._overtaken and self.overtaken_by is None):
            await self._listen()
        self._copies.counts.late_failures += len(self.failures) - before

    def _ask(self, node: Backend) -> None:
        if self._version is None:
            write = node.set(self._key, self._data)
        elif self._upon is not None:
            write = put_upon(node, self._key, self._data, self._version, self._upon)
        else:
            write = put_newer(node, self._key, self._data, self._version)
        self._asked[self._copies.later(write)] = node

    async def _listen(self) -> None:
        if not self._asked:
            self._settle()
            return
        done, _ = await asyncio.wait(self._asked, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            self._hear(self._asked.pop(task), task)

    def _hear(self, node: Backend, task: asyncio.Task[bool]) -> None:
        error = task.exception()
        if error is None:
            self._holders.append(node)
            if self._version is None and not task.result():
                self.refused_by = node
            return
        if isinstance(error, Overtaken):
            self._overtaken[node] = error
            return
        if not isinstance(error, NodeError | OutOfSpace | TooLarge):
            raise error
        self.failures.append(error)
        self._copies.lacking.note(self._key)
        if (spare := next(self._spares, None)) is not None:
            self._copies.counts.handoffs += 1
            self._ask(spare)

    def _settle(self) -> None:
        """All have been heard, and some have what came between: give way to it, or write over it."""
        # Where it can't be asked whether they have it, too, they may have acknowledged it.
        unheard = [node for node in self._place.owners if node not in self._holders]
        may_have_it = {*self._overtaken, *unheard}
        if any(sum(node in may_have_it for node in g.owners) >= self._place.quorum.write for g in self._place.groups):
            self.overtaken_by = max(self._overtaken.values(), key=lambda overtaken: overtaken.order).data
            return
        self._upon = None
        for node in self._overtaken:
            self._ask(node)
        self._overtaken = {}

    def _is_enough(self) -> bool:
        return self._place.suffices(self._holders, self._needed)

    def _is_decided(self) -> bool:
        """Whether those have been heard who decide about conditions, of a write without one.

        They may just have let another one create the file, in a version above this one's; then they refuse this one,
        and it is to be written again before it is acknowledged, or it would be lost.
        """
        if self._version is not None or not self._place.quorum.sees_all:
            return True
        asked = self._asked.values()
        return not any(node in asked for node in self._place.deciders)

    def _why_not(self) -> SfssError:
        first = self.failures[0] if self.failures else None
        is_one = not isinstance(first, NodeError | None) and all(isinstance(e, type(first)) for e in self.failures)
        if is_one and not self._holders:  # else it isn't true that nothing was stored
            assert first is not None
            return first
        needed = self._place.quorum.write
        return Unavailable(
            f"{len(self._holders)} nodes have taken the record, and its write_quorum is {needed}: "
            f"{'; '.join(map(str, self.failures))}. Whether it is kept is not known; try again, that is safe"
        )


async def put_newer(node: Backend, key: bytes, data: bytes, version: Header) -> bool:
    """Write a record where an older one, none, or a damaged one lies; False if what lies there is as new.

    Where the node compares versions itself, or decides by cas, nothing newer is ever overwritten, whenever it comes.
    """
    can = node.capabilities
    if can is not None and can.versions:
        return await node.set(key, data)
    if can is not None and can.cas:
        found = await node.gets(key)
        if found is None:
            return await node.add(key, data)
        return _is_older(found.data, version) and await node.replace(key, data, found.token)
    there = await node.get(key)
    return (there is None or _is_older(there, version)) and await node.set(key, data)


async def put_upon(node: Backend, key: bytes, data: bytes, version: Header, upon: Upon) -> bool:
    """As ``put_newer``, but raises Overtaken where an older version lies that came since a condition was decided."""
    if node.capabilities is None or not node.capabilities.cas:
        return await put_newer(node, key, data, version)
    for _ in range(_RACES):
        found = await node.gets(key)
        if found is None:
            if await node.add(key, data):
                return True
            continue
        try:
            there = record.decode(found.data).header
        except Damaged:
            pass
        else:
            if there.order >= version.order:
                return False
            if upon.is_passed(there):
                raise Overtaken(found.data, there)
        if await node.replace(key, data, found.token):
            return True
    raise NodeRefused(str(node.address), f"the record was overwritten {_RACES} times while it was stored")


def _is_older(data: bytes, version: Header) -> bool:
    try:
        return record.decode(data).header.order < version.order
    except Damaged:
        return True
