"""``sfss node verify``, ``backup`` and ``restore``: their options, their progress and their words.

What they do stands in ``verify`` and ``backup``. Exit statuses: 0 all is well; 1 damage was found, or
something couldn't be copied or read; 2 a directory or an option is wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sfss.errors import ConfigError

if TYPE_CHECKING:  # RocksDB is loaded by who needs it
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

    def show(self, text: str) -> None:
        now = time.monotonic()
        if self._shown and now - self._last >= EVERY:
            self._last, self._any = now, True
            sys.stderr.write(f"\r{text}\x1b[K")
            sys.stderr.flush()

    def end(self) -> None:
        if self._any:
            sys.stderr.write("\r\x1b[K")
