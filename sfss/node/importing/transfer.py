"""A transfer: a source's items, read over the wire, written to a node over the wire too.

Three things go on side by side, each as fast as the next one lets it: listing the source's keys, reading its items and
sending them to the node, and counting what the node answers. What is under way is bounded in bytes, so memory is too,
whatever the size of the source; of the keys, what was listed and not yet read lies in a temporary file.

Nothing counts as imported before the node has said so, which it does when it is as durable as it promises. What is
there already stays there, unless told otherwise: an import that was broken off, wherever, is done again from the start,
and stores only what is not there. Items are imported one by one: nobody sees half of one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from sfss.addresses import MEMCACHED, Address, hidden, parse_address
from sfss.errors import ConfigError, OutOfSpace, Unavailable
from sfss.node.importing.kinds import find_out
from sfss.node.importing.peer import PATIENCE, Peer, shown, statistics
from sfss.node.importing.report import Report
from sfss.node.importing.source import Entry, Source, Spool, Unreadable
from sfss.node.importing.target import Tell, Writer

Progress = Callable[[Report, int | None], None]  # what was done so far, and of how many items, if the source says so


def _unseen(_report: Report, _items: int | None) -> None:
    pass


def _unheard(_line: str) -> None:
    pass


@dataclass(frozen=True)
class Order:
    """What to import, and how."""

    source: str  # as it was named: its name in errors
    kind: str  # memcached, beansdb, or empty to find out
    address: Address
    target: Address
    overwrite: bool = False  # what is at the target already is replaced
    verify: bool = False  # read back, and compare
    dry_run: bool = False  # read all, write nothing
    prefix: bytes = b""  # of the keys that are wanted
    patience: float = PATIENCE  # seconds that either end may be silent


def parse_source(text: str) -> tuple[str, Address]:
    """``HOST:PORT``, ``memcached://HOST:PORT`` or ``beansdb://HOST:PORT``: the kind, and where. Raises ConfigError."""
    found = re.fullmatch(r"(?:(memcached|beansdb)://)?([^/]+)/?", text)
    if not found:
        raise ConfigError(f"'{text}' is no source: write HOST:PORT, memcached://HOST:PORT or beansdb://HOST:PORT")
    return found[1] or "", parse_target(found[2])


def parse_target(text: str) -> Address:
    """``HOST:PORT``; an IPv6 host stands in brackets. Raises ConfigError."""
    try:
        address = parse_address(text)
    except ValueError:
        address = None
    if address is None or "=" in text or address.scheme != MEMCACHED:
        raise ConfigError(f"'{hidden(text)}' is no address: write HOST:PORT, of what speaks memcached's protocol")
    return address


async def import_items(order: Order, report: Report, progress: Progress = _unseen, tell: Tell = _unheard) -> None:
    """Import. ``report`` is kept up to date, so that it holds if this raises, too.

    Raises ConfigError if it can't be done as ordered; Unavailable or OutOfSpace where it can't go on.
    """
    async with contextlib.AsyncExitStack() as stack:
        writer = None
        if not order.dry_run:
            target = await _reach(order)
            stack.callback(target.close)
            writer = Writer(target, report, tell, overwrite=order.overwrite, verify=order.verify)
        source = await find_out(order.source, order.kind, order.address, order.patience)
        stack.callback(source.close)
        if source.caution:
            tell(source.caution)
        spool = stack.enter_context(contextlib.closing(Spool()))
        reading = _Reading(order, source, writer, report, progress, tell)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(source.walk(spool))
                answers = tasks.create_task(writer.take_answers()) if writer else None
                await reading.run(spool)
                if answers:
                    answers.cancel()
        except ExceptionGroup as errors:  # not except*: before 3.11.4 what is raised there comes in a group again
            if errors.split((Unavailable, OutOfSpace))[1] is not None:
                raise
            raise errors.exceptions[0] from None
    if source.exact and source.items is not None:
        report.missing = max(source.items - report.listed, 0)


async def _reach(order: Order) -> Peer:
    """The target's connection. Raises ConfigError if it isn't a node of ours, or the source itself."""
    target = await Peer.connect(f"the node at {order.target.name}", order.target, order.patience)
    try:
        version = (await target.ask(b"version")).line
        if not (version.startswith(b"VERSION ") and version.endswith(b"-sfss")):
            raise ConfigError(f"what answers at {order.target.name} is no node of sfss: name one with --to")
        if await _is_source(order, target):
            raise ConfigError(f"{order.source} is {order.target.name} itself: name another one with --to")
    except BaseException:
        target.close()
        raise
    return target


async def _is_source(order: Order, target: Peer) -> bool:
    """Whether both names lead to the same server: to one address, or to one port of this machine and one process."""
    source = await Peer.connect(order.source, order.address, order.patience)
    try:
        if source.address == target.address:
            return True
        if source.address[1] != target.address[1] or not (source.is_near and target.is_near):
            return False
        return (await statistics(source)).get(b"pid") == (await statistics(target)).get(b"pid")
    finally:
        source.close()


class _Reading:
    """Reads what is listed and hands it on."""

    def __init__(
        self, order: Order, source: Source, writer: Writer | None, report: Report, progress: Progress, tell: Tell
    ) -> None:
        self._prefix = order.prefix
        self._source = source
        self._writer = writer
        self._report = report
        self._progress = progress
        self._tell = tell

    async def run(self, spool: Spool) -> None:
        """To the end of the spool. While the items of one batch come, the source has the next one's requests."""
        coming: list[Entry] = []
        async for lines in spool.batches():
            entries = self._wanted(lines)
            self._source.ask(entries)
            await self._take(coming)
            coming = entries
        await self._take(coming)
        if self._writer:
            await self._writer.finish()

    def _wanted(self, lines: list[bytes]) -> list[Entry]:
        entries = [self._source.entry(line) for line in lines]
        wanted = [entry for entry in entries if entry.key is None or entry.key.startswith(self._prefix)]
        self._report.listed += len(entries)
        self._report.unwanted += len(entries) - len(wanted)
        return wanted

    async def _take(self, entries: list[Entry]) -> None:
        report = self._report
        for entry in entries:
            try:
                item = await self._source.item(entry)
            except Unreadable as error:
                report.unreadable += 1
                self._tell(f"not read: {shown(entry.name)}: {error}")
                continue
            if item is None or 0 < item.expiry <= time.time():
                report.vanished += 1
            elif not item.key.startswith(self._prefix):
                report.unwanted += 1
            elif self._writer:
                await self._writer.put(item)
            else:
                report.imported += 1
                report.bytes += len(item.data)
            self._progress(report, self._source.items)
