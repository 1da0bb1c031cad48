"""The short-term store: records that wait in Redis for a worker, and their tasks. Redis's exceptions become ours here.

What is changed is changed by one script (``scripts.py``), whole or not at all. Of a call that broke off nobody knows
whether it was; it isn't repeated here, for a condition might find its own effect. A store that doesn't answer is left
alone for a moment, in which calls fail at once.

What is acknowledged is as safe as Redis makes it: with an append-only file that is synced always, it survives a kill
and a power cut. What Redis is set to is looked at when it is connected to, and again from time to time; one that throws
records away when it is full takes none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from typing import Any

import redis.asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from sfss.addresses import hidden, parse_address
from sfss.behind import scripts
from sfss.behind.scripts import (
    DEAD,
    FILE,
    GROUP,
    MARK,
    MARK_TTL,
    PATHS,
    TASKS,
    TOTALS,
    UNDONE,
    UNDONE_TTL,
    WORKERS,
)
from sfss.behind.states import About, Accepted, Figures, Letter, Order, Seen, Task, text_of
from sfss.errors import BacklogFull, ShortTermAway

log = logging.getLogger("sfss.behind")

_CONNECTIONS = 64  # to one store
_LOOKS = 30.0  # seconds between two looks at what the store is set to
_FULL_WAIT = 5.0  # seconds after which somebody who found it full may ask again
_ALIVE = 10.0  # seconds for which a worker is taken to live, since it said so


class ShortTerm:
    """One Redis, as one process uses it."""

    def __init__(self, url: str, *, timeout: float, retry_after: float, max_tasks: int, max_bytes: int) -> None:
        """``timeout``: seconds for an answer. ``retry_after``: for which a store that didn't answer is left alone."""
        self.url = url
        self.name = str(parse_address(url))  # for people: without user and password
        self.words = f"the short-term store {self.name}"
        self.away: str | None = "not yet connected to"  # why it can't be asked, in words
        self.fault: str | None = None  # why nothing is given to it, in words
        self.warnings: Sequence[str] = ()  # what may be lost that was acknowledged, in words
        self.about: About | None = None  # what it is, as it was last; None: it was never here
        self._timeout = timeout
        self._retry_after = retry_after
        self._room = (max_tasks, max_bytes)
        self._client = self._connection(timeout, _CONNECTIONS)
        self._blocking: redis.Redis | None = None
        self._leave_alone = 0.0  # until then, by time.monotonic
        self._is_known = False  # whether it was looked at since it was away
        self._watching: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<{self.words}>"

    async def start(self) -> None:
        """Look at it, now and from time to time; what is wrong is said in the log."""
        await self._look()
        self._watching = asyncio.create_task(self._look_again_and_again(), name=hidden(self.url))

    async def close(self) -> None:
        """Disconnect."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait((self._watching,))
        for client in (self._client, self._blocking):
            if client is not None:
                with contextlib.suppress(exceptions.RedisError, OSError):
                    await client.aclose()

    # --- what fronts do ---

    async def get(self, path: str) -> tuple[bytes, bytes] | None:
        """The record that waits at a path, behind its order. Raises ShortTermAway."""
        order, header, payload = await self._ask("HMGET", FILE + path, "v", "h", "p")
        return None if order is None else (order, (header or b"") + (payload or b""))

    async def head(self, path: str) -> bytes | None:
        """Its prefix and header. Raises ShortTermAway."""
        found: bytes | None = await self._ask("HGET", FILE + path, "h")
        return found

    async def look(self, path: str) -> Seen:
        """The same, and the state that a condition is judged by. Raises ShortTermAway."""
        order, header, going = await self._ask("HMGET", FILE + path, "v", "h", "m")
        if going is not None:
            return Seen(going.decode(), header, is_going=True)
        if order is not None:
            return Seen(order.decode(), header)
        # Behind that: what was moved in between is seen by its mark, and is on the nodes when they are asked.
        mark = await self._ask("GET", MARK + path)
        return Seen("" if mark is None else mark.decode(), None)

    async def of(self, path: str, order: bytes) -> tuple[bytes, float | None] | None:
        """The record in that version; and if it doesn't wait, but is on its way: for how many seconds no front came."""
        v, h, p, m, mh, mp, ma = await self._ask("HMGET", FILE + path, "v", "h", "p", "m", "mh", "mp", "ma")
        if m == order:
            return (mh or b"") + (mp or b""), await self._now() - int(ma or 0)
        return ((h or b"") + (p or b""), None) if v == order else None

    async def accept(
        self,
        path: str,
        order: Order,
        header: bytes,
        payload: bytes | memoryview,
        *,
        expected: str | None = None,
        anyhow: bool = False,
        going: bool = False,
    ) -> tuple[Accepted, str]:
        """Have a record wait, and its task with it, in the place of an older one; and in which state the path was.

        ``expected``: only if the state is that, and the caller has seen that nothing on the nodes is newer. ``anyhow``:
        also beyond the bounds that were set. ``going``: it is on its way to the nodes, and what waits stays until it is
        ``done``. Raises BacklogFull, ShortTermAway.
        """
        if not self._is_known:
            await self._look()
        if self.fault is not None:
            raise ShortTermAway(f"{self.words} takes no files: {self.fault}")
        wanted = "*" if expected is None else f"={expected}"
        max_tasks, max_bytes = (0, 0) if anyhow else self._room
        said, what = await self._run(
            scripts.ACCEPT,
            (FILE + path, MARK + path, TASKS, PATHS, DEAD, TOTALS),
            (text_of(order), header, bytes(payload), path, wanted, max_tasks, max_bytes, int(going)),
        )
        if said in (b"tasks", b"bytes"):
            limit = f"{max_tasks} files (write_behind.max_tasks)"
            if said == b"bytes":
                limit = f"{max_bytes} bytes (write_behind.max_bytes)"
            raise BacklogFull(
                f"{self.words} has {what.decode()} of {limit} waiting: have more workers move them, or wait",
                wait=_FULL_WAIT,
            )
        return Accepted(said), what.decode()

    async def page(self, prefix: str, after: str, limit: int, *, within: bool = False) -> list[tuple[str, bytes]]:
        """Up to ``limit`` paths that begin with ``prefix`` and come behind ``after``, with their headers, in order.

        ``within``: and behind all that begin with ``after``. Raises ShortTermAway.
        """
        beginning, last = prefix.encode(), after.encode()
        low = b"(" + last + (b"\xff" if within else b"") if after >= prefix and after else b"[" + beginning
        high = b"(" + beginning + b"\xff" if prefix else b"+"
        found = await self._run(scripts.PAGE, (PATHS,), (b"-" if low == b"[" else low, high, limit, FILE))
        pairs = zip(found[::2], found[1::2], strict=True)
        return [(path.decode(), header) for path, header in pairs if header]

    # --- what workers do ---

    async def join(self) -> None:
        """Have the group of workers be there. Raises ShortTermAway."""
        await self._run(scripts.JOIN, (TASKS,), (GROUP,))

    async def take(self, worker: str, count: int, *, block: float = 0.0) -> list[Task]:
        """Up to ``count`` tasks that nobody is at; waits for one ``block`` seconds. Raises ShortTermAway."""
        waiting = ("BLOCK", int(block * 1000)) if block else ()
        command = ("XREADGROUP", "GROUP", GROUP, worker, "COUNT", count, *waiting, "STREAMS", TASKS, ">")
        try:
            found = await (self._wait(block, *command) if block else self._ask(*command))
        except _Refused as error:
            if not error.answer.startswith("NOGROUP"):
                raise
            await self.join()  # the store has been emptied
            return []
        return _tasks(found[0][1]) if found else []

    async def take_over(self, worker: str, idle: float, count: int) -> list[Task]:
        """Up to ``count`` tasks that another worker has, and hasn't said for ``idle`` seconds that he is at them."""
        tasks: list[Task] = []
        cursor = b"0-0"
        while len(tasks) < count:  # each call looks through some of what workers have, from where the last one ended
            left = count - len(tasks)
            found = await self._ask("XAUTOCLAIM", TASKS, GROUP, worker, int(idle * 1000), cursor, "COUNT", left)
            cursor = found[0]
            tasks += _tasks(found[1])
            if cursor == b"0-0":
                break
        return tasks

    async def keep(self, worker: str, tasks: Iterable[Task]) -> None:
        """Say that these are being worked at, and that the worker lives. Raises ShortTermAway."""
        ids = [task.id for task in tasks]
        if ids:
            await self._ask("XCLAIM", TASKS, GROUP, worker, 0, *ids, "JUSTID")
        await self._run(scripts.BEAT, (WORKERS,), (worker, int(_ALIVE)))

    async def begin(self, path: str, order: bytes) -> bool:
        """Have it be known that the caller lands what is on its way, too; False if it isn't. Raises ShortTermAway."""
        return bool(await self._run(scripts.BEGIN, (FILE + path,), (order,)))

    async def done(self, path: str, order: bytes, task: bytes = b"0-0", *, is_newest: bool = True) -> bool:
        """The record is on the nodes, or something newer is: it goes, if it is still that one. Raises ShortTermAway."""
        keys = (FILE + path, MARK + path, TASKS, PATHS, DEAD, TOTALS)
        mark = order if is_newest else order + b"+"
        return bool(await self._run(scripts.DONE, keys, (order, task, path, GROUP, MARK_TTL, mark)))

    async def refused(self, path: str, order: bytes) -> bool:
        """The nodes have stored nothing of what is on its way, for the caller; it goes, if he was the last to land it.

        False if it hasn't gone by this. Raises ShortTermAway.
        """
        return await self._undo(path, order, is_refused=True)

    async def give_up(self, path: str, order: bytes) -> bool:
        """What is on its way goes, whoever lands it; False if it wasn't on its way. Raises ShortTermAway."""
        return await self._undo(path, order, is_refused=False)

    async def is_given_up(self, path: str, order: bytes) -> bool:
        """Whether it may have been, not long ago. Raises ShortTermAway."""
        undone: bytes | None = await self._ask("GET", UNDONE + path)
        return undone is not None and undone >= order

    async def drop(self, task: Task) -> None:
        """A task goes that has no record any more. Raises ShortTermAway."""
        await self._run(scripts.DROP, (TASKS,), (task.id, GROUP))

    async def give_back(self, task: Task) -> bytes | None:
        """Leave a task to whoever comes next; its new id, None if it is done with. Raises ShortTermAway."""
        arguments = (task.order, task.id, task.path, GROUP)
        id: bytes = await self._run(scripts.GIVE_BACK, (FILE + task.path, TASKS), arguments)
        return id or None

    async def failed(self, task: Task) -> int:
        """How often it has failed by now; 0 if there is another record by now. Raises ShortTermAway."""
        return int(await self._run(scripts.FAILED, (FILE + task.path,), (task.order,)))

    async def bury(self, task: Task, why: str) -> None:
        """Make a dead letter of a task: its record stays, and nobody moves it. Raises ShortTermAway."""
        keys = (FILE + task.path, TASKS, DEAD)
        await self._run(scripts.BURY, keys, (task.order, task.id, task.path, GROUP, why))

    async def left_with(self, worker: str) -> list[Task]:
        """The first of the tasks that a worker has, by what the store knows. Raises ShortTermAway."""
        tasks: list[Task] = []
        for id, *_ in await self._ask("XPENDING", TASKS, GROUP, "-", "+", 1000, worker):
            tasks += _tasks(await self._ask("XRANGE", TASKS, id, id))
        return tasks

    async def leave(self, worker: str) -> None:
        """A worker is no more. What is still with it is taken over by others. Raises ShortTermAway."""
        await self._run(scripts.LEAVE, (WORKERS, TASKS), (worker, GROUP))

    async def tidy(self) -> None:
        """Forget workers that are long gone, and have nothing. Raises ShortTermAway."""
        for name, pending, idle in await self._consumers():
            if pending == 0 and idle > 3600:
                await self.leave(name)

    # --- what operators ask ---

    async def figures(self) -> Figures:
        """How it is. Raises ShortTermAway."""
        tasks = await self._ask("XLEN", TASKS)
        first = await self._ask("XRANGE", TASKS, "-", "+", "COUNT", 1)
        now = await self._now()
        alive = {name.decode() for name in await self._ask("ZRANGEBYSCORE", WORKERS, now, "+inf")}
        max_files, max_bytes = self._room
        memory = await self._info("memory")
        return Figures(
            files=await self._ask("ZCARD", PATHS),
            bytes=int(await self._ask("HGET", TOTALS, "bytes") or 0),
            tasks=tasks,
            oldest=max(0.0, now - _moment(first[0][0])) if first else 0.0,
            dead=await self._ask("XLEN", DEAD),
            workers={name: pending for name, pending, _ in await self._consumers() if name in alive},
            max_files=max_files,
            max_bytes=max_bytes,
            memory=_whole(memory.get("used_memory")),
            max_memory=_whole(memory.get("maxmemory")),
        )

    async def letters(self, after: str = "-", limit: int = 1000) -> list[Letter]:
        """The first dead letters behind one, the oldest first. Raises ShortTermAway."""
        found = await self._ask("XRANGE", DEAD, after if after == "-" else f"({after}", "+", "COUNT", limit)
        letters = []
        for id, fields in found:
            told = dict(zip(fields[::2], fields[1::2], strict=True))
            letters.append(
                Letter(id.decode(), told[b"k"].decode(), told[b"v"], told[b"w"].decode(), int(told[b"n"]), _moment(id))
            )
        return letters

    async def revive(self, letter: Letter) -> bool:
        """Have it be tried again from the beginning; False if it is none any more. Raises ShortTermAway."""
        keys = (FILE + letter.path, TASKS, DEAD)
        return bool(await self._run(scripts.REVIVE, keys, (letter.id, letter.order, letter.path)))

    # --- within ---

    def _connection(self, timeout: float, connections: int) -> redis.Redis:
        pool = redis.BlockingConnectionPool.from_url(
            self.url,
            max_connections=connections,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=self._timeout,
            retry=Retry(NoBackoff(), 0),  # a condition that is asked twice may find its own effect
            protocol=2,
        )
        client = redis.Redis.from_pool(pool)
        client.response_callbacks.clear()  # answers are read here, as Redis gives them
        return client

    async def _undo(self, path: str, order: bytes, *, is_refused: bool) -> bool:
        keys = (FILE + path, TASKS, TOTALS, UNDONE + path)
        return bool(await self._run(scripts.UNDO, keys, (order, GROUP, int(is_refused), UNDONE_TTL)))

    async def _now(self) -> float:
        """The time by its clock."""
        seconds, micros = await self._ask("TIME")
        return int(seconds) + int(micros) / 1e6

    async def _run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        try:
            return await self._ask("EVALSHA", scripts.SHA1[script], len(keys), *keys, *arguments)
        except _NoScript:
            return await self._ask("EVAL", script, len(keys), *keys, *arguments)

    async def _ask(self, *command: Any) -> Any:
        """What Redis answers. Raises ShortTermAway, BacklogFull."""
        async with self._translated():
            return await _heard(self._client.execute_command(*command))  # type: ignore[no-untyped-call,unused-ignore]

    async def _wait(self, block: float, *command: Any) -> Any:
        """The same of a command that waits ``block`` seconds."""
        if self._blocking is None:
            self._blocking = self._connection(block + self._timeout, 1)
        async with self._translated():
            return await _heard(self._blocking.execute_command(*command))  # type: ignore[no-untyped-call,unused-ignore]

    @contextlib.asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        if self.away is not None and time.monotonic() < self._leave_alone:
            raise ShortTermAway(f"{self.words} is away: {self.away}")
        try:
            yield
        except exceptions.NoScriptError:
            raise _NoScript from None
        except (exceptions.BusyLoadingError, exceptions.ReadOnlyError) as error:  # it starts; it is a replica by now
            raise self._is_away(str(error)) from None
        except exceptions.ResponseError as error:  # it answers: nothing was done
            words = str(error)
            if isinstance(error, exceptions.OutOfMemoryError) or words.startswith(("OOM", "MISCONF")):
                raise BacklogFull(f"{self.words} takes nothing more: {words}", wait=_FULL_WAIT) from None
            raise _Refused(self.words, words) from None
        except (exceptions.RedisError, OSError, TimeoutError, RuntimeError) as error:
            # RuntimeError is uvloop's, of a connection that has just been closed.
            raise self._is_away(str(error) or type(error).__name__) from None
        else:
            if self.away is not None:
                log.info("%s is here", self.words)
                self.away = None

    def _is_away(self, why: str) -> ShortTermAway:
        self._leave_alone = time.monotonic() + self._retry_after
        self._is_known = False
        if self.away != why:
            log.warning("%s is away: %s", self.words, why)
        self.away = why
        return ShortTermAway(f"{self.words} doesn't answer: {why}")

    async def _look_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(self._retry_after if self.away is not None else _LOOKS)
            await self._look()

    async def _look(self) -> None:
        """See what it is set to."""
        try:
            set_to = await self._set_to()
        except (ShortTermAway, BacklogFull):
            return
        fault, warnings = judged(set_to)
        if fault is not None and fault != self.fault:
            log.error("%s takes no files: %s", self.words, fault)
        for warning in warnings:
            if warning not in self.warnings:
                log.warning("%s: %s", self.words, warning)
        self.fault, self.warnings, self.about, self._is_known = fault, warnings, described(set_to), True

    async def _set_to(self) -> dict[str, str]:
        """What INFO and CONFIG say, where that is allowed: who runs it for others may keep it to himself."""
        found: dict[str, str] = {}
        for section in ("server", "memory", "persistence"):
            found |= await self._info(section)
        with contextlib.suppress(_Refused, ValueError):
            name, value = await self._ask("CONFIG", "GET", "appendfsync")
            found[name.decode()] = value.decode()
        return found

    async def _info(self, section: str) -> dict[str, str]:
        """A section of INFO; empty where that is forbidden."""
        with contextlib.suppress(_Refused):
            info = (await self._ask("INFO", section)).decode()
            return dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        return {}

    async def _consumers(self) -> list[tuple[str, int, float]]:
        """The workers that the group knows: name, how many tasks each has, and seconds since it was heard."""
        try:
            told = await self._ask("XINFO", "CONSUMERS", TASKS, GROUP)
        except _Refused:  # there was none yet
            return []
        rows = [dict(zip(row[::2], row[1::2], strict=True)) for row in told]
        return [(row[b"name"].decode(), row[b"pending"], row[b"idle"] / 1000) for row in rows]


class _Refused(ShortTermAway):
    """Redis has answered with an error, and done nothing."""

    def __init__(self, words: str, answer: str) -> None:
        super().__init__(f"{words} answers: {answer}")
        self.answer = answer


class _NoScript(Exception):
    """Redis hasn't been told the script yet, or has been started anew."""


async def _heard(answer: Awaitable[Any]) -> Any:
    """The same answer; but whoever is cancelled meanwhile is.

    redis-py sends under ``asyncio.wait_for``, which before Python 3.12 loses a cancellation that comes as it ends.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        return await answer
    finally:
        if task.cancelling() > before:
            raise asyncio.CancelledError


def judged(set_to: Mapping[str, str]) -> tuple[str | None, list[str]]:
    """Why files can't be given to a store that is set so; and what may be lost there that was acknowledged."""
    policy, memory = set_to.get("maxmemory_policy", "noeviction"), int(set_to.get("maxmemory", "0"))
    fault = None
    if memory and policy != "noeviction":
        fault = (
            f"it throws records away when its {memory} bytes are full (maxmemory-policy {policy}): set"
            " maxmemory-policy noeviction"
        )
    warnings = []
    if set_to.get("aof_enabled", "1") == "0":
        warnings.append(
            "it has no append-only file: what was acknowledged and not moved yet is lost when it stops (set"
            " appendonly yes, appendfsync always)"
        )
    elif "aof_enabled" not in set_to or "appendfsync" not in set_to:
        warnings.append(
            "it doesn't tell what it keeps (INFO and CONFIG GET appendfsync are forbidden): see to it that it has"
            " appendonly yes, appendfsync always, and maxmemory-policy noeviction"
        )
    elif set_to["appendfsync"] != "always":
        warnings.append(
            f"appendfsync is {set_to['appendfsync']}: what was acknowledged in the last second, or longer, and not"
            " moved yet is lost when its machine stops (set appendfsync always)"
        )
    return fault, warnings


def described(set_to: Mapping[str, str]) -> About:
    """What a store is that is set so."""
    kind = "valkey" if "valkey_version" in set_to else "redis"
    has_file = set_to.get("aof_enabled")
    synced = "never" if has_file == "0" else set_to.get("appendfsync", "unknown") if has_file else "unknown"
    return About(kind, set_to.get(f"{kind}_version", ""), synced)


def _whole(text: str | None) -> int | None:
    return None if text is None else int(text)


def _tasks(entries: Iterable[Any]) -> list[Task]:
    """Of a stream's entries; those that are gone meanwhile are none."""
    tasks = []
    for entry in entries:
        if entry is not None and entry[1]:
            fields = dict(zip(entry[1][::2], entry[1][1::2], strict=True))
            tasks.append(Task(entry[0], fields[b"k"].decode(), fields[b"v"]))
    return tasks


def _moment(id: bytes) -> float:
    """When a stream's entry came, in seconds since the epoch."""
    return int(id.partition(b"-")[0]) / 1000
