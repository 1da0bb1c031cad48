"""``sfss put``, ``get``, ``rm``, ``stat``, ``bench``: their options. What they do is elsewhere, and needs aiohttp."""

from __future__ import annotations

import argparse
import os
import ssl
from collections.abc import Callable
from typing import TypeVar

from sfss.client import words
from sfss.client.failures import EXIT_STATUSES
from sfss.client.retry import RETRIES

MAX_JOBS = 64
MAX_PROCESSES = 64
MAX_FILES = 10_000_000  # of a bench: something is kept of each
MAX_SIZE = 64 * 1024**2  # bytes; each file of a bench is held in memory, one for each connection
MAX_CONNECTIONS = 10_000  # as many as a front takes
MAX_RATE = 1_000_000  # requests/s
T = TypeVar("T")

_PUT = """\
Stores local files in a running service. Each is checked: the service's ETag must be the SHA-256 of what was sent.

  sfss put cat.jpg photos/cat.jpg        a file, by the path that it is to have
  sfss put *.jpg photos/                 several, into a folder, by their names
  sfss put -r DIR photos --jobs 8        what is in a folder, with the folders in it (several: each by its name)
  pg_dump db | sfss put - dumps/db.sql   standard input

A file becomes visible whole, or not at all. Above 4 MiB, a break (network, service) is gone over, and where the command
was killed the same command goes on; $XDG_STATE_HOME/sfss (~/.local/state/sfss) remembers where. What comes by standard
input can't be sent again. Ctrl-C leaves nothing behind.
With -r hidden files are sent too; links, pipes and the like are named and left out, empty folders are no files. A large
file that the service has already is not sent again.
"""

_GET = """\
Fetches files from a running service. Each is checked: its SHA-256 must be the service's ETag.

  sfss get photos/cat.jpg cat.jpg        a file, to a local name, or into a folder that is there
  sfss get a/1.jpg b/2.jpg DIR           several, into a folder
  sfss get -r photos DIR --jobs 8        all files in photos/, with their folders, into DIR, which is made
  sfss get dumps/db.sql - | psql db      to standard output (a reader that must not see a spoilt byte takes a file)

A file appears whole and checked, or not at all: until then it is beside it, as .NAME.ETAG.sfss-part. That stays after a
break or a kill, and the same command goes on from it, if the service's file is still the same. After Ctrl-C it is gone.
With -r a file that is there already, as the service has it, is not fetched again; nothing is put outside of DIR.
"""

_RM = """\
Removes files from a running service.

  sfss rm photos/cat.jpg photos/dog.jpg
  sfss rm -r photos                      all files in photos/
"""

_STAT = """\
Shows what a running service says of files: size, SHA-256 (the ETag), type, time, and what else is kept with them.
"""

_BENCH = """\
Measures a running service from here: with files of its own, which it removes. Every byte that is read is compared.

  sfss bench                                 32 connections, a minute; nothing else has to be told
  sfss bench --files 100000 --size 64KiB     of other files
  sfss bench --processes 4                   more clients, where the column "client" says that one is busy
  sfss bench --rate 500                      500 requests/s, not as many as there can be: what latency is then
  sfss bench --host 10.0.0.7 --json > a.json for another machine's service; all figures, for programs

It writes --files new files, reads each once, and then, for --seconds each: reads (of these files, in any order), asks
for files that aren't there, asks whether files have changed (304), overwrites, and reads and overwrites, mixed. Last it
removes the files; Ctrl-C removes them, too. --keep leaves them. They lie in a folder of a new name under --prefix, so
nobody's file is ever touched; still it doesn't begin where there are files under --prefix already (--force: it does).

MB/s are 10^6 bytes of content. Latencies are those of requests that succeeded: from when the request was sent, or with
--rate from when it was due, if no connection was free then. "client" is the share of the time that a process of sfss
bench worked (the busiest, if they are several), "waits" that for which it waited for a core of this machine. Near 100%
together it is this client, in Python, that is measured, and not the service.
"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> list[argparse.ArgumentParser]:
    """Add their parsers, which still lack the options for settings, and what is to be run."""
    put = _add(commands, "put", "store files in a running service", _PUT)
    put.add_argument("names", nargs="+", metavar="FILE", help="local files, or - for standard input; last, the PATH")
    put.add_argument("-r", "--recursive", action="store_true", help="what is in folders, too")
    put.add_argument("--follow-links", action="store_true", help="with -r, take what links name, too")
    put.add_argument("--type", default="", help="content type (default: the service guesses it from the path)")
    put.usage = "sfss put [OPTION]... FILE PATH\n       sfss put [OPTION]... FILE... FOLDER/\n       " \
                "sfss put -r [OPTION]... DIR... FOLDER\n       sfss put [OPTION]... - PATH"  # fmt: skip

    get = _add(commands, "get", "fetch files from a running service", _GET)
    get.add_argument("names", nargs="+", metavar="PATH", help="paths; last, the local file or folder, or - for output")
    get.add_argument("-r", "--recursive", action="store_true", help="all files in the folder PATH")
    get.usage = "sfss get [OPTION]... PATH FILE\n       sfss get [OPTION]... PATH... DIR\n       " \
                "sfss get -r [OPTION]... FOLDER DIR\n       sfss get [OPTION]... PATH -"  # fmt: skip

    rm = _add(commands, "rm", "remove files from a running service", _RM)
    rm.add_argument("names", nargs="+", metavar="PATH", help="files; with -r folders")
    rm.add_argument("-r", "--recursive", action="store_true", help="all files in the folders PATH")

    stat = _add(commands, "stat", "show what a running service says of files", _STAT)
    stat.add_argument("names", nargs="+", metavar="PATH", help="files")

    bench = _add(commands, "bench", "measure a running service", _BENCH, timeout=10.0)
    _add_load(bench)
    for parser in (put, get, rm, stat):
        parser.add_argument("--retries", type=option(words.count(1000)), default=RETRIES, metavar="N",
                            help="attempts after a break, with growing pauses, that may come to nothing (default:"
                            " %(default)s)")  # fmt: skip
    for parser in (put, get, rm):
        parser.add_argument("-j", "--jobs", type=option(words.whole(MAX_JOBS)), default=4, metavar="N",
                            help="files at a time (default: %(default)s)")  # fmt: skip
        parser.add_argument("-q", "--quiet", action="store_true", help="no bar and no results; errors are still told")
    return [put, get, rm, stat, bench]


def _add_load(bench: argparse.ArgumentParser) -> None:
    """What ``sfss bench`` does."""

    def number(name: str, limit: int, default: int, help: str) -> None:
        bench.add_argument(name, type=option(words.whole(limit)), default=default, metavar="N",
                           help=f"{help} (default: %(default)s)")  # fmt: skip

    bench.add_argument("--size", type=option(words.byte_count(MAX_SIZE)), default="4KiB",
                       help="of each file: 4096, 4KiB, 1MiB (default: %(default)s)")  # fmt: skip
    number("--files", MAX_FILES, 1000, "how many")
    number("--connections", MAX_CONNECTIONS, 32, "requests at a time, of all processes together")
    number("--processes", MAX_PROCESSES, 1, "clients, each on a core of its own if there are so many")
    bench.add_argument("--seconds", type=option(words.seconds), default=10.0,
                       help="of each phase that isn't over files (default: %(default)g)")  # fmt: skip
    bench.add_argument("--reads", type=option(words.count(100)), default=90, metavar="PERCENT",
                       help="of the mixed phase; the others overwrite (default: %(default)s)")  # fmt: skip
    bench.add_argument("--rate", type=option(words.whole(MAX_RATE)), default=0, metavar="N",
                       help="requests/s, of all processes together (default: as many as there can be)")  # fmt: skip
    bench.add_argument("--prefix", default="bench/", metavar="FOLDER",
                       help="where the files go, in a folder of a new name (default: %(default)s)")  # fmt: skip
    bench.add_argument("--force", action="store_true", help="also where there are files under --prefix already")
    bench.add_argument("--keep", action="store_true", help="leave the files there, and say where they are")
    bench.add_argument("--json", action="store_true", help="one object instead of the table")


def add_key(parser: argparse._ActionsContainer) -> None:
    """Add the option for what is shown to the service, which the environment may say instead."""
    # By the environment it isn't to be seen by whoever looks at the processes of this machine.
    parser.add_argument("--key", type=option(words.key), default=os.environ.get("SFSS_KEY", ""), metavar="KEY",
                        help="what to show to the service; better in the environment, as SFSS_KEY")  # fmt: skip


def run(options: argparse.Namespace, service: str, tls: ssl.SSLContext | None) -> int:
    """Carry out a command on the service at this URL; returns the exit status."""
    from sfss.client import bench_run  # here, for a node needs none of it
    from sfss.client import run as running

    if options.command == "bench":
        return bench_run.command(options, service, tls)
    return running.command(options, service, tls)


def option(read: Callable[[str], T]) -> Callable[[str], T]:
    """A reader for argparse, which says what the ValueError says."""

    def read_option(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read_option


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    help: str,
    description: str,
    timeout: float = 60.0,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=EXIT_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=name)
    parser.add_argument("--timeout", type=option(words.seconds), default=timeout, metavar="SECONDS",
                        help="give up when nothing moves for so long (default: %(default)g)")  # fmt: skip
    add_key(parser)
    return parser
