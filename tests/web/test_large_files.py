"""Large files by HTTP: every size and range at its edges; and of what fails, nothing is seen and nothing is left."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfss.addresses import parse_address
from sfss.backends.memcached import MemcachedNode
from sfss.cluster.replication import Cluster
from sfss.cluster.topology import Topology
from sfss.config import Limits, Settings
from sfss.files import Files
from sfss.manifest import NOTHING
from sfss.policies import Policies
from sfss.record import MAX_OVERHEAD
from sfss.web.conditional import Unsatisfiable, Validators, byte_range
from tests.backends.beansdb import beansdb
from tests.cluster.support import connected as cluster_connected
from tests.conftest import Client, Nodes, StartFront
from tests.large.support import KIB, MIB, blocks_on, connected, content_of, in_chunks, received, wait_until_blocks
from tests.servers import HOST, PATIENT, memcached, sfss_node
from tests.web.test_files import etag, problem, put, read, url

LARGEST = 64 * KIB - MAX_OVERHEAD  # bytes of a block
LIMITS = {"record_size": "64KiB", "max_file_size": "64MiB", "linger": 0.0}
CONTENT = content_of("large", 20 * LARGEST + 17)


@pytest.fixture
def path() -> str:
    return f"large/{secrets.token_hex(8)}/film.mp4"


@pytest.fixture
async def front(nodes: Nodes, start_front: StartFront) -> Client:
    """Over each kind of node in turn."""
    return await start_front(nodes, limits=LIMITS)


@pytest.fixture
async def ours(our_nodes: Nodes, start_front: StartFront) -> Client:
    """Over nodes that can tell which blocks they have."""
    return await start_front(our_nodes, limits=LIMITS)


class TestSizes:
    @pytest.mark.parametrize("is_known", [True, False], ids=["known", "unknown"])
    @pytest.mark.parametrize("blocks", [1, 2, 3, 6, 20])
    async def test_around_multiples_of_the_block_every_file_comes_back(
        self, front: Client, path: str, blocks: int, is_known: bool
    ) -> None:
        for size in range(blocks * LARGEST - 1, blocks * LARGEST + 2):
            content = content_of(f"{path} {size}", size)
            body = content if is_known else in_chunks(content)
            answer = await front.put(url(path), data=body)
            assert (answer.status, answer.headers["ETag"]) == (200, etag(content)), await answer.text()
            answer = await front.get(url(path))
            assert await answer.read() == content
            assert answer.headers["ETag"] == etag(content)
            assert answer.headers["Content-Length"] == str(size)
            head = await front.head(url(path))
            for name in ("ETag", "Content-Length", "Content-Type", "Last-Modified", "Accept-Ranges"):
                assert head.headers[name] == answer.headers[name]

    async def test_what_a_small_file_says_of_itself_a_large_one_says_too(self, front: Client, path: str) -> None:
        for content in (b"small", CONTENT):
            posted = await front.post(url(path), data=content, headers={"Content-Type": "x/y", "X-Meta-A": "b"})
            assert posted.status == 201
            got = await front.get(url(path))
            assert got.headers["Content-Type"] == "x/y"
            assert got.headers["X-Meta-A"] == "b"
            assert got.headers["X-Content-Type-Options"] == "nosniff"
            assert got.headers["Content-Security-Policy"] == "sandbox"

    @pytest.mark.parametrize("field", ["upload_file", "another"])
    async def test_a_form_s_file_may_be_large(self, front: Client, path: str, field: str) -> None:
        form = aiohttp.FormData({"comment": "hello"})
        form.add_field(field, CONTENT, filename="x.bin", content_type="x/form")
        assert (await front.post(url(path), data=form)).status == 201
        answer = await front.get(url(path))
        assert await answer.read() == CONTENT
        assert answer.headers["Content-Type"] == "x/form"

    @pytest.mark.parametrize("name", ["x" * 1024, "ж" * 512, "a b%/" + "c" * 300, "#b/1"])
    async def test_any_name_will_do(self, ours: Client, our_nodes: Nodes, name: str) -> None:
        for content in (CONTENT, CONTENT[::-1]):
            assert (await put(ours, name, content)).status == 200
            assert await read(ours, name) == (200, content)
        assert (await ours.delete(url(name))).status == 204
        await wait_until_blocks(our_nodes, lambda blocks: not blocks, name)

    async def test_small_and_large_take_each_other_s_place(self, front: Client, path: str) -> None:
        for content in (b"small", CONTENT, b"", CONTENT[::-1], CONTENT, b"x"):
            assert (await put(front, path, content)).status == 200
            assert await read(front, path) == (200, content)
        assert (await front.delete(url(path))).status == 204
        assert (await read(front, path))[0] == 404

    async def test_above_the_limit_it_is_refused_at_once_or_as_it_comes(self, ours: Client, path: str, our_nodes: Nodes,
                                                                       start_front: StartFront) -> None:  # fmt: skip
        limit = 5 * LARGEST + 3
        front = await start_front(our_nodes, limits={**LIMITS, "max_file_size": limit})
        assert (await put(front, path, CONTENT[:limit])).status == 200
        for body in (CONTENT, in_chunks(CONTENT), in_chunks(CONTENT[: limit + 1])):
            answer = await front.put(url(path), data=body)
            assert "limits.max_file_size" in await problem(answer, 413)
        form = aiohttp.FormData()
        form.add_field("upload_file", CONTENT[: limit + 1], filename="x")
        await problem(await front.post(url(path), data=form), 413)
        assert await read(front, path) == (200, CONTENT[:limit])
        await wait_until_blocks(our_nodes, lambda blocks: sum(b.header.size for b in blocks) == limit, path)


class TestPolicies:
    async def test_five_pieces_of_a_hundred_bytes_are_twenty_each_on_five_nodes(
        self, start_front: StartFront, tmp_path: Path
    ) -> None:
        with contextlib.ExitStack() as stack:  # all new: beside nodes that have been swept, new ones pass for emptied
            ports = [stack.enter_context(sfss_node(tmp_path / str(n)))[0] for n in range(5)]
            five = [f"{HOST}:{port}" for port in ports]
            policy = [{"prefix": "five/", "pieces": 5}, {"prefix": "five/two/", "pieces": 5, "copies": 2},
                      {"prefix": "tight/", "max_file_size": 100}]  # fmt: skip
            front = await start_front(five, limits=LIMITS, policy=policy)
            for folder, copies in (("five", 1), ("five/two", 2)):
                path, content = f"{folder}/{secrets.token_hex(8)}", CONTENT[:100]
                for body in (content, in_chunks(content, 33)):
                    assert (await front.put(url(path), data=body)).status == 200
                    assert await read(front, path) == (200, content)
                    blocks = await wait_until_blocks(five, lambda found: len({b.stripe for b in found}) == 1, path)
                    assert [block.header.size for block in blocks] == [20] * 5 * copies
                    at = [block.node for block in blocks]
                    assert sorted(at) == sorted(five * copies)
                    assert len({(block.node, block.number) for block in blocks}) == 5 * copies
                assert await read(front, path, {"Range": "bytes=19-20"}) == (206, content[19:21])
            assert (await put(front, "tight/x", bytes(100))).status == 200
            assert "'tight/'" in await problem(await put(front, "tight/x", bytes(101)), 413)
            assert (await put(front, "x", bytes(101))).status == 200

    @pytest.mark.parametrize("content", [b"", b"1", b"12", b"123456"])
    async def test_there_may_be_fewer_bytes_than_pieces(
        self, start_front: StartFront, nodes: Nodes, path: str, content: bytes
    ) -> None:
        front = await start_front(nodes, limits=LIMITS, policy=[{"prefix": "", "pieces": 3}])
        for body in (content, in_chunks(content, 1)):
            assert (await front.put(url(path), data=body)).status == 200
            assert await read(front, path) == (200, content)
            assert (await front.head(url(path))).headers["Content-Length"] == str(len(content))


SIZE = 5 * LARGEST + 100


class TestRanges:
    async def test_every_range_at_every_edge(self, front: Client, path: str) -> None:
        content = CONTENT[:SIZE]
        await put(front, path, content)
        block = -(-SIZE // 6)  # of 6 blocks, equal but for the last one
        edges = sorted({max(0, n * block + off) for n in range(7) for off in (-1, 0, 1)} | {SIZE - 1, SIZE, SIZE + 1})
        asked = [f"{first}-{last}" for first in edges for last in edges[::3]]
        asked += [f"{first}-" for first in edges] + [f"-{last}" for last in edges]
        asked += [f"{first}-{first}" for first in edges]
        for spec in asked:
            headers = {"Range": f"bytes={spec}"}
            answer = await front.get(url(path), headers=headers)
            got = await answer.read()
            try:
                part = byte_range(headers, Validators(etag(content), 0), SIZE)
            except Unsatisfiable:
                assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{SIZE}"), spec
                continue
            if part is None:
                assert (answer.status, got) == (200, content), spec
                continue
            assert (answer.status, got) == (206, content[slice(*part)]), spec
            assert answer.headers["Content-Range"] == f"bytes {part[0]}-{part[1] - 1}/{SIZE}"
            assert answer.headers["Content-Length"] == str(part[1] - part[0])

    async def test_a_part_is_read_from_the_blocks_that_hold_it_alone(self, ours: Client, path: str,
                                                                    our_nodes: Nodes) -> None:  # fmt: skip
        await put(ours, path, CONTENT)
        block = -(-len(CONTENT) // 21)

        async def gets() -> int:
            found = await (await ours.get("/status")).json()
            return sum(int(stats["cmd_get"]) for stats in found.values())

        before = await gets()
        assert await read(ours, path, {"Range": f"bytes={block - 1}-{block}"}) == (206, CONTENT[block - 1 : block + 1])
        assert await gets() - before <= 1 + 2

    async def test_if_range_holds_for_the_file_as_it_is(self, front: Client, path: str) -> None:
        await put(front, path, CONTENT)
        headers = {"Range": "bytes=70000-140000", "If-Range": etag(CONTENT)}
        assert await read(front, path, headers) == (206, CONTENT[70000:140001])
        await put(front, path, CONTENT[::-1])
        assert await read(front, path, headers) == (200, CONTENT[::-1]), "never a part of another file"

    async def test_conditions_hold_as_for_small_files(self, front: Client, path: str) -> None:
        await put(front, path, CONTENT)
        assert await read(front, path, {"If-None-Match": etag(CONTENT)}) == (304, b"")
        assert (await read(front, path, {"If-Match": etag(b"another")}))[0] == 412
        assert (await put(front, path, CONTENT[1:], {"If-None-Match": "*"})).status == 412
        assert (await put(front, path, CONTENT[1:], {"If-Match": etag(b"another")})).status == 412
        assert (await put(front, path, CONTENT[1:], {"If-Match": etag(CONTENT)})).status == 200
        assert await read(front, path) == (200, CONTENT[1:])
        assert (await front.delete(url(path), headers={"If-Match": etag(CONTENT)})).status == 412
        assert (await front.delete(url(path), headers={"If-Match": etag(CONTENT[1:])})).status == 204
        assert (await read(front, path))[0] == 404


class TestFreeing:
    async def test_what_is_replaced_or_deleted_frees_its_blocks(
        self, ours: Client, path: str, our_nodes: Nodes
    ) -> None:
        for content in (CONTENT, CONTENT[::-1], CONTENT[1:]):
            await put(ours, path, content)
            size = len(content)
            await wait_until_blocks(our_nodes, lambda found: sum(b.header.size for b in found) == size, path)  # noqa: B023
        tag = etag(CONTENT[1:])
        assert (await put(ours, path, CONTENT, {"If-Match": tag})).status == 200
        await wait_until_blocks(our_nodes, lambda found: sum(b.header.size for b in found) == len(CONTENT), path)
        assert (await ours.delete(url(path))).status == 204
        await wait_until_blocks(our_nodes, lambda found: not found, path)

    async def test_a_conditional_delete_frees_them_too(self, ours: Client, path: str, our_nodes: Nodes) -> None:
        await put(ours, path, CONTENT)
        assert (await ours.delete(url(path), headers={"If-Match": etag(CONTENT)})).status == 204
        await wait_until_blocks(our_nodes, lambda found: not found, path)


@pytest.fixture(params=[None, b"small", CONTENT[::-1]], ids=["none", "small", "large"])
async def before(request: pytest.FixtureRequest, ours: Client, path: str) -> bytes | None:
    """What is at the path before."""
    content: bytes | None = request.param
    if content is not None:
        assert (await put(ours, path, content)).status == 200
    return content


async def check_unchanged(front: Client, nodes: Nodes, path: str, before: bytes | None) -> None:
    """Of what failed nothing is seen, and nothing is left."""
    assert await read(front, path) == (200, before) if before is not None else (await read(front, path))[0] == 404
    large = before if before is not None and len(before) > LARGEST else b""
    await wait_until_blocks(nodes, lambda found: sum(b.header.size for b in found) == len(large), path)


class TestFailures:
    """An upload that fails changes nothing, and its blocks go."""

    @pytest.mark.parametrize("is_known", [True, False])
    async def test_a_client_that_goes_away(
        self, ours: Client, our_nodes: Nodes, path: str, before: bytes | None, is_known: bool
    ) -> None:
        for sent in (1, LARGEST, 10 * LARGEST, len(CONTENT) - 1):
            _, writer = await asyncio.open_connection(ours.host, ours.port)
            length = f"Content-Length: {len(CONTENT)}" if is_known else "Transfer-Encoding: chunked"
            writer.write(f"PUT {url(path)} HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode())
            writer.write(CONTENT[:sent] if is_known else b"%x\r\n%b\r\n" % (sent, CONTENT[:sent]))
            await writer.drain()
            await asyncio.sleep(0.05)
            if sent % 2:
                writer.transport.abort()
            else:
                writer.close()
        await asyncio.sleep(0.1)
        await check_unchanged(ours, our_nodes, path, before)

    async def test_a_body_that_stands_still(
        self, start_front: StartFront, our_nodes: Nodes, ours: Client, path: str, before: bytes | None
    ) -> None:
        front = await start_front(our_nodes, limits={**LIMITS, "body_timeout": 0.2})
        reader, writer = await asyncio.open_connection(front.host, front.port)
        writer.write(f"PUT {url(path)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode())
        writer.write(CONTENT[:-1])
        assert b" 408 " in await reader.readline()
        writer.close()
        await check_unchanged(ours, our_nodes, path, before)

    @pytest.mark.parametrize("is_known", [True, False])
    async def test_a_digest_that_isn_t_the_content_s(
        self, ours: Client, our_nodes: Nodes, path: str, before: bytes | None, is_known: bool
    ) -> None:
        wrong = base64.b64encode(hashlib.sha256(CONTENT + b"x").digest()).decode()
        right = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
        body = CONTENT if is_known else in_chunks(CONTENT)
        answer = await ours.put(url(path), data=body, headers={"Content-Digest": f"sha-256=:{wrong}:"})
        await problem(answer, 400)
        await check_unchanged(ours, our_nodes, path, before)
        answer = await put(ours, path, CONTENT, {"Content-Digest": f"sha-256=:{right}:"})
        assert answer.status == 200
        assert await read(ours, path) == (200, CONTENT)

    async def test_too_many_bytes(
        self, start_front: StartFront, our_nodes: Nodes, ours: Client, path: str, before: bytes | None
    ) -> None:
        front = await start_front(our_nodes, limits={**LIMITS, "max_file_size": len(CONTENT) - 1})
        await problem(await front.put(url(path), data=in_chunks(CONTENT)), 413)
        await check_unchanged(ours, our_nodes, path, before)

    async def test_a_form_that_breaks_off_or_is_none(
        self, ours: Client, our_nodes: Nodes, path: str, before: bytes | None
    ) -> None:
        begin = b'--x\r\nContent-Disposition: form-data; name="upload_file"; filename="a"\r\n'
        for body in (
            begin + b"\r\n" + CONTENT,
            begin + b"\r\n" + CONTENT + b"\r\n--x\r\n",
            begin + b"Content-Type: no type\r\n\r\n" + CONTENT + b"\r\n--x--\r\n",
            begin + b"\r\n" + CONTENT + b"\r\n" + begin + b"\r\nsecond\r\n--x--\r\n",
        ):
            headers = {"Content-Type": "multipart/form-data; boundary=x"}
            await problem(await ours.post(url(path), data=body, headers=headers), 400)
        await check_unchanged(ours, our_nodes, path, before)

    async def test_a_condition_that_another_write_breaks_meanwhile(
        self, ours: Client, our_nodes: Nodes, path: str
    ) -> None:
        going_on = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield CONTENT[: 10 * LARGEST]
            await going_on.wait()
            yield CONTENT[10 * LARGEST :]

        first = asyncio.create_task(ours.put(url(path), data=body(), headers={"If-None-Match": "*"}))
        await wait_until_blocks(our_nodes, len, path)
        assert (await put(ours, path, CONTENT[::-1], {"If-None-Match": "*"})).status == 200
        going_on.set()
        await problem(await first, 412)
        await check_unchanged(ours, our_nodes, path, CONTENT[::-1])

    async def test_nodes_without_room(self, start_front: StartFront, path: str) -> None:
        with memcached("-M", "-m", "8") as one, memcached("-M", "-m", "8") as two:
            nodes = [f"{HOST}:{one}", f"{HOST}:{two}"]
            front = await start_front(nodes, limits=LIMITS)
            assert (await put(front, path, CONTENT)).status == 200
            for body in (bytes(32 * MIB), in_chunks(bytes(32 * MIB))):
                answer = await front.put(url(path), data=body)
                assert "has no room" in await problem(answer, 507)
                assert await read(front, path) == (200, CONTENT)
            for _ in range(20):  # there is room again
                if (await put(front, path, CONTENT[::-1])).status == 200:
                    break
                await asyncio.sleep(0.1)
            assert await read(front, path) == (200, CONTENT[::-1])


class TestReading:
    async def corrupt(self, nodes: Nodes, path: str, number: int) -> None:
        """Damage every copy of a block."""
        for block in await blocks_on(nodes, path):
            if block.number == number:
                async with connected(block.node) as node:
                    data = await node.get(block.key)
                    assert data is not None
                    await node.delete(block.key)
                    await node.set(block.key, data[:-1] + bytes([data[-1] ^ 1]))

    async def test_a_block_that_is_damaged_in_the_middle_cuts_the_connection(
        self, ours: Client, our_nodes: Nodes, path: str
    ) -> None:
        await put(ours, path, CONTENT)
        block = -(-len(CONTENT) // 21)
        await self.corrupt(our_nodes, path, 10)
        answer = await ours.get(url(path))
        assert answer.status == 200
        got, is_whole = await received(answer)
        assert not is_whole
        assert got == CONTENT[: len(got)]
        assert len(got) <= 10 * block
        # What doesn't touch it is read.
        rest = 11 * block
        assert await read(ours, path, {"Range": f"bytes={rest}-"}) == (206, CONTENT[rest:])
        answer = await ours.get(url(path), headers={"Range": f"bytes={10 * block}-"})
        assert "not served" in await problem(answer, 504)

    async def test_a_first_block_that_is_damaged_or_lost_is_an_error_in_words(
        self, ours: Client, our_nodes: Nodes, path: str
    ) -> None:
        await put(ours, path, CONTENT)
        await self.corrupt(our_nodes, path, 0)
        assert "not served" in await problem(await ours.get(url(path)), 504)
        for block in await blocks_on(our_nodes, path):
            async with connected(block.node) as node:
                await node.delete(block.key)
        assert "isn't there" in await problem(await ours.get(url(path)), 504)
        assert (await put(ours, path, CONTENT)).status == 200
        assert await read(ours, path) == (200, CONTENT)

    async def test_a_file_of_no_blocks_is_empty(self, ours: Client, our_nodes: Nodes, path: str) -> None:
        """As an upload of nothing leaves it."""
        clients = [MemcachedNode(parse_address(node), largest_value=MIB, **PATIENT) for node in our_nodes]
        async with cluster_connected(Cluster(Topology(clients))) as cluster:
            files = Files(cluster, policies=Policies(Settings()), limits=Limits())
            await files.put_manifest(path, NOTHING, hashlib.sha256().digest())
        answer = await ours.get(url(path))
        assert (answer.status, await answer.read(), answer.headers["Content-Length"]) == (200, b"", "0")
        assert (await read(ours, path, {"Range": "bytes=0-"}))[0] == 416

    async def test_a_reader_who_doesn_t_read_is_given_up(
        self, start_front: StartFront, our_nodes: Nodes, path: str
    ) -> None:
        content = content_of("slow", 24 * MIB)
        front = await start_front(our_nodes, limits={**LIMITS, "body_timeout": 1.0})
        assert (await put(front, path, content)).status == 200
        reader, writer = await asyncio.open_connection(front.host, front.port, limit=2**16)
        writer.write(f"GET {url(path)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await asyncio.sleep(2.5)
        got = 0
        try:
            while chunk := await reader.read(MIB):
                got += len(chunk)
        except ConnectionError:
            pass
        assert got < len(content)
        writer.close()
        assert await read(front, path) == (200, content)

    @pytest.mark.parametrize("change", ["overwritten", "overwritten by a small one", "deleted"])
    @pytest.mark.parametrize("linger", [0.0, 60.0])
    async def test_a_reader_gets_the_old_file_whole_or_a_clean_cut(
        self, start_front: StartFront, our_nodes: Nodes, path: str, change: str, linger: float
    ) -> None:
        """Here, where it is known who reads, always whole; through another front if the blocks linger as long."""
        old, new = content_of("old", 24 * MIB), content_of("new", 24 * MIB)
        limits = {**LIMITS, "linger": linger}
        front, another = await start_front(our_nodes, limits=limits), await start_front(our_nodes, limits=limits)
        assert (await put(front, path, old)).status == 200
        answers = [await front.get(url(path)), await another.get(url(path))]
        begun = [await answer.content.readexactly(100) for answer in answers]
        if change == "deleted":
            assert (await front.delete(url(path))).status == 204
        else:
            assert (await put(front, path, b"small" if change.endswith("small one") else new)).status == 200
        await asyncio.sleep(0.3)
        for answer, got in zip(answers, begun, strict=True):
            rest, is_whole = await received(answer)
            got += rest
            assert got == old[: len(got)]
            assert (len(got) == len(old)) == is_whole
            assert is_whole or (answer is answers[1] and linger == 0.0)
        status, content = await read(front, path)
        assert (status, content) in [(200, new), (200, b"small")] if change != "deleted" else status == 404


async def test_over_memcached_of_1_mib_and_ours_records_fit(
    start_front: StartFront, our_nodes: Nodes, small_memcached: Nodes, path: str
) -> None:
    """With the settings as they are delivered, but for the largest file."""
    front = await start_front([*our_nodes[:2], *small_memcached], limits={"max_file_size": "64MiB"})
    for size in (MIB - 9000, MIB - MAX_OVERHEAD, MIB - MAX_OVERHEAD + 1, MIB, 2 * MIB, 17 * MIB + 1):
        content = content_of(f"{size}", size)
        for body in (content, in_chunks(content)):
            answer = await front.put(url(path), data=body, headers={"X-Meta-A": "x" * 4000, "Content-Type": "x/y"})
            assert answer.status == 200, await answer.text()
            assert await read(front, path) == (200, content)
    held = await (await front.get("/status")).json()
    assert all(int(stats["curr_items"]) > 0 for stats in held.values())


async def test_over_beansdb_which_has_neither_add_nor_cas(start_front: StartFront, path: str) -> None:
    async with beansdb("bitcask") as one, beansdb("tokyo") as two:
        front = await start_front([f"{HOST}:{one.port}", f"{HOST}:{two.port}"], limits=LIMITS)
        for content in (CONTENT, CONTENT[::-1], b"small", CONTENT):
            assert (await put(front, path, content)).status == 200
            assert await read(front, path) == (200, content)
            assert await read(front, path, {"Range": "bytes=-1"}) == (206, content[-1:])
        assert (await put(front, path, CONTENT, {"If-None-Match": "*"})).status == 412
        assert (await front.delete(url(path))).status == 204
        assert (await read(front, path))[0] == 404
        assert one.violations == two.violations == []


@given(st.lists(st.tuples(st.integers(0, 70_000), st.integers(1, 5000)), min_size=1, max_size=3))
@settings(max_examples=20)
def test_content_tells_where_it_is_from(places: list[tuple[int, int]]) -> None:
    """Or else a mixture of two files could look like one of them."""
    one, two = content_of("one", 80_000), content_of("two", 80_000)
    for start, size in places:
        assert one[start : start + size] != two[start : start + size] or size < 16
