"""What stands in a line of the access log: the same, whichever way it was made, and nothing that should be hidden."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sfss.web import access_lines, heads
from sfss.web.heads import Head
from tests.web.raw import request

WHEN = "2026-11-29T03:41:01.123Z"


def head_of(method: str, target: str, *fields: str, body: bytes = b"") -> Head:
    data = request(method, target, *fields, body=body)
    head = heads.parse(data, data.index(heads.END))
    assert head is not None
    return head


def both(head: Head, status: int, size: int, microseconds: int) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """As it is told in one formatting, and as it always can be."""
    quick = access_lines.plain_json(WHEN.encode(), b"192.0.2.1", head, b"mine", status, size, microseconds)
    usual = access_lines.as_json(access_lines.line(WHEN, "192.0.2.1", head, b"mine", status, size, microseconds))
    if quick is not None:
        assert quick.count(b"\n") == 1
        assert list(json.loads(quick)) == list(json.loads(usual))
    return None if quick is None else json.loads(quick), json.loads(usual)


@pytest.mark.parametrize("microseconds", [0, 1, 812_345, 999_999])
@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/file?path=a/b-c_d.~txt", b""),
        ("PUT", "/file?path=a", b"content"),
        ("PUT", "/file?path=a", b""),
        ("GET", "/photos/a'b;c=(d)@e$!*+,%22%5c", b""),
    ],
)
def test_what_is_asked_most_has_the_same_line_as_all_else(
    method: str, target: str, body: bytes, microseconds: int
) -> None:
    for size in (0, 7, 999, 1000, 4096, 999_999):
        quick, usual = both(head_of(method, target, body=body), 200, size, microseconds)
        assert quick == usual


def test_no_character_of_a_plain_url_or_id_means_anything_to_json() -> None:
    every = "".join(map(chr, range(0x21, 0x7F)))
    for character in every:
        for target in (f"/{character}", f"/file?path={character}"):
            data = request("GET", target)
            head = heads.parse(data, data.index(heads.END))
            if head is not None and access_lines.plain_json(b"", b"", head, b"mine", 200, 1, 1) is not None:
                quick, usual = both(head, 200, 1, 1)
                assert quick == usual


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/file?path=sfss_secret", ()),
        ("/sfss_secret/a", ()),
        ("/sfss_secret?path=a", ()),
        ("/file?path=a&signature=abc", ()),
        ("/file?path=" + 2048 * "a", ()),
        ("/file?path=a", ("Authorization: Bearer sfss_0123456789abcdef_x",)),
    ],
)
def test_what_has_something_to_hide_or_is_long_is_not_told_in_one_formatting(
    target: str, fields: tuple[str, ...]
) -> None:
    quick, _ = both(head_of("GET", target, *fields), 200, 1, 1)
    assert quick is None


def test_nor_is_one_that_took_a_second_or_more_or_is_large() -> None:
    for size, microseconds in ((1, 59_000_042), (1_000_000, 1)):
        quick, usual = both(head_of("GET", "/file?path=a"), 200, size, microseconds)
        assert quick is None
        assert (usual["bytes"], usual["seconds"]) == (size, microseconds / 1e6)
