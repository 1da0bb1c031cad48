"""A node's control socket: what only those may ask of it who may read its data directory.

A Unix socket in the directory, open to its owner alone: no port, and no path that comes over a network. One word is
understood, a line to ask and a line to answer::

    checkpoint
    OK checkpoint-7

``checkpoint-7`` is then a directory within the data directory: links to the tables and blob files as they are now. It
is there until the one who asked hangs up, however that happens, so that nothing is left that would hold on to space.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import shutil
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

from sfss.node.store import Store

log = logging.getLogger("sfss.node")

SOCKET = "control"
LINE = 100  # bytes of a request
CHECKPOINT = "checkpoint-%d"

Run = Callable[[Callable[[], None]], Awaitable[None]]


class Control:
    """The socket of a node that has its data directory open, and so the only one: what lies there is a dead one's."""

    def __init__(self, store: Store, run: Run) -> None:
        """``run`` carries out a function where the store's syncs run, and waits for it."""
        self._directory = store.directory
        self._store = store
        self._run = run
        self._numbers = itertools.count(1)
        self._clients: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._one_at_a_time = asyncio.Lock()

    async def start(self) -> None:
        """Listen, and remove what a killed node has left. Without a socket a node serves all the same."""
        for left in self._directory.glob(CHECKPOINT.replace("%d", "*")):
            shutil.rmtree(left)
        with contextlib.suppress(FileNotFoundError):
            (self._directory / SOCKET).unlink()
        try:
            self._listener = await asyncio.start_unix_server(self._serve, sock=_bound(self._directory), limit=LINE)
        except OSError as error:  # not every file system has sockets
            log.warning("no control socket in %s, so no backup while this node serves: stop it for one, or move the"
                        " data to a file system that has sockets: %s", self._directory, error)  # fmt: skip

    async def close(self) -> None:
        """Hang up on whoever is there."""
        if self._listener is None:
            return
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            (self._directory / SOCKET).unlink()
        for client in list(self._clients):
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            # ValueError: a line that is too long; RuntimeError is uvloop's, if who asked has gone.
            with contextlib.suppress(ConnectionError, ValueError, RuntimeError, asyncio.CancelledError):
                if await reader.readline() == b"checkpoint\n":
                    async with self._one_at_a_time:
                        await self._checkpoint(reader, writer)
                else:
                    writer.write(b"ERROR there is only: checkpoint\n")
        finally:
            self._clients.discard(task)
            writer.close()

    async def _checkpoint(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = CHECKPOINT % next(self._numbers)
        path = self._directory / name
        try:
            await self._run(partial(self._store.checkpoint, path))
            log.info("a checkpoint is made for a backup: %s", path)
            writer.write(f"OK {name}\n".encode())
            await reader.read()  # to the end of the connection
        except Exception as error:
            log.exception("the checkpoint %s failed", path)
            writer.write(f"ERROR {str(error).splitlines()[0]}\n".encode())
        finally:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)


def _bound(directory: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(sock.fileno(), 0o600)  # before it has a name, so that it never is there for others
        with _short(directory) as name:
            sock.bind(name)
    except BaseException:
        sock.close()
        raise
    return sock


def connect(directory: Path) -> socket.socket | None:
    """A connection to the node that serves this directory; None if none does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(directory) as name:
            sock.connect(name)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _short(directory: Path) -> Iterator[str]:
    """The socket's name by way of the open directory: a Unix socket's name has 107 bytes, a path may have more."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)
