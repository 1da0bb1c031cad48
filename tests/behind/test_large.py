"""What is larger than a value of the store, comes in pieces, or is to be cut in pieces: the same as elsewhere."""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
from typing import Any

import pytest
from yarl import URL

from sfss import manifest
from sfss.behind.landing import Landing
from sfss.cluster.replication import Cluster
from sfss.cluster.sweeping.sweep import Sweep
from sfss.errors import OutOfSpace, TooLarge, Unavailable
from sfss.manifest import Manifest
from sfss.record import Kind, Record
from sfss.upload_hold import Hold
from sfss.upload_state import State
from tests.behind.support import MIB, Bench, Upload, file_at, listed, put, read, status, until
from tests.conftest import Client
from tests.large.support import content_of

KIB = 1024


@pytest.fixture(autouse=True)
def limits(bench: Bench) -> None:
    bench.sections = {"limits": {"record_size": "64KiB", "max_file_size": "64MiB", "linger": 0.0}}


async def test_a_large_file_goes_to_the_nodes_and_has_its_turn_among_what_waits(bench: Bench) -> None:
    front, other = await bench.front(), await bench.front()
    path = bench.path()
    large = content_of("large", MIB + 17)
    await put(front, path, b"small")
    await put(front, path, large)
    assert (await bench.figures()).files == 0  # it was acknowledged when the nodes had it
    assert (await bench.header(path)).kind == Kind.MANIFEST
    assert await read(other, path) == large
    assert await bench.drain() == 0
    assert await read(other, path) == large
    await put(other, path, b"small again")
    assert await read(front, path) == b"small again"
    await put(front, path, large[::-1])
    await put(front, path, b"at last")
    assert await read(other, path) == b"at last"
    assert await bench.drain() == 0
    assert await read(other, path) == b"at last"
    assert (await front.delete(file_at(path))).status == 204
    await bench.drain()
    assert await read(other, path) is None


def failing(patch: pytest.MonkeyPatch, error: Exception) -> None:
    """Have nothing come onto the nodes."""

    async def fail(_: Landing, path: str, found: Record) -> bool:
        raise error

    patch.setattr(Landing, "land", fail)


@pytest.mark.parametrize("before", ["nothing", "waits", "moved"])
async def test_a_large_file_whose_front_dies_before_its_answer_is_put_on_the_nodes_by_a_worker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    front, other = await bench.front(), await bench.front()
    path = bench.path()
    if before != "nothing":
        await put(front, path, b"before")
    if before == "moved":
        await bench.drain()
    large = content_of("large", 200 * KIB)
    with monkeypatch.context() as patch:
        failing(patch, Unavailable("it has died"))
        assert await status(front.put(file_at(path), data=large)) == 504
    assert await read(other, path) == (None if before == "nothing" else b"before")  # nobody was told of another
    assert await bench.drain() == 0
    assert (await bench.figures())[:3] == (0, 0, 0)
    assert (await read(other, path) == large) is True


@pytest.mark.parametrize("error", [OutOfSpace("full"), TooLarge("too large", limit=1, setting="x")])
@pytest.mark.parametrize("before", ["nothing", "waits", "moved"])
async def test_a_large_file_that_the_nodes_refuse_leaves_what_was_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, before: str, error: Exception
) -> None:
    front, other = await bench.front(), await bench.front()
    path = bench.path()
    if before != "nothing":
        await put(front, path, b"acknowledged")
    if before == "moved":
        await bench.drain()
    figures = await bench.figures()
    with monkeypatch.context() as patch:
        failing(patch, error)
        assert await status(front.put(file_at(path), data=content_of("large", 200 * KIB))) in (507, 413)
    expected = None if before == "nothing" else b"acknowledged"
    assert (await read(other, path) == expected) is True
    assert (await bench.figures())[:3] == figures[:3]
    assert await bench.drain() == 0
    assert (await read(other, path) == expected) is True
    await put(other, path, b"next")
    assert await bench.drain() == 0
    assert await read(front, path) == b"next"
    assert (await bench.figures())[:3] == (0, 0, 0)


async def test_what_is_on_its_way_comes_to_its_end_before_another_is_decided_upon(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, other = await bench.front(), await bench.front()
    path, large = bench.path(), content_of("large", 200 * KIB)
    was = await put(front, path, b"before")
    with monkeypatch.context() as patch:
        failing(patch, Unavailable("it has died"))
        assert await status(front.put(file_at(path), data=large)) == 504
        next_one: dict[str, Any] = {"data": b"next", "headers": {"If-Match": was}}
        assert await status(other.put(file_at(path), **next_one)) == 504  # whether that one is there isn't known now
    assert await status(other.put(file_at(path), **next_one)) == 412
    assert (await read(other, path) == large) is True
    with monkeypatch.context() as patch:
        failing(patch, Unavailable("it has died"))
        assert await status(front.put(file_at(path), data=large[::-1])) == 504
    await put(other, path, content := large[1:])
    assert (await read(front, path) == content) is True
    with monkeypatch.context() as patch:
        failing(patch, Unavailable("it has died"))
        assert await status(front.put(file_at(path), data=large)) == 504
    await put(other, path, b"small")
    assert (await bench.figures()).tasks == 1
    assert await bench.drain() == 0
    assert await read(front, path) == b"small"
    assert (await bench.figures())[:3] == (0, 0, 0)


async def test_what_a_dead_front_left_on_its_way_is_given_up_when_its_blocks_may_be_swept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, other = await bench.front(), await bench.front()
    path = bench.path()
    await put(front, path, b"acknowledged")
    with monkeypatch.context() as patch:
        failing(patch, Unavailable("it has died"))
        assert await status(front.put(file_at(path), data=content_of("large", 200 * KIB))) == 504
    monkeypatch.setattr(Landing, "may_be_swept", lambda *_: True)
    assert await bench.drain() == 1  # its front may be at it
    assert await status(other.put(file_at(path), data=b"x", headers={"If-Match": "*"})) == 504
    monkeypatch.setattr(Landing, "is_forsaken", lambda *_: True)
    assert await bench.drain() == 0
    assert await read(other, path) == b"acknowledged"
    assert (await bench.figures())[:3] == (0, 0, 0)


async def test_an_upload_that_isn_t_on_the_nodes_yet_keeps_its_blocks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = await bench.front()
    path, content = bench.path(), content_of("tus", 200 * KIB)
    await put(front, path, b"before")
    tus = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
    about = f"path {base64.b64encode(path.encode()).decode()}"
    told = {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(content)), "Upload-Metadata": about}
    where = (await front.post("/uploads", headers=told)).headers["Location"]
    with monkeypatch.context() as patch:
        failing(patch, Unavailable("it has died"))
        assert await status(front.patch(where, data=content, headers={**tus, "Upload-Offset": "0"})) == 504
        at_the_end = {**tus, "Upload-Offset": str(len(content))}
        assert await status(front.patch(where, data=b"", headers=at_the_end)) == 504  # it isn't a file yet
    monkeypatch.setattr("sfss.cluster.sweeping.stripeturn.MARGIN", 0.0)
    async with bench.cluster() as cluster:
        await Sweep(cluster, upload_time=0.0).run()
    assert await status(front.patch(where, data=b"", headers=at_the_end)) == 204
    assert (await read(front, path) == content) is True
    assert await bench.drain() == 0
    assert (await read(front, path) == content) is True


@pytest.mark.parametrize("then", ["overwritten", "deleted"])
@pytest.mark.parametrize("is_seen", [True, False], ids=["seen", "unseen"])
@pytest.mark.parametrize("headers", [{}, {"If-None-Match": "*"}], ids=["put", "create"])
async def test_a_large_file_has_one_turn_also_if_a_worker_lands_it_and_another_comes_while_its_front_stands_still(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], is_seen: bool, then: str
) -> None:
    front, other = await bench.front(), await bench.front()
    path, large = bench.path(), content_of("large", 200 * KIB)
    land, stands_still, goes_on = Landing.land, asyncio.Event(), asyncio.Event()
    gone: list[Manifest] = []

    async def once_slowly(landing: Landing, path: str, found: Record) -> bool:
        if not stands_still.is_set():
            gone.append(manifest.decode(found.payload))
            stands_still.set()
            await goes_on.wait()
        return await land(landing, path, found)

    monkeypatch.setattr(Landing, "land", once_slowly)
    slow = asyncio.create_task(status(front.put(file_at(path), data=large, headers=headers)))
    await stands_still.wait()
    if is_seen:
        assert await bench.drain() == 0
        assert (await read(other, path) == large) is True
    if then == "overwritten":
        await put(other, path, b"behind it")
    elif is_seen:
        assert (await other.delete(file_at(path))).status == 204
    else:
        await put(other, path, b"behind it")
        assert (await other.delete(file_at(path))).status == 204
    assert await bench.drain() == 0
    goes_on.set()
    assert await slow == 200  # it has had its turn: before what is there now
    assert await bench.drain() == 0
    for each in (front, other):
        assert await read(each, path) == (b"behind it" if then == "overwritten" else None)
    async with bench.cluster() as cluster:  # nothing of it is left
        for block in manifest.blocks(gone[0], 0, gone[0].size):
            await until(functools.partial(is_gone, cluster, block.key))


async def is_gone(cluster: Cluster, key: bytes) -> bool:
    """Whether no node has it."""
    return all([await node.get(key) is None for node in cluster.topology.nodes.values()])


async def test_conditions_hold_for_large_files_too(bench: Bench) -> None:
    front = await bench.front()
    path, large = bench.path(), content_of("large", 200 * KIB)
    await put(front, path, b"small")
    answer = await front.put(file_at(path), data=large, headers={"If-None-Match": "*"})
    assert answer.status == 412
    etag = f'"{hashlib.sha256(b"small").hexdigest()}"'
    answer = await front.put(file_at(path), data=large, headers={"If-Match": etag})
    assert answer.status == 200, await answer.text()
    answer = await front.put(file_at(path), data=large, headers={"If-Match": etag})
    assert answer.status == 412
    assert await read(front, path) == large


@pytest.mark.parametrize("size", [3, 1000, 50 * KIB, 300 * KIB])
async def test_equal_pieces_are_cut_by_the_worker(bench: Bench, size: int) -> None:
    bench.policy = {"pieces": 3}
    front = await bench.front()
    path, content = bench.path(), content_of("pieces", size)
    await put(front, path, content)
    assert await read(front, path) == content
    assert await bench.drain() == 0
    found = await bench.on_nodes(path)
    assert found is not None
    assert found.header.kind == Kind.MANIFEST
    whole = manifest.decode(found.payload)
    assert len({node for layout in whole.layouts for node in layout.nodes}) == 3
    assert await read(front, path) == content
    await put(front, path, content[::-1])
    await bench.drain()
    assert await read(front, path) == content[::-1]


@pytest.mark.parametrize("size", [10, 200 * KIB])
async def test_resumable_uploads_become_files_that_wait_or_go_to_the_nodes(bench: Bench, size: int) -> None:
    front = await bench.front()
    path, content = bench.path(), content_of("tus", size)
    tus = {"Tus-Resumable": "1.0.0"}
    about = f"path {base64.b64encode(path.encode()).decode()}"
    for number, body in enumerate((content, content[::-1])):
        headers = {**tus, "Upload-Length": str(size), "Upload-Metadata": about}
        answer = await front.post("/uploads", headers=headers)
        assert answer.status == 201, await answer.text()
        where = answer.headers["Location"]
        for start in (0, size // 2):
            piece = body[start:] if start else body[: size // 2]
            headers = {**tus, "Upload-Offset": str(start), "Content-Type": "application/offset+octet-stream"}
            answer = await front.patch(where, data=piece, headers=headers)
            assert answer.status == 204, await answer.text()
        assert await read(front, path) == body
        if number == 0:
            assert await bench.drain() == 0
            assert await read(front, path) == body


@pytest.mark.parametrize("size", [10, 200 * KIB])
@pytest.mark.parametrize("linger", [0.0, 60.0], ids=["blocks are freed", "blocks linger"])
async def test_an_upload_that_was_to_be_new_and_was_deleted_doesn_t_come_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, size: int, linger: float
) -> None:
    """Its front died when it was a file, before the upload's state told it."""
    bench.sections["limits"]["linger"] = linger
    front, other = await bench.front(), await bench.front()
    path, content = bench.path(), content_of("tus", size)
    upload = await Upload.begun(front, path, content, **{"If-None-Match": "*"})
    put_state = Hold.put

    async def dies(self: Hold, state: State, *, patient: bool = True) -> State:
        if state.finished:
            raise Unavailable("it has died")
        return await put_state(self, state, patient=patient)

    with monkeypatch.context() as patch:
        patch.setattr(Hold, "put", dies)
        assert await upload.send() == 504
    assert (await read(other, path) == content) is True
    assert (await other.delete(file_at(path))).status == 204
    for _ in range(2):
        assert await upload.end(other) == 410
        assert await upload.look() == 410
        assert await read(other, path) is None
        assert await bench.drain() == 0
    await put(other, path, b"next", **{"If-None-Match": "*"})


async def test_files_without_a_path_may_wait_too(bench: Bench) -> None:
    bench.sections["ids"] = {"folder": bench.prefix.rstrip("/")}
    front = await bench.front()
    answer = await front.post("/files", data=b"hello")
    assert answer.status == 201, await answer.text()
    where = answer.headers["Location"]
    for _ in range(2):
        got = await front.get(URL(where, encoded=True))
        assert await got.read() == b"hello"
        await bench.drain()
    assert len(await listed(front, prefix=bench.prefix)) == 1
    assert (await front.delete(URL(where, encoded=True))).status == 204
    assert (await front.get(URL(where, encoded=True))).status == 404


async def test_a_quota_counts_what_waits(bench: Bench) -> None:
    name = bench.prefix.rstrip("/")
    bench.policy = {}
    space = {"name": name, "quota": 1000, "write_behind": bench.url}
    front = await bench.front(namespace=[space], policy=[])

    async def counted(front: Client, path: str, content: bytes) -> int:
        """The status, once the front has counted."""
        while (answer := await front.put(file_at(path), data=content)).status == 504:
            await asyncio.sleep(0.05)
        return answer.status

    path = f"{name}/a"
    assert await counted(front, path, b"x" * 600) == 200
    assert await counted(front, f"{name}/b", b"y" * 600) == 507
    other = await bench.front(namespace=[space], policy=[])
    assert await counted(other, f"{name}/b", b"y" * 600) == 507
    await put(other, path, b"x" * 900)
    assert (await other.delete(file_at(path))).status == 204
    await put(other, f"{name}/b", b"y" * 900)
