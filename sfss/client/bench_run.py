"""``sfss bench``: one bench, or several in processes of their own, phase by phase; and the words and the JSON of it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import secrets
import signal
import ssl
from collections.abc import Sequence
from typing import Any

from sfss.client import words
from sfss.client.api import Client
from sfss.client.bench import PHASES, Bench, Plan, swept
from sfss.client.bench_processes import Failed, Remote, Where, remotes
from sfss.client.failures import Failure, common_status
from sfss.client.figures import HEADING, Measured, together
from sfss.client.run import WrongUsage, folder_of, to_end

_OTHER_FILES = 128  # that a process has open, beside connections; pipes to the others among them


def command(options: argparse.Namespace, service: str, tls: ssl.SSLContext | None) -> int:
    """Carry out the command line on the service at this URL; the exit status."""
    where = Where(service, options.timeout, tls, options.key)
    folder = f"{folder_of(options.prefix)}{secrets.token_hex(8)}"
    with contextlib.ExitStack() as stack:
        started: list[Remote] = []
        try:
            plans = _plans(options)
        except WrongUsage as error:
            words.complain(f"sfss: {error}")
            return error.exit_status
        if len(plans) > 1:
            started = stack.enter_context(remotes(where, folder, plans))
        return to_end(_bench(options, where, folder, plans[0], started), "sfss: ")


def _plans(options: argparse.Namespace) -> list[Plan]:
    """Each process's share."""
    count = options.processes
    if not folder_of(options.prefix).strip("/"):
        raise WrongUsage("--prefix names a folder, such as bench/: the files shall not lie among others")
    if options.connections < count:
        raise WrongUsage(
            f"{options.connections} --connections are too few for {count} --processes: each has at least one"
        )
    if options.files < options.connections:
        raise WrongUsage(
            f"{options.files} --files are too few for {options.connections} --connections: each has its own"
        )
    _take_descriptors(_share(options.connections, 0, count))
    return [
        Plan(
            files=_share(options.files, number, count),
            size=options.size,
            connections=_share(options.connections, number, count),
            seconds=options.seconds,
            reads=options.reads,
            rate=options.rate,
            number=number,
            processes=count,
        )
        for number in range(count)
    ]


def _take_descriptors(connections: int) -> None:
    """Be allowed so many connections in one process. Raises WrongUsage."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise WrongUsage(f"a process may open {hard:,} files here, too few for {connections:,} connections: take more"
                         " --processes")  # fmt: skip
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _share(whole: int, number: int, of: int) -> int:
    return whole // of + (number < whole % of)


async def _bench(options: argparse.Namespace, where: Where, folder: str, plan: Plan, started: Sequence[Remote]) -> int:
    task = asyncio.current_task()
    assert task is not None
    # As Ctrl-C does: whoever says `timeout 60 sfss bench` doesn't want the files to stay, either.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with where.client(plan.connections) as client:
        await client.ping()
        if not options.force:
            await _refuse_what_is_there(client, folder_of(options.prefix))
        run = Run(options, started or [Bench(client, folder, plan)], folder)
        try:
            await run.all()
        except BaseException:  # Ctrl-C, or the service has gone, or nobody reads what is printed
            await run.sweep()
            raise
    return run.exit_status


async def _refuse_what_is_there(client: Client, prefix: str) -> None:
    there, _ = await client.list(prefix, limit=1)
    if there:
        raise Failure(
            f"there are files under {prefix} already ({there[0].path}): name another --prefix, or say --force, which"
            " leaves them alone. If they are an earlier bench's, 'sfss rm -r' removes them"
        )


class Run:
    """All phases, of all processes."""

    def __init__(self, options: argparse.Namespace, benches: Sequence[Bench | Remote], folder: str) -> None:
        self._options, self._benches, self._folder = options, benches, folder
        self._measured: dict[str, Measured] = {}
        self._titles = PHASES | {"mixed": f"mixed {options.reads}/{100 - options.reads}"}

    async def all(self) -> None:
        """Raises Failure if the service goes away."""
        self._say(self._about())
        self._say_row(f"{HEADING}{'client':>8}{'waits':>7}")
        for name in PHASES:
            if name == "delete" and self._options.keep:
                continue
            measured = together(await self._each("phase", name))
            self._measured[name] = measured
            self._tell_phase(name, measured)
            if name == "put-new" and not measured.total.latencies:
                raise Failed("no file could be written: nothing can be measured", measured.exit_status)
        if self._options.keep:
            await self._keep()
        elif self._measured["delete"].total.failed:
            await self.sweep()
        self._tell()

    async def sweep(self) -> None:
        """Remove what has been written, as far as can be; after a second Ctrl-C it is said how far that was."""
        if self._options.keep:
            await self._keep()
            return
        try:
            shares = await self._each("sweep", strict=False)
        except asyncio.CancelledError:
            words.complain(f"files of the bench may be left: 'sfss rm -r {self._folder}' removes them")
            raise
        removed, found = sum(share[0] for share in shares), sum(share[1] for share in shares)
        words.complain(swept(removed, found, self._folder))

    @property
    def exit_status(self) -> int:
        """DONE if all requests succeeded."""
        return common_status(status for one in self._measured.values() for status in one.total.statuses)

    async def _keep(self) -> None:
        await self._each("forget", strict=False)
        words.complain(f"the files lie under {self._folder}/, until 'sfss rm -r {self._folder}'")

    async def _each(self, what: str, *about: str, strict: bool = True) -> list[Any]:
        """Have all processes do it at once. What goes wrong in one is raised when all have ended; or only told."""
        calls = [getattr(bench, what)(*about) for bench in self._benches]
        results = await asyncio.gather(*calls, return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if strict or not isinstance(failure, Failure):
                raise failure
        for failure in failures:
            words.complain(f"sfss: {failure}")
        return [result for result in results if not isinstance(result, BaseException)]

    # --- words ---

    def _about(self) -> str:
        options = self._options
        rate = f", {options.rate:,} requests/s where a rate can be kept" if options.rate else ""
        clients = f" of {options.processes} processes" if options.processes > 1 else ""
        return (
            f"{options.files:,} files of {options.size:,} bytes under {self._folder}/, {options.connections:,}"
            f" connections{clients}{rate}"
        )

    def _tell_phase(self, name: str, measured: Measured) -> None:
        first, *others = measured.rows(self._titles[name])
        self._say_row(f"{first}{measured.client.cpu:>8.0%}{measured.client.waiting:>7.0%}")
        for row in others:
            self._say_row(row)
        measured.total.complain(self._titles[name])

    def _tell(self) -> None:
        """What the table doesn't tell."""
        for name, one in self._measured.items():
            if one.unsent:
                words.complain(f"{self._titles[name]}: {one.unsent:,} requests that were due weren't sent: until the"
                               " end all connections were busy")  # fmt: skip
        busy = [
            f"{self._titles[name]} {sum(one.client):.0%}" for name, one in self._measured.items() if one.client.is_busy
        ]
        if busy:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            words.complain(
                f"the client was busy, or waited for a core ({', '.join(busy)} of the time): the service may be faster"
                f" than this. More than {self._options.processes} --processes, or clients on other machines, can tell;"
                f" this one has {cores} cores"
            )
        if self._options.json:
            words.say_row(json.dumps(self._as_json(bool(busy)), indent=2, ensure_ascii=False))

    def _as_json(self, busy: bool) -> dict[str, Any]:
        names = ("files", "size", "connections", "processes", "seconds", "reads", "rate")
        plan = {name: getattr(self._options, name) for name in names}
        phases = [one.as_json(name) for name, one in self._measured.items()]
        kept = f"{self._folder}/" if self._options.keep else None
        return {**plan, "client_busy": busy, "kept": kept, "phases": phases}

    def _say(self, text: str) -> None:
        if not self._options.json:
            words.say(text)

    def _say_row(self, text: str) -> None:
        if not self._options.json:
            words.say_row(text)
