#!/usr/bin/env python3
"""A small client of sfss: post a file, read it back, see that the bytes are the same; put, get, delete, bench.

It needs this repository, Python 3.11 or newer, and aiohttp; sfss itself need not be installed. What it does is in
sfss/client; here are its command line, and ``post``, which nothing else has.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

try:
    from sfss.client import api, bench, run, sending, tree, words
except ModuleNotFoundError as error:
    if error.name and error.name.partition(".")[0] == "sfss":
        raise SystemExit("simple_client.py needs the folder sfss beside it: take the whole repository") from None
    raise SystemExit("simple_client.py needs aiohttp: pip install aiohttp") from None

from sfss.client.commands import MAX_JOBS, add_key, option
from sfss.client.failures import DONE, FAILED, INTERRUPTED, Failure
from sfss.client.progress import Progress
from sfss.client.receiving import Receipt, receive
from sfss.client.retry import RETRIES

BENCH_FILES_LIMIT = 10_000_000  # a latency is kept for each
BENCH_SIZE_LIMIT = 64 * 1024**2  # bytes; each file of the bench is held in memory, --concurrency of them at a time
BENCH_CONCURRENCY_LIMIT = 1000  # one connection each, and a process may usually open 1,024 files

DESCRIPTION = """\
A small client of sfss, the small-file service. (`sfss put`, `get`, `ls`, `rm` and `stat` are its larger brother.)

  post    send a file, read it back, compare byte for byte (done when no command is named)
  put     send a file, replacing what lies at the path; with -r, all files of a folder
  get     fetch a file: whole and checked, or nothing is left at --filepath; with -r, all files of a folder
  delete  remove a file
  --bench N   write, read and delete N files, and print how fast that went
"""

EXAMPLES = """\
examples:
  post a file and see that it comes back the same:
    python simple_client.py --path photos/2026/cat.jpg --filepath ~/cat.jpg

  the same against another machine:
    python simple_client.py --host 10.0.0.7 --port 8255 --path folder/sub/name.ext --filepath /local/file

  replace it, fetch it, show it, remove it:
    python simple_client.py put    --path notes/today.txt --filepath today.txt
    python simple_client.py get    --path notes/today.txt --filepath copy.txt
    python simple_client.py get    --path notes/today.txt | less
    python simple_client.py delete --path notes/today.txt

  a folder, eight files at a time, there and back:
    python simple_client.py put -r --jobs 8 --path photos --filepath ~/photos
    python simple_client.py get -r --jobs 8 --path photos --filepath copies

  where the service wants to see a key:
    SFSS_KEY=sfss_... python simple_client.py get --path notes/today.txt

  10,000 files of 4 KiB, 32 requests at a time:
    python simple_client.py --bench 10000 --size 4KiB --concurrency 32

Paths are written as they are ('my folder/a+b 100%.txt'): the client does the percent-encoding.
put takes - for standard input. What a break or a kill interrupts, the same command goes on with (put: above 4 MiB).

exit status: 0 done, and the bytes are the same; 1 they are not, or something failed (stderr says what);
             2 wrong usage; 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (None: the process's own); the exit status: 0 done, 1 failed, 130 interrupted.

    Raises SystemExit(2) for a usage error and SystemExit(0) for -h, as argparse does.
    """
    status = run.to_end(carry_out(parse(argv)))
    return status if status in (DONE, INTERRUPTED) else FAILED


async def carry_out(options: Options) -> int:
    """One command; its exit status. Raises Failure, OSError for the local file, or CancelledError after Ctrl-C."""
    service = api.origin(options.host, options.port)
    connections = max(options.jobs, options.concurrency)
    async with api.Client(service, timeout=options.timeout, connections=connections, key=options.key) as client:
        return await COMMANDS[options.command](client, options)


# -------------------------------------------------------------------------------------------------- the commands


async def post(client: api.Client, options: Options) -> int:
    """Send a file, read it back, and raise Failure unless every byte is the same."""
    with Progress("sending", tree.job_of(options.filepath, options.path).size) as progress:
        sent = await sending.put_file(
            client, options.filepath, options.path, progress, retries=options.retries, create=True
        )
    with Progress("reading") as progress, contextlib.closing(Comparison(options.filepath)) as comparison:
        received = await receive(client, options.path, comparison, progress, retries=options.retries)
    if differences := find_differences(sent, received, comparison.first_difference):
        raise Failure(f"NOT the same: {options.path} came back different from {options.filepath}: {differences}")
    words.say(f"same: {options.path} came back as it went, {sent.size:,} bytes, SHA-256 {sent.sha256}")
    return DONE


async def put(client: api.Client, options: Options) -> int:
    """Send a file, or with -r the files of a folder."""
    if options.recursive:
        return await run.put_all(client, run.sources([options.filepath], run.folder_of(options.path)), options.how)
    return await run.put_one(client, options.filepath, options.path, options.how)


async def get(client: api.Client, options: Options) -> int:
    """Fetch a file to ``filepath``, or to standard output; with -r, the files of a folder."""
    if options.recursive:
        return await run.get_all(client, options.path, Path(options.filepath), options.how)
    if options.filepath in ("", "-"):
        return await run.get_to_output(client, options.path, options.how)
    return await run.get_one(client, options.path, options.filepath, options.how)


async def delete(client: api.Client, options: Options) -> int:
    """Remove a file; raises Refused (404) where there is none."""
    await client.delete(options.path)
    words.say(f"deleted: {options.path}")
    return DONE


async def measure(client: api.Client, options: Options) -> int:
    """Write, read and delete files, and print how fast that went."""
    await bench.bench(client, options.bench, options.size, options.concurrency)
    return DONE


class Comparison:
    """A sink that compares what is written to it with a local file, byte for byte."""

    def __init__(self, filepath: str) -> None:
        self.size, self.etag, self.digest = 0, "", hashlib.sha256()
        self.first_difference: int | None = None  # its offset in bytes; None as long as all is the same
        self._file = Path(filepath).open("rb")  # noqa: SIM115  (``close`` is there)

    def begin(self, etag: str) -> None:
        """All of it comes now, from the beginning."""
        self.size, self.etag, self.digest = 0, api.sha256_of(etag) or "", hashlib.sha256()
        self.first_difference = None
        self._file.seek(0)

    def write(self, piece: bytes) -> None:
        """Compare the next bytes."""
        expected = self._file.read(len(piece))
        if piece != expected and self.first_difference is None:
            self.first_difference = self.size + common_length(piece, expected)
        self.digest.update(piece)
        self.size += len(piece)

    def close(self) -> None:
        """Let go of the local file."""
        self._file.close()


def common_length(left: bytes, right: bytes) -> int:
    """How many bytes are the same in both before the first that isn't."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((offset for offset, (a, b) in pairs if a != b), min(len(left), len(right)))


def find_differences(sent: Receipt, received: Receipt, first_difference: int | None) -> str:
    """All in which the file that came back is not the one that went; "" if nothing."""
    found = []
    if received.size != sent.size:
        found.append(f"{received.size:,} bytes came back of {sent.size:,}")
    if first_difference is not None:
        found.append(f"the first difference is at byte {first_difference:,}")
    if received.sha256 != sent.sha256:
        found.append(f"SHA-256 is {received.sha256}, was {sent.sha256}")
    if received.etag != f'"{sent.sha256}"':
        found.append(f"ETag is {received.etag or 'missing'}, should be the SHA-256 of what went")
    return "; ".join(found)


# ---------------------------------------------------------------------------------------------- the command line


@dataclasses.dataclass(frozen=True)
class Options:
    """The command line, checked. ``path`` and ``filepath`` are there for the commands that need them, else empty."""

    command: str  # a key of COMMANDS
    host: str
    port: int
    path: str
    filepath: str  # of `get`: "-" is standard output
    timeout: float  # seconds
    key: str  # "": none
    retries: int
    recursive: bool
    jobs: int  # files at a time
    bench: int  # files
    size: int  # bytes
    concurrency: int  # requests at a time

    @property
    def how(self) -> run.How:
        """What sfss.client wants to know of it."""
        return run.How(jobs=self.jobs, retries=self.retries, recursive=self.recursive)


def parse(argv: Sequence[str] | None) -> Options:
    """Check ``argv``; a usage error ends the program with status 2."""
    parser = make_parser()
    given = parser.parse_intermixed_args(argv)  # "intermixed": the command may also stand after options
    if given.bench:
        if given.command or given.path or given.filepath:
            parser.error("--bench makes its own files: it takes no command, no --path and no --filepath")
        given.command = "bench"
    given.command = given.command or "post"
    if given.recursive and given.command not in ("put", "get"):
        parser.error(f"{given.command} takes no -r: put and get do")
    for name in ("path", "filepath") if given.recursive else REQUIRED[given.command]:
        if not getattr(given, name):
            parser.error(f"{given.command} needs --{name}")
    if given.command == "delete" and given.filepath:
        parser.error("delete takes no --filepath: it removes the file at --path from the service")
    return Options(**vars(given))


def make_parser() -> argparse.ArgumentParser:
    """The options and their help page."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=100),
        usage="%(prog)s [post | put | get | delete] [--host H] [--port P] --path P [--filepath F] [-r]\n"
        "       %(prog)s [--host H] [--port P] --bench N [--size S] [--concurrency C]",
        allow_abbrev=False,
    )
    commands = [name for name in COMMANDS if name != "bench"]
    parser.add_argument("command", nargs="?", choices=commands, help="what to do; post when none is named")
    add_server_options(parser.add_argument_group("the server"))
    add_file_options(parser.add_argument_group("the file"))
    add_bench_options(parser.add_argument_group("the bench"))
    return parser


def add_server_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", type=option(host_name), default="127.0.0.1", help="name or address [%(default)s]")
    group.add_argument("--port", type=option(words.whole(65535)), default=8255, metavar="PORT", help="[%(default)s]")
    group.add_argument("--timeout", type=option(words.seconds), default=60.0, metavar="SECONDS",
                       help="give up when nothing moves for so long [60]")  # fmt: skip
    add_key(group)
    group.add_argument("--retries", type=option(words.count(1000)), default=RETRIES, metavar="N",
                       help="attempts after a break that may come to nothing [%(default)s]")  # fmt: skip


def add_file_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--path", default="", help="the file's name on the service: folder/sub/name.ext")
    group.add_argument("--filepath", default="", metavar="FILE",
                       help="the local file; for get, - or none is standard output")  # fmt: skip
    group.add_argument("-r", "--recursive", action="store_true", help="of put and get: all files of a folder")
    group.add_argument("--jobs", type=option(words.whole(MAX_JOBS)), default=4, metavar="N",
                       help="of these, so many at a time [%(default)s]")  # fmt: skip


def add_bench_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--bench", type=option(words.whole(BENCH_FILES_LIMIT)), default=0, metavar="N",
                       help="write, read and delete N files")  # fmt: skip
    group.add_argument("--size", type=option(words.byte_count(BENCH_SIZE_LIMIT)), default=4096, metavar="S",
                       help="of each: 4096, 4KiB, 1MiB [4KiB]")  # fmt: skip
    group.add_argument("--concurrency", type=option(words.whole(BENCH_CONCURRENCY_LIMIT)), default=16, metavar="C",
                       help="requests at a time [16]")  # fmt: skip


def host_name(text: str) -> str:
    """A host as URLs take it; raises ValueError."""
    try:
        api.origin(text, 80)
    except ValueError:
        raise ValueError(f"{text!r} is no host: write a name or an address, as in 127.0.0.1") from None
    return text


COMMANDS = {"post": post, "put": put, "get": get, "delete": delete, "bench": measure}
REQUIRED = {
    "post": ("path", "filepath"),
    "put": ("path", "filepath"),
    "get": ("path",),
    "delete": ("path",),
    "bench": (),
}

if __name__ == "__main__":
    sys.exit(main())
