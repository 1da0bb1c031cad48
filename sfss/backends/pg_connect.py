"""The border to asyncpg: connections to PostgreSQL by a node's URL, and its errors in our words.

asyncpg takes the URL as libpq does (``sslmode`` and the rest), but for these, which are ours:

``connections=8``   connections that each process keeps to it, for what it reads and writes; one more for lists
``prepared=off``    for pgbouncer in its transaction mode: no transaction relies on what an earlier one has left
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from sfss.addresses import Address, hidden
from sfss.backends.stream import forget_unsent, not_connected
from sfss.errors import ConfigError, NodeBroken, NodeError, NodeRefused, NodeTimeout, OutOfSpace, SfssError, TooLarge

CONNECTIONS, MOST_CONNECTIONS = 8, 64
STATEMENTS = 1024  # kept prepared on each connection: a few for each of its partitions
LARGEST = 512 * 1024 * 1024  # bytes of a record: half of what a field can hold, for it is held several times

Connection = Any  # asyncpg has no types
T = TypeVar("T")

AGAIN = ("40001", "40P01")  # another transaction was in the way: nothing was done, and the same may succeed at once
READ_ONLY = "25006"
_ENDS = ("57P01", "57P02", "57P03", "57P05", "25P03", "08")  # the server hangs up after these


class Place(NamedTuple):
    """What a URL says."""

    url: str  # as asyncpg takes it
    words: str  # for people's eyes
    connections: int
    prepared: bool


def place(address: Address) -> Place:
    """Raises ConfigError, without the password."""
    url = address.url or f"postgresql://{address}"
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    connections, prepared = query.pop("connections", str(CONNECTIONS)), query.pop("prepared", "on")
    if not connections.isdecimal() or not 1 <= int(connections) <= MOST_CONNECTIONS:
        raise ConfigError(f"{hidden(url)}: connections={connections}: 1 to {MOST_CONNECTIONS} are possible")
    if prepared not in ("on", "off"):
        raise ConfigError(f"{hidden(url)}: prepared={prepared}: 'on' or 'off', for pgbouncer's transaction mode")
    plain = urlunsplit(parts._replace(query=urlencode(query)))
    return Place(plain, hidden(plain), int(connections), prepared == "on")


async def connect(to: Place, node: str, *, timeout: float, settings: Mapping[str, str]) -> Connection:
    """A connection on which these settings hold (not where nothing may be prepared). Raises NodeError.

    ``timeout`` is in seconds.
    """
    try:
        return await asyncpg.connect(
            to.url,
            timeout=timeout,
            statement_cache_size=STATEMENTS if to.prepared else 0,
            max_cached_statement_lifetime=0,
            max_cacheable_statement_size=0,
            server_settings={"application_name": "sfss", **(settings if to.prepared else {})},
        )
    except Exception as error:
        why = not_connected(error, timeout)
        if why is None and isinstance(error, ValueError):  # of a URL, or of a certificate that can't be read
            why = f"{to.words} can't be used: {error}"
        elif why is None and is_foreign(error):
            why = _why_not(error, to)
        if why is None:
            raise
        raise NodeError(node, why) from None


def hang_up(connection: Connection) -> None:
    """End it now: what wasn't delivered yet is not to be carried out any more."""
    if connection.is_closed():
        return
    transport = getattr(connection, "_transport", None)
    if transport is not None:
        with contextlib.suppress(ValueError, AttributeError):  # it may be ending by itself
            forget_unsent(transport)
    connection.terminate()


async def within(seconds: float, connection: Connection, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` with this connection returns. If it takes too long, or the caller goes, the connection ends.

    Work is not cancelled: asyncpg would ask the server to leave off, over a new connection, and wait for that one; of a
    server that is frozen, for ever. Raises TimeoutError.
    """
    task = asyncio.create_task(work)
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
    except asyncio.CancelledError:
        hang_up(connection)
        await asyncio.wait([task])
        task.exception()  # it is known, and nobody's
        raise
    if not done:
        hang_up(connection)
        await asyncio.wait([task])
        task.exception()
        raise TimeoutError
    return task.result()


def is_foreign(error: BaseException) -> bool:
    """Whether asyncpg raises it for what a server did, or a network; and not for a statement that we got wrong."""
    kinds = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError)
    return isinstance(error, kinds) and not isinstance(error, ValueError)


def translated(node: str, error: BaseException) -> SfssError:
    """What asyncpg has raised, in our words: NodeBroken if the connection is of no more use."""
    code = getattr(error, "sqlstate", None)
    if isinstance(error, TimeoutError):
        return NodeTimeout(node, "no answer in time; the outcome of a write is unknown")
    if code is None or code.startswith(_ENDS):
        return NodeBroken(node, f"the connection ended ({_line(error)})")
    if code == "53100":
        return OutOfSpace(f"node {node} has no room: {_line(error)}; add space or nodes")
    if code in ("57014", "55P03"):
        return NodeTimeout(node, f"didn't get it done in time ({_line(error)}); nothing was done")
    if code.startswith("54"):
        return TooLarge(f"node {node}: {_line(error)}", limit=LARGEST, setting="the largest value")
    if code in AGAIN:
        return NodeRefused(node, f"other transactions were in the way again and again ({_line(error)})")
    return NodeRefused(node, f"answered: {_line(error)}{_TODO.get(code, '')}")


_TODO = {
    "53200": "; raise max_locks_per_transaction of PostgreSQL: a list takes two for each partition",
    "53300": "; raise max_connections of PostgreSQL, or have fewer: ?connections=4 in the node's URL, or pgbouncer",
    "25006": "; it is a replica, or was made read-only: name the primary",
    "42501": "; who owns the tables can run: sfss post migrate --url ... --grant USER",
    "42P01": "; run: sfss post migrate --url ...",
    "3F000": "; run: sfss post migrate --url ...",
    "3D000": "; make it: createdb",
    "26000": "; behind pgbouncer in its transaction mode say ?prepared=off in the node's URL",
    "42P05": "; behind pgbouncer in its transaction mode say ?prepared=off in the node's URL",
    "08P01": "; behind pgbouncer in its transaction mode say ?prepared=off in the node's URL",
}


def _why_not(error: Exception, to: Place) -> str:
    code = getattr(error, "sqlstate", None) or ""
    if code.startswith("28"):
        return f"refuses the user or the password of {to.words}: {_line(error)}"
    return f"can't be used: {_line(error)}{_TODO.get(code, '')}"


def _line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
