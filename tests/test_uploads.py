"""Uploads through several fronts: who goes on, who is too late, what the file is, and which blocks are left.

What each request answers is tested in ``web/test_uploads.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sfss import config, manifest, paths, upload_hold, upload_state
from sfss.assembly import create_cluster
from sfss.cluster.copies import Copies
from sfss.cluster.replication import Cluster
from sfss.cluster.sweeping.relayout import move
from sfss.errors import (
    BadBody,
    BadRequest,
    Gone,
    NotFound,
    OutOfSpace,
    PreconditionFailed,
    Unavailable,
    UploadConflict,
    UploadGone,
    UploadLocked,
    WriteOnce,
)
from sfss.files import Condition, Files, Info
from sfss.manifest import Layout
from sfss.policies import Policies
from sfss.upload_hash import Hashes
from sfss.upload_hold import Hold
from sfss.upload_locks import UploadLocks
from sfss.upload_state import State
from sfss.uploads import Uploads
from tests.cluster.support import until
from tests.conftest import Nodes
from tests.large.support import KIB, Block, blocks_on, content_of, in_chunks, wait_until_blocks
from tests.servers import sfss_node

LARGEST = 56 * KIB  # bytes of a block
CONTENT = content_of("uploads", 10 * LARGEST + 17)


def _conditions(given: Mapping[str, str]) -> Condition | None:
    """One that is to be there, by name."""
    if not given:
        return None

    def check(info: Info | None) -> None:
        if (info is not None) != ("there" in given):
            raise PreconditionFailed("it isn't so")

    return check


class Front:
    """A front without HTTP."""

    def __init__(self, nodes: Nodes, **sections: Any) -> None:
        limits = {"record_size": "64KiB", "max_file_size": "64MiB", "linger": 0.0, **sections.pop("limits", {})}
        storage = {"nodes": nodes, "timeout": 5.0, "retry_after": 0.1, **sections.pop("storage", {})}
        self.settings = config.load(overrides={"storage": storage, "limits": limits, **sections})
        self.cluster: Cluster = create_cluster(self.settings)
        policies = Policies(self.settings)
        self.files = Files(self.cluster, policies=policies, limits=self.settings.limits)
        self.uploads = Uploads(
            self.cluster, self.files, policies=policies, limits=self.settings.limits, conditions=_conditions
        )

    async def start(self) -> None:
        await self.cluster.start()
        await until(lambda: not any(self.cluster.ready().values()))

    async def close(self) -> None:
        await self.uploads.close()
        await self.files.close()
        await self.cluster.close()

    async def create(self, path: str | None, length: int | None, **given: Any) -> str:
        return (await self.uploads.create(State(0, length, path=path, **given)))[0]

    async def append(self, upload: str, offset: int, content: bytes, chunk: int = 30_000, **given: Any) -> State:
        return await self.uploads.append(upload, offset, in_chunks(content, chunk), size=len(content), **given)

    async def read(self, path: str) -> bytes | None:
        """The file, checked against its SHA-256."""
        try:
            file = await self.files.open(path)
        except NotFound:
            return None
        if file.content is not None:
            content = bytes(file.content)
        else:
            async with contextlib.aclosing(self.files.read(file, 0, file.info.size)) as pieces:
                content = b"".join([bytes(piece) async for piece in pieces])
        assert hashlib.sha256(content).digest() == file.info.sha256
        return content

    async def manifest(self, path: str) -> manifest.Manifest:
        return (await self.files.open(path)).striped


StartFront = Callable[..., Awaitable[Front]]


@pytest.fixture
async def start() -> AsyncIterator[StartFront]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(nodes: Nodes, **sections: Any) -> Front:
            front = Front(nodes, **sections)
            stack.push_async_callback(front.close)
            await front.start()
            return front

        yield start


@pytest.fixture
async def front(nodes: Nodes, start: StartFront) -> Front:
    """Over each kind of node in turn."""
    return await start(nodes)


@pytest.fixture
async def ours(our_nodes: Nodes, start: StartFront) -> Front:
    """Over nodes that can tell which blocks they have."""
    return await start(our_nodes)


@pytest.fixture
def path() -> str:
    return f"uploads/{secrets.token_hex(8)}"


def broken(content: bytes, whole: int) -> AsyncIterator[bytes]:
    """What comes if the client breaks off."""

    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in in_chunks(content[:whole], 30_000):
            yield chunk
        raise BadBody("the body broke off")

    return chunks()


class Gated:
    """Content of which a part comes only when it is let."""

    def __init__(self, first: bytes, then: bytes) -> None:
        self.first, self.then = first, then
        self.waits = asyncio.Event()
        self.go = asyncio.Event()

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in in_chunks(self.first, LARGEST, pause=0.02):
            yield chunk
        self.waits.set()
        await self.go.wait()
        if self.then:
            yield self.then


async def of_upload(nodes: Nodes, *ids: str) -> list[Block]:
    return [block for block in await blocks_on(nodes) if (block.header.meta or {}).get("upload") in ids]


async def are_those_of(nodes: Nodes, front: Front, path: str, *ids: str) -> None:
    """Wait until the blocks of these uploads are those that the file's manifest names, and no others."""
    whole = await front.manifest(path)
    named = sorted(block.key for block in manifest.blocks(whole, 0, whole.size))
    async with asyncio.timeout(10):
        while sorted(block.key for block in await of_upload(nodes, *ids)) != named:
            await asyncio.sleep(0.05)


class TestGoingOn:
    @pytest.mark.parametrize("seed", range(6))
    async def test_however_it_comes_the_file_and_its_hash_are_right(
        self, our_nodes: Nodes, start: StartFront, path: str, seed: int
    ) -> None:
        """Pieces of any size, by any front, some of which break off, some fail, and fronts forget what they knew."""
        chance = random.Random(seed)
        fronts = [await start(our_nodes) for _ in range(3)]
        size = chance.choice([1, LARGEST - 1, LARGEST, LARGEST + 1, 7 * LARGEST + 3, 30 * LARGEST])
        content = content_of(path, size)
        upload = await fronts[0].create(path, None if seed % 2 else size)
        offset = 0
        while offset < size:
            front = chance.choice(fronts)
            piece = content[offset : offset + chance.choice([1, 100, LARGEST, 3 * LARGEST, size])]
            told = size if offset + len(piece) == size or seed % 2 == 0 else None
            match chance.randrange(4):
                case 0:
                    comes = chance.randrange(len(piece))
                    with pytest.raises(BadBody):
                        await front.uploads.append(upload, offset, broken(piece, comes), size=len(piece), length=told)
                    offset += comes
                case 1:
                    with pytest.raises(BadBody):
                        await front.uploads.append(upload, offset, broken(piece, len(piece) // 2), whole=True)
                case 2:
                    with pytest.raises(UploadConflict):
                        await front.append(upload, offset + chance.choice([-1, 1]), piece)
                    front.uploads._hashes = Hashes()
                case _:
                    await front.append(upload, offset, piece, length=told)
                    offset += len(piece)
            assert (await chance.choice(fronts).uploads.look(upload)).offset == offset
        assert await fronts[0].read(path) == content
        await are_those_of(our_nodes, fronts[0], path, upload)

    async def test_of_two_fronts_that_go_on_from_the_same_point_one_is_too_late(
        self, our_nodes: Nodes, start: StartFront, path: str
    ) -> None:
        one, two = await start(our_nodes), await start(our_nodes)
        upload = await one.create(path, len(CONTENT))
        gated = Gated(CONTENT[:200_000], CONTENT[200_000:300_000])
        first = asyncio.create_task(one.uploads.append(upload, 0, gated.chunks()))
        await gated.waits.wait()
        await two.append(upload, 0, CONTENT[:250_000])
        gated.go.set()
        with pytest.raises(UploadConflict):
            await first
        await one.append(upload, 250_000, CONTENT[250_000:])
        assert await two.read(path) == CONTENT
        await are_those_of(our_nodes, one, path, upload)

    async def test_who_comes_again_to_the_same_front_breaks_off_what_he_began(self, front: Front, path: str) -> None:
        upload = await front.create(path, len(CONTENT))
        gated = Gated(CONTENT[:200_000], b"")
        first = asyncio.create_task(
            front.uploads.append(upload, 0, gated.chunks(), size=len(CONTENT), break_off=gated.go.set)
        )
        await gated.waits.wait()
        assert (await front.uploads.look(upload)).offset == 200_000
        assert (await first).offset == 200_000
        await front.append(upload, 200_000, CONTENT[200_000:])
        assert await front.read(path) == CONTENT

    async def test_who_does_not_let_go_of_it_keeps_it(self, front: Front, path: str) -> None:
        front.uploads._locks = UploadLocks(patience=0.2)
        upload = await front.create(path, len(CONTENT))
        gated = Gated(CONTENT[:200_000], CONTENT[200_000:])
        first = asyncio.create_task(front.uploads.append(upload, 0, gated.chunks(), break_off=lambda: None))
        await gated.waits.wait()
        for attempt in (front.uploads.look(upload), front.append(upload, 0, CONTENT), front.uploads.terminate(upload)):
            with pytest.raises(UploadLocked):
                await attempt
        gated.go.set()
        await first
        assert await front.read(path) == CONTENT
        assert not front.uploads._locks._locks

    async def test_what_is_kept_is_told_on_the_way(
        self, our_nodes: Nodes, start: StartFront, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So a front that is killed loses no more than that."""
        monkeypatch.setattr("sfss.stripes._TELL_BYTES", 3 * LARGEST)
        one, two = await start(our_nodes), await start(our_nodes)
        upload = await one.create(path, len(CONTENT))
        gated = Gated(CONTENT[: 9 * LARGEST], b"")
        going = asyncio.create_task(one.uploads.append(upload, 0, gated.chunks()))
        await gated.waits.wait()
        async with asyncio.timeout(10):
            while not (offset := (await two.uploads.look(upload)).offset):
                await asyncio.sleep(0.02)
        going.cancel()
        await asyncio.wait([going])
        assert offset >= 3 * LARGEST
        await two.append(upload, offset, CONTENT[offset:])
        assert await two.read(path) == CONTENT

    async def test_too_many_pieces_are_an_error_that_says_what_to_do(
        self, front: Front, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(manifest, "MAX_EXTENTS", 5)
        upload = await front.create(path, len(CONTENT))
        for offset in range(5):
            await front.append(upload, offset, CONTENT[offset : offset + 1])
        with pytest.raises(BadRequest, match="larger pieces"):
            await front.append(upload, 5, CONTENT[5:])

    async def test_the_pieces_of_an_upload_share_a_layout(self, front: Front, path: str) -> None:
        upload = await front.create(path, len(CONTENT))
        for start in range(0, len(CONTENT), LARGEST + 1):
            await front.append(upload, start, CONTENT[start : start + LARGEST + 1])
        whole = await front.manifest(path)
        assert len(whole.extents) > 5
        assert len(whole.layouts) == 1


def let_die(front: Front, dies: str) -> None:
    """Have the front die just before an upload's file is put, or when it is."""
    put_claimed = front.files.put_claimed

    async def dying(*args: Any, **given: Any) -> bool:
        if dies == "when it is put":
            await put_claimed(*args, **given)
        raise Unavailable("it died")

    front.files.put_claimed = dying  # type: ignore[method-assign]


class TestBecomingAFile:
    @pytest.mark.parametrize("size", [0, 1, LARGEST])
    async def test_what_fits_a_record_is_one_and_leaves_no_blocks(
        self, our_nodes: Nodes, ours: Front, path: str, size: int
    ) -> None:
        upload = await ours.create(path, size)
        for start in range(0, size, 20_000):
            await ours.append(upload, start, CONTENT[start : min(start + 20_000, size)])
        assert not (await ours.manifest(path)).extents
        assert await ours.read(path) == CONTENT[:size]
        await wait_until_blocks(our_nodes, lambda blocks: not blocks, path)

    async def test_a_small_file_has_as_many_equal_pieces_as_its_policy_says(
        self, our_nodes: Nodes, start: StartFront, path: str
    ) -> None:
        front = await start(our_nodes, policy=[{"prefix": "uploads/", "pieces": 3}])
        upload = await front.create(path, 100)
        await front.append(upload, 0, CONTENT[:10])
        await front.append(upload, 10, CONTENT[10:100])
        assert await front.read(path) == CONTENT[:100]
        blocks = await wait_until_blocks(our_nodes, lambda blocks: len(blocks) == 3, path)
        assert sorted(block.header.size for block in blocks) == [32, 34, 34]
        assert len({block.node for block in blocks}) == 3

    async def test_what_came_in_one_go_is_not_cut_anew(self, our_nodes: Nodes, start: StartFront, path: str) -> None:
        front = await start(our_nodes, policy=[{"prefix": "uploads/", "pieces": 3}])
        upload = await front.create(path, len(CONTENT))
        await front.append(upload, 0, CONTENT)
        assert all((block.header.meta or {})["upload"] == upload for block in await blocks_on(our_nodes, path))
        assert len((await front.manifest(path)).extents) == 1

    async def test_parts_that_were_kept_by_other_rules_are_kept_anew(
        self, our_nodes: Nodes, start: StartFront, path: str
    ) -> None:
        front = await start(our_nodes, policy=[{"prefix": "uploads/", "copies": 2}])
        parts = [await front.create(None, LARGEST * 2, concat="partial") for _ in range(2)]
        for part in parts:
            await front.append(part, 0, CONTENT[: LARGEST * 2])
        wanted = State(0, None, path=path, concat="final;")
        await front.uploads.concatenate(wanted, parts)
        assert await front.read(path) == CONTENT[: LARGEST * 2] * 2
        assert {layout.copies for layout in (await front.manifest(path)).layouts} == {2}
        async with asyncio.timeout(10):
            while await of_upload(our_nodes, *parts):
                await asyncio.sleep(0.05)

    async def test_a_copy_of_its_state_that_lags_behind_holds_nothing_up(
        self, our_nodes: Nodes, start: StartFront, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With quorums of 1 a read may ask the node that has the state of before."""
        front = await start(our_nodes, storage={"copies": 3})
        upload = await front.create(path, LARGEST * 2)
        await front.append(upload, 0, CONTENT[:LARGEST])
        key = upload_state.key_of(upload)
        owners = front.cluster.topology.place(key).owners
        old = await owners[0].get(key)
        assert old is not None
        put = front.cluster.put_if

        async def put_and_lag(key: bytes, data: bytes, token: Any) -> bool:
            done = await put(key, data, token)
            await asyncio.sleep(0.1)  # until all have it
            for node in owners[1:]:
                await node.delete(key)
                assert await node.set(key, old)
            return done

        monkeypatch.setattr(front.cluster, "put_if", put_and_lag)
        monkeypatch.setattr(Copies, "order", lambda _, nodes: list(reversed(nodes)))  # who lags is the quickest
        state = await front.append(upload, LARGEST, CONTENT[LARGEST : LARGEST * 2])
        assert state.finished
        monkeypatch.undo()
        assert await front.read(path) == CONTENT[: LARGEST * 2]

    async def test_whoever_looks_finishes_it_and_once_is_enough(
        self, our_nodes: Nodes, start: StartFront, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fronts = [await start(our_nodes) for _ in range(3)]
        upload = await fronts[0].create(path, len(CONTENT))
        with monkeypatch.context() as patch:
            patch.setattr(Uploads, "_finished", _not_finished)
            await fronts[0].append(upload, 0, CONTENT)
        assert await fronts[0].read(path) is None
        found = await asyncio.gather(
            *(front.uploads.look(upload) for front in fronts for _ in range(3)), return_exceptions=True
        )
        assert any(isinstance(state, State) for state in found)
        assert all(isinstance(state, State | UploadConflict) for state in found), found
        assert (await fronts[1].uploads.look(upload)).finished
        assert await fronts[2].read(path) == CONTENT
        await are_those_of(our_nodes, fronts[0], path, upload)

    @pytest.mark.parametrize("size", [100, len(CONTENT)])
    @pytest.mark.parametrize("then", ["nothing", "a write", "a deletion"])
    @pytest.mark.parametrize("dies", ["before it is put", "when it is put"])
    async def test_a_front_that_dies_in_the_midst_of_it_leaves_the_rest_to_another(
        self, our_nodes: Nodes, start: StartFront, path: str, dies: str, then: str, size: int
    ) -> None:
        """And what was written meanwhile by others is not undone."""
        one, two = await start(our_nodes), await start(our_nodes)
        content = CONTENT[:size]
        await two.files.put(path, in_chunks(b"before"))
        upload = await one.create(path, size)
        let_die(one, dies)
        with pytest.raises(Unavailable):
            await one.append(upload, 0, content)
        assert await two.read(path) == (content if dies == "when it is put" else b"before")
        if then == "a write":
            await two.files.put(path, in_chunks(b"after"))
        elif then == "a deletion":
            await two.files.delete(path)
        assert (await two.uploads.look(upload)).finished
        assert await two.read(path) == {"nothing": content, "a write": b"after", "a deletion": None}[then]
        if then == "nothing":
            await are_those_of(our_nodes, two, path, upload)

    @pytest.mark.parametrize("dies", ["before it is put", "when it is put"])
    async def test_a_precondition_is_asked_of_what_is_there_before_it(
        self, our_nodes: Nodes, start: StartFront, path: str, dies: str
    ) -> None:
        one, two = await start(our_nodes), await start(our_nodes)
        upload = await one.create(path, len(CONTENT), conditions={"absent": ""})
        let_die(one, dies)
        with pytest.raises(Unavailable):
            await one.append(upload, 0, CONTENT)
        assert (await two.uploads.look(upload)).finished  # though it is there by now, for that is itself
        assert await two.read(path) == CONTENT

    async def test_of_many_that_want_to_create_one_does(self, our_nodes: Nodes, start: StartFront, path: str) -> None:
        fronts = [await start(our_nodes) for _ in range(2)]
        uploads = [
            (front, await front.create(path, len(CONTENT), conditions={"absent": ""}))
            for front in fronts
            for _ in "123"
        ]
        answers = await asyncio.gather(
            *(front.append(upload, 0, CONTENT) for front, upload in uploads), return_exceptions=True
        )
        assert sum(isinstance(answer, State) for answer in answers) == 1
        assert sum(isinstance(answer, PreconditionFailed) for answer in answers) == 5

    async def test_what_is_replaced_is_freed(self, our_nodes: Nodes, ours: Front, path: str) -> None:
        first = await ours.create(path, len(CONTENT))
        await ours.append(first, 0, CONTENT)
        second = await ours.create(path, len(CONTENT))
        await ours.append(second, 0, CONTENT[::-1])
        assert await ours.read(path) == CONTENT[::-1]
        await are_those_of(our_nodes, ours, path, first, second)

    async def test_it_goes_on_when_the_one_who_asked_has_gone(self, front: Front, path: str) -> None:
        upload = await front.create(path, len(CONTENT))
        await front.append(upload, 0, CONTENT[:-1])
        put_claimed, begun, go = front.files.put_claimed, asyncio.Event(), asyncio.Event()

        async def slow(*args: Any, **given: Any) -> bool:
            begun.set()
            await go.wait()
            return await put_claimed(*args, **given)

        front.files.put_claimed = slow  # type: ignore[method-assign]
        asking = asyncio.create_task(front.append(upload, len(CONTENT) - 1, CONTENT[-1:]))
        await begun.wait()
        asking.cancel()
        again = asyncio.create_task(front.uploads.look(upload))
        await asyncio.sleep(0.1)
        go.set()
        assert (await again).finished
        assert await front.read(path) == CONTENT


async def _not_finished(_self: Uploads, _upload: str, state: State) -> State:
    return state


@contextlib.contextmanager
def unnoted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The state of what becomes a file tells nothing of it, as its node goes away just then."""
    put = Hold.put

    async def failing(self: Hold, state: State, **given: Any) -> State:
        if state.finished:
            raise Unavailable("it went away")
        return await put(self, state, **given)

    with monkeypatch.context() as patch:
        patch.setattr(Hold, "put", failing)
        yield


async def become_a_file_untold(
    front: Front, upload: str, monkeypatch: pytest.MonkeyPatch, content: bytes = CONTENT
) -> None:
    """Have it become a file, of which its state tells nothing."""
    with unnoted(monkeypatch), pytest.raises(Unavailable):
        await front.append(upload, 0, content)


def before_it_is_put(front: Front, what: Callable[[], Awaitable[None]]) -> None:
    """Have that happen just before an upload's file is put, once."""
    put_claimed, first = front.files.put_claimed, [what]

    async def behind_that(*args: Any, **given: Any) -> bool:
        while first:
            await first.pop()()
        return await put_claimed(*args, **given)

    front.files.put_claimed = behind_that  # type: ignore[method-assign]


async def write(front: Front, path: str, content: bytes) -> None:
    """Put a small file there."""

    async def once() -> AsyncIterator[bytes]:
        yield content

    await front.files.put(path, once())


class TestBecomingAFileUntold:
    """Whoever comes again finishes it; the file may have been deleted meanwhile, and its blocks freed."""

    async def test_a_deleted_one_that_was_to_be_new_is_not_acknowledged(
        self, our_nodes: Nodes, start: StartFront, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, two = await start(our_nodes), await start(our_nodes)
        upload = await one.create(path, len(CONTENT), conditions={"absent": ""})
        await become_a_file_untold(one, upload, monkeypatch)
        await two.files.delete(path)
        await wait_until_blocks(our_nodes, lambda blocks: not blocks, path)
        for front in (one, two, one):  # ``one`` knows the hash without reading a block
            with pytest.raises(UploadGone, match="isn't known"):
                await front.uploads.look(upload)
        assert await two.read(path) is None

    @pytest.mark.parametrize("size", [3, len(CONTENT)])
    @pytest.mark.parametrize("then", ["deleted", "overwritten"])
    async def test_one_that_was_to_be_new_and_may_have_been_is_neither_put_once_more_nor_said_to_be_refused(
        self, our_nodes: Nodes, start: StartFront, path: str, monkeypatch: pytest.MonkeyPatch, then: str, size: int
    ) -> None:
        one, two = await start(our_nodes), await start(our_nodes)
        upload = await one.create(path, size, conditions={"absent": ""})
        await become_a_file_untold(one, upload, monkeypatch, CONTENT[:size])
        assert await two.read(path) == CONTENT[:size]
        if then == "deleted":
            await two.files.delete(path)
        else:
            await write(two, path, b"behind it")
        for _ in range(2):
            with pytest.raises(UploadGone, match="isn't known"):
                await two.uploads.look(upload)
            assert await two.read(path) == (None if then == "deleted" else b"behind it")

    async def test_without_a_condition_it_is_finished_and_what_came_behind_it_stays(
        self, our_nodes: Nodes, start: StartFront, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, two = await start(our_nodes), await start(our_nodes)
        upload = await one.create(path, len(CONTENT))
        await become_a_file_untold(one, upload, monkeypatch)
        await write(two, path, b"behind it")
        assert (await two.uploads.look(upload)).finished
        assert await two.read(path) == b"behind it"

    async def test_what_was_to_be_new_doesn_t_come_back_when_the_deletion_is_forgotten(
        self, our_nodes: Nodes, ours: Front, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ours.cluster, "_tombstone_ttl", 1)
        upload = await ours.create(path, 3, conditions={"absent": ""})
        await become_a_file_untold(ours, upload, monkeypatch, b"abc")
        await ours.files.delete(path)
        async with asyncio.timeout(10):
            while await ours.cluster.head(paths.key_of(path)) is not None:
                await asyncio.sleep(0.05)
        with pytest.raises(UploadGone, match="isn't known"):
            await ours.uploads.look(upload)
        assert await ours.read(path) is None

    @pytest.mark.parametrize("then", ["deleted", "stays"])
    async def test_one_that_is_known_not_to_have_been_is_put_behind_what_came_first_if_its_condition_holds_of_that(
        self, our_nodes: Nodes, start: StartFront, path: str, then: str
    ) -> None:
        one, two = await start(our_nodes), await start(our_nodes)
        upload = await one.create(path, len(CONTENT), conditions={"absent": ""})

        async def another() -> None:
            await write(two, path, b"first")
            if then == "deleted":
                await two.files.delete(path)

        before_it_is_put(one, another)
        if then == "deleted":
            assert (await one.append(upload, 0, CONTENT)).finished
            assert await two.read(path) == CONTENT
        else:
            with pytest.raises(PreconditionFailed):
                await one.append(upload, 0, CONTENT)
            await two.files.delete(path)
            assert (await two.uploads.look(upload)).finished  # it was told that it isn't there
            assert await two.read(path) == CONTENT

    async def test_who_stood_still_while_another_made_the_file_doesn_t_put_it_once_more(
        self, our_nodes: Nodes, start: StartFront, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, two = await start(our_nodes), await start(our_nodes)
        upload = await one.create(path, len(CONTENT), conditions={"absent": ""})

        async def two_does_it() -> None:
            with unnoted(monkeypatch), pytest.raises(Unavailable):
                await two.uploads.look(upload)
            assert await two.read(path) == CONTENT
            await two.files.delete(path)

        before_it_is_put(one, two_does_it)
        with pytest.raises(UploadGone, match="isn't known"):
            await one.append(upload, 0, CONTENT)
        assert await two.read(path) is None

    async def test_where_files_are_written_once_one_that_came_too_late_is_not_acknowledged(
        self, our_nodes: Nodes, start: StartFront, path: str
    ) -> None:
        one, two = [await start(our_nodes, policy=[{"prefix": "uploads/", "write_once": True}]) for _ in "12"]
        upload = await one.create(path, len(CONTENT))
        before_it_is_put(one, functools.partial(write, two, path, b"first"))
        with pytest.raises(WriteOnce):
            await one.append(upload, 0, CONTENT)
        assert await two.read(path) == b"first"

    async def test_a_deleted_one_does_not_come_back_when_the_deletion_is_forgotten(
        self, our_nodes: Nodes, ours: Front, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ours.cluster, "_tombstone_ttl", 1)
        upload = await ours.create(path, len(CONTENT))
        await become_a_file_untold(ours, upload, monkeypatch)
        await ours.files.delete(path)
        await wait_until_blocks(our_nodes, lambda blocks: not blocks, path)
        async with asyncio.timeout(10):
            while await ours.cluster.head(paths.key_of(path)) is not None:
                await asyncio.sleep(0.05)
        with pytest.raises(Gone):
            await ours.uploads.look(upload)
        assert await ours.read(path) is None

    async def test_one_whose_manifest_was_written_anew_is_known_again(
        self, our_nodes: Nodes, ours: Front, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By a sweep, with other homes for the blocks: it isn't what the condition is asked of."""
        upload = await ours.create(path, len(CONTENT), conditions={"absent": ""})
        await become_a_file_untold(ours, upload, monkeypatch)
        before = await ours.manifest(path)
        (layout,) = before.layouts
        other = Layout(tuple(reversed(layout.nodes)), layout.pieces, layout.copies)
        assert await move(ours.cluster, paths.key_of(path), before.extents[0].stripe, {layout: other})
        assert (await ours.uploads.look(upload)).finished
        await ours.uploads.terminate(upload)
        await asyncio.sleep(0.2)
        assert await ours.read(path) == CONTENT


class TestBeingTerminated:
    async def test_its_blocks_are_freed(self, our_nodes: Nodes, ours: Front, path: str) -> None:
        upload = await ours.create(path, len(CONTENT))
        await ours.append(upload, 0, CONTENT[:-1])
        assert await of_upload(our_nodes, upload)
        await ours.uploads.terminate(upload)
        await wait_until_blocks(our_nodes, lambda blocks: not blocks, path)
        with pytest.raises(UploadGone):
            await ours.uploads.look(upload)

    async def test_a_piece_on_its_way_through_another_front_comes_to_nothing(
        self, our_nodes: Nodes, start: StartFront, path: str
    ) -> None:
        one, two = await start(our_nodes), await start(our_nodes)
        upload = await one.create(path, len(CONTENT))
        gated = Gated(CONTENT[:300_000], CONTENT[300_000:])
        going = asyncio.create_task(one.uploads.append(upload, 0, gated.chunks()))
        await gated.waits.wait()
        await two.uploads.terminate(upload)
        gated.go.set()
        with pytest.raises(UploadGone):
            await going
        assert await one.read(path) is None
        await wait_until_blocks(our_nodes, lambda blocks: not blocks, path)

    async def test_a_file_s_blocks_stay(self, our_nodes: Nodes, ours: Front, path: str) -> None:
        upload = await ours.create(path, len(CONTENT))
        await ours.append(upload, 0, CONTENT)
        await ours.uploads.terminate(upload)
        await asyncio.sleep(0.2)
        assert await ours.read(path) == CONTENT


class TestPuttingTogether:
    async def test_parts_that_can_not_be_had_all_are_given_back(self, front: Front, path: str) -> None:
        parts = [await front.create(None, 3, concat="partial") for _ in range(3)]
        for part in parts:
            await front.append(part, 0, b"abc")
        wanted = State(0, None, path=path, concat="final;")
        both = await asyncio.gather(
            front.uploads.concatenate(wanted, parts),
            front.uploads.concatenate(wanted, list(reversed(parts))),
            return_exceptions=True,
        )
        failures = [answer for answer in both if isinstance(answer, BaseException)]
        assert all(isinstance(failure, UploadConflict | UploadGone) for failure in failures), failures
        if len(failures) == 2:  # each had some of them
            await front.uploads.concatenate(wanted, parts)
        assert await front.read(path) == b"abc" * 3

    async def test_who_asks_twice_at_once_for_the_same_gets_the_same(
        self, our_nodes: Nodes, start: StartFront, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And who was slower doesn't take apart what the other one made a file of."""
        one, two = await start(our_nodes), await start(our_nodes)
        parts = [await one.create(None, len(CONTENT), concat="partial") for _ in range(2)]
        for part in parts:
            await one.append(part, 0, CONTENT)
        wanted = State(0, None, path=path, concat="final;")
        put, waits, go = Hold.put, asyncio.Event(), asyncio.Event()

        async def slow(self: Hold, state: State, **given: Any) -> State:
            if self._cluster is one.cluster and self.upload == parts[1] and state.final:
                waits.set()
                await go.wait()
            return await put(self, state, **given)

        monkeypatch.setattr(Hold, "put", slow)
        first = asyncio.create_task(one.uploads.concatenate(wanted, parts))
        await waits.wait()
        final, state = await two.uploads.concatenate(wanted, parts)
        assert state.finished
        go.set()
        assert await first == (final, state)
        for part in parts:
            with pytest.raises(UploadGone):
                await one.uploads.terminate(part)
        await are_those_of(our_nodes, one, path, *parts)
        assert await two.read(path) == 2 * CONTENT

    async def test_it_is_known_whose_the_blocks_are(self, our_nodes: Nodes, ours: Front, path: str) -> None:
        part = await ours.create(None, len(CONTENT), concat="partial")
        await ours.append(part, 0, CONTENT)
        final, _ = await ours.uploads.concatenate(State(0, None, path=path, concat="final;"), [part])
        state = (await ours.uploads._load(part, used=True)).state
        assert (state.into, state.final) == (path, final)
        await are_those_of(our_nodes, ours, path, part)


class TestWhenNodesAreAway:
    @pytest.fixture
    def three(self, tmp_path: Path) -> Any:
        """Three nodes, each of which can be stopped: address -> process."""
        with contextlib.ExitStack() as stack:
            running = [stack.enter_context(sfss_node(tmp_path / str(n), "--durability", "os")) for n in range(3)]
            yield {f"127.0.0.1:{port}": process for port, process in running}

    async def test_with_three_copies_an_upload_begins_and_ends_with_one_away(
        self, three: Any, start: StartFront, path: str
    ) -> None:
        storage = {"copies": 3, "write_quorum": 2, "read_quorum": 2, "timeout": 0.5}
        front = await start(list(three), storage=storage)
        away = front.cluster.topology.place(b"/" + path.encode()).owners[0]
        three[str(away.address)].kill()
        await until(lambda: away.away)
        upload = await front.create(path, len(CONTENT))
        await front.append(upload, 0, CONTENT[:300_000])
        await front.append(upload, 300_000, CONTENT[300_000:])
        assert await front.read(path) == CONTENT

    async def test_an_upload_whose_own_node_goes_away_says_so_and_goes_on_when_it_is_back(
        self, three: Any, start: StartFront, path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(upload_hold, "_AGAIN", (0.01,))
        storage = {"copies": 3, "write_quorum": 2, "read_quorum": 2, "timeout": 0.5, "connect_timeout": 2.0}
        front = await start(list(three), storage=storage)
        upload = await front.create(path, len(CONTENT))
        await front.append(upload, 0, CONTENT[:100_000])
        (decider,) = front.cluster.topology.place(b"#" + upload.encode()).deciders
        process = three[str(decider.address)]
        process.kill()
        process.wait()
        await until(lambda: decider.away)
        assert (await front.uploads.look(upload)).offset == 100_000
        untouched = Gated(b"", b"")
        with pytest.raises(Unavailable, match=str(decider.address)):
            await front.uploads.append(upload, 100_000, untouched.chunks())
        assert not untouched.waits.is_set()
        number = list(three).index(str(decider.address))
        with sfss_node(tmp_path / str(number), "--durability", "os", port=decider.address.port):
            await until(lambda: not decider.away)
            await front.append(upload, 100_000, CONTENT[100_000:])
            assert await front.read(path) == CONTENT

    async def test_a_state_whose_write_is_not_answered_is_asked_for_again(
        self, ours: Front, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may have come through."""
        upload = await ours.create(path, len(CONTENT))
        put_if, failing = ours.cluster.put_if, iter((True, False, True))

        async def unanswered(*args: Any) -> bool:
            done = await put_if(*args)
            if next(failing, False):
                raise Unavailable("nobody answered")
            return done

        monkeypatch.setattr(ours.cluster, "put_if", unanswered)
        await ours.append(upload, 0, CONTENT[:100_000])
        await ours.append(upload, 100_000, CONTENT[100_000:])
        assert await ours.read(path) == CONTENT

    async def test_a_piece_that_finds_no_room_leaves_the_upload_as_it_was(
        self, our_nodes: Nodes, ours: Front, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload = await ours.create(path, len(CONTENT))
        await ours.append(upload, 0, CONTENT[:100_000])
        put, calls = ours.cluster.blocks.put, iter(range(100))

        async def full(*args: Any) -> None:
            if next(calls) >= 3:
                raise OutOfSpace("no room")
            await put(*args)

        with monkeypatch.context() as patch:
            patch.setattr(ours.cluster.blocks, "put", full)
            with pytest.raises(OutOfSpace):
                await ours.append(upload, 100_000, CONTENT[100_000:])
        assert (await ours.uploads.look(upload)).offset == 100_000
        await ours.append(upload, 100_000, CONTENT[100_000:])
        assert await ours.read(path) == CONTENT
        await are_those_of(our_nodes, ours, path, upload)


class _Impatient:
    """A client that comes again before it has its answer, twice at once, to any front, and breaks off what it sends."""

    def __init__(self, fronts: list[Front], path: str, content: bytes, chance: random.Random) -> None:
        self.path, self.content = path, content
        self._fronts = fronts
        self._chance = chance

    async def run(self) -> None:
        async with asyncio.timeout(60):
            upload = ""
            while not upload:
                with contextlib.suppress(Unavailable):
                    upload = await self._chance.choice(self._fronts).create(self.path, len(self.content))
            await asyncio.gather(self._go_on(upload), self._go_on(upload))

    async def _go_on(self, upload: str) -> None:
        while True:
            front = self._chance.choice(self._fronts)
            with contextlib.suppress(UploadConflict, UploadLocked, BadBody, Unavailable):
                state = await front.uploads.look(upload)
                if state.finished:
                    return
                piece = self.content[state.offset : state.offset + self._chance.choice([10_000, 3 * LARGEST])]
                stop = asyncio.Event()
                body = self._body(piece, self._chance.choice([len(piece), len(piece) // 2 + 1]), stop)
                await front.uploads.append(upload, state.offset, body, size=len(piece), break_off=stop.set)
            await asyncio.sleep(self._chance.random() * 0.05)

    async def _body(self, piece: bytes, comes: int, stop: asyncio.Event) -> AsyncIterator[bytes]:
        async for chunk in in_chunks(piece[:comes], 20_000):
            if stop.is_set():
                break
            yield chunk
        if stop.is_set() or comes < len(piece):
            raise BadBody("it broke off")


def _spoil(thing: Any, name: str, chance: random.Random, often: float) -> None:
    """Have a call fail at times: before anything is done, or when it is done."""
    real = getattr(thing, name)

    async def spoilt(*args: Any, **given: Any) -> Any:
        luck = chance.random()
        if luck < often:
            raise Unavailable("it failed before")
        answer = await real(*args, **given)
        if luck < 2 * often:
            raise Unavailable("nobody answered")
        return answer

    setattr(thing, name, spoilt)


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("fails", [0.0, 0.05], ids=["all goes well", "calls fail"])
async def test_everything_at_once_leaves_whole_files_only(
    our_nodes: Nodes,
    start: StartFront,
    path: str,
    copies: int,
    fails: float,
    long: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of uploads to one path, one of them; of what was acknowledged, all, and no block of it was freed."""
    monkeypatch.setattr(upload_hold, "_AGAIN", (0.01, 0.02))
    quorum = copies // 2 + 1
    storage = {"copies": copies, "write_quorum": quorum, "read_quorum": quorum}
    fronts = [await start(our_nodes, storage=storage) for _ in range(4)]
    chance = random.Random(copies)
    for front in fronts[1:]:
        for name in ("get", "head", "get_for_update", "put", "put_if", "delete_if"):
            _spoil(front.cluster, name, chance, fails)
        _spoil(front.cluster.blocks, "put", chance, fails / 3)
        _spoil(front.cluster.blocks, "get", chance, fails / 3)
    for number in range(50 if long else 2):
        sizes = [chance.choice([1, 10, LARGEST, LARGEST + 1, 9 * LARGEST + 1, 20 * LARGEST]) for _ in range(4)]
        at = [f"{path}/{number}/{name}" for name in "abcc"]
        contents = [content_of(f"{number} {size} {n}", size) for n, size in enumerate(sizes)]
        clients = [_Impatient(fronts[1:], *pair, chance) for pair in zip(at, contents, strict=True)]
        await asyncio.gather(*(client.run() for client in clients))
        found = [await fronts[0].read(path) for path in at]
        assert found[:2] == contents[:2]
        assert found[2] in contents[2:]
