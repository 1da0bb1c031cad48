"""``sfss worker``: its options, its runs and its words. What it does stands in ``sfss/behind/worker.py``.

Exit statuses: 0 it was told to stop, or all is moved; 1 something is left (``--once``), isn't known, or a store is
away; 2 a setting or an option is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from sfss import eventloop, stopping
from sfss.errors import ConfigError, SfssError, ShortTermAway

if TYPE_CHECKING:  # a node, which has the same command line, needs none of it
    from sfss.behind.states import Letter
    from sfss.behind.store import ShortTerm
    from sfss.behind.worker import Worker

log = logging.getLogger("sfss.behind")

EXAMPLES = """\
examples:
  sfss worker --config FILE                   move what waits, until SIGTERM; any number may run
  sfss worker --config FILE --once            move what waits now; for cron, and before a policy loses its write_behind
  sfss worker status --config FILE            how much waits, how long, and who works
  sfss worker dead --config FILE              what could not be moved, and why
  sfss worker requeue --all --config FILE     have it be tried again

exit status: 0 told to stop, or all is done; 1 something is left, or a store is away; 2 a setting or an option is wrong
"""

# What the command line makes: the stores that settings name; and all that workers need, connected.
Stores = Callable[[], AbstractAsyncContextManager[Sequence["ShortTerm"]]]
Workers = Callable[[], AbstractAsyncContextManager[Sequence["Worker"]]]


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> Sequence[argparse.ArgumentParser]:
    """Add the parsers, which still lack the options for settings, and what is to be run."""
    worker = commands.add_parser(
        "worker",
        help="move files from short-term stores to the nodes",
        description="A worker of write-behind: moves what waits in the short-term stores that policies name\n"
        "(write_behind) onto the nodes. docs/operations/write-behind.rst is the operator's page.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    worker.add_argument("--once", action="store_true", help="move what waits now, and end")
    worker.set_defaults(ask=None)
    asking = worker.add_subparsers(title="to ask", metavar="COMMAND", description="without one, it moves files")
    status = asking.add_parser("status", help="how much waits in each store, for how long, and who works")
    status.set_defaults(ask=_status)
    dead = asking.add_parser("dead", help="the dead letters: what could not be moved, and why")
    dead.set_defaults(ask=_dead)
    for parser in (status, dead):
        parser.add_argument("--json", action="store_true", help="print it as JSON, a line for each")
    requeue = asking.add_parser("requeue", help="have dead letters be tried again")
    requeue.add_argument("ids", nargs="*", metavar="ID", help="as sfss worker dead shows them")
    requeue.add_argument("--all", action="store_true", help="all of them")
    requeue.set_defaults(ask=_requeue)
    return worker, status, dead, requeue


def run(options: argparse.Namespace, stores: Stores, workers: Workers, *, patience: float) -> int:
    """Run the command; returns the exit status. ``patience``: seconds in which a worker that is stopped has to end."""
    if options.ask is _requeue and bool(options.ids) == options.all:
        raise ConfigError("requeue: name dead letters by the ids that sfss worker dead shows, or say --all")
    if options.ask is not None:
        logging.getLogger("sfss.behind").setLevel(logging.ERROR)  # what is wrong is said otherwise
        return asyncio.run(_ask(options, stores))
    try:
        return eventloop.run(_once(workers) if options.once else _work(workers, patience))
    finally:
        stopping.told_enough()


async def _work(workers: Workers, patience: float) -> int:
    stop = asyncio.Event()
    stopping.set_when_told(stop)
    async with workers() as made, asyncio.TaskGroup() as group:
        for worker in made:
            group.create_task(worker.run(stop, patience=patience))
        names = ", ".join(worker.store.name for worker in made)
        print(f"sfss worker moves what waits in {names} to the nodes", flush=True)
    return 0


async def _once(workers: Workers) -> int:
    left = 0
    async with workers() as made:
        for worker in made:
            try:
                left += await worker.run_once()
            except SfssError as error:
                print(f"sfss: {error}", file=sys.stderr)
                left += 1
                continue
            print(f"{worker.store.name}: {worker.stored:,} files moved", flush=True)
    return 1 if left else 0


async def _ask(options: argparse.Namespace, stores: Stores) -> int:
    failed = 0
    async with stores() as every:
        for store in every:
            try:
                failed += await options.ask(options, store)
            except SfssError as error:
                print(f"sfss: {error}", file=sys.stderr)
                failed += 1
        if getattr(options, "ids", None):
            failed += _complain(options.ids)
    return 1 if failed else 0


async def _status(options: argparse.Namespace, store: ShortTerm) -> int:
    if store.away is not None:
        raise ShortTermAway(f"{store.words} is away: {store.away}")
    figures = await store.figures()
    if options.json:
        told = {**figures._asdict(), **(store.about._asdict() if store.about is not None else {})}
        _print_json({"store": store.name, **told, "fault": store.fault, "warnings": list(store.warnings)})
        return 0
    about = store.about
    print(f"{store.name}" + (f"  {about.kind} {about.version}, synced: {about.synced}" if about is not None else ""))
    print(f"  files that wait  {figures.files:>14,}   {figures.bytes:,} bytes")
    print(f"  room             {figures.max_files:>14,}   {figures.max_bytes:,} bytes")
    print(f"  tasks            {figures.tasks:>14,}   the oldest for {figures.oldest:,.0f} s")
    print(f"  dead letters     {figures.dead:>14,}")
    print(f"  workers          {len(figures.workers):>14,}")
    for name, tasks in sorted(figures.workers.items()):
        print(f"    {name}: {tasks} tasks")
    for warning in (store.fault, *store.warnings):
        if warning:
            print(f"  warning: {warning}")
    return 0


async def _dead(options: argparse.Namespace, store: ShortTerm) -> int:
    async for letter in _letters(store):
        if options.json:
            told = letter._asdict()
            del told["order"]
            _print_json({"store": store.name, **told})
        else:
            tries = f"{letter.attempts} tries" if letter.attempts != 1 else "1 try"
            print(f"{letter.id}  {letter.path}\n    after {tries}: {letter.why}")
    return 0


async def _requeue(options: argparse.Namespace, store: ShortTerm) -> int:
    count = 0
    async for letter in _letters(store):
        if (options.all or letter.id in options.ids) and await store.revive(letter):
            count += 1
            if not options.all:
                options.ids.remove(letter.id)
    print(f"{store.name}: {count:,} dead letters will be tried again")
    return 0


async def _letters(store: ShortTerm) -> AsyncGenerator[Letter, None]:
    letters = await store.letters()
    while letters:
        for letter in letters:
            yield letter
        letters = await store.letters(letters[-1].id)


def _complain(ids: Sequence[str]) -> int:
    """Of those that no store had."""
    for id in ids:
        print(f"sfss: there is no dead letter {id}", file=sys.stderr)
    return len(ids)


def _print_json(fields: dict[str, Any]) -> None:
    print(json.dumps(fields, ensure_ascii=False))
