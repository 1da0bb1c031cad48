"""Several processes that each run a share of a bench, and obey the one that started them.

A child has a pipe: numbered orders come in, an answer to each goes out. When the pipe ends, whoever gave the orders has
ended, however that came; then the child removes what it wrote, and ends too.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import ssl
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from sfss.client.api import Client
from sfss.client.bench import Bench, Plan
from sfss.client.failures import FAILED, Failure
from sfss.client.figures import Measured

_ENDING = 15.0  # seconds that children may take to end


class Where(NamedTuple):
    """The service, and how it is reached."""

    service: str
    timeout: float
    tls: ssl.SSLContext | None
    key: str = ""

    def client(self, connections: int) -> Client:
        """One that has so many."""
        return Client(self.service, timeout=self.timeout, connections=connections, tls=self.tls, key=self.key)


class Failed(Failure):
    """A failure of a child's."""

    def __init__(self, text: str, exit_status: int) -> None:
        super().__init__(text)
        self.exit_status = exit_status


class Remote:
    """A Bench in a process of its own; its methods are that one's."""

    def __init__(self, where: Where, folder: str, plan: Plan, pipes: list[Connection]) -> None:
        """Start it; before there is an event loop, for it is forked. ``pipes``: all of them; its own is added."""
        self.folder = folder
        context = multiprocessing.get_context("fork")  # what TLS needs can't be sent to a fresh interpreter
        self._pipe, theirs = context.Pipe()
        # A child that held ends of pipes that aren't its own would keep others from seeing that they have ended.
        pipes.append(self._pipe)
        self._process = context.Process(target=_host, args=(theirs, pipes, where, folder, plan), daemon=True)
        self._process.start()
        theirs.close()
        self._asked = 0

    async def phase(self, name: str) -> Measured:
        """Raises Failure, also if the process has ended."""
        measured: Measured = await self._ask("phase", name)
        return measured

    async def sweep(self) -> tuple[int, int]:
        """Raises Failure if the process has ended."""
        removed, found = await self._ask("sweep")
        return removed, found

    async def forget(self) -> None:
        """Leave the files where they are."""
        await self._ask("forget")

    def close(self) -> None:
        """Let it end, in time."""
        self._pipe.close()
        self._process.join(_ENDING)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    async def _ask(self, *order: str) -> Any:
        self._asked += 1
        try:
            self._pipe.send((self._asked, *order))
            while True:
                number, status, result = await self._receive()
                if number == self._asked:  # else it is the answer to an order that was cancelled
                    break
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):
                self._pipe.send((self._asked, "cancel"))
            raise
        except (EOFError, OSError):
            raise Failure(f"a process of the bench has ended; what it wrote lies under {self.folder}/") from None
        if status is not None:
            raise Failed(result, status)
        return result

    async def _receive(self) -> tuple[int, int | None, Any]:
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._pipe.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._pipe.fileno())
        answer: tuple[int, int | None, Any] = self._pipe.recv()
        return answer


@contextlib.contextmanager
def remotes(where: Where, folder: str, plans: Sequence[Plan]) -> Iterator[list[Remote]]:
    """One for each plan; they end with the block."""
    started: list[Remote] = []
    pipes: list[Connection] = []
    try:
        for plan in plans:
            started.append(Remote(where, f"{folder}/{plan.number}", plan, pipes))
        yield started
    finally:
        for remote in started:
            remote.close()


# --- the child ---


def _host(pipe: Connection, others: Sequence[Connection], where: Where, folder: str, plan: Plan) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # which go to all of a group; the parent sees to them
        signal.signal(number, signal.SIG_IGN)
    for other in others:
        other.close()
    with contextlib.suppress(BrokenPipeError):
        asyncio.run(_serve(pipe, where, folder, plan))


async def _serve(pipe: Connection, where: Where, folder: str, plan: Plan) -> None:
    orders: asyncio.Queue[tuple[Any, ...] | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            orders.put_nowait(pipe.recv())
        except (EOFError, OSError):
            loop.remove_reader(pipe.fileno())
            orders.put_nowait(None)

    loop.add_reader(pipe.fileno(), read)
    async with where.client(plan.connections) as client:
        bench = Bench(client, folder, plan)
        doing: asyncio.Task[None] | None = None
        while order := await orders.get():
            number, *words = order
            if words == ["cancel"] and doing:
                doing.cancel()
                continue
            if doing:
                await asyncio.wait([doing])
            doing = asyncio.create_task(_obey(bench, pipe, number, words))
        if doing:
            doing.cancel()
            await asyncio.wait([doing])
        if bench.left:
            await bench.sweep()


async def _obey(bench: Bench, pipe: Connection, number: int, words: Sequence[str]) -> None:
    status: int | None = None
    result: Any = None
    try:
        match words:
            case ["phase", name]:
                result = await bench.phase(name)
            case ["sweep"]:
                result = await bench.sweep()
            case ["forget"]:
                await bench.forget()
    except Failure as failure:
        status, result = failure.exit_status, str(failure)
    except Exception as error:  # noqa: BLE001  (the parent would wait for ever)
        status, result = FAILED, f"a process of the bench failed: {error!r}"
    with contextlib.suppress(OSError):  # nobody is there any more: the end of the pipe is seen, too
        pipe.send((number, status, result))
