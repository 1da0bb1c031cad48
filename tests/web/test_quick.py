"""The quick way: it answers just what aiohttp's way does, and the two never disagree on where a request begins."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket

import pytest

from sfss import config
from sfss.web import connection
from sfss.web.app import IN_FLIGHT, QUICK, TALLY, create_app
from tests.conftest import Client, Nodes, StartFront
from tests.web.conftest import Connect
from tests.web.raw import PATIENCE, Answer, Raw, request

CONTENT = bytes(range(256)) * 8
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'
FOR_AIOHTTP = "Trailer: X-None"  # the quick way leaves such requests alone


@pytest.fixture
def path() -> str:
    return f"quick/{secrets.token_hex(8)}/cat.jpg"


@pytest.fixture
async def raw(front: Client, connect: Connect) -> Raw:
    """A connection to a front over each kind of node in turn."""
    return await connect(front)


def taken(front: Client) -> int:
    """How many requests have gone the quick way at this front."""
    return front.app[QUICK].taken  # type: ignore[no-any-return]


def comparable(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """But for the time, headers' order, and what the request is called."""
    headers = {name: value for name, value in answer.headers.items() if name != "date"}
    request_id = headers["x-request-id"]
    headers["x-request-id"] = "ID"
    return answer.status, headers, answer.body.replace(request_id.encode(), b"ID")


GETS = {
    "plain": (),
    "not modified": (f"If-None-Match: {ETAG}",),
    "not modified, in lower case": (f"if-none-match: {ETAG}",),
    "not modified, one of several": (f'If-None-Match: "x", W/{ETAG}',),
    "modified": ('If-None-Match: "x"',),
    "two lines of tags": ('If-None-Match: "x"', f"If-None-Match: {ETAG}"),
    "no tag": ("If-None-Match: x",),
    "any": ("If-None-Match: *",),
    "not modified since": ("If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT",),
    "modified since": ("If-Modified-Since: Fri, 01 Jan 2010 00:00:00 GMT",),
    "matches": (f"If-Match: {ETAG}",),
    "doesn't match": ('If-Match: "x"',),
    "both": (f"If-Match: {ETAG}", f"If-None-Match: {ETAG}"),
    "a range": ("Range: bytes=10-19",),
    "the end": ("Range: bytes=-5",),
    "outside": ("Range: bytes=99999-",),
    "a range if it is that": ("Range: bytes=10-19", f"If-Range: {ETAG}"),
    "a range if it is another": ("Range: bytes=10-19", 'If-Range: "x"'),
    "kept alive": ("Connection: keep-alive",),
}


@pytest.mark.parametrize("lines", GETS.values(), ids=GETS.keys())
@pytest.mark.parametrize("kind", ["with metadata", "without"])
async def test_a_get_is_answered_as_by_aiohttp(front: Client, raw: Raw, path: str, kind: str,
                                               lines: tuple[str, ...]) -> None:  # fmt: skip
    meta = ("X-Meta-Owner: Zoë", "Content-Type: text/plain; charset=utf-8") if kind == "with metadata" else ()
    await raw.ask(request("PUT", f"/file?path={path}", *meta, body=CONTENT))
    before = taken(front)
    quick = await raw.ask(request("GET", f"/file?path={path}", *lines))
    assert taken(front) == before + (lines != GETS["two lines of tags"])
    other = await raw.ask(request("GET", f"/file?path={path}", *lines, FOR_AIOHTTP))
    assert taken(front) <= before + 1
    assert comparable(quick) == comparable(other)


QUERIES = ["", "path=", "path", "other=1", "path=none.jpg", "path=/etc/passwd", "path=a/../b", "path=a/./b", "path=..",
           "path=.", "path=a//b", "path=a/", "path=%2e%2e", "path=a%2fb", "path=a%00b", "path=%ff", "path=a&path=b",
           "path=a+b", "path=a%20b", "path=%D1%84%20", "path=a%5Cb", "path=" + "x" * 300, "path=" + "x" * 1025,
           "path=a=b", "path=a;b", "a=b&path=c", "path=.hidden", "path=a..b", "path=...", "path=a/.b/c..",
           "path=%zz", "path=-", "path=~"]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
async def test_a_path_means_the_same_as_to_aiohttp(front: Client, raw: Raw, method: str, query: str) -> None:
    body = b"" if method == "GET" else CONTENT
    before = taken(front)
    quick = await raw.ask(request(method, f"/file?{query}", body=body))
    assert taken(front) == before + 1
    other = await raw.ask(request(method, f"/file?{query}", FOR_AIOHTTP, body=body))
    assert comparable(quick) == comparable(other)


WRITES = {
    "plain": (),
    "typed": ("Content-Type: image/png",),
    "by curl": ("Content-Type: application/x-www-form-urlencoded",),
    "no type": ("Content-Type: nonsense",),
    "with metadata": ("X-Meta-Owner: me", "X-Meta-Year: 2026"),
    "metadata twice": ("X-Meta-Owner: me", "X-Meta-Owner: you"),
    "if absent": ("If-None-Match: *",),
    "if it isn't that": (f"If-None-Match: {ETAG}",),
    "if it is that": (f"If-Match: {ETAG}",),
    "if it is another": ('If-Match: "x"',),
    "checked": ("Content-MD5: AAAAAAAAAAAAAAAAAAAAAA==",),
    "in gzip": ("Content-Encoding: gzip",),
    "a part": ("Content-Range: bytes 0-9/20",),
}


@pytest.mark.parametrize("lines", WRITES.values(), ids=WRITES.keys())
@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_a_write_does_the_same_as_by_aiohttp(front: Client, raw: Raw, path: str, method: str, there: bool,
                                                   lines: tuple[str, ...], connect: Connect) -> None:  # fmt: skip
    outcomes = []
    for name, more in ((f"{path}.a", ()), (f"{path}.b", (FOR_AIOHTTP,))):
        if there:
            await raw.ask(request("PUT", f"/file?path={name}", body=CONTENT))
        answer = await raw.ask(request(method, f"/files?path={name}", *lines, *more, body=b"what is written"))
        left = await raw.ask(request("GET", f"/file?path={name}", FOR_AIOHTTP))
        outcome = [comparable(answer), comparable(left)]
        for _, headers, _ in outcome:
            headers.pop("last-modified", None)
        outcomes.append(str(outcome).replace(name, "NAME"))
        if not more:  # this connection is aiohttp's for good by now
            raw = await connect(front)
    assert outcomes[0] == outcomes[1]


async def test_requests_are_the_same_however_their_bytes_are_split(front: Client, path: str, connect: Connect) -> None:
    await (await connect(front)).ask(request("PUT", f"/file?path={path}", body=CONTENT))
    data = (
        request("GET", f"/file?path={path}")
        + request("PUT", f"/file?path={path}", body=CONTENT)
        + request("GET", "/livez")
        + request("GET", f"/file?path={path}", f"If-None-Match: {ETAG}")
    )
    for step in (1, 7, 50, 301, 2000):
        client = await connect(front)
        for at in range(0, len(data), step):
            client.writer.write(data[at : at + step])
            if step > 50 or at % 7 == 0:
                await asyncio.sleep(0)
        assert [(await client.answer()).status for _ in range(4)] == [200, 200, 200, 304]


async def test_many_requests_at_once_are_answered_in_their_order(front: Client, path: str, raw: Raw) -> None:
    names = [f"{path}.{number}" for number in range(30)]
    for name in names:
        await raw.ask(request("PUT", f"/file?path={name}", body=name.encode()))
    bad = request("GET", "/file?path=..")
    raw.writer.write(b"".join(request("GET", f"/file?path={name}") + bad for name in names * 40))
    for name in names * 40:
        assert (await raw.answer()).body == name.encode()
        assert (await raw.answer()).status == 400


async def test_both_ways_take_turns_on_one_connection(front: Client, path: str, raw: Raw) -> None:
    large = secrets.token_bytes(300_000)
    before = taken(front)
    for number in range(5):
        for body in (CONTENT, large):
            name = f"{path}.{number}"
            assert (await raw.ask(request("PUT", f"/file?path={name}", body=body))).status == 200
            assert (await raw.ask(request("GET", f"/file?path={name}"))).body == body
            assert (await raw.ask(request("DELETE", f"/file?path={name}"))).status == 204
            raw.writer.write(request("HEAD", f"/file?path={name}"))
            assert (await raw.answer(bodiless=True)).status == 404
    assert taken(front) - before == 15  # all but five large PUTs, the DELETEs and the HEADs


async def test_so_does_who_asks_before_the_front_has_seen_him(front: Client, path: str) -> None:
    before = taken(front)
    for _ in range(10):
        with socket.create_connection((front.host, front.port), 10) as client:
            client.sendall(request("GET", f"/file?path={path}"))  # in the loop's same turn
            client.setblocking(False)
            async with asyncio.timeout(PATIENCE):
                assert (await asyncio.get_running_loop().sock_recv(client, 4096)).startswith(b"HTTP/1.1 404 ")
    assert taken(front) - before == 10


async def test_a_file_in_blocks_is_looked_for_once(front: Client, path: str, raw: Raw) -> None:
    content = secrets.token_bytes(1_500_000)
    assert (await raw.ask(request("PUT", f"/file?path={path}", body=content))).status == 200
    for _ in range(3):
        assert (await raw.ask(request("GET", f"/file?path={path}"))).body == content
        part = await raw.ask(request("GET", f"/file?path={path}", "Range: bytes=1400000-1400009"))
        assert (part.status, part.body) == (206, content[1_400_000:1_400_010])
        assert (await raw.ask(request("GET", f"/file?path={path}.none"))).status == 404


SMUGGLED = request("GET", "/file?path=secret", "X-Smuggled: 1")
DOUBTFUL = {
    "two lengths": b"PUT /file?path=x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: %d\r\n\r\n",
    "length and chunks": b"PUT /file?path=x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n"
                         b"Transfer-Encoding: chunked\r\n\r\n",
    "a blank before the colon": b"PUT /file?path=x HTTP/1.1\r\nHost: a\r\nContent-Length : %d\r\n\r\n",
    "a bare line feed": b"PUT /file?path=x HTTP/1.1\r\nHost: a\nContent-Length: %d\r\n\r\n",
    "a bare carriage return": b"PUT /file?path=x HTTP/1.1\r\nHost: a\rContent-Length: %d\r\n\r\n",
    "a folded line": b"PUT /file?path=x HTTP/1.1\r\nHost: a\r\nX: y\r\n Content-Length: %d\r\n\r\n",
    "a plus": b"PUT /file?path=x HTTP/1.1\r\nHost: a\r\nContent-Length: +%d\r\n\r\n",
    "hexadecimal": b"PUT /file?path=x HTTP/1.1\r\nHost: a\r\nContent-Length: 0x%x\r\n\r\n",
    "a list": b"PUT /file?path=x HTTP/1.1\r\nHost: a\r\nContent-Length: 1, %d\r\n\r\n",
    "a NUL": b"PUT /file?path=x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\0\r\n\r\n",
    "chunks in capitals": b"PUT /file?path=x HTTP/1.1\r\nHost: a\r\ntRANSFER-eNCODING: Chunked\r\nX: %d\r\n\r\n",
    "an old version": b"PUT /file?path=x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("head", DOUBTFUL.values(), ids=DOUBTFUL.keys())
async def test_no_body_is_taken_for_a_request(front: Client, raw: Raw, head: bytes) -> None:
    before = taken(front)
    raw.writer.write(head % len(SMUGGLED) + SMUGGLED)
    raw.writer.write_eof()
    answers = await raw.ended()
    assert taken(front) == before  # nothing behind such a head is simple any more
    assert answers.count(b"HTTP/1.1 ") + answers.count(b"HTTP/1.0 ") <= 1


async def test_a_body_that_doesn_t_come_ends_in_408(
    nodes: Nodes, start_front: StartFront, path: str, connect: Connect
) -> None:
    front = await start_front(nodes, limits={"body_timeout": 0.5})
    client = await connect(front)
    answer = await client.ask(request("PUT", f"/file?path={path}", body=CONTENT)[:-1])
    assert answer.status == 408
    assert (await (await connect(front)).ask(request("GET", f"/file?path={path}"))).status == 404


async def test_a_slow_body_is_taken(front: Client, path: str, raw: Raw) -> None:
    data = request("PUT", f"/file?path={path}", body=CONTENT)
    for at in range(0, len(data), 400):
        raw.writer.write(data[at : at + 400])
        await asyncio.sleep(0.1)
    assert (await raw.answer()).status == 200
    assert (await raw.ask(request("GET", f"/file?path={path}"))).body == CONTENT


async def test_who_goes_away_leaves_nothing_behind(front: Client, path: str, connect: Connect) -> None:
    for data in (request("GET", f"/file?path={path}"), request("PUT", f"/file?path={path}", body=CONTENT)):
        for cut in (None, -1):
            client = await connect(front)
            client.writer.write(data[:cut])
            await client.writer.drain()
            client.close()
    raw = await connect(front)
    async with asyncio.timeout(20):
        while (await raw.ask(request("GET", f"/file?path={path}"))).status != 200:
            await asyncio.sleep(0.01)
    assert front.app is not None
    assert await front.app[IN_FLIGHT].finish(5) == 0


async def test_a_client_that_reads_nothing_is_not_answered_for_ever(front: Client, path: str, raw: Raw) -> None:
    body = secrets.token_bytes(56_000)
    await raw.ask(request("PUT", f"/file?path={path}", body=body))
    before = taken(front)
    raw.writer.write(request("GET", f"/file?path={path}") * 2000)
    seen = -1
    while seen != (seen := taken(front)):
        await asyncio.sleep(0.3)
    assert seen - before < 1000  # as many as the two sockets and their buffers hold
    for _ in range(2000):
        assert (await raw.answer()).body == body


async def test_answers_are_counted(front: Client, path: str, raw: Raw) -> None:
    def counts() -> dict[int, int]:
        assert front.app is not None
        return {status: front.app[TALLY].responses().get(status, 0) for status in (200, 400, 404)}

    before = counts()
    await raw.ask(request("PUT", f"/file?path={path}", body=CONTENT))
    await raw.ask(request("GET", f"/file?path={path}"))
    await raw.ask(request("GET", f"/file?path={path}.none"))
    await raw.ask(request("GET", "/file?path=.."))
    assert {status: count - before[status] for status, count in counts().items()} == {200: 2, 400: 1, 404: 1}


async def test_a_policy_with_pieces_holds_for_small_files(
    our_nodes: Nodes, start_front: StartFront, connect: Connect
) -> None:
    front = await start_front(our_nodes, policy=[{"prefix": "spread/", "pieces": 3}])
    raw = await connect(front)
    path = f"spread/{secrets.token_hex(8)}"
    assert (await raw.ask(request("PUT", f"/file?path={path}", body=CONTENT))).status == 200
    assert (await raw.ask(request("GET", f"/file?path={path}"))).body == CONTENT
    raw.writer.write(request("HEAD", f"/file?path={path}"))
    assert (await raw.answer(bodiless=True)).headers["etag"] == ETAG


async def test_with_another_aiohttp_all_goes_its_way(
    path: str, monkeypatch: pytest.MonkeyPatch, nodes: Nodes, start_front: StartFront, connect: Connect
) -> None:
    monkeypatch.setattr(connection, "_INSIDES", ("_what_there_is_not",))
    other = await start_front(nodes)
    raw = await connect(other)
    assert (await raw.ask(request("PUT", f"/file?path={path}", body=CONTENT))).status == 200
    assert (await raw.ask(request("GET", f"/file?path={path}"))).body == CONTENT
    assert taken(other) == 0


def test_the_quick_way_is_part_of_every_front() -> None:
    app = create_app(config.load(overrides={"storage": {"nodes": ["127.0.0.1:1"]}}))
    assert app[QUICK].taken == 0
