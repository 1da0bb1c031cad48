"""Lets in the connections that come at a socket: all that wait, in one turn of the loop.

uvloop's own server lets in one in a turn. The more are there already, the longer is a turn, and so the time until all
of a crowd are in grows with its square: of 1,000 who came at once the last waited for three seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable

log = logging.getLogger("sfss.web")

AT_ONCE = 256  # connections in a turn
_PAUSE = 1.0  # seconds without letting in anybody, when the system has nothing left for one more
_NOTHING_LEFT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Listener:
    """Listens on a socket from its making on; ``make`` makes the protocol of each connection."""

    def __init__(self, sock: socket.socket, make: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None) -> None:
        """``sock`` listens already, and is closed when this is."""
        self._sock = sock
        self._make = make
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._letting_in: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        self._loop.add_reader(sock, self._let_in)

    def close(self) -> None:
        """Let in nobody any more."""
        self._loop.remove_reader(self._sock)
        if self._pause is not None:
            self._pause.cancel()
        self._sock.close()
        for task in self._letting_in:
            task.cancel()

    def _let_in(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:  # it is not a client's: those of one that has gone already are another's turn
                if error.errno in _NOTHING_LEFT:
                    log.error("nobody is let in for %g s: %s", _PAUSE, error)
                    self._loop.remove_reader(self._sock)
                    self._pause = self._loop.call_later(_PAUSE, self._loop.add_reader, self._sock, self._let_in)
                return
            task = self._loop.create_task(self._serve(connection))
            self._letting_in.add(task)
            task.add_done_callback(self._letting_in.discard)

    async def _serve(self, connection: socket.socket) -> None:
        """Begin to serve it. A handshake that fails is the client's affair."""
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await self._loop.connect_accepted_socket(self._make, connection, ssl=self._tls)
