"""GET and HEAD through nginx: from its cache, and as a front would answer; and never anything old for long."""

from __future__ import annotations

import email.utils
import hashlib
import json
import os
import time

import pytest

from tests.nginx.conftest import MIB
from tests.nginx.server import LATE, Answer, Nginx
from tests.servers import Service

CONTENT = b"0123456789"
TYPED = {"Content_Type": "text/x-test", "X_Meta_One": "1"}


@pytest.fixture
def url(nginx: Nginx, path: str) -> str:
    """Of a file with CONTENT."""
    url = f"/file?path={path}"
    assert nginx.put(url, CONTENT, **TYPED).status == 200
    return url


def etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()}"'


def watch(nginx: Nginx, url: str, since: float) -> list[Answer]:
    """What is read of it from now on until nothing old may be shown, and once more then."""
    answers = []
    while True:
        over = time.monotonic() - since >= LATE
        answers.append(nginx.get(url))
        if over:
            return answers


def test_what_is_read_again_comes_from_the_cache_with_all_that_a_front_says_of_it(nginx: Nginx, url: str) -> None:
    answers = [nginx.get(url) for _ in range(3)]
    assert answers[0].cached == "MISS"
    assert "HIT" in [answer.cached for answer in answers]
    for answer in answers:
        assert (answer.status, answer.body) == (200, CONTENT)
        expected = {"etag": etag(CONTENT), "content-type": "text/x-test", "x-meta-one": "1", "content-length": "10",
                    "accept-ranges": "bytes", "x-content-type-options": "nosniff",
                    "content-security-policy": "sandbox"}  # fmt: skip
        assert expected.items() <= answer.headers.items()
        assert email.utils.parsedate(answer.headers["last-modified"])


def test_an_overwrite_is_seen_within_two_seconds_by_all_and_for_good(nginx: Nginx, url: str) -> None:
    assert nginx.get(url).body == CONTENT
    nginx.put(url, b"new")
    answers = watch(nginx, url, time.monotonic())
    bodies = [answer.body for answer in answers]
    assert bodies[-1] == b"new"
    assert bodies == sorted(bodies, key=[CONTENT, b"new"].index)
    assert {(answer.body, answer.headers["etag"]) for answer in answers} <= {(b, etag(b)) for b in (CONTENT, b"new")}
    assert "HIT" in [answer.cached for answer in answers]


def test_the_same_content_with_another_type_is_seen_within_two_seconds(nginx: Nginx, url: str) -> None:
    assert nginx.get(url).headers["content-type"] == "text/x-test"
    nginx.put(url, CONTENT, Content_Type="text/x-other", X_Meta_One="2")
    last = watch(nginx, url, time.monotonic())[-1]
    assert (last.headers["content-type"], last.headers["x-meta-one"]) == ("text/x-other", "2")


def test_a_deletion_is_seen_within_two_seconds(nginx: Nginx, url: str) -> None:
    assert nginx.get(url).body == CONTENT
    assert nginx.ask("DELETE", url).status == 204
    assert watch(nginx, url, time.monotonic())[-1].status == 404


def test_a_new_file_is_seen_at_once_for_no_404_is_kept(nginx: Nginx, path: str) -> None:
    url = f"/file?path={path}"
    for _ in range(3):
        answer = nginx.get(url)
        assert (answer.status, json.loads(answer.body)["type"]) == (404, "urn:sfss:not-found")
    nginx.put(url, CONTENT)
    assert nginx.get(url).body == CONTENT


@pytest.mark.parametrize("control", ["no-cache", "x, MAX-AGE=0", "no-store", 'a=1, no-cache="x"'])
def test_who_asks_for_it_sees_the_newest_at_once_and_so_do_all_after_him(nginx: Nginx, url: str, control: str) -> None:
    for content in (b"1", b"2", b"3"):
        nginx.get(url)
        nginx.put(url, content)
        answer = nginx.get(url, Cache_Control=control)
        assert (answer.body, answer.cached) == (content, "BYPASS")
        assert nginx.get(url).body == content
        assert nginx.get(url, Range="bytes=0-0", Cache_Control=control).body == content


@pytest.mark.parametrize("control", ["max-age=60", "no-transform", "x-no-cache", "only-if-cached"])
def test_other_wishes_are_answered_from_the_cache(nginx: Nginx, url: str, control: str) -> None:
    assert "HIT" in [nginx.get(url, Cache_Control=control).cached for _ in range(3)]


def test_head_and_every_condition_on_the_exact_state_ask_the_front(nginx: Nginx, url: str) -> None:
    nginx.get(url)
    nginx.put(url, b"new")
    head = nginx.ask("HEAD", url)
    assert (head.status, head.headers["etag"], head.headers["content-length"]) == (200, etag(b"new"), "3")
    assert nginx.get(url, If_Match=etag(b"new")).body == b"new"
    failed = nginx.get(url, If_Match=etag(CONTENT))
    assert (failed.status, json.loads(failed.body)["type"]) == (412, "urn:sfss:precondition-failed")
    assert nginx.get(url, If_Unmodified_Since="Thu, 01 Jan 2015 00:00:00 GMT").status == 412
    # If-Match goes before If-Unmodified-Since, which nginx would heed too
    both = nginx.get(url, If_Match=etag(b"new"), If_Unmodified_Since="Thu, 01 Jan 2015 00:00:00 GMT")
    assert (both.status, both.body) == (200, b"new")


def test_304_comes_from_the_cache(nginx: Nginx, url: str) -> None:
    seen = nginx.get(url)
    before, later = "Thu, 01 Jan 2015 00:00:00 GMT", "Tue, 01 Jan 2097 00:00:00 GMT"
    for conditions, status in (
        ({"If_None_Match": etag(CONTENT)}, 304),
        ({"If_None_Match": f'"x", W/{etag(CONTENT)}'}, 304),
        ({"If_None_Match": "*"}, 304),
        ({"If_None_Match": '"x"'}, 200),
        ({"If_Modified_Since": seen.headers["last-modified"]}, 304),
        ({"If_Modified_Since": later}, 304),
        ({"If_Modified_Since": before}, 200),
        ({"If_Modified_Since": later, "If_None_Match": '"x"'}, 200),
        ({"If_Modified_Since": seen.headers["last-modified"], "If_None_Match": etag(CONTENT)}, 304),
    ):
        answers = [nginx.get(url, **conditions) for _ in range(3)]
        assert [answer.status for answer in answers] == [status] * 3, conditions
        assert "HIT" in [answer.cached for answer in answers]
        for answer in answers:
            assert answer.body == (b"" if status == 304 else CONTENT)
            assert answer.headers["etag"] == etag(CONTENT)
            assert answer.headers["x-content-type-options"] == "nosniff"


def test_what_isnt_there_any_more_is_not_304(nginx: Nginx, url: str) -> None:
    nginx.get(url)
    nginx.ask("DELETE", url)
    watch(nginx, url, time.monotonic())
    assert nginx.get(url, If_None_Match=etag(CONTENT)).status == 404


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [("bytes=0-3", 0, 4), ("bytes=4-", 4, 10), ("bytes=-2", 8, 10), ("bytes=9-20", 9, 10), ("bytes=0-9", 0, 10),
     ("bytes=-20", 0, 10)],
)  # fmt: skip
def test_ranges_are_the_front_s_and_exact(nginx: Nginx, url: str, wanted: str, start: int, stop: int) -> None:
    nginx.get(url)
    for content in (CONTENT, CONTENT[::-1]):
        nginx.put(url, content, **TYPED)
        answer = nginx.get(url, Range=wanted)
        assert (answer.status, answer.body, answer.cached) == (206, content[start:stop], None)
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/10"
        assert (answer.headers["etag"], answer.headers["content-type"]) == (etag(content), "text/x-test")
        assert answer.headers["content-security-policy"] == "sandbox"


@pytest.mark.parametrize("wanted", ["bytes=0-1,4-5", "lines=1-2", "bytes=5-2", "bytes=x", "0-3", "bytes=-"])
def test_several_ranges_and_those_of_another_form_are_the_whole_file(nginx: Nginx, url: str, wanted: str) -> None:
    for _ in range(3):
        answer = nginx.get(url, Range=wanted)
        assert (answer.status, answer.body, answer.headers["content-length"]) == (200, CONTENT, "10")


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=10-11", f"bytes={5 * MIB}-", "bytes=-0"])
def test_a_range_outside_the_file_is_the_front_s_416(nginx: Nginx, url: str, wanted: str) -> None:
    for _ in range(3):
        answer = nginx.get(url, Range=wanted)
        assert (answer.status, answer.headers["content-range"]) == (416, "bytes */10")
        assert json.loads(answer.body)["type"] == "urn:sfss:unsatisfiable-range"


def test_if_range_holds_for_that_state_only(nginx: Nginx, url: str) -> None:
    modified = nginx.get(url).headers["last-modified"]
    for _ in range(3):
        assert nginx.get(url, Range="bytes=0-3", If_Range=etag(CONTENT)).body == b"0123"
        assert nginx.get(url, Range="bytes=0-3", If_Range=etag(b"old")).body == CONTENT
        assert nginx.get(url, Range="bytes=0-3", If_Range="W/" + etag(CONTENT)).body == CONTENT
        assert nginx.get(url, Range="bytes=0-3", If_Range=modified).body == CONTENT  # stored a moment ago: a weak one
        assert nginx.get(url, Range="bytes=0-3", If_None_Match=etag(CONTENT)).status == 304


@pytest.mark.parametrize("size", [999_999, 1_000_000, 20 * MIB])
def test_files_of_a_megabyte_and_more_are_not_kept(nginx: Nginx, path: str, size: int) -> None:
    url, content = f"/file?path={path}", os.urandom(size)
    assert nginx.put(url, content).status == 200
    cached = []
    for _ in range(3):
        answer = nginx.get(url)
        assert answer.body == content
        cached.append(answer.cached)
    assert ("HIT" in cached) == (size < 1_000_000)
    assert nginx.get(url, If_None_Match=etag(content)).status == 304
    assert nginx.get(url, Range=f"bytes={size - 5}-").body == content[-5:]


def test_two_queries_that_differ_never_share_an_answer(nginx: Nginx, front: Service) -> None:
    """Which path a front reads is for the front to say; nginx says the same, cached or not."""
    nginx.put("/file?path=key/a", b"a")
    nginx.put("/file?path=key/b", b"b")
    nginx.put("/file?path=key/%2561", b"percent")
    nginx.put("/file?path=key/a%2B", b"plus")
    nginx.put("/file?path=key/a%20", b"space")
    queries = {
        "path=key/a": b"a", "path=key%2Fa": b"a", "path=key%2fa": b"a", "path=key/%61": b"a",
        "path=key/%2561": b"percent",
        "x=1&path=key/b": b"b", "path=key/b&x=1": b"b", "PATH=key/a&path=key/b": b"b", "path=key/b&PATH=key/a": b"b",
        "p%61th=key/b": b"b", "path=key/a%2B": b"plus", "path=key/a%20": b"space", "path=key/a+": b"space",
        "path=key/a&path=key/b": None, "path=key/a&path=key/a": None, "": None, "path": None, "path=": None,
        "path=key/a%26path=key/b": None, "path=key/a;path=key/b": None,
    }  # fmt: skip
    for _ in range(3):
        for query, content in queries.items():
            answer = nginx.get(f"/file?{query}")
            if content is None:
                assert answer.status in (400, 404), query
            else:
                assert (answer.status, answer.body) == (200, content), query


@pytest.mark.parametrize("page", ["/status", "/readyz", "/livez", "/files?prefix=test/", "/nowhere"])
def test_other_pages_are_never_cached(nginx: Nginx, page: str) -> None:
    before = nginx.kept()
    for _ in range(3):
        assert nginx.get(page).cached is None
    assert nginx.kept() <= before


def test_a_list_has_what_was_stored_just_now(nginx: Nginx, path: str) -> None:
    target = f"/files?prefix={path}"
    assert json.loads(nginx.get(target).body)["files"] == []
    nginx.put(f"/file?path={path}", CONTENT)
    assert [file["path"] for file in json.loads(nginx.get(target).body)["files"]] == [path]
    stream = nginx.get(target, Accept="application/x-ndjson")
    assert [json.loads(line)["path"] for line in stream.body.splitlines()] == [path]


def test_a_file_with_as_many_kept_headers_as_there_may_be_comes_back(nginx: Nginx, path: str) -> None:
    meta = {f"X-Meta-{n:02}_": "x" * 125 for n in range(32)}
    assert nginx.ask("PUT", f"/file?path={path}", meta, CONTENT).status == 200
    for _ in range(2):
        answer = nginx.get(f"/file?path={path}")
        assert {name.lower(): value for name, value in meta.items()}.items() <= answer.headers.items()
