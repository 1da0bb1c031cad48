"""Access over HTTP: who may do what, on both ways, and what is said to who may not."""

from __future__ import annotations

import json
import secrets
import uuid
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from sfss import config
from sfss.access.keys import ADMIN, READ, STATUS, WRITE, Scope
from sfss.web.access import NEEDS, Free, Within
from sfss.web.app import IDS, QUICK, REGISTRY, create_app
from sfss.web.ids import BY_ID
from sfss.web.urls import CLEAN_ROUTE
from tests.cluster.support import until
from tests.conftest import Nodes, StartFront
from tests.servers import HOST, free_port, sfss_node
from tests.web.guarded import CONTENT, WAYS, Front, Start, WithKey, url_signed
from tests.web.tus import metadata


@pytest.fixture
async def front(start_guarded: Start) -> Front:
    """One on which nobody may do anything without a key."""
    return await start_guarded()


# --- what everybody may ---


async def test_every_route_of_the_application_is_in_the_table_and_no_other() -> None:
    app = create_app(config.load())
    there = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    assert there == NEEDS.keys() | app[IDS].needs.keys()


async def test_a_route_that_nobody_thought_of_is_open_to_nobody(
    our_nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    async def forgotten(_request: web.Request) -> web.Response:
        return web.Response(text="something")

    for anonymous, status in (([], 403), (["read", "write"], 200)):
        app = create_app(config.load(overrides={"storage": {"nodes": our_nodes}, "access": {"anonymous": anonymous}}))
        app.router.add_get("/forgotten", forgotten)
        async with TestClient(TestServer(app)) as client, client.get("/forgotten") as answer:
            assert answer.status == status
    assert "nothing says what it needs: this is a bug" in caplog.text


async def test_without_a_key_each_page_says_that_it_needs_one(front: Front) -> None:
    for (method, page), need in {**NEEDS, ("DELETE", BY_ID): NEEDS["DELETE", "/file"]}.items():
        if isinstance(need, Free | Within):
            continue
        url = {CLEAN_ROUTE: "/some/file", BY_ID: f"/files/{uuid.uuid4()}"}.get(page, page.replace("{name}", "some"))
        answer = await front.ask(method, f"{url}?path={front.inner}x")
        assert answer.status == 401, (method, page)
        assert answer.headers["www-authenticate"] == 'Bearer realm="sfss"'
        if method != "HEAD":
            assert json.loads(answer.body)["type"] == "urn:sfss:no-key"
    for page in ("/livez", "/readyz", "/health"):
        assert await front.status("GET", page) == 200
    assert await front.status("GET", "/nowhere") == 404
    assert await front.status("DELETE", "/status") == 405


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("anonymous", [[], ["read"], ["write"], ["read", "write"]])
async def test_everybody_may_what_the_settings_say(start_guarded: Start, anonymous: list[str], way: str) -> None:
    front = await start_guarded(anonymous=anonymous)
    path = f"/file?path={front.inner}x"
    writes, reads = "write" in anonymous, "read" in anonymous
    assert await front.status("PUT", path, *WAYS[way], body=b"x") == (200 if writes else 401)
    assert await front.status("POST", path, *WAYS[way], body=b"x") == (201 if writes else 401)
    assert await front.status("GET", path, *WAYS[way]) == ((200 if writes else 404) if reads else 401)
    assert await front.status("HEAD", path, *WAYS[way]) == ((200 if writes else 404) if reads else 401)
    assert await front.status("GET", f"/files?prefix={front.folder}") == (200 if reads else 401)
    assert await front.status("DELETE", path) == (204 if writes else 401)
    assert await front.status("GET", "/status") == (200 if reads and writes else 401)


async def test_who_may_not_see_nodes_is_not_told_of_them(front: Front, our_nodes: Nodes) -> None:
    admin, other = await front.key(Scope("", (ADMIN,))), await front.key(Scope("", (READ, WRITE)))
    status = await front.key(Scope("", (STATUS,)))
    for line, sees in ((admin, True), (status, True), (other, False), ("X: y", False)):
        answer = await front.ask("GET", "/readyz", line)
        assert json.loads(answer.body)["status"] == "ready"
        assert (our_nodes[0] in answer.body.decode()) == sees
        assert await front.status("GET", "/status?format=full", line) == (
            200 if sees else 403 if line == other else 401
        )


async def test_a_key_for_a_prometheus_reads_figures_and_nothing_else(front: Front) -> None:
    line = await front.key(Scope("", (STATUS,)))
    await front.store()
    pages = ("/status", "/metrics", "/nodes", "/namespaces", "/namespaces/{name}")
    may = {(method, page) for method in ("GET", "HEAD") for page in pages}
    for (method, page), need in {**NEEDS, ("DELETE", BY_ID): NEEDS["DELETE", "/file"]}.items():
        if isinstance(need, Free | Within):
            continue
        url = {CLEAN_ROUTE: "/some/file", BY_ID: f"/files/{uuid.uuid4()}"}.get(page, page.replace("{name}", "some"))
        answer = await front.ask(method, f"{url}?path={front.inner}x", line)
        wanted = (404 if page.endswith("{name}") else 200) if (method, page) in may else 403
        assert answer.status == wanted, (method, page)  # 404: there is no such namespace
    assert await front.status("POST", "/nodes", line, body=b"{}") in (401, 403, 404)
    assert await front.status("DELETE", "/nodes/some", line) in (401, 403, 404)
    assert await front.status("GET", f"/file?path={front.outer}", line) == 403
    told = json.loads((await front.ask("GET", "/dashboard/may?prefix=", line)).body)
    assert [told[right] for right in ("status", "admin", "list", "read", "write")] == [True, False, False, False, False]


@pytest.mark.parametrize("way", WAYS)
async def test_a_policy_opens_its_prefix_and_nothing_else(start_guarded: Start, way: str) -> None:
    front = await start_guarded({"prefix": "open/", "anonymous": ["read"]})
    master = await front.key(Scope("", (WRITE,)))
    name = secrets.token_hex(6)
    for folder in ("open", "shut"):
        assert await front.status("PUT", f"/file?path={folder}/{name}", master, body=CONTENT) == 200
    answer = await front.ask("GET", f"/file?path=open/{name}", *WAYS[way])
    assert (answer.status, answer.body) == (200, CONTENT)
    assert "cache-control" not in answer.headers
    for path in (f"shut/{name}", f"open/../shut/{name}", f"OPEN/{name}", f"open%2F..%2Fshut/{name}"):
        assert await front.status("GET", f"/file?path={path}", *WAYS[way]) in (400, 401), path
    assert await front.status("PUT", f"/file?path=open/{name}", *WAYS[way], body=b"x") == 401


# --- keys ---


@pytest.mark.parametrize("way", WAYS)
async def test_a_key_lets_do_what_it_may_and_nothing_else(front: Front, way: str) -> None:
    await front.store()
    reads, writes = await front.key(Scope(front.inner, (READ,))), await front.key(Scope(front.inner, (WRITE,)))
    mine, new, other = (f"/file?path={path}" for path in (f"{front.inner}mine", f"{front.inner}new", front.outer))
    more = WAYS[way]
    answer = await front.ask("GET", mine, reads, *more)
    assert (answer.status, answer.body) == (200, CONTENT)
    assert await front.status("HEAD", mine, reads, *more) == 200
    assert await front.status("PUT", new, writes, *more, body=b"x") == 200
    assert await front.status("POST", new, writes, *more, body=b"x") == 201
    assert await front.status("DELETE", new, writes, *more) == 204
    for line, method, url in (
        (reads, "PUT", mine),
        (reads, "POST", mine),
        (reads, "DELETE", mine),
        (writes, "GET", mine),
        (writes, "HEAD", mine),
        (reads, "GET", other),
        (writes, "PUT", other),
        (writes, "DELETE", other),
    ):
        answer = await front.ask(method, url, line, *more, body=b"x" if method in ("PUT", "POST") else b"")
        assert answer.status == 403, (line, method, url)
        assert method == "HEAD" or json.loads(answer.body)["type"] == "urn:sfss:denied"
    for page in ("/file", "/files"):
        there = await front.status("PUT", f"{page}?path={front.inner}x", writes, *more, body=b"")
        assert there == 200


async def test_small_requests_with_a_key_go_the_quick_way(front: Front) -> None:
    master = await front.store()
    before = front.client.app[QUICK].taken
    assert await front.status("GET", f"/file?path={front.outer}", master) == 200
    assert await front.status("PUT", f"/file?path={front.outer}", master, body=CONTENT) == 200
    assert front.client.app[QUICK].taken == before + 2


@pytest.mark.parametrize("way", WAYS)
async def test_no_cache_may_keep_for_others_what_one_got_with_a_key(front: Front, way: str) -> None:
    master = await front.store()
    etag = (await front.ask("HEAD", f"/file?path={front.outer}", master)).headers["etag"]
    for line, status in (("X: y", 200), (f"If-None-Match: {etag}", 304), ("Range: bytes=0-1", 206)):
        answer = await front.ask("GET", f"/file?path={front.outer}", master, line, *WAYS[way])
        assert (answer.status, answer.headers.get("cache-control")) == (status, "private")
    for url in (f"/file?path={front.folder}/none", f"/files?prefix={front.folder}", url_signed(front.outer)):
        answer = await front.ask("GET", url, master, *WAYS[way])
        assert answer.headers.get("cache-control") == "private", url
    answer = await front.ask("GET", url_signed(front.outer), *WAYS[way])
    assert (answer.status, answer.headers.get("cache-control")) == (200, "private")


async def test_a_list_takes_the_right_for_its_whole_prefix(front: Front) -> None:
    master = await front.store()
    line = await front.key(Scope(front.inner, (READ,)))
    answer = await front.ask("GET", f"/files?prefix={front.inner}", line)
    assert [file["path"] for file in json.loads(answer.body)["files"]] == [f"{front.inner}mine"]
    stream = await front.ask("GET", f"/files?prefix={front.inner}m", line, "Accept: application/x-ndjson")
    assert stream.status == 200
    for prefix in ("", front.folder, f"{front.inner[:-1]}", f"{front.folder}/out/", f"{front.inner}../out/"):
        answer = await front.ask("GET", f"/files?prefix={prefix}", line)
        assert answer.status == (200 if prefix.endswith("../out/") else 403), prefix
        assert front.outer.encode() not in answer.body
    for query in (
        f"after={front.inner}", f"prefix={front.inner}&prefix=", f"prefix=&prefix={front.inner}",
        f"PREFIX={front.inner}", f"delimiter=/&after={front.inner}", f"prefix={front.inner}%00", "prefix=%2566",
    ):  # fmt: skip
        answer = await front.ask("GET", f"/files?{query}", line)
        assert answer.status in (400, 403), query
    assert await front.status("GET", f"/files?prefix={front.folder}", master) == 200


async def test_a_key_ends_when_it_expires_is_disabled_or_removed(front: Front) -> None:
    await front.store()
    url = f"/file?path={front.outer}"
    assert (
        "has expired" in (await front.ask("GET", url, await front.key(Scope("", (READ,)), lifetime=-1))).body.decode()
    )
    line = await front.key(Scope("", (READ,)))
    assert await front.status("GET", url, line) == 200
    await front.change(lambda key: msgspec.structs.replace(key, disabled=True), line)
    answer = await front.ask("GET", url, line)
    assert (answer.status, b"is disabled" in answer.body) == (401, True)
    await front.change(lambda key: msgspec.structs.replace(key, disabled=False), line)
    assert await front.status("GET", url, line) == 200
    await front.client.app[REGISTRY].change(
        front.document, lambda known: {id: key for id, key in known.items() if id != line.split("_")[1]}
    )
    assert await front.status("GET", url, line) == 401


async def test_while_keys_are_not_known_who_shows_one_is_told_to_wait(start_front: StartFront, tmp_path: Path) -> None:
    port = free_port()
    nodes = [f"{HOST}:{port}"]
    impatient = {"connect_timeout": 0.5, "retry_after": 0.1}
    front = Front(await start_front(nodes, access={"anonymous": []}, storage=impatient), nodes)
    url, line = "/file?path=x", "Authorization: Bearer sfss_aaaaaaaa_" + "a" * 32
    for way in WAYS.values():
        answer = await front.ask("GET", url, line, *way)
        assert (answer.status, answer.headers["retry-after"]) == (504, "1")
        assert b"the keys can't be read from the nodes yet" in answer.body
        assert await front.status("GET", url, *way) == 401
    with sfss_node(tmp_path / "node", port=port):
        await until(lambda: front.document.known)
        assert await front.status("GET", url, line) == 401
        good = await front.key(Scope("", (WRITE,)))
        assert await front.status("PUT", url, good, body=b"x") == 200
    assert await front.status("PUT", url, line, body=b"x") == 401  # known once, known for good


# --- resumable uploads ---


async def test_an_upload_takes_the_right_to_write_its_path_at_every_step(front: Front) -> None:
    mine, other = (
        await front.key(Scope(front.inner, (WRITE,))),
        await front.key(Scope(f"{front.folder}/out/", (WRITE,))),
    )
    reads = await front.key(Scope(front.inner, (READ,)))
    path = f"{front.inner}film"
    upload = await WithKey(front, mine).create(path, 6)
    for line, status in (("", 401), (other, 403), (reads, 403)):
        client = WithKey(front, line)
        assert (await client.post(path, 6)).status == status
        assert (await client.head(upload)).status == status
        assert (await client.patch(upload, 0, b"stolen")).status == status
        assert (await client.delete(upload)).status == status
        assert (await client.request("POST", upload, {"X-HTTP-Method-Override": "DELETE"})).status == status
        patched = await client.request(
            "POST", upload, {"X-HTTP-Method-Override": "PATCH", "Upload-Offset": 0,
                             "Content-Type": "application/offset+octet-stream"}, b"stolen",
        )  # fmt: skip
        assert patched.status == status
        assert (await client.request("OPTIONS", "/uploads")).status == 204
    assert await WithKey(front, mine).offset(upload) == 0
    nowhere = "/uploads/u" + "0" * 25
    for line, status in (("", 401), (reads, 403), (other, 404)):
        assert (await WithKey(front, line).head(nowhere)).status == status
    await WithKey(front, mine).send(upload, b"mine !")
    assert (await front.ask("GET", f"/file?path={path}", reads)).body == b"mine !"


async def test_the_path_in_the_metadata_is_judged_as_it_is_taken(front: Front) -> None:
    mine = await front.key(Scope(front.inner, (WRITE,)))
    client = WithKey(front, mine)
    for key in ("path", "filename", "name"):
        assert (await client.post(None, 1, Upload_Metadata=metadata(**{key: front.outer}))).status == 403
        assert (await client.post(None, 1, Upload_Metadata=metadata(**{key: f"{front.inner}x"}))).status == 201
    both = metadata(path=f"{front.inner}x", filename=front.outer)
    assert (await client.post(front.outer, 1, Upload_Metadata=both)).status == 403
    assert (await client.post(None, 1)).status == 400
    assert (await client.post(None, 1, Upload_Metadata=metadata(path=f"{front.inner}../out/secret"))).status == 400


async def test_what_is_put_together_has_to_be_one_s_own_in_all_its_parts(front: Front) -> None:
    mine, other = (
        await front.key(Scope(front.inner, (READ, WRITE))),
        await front.key(Scope(f"{front.folder}/out/", (WRITE,))),
    )
    master = await front.key(Scope("", (WRITE,)))

    async def part(line: str, path: str | None, content: bytes) -> str:
        client = WithKey(front, line)
        upload = await client.create(path, len(content), Upload_Concat="partial")
        await client.send(upload, content)
        return upload

    own, secret = await part(mine, f"{front.inner}a", b"own"), await part(other, front.outer, CONTENT)
    nobodys = await part(master, None, CONTENT)
    client = WithKey(front, mine)
    assert (await client.post(None, 3, Upload_Concat="partial")).status == 403
    for parts in (f"{own} {secret}", secret, nobodys, f"{nobodys} {own}"):
        assert (await client.post(f"{front.inner}all", None, Upload_Concat=f"final;{parts}")).status == 403
    assert (await client.post(front.outer, None, Upload_Concat=f"final;{own}")).status == 403
    assert (await client.post(f"{front.inner}all", None, Upload_Concat=f"final;{own}")).status == 201
    assert (await front.ask("GET", f"/file?path={front.inner}all", mine)).body == b"own"


# --- reload ---


async def test_a_reload_opens_and_shuts_both_ways(start_guarded: Start) -> None:
    front = await start_guarded(anonymous=["read", "write"])
    url = f"/file?path={front.inner}x"
    assert front.client.app[QUICK].guard is None
    for way in WAYS.values():
        assert await front.status("PUT", url, *way, body=b"x") == 200
    await front.reload(anonymous=["read"])
    for way in WAYS.values():
        assert await front.status("PUT", url, *way, body=b"x") == 401
        assert await front.status("GET", url, *way) == 200
    await front.reload(anonymous=["read", "write"], deny=[HOST])
    for way in WAYS.values():
        assert await front.status("GET", url, *way) == 403
    await front.reload(anonymous=["read", "write"])
    assert front.client.app[QUICK].guard is None
    for way in WAYS.values():
        assert await front.status("PUT", url, *way, body=b"x") == 200


async def test_a_reload_lets_nobody_ask_more_often_than_he_may(start_guarded: Start) -> None:
    rates = {"anonymous": ["read"], "address_rate": 0.01, "address_burst": 2}
    front = await start_guarded(**rates)
    url = f"/file?path={front.inner}x"
    assert [await front.status("GET", url) for _ in range(3)] == [404, 404, 429]
    await front.reload(**rates)
    assert await front.status("GET", url) == 429
    await front.reload(anonymous=["read"])
    assert await front.status("GET", url) == 404
