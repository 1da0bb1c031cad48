"""A connection for replies that are long: lists. They go apart from requests, which would have to wait behind them.

A reply may take as long as it takes, as long as it comes: every wait for more of it has an end. What has come is held
until it is received, one piece of it, and the node is held up meanwhile; each piece takes a turn of the event loop, so
that whatever is made of it doesn't hold up the others.

Whoever is disturbed while he reads a reply closes the connection: its rest would be taken for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from typing import cast

from sfss.addresses import Address
from sfss.errors import NodeAway, NodeBroken, NodeTimeout

PIECE = 16 * 1024  # bytes that are received at once: under a millisecond of work for whoever reads a list
STOPPING = "the service is stopping"
_LINGER_NONE = struct.pack("ii", 1, 0)


class Stream(asyncio.BufferedProtocol):
    """The connection, with one reader. All errors are NodeErrors, which name the node."""

    def __init__(self, node: str, timeout: float, piece: int = PIECE) -> None:
        self.node = node
        self._timeout = timeout
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(piece)
        self._piece = b""  # what has come and wasn't received yet; reading is paused then
        self._lost: str | None = None  # why the connection has ended; None while it holds
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, address: Address, connect_timeout: float, timeout: float, piece: int = PIECE) -> Stream:
        """Connect; ``timeout`` is that of each wait for more, both in seconds. Raises NodeAway."""
        node = str(address)
        try:
            async with asyncio.timeout(connect_timeout):
                _, stream = await asyncio.get_running_loop().create_connection(
                    lambda: cls(node, timeout, piece), address.host, address.port
                )
        except TimeoutError:
            raise NodeAway(node, f"no connection within {connect_timeout:g} s") from None
        except (OSError, UnicodeError) as failure:  # the latter: of a host that can't be the name of one
            raise NodeAway(node, f"can't be connected to ({reason(failure)})") from None
        return stream

    @property
    def idle(self) -> bool:
        """Whether it may be sent a request: it is connected, and the node has said nothing."""
        return self._lost is None and not self._piece

    def send(self, data: bytes) -> None:
        """Send, without waiting: who sends much bounds it by the replies."""
        if self._transport is not None and not self._transport.is_closing():  # else ``receive`` tells
            self._transport.write(data)

    async def receive(self) -> bytes:
        """Some bytes as they come, never none. Raises NodeTimeout, NodeBroken, and NodeAway after ``close``."""
        if self._lost is None and not self._piece:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self._timeout):
                    await self._waiter
            except TimeoutError:
                raise NodeTimeout(self.node, f"in a list, nothing came for {self._timeout:g} s") from None
            finally:
                self._waiter = None
        if self._closed:
            raise NodeAway(self.node, STOPPING)
        if not self._piece:
            raise NodeBroken(self.node, f"in the middle of a list, {self._lost}")
        piece, self._piece = self._piece, b""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        return piece

    def close(self) -> None:
        """Hang up at once. Who waits for more learns of it."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.BufferedProtocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._piece = bytes(memoryview(self._buffer)[:nbytes])
        if self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = f"the connection ended ({exc or 'the node hung up'})"
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def reason(failure: OSError | UnicodeError) -> str:
    """In the system's words: asyncio puts its own, "Connect call failed", in their place."""
    number = failure.errno if isinstance(failure, OSError) else None
    return os.strerror(number) if number and number > 0 else str(failure)  # a resolver's are below 0


def not_connected(failure: BaseException, timeout: float) -> str | None:
    """Why there is no connection, in words; None of a failure that has another reason. ``timeout`` in seconds."""
    if isinstance(failure, TimeoutError):
        return f"no connection, or no answer on it, within {timeout:g} s"
    if isinstance(failure, OSError | UnicodeError):  # the latter: of a host that can't be the name of one
        return f"can't be connected to ({reason(failure)})"
    return None


def forget_unsent(transport: asyncio.BaseTransport) -> None:
    """Before it is aborted: what wasn't delivered yet is not to be carried out any more."""
    with contextlib.suppress(OSError):  # it may be ending by itself
        sock = cast(socket.socket, transport.get_extra_info("socket"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
