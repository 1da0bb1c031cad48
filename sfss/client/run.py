"""Carries out a command of a client: what is to go where, by whom, with which bar, words and exit status."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from io import FileIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from sfss.client import sending, tree, words
from sfss.client.api import Client
from sfss.client.failures import DONE, FAILED, INTERRUPTED, WRONG_USAGE, Failure, Missing, Refused
from sfss.client.progress import Progress
from sfss.client.receiving import Receipt, get_file, get_stream
from sfss.client.retry import RETRIES, Patience
from sfss.client.sending import put_file, put_stream
from sfss.client.tree import Job, Jobs, Tally


class How(NamedTuple):
    """How to do it: what the options of all commands say."""

    jobs: int = 4  # files at a time
    retries: int = RETRIES
    quiet: bool = False  # no bar, and no words about what went well
    recursive: bool = False
    follow_links: bool = False
    type: str = ""  # content type of what is stored; "": the service guesses


class WrongUsage(Failure):
    """The command can't be meant so."""

    exit_status = WRONG_USAGE


def to_end(doing: Coroutine[None, None, int], name: str = "") -> int:
    """Run it, and turn what goes wrong into a line on standard error, begun with ``name``; the exit status."""
    try:
        status = asyncio.run(_interruptible(doing))
        words.flush()
    except Failure as failure:
        words.complain(f"{name}{failure}")
        return failure.exit_status
    except BrokenPipeError:  # the reader of our output has left, as in `get ... | head`: nobody is there to be told
        words.discard_output()
        return FAILED
    except OSError as error:
        words.discard_output()
        words.complain(name + ": ".join(str(part) for part in (error.filename, error.strerror) if part))
        return FAILED
    except (asyncio.CancelledError, KeyboardInterrupt):
        words.complain(f"{name}interrupted")
        return INTERRUPTED
    return status


async def _interruptible(doing: Coroutine[None, None, int]) -> int:
    """Let Ctrl-C cancel it, so that it tidies up. A second one cancels the tidying, in as good an order."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    return await doing


def command(options: argparse.Namespace, service: str, tls: ssl.SSLContext | None) -> int:
    """Carry out a command line of ``commands`` on the service at this URL; the exit status."""
    return to_end(_command(options, service, tls), "sfss: ")


async def _command(options: argparse.Namespace, service: str, tls: ssl.SSLContext | None) -> int:
    how = How(**{name: value for name, value in vars(options).items() if name in How._fields})
    async with Client(service, timeout=options.timeout, connections=how.jobs, tls=tls, key=options.key) as client:
        return await _COMMANDS[options.command](client, options.names, how)


# --- put ---


async def put(client: Client, names: list[str], how: How) -> int:
    """``names``: local ones, the last one is the path or folder."""
    *names, path = _at_least_two(names, "put FILE: the PATH that it is to have")
    if how.recursive:
        return await put_all(client, sources(names, folder_of(path)), how)
    if len(names) > 1:
        if "-" in names:
            raise WrongUsage("standard input (-) is one file: it goes alone, to a PATH")
        return await put_all(client, [tree.job_of(name, folder_of(path) + _name(name)) for name in names], how)
    return await put_one(client, names[0], path + _name(names[0]) if path.endswith("/") else path, how)


async def put_one(client: Client, name: str, path: str, how: How) -> int:
    """Store a file, or standard input (-)."""
    with Progress("sending", max(tree.job_of(name, path).size, 0), visible=not how.quiet) as progress:
        if name == "-":
            receipt = await put_stream(client, _input(), path, progress, type=how.type, retries=how.retries)
        else:
            receipt = await put_file(client, name, path, progress, type=how.type, retries=how.retries)
    _say(how, f"stored: {path}, {_words(receipt)}")
    return DONE


async def put_all(client: Client, files: list[Job], how: How) -> int:
    """Store local files, and what is in local folders if that is how."""
    tally = Tally()
    with Progress("sending", files=0, visible=not how.quiet) as progress:
        jobs = Jobs(tally, progress, at_a_time=how.jobs, retries=how.retries)

        async def work(job: Job) -> None:
            large = how.recursive and job.size > sending.SMALL and not how.type
            if large and await tree.is_stored(client, job, Patience(jobs.retries, job.path)):
                await sending.forget_upload(client, job.local, job.path)
                tally.same += 1
                progress.skip(job.size)
                return
            receipt = await put_file(client, job.local, job.path, progress, type=how.type, retries=jobs.retries)
            _count(tally, receipt)

        pages = _page(files)
        if how.recursive:
            pages = tree.files_to_send(files, tally, follow_links=how.follow_links)
        await _run(jobs, pages, work)
    _say(how, tally.summary("sent"))
    return tally.exit_status


# --- get ---


async def get(client: Client, names: list[str], how: How) -> int:
    """``names``: paths, the last one is the local name or folder."""
    *paths, target = _at_least_two(names, "get PATH: the local FILE or folder that it goes to, or -")
    if how.recursive:
        if len(paths) > 1 or target == "-":
            raise WrongUsage("get -r takes one FOLDER of the service, and the local folder that its files go to")
        return await get_all(client, paths[0], Path(target), how)
    if target == "-":
        if len(paths) > 1:
            raise WrongUsage("standard output (-) takes one file")
        return await get_to_output(client, paths[0], how)
    if len(paths) > 1 or target.endswith("/") or await asyncio.to_thread(os.path.isdir, target):
        return await get_several(client, paths, Path(target), how)
    return await get_one(client, paths[0], target, how)


async def get_one(client: Client, path: str, target: str, how: How) -> int:
    """Fetch a file to a local name."""
    with Progress("receiving", visible=not how.quiet) as progress:
        receipt = await get_file(client, path, target, progress, retries=how.retries)
    _say(how, f"fetched: {target}, {_words(receipt)}")
    return DONE


async def get_to_output(client: Client, path: str, how: How) -> int:
    """Fetch a file to standard output, without words and bar, which would run through the file's own text."""
    with _output() as output:
        await get_stream(client, path, output, Progress("", visible=False), retries=how.retries)
    return DONE


async def get_several(client: Client, paths: list[str], folder: Path, how: How) -> int:
    """Fetch files into a folder, by the last parts of their paths."""
    targets = {path: folder / (path.rpartition("/")[2] or ".") for path in paths}
    if len(set(targets.values())) < len(paths):
        raise WrongUsage("two of these files have the same name: fetch one of them to another name")
    if len(paths) == 1:
        return await get_one(client, paths[0], str(targets[paths[0]]), how)
    tally = Tally()
    with Progress("receiving", files=0, visible=not how.quiet) as progress:
        jobs = Jobs(tally, progress, at_a_time=how.jobs, retries=how.retries)

        async def work(job: Job) -> None:
            _count(tally, await get_file(client, job.path, targets[job.path], progress, retries=jobs.retries))

        await _run(jobs, _page([Job(path) for path in paths]), work)
    _say(how, tally.summary("fetched"))
    return tally.exit_status


async def get_all(client: Client, name: str, target: Path, how: How) -> int:
    """Fetch all files in a folder of the service into a local one."""
    folder = folder_of(name)
    await asyncio.to_thread(target.mkdir, parents=True, exist_ok=True)
    tally = Tally()
    with Progress("receiving", files=0, visible=not how.quiet) as progress:
        jobs = Jobs(tally, progress, at_a_time=how.jobs, retries=how.retries)

        async def work(job: Job) -> None:
            place = tree.make_way(target, folder, job.path)
            if await tree.is_fetched(job, place):
                tally.same += 1
                progress.skip(job.size)
                return
            _count(tally, await get_file(client, job.path, place, progress, retries=jobs.retries, announce=False))

        await _run_in(client, folder, jobs, work, how)
    _say(how, tally.summary("fetched"))
    return tally.exit_status


# --- rm, stat ---


async def rm(client: Client, names: list[str], how: How) -> int:
    """Remove files, or all in folders."""
    if how.recursive and not all(folder_of(name) for name in names):
        raise WrongUsage("rm -r takes the name of a folder: an empty one would mean every file of the service")
    tally = Tally()
    with Progress("removing", files=0, visible=not how.quiet) as progress:
        jobs = Jobs(tally, progress, at_a_time=how.jobs, retries=how.retries)

        async def work(job: Job) -> None:
            patience = Patience(jobs.retries, job.path)
            attempts = 0
            while True:
                try:
                    await client.delete(job.path)
                    break
                except Failure as failure:
                    attempts += 1
                    gone = isinstance(failure, Refused) and failure.status == 404
                    if gone and (how.recursive or attempts > 1):  # by somebody else, or by an attempt unheard of
                        break
                    await patience.wait(failure)
            tally.files += 1

        if how.recursive:
            for name in names:
                await _run_in(client, folder_of(name), jobs, work, how)
        else:
            await _run(jobs, _page([Job(path) for path in names]), work)
    _say(how, tally.summary("removed"))
    return tally.exit_status


async def stat(client: Client, names: list[str], _how: How) -> int:
    """Show what the service says of each file."""
    tally = Tally()
    for path in names:
        try:
            found = await client.stat(path)
        except Failure as failure:
            tally.failed(path, failure)
            continue
        rows = {
            "path": path,
            "size": str(found.size),
            "etag": found.etag,
            "type": found.type,
            "modified": found.modified,
        }
        rows |= {f"meta {name}": text for name, text in found.meta.items()}
        for name, text in rows.items():
            words.say(f"{name}: {text}")
    return tally.exit_status


# --- what they share ---


def folder_of(name: str) -> str:
    """A folder's name as the beginning of paths: with a slash, unless it is all of the service ("")."""
    return name if not name or name.endswith("/") else f"{name}/"


def _at_least_two(names: list[str], lacking: str) -> list[str]:
    if len(names) < 2:
        raise WrongUsage(f"what is missing is behind {lacking}; -h shows more")
    return names


def sources(names: list[str], folder: str) -> list[Job]:
    """A folder alone is sent as what is in it; one of several, by its name."""
    if len(names) == 1 and Path(names[0]).is_dir():
        return [Job(folder.rstrip("/"), Path(names[0]))]
    return [Job(folder + _name(name), Path(name)) for name in names]


def _input() -> FileIO:
    """Standard input for bytes, without a buffer, never closed: a thread may wait for it to the very end."""
    if sys.stdin is None:
        raise WrongUsage("standard input (-) is closed")
    return FileIO(sys.stdin.fileno(), closefd=False)


def _output() -> BinaryIO:
    """Standard output for bytes; what can't be written shows when it closes, not when the interpreter ends."""
    if sys.stdout is None:
        raise WrongUsage("standard output (-) is closed")
    return open(sys.stdout.fileno(), "wb", closefd=False)


def _name(local: str) -> str:
    """The last part of a local name, also of . and of dir/.."""
    return Path(os.path.realpath(local)).name if Path(local).name in ("", "..") else Path(local).name


async def _page(jobs: list[Job]) -> AsyncIterator[list[Job]]:
    yield jobs


async def _run(jobs: Jobs, pages: AsyncIterator[list[Job]], work: Callable[[Job], Awaitable[None]]) -> None:
    """See to all of them; after Ctrl-C say how far that went."""
    try:
        await jobs.run(pages, work)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            words.complain(f"sfss: {jobs.tally.summary('done:')}")
        raise


async def _run_in(client: Client, folder: str, jobs: Jobs, work: Callable[[Job], Awaitable[None]], how: How) -> None:
    """See to all that the service has in a folder, which is to be something."""
    before = jobs.tally.seen
    await _run(jobs, tree.files_stored(client, folder, how.retries), work)
    if jobs.tally.seen == before:
        jobs.tally.failed(folder, Missing("there is no file in it"))


def _count(tally: Tally, receipt: Receipt) -> None:
    tally.files += 1
    tally.bytes += receipt.size


def _words(receipt: Receipt) -> str:
    return f"{receipt.size:,} bytes, SHA-256 {receipt.sha256}"


def _say(how: How, text: str) -> None:
    if not how.quiet:
        words.say(text)


_COMMANDS: dict[str, Callable[[Client, list[str], How], Awaitable[int]]] = {
    "put": put,
    "get": get,
    "rm": rm,
    "stat": stat,
}
