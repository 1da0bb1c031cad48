"""Lists under write-behind: what waits, merged into what the nodes (or a catalogue) tell.

What waits is read first, and then what is stored, section by section: a record that is moved between the two looks is
seen twice, never missed. Of the two the newer counts; one that waits to be deleted hides what is stored.

Unless the older one, that was seen to wait, still waits: then what is stored is on its way only (``pending.py``), and
nobody is to see it yet.
"""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sfss.cluster.listing import Found
from sfss.record import Header, Kind

# What waits, by path, and the last path up to which that is all; None: it is all there is.
Page = tuple[Mapping[str, Header], str | None]
Pages = Callable[[str, str, bool], Awaitable[Page]]  # of a prefix, behind a path; and behind all that begin with that
Again = Callable[[str], Awaitable[Header | None]]  # what waits at a path by now
# What is stored: of a prefix, behind a path; folders; how many are wanted. As ``Files.list``.
Stored = Callable[[str, str, bool, int], AsyncGenerator[Sequence[Found], None]]


class Entry(NamedTuple):
    """What is perhaps to be told."""

    found: Found
    is_sure: bool = True  # else a folder, of which it isn't known whether anything is left in it
    is_on_its_way: bool = False  # perhaps: something older waited there


async def merged(
    pages: Pages, again: Again, stored: Stored, prefix: str, after: str, *, folders: bool, wanted: int
) -> AsyncGenerator[Sequence[Found], None]:
    """Both together, in order, in batches."""
    while True:
        is_behind_folder = folders and after.endswith("/") and after.startswith(prefix)
        waiting, end = await pages(prefix, after, is_behind_folder)
        section = _Section(waiting, end, prefix, folders=folders)
        batches = stored(prefix, after, folders, wanted)
        async with contextlib.aclosing(batches):
            async for batch in batches:
                if found := [each async for each in _told(section.up_to(batch), pages, again, stored)]:
                    yield found
                if section.is_over:
                    break
        if found := [each async for each in _told(section.rest(), pages, again, stored)]:
            yield found
        if section.end is None:
            return
        after = section.end


async def _told(entries: Iterator[Entry], pages: Pages, again: Again, stored: Stored) -> AsyncGenerator[Found, None]:
    """Those that are there; a folder in doubt is, if anything is left in it."""
    for found, is_sure, is_on_its_way in entries:
        if is_on_its_way and (waiting := await again(found.path)) is not None:
            if waiting.kind != Kind.TOMBSTONE:
                yield Found(found.path, waiting)
        elif is_sure or await _is_any_in(pages, again, stored, found.path):
            yield found


async def _is_any_in(pages: Pages, again: Again, stored: Stored, folder: str) -> bool:
    async with contextlib.aclosing(merged(pages, again, stored, folder, "", folders=False, wanted=1)) as batches:
        async for _ in batches:
            return True
    return False


class _Section:
    """What waits, up to a path. ``end``: to where the section goes; None: as far as there is anything."""

    def __init__(self, waiting: Mapping[str, Header], end: str | None, prefix: str, *, folders: bool) -> None:
        self._prefix = prefix
        self._folders = folders
        self._waiting: dict[str, Header | None] = {}  # None: a folder
        self._sure: set[str] = set()  # folders in which something waits that is a file
        for path, header in waiting.items():
            name = self._folded(path)
            self._waiting[name] = header if name == path else None
            if name != path and header.kind != Kind.TOMBSTONE:
                self._sure.add(name)
        self.end = None if end is None else self._folded(end)
        if self.end is not None and self.end != end:  # of the folder at the end only a part is known
            self._waiting.setdefault(self.end, None)
        self._left = sorted(self._waiting)
        self.is_over = False

    def up_to(self, batch: Sequence[Found]) -> Iterator[Entry]:
        """The entries up to the last of a batch of what is stored."""
        for found in batch:
            if self.end is not None and found.path > self.end:
                self.is_over = True
                return
            at = bisect.bisect_left(self._left, found.path)
            yield from self._taken(at)
            if not (self._left and self._left[0] == found.path):
                yield Entry(found)
                continue
            header = self._waiting[self._left.pop(0)]
            if header is None or found.header is None:
                yield Entry(found, is_sure=found.path in self._sure)
            elif header.order < found.header.order:  # it has been moved, and overwritten, meanwhile; or will be
                yield Entry(found, is_on_its_way=True)
            elif header.kind != Kind.TOMBSTONE:
                yield Entry(Found(found.path, header))

    def rest(self) -> Iterator[Entry]:
        """The entries behind all that is stored, in this section."""
        return self._taken(len(self._left))

    def _taken(self, count: int) -> Iterator[Entry]:
        """The first of what waits, of which nothing is stored."""
        paths, self._left = self._left[:count], self._left[count:]
        for path in paths:
            header = self._waiting[path]
            if header is None:
                yield Entry(Found(path, None), is_sure=path in self._sure)
            elif header.kind != Kind.TOMBSTONE:
                yield Entry(Found(path, header))

    def _folded(self, path: str) -> str:
        """The folder that is told in its place, or itself."""
        end = path.find("/", len(self._prefix)) + 1 if self._folders else 0
        return path[:end] if end else path
