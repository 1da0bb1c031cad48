"""What is answered in one turn of the event loop is sent at its end, one answer right after the other.

The kernel's way from a socket to its reader is long, and drives out of the processor's caches what the next request
needs, as that drives out the kernel's. Requests that are worked on together, and answers that are sent together, take
a fifth less time of both (``docs/speed.rst``).
"""

from __future__ import annotations

import asyncio
import logging

from sfss.web.inflight import InFlight

log = logging.getLogger("sfss.web")

HELD = 1024 * 1024  # bytes; with more than that, what is there is sent: it is memory


class Outbox:
    """Of all connections of one front: what was answered, in that order."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._waiting: list[tuple[asyncio.WriteTransport, bytes]] = []
        self._size = 0

    def put(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Send this when the turn is over, or nobody is left who could be answered in it.

        What is written to the transport itself before would overtake it, and closing the transport would lose it:
        ``send`` is to be called first. So it is when more requests of the same connection are to be worked on, or
        nobody would see that its client reads nothing.
        """
        self._waiting.append((transport, data))
        self._size += len(data)
        if not self._in_flight or self._size > HELD:
            self.send()
        elif len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self.send)

    def send(self) -> None:
        """Send all that waits, now."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        for transport, data in waiting:
            if not transport.is_closing():
                try:
                    transport.write(data)
                except Exception:  # those behind it are to have theirs
                    log.exception("a bug: an answer could not be sent; its connection is closed")
                    transport.abort()
