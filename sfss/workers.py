"""The workers: processes that serve on one port, each on a socket of its own, with connections of its own to the nodes.

The kernel spreads connections over the sockets that listen on a port. All are made by the service and held open here:
what has come in at one whose worker is killed waits there for the next worker. ``web/worker.py`` is the other end: it
gets its socket and memory to count in as open files, settings as lines on its standard input, first and whenever
others are taken over, and says on its standard output that it serves, or why it can't.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Sequence

from sfss import config
from sfss.access.shared_rates import Buckets
from sfss.config import Settings
from sfss.errors import ConfigError
from sfss.supervisor import FIRST_PAUSE, START_TIMEOUT, STOP_TIMEOUT, Child, Children
from sfss.web.tally import Tally

READY = b"ready\n"


class Workers(Children):
    """One for each of the listening sockets, which are closed when they have ended."""

    def __init__(self, settings: Settings, sockets: Sequence[socket.socket]) -> None:
        self._memory = os.memfd_create("sfss tally")
        os.ftruncate(self._memory, Tally.size(len(sockets)))
        tally = Tally(self._memory)
        self._buckets = os.memfd_create("sfss buckets")
        os.ftruncate(self._buckets, Buckets.size(len(sockets)))
        Buckets.prepare(self._buckets)
        self._workers = [
            _Worker(number, sock, settings, (self._memory, self._buckets), tally, self._somebody_serves)
            for number, sock in enumerate(sockets, 1)
        ]
        super().__init__(self._workers)

    def take_over(self, settings: Settings) -> None:
        """Have all of them go over to these, and those, too, that are started later."""
        for worker in self._workers:
            worker.tell(settings)

    def _somebody_serves(self) -> bool:
        return any(worker.serves for worker in self._workers)


class _Worker(Child):
    def __init__(
        self,
        number: int,
        sock: socket.socket,
        settings: Settings,
        memory: tuple[int, int],
        tally: Tally,
        somebody_serves: Callable[[], bool],
    ) -> None:
        """``number``: from 1. ``memory``: files, of the ``tally``, which has its row, and of the buckets."""
        super().__init__(f"worker {number}", settings.server.shutdown_timeout + STOP_TIMEOUT)
        self.serves = False
        self._number = number
        self._sock = sock
        self._settings = settings
        self._memory = memory
        self._tally = tally
        self._somebody_serves = somebody_serves

    def tell(self, settings: Settings) -> None:
        """Have it go over to these settings: now, if it is there, and in any case when it is started the next time."""
        self._settings = settings
        if self.process is not None and self.process.returncode is None:
            assert self.process.stdin is not None
            with contextlib.suppress(RuntimeError):  # uvloop's: it has just ended, and is started with them
                self.process.stdin.write(config.encode(settings) + b"\n")

    async def spawn(self) -> None:
        command = (
            sys.executable,
            "-m",
            "sfss.web.worker",
            *map(str, (self._number, self._sock.fileno(), *self._memory)),
        )
        self.process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the service, which tells it
            pass_fds=(self._sock.fileno(), *self._memory),
        )
        self.tell(self._settings)
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(START_TIMEOUT):  # wait_for may lose that it was cancelled, before Python 3.12
                said = await self.process.stdout.readline()
        except TimeoutError:
            raise ConfigError(f"{self.name} didn't serve within {START_TIMEOUT:g} s") from None
        if said != READY:
            raise ConfigError(said.decode().strip() or f"{self.name} can't start: its own message stands above")
        self.serves = True

    def ended(self) -> None:
        """What comes in waits for the next one; but if that doesn't last either, it goes to the others."""
        self.serves = False
        self._tally.ended(self._number - 1)
        if self.pause > FIRST_PAUSE and self._somebody_serves() and self._listens():
            self._sock.shutdown(socket.SHUT_RDWR)  # the next worker lets it listen again

    def _listens(self) -> bool:
        # Linux: a socket that is shut down when it doesn't listen gives connections later that have ended already.
        return bool(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

    async def stop(self) -> None:
        await super().stop()
        self._sock.close()
