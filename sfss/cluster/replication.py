"""How several nodes act as one store of records: the ring chooses, a node keeps.

This is the whole of what ``files`` sees. Records go in and come out checked; keys, tokens and nodes stay below.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence

from sfss import record
from sfss.backends.base import Backend
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
    """The nodes, and which of them owns a key."""

    def __init__(self, nodes: Sequence[Backend]) -> None:
        self._nodes = {node.address.name: node for node in nodes}
        self._ring = Ring(list(self._nodes))

    async def start(self) -> None:
        """Connect to every node, or begin to try."""
        await asyncio.gather(*(node.start() for node in self._nodes.values()))

    async def close(self) -> None:
        """Disconnect from every node."""
        await asyncio.gather(*(node.close() for node in self._nodes.values()))

    async def get(self, key: bytes) -> Record | None:
        """The record, checked; None if the owner says that there is none. Raises Damaged, NodeError."""
        node = self._owner(key)
        data = await node.get(key)
        return None if data is None else _checked(node, data)

    async def head(self, key: bytes) -> Header | None:
        """The record's header, checked; its payload isn't read where the owner can do without."""
        node = self._owner(key)
        data = await node.head(key)
        return None if data is None else _checked_header(node, data)

    async def get_for_update(self, key: bytes) -> tuple[Header | None, Token]:
        """The present header, and the token with which ``put_if`` and ``delete_if`` change just this state."""
        node = self._owner(key)
        if not node.capabilities or not node.capabilities.cas:
            return await self.head(key), Guard.NONE
        found = await node.gets(key)
        if found is None:
            return None, Guard.ABSENT
        return _checked_header(node, found.data), found.token

    async def put(self, key: bytes, data: bytes) -> bool:
        """Store a record; returns when it is kept. Raises TooLarge, OutOfSpace, NodeError.

        False if a newer version was seen to lie there: nothing was done.
        """
        return await self._owner(key).set(key, data)

    async def put_if(self, key: bytes, data: bytes, token: Token, expiry: int = 0) -> bool:
        """Store a record if the state is still the token's; False if it isn't. ``expiry`` in seconds, 0 for never."""
        node = self._owner(key)
        if token is Guard.NONE:
            return await node.set(key, data)
        if token is Guard.ABSENT:
            return await node.add(key, data)
        assert isinstance(token, int)
        return await node.replace(key, data, token, expiry)

    async def delete(self, key: bytes) -> bool:
        """Remove what lies there; False if nothing did."""
        return await self._owner(key).delete(key)

    async def delete_if(self, key: bytes, tombstone: bytes, token: Token) -> bool:
        """Remove what lies there if the state is still the token's; False if it isn't.

        The protocol has no conditional delete: the tombstone takes the record's place, and expires.
        """
        if token is Guard.NONE:
            await self.delete(key)
            return True
        return await self.put_if(key, tombstone, token, _TOMBSTONE_EXPIRY)

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

    def _owner(self, key: bytes) -> Backend:
        return self._nodes[self._ring.owners(key)[0]]


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
