"""One pipelined connection to a node, by memcached's protocol or Redis's: many requests in flight, answered in order.

Theory of operation. Neither protocol has request numbers: the n-th reply belongs to the n-th request. So a request that
is given up, by its deadline or by a caller who went away, keeps its place in ``_pending`` and its late reply is thrown
away. Keeping the connection has a second virtue: a write that timed out can't overtake a later one on the same stream.

The connection is dropped when it can no longer be trusted: a reply that doesn't fit its request, bytes that are no
reply or that nothing was asked for, or silence: a request's deadline passed and not one byte came since it was sent.
It is then *reset* (SO_LINGER 0), so that the kernel throws away what wasn't delivered yet: a write that the caller was
told has failed must not be carried out minutes later, after a newer one.

What is sent in one turn of the event loop leaves in one system call, and a question that is asked twice before it has
left is asked once: not later, for what was asked before a write was acknowledged must not answer who asks behind it. A
request is made only when there is room for it, so that what waits behind a stalled node costs no memory but its
caller's own.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, ParamSpec, Protocol, TypeVar, cast

import msgspec

from sfss.backends.stream import forget_unsent
from sfss.backends.window import Window
from sfss.errors import NodeAway, NodeBroken, NodeError, NodeTimeout, ProtocolError
from sfss.memcache import Reply
from sfss.told import Tell, settle
from sfss.traffic import Traffic

log = logging.getLogger("sfss.backends")

MAX_IN_FLIGHT = 4096  # requests not yet answered; further ones wait their turn
MAX_BYTES_IN_FLIGHT = 64 * 1024 * 1024  # of those requests; bounds what a node that stalls can cost the front
BATCH = 32 * 1024  # bytes of data after which what leaves together leaves: the node is to work while the front does

_LOOKS = 50  # at most so many looks for late requests in the time of one time-out: each goes over all that are pending
_P = ParamSpec("_P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Parser(Protocol[R_co]):
    """What makes replies of bytes, sans-IO, and bounds how much of one it holds."""

    @property
    def idle(self) -> bool:
        """Whether all that came was whole."""

    def feed(self, data: bytes) -> Iterable[R_co]:
        """The replies that ``data`` completes, in order. Raises ProtocolError."""


class _Pending(msgspec.Struct, Generic[R], gc=False):
    """A request on its way."""

    tells: list[Tell[R]]  # several, if the same was asked before it had left; none, when all have been told
    fits: Callable[[R], bool]
    sent: float
    began: float  # the same by time.perf_counter: that of uvloop's loop counts milliseconds
    deadline: float  # never before that of the request in front: all wait equally long
    size: int


class Connection(asyncio.Protocol, Generic[R]):
    """The asyncio protocol of one connection; ``lost`` is done when it has ended."""

    def __init__(self, node: str, parser: Parser[R], timeout: float) -> None:
        self.node = node
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._parser = parser
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[bytes] = []  # what leaves at the end of this turn of the loop ...
        self._outgoing_size = 0  # ... and the bytes of data in it
        self._questions: dict[bytes, _Pending[R]] = {}  # those of them that may be shared
        self._pending: deque[_Pending[R]] = deque()
        self._window = Window(MAX_IN_FLIGHT, MAX_BYTES_IN_FLIGHT)  # each in _pending has its place there
        self._timer: asyncio.TimerHandle | None = None  # set while anything is in flight
        self._now = self._began = 0.0  # when the first request of those that leave together was made
        self._heard = 0.0  # when a byte last came
        self._alike = 0  # requests that left together, at _left, whose replies have come together; not counted yet
        self._left = 0.0
        self.traffic = Traffic()  # counts what comes of requests; whoever opened the connection may put in another
        self._failure: type[NodeError] = NodeBroken  # with what those in flight fail when the connection ends
        self.why: str | None = None  # why the connection was dropped; None while it holds
        self.lost: asyncio.Future[None] = self._loop.create_future()

    async def call(self, fits: Callable[[R], bool], size: int, request: Callable[_P, bytes],
                   *args: _P.args, **kwargs: _P.kwargs) -> R:  # fmt: skip
        """Send ``request(*args)``, which holds ``size`` bytes of data; return its reply, of which ``fits`` is true.

        Ends within one time-out, whatever it waits for. Raises NodeAway (nothing was sent), NodeTimeout, NodeBroken
        (whether it was carried out is unknown).
        """
        if self._window.try_enter(size):
            self._check_open(size)
            return await self._answer(fits, size, request(*args, **kwargs))
        sent = False
        try:
            async with asyncio.timeout(self._timeout):  # over the wait and the answer: a call has one deadline
                await self._window.enter(size)
                self._check_open(size)
                sent = True
                return await self._answer(fits, size, request(*args, **kwargs))
        except TimeoutError:
            if sent:
                raise self._late() from None
            raise NodeAway(self.node, f"too busy: nothing could be sent within {self._timeout:g} s") from None

    def begin(self, fits: Callable[[R], bool], size: int, tell: Tell[R], request: Callable[_P, bytes],
              *args: _P.args, **kwargs: _P.kwargs) -> bool:  # fmt: skip
        """As ``call``, whose outcome is told; False if there is no room for it now, or no connection."""
        if self._transport is None or self._transport.is_closing() or not self._window.try_enter(size):
            return False
        self._send(fits, size, request(*args, **kwargs), tell)
        return True

    def ask(self, fits: Callable[[R], bool], question: bytes, tell: Tell[R]) -> bool:
        """The same of a question, which changes nothing."""
        same = self._questions.get(question)
        if same is not None:
            same.tells.append(tell)
            return True
        if self._transport is None or self._transport.is_closing() or not self._window.try_enter(0):
            return False
        self._questions[question] = self._send(fits, 0, question, tell)
        return True

    def drop(self, failure: type[NodeError], why: str) -> None:
        """End the connection now; everything in flight fails with a ``failure`` that says ``why``."""
        if self.why is None:
            self._failure, self.why = failure, why
        if self._transport is not None:
            forget_unsent(self._transport)
            self._transport.abort()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._heard = self._loop.time()

    def data_received(self, data: bytes) -> None:
        if self.why is not None:
            return
        self._heard, came = self._loop.time(), time.perf_counter()
        try:
            try:
                for reply in self._parser.feed(data):
                    self._deliver(reply, came)
            finally:  # those before one that breaks the connection have been answered, too
                self._count(came)
            if not (self._pending or self._parser.idle):
                raise ProtocolError("the beginning of an answer that nothing was asked for")
        except ProtocolError as error:
            self.drop(NodeBroken, f"{error}; the connection was dropped")

    def eof_received(self) -> None:
        # Left to itself, asyncio would first wait until all is sent: to a node that doesn't read, for ever.
        self.drop(NodeBroken, "the node hung up")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.why is None:
            self.why = f"the connection ended ({exc or 'the node hung up'})"
        if self._timer is not None:
            self._timer.cancel()
        pending_before, self._pending = self._pending, deque()
        waiting = sum(bool(pending.tells) for pending in pending_before)
        self.traffic.failed("timeout" if self._failure is NodeTimeout else "broken", waiting)
        self._outgoing.clear()
        self._questions.clear()
        for pending in pending_before:
            # To each an error of its own: one for all would gather, and keep, the frames of all who were waiting.
            self._tell(pending, self._failure(self.node, self.why))
            self._window.leave(pending.size)  # whoever waits for room comes in, and finds the connection lost
        if not self.lost.done():
            self.lost.set_result(None)

    # --- within ---

    def _check_open(self, size: int) -> None:
        """Give back the place of ``size`` bytes if there is nobody to send to. Raises NodeAway."""
        if self._transport is None or self._transport.is_closing():
            self._window.leave(size)
            raise NodeAway(self.node, f"away: {self.why or 'the connection has just ended'}")

    def _answer(self, fits: Callable[[R], bool], size: int, request: bytes) -> asyncio.Future[R]:
        """Put the request on its way: its answer to come."""
        future: asyncio.Future[R] = self._loop.create_future()
        self._send(fits, size, request, functools.partial(settle, future))
        return future

    def _send(self, fits: Callable[[R], bool], size: int, request: bytes, tell: Tell[R]) -> _Pending[R]:
        """Put the request on its way; its place in the window has been taken."""
        if not self._outgoing:  # what leaves together has the same time
            self._now, self._began = self._loop.time(), time.perf_counter()
            self._loop.call_soon(self._flush)
        pending = _Pending([tell], fits, self._now, self._began, self._now + self._timeout, size)
        self._pending.append(pending)
        if self._timer is None:
            self._timer = self._loop.call_at(pending.deadline, self._expire)
        self._outgoing.append(request)
        self._outgoing_size += size
        if self._outgoing_size > BATCH:
            self._flush()
        return pending

    def _deliver(self, reply: R, came: float) -> None:
        if not self._pending:
            raise ProtocolError(f"an answer that nothing was asked for: {_shown(reply)}")
        pending = self._pending[0]
        if not pending.fits(reply):
            raise ProtocolError(f"the answer {_shown(reply)} doesn't fit what was asked")
        self._pending.popleft()
        self._window.leave(pending.size)
        if pending.tells:  # else it was given up before, and counted as late
            if pending.began != self._left:
                self._count(came)
                self._left = pending.began
            self._alike += 1
        self._tell(pending, reply)

    def _count(self, came: float) -> None:
        """Count those that took alike long."""
        if self._alike:
            self.traffic.answered(came - self._left, self._alike)
            self._alike = 0

    def _tell(self, pending: _Pending[R], outcome: R | NodeError) -> None:
        tells, pending.tells = pending.tells, []
        for tell in tells:
            try:
                tell(outcome)
            except Exception:  # others wait for this, and for what is behind it
                log.exception("a bug: what node %s answered could not be taken", self.node)

    def _flush(self) -> None:
        if self._outgoing and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._outgoing) if len(self._outgoing) > 1 else self._outgoing[0])
        self._outgoing.clear()
        self._outgoing_size = 0
        self._questions.clear()

    def _expire(self) -> None:
        """Fail what is late; drop the connection if it was silent for as long as anything may wait."""
        self._timer = None
        if not self._pending:
            return
        now = self._loop.time()
        patience = max(self._heard, self._pending[0].sent) + self._timeout
        if patience <= now:
            self.drop(NodeTimeout, f"silent for {self._timeout:g} s; the outcome of a write is unknown")
            return
        for pending in self._pending:
            if pending.deadline > now:
                patience = min(patience, pending.deadline)
                break
            self.traffic.failed("timeout", bool(pending.tells))
            self._tell(pending, self._late())
        self._timer = self._loop.call_at(max(patience, now + self._timeout / _LOOKS), self._expire)

    def _late(self) -> NodeTimeout:
        return NodeTimeout(self.node, f"no answer within {self._timeout:g} s; the outcome of a write is unknown")


def _shown(reply: object) -> str:
    return repr(reply.line if isinstance(reply, Reply) else reply)[:100]
