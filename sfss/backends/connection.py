"""One pipelined connection to a memcached-protocol server: many requests in flight, answered in their order.

Theory of operation. The protocol has no request numbers: the n-th reply belongs to the n-th request. So a request that
is given up, by its deadline or by a caller who went away, keeps its place in ``_pending`` and its late reply is thrown
away. Keeping the connection has a second virtue: a write that timed out can't overtake a later one on the same stream.

The connection is dropped when it can no longer be trusted: a reply that doesn't fit its request, bytes that are no
reply, or silence: a request's deadline passed and not one byte came since it was sent. It is then *reset* (SO_LINGER
0), so that the kernel throws away what wasn't delivered yet: a write that the caller was told has failed must not be
carried out minutes later, after a newer one.

What is sent in one turn of the event loop leaves in one system call.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import cast

from sfss.backends.window import Window
from sfss.errors import NodeAway, NodeBroken, NodeError, NodeTimeout, ProtocolError
from sfss.memcache import Reply, ReplyParser

MAX_IN_FLIGHT = 4096  # requests not yet answered; further ones wait their turn
MAX_BYTES_IN_FLIGHT = 64 * 1024 * 1024  # of those requests; bounds what a node that stalls can cost the front

_LINGER_NONE = struct.pack("ii", 1, 0)


class _Pending:
    """A request on its way."""

    __slots__ = ("deadline", "fits", "future", "sent", "size")

    def __init__(self, future: asyncio.Future[Reply], fits: Callable[[Reply], bool], sent: float, deadline: float,
                 size: int) -> None:  # fmt: skip
        self.future = future  # done: answered, timed out or cancelled; a late reply is then dropped
        self.fits = fits
        self.sent = sent
        self.deadline = deadline  # never before that of the request in front: all wait equally long
        self.size = size


class Connection(asyncio.Protocol):
    """The asyncio protocol of one connection; ``lost`` is done when it has ended."""

    def __init__(self, node: str, *, timeout: float, max_value: int) -> None:
        self._node = node
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._parser = ReplyParser(max_value)
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[bytes] = []  # what leaves at the end of this turn of the loop
        self._pending: deque[_Pending] = deque()
        self._window = Window(MAX_IN_FLIGHT, MAX_BYTES_IN_FLIGHT)  # each in _pending has its place there
        self._timer: asyncio.TimerHandle | None = None  # set while anything is in flight
        self._heard = 0.0  # when a byte last came
        self.error: NodeError | None = None  # why the connection was dropped; None while it holds
        self.lost: asyncio.Future[None] = self._loop.create_future()

    async def call(self, request: bytes, fits: Callable[[Reply], bool]) -> Reply:
        """Send a request; return its reply, of which ``fits`` is true.

        Raises NodeAway (nothing was sent), NodeTimeout, NodeBroken (whether it was carried out is unknown).
        """
        if not self._window.try_enter(len(request)):
            await self._wait_for_room(len(request))
        if self._transport is None or self._transport.is_closing():
            self._window.leave(len(request))
            raise NodeAway(self._node, "the connection has just ended")
        now = self._loop.time()
        pending = _Pending(self._loop.create_future(), fits, now, now + self._timeout, len(request))
        self._pending.append(pending)
        if self._timer is None:
            self._timer = self._loop.call_at(pending.deadline, self._expire)
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(request)
        return await pending.future

    def drop(self, error: NodeError) -> None:
        """End the connection now; everything in flight fails with ``error``."""
        if self.error is None:
            self.error = error
        if self._transport is not None:
            with contextlib.suppress(OSError):
                sock = cast(socket.socket, self._transport.get_extra_info("socket"))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            self._transport.abort()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._heard = self._loop.time()

    def data_received(self, data: bytes) -> None:
        if self.error is not None:
            return
        self._heard = self._loop.time()
        try:
            for reply in self._parser.feed(data):
                self._deliver(reply)
        except ProtocolError as error:
            self.drop(NodeBroken(self._node, f"{error}; the connection was dropped"))

    def connection_lost(self, exc: Exception | None) -> None:
        reason = f"the connection ended before the answer ({exc or 'the node hung up'})"
        error = self.error = self.error or NodeBroken(self._node, reason)
        if self._timer is not None:
            self._timer.cancel()
        for pending in self._pending:
            if not pending.future.done():
                pending.future.set_exception(error)
            self._window.leave(pending.size)  # whoever waits for room comes in, and finds the connection lost
        self._pending.clear()
        self._outgoing.clear()
        if not self.lost.done():
            self.lost.set_result(None)

    # --- within ---

    def _deliver(self, reply: Reply) -> None:
        if not self._pending:
            raise ProtocolError(f"an answer that nothing was asked for: {reply.line[:100]!r}")
        pending = self._pending[0]
        if not pending.fits(reply):
            raise ProtocolError(f"the answer {reply.line[:100]!r} doesn't fit what was asked")
        self._pending.popleft()
        self._window.leave(pending.size)
        if not pending.future.done():
            pending.future.set_result(reply)

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._outgoing) if len(self._outgoing) > 1 else self._outgoing[0])
        self._outgoing.clear()

    def _expire(self) -> None:
        """Fail what is late; drop the connection if it was silent for as long as anything may wait."""
        self._timer = None
        if not self._pending:
            return
        now = self._loop.time()
        patience = max(self._heard, self._pending[0].sent) + self._timeout
        if patience <= now:
            self.drop(self._late())
            return
        for pending in self._pending:
            if pending.deadline > now:
                patience = min(patience, pending.deadline)
                break
            if not pending.future.done():
                pending.future.set_exception(self._late())
        self._timer = self._loop.call_at(patience, self._expire)

    def _late(self) -> NodeTimeout:
        return NodeTimeout(self._node, f"no answer within {self._timeout:g} s; the outcome of a write is unknown")

    async def _wait_for_room(self, size: int) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._window.enter(size)
        except TimeoutError:
            raise NodeAway(self._node, f"too busy: nothing could be sent within {self._timeout:g} s") from None
