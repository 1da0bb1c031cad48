"""Files at the URL's root: created once by POST, read, and never changed; and no page of sfss is shadowed by one."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import aiohttp
import pytest
from yarl import URL

from sfss.web.access import NEEDS
from sfss.web.app import IDS, QUICK
from sfss.web.problems import PROBLEMS
from tests.conftest import Client, Nodes, StartFront
from tests.web.guarded import Start, url_signed

POST = {"enabled": True}
WAYS = {"quick": {}, "aiohttp": {"Trailer": "X-None"}}


@pytest.fixture
def folder() -> str:
    """One's own: the nodes are shared."""
    return f"images{secrets.token_hex(6)}"


@pytest.fixture
async def front(nodes: Nodes, start_front: StartFront) -> Client:
    return await start_front(nodes, post=POST)


async def problem(answer: aiohttp.ClientResponse, status: int, kind: str) -> str:
    told = await answer.json(content_type="application/problem+json")
    assert (answer.status, told["type"]) == (status, f"urn:sfss:{kind}"), told
    return str(told["detail"])


async def test_a_file_is_created_once_and_read_ever_after(front: Client, folder: str) -> None:
    url = f"/{folder}/ololo/file.jpg"
    assert (await front.get(url)).status == 404
    made = await front.post(url, data=b"cat", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (made.status, made.headers["Location"]) == (201, url)
    for body in (b"cat", b"dog", bytes(200_000)):
        again = await front.post(url, data=body)
        assert "written once" in await problem(again, 405, "write-once")
        assert again.headers["Allow"] == "GET, HEAD"
    for headers in WAYS.values():
        for query in ("", "?version=12", "?path=other", "?version=12&path=%00"):
            answer = await front.get(f"{url}{query}", headers=headers)
            assert (answer.status, await answer.read()) == (200, b"cat")
            assert (answer.content_type, answer.headers["ETag"]) == ("image/jpeg", made.headers["ETag"])
            assert answer.headers["Content-Security-Policy"] == "sandbox"
    assert (await front.head(url)).headers["Content-Length"] == "3"
    part = await front.get(url, headers={"Range": "bytes=1-"})
    assert (part.status, await part.read()) == (206, b"at")
    assert (await front.get(url, headers={"If-None-Match": made.headers["ETag"]})).status == 304
    await problem(await front.get(f"/{folder}/ololo/file1.jpg"), 404, "not-found")


async def test_reads_go_the_quick_way(front: Client, folder: str) -> None:
    for url in (f"/{folder}/a.jpg", f"/{folder}.jpg"):
        await front.post(url, data=b"cat")
        before = front.app[QUICK].taken
        assert await (await front.get(url)).read() == b"cat"
        assert front.app[QUICK].taken == before + 1


async def test_a_file_may_be_in_no_folder_in_many_and_of_several_blocks(front: Client, folder: str) -> None:
    content = secrets.token_bytes(2_000_000)
    for url in (f"/{folder}", f"/{folder}.d/a/b/c/d", f"/{folder}%20%D1%84/%2E%2Ea;x=1", f"/{folder}.d%2Fx"):
        assert (await front.post(URL(url, encoded=True), data=content)).status == 201
        assert await (await front.get(URL(url, encoded=True))).read() == content
    assert await (await front.get("/file", params={"path": f"{folder} ф/..a;x=1"})).read() == content
    assert (await front.post(f"/{folder}.d/x", data=b"")).status == 405  # the same path


async def test_nothing_replaces_or_removes_it_by_any_url(front: Client, folder: str) -> None:
    url = f"/{folder}/a.jpg"
    for there in (False, True):
        for method in ("PUT", "DELETE"):
            answer = await front.request(method, url, data=b"x" if method == "PUT" else None)
            await problem(answer, 405, "write-once")
            assert answer.headers["Allow"] == "GET, HEAD, POST"
        if not there:
            assert (await front.post(url, data=b"cat")).status == 201
    by_query = URL("/file").with_query(path=f"{folder}/a.jpg")
    for method, data in (("PUT", b"x"), ("POST", b"x"), ("DELETE", None)):
        await problem(await front.request(method, by_query, data=data), 409, "write-once")
    assert await (await front.get(url)).read() == b"cat"
    assert (await front.request("PATCH", url, data=b"x")).status == 405


async def test_of_racing_creators_one_wins_and_his_file_stays(front: Client, nodes: Nodes, folder: str,
                                                             start_front: StartFront) -> None:  # fmt: skip
    fronts = [front, await start_front(nodes, post=POST)]
    for number in range(5):
        url = f"/{folder}/{number}"
        bodies = [secrets.token_bytes(100 if n % 2 else 150_000) for n in range(8)]
        answers = await asyncio.gather(*(fronts[n % 2].post(url, data=body) for n, body in enumerate(bodies)))
        statuses = [answer.status for answer in answers]
        assert sorted(statuses) == [201] + [405] * 7
        for each in fronts:
            assert await (await each.get(url)).read() == bodies[statuses.index(201)]


async def test_what_is_refused_leaves_the_path_free(front: Client, folder: str) -> None:
    url = f"/{folder}/a"
    wrong = await front.post(url, data=b"cat", headers={"Content-Digest": f"sha-256=:{'A' * 43}=:"})
    await problem(wrong, 400, "bad-digest")
    assert (await front.get(url)).status == 404
    assert (await front.post(url, data=b"cat")).status == 201


async def test_who_must_not_create_is_told_before_his_body_is_taken(front: Client, folder: str) -> None:
    url = f"/{folder}/a"
    await front.post(url, data=b"cat")

    async def body() -> Any:
        yield b"x"
        raise AssertionError("the body was asked for")

    answer = await front.post(url, data=body(), expect100=True)
    assert answer.status == 405


@pytest.mark.parametrize("page", ["status", "files", "Status", "uploads", "docs", "namespaces", "f", "livez"])
async def test_a_path_whose_url_is_a_page_is_refused_with_words(start_front: StartFront, our_nodes: Nodes, page: str
                                                               ) -> None:  # fmt: skip
    front = await start_front(our_nodes, post=POST)
    if page not in ("files", "uploads"):
        answer = await front.post(f"/{page}", data=b"x")
        told = await answer.json(content_type="application/problem+json")
        assert answer.status in (400, 405)
        assert "of sfss" in told["detail"]
    for url in (f"/{page}/x/y", f"/%{ord(page[0]):x}{page[1:]}/x/y"):
        answer = await front.post(URL(url, encoded=True), data=b"x")
        assert f"/{page} are pages of sfss" in await problem(answer, 400, "bad-path")
        for method in ("GET", "PUT", "DELETE"):
            await problem(await front.request(method, URL(url, encoded=True), data=None), 404, "http")


async def test_pages_stay_what_they_are(start_front: StartFront, our_nodes: Nodes) -> None:
    front = await start_front(our_nodes, post=POST)
    for page in ("/status", "/livez", "/health", "/files?prefix=none/", "/namespaces"):
        answer = await front.get(page)
        assert (answer.status, answer.content_type) == (200, "application/json")
    assert (await front.delete("/status")).status == 405
    assert (await front.get("/")).content_type == "text/html"  # the dashboard
    without = await start_front(our_nodes, post=POST, dashboard={"enabled": False})  # as `sfss post` has it
    assert (await without.get("/")).status == 404


@pytest.mark.parametrize(
    "url", ["/a//b", "/%2fa", "/a/", "/a/%2e%2e/b", "/a%00", "/a%0a", "/a%5cb", "/a/%ff", f"/{'x' * 1025}"]
)
@pytest.mark.parametrize("way", WAYS)
async def test_what_is_no_path_is_400(start_front: StartFront, our_nodes: Nodes, url: str, way: str) -> None:
    front = await start_front(our_nodes, post=POST)
    for method in ("GET", "POST"):
        answer = await front.request(method, URL(url, encoded=True), headers=WAYS[way])
        await problem(answer, 400, "bad-path")


async def test_what_is_in_a_namespace_is_as_that_has_it(start_front: StartFront, our_nodes: Nodes, folder: str) -> None:
    front = await start_front(our_nodes, post=POST, namespace=[{"name": folder}])
    url = f"/{folder}/a"
    for method, status in (("PUT", 200), ("POST", 201), ("PUT", 200), ("GET", 200), ("DELETE", 204)):
        assert (await front.request(method, url, data=b"x" if method[0] == "P" else None)).status == status


async def test_a_policy_may_let_files_be_replaced_but_not_by_post(start_front: StartFront, our_nodes: Nodes,
                                                                  folder: str) -> None:  # fmt: skip
    front = await start_front(our_nodes, post=POST, policy=[{"prefix": f"{folder}/", "write_once": False}])
    url, by_query = f"/{folder}/a", URL("/file").with_query(path=f"{folder}/a")
    assert (await front.post(url, data=b"1")).status == 201
    await problem(await front.post(url, data=b"2"), 405, "write-once")
    assert (await front.put(by_query, data=b"2")).status == 200
    assert (await front.delete(by_query)).status == 204
    assert (await front.post(url, data=b"3")).status == 201


async def test_every_route_says_what_it_needs(start_front: StartFront, our_nodes: Nodes) -> None:
    front = await start_front(our_nodes, post=POST)
    there = {(route.method, route.resource.canonical) for route in front.app.router.routes() if route.resource}
    root = {(method, "/{path}") for method in ("GET", "HEAD", "PUT", "POST", "DELETE")}
    assert there == NEEDS.keys() | front.app[IDS].needs.keys() | root


async def test_access_holds_for_it_as_for_others(start_guarded: Start) -> None:
    front = await start_guarded({"prefix": "open-post/", "anonymous": ["read"]}, sections={"post": POST})
    await front.store()
    for line in ("", "Trailer: X-None"):
        lines = [line] if line else []
        assert await front.status("GET", f"/{front.outer}", *lines) == 401
        assert await front.status("POST", f"/{front.outer}x", *lines, body=b"x") == 401
        assert await front.status("POST", f"/{front.folder}", *lines, body=b"x") == 401
        assert await front.status("DELETE", f"/{front.outer}", *lines) == 401
        assert await front.status("GET", "/open-post/none", *lines) == 404
        signed = url_signed(front.outer).partition("&")[2]
        answer = await front.ask("GET", f"/{front.outer}?{signed}", *lines)
        assert (answer.status, answer.headers["cache-control"]) == (200, "private")
        assert await front.status("GET", f"/{front.inner}mine?{signed}", *lines) == 403


async def test_it_is_off_until_it_is_asked_for(start_front: StartFront, our_nodes: Nodes, folder: str) -> None:
    front = await start_front(our_nodes)
    for url in (f"/{folder}", f"/{folder}/a"):
        for method in ("GET", "POST", "DELETE"):
            await problem(await front.request(method, url), 404, "http")


def test_its_problem_is_the_one_that_write_once_has_elsewhere() -> None:
    assert {problem.status for problem in PROBLEMS.values() if problem.name == "write-once"} == {405, 409}
