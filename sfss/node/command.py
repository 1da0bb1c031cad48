"""``sfss node``: its options, and the settings that they make. What it does stands in ``server.py``."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from sfss import config, logs
from sfss.config import Log
from sfss.errors import ConfigError
from sfss.node import maintenance

if TYPE_CHECKING:
    from sfss.node.announcing import Registering

EXAMPLES = """\
examples:
  sfss node --data /srv/sfss                            on 127.0.0.1:7900
  sfss node --data /srv/sfss --host 10.0.0.7            for the other machines of a network that you trust
  sfss node --data /srv/sfss --cache 1GiB               with more memory for what is read often
  sfss node --data /srv/sfss --host 10.0.0.7 --register http://10.0.0.1:8255      onto the ring of a running service
  printf 'stats\\r\\nquit\\r\\n' | nc 127.0.0.1 7900       what it has and does
  sfss node backup --data /srv/sfss /mnt/monday         while it serves, or while it doesn't
  sfss node verify --data /mnt/monday
  sfss node import cache:11211                          moves in what a memcached or Beansdb holds

SIGTERM stops it in good order: what was asked is answered, and the next start has nothing to recover.
Exit status: 0 it was told to stop; 2 an option or the data directory is wrong, and the message says what to do.
docs/operations/node.rst is the operator's page, docs/node-protocol.rst the programmer's.
"""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add its parser, and those of what is done to a data directory."""
    node = commands.add_parser(
        "node",
        help="run one storage node",
        description="A storage node: a server of memcached's text protocol that keeps its items on disk and forgets\n"
        "nothing. Any memcached client can use it. Whoever reaches its port may read and change everything.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    node.add_argument("--host", default="127.0.0.1", help="address to answer on (default: %(default)s)")
    node.add_argument("--port", type=int, default=7900, help="port to answer on, 0 for any (default: %(default)s)")
    node.add_argument("--data", metavar="DIR", help="where the items lie; made if it isn't there")
    node.add_argument("--durability", choices=("fsync", "os"), default="fsync",
                      help="fsync: acknowledged means on disk, even if the power fails; os: handed to the kernel, lost"
                      " only if the machine stops (default: %(default)s)")  # fmt: skip
    node.add_argument(
        "--max-item-size", default="8MiB", metavar="SIZE", help="largest value that it takes (default: %(default)s)"
    )
    node.add_argument("--max-connections", type=int, default=10_000, metavar="N",
                      help="clients at a time; one more is told so and hung up on (default: %(default)s)")  # fmt: skip
    node.add_argument("--cache", default="96MiB", metavar="SIZE",
                      help="memory for what is read often; a node needs some 150 MiB beside it (default: %(default)s)"
                      )  # fmt: skip
    _add_registering(node)
    node.add_argument("--log-format", choices=("auto", "text", "json"), default="auto",
                      help="lines for people, or JSON; auto: for people at a terminal (default: %(default)s)"
                      )  # fmt: skip
    node.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info",
                      help="the least that is worth a line (default: %(default)s)")  # fmt: skip
    node.add_argument("--stop-with-parent", action="store_true", help="stop when standard input ends")
    node.add_argument("--recover", action="store_true",
                      help="start on a damaged directory with what is left of it; what that means is in"
                      " docs/operations/node.rst")  # fmt: skip
    node.set_defaults(run=_run)
    maintenance.add_commands(node)


def _add_registering(node: argparse.ArgumentParser) -> None:
    group = node.add_argument_group("to be taken onto the ring of fronts, without a change of their configuration")
    group.add_argument("--register", action="append", default=[], metavar="URL",
                       help="announce it to this front, again and again; may be given several times. The front takes it"
                       " if it has registration.enabled; docs/operations/growing.rst says what follows")  # fmt: skip
    group.add_argument("--name", default="", help="its name, which places its files; kept in the data directory"
                       " (default: one that is made up)")  # fmt: skip
    group.add_argument("--advertise", default="", metavar="HOST:PORT",
                       help="where fronts reach it (default: where it listens)")  # fmt: skip
    group.add_argument("--register-key", default=None, metavar="KEY",
                       help="what the front takes for registration.secret (default: $SFSS_NODE_KEY, which other users"
                       " of the machine can't see)")  # fmt: skip
    group.add_argument("--capacity", default="", metavar="SIZE",
                       help="how much it may be thought to hold, where several nodes share a disk (default: the disk's"
                       " size); it decides about the share of files that it gets")  # fmt: skip
    group.add_argument("--heartbeat", type=float, default=10.0, metavar="SECONDS",
                       help="how often it announces itself (default: %(default)g)")  # fmt: skip
    group.add_argument("--take-over", action="store_true",
                       help="take the place of the node of that name, which is gone for good")  # fmt: skip


def _run(options: argparse.Namespace) -> int:
    from sfss.node.server import NodeSettings, run

    logs.configure(Log(format=options.log_format, level=options.log_level))
    if not 0 <= options.port <= 65535:
        raise ConfigError(f"--port: {options.port} is no port, they go to 65535")
    settings = NodeSettings(
        host=options.host,
        port=options.port,
        data=maintenance.data_of(options),
        durability=options.durability,
        max_item_size=_size(options.max_item_size, "--max-item-size"),
        max_connections=options.max_connections,
        cache=_size(options.cache, "--cache"),
        recover=options.recover,
        capacity=_size(options.capacity, "--capacity") if options.capacity else 0,
        registering=_registering(options),
        stop_with_parent=options.stop_with_parent,
    )
    run(settings)
    return 0


def _registering(options: argparse.Namespace) -> Registering | None:
    from sfss.node.announcing import Registering

    if not options.register:
        if options.name or options.advertise or options.take_over:
            raise ConfigError("--name, --advertise and --take-over are for fronts: name one with --register URL")
        return None
    key = options.register_key if options.register_key is not None else os.environ.get("SFSS_NODE_KEY", "")
    return Registering(options.register, options.name, options.advertise, key, options.heartbeat, options.take_over)


def _size(text: str, option: str) -> int:
    try:
        return config.parse_size(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None
