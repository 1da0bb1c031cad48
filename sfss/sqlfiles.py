"""Numbered ``.sql`` files in a package: what brings a database up to date, one number after the other. Pure.

A file that was released is never changed; what comes later is the next number.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping


def numbered(package: str) -> Mapping[int, tuple[str, str]]:
    """Name and text of each file ``NNNN-words.sql`` in the package's folder ``sql``, by its number, in their order."""
    found = {}
    for file in importlib.resources.files(package).joinpath("sql").iterdir():
        if match := re.fullmatch(r"(\d{4})-[a-z0-9-]+\.sql", file.name):
            found[int(match[1])] = file.name, file.read_text("utf-8")
    return dict(sorted(found.items()))
