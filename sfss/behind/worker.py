"""A worker: takes the tasks of one short-term store, and lands their records on the nodes.

At least once, with the effect of once: a task is taken away, with its record, only when the nodes have that version,
and to land it again changes nothing (``landing.py``). A worker that dies leaves its tasks with its name in the group;
when it hasn't said for ``claim_after`` seconds that it is at them, another takes them over.

What fails is tried again, later each time. A failure while nodes are away, or refuse whatever comes, isn't the file's:
it isn't counted, and is tried again as soon as a node comes back. What fails too often otherwise, or can't ever
succeed, becomes a dead letter: its record stays, and is read as before, until somebody has it tried again. A record
that is on its way (``pending.py``), of which nobody was told that it is kept, is given up instead.

While tasks for nodes that are away fill a worker's hands it gives back those that have rested longest, to the end of
the stream, so that it comes to those for other nodes; when it meets them again, it has been through, and pauses.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import random
import secrets
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sfss import record
from sfss.behind.landing import Landing
from sfss.behind.states import Task
from sfss.cluster.replication import Cluster
from sfss.config import WriteBehindSettings
from sfss.errors import BacklogFull, Damaged, NodeRefused, OutOfSpace, SfssError, ShortTermAway, TooLarge, Unavailable

if TYPE_CHECKING:
    from sfss.behind.store import ShortTerm

log = logging.getLogger("sfss.behind")

_BLOCK = 5.0  # seconds for which an idle worker waits for a task
_FIRST_PAUSE = 0.25  # seconds until a task is tried again; twice as long each time
_HELD = 16  # times as many tasks as are worked at may rest before they are tried again
_ROUND = 5.0  # seconds, at least, from one time that it begins to go through all that waits to the next
_NODES_LOOKS = 0.5  # seconds between two looks at which nodes are here, while tasks rest
_STORE_PAUSE = 1.0  # seconds until a store that is away is asked again


class _Spoilt(SfssError):
    """The record isn't what it was when it was acknowledged."""


_HOPELESS = (TooLarge, _Spoilt)  # what won't be otherwise the next time


class Worker:
    """One worker of one store."""

    def __init__(self, store: ShortTerm, landing: Landing, cluster: Cluster, settings: WriteBehindSettings) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.stored = self.overtaken = self.buried = self.tried_again = 0  # files, since the start
        self.store = store
        self._landing = landing
        self._cluster = cluster
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._jobs: dict[asyncio.Task[None], Task] = {}
        self._one_less = asyncio.Event()
        self._nodes_changed = asyncio.Event()
        self._resting: dict[asyncio.Task[None], None] = {}  # the longest first
        self._met_again: bytes | None = None  # the first that was given back in this round, by its new id
        self._is_through = False
        self._round_began = float("-inf")

    async def run(self, stop: asyncio.Event, *, patience: float) -> None:
        """Work until ``stop``; then what has begun is finished, within ``patience`` seconds, or given back."""
        looking_after = [
            asyncio.create_task(self._forever(work), name=f"{self.name}: {work.__name__}")
            for work in (self._take, self._take_over, self._keep, self._watch_nodes)
        ]
        try:
            await stop.wait()
            looking_after[0].cancel()
            looking_after[1].cancel()
            await self._finish(patience)
        finally:
            for task in (*looking_after, *self._jobs):
                task.cancel()
            await asyncio.wait([*looking_after, *self._jobs])
            await self._leave()

    async def run_once(self) -> int:
        """Try everything that waits now, once; returns how much is left. Raises ShortTermAway."""
        await self.store.join()
        keeping = asyncio.create_task(self._forever(self._keep))
        begun: set[bytes] = set()
        there = (await self.store.figures()).tasks
        try:
            while len(begun) < there:
                tasks = await self.store.take(self.name, self._settings.concurrency)
                tasks += await self.store.take_over(self.name, self._settings.claim_after, self._settings.concurrency)
                new = [task for task in tasks if task.id not in begun]
                if not new:
                    break
                begun.update(task.id for task in new)
                await asyncio.gather(*(self._try(task) for task in new))
        finally:
            keeping.cancel()
            await asyncio.wait((keeping,))
            await self._leave()
        return (await self.store.figures()).tasks

    # --- taking ---

    async def _take(self) -> None:
        """Tasks that nobody is at."""
        await self.store.join()
        while True:
            tasks = await self.store.take(self.name, await self._free(), block=_BLOCK)
            for task in tasks:
                if self._met_again is not None and _moment_of(task.id) >= _moment_of(self._met_again):
                    self._is_through = True
                self._begin(task)

    async def _take_over(self) -> None:
        """Tasks whose worker has died."""
        pause = self._settings.claim_after / 3
        while True:
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            tasks = await self.store.take_over(self.name, self._settings.claim_after, await self._free())
            mine = {task.id for task in self._jobs.values()}
            for task in tasks:
                if task.id not in mine:
                    log.info("'%s' is taken over from another worker", task.path)
                    self._begin(task)
            await self.store.tidy()

    async def _keep(self) -> None:
        """Say again and again that these tasks are being worked at."""
        while True:
            await self.store.keep(self.name, self._jobs.values())
            await asyncio.sleep(min(self._settings.claim_after / 4, 3.0))

    async def _watch_nodes(self) -> None:
        """Wake what rests when another node is here."""
        before: Mapping[str, str | None] = {}
        while True:
            await asyncio.sleep(_NODES_LOOKS)
            if self._resting and (now := self._cluster.ready()) != before:
                if any(before.get(node) is not None for node, why in now.items() if why is None):
                    self._nodes_changed.set()
                    self._nodes_changed = asyncio.Event()
                before = now

    async def _free(self) -> int:
        """How many tasks more may be begun; comes back when it is one at least."""
        concurrency = self._settings.concurrency
        while True:
            held, at_work = len(self._jobs), len(self._jobs) - len(self._resting)
            if at_work < concurrency and held < _HELD * concurrency:
                return concurrency - at_work
            pause: float | None = None
            if at_work < concurrency:
                pause = self._round_began + _ROUND - asyncio.get_running_loop().time() if self._is_through else 0.0
                if pause <= 0.0:
                    await self._give_some_back()
                    continue
            self._one_less.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._one_less.wait()

    async def _give_some_back(self) -> None:
        """Leave what has rested longest to whoever comes to it behind all else."""
        if self._is_through or self._met_again is None:
            self._met_again, self._is_through = None, False
            self._round_began = asyncio.get_running_loop().time()
        jobs = list(itertools.islice(self._resting, self._settings.concurrency))
        tasks = [self._jobs[job] for job in jobs]
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)
        for task in tasks:
            id = await self.store.give_back(task)
            self._met_again = self._met_again or id

    async def _forever(self, work: object) -> None:
        """Begin again when the store was away."""
        assert callable(work)
        while True:
            try:
                await work()
            except (ShortTermAway, BacklogFull) as error:
                log.debug("%s: %s", self.name, error)  # the store itself has told
            except Exception:  # whatever it is, what waits is to be moved
                log.exception("this is a bug in sfss")
            await asyncio.sleep(_STORE_PAUSE * random.uniform(0.5, 1.5))

    # --- one task ---

    def _begin(self, task: Task) -> None:
        job = asyncio.create_task(self._do(task))
        self._jobs[job] = task
        job.add_done_callback(self._ended)

    def _ended(self, job: asyncio.Task[None]) -> None:
        del self._jobs[job]
        self._one_less.set()

    async def _do(self, task: Task) -> None:
        """Try until it comes to an end."""
        pause = _FIRST_PAUSE
        while True:
            async with self._slots:
                is_over = await self._try(task)
            if is_over:
                return
            self.tried_again += 1
            await self._rest(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, self._settings.longest_pause)

    async def _rest(self, pause: float) -> None:
        job = asyncio.current_task()
        assert job is not None
        self._resting[job] = None
        self._one_less.set()  # one less at work
        try:
            async with asyncio.timeout(pause):
                await self._nodes_changed.wait()
            await asyncio.sleep(random.uniform(0, _FIRST_PAUSE))  # not all at once
        except TimeoutError:
            pass
        finally:
            del self._resting[job]

    async def _try(self, task: Task) -> bool:
        """Land one record; whether the task has come to an end."""
        try:
            return await self._land(task)
        except (ShortTermAway, BacklogFull):  # it is tried again, and nothing is changed by that
            return False
        except SfssError as error:
            return await self._failed(task, error)
        except Exception as error:  # the next one may be all right
            log.exception("'%s' could not be moved: this is a bug in sfss", task.path)
            return await self._failed(task, error)

    async def _land(self, task: Task) -> bool:
        found = await self.store.of(task.path, task.order)
        if found is None:  # it is done, or a newer one has a task of its own
            await self.store.drop(task)
            return True
        data, going_for = found
        try:
            waiting = record.decode(data)
        except Damaged as error:
            raise _Spoilt(f"what {self.store.words} has is damaged: {error}") from None
        if going_for is not None:
            if self._landing.may_be_swept(waiting):
                return await self._give_up(task, going_for, "whoever sent it is gone, and its blocks may be swept")
            if not await self.store.begin(task.path, task.order):
                return False  # looked at once more
        try:
            is_newest = await self._landing.land(task.path, waiting)
        except (OutOfSpace, TooLarge) as error:
            if going_for is None or not await self.store.refused(task.path, task.order):
                raise
            log.warning("'%s' is not stored, and whoever sent it was not told that it is: %s", task.path, error)
            return True
        if await self.store.done(task.path, task.order, task.id, is_newest=is_newest):
            if is_newest:
                self.stored += 1
            else:
                self.overtaken += 1
                log.warning("'%s' is on the nodes in a newer version, which stays", task.path)
        return True

    async def _give_up(self, task: Task, seconds: float, why: str) -> bool:
        """Of a record that is on its way nobody was told that it is kept: what was there before it stays there."""
        if not self._landing.is_forsaken(seconds):  # its front may be just putting it on the nodes
            return False
        if await self.store.give_up(task.path, task.order):
            log.warning("'%s' could not be stored, and whoever sent it was not told that it is: %s", task.path, why)
        return True

    async def _failed(self, task: Task, error: Exception) -> bool:
        """Whether that was the end of it."""
        try:
            if self._is_for_the_nodes(error):
                if not self._resting:
                    log.warning("files wait until the nodes can take them, '%s' among them: %s", task.path, error)
                return False
            attempts = await self.store.failed(task)
            if attempts == 0:
                await self.store.drop(task)
                return True
            if attempts < self._settings.attempts and not isinstance(error, _HOPELESS):
                log.warning("'%s' could not be moved, and is tried again: %s", task.path, error)
                return False
            if (found := await self.store.of(task.path, task.order)) is not None and found[1] is not None:
                return await self._give_up(task, found[1], str(error))
            log.error("'%s' could not be moved, and is a dead letter now: %s", task.path, error)
            await self.store.bury(task, str(error) or type(error).__name__)
        except (ShortTermAway, BacklogFull):
            return False
        self.buried += 1
        return True

    def _is_for_the_nodes(self, error: Exception) -> bool:
        """Whether it is no fault of the file: nodes are away, or full, or in a state in which they take nothing."""
        if any(isinstance(each, OutOfSpace | NodeRefused) for each in (error, error.__cause__)):
            return True
        any_away = any(why is not None for why in self._cluster.ready().values())
        return any_away and isinstance(error, Unavailable)

    # --- the end ---

    async def _finish(self, patience: float) -> None:
        """Let what is being landed come to its end; what only rests isn't waited for."""
        deadline = asyncio.get_running_loop().time() + patience
        while len(self._jobs) > len(self._resting) and (left := deadline - asyncio.get_running_loop().time()) > 0:
            self._one_less.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._one_less.wait()

    async def _leave(self) -> None:
        """Give back what is left."""
        try:
            while tasks := await self.store.left_with(self.name):
                for task in tasks:
                    await self.store.give_back(task)
            await self.store.leave(self.name)
        except (ShortTermAway, BacklogFull) as error:
            log.warning("what %s has is taken over by others in %g s: %s", self.name, self._settings.claim_after, error)


def _moment_of(id: bytes) -> tuple[int, int]:
    """A task's place in the stream."""
    moment, _, number = id.partition(b"-")
    return int(moment), int(number)
