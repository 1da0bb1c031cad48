"""What the catalogue shows of things that are no files: keys and namespaces, as rows. Pure.

They are documents on the nodes, or stand in the configuration; nothing is decided by these rows.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from sfss import config
from sfss.access.keys import Key
from sfss.config import Namespace

Row = dict[str, Any]


def key_rows(keys: Mapping[str, Key]) -> list[Row]:
    """Of a secret its SHA-256, which opens nothing."""
    return [
        {
            "id": id,
            "name": key.name,
            "hash": key.hash.hex(),
            "created": _moment(key.made),
            "expires": None if key.expires is None else _moment(key.expires),
            "disabled": key.disabled,
            "scopes": [{"prefix": scope.prefix, "may": list(scope.may)} for scope in key.scopes],
        }
        for id, key in sorted(keys.items())
    ]


def namespace_rows(namespaces: Iterable[Namespace]) -> list[Row]:
    """Those of the configuration, and those that were made."""
    return [{"enabled": True, **config.fields_of(namespace)} for namespace in namespaces]


def _moment(seconds: int) -> str:
    """As the catalogue writes times."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
