"""What stands in a line of the access log: the same, whichever way it was made, and nothing that should be hidden."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from sfss.web import heads, quick_lines
from sfss.web.access_lines import LONGEST, Request, Row, as_json, line
from sfss.web.heads import Head
from sfss.web.quick_lines import QuickLines
from tests.web.raw import request

EPOCH = 1_795_000_000 * 10**9  # ns
CAME = 123_456_789  # likewise, after that


def head_of(method: str, target: str, *fields: str, body: bytes = b"") -> Head:
    data = request(method, target, *fields, body=body)
    head = heads.parse(data, data.index(heads.END))
    assert head is not None
    return head


def a_row(head: Head, status: int = 200, size: int = 1, took: int = 1) -> Row:
    return CAME, took, status, size, "192.0.2.1", b"mine", head


def both(*rows: Row) -> list[dict[str, Any]]:
    """The lines of each; those that are made of all at once, with and without what was seen before, are the same."""
    usual = [json.loads(as_json(line(row, EPOCH))) for row in rows]
    quick = QuickLines()
    for _ in range(2):
        lines = quick.of(rows, EPOCH).splitlines(keepends=True)
        assert all(each.endswith(b"}\n") for each in lines)
        found = list(map(json.loads, lines))
        assert found == usual
        assert list(map(list, found)) == list(map(list, usual))
    return usual


@pytest.mark.parametrize("took", [0, 1, 9_999, 10_000, 812_345, 19_999_999, 20_000_000, 999_999_999, 59_000_042_000])
@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/file?path=a/b-c_d.~txt", b""),
        ("PUT", "/file?path=a", b"content"),
        ("PUT", "/file?path=a", b""),
        ("GET", "/photos/a'b;c=(d)@e$!*+,%22%5c", b""),
        ("GET", "/file?path=a&signature=abc", b""),
    ],
)
def test_what_is_asked_most_has_the_same_line_as_all_else(method: str, target: str, body: bytes, took: int) -> None:
    head = head_of(method, target, body=body)
    lines = both(
        *(a_row(head, status, size, took) for size in (0, 7, 999, 1000, 4096, 999_999, 10**9) for status in (200, 404))
    )
    assert {line["seconds"] for line in lines} == {took // 10_000 / 100_000}
    assert all(line["time"] == "2026-11-18T11:06:40.123Z" for line in lines)


def test_each_says_in_which_millisecond_it_came_whichever_was_answered_first() -> None:
    head = head_of("GET", "/file?path=a")
    times = (999_999, 1_000_000, 0, 7_000_000, 1_999_999, -1)
    lines = both(*((came, 1, 200, 1, "192.0.2.1", b"mine", head) for came in times))
    assert [line["time"][-4:-1] for line in lines] == ["000", "001", "000", "007", "001", "999"]


def test_those_of_several_clients_ways_and_fields_stand_one_behind_the_other_as_they_came() -> None:
    heads: list[Head | Request] = [
        head_of("GET", "/file?path=a"),
        head_of("PUT", "/file?path=b", body=b"12345"),
        head_of("GET", "/file?path=c", "Authorization: Bearer sfss_abcdefgh_x"),
        Request("POST", "/files", CIMultiDict(), 7),
        head_of("GET", "/file?path=d"),
    ]
    rows: list[Row] = [(CAME, 1, 200, 1, f"192.0.2.{n % 2}", b"%d" % n, head) for n, head in enumerate(heads)]
    lines = both(*rows)
    assert [line["request_id"] for line in lines] == list("01234")
    assert [line.get("received") for line in lines] == [None, 5, None, 7, None]
    assert [line.get("key") for line in lines] == [None, None, "abcdefgh", None, None]
    assert [line["client"][-1] for line in lines] == list("01010")


def test_no_more_is_remembered_than_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_lines, "_REMEMBERED", 8)
    quick, head = QuickLines(), head_of("GET", "/file?path=a")
    for number in range(100):
        row = (CAME, 1, 200, number, f"192.0.2.{number}", b"mine", head)
        assert json.loads(quick.of([row], EPOCH)) == json.loads(as_json(line(row, EPOCH)))
    assert all(len(found) <= 8 for found in (*quick._clients.values(), *quick._sizes.values()))  # type: ignore[arg-type]


def test_no_character_of_a_plain_url_or_id_means_anything_to_json() -> None:
    every = "".join(map(chr, range(0x21, 0x7F)))
    for character in every:
        for target in (f"/{character}", f"/file?path={character}"):
            data = request("GET", target)
            head = heads.parse(data, data.index(heads.END))
            if head is not None:
                both(a_row(head))


@pytest.mark.parametrize("target", ["/file?path=sfss_{key}", "/sfss_{key}/a", "/sfss_{key}?path=a", "/f?sfss_{key}"])
def test_a_key_that_stands_in_a_url_is_hidden_and_nothing_else(target: str) -> None:
    other = head_of("GET", f"/file?path={43 * 'a'}")
    key = f"abcdefgh_{32 * 's'}"
    lines = both(a_row(other), a_row(head_of("GET", target.format(key=key))), a_row(other))
    assert [line["url"] for line in lines] == [
        f"/file?path={43 * 'a'}", target.format(key="abcdefgh_..."), f"/file?path={43 * 'a'}"
    ]  # fmt: skip


def test_of_a_long_url_the_rest_is_left_out() -> None:
    for target in (f"/{LONGEST * 'a'}", f"/file?path={LONGEST * 'a'}", f"/{1500 * 'a'}?path={1500 * 'a'}"):
        (line,) = both(a_row(head_of("GET", target)))
        assert line["url"] == f"{target[:LONGEST]}..."
