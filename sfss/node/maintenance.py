"""``sfss node verify``, ``backup``, ``restore`` and ``import``: their options, their progress and their words.

What they do stands in ``verify``, ``backup`` and ``importing``. Exit statuses: 0 all is well; 1 damage was found, or
something couldn't be copied or read; 2 a directory, an address or an option is wrong; 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sfss.errors import ConfigError, OutOfSpace, Unavailable

if TYPE_CHECKING:  # RocksDB is loaded by who needs it
    from sfss.node.importing.report import Report as Imported
    from sfss.node.importing.transfer import Order
    from sfss.node.verify import Report

EVERY = 0.2  # seconds between two words of progress


def add_commands(node: argparse.ArgumentParser) -> None:
    """Add them to the parser of ``sfss node``."""
    commands = node.add_subparsers(title="commands", metavar="COMMAND", description="without one, it is a node")

    verify = commands.add_parser(
        "verify",
        help="read and check everything in a data directory or a backup",
        description="Reads every item of a data directory that no node serves, or of a backup, and checks all of its"
        " checksums. Changes nothing. Exit status 1 if anything is damaged.",
    )
    _add_data(verify, "the data directory or the backup")
    verify.set_defaults(run=_verify)

    backup = commands.add_parser(
        "backup",
        help="copy a data directory, while its node serves or while it doesn't",
        description="Copies a data directory as it is at one moment. Run it on the node's machine, as the user who owns"
        " the directory: a node that serves it is asked through the socket that lies in it.",
    )
    _add_data(backup, "the data directory")
    backup.add_argument("target", metavar="TARGET", type=Path, help="where to: a directory that isn't there, or empty")
    backup.set_defaults(run=_backup)

    restore = commands.add_parser(
        "restore",
        help="make a data directory of a backup",
        description="Copies a backup to a data directory, and reads and checks all of the copy. If anything is damaged,"
        " or goes wrong, the data directory isn't made.",
    )
    restore.add_argument("source", metavar="SOURCE", type=Path, help="the backup")
    _add_data(restore, "the data directory to be made: not there, or empty")
    restore.set_defaults(run=_restore)

    moving_in = commands.add_parser(
        "import",
        help="read a memcached's or Beansdb's items, and write them to a node",
        description="Reads all items of a memcached, Beansdb, GoBeansDB or other node over the network, and writes them"
        " to a node, over the network too. What the node has already stays as it is, so an import that was broken off"
        " can be run again. Exit status 1 if anything couldn't be imported.",
    )
    moving_in.add_argument("source", metavar="SOURCE",
                           help="HOST:PORT, or memcached://HOST:PORT or beansdb://HOST:PORT to insist")  # fmt: skip
    moving_in.add_argument("--to", metavar="HOST:PORT", default="127.0.0.1:7900", help="the node (%(default)s)")
    moving_in.add_argument("--prefix", default="", help="import only keys that begin so")
    moving_in.add_argument("--overwrite", action="store_true", help="replace what the node has already")
    moving_in.add_argument("--verify", action="store_true",
                           help="read each item back from the node and compare, those that were there too")  # fmt: skip
    moving_in.add_argument("--dry-run", action="store_true", help="read and count everything, and write nothing")
    moving_in.set_defaults(run=_import)


def _add_data(parser: argparse.ArgumentParser, what: str) -> None:
    # SUPPRESS: `sfss node --data DIR verify` says it before the command
    parser.add_argument("--data", metavar="DIR", default=argparse.SUPPRESS, help=what)


def data_of(options: argparse.Namespace) -> Path:
    """Where --data points. Raises ConfigError."""
    if options.data is None:
        raise ConfigError("name the data directory: --data DIR")
    return Path(options.data)


def _verify(options: argparse.Namespace) -> int:
    from sfss.node.verify import verify

    data = data_of(options)
    line = Line()
    report = verify(data, lambda report, total: line.show(_read(report, total)))
    line.end()
    return _tell(report, data)


def _tell(report: Report, data: Path) -> int:
    for finding in report.findings:
        print(f"damaged: {finding}")
    if report.damaged > len(report.findings):
        print(f"damaged: {report.damaged - len(report.findings):,} more")
    print(
        f"{data}: {report.items:,} items are good, {report.records:,} of them records of sfss, {report.bytes:,} bytes;"
        f" {report.damaged or 'nothing'} damaged"
    )
    return 1 if report.damaged else 0


def _backup(options: argparse.Namespace) -> int:
    from sfss.node.backup import backup

    data, line = data_of(options), Line()
    try:
        size = backup(data, options.target, lambda done, of: line.show(f"copied {done:,} of {of:,} bytes"))
    except OSError as error:
        return _failed("backup", error, f"nothing was left at {options.target}")
    line.end()
    print(f"{options.target}: a backup of {data}, {size:,} bytes, on disk")
    return 0


def _restore(options: argparse.Namespace) -> int:
    from sfss.node.backup import restore

    data, line = data_of(options), Line()
    try:
        report = restore(
            options.source,
            data,
            lambda done, of: line.show(f"copied {done:,} of {of:,} bytes"),
            lambda report, total: line.show(_read(report, total)),
        )
    except OSError as error:
        return _failed("restore", error, f"nothing was left at {data}")
    line.end()
    return _tell(report, data)


def _import(options: argparse.Namespace) -> int:
    from sfss.node.importing import transfer
    from sfss.node.importing.report import Report

    kind, address = transfer.parse_source(options.source)
    order = transfer.Order(
        source=options.source,
        kind=kind,
        address=address,
        target=transfer.parse_target(options.to),
        overwrite=options.overwrite,
        verify=options.verify,
        dry_run=options.dry_run,
        prefix=os.fsencode(options.prefix),
    )
    report, line, began = Report(), Line(), time.monotonic()

    def progress(report: Report, items: int | None) -> None:
        if not line.due():
            return
        of = f" of about {items:,}" if items is not None else ""
        line.show(f"read {report.read:,}{of} items, imported {report.imported:,}, {report.bytes:,} bytes")

    def tell(text: str) -> None:
        line.end()
        print(text, file=sys.stderr)

    try:
        asyncio.run(transfer.import_items(order, report, progress, tell))
    except KeyboardInterrupt:
        tell(f"sfss: interrupted: {_came(order, report, began)}; it can be run again")
        raise
    except (Unavailable, OutOfSpace) as error:
        tell(f"sfss: the import stopped: {error}: {_came(order, report, began)}; it can be run again")
        return 1
    line.end()
    if report.missing:
        tell(f"sfss: {options.source} counts {report.missing:,} items that it doesn't list: if it isn't for deletions"
             " meanwhile, see docs/operations/node.rst")  # fmt: skip
    print(f"{options.source}: {_came(order, report, began)}")
    return 0 if report.good else 1


def _came(order: Order, report: Imported, began: float) -> str:
    """How far an import has come."""
    seconds = time.monotonic() - began
    did = "to import" if order.dry_run else f"imported to {order.target.name}"
    others = {"vanished meanwhile": report.vanished, "not read": report.unreadable}
    if not order.dry_run:
        others = {"were there already": report.there, **others, "refused": report.refused}
    if order.verify:
        others["differ"] = report.differing
    return (
        f"{report.imported:,} items {did}, {report.bytes:,} bytes, in {seconds:.1f} s"
        f" ({report.imported / max(seconds, 0.001):,.0f} a second); "
        + ", ".join(f"{number:,} {what}" for what, number in others.items())
    )


def _failed(what: str, error: OSError, left: str) -> int:
    print(f"sfss: the {what} failed, and {left}: {error}", file=sys.stderr)
    return 1


def _read(report: Report, total: int) -> str:
    return f"read {report.items:,} of {total:,} items, {report.damaged:,} damaged"


class Line:
    """One line of progress on standard error, if that is a terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._last = -EVERY
        self._any = False

    def due(self) -> bool:
        """Whether anything would be shown now: for who shows often."""
        return self._shown and time.monotonic() - self._last >= EVERY

    def show(self, text: str) -> None:
        if self.due():
            self._last, self._any = time.monotonic(), True
            sys.stderr.write(f"\r{text}\x1b[K")
            sys.stderr.flush()

    def end(self) -> None:
        if self._any:
            sys.stderr.write("\r\x1b[K")
