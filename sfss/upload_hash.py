"""The SHA-256 of uploads that come in several goes: what a front has hashed of them so far.

Of an upload that came through one front all along nothing has to be read again. What came through others, or before a
restart, is read back from the nodes, while the rest comes in.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import OrderedDict

from sfss.errors import SfssError
from sfss.manifest import Manifest
from sfss.stripes import Stripes

MOST = 1000  # uploads that are remembered


class RunningHash:
    """SHA-256 of an upload's first bytes."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.position = 0  # how many of them
        self._reading: asyncio.Task[None] | None = None

    def copy(self) -> RunningHash:
        """One that goes on from here by itself."""
        twin = RunningHash()
        twin.digest, twin.position = self.digest.copy(), self.position
        return twin

    def read_meanwhile(self, stripes: Stripes, parts: Manifest) -> None:
        """Begin to read, and hash, what is missing of these parts."""
        self._reading = asyncio.create_task(self._read_as_far_as_it_goes(stripes, parts))

    def stop(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()

    async def of(self, stripes: Stripes, parts: Manifest) -> bytes:
        """The SHA-256 of these parts, whose beginning it has hashed. Raises as ``Stripes.read``."""
        if self._reading is not None:
            await asyncio.wait([self._reading])
        await self._read(stripes, parts)
        return self.digest.digest()

    async def _read(self, stripes: Stripes, parts: Manifest) -> None:
        async with contextlib.aclosing(stripes.read(parts, self.position, parts.size)) as content:
            async for piece in content:
                digest = self.digest.copy()  # so that who is stopped meanwhile leaves it as it was
                await asyncio.to_thread(digest.update, piece)
                self.digest = digest
                self.position += len(piece)

    async def _read_as_far_as_it_goes(self, stripes: Stripes, parts: Manifest) -> None:
        with contextlib.suppress(SfssError):  # who needs it tries again, and is told
            await self._read(stripes, parts)


class Hashes:
    """What has been hashed of which upload; the least recently used ones are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, RunningHash] = OrderedDict()

    def close(self) -> None:
        """Stop what still reads."""
        for running in self._known.values():
            running.stop()

    def take(self, upload: str, most: int) -> RunningHash:
        """What is known of the upload's first ``most`` bytes; nothing, if what is known goes beyond."""
        running = self._known.pop(upload, None)
        return running if running is not None and running.position <= most else RunningHash()

    def keep(self, upload: str, running: RunningHash) -> None:
        """Remember it for the next go."""
        self._known[upload] = running
        if len(self._known) > MOST:
            self._known.popitem(last=False)[1].stop()

    def forget(self, upload: str) -> None:
        """It won't be asked for any more."""
        if running := self._known.pop(upload, None):
            running.stop()
