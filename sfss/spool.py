"""A pipe that takes any amount at once: for who must be heard out, however long it takes to work off what he says.

It is between two tasks of one event loop. What is large lies in a temporary file.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator

from sfss.errors import Unavailable

IN_MEMORY = 8 * 1024 * 1024  # bytes of lines that are kept in memory; beyond that they lie in a temporary file
BATCH = 64 * 1024  # bytes of lines that are given at a time


class Spool:
    """Lines in, lines out, in their order. ``in_memory`` and ``batch`` in bytes; a line fits into a batch."""

    def __init__(self, in_memory: int = IN_MEMORY, batch: int = BATCH) -> None:
        self._file = tempfile.SpooledTemporaryFile(in_memory)  # noqa: SIM115  (``close`` is there)
        self._batch = batch
        self._put = self._taken = 0
        self._ended = False
        self._more = asyncio.Event()

    def put(self, lines: bytes) -> None:
        """Add whole lines. Raises Unavailable if there is no room for them."""
        try:
            self._file.seek(self._put)
            self._put += self._file.write(lines)
        except OSError as error:
            raise Unavailable(f"there is no room for the list of keys: {error.strerror}: {tempfile.gettempdir()}; have"
                              " TMPDIR name another directory") from None  # fmt: skip
        self._more.set()

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self._more.set()

    async def batches(self) -> AsyncIterator[list[bytes]]:
        """All lines, some at a time, without their ends."""
        while True:
            self._file.seek(self._taken)
            lines, newline, _ = self._file.read(self._batch).rpartition(b"\n")
            if newline:
                self._taken += len(lines) + 1
                yield lines.split(b"\n")
            elif self._ended:
                return
            else:
                self._more.clear()
                await self._more.wait()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
