"""``sfss namespace``: its options, what is asked of a running service, and what is shown. No connections here."""

from __future__ import annotations

import argparse
import json
from typing import Any
from urllib.parse import quote

import msgspec


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> list[argparse.ArgumentParser]:
    """Add their parsers, which still lack the options for settings, and what is to be run."""
    namespace = commands.add_parser(
        "namespace",
        help="make, change and list namespaces of a running service",
        description="A namespace is the first segment of paths, with rules of its own: how files are laid out, how many"
        " and how large they may be, whether they may be touched at all. Other fronts heed a change within 10 seconds."
        " What the configuration has in [[namespace]] is changed there. Exit status: 0 it was done; 1 it was not.",
    ).add_subparsers(required=True, metavar="COMMAND")
    found = [namespace.add_parser("list", help="show them")]
    found[0].set_defaults(ask="list")
    found[0].add_argument("--json", action="store_true", help="as the service tells them")
    for ask, words in (("create", "make one"), ("set", "change what is given, and leave the rest as it is")):
        parser = namespace.add_parser(ask, help=words)
        parser.set_defaults(ask=ask)
        parser.add_argument("name", metavar="NAME")
        parser.add_argument("--layout", choices=("plain", "raid0", "raid1"),
                            help="raid0: every file in equal pieces, each on another node; raid1: mirrors")  # fmt: skip
        parser.add_argument("--pieces", type=int, metavar="N", help="that every file is cut in")
        parser.add_argument(
            "--copies", type=int, metavar="N", help="of everything; they can be raised, and not lowered"
        )
        parser.add_argument("--quota", metavar="SIZE", help="of all files together, such as 10GiB; none: no quota")
        parser.add_argument("--quota-files", metavar="N", help="how many files there may be; none: any number")
        parser.add_argument("--max-file-size", metavar="SIZE", help="of the largest file; none: as elsewhere")
        parser.add_argument("--write-once", choices=("yes", "no"), help="a file that is there stays as it is")
        parser.add_argument("--anonymous", metavar="RIGHTS",
                            help="what who has no key may do: read, write, read,write or nothing; none: as elsewhere"
                            )  # fmt: skip
        if ask == "create":
            parser.add_argument("--disabled", action="store_true", help="nobody may read or write, until it is enabled")
        found.append(parser)
    for ask, words in (
        ("enable", "let its files be read and written again"),
        ("disable", "keep everybody out: its files are neither read nor written"),
        ("remove", "have it be none any more; it must be empty"),
    ):
        parser = namespace.add_parser(ask, help=words)
        parser.set_defaults(ask=ask)
        parser.add_argument("name", metavar="NAME")
        found.append(parser)
    return found


def request(options: argparse.Namespace) -> tuple[str, str, bytes | None]:
    """Method, target and body of what is to be asked of the service."""
    if options.ask == "list":
        return "GET", "/namespaces", None
    target = f"/namespaces/{quote(options.name, safe='')}"
    if options.ask == "remove":
        return "DELETE", target, None
    if options.ask in ("enable", "disable"):
        return "PATCH", target, json.dumps({"enabled": options.ask == "enable"}).encode()
    method = "PUT" if options.ask == "create" else "PATCH"
    return method, target, json.dumps(_fields(options)).encode()


def run(options: argparse.Namespace, answer: bytes) -> int:
    """Show the answer; returns the exit status. Raises msgspec.DecodeError if it isn't one of sfss."""
    if options.ask == "list":
        every = msgspec.json.decode(answer, type=dict[str, list[dict[str, Any]]])["namespaces"]
        print(json.dumps(every, indent=2, ensure_ascii=False) if options.json else _table(every))
    elif options.ask == "remove":
        print(f"removed: {options.name}")
    else:
        print(_line(msgspec.json.decode(answer, type=dict[str, Any])))
    return 0


def _fields(options: argparse.Namespace) -> dict[str, object]:
    fields: dict[str, object] = {}
    for key in ("layout", "pieces", "copies"):
        if getattr(options, key) is not None:
            fields[key] = getattr(options, key)
    for key in ("quota", "quota_files", "max_file_size", "anonymous"):
        given = getattr(options, key)
        if given is not None:
            fields[key] = None if given == "none" else given
    if isinstance(files := fields.get("quota_files"), str) and files.isascii() and files.isdigit():
        fields["quota_files"] = int(files)  # else the service says what is wrong with it
    if isinstance(fields.get("anonymous"), str):
        fields["anonymous"] = [] if options.anonymous == "nothing" else options.anonymous.split(",")
    if options.write_once is not None:
        fields["write_once"] = options.write_once == "yes"
    if getattr(options, "disabled", False):
        fields["enabled"] = False
    if options.ask == "create":
        return {key: value for key, value in fields.items() if value is not None}
    return fields


def _line(namespace: dict[str, Any]) -> str:
    shown = {key: value for key, value in namespace.items() if key not in ("name", "source", "used", "enabled")}
    state = "enabled" if namespace.get("enabled") else "disabled"
    return f"{namespace.get('name')}: {state}, " + ", ".join(f"{key} {_worded(it)}" for key, it in shown.items())


def _worded(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "+".join(map(str, value)) or "nothing"
    return str(value)


def _table(every: list[dict[str, Any]]) -> str:
    rows: list[tuple[str, ...]] = [
        ("namespace", "state", "layout", "pieces", "copies", "files", "bytes", "quota", "from")
    ]
    for it in every:
        used = it.get("used") or {}
        rows.append(
            (
                str(it.get("name")),
                "enabled" if it.get("enabled") else "disabled",
                str(it.get("layout")),
                *(str(it.get(key, "-")) for key in ("pieces", "copies")),
                *(str(used.get(key, "-")) for key in ("files", "bytes")),
                str(it.get("quota", "-")),
                str(it.get("source")),
            )
        )
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
