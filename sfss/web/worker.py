"""One of several workers: ``python -m sfss.web.worker NUMBER SOCKET TALLY``, as ``sfss/workers.py`` starts it.

It serves on a listening socket, and counts in memory, that it gets as open files. Its standard input tells the
settings, a line of JSON, and again when others are to be taken over; when that ends the service is gone, and so it
stops, as it does on SIGTERM. Its standard output says once that it serves, or why it can't.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys

from sfss import config, eventloop, stopping
from sfss.config import Settings
from sfss.errors import ConfigError
from sfss.web.app import serve
from sfss.web.tally import Tally

_LONGEST = 64 * 1024 * 1024  # bytes of settings, in a line


def main() -> int:
    """Serve until told to stop; returns the exit status."""
    number, sock, memory = map(int, sys.argv[1:])
    name = f"worker {number}"
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s %(levelname)s %(name)s: {name}: %(message)s", stream=sys.stderr
    )
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a client's broken form is the client's matter
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is for the service, which tells what came of it
    try:
        eventloop.run(_serve(socket.socket(fileno=sock), Tally(memory, number - 1)))
    except ConfigError as error:
        os.write(1, " ".join(str(error).split("\n")).encode() + b"\n")
        return 2
    finally:
        stopping.told_enough()
    return 0


async def _serve(sock: socket.socket, tally: Tally) -> None:
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
        hearing = asyncio.create_task(_hear(lines, reloads, stop))
        serving = asyncio.create_task(serve(first, sock, stop, ready, reloads, tally))
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
