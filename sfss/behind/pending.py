"""One path under write-behind: to ``files.py`` it is what the cluster is for other paths.

What waits in the short-term store is newer than what the nodes have, so it is asked first, and then the nodes: never
the other way round, or at once, for a record may be moved in between. Where the store can't be asked nothing is said of
the path, neither an old version nor that there is none.

A record of blocks, of which content lies on the nodes already, doesn't wait: by the store it has its turn among all
others, it is on its way then, and it is acknowledged when the nodes have it. Until then what was there is what there
is; and if the nodes refuse it, it stays so. Who is to decide upon it meanwhile has it come to its end first.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sfss import record
from sfss.behind.landing import Landing
from sfss.behind.states import Accepted, text_of
from sfss.cluster.replication import Cluster
from sfss.errors import Damaged, OutOfSpace, TooLarge, Unavailable
from sfss.record import Header, Kind, Record
from sfss.told import Tasks, Tell

if TYPE_CHECKING:  # who has no short-term store needs no Redis client
    from sfss.behind.store import ShortTerm

T = TypeVar("T")

_RACES = 16  # how often it begins again because another one was on its way
_GOOD_FOR = 60.0  # seconds; in twice that the store forgets that something was moved


class State(NamedTuple):
    """What a conditional write stands on."""

    text: str  # as the store has it
    since: float  # by time.monotonic


class Pending:
    """The record of one path; its methods are ``Cluster``'s, whose ``key`` is always that of this path."""

    def __init__(self, store: ShortTerm, cluster: Cluster, landing: Landing, tasks: Tasks, path: str) -> None:
        self._store = store
        self._cluster = cluster
        self._landing = landing
        self._tasks = tasks
        self._path = path

    async def get(self, key: bytes) -> Record | None:
        """As ``Cluster.get``. Raises ShortTermAway, too."""
        found = await self._store.get(self._path)
        return await self._cluster.get(key) if found is None else self._decoded(record.decode, found[1])

    def get_soon(self, key: bytes, tell: Tell[Record | None]) -> None:
        """Tell what ``get`` would return, or raise."""
        self._tasks.run(self.get(key), tell)

    async def head(self, key: bytes) -> Header | None:
        """As ``Cluster.head``. Raises ShortTermAway, too."""
        data = await self._store.head(self._path)
        return await self._cluster.head(key) if data is None else self._decoded(record.decode_head, data)

    def head_soon(self, key: bytes, tell: Tell[Header | None]) -> None:
        """Tell what ``head`` would return, or raise."""
        self._tasks.run(self.head(key), tell)

    async def put_right(self, key: bytes) -> None:
        """As ``Cluster.put_right``: what the nodes have has proved to be old."""
        await self._cluster.put_right(key)

    async def hold(self, key: bytes, there: Header) -> None:
        """As ``Cluster.hold``."""
        if await self._store.head(self._path) is None:
            await self._cluster.hold(key, there)

    async def get_for_update(self, key: bytes) -> tuple[Header | None, State]:
        """As ``Cluster.get_for_update``; the token holds also if what waits is moved meanwhile."""
        for _ in range(_RACES):
            seen = await self._store.look(self._path)
            if seen.is_going:
                await self._help(seen.state.encode())
                continue
            state = State(seen.state, time.monotonic())
            if seen.header is not None:
                return self._decoded(record.decode_head, seen.header), state
            there, _ = await self._cluster.get_for_update(key)
            return there, state
        raise self._is_busy()

    async def put(self, key: bytes, data: bytes) -> bool:
        """Have a record wait; it is kept when this returns. False if something as new is there.

        Raises BacklogFull, ShortTermAway; of a record of blocks as ``Landing.land``.
        """
        return await self._accept(key, data, None)

    def put_soon(self, key: bytes, data: bytes, tell: Tell[bool]) -> None:
        """Tell what ``put`` would return, or raise."""
        self._tasks.run(self.put(key, data), tell)

    async def put_if(self, key: bytes, data: bytes, token: Any) -> bool:
        """The same, if the state is still the token's; False if it isn't."""
        return time.monotonic() - token.since < _GOOD_FOR and await self._accept(key, data, token.text)

    async def delete(self, key: bytes, tombstone: bytes) -> bool:
        """Have the path wait to be deleted."""
        return await self.put(key, tombstone)

    async def delete_if(self, key: bytes, tombstone: bytes, token: Any) -> bool:
        """The same, if the state is still the token's."""
        return await self.put_if(key, tombstone, token)

    async def _accept(self, key: bytes, data: bytes, expected: str | None) -> bool:
        header, end = record.decode_header(data)
        head, payload, going = data[:end], memoryview(data)[end:], header.kind == Kind.MANIFEST
        for _ in range(_RACES):
            said, state = await self._say(header, head, payload, expected)
            if said is Accepted.LOOK:
                there = await self._cluster.head(key)
                if there is not None and there.order >= header.order:
                    return False
                said, state = await self._say(header, head, payload, state)
            if said is not Accepted.GOING:
                break
            await self._help(state.encode())
            if state.encode() >= text_of(header.order):
                return False
        else:
            raise self._is_busy()
        if said is not Accepted.KEPT:
            return False
        if going:
            await self._land(Record(header, payload))
        return True

    async def _say(
        self, header: Header, head: bytes, payload: memoryview, expected: str | None
    ) -> tuple[Accepted, str]:
        """Ask the store to take it. To delete must be possible just now; a record of blocks is no burden for long."""
        return await self._store.accept(
            self._path, header.order, head, payload,
            expected=expected, anyhow=header.kind != Kind.FILE, going=header.kind == Kind.MANIFEST,
        )  # fmt: skip

    async def _land(self, going: Record) -> None:
        """Bring a record of blocks, which is on its way, onto the nodes.

        The store has counted the caller among those who land it. It is there, for everybody, when this returns. Where
        the nodes refuse it to all of them, what was there before it stays there.

        They may have a newer one. It has come behind this one, for the store gives a turn to none that is older than
        what was kept; so this one has had its turn, and may have been seen. To put it once more, above the newer one,
        would be a second turn, with blocks that are freed by now.
        """
        order = text_of(going.header.order)
        try:
            is_newest = await self._landing.land(self._path, going)
        except (OutOfSpace, TooLarge) as error:
            if await self._store.refused(self._path, order):
                raise
            raise self._is_unknown() from error  # others are landing it, or have had it come to its end
        is_done = await self._store.done(self._path, order, is_newest=is_newest)
        if not is_done and not await self._has_had_its_turn(order):
            raise self._is_unknown()

    async def _has_had_its_turn(self, order: bytes) -> bool:
        """Whether a record came to its end, by somebody else, otherwise than by being given up."""
        seen = await self._store.look(self._path)
        return seen.state.encode() >= order and not await self._store.is_given_up(self._path, order)

    async def _help(self, order: bytes) -> None:
        """Have another one's record, which is on its way in that version, come to its end."""
        found = await self._store.of(self._path, order)
        if found is None or (seconds := found[1]) is None:
            return
        going = self._decoded(record.decode, found[0])
        if not self._landing.may_be_swept(going):
            if await self._store.begin(self._path, order):
                with contextlib.suppress(OutOfSpace, TooLarge):  # that is an end, too
                    await self._land(going)
        elif self._landing.is_forsaken(seconds):
            await self._store.give_up(self._path, order)
        else:
            raise self._is_busy()

    def _is_unknown(self) -> Unavailable:
        return Unavailable(f"whether '{self._path}' was stored isn't known: try again, that is safe")

    def _is_busy(self) -> Unavailable:
        return Unavailable(f"'{self._path}' is being changed by others: try again")

    def _decoded(self, decode: Callable[[bytes], T], data: bytes) -> T:
        try:
            return decode(data)
        except Damaged as error:
            raise Damaged(f"what waits for '{self._path}' in {self._store.words} is not served: {error}") from None
