"""Paths of files in URLs: read from a query, and written into one. Pure."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from aiohttp import web
from yarl import URL

from sfss.errors import BadPath

PLAIN = "[A-Za-z0-9/._~-]"  # what isn't escaped in a query, and stands for nothing but itself
_PLAIN_QUERY = re.compile(f"path=({PLAIN}*)")


def path_of(request: web.Request) -> str:
    """The query's ``path``: ``path_in``."""
    return path_in(request.rel_url.raw_query_string)


def path_in(query: str) -> str:
    """A query's ``path``, decoded once. What isn't UTF-8 in it is kept as surrogates, which no path may hold.

    Raises BadPath if there is none, or there are several.
    """
    if (plain := _PLAIN_QUERY.fullmatch(query)) is not None:
        return plain[1]
    parts = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    found = [value for name, value in parts if name == "path"]
    if not found:
        raise BadPath("the query has no path: add ?path=FOLDER/NAME")
    if len(found) > 1:
        raise BadPath("the query has more than one path")
    return found[0]


def location(path: str) -> str:
    """Where a file is, as a URL without a host."""
    if _PLAIN_QUERY.fullmatch(url := f"path={path}") is not None:
        return f"/file?{url}"
    return str(URL.build(path="/file", query={"path": path}))
