"""Preconditions and ranges, case by case as RFC 9110 has them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfss.errors import BadRequest
from sfss.web.conditional import Outcome, Unsatisfiable, Validators, byte_range, evaluate, http_date

PROCEED, NOT_MODIFIED, FAILED = Outcome.PROCEED, Outcome.NOT_MODIFIED, Outcome.FAILED

THERE = Validators('"aa"', 784111777)
NOW, BEFORE, AFTER = (http_date(THERE.modified + seconds) for seconds in (0, -1, 1))
SAME, OTHER, WEAK = '"aa"', '"bb"', 'W/"aa"'

ordinary = settings(deadline=None, max_examples=200)


def reading(current: Validators | None = THERE, /, **headers: str) -> Outcome:
    return evaluate({name.replace("_", "-"): value for name, value in headers.items()}, current, reading=True)


def writing(current: Validators | None = THERE, /, **headers: str) -> Outcome:
    return evaluate({name.replace("_", "-"): value for name, value in headers.items()}, current, reading=False)


# --- section 13.2.2, in its order ---


@pytest.mark.parametrize(
    ("headers", "read", "write"),
    [
        ({}, PROCEED, PROCEED),
        # 1. If-Match
        ({"If_Match": SAME}, PROCEED, PROCEED),
        ({"If_Match": OTHER}, FAILED, FAILED),
        ({"If_Match": "*"}, PROCEED, PROCEED),
        # ... decides, and If-Unmodified-Since isn't asked
        ({"If_Match": SAME, "If_Unmodified_Since": BEFORE}, PROCEED, PROCEED),
        ({"If_Match": OTHER, "If_Unmodified_Since": AFTER}, FAILED, FAILED),
        # 2. If-Unmodified-Since
        ({"If_Unmodified_Since": BEFORE}, FAILED, FAILED),
        ({"If_Unmodified_Since": NOW}, PROCEED, PROCEED),
        ({"If_Unmodified_Since": AFTER}, PROCEED, PROCEED),
        # 3. If-None-Match
        ({"If_None_Match": SAME}, NOT_MODIFIED, FAILED),
        ({"If_None_Match": OTHER}, PROCEED, PROCEED),
        ({"If_None_Match": "*"}, NOT_MODIFIED, FAILED),
        # ... decides, and If-Modified-Since isn't asked
        ({"If_None_Match": OTHER, "If_Modified_Since": AFTER}, PROCEED, PROCEED),
        ({"If_None_Match": SAME, "If_Modified_Since": BEFORE}, NOT_MODIFIED, FAILED),
        # 4. If-Modified-Since, of reads alone
        ({"If_Modified_Since": BEFORE}, PROCEED, PROCEED),
        ({"If_Modified_Since": NOW}, NOT_MODIFIED, PROCEED),
        ({"If_Modified_Since": AFTER}, NOT_MODIFIED, PROCEED),
        # the first of the two pairs goes before the second
        ({"If_Match": OTHER, "If_None_Match": SAME}, FAILED, FAILED),
        ({"If_Match": SAME, "If_None_Match": SAME}, NOT_MODIFIED, FAILED),
        ({"If_Match": SAME, "If_Modified_Since": AFTER}, NOT_MODIFIED, PROCEED),
        ({"If_Unmodified_Since": BEFORE, "If_None_Match": SAME}, FAILED, FAILED),
        ({"If_Unmodified_Since": AFTER, "If_None_Match": SAME}, NOT_MODIFIED, FAILED),
        ({"If_Unmodified_Since": AFTER, "If_Modified_Since": AFTER}, NOT_MODIFIED, PROCEED),
    ],
)
def test_preconditions_are_asked_in_their_order(headers: dict[str, str], read: Outcome, write: Outcome) -> None:
    assert reading(**headers) is read
    assert writing(**headers) is write


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ({}, PROCEED),
        ({"If_Match": "*"}, FAILED),
        ({"If_Match": SAME}, FAILED),
        ({"If_None_Match": "*"}, PROCEED),
        ({"If_None_Match": SAME}, PROCEED),
        ({"If_Unmodified_Since": BEFORE}, PROCEED),
        ({"If_Modified_Since": AFTER}, PROCEED),
    ],
)
def test_where_there_is_no_file_only_if_match_fails(headers: dict[str, str], outcome: Outcome) -> None:
    assert reading(None, **headers) is outcome
    assert writing(None, **headers) is outcome


# --- entity tags ---


def test_a_weak_tag_never_matches_strongly() -> None:
    assert writing(If_Match=WEAK) is FAILED
    assert writing(If_Match=f"{WEAK}, {OTHER}") is FAILED


def test_a_weak_tag_matches_weakly() -> None:
    assert reading(If_None_Match=WEAK) is NOT_MODIFIED
    assert writing(If_None_Match=f"{OTHER}, {WEAK}") is FAILED


@pytest.mark.parametrize(
    "tags",
    ['"bb", "aa"', '"aa","bb"', '"aa" , "bb"', '"bb",\t"aa"', ' "aa" ', ', "aa"', '"aa",', ',, ,"bb",, "aa", ,',
     'W/"aa", "aa"', '"", "aa"', '"b,b", "aa"', '"ключ", "aa"'],
)  # fmt: skip
def test_any_tag_of_a_list_may_match(tags: str) -> None:
    assert writing(If_Match=tags) is PROCEED
    assert reading(If_None_Match=tags) is NOT_MODIFIED


@pytest.mark.parametrize("tags", ['"a"', '"aaa"', '"AA"', '""', '"a,a"', '"bb","cc"', "\"'aa'\""])
def test_what_is_not_the_same_doesnt_match(tags: str) -> None:
    assert writing(If_Match=tags) is FAILED
    assert reading(If_None_Match=tags) is PROCEED


@pytest.mark.parametrize(
    "tags",
    ["", " ", ",", "aa", "'aa'", '"aa', 'aa"', '"a"a"', '"aa" "bb"', 'w/"aa"', 'W/ "aa"', '"a a"', '"a\ta"', '*, "aa"',
     '"aa", *', "**", '"aa"; "bb"', "<aa>"],
)  # fmt: skip
@pytest.mark.parametrize("header", ["If_Match", "If_None_Match"])
def test_what_is_no_entity_tag_is_refused_and_never_guessed_at(header: str, tags: str) -> None:
    for current in (THERE, None):
        with pytest.raises(BadRequest, match=f"{header.replace('_', '-')}: .*is no entity tag"):
            writing(current, **{header: tags})


# --- dates ---

FORMS = ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]


@pytest.mark.parametrize("date", FORMS)
def test_dates_may_come_in_each_of_the_three_forms(date: str) -> None:
    assert reading(If_Modified_Since=date) is NOT_MODIFIED
    assert reading(Validators(SAME, THERE.modified + 1), If_Modified_Since=date) is PROCEED
    assert writing(If_Unmodified_Since=date) is PROCEED
    assert writing(Validators(SAME, THERE.modified + 1), If_Unmodified_Since=date) is FAILED


def test_dates_leave_in_the_preferred_form() -> None:
    assert http_date(THERE.modified) == FORMS[0]


@pytest.mark.parametrize(
    "date",
    [
        "",
        "yesterday",
        "784111777",
        "Sun, 06 Nov",
        "Sun, 36 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 28:49:37 GMT",
        "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:99999999999999999999 GMT",
        "Sun, 06 Nov 1994 08:49:37 +99999999999999",
        '"aa"',
        ",;:" * 1000,
    ],
)
def test_a_date_that_cant_be_read_is_ignored(date: str) -> None:
    assert reading(If_Modified_Since=date) is PROCEED
    assert writing(If_Unmodified_Since=date) is PROCEED


@ordinary
@given(
    st.text(max_size=60)
    | st.text("0123456789:+- SunNovGMT,", max_size=60)
    | st.builds("{}, {} Nov {} {}:{}:{} {}".format, st.text(max_size=3), *[st.integers() | st.text(max_size=5)] * 6)
)
def test_no_date_does_harm(date: str) -> None:
    assert reading(If_Modified_Since=date) in (PROCEED, NOT_MODIFIED)
    assert writing(If_Unmodified_Since=date) in (PROCEED, FAILED)
    byte_range({"Range": "bytes=0-1", "If-Range": date}, THERE, 10)


# --- ranges ---


@pytest.mark.parametrize(
    ("range", "part"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-9", (0, 10)),
        ("bytes=2-5", (2, 6)),
        ("bytes=9-9", (9, 10)),
        ("bytes=5-99", (5, 10)),
        ("bytes=0-", (0, 10)),
        ("bytes=9-", (9, 10)),
        ("bytes=-1", (9, 10)),
        ("bytes=-10", (0, 10)),
        ("bytes=-11", (0, 10)),
        ("bytes=-99999999999999999999", (0, 10)),
        ("bytes=5-99999999999999999999", (5, 10)),
        ("BYTES=0-1", (0, 2)),
        ("bytes= 0-1 ", (0, 2)),
        ("bytes=007-08", (7, 9)),
    ],
)
def test_a_range_is_given(range: str, part: tuple[int, int]) -> None:
    assert byte_range({"Range": range}, THERE, 10) == part


@pytest.mark.parametrize(
    "range",
    [
        "bytes=5-4",
        "bytes=20-5",
        "bytes=-",
        "bytes=",
        "bytes",
        "",
        "bytes=a-b",
        "bytes=0",
        "bytes=--1",
        "bytes=0--1",
        "bytes=+0-1",
        "bytes=0-1,3-4",
        "bytes=0-1, -1",
        "bytes=0-1,",
        "bytes 0-1",
        "bytes=0 - 1",
        "items=0-1",
        "byteſ=0-1",
        "bytes=٠-١",
        "bytes=" + "9" * 21 + "-",
        "bytes=0-" + "9" * 10_000,
    ],
)
def test_what_is_no_single_range_of_bytes_is_ignored(range: str) -> None:
    assert byte_range({"Range": range}, THERE, 10) is None


def test_without_a_range_the_whole_is_given() -> None:
    assert byte_range({}, THERE, 10) is None
    assert byte_range({"If-Range": SAME}, THERE, 10) is None


@pytest.mark.parametrize(
    ("range", "size"),
    [
        ("bytes=10-", 10),
        ("bytes=10-10", 10),
        ("bytes=99999999999999999999-", 10),
        ("bytes=-0", 10),
        ("bytes=0-", 0),
        ("bytes=0-0", 0),
        ("bytes=-1", 0),
    ],
)
def test_a_range_without_a_byte_in_the_file_is_refused_with_the_files_size(range: str, size: int) -> None:
    with pytest.raises(Unsatisfiable) as refused:
        byte_range({"Range": range}, THERE, size)
    assert refused.value.size == size


_POSITIONS = st.just("") | st.integers(0, 30).map(str)


@ordinary
@given(_POSITIONS, _POSITIONS, st.integers(0, 20))
def test_a_range_that_is_given_lies_within_the_file(first: str, last: str, size: int) -> None:
    try:
        part = byte_range({"Range": f"bytes={first}-{last}"}, THERE, size)
    except Unsatisfiable:
        assert not size or last == "0" or (first and int(first) >= size)
        return
    content = bytes(range(size))
    if part is not None:
        start, stop = part
        assert 0 <= start < stop <= size
        expected = content[int(first) : int(last) + 1 if last else None] if first else content[-int(last) :]
        assert content[start:stop] == expected


# --- If-Range ---


@pytest.mark.parametrize(("tag", "holds"), [(SAME, True), (f" {SAME} ", True), (OTHER, False), (WEAK, False)])
def test_if_range_compares_tags_strongly(tag: str, holds: bool) -> None:
    assert byte_range({"Range": "bytes=0-1", "If-Range": tag}, THERE, 10) == ((0, 2) if holds else None)


@pytest.mark.parametrize("tag", [f"{SAME}, {OTHER}", "*", "", "aa"])
def test_an_if_range_that_makes_no_sense_doesnt_hold(tag: str) -> None:
    assert byte_range({"Range": "bytes=0-1", "If-Range": tag}, THERE, 10) is None


@pytest.mark.parametrize(("date", "holds"), [(NOW, True), (FORMS[1], True), (BEFORE, False), (AFTER, False)])
def test_if_range_takes_the_exact_date(date: str, holds: bool) -> None:
    assert byte_range({"Range": "bytes=0-1", "If-Range": date}, THERE, 10) == ((0, 2) if holds else None)


@pytest.mark.parametrize(("age", "holds"), [(0, False), (30, False), (90, True), (86400, True)])
def test_if_range_takes_a_date_only_when_it_is_a_minute_old(age: int, holds: bool) -> None:
    file = Validators(SAME, int(time.time()) - age)
    headers = {"Range": "bytes=0-1", "If-Range": http_date(file.modified)}
    assert byte_range(headers, file, 10) == ((0, 2) if holds else None)


def test_a_range_whose_condition_doesnt_hold_is_not_even_unsatisfiable() -> None:
    assert byte_range({"Range": "bytes=99-", "If-Range": OTHER}, THERE, 10) is None


# --- nobody can make it slow ---

_TEDIOUS = [
    text[:8192] + end
    for text in (", " * 4096, "; " * 4096, " ," * 4096, " " * 8192, '"a", ' * 1639, '"a" , ,' * 1171, "\t," * 4096,
                 'W/"' * 2731, '"' * 8192, '"a",' + " " * 8192, "9" * 8192, "0-" * 4096, "bytes=" + " " * 8192)
    for end in ("", "x", '"')
]  # fmt: skip


def _outcome_of_everything(text: str) -> None:
    for header in ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"):
        for is_read in (True, False):
            try:
                evaluate({header: text}, THERE, reading=is_read)
            except BadRequest as refused:
                assert str(refused)
    for headers in ({"Range": text}, {"Range": "bytes=" + text}, {"Range": "bytes=0-1", "If-Range": text}):
        byte_range(headers, THERE, 10)


@pytest.mark.parametrize("text", _TEDIOUS, ids=lambda text: f"{text[:6]!r} to {text[-3:]!r}")
def test_no_header_of_8_kilobytes_takes_long(text: str) -> None:
    started = time.thread_time()
    _outcome_of_everything(text)
    assert time.thread_time() - started < 0.1
