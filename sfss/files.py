"""The file service: put, open, read, stat, delete and list files by path. Knows paths and records; no HTTP, no nodes.

A file becomes visible at once and whole, when its record is kept; until then, and if anything goes wrong before, what
was there stays as it was. What is too large for one record lies in blocks (``stripes.py``), and the record names them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import secrets
from collections import OrderedDict, deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    MutableMapping,
    Sequence,
)
from typing import Any

import msgspec

from sfss import manifest, paths, record, replaced
from sfss.bounds import Bound
from sfss.cluster.background import Background
from sfss.cluster.listing import Found as Found
from sfss.cluster.listing import Listing
from sfss.cluster.replication import Cluster
from sfss.config import Limits, Settings
from sfss.errors import (
    BadRequest,
    Damaged,
    Gone,
    NoCatalogue,
    NodeAway,
    NotFound,
    PreconditionFailed,
    SfssError,
    TooLarge,
    Unavailable,
)
from sfss.file_needs import Behind, Noting, Records, Search
from sfss.manifest import NOTHING, Manifest
from sfss.namespaces import Namespaces
from sfss.policies import Policies, Rules
from sfss.quotas import Quotas
from sfss.record import MAX_OVERHEAD, Header, Kind, Record
from sfss.stripes import ALWAYS_FITS, Stripes
from sfss.told import Tasks, Tell
from sfss.traffic import Taken

SMALL = ALWAYS_FITS  # bytes of a file that one record has room for, whatever is set
# How often a conditional write begins again because another one came in between.
_RACES = 16
# Seconds, well below the margin that the sweep leaves: behind it the blocks might be taken for nobody's.
_NAMED_WITHIN = 30.0
# How many large files are remembered, so that their blocks needn't wait for the sweep, and with how many extents.
_REMEMBERED, _SMALL_MANIFEST = 10_000, 16


class Info(msgspec.Struct, frozen=True, gc=False):
    """What is known of a file."""

    path: str
    size: int  # bytes
    sha256: bytes
    modified: int  # microseconds since the epoch
    type: str | None  # as it was given; None: guess
    meta: dict[str, str]


class File(msgspec.Struct, frozen=True, gc=False):
    """A file: one record, whole, or striped over blocks."""

    info: Info
    content: memoryview | None  # None: it is striped
    striped: Manifest = NOTHING


class _Draft:
    """A record that is to be kept. Its payload is held once, in the record."""

    def __init__(self, header: Header, payload: bytes) -> None:
        self.header = header
        self.record = record.encode(header, payload)

    def restamp(self, version: int) -> None:
        """Make it one of another version."""
        payload = memoryview(self.record)[record.header_end(self.record) :]
        self.header = msgspec.structs.replace(self.header, version=version)
        self.record = record.encode(self.header, payload)


# Is called with what is there now, None for no file; raises PreconditionFailed to stop the write.
Condition = Callable[[Info | None], None]


class Files:
    """Files by path on a cluster."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        policies: Policies,
        limits: Limits,
        background: Background | None = None,
        catalogue: Noting | None = None,
        namespaces: Namespaces | None = None,
        quotas: Quotas | None = None,
        behind: Behind | None = None,
        stripes: Stripes | None = None,
    ) -> None:
        self._cluster = cluster
        self._behind = behind
        self._record_size = limits.record_size
        self._policies = policies
        self.stripes = stripes or Stripes(cluster, limits)
        self._background = background
        self._catalogue = catalogue
        self._namespaces = namespaces or Namespaces(Settings())
        self._quotas = quotas
        self._front = secrets.randbits(32)
        self._last_version = 0
        self._writing = Tasks()
        self._large: OrderedDict[str, Manifest] = OrderedDict()  # the files that were striped when last seen here

    async def close(self) -> None:
        """Stop what goes on, behind answers too."""
        await self._writing.close()
        await self.stripes.close()

    async def open(self, path: str) -> File:
        """The file at a path, every byte checked that is in memory.

        Raises BadPath, UnknownNamespace, NamespaceDisabled, NotFound, Damaged, NodeError.
        """
        self._check(path)
        return self._opened(path, await self._at(path).get(paths.key_of(path)))

    def open_soon(self, path: str, tell: Tell[File]) -> None:
        """Tell what ``open`` would return, or raise; perhaps before this returns. Raises what is known at once."""
        key = paths.checked_key(path)
        if self._namespaces.gate is not None:
            self._namespaces.gate(path)
        self._at(path).get_soon(key, functools.partial(self._tell_opened, path, tell))

    async def read(self, file: File, start: int, stop: int) -> AsyncGenerator[memoryview, None]:
        """The bytes of a striped file from ``start`` up to, but without, ``stop``; each is checked before it is given.

        It goes on at the caller's pace, who closes it (``contextlib.aclosing``). Raises Unavailable, Damaged on its
        way; Gone if the file has been replaced or deleted meanwhile: open it again.
        """
        try:
            async with contextlib.aclosing(self.stripes.read(file.striped, start, stop)) as content:
                async for block in content:
                    yield block
        except Gone:  # perhaps this manifest was old, of a node that was away: the next who opens it is to see the new
            await self._at(file.info.path).put_right(paths.key_of(file.info.path))
            raise

    def stat_soon(self, path: str, tell: Tell[Info]) -> None:
        """Tell what ``stat`` would return, or raise; perhaps before this returns. Raises what is known at once."""
        key = paths.checked_key(path)
        if self._namespaces.gate is not None:
            self._namespaces.gate(path)
        self._at(path).head_soon(key, functools.partial(self._tell_known, path, tell))

    async def stat(self, path: str) -> Info:
        """What is known of the file at a path, without reading it where that can be. Raises as ``open`` does."""
        self._check(path)
        return _known(path, await self._at(path).head(paths.key_of(path)))

    async def put(
        self,
        path: str,
        content: AsyncIterable[bytes],
        *,
        size: int | None = None,
        about: Callable[[], int | None] = lambda: None,
        type: Callable[[], str | None] = lambda: None,
        meta: dict[str, str] | None = None,
        condition: Condition | None = None,
    ) -> Info:
        """Store a file, in place of what is there; returns when it is kept.

        ``size`` in bytes, if it is known; else ``about`` tells, once some has come, what it will probably be: equal
        pieces are cut by that, and nothing else goes by it. ``type`` is asked for when the content has ended, for a
        form may name it only then; likewise ``meta`` may get more until then. If ``content`` raises, or this is
        cancelled before the record has left, nothing has changed.
        Raises BadPath, UnknownNamespace, NamespaceDisabled, WriteOnce, QuotaExceeded, TooLarge, OutOfSpace,
        BodyTimeout, NodeError, and what ``condition`` and ``content`` raise.
        """
        self._check(path)
        rules = self._policies.of(path)
        if not (rules.write_once or rules.counted):
            return await self._store(path, content, rules, size, about, type, meta, condition)
        with self._bound(path, rules, condition) as bound:
            checked = bound.checking(aiter(content), size)
            info = await self._store(path, checked, rules, size, about, type, meta, bound.condition)
            bound.kept(info.size)
            return info

    async def _store(
        self,
        path: str,
        content: AsyncIterable[bytes],
        rules: Rules,
        size: int | None,
        about: Callable[[], int | None],
        type: Callable[[], str | None],
        meta: dict[str, str] | None,
        condition: Condition | None,
    ) -> Info:
        """``put`` by these rules, when all else is settled."""
        key = paths.key_of(path)
        if condition is not None:  # fail before the content is taken, if it can be known
            condition(await self.present(path))
        rest = aiter(content)
        begun, is_whole = await self._begin(rest, rules)
        if is_whole and (rules.pieces == 1 or rules.write_behind or not begun):
            body = b"".join(begun) if len(begun) != 1 else begun[0]
            del begun
            draft = self._draft(path, key, body, type(), meta)
            del body  # as large as the record, and many writes may wait for their nodes here
            return await self._keep(path, key, draft, condition)
        digest = hashlib.sha256()
        if is_whole:
            size = sum(map(len, begun))
        striped = await self.stripes.write(
            self._whole(begun, rest, rules), rules,
            path=path, front=self._front, size=about() if size is None else size, digest=digest,
        )  # fmt: skip
        try:
            given = type()
        except BadRequest:
            self.stripes.free(striped, linger=0.0)
            raise
        return await self.put_manifest(path, striped, digest.digest(), type=given, meta=meta, condition=condition)

    def put_soon(
        self,
        path: str,
        content: bytes,
        tell: Tell[Info],
        *,
        type: str | None,
        meta: dict[str, str],
        condition: Condition | None = None,
    ) -> None:
        """Tell what ``put`` would return, or raise, of content that is here, of at most SMALL bytes.

        Perhaps before this returns. Raises what is known at once.
        """
        key = paths.checked_key(path)
        if self._namespaces.gate is not None:
            self._namespaces.gate(path)
        rules = self._policies.of(path)
        _check_size(len(content), rules)
        is_to_be_cut = rules.pieces > 1 and content and not rules.write_behind
        if condition is not None or is_to_be_cut or rules.write_once or rules.counted:
            put = self.put(path, _once(content), size=len(content), type=lambda: type, meta=meta, condition=condition)
            self._writing.run(put, tell)
            return
        draft = self._draft(path, key, content, type, meta)
        self._at(path).put_soon(key, draft.record, functools.partial(self._tell_put, path, key, draft, tell))

    async def put_manifest(
        self,
        path: str,
        striped: Manifest,
        sha256: bytes,
        *,
        type: str | None = None,
        meta: dict[str, str] | None = None,
        condition: Condition | None = None,
    ) -> Info:
        """Make a file of blocks that are kept already, of content with that ``sha256``. Raises as ``put``.

        What the path's policy asks for besides ``condition`` is the caller's to see to. If the condition doesn't hold
        the blocks are freed; if it isn't known whether the file is kept they stay.
        """
        paths.check(path)
        key = paths.key_of(path)
        payload = manifest.encode(striped)
        header = self._header(Kind.MANIFEST, path, key, payload, size=striped.size, sha256=sha256, type=type, meta=meta)
        try:
            async with asyncio.timeout(_NAMED_WITHIN):
                info = await self._keep(path, key, _Draft(header, payload), condition, striped)
        except PreconditionFailed:
            self.stripes.free(striped, linger=0.0)
            raise
        except TimeoutError:
            raise Unavailable(f"'{path}': whether the file is kept was not known after {_NAMED_WITHIN:g} s") from None
        self._remember(path, striped)
        return info

    async def next_order(self, path: str) -> tuple[int, int]:
        """A version, above that of what is at the path now, and this front's number: for ``put_claimed``."""
        there = await self._at(path).head(paths.key_of(path))
        self._last_version = max(self._last_version, there.version if there is not None else 0)
        return self._next_version(), self._front

    async def put_claimed(
        self,
        path: str,
        content: bytes | Manifest,
        sha256: bytes,
        order: tuple[int, int],
        *,
        type: str | None = None,
        meta: dict[str, str] | None = None,
        condition: Condition | None = None,
    ) -> bool:
        """Make a file of content that fits a record, or of blocks that are kept, in just the version of that ``order``.

        So whoever doesn't know whether it has been done may do it again. False if what is there is newer: this one came
        before, or too late, but not by this call; the condition isn't asked of that. Raises as ``put``; the blocks
        stay, whatever comes of it, but for those of the file in whose place it is put.
        """
        self._check(path)
        rules = self._policies.of(path)
        if not (rules.write_once or rules.counted):
            return await self._put_claimed(path, content, sha256, order, type, meta, condition, lambda size: None)
        with self._bound(path, rules, condition) as bound:
            bound.is_to_take(content.size if isinstance(content, Manifest) else len(content))
            return await self._put_claimed(path, content, sha256, order, type, meta, bound.condition, bound.kept)

    async def _put_claimed(
        self,
        path: str,
        content: bytes | Manifest,
        sha256: bytes,
        order: tuple[int, int],
        type: str | None,
        meta: dict[str, str] | None,
        condition: Condition | None,
        kept: Callable[[int], None],
    ) -> bool:
        """``put_claimed`` when all else is settled; ``kept`` is told the file's size if this has put it there."""
        key, records = paths.key_of(path), self._at(path)
        draft = _Draft(*self._claimed(path, key, content, sha256, order, type, meta))
        for _ in range(_RACES):
            if condition is None:
                there, token = await records.head(key), None
            else:
                there, token = await records.get_for_update(key)
            if there is not None and there.order == order:
                await records.hold(key, there)  # whoever has put it may have come no further than the first node
                await self._note(path, draft, content)  # nor to that
                return True
            before = await self._striped_there(path, key, there)
            is_moved = isinstance(content, Manifest) and not content.stripes.isdisjoint(before.stripes)
            if there is not None and is_moved:
                await records.hold(key, there)
                return True  # a repair has written it anew, for other nodes
            if there is not None and there.order > order:
                return False
            if condition is not None:
                condition(_info_there(path, there))
            put = records.put_if(key, draft.record, token) if token else records.put(key, draft.record)
            with self._doubting(path):
                done = await put
            if done:
                self._free(path, key, before)
                if isinstance(content, Manifest):
                    self._remember(path, content)
                kept(draft.header.size)
                await self._note(path, draft, content)
                return True
        raise Unavailable(f"'{path}' changed {_RACES} times while it was stored: try again")

    async def present(self, path: str) -> Info | None:
        """What is known of the file at a path, None if there is none: what conditions are asked. Raises as ``stat``."""
        return _info_there(path, await self._at(path).head(paths.key_of(path)))

    async def delete(self, path: str, condition: Condition | None = None) -> None:
        """Remove the file at a path.

        Raises BadPath, UnknownNamespace, NamespaceDisabled, NotFound, WriteOnce, NodeError, and what ``condition``
        raises.
        """
        self._check(path)
        rules = self._policies.of(path)
        if not (rules.write_once or rules.counted):
            await self._delete(path, condition)
            return
        with self._bound(path, rules, condition, deleting=True) as bound:
            await self._delete(path, bound.condition)
            bound.removed()

    async def _delete(self, path: str, condition: Condition | None) -> None:
        """``delete`` when all else is settled."""
        key, records = paths.key_of(path), self._at(path)
        tombstone = _Draft(self._header(Kind.TOMBSTONE, path, key, b""), b"")

        def there_and_right(info: Info | None) -> None:
            if info is None:
                raise NotFound(path)
            if condition is not None:
                condition(info)

        if condition is None:
            there = await records.head(key)
            there_and_right(_info_there(path, there))
            self._make_newer(tombstone, there)
            before = await self._striped_there(path, key, there)
            with self._doubting(path):
                await self._put(path, key, tombstone, records.delete)
            self._free(path, key, before)
        else:
            with self._doubting(path):
                await self._change(
                    path, key, there_and_right, tombstone,
                    lambda token: records.delete_if(key, tombstone.record, token),
                )  # fmt: skip
        await self._note(path, tombstone)

    def list(
        self, prefix: str = "", after: str = "", *, folders: bool = False, wanted: int = 0
    ) -> AsyncGenerator[Sequence[Found], None]:
        """The files whose paths begin with ``prefix`` and come behind ``after``, in order; in batches.

        With ``folders`` what has a slash behind the prefix is one folder; and behind a folder, ``after``, is what isn't
        in it. ``wanted``: how many will be taken, 0 for all. It goes on at the caller's pace, who closes it
        (``contextlib.aclosing``). What is in namespaces that are disabled isn't told.
        Raises BadRequest, UnknownNamespace, NamespaceDisabled at once; Unavailable, Unsupported, Damaged on its way.
        """
        paths.check_part("prefix", prefix)
        paths.check_part("after", after)
        self._namespaces.check_prefix(prefix)
        if self._behind is not None and self._behind.may_be_under(prefix):
            found = self._behind.over(self._stored, prefix, after, folders=folders, wanted=wanted)
        else:
            found = self._stored(prefix, after, folders, wanted)
        return found if self._namespaces.gate is None else self._open_ones(found)

    async def _open_ones(self, batches: AsyncGenerator[Sequence[Found], None]) -> AsyncGenerator[Sequence[Found], None]:
        async with contextlib.aclosing(batches):
            async for batch in batches:
                if told := [found for found in batch if self._namespaces.is_open(found.path)]:
                    yield told

    async def search(self, wanted: Search, after: str = "", limit: int = 1000) -> tuple[Sequence[Found], bool]:
        """The first files behind ``after`` that are as they are wanted, in order; and whether none may be left out.

        Raises BadRequest, NoCatalogue, CatalogueAway.
        """
        for name, text in (("prefix", wanted.prefix), ("after", after), ("search", wanted.text)):
            paths.check_part(name, text)
        self._namespaces.check_prefix(wanted.prefix)
        if self._catalogue is None:
            raise NoCatalogue("only a catalogue can search, and this service has none: set catalogue.url")
        told: list[Found] = []
        while True:
            found, is_whole = await self._catalogue.search(wanted, after, limit)
            told += [each for each in found if self._namespaces.gate is None or self._namespaces.is_open(each.path)]
            if len(told) >= limit or len(found) < limit:
                # What waits to be moved has no row yet.
                return told[:limit], is_whole and not await self._is_any_behind(wanted.prefix)
            after = found[-1].path

    def catalogue(self) -> dict[str, object]:
        """What is known of the catalogue; empty where there is none."""
        return self._catalogue.status() if self._catalogue is not None else {}

    def check_size(self, path: str, size: int) -> None:
        """Raises TooLarge if a file of ``size`` bytes, or the beginning of one, can't be taken for this path.

        And BadPath, UnknownNamespace, NamespaceDisabled, if none can.
        """
        self._check(path)
        _check_size(size, self._policies.of(path))

    def rules(self, path: str) -> Rules:
        """What holds for a path. Raises BadPath, UnknownNamespace, NamespaceDisabled, if none can be there."""
        self._check(path)
        return self._policies.of(path)

    def check_room(self, path: str, size: int) -> None:
        """The same; and QuotaExceeded if so much more than there is now is too much."""
        self.check_size(path, size)
        rules = self._policies.of(path)
        if rules.counted and self._quotas is not None and (tank := self._quotas.tank(rules.counted)) is not None:
            tank.check(size, 0)

    async def stats(self, took: MutableMapping[str, float] | None = None) -> dict[str, dict[str, str]]:
        """Every node's own figures; ``took`` is told how many seconds each took. Raises Unavailable if none answers."""
        return await self._cluster.stats(took)

    def nodes(self) -> dict[str, dict[str, object]]:
        """Every node's state as this front sees it: ``away``, None or why, and what it can do."""
        capabilities = self._cluster.capabilities()
        return {node: {"away": away, **capabilities[node]} for node, away in self._cluster.ready().items()}

    def warnings(self) -> Sequence[str]:
        """What is wrong with the nodes together, in words."""
        return self._cluster.warnings()

    async def behind(self, *, ask: bool = True) -> dict[str, dict[str, Any]]:
        """What is known of each place where records wait to be put on the nodes; empty where there is none.

        With ``ask`` what it tells of itself, too.
        """
        return await self._behind.status(ask=ask) if self._behind is not None else {}

    def traffic(self) -> dict[str, Taken]:
        """What came of requests to each node since this was asked last."""
        return self._cluster.traffic()

    def states(self) -> dict[str, int]:
        """How many nodes are members, joining and leaving."""
        return self._cluster.states()

    def repair(self) -> dict[str, object]:
        """How many files lack a copy, and what repair in the background is at; empty where there is none."""
        return self._background.status() if self._background is not None else {}

    # --- within ---

    def _at(self, path: str) -> Records:
        """Who keeps the record of a path. Raises Unavailable."""
        return self._cluster if self._behind is None else self._behind.at(path) or self._cluster

    def _waits(self, path: str) -> bool:
        """Whether what is written there waits, so that what follows from it is seen to later."""
        return self._behind is not None and bool(self._policies.of(path).write_behind)

    async def _is_any_behind(self, prefix: str) -> bool:
        try:
            return self._behind is not None and await self._behind.any_under(prefix)
        except (Unavailable, Damaged):
            return True

    def _stored(self, prefix: str, after: str, folders: bool, wanted: int) -> AsyncGenerator[Sequence[Found], None]:
        """A list of what the nodes have."""
        if self._catalogue is None:
            return Listing(self._cluster.topology, prefix, after, folders=folders, wanted=wanted).batches()
        # What isn't told is taken away behind it, so that it can't know how many will be taken.
        is_all_told = self._namespaces.gate is None and not (self._behind and self._behind.may_be_under(prefix))
        return self._list_by(self._catalogue, prefix, after, folders, wanted if is_all_told else 0)

    async def _list_by(
        self, catalogue: Noting, prefix: str, after: str, folders: bool, wanted: int
    ) -> AsyncGenerator[Sequence[Found], None]:
        """By the catalogue, as far as it has all that was acknowledged; behind that, by the nodes."""
        try:
            listing = catalogue.list(prefix, after, folders=folders, wanted=wanted)
            async with contextlib.aclosing(listing) as batches:
                async for found in batches:
                    yield found
                    after = found[-1].path
            return
        except (Unavailable, Damaged):
            pass
        by_nodes = Listing(self._cluster.topology, prefix, after, folders=folders, wanted=wanted)
        async with contextlib.aclosing(by_nodes.batches()) as batches:
            async for found in batches:
                yield found

    async def _note(self, path: str, draft: _Draft, content: bytes | Manifest = b"") -> None:
        """The nodes have kept it: have the catalogue know it, too, before anybody is told."""
        if self._catalogue is not None and not self._waits(path):
            await self._catalogue.note(path, draft.header, content if isinstance(content, Manifest) else NOTHING)

    @contextlib.contextmanager
    def _doubting(self, path: str) -> Iterator[None]:
        """A write, of which the catalogue is to find out later what it came to, if it fails."""
        try:
            yield
        except (Unavailable, asyncio.CancelledError) as error:
            self._doubt(path, error)
            raise

    def _doubt(self, path: str, error: BaseException) -> None:
        unknown = isinstance(error, Unavailable | asyncio.CancelledError) and not isinstance(error, NodeAway)
        if self._catalogue is not None and unknown and not self._waits(path):
            self._catalogue.doubt(path)

    def _check(self, path: str) -> None:
        """Raises BadPath, UnknownNamespace, NamespaceDisabled, Unavailable."""
        paths.check(path)
        if self._namespaces.gate is not None:
            self._namespaces.gate(path)

    @contextlib.contextmanager
    def _bound(
        self, path: str, rules: Rules, condition: Condition | None, *, deleting: bool = False
    ) -> Iterator[Bound[Info]]:
        """What a write has to keep to."""
        tank = self._quotas.tank(rules.counted) if self._quotas is not None and rules.counted else None
        bound: Bound[Info] = Bound(path, condition, write_once=rules.write_once, tank=tank, is_deletion=deleting)
        try:
            yield bound
        finally:
            bound.end()

    def _tell_known(self, path: str, tell: Tell[Info], header: Header | SfssError | None) -> None:
        if header is None or isinstance(header, SfssError):
            tell(NotFound(path) if header is None else header)
            return
        try:
            info: Info | SfssError = _known(path, header)
        except SfssError as error:
            info = error
        tell(info)

    def _opened(self, path: str, found: Record | None) -> File:
        if found is None:
            raise NotFound(path)
        header, content = found.header, found.payload
        if (header.kind is not Kind.FILE or header.path) and not _is_file(path, header):
            raise NotFound(path)
        info = _info(path, header)
        if header.kind is Kind.FILE:
            return File(info, content if isinstance(content, memoryview) else memoryview(content))
        striped = replaced.striped(path, found)
        self._remember(path, striped)
        return File(info, None, striped)

    def _tell_opened(self, path: str, tell: Tell[File], found: Record | SfssError | None) -> None:
        if found is None:
            tell(NotFound(path))
            return
        if isinstance(found, SfssError):
            tell(found)
            return
        try:
            file: File | SfssError = self._opened(path, found)
        except SfssError as error:
            file = error
        tell(file)

    def _tell_put(self, path: str, key: bytes, draft: _Draft, tell: Tell[Info], kept: bool | SfssError) -> None:
        if isinstance(kept, SfssError):
            self._doubt(path, kept)
            tell(kept)
        elif kept:
            self._kept(path, key)
            if self._catalogue is None or self._waits(path):
                tell(_info(path, draft.header))
            else:
                answer = functools.partial(tell, _info(path, draft.header))
                self._catalogue.note_soon(path, draft.header, NOTHING, answer)
        else:
            self._writing.run(self._put_newer(path, key, draft), tell)

    async def _put_newer(self, path: str, key: bytes, draft: _Draft) -> Info:
        """Something newer was seen to lie there."""
        self._make_newer(draft, await self._at(path).head(key))
        return await self._keep(path, key, draft, None)

    def _kept(self, path: str, key: bytes) -> None:
        """A small file has taken its place: not held up by a look at what was there, whose blocks the sweep finds."""
        if (before := self._large.pop(path, None)) is not None:
            self._free(path, key, before)

    async def _begin(self, content: AsyncIterator[bytes], rules: Rules) -> tuple[deque[bytes], bool]:
        """The content, as far as it fits one record, and a little more; and whether that is all of it."""
        begun: deque[bytes] = deque()
        size, largest = 0, ALWAYS_FITS
        async for chunk in content:
            size += len(chunk)
            _check_size(size, rules)
            begun.append(chunk)
            if size > largest:
                # The latter asks all nodes what they take: not for each small file.
                largest = self._record_size - MAX_OVERHEAD if rules.write_behind else self.stripes.largest
                if size > largest:
                    return begun, False
        return begun, True

    async def _whole(self, begun: deque[bytes], rest: AsyncIterator[bytes], rules: Rules) -> AsyncIterator[bytes]:
        """What has begun, and what comes."""
        size = 0
        while begun:
            size += len(begun[0])
            yield begun.popleft()
        async for chunk in rest:
            size += len(chunk)
            _check_size(size, rules)
            yield chunk

    def _draft(self, path: str, key: bytes, content: bytes, type: str | None, meta: dict[str, str] | None) -> _Draft:
        """The record of a file that is one."""
        sha256 = hashlib.sha256(content).digest()
        return _Draft(self._header(Kind.FILE, path, key, content, sha256=sha256, type=type, meta=meta), content)

    async def _keep(
        self, path: str, key: bytes, draft: _Draft, condition: Condition | None, striped: Manifest = NOTHING
    ) -> Info:
        """Put a file's record in the place of what is there; the blocks of that are freed, where it is known."""
        with self._doubting(path):
            await self._keep_on_nodes(path, key, draft, condition)
        await self._note(path, draft, striped)
        return _info(path, draft.header)

    async def _keep_on_nodes(self, path: str, key: bytes, draft: _Draft, condition: Condition | None) -> None:
        records = self._at(path)
        if condition is not None:
            await self._change(path, key, condition, draft, lambda token: records.put_if(key, draft.record, token))
        elif draft.header.kind == Kind.FILE:
            await self._put(path, key, draft, records.put)
            self._kept(path, key)
        else:
            there = await records.head(key)
            self._make_newer(draft, there)
            before = await self._striped_there(path, key, there)
            await self._put(path, key, draft, records.put)
            self._free(path, key, before)

    def _remember(self, path: str, striped: Manifest) -> None:
        """What to free if a small file takes its place, of the files that were in use last."""
        if len(striped.extents) <= _SMALL_MANIFEST:
            self._large[path] = striped
            self._large.move_to_end(path)
            if len(self._large) > _REMEMBERED:
                self._large.popitem(last=False)

    def _free(self, path: str, key: bytes, before: Manifest) -> None:
        """Free the blocks of a file that was seen, and has been replaced or deleted since; if it is by now."""
        if not self._waits(path):
            replaced.free(self._cluster, self.stripes, path, key, before)

    async def _striped_there(self, path: str, key: bytes, there: Header | None) -> Manifest:
        """The blocks of the file whose header is there; none if it has none, or they can't be told."""
        return await replaced.striped_there(self._at(path), path, key, there)

    async def _put(self, path: str, key: bytes, draft: _Draft, put: Callable[[bytes, bytes], Awaitable[bool]]) -> None:
        for _ in range(_RACES):
            if await put(key, draft.record):
                return
            self._make_newer(draft, await self._at(path).head(key))
        raise Unavailable(f"'{path}' was overwritten {_RACES} times while it was stored: try again")

    async def _change(
        self, path: str, key: bytes, condition: Condition, draft: _Draft, change: Callable[[Any], Awaitable[bool]]
    ) -> None:
        """Make a change if the condition holds of just the state that it takes the place of."""
        for _ in range(_RACES):
            there, token = await self._at(path).get_for_update(key)
            condition(_info_there(path, there))
            self._make_newer(draft, there)
            before = await self._striped_there(path, key, there)
            if await change(token):
                self._free(path, key, before)
                return
        raise Unavailable(f"'{path}' changed {_RACES} times while its condition was checked: try again")

    def _make_newer(self, draft: _Draft, there: Header | None) -> None:
        """Give the record a version above that of what it is to replace: another front's clock may be ahead of ours."""
        if there is not None and there.order >= draft.header.order:
            self._last_version = max(self._last_version, there.version)
            draft.restamp(self._next_version())

    def _header(
        self,
        kind: Kind,
        path: str,
        key: bytes,
        payload: bytes,
        *,
        size: int | None = None,
        sha256: bytes = b"",
        type: str | None = None,
        meta: dict[str, str] | None = None,
    ) -> Header:
        return Header(
            kind=kind,
            version=self._next_version(),
            front=self._front,
            size=len(payload) if size is None else size,
            sha256=sha256,
            payload_size=len(payload),
            payload_xxh3=record.payload_checksum(payload),
            type=type,
            meta=meta or None,
            path=path if paths.is_hashed(key) else None,
        )

    def _claimed(
        self,
        path: str,
        key: bytes,
        content: bytes | Manifest,
        sha256: bytes,
        order: tuple[int, int],
        type: str | None,
        meta: dict[str, str] | None,
    ) -> tuple[Header, bytes]:
        if isinstance(content, Manifest):
            kind, payload, size = Kind.MANIFEST, manifest.encode(content), content.size
        else:
            kind, payload, size = Kind.FILE, content, len(content)
        header = self._header(kind, path, key, payload, size=size, sha256=sha256, type=type, meta=meta)
        return msgspec.structs.replace(header, version=order[0], front=order[1]), payload

    def _next_version(self) -> int:
        """Microseconds since the epoch, made monotonic: a clock that is set back doesn't make new writes old."""
        self._last_version = max(self._last_version + 1, self._cluster.now())
        return self._last_version


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _is_file(path: str, header: Header) -> bool:
    """Whether the record is a file, and this path's: two long paths could share a key, if SHA-256 were broken."""
    if header.path is not None and header.path != path:
        raise Damaged(f"what lies under the key of '{path}' belongs to '{header.path}'")
    if header.kind == Kind.TOMBSTONE:
        return False
    if header.kind not in (Kind.FILE, Kind.MANIFEST):
        raise Damaged(f"what lies at '{path}' is a {header.kind.name.lower()}, which this version can't read")
    return True


def _known(path: str, header: Header | None) -> Info:
    if header is None or not _is_file(path, header):
        raise NotFound(path)
    return _info(path, header)


def _info(path: str, header: Header) -> Info:
    return Info(path, header.size, header.sha256, header.version, header.type, header.meta or {})


def _info_there(path: str, there: Header | None) -> Info | None:
    """What is known of the file whose record is there; None if there is no file."""
    return _info(path, there) if there is not None and _is_file(path, there) else None


def _check_size(size: int, rules: Rules) -> None:
    if size > rules.max_file_size:
        raise TooLarge(
            f"the file has more than {rules.max_file_size} bytes: raise {rules.setting} or send a smaller one",
            limit=rules.max_file_size,
            setting=rules.setting,
        )
