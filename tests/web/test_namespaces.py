"""Namespaces over HTTP: made, changed and removed; their files have URLs; and nobody gets in where it is shut."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from sfss.web.app import QUICK, QUOTAS, REGISTRY, STANDING
from tests.cluster.support import until
from tests.conftest import Client, Nodes, StartFront, three_nodes
from tests.servers import HOST, free_port, sfss_node
from tests.web.conftest import Connect
from tests.web.raw import Answer, request
from tests.web.tus import Tus

FOR_AIOHTTP = "Trailer: X-None"  # the quick way leaves such requests alone
API = {"api": True}


@pytest.fixture(scope="module")
def our_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Namespaces that are made hold at every front over the same nodes."""
    with three_nodes(tmp_path_factory.mktemp("nodes")) as nodes:
        yield nodes


@pytest.fixture
def name() -> str:
    """A namespace of one's own: the nodes are shared."""
    return f"n{secrets.token_hex(6)}"


async def problem(answer: aiohttp.ClientResponse, status: int, kind: str) -> str:
    told = await answer.json(content_type="application/problem+json")
    assert (answer.status, told["type"]) == (status, f"urn:sfss:{kind}"), told
    return str(told["detail"])


def file(path: str) -> URL:
    return URL("/file").with_query(path=path)


async def finished(tus: Tus, upload: str, path: str) -> None:
    """Until an upload has become its file: a state with several copies may be read as it was for a moment."""
    async with asyncio.timeout(10):
        while (await tus.front.head(file(path))).status != 200:
            await tus.head(upload)


async def make(front: Client, name: str, **fields: Any) -> dict[str, Any]:
    answer = await front.put(f"/namespaces/{name}", json=fields)
    assert answer.status == 201, await answer.text()
    told: dict[str, Any] = await answer.json()
    return told


class TestTheApi:
    async def test_a_namespace_is_made_changed_and_removed(
        self, start_front: StartFront, our_nodes: Nodes, name: str
    ) -> None:
        front = await start_front(our_nodes, namespaces=API)
        told = await make(front, name, quota="1KiB", anonymous=["read"])
        assert told == {
            "name": name, "enabled": True, "layout": "plain", "quota": 1024, "write_once": False,
            "anonymous": ["read"], "used": told["used"], "source": "api",
        }  # fmt: skip
        again = await front.put(f"/namespaces/{name}", json={"quota": 2048})
        assert (again.status, (await again.json())["quota"]) == (200, 2048)
        changed = await front.patch(f"/namespaces/{name}", json={"enabled": False, "quota": None})
        assert await changed.json() == {
            "name": name, "enabled": False, "layout": "plain", "write_once": False, "source": "api"
        }  # fmt: skip
        assert await (await front.get(f"/namespaces/{name}")).json() == await changed.json()
        every = (await (await front.get("/namespaces")).json())["namespaces"]
        assert [it for it in every if it["name"] == name] == [await changed.json()]
        assert (await front.delete(f"/namespaces/{name}")).status == 204
        for method in ("GET", "DELETE"):
            await problem(await front.request(method, f"/namespaces/{name}"), 404, "unknown-namespace")
        await problem(await front.patch(f"/namespaces/{name}", json={}), 404, "unknown-namespace")

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"layout": "raid5"}, "layout of the namespace"),
            ({"layout": "raid0"}, "say how many"),
            ({"copies": 4}, "4 copies need as many nodes, and there are 3"),
            ({"quota": -1}, "quota of the namespace"),
            ({"quota": 10**30}, "quota of the namespace"),
            ({"enabled": "yes"}, "enabled of the namespace"),
            ({"colour": "red"}, "is no setting of sfss"),
            ({"write_quorum": 2, "copies": 3}, "write_quorum can be set in the configuration only"),
            ({"name": "other"}, "the body another name"),
        ],
    )
    async def test_what_makes_no_sense_is_400_and_says_why(
        self, start_front: StartFront, our_nodes: Nodes, name: str, fields: dict[str, Any], says: str
    ) -> None:
        front = await start_front(our_nodes, namespaces=API)
        assert says in await problem(await front.put(f"/namespaces/{name}", json=fields), 400, "bad-request")
        await problem(await front.get(f"/namespaces/{name}"), 404, "unknown-namespace")

    @pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b'"x"', b"{" + b" " * 70_000])
    async def test_a_body_that_is_no_object_is_400(
        self, start_front: StartFront, our_nodes: Nodes, name: str, body: bytes
    ) -> None:
        front = await start_front(our_nodes, namespaces=API)
        await problem(await front.put(f"/namespaces/{name}", data=body), 400, "bad-request")

    async def test_no_page_of_sfss_can_be_a_namespace(self, start_front: StartFront, our_nodes: Nodes) -> None:
        front = await start_front(our_nodes, namespaces=API)
        canonical = {resource.canonical for resource in front.app.router.resources()}
        pages = {page.split("/")[1] for page in canonical if not page.startswith("/{")} - {""}
        assert {"file", "files", "uploads", "namespaces", "health"} <= pages
        for page in sorted(pages | {page.upper() for page in pages}):
            assert "is a page of sfss" in await problem(
                await front.put(f"/namespaces/{page}", json={}), 400, "bad-request"
            )
        for bad in ("a%2Fb", ".", "%2e%2e", "a%00", "x" * 64, "%D1%84"):
            answer = await front.put(URL(f"/namespaces/{bad}", encoded=True), json={})
            assert answer.status in (400, 404), bad

    async def test_those_of_the_configuration_win_and_stay(
        self, start_front: StartFront, our_nodes: Nodes, name: str
    ) -> None:
        other = await start_front(our_nodes, namespaces=API)
        await make(other, name, enabled=False)
        front = await start_front(our_nodes, namespaces=API, namespace=[{"name": name, "write_once": True}])
        told = await (await front.get(f"/namespaces/{name}")).json()
        assert (told["source"], told["enabled"], told["write_once"]) == ("configuration", True, True)
        for method in ("PUT", "PATCH", "DELETE"):
            answer = await front.request(method, f"/namespaces/{name}", json={})
            assert "is one of the configuration" in await problem(answer, 409, "namespace-conflict")
        assert (await front.put(file(f"{name}/a"), data=b"x")).status == 200

    async def test_where_the_api_is_off_they_can_only_be_read(
        self, start_front: StartFront, our_nodes: Nodes, name: str
    ) -> None:
        front = await start_front(our_nodes, namespace=[{"name": name}])
        assert (await front.get(f"/namespaces/{name}")).status == 200
        answer = await front.put(f"/namespaces/{name}2", json={})
        assert "namespaces.api = true" in await problem(answer, 409, "namespace-conflict")

    async def test_one_that_has_files_is_not_removed(
        self, start_front: StartFront, our_nodes: Nodes, name: str
    ) -> None:
        front = await start_front(our_nodes, namespaces=API)
        await make(front, name)
        await front.put(file(f"{name}/a"), data=b"x")
        assert "has files" in await problem(await front.delete(f"/namespaces/{name}"), 409, "namespace-conflict")
        await front.delete(file(f"{name}/a"))
        assert (await front.delete(f"/namespaces/{name}")).status == 204

    async def test_copies_only_become_more(self, start_front: StartFront, our_nodes: Nodes, name: str) -> None:
        front = await start_front(our_nodes, namespaces=API)
        await make(front, name, copies=2)
        assert (await front.patch(f"/namespaces/{name}", json={"copies": 3})).status == 200
        for fields in ({"copies": 2}, {"copies": None}):
            answer = await front.patch(f"/namespaces/{name}", json=fields)
            assert "can't go down" in await problem(answer, 409, "namespace-conflict")

    async def test_of_many_made_at_once_through_two_fronts_none_is_lost(
        self, start_front: StartFront, our_nodes: Nodes, name: str
    ) -> None:
        fronts = [await start_front(our_nodes, namespaces=API) for _ in range(2)]

        async def one(number: int) -> None:
            while (await fronts[number % 2].put(f"/namespaces/{name}-{number}", json={})).status == 504:
                pass  # others were quicker, too often: try again

        await asyncio.gather(*map(one, range(12)))
        await fronts[0].put(f"/namespaces/{name}-0", json={})
        told = (await (await fronts[0].get("/namespaces")).json())["namespaces"]
        assert {f"{name}-{number}" for number in range(12)} <= {it["name"] for it in told}


class TestWhoIsLetIn:
    @pytest.fixture
    async def front(self, start_front: StartFront, our_nodes: Nodes) -> Client:
        return await start_front(our_nodes, namespaces=API)

    async def answers(
        self, front: Client, path: str, method: str = "GET", **options: Any
    ) -> list[aiohttp.ClientResponse]:
        """Of the quick way and of aiohttp's, by each kind of URL."""
        found = []
        for url in (file(path), URL(f"/{path}")):
            for headers in ({}, {"Expect": "100-continue"}) if options else ({}, {"Trailer": "X-None"}):
                found.append(await front.request(method, url, headers=headers, **options))
        return found

    async def test_a_disabled_one_is_403_on_all_ways_and_its_files_come_back(self, front: Client, name: str) -> None:
        await make(front, name)
        path = f"{name}/cat.jpg"
        assert (await front.put(file(path), data=b"cat")).status == 200
        assert (await front.patch(f"/namespaces/{name}", json={"enabled": False})).status == 200
        for method, options in (("GET", {}), ("DELETE", {}), ("PUT", {"data": b"x"}), ("POST", {"data": b"x"}),
                                ("PUT", {"data": bytes(200_000)})):  # fmt: skip
            for answer in await self.answers(front, path, method, **options):
                await problem(answer, 403, "namespace-disabled")
        for answer in await self.answers(front, path, "HEAD"):
            assert answer.status == 403
        assert (await Tus(front).post(path, 3)).status == 403
        await problem(await front.get("/files", params={"prefix": f"{name}/"}), 403, "namespace-disabled")
        page = await (await front.get("/files", params={"prefix": name, "delimiter": "/"})).json()
        assert (page["files"], page["prefixes"]) == ([], [])
        page = await (await front.get("/files", params={"prefix": name})).json()
        assert page["files"] == []
        await front.patch(f"/namespaces/{name}", json={"enabled": True})
        for answer in await self.answers(front, path):
            assert (answer.status, await answer.read()) == (200, b"cat")

    async def test_an_upload_in_goes_stops_where_its_namespace_is_disabled(self, front: Client, name: str) -> None:
        await make(front, name)
        tus = Tus(front)
        upload = await tus.create(f"{name}/film", 6)
        assert (await tus.patch(upload, 0, b"abc")).status == 204
        await front.patch(f"/namespaces/{name}", json={"enabled": False})
        assert (await tus.patch(upload, 3, b"def")).status == 403
        await front.patch(f"/namespaces/{name}", json={"enabled": True})
        assert (await tus.patch(upload, 3, b"def")).status == 204
        await finished(tus, upload, f"{name}/film")
        assert await (await front.get(f"/{name}/film")).read() == b"abcdef"

    async def test_where_they_are_required_all_else_is_404(
        self, start_front: StartFront, our_nodes: Nodes, name: str
    ) -> None:
        front = await start_front(our_nodes, namespaces={"required": True}, namespace=[{"name": name}])
        assert (await front.put(f"/{name}/a", data=b"x")).status == 200
        for path in (f"{name}x/a", f"x/{name}/a"):
            for method, options in (("GET", {}), ("DELETE", {}), ("PUT", {"data": b"x"})):
                for answer in await self.answers(front, path, method, **options):
                    await problem(answer, 404, "unknown-namespace")
        for path in ("a", name):
            assert "is in no namespace" in await problem(await front.get(file(path)), 404, "unknown-namespace")
        await problem(await front.post("/files", data=b"x"), 404, "unknown-namespace")
        assert (await Tus(front).post("elsewhere/film", 3)).status == 404
        page = await (await front.get("/files")).json()
        assert not [file for file in page["files"] if "/" not in file["path"] or file["path"].startswith("x/")]

    async def test_another_front_heeds_a_change(
        self, start_front: StartFront, our_nodes: Nodes, name: str, front: Client
    ) -> None:
        other = await start_front(our_nodes, namespaces=API)
        await make(front, name, enabled=False)
        assert (await other.get(file(f"{name}/a"))).status == 404
        told = await (await other.get("/namespaces")).json()  # as they are, whoever made them
        assert name in [it["name"] for it in told["namespaces"]]
        assert (await other.get(file(f"{name}/a"))).status == 403
        await front.patch(f"/namespaces/{name}", json={"enabled": True})
        await other.app[REGISTRY]._look_at_all()  # as it does every ten seconds
        await asyncio.sleep(0.05)
        assert (await other.get(file(f"{name}/a"))).status == 404

    async def test_while_it_isnt_known_which_there_are_nothing_is_said(
        self, start_front: StartFront, tmp_path: Path, name: str
    ) -> None:
        port = free_port()
        front = await start_front(
            [f"{HOST}:{port}"], namespaces=API, namespace=[{"name": f"{name}2", "enabled": False}],
            storage={"retry_after": 0.1, "connect_timeout": 1.0},
        )  # fmt: skip
        for url in (URL("/namespaces"), URL(f"/namespaces/{name}")):
            await problem(await front.get(url), 504, "node-unavailable")
        for url in (file(f"{name}/a"), URL(f"/{name}/a")):
            answer = await front.get(url)
            assert "which namespaces there are" in await problem(answer, 504, "unavailable")
            assert int(answer.headers["Retry-After"]) > 0
        await problem(await front.put(file(f"{name}/a"), data=b"x"), 504, "unavailable")
        await problem(await front.get("/files"), 504, "unavailable")
        await problem(await front.put(f"/namespaces/{name}", json={}), 504, "unavailable")
        await problem(await front.get(f"/{name}2/a"), 403, "namespace-disabled")
        with sfss_node(tmp_path / "node", port=port):
            await until(lambda: front.app[STANDING].are_known)
            assert (await front.put(file(f"{name}/a"), data=b"x")).status == 200
            await make(front, name)
            assert await (await front.get(f"/{name}/a")).read() == b"x"


class TestUrls:
    @pytest.fixture
    async def front(self, start_front: StartFront, our_nodes: Nodes, name: str) -> Client:
        return await start_front(our_nodes, namespace=[{"name": name}, {"name": f"{name}-shut", "enabled": False}])

    async def test_a_file_is_stored_read_and_removed_as_at_the_other_url(self, front: Client, name: str) -> None:
        path = f"{name}/2026/cat 1+2%.jpg"
        url = URL(f"/{name}/2026/cat%201+2%25.jpg", encoded=True)
        meta = {"X-Meta-Colour": "red", "Content-Type": "image/x-cat"}
        assert (await front.put(url, data=b"cat", headers=meta)).status == 200
        clean, by_query = await front.get(url), await front.get(file(path))
        assert await clean.read() == await by_query.read() == b"cat"
        names = {"ETag", "Content-Type", "X-Meta-Colour", "Last-Modified", "Content-Security-Policy"}
        assert {clean.headers[it] for it in names} == {by_query.headers[it] for it in names}
        head = await front.head(url)
        assert (head.status, head.headers["Content-Length"]) == (200, "3")
        part = await front.get(url, headers={"Range": "bytes=1-1"})
        assert (part.status, await part.read()) == (206, b"a")
        assert (await front.get(url, headers={"If-None-Match": clean.headers["ETag"]})).status == 304
        assert (await front.put(url, data=b"dog", headers={"If-None-Match": "*"})).status == 412
        form = aiohttp.FormData()
        form.add_field("upload_file", b"form", filename="x.png", content_type="image/png")
        posted = await front.post(url, data=form)
        assert posted.status == 201
        located = await front.get(URL(posted.headers["Location"], encoded=True))
        assert (await located.read(), located.content_type) == (b"form", "image/png")
        assert (await front.delete(url)).status == 204
        await problem(await front.get(url), 404, "not-found")

    async def test_large_files_too(self, start_front: StartFront, our_nodes: Nodes, name: str) -> None:
        front = await start_front(our_nodes, namespace=[{"name": name, "max_file_size": "8MiB"}])
        content = secrets.token_bytes(3_000_000)
        assert (await front.put(f"/{name}/film", data=content)).status == 200
        assert await (await front.get(f"/{name}/film")).read() == content

    async def test_what_is_asked_most_goes_the_quick_way(self, front: Client, name: str, connect: Connect) -> None:
        raw = await connect(front)
        before = front.app[QUICK].taken
        for url in (f"/{name}/a", f"/{name}/b%20c", f"/{name}/a?v=2"):
            assert (await raw.ask(request("PUT", url, body=b"x"))).status == 200
            assert (await raw.ask(request("GET", url))).body == b"x"
        assert front.app[QUICK].taken == before + 6

    @pytest.mark.parametrize(
        "url",
        ["{n}/a", "{n}/a%2Fb", "{n}/%61", "{n}/a%2525", "{n}/a%zz", "{n}/a+b", "{n}/a;b=c", "{n}/a?path=other/b",
         "{n}/%D1%84", "%6E{m}/a", "{n}%2Fa/b", "{n}/a&b=c", "{n}/~$!*'(),:@", "{n}/...", "{n}/.a/b."],
    )  # fmt: skip
    async def test_both_ways_find_the_same_file(self, front: Client, name: str, url: str, connect: Connect) -> None:
        raw = await connect(front)
        url = "/" + url.format(n=name, m=name[1:])
        content = secrets.token_bytes(8)
        for lines in ((), (FOR_AIOHTTP,)):
            stored = await raw.ask(request("PUT", url, *lines, body=content))
            assert stored.status == 200, stored.body
            for others in ((), (FOR_AIOHTTP,)):
                assert (await raw.ask(request("GET", url, *others))).body == content
            content = secrets.token_bytes(8)

    @pytest.mark.parametrize(
        "tail",
        ["a/../b", "a/./b", "../x", "..", ".", "a//b", "a/", "%2e%2e/x", "a/%2e%2e/%2e%2e/x", "..%2fx", "a%2f..%2fb",
         "%2e", "a%2f", "%2fa", "a%5Cb", "..%5Cx", "a%00", "a%0Ab", "a%0D%0Ab", "%FF", "%ED%A0%80", "%C0%AE%C0%AE/x",
         "\\", "x" * 1100],
    )  # fmt: skip
    async def test_no_path_leaves_its_namespace(self, front: Client, name: str, tail: str, connect: Connect) -> None:
        raw = await connect(front)
        for first in (name, f"{name}-shut"):
            for method, body in (("GET", b""), ("PUT", b"x"), ("DELETE", b"")):
                quick, other = [
                    await raw.ask(request(method, f"/{first}/{tail}", "X-Request-ID: same", *lines, body=body))
                    for lines in ((), (FOR_AIOHTTP,))
                ]
                assert quick.status == other.status in (400, 404), (method, first, tail, quick, other)
                assert quick.body == other.body
                assert b"not-found" not in quick.body

    @pytest.mark.parametrize(
        "url",
        ["/{open}/..%2F{shut}/a", "/{open}/../{shut}/a", "/%2E%2E/{shut}/a", "/./{shut}/a", "//{shut}/a",
         "/{open}%2F..%2F{shut}/a", "/{shut}%2Fa/b", "/{shut}%2f/a", "/%6{rest}/a", "/{shut}/a?path={open}/a",
         "http://x/{shut}/a", "/{shut};x/a", "/{shut}%00/a", "/{shut}%20/a", "/{SHUT}/a"],
    )  # fmt: skip
    async def test_no_url_gets_into_one_that_is_shut(
        self, start_front: StartFront, our_nodes: Nodes, front: Client, name: str, url: str, connect: Connect
    ) -> None:
        shut = f"{name}-shut"
        other = await start_front(our_nodes)
        for path in (f"{shut}/a", f"{shut}/a/b"):
            assert (await other.put(file(path), data=b"secret")).status == 200
        raw = await connect(front)
        url = url.format(open=name, shut=shut, SHUT=shut.upper(), rest=f"{ord('n') & 15:x}{shut[1:]}")
        for lines in ((), (FOR_AIOHTTP,)):
            answer = await raw.ask(request("GET", url, *lines))
            assert answer.status in (400, 403, 404), answer
            assert b"secret" not in answer.body

    async def test_a_url_in_no_namespace_says_so_where_there_are_some(
        self, start_front: StartFront, memcached_nodes: Nodes, front: Client, name: str
    ) -> None:
        await problem(await front.get(f"/{name}2/a"), 404, "unknown-namespace")
        await problem(await front.put(f"/{name}2/a", data=b"x"), 404, "unknown-namespace")
        await problem(await front.get(f"/{name}"), 404, "http")
        plain = await start_front(memcached_nodes)  # where none were made
        await problem(await plain.get(f"/{name}/a"), 404, "http")
        await problem(await plain.put(f"/{name}/a", data=b"x"), 404, "http")

    async def test_methods_that_files_havent_are_405(self, front: Client, name: str) -> None:
        answer = await front.patch(f"/{name}/a")
        assert (answer.status, answer.headers["Allow"]) == (405, "DELETE,GET,HEAD,POST,PUT")


class TestWriteOnce:
    @pytest.fixture
    async def front(self, start_front: StartFront, our_nodes: Nodes, name: str) -> Client:
        return await start_front(
            our_nodes, namespace=[{"name": name, "write_once": True, "max_file_size": "8MiB"}],
            policy=[{"prefix": f"{name}-policy/", "write_once": True}],
        )  # fmt: skip

    async def test_a_file_that_is_there_stays(self, front: Client, name: str) -> None:
        for path in (f"{name}/a", f"{name}-policy/a"):
            assert (await front.put(file(path), data=b"first")).status == 200
            for method, data in (("PUT", b"second"), ("POST", b"second"), ("PUT", bytes(2_000_000)), ("DELETE", None)):
                assert path in await problem(await front.request(method, file(path), data=data), 409, "write-once")
            assert await (await front.get(file(path))).read() == b"first"
            assert (await front.put(file(path), data=b"x", headers={"If-None-Match": "*"})).status == 412
        await problem(await front.delete(file(f"{name}/b")), 404, "not-found")

    async def test_nor_does_an_upload_in_goes_replace_it(self, front: Client, name: str) -> None:
        tus = Tus(front)
        late = await tus.create(f"{name}/film", 3)
        assert (await front.put(file(f"{name}/film"), data=b"first")).status == 200
        assert (await tus.post(f"{name}/film", 3)).status == 409
        assert (await tus.patch(late, 0, b"new")).status == 409
        assert await (await front.get(file(f"{name}/film"))).read() == b"first"
        fine = await tus.create(f"{name}/other", 3)
        assert (await tus.patch(fine, 0, b"new")).status == 204
        await finished(tus, fine, f"{name}/other")
        assert await (await front.get(file(f"{name}/other"))).read() == b"new"

    @pytest.mark.parametrize("size", [10, 200_000, 1_500_000])
    async def test_of_many_at_once_one_succeeds_and_stays(
        self, start_front: StartFront, our_nodes: Nodes, front: Client, name: str, size: int
    ) -> None:
        other = await start_front(our_nodes, namespace=[{"name": name, "write_once": True, "max_file_size": "8MiB"}])

        async def one(number: int) -> int:
            answer = await (front, other)[number % 2].put(f"/{name}/race", data=bytes([number]) * size)
            return answer.status

        statuses = await asyncio.gather(*map(one, range(10)))
        assert sorted(statuses) == [200] + [409] * 9
        content = await (await front.get(f"/{name}/race")).read()
        assert content == bytes([statuses.index(200)]) * size


def _coming(front: Client, name: str) -> int:
    """Bytes that are on their way into a namespace."""
    tank = front.app[QUOTAS].tank(name)
    assert tank is not None
    size: int = tank.coming.bytes
    return size


class TestQuotas:
    @pytest.fixture
    async def front(self, start_front: StartFront, our_nodes: Nodes) -> Client:
        return await start_front(our_nodes, namespaces=API, limits={"max_file_size": "8MiB"})

    async def counted(self, front: Client, name: str) -> dict[str, int]:
        async with asyncio.timeout(10):
            while True:
                used: dict[str, int] | None = (await (await front.get(f"/namespaces/{name}")).json())["used"]
                if used is not None:
                    return used
                await asyncio.sleep(0.02)

    async def test_what_passes_it_is_507_and_leaves_nothing(self, front: Client, name: str) -> None:
        await make(front, name, quota=1000)
        assert await self.counted(front, name) == {"bytes": 0, "files": 0}
        assert (await front.put(f"/{name}/a", data=bytes(600))).status == 200
        for data in (bytes(401), bytes(2_000_000)):
            assert "its quota" in await problem(await front.put(f"/{name}/b", data=data), 507, "quota-exceeded")
        assert (await Tus(front).post(f"{name}/c", 401)).status == 507
        assert (await front.get(f"/{name}/b")).status == 404
        assert (await front.put(f"/{name}/b", data=bytes(400))).status == 200
        assert await self.counted(front, name) == {"bytes": 1000, "files": 2}
        assert (await front.put(f"/{name}/a", data=bytes(600))).status == 200  # in the place of as much
        assert (await front.put(f"/{name}/a", data=bytes(601))).status == 507
        assert (await front.delete(f"/{name}/b")).status == 204
        assert await self.counted(front, name) == {"bytes": 600, "files": 1}
        assert (await front.put(f"/{name}/a", data=bytes(1000))).status == 200

    async def test_it_counts_what_was_there_and_what_comes_in_goes(
        self, start_front: StartFront, our_nodes: Nodes, front: Client, name: str
    ) -> None:
        await make(front, name)
        await front.put(f"/{name}/a", data=bytes(100))
        await front.put(f"/{name}/b", data=bytes(2_000_000))
        await front.patch(f"/namespaces/{name}", json={"quota": "3MiB", "quota_files": 3})
        assert await self.counted(front, name) == {"bytes": 2_000_100, "files": 2}
        tus = Tus(front)
        upload = await tus.create(f"{name}/c", 50)
        assert (await tus.patch(upload, 0, bytes(50))).status == 204
        await finished(tus, upload, f"{name}/c")
        assert await self.counted(front, name) == {"bytes": 2_000_150, "files": 3}
        assert "may have 3 files" in await problem(await front.put(f"/{name}/d", data=b"x"), 507, "quota-exceeded")
        other = await start_front(our_nodes, namespaces=API)
        assert await self.counted(other, name) == {"bytes": 2_000_150, "files": 3}

    async def test_several_fronts_may_pass_it_by_what_they_write_between_two_counts(
        self, start_front: StartFront, our_nodes: Nodes, name: str
    ) -> None:
        section = {"namespace": [{"name": name, "quota": 1000}], "namespaces": {"count_interval": 4.0}}
        fronts = [await start_front(our_nodes, **section) for _ in range(2)]
        await asyncio.gather(*(self.counted(front, name) for front in fronts))
        answers = [front.put(f"/{name}/{number}", data=bytes(800)) for number, front in enumerate(fronts)]
        assert [answer.status for answer in await asyncio.gather(*answers)] == [200, 200]
        for front in fronts:
            async with asyncio.timeout(30):
                while await self.counted(front, name) != {"bytes": 1600, "files": 2}:
                    await asyncio.sleep(0.1)
            assert (await front.put(f"/{name}/more", data=b"x")).status == 507

    async def test_many_at_once_through_one_front_never_pass_it(self, front: Client, name: str) -> None:
        await make(front, name, quota=100_000)
        await self.counted(front, name)

        async def one(number: int) -> int:
            return (await front.put(f"/{name}/{number}", data=bytes(30_000))).status

        assert sorted(await asyncio.gather(*map(one, range(12)))) == [200] * 3 + [507] * 9

    async def test_an_upload_that_breaks_off_gives_its_room_back(
        self, front: Client, name: str, connect: Connect
    ) -> None:
        await make(front, name, quota=1_000_000)
        await self.counted(front, name)

        raw = await connect(front)
        head = f"PUT /{name}/a HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n"
        raw.writer.write(head.encode() + bytes(800_000))
        await raw.writer.drain()
        await until(lambda: _coming(front, name) == 900_000)
        raw.writer.transport.abort()
        await until(lambda: _coming(front, name) == 0)
        assert (await front.put(f"/{name}/b", data=bytes(1_000_000))).status == 200

    async def test_where_nothing_can_be_counted_nothing_is_written(
        self, start_front: StartFront, memcached_nodes: Nodes, name: str
    ) -> None:
        front = await start_front(memcached_nodes, namespace=[{"name": name, "quota": 1000}])
        assert "isn't known yet how much is used" in await problem(
            await front.put(f"/{name}/a", data=b"x"), 504, "unavailable"
        )
        await problem(await front.get(f"/{name}/a"), 404, "not-found")


async def test_a_namespace_with_three_copies_has_them_at_once(
    start_front: StartFront, our_nodes: Nodes, name: str
) -> None:
    front = await start_front(our_nodes, namespaces=API)
    await front.put(file(f"{name}-before/a"), data=b"x")
    await make(front, name, layout="raid1", copies=3)
    assert (await front.put(f"/{name}/a", data=b"cat")).status == 200
    fronts = [await start_front([node]) for node in our_nodes]

    async def everywhere() -> bool:
        return [await (await each.get(file(f"{name}/a"))).read() for each in fronts] == [b"cat"] * 3

    async with asyncio.timeout(10):
        while not await everywhere():
            await asyncio.sleep(0.05)
    assert await (await front.get(file(f"{name}-before/a"))).read() == b"x"


async def test_what_a_long_name_stored_before_is_found_when_a_namespace_with_copies_comes(
    start_front: StartFront, our_nodes: Nodes, name: str
) -> None:
    """Keys that don't tell their path get the most copies of any policy: those that had one must still be found."""
    front = await start_front(our_nodes, namespaces=API)
    long = [f"{name}-other/{number}{'x' * 300}" for number in range(10)]
    for path in long:
        await front.put(file(path), data=path.encode())
    await make(front, name, copies=3)
    for path in long:
        assert await (await front.get(file(path))).read() == path.encode()
    assert (await front.get(file(f"{name}-other/{'y' * 300}"))).status == 404
    assert (await front.delete(f"/namespaces/{name}")).status == 204
    for path in long:
        assert await (await front.get(file(path))).read() == path.encode()


async def test_answers_are_the_same_on_both_ways(
    start_front: StartFront, our_nodes: Nodes, name: str, connect: Connect
) -> None:
    front = await start_front(our_nodes, namespace=[{"name": name}])
    raw = await connect(front)
    assert (await raw.ask(request("PUT", f"/{name}/a", body=b"cat"))).status == 200

    def comparable(answer: Answer) -> tuple[int, dict[str, str], bytes]:
        return answer.status, {key: value for key, value in answer.headers.items() if key != "date"}, answer.body

    for method, url, body in (("GET", f"/{name}/a", b""), ("GET", f"/{name}/b", b""), ("GET", f"/{name}/a/", b""),
                              ("PUT", f"/{name}/c", b"x"), ("POST", f"/{name}/c", b"x")):  # fmt: skip
        quick = await raw.ask(request(method, url, "X-Request-ID: same", body=body))
        other = await raw.ask(request(method, url, "X-Request-ID: same", FOR_AIOHTTP, body=body))
        assert comparable(quick) == comparable(other), url


async def test_who_sees_namespaces_sees_no_password_of_their_stores(start_front: StartFront, our_nodes: Nodes) -> None:
    store = f"redis://:s3cr3t@{HOST}:{free_port()}/0"  # which is away
    front = await start_front(our_nodes, namespace=[{"name": "behind", "write_behind": store}])
    for page in ("/namespaces", "/namespaces/behind"):
        async with front.get(page) as answer:
            text = await answer.text()
        assert "redis://" in text
        assert "s3cr3t" not in text
    async with front.get("/status?format=full") as answer:
        assert "s3cr3t" not in await answer.text()
    async with front.get("/metrics") as answer:
        assert "s3cr3t" not in await answer.text()
