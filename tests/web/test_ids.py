"""Files by id: what is stored without a path is found by the id it got, under the name that it came with."""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.conftest import Client, Nodes, StartFront
from tests.web.raw import Raw, request

CONTENT = secrets.token_bytes(3000)


def form(name: str | None, content: bytes = CONTENT, type: str | None = None) -> aiohttp.FormData:
    data = aiohttp.FormData(quote_fields=False)
    data.add_field("upload_file", content, filename=name, content_type=type)
    return data


async def posted(front: Client, **options: Any) -> dict[str, Any]:
    answer = await front.post("/files", **options)
    assert answer.status == 201, await answer.text()
    told: dict[str, Any] = await answer.json()
    assert answer.headers["Location"] == told["url"] == f"/files/{told['file_id']}"
    assert answer.headers["ETag"] == f'"{told["sha256"]}"'
    return told


async def test_a_form_gets_an_id_and_is_there_under_it(front: Client) -> None:
    told = await posted(front, data=form("cat.jpg"))
    assert told == {
        "file_id": str(uuid.UUID(told["file_id"], version=4)),
        "filename": "cat.jpg",
        "size": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "content_type": "image/jpeg",
        "url": f"/files/{told['file_id']}",
        "created": told["created"],
    }
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", told["created"])
    answer = await front.get(told["url"])
    assert (answer.status, await answer.read()) == (200, CONTENT)
    assert answer.headers["Content-Disposition"] == 'attachment; filename="cat.jpg"'
    assert answer.headers["Content-Type"] == "image/jpeg"
    head = await front.head(told["url"])
    same = ("ETag", "Content-Length", "Content-Type", "Content-Disposition", "Last-Modified")
    assert [head.headers[name] for name in same] == [answer.headers[name] for name in same]
    listed = await front.get("/file", params={"path": f"by-id/{told['file_id']}"})
    assert (await listed.read(), listed.headers["X-Meta-Filename"]) == (CONTENT, "cat.jpg")


async def test_ranges_and_conditions_are_as_of_any_file(front: Client) -> None:
    told = await posted(front, data=form("cat.jpg"))
    tag = f'"{told["sha256"]}"'
    part = await front.get(told["url"], headers={"Range": "bytes=10-19"})
    assert (part.status, await part.read()) == (206, CONTENT[10:20])
    assert part.headers["Content-Disposition"] == 'attachment; filename="cat.jpg"'
    assert (await front.get(told["url"], headers={"If-None-Match": tag})).status == 304
    assert (await front.get(told["url"], headers={"If-Match": '"x"'})).status == 412
    assert (await front.delete(told["url"], headers={"If-Match": '"x"'})).status == 412
    assert (await front.delete(told["url"], headers={"If-Match": tag})).status == 204
    for method in ("GET", "HEAD", "DELETE"):
        assert (await front.request(method, told["url"])).status == 404


async def test_a_large_file_has_its_name_too(start_front: StartFront, our_nodes: Nodes) -> None:
    front = await start_front(our_nodes, limits={"max_file_size": "8MiB"})
    content = secrets.token_bytes(3_000_000)
    told = await posted(front, data=form("фильм.mp4", content))
    assert (told["size"], told["filename"], told["content_type"]) == (len(content), "фильм.mp4", "video/mp4")
    answer = await front.get(told["url"])
    assert await answer.read() == content
    assert "filename*=UTF-8''%D1%84%D0%B8%D0%BB%D1%8C%D0%BC.mp4" in answer.headers["Content-Disposition"]


async def test_a_body_that_is_no_form_has_the_name_that_its_header_says_or_none(front: Client) -> None:
    named = {"Content-Disposition": "attachment; filename*=UTF-8''%D0%BA%D0%BE%D1%82.png"}
    told = await posted(front, data=CONTENT, headers=named)
    assert (told["filename"], told["content_type"]) == ("кот.png", "image/png")
    typed = await posted(front, data=CONTENT, headers={**named, "Content-Type": "text/x-cat"})
    assert typed["content_type"] == "text/x-cat"
    nameless = await posted(front, data=CONTENT)
    assert (nameless["filename"], nameless["content_type"]) == (None, "application/octet-stream")
    answer = await front.get(nameless["url"])
    assert answer.headers["Content-Disposition"] == "attachment"
    assert len({each["file_id"] for each in (told, typed, nameless)}) == 3


@pytest.mark.parametrize(
    "name", ['a"b.txt', "a\\b.txt", "../../etc/passwd", "a;b=c.txt", "x" * 1000, "é.txt", "%0D%0A.txt"]
)
async def test_no_name_gets_out_of_its_field(front: Client, name: str) -> None:
    told = await posted(front, data=form(name, type="text/plain"))
    answer = await front.get(told["url"])
    field = answer.headers["Content-Disposition"]
    assert field.startswith("attachment; filename=")
    assert field.isascii()
    assert field.count('"') == 2
    assert "/" not in (told["filename"] or "")
    assert await answer.read() == CONTENT


async def test_a_line_break_in_a_name_makes_no_header(front: Client) -> None:
    raw = await Raw.to(front)
    for bad in ("a%0d%0aX-Evil: 1", "a\tb", "a\x7fb"):
        body = f'--b\r\nContent-Disposition: form-data; name="upload_file"; filename="{bad}"\r\n\r\nx\r\n--b--\r\n'
        answer = await raw.ask(
            request("POST", "/files", "Content-Type: multipart/form-data; boundary=b", body=body.encode())
        )
        assert answer.status == 201
        got = await raw.ask(request("GET", answer.headers["location"]))
        assert (got.status, got.body) == (200, b"x")
        assert "x-evil" not in got.headers
    raw.close()


async def test_an_upload_that_breaks_off_leaves_nothing(start_front: StartFront, our_nodes: Nodes) -> None:
    folder = secrets.token_hex(8)
    front = await start_front(our_nodes, ids={"folder": folder})
    body = b'--b\r\nContent-Disposition: form-data; name="upload_file"; filename="a"\r\n\r\nhalf'
    raw = await Raw.to(front)
    answer = await raw.ask(request("POST", "/files", "Content-Type: multipart/form-data; boundary=b", body=body))
    assert (answer.status, b"bad-body" in answer.body) == (400, True)
    raw.close()
    page = await (await front.get("/files", params={"prefix": f"{folder}/"})).json()
    assert page["files"] == []


@pytest.mark.parametrize(
    "url",
    ["/files/x", "/files/%2e%2e", "/files/%2e%2e%2ffile", "/files/0b0f3c1e-6b1c-4c9b-8d4f-2f7c3a5e9d10",
     "/files/0B0F3C1E-6B1C-4C9B-8D4F-2F7C3A5E9D10", "/files/{0b0f3c1e-6b1c-4c9b-8d4f-2f7c3a5e9d10}", "/files/x%00"],
)  # fmt: skip
async def test_what_is_no_id_that_there_is_is_404(front: Client, url: str) -> None:
    for method in ("GET", "DELETE"):
        answer = await front.request(method, URL(url, encoded=True))
        assert answer.status == 404, url
        assert answer.content_type == "application/problem+json"


async def test_the_folder_can_have_a_policy_and_a_namespace(start_front: StartFront, our_nodes: Nodes) -> None:
    folder = f"ids-{secrets.token_hex(4)}"
    front = await start_front(
        our_nodes, ids={"folder": folder}, namespace=[{"name": folder, "write_once": True, "max_file_size": 5000}]
    )
    told = await posted(front, data=form("cat.jpg"))
    assert (await front.get(f"/{folder}/{told['file_id']}")).status == 200
    assert (await front.delete(told["url"])).status == 409
    assert (await front.post("/files", data=form("cat.jpg", bytes(6000)))).status == 413
    page = await (await front.get("/files", params={"prefix": f"{folder}/"})).json()
    assert [file["path"] for file in page["files"]] == [f"{folder}/{told['file_id']}"]


async def test_with_a_path_it_is_stored_there_as_before(front: Client) -> None:
    path = f"ids/{secrets.token_hex(8)}"
    for query in (f"path={path}", f"p%61th={path}"):
        answer = await front.post(URL(f"/files?{query}", encoded=True), data=CONTENT)
        assert (answer.status, answer.headers["Location"], await answer.read()) == (201, f"/file?path={path}", b"")
    assert (await front.post(URL("/files?path=", encoded=True), data=CONTENT)).status == 400
    assert (await front.post("/file", data=CONTENT)).status == 400
