"""A node's STATS, through aiomcache, on a connection of its own.

aiomcache is not safe on the data path: a call that is cancelled puts its connection back with the reply unread. Here
its client is thrown away after any failure, and with it the connection, so that no later call meets what was left.
"""

from __future__ import annotations

import asyncio

import aiomcache
from aiomcache.exceptions import ClientException

from sfss.addresses import Address
from sfss.errors import NodeAway, NodeBroken, NodeTimeout


class Statistics:
    """Asks one node for its figures; each answer, or failure, comes within ``timeout`` seconds."""

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._client: aiomcache.Client | None = None  # connected, with nothing unread
        self._one_at_a_time = asyncio.Lock()  # guards _client
        self._closed = False

    async def ask(self) -> dict[str, str]:
        """The figures by name. Raises NodeAway, NodeTimeout, NodeBroken."""
        node = str(self._address)
        try:
            # The deadline is around the lock too: a queue behind an ask that hangs ends with it.
            async with asyncio.timeout(self._timeout), self._one_at_a_time:
                return await self._ask()
        except TimeoutError:
            raise NodeTimeout(node, f"no STATS within {self._timeout:g} s") from None
        # RuntimeError: uvloop's, for what is written to a connection that has ended.
        except (ClientException, ValueError, ConnectionResetError, BrokenPipeError, RuntimeError) as error:
            raise NodeBroken(node, f"STATS can't be read: {error}") from None
        except OSError as error:
            raise NodeAway(node, f"can't be connected to: {error.strerror or error}") from None

    async def close(self) -> None:
        """Hang up for good; an ask in flight ends by itself within its deadline, and hangs up then."""
        self._closed = True
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _ask(self) -> dict[str, str]:
        if self._closed:
            raise NodeAway(str(self._address), "the service is stopping")
        client = self._client or aiomcache.Client(self._address.host, self._address.port, pool_size=1)
        self._client = None
        try:
            figures = await client.stats()
        except BaseException:  # a cancellation most of all
            await client.close()
            raise
        if self._closed:
            await client.close()
        else:
            self._client = client
        return {_text(name): _text(value or b"") for name, value in figures.items()}


def _text(word: bytes) -> str:
    return word.decode(errors="replace")
