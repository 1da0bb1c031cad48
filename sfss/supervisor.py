"""Child processes: started, watched, started again and stopped; and the embedded nodes, which are some.

Each child ends by itself when its standard input ends, so none outlives this process, whatever becomes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from sfss.addresses import Address
from sfss.config import Settings
from sfss.errors import ConfigError

log = logging.getLogger("sfss.supervisor")

START_TIMEOUT = 60.0  # seconds for a child to serve; a node's RocksDB may have a long log to read
STOP_TIMEOUT = 15.0  # seconds for a node to end by itself, before it is killed
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between a child's death and its next start
HEALTHY_AFTER = 10.0  # seconds of life after which a child's next death is not held against it
_LARGEST_ITEM = 8 * 1024 * 1024  # bytes, unless records may be larger: as `sfss node` has it by itself
_POLL = 0.05


class DataLock:
    """Keeps a second sfss off the data directory; the kernel lets go of it however this process ends."""

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = (directory / "lock").open("a+")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"the data in {directory} is in use by another sfss: stop that one, or choose another"
                " directory with embedded.data"
            ) from None
        except OSError as error:
            raise ConfigError(f"embedded.data: {directory} can't be used: {error.strerror}") from None

    def __enter__(self) -> DataLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class Child:
    """A process that is started, watched, started again whenever it ends, and stopped."""

    def __init__(self, name: str, stop_timeout: float) -> None:
        """``name``: what to call it. ``stop_timeout``: seconds for it to end by itself, before it is killed."""
        self.name = name
        self.pause = FIRST_PAUSE  # seconds, before the next start
        self.process: asyncio.subprocess.Process | None = None
        self._stop_timeout = stop_timeout
        self._watcher: asyncio.Task[None] | None = None

    async def spawn(self) -> None:
        """Start the process, put it into ``process``, and wait until it serves. Raises ConfigError, OSError."""
        raise NotImplementedError

    def ended(self) -> None:
        """Is called when the process has ended by itself, before the pause."""

    async def start(self) -> None:
        """Start it for the first time; returns when it serves. Raises ConfigError, OSError if it can't."""
        await self.spawn()
        self._watcher = asyncio.create_task(self._watch(), name=f"watcher of {self.name}")

    async def stop(self) -> None:
        """End it in good order, and for good."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        await self._end()

    async def _watch(self) -> None:
        """Start it again whenever it ends."""
        while True:
            assert self.process is not None
            born = time.monotonic()
            status = await self.process.wait()
            if time.monotonic() - born > HEALTHY_AFTER:
                self.pause = FIRST_PAUSE
            log.error("%s ended with status %s: it is started again in %g s", self.name, status, self.pause)
            self.ended()
            await asyncio.sleep(self.pause)
            self.pause = min(self.pause * 2, LONGEST_PAUSE)
            try:
                await self.spawn()
            except (ConfigError, OSError) as error:
                log.error("%s is not back: %s", self.name, error)
                await self._end()

    async def _end(self) -> None:
        """Ask the process to end, and see to it that it does."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), self._stop_timeout)
            except TimeoutError:
                log.error("%s didn't stop within %g s and is killed", self.name, self._stop_timeout)
                process.kill()
                await process.wait()


class Children:
    """Several of them. An asynchronous context manager: it is entered when every one serves. Raises as they do."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.TaskGroup() as group:
                for child in self._children:
                    group.create_task(child.start())
        except BaseExceptionGroup as errors:
            await self._stop()
            raise errors.exceptions[0] from None
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        await asyncio.gather(*(child.stop() for child in self._children))


class EmbeddedNodes(Children):
    """The storage nodes that ``settings`` ask for, each over a directory of its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__([_EmbeddedNode(address, settings) for address in settings.embedded.addresses()])


class _EmbeddedNode(Child):
    def __init__(self, address: Address, settings: Settings) -> None:
        super().__init__(f"the node {address}", STOP_TIMEOUT)
        self._address = address
        self._command = _command(address, settings)

    async def spawn(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, start_new_session=True
        )
        deadline = time.monotonic() + START_TIMEOUT
        while await _pid_at(self._address) != self.process.pid:
            if self.process.returncode is not None:
                raise ConfigError(f"the embedded node {self._address} can't start: its own message stands above")
            if time.monotonic() > deadline:
                raise ConfigError(f"the embedded node {self._address} didn't answer within {START_TIMEOUT:g} s")
            await asyncio.sleep(_POLL)


def _command(address: Address, settings: Settings) -> Sequence[str]:
    embedded = settings.embedded
    return (
        sys.executable, "-m", "sfss", "node",
        "--host", address.host,
        "--port", str(address.port),
        "--data", str(Path(embedded.data) / address.name),
        "--durability", embedded.durability,
        "--max-item-size", str(max(settings.limits.record_size, _LARGEST_ITEM)),
        "--log-format", settings.log.format,
        "--log-level", settings.log.level,
        "--stop-with-parent",
    )  # fmt: skip


async def _pid_at(address: Address) -> int | None:
    """Which process answers there: another one may have the port. None for nobody."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            try:
                writer.write(b"stats\r\n")
                while (line := await reader.readline()).startswith(b"STAT "):
                    if line.startswith(b"STAT pid "):
                        return int(line.split()[2])
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError, RuntimeError):  # the last: uvloop's, if who answered has hung up
        pass
    return None
