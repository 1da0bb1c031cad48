"""``sfss config check``: what is wrong with the settings, or what they come to. Nothing secret is shown."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from sfss import config
from sfss.addresses import hidden
from sfss.options import add_settings, add_workers, settings_of

_HIDDEN = object()  # in the place of what isn't to be shown


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser."""
    about_settings = commands.add_parser("config", help="check settings").add_subparsers(required=True, metavar="check")
    check = about_settings.add_parser("check", help="say what is wrong with the settings, or show what they come to")
    add_settings(check)
    add_workers(check)
    check.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    settings = settings_of(options, serves=True)
    from sfss.assembly import check_clients
    from sfss.web.tls import tls_context

    tls_context(settings)
    check_clients(settings)
    for section, keys in config.as_dict(settings).items():
        _show(f"[{section}]", {key: _shown(f"{section}.{key}", value) for key, value in keys.items()})
    for policy in settings.policy:
        _show("[[policy]]", _in_force(policy, settings.by_prefix[policy.prefix]))
    for namespace in settings.namespace:
        _show("[[namespace]]", config.fields_of(namespace))
    print(f"# good: files go to {', '.join(map(str, settings.nodes))}")
    return 0


def _show(head: str, keys: Mapping[str, object]) -> None:
    print(head)
    for key, value in keys.items():
        print(
            f"# {key} is set, and not shown" if value is _HIDDEN else f"{key} = {json.dumps(value, ensure_ascii=False)}"
        )
    print()


def _shown(name: str, value: Any) -> object:
    """A setting's value, but for what is secret in it."""
    if value and name in config.SECRETS:
        return _HIDDEN
    if name in config.NODE_LISTS:
        return tuple(map(hidden, value))
    return hidden(value) if name == "catalogue.url" else value


def _in_force(policy: config.Policy, rules: config.Rules) -> dict[str, object]:
    """What holds under a policy; of what it may leave out only what it says."""
    keys = ("copies", "write_quorum", "read_quorum", "max_file_size")
    return {
        "prefix": policy.prefix,
        **({"pieces": rules.pieces} if policy.pieces is not None else {}),
        **{key: getattr(rules, key) for key in keys},
        **({"write_once": True} if rules.write_once else {}),
        **({"write_behind": hidden(rules.write_behind)} if rules.write_behind else {}),
        **({"anonymous": policy.anonymous} if policy.anonymous is not None else {}),
    }
