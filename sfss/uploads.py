"""Uploads that come in several goes, and may go on after a break, also through another front. Knows no HTTP.

All that is known of an upload lies on the nodes, as a record (``upload_state.py``); a front holds nothing that it
could not do without. Each go is a stripe of its own, and with the record's next state it belongs to the upload. A state
takes the place of just the one that was known (``put_if``), so of two who go on from the same point one is told that he
is too late. Where nodes can't decide conditions (Beansdb), that is not noticed.

When all is there it becomes a file. First the record's next state says, as a *claim*, what the file's record will be,
to its version; then that is put, and then the state says so. Whoever finds a claim can go on from there, as often as it
takes: what is put twice as the same version is there once, and never takes the place of something newer.

Where something newer is, the claimed file has been there, and was seen, or it came too late. To its client that is the
same, unless the file depends on what was there before. Then only who has settled the claim knows that it never was
there, as long as nobody has noted in it that he tries, too (``is_tried``): he settles another one. Else nobody knows,
and it is never put as another version, above what has come since.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol, cast

from msgspec.structs import replace

from sfss import manifest, paths, upload_state
from sfss.cluster.replication import Cluster
from sfss.config import Limits
from sfss.errors import (
    BadPath,
    BadRequest,
    Gone,
    NoUpload,
    PreconditionFailed,
    SfssError,
    TooLarge,
    Unavailable,
    UploadConflict,
    UploadGone,
    UploadSealed,
    WriteOnce,
)
from sfss.files import Condition, Files
from sfss.manifest import NOTHING, Layout, Manifest
from sfss.policies import Policies, Rules
from sfss.record import MAX_OVERHEAD
from sfss.upload_going import Body, Going
from sfss.upload_hash import Hashes
from sfss.upload_hold import Hold
from sfss.upload_locks import BreakOff, UploadLocks
from sfss.upload_state import Claim, State

log = logging.getLogger("sfss.uploads")

_IDS = 16  # that are looked through for one whose nodes are here

# What is said of a file that is to be, of the preconditions that came with the upload.
Conditions = Callable[[Mapping[str, str]], Condition | None]


class NotingUploads(Protocol):
    """A catalogue, as it is told of uploads."""

    def note_upload(self, upload: str, state: State | None) -> None:
        """It has come so far; None: it is no more."""


class Uploads:
    """The uploads of a cluster, as one front serves them."""

    def __init__(
        self,
        cluster: Cluster,
        files: Files,
        *,
        policies: Policies,
        limits: Limits,
        conditions: Conditions,
        catalogue: NotingUploads | None = None,
    ) -> None:
        self._cluster = cluster
        self._files = files
        self._stripes = files.stripes
        self._policies = policies
        self._expiry = int(limits.upload_expiry * 1e6)
        self._grace = min(upload_state.GRACE, int(limits.upload_expiry / 6) + 1)
        self._conditions = conditions
        self._catalogue = catalogue
        self._locks = UploadLocks()
        self._hashes = Hashes()
        self._finishing: dict[str, asyncio.Task[State]] = {}

    @property
    def at_work(self) -> int:
        """How many of them requests of this front are working on."""
        return len(self._locks)

    async def close(self) -> None:
        """Leave what is at work to those who come again."""
        self._hashes.close()
        for task in self._finishing.values():
            task.cancel()
        if self._finishing:
            await asyncio.wait(self._finishing.values())

    # --- what can be done ---

    async def create(self, wanted: State) -> tuple[str, State]:
        """A new upload, of which ``wanted`` says length, path, type, meta, conditions, metadata and concat.

        Returns its id. Raises BadPath, TooLarge, PreconditionFailed, Unavailable.
        """
        await self._check(wanted)
        state = replace(wanted, expires=self._fresh(), grace=self._grace)
        upload = self._new_id()
        await Hold(self._cluster, upload).begin(state)
        self._note(upload, state)
        return upload, await self._finished(upload, state)

    async def concatenate(self, wanted: State, partials: Sequence[str]) -> tuple[str, State]:
        """An upload that is made of partial ones, one behind the other, and finished with that; they are used up.

        To ask for the same again gives the same. Raises as ``create``, and NoUpload, BadRequest if one can't be used.
        """
        holds = [await self._load(upload, used=True) for upload in partials]
        if not all(hold.state.is_partial and hold.state.is_whole for hold in holds):
            raise BadRequest("Upload-Concat: not all of the uploads are partial ones, and whole: send their rest first")
        finals = {hold.state.final for hold in holds} - {None}
        if finals:
            upload = await self._same_again(finals, wanted, partials)
        else:
            upload = await self._put_together(wanted, holds)
        try:
            for hold in holds:
                if hold.state.final is None:
                    await self._mark(hold, upload, wanted.path)
        except (UploadConflict, NoUpload):
            await self._take_apart(upload, holds)
            raise UploadConflict("one of the uploads was used, or went, at just this time: nothing was done") from None
        return upload, await self.look(upload)

    async def look(self, upload: str) -> State:
        """How far it is; what has all its bytes is made a file of. Who is at work on it here is broken off.

        Raises NoUpload, UploadLocked, Unavailable; and what finishing raises: as ``Files.put``.
        """
        async with self._locks.held(upload):
            state = (await self._load(upload)).state
        return await self._finished(upload, state)

    async def append(
        self,
        upload: str,
        offset: int,
        content: AsyncIterator[bytes],
        *,
        size: int | None = None,
        length: int | None = None,
        whole: bool = False,
        break_off: BreakOff | None = None,
    ) -> State:
        """Go on at ``offset``, with ``content`` of ``size`` bytes, if that is known; make a file of it if that is all.

        ``length`` of the upload, if it is told now. What has come when the content breaks off is kept, unless it is to
        be taken ``whole`` or not at all. ``break_off`` is to make the content end, if the client comes again meanwhile.
        Raises NoUpload, UploadConflict, UploadSealed, UploadLocked, BadRequest, TooLarge, OutOfSpace, Unavailable, and
        what the content raises.
        """
        async with self._locks.held(upload, break_off):
            hold = await self._load(upload)
            state = self._ready(hold.state, offset, size, length)
            self._check_nodes(upload)
            if size == 0:
                state = await hold.put(replace(state, expires=self._fresh()))
            else:
                try:
                    state = await self._append(hold, state, content, size, whole)
                finally:
                    self._note(upload, hold.state)
        return await self._finished(upload, state)

    async def terminate(self, upload: str) -> None:
        """Forget it, and free what belongs to it; the file, if there is one by now, stays. Raises as ``look``."""
        async with self._locks.held(upload):
            hold = await self._load(upload)
            await hold.remove()
            self._note(upload, None)
            self._hashes.forget(upload)
            if hold.state.claim is None:  # else there may be a file of these blocks; they are swept if there isn't
                self._stripes.free(hold.state.parts, linger=0.0)

    async def path(self, upload: str) -> str | None:
        """Where it is to go, as was said when it began; None if that wasn't said. Raises NoUpload, Unavailable."""
        return (await self._load(upload, used=True)).state.path

    def largest(self, path: str | None) -> int:
        """Bytes of the largest upload that can be taken; None: of any path. Raises BadPath."""
        return self._policies.largest if path is None else self._policies.of(paths.check(path)).max_file_size

    def _note(self, upload: str, state: State | None) -> None:
        if self._catalogue is not None:
            self._catalogue.note_upload(upload, state)

    # --- beginning ---

    async def _check(self, wanted: State) -> None:
        if wanted.path is None and not wanted.is_partial:
            raise BadPath("the upload has no path: add ?path=FOLDER/NAME, or path or filename to Upload-Metadata")
        if wanted.path is not None:
            paths.check(wanted.path)
            condition = self._conditions(wanted.conditions)
            is_once = self._policies.of(wanted.path).write_once
            if (condition is not None or is_once) and not wanted.is_partial:
                there = await self._files.present(wanted.path)
                if condition is not None:
                    condition(there)
                if is_once and there is not None:
                    raise WriteOnce(wanted.path)
        self._check_size(wanted, wanted.length or 0)

    def _check_size(self, state: State, size: int) -> None:
        if state.path is not None:
            self._files.check_room(state.path, size)
        elif size > self._policies.largest:
            raise TooLarge(
                f"no file may have more than {self._policies.largest} bytes: raise limits.max_file_size",
                limit=self._policies.largest,
                setting="limits.max_file_size",
            )

    def _new_id(self) -> str:
        """One whose nodes are here, if that can be: the rest of the upload depends on them."""
        for _ in range(_IDS):
            upload = upload_state.new_id(self._cluster.now())
            place = self._cluster.topology.place(upload_state.key_of(upload))
            if all(node.away is None for node in place.deciders):
                break
        return upload

    def _check_nodes(self, upload: str) -> None:
        """Raises Unavailable if it could not be noted what comes now: better said before it comes than behind it."""
        for node in self._cluster.topology.place(upload_state.key_of(upload)).deciders:
            if (why := node.away) is not None:
                raise Unavailable(f"node {node.address} decides on the upload {upload}, and is away: {why}")

    def _fresh(self, *, grace: bool = False) -> int:
        """When what somebody works on now expires. With ``grace``: not before what is made of it."""
        return self._cluster.now() + self._expiry + (self._grace * 1_000_000 if grace else 0)

    async def _load(self, upload: str, *, used: bool = False) -> Hold:
        """What is known of it. ``used``: also of a partial one that a final one has taken."""
        if not upload_state.is_id(upload):
            raise NoUpload(f"there is no upload '{upload[:100]}'")
        hold = Hold(self._cluster, upload)
        state = await hold.load()
        if state.is_expired(self._cluster.now()):
            raise UploadGone(f"the upload {upload} has expired: nobody went on with it (limits.upload_expiry)")
        if state.final is not None and not used:
            raise UploadGone(f"the upload {upload} is a part of {state.final} by now")
        return hold

    # --- going on ---

    def _ready(self, state: State, offset: int, size: int | None, length: int | None) -> State:
        """The state to go on from; raises if that can't be."""
        if state.is_final:
            raise UploadSealed("this upload is put together of others: it takes no bytes")
        if offset != state.offset:
            raise UploadConflict(f"the upload has {state.offset} bytes by now: go on there, and not at {offset}")
        if length is not None and state.length not in (None, length):
            raise BadRequest(f"Upload-Length: it was {state.length}, and can't be changed")
        if length is not None and length < offset:
            raise BadRequest(f"Upload-Length: the upload has {offset} bytes already")
        state = replace(state, length=length if state.length is None else state.length)
        end = offset + (size or 0)
        self._check_size(state, end if state.length is None else state.length)
        _check_end(state, end)
        return state

    async def _append(
        self, hold: Hold, state: State, content: AsyncIterator[bytes], size: int | None, whole: bool
    ) -> State:
        going = Going(hold, state, self._fresh)
        running = self._hashes.take(hold.upload, state.offset)
        before = running.copy()
        is_up_to_date = running.position == state.offset
        if not is_up_to_date and state.length is not None and size in (None, state.length - state.offset):
            before.read_meanwhile(self._stripes, state.parts)  # it is going to be needed
        body = Body(content, lambda so_far: self._check_piece(state, so_far), whole=whole)
        rules = self._rules(state)
        try:
            _check_extents(state, self._stripes.largest)
            new = await self._stripes.write(
                body.chunks(), rules,
                path=None if state.is_partial else state.path,
                upload=hold.upload,
                size=size,
                first=sum(extent.blocks for extent in state.parts.extents),
                layout=self._layout(hold.upload, state, rules),
                digest=running.digest if is_up_to_date else None,
                kept=None if whole else going.kept,
            )  # fmt: skip
            state = await self._keep(going, new)
            if is_up_to_date:
                running.position = state.offset
                before = running
        except SfssError:
            await going.keep_what_was_told()
            raise
        finally:
            if not going.state.is_whole:
                before.stop()
            self._hashes.keep(hold.upload, before)
        if body.broken is not None:
            raise body.broken
        return state

    async def _keep(self, going: Going, new: Manifest) -> State:
        try:
            return await going.keep(new)
        except (UploadConflict, NoUpload):  # somebody else has gone on, or put an end to it: this is in the way
            self._free(going.hold, new, start=going.kept_size)
            raise

    def _free(self, hold: Hold, parts: Manifest, *, start: int = 0) -> None:
        """Free what the state doesn't name that was to name it. Where that isn't sure it is left to the sweep."""

        async def is_named() -> bool:
            try:
                state = await Hold(self._cluster, hold.upload).load()
            except NoUpload:
                return False
            return state.finished or not state.parts.stripes.isdisjoint(parts.stripes)

        if not hold.is_unsure:
            self._stripes.free(parts, start=start, linger=0.0, unless=None if start else is_named)

    def _check_piece(self, state: State, so_far: int) -> None:
        """Raises TooLarge if so many bytes more are too many."""
        _check_end(state, state.offset + so_far)
        self._check_size(state, state.offset + so_far)

    def _rules(self, state: State) -> Rules:
        return self._policies.of(state.path or "")

    def _layout(self, upload: str, state: State, rules: Rules) -> Layout:
        """The same for every go, as long as the same nodes are here: so the manifest stays small."""
        spread = rules.spread
        if state.length is not None:
            spread = max(min(spread, -(-state.length // self._stripes.largest)), rules.pieces)
        return self._cluster.blocks.layout(upload_state.key_of(upload), spread, rules.copies)

    # --- becoming a file ---

    async def _finished(self, upload: str, state: State) -> State:
        """Make a file of it if it is time to. It goes on if the one who asked goes away, and others who ask join."""
        if not state.is_to_be_finished:
            return state
        task = self._finishing.get(upload)
        if task is None:
            task = self._finishing[upload] = asyncio.create_task(self._finish(upload))
            task.add_done_callback(lambda task: self._has_ended(upload, task))
        return await asyncio.shield(task)

    def _has_ended(self, upload: str, task: asyncio.Task[State]) -> None:
        del self._finishing[upload]
        if not task.cancelled():
            task.exception()  # whoever asked was told, if he was still there

    async def _finish(self, upload: str) -> State:
        hold = await self._load(upload)
        while hold.state.is_to_be_finished:
            before = hold.state
            try:
                await self._drop_old_claim(hold)
                if hold.state.claim is None:
                    await self._claim(hold)
                else:
                    await self._take_over(hold)
                await self._redeem(hold)
            except (Gone, UploadConflict):  # another front does the same, and may have freed what is no more needed
                if await hold.load() == before:
                    raise
        self._note(upload, hold.state)
        return hold.state

    async def _redeem(self, hold: Hold) -> None:
        """Make it the file that is claimed; or have no claim any more, if it turns out that this can't be."""
        state, claim, condition = hold.state, hold.state.claim, self._conditions(hold.state.conditions)
        assert state.path is not None
        assert claim is not None
        content = await self._content(state.parts) if claim.is_record else state.parts
        order = claim.version, claim.front
        try:
            stands = await self._files.put_claimed(
                state.path, content, claim.sha256, order, type=state.type, meta=state.meta, condition=condition
            )
        except (PreconditionFailed, TooLarge):
            self._hashes.forget(hold.upload)
            await hold.put(replace(state, claim=None))
            raise
        if not stands and self._is_bound(state):
            if claim.is_tried:
                raise _is_unknown(hold.upload, state.path)
            # This succeeds only if nobody tries, too; so it hasn't been there, and has its blocks.
            await hold.put(replace(state, claim=None))
            return
        await hold.put(replace(state, parts=NOTHING, finished=True, expires=self._fresh()))
        if claim.is_record:
            self._stripes.free(state.parts, linger=0.0)
        self._hashes.forget(hold.upload)

    async def _take_over(self, hold: Hold) -> None:
        """Have who has settled the claim learn, before it is put, that he isn't the only one any more who does that."""
        state, claim = hold.state, hold.state.claim
        assert claim is not None
        if self._is_bound(state) and not claim.is_tried:
            await hold.put(replace(state, claim=replace(claim, is_tried=True), expires=self._fresh()))

    def _is_bound(self, state: State) -> bool:
        """Whether it depends on what is there before that it may become a file."""
        return self._conditions(state.conditions) is not None or self._rules(state).write_once

    async def _drop_old_claim(self, hold: Hold) -> None:
        """Once a deletion may be forgotten nobody can tell whether the claimed file was there, and its blocks freed."""
        state, claim = hold.state, hold.state.claim
        if claim is None or self._cluster.now() - claim.version <= self._cluster.tombstone_ttl * 1_000_000:
            return
        assert state.path is not None
        there = await self._files.present(state.path)
        if there is None or there.modified < claim.version:
            if self._is_bound(state):
                raise _is_unknown(hold.upload, state.path)
            self._hashes.forget(hold.upload)  # so that all blocks are read
            await hold.put(replace(state, claim=None))

    async def _claim(self, hold: Hold) -> None:
        """Settle what the file will be. From here on its blocks are safe from being swept, for long enough."""
        state = hold.state
        assert state.path is not None
        parts, rules = state.parts, self._rules(state)
        is_record = parts.size == 0 or (rules.pieces == 1 and parts.size <= self._stripes.largest)
        if not is_record and self._is_to_be_cut_anew(parts, rules):
            digest = hashlib.sha256()
            async with contextlib.aclosing(self._stripes.read(parts, 0, parts.size)) as content:
                parts = await self._stripes.write(
                    cast(AsyncIterator[bytes], content), rules,
                    path=state.path, upload=hold.upload, size=parts.size, digest=digest,
                )  # fmt: skip
            sha256 = digest.digest()
        else:
            running = self._hashes.take(hold.upload, parts.size)
            try:
                sha256 = await running.of(self._stripes, parts)
            finally:  # it may be asked for again, if this or what follows doesn't come off
                self._hashes.keep(hold.upload, running)
        claim = Claim(*await self._files.next_order(state.path), sha256, is_record)
        try:
            await hold.put(replace(state, parts=parts, claim=claim, expires=self._fresh()))
        except (UploadConflict, NoUpload):
            if parts is not state.parts:
                self._free(hold, parts)
            raise
        if parts is not state.parts:
            self._stripes.free(state.parts, linger=0.0)

    def _is_to_be_cut_anew(self, parts: Manifest, rules: Rules) -> bool:
        """Whether its blocks aren't what the policy wants: too few copies of them, or unequal pieces of a small one."""
        nodes = len(self._cluster.topology.nodes)
        pieces, copies = min(rules.pieces, nodes), min(rules.copies, nodes)
        if any(layout.copies < copies or layout.pieces < pieces for layout in parts.layouts):
            return True
        if pieces == 1 or parts.size > 2 * pieces * self._stripes.largest:
            return False
        block_size = manifest.cut(parts.size, rules.pieces, self._stripes.largest)
        return len(parts.extents) > 1 or parts.extents[0].block_size != block_size

    async def _content(self, parts: Manifest) -> bytes:
        async with contextlib.aclosing(self._stripes.read(parts, 0, parts.size)) as content:
            return b"".join([piece async for piece in content])

    # --- putting together ---

    async def _put_together(self, wanted: State, holds: Sequence[Hold]) -> str:
        """The state of an upload that is made of these; its id."""
        parts = manifest.join(hold.state.parts for hold in holds)
        state = replace(
            wanted, length=parts.size, offset=parts.size, parts=parts,
            partials=tuple(hold.upload for hold in holds), expires=self._fresh(), grace=self._grace,
        )  # fmt: skip
        await self._check(state)
        _check_extents(state, self._stripes.largest)
        upload = self._new_id()
        await Hold(self._cluster, upload).begin(state)
        return upload

    async def _same_again(self, finals: set[str | None], wanted: State, partials: Sequence[str]) -> str:
        """The upload that has taken these, if it is the one that is asked for: its answer has been lost."""
        (final, *others) = finals
        assert final is not None
        state = None if others else (await self._load(final)).state
        if state is None or state.partials != tuple(partials) or state.path != wanted.path:
            raise UploadGone("Upload-Concat: one of the uploads is a part of another file by now")
        return final

    async def _mark(self, hold: Hold, final: str, path: str | None) -> None:
        """Have a partial upload be of that final one. Raises UploadConflict, UploadGone if it can't."""
        try:
            await hold.put(replace(hold.state, final=final, into=path, expires=self._fresh(grace=True)))
        except UploadConflict:
            if (await hold.load()).final != final:  # else another request for the same has done it
                raise
        self._note(hold.upload, hold.state)

    async def _take_apart(self, upload: str, holds: Sequence[Hold]) -> None:
        """Give back what an upload has taken, that can't have all of it."""
        with contextlib.suppress(SfssError):  # then they expire
            hold = Hold(self._cluster, upload)
            await hold.load()
            if hold.state.claim is not None:  # another request for the same has all of it, and may have made the file
                return
            await hold.remove()
            for other in holds:
                if other.state.final == upload:
                    await other.put(replace(other.state, final=None, into=None))


def _is_unknown(upload: str, path: str) -> UploadGone:
    return UploadGone(
        f"whether the upload {upload} became the file '{path}', and that was replaced or deleted since, isn't known:"
        " look what is there, and begin a new upload if it is still wanted"
    )


def _check_end(state: State, end: int) -> None:
    if state.length is not None and end > state.length:
        raise TooLarge(
            f"the upload has {state.length} bytes by its Upload-Length, and this would be more",
            limit=state.length,
            setting="Upload-Length",
        )


def _check_extents(state: State, largest: int) -> None:
    """Raises BadRequest if the state of one more go would be too large for a record."""
    extents = len(state.parts.extents)
    if extents >= manifest.MAX_EXTENTS or len(upload_state.encode(state)) > largest - MAX_OVERHEAD:
        raise BadRequest(
            f"the upload came in {extents} pieces, and no more can be kept in mind: begin again, with larger pieces"
        )
