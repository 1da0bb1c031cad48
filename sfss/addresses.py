"""Where nodes are: what ``storage.nodes`` writes of one, read.

A node is written ``host:port``, which speaks memcached's text protocol, or as the URL of an engine that keeps files:
``memcached://host:port``, ``redis://host:port/db``, ``rediss://…`` (over TLS), ``postgresql://host:port/database``.
Before either there may stand ``name=``: the name places the node on the ring, the rest says where it is now.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from sfss.memcache import MAX_KEY

MEMCACHED = "memcached"  # the scheme of what has none
PORTS = {MEMCACHED: 11211, "redis": 6379, "rediss": 6379, "postgresql": 5432}  # by scheme, where none is written
ESCAPED = "; in a user or a password, / is written %2F, ? %3F, # %23 and @ %40"
_HOST = r"\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@\s]+"
# No @ behind the host: before it would be a password, cut by a character in it, that would be shown as a path.
_URL = re.compile(rf"([a-z]+)://(?:[^/?#@\s]*@)?({_HOST})(?::\d{{1,5}})?(?:[/?][^\s@]*)?")


class Address(NamedTuple):
    """Where a node answers, and the name by which the ring places it."""

    host: str
    port: int
    name: str
    url: str = ""  # with its password, if there is one; empty where the scheme is memcached's

    @property
    def scheme(self) -> str:
        """What the node speaks: one of ``PORTS``."""
        return self.url.partition(":")[0] or MEMCACHED

    def __str__(self) -> str:
        """For people: without user and password."""
        return _place(self.host, self.port, self.url)

    def __repr__(self) -> str:
        return f"<{self.name}={self.scheme}://{self}>"


def parse_address(text: str) -> Address:
    """One node as settings write it; an IPv6 host stands in brackets. Raises ValueError, without the password.

    A node without a name is called by its host, its port and, if it has one, its database; ``redis://``'s first
    database, 0, is called like none.
    """
    before, is_url, _ = text.partition("://")
    name, equals, _ = before.rpartition("=") if is_url else text.rpartition("=")
    where = text[len(name) + len(equals) :]
    if equals and not re.fullmatch(rf"[!-<>-~]{{1,{MAX_KEY}}}", name):
        raise ValueError(f"'{hidden(text)}': a node's name is made of visible ASCII characters other than '='")
    address = _of_url(where) if is_url else _of_host_and_port(where)
    if address is None:
        raise ValueError(
            f"'{hidden(text)}' is not a node: write \"host:port\", or the URL of one (memcached://host:port,"
            ' redis://host:port/db, rediss://host:port/db, postgresql://host:port/database), or "name=" before either'
            f"{ESCAPED if '@' in where else ''}"
        )
    return address._replace(name=name) if equals else address


def hidden(url: str) -> str:
    """A URL without its password, for people's eyes."""
    url = re.sub(r"([?&](?:ssl_?)?password=)[^&]*", r"\1***", url)
    return re.sub(r"(://[^:@]*):.*@", r"\1:***@", url)


def _of_host_and_port(text: str) -> Address | None:
    match = re.fullmatch(rf"({_HOST}):(\d{{1,5}})", text)
    if not match or not 1 <= int(match[2]) <= 65535:
        return None
    return Address(match[1].strip("[]"), int(match[2]), text)


def _of_url(text: str) -> Address | None:
    match = _URL.fullmatch(text)
    if not match or match[1] not in PORTS:
        return None
    try:
        parts = urlsplit(text)
        port = parts.port or PORTS[match[1]]
    except ValueError:  # of a port that is none, of brackets around what is no address
        return None
    host = match[2].strip("[]")  # as it is written: urlsplit has it in small letters, which would be another name
    if match[1] == MEMCACHED:
        plain = parts.path in ("", "/") and not parts.query and not parts.fragment and parts.username is None
        return Address(host, port, _place(host, port, "")) if plain else None
    return Address(host, port, _place(host, port, text), text)


def _place(host: str, port: int, url: str) -> str:
    database = urlsplit(url).path.rstrip("/")
    if url.startswith("redis") and database == "/0":
        database = ""
    return f"[{host}]:{port}{database}" if ":" in host else f"{host}:{port}{database}"
