"""Files as JSON: there and back, strictly read, in bounded memory, and files like any other."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfss import paths
from sfss.access.keys import READ, WRITE, Scope
from sfss.web.json_files import path_of
from tests.conftest import Client, Nodes, StartFront
from tests.servers import HOST, free_port, sfss_node
from tests.web.guarded import CONTENT, Front, Start

PREFIX = "clients/"
MIB = 2**20


@pytest.fixture
def client_id() -> str:
    """One's own: the nodes are shared."""
    return secrets.token_hex(6)


@pytest.fixture
async def front(our_nodes: Nodes, start_front: StartFront) -> Client:
    return await start_front(our_nodes, json={"prefix": PREFIX}, limits={"max_file_size": "64MiB"})


def posted(client_id: str, name: str, data: bytes) -> dict[str, str]:
    return {"client_id": client_id, "name": name, "data": base64.b64encode(data).decode()}


async def problem(answer: aiohttp.ClientResponse, status: int, kind: str) -> str:
    told = await answer.json(content_type="application/problem+json")
    assert (answer.status, told["type"]) == (status, f"urn:sfss:{kind}"), told
    return str(told["detail"])


async def got(front: Client, client_id: str, name: str) -> bytes:
    answer = await front.get("/files", params={"client_id": client_id, "name": name})
    body = await answer.read()
    assert (answer.status, answer.content_type) == (200, "application/json"), body
    assert int(answer.headers["Content-Length"]) == len(body)
    told = json.loads(body)
    assert told.keys() == {"name", "data"}
    assert told["name"] == name
    return base64.b64decode(told["data"], validate=True)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000, 768 * 1024 + 1, 3 * MIB + 2])
async def test_a_file_comes_and_goes_as_json_and_is_a_file_like_any_other(
    front: Client, client_id: str, size: int
) -> None:
    content = secrets.token_bytes(size)
    answer = await front.post("/files", json=posted(client_id, "test01.json", content))
    assert (answer.status, await answer.read()) == (200, b"")
    assert await got(front, client_id, "test01.json") == content
    plain = await front.get("/file", params={"path": f"{PREFIX}{client_id}/test01.json"})
    assert (await plain.read(), plain.content_type) == (content, "application/json")
    assert plain.headers["ETag"] == answer.headers["ETag"]
    listed = await (await front.get("/files", params={"prefix": f"{PREFIX}{client_id}/"})).json()
    assert [file["path"] for file in listed["files"]] == [f"{PREFIX}{client_id}/test01.json"]


async def test_a_large_file_that_came_otherwise_goes_as_json(front: Client, client_id: str) -> None:
    content = secrets.token_bytes(20 * MIB + 1)
    stored = await front.put("/file", params={"path": f"{PREFIX}{client_id}/film"}, data=content)
    assert stored.status == 200
    assert await got(front, client_id, "film") == content


@pytest.mark.parametrize("type", ["Application/JSON", 'application/json; charset="utf-8"', "application/json ;x=y"])
async def test_its_type_may_be_written_in_other_ways(front: Client, client_id: str, type: str) -> None:
    body = json.dumps(posted(client_id, "a", b"x")).encode()
    assert (await front.post("/files", data=body, headers={"Content-Type": type})).status == 200
    assert await got(front, client_id, "a") == b"x"


async def test_a_second_post_replaces_the_first(front: Client, client_id: str) -> None:
    for content in (b"one", b"two"):
        assert (await front.post("/files", json=posted(client_id, "a", content))).status == 200
    assert await got(front, client_id, "a") == b"two"


@pytest.mark.parametrize(
    ("client", "name", "path"),
    [("c", "a/b", "c/a%2Fb"), ("..", ".", "%2E%2E/%2E"), ("c", "a%2Fb", "c/a%252Fb"), ("ф", "кот 1", "ф/кот 1"),
     ("c", "a\nb\x7f\\", "c/a%0Ab%7F%5C"), ("c", "\x85", "c/%C2%85"), ("c", '"', 'c/"')],
)  # fmt: skip
async def test_any_name_is_one_segment_of_a_path(front: Client, client_id: str, client: str, name: str, path: str
                                                ) -> None:  # fmt: skip
    client, path = client_id + client, client_id + path
    if client.endswith(".."):
        client, path = client.removeprefix(client_id), path.removeprefix(client_id)
    assert (await front.post("/files", json=posted(client, name, b"x"))).status == 200
    assert await got(front, client, name) == b"x"
    assert await (await front.get("/file", params={"path": PREFIX + path})).read() == b"x"


@given(st.lists(st.tuples(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20)), max_size=5, unique=True))
def test_no_two_names_share_a_path_and_each_is_one(names: list[tuple[str, str]]) -> None:
    made = [path_of(PREFIX, *each) for each in names if all(c < "\ud800" or c > "\udfff" for c in "".join(each))]
    assert len(set(made)) == len(made)
    for path in made:
        assert paths.check(path).count("/") == 2


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"name": "a", "data": ""}, "client_id"),
        ({"client_id": "c", "data": ""}, "name"),
        ({"client_id": "c", "name": "a"}, "data"),
        ({"client_id": "", "name": "a", "data": ""}, "client_id"),
        ({"client_id": "c", "name": "", "data": ""}, "name"),
        ({"client_id": 1, "name": "a", "data": ""}, "client_id"),
        ({"client_id": "c", "name": "a", "data": None}, "data"),
        ({"client_id": "c", "name": "a", "data": "YQ"}, "base64"),
        ({"client_id": "c", "name": "a", "data": "Y Q=="}, "base64"),
        ({"client_id": "c", "name": "a", "data": "_-8="}, "base64"),
        ({"client_id": "c", "name": "a", "data": "YQ==YQ=="}, "base64"),
        ({"client_id": "c", "name": "a", "data": "", "path": "x"}, "path"),
        ([], "array"),
        ("x", "str"),
    ],
)
async def test_what_is_missing_or_no_base64_is_400_and_says_so(front: Client, body: object, says: str) -> None:
    assert says in await problem(await front.post("/files", json=body), 400, "bad-body")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"client_id":"\\ud800","name":"a","data":""}', b"[" * 5000])
async def test_what_is_no_json_is_400(front: Client, body: bytes) -> None:
    answer = await front.post("/files", data=body, headers={"Content-Type": "application/json; charset=utf-8"})
    await problem(answer, 400, "bad-body")


async def test_a_name_that_is_too_long_is_400(front: Client) -> None:
    for client, name in (("c", "x" * 1025), ("%" * 400, "x")):
        assert "1024" in await problem(await front.post("/files", json=posted(client, name, b"")), 400, "bad-path")


@pytest.mark.parametrize("query", ["client_id=c", "name=a", "client_id=&name=a", "client_id=c&name=",
                                   "client_id=c&client_id=c&name=a", "client_id=c&name=%ff"])  # fmt: skip
async def test_a_question_that_lacks_something_is_400(front: Client, query: str) -> None:
    answer = await front.get(f"/files?{query}", headers={"Trailer": "X"})
    assert (answer.status, answer.content_type) == (400, "application/problem+json")


async def test_an_unknown_file_is_404(front: Client, client_id: str) -> None:
    answer = await front.get("/files", params={"client_id": client_id, "name": "a"})
    await problem(answer, 404, "not-found")


async def test_what_is_too_large_is_413_before_or_while_it_comes(front: Client, client_id: str) -> None:
    body = json.dumps(posted(client_id, "a", bytes(9 * MIB))).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), MIB):
            yield body[start : start + MIB]

    headers = {"Content-Type": "application/json"}
    for data in (body, chunks(), json.dumps(posted(client_id, "a", bytes(8 * MIB + 1)))):
        answer = await front.post("/files", data=data, headers=headers)
        told = await problem(answer, 413, "too-large")
        assert "json.max_file_size" in told
    assert (await front.post("/files", json=posted(client_id, "a", bytes(8 * MIB)))).status == 200


async def test_the_limit_of_its_path_holds_too(start_front: StartFront, our_nodes: Nodes, client_id: str) -> None:
    front = await start_front(our_nodes, json={"prefix": PREFIX},
                              policy=[{"prefix": PREFIX, "max_file_size": 1000, "write_once": True}])  # fmt: skip
    answer = await front.post("/files", json=posted(client_id, "a", bytes(1001)))
    assert "max_file_size of the policy" in await problem(answer, 413, "too-large")
    assert (await front.post("/files", json=posted(client_id, "a", bytes(1000)))).status == 200
    await problem(await front.post("/files", json=posted(client_id, "a", b"")), 409, "write-once")


async def test_many_at_once_wait_for_their_turn_and_all_are_stored(
    start_front: StartFront, our_nodes: Nodes, client_id: str
) -> None:
    front = await start_front(our_nodes, json={"prefix": PREFIX, "max_file_size": "1MiB"},
                              limits={"transfer_memory": "4MiB"})  # fmt: skip
    contents = [secrets.token_bytes(500_000) for _ in range(12)]

    async def one(number: int) -> None:
        answer = await front.post("/files", json=posted(client_id, str(number), contents[number]))
        assert answer.status == 200
        assert await got(front, client_id, str(number)) == contents[number]

    await asyncio.gather(*map(one, range(len(contents))))


async def test_a_body_that_does_not_come_in_time_is_408_and_holds_up_nobody_for_longer(
    start_front: StartFront, our_nodes: Nodes, client_id: str
) -> None:
    front = await start_front(our_nodes, json={"prefix": PREFIX, "max_file_size": "1MiB"},
                              limits={"transfer_memory": "1MiB", "body_timeout": 0.5})  # fmt: skip

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" "
            await asyncio.sleep(0.05)

    async def slowly() -> aiohttp.ClientResponse:
        return await front.post("/files", data=slow(), headers={"Content-Type": "application/json"})

    waiting = asyncio.create_task(slowly())
    await asyncio.sleep(0.1)
    assert (await front.post("/files", json=posted(client_id, "a", bytes(100_000)))).status == 200
    await problem(await waiting, 408, "body-timeout")


async def test_when_its_node_is_away_it_is_500_that_says_so(start_front: StartFront, tmp_path: Path) -> None:
    port = free_port()
    with sfss_node(tmp_path / "node", port=port):
        front = await start_front([f"{HOST}:{port}"], json={"prefix": PREFIX})
        assert (await front.post("/files", json=posted("c", "a", b"x"))).status == 200
    for answer in (
        await front.post("/files", json=posted("c", "a", b"y")),
        await front.get("/files", params={"client_id": "c", "name": "a"}),
    ):
        assert str(port) in await problem(answer, 500, "storage-failed")
        assert int(answer.headers["Retry-After"]) > 0


async def test_what_is_not_meant_for_it_is_as_before(front: Client, client_id: str) -> None:
    path = f"{client_id}/a.json"
    assert (await front.post("/files", params={"path": path}, json={"a": 1})).status == 201
    assert await (await front.get("/file", params={"path": path})).json(content_type=None) == {"a": 1}
    assert (await front.post("/files", data=b"{}", headers={"Content-Type": "text/plain"})).status == 201
    assert "files" in await (await front.get("/files", params={"prefix": client_id})).json()


async def test_it_is_off_until_it_is_asked_for(start_front: StartFront, our_nodes: Nodes, client_id: str) -> None:
    front = await start_front(our_nodes)
    answer = await front.post("/files", json=posted(client_id, "a", b""))
    assert (answer.status, "file_id" in await answer.json()) == (201, True)
    assert "files" in await (await front.get("/files", params={"client_id": client_id, "name": "a", "limit": 1})).json()


class TestWhoIsLetIn:
    @pytest.fixture
    async def guarded(self, start_guarded: Start) -> Front:
        return await start_guarded(sections={"json": {"prefix": PREFIX}})

    async def test_a_key_of_one_client_is_good_for_his_files_only(self, guarded: Front, client_id: str) -> None:
        mine = await guarded.key(Scope(f"{PREFIX}{client_id}/", (READ, WRITE)))
        body = {client: json.dumps(posted(client, "a", CONTENT)).encode() for client in (client_id, "other", "../x")}
        type = "Content-Type: application/json"
        assert await guarded.status("POST", "/files", type, body=body[client_id]) == 401
        assert await guarded.status("POST", "/files", type, mine, body=body["other"]) == 403
        assert await guarded.status("POST", "/files", type, mine, body=body["../x"]) == 403
        assert await guarded.status("POST", "/files", type, mine, body=body[client_id]) == 200
        url = "/files?name=a&client_id="
        assert await guarded.status("GET", url + client_id) == 401
        assert await guarded.status("GET", url + "other", mine) == 403
        answer = await guarded.ask("GET", url + client_id, mine)
        assert (answer.status, answer.headers["cache-control"]) == (200, "private")
        assert await guarded.status("GET", "/files?prefix=", mine) == 403
        assert await guarded.status("POST", "/files", "Content-Type: text/plain", mine, body=b"x") == 403

    async def test_who_may_write_nothing_is_refused_before_his_body_is_read(self, guarded: Front) -> None:
        answer = await guarded.ask(
            "POST", "/files", "Content-Type: application/json", "Expect: 100-continue", "Content-Length: 100"
        )
        assert answer.status == 401
