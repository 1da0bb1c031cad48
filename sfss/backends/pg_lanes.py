"""The connections over which a PostgreSQL node is asked and told: lanes, each with one statement at a time.

Theory of operation. asyncpg sends a statement when the one before it was answered, so there are several connections,
and the server syncs its log once for all that commit at the same time. A key belongs to one lane: what is said about it
goes over one connection, in its order. Of 256 tables so does each, and a connection has prepared what is said to its
own tables only. A lane connects when it is first needed.

A statement that was sent is never interrupted: who asked may have gone, or its time may be over, and then its outcome
is thrown away. So nobody else's connection is spoilt by a call that was cancelled. The server itself ends a statement
that takes too long (``statement_timeout``). If it doesn't, for it is frozen or was cut off, all connections are
dropped.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from sfss.backends.pg_connect import AGAIN, READ_ONLY, Connection, hang_up, is_foreign, translated
from sfss.errors import NodeAway, NodeBroken, NodeError, NodeTimeout, SfssError
from sfss.told import Tell
from sfss.traffic import Traffic

log = logging.getLogger("sfss.backends")

MAX_WAITING = 4096  # statements that wait on one lane
TRIES = 6  # of a statement that another transaction was in the way of; each waits a little longer
PAUSE = 0.005  # seconds before the second one
_LOOKS = 20  # for what is late, in the time of one time-out
_PATIENCE = 1.25  # time-outs: the server ends a statement after one, and has to say so

Rows = list[Any]


class _Job:
    """A statement on its way."""

    __slots__ = ("arguments", "deadline", "is_question", "statement", "tells")

    def __init__(self, statement: str, arguments: tuple[Any, ...], tell: Tell[Rows], deadline: float) -> None:
        self.statement = statement
        self.arguments = arguments
        self.tells = [tell]  # several, if the same was asked before it had left; none, when all have been told
        self.deadline = deadline
        self.is_question = False


class _Lane:
    """One connection, and what waits for it."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.waiting: deque[_Job] = deque()  # in the order of their deadlines
        self.questions: dict[tuple[str, tuple[Any, ...]], _Job] = {}  # those of them that may be shared
        self.under_way: _Job | None = None
        self.since = 0.0  # when that was sent, the last time
        self.come = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def next(self) -> _Job:
        """The first that waits, which doesn't any more."""
        job = self.waiting.popleft()
        if job.is_question:
            self.questions.pop((job.statement, job.arguments), None)
        return job


class Lanes:
    """All of them, to one node; ``lost`` is done when they have ended. ``timeout`` in seconds.

    ``first`` is connected already; ``open_another`` connects, or raises NodeError.
    """

    def __init__(
        self,
        node: str,
        first: Connection,
        open_another: Callable[[], Awaitable[Connection]],
        run: Callable[[Connection, str, tuple[Any, ...]], Awaitable[Rows]],
        *,
        count: int,
        timeout: float,
        traffic: Traffic,
    ) -> None:
        self._traffic = traffic
        self._node = node
        self._open_another = open_another
        self._run = run
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._lanes = [_Lane() for _ in range(count)]
        self._lanes[0].connection = first
        self._timer: asyncio.TimerHandle | None = None  # set while anything is in flight
        self.why: str | None = None  # why they were dropped; None while they hold
        self.lost: asyncio.Future[None] = self._loop.create_future()
        first.add_termination_listener(self._ended)

    def ask(self, number: int, statement: str, arguments: tuple[Any, ...], tell: Tell[Rows]) -> None:
        """Tell what a question finds. One that is asked twice before it has left is asked once.

        ``number`` says which lane it is for: the same key, the same lane.
        """
        lane = self._lanes[number % len(self._lanes)]
        same = lane.questions.get((statement, arguments))
        if same is not None and same.tells:
            same.tells.append(tell)
        else:
            job = self._send(lane, statement, arguments, tell)
            if job is not None:
                job.is_question = True
                lane.questions[statement, arguments] = job

    def order(self, number: int, statement: str, arguments: tuple[Any, ...], tell: Tell[Rows]) -> None:
        """Tell the outcome of a statement that changes something."""
        self._send(self._lanes[number % len(self._lanes)], statement, arguments, tell)

    def drop(self, failure: type[NodeError], why: str) -> None:
        """End all now; everything in flight fails with a ``failure`` that says ``why``."""
        if self.why is not None:
            return
        self.why = why
        if self._timer is not None:
            self._timer.cancel()
        for lane in self._lanes:
            if lane.connection is not None:
                hang_up(lane.connection)
            if lane.task is not None:
                lane.task.cancel()
            jobs = [*([lane.under_way] if lane.under_way else []), *lane.waiting]
            lane.waiting.clear()
            lane.questions.clear()
            self._traffic.failed("timeout" if failure is NodeTimeout else "broken", sum(len(job.tells) for job in jobs))
            for job in jobs:
                self._tell(job, failure(self._node, why))
        if not self.lost.done():
            self.lost.set_result(None)

    async def ended(self) -> None:
        """When nothing goes on any more, after ``drop``."""
        tasks = [lane.task for lane in self._lanes if lane.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    # --- within ---

    def _send(self, lane: _Lane, statement: str, arguments: tuple[Any, ...], tell: Tell[Rows]) -> _Job | None:
        if self.why is not None:
            tell(NodeAway(self._node, f"away: {self.why}"))
            return None
        if len(lane.waiting) >= MAX_WAITING:
            tell(self._too_busy())
            return None
        job = _Job(statement, arguments, tell, self._loop.time() + self._timeout)
        lane.waiting.append(job)
        lane.come.set()
        if lane.task is None:
            lane.task = self._loop.create_task(self._serve(lane), name=f"statements to {self._node}")
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout / _LOOKS, self._look)
        return job

    async def _serve(self, lane: _Lane) -> None:
        """One statement after the other, until the connection ends."""
        try:
            while True:
                if not lane.waiting:
                    lane.come.clear()
                    await lane.come.wait()
                if lane.connection is None and not await self._connect(lane):
                    return
                if not lane.waiting:  # too late for all of them
                    continue
                job = lane.next()
                lane.under_way = job
                outcome = await self._outcome(lane, job)
                lane.under_way = None
                if not isinstance(outcome, SfssError):
                    self._traffic.answered(self._loop.time() - lane.since)
                elif self.why is None:
                    self._traffic.failed("refused")
                self._tell(job, outcome)
        except asyncio.CancelledError:
            raise
        except Exception:  # others wait for this lane
            log.exception("a bug: node %s", self._node)
            self.drop(NodeBroken, "sfss has a bug here; its log has the details")

    async def _connect(self, lane: _Lane) -> bool:
        """Another connection; if the server doesn't give one, the first lane goes on with what this one was to do."""
        try:
            connection = await self._open_another()
        except NodeError as error:
            if self.why is None:
                log.warning("%s; fewer connections are used", error)
                self._give_to_first(lane)
            return False
        if self.why is not None:
            hang_up(connection)
            return False
        lane.connection = connection
        connection.add_termination_listener(self._ended)
        return True

    def _give_to_first(self, lane: _Lane) -> None:
        first = self._lanes[0]
        self._lanes = [first if other is lane else other for other in self._lanes]
        first.waiting = deque(sorted((*first.waiting, *lane.waiting), key=lambda job: job.deadline))
        first.questions |= lane.questions
        first.come.set()
        if first.task is None:
            first.task = self._loop.create_task(self._serve(first), name=f"statements to {self._node}")

    async def _outcome(self, lane: _Lane, job: _Job) -> Rows | SfssError:
        for number in range(TRIES):
            lane.since = self._loop.time()
            try:
                return await self._run(lane.connection, job.statement, job.arguments)
            except Exception as error:
                if not is_foreign(error):
                    raise
                code = getattr(error, "sqlstate", None)
                if code in AGAIN and number + 1 < TRIES:
                    await asyncio.sleep(PAUSE * 2**number * random.random())
                    continue
                failure = translated(self._node, error)
                if isinstance(failure, NodeBroken) or code == READ_ONLY:
                    self._tell(job, failure)
                    self.drop(NodeBroken, str(failure).removeprefix(f"node {self._node}: "))
                return failure
        raise AssertionError("the last try returns or raises")

    def _ended(self, _: Connection) -> None:
        self._loop.call_soon(self.drop, NodeBroken, "the server hung up")  # who was answered so knows more of why

    def _look(self) -> None:
        """Fail what is late; drop all if the server says nothing for longer than any statement may take."""
        self._timer = None
        now = self._loop.time()
        busy = False
        for lane in self._lanes:
            if lane.under_way is not None:
                if lane.since + self._timeout * _PATIENCE < now:
                    why = f"silent for {now - lane.since:.2g} s; the outcome of a write is unknown"
                    self.drop(NodeTimeout, why)
                    return
                if lane.under_way.deadline <= now:
                    self._traffic.failed("timeout", len(lane.under_way.tells))
                    self._tell(lane.under_way, self._late())
            while lane.waiting and lane.waiting[0].deadline <= now:
                self._traffic.failed("timeout", len(lane.waiting[0].tells))
                self._tell(lane.next(), self._too_busy())
            busy = busy or lane.under_way is not None or bool(lane.waiting)
        if busy:
            self._timer = self._loop.call_later(self._timeout / _LOOKS, self._look)

    def _tell(self, job: _Job, outcome: Rows | SfssError) -> None:
        tells, job.tells = job.tells, []
        for tell in tells:
            try:
                tell(outcome)
            except Exception:  # others wait for this, and for what is behind it
                log.exception("a bug: what node %s answered could not be taken", self._node)

    def _late(self) -> NodeTimeout:
        return NodeTimeout(self._node, f"no answer within {self._timeout:g} s; the outcome of a write is unknown")

    def _too_busy(self) -> NodeAway:
        return NodeAway(self._node, f"too busy: nothing could be sent within {self._timeout:g} s")
