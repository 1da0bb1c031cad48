"""The contract that the client of any kind of node keeps; ``tests/backends/contract.py`` tests every one of them.

A backend stores bytes under a key and knows nothing of files, copies or other nodes. Every call ends within the
backend's deadline, with an answer or with an error of ``sfss.errors`` that names the node. A call may be cancelled at
any point; nobody else's call is the worse for it.

A key has 1 to 250 bytes, and neither whitespace nor control characters; any other raises BadRequest and isn't sent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol

from sfss.addresses import Address
from sfss.told import Tell


class Capabilities(NamedTuple):
    """What a node was seen to be able to do when it was last connected to."""

    kind: str  # "sfss", "memcached", "beansdb", "redis", "valkey", "postgresql", ...: as it tells
    version: str
    durable: bool  # what it acknowledges survives its restart, and its machine's
    evicting: bool  # it may throw away what it acknowledged to make room
    cas: bool  # add and cas, so that a condition on the present value is decided at the node
    ttl: bool  # it takes an expiry
    head: bool  # it can give a record's header without its payload
    scan: bool  # it lists what it holds, in the order of the keys, with each record's header
    largest_value: int  # bytes of a record
    versions: bool = False  # ``set`` refuses a record that is older than the one that lies there
    caveats: tuple[str, ...] = ()  # what it does not promise as it is set up; each goes on behind "node X"


class Versioned(NamedTuple):
    """A value and the token that ``replace`` takes to put another in its place, and no other value's place."""

    data: bytes
    token: int


class Epoch(NamedTuple):
    """What a node's clock showed when ``time.monotonic`` was 0 here, in seconds."""

    seconds: float
    within: float  # at most so far from the truth


class Listed(NamedTuple):
    """What a node's list says of one item."""

    key: bytes  # of a node that others use too, one may have blanks and control characters, which no other call takes
    header: bytes  # the record's prefix and header, unchecked; empty if the item isn't a record
    size: int  # bytes of the item
    token: int  # as of ``gets``


class Heads(NamedTuple):
    """The keys and headers of some items, as of ``Listed``, in two lists: with millions it counts."""

    keys: list[bytes]
    headers: list[bytes]


class Backend(Protocol):
    """One node."""

    address: Address

    @property
    def capabilities(self) -> Capabilities | None:
        """What the node can do; None before it was first connected to."""

    @property
    def identity(self) -> frozenset[str]:
        """What tells the store from all others, however it was reached: two with something in common are the same.

        As of when it was last connected to; it is another one after each start of a server. Empty if it isn't known.
        """

    @property
    def epoch(self) -> Epoch | None:
        """How the node's clock goes, as it was when it was last connected to; None if that isn't known."""

    @property
    def since(self) -> float | None:
        """When the present connection to it was made, by ``time.monotonic``; None while it is away."""

    @property
    def away(self) -> str | None:
        """Why the node can't be used now, in words; None if it can."""

    async def start(self) -> None:
        """Connect, or try to: returns when the first attempt has succeeded or failed; goes on trying by itself."""

    async def close(self) -> None:
        """Disconnect for good. What is in flight fails."""

    async def get(self, key: bytes) -> bytes | None:
        """The value, or None if the node says that there is none."""

    def get_soon(self, key: bytes, tell: Tell[bytes | None]) -> None:
        """Tell what ``get`` would return, or raise. May be told before this returns; can't be taken back."""

    async def gets(self, key: bytes) -> Versioned | None:
        """The value with its token. Only where the node has ``cas``."""

    async def head(self, key: bytes) -> bytes | None:
        """At least the prefix and header of the record, the whole of it from a node that can't do better."""

    def head_soon(self, key: bytes, tell: Tell[bytes | None]) -> None:
        """Tell what ``head`` would return, or raise, likewise."""

    async def set(self, key: bytes, data: bytes, expiry: int = 0) -> bool:
        """Store, whatever was there; for ``expiry`` seconds (only where the node has ``ttl``) or, 0, for good.

        Raises TooLarge or OutOfSpace when the node can't take it.

        False if a newer version of the record lies there, from a node that looks (``versions``): nothing was done.
        """

    def set_soon(self, key: bytes, data: bytes, tell: Tell[bool]) -> None:
        """Tell what ``set`` for good would return, or raise; perhaps before this returns."""

    async def add(self, key: bytes, data: bytes) -> bool:
        """Store if nothing is there; False if something is. Only where the node has ``cas``."""

    async def replace(self, key: bytes, data: bytes, token: int, expiry: int = 0) -> bool:
        """Store if what is there is still what ``token`` came with; ``expiry`` in seconds, 0 for never."""

    async def delete(self, key: bytes) -> bool:
        """Remove; False if nothing was there."""

    async def remove(self, key: bytes, token: int) -> bool:
        """Remove what ``token`` came with; False if that isn't there any more. Only where the node has ``cas``.

        Raises OutOfSpace where even that takes room: on a memcached that is full and doesn't evict.
        """

    async def scan(self, after: bytes, count: int, until: bytes = b"") -> list[Listed]:
        """Up to ``count`` items (at most 10,000), in the order of their keys: behind ``after`` and before ``until``.

        Fewer than ``count``: there are no more. Empty ``after``: from the first on; empty ``until``: to the last.
        ``until`` may be longer than a key. What isn't told isn't read. Only where the node has ``scan``.
        A key that is there all the time of a walk is told once; one that comes, changes or goes meanwhile may be told.
        """

    async def heads(self, after: bytes, count: int, until: bytes = b"") -> Heads:
        """The same in a third of the time, and less of it."""

    async def any_in(self, ranges: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        """Of each range, behind one key and before the other, whether anything is in it. Only where it has ``scan``."""

    def keys(self) -> AsyncGenerator[list[bytes], None]:
        """All keys in no order, up to 1,000 at a time, from a node without ``scan``.

        One that comes or goes meanwhile may be told, and one may be told twice (where a Redis's table shrinks). Goes on
        at the caller's pace, who closes it (``contextlib.aclosing``) if he leaves off before its end.
        """

    async def stats(self) -> dict[str, str]:
        """The node's own figures, over a connection of their own."""
