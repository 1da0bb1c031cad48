"""What the file service needs of others: who keeps records, write-behind, a catalogue. ``files.py`` is over them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, NamedTuple, Protocol

from sfss.cluster.listing import Found
from sfss.manifest import Manifest
from sfss.record import Header, Record
from sfss.told import Tell


class Search(NamedTuple):
    """Which files are wanted; what is None, or empty, is wanted whatever it is."""

    text: str = ""  # somewhere in the path, as it is written
    prefix: str = ""
    type: str | None = None
    min_size: int | None = None  # bytes
    max_size: int | None = None


class Noting(Protocol):
    """A catalogue. It is told what the nodes have kept, and never fails: what it can't write down at once it owes."""

    def note_soon(self, path: str, header: Header, striped: Manifest, done: Callable[[], None]) -> None:
        """A file was stored, or deleted if that is a tombstone's header; ``done``: the answer may leave."""

    async def note(self, path: str, header: Header, striped: Manifest) -> None:
        """The same for coroutines."""

    def doubt(self, path: str) -> None:
        """Whether a write has been kept isn't known."""

    def list(
        self, prefix: str, after: str, *, folders: bool = False, wanted: int = 0
    ) -> AsyncGenerator[Sequence[Found], None]:
        """As ``Files.list``. Raises CatalogueAway where a file might be left out; Unavailable, Damaged."""

    async def search(self, wanted: Search, after: str, limit: int) -> tuple[Sequence[Found], bool]:
        """The first files behind ``after``, and whether none may be left out. Raises CatalogueAway."""

    def status(self) -> dict[str, object]:
        """What is known of it."""


class Records(Protocol):
    """Who keeps the record of a path; the methods are those of ``Cluster``, whose tokens are its own."""

    async def get(self, key: bytes) -> Record | None: ...
    def get_soon(self, key: bytes, tell: Tell[Record | None]) -> None: ...
    async def head(self, key: bytes) -> Header | None: ...
    def head_soon(self, key: bytes, tell: Tell[Header | None]) -> None: ...
    async def put_right(self, key: bytes) -> None: ...
    async def hold(self, key: bytes, there: Header) -> None: ...
    async def get_for_update(self, key: bytes) -> tuple[Header | None, Any]: ...
    async def put(self, key: bytes, data: bytes) -> bool: ...
    def put_soon(self, key: bytes, data: bytes, tell: Tell[bool]) -> None: ...
    async def put_if(self, key: bytes, data: bytes, token: Any) -> bool: ...
    async def delete(self, key: bytes, tombstone: bytes) -> bool: ...
    async def delete_if(self, key: bytes, tombstone: bytes, token: Any) -> bool: ...


Stored = Callable[[str, str, bool, int], AsyncGenerator[Sequence[Found], None]]


class Behind(Protocol):
    """Write-behind: records that wait elsewhere until a worker puts them on the nodes, notes and frees what follows."""

    def at(self, path: str) -> Records | None:
        """Who keeps the record of a path first; None if that is the cluster. Raises Unavailable."""

    def may_be_under(self, prefix: str) -> bool:
        """Whether paths that begin so may wait."""

    async def any_under(self, prefix: str) -> bool:
        """Whether one waits. Raises Unavailable, Damaged."""

    def over(
        self, stored: Stored, prefix: str, after: str, *, folders: bool = False, wanted: int = 0
    ) -> AsyncGenerator[Sequence[Found], None]:
        """A list of what is ``stored``, with what waits in its place. Raises Unavailable, Damaged."""

    async def status(self, *, ask: bool = True) -> dict[str, dict[str, Any]]:
        """What is known of each place where records wait; with ``ask`` what it tells of itself, too."""
