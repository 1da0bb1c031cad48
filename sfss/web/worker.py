"""One of several workers: ``python -m sfss.web.worker NUMBER SOCKET TALLY BUCKETS``, as ``sfss/workers.py`` starts it.

It serves on a listening socket, and counts in memory, that it gets as open files. Its standard input tells the
settings, a line of JSON, and again when others are to be taken over; when that ends the service is gone, and so it
stops, as it does on SIGTERM. Its standard output says once that it serves, or why it can't.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

from sfss import config, eventloop, logs, stopping
from sfss.access.shared_rates import Buckets
from sfss.config import Log, Settings
from sfss.errors import ConfigError
from sfss.web.app import serve
from sfss.web.tally import Tally

_LONGEST = 64 * 1024 * 1024  # bytes of settings, in a line


def main() -> int:
    """Serve until told to stop; returns the exit status."""
    number, sock, memory, buckets = map(int, sys.argv[1:])
    name = f"worker {number}"
    logs.configure(Log(), name)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is for the service, which tells what came of it
    try:
        counts = Tally(memory, number - 1), Buckets(buckets, number - 1)
        eventloop.run(_serve(name, socket.socket(fileno=sock), *counts))
    except ConfigError as error:
        os.write(1, " ".join(str(error).split("\n")).encode() + b"\n")
        return 2
    finally:
        stopping.told_enough()
    return 0


async def _serve(name: str, sock: socket.socket, tally: Tally, buckets: Buckets) -> None:
    stop, ready = asyncio.Event(), asyncio.Event()
    reloads: asyncio.Queue[Settings] = asyncio.Queue()
    stopping.set_when_told(stop)
    lines = asyncio.StreamReader(limit=_LONGEST)
    service, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    try:
        first = await _told(lines)
        if first is None:
            return
        logs.configure(first.log, name)
        hearing = asyncio.create_task(_hear(lines, reloads, stop))
        serving = asyncio.create_task(serve(first, sock, stop, ready, reloads, tally, buckets))
        await asyncio.wait((serving, asyncio.create_task(ready.wait())), return_when=asyncio.FIRST_COMPLETED)
        if ready.is_set():
            os.write(1, b"ready\n")
            os.dup2(2, 1)  # what anybody prints belongs to the log
        await serving
        hearing.cancel()
    finally:
        service.close()


async def _told(lines: asyncio.StreamReader) -> Settings | None:
    """The next settings; None if there is nobody any more who could tell some."""
    line = await lines.readline()
    return config.decode(line) if line.endswith(b"\n") else None


async def _hear(lines: asyncio.StreamReader, reloads: asyncio.Queue[Settings], stop: asyncio.Event) -> None:
    while (settings := await _told(lines)) is not None:
        reloads.put_nowait(settings)
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
