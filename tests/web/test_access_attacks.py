"""Access over HTTP under attack: headers, paths, signatures, addresses and rates, on both ways."""

from __future__ import annotations

import asyncio
import itertools
import json
from urllib.parse import quote

import pytest

from sfss.access import signing
from sfss.access.keys import ADMIN, READ, WRITE, Scope
from tests.servers import HOST
from tests.web.guarded import CONTENT, LARGE, SECRET, WAYS, Front, Start, WithKey, url_signed
from tests.web.raw import Raw, request
from tests.web.tus import Tus


@pytest.fixture
async def front(start_guarded: Start) -> Front:
    """One on which nobody may do anything without a key."""
    return await start_guarded()


# --- headers ---


@pytest.mark.parametrize("way", WAYS)
async def test_headers_that_are_not_one_plain_bearer_let_nobody_in(front: Front, way: str) -> None:
    good = await front.store()
    text = good.split()[-1]
    for lines in (
        [good, good],
        [good, "Authorization: Bearer x"],
        ["Authorization: Bearer x", good],
        [good, "authorization: Basic eDp5"],
        [f"Authorization: Basic {text}"],
        [f"Authorization: {text}"],
        [f"Authorization: Bearer {text} x"],
        [f"Authorization: Bearer {text},Bearer {text}"],
        [f"Authorization: Bearer\t{text}"],
        [f"Authorization: Bearer {text[:-1]}"],
        [f"Authorization: Bearer {text.upper()}"],
        [f'Authorization: Bearer "{text}"'],
        [f"Authorization: Bearer  {text} {text}"],
        [f"Authorization : Bearer {text}"],
        [f"Authorization:\r\n Bearer {text}"],
        [f"Authorization: Bearer\r\n {text}"],
        ["Authorization:"],
        ["Authorization: Bearer"],
        [f"X-Authorization: Bearer {text}"],
        [f"Proxy-Authorization: Bearer {text}"],
        [f"Cookie: Authorization=Bearer {text}"],
        [f"Autho\u0131ization: Bearer {text}"],
        [f"Authorization: Bearer {text}\x00"],
        [f"Authorization: Bearer \udcff{text}"],
    ):
        answer = await front.ask("GET", f"/file?path={front.outer}", *lines, *WAYS[way])
        assert answer.status in (400, 401), lines
        assert CONTENT not in answer.body
    for line in (f"authorization: bearer {text}", f"AUTHORIZATION: BEARER   {text}  ", f"Authorization:Bearer {text}"):
        assert await front.status("GET", f"/file?path={front.outer}", line, *WAYS[way]) == 200


async def test_a_key_holds_for_its_own_request_and_not_for_the_next_on_the_connection(front: Front) -> None:
    master = await front.store()
    url = f"/file?path={front.outer}"
    raw = await Raw.to(front.client)
    for lines in itertools.product([(master,), ()], WAYS.values()):
        with_key, way = lines
        assert (await raw.ask(request("GET", url, *with_key, *way))).status == (200 if with_key else 401)
    raw.writer.write(request("GET", url, master) + request("GET", url) + request("GET", url, master))
    assert [(await raw.answer()).status for _ in range(3)] == [200, 401, 200]
    raw.close()


# --- paths ---

TRICKS = [
    "{inner}../out/secret",
    "{inner}%2e%2e/out/secret",
    "{inner}%2e%2e%2fout%2fsecret",
    "{inner}.%2e/out/secret",
    "{inner}%252e%252e/out/secret",
    "{inner}..%252fout%252fsecret",
    "{inner}..\\out\\secret",
    "{inner}..%5cout%5csecret",
    "{inner}./../out/secret",
    "{inner}/../out/secret",
    "{inner}x/../../out/secret",
    "/{outer}",
    "%2f{outer}",
    "{outer}%00",
    "{outer}%00{inner}x",
    "{inner}%00/../../out/secret",
    "{inner}%0a{outer}",
    "{inner}%c0%ae%c0%ae/out/secret",
    "{inner}%e0%80%ae./out/secret",
    "{inner}%uff0e%uff0e/out/secret",
    "{inner}\uff0e\uff0e/out/secret",
    "{inner}\u2025/out/secret",
    "{inner}%ff../out/secret",
    "{inner}x&path={outer}",
    "{outer}&path={inner}x",
    "{inner}x&Path={outer}",
    "{inner}x;path={outer}",
    "{inner}x%26path={outer}",
    "{inner}x#{outer}",
    "{inner}x?path={outer}",
    "{inner}" + "x" * 1100,
    "{inner}" + "../" * 300 + "out/secret",
    "{outer}",
    "{outer}/",
    "{outer}%20",
    "+{outer}",
    "./{outer}",
]


@pytest.mark.parametrize("way", WAYS)
async def test_no_way_of_writing_a_path_leads_out_of_a_key_s_scope(front: Front, way: str) -> None:
    master = await front.store()
    line = await front.key(Scope(front.inner, (READ, WRITE)))
    uploads = WithKey(front, line)
    for trick in TRICKS:
        path = trick.format(inner=front.inner, outer=front.outer)
        answer = await front.ask("GET", f"/file?path={path}", line, *WAYS[way])
        # 200: by its literal name, within the scope, an upload has made an empty file.
        assert answer.status in (400, 403, 404) or (answer.status, answer.body) == (200, b""), (trick, answer)
        assert CONTENT not in answer.body
        await front.ask("PUT", f"/file?path={path}", line, *WAYS[way], body=b"changed")
        await front.ask("DELETE", f"/file?path={path}", line, *WAYS[way])
        await uploads.request("POST", f"/uploads?path={quote(path)}", {"Upload-Length": 0})
        found = await front.ask("GET", f"/file?path={front.outer}", master)
        assert found.body == CONTENT, trick
    listed = json.loads((await front.ask("GET", f"/files?prefix={front.folder}", master)).body)
    outside = [file["path"] for file in listed["files"] if not file["path"].startswith(front.inner)]
    assert outside == [front.outer]


@pytest.mark.parametrize("way", WAYS)
async def test_neither_case_nor_normal_forms_are_folded(front: Front, way: str) -> None:
    composed, decomposed = "\u00e9", "e\u0301"
    line = await front.key(Scope(f"{front.folder}/{composed}/k/", (READ, WRITE)))
    for middle, status in (
        (f"{composed}/k/", 200),
        (f"{decomposed}/k/", 403),
        ("\u00c9/k/", 403),
        (f"{composed}/K/", 403),
        (f"{composed}/\u212a/", 403),  # the Kelvin sign, which is a k to some
        (f"{composed}\u200b/k/", 403),
    ):
        url = f"/file?path={front.folder}/{quote(middle)}x"
        assert await front.status("PUT", url, line, *WAYS[way], body=b"x") == status, middle


async def test_a_scope_is_a_beginning_of_paths_character_by_character(front: Front) -> None:
    line = await front.key(Scope(f"{front.folder}/in", (WRITE,)))
    for name, status in (("in", 200), ("in/x", 200), ("inner", 200), ("i", 403), ("out", 403)):
        assert await front.status("PUT", f"/file?path={front.folder}/{name}", line, body=b"x") == status


async def test_a_key_for_all_paths_is_still_told_what_is_no_path(front: Front) -> None:
    master = await front.key(Scope("", (READ, WRITE)))
    for query in ("", "?path=", "?path=/a", "?path=a&path=b"):
        assert await front.status("GET", f"/file{query}", master) == 400


# --- signed URLs ---


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", signing.METHODS)
async def test_a_signed_url_is_good_for_its_method_and_its_path_alone(front: Front, method: str, way: str) -> None:
    await front.store()
    answers: dict[str, int] = {}
    good = {"GET": 200, "PUT": 200, "POST": 201, "DELETE": 204}
    url = url_signed(front.outer, method)
    for asks in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        if asks == method:
            continue
        answers[asks] = await front.status(asks, url, *WAYS[way], body=b"x" if asks in ("PUT", "POST") else b"")
    assert set(answers.values()) == ({403, 200} if method == "GET" else {403})
    assert answers.get("HEAD") == (200 if method == "GET" else 403)
    for other in (f"{front.outer}x", front.outer[:-1], front.outer.upper(), f"{front.inner}mine"):
        replayed = url.replace(quote(front.outer), quote(other))
        assert await front.status(method, replayed, *WAYS[way], body=b"x" if method[0] == "P" else b"") == 403
    assert await front.status(method, url, *WAYS[way], body=b"x" if method[0] == "P" else b"") == good[method]


@pytest.mark.parametrize("way", WAYS)
async def test_the_order_of_the_query_and_its_escapes_do_not_matter_and_nothing_may_stand_twice(
    front: Front, way: str
) -> None:
    await front.store()
    page, _, query = url_signed(front.outer).partition("?")
    fields = query.split("&")
    for order in itertools.permutations(fields):
        assert await front.status("GET", f"{page}?{'&'.join(order)}&x=y", *WAYS[way]) == 200
    escaped = query.replace("path=", "%70ath=").replace("/", "%2F").replace("expires", "ex%70ires")
    assert await front.status("GET", f"{page}?{escaped}", *WAYS[way]) == 200
    assert await front.status("GET", f"{page}?{query.replace('signature', '%73ignature')}", *WAYS[way]) == 200
    for more in (fields[1], fields[2], "expires=9999999999", "signature=x", "signature="):
        assert await front.status("GET", f"{page}?{query}&{more}", *WAYS[way]) == 403, more
        assert await front.status("GET", f"{page}?{more}&{query}", *WAYS[way]) == 403, more
    assert await front.status("GET", f"{page}?{query}&path={front.inner}mine", *WAYS[way]) == 400


@pytest.mark.parametrize("way", WAYS)
async def test_forged_expired_and_truncated_signatures_let_nobody_in(front: Front, way: str) -> None:
    await front.store()
    url = url_signed(front.outer)
    assert await front.status("GET", url, *WAYS[way]) == 200
    head, _, signature = url.rpartition("=")
    for forged in (
        url_signed(front.outer, secret="another secret of somebody"),
        url_signed(front.outer, life=-1),
        url_signed(front.outer, life=0),
        *(f"{head}={signature[:length]}" for length in (0, 1, 20, 42)),
        f"{head}={signature}=",
        f"{head}={signature}%00",
        f"{head}={signature} ".replace(" ", "%20"),
        f"{head}={signature.swapcase()}",
        url.replace("expires=", "expires=0"),
        url.replace("expires=", "expires=%2B"),
        url.replace("expires=1", "expires=2"),
        url.replace("expires=", "Expires="),
        url.replace("signature=", "Signature="),
        f"/file?path={front.outer}&signature={signature}",
        head.rpartition("&")[0],
    ):
        answer = await front.ask("GET", forged, *WAYS[way])
        assert answer.status in (401, 403), forged
        assert CONTENT not in answer.body
        assert signature[:20] not in answer.body.decode()


async def test_a_signature_ends_at_its_second(front: Front) -> None:
    await front.store()
    url = url_signed(front.outer, life=2)
    assert await front.status("GET", url) == 200
    await asyncio.sleep(2.1)
    answer = await front.ask("GET", url)
    assert (answer.status, b"has expired" in answer.body) == (403, True)


async def test_lists_nodes_and_uploads_can_not_be_signed(front: Front) -> None:
    query = url_signed("").partition("?")[2]
    assert await front.status("GET", f"/files?prefix=&{query}") == 401
    assert await front.status("GET", f"/status?{query}") == 401
    post = url_signed(f"{front.inner}x", "POST").partition("?")[2]
    answer = await Tus(front.client).request("POST", f"/uploads?{post}", {"Upload-Length": 1})
    assert answer.status == 401


async def test_a_key_that_may_not_and_a_signature_that_does_are_enough(front: Front) -> None:
    await front.store()
    line = await front.key(Scope(front.inner, (READ,)))
    assert await front.status("GET", url_signed(front.outer), line) == 200
    assert await front.status("GET", url_signed(front.outer), "Authorization: Bearer x") == 200


async def test_secrets_are_rotated_by_a_reload(front: Front) -> None:
    await front.store()
    new = "another-secret-a-new-one"
    before, after = url_signed(front.outer), url_signed(front.outer, secret=new)
    for known, statuses in (([new, SECRET], (200, 200)), ([new], (403, 200)), ([], (403, 403))):
        await front.reload(anonymous=[], signing_secrets=known)
        assert (await front.status("GET", before), await front.status("GET", after)) == statuses


# --- addresses and rates ---


@pytest.mark.parametrize("way", WAYS)
async def test_addresses_are_let_in_or_kept_out_whatever_they_show(start_guarded: Start, way: str) -> None:
    front = await start_guarded(anonymous=["read", "write"], deny=["127.0.0.5"], allow=["127.0.0.0/29"])
    line = await front.key(Scope("", (READ, WRITE, ADMIN)))
    for source, may in (("127.0.0.1", True), ("127.0.0.5", False), ("127.0.0.9", False), ("127.0.0.2", True)):
        for lines in ([], [line], [f"X-Forwarded-For: {HOST}"], [f"Forwarded: for={HOST}"], [f"X-Real-IP: {HOST}"]):
            url = f"/file?path={front.inner}x"
            assert await front.status("PUT", url, *lines, *WAYS[way], body=b"x", source=source) == (200 if may else 403)
            assert await front.status("GET", url_signed("x"), *lines, *WAYS[way], source=source) in (
                (200, 404) if may else (403,)
            )
        assert await front.status("GET", "/livez", source=source) == 200
        assert await front.status("GET", "/nowhere", source=source) == (404 if may else 403)
        options = await front.status("OPTIONS", "/uploads", source=source)
        assert options == (204 if may else 403)


@pytest.mark.parametrize("way", WAYS)
async def test_behind_a_proxy_it_is_the_client_s_address_that_counts_and_nobody_else_is_believed(
    start_guarded: Start, way: str
) -> None:
    front = await start_guarded(
        anonymous=["read", "write"],
        deny=["203.0.113.0/24", "127.0.0.2", "2001:db8::/32"],
        sections={"server": {"trusted_proxies": ["127.0.0.1"]}},
    )
    for said, source, may in (
        ([], "127.0.0.1", True),
        (["203.0.113.9"], "127.0.0.1", False),
        (["198.51.100.1"], "127.0.0.1", True),
        (["203.0.113.9, 198.51.100.1"], "127.0.0.1", True),  # the first is what the client made up
        (["198.51.100.1, 203.0.113.9"], "127.0.0.1", False),
        (["198.51.100.1", "203.0.113.9"], "127.0.0.1", False),
        (["203.0.113.9:1234"], "127.0.0.1", False),
        (["[2001:db8::1]:1234"], "127.0.0.1", False),
        (["::ffff:203.0.113.9"], "127.0.0.1", False),
        (["203.0.113.9, 127.0.0.1"], "127.0.0.1", False),  # through two proxies
        (["198.51.100.1"], "127.0.0.2", False),
        (["127.0.0.1"], "127.0.0.2", False),
        (["203.0.113.9"], "127.0.0.3", True),  # nobody believes him; who is he to say so
    ):
        lines = [f"X-Forwarded-For: {text}" for text in said]
        url = f"/file?path={front.inner}x"
        assert await front.status("PUT", url, *lines, *WAYS[way], body=b"x", source=source) == (200 if may else 403), (
            said
        )


@pytest.mark.parametrize("way", WAYS)
async def test_who_asks_too_often_is_told_when_to_ask_again(start_guarded: Start, way: str) -> None:
    front = await start_guarded(anonymous=["read"], address_rate=0.01, address_burst=3)
    url = f"/file?path={front.inner}x"
    spoofs = [f"X-Forwarded-For: 198.51.100.{n}" for n in range(6)]
    found = [await front.ask("GET", url, spoof, *WAYS[way]) for spoof in spoofs]
    assert [answer.status for answer in found] == [404] * 3 + [429] * 3
    assert json.loads(found[-1].body)["type"] == "urn:sfss:too-many-requests"
    assert 90 < int(found[-1].headers["retry-after"]) <= 100
    assert await front.status("GET", url, source="127.0.0.2") == 404
    assert await front.status("GET", "/livez") == 200
    assert await front.status("GET", "/nowhere") == 429


@pytest.mark.parametrize("way", WAYS)
async def test_a_key_has_a_rate_of_its_own_wherever_it_is_used(start_guarded: Start, way: str) -> None:
    front = await start_guarded(key_rate=0.01, key_burst=2, address_rate=0.01, address_burst=3)
    one, other = await front.key(Scope("", (READ,))), await front.key(Scope("", (READ,)))
    url = f"/file?path={front.inner}x"
    assert [await front.status("GET", url, one, *WAYS[way], source=f"127.0.0.{n}") for n in (1, 2, 3)] == [
        404,
        404,
        429,
    ]
    assert await front.status("GET", url, other, *WAYS[way]) == 404
    # Who tries keys is counted by his address.
    tries = ["Authorization: Bearer sfss_aaaaaaaa_" + letter * 32 for letter in "abcd"]
    assert [await front.status("GET", url, line, *WAYS[way]) for line in tries] == [401, 401, 401, 429]


async def test_a_large_file_counts_once(start_guarded: Start) -> None:
    front = await start_guarded(anonymous=["read", "write"], address_rate=0.01, address_burst=3, sections=LARGE)
    url, content = f"/file?path={front.inner}x", bytes(300_000)
    assert await front.status("PUT", url, body=content) == 200
    assert [await front.status("GET", url) for _ in range(3)] == [200, 200, 429]


async def test_a_large_file_is_private_too(start_guarded: Start) -> None:
    front = await start_guarded(sections=LARGE)
    line, content = await front.key(Scope(front.inner, (READ, WRITE))), bytes(300_000)
    url = f"/file?path={front.inner}x"
    assert await front.status("PUT", url, line, body=content) == 200
    answer = await front.ask("GET", url, line)
    assert (answer.status, answer.body == content, answer.headers["cache-control"]) == (200, True, "private")
    assert await front.status("GET", url) == 401


async def test_who_is_not_let_in_hears_of_no_node(start_guarded: Start) -> None:
    front = await start_guarded(anonymous=["read", "write"], allow=["127.0.0.1"])
    for page in ("/readyz", "/health"):
        assert "nodes" in json.loads((await front.ask("GET", page)).body)
        answer = await front.ask("GET", page, source="127.0.0.2")
        assert (answer.status, list(json.loads(answer.body))) == (200, ["status"])
