"""The name of a file in Content-Disposition: every client reads it as it was, and none reads more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_multipart.multipart import parse_options_header

from sfss.web.disposition import LONGEST, attachment, clean, name_in


@pytest.mark.parametrize(
    ("name", "field"),
    [
        (None, "attachment"),
        ("cat.jpg", 'attachment; filename="cat.jpg"'),
        ("my cat.jpg", 'attachment; filename="my cat.jpg"'),
        ("кот.jpg", "attachment; filename=\"___.jpg\"; filename*=UTF-8''%D0%BA%D0%BE%D1%82.jpg"),
        ('a"b.txt', "attachment; filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"),
        ("50%.txt", "attachment; filename=\"50_.txt\"; filename*=UTF-8''50%25.txt"),
        ("a\r\nSet-Cookie: x.txt", 'attachment; filename="a__Set-Cookie: x.txt"'),
        ("../../etc/passwd", 'attachment; filename="passwd"'),
        ("C:\\Users\\cat.jpg", 'attachment; filename="cat.jpg"'),
        ("..", "attachment"),
        ("a/", "attachment"),
    ],
)
def test_it_is_as_the_rfcs_have_it(name: str | None, field: str) -> None:
    assert attachment(name) == field


@given(st.text())
def test_no_name_ends_the_line_or_leaves_its_quotes(name: str) -> None:
    field = attachment(name)
    assert field.isascii()
    assert field.isprintable()
    assert field.count('"') in (0, 2)
    kind, options = parse_options_header(field)
    assert kind == b"attachment"
    assert set(options) <= {b"filename"}


@given(
    st.text(alphabet=st.characters(categories=("L", "N", "P", "S"), exclude_characters="/\\"), min_size=1, max_size=60)
)
def test_a_name_goes_there_and_back(name: str) -> None:
    if (kept := clean(name)) is not None:
        assert kept == name
        assert name_in(attachment(name)) == name


def test_a_name_that_is_too_long_keeps_its_extension() -> None:
    assert clean("ж" * 300 + ".jpg") == "ж" * ((LONGEST - 4) // 2) + ".jpg"
    assert clean("x" * 300) == "x" * LONGEST
    assert len((clean("x." + "y" * 300) or "").encode()) == LONGEST


def test_what_cant_be_seen_is_no_part_of_a_name() -> None:
    assert clean("cat\u202egpj.exe") == "cat_gpj.exe"
    assert clean("a\x00b") == "a_b"
