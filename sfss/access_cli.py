"""``sfss key`` and ``sfss sign``: their options and their words.

Keys lie on the nodes, and the commands work straight on them, by the configuration, as ``sfss repair`` does: whoever
reaches the nodes needs no key to make one. Signing needs no more than the configuration. Exit statuses: 0 done; 1 the
nodes don't answer; 2 an option or a setting is wrong, or there is no such key.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from msgspec.structs import replace

from sfss import paths
from sfss.access import keys, signing, spans
from sfss.access.keys import Key, Keys, Scope
from sfss.config import Settings
from sfss.errors import BadPath, ConfigError, SfssError

if TYPE_CHECKING:  # a node, which has the same command line, needs none of it
    from sfss.cluster.members import Members
    from sfss.cluster.replication import Cluster
    from sfss.registry import Registry

NOTICED = 10  # seconds until every front has read a change
Make = Callable[[], "tuple[Cluster, Members, Registry]"]
# Has the cluster go by the namespaces that were made, which say how many copies keys have, too.
Adopt = Callable[["Cluster", "Members", "Registry", Settings], Awaitable[Settings]]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> list[argparse.ArgumentParser]:
    """Add the parsers of ``sfss key``, which still lack the options for settings, and what is to be run."""
    key = commands.add_parser("key", help="make, list and end keys, which clients show to be let in")
    actions = key.add_subparsers(required=True, metavar="create|list|disable|enable|remove")
    create = actions.add_parser(
        "create",
        help="make one, and print it: it is never shown again",
        description="Makes a key and prints it on standard output, the only time that it is shown. Clients send it as"
        " Authorization: Bearer KEY; sfss's own take it from SFSS_KEY in the environment.",
    )
    create.add_argument("--name", default="", help="whose it is, to tell it from others")
    create.add_argument("--prefix", action="append", metavar="PREFIX",
                        help="what paths begin with that it is for, such as images/; may be given several times"
                        " (default: all paths)")  # fmt: skip
    create.add_argument("--may", type=_option(keys.rights), default=(keys.READ, keys.WRITE), metavar="RIGHTS",
                        help="some of read,write,status,admin; status is to see how all is (/status, /metrics), for a"
                        " Prometheus, say; admin is that, and to change what isn't a file"
                        " (default: read,write)")  # fmt: skip
    create.add_argument("--expires", type=_option(spans.seconds), metavar="TIME",
                        help="how long it is good: 90s, 15m, 12h, 30d (default: until it is disabled or removed)"
                        )  # fmt: skip
    create.set_defaults(act=_create)
    list_ = actions.add_parser("list", help="show all, without what proves them")
    list_.set_defaults(act=_list)
    others = []
    for name, act, help in (
        ("disable", _disable, "let nobody in with it, until it is enabled again"),
        ("enable", _enable, "let it be good again"),
        ("remove", _remove, "forget it"),
    ):
        parser = actions.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
        parser.add_argument("which", metavar="KEY", help="its id, or its name if no other one has it")
        parser.set_defaults(act=act)
        others.append(parser)
    return [create, list_, *others]


def add_sign(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """The same of ``sfss sign``."""
    sign = commands.add_parser(
        "sign",
        help="print a URL that lets anybody do one thing with one file, for a while",
        description="Prints a signed URL: whoever has it may send that one request until it expires, without a key. It"
        " is signed with the first of access.signing_secrets, which all fronts must have.",
    )
    sign.add_argument("path", metavar="PATH", help="the file; it need not be there")
    sign.add_argument("--method", choices=signing.METHODS, default="GET",
                      help="what may be done (default: %(default)s, which is for HEAD, too)")  # fmt: skip
    sign.add_argument("--expires", type=_option(spans.seconds), default=3600, metavar="TIME",
                      help="how long it is good: 90s, 15m, 12h, 30d (default: 1h)")  # fmt: skip
    sign.add_argument("--url", default="", metavar="URL",
                      help="where clients reach the service, such as https://files.example.org (default: by [server])"
                      )  # fmt: skip
    return sign


def run(options: argparse.Namespace, settings: Settings, make: Make, adopt: Adopt) -> int:
    """Run one of ``sfss key``; returns the exit status. ``make`` is called in an event loop. Raises ConfigError."""
    try:
        return asyncio.run(_run(options, settings, make, adopt))
    except ConfigError:
        raise
    except SfssError as error:
        print(f"sfss: {error}", file=sys.stderr)
        return 1


def sign(options: argparse.Namespace, settings: Settings, service: str) -> int:
    """Run ``sfss sign``; ``service``: its URL by the settings. Raises ConfigError."""
    secrets = settings.access.signing_secrets
    if not secrets:
        raise ConfigError(
            "access.signing_secrets: none is set: write a secret there, for all fronts; openssl rand -hex 32 makes one"
        )
    try:
        paths.check(options.path)
        signing.check_life(options.expires)
    except (BadPath, ValueError) as error:
        raise ConfigError(str(error)) from None
    signed = signing.sign(secrets[0], options.method, options.path, int(time.time()) + options.expires)
    query = urlencode({"path": options.path, signing.EXPIRES: signed.expires, signing.SIGNATURE: signed.signature})
    print(f"{(options.url or service).rstrip('/')}/file?{query}")
    return 0


async def _run(options: argparse.Namespace, settings: Settings, make: Make, adopt: Adopt) -> int:
    cluster, members, registry = make()
    document = registry.document(keys.NAME, Keys, {})
    await members.start()
    try:
        await adopt(cluster, members, registry, settings)
        act: Callable[[argparse.Namespace, Keys], tuple[Keys, Callable[[], None]]] = options.act
        say: Callable[[], None] = _nothing

        def edit(before: Keys) -> Keys:
            nonlocal say
            try:
                after, say = act(options, before)
            except ValueError as error:
                raise ConfigError(str(error)) from None
            return after

        if act is _list:
            edit(await registry.refresh(document))
        else:
            await registry.change(document, edit)
    finally:
        await members.close()
        await cluster.close()
    say()  # not before it is so
    return 0


# --- what can be done: each gives the keys after it, and the words about that ---


def _create(options: argparse.Namespace, before: Keys) -> tuple[Keys, Callable[[], None]]:
    if options.name and any(key.name == options.name for key in before.values()):
        raise ValueError(f"there is a key of the name '{options.name}' already: take another name, or remove that one")
    scopes = [Scope(prefix, options.may) for prefix in options.prefix or [""]]
    made = keys.make(options.name, scopes, now=time.time(), lifetime=options.expires)

    def say() -> None:
        _tell(
            f"the key {made.id} is made. Keep what comes now, it is never shown again. Fronts that run let it in within"
            f" {NOTICED} s:"
        )
        print(made.text)

    return {**before, made.id: made.key}, say


def _list(_options: argparse.Namespace, before: Keys) -> tuple[Keys, Callable[[], None]]:
    def say() -> None:
        now = time.time()
        rows: list[tuple[str, ...]] = [("id", "may", "made", "expires", "state", "name")]
        rows += [_row(id, key, now) for id, key in sorted(before.items(), key=lambda item: item[1].made)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    return before, say


def _disable(options: argparse.Namespace, before: Keys) -> tuple[Keys, Callable[[], None]]:
    return _with(options, before, disabled=True)


def _enable(options: argparse.Namespace, before: Keys) -> tuple[Keys, Callable[[], None]]:
    return _with(options, before, disabled=False)


def _with(options: argparse.Namespace, before: Keys, *, disabled: bool) -> tuple[Keys, Callable[[], None]]:
    id = keys.named(before, options.which)
    state = "disabled" if disabled else "enabled"
    return {**before, id: replace(before[id], disabled=disabled)}, lambda: _tell(_done(id, state))


def _remove(options: argparse.Namespace, before: Keys) -> tuple[Keys, Callable[[], None]]:
    id = keys.named(before, options.which)
    return {other: key for other, key in before.items() if other != id}, lambda: _tell(_done(id, "removed"))


# --- words ---


def _done(id: str, state: str) -> str:
    return f"the key {id} is {state}; fronts that run heed it within {NOTICED} s"


def _row(id: str, key: Key, now: float) -> tuple[str, ...]:
    may = "; ".join(f"{','.join(scope.may)} {scope.prefix or 'everything'}" for scope in key.scopes)
    expires = _day(key.expires) if key.expires is not None else "never"
    return id, may, _day(key.made), expires, key.lacks(now) or "good", key.name


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _nothing() -> None:
    """Nothing is to be said."""


def _option(read: Callable[[str], object]) -> Callable[[str], object]:
    """A reader for argparse, which says what the ValueError says."""

    def read_option(text: str) -> object:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read_option
