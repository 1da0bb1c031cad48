"""The command line: wiring only. Parses, builds settings, starts what was asked for, turns errors into exit statuses.

Exit statuses: 0 it worked; 1 it didn't (a node or a server is away); 2 the command, a setting or a data directory is
wrong; 130 interrupted. ``put``, ``get``, ``rm``, ``stat`` and ``bench`` have more of them: ``client/failures.py``.
"""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

import sfss
from sfss import config, healing, listing_cli
from sfss.client import commands as client_commands
from sfss.config import Settings
from sfss.errors import ConfigError
from sfss.node import maintenance

EXAMPLES = """\
examples:
  sfss                                          serve on 127.0.0.1:8255, on three nodes of its own under ./sfss-data
  sfss --host 0.0.0.0 --port 80                 the same for everybody
  sfss --workers auto                           with a process for each core
  sfss --config conf/sfss.toml                  with settings from a file
  SFSS_STORAGE_NODES=a:11211,b:11211 sfss       on other machines' nodes
  sfss node --port 7900 --data /srv/sfss        one storage node
  sfss node backup --data /srv/sfss /mnt/b1     a copy of what it holds, while it serves
  sfss node import cache:11211                  what a memcached or Beansdb holds, to the node on 127.0.0.1:7900
  sfss status                                   what the nodes of a running service say
  sfss put cat.jpg photos/                      a file to a running service; with -r, folders
  sfss get photos/cat.jpg .                     and back; also sfss stat, sfss rm
  sfss ls -l photos/                            which files there are; sfss du counts them
  sfss bench                                    how fast a running service is, from here
  sfss repair                                   bring every copy of every file where it belongs
"""

NODE_EXAMPLES = """\
examples:
  sfss node --data /srv/sfss                            on 127.0.0.1:7900
  sfss node --data /srv/sfss --host 10.0.0.7            for the other machines of a network that you trust
  sfss node --data /srv/sfss --cache 1GiB               with more memory for what is read often
  printf 'stats\\r\\nquit\\r\\n' | nc 127.0.0.1 7900       what it has and does
  sfss node backup --data /srv/sfss /mnt/monday         while it serves, or while it doesn't
  sfss node verify --data /mnt/monday
  sfss node import cache:11211                          moves in what a memcached or Beansdb holds

SIGTERM stops it in good order: what was asked is answered, and the next start has nothing to recover.
Exit status: 0 it was told to stop; 2 an option or the data directory is wrong, and the message says what to do.
docs/operations/node.rst is the operator's page, docs/node-protocol.rst the programmer's.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a client's broken form is the client's matter
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except ConfigError as error:
        print(f"sfss: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="sfss",
        description="A small-file service: files by path over HTTP, kept on memcached-protocol nodes.",
        epilog=EXAMPLES,
        formatter_class=form,
    )
    parser.add_argument("--version", action="version", version=f"sfss {sfss.__version__}")
    _add_settings(parser)
    _add_workers(parser)
    parser.set_defaults(run=_serve)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", description="without one, sfss serves")

    node = commands.add_parser(
        "node",
        help="run one storage node",
        description="A storage node: a server of memcached's text protocol that keeps its items on disk and forgets\n"
        "nothing. Any memcached client can use it. Whoever reaches its port may read and change everything.",
        epilog=NODE_EXAMPLES,
        formatter_class=form,
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
    node.add_argument("--stop-with-parent", action="store_true", help="stop when standard input ends")
    node.add_argument("--recover", action="store_true",
                      help="start on a damaged directory with what is left of it; what that means is in"
                      " docs/operations/node.rst")  # fmt: skip
    node.set_defaults(run=_node)
    maintenance.add_commands(node)

    status = commands.add_parser("status", help="show what the nodes of a running service say")
    _add_settings(status)
    status.add_argument("--json", action="store_true", help="print /status?format=full as it is")
    status.set_defaults(run=_status)

    for listing_command in listing_cli.add_commands(commands):
        _add_settings(listing_command)
        listing_command.set_defaults(run=_list)

    for client_command in client_commands.add_commands(commands):
        _add_settings(client_command)
        client_command.set_defaults(run=_transfer)

    for healing_command in healing.add_commands(commands):
        _add_config(healing_command)
        healing_command.set_defaults(run=_heal)

    about_settings = commands.add_parser("config", help="check settings").add_subparsers(required=True, metavar="check")
    check = about_settings.add_parser("check", help="say what is wrong with the settings, or show what they come to")
    _add_settings(check)
    _add_workers(check)
    check.set_defaults(run=_check)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument("--host", default=argparse.SUPPRESS, help="server.host (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=argparse.SUPPRESS, help="server.port (default: 8255)")


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", metavar="N", default=argparse.SUPPRESS,
                        help="server.workers: processes that serve, or auto for one per core (default: 1)")  # fmt: skip


def _add_config(parser: argparse.ArgumentParser) -> None:
    # SUPPRESS: an option that stands before the command isn't undone by its default behind it.
    parser.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS,
                        help="settings in TOML, see conf/sfss.toml (default: $SFSS_CONFIG, or none)")  # fmt: skip


def _settings(options: argparse.Namespace) -> Settings:
    given = {key: value for key in ("host", "port", "workers") if (value := getattr(options, key, None)) is not None}
    file = getattr(options, "config", None) or os.environ.get("SFSS_CONFIG")
    return config.load(file, os.environ, {"server": given})


# --- sfss: serve ---


def _serve(options: argparse.Namespace) -> int:
    settings = _settings(options)
    from sfss import service  # here, for a node needs none of it

    service.run(settings, lambda: _settings(options))
    return 0


# --- the other commands ---


def _node(options: argparse.Namespace) -> int:
    from sfss.node.server import NodeSettings, run

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
        stop_with_parent=options.stop_with_parent,
    )
    run(settings)
    return 0


def _size(text: str, option: str) -> int:
    try:
        return config.parse_size(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


def _check(options: argparse.Namespace) -> int:
    settings = _settings(options)
    from sfss.web.tls import tls_context

    tls_context(settings)
    for section, keys in config.as_dict(settings).items():
        print(f"[{section}]")
        for key, value in keys.items():
            print(f"{key} = {json.dumps(value, ensure_ascii=False)}")
        print()
    for policy, rules in zip(settings.policy, settings.by_prefix.values(), strict=True):
        print(f"[[policy]]\nprefix = {json.dumps(policy.prefix, ensure_ascii=False)}")
        for key in ("pieces", "copies", "write_quorum", "read_quorum", "max_file_size"):
            if key != "pieces" or policy.pieces is not None:
                print(f"{key} = {getattr(rules, key)}")
        print()
    print(f"# good: files go to {', '.join(map(str, settings.nodes))}")
    return 0


def _heal(options: argparse.Namespace) -> int:
    settings = _settings(options)
    from sfss.web.app import create_cluster

    return healing.run(options, settings, lambda: create_cluster(settings))


def _status(options: argparse.Namespace) -> int:
    def show(answer: http.client.HTTPResponse) -> int:
        body = answer.read()
        status = msgspec.json.decode(body, type=_Status)
        print(json.dumps(json.loads(body), indent=2, ensure_ascii=False) if options.json else _table(status))
        return 0

    return _ask(options, "/status?format=full", show)


def _list(options: argparse.Namespace) -> int:
    def show(answer: http.client.HTTPResponse) -> int:
        return listing_cli.run(options, answer)

    return _ask(options, listing_cli.target(options), show, {"Accept": listing_cli.NDJSON})


def _transfer(options: argparse.Namespace) -> int:
    server = _settings(options).server
    return client_commands.run(options, _url(server), _trusting(server))


def _ask(
    options: argparse.Namespace,
    target: str,
    show: Callable[[http.client.HTTPResponse], int],
    headers: dict[str, str] | None = None,
) -> int:
    """Ask the running service, and show what it answers; 1 if that fails."""
    server = _settings(options).server
    url = _url(server) + target
    begun = False
    try:
        request = urllib.request.Request(url, headers=headers or {})  # noqa: S310
        with urllib.request.urlopen(request, timeout=30, context=_trusting(server)) as answer:  # noqa: S310
            begun = True
            return show(answer)
    except urllib.error.HTTPError as error:
        print(f"sfss: {url} answers {error}{_detail(error)}", file=sys.stderr)
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error)).strip()
        what = f"the answer of {url} broke off" if begun else f"no service answers at {url}"
        todo = "its log says why" if begun else "start it, or name it with --host and --port"
        print(f"sfss: {what}: {reason}; {todo}", file=sys.stderr)
    except msgspec.DecodeError:
        print(f"sfss: what answers at {url} is no sfss: name one with --host and --port", file=sys.stderr)
    return 1


def _url(server: config.Server) -> str:
    """Where to reach the service that these settings are of."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if server.tls_certificate else 'http'}://{host}:{server.port}"


class _Status(msgspec.Struct):
    """What is shown of /status?format=full."""

    storages: dict[str, dict[str, str]]
    webserver: dict[str, Any]


def _trusting(server: config.Server) -> ssl.SSLContext | None:
    """Trusts the service's own certificate, by whomever it was signed and for whatever name. Raises ConfigError."""
    if not server.tls_certificate:
        return None
    try:
        context = ssl.create_default_context(cafile=server.tls_certificate)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"server.tls_certificate {server.tls_certificate} can't be used: {error}") from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context


def _detail(error: urllib.error.HTTPError) -> str:
    """What a problem document says, after a colon; nothing if it is none."""
    try:
        return f": {json.loads(error.read())['detail']}"
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return ""


def _table(status: _Status) -> str:
    columns = ("items", "bytes", "gets", "hits", "sets", "uptime", "version")
    keys = ("curr_items", "bytes", "cmd_get", "get_hits", "cmd_set", "uptime", "version")
    rows = [("node", *columns)]
    for node, stats in status.storages.items():
        rows.append((node, *((stats.get(key, "-") for key in keys) if stats else ("away", *["-"] * 6))))
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*lines, *(f"warning: {warning}" for warning in status.webserver.get("warnings", []))])
