"""How several nodes act as one store of records: the ring chooses, a node keeps.

This is the whole of what ``files`` sees. Records go in and come out checked; keys, tokens and nodes stay below.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import Sequence

from sfss import record
from sfss.backends.base import Backend
from sfss.cluster.copies import ONE_COPY, SPARES, Copies, Place, Quorum, put_newer
from sfss.cluster.ring import Ring
from sfss.errors import Damaged, NodeError, Unavailable
from sfss.record import Header, Record

# Seconds that the tombstone of a conditional delete stays. Shorter is not to be had: the protocol counts in seconds.
_TOMBSTONE_EXPIRY = 1


class Guard(enum.Enum):
    """What a conditional write stands on where there is no token."""

    ABSENT = "nothing lies there"
    NONE = "the node can't decide conditions: the write is not guarded"


Token = int | Guard


class Cluster:
    """The nodes, and which of them keep a key's record. With one copy the owner is asked and nobody else."""

    def __init__(self, nodes: Sequence[Backend], quorum: Quorum = ONE_COPY) -> None:
        self._nodes = {node.address.name: node for node in nodes}
        self._copies = Copies(quorum, nodes)
        self._one = quorum.copies == 1
        self._ring = Ring(list(self._nodes), 1 if self._one else quorum.copies + SPARES)

    async def start(self) -> None:
        """Connect to every node, or begin to try."""
        await asyncio.gather(*(node.start() for node in self._nodes.values()))

    async def close(self) -> None:
        """Disconnect from every node."""
        await self._copies.close()
        await asyncio.gather(*(node.close() for node in self._nodes.values()))

    async def get(self, key: bytes) -> Record | None:
        """The record, checked; None if there is none for sure. Raises Damaged, Unavailable."""
        if not self._one:
            found = await self._copies.find(key, self._place(key), whole=True)
            return None if found is None or found[1] is None else record.decode(found[1])
        node = self._owner(key)
        data = await node.get(key)
        return None if data is None else _checked(node, data)

    async def head(self, key: bytes) -> Header | None:
        """The record's header, checked; its payload isn't read where the owner can do without."""
        if not self._one:
            found = await self._copies.find(key, self._place(key), whole=False)
            return None if found is None else found[0]
        node = self._owner(key)
        data = await node.head(key)
        return None if data is None else _checked_header(node, data)

    async def get_for_update(self, key: bytes) -> tuple[Header | None, Token]:
        """The present header, and the token with which ``put_if`` and ``delete_if`` change just this state.

        The key's first owner decides, and by what it has: if a newer version is seen elsewhere, it gets that first.
        """
        node = self._owner(key)
        if node.capabilities and not node.capabilities.cas:
            return await self.head(key), Guard.NONE
        header, token = await self._state(node, key)
        if self._one or not await self._bring_newer(node, key, header):
            return header, token
        return await self._state(node, key)

    async def put(self, key: bytes, data: bytes) -> bool:
        """Store a record; returns when as many nodes keep it as are asked for.

        Raises TooLarge, OutOfSpace, Unavailable. False if a newer version was seen to lie there: nothing was done.
        """
        if not self._one:
            return await self._copies.put(key, data, self._place(key))
        return await self._owner(key).set(key, data)

    async def put_if(self, key: bytes, data: bytes, token: Token, expiry: int = 0) -> bool:
        """Store a record if the state is still the token's; False if it isn't. ``expiry`` in seconds, 0 for never."""
        if token is Guard.NONE:
            return await self.put(key, data)
        node = self._owner(key)
        if token is Guard.ABSENT:
            done = await node.add(key, data)
        else:
            assert isinstance(token, int)
            done = await node.replace(key, data, token, expiry)
        if done and not self._one:
            await self._copies.put_if_newer(key, data, self._place(key), [node], self._copies.quorum.write)
        return done

    @property
    def keeps_tombstones(self) -> bool:
        """Whether a tombstone takes the place of what is deleted, so that no copy that was away brings it back."""
        return not self._one

    async def delete(self, key: bytes) -> bool:
        """Remove what lies there; False if nothing did. Only where no tombstones are kept."""
        return await self._owner(key).delete(key)

    async def delete_if(self, key: bytes, tombstone: bytes, token: Token) -> bool:
        """Remove what lies there if the state is still the token's; False if it isn't.

        The protocol has no conditional delete: the tombstone takes the record's place, and of a single copy it expires.
        """
        if token is Guard.NONE and self._one:
            await self.delete(key)
            return True
        return await self.put_if(key, tombstone, token, _TOMBSTONE_EXPIRY if self._one else 0)

    def counts(self) -> dict[str, int]:
        """What happened to copies since the start."""
        return dataclasses.asdict(self._copies.counts)

    def ready(self) -> dict[str, str | None]:
        """Each node's address, with why it is away, or None if it is here."""
        return {str(node.address): node.away for node in self._nodes.values()}

    def capabilities(self) -> dict[str, dict[str, object]]:
        """What each node was seen to be able to do, by its address."""
        return {
            str(node.address): node.capabilities._asdict() if node.capabilities else {} for node in self._nodes.values()
        }

    async def stats(self) -> dict[str, dict[str, str]]:
        """The figures of every node by its address, asked all at once; ``{}`` for one that didn't answer.

        Raises Unavailable if none did.
        """
        nodes = list(self._nodes.values())
        answers = await asyncio.gather(*(node.stats() for node in nodes), return_exceptions=True)
        found: dict[str, dict[str, str]] = {}
        for node, answer in zip(nodes, answers, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, NodeError):
                raise answer
            found[str(node.address)] = {} if isinstance(answer, BaseException) else answer
        if not any(found.values()):
            reasons = "; ".join(str(answer) for answer in answers)
            raise Unavailable(f"none of the {len(nodes)} nodes answers: {reasons}")
        return found

    async def _state(self, node: Backend, key: bytes) -> tuple[Header | None, Token]:
        found = await node.gets(key)
        return (None, Guard.ABSENT) if found is None else (_checked_header(node, found.data), found.token)

    async def _bring_newer(self, node: Backend, key: bytes, header: Header | None) -> bool:
        """Give the node the newest version there is, if what it has is older; False if it isn't.

        What is as new isn't written again: that would take the state away from under another caller's token.
        """
        newest = await self._copies.find(key, self._place(key), whole=False)
        if newest is None or (header is not None and newest[0].order <= header.order):
            return False
        newest = await self._copies.find(key, self._place(key), whole=True)
        if newest is not None and newest[1] is not None:
            await put_newer(node, key, newest[1], newest[0])
        return True

    def _owner(self, key: bytes) -> Backend:
        return self._nodes[self._ring.owners(key)[0]]

    def _place(self, key: bytes) -> Place:
        nodes = [self._nodes[name] for name in self._ring.owners(key)]
        copies = self._copies.quorum.copies
        return Place(nodes[:copies], nodes[copies:])


def _checked(node: Backend, data: bytes) -> Record:
    try:
        return record.decode(data)
    except Damaged as error:
        raise _on(node, error) from None


def _checked_header(node: Backend, data: bytes) -> Header:
    try:
        return record.decode_header(data)[0]
    except Damaged as error:
        raise _on(node, error) from None


def _on(node: Backend, error: Damaged) -> Damaged:
    return Damaged(f"the copy on node {node.address} is not served: {error}")
