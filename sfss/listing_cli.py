"""``sfss ls`` and ``sfss du``: their options, and what they make of a running service's list. No connections here."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec

NDJSON = "application/x-ndjson"
_FOLDER_SIZE = "-"


class Entry(msgspec.Struct):
    """A line of the list: a file with its ``path``, or a folder with its ``prefix``."""

    path: str = ""
    prefix: str = ""
    size: int = 0
    modified: str = ""


class _Sum(NamedTuple):
    files: int
    bytes: int

    def with_file(self, size: int) -> _Sum:
        return _Sum(self.files + 1, self.bytes + size)


_decoder = msgspec.json.Decoder(Entry)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> list[argparse.ArgumentParser]:
    """Add their parsers, which still lack the options for settings, and what is to be run."""
    ls = commands.add_parser(
        "ls",
        help="list files of a running service",
        description="Lists the files whose paths begin with PREFIX, in the order of their bytes; a folder, which is"
        " what has a slash behind PREFIX, as one line. Exit status: 0 that was all; 1 it was not, and it is said why.",
    )
    ls.add_argument("-l", "--long", action="store_true", help="with size in bytes, and when it was stored")
    ls.add_argument("-r", "--recursive", action="store_true", help="all files in folders too, and no folders")
    ls.set_defaults(show=_show_files)
    du = commands.add_parser(
        "du",
        help="count files and bytes of a running service",
        description="Counts the files whose paths begin with PREFIX, and their bytes: a line for each folder, which is"
        " what has a slash behind PREFIX, and one for all. Exit status: as of ls.",
    )
    du.set_defaults(show=_show_sums, recursive=True)
    for parser in (ls, du):
        parser.add_argument("prefix", nargs="?", default="", metavar="PREFIX",
                            help="what paths begin with, such as photos/2026/ (default: nothing, all files)"
                            )  # fmt: skip
    return [ls, du]


def target(options: argparse.Namespace) -> str:
    """What is to be asked of the service, accepting NDJSON."""
    return "/files?" + urlencode({"prefix": options.prefix, "delimiter": "" if options.recursive else "/"})


def run(options: argparse.Namespace, lines: Iterable[bytes]) -> int:
    """Show the answer; returns the exit status. Raises msgspec.DecodeError if it is no list."""
    try:
        options.show(options, map(_decoder.decode, lines))
        sys.stdout.flush()
    except BrokenPipeError:  # who reads it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _show_files(options: argparse.Namespace, entries: Iterable[Entry]) -> None:
    for entry in entries:
        name = entry.path or entry.prefix
        if options.long:
            size = str(entry.size) if entry.path else _FOLDER_SIZE
            print(f"{size:>12}  {entry.modified[:19]:19}  {name}")
        else:
            print(name)


def _show_sums(options: argparse.Namespace, entries: Iterable[Entry]) -> None:
    whole, folder = _Sum(0, 0), _Sum(0, 0)
    name = ""  # of the folder; those of one come together
    for entry in entries:
        end = entry.path.find("/", len(options.prefix)) + 1
        if entry.path[:end] != name:
            _show_sum(folder, name)
            name, folder = entry.path[:end], _Sum(0, 0)
        whole, folder = whole.with_file(entry.size), folder.with_file(entry.size)
    _show_sum(folder, name)
    print(f"{whole.bytes:>15}  {whole.files:>10}  {options.prefix or 'all files'}")


def _show_sum(folder: _Sum, name: str) -> None:
    if name:
        print(f"{folder.bytes:>15}  {folder.files:>10}  {name}")
