"""A list of files in the order of their paths, from the scans of all nodes: of each the newest version, once.

**Which nodes are asked.** All, for a copy may lie on any of them: with a spare, or where the ring had it before. The
highest version of a key counts; a tombstone is one.

**Which must answer.** An acknowledged write, of a file or of a tombstone, is on ``write_quorum`` nodes at least. So a
list is whole while fewer than that many are not heard: one node of three may be away under 3 copies and 2 and 2, none
under 2 copies and 1 and 1. Where policies differ, the least write quorum of what may be listed counts. A node that has
lost what it had (``wholeness.py``) and one that can't scan are not heard. Where too few are, the list ends in an error
that names the others: it never leaves out what it should have told. A write that was not acknowledged may be told or
not.

**The order** is that of the paths' bytes (``pathorder.py``). Paths that are too long for a key lie under hashes, in no
order. For those all hashed keys are read, and the first ``LONG_AT_ONCE`` of them that are wanted are kept; when those
are told, all are read again for the next. So memory is bounded, and a million long paths make each page read a million.

A file that is there from the first to the last page is told once, whatever is written meanwhile: what has been told is
known by its path alone, and nothing is held between pages.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from sfss import paths, record
from sfss.backends.base import Backend, Heads
from sfss.cluster import pathorder
from sfss.cluster.pathorder import Range
from sfss.cluster.topology import Quorum, Topology
from sfss.cluster.wholeness import missing_marks
from sfss.errors import BadPath, Damaged, NodeAway, NodeError, Unavailable, Unsupported
from sfss.record import Header, Kind

SLICE = 2000  # items of a node that are asked for at once ...
IN_A_BATCH = 3000  # ... but about these of all nodes together: some milliseconds of work, in which others have to wait
FEWEST = 50  # of a node all the same
LONG_AT_ONCE = 10_000  # long paths that are held, with a header each
FIRST_LOOK = 8  # items of a node that are asked for where all but the first may be passed over

T = TypeVar("T")

_HASHED = Range(b"#1\xff", b"#Z\xff")  # the keys of long paths; what else begins with # goes on with a small letter
_FILES = (Kind.FILE, Kind.MANIFEST)


class Found(msgspec.Struct, frozen=True, gc=False):
    """A file; or a folder, whose path ends with the slash, where folders are told in the place of what is in them."""

    path: str
    header: Header | None  # None of a folder


class Listing:
    """The files whose paths begin with ``prefix`` and come behind ``after``, or behind all in it if that is a folder.

    ``folders``: what has a slash behind the prefix is told as one folder, whose files are not read. ``wanted``: how
    many the caller will take, 0 for all; it decides only how much is read at a time.
    """

    def __init__(
        self, topology: Topology, prefix: str = "", after: str = "", *, folders: bool = False, wanted: int = 0
    ) -> None:
        self._prefix = prefix
        self._beginning = paths.unhashed(prefix)
        quorums = topology.quorums(self._beginning)
        self._nodes = _Nodes(topology, quorums)
        self._after = after
        self._folders = folders
        self._folder = after if folders and after.endswith("/") else ""  # the last one that was told
        self._ahead = not wanted and not folders
        nodes = len(topology.nodes)
        self._slice = min(SLICE, max(IN_A_BATCH // nodes, FEWEST))
        if wanted:  # what each of them has of it, and some more, for they never have quite the same
            copies = max(quorum.copies for quorum in quorums)
            self._slice = min(self._slice, (wanted + 1) * copies * 5 // (4 * nodes) + FIRST_LOOK)
        self._long = _LongPaths(self._nodes, prefix, after, self._slice)
        self._ranges: list[Range] = []  # what is still to be read
        if self._folder:
            self._long.pass_over(self._folder)

    async def batches(self) -> AsyncGenerator[Sequence[Found], None]:
        """All of them, in order, in batches. Raises Unavailable, Unsupported, Damaged."""
        await self._nodes.start()
        self._ranges, _ = await asyncio.gather(self._first_ranges(), self._long.look())
        async with contextlib.aclosing(self._in_order()) as batches:
            async for found in batches:
                if told := self._folded(found) if self._folders else found:
                    yield told

    async def _in_order(self) -> AsyncGenerator[list[Found], None]:
        """The same without folders."""
        async with contextlib.aclosing(self._short()) as batches:
            async for found in batches:
                while found:
                    others, known = self._long.take(found[-1].path)
                    end = len(found) if known is None else bisect.bisect_right(found, known, key=_path_of)
                    yield sorted(found[:end] + others, key=_path_of) if others else found[:end]
                    found = found[end:]
                    if known is not None:
                        await self._long.look()
        while not self._long.is_empty:
            others, known = self._long.take(None)
            yield others
            if known is not None:
                await self._long.look()

    async def _short(self) -> AsyncGenerator[list[Found], None]:
        """The same without long paths, whatever is left in the ranges, which may become less meanwhile."""
        merge: _Merge | None = None
        try:
            while self._ranges:
                within = self._ranges.pop(0)
                if merge is None or merge.left != within:
                    if merge is not None:
                        await merge.close()
                    merge = _Merge(self._nodes, within, FIRST_LOOK if self._folders else self._slice, self._ahead)
                found, left = await self._next(merge)
                merge.slice = min(4 * merge.slice, self._slice)
                self._ranges[:0] = left
                yield found
        finally:
            if merge is not None:
                await merge.close()

    async def _first_ranges(self) -> list[Range]:
        if self._after < self._prefix:
            return [pathorder.all_behind(self._beginning)]
        if not self._after.startswith(self._prefix):
            return []
        last = paths.unhashed(self._after)
        doubtful = pathorder.doubtful(self._beginning, last)
        there = await self._nodes.have_any(list(doubtful.values()))
        empty = {position for position, is_there in zip(doubtful, there, strict=True) if not is_there}
        return pathorder.from_path(self._beginning, last, empty, below=not self._folder)

    async def _next(self, merge: _Merge) -> tuple[list[Found], list[Range]]:
        """The next files, in order, and the ranges where those behind them are."""
        within = merge.left
        headers, is_last = await merge.next()
        keys = sorted(headers)
        left = [] if is_last else [merge.left]
        if not keys or not pathorder.needs_sorting(self._beginning, keys):
            return _found(keys, headers), left
        if not is_last:
            left = pathorder.behind(self._beginning, within, keys)
        if left and left != [merge.left]:
            keys = [key for key in keys if not any(later.after < key < later.until for later in left)]
        return sorted(_found(keys, headers), key=_path_of), left

    def _folded(self, found: Iterable[Found]) -> list[Found]:
        """The same with folders in the place of what is in them, which isn't read any more."""
        told: list[Found] = []
        for file in found:
            if self._folder and file.path.startswith(self._folder):
                continue
            end = file.path.find("/", len(self._prefix)) + 1
            if end:
                self._folder = file.path[:end]
                self._ranges = pathorder.without(self._ranges, paths.unhashed(self._folder))
                self._long.pass_over(self._folder)
            told.append(Found(self._folder, None) if end else file)
        return told


def _found(keys: Iterable[bytes], headers: Mapping[bytes, bytes]) -> list[Found]:
    """The files among these records. What isn't a record, other programs', is none."""
    keys = [key for key in keys if headers[key]]
    with contextlib.suppress(UnicodeDecodeError, Damaged):
        told = _quick_paths(keys)
        if told is not None:
            decoded = record.decode_bare_headers([headers[key] for key in keys])
            if {header.path for header in decoded} <= {None}:
                return [Found(path, head) for path, head in zip(told, decoded, strict=True) if head.kind in _FILES]
    return _found_one_by_one(keys, headers)


def _found_one_by_one(keys: Iterable[bytes], headers: Mapping[bytes, bytes]) -> list[Found]:
    """The same where not all is as it mostly is: long paths, keys that no path has, a damaged header."""
    found = []
    for key in keys:
        data = headers[key]
        try:
            header = record.decode_bare_header(data)
            if header.kind in _FILES:
                path = paths.quick_path_of(key) if header.path is None else _long_path(key, header.path)
                if path is not None:
                    found.append(Found(path, header))
        except Damaged as error:
            raise Damaged(f"the list isn't whole without what lies under the key {key!r}: {error}") from None
        except (UnicodeDecodeError, BadPath):  # no path has this key
            continue
    return found


def _quick_paths(keys: Sequence[bytes]) -> list[str] | None:
    """``paths.quick_path_of`` of all at once, in half the time; None where one isn't so quick.

    Raises UnicodeDecodeError.
    """
    text = b"\n".join((b"", *keys)).decode()
    if text.count("\n") != len(keys) or text.count("%") != text.count("%20") + text.count("%25"):
        return None
    told = text.replace("%20", " ").replace("%25", "%").split("\n/")[1:]
    return told if len(told) == len(keys) else None


def _long_path(key: bytes, path: str) -> str | None:
    return path if paths.key_of(path) == key else None


def _newest(one: bytes, other: bytes) -> bytes:
    """Of two headers, the one that counts: the newer one, but none that is damaged."""
    try:
        order = record.decode_header(one)[0].order
    except Damaged:
        return other
    try:
        return other if record.decode_header(other)[0].order > order else one
    except Damaged:
        return one


class _LongPaths:
    """The files whose keys are hashes, in the order of their paths."""

    def __init__(self, nodes: _Nodes, prefix: str, after: str, slice: int) -> None:
        self._nodes = nodes
        self._prefix = prefix
        self._after = after
        self._passed_over = ""
        self._slice = slice
        self._held: list[Found] = []  # in order; the first that are to come
        self._are_all = False

    def pass_over(self, folder: str) -> None:
        """Nothing in it is wanted any more, and nothing before it."""
        self._passed_over = folder
        self._after = max(self._after, folder)

    async def look(self) -> None:
        """Read all, and hold the first ones."""
        held: list[Found] = []
        self._are_all = True
        merge = _Merge(self._nodes, _HASHED, self._slice, ahead=True)
        try:
            is_last = False
            while not is_last:
                headers, is_last = await merge.next()
                held += filter(self._is_wanted, _found(headers, headers))
                if len(held) >= 2 * LONG_AT_ONCE or (is_last and len(held) > LONG_AT_ONCE):
                    held.sort(key=_path_of)
                    del held[LONG_AT_ONCE:]
                    self._are_all = False
        finally:
            await merge.close()
        self._held = sorted(held, key=_path_of)

    def take(self, until: str | None) -> tuple[list[Found], str | None]:
        """Those up to a path, or all; and up to where those are all there are, if one has to look again for others."""
        end = len(self._held) if until is None else bisect.bisect_right(self._held, until, key=_path_of)
        taken = self._held[:end]
        del self._held[:end]
        known = None
        if taken:
            self._after = max(self._after, taken[-1].path)
            known = taken[-1].path if not self._held and not self._are_all else None
        return [file for file in taken if not self._is_passed_over(file)], known

    @property
    def is_empty(self) -> bool:
        return self._are_all and not self._held

    def _is_wanted(self, file: Found) -> bool:
        path = file.path
        return path > self._after and path.startswith(self._prefix) and not self._is_passed_over(file)

    def _is_passed_over(self, file: Found) -> bool:
        return bool(self._passed_over) and file.path.startswith(self._passed_over)


def _path_of(file: Found) -> str:
    return file.path


class _Nodes:
    """The nodes, and which of them are not heard. ``quorums``: of all that may be listed."""

    def __init__(self, topology: Topology, quorums: Collection[Quorum]) -> None:
        self._topology = topology
        self._write_quorum = min(quorum.write for quorum in quorums)
        self._has_copies = any(quorum.copies > 1 for quorum in quorums)
        self._lost: dict[Backend, NodeError | Unsupported] = {}
        self._emptied: Sequence[Backend] = ()  # heard of what they have, and not of what they haven't

    @property
    def heard(self) -> list[Backend]:
        return [node for node in self._topology.nodes.values() if node not in self._lost]

    async def start(self) -> None:
        """Raises Unavailable, Unsupported, if what nodes can tell isn't all."""
        for node in self._topology.nodes.values():
            if node.away is not None or node.capabilities is None:
                self._lost[node] = NodeAway(str(node.address), f"away: {node.away or 'not yet connected to'}")
            elif not node.capabilities.scan:
                kind = node.capabilities.kind
                self._lost[node] = Unsupported(
                    str(node.address),
                    f"it is a {kind} that can't list what it has: docs/operations/engines.rst says which nodes can",
                )
        await self._find_emptied()
        self._check()

    async def _find_emptied(self) -> None:
        joining = self._topology.joining
        while self._has_copies:
            asked = [node for node in self.heard if node not in joining]
            try:
                self._emptied = await missing_marks(asked)
                return
            except NodeError as error:
                self._lost |= {node: error for node in asked if str(node.address) == error.node}

    async def heads(self, node: Backend, after: bytes, count: int, until: bytes) -> Heads | None:
        """Of one of them; None if it can be done without, for it failed. Raises Unavailable if it can't."""
        return await self._of(node, node.heads(after, count, until))

    async def have_any(self, ranges: Sequence[Range]) -> list[bool]:
        """Of each range, whether there is anything in it."""
        answers = await asyncio.gather(*(self._of(node, node.any_in(ranges)) for node in self.heard))
        return [any(of_range) for of_range in zip(*(answer for answer in answers if answer is not None), strict=True)]

    async def _of(self, node: Backend, answer: Awaitable[T]) -> T | None:
        try:
            return await answer
        except NodeError as error:
            self._lost[node] = error
            self._check()
            return None

    def _check(self) -> None:
        topology = self._topology
        there = len(topology.nodes)
        rings = [there - len(others) for others in (topology.joining, topology.leaving) if there > len(others)]
        unheard = {node: f"node {node.address} has lost what it had: run sfss repair" for node in self._emptied}
        unheard |= {node: str(error) for node, error in self._lost.items()}
        if len(unheard) < min(self._write_quorum, *rings):
            return
        for error in self._lost.values():
            if len(unheard) == 1 or isinstance(error, Unsupported):
                raise error
        raise Unavailable(f"a list could leave out what they have: {'; '.join(unheard.values())}")


class _Column:
    """What one node lists of a range."""

    def __init__(self, node: Backend, after: bytes) -> None:
        self.node = node
        self.keys: list[bytes] = []  # that have come and weren't taken ...
        self.headers: list[bytes] = []  # ... and what lies under them
        self.ended = False
        self.after = after  # the last key that has come
        self.coming: asyncio.Task[tuple[Heads, bool] | None] | None = None

    def take(self, end: bytes | None) -> tuple[list[bytes], list[bytes]]:
        """What has come up to a key, or all."""
        cut = len(self.keys) if end is None else bisect.bisect_right(self.keys, end)
        taken = self.keys[:cut], self.headers[:cut]
        self.keys, self.headers = self.keys[cut:], self.headers[cut:]
        return taken


class _Merge:
    """What all nodes list of a range, merged. ``slice`` may be changed; ``ahead``: ask before it is needed."""

    def __init__(self, nodes: _Nodes, within: Range, slice: int, ahead: bool = False) -> None:
        self.slice = slice
        self.left = within
        self._until = within.until
        self._nodes = nodes
        self._ahead = ahead
        self._columns = [_Column(node, within.after[: paths.MAX_KEY]) for node in nodes.heard]

    async def next(self) -> tuple[dict[bytes, bytes], bool]:
        """The headers of the next keys, of each key's newest version; and whether those were all of them."""
        await asyncio.gather(*(self._fill(column) for column in self._columns if not column.keys))
        ends = [column.keys[-1] for column in self._columns if not column.ended]
        end = min(ends) if ends else None
        merged: dict[bytes, bytes] = {}
        for column in self._columns:
            headers = dict(zip(*column.take(end), strict=True))
            for key in merged.keys() & headers.keys():
                if merged[key] != headers[key]:
                    headers[key] = _newest(merged[key], headers[key])
            merged |= headers
        if end is not None:
            self.left = self.left._replace(after=end)
        return merged, end is None

    async def _fill(self, column: _Column) -> None:
        if column.ended:
            return
        came = await (column.coming or self._ask(column))
        column.coming = None
        if came is None:
            self._columns.remove(column)
            return
        (column.keys, column.headers), column.ended = came
        if not column.ended:
            column.after = column.keys[-1]
            if self._ahead:
                column.coming = asyncio.ensure_future(self._ask(column))

    async def _ask(self, column: _Column) -> tuple[Heads, bool] | None:
        """The next slice, and whether it is the last one; None if the node failed and can be done without."""
        slice = self.slice
        heads = await self._nodes.heads(column.node, column.after, slice, self._until)
        return None if heads is None else (heads, len(heads.keys) < slice)

    async def close(self) -> None:
        """Give up what is on its way."""
        coming = [column.coming for column in self._columns if column.coming is not None]
        for task in coming:
            task.cancel()
        await asyncio.gather(*coming, return_exceptions=True)
