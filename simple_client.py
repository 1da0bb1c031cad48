#!/usr/bin/env python3
"""A small client of sfss: post a file, read it back, see that the bytes are the same; put, get, delete, bench.

It stands alone: this one file, Python 3.11 or newer, and aiohttp. Read it from top to bottom: `main`, the command
line, the commands, the bench, and then what they are made of, of which `Client` is the only part that speaks HTTP.

Two rules hold throughout:

- A file is never held in memory: it passes in pieces of PIECE bytes. (The bench makes its own files, and does.)
- Whatever can be foreseen to go wrong becomes a `Failure`: one line for the user, exit status 1, no traceback.

    Failure         one line that says what went wrong and, where it can, what to do
     +- Refused     the server answered, and the answer is an error; has the HTTP `status`
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

try:
    import aiohttp
    from yarl import URL
except ImportError:
    raise SystemExit("simple_client.py needs aiohttp: pip install aiohttp") from None

PIECE = 256 * 1024  # bytes read, sent or written at a time: large enough to be fast, small enough not to matter
PROBLEM_LIMIT = 64 * 1024  # bytes of an error's body that are looked at; what is longer explains nothing
BENCH_FILES_LIMIT = 10_000_000  # a latency is kept for each
BENCH_SIZE_LIMIT = 64 * 1024**2  # bytes; each file of the bench is held in memory, --concurrency of them at a time
BENCH_CONCURRENCY_LIMIT = 1000  # one connection each, and a process may usually open 1,024 files
SWEEP_SECONDS = 5.0  # how long an interrupted bench may take to remove what it wrote
SWEEP_GRACE = 0.2  # of these, for writes cut off on their way to land, so that they are removed too


class Failure(Exception):
    """What went wrong, in one line for the user."""


class Refused(Failure):
    """The server's answer is an error; `status` is its HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (None: the process's own); the exit status: 0 done, 1 failed, 130 interrupted.

    Raises SystemExit(2) for a usage error and SystemExit(0) for -h, as argparse does.
    """
    options = parse(argv)
    try:
        asyncio.run(run(options))
        sys.stdout.flush()
    except Failure as failure:
        return complain(str(failure))
    except BrokenPipeError:  # the reader of our output has left, as in `get ... | head`: nobody is there to be told
        discard_output()
        return 1
    except OSError as error:
        discard_output()
        return complain(": ".join(str(part) for part in (error.filename, error.strerror) if part))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return complain("interrupted", 130)
    return 0


async def run(options: Options) -> None:
    """Carry out one command; raises Failure, OSError for the local file, or CancelledError after Ctrl-C."""
    cancel_on_interrupt()
    async with Client(options.host, options.port, options.timeout, options.concurrency) as client:
        await COMMANDS[options.command](client, options)


def cancel_on_interrupt() -> None:
    """Let Ctrl-C cancel this task, so that it tidies up. A second one cancels the tidying, in as good an order."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError):  # Windows; there asyncio's own way has to do
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)


def complain(text: str, status: int = 1) -> int:
    """Say `text` on stderr in one line, whatever the server put into it, and hand back the exit status."""
    print(one_line(text), file=sys.stderr)
    return status


def discard_output() -> None:
    """Point standard output nowhere, lest the interpreter fail once more when it flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ---------------------------------------------------------------------------------------------- the command line

DESCRIPTION = """\
A small client of sfss, the small-file service.

  post    send a file, read it back, compare byte for byte (done when no command is named)
  put     send a file, replacing what lies at the path
  get     fetch a file: whole and checked, or nothing is left at --filepath
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

  10,000 files of 4 KiB, 32 requests at a time:
    python simple_client.py --bench 10000 --size 4KiB --concurrency 32

Paths are written as they are ('my folder/a+b 100%.txt'): the client does the percent-encoding.

exit status: 0 done, and the bytes are the same; 1 they are not, or something failed (stderr says what);
             2 wrong usage; 130 interrupted
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """The command line, checked. `path` and `filepath` are there for the commands that need them, else empty."""

    command: str  # a key of COMMANDS
    host: str
    port: int
    path: str
    filepath: str  # of `get`: "-" is standard output
    timeout: float  # seconds
    bench: int  # files
    size: int  # bytes
    concurrency: int  # requests at a time


def parse(argv: Sequence[str] | None) -> Options:
    """Check `argv`; a usage error ends the program with status 2."""
    parser = make_parser()
    given = parser.parse_intermixed_args(argv)  # "intermixed": the command may also stand after options
    if given.bench:
        if given.command or given.path or given.filepath:
            parser.error("--bench makes its own files: it takes no command, no --path and no --filepath")
        given.command = "bench"
    given.command = given.command or "post"
    for name in REQUIRED[given.command]:
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
        usage="%(prog)s [post | put | get | delete] [--host H] [--port P] --path P [--filepath F]\n"
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
    group.add_argument("--host", type=host_name, default="127.0.0.1", help="name or address [%(default)s]")
    group.add_argument("--port", type=whole(65535), default=8255, metavar="PORT", help="[%(default)s]")
    group.add_argument(
        "--timeout", type=seconds, default=60.0, metavar="SECONDS", help="give up when nothing moves for so long [60]"
    )


def add_file_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--path", default="", help="the file's name on the service: folder/sub/name.ext")
    group.add_argument(
        "--filepath", default="", metavar="FILE", help="the local file; for get, - or none is standard output"
    )


def add_bench_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--bench", type=whole(BENCH_FILES_LIMIT), default=0, metavar="N", help="write, read and delete N files"
    )
    group.add_argument("--size", type=byte_count, default=4096, metavar="S", help="of each: 4096, 4KiB, 1MiB [4KiB]")
    group.add_argument(
        "--concurrency", type=whole(BENCH_CONCURRENCY_LIMIT), default=16, metavar="C", help="requests at a time [16]"
    )


def host_name(text: str) -> str:
    """A host as URLs take it; an IPv6 address may stand in brackets."""
    host = text.removeprefix("[").removesuffix("]")
    try:
        URL.build(scheme="http", host=host, port=80)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no host: write a name or an address, as in 127.0.0.1") from None
    return host


def whole(limit: int) -> Callable[[str], int]:
    """A reader of whole numbers from 1 to `limit`."""

    def number(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not 1 <= int(text) <= limit:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {limit:,}")
        return int(text)

    return number


def seconds(text: str) -> float:
    """A time in seconds, above 0 and finite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "kib": 2**10, "mib": 2**20}  # bytes


def byte_count(text: str) -> int:
    """A size in bytes, from 1 to BENCH_SIZE_LIMIT: 4096, 4KiB, 1MiB, 100kB."""
    found = re.fullmatch(r"([0-9]{1,12}) ?([a-z]*)", text.lower())
    size = int(found[1]) * UNITS.get(found[2], 0) if found else 0
    if not 1 <= size <= BENCH_SIZE_LIMIT:
        raise argparse.ArgumentTypeError(f"{text!r} is no size from 1 to 64MiB, such as 4096, 4KiB, 1MiB")
    return size


# -------------------------------------------------------------------------------------------------- the commands


async def post(client: Client, options: Options) -> None:
    """Send a file, read it back, and raise Failure unless every byte is the same."""
    sent = await send(client, "POST", "/files", options)
    with open_local(options.filepath) as file:
        comparison = Comparison(file)
        received = await receive(client, options.path, comparison.write, label="reading back")
    differences = find_differences(sent, received, comparison.first_difference)
    if differences:
        raise Failure(f"NOT the same: {options.path} came back different from {options.filepath}: {differences}")
    say(f"same: {options.path} came back as it went, {sent.size:,} bytes, SHA-256 {sent.sha256}")


async def put(client: Client, options: Options) -> None:
    """Send a file; raises Failure unless the server confirms its SHA-256."""
    sent = await send(client, "PUT", "/file", options)
    check_etag(options.path, sent)
    say(f"stored: {options.path}, {sent.size:,} bytes, SHA-256 {sent.sha256}")


async def get(client: Client, options: Options) -> None:
    """Fetch a file to `filepath`, or to standard output; raises Failure unless it came whole and unharmed."""
    if options.filepath in ("", "-"):
        with open_stdout() as output:
            # No bar here: it would run through the file's own text.
            check_etag(options.path, await receive(client, options.path, output.write, label=None))
        return
    with whole_or_nothing(Path(options.filepath)) as output:
        received = await receive(client, options.path, output.write, label="receiving")
        check_etag(options.path, received)
    say(f"fetched: {options.filepath}, {received.size:,} bytes, SHA-256 {received.sha256}")


async def delete(client: Client, options: Options) -> None:
    """Remove a file; raises Refused (404) where there is none."""
    async with client.request("DELETE", "/file", options.path):
        say(f"deleted: {options.path}")


def say(text: str) -> None:
    """Report a result on standard output, in one line that any terminal can show."""
    encoding = sys.stdout.encoding or "utf-8"
    print(one_line(text).encode(encoding, "backslashreplace").decode(encoding))


# ----------------------------------------------------------------------------- one file on its way, and its checks


@dataclasses.dataclass(frozen=True)
class Receipt:
    """What went by on the wire, as this side counted it, and what the server calls it."""

    size: int  # bytes
    sha256: str  # hex
    etag: str  # as it stood in the answer; "" where it had none


async def send(client: Client, method: str, face: str, options: Options) -> Receipt:
    """Send the local file as the request's body; raises Failure, Refused, or OSError for the local file."""
    with open_local(options.filepath) as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256()
        with Progress("sending", size) as progress:
            body = read_pieces(file, size, digest.update, progress)
            async with client.request(method, face, options.path, body, size) as answer:
                return Receipt(size, digest.hexdigest(), answer.headers.get("ETag", ""))


async def read_pieces(
    file: BinaryIO, size: int, seen: Callable[[bytes], object], progress: Progress
) -> AsyncIterator[bytes]:
    """The first `size` bytes of `file`: so many were announced, so a file that grows meanwhile does no harm.

    Raises Failure if it becomes shorter, or cannot be read.
    """
    while size:
        try:
            piece = await asyncio.to_thread(file.read, min(PIECE, size))
        except OSError as error:
            raise Failure(f"{file.name}: {error.strerror}") from error
        if not piece:
            raise Failure(f"{file.name} became shorter while it was being sent: send it again")
        seen(piece)
        yield piece
        size -= len(piece)
        progress.advance(len(piece))


async def receive(client: Client, path: str, write: Callable[[bytes], object], label: str | None) -> Receipt:
    """Fetch a file and hand it to `write` (which may block) piece by piece; with a bar if it has a `label`.

    Raises Failure, Refused, and whatever `write` raises. The pieces have been written before they are vouched for.
    """
    digest, size = hashlib.sha256(), 0
    async with client.request("GET", "/file", path) as answer:
        with Progress(label or "", answer.content_length or 0, visible=bool(label)) as progress:
            async for piece in answer.content.iter_chunked(PIECE):
                await asyncio.to_thread(write, piece)
                digest.update(piece)
                size += len(piece)
                progress.advance(len(piece))
        return Receipt(size, digest.hexdigest(), answer.headers.get("ETag", ""))


class Comparison:
    """A sink that compares what is written to it with a local file, byte for byte."""

    def __init__(self, file: BinaryIO) -> None:
        self.first_difference: int | None = None  # its offset in bytes; None as long as all is the same
        self._file = file
        self._offset = 0

    def write(self, piece: bytes) -> None:
        """Compare the next bytes."""
        expected = self._file.read(len(piece))
        if piece != expected and self.first_difference is None:
            self.first_difference = self._offset + common_length(piece, expected)
        self._offset += len(piece)


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


def check_etag(path: str, receipt: Receipt) -> None:
    """Raise Failure unless the server's ETag is the strong, quoted SHA-256 of the bytes that went by."""
    if receipt.etag != f'"{receipt.sha256}"':
        raise Failure(
            f"NOT the same: {path}: the server's ETag is {receipt.etag or 'missing'}, "
            f"but the SHA-256 of the {receipt.size:,} bytes here is {receipt.sha256}"
        )


# ----------------------------------------------------------------------------------------------------- the bench


async def bench(client: Client, options: Options) -> None:
    """Write, read and delete files, print the figures; raises Failure if any request failed or any byte differed."""
    await client.ping()  # one line now instead of as many errors as there are files
    say(
        f"{options.bench:,} files of {options.size:,} bytes, {options.concurrency} requests at a time, "
        f"to http://{client.address}"
    )
    run = Bench(client, options)
    try:
        failed = await run.all()
    except asyncio.CancelledError:  # Ctrl-C
        await run.sweep()
        raise
    if failed:
        raise Failure(f"{failed:,} requests of the bench failed")


class Bench:
    """One run over files of its own, `bench/<random>/<number>`: three phases, timed one by one."""

    def __init__(self, client: Client, options: Options) -> None:
        self._client = client
        self._files, self._size, self._concurrency = options.bench, options.size, options.concurrency
        self._prefix = f"bench/{secrets.token_hex(8)}"
        self._noise = os.urandom(self._size + NOISE_SHIFTS)
        self._left: dict[int, bool] = {}  # files that may lie on the server, oldest first: is the write acknowledged?

    async def all(self) -> int:
        """Run the three phases and print a line of figures for each; the number of requests that failed."""
        print(Figures.HEADING, flush=True)
        failed = await self._phase("writes", self._write, range(self._files))
        written = [index for index, acknowledged in self._left.items() if acknowledged]
        failed += await self._phase("reads", self._read, written)
        return failed + await self._phase("deletes", self._delete, list(self._left))

    async def sweep(self) -> None:
        """Remove what an interrupted run has written, as far as SWEEP_SECONDS reach, and say how far they did."""
        found = len(self._left)
        try:
            async with asyncio.timeout(SWEEP_SECONDS):
                await asyncio.sleep(SWEEP_GRACE)
                await self._attempt_all(self._delete, list(self._left), Figures(0))
        except TimeoutError:
            pass  # what is left is said below
        finally:  # also after a second Ctrl-C
            rest = f"; the others lie under {self._prefix}/" if self._left else ""
            complain(f"removed {found - len(self._left):,} of {found:,} bench files{rest}")

    async def _phase(self, name: str, action: Action, indices: Sequence[int]) -> int:
        size = 0 if name == "deletes" else self._size
        with Progress(name, size * len(indices), visible=size > 0) as progress:
            figures = Figures(size, progress)
            started = time.perf_counter()
            await self._attempt_all(action, indices, figures)
            elapsed = time.perf_counter() - started
        print(figures.row(name, elapsed), flush=True)
        for error, times in figures.errors.most_common(3):
            complain(f"{name}: {times:,} x {error}")
        return figures.errors.total()

    async def _attempt_all(self, action: Action, indices: Iterable[int], figures: Figures) -> None:
        """Run `action` for all `indices`, `concurrency` at a time."""
        queue = iter(indices)  # shared: each index goes to the first worker that is free

        async def work() -> None:
            for index in queue:
                await figures.attempt(action(index))

        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(work())

    async def _write(self, index: int) -> None:
        self._left[index] = False  # noted before it is sent: a write without an answer may have arrived all the same
        async with self._client.request("PUT", "/file", self._path(index), self._content(index), self._size):
            self._left[index] = True

    async def _read(self, index: int) -> None:
        async with self._client.request("GET", "/file", self._path(index)) as answer:
            if await answer.read() != self._content(index):
                raise Failure("the bytes read are not the bytes written")

    async def _delete(self, index: int) -> None:
        try:
            async with self._client.request("DELETE", "/file", self._path(index)):
                pass
        except Refused as refusal:
            if refusal.status != 404 or self._left[index]:  # a write that failed may well have left nothing
                raise
        del self._left[index]

    def _path(self, index: int) -> str:
        return f"{self._prefix}/{index}"

    def _content(self, index: int) -> bytes:
        """`size` bytes that no other file of this run has, in no part: the number, then noise, shifted each time."""
        shift = index * 61 % NOISE_SHIFTS
        return (index.to_bytes(8, "little") + self._noise[shift : shift + self._size])[: self._size]


NOISE_SHIFTS = 65521  # a prime, so that all shifts are used before one comes again
Action = Callable[[int], Awaitable[None]]


class Figures:
    """What one phase of the bench came to. Only requests that succeeded count for rates and latencies."""

    HEADING = (
        f"{'':<8}{'requests/s':>12}{'MB/s':>10}{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'p99.9 ms':>10}"
        f"{'max ms':>10}{'errors':>9}"
    )

    def __init__(self, size: int, progress: Progress | None = None) -> None:
        self.latencies: list[float] = []  # seconds, one for each success
        self.errors: collections.Counter[str] = collections.Counter()  # by what they said
        self._size = size  # bytes moved by each request; 0: none to speak of
        self._progress = progress

    async def attempt(self, request: Awaitable[None]) -> None:
        """Time one request; a Failure is counted, not raised."""
        started = time.perf_counter()
        try:
            await request
        except Failure as failure:
            self.errors[re.sub(r"bench/\w+/\d+", "bench/...", str(failure))] += 1  # the same, for whichever file
            return
        self.latencies.append(time.perf_counter() - started)
        if self._progress:
            self._progress.advance(self._size)

    def row(self, name: str, elapsed: float) -> str:
        """The line under HEADING. MB are 10**6 bytes of content, latencies milliseconds."""
        rate = len(self.latencies) / elapsed
        megabytes = f"{rate * self._size / 1e6:,.2f}" if self._size else "-"
        ordered = sorted(self.latencies)
        times = "".join(f"{percentile(ordered, share):>10}" for share in (0.5, 0.9, 0.99, 0.999, 1))
        return f"{name:<8}{rate:>12,.1f}{megabytes:>10}{times}{self.errors.total():>9,}"


def percentile(ordered: Sequence[float], share: float) -> str:
    """The time, in ms, within which `share` of the requests were done (nearest rank): one that really occurred."""
    if not ordered:
        return "-"
    return f"{ordered[math.ceil(share * len(ordered)) - 1] * 1e3:,.2f}"


# ------------------------------------------------------------------------------------------------------- the wire


class Client:
    """An sfss server, over keep-alive connections; an async context manager.

    `timeout`: seconds that may pass without a byte moving. `connections`: how many are used at a time, at most.
    """

    def __init__(self, host: str, port: int, timeout: float = 60.0, connections: int = 1) -> None:
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._host, self._port, self._timeout, self._connections = host, port, timeout, connections

    async def __aenter__(self) -> Client:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            # The bytes as they are stored: a proxy that compressed them would also weaken the ETag.
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            # The content type is left out, so that the server finds it from the path's extension.
            skip_auto_headers=["Content-Type"],
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ping(self) -> None:
        """Raise Failure unless something that speaks HTTP answers there, whatever it says."""
        with contextlib.suppress(Refused):
            async with self.request("GET", "/livez"):
                pass

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, face: str, path: str = "", body: AsyncIterator[bytes] | bytes | None = None, size: int = 0
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request for `path`, with a `body` of `size` bytes, and yield the answer if it is a success.

        Raises Refused for any other answer, Failure if there is none or it breaks off; the latter also out of the
        caller's reading of the body, as long as that is done inside the `async with`.
        """
        url = self._url(face, path)
        headers = {} if body is None else {"Content-Length": str(size)}
        with self._plain_words():
            # aiohttp's sock_read begins only when the body has been sent; until then this deadline stands guard.
            async with asyncio.timeout(self._timeout) as deadline:
                data = self._watched(body, deadline) if isinstance(body, AsyncIterator) else body
                async with self._session.request(
                    method, url, data=data, headers=headers, allow_redirects=False
                ) as answer:
                    deadline.reschedule(None)
                    if not 200 <= answer.status < 300:
                        raise Refused(answer.status, await read_problem(answer))
                    yield answer

    def _url(self, face: str, path: str) -> URL:
        """The URL of `path` under the service's `face`; raises Failure for a path that is no UTF-8."""
        try:
            path.encode()  # yarl drops what it can't encode: the file would go by another name
        except UnicodeEncodeError:
            raise Failure(f"the path {path!a} is not valid UTF-8: sfss has no name for it") from None
        query = {"path": path} if path else None
        return URL.build(scheme="http", host=self._host, port=self._port, path=face).with_query(query)

    async def _watched(self, body: AsyncIterator[bytes], deadline: asyncio.Timeout) -> AsyncIterator[bytes]:
        """The body; each piece that has left moves the deadline."""
        async for piece in body:
            yield piece
            deadline.reschedule(asyncio.get_running_loop().time() + self._timeout)

    @contextlib.contextmanager
    def _plain_words(self) -> Iterator[None]:
        """The border at which aiohttp's exceptions become Failures."""
        try:
            yield
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(reason_of(error)) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise self._unreachable(f"no connection within {self._timeout:g} s") from error
        except TimeoutError as error:
            advice = "try again, or raise --timeout"
            raise Failure(f"{self.address}: nothing moved for {self._timeout:g} s: {advice}") from error
        except aiohttp.ClientPayloadError as error:
            raise Failure(f"{self.address}: the answer broke off before its end: try again") from error
        except aiohttp.ClientConnectionError as error:
            if isinstance(error.__cause__, Failure):  # the local file failed, and the connection only with it
                raise error.__cause__ from None
            advice = "see the server's log, and its max_file_size if a file was being sent"
            raise Failure(f"{self.address}: the connection broke off before the answer's end: {advice}") from error
        except aiohttp.ClientError as error:
            raise Failure(f"{self.address}: no answer that HTTP knows ({error}): is that sfss?") from error

    def _unreachable(self, reason: str) -> Failure:
        start = f"sfss --host {self._host} --port {self._port}"
        return Failure(
            f"cannot reach {self.address} ({reason}): is sfss running there? "
            f"Start it with '{start}', or name another --host and --port"
        )


def reason_of(error: aiohttp.ClientConnectorError) -> str:
    """Why there is no connection, without the addresses that asyncio adds."""
    if isinstance(error, aiohttp.ClientConnectorDNSError) or not error.errno:
        return str(error.strerror or error.os_error)
    return os.strerror(error.errno)


async def read_problem(answer: aiohttp.ClientResponse) -> str:
    """What an error's answer says: 'title: detail' if it is a problem document (RFC 9457), else its status line."""
    body, problem = bytearray(), None
    # Should the body be broken, or no JSON: the status is known, and worth more than the reason for that.
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError, RecursionError):
        async for piece in answer.content.iter_any():
            body += piece
            if len(body) > PROBLEM_LIMIT:
                break
        problem = json.loads(body)
    members = problem if isinstance(problem, dict) else {}
    said = [str(members[name]) for name in ("title", "detail") if members.get(name)]
    return ": ".join(said) or f"HTTP {answer.status} {answer.reason or ''}".strip()


def one_line(text: str) -> str:
    """`text` without line breaks and without anything that could play tricks on a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


# ------------------------------------------------------------------------------------------------ the local side


@contextlib.contextmanager
def open_local(filepath: str) -> Iterator[BinaryIO]:
    """A regular file, open for reading; raises Failure for anything else, OSError if it can't be read."""
    mode = Path(filepath).stat().st_mode  # asked first: opening a pipe would wait for its other end
    if stat.S_ISDIR(mode):
        raise Failure(f"{filepath} is a directory: --filepath names one file")
    if not stat.S_ISREG(mode):
        raise Failure(f"{filepath} is not a regular file")
    with Path(filepath).open("rb") as file:
        yield file


@contextlib.contextmanager
def open_stdout() -> Iterator[BinaryIO]:
    """Standard output for bytes; what can't be written shows when it closes, not when the interpreter ends."""
    with open(sys.stdout.fileno(), "wb", closefd=False) as output:
        yield output


@contextlib.contextmanager
def whole_or_nothing(target: Path) -> Iterator[BinaryIO]:
    """A file that appears at `target` when the block ends well. If anything goes wrong nothing is left at `target`,
    and what stood there before stands there still.

    Raises Failure if `target` can't be replaced by a file, OSError if it can't be written.
    """
    target = target.resolve()  # through links: they stay, the file that they name is replaced
    if target.exists() and not target.is_file():
        raise Failure(f"{target} is not a regular file: nothing may take its place")
    if not target.parent.is_dir():
        raise Failure(f"{target.parent} is no directory: make it first")
    part = target.with_name(f".sfss-{secrets.token_hex(8)}.part")  # beside it: a rename stays on one file system
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # the name must not reach the disk before the bytes do
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


class Progress:
    """A bar on stderr with percent and rate: `sending  [#####.....]  50%  1.2 MB  3.4 MB/s`. MB are 10**6 bytes.

    Draws nothing where stderr is no terminal. `total` is in bytes; 0 means nothing to do, or not known.
    """

    WIDTH = 30  # characters between the brackets
    INTERVAL = 0.1  # seconds between two drawings

    def __init__(self, label: str, total: int, *, visible: bool = True) -> None:
        self._label, self._total, self._done = label, total, 0
        self._visible = visible and sys.stderr.isatty()
        self._started = self._drawn = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._visible:
            self._draw()
            print(file=sys.stderr)

    def advance(self, size: int) -> None:
        """Count `size` more bytes."""
        self._done += size
        if self._visible and time.monotonic() - self._drawn >= self.INTERVAL:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        share = min(self._done / self._total, 1.0) if self._total else 1.0
        bar = "#" * int(share * self.WIDTH)
        rate = self._done / max(self._drawn - self._started, 1e-6) / 1e6
        line = f"{self._label:<12} [{bar:.<{self.WIDTH}}] {share:4.0%} {self._done / 1e6:,.1f} MB  {rate:,.1f} MB/s"
        columns = shutil.get_terminal_size().columns - 1  # a line that wraps could not be drawn over
        print(f"\r{line[:columns]:<{min(columns, 79)}}", end="", file=sys.stderr, flush=True)


COMMANDS = {"post": post, "put": put, "get": get, "delete": delete, "bench": bench}
REQUIRED = {
    "post": ("path", "filepath"),
    "put": ("path", "filepath"),
    "get": ("path",),
    "delete": ("path",),
    "bench": (),
}

if __name__ == "__main__":
    sys.exit(main())
