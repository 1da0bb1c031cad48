"""/uploads, line by line of the protocol (https://tus.io/protocols/resumable-upload, 1.0.0)."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.conftest import Client, Nodes, StartFront
from tests.web.test_files import etag, problem
from tests.web.tus import PIECE, VERSION, Tus, hanging, metadata

MIB = 2**20
CONTENT = secrets.token_bytes(300_000)


@pytest.fixture
def path() -> str:
    return f"tests/{secrets.token_hex(8)}/cat.jpg"


@pytest.fixture
async def tus(nodes: Nodes, start_front: StartFront) -> Tus:
    return Tus(await start_front(nodes, limits={"max_file_size": "64MiB"}))


@pytest.fixture
async def ours(our_nodes: Nodes, start_front: StartFront) -> Tus:
    """For what has nothing to do with the nodes."""
    return Tus(await start_front(our_nodes, limits={"max_file_size": "8MiB", "body_timeout": 0.5}))


async def until_it_has(tus: Tus, upload: str, offset: int) -> None:
    async with asyncio.timeout(20):
        while await tus.offset(upload) != offset:
            await asyncio.sleep(0.02)


class TestTheWholeWay:
    @pytest.mark.parametrize("pieces", [1, 2, 7])
    @pytest.mark.parametrize("size", [0, 1, 100, MIB - 8192, MIB, 3 * MIB + 1])
    async def test_what_is_uploaded_is_the_file(self, tus: Tus, path: str, size: int, pieces: int) -> None:
        content = secrets.token_bytes(size)
        upload = await tus.upload(path, content, pieces=pieces)
        answer = await tus.front.get(URL("/file").with_query(path=path))
        assert (answer.status, await answer.read()) == (200, content)
        assert answer.headers["ETag"] == etag(content)
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert await tus.offset(upload) == size

    async def test_nothing_is_there_before_all_is(self, tus: Tus, path: str) -> None:
        upload = await tus.create(path, len(CONTENT))
        await tus.patch(upload, 0, CONTENT[:-1])
        assert await tus.read(path) is None
        await tus.patch(upload, len(CONTENT) - 1, CONTENT[-1:])
        assert await tus.read(path) == CONTENT

    async def test_the_file_before_stays_until_then(self, tus: Tus, path: str) -> None:
        await tus.front.put(URL("/file").with_query(path=path), data=b"before")
        upload = await tus.create(path, len(CONTENT))
        await tus.patch(upload, 0, CONTENT[:1000])
        assert await tus.read(path) == b"before"
        await tus.patch(upload, 1000, CONTENT[1000:])
        assert await tus.read(path) == CONTENT

    async def test_two_uploads_to_one_path_are_two(self, tus: Tus, path: str) -> None:
        one, two = await tus.create(path, 3), await tus.create(path, 5)
        assert one != two
        await tus.patch(one, 0, b"one")
        await tus.patch(two, 0, b"other")
        assert await tus.read(path) == b"other"

    async def test_another_front_goes_on_where_the_first_one_was(
        self, nodes: Nodes, tus: Tus, path: str, start_front: StartFront
    ) -> None:
        other = Tus(await start_front(nodes, limits={"max_file_size": "64MiB"}))
        content = secrets.token_bytes(5 * MIB)
        upload = await tus.create(path, len(content))
        fronts = [tus, other]
        for number in range(5):
            front = fronts[number % 2]
            assert await front.offset(upload) == number * MIB
            answer = await front.patch(upload, number * MIB, content[number * MIB : (number + 1) * MIB])
            assert answer.status == 204
        answer = await other.front.get(URL("/file").with_query(path=path))
        assert await answer.read() == content
        assert answer.headers["ETag"] == etag(content)


class TestTusResumable:
    @pytest.mark.parametrize("version", [None, "0.2.2", "1.0.1", "x"])
    async def test_another_version_is_412_and_does_nothing(self, ours: Tus, path: str, version: str | None) -> None:
        upload = await ours.create(path, 3)
        given = {"Tus-Resumable": version}
        for method, url, headers, body in (
            ("POST", URL("/uploads").with_query(path=path), {"Upload-Length": "3"}, None),
            ("PATCH", upload, {"Upload-Offset": "0", **PIECE}, b"abc"),
            ("DELETE", upload, {}, None),
        ):
            answer = await ours.request(method, url, {**headers, **given}, body)
            assert "1.0.0" in await problem(answer, 412)
            assert answer.headers["Tus-Version"] == "1.0.0"
        assert await ours.offset(upload) == 0

    async def test_it_is_in_every_answer(self, ours: Tus, path: str) -> None:
        upload = await ours.create(path, 3)
        for answer in (
            await ours.post(path, 3),
            await ours.post(path),
            await ours.head(upload),
            await ours.head("/uploads/nothing"),
            await ours.patch(upload, 0, b"abc"),
            await ours.patch(upload, 1, b"abc"),
            await ours.delete(upload),
            await ours.request("GET", upload),
            await ours.request("OPTIONS", "/uploads"),
        ):
            assert answer.headers["Tus-Resumable"] == "1.0.0"

    async def test_options_tells_what_can_be_done_whatever_the_version(self, ours: Tus) -> None:
        for given in (None, "0.1"):
            answer = await ours.request("OPTIONS", "/uploads", {"Tus-Resumable": given})
            assert answer.status == 204
            assert answer.headers["Tus-Version"] == "1.0.0"
            assert answer.headers["Tus-Max-Size"] == str(8 * MIB)
            assert set(answer.headers["Tus-Checksum-Algorithm"].split(",")) >= {"sha1", "sha256", "md5"}
            assert set(answer.headers["Tus-Extension"].split(",")) == {
                "creation", "creation-with-upload", "creation-defer-length", "expiration", "checksum", "termination",
                "concatenation",
            }  # fmt: skip

    async def test_the_largest_size_is_the_policy_s(self, our_nodes: Nodes, start_front: StartFront) -> None:
        policy: Any = [{"prefix": "films/", "max_file_size": "1GiB"}]
        front = Tus(await start_front(our_nodes, limits={"max_file_size": "1MiB"}, policy=policy))

        async def largest(url: str) -> int:
            return int((await front.request("OPTIONS", url)).headers["Tus-Max-Size"])

        assert await largest("/uploads?path=films/a") == 2**30
        assert await largest("/uploads?path=a") == MIB
        assert await largest("/uploads") == 2**30  # the most that there is
        assert (await front.post("films/a", 2 * MIB)).status == 201
        assert "films/" not in await problem(await front.post("a", 2 * MIB), 413)
        assert "films/" in await problem(await front.post("films/a", 2**30 + 1), 413)

    async def test_the_method_may_be_in_a_header(self, ours: Tus, path: str) -> None:
        upload = await ours.create(path, 6)
        given = {"X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0", **PIECE}
        assert (await ours.request("POST", upload, given, b"abc")).status == 204
        assert (await ours.request("POST", upload, {**given, "Upload-Offset": "3"}, b"def")).status == 204
        assert await ours.read(path) == b"abcdef"
        assert (await ours.request("POST", upload, {"X-HTTP-Method-Override": "DELETE"})).status == 204
        assert (await ours.head(upload)).status == 410

    async def test_what_is_no_method_here_is_405(self, ours: Tus, path: str) -> None:
        upload = await ours.create(path, 6)
        for method, url in (("GET", upload), ("POST", upload), ("PUT", upload), ("GET", "/uploads")):
            answer = await ours.request(method, url)
            await problem(answer, 405)
            assert "OPTIONS" in answer.headers["Allow"]


class TestHead:
    async def test_it_tells_how_far_the_upload_is_and_is_not_kept_in_a_cache(self, tus: Tus, path: str) -> None:
        given = metadata(nothing="", filename="cat.jpg")
        upload = await tus.create(path, len(CONTENT), Upload_Metadata=given)
        for offset, stop in ((0, 7), (7, 250_000), (250_000, len(CONTENT)), (len(CONTENT), None)):
            answer = await tus.head(upload)
            assert answer.status == 200
            assert answer.headers["Upload-Offset"] == str(offset)
            assert answer.headers["Upload-Length"] == str(len(CONTENT))
            assert answer.headers["Upload-Metadata"] == given
            assert answer.headers["Cache-Control"] == "no-store"
            assert "Upload-Defer-Length" not in answer.headers
            if stop:
                await tus.patch(upload, offset, CONTENT[offset:stop])

    @pytest.mark.parametrize("name", ["nothing", "u" + 25 * "0", "u" + 25 * "g", "b" + 25 * "0"])
    async def test_what_is_not_there_is_404_without_an_offset(self, ours: Tus, name: str) -> None:
        answer = await ours.head(f"/uploads/{name}")
        assert answer.status == 404
        assert "Upload-Offset" not in answer.headers
        assert answer.headers["Cache-Control"] == "no-store"
        await problem(await ours.patch(f"/uploads/{name}", 0, b"x"), 404)
        await problem(await ours.delete(f"/uploads/{name}"), 404)


class TestPatch:
    @pytest.mark.parametrize("type", [None, "application/octet-stream", "text/plain", "multipart/form-data"])
    async def test_another_content_type_is_415(self, ours: Tus, path: str, type: str | None) -> None:
        upload = await ours.create(path, 3)
        answer = await ours.patch(upload, 0, b"abc", Content_Type=type)
        assert "application/offset+octet-stream" in await problem(answer, 415)
        assert await ours.offset(upload) == 0

    @pytest.mark.parametrize("offset", [0, 2, 4, 100])
    async def test_another_offset_is_409_and_changes_nothing(self, ours: Tus, path: str, offset: int) -> None:
        upload = await ours.create(path, 6)
        await ours.patch(upload, 0, b"abc")
        assert "3" in await problem(await ours.patch(upload, offset, b"def"), 409)
        assert await ours.offset(upload) == 3
        await ours.patch(upload, 3, b"def")
        assert await ours.read(path) == b"abcdef"

    @pytest.mark.parametrize("offset", [None, "", "-1", "x", "1.0", "0x0", "9" * 30])
    async def test_what_is_no_offset_is_400(self, ours: Tus, path: str, offset: str | None) -> None:
        upload = await ours.create(path, 3)
        await problem(await ours.patch(upload, offset, b"abc"), 400)

    async def test_more_than_the_length_is_413_and_none_of_it_is_kept(self, ours: Tus, path: str) -> None:
        upload = await ours.create(path, 5)
        await ours.patch(upload, 0, b"abc")
        await problem(await ours.patch(upload, 3, b"def"), 413)

        async def def_() -> AsyncIterator[bytes]:
            yield b"def"

        await problem(await ours.patch(upload, 3, def_()), 413)
        assert await ours.offset(upload) == 3
        assert (await ours.patch(upload, 3, b"de")).status == 204
        await problem(await ours.patch(upload, 5, b"f"), 413)
        assert await ours.read(path) == b"abcde"

    async def test_a_body_of_unknown_length_is_taken(self, tus: Tus, path: str) -> None:
        async def body() -> AsyncIterator[bytes]:
            for start in range(0, len(CONTENT), 70_000):
                yield CONTENT[start : start + 70_000]
                await asyncio.sleep(0)

        upload = await tus.create(path, len(CONTENT))
        answer = await tus.patch(upload, 0, body())
        assert (answer.status, answer.headers["Upload-Offset"]) == (204, str(len(CONTENT)))
        assert await tus.read(path) == CONTENT

    async def test_an_empty_piece_is_a_piece(self, ours: Tus, path: str) -> None:
        upload = await ours.create(path, 3)
        answer = await ours.patch(upload, 0, b"")
        assert (answer.status, answer.headers["Upload-Offset"]) == (204, "0")
        await ours.patch(upload, 0, b"abc")
        answer = await ours.patch(upload, 3, b"")
        assert (answer.status, answer.headers["Upload-Offset"]) == (204, "3")
        assert await ours.read(path) == b"abc"

    async def test_what_came_before_a_break_is_kept(self, tus: Tus, path: str) -> None:
        content = secrets.token_bytes(3 * MIB)
        upload = await tus.create(path, len(content))
        async with hanging(tus.front, upload, 0, len(content), content[: 2 * MIB]) as (_, writer):
            await asyncio.sleep(0.3)
            writer.close()  # an orderly end: all that was sent is there to be read
        async with asyncio.timeout(10):
            while not (offset := await tus.offset(upload)):
                await asyncio.sleep(0.02)
        assert MIB < offset <= 2 * MIB
        await tus.send(upload, content, start=offset)
        assert await tus.read(path) == content

    async def test_who_comes_again_has_the_request_before_broken_off(self, tus: Tus, path: str) -> None:
        content = secrets.token_bytes(3 * MIB)
        upload = await tus.create(path, len(content))
        async with hanging(tus.front, upload, 0, len(content), content[: 2 * MIB]) as (reader, _):
            await asyncio.sleep(0.3)
            offset = await tus.offset(upload)
            assert MIB < offset <= 2 * MIB
            assert await reader.read() == b""
        async with hanging(tus.front, upload, offset, len(content) - offset, content[offset : offset + 10]):
            await asyncio.sleep(0.3)
            await problem(await tus.patch(upload, offset, content[offset:]), 409)
        offset = await tus.offset(upload)
        await tus.send(upload, content, start=offset)
        assert await tus.read(path) == content

    async def test_who_sends_no_more_is_hung_up_on(self, ours: Tus, path: str) -> None:
        upload = await ours.create(path, 100)
        async with hanging(ours.front, upload, 0, 100, b"abc") as (reader, _):
            started = time.monotonic()
            assert await reader.read() == b""
            assert time.monotonic() - started < 10
        await until_it_has(ours, upload, 3)

    async def test_with_expect_the_body_is_asked_for_only_if_it_will_be_taken(self, ours: Tus, path: str) -> None:
        upload = await ours.create(path, 3)
        for offset, first in ((1, b"HTTP/1.1 409"), (0, b"HTTP/1.1 100")):
            reader, writer = await asyncio.open_connection(ours.front.host, ours.front.port)
            writer.write(
                f"PATCH {upload} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n"
                "Content-Type: application/offset+octet-stream\r\nContent-Length: 3\r\n"
                "Expect: 100-continue\r\n\r\n".encode()
            )
            assert (await reader.read(len(first))) == first
            writer.close()


class TestCreation:
    async def test_the_location_is_where_the_upload_is(self, ours: Tus, path: str) -> None:
        answer = await ours.post(path, 10)
        assert answer.status == 201
        assert answer.headers["Location"].startswith("/uploads/u")
        assert await ours.offset(answer.headers["Location"]) == 0
        assert "Upload-Offset" not in answer.headers

    async def test_the_collection_may_have_a_slash_behind_it(self, ours: Tus, path: str) -> None:
        answer = await ours.request("POST", f"/uploads/?path={path}", {"Upload-Length": "3"})
        assert answer.status == 201

    async def test_an_empty_file_is_there_at_once(self, tus: Tus, path: str) -> None:
        await tus.create(path, 0)
        assert await tus.read(path) == b""

    @pytest.mark.parametrize("length", [None, "", "-1", "x", "1e3", "9" * 30])
    async def test_what_is_no_length_is_400(self, ours: Tus, path: str, length: str | None) -> None:
        await problem(await ours.post(path, Upload_Length=length), 400)

    async def test_too_large_is_413(self, ours: Tus, path: str) -> None:
        assert (await ours.post(path, 8 * MIB)).status == 201
        assert "limits.max_file_size" in await problem(await ours.post(path, 8 * MIB + 1), 413)

    @pytest.mark.parametrize(
        ("query", "given", "expected"),
        [
            ("a/b", {}, "a/b"),
            ("a/b", {"path": "x", "filename": "y", "name": "z"}, "a/b"),
            (None, {"path": "x/x", "filename": "y", "name": "z"}, "x/x"),
            (None, {"filename": "y", "name": "z"}, "y"),
            (None, {"name": "фото/кот.jpg"}, "фото/кот.jpg"),
        ],
    )
    async def test_the_path_is_the_query_s_or_the_metadata_s(
        self, ours: Tus, path: str, query: str | None, given: dict[str, str], expected: str
    ) -> None:
        query = f"{path}/{query}" if query else None
        given = {key: f"{path}/{value}" for key, value in given.items()}
        upload = await ours.create(query, 3, Upload_Metadata=metadata(**given))
        await ours.patch(upload, 0, b"abc")
        assert await ours.read(f"{path}/{expected}") == b"abc"

    @pytest.mark.parametrize("bad", ["/etc/passwd", "a/../b", "a\\b", "a//b", "x" * 1025, ""])
    async def test_a_path_that_is_none_is_400_at_once(self, ours: Tus, bad: str) -> None:
        await problem(await ours.post(bad, 3), 400)
        if bad:
            await problem(await ours.post(None, 3, Upload_Metadata=metadata(filename=bad)), 400)

    async def test_no_path_at_all_is_400(self, ours: Tus) -> None:
        assert "?path=" in await problem(await ours.post(None, 3), 400)
        not_utf_8 = "filename " + base64.b64encode(b"\xff\xfe").decode()
        await problem(await ours.post(None, 3, Upload_Metadata=not_utf_8), 400)

    async def test_type_and_meta_are_the_file_s(self, ours: Tus, path: str) -> None:
        given = metadata(filename="a b.bin", filetype="text/x-cat", Colour="grün", **{"a.b": "no name for a header"})
        await ours.patch(await ours.create(path, 3, Upload_Metadata=given), 0, b"abc")
        answer = await ours.front.get(URL("/file").with_query(path=path))
        assert answer.headers["Content-Type"] == "text/x-cat"
        assert answer.headers["X-Meta-Colour"] == "grün"
        assert answer.headers["X-Meta-Filename"] == "a b.bin"
        assert {name for name in answer.headers if name.startswith("X-Meta-")} == {"X-Meta-Colour", "X-Meta-Filename"}

    async def test_a_type_that_is_none_is_guessed(self, ours: Tus, path: str) -> None:
        given = metadata(type="avatar", contentType="")
        await ours.patch(await ours.create(path, 3, Upload_Metadata=given), 0, b"abc")
        answer = await ours.front.get(URL("/file").with_query(path=path))
        assert (answer.headers["Content-Type"], answer.headers["X-Meta-Type"]) == ("image/jpeg", "avatar")

    @pytest.mark.parametrize("given", ["a b c", "a !", "a YQ==,a YQ==", ",a YQ==", "a YQ==,", "é YQ==", " ,"])
    async def test_metadata_that_are_none_are_400(self, ours: Tus, path: str, given: str) -> None:
        await problem(await ours.post(path, 3, Upload_Metadata=given), 400)

    @pytest.mark.parametrize("given", ["", "is_confidential", "a YQ==, b", "a  YQ==", "a ,b"])
    async def test_a_value_may_be_empty(self, ours: Tus, path: str, given: str) -> None:
        answer = await ours.head(await ours.create(path, 3, Upload_Metadata=given))
        assert answer.headers.get("Upload-Metadata", "") == given.strip()

    async def test_preconditions_hold_when_it_becomes_a_file(self, tus: Tus, path: str) -> None:
        upload = await tus.create(path, 3, If_None_Match="*")
        assert (await tus.patch(upload, 0, b"one")).status == 204
        await problem(await tus.post(path, 3, If_None_Match="*"), 412)
        upload = await tus.create(path, 3, If_Match=etag(b"one"))
        await tus.front.put(URL("/file").with_query(path=path), data=b"between")
        await problem(await tus.patch(upload, 0, b"two"), 412)
        assert (await tus.head(upload)).status == 412
        assert await tus.read(path) == b"between"
        await tus.front.put(URL("/file").with_query(path=path), data=b"one")
        assert await tus.offset(upload) == 3
        assert await tus.read(path) == b"two"
        await problem(await tus.post(path, 3, If_Match="one"), 400)
        await problem(await tus.post(None, 3, Upload_Concat="partial", If_None_Match="one"), 400)  # of a part, too


class TestCreationWithUpload:
    @pytest.mark.parametrize("size", [0, 1, 200_000, len(CONTENT)])
    async def test_the_first_piece_may_come_with_it(self, tus: Tus, path: str, size: int) -> None:
        answer = await tus.post(path, len(CONTENT), CONTENT[:size])
        assert answer.status == 201
        upload = answer.headers["Location"]
        assert answer.headers.get("Upload-Offset", "0") == str(size)
        assert await tus.offset(upload) == size
        if size < len(CONTENT):
            await tus.send(upload, CONTENT, start=size)
        assert await tus.read(path) == CONTENT

    async def test_a_body_of_another_type_is_not_one(self, ours: Tus, path: str) -> None:
        answer = await ours.post(path, 3, b"abc", Content_Type="text/plain")
        assert answer.status == 201
        assert await ours.offset(answer.headers["Location"]) == 0

    async def test_what_fails_leaves_no_upload(self, ours: Tus, path: str) -> None:
        answer = await ours.post(path, 3, b"abcd")
        await problem(answer, 413)
        assert "Location" not in answer.headers
        await problem(await ours.post(path, 3, b"abc", Upload_Checksum="sha1 AAAA"), 400)


class TestDeferredLength:
    async def test_it_is_told_with_a_piece(self, tus: Tus, path: str) -> None:
        upload = await tus.create(path, Upload_Defer_Length=1)
        await tus.patch(upload, 0, CONTENT[:1000])
        answer = await tus.head(upload)
        assert (answer.headers["Upload-Defer-Length"], answer.headers["Upload-Offset"]) == ("1", "1000")
        assert "Upload-Length" not in answer.headers
        await tus.patch(upload, 1000, CONTENT[1000:2000], Upload_Length=len(CONTENT))
        answer = await tus.head(upload)
        assert answer.headers["Upload-Length"] == str(len(CONTENT))
        assert "Upload-Defer-Length" not in answer.headers
        await tus.send(upload, CONTENT, start=2000)
        assert await tus.read(path) == CONTENT

    async def test_it_may_be_told_at_the_very_end(self, tus: Tus, path: str) -> None:
        upload = await tus.create(path, Upload_Defer_Length=1)
        await tus.patch(upload, 0, CONTENT)
        assert await tus.read(path) is None
        await tus.patch(upload, len(CONTENT), b"", Upload_Length=len(CONTENT))
        assert await tus.read(path) == CONTENT

    async def test_it_can_be_told_once(self, ours: Tus, path: str) -> None:
        upload = await ours.create(path, Upload_Defer_Length=1)
        await ours.patch(upload, 0, b"ab", Upload_Length=6)
        assert (await ours.patch(upload, 2, b"cd", Upload_Length=6)).status == 204
        await problem(await ours.patch(upload, 4, b"ef", Upload_Length=7), 400)
        await ours.patch(upload, 4, b"ef")
        assert await ours.read(path) == b"abcdef"

    async def test_less_than_is_there_and_too_much_are_refused(self, ours: Tus, path: str) -> None:
        upload = await ours.create(path, Upload_Defer_Length=1)
        await ours.patch(upload, 0, b"abc")
        await problem(await ours.patch(upload, 3, b"", Upload_Length=2), 400)
        await problem(await ours.patch(upload, 3, b"", Upload_Length=8 * MIB + 1), 413)
        await problem(await ours.patch(upload, 3, bytes(8 * MIB)), 413)
        assert await ours.offset(upload) == 3

    @pytest.mark.parametrize("value", ["0", "2", "", "true"])
    async def test_another_value_is_400(self, ours: Tus, path: str, value: str) -> None:
        await problem(await ours.post(path, Upload_Defer_Length=value), 400)
        await problem(await ours.post(path, 3, Upload_Defer_Length=1), 400)


class TestExpiration:
    async def test_it_is_told_and_put_off_with_every_piece(self, ours: Tus, path: str) -> None:
        created = await ours.post(path, 6)
        first = email.utils.parsedate_to_datetime(created.headers["Upload-Expires"]).timestamp()
        assert first == pytest.approx(time.time() + 7 * 86400, abs=60)
        await asyncio.sleep(1.1)
        answer = await ours.patch(created.headers["Location"], 0, b"abc")
        assert email.utils.parsedate_to_datetime(answer.headers["Upload-Expires"]).timestamp() > first
        assert "Upload-Expires" in (await ours.head(created.headers["Location"])).headers

    async def test_what_has_expired_is_410(self, our_nodes: Nodes, start_front: StartFront, path: str) -> None:
        front = Tus(await start_front(our_nodes, limits={"upload_expiry": 1.0}))
        upload = await front.create(path, 3)
        await asyncio.sleep(1.1)
        for answer in (await front.head(upload), await front.patch(upload, 0, b"abc"), await front.delete(upload)):
            assert answer.status == 410
            assert "Upload-Offset" not in answer.headers
        assert await front.read(path) is None


class TestChecksum:
    @pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
    async def test_what_holds_is_kept(self, tus: Tus, path: str, algorithm: str) -> None:
        upload = await tus.create(path, len(CONTENT))
        for start in range(0, len(CONTENT), 100_000):
            piece = CONTENT[start : start + 100_000]
            digest = base64.b64encode(hashlib.new(algorithm, piece).digest()).decode()
            answer = await tus.patch(upload, start, piece, Upload_Checksum=f"{algorithm} {digest}")
            assert answer.status == 204
        assert await tus.read(path) == CONTENT

    async def test_what_does_not_hold_is_460_and_not_kept(self, tus: Tus, path: str) -> None:
        content = secrets.token_bytes(3 * MIB)
        upload = await tus.create(path, len(content))
        await tus.patch(upload, 0, content[:MIB])
        wrong = base64.b64encode(hashlib.sha1(content).digest()).decode()
        answer = await tus.patch(upload, MIB, content[MIB:], Upload_Checksum=f"sha1 {wrong}")
        await problem(answer, 460)
        assert await tus.offset(upload) == MIB
        assert await tus.read(path) is None
        await tus.send(upload, content, start=MIB)
        answer = await tus.front.get(URL("/file").with_query(path=path))
        assert (await answer.read(), answer.headers["ETag"]) == (content, etag(content))

    async def test_nothing_of_it_is_kept_if_it_breaks_off(self, ours: Tus, path: str) -> None:
        upload = await ours.create(path, 6)
        digest = base64.b64encode(hashlib.sha1(b"abcdef").digest()).decode()

        async def broken() -> AsyncIterator[bytes]:
            yield b"abc"
            raise OSError("broken")

        with pytest.raises((OSError, aiohttp.ClientError)):
            await ours.patch(upload, 0, broken(), Upload_Checksum=f"sha1 {digest}")
        await asyncio.sleep(0.2)
        assert await ours.offset(upload) == 0

    async def test_a_content_digest_is_checked_as_well(self, ours: Tus, path: str) -> None:
        upload = await ours.create(path, 3)
        digest = base64.b64encode(hashlib.sha256(b"xyz").digest()).decode()
        await problem(await ours.patch(upload, 0, b"abc", Content_Digest=f"sha-256=:{digest}:"), 400)
        assert await ours.offset(upload) == 0

    @pytest.mark.parametrize("given", ["crc32 AAAA", "SHA1 x", "sha1", "sha1 x", "sha1 YQ==", "", "é YQ=="])
    async def test_what_is_no_checksum_is_400(self, ours: Tus, path: str, given: str) -> None:
        upload = await ours.create(path, 3)
        await problem(await ours.patch(upload, 0, b"abc", Upload_Checksum=given), 400)
        assert await ours.offset(upload) == 0


class TestTermination:
    async def test_what_is_terminated_is_no_more(self, tus: Tus, path: str) -> None:
        upload = await tus.create(path, 2 * MIB)
        await tus.patch(upload, 0, bytes(MIB))
        assert (await tus.delete(upload)).status == 204
        assert (await tus.head(upload)).status == 410
        await problem(await tus.patch(upload, MIB, bytes(MIB)), 410)
        await problem(await tus.delete(upload), 410)
        assert await tus.read(path) is None

    async def test_a_file_stays_when_its_upload_is(self, tus: Tus, path: str) -> None:
        upload = await tus.upload(path, CONTENT)
        assert (await tus.delete(upload)).status == 204
        assert (await tus.head(upload)).status == 410
        assert await tus.read(path) == CONTENT

    async def test_a_piece_on_its_way_is_broken_off(self, tus: Tus, path: str) -> None:
        upload = await tus.create(path, 2 * MIB)
        async with hanging(tus.front, upload, 0, 2 * MIB, bytes(MIB)) as (reader, _):
            await asyncio.sleep(0.2)
            assert (await tus.delete(upload)).status == 204
            assert await reader.read() == b""
        assert (await tus.head(upload)).status == 410


class TestConcatenation:
    async def partial(self, tus: Tus, content: bytes, **headers: Any) -> str:
        upload = await tus.create(None, len(content), Upload_Concat="partial", **headers)
        await tus.send(upload, content, pieces=2)
        return upload

    async def join(self, tus: Tus, path: str | None, *uploads: str, **headers: Any) -> aiohttp.ClientResponse:
        return await tus.post(path, Upload_Concat=f"final;{' '.join(uploads)}", **headers)

    @pytest.mark.parametrize("size", [0, 3, 200_000, 2 * MIB + 1])
    async def test_partial_uploads_become_one_file(self, tus: Tus, path: str, size: int) -> None:
        parts = [secrets.token_bytes(size + number) for number in range(3)]
        uploads = [await self.partial(tus, part) for part in parts]
        answer = await self.join(tus, path, *uploads, Upload_Metadata=metadata(filetype="text/x-cat"))
        assert answer.status == 201
        whole = b"".join(parts)
        there = await tus.front.get(URL("/file").with_query(path=path))
        assert (await there.read(), there.headers["ETag"]) == (whole, etag(whole))
        assert there.headers["Content-Type"] == "text/x-cat"
        head = await tus.head(answer.headers["Location"])
        assert head.headers["Upload-Offset"] == head.headers["Upload-Length"] == str(len(whole))
        assert head.headers["Upload-Concat"] == f"final;{' '.join(uploads)}"

    async def test_a_partial_one_says_so_and_is_no_file(self, tus: Tus) -> None:
        upload = await self.partial(tus, b"abc", Upload_Metadata=metadata(filename="x"))
        head = await tus.head(upload)
        assert head.headers["Upload-Concat"] == "partial"
        assert head.headers["Upload-Offset"] == head.headers["Upload-Length"] == "3"

    async def test_urls_may_be_whole_or_names(self, ours: Tus, path: str) -> None:
        one, two, three = [await self.partial(ours, text) for text in (b"a", b"b", b"c")]
        urls = f"https://files.example.org{one}", two, three.rpartition("/")[2]
        assert (await self.join(ours, path, *urls)).status == 201
        assert await ours.read(path) == b"abc"

    async def test_the_order_is_the_one_that_is_asked_for(self, ours: Tus, path: str) -> None:
        one, two = await self.partial(ours, b"one"), await self.partial(ours, b"two")
        assert (await self.join(ours, path, two, one)).status == 201
        assert await ours.read(path) == b"twoone"

    async def test_a_final_one_takes_no_bytes(self, ours: Tus, path: str) -> None:
        answer = await self.join(ours, path, await self.partial(ours, b"abc"))
        await problem(await ours.patch(answer.headers["Location"], 3, b"def"), 403)
        assert await ours.read(path) == b"abc"

    async def test_parts_are_used_up(self, ours: Tus, path: str) -> None:
        part = await self.partial(ours, b"abc")
        assert (await self.join(ours, path, part)).status == 201
        assert (await ours.head(part)).status == 410
        await problem(await ours.delete(part), 410)
        await problem(await self.join(ours, f"{path}2", part), 410)
        await problem(await self.join(ours, path, part, await self.partial(ours, b"x")), 410)
        assert await ours.read(path) == b"abc"

    async def test_to_ask_again_gives_the_same(self, tus: Tus, path: str) -> None:
        parts = [await self.partial(tus, b"abc"), await self.partial(tus, b"def")]
        first, second = await self.join(tus, path, *parts), await self.join(tus, path, *parts)
        assert (first.status, second.status) == (201, 201)
        assert first.headers["Location"] == second.headers["Location"]
        assert await tus.read(path) == b"abcdef"

    async def test_of_two_files_that_want_a_part_one_gets_it(self, tus: Tus, path: str) -> None:
        part = await self.partial(tus, b"abc")
        answers = await asyncio.gather(*(self.join(tus, f"{path}{number}", part) for number in range(4)))
        assert sorted(answer.status for answer in answers)[0] == 201
        assert {answer.status for answer in answers[1:]} <= {201, 409, 410}
        assert sum(answer.status == 201 for answer in answers) == 1
        there = [await tus.read(f"{path}{number}") for number in range(4)]
        assert sorted(there, key=bool) == [None, None, None, b"abc"]

    async def test_what_is_not_whole_or_not_partial_can_not_be_part(self, ours: Tus, path: str) -> None:
        unfinished = await ours.create(None, 6, Upload_Concat="partial")
        await ours.patch(unfinished, 0, b"abc")
        whole = await ours.upload(path, b"abc")
        gone = await self.partial(ours, b"abc")
        await ours.delete(gone)
        part = await self.partial(ours, b"abc")
        for other, status in (
            (unfinished, 400),
            (whole, 400),
            (part, 400),
            (gone, 410),
            ("/uploads/u" + 25 * "0", 404),
        ):
            await problem(await self.join(ours, path, part, other), status)
        assert await ours.read(path) == b"abc"
        await ours.patch(unfinished, 3, b"def")
        assert (await self.join(ours, path, part, unfinished)).status == 201
        assert await ours.read(path) == b"abcabcdef"

    @pytest.mark.parametrize("concat", ["final", "final;", "final; ", "partial;x", "x", "final;/uploads/x", "final;/"])
    async def test_what_is_no_concatenation_is_400(self, ours: Tus, path: str, concat: str) -> None:
        await problem(await ours.post(path, Upload_Concat=concat), 400)

    async def test_a_final_one_has_no_length_and_needs_a_path(self, ours: Tus, path: str) -> None:
        part = await self.partial(ours, b"abc")
        await problem(await self.join(ours, path, part, Upload_Length=3), 400)
        await problem(await self.join(ours, None, part), 400)
        assert (await self.join(ours, path, part)).status == 201

    async def test_all_together_must_not_be_too_large(self, ours: Tus, path: str) -> None:
        parts = [await self.partial(ours, bytes(5 * MIB)) for _ in range(2)]
        await problem(await self.join(ours, path, *parts), 413)
        assert (await self.join(ours, path, parts[0])).status == 201


async def test_a_client_s_session_of_the_text(ours: Tus, path: str) -> None:
    """The examples of the protocol's page, one behind the other."""
    front: Client = ours.front
    answer = await front.options("/uploads")
    assert answer.status == 204
    given = {
        **VERSION,
        "Upload-Length": "100",
        "Upload-Metadata": "filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,is_confidential",
    }
    answer = await front.post(URL("/uploads").with_query(path=path), headers=given)
    upload = answer.headers["Location"]
    answer = await front.patch(upload, headers={**VERSION, **PIECE, "Upload-Offset": "0"}, data=bytes(70))
    answer = await front.head(upload, headers=VERSION)
    assert (answer.status, answer.headers["Upload-Offset"]) == (200, "70")
    answer = await front.patch(upload, headers={**VERSION, **PIECE, "Upload-Offset": "70"}, data=bytes(30))
    assert (answer.status, answer.headers["Upload-Offset"]) == (204, "100")
    checksum = {"Upload-Checksum": "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="}
    upload = await ours.create(path, 11)
    answer = await front.patch(
        upload, headers={**VERSION, **PIECE, "Upload-Offset": "0", **checksum}, data=b"hello world"
    )
    assert answer.status == 204
