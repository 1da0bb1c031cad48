"""Paths of files in URLs: read from a query, and written into one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, unquote

from aiohttp import web
from yarl import URL

from sfss.config import PAGES
from sfss.errors import BadPath

PLAIN = "[A-Za-z0-9/._~-]"  # what isn't escaped in a query, and stands for nothing but itself
CLEAN_ROUTE = "/{namespace}/{path}"  # what aiohttp calls the one that ``clean_route`` makes
ONE_ROUTE = "/{path}"  # that of files at the URL's root, but for those in folders
_PLAIN_QUERY = re.compile(f"path=({PLAIN}*)")
_VARIABLE = re.compile(r"\\{\w+\\}")  # of an escaped page


def clean_route(pages: Iterable[str]) -> str:
    """The route of files in a folder whose paths are the URL's, but for URLs of ``pages``, as aiohttp calls those.

    A method that a page hasn't is not for a file of that name. Any character may be in a path.
    """
    return f"/{{namespace:{_none_of(pages)}[^/]+}}/{{path:(?s:.+)}}"


def root_route(pages: Iterable[str]) -> str:
    """``ONE_ROUTE``, likewise."""
    return f"/{{path:{_none_of(pages)}(?s:.+)}}"


def _none_of(pages: Iterable[str]) -> str:
    """What begins a pattern that matches none of these pages, from the first slash on."""
    taken = "|".join(_VARIABLE.sub("[^/]+", re.escape(page[1:])) for page in sorted(pages))
    return f"(?!(?:{taken})$)"


def path_of(request: web.Request) -> str:
    """The one that is meant: the URL's own, where a route says so; else the query's, ``path_in``."""
    if "path" in request.match_info:
        return path_of_page(request.rel_url.raw_path)
    return path_in(request.rel_url.raw_query_string)


def path_of_page(page: str) -> str:
    """The path that a URL's own path is: without its first slash, decoded once, likewise."""
    return unquote(page[1:], errors="surrogateescape") if "%" in page else page[1:]


def has_path(query: str) -> bool:
    """Whether a query has a ``path``, or several."""
    return any(name == "path" for name, _ in parse_qsl(query, keep_blank_values=True, errors="surrogateescape"))


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


def is_page(path: str) -> bool:
    """Whether the URL ``/path`` is a page of sfss, or may come to be one, however it is written."""
    return path.partition("/")[0].lower() in PAGES


def location_of_page(path: str) -> str:
    """Where a file is whose path is the URL's."""
    return f"/{quote(path)}"


def location(path: str) -> str:
    """Where a file is, as a URL without a host."""
    if _PLAIN_QUERY.fullmatch(url := f"path={path}") is not None:
        return f"/file?{url}"
    return str(URL.build(path="/file", query={"path": path}))
