"""/file and /files, over our own nodes and over memcached: what each request answers, and what it leaves behind."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import secrets
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path

import aiohttp
import pytest
from multidict import CIMultiDict
from yarl import URL

from sfss.paths import key_of
from tests.conftest import Client, Nodes, StartFront
from tests.servers import HOST, memcached, sfss_node

CONTENT = bytes(range(256)) * 20


@pytest.fixture
def path() -> str:
    return f"tests/{secrets.token_hex(8)}/cat.jpg"


def url(path: str, page: str = "/file") -> URL:
    return URL(page).with_query(path=path)


def etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()}"'


async def put(
    front: Client, path: str, content: bytes = CONTENT, headers: dict[str, str] | None = None
) -> aiohttp.ClientResponse:
    return await front.put(url(path), data=content, headers=headers)


async def read(front: Client, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    answer = await front.get(url(path), headers=headers)
    return answer.status, await answer.read()


async def problem(answer: aiohttp.ClientResponse, status: int) -> str:
    """Check that the answer is a problem document of this status; its detail."""
    body = await answer.json(content_type="application/problem+json")
    assert (answer.status, body["status"]) == (status, status), body
    assert body["type"].startswith("urn:sfss:")
    assert body["title"]
    detail: str = body["detail"]
    return detail


class TestWriting:
    @pytest.mark.parametrize("page", ["/file", "/files"])
    async def test_post_creates_with_201_and_says_where(self, front: Client, path: str, page: str) -> None:
        answer = await front.post(url(path, page), data=CONTENT)
        assert answer.status == 201
        assert answer.headers["ETag"] == etag(CONTENT)
        there = await front.get(URL(answer.headers["Location"]))
        assert (there.status, await there.read()) == (200, CONTENT)

    @pytest.mark.parametrize("page", ["/file", "/files"])
    async def test_put_creates_and_replaces_with_200(self, front: Client, path: str, page: str) -> None:
        for content in (b"first", b"second"):
            answer = await front.put(url(path, page), data=content)
            assert (answer.status, answer.headers["ETag"]) == (200, etag(content))
            assert await read(front, path) == (200, content)

    async def test_the_etag_is_the_same_after_post_put_and_get(self, front: Client, path: str) -> None:
        tags = [
            (await front.post(url(path), data=CONTENT)).headers["ETag"],
            (await front.put(url(path), data=CONTENT)).headers["ETag"],
            (await front.get(url(path))).headers["ETag"],
            (await front.head(url(path))).headers["ETag"],
        ]
        assert tags == [etag(CONTENT)] * 4

    async def test_a_form_s_file_is_stored_without_the_form(self, front: Client, path: str) -> None:
        form = aiohttp.FormData({"comment": "hello"})
        form.add_field("upload_file", CONTENT, filename="x.bin")
        assert (await front.post(url(path), data=form)).status == 201
        assert await read(front, path) == (200, CONTENT)

    async def test_a_body_of_unknown_length_is_taken(self, front: Client, path: str) -> None:
        async def body() -> AsyncIterator[bytes]:
            for part in (b"one ", b"two ", b"three"):
                yield part
                await asyncio.sleep(0.01)

        assert (await front.put(url(path), data=body())).status == 200
        assert await read(front, path) == (200, b"one two three")

    async def test_an_empty_file_is_a_file(self, front: Client, path: str) -> None:
        assert (await put(front, path, b"")).status == 200
        answer = await front.get(url(path))
        assert (answer.status, answer.headers["Content-Length"]) == (200, "0")
        assert answer.headers["ETag"] == etag(b"")

    async def test_a_file_of_just_the_limit_is_taken_and_one_byte_more_is_not(self, front: Client, path: str) -> None:
        limit = 2 * 1024 * 1024
        content = secrets.token_bytes(limit)
        assert (await put(front, path, content)).status == 200
        detail = await problem(await put(front, path, content + b"x"), 413)
        assert "limits.max_file_size" in detail
        assert str(limit) in detail
        assert await read(front, path) == (200, content)

    async def test_an_oversized_body_of_unknown_length_is_refused_as_it_comes(self, front: Client, path: str) -> None:
        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield bytes(65536)

        answer = await front.put(url(path), data=endless())
        await problem(answer, 413)
        assert (await read(front, path))[0] == 404

    async def test_an_oversized_form_is_refused(self, front: Client, path: str) -> None:
        for field in ("upload_file", "other"):
            form = aiohttp.FormData()
            form.add_field(field, bytes(2 * 1024 * 1024 + 1), filename="x")
            await problem(await front.post(url(path), data=form), 413)
        assert (await read(front, path))[0] == 404

    async def test_what_is_refused_leaves_what_was_there(self, front: Client, path: str) -> None:
        await put(front, path)
        wrong = base64.b64encode(hashlib.sha256(b"another").digest()).decode()
        await problem(await put(front, path, b"changed", {"Content-Digest": f"sha-256=:{wrong}:"}), 400)
        await problem(await put(front, path, b"changed", {"Content-Type": "no type"}), 400)
        await problem(await put(front, path, b"changed", {"Content-Encoding": "gzip"}), 400)
        twice = [("Content-Encoding", "identity"), ("Content-Encoding", "gzip")]
        await problem(await front.put(url(path), data=b"changed", headers=CIMultiDict(twice)), 400)
        await problem(await put(front, path, b"changed", {"Content-Range": "bytes 0-6/7"}), 400)
        multipart = {"Content-Type": "multipart/form-data; boundary=x"}
        await problem(await put(front, path, b"--x\r\n\r\nnot whole", multipart), 400)
        await problem(await put(front, path, b"changed", {"X-Meta-A": "x" * 5000}), 400)
        assert await read(front, path) == (200, CONTENT)

    async def test_digests_that_hold_are_taken(self, front: Client, path: str) -> None:
        sha = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
        md5 = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
        headers = {"Content-Digest": f"sha-256=:{sha}:, crc32c=:AAAAAA==:", "Content-MD5": md5}
        assert (await put(front, path, headers=headers)).status == 200
        assert await read(front, path) == (200, CONTENT)

    async def test_two_writers_at_once_leave_one_of_the_two_whole(self, front: Client, path: str) -> None:
        contents = [bytes([n]) * 100_000 for n in range(16)]
        answers = await asyncio.gather(*(put(front, path, content) for content in contents))
        assert [answer.status for answer in answers] == [200] * 16
        assert (await read(front, path))[1] in contents


class TestReading:
    async def test_headers_say_what_the_file_is(self, front: Client, path: str) -> None:
        await put(front, path)
        headers = (await front.get(url(path))).headers
        assert headers["Content-Type"] == "image/jpeg"
        assert headers["Content-Length"] == str(len(CONTENT))
        assert headers["Accept-Ranges"] == "bytes"
        assert headers["Last-Modified"].endswith("GMT")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"] == "sandbox"

    async def test_the_content_type_that_was_given_comes_back(self, front: Client, path: str) -> None:
        await put(front, path, headers={"Content-Type": "text/plain; charset=utf-8"})
        assert (await front.get(url(path))).headers["Content-Type"] == "text/plain; charset=utf-8"

    async def test_a_form_s_part_brings_its_own_type(self, front: Client, path: str) -> None:
        for type, expected in (("image/webp", "image/webp"), ("application/octet-stream", "image/jpeg")):
            form = aiohttp.FormData()
            form.add_field("upload_file", CONTENT, filename="x.bin", content_type=type)
            await front.post(url(path), data=form)
            assert (await front.get(url(path))).headers["Content-Type"] == expected

    async def test_headers_named_x_meta_are_kept_with_the_file(self, front: Client, path: str) -> None:
        await put(front, path, headers={"X-Meta-Author": "Ёжик & Co"})
        assert (await front.get(url(path))).headers["X-Meta-Author"] == "Ёжик & Co"
        await put(front, path)
        assert "X-Meta-Author" not in (await front.get(url(path))).headers

    async def test_head_says_what_get_says(self, front: Client, path: str) -> None:
        await put(front, path)
        got, asked = await front.get(url(path)), await front.head(url(path))
        assert asked.status == got.status
        assert {**asked.headers, "Date": "", "X-Request-ID": ""} == {**got.headers, "Date": "", "X-Request-ID": ""}
        assert await asked.read() == b""

    async def test_there_is_no_file_until_there_is(self, front: Client, path: str) -> None:
        assert path in await problem(await front.get(url(path)), 404)
        assert (await front.head(url(path))).status == 404
        await problem(await front.delete(url(path)), 404)

    async def test_unknown_query_parameters_are_ignored(self, front: Client, path: str) -> None:
        await put(front, path)
        answer = await front.get(url(path).update_query(version="12", path2="x"))
        assert (answer.status, await answer.read()) == (200, CONTENT)
        answer = await front.get(URL(f"/file?path={path}&x=%FF&%FF=x", encoded=True))
        assert (answer.status, await answer.read()) == (200, CONTENT)

    @pytest.mark.parametrize(
        ("asked", "start", "stop"),
        [("0-0", 0, 1), ("0-9", 0, 10), ("5000-", 5000, 5120), ("-10", 5110, 5120), ("-99999", 0, 5120),
         ("5119-99999", 5119, 5120), ("0-", 0, 5120)],
    )  # fmt: skip
    async def test_a_range_is_served_alone(self, front: Client, path: str, asked: str, start: int, stop: int) -> None:
        await put(front, path)
        answer = await front.get(url(path), headers={"Range": f"bytes={asked}"})
        assert (answer.status, await answer.read()) == (206, CONTENT[start:stop])
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/5120"
        assert answer.headers["Content-Length"] == str(stop - start)

    async def test_a_range_outside_the_file_is_416(self, front: Client, path: str) -> None:
        await put(front, path)
        answer = await front.get(url(path), headers={"Range": "bytes=5120-"})
        assert answer.headers["Content-Range"] == "bytes */5120"
        await problem(answer, 416)

    async def test_a_range_that_comes_twice_is_ignored(self, front: Client, path: str) -> None:
        await put(front, path)
        twice = CIMultiDict([("Range", "bytes=0-0"), ("Range", "bytes=1-1")])
        answer = await front.get(url(path), headers=twice)
        assert (answer.status, await answer.read()) == (200, CONTENT)

    async def test_if_range_gives_the_whole_when_the_file_has_changed(self, front: Client, path: str) -> None:
        await put(front, path)
        assert (await read(front, path, {"Range": "bytes=0-0", "If-Range": etag(CONTENT)}))[0] == 206
        assert await read(front, path, {"Range": "bytes=0-0", "If-Range": etag(b"old")}) == (200, CONTENT)


class TestConditions:
    async def test_a_reader_who_has_the_file_gets_304(self, front: Client, path: str) -> None:
        await put(front, path)
        for headers in ({"If-None-Match": etag(CONTENT)}, {"If-Modified-Since": formatdate(usegmt=True)}):
            answer = await front.get(url(path), headers=headers)
            assert (answer.status, await answer.read()) == (304, b"")
            assert answer.headers["ETag"] == etag(CONTENT)
            assert (await front.head(url(path), headers=headers)).status == 304
        assert await read(front, path, {"If-None-Match": etag(b"old")}) == (200, CONTENT)

    async def test_a_reader_s_failed_precondition_is_412(self, front: Client, path: str) -> None:
        await put(front, path)
        await problem(await front.get(url(path), headers={"If-Match": etag(b"old")}), 412)
        since = {"If-Unmodified-Since": "Sun, 06 Nov 1994 08:49:37 GMT"}
        await problem(await front.get(url(path), headers=since), 412)

    async def test_if_none_match_star_creates_only(self, front: Client, path: str) -> None:
        assert (await put(front, path, b"first", {"If-None-Match": "*"})).status == 200
        detail = await problem(await put(front, path, b"second", {"If-None-Match": "*"}), 412)
        assert etag(b"first") in detail
        assert await read(front, path) == (200, b"first")

    async def test_of_many_creators_at_once_one_wins(self, front: Client, path: str) -> None:
        contents = [f"creator {n}".encode() for n in range(30)]
        answers = await asyncio.gather(
            *(front.post(url(path), data=content, headers={"If-None-Match": "*"}) for content in contents)
        )
        statuses = [answer.status for answer in answers]
        assert sorted(statuses) == [201] + [412] * 29
        assert await read(front, path) == (200, contents[statuses.index(201)])

    async def test_if_match_changes_just_the_state_it_names(self, front: Client, path: str) -> None:
        await problem(await put(front, path, b"x", {"If-Match": "*"}), 412)
        await put(front, path, b"one")
        await problem(await put(front, path, b"two", {"If-Match": etag(b"another")}), 412)
        assert (await put(front, path, b"two", {"If-Match": etag(b"one")})).status == 200
        await problem(await put(front, path, b"three", {"If-Match": etag(b"one")}), 412)
        assert await read(front, path) == (200, b"two")

    async def test_counting_with_if_match_loses_no_count(self, front: Client, path: str) -> None:
        await put(front, path, b"0")

        async def count() -> None:
            while True:
                _, number = await read(front, path)
                answer = await put(front, path, b"%d" % (int(number) + 1), {"If-Match": etag(number)})
                if answer.status == 200:
                    return
                assert answer.status == 412

        await asyncio.gather(*(count() for _ in range(12)))
        assert await read(front, path) == (200, b"12")

    async def test_a_failed_precondition_is_told_before_the_body_is_taken(self, front: Client, path: str) -> None:
        await put(front, path)
        asked = False

        async def body() -> AsyncIterator[bytes]:
            nonlocal asked
            asked = True
            yield b"x"

        answer = await front.put(url(path), data=body(), expect100=True, headers={"If-None-Match": "*"})
        assert (answer.status, asked) == (412, False)

    async def test_a_malformed_entity_tag_is_refused(self, front: Client, path: str) -> None:
        await put(front, path)
        assert "If-Match" in await problem(await put(front, path, b"x", {"If-Match": "no quotes"}), 400)
        assert await read(front, path) == (200, CONTENT)


class TestDeleting:
    async def test_a_deleted_file_is_gone_and_can_come_again(self, front: Client, path: str) -> None:
        await put(front, path)
        answer = await front.delete(url(path))
        assert (answer.status, await answer.read()) == (204, b"")
        assert (await read(front, path))[0] == 404
        await put(front, path, b"again")
        assert await read(front, path) == (200, b"again")

    async def test_a_conditional_delete_removes_just_the_state_it_names(self, front: Client, path: str) -> None:
        await put(front, path)
        await problem(await front.delete(url(path), headers={"If-Match": etag(b"old")}), 412)
        assert (await read(front, path))[0] == 200
        assert (await front.delete(url(path), headers={"If-Match": etag(CONTENT)})).status == 204
        assert (await read(front, path))[0] == 404
        await problem(await front.delete(url(path), headers={"If-Match": "*"}), 404)

    @pytest.mark.parametrize("condition", [{}, {"If-Match": "*"}])
    async def test_the_mark_of_a_deletion_goes_by_itself_but_not_what_is_created_in_its_place(
        self, front: Client, nodes: Nodes, path: str, condition: dict[str, str]
    ) -> None:
        await put(front, path)
        assert (await front.delete(url(path), headers=condition)).status == 204
        assert [seconds for seconds in await lifetimes(nodes, path) if 86_000 < seconds <= 86_400]
        await problem(await front.delete(url(path)), 404)
        assert (await put(front, path, b"new", {"If-None-Match": "*"})).status == 200
        assert await lifetimes(nodes, path) == [-1]
        assert await read(front, path) == (200, b"new")


async def lifetimes(nodes: Nodes, path: str) -> list[int]:
    """For how many seconds each node that has something there will have it yet; -1 for good."""
    found = []
    for node in nodes:
        reader, writer = await asyncio.open_connection(*node.split(":"))
        writer.write(b"mg %b t\r\n" % key_of(path))
        if (line := await reader.readline()).startswith(b"HD t"):
            found.append(int(line[4:]))
        writer.close()
    return found


class TestPaths:
    @pytest.mark.parametrize(
        "name",
        ["фото/кот.jpg", "照片/猫.png", "emoji/🐈‍⬛.gif", "with space/and+plus.txt", "100%/50%25.txt",
         "a&b=c;d#e?f.txt", "q'uo\"te.txt", "~tilde/*star*.txt", "é/é.txt", "x" * 1024, "ж" * 512,
         "深" * 341, "a/" * 511 + "bc"],
        ids=lambda name: name[:12],
    )  # fmt: skip
    async def test_any_name_comes_back_with_its_own_content(self, front: Client, name: str) -> None:
        content = name.encode() + secrets.token_bytes(8)
        posted = await front.post(url(name, "/files"), data=content)
        assert posted.status == 201
        assert await read(front, name) == (200, content)
        located = await front.get(URL(posted.headers["Location"], encoded=True))
        assert await located.read() == content
        assert (await front.delete(url(name))).status == 204

    async def test_names_that_look_alike_are_different_files(self, front: Client) -> None:
        token = secrets.token_hex(8)
        names = [
            f"{token}/{name}" for name in ("a b", "a+b", "a%20b", "a%2520b", "a%2Bb", "A b", "a\u00a0b", "a\u2003b")
        ]
        for name in names:
            await put(front, name, name.encode())
        for name in names:
            assert await read(front, name) == (200, name.encode())

    @pytest.mark.parametrize(
        "query",
        ["", "?path=", "?path=/a", "?path=a//b", "?path=a/", "?path=.", "?path=a/../b", "?path=a%5Cb", "?path=a%00b",
         "?path=a%0Ab", "?path=%7F", "?path=%FF", "?path=%ED%A0%80", "?path=a&path=b", f"?path={'x' * 1025}",
         "?Path=a"],
    )  # fmt: skip
    async def test_a_name_that_can_t_be_is_refused(self, front: Client, query: str) -> None:
        for method in ("GET", "PUT", "POST", "DELETE"):
            answer = await front.request(method, URL(f"/file{query}", encoded=True), data=b"x")
            assert await problem(answer, 400)
        assert (await front.head(URL(f"/file{query}", encoded=True))).status == 400


class TestPages:
    async def test_a_method_that_a_page_hasn_t_is_405_with_allow(self, front: Client, path: str) -> None:
        for page, allowed in (
            ("/file", "DELETE,GET,HEAD,POST,PUT"),
            ("/files", "GET,POST,PUT"),
            ("/status", "GET,HEAD"),
        ):
            answer = await front.patch(url(path, page), data=b"x")
            assert answer.headers["Allow"] == allowed
            await problem(answer, 405)

    async def test_a_page_that_is_none_is_404(self, front: Client) -> None:
        assert "/status" in await problem(await front.get("/nothing"), 404)


class TestLimits:
    async def test_what_a_node_doesnt_take_whole_lies_there_in_blocks(
        self, start_front: StartFront, small_memcached: Nodes, path: str
    ) -> None:
        front = await start_front(small_memcached)
        content = random.Random(1).randbytes(1024 * 1024)
        assert (await put(front, path, content)).status == 200
        assert await read(front, path) == (200, content)

    async def test_the_limit_of_a_node_that_takes_next_to_nothing_is_a_413_that_names_it(
        self, start_front: StartFront, path: str, tmp_path: Path
    ) -> None:
        with sfss_node(tmp_path, "--max-item-size", "8KiB") as (port, _):
            front = await start_front([f"{HOST}:{port}"])
            await put(front, path, b"small")
            detail = await problem(await put(front, path, bytes(20_000)), 413)
            assert f"{HOST}:{port}" in detail
            assert "--max-item-size" in detail
            assert await read(front, path) == (200, b"small")

    async def test_a_full_node_is_507_that_names_it_and_room_ends_it(self, start_front: StartFront) -> None:
        with memcached("-M", "-m", "4") as port:
            front = await start_front([f"{HOST}:{port}"])
            await put(front, "first", b"first")
            statuses, detail = [200], ""
            while statuses[-1] == 200 and len(statuses) < 300:
                answer = await put(front, f"fill/{len(statuses)}", bytes(500_000))
                statuses.append(answer.status)
                detail = await answer.text()
            assert statuses[-1] == 507
            assert f"{HOST}:{port}" in detail
            assert await read(front, "first") == (200, b"first")
            for number in range(1, len(statuses) - 1):
                assert (await front.delete(url(f"fill/{number}"))).status == 204
            assert (await put(front, "again", b"again")).status == 200

    async def test_a_body_that_stands_still_is_given_up_with_408(
        self, start_front: StartFront, our_nodes: Nodes, path: str
    ) -> None:
        front = await start_front(our_nodes, limits={"body_timeout": 0.2})
        reader, writer = await asyncio.open_connection(front.host, front.port)
        writer.write(f"PUT {url(path)} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345".encode())
        assert b" 408 " in await reader.readline()
        writer.close()
        assert (await read(front, path))[0] == 404
