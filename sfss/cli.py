"""The command line: wiring only. Parses, builds settings, starts what was asked for, turns errors into exit statuses.

What a command says and takes stands in a module of its own, which is imported only where that command may be meant:
nodes are processes of this program, too, and start the sooner for it.

Exit statuses: 0 it worked; 1 it didn't (a node or a server is away); 2 the command, a setting or a data directory is
wrong; 130 interrupted. ``put``, ``get``, ``rm``, ``stat`` and ``bench`` have more of them: ``client/failures.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import sfss
from sfss import logs
from sfss.config import Log, Settings
from sfss.errors import ConfigError
from sfss.options import add_config, add_service, add_settings, add_workers, settings_of

if TYPE_CHECKING:
    import http.client

    from sfss.catalogue.catalogue import Catalogue

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001

EXAMPLES = """\
examples:
  sfss                                          serve on 127.0.0.1:8255, on three nodes of its own under ./sfss-data
  SFSS_ACCESS_ANONYMOUS=read,write sfss --host 0.0.0.0 --port 80       the same for everybody
  sfss --workers auto                           with a process for each core
  sfss --config conf/sfss.toml                  with settings from a file
  SFSS_STORAGE_NODES=a:11211,b:11211 sfss       on other machines' nodes
  sfss node --port 7900 --data /srv/sfss        one storage node
  sfss node backup --data /srv/sfss /mnt/b1     a copy of what it holds, while it serves
  sfss node import cache:11211                  what a memcached or Beansdb holds, to the node on 127.0.0.1:7900
  sfss status --watch                           how a running service and its nodes are, live
  sfss nodes                                    which they are, and how full
  sfss put cat.jpg photos/                      a file to a running service; with -r, folders
  sfss get photos/cat.jpg .                     and back; also sfss stat, sfss rm
  sfss ls -l photos/                            which files there are; sfss du counts them
  sfss key create --prefix photos/ --may read   a key for who isn't everybody; see docs/access.rst
  sfss sign photos/cat.jpg                      a URL that lets anybody read that file, for an hour
  sfss bench                                    how fast a running service is, from here
  sfss namespace create photos --copies 3       a first segment of paths with rules of its own
  sfss repair                                   bring every copy of every file where it belongs
  sfss reindex                                  make the catalogue anew, where there is one
  sfss post migrate --url postgresql://h/data   the tables of a node that is a PostgreSQL
  sfss post --url postgresql://h/data           each file at a URL of its own, written once; see docs/post.rst
  sfss worker --config FILE                     move what was written behind to the nodes
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    options = _parser(words).parse_args(words)
    logs.configure(Log(format="text"))  # people call commands; what serves is told otherwise
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except ConfigError as error:
        print(f"sfss: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser for these words: with the command that they begin with; where they begin otherwise, with all."""
    parser = argparse.ArgumentParser(
        prog="sfss",
        description="A small-file service: files by path over HTTP, kept on memcached-protocol nodes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sfss {sfss.__version__}")
    add_settings(parser)
    add_workers(parser)
    parser.set_defaults(run=_serve)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", description="without one, sfss serves")
    meant = [add for add, names in _COMMANDS.items() if words and words[0] in names]
    for add in meant or _COMMANDS:
        add(commands)
    return parser


# --- commands: each adds its parser, or those that go together, and says what they run ---


def _add_node(commands: Commands) -> None:
    from sfss.node import command

    command.add_command(commands)


def _add_status(commands: Commands) -> None:
    from sfss import status_cli
    from sfss.asking import ask

    def run(options: argparse.Namespace) -> int:
        def ask_status(show: status_cli.Show, say: Callable[[str], None]) -> int:
            return ask(options, "/status?format=full", show, say=say)

        return status_cli.run(options, ask_status)

    status = commands.add_parser("status", help="show what the nodes of a running service say")
    add_service(status)
    status_cli.add_options(status)
    status.set_defaults(run=run)


def _add_nodes(commands: Commands) -> None:
    from sfss import nodes_cli
    from sfss.asking import ask

    nodes_cli.add_command(commands, add_service, lambda options, show: ask(options, "/nodes", show))


def _add_listing(commands: Commands) -> None:
    from sfss import listing_cli
    from sfss.asking import ask

    def run(options: argparse.Namespace) -> int:
        def show(answer: http.client.HTTPResponse) -> int:
            return listing_cli.run(options, answer)

        return ask(options, listing_cli.target(options), show, {"Accept": listing_cli.NDJSON})

    for command in listing_cli.add_commands(commands):
        add_service(command)
        command.set_defaults(run=run)


def _add_namespace(commands: Commands) -> None:
    from sfss import namespace_cli
    from sfss.asking import ask

    def run(options: argparse.Namespace) -> int:
        def show(answer: http.client.HTTPResponse) -> int:
            return namespace_cli.run(options, answer.read())

        method, target, body = namespace_cli.request(options)
        headers = {"Content-Type": "application/json"} if body else {}
        if method == "PUT":  # one that is there is changed by `set`, which leaves alone what isn't said
            headers["If-None-Match"] = "*"
        return ask(options, target, show, headers, method, body)

    for command in namespace_cli.add_commands(commands):
        add_service(command)
        command.set_defaults(run=run)


def _add_client(commands: Commands) -> None:
    from sfss.asking import trusting, url_of
    from sfss.client import commands as client

    def run(options: argparse.Namespace) -> int:
        server = settings_of(options).server
        return client.run(options, url_of(server), trusting(server))

    for command in client.add_commands(commands):
        add_settings(command)
        command.set_defaults(run=run)


def _add_healing(commands: Commands) -> None:
    from sfss import healing

    def run(options: argparse.Namespace) -> int:
        settings = settings_of(options)
        from sfss.assembly import adopt_namespaces, create_parts

        return healing.run(options, settings, functools.partial(create_parts, settings), adopt_namespaces)

    for command in healing.add_commands(commands):
        add_config(command)
        command.set_defaults(run=run)


def _add_access(commands: Commands) -> None:
    from sfss import access_cli
    from sfss.asking import url_of

    def run(options: argparse.Namespace) -> int:
        settings = settings_of(options)
        from sfss.assembly import adopt_namespaces, create_parts

        logging.getLogger("sfss.backends").setLevel(logging.WARNING)  # that nodes are here goes without saying
        return access_cli.run(options, settings, functools.partial(create_parts, settings), adopt_namespaces)

    def run_sign(options: argparse.Namespace) -> int:
        settings = settings_of(options)
        return access_cli.sign(options, settings, url_of(settings.server))

    for command in access_cli.add_commands(commands):
        add_config(command)
        command.set_defaults(run=run)
    sign = access_cli.add_sign(commands)
    add_settings(sign)
    sign.set_defaults(run=run_sign)


def _add_reindex(commands: Commands) -> None:
    from sfss import reindexing

    def run(options: argparse.Namespace) -> int:
        settings = settings_of(options)
        if not settings.catalogue.url:
            raise ConfigError(
                "catalogue.url: there is no catalogue: set it where the fronts have it, and name that file here"
            )
        return reindexing.run(options, functools.partial(_catalogue, settings))

    reindex = reindexing.add_command(commands)
    add_config(reindex)
    reindex.set_defaults(run=run)


@contextlib.asynccontextmanager
async def _catalogue(settings: Settings) -> AsyncIterator[Catalogue]:
    """The catalogue, with the nodes connected."""
    from sfss.assembly import adopt_namespaces, create_parts
    from sfss.web.app import create_catalogue

    cluster, members, registry = create_parts(settings)
    catalogue = create_catalogue(settings, cluster, registry)
    await members.start()
    try:
        await adopt_namespaces(cluster, members, registry, settings)  # or copies would be looked for elsewhere
        yield catalogue
    finally:
        await catalogue.disconnect()
        await members.close()
        await cluster.close()


def _add_post(commands: Commands) -> None:
    from sfss.post import cli as post_cli

    post = post_cli.add_command(commands)
    add_settings(post, port=8080)
    add_workers(post)
    post.set_defaults(run=_post)


def _add_worker(commands: Commands) -> None:
    from sfss import behind_cli

    def run(options: argparse.Namespace) -> int:
        settings = settings_of(options)
        if options.ask is None:
            logs.configure(settings.log)
        if not settings.short_term:
            raise ConfigError(
                "write_behind: no policy has it, so there is nothing to move: name the fronts' file with --config"
            )
        from sfss import behind_service

        stores = functools.partial(behind_service.stores, settings)
        workers = functools.partial(behind_service.workers, settings, functools.partial(settings_of, options))
        return behind_cli.run(options, stores, workers, patience=settings.server.shutdown_timeout)

    for command in behind_cli.add_command(commands):
        add_config(command)
        command.set_defaults(run=run)


def _add_check(commands: Commands) -> None:
    from sfss import config_cli

    config_cli.add_command(commands)


# By which names they are called; in the order in which they are shown.
_COMMANDS: dict[Callable[[Commands], None], tuple[str, ...]] = {
    _add_node: ("node",),
    _add_status: ("status",),
    _add_nodes: ("nodes",),
    _add_listing: ("ls", "du"),
    _add_namespace: ("namespace",),
    _add_client: ("put", "get", "rm", "stat", "bench"),
    _add_healing: ("repair", "rebalance", "sweep"),
    _add_access: ("key", "sign"),
    _add_reindex: ("reindex",),
    _add_post: ("post",),
    _add_worker: ("worker",),
    _add_check: ("config",),
}


# --- what serves ---


def _serve(options: argparse.Namespace) -> int:
    settings = settings_of(options, serves=True)
    logs.configure(settings.log)
    from sfss import service  # here, for a node needs none of it

    service.run(settings, lambda: settings_of(options, serves=True))
    return 0


def _post(options: argparse.Namespace) -> int:
    from sfss.post import cli as post_cli
    from sfss.post import serving

    if options.run_migrate:
        return post_cli.run_migrate(options)
    serving.enter(options)

    def read() -> Settings:
        return settings_of(options, serves=True, defaults=serving.DEFAULTS, more=serving.overrides(options))

    settings = read()
    logs.configure(settings.log)
    from sfss import service  # as above

    service.run(settings, read)
    return 0
