"""Paths and keys: no two paths share a key, and every server and client of memcached takes every key."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from collections.abc import Callable

import aiomcache
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfss.errors import BadPath, BadRequest
from sfss.paths import MAX_KEY, MAX_PATH, check, check_part, is_hashed, key_of, path_of, quick_path_of, unhashed

HASHED = re.compile(rb"#[A-Z2-7]{52}")
TAKEN_BY_AIOMCACHE = aiomcache.Client._valid_key_re

# What paths are made of: any text; and little of what escaping and hashing turn on, so that near misses abound.
_ANY = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\\/")
_TRICKY = st.sampled_from("%25#@?. \u00a0\u2028\u3000\ufeffaАж猫😀")
_SEGMENTS = st.text(_ANY, min_size=1, max_size=40) | st.text(_TRICKY, min_size=1, max_size=40)


def _valid(path: str) -> bool:
    try:
        check(path)
    except BadPath:
        return False
    return True


PATHS = st.builds(
    lambda segments, times: "/".join(segments * times)[:MAX_PATH],
    st.lists(_SEGMENTS, min_size=1, max_size=6),
    st.integers(1, 12),
).filter(_valid)

ordinary = settings(deadline=None, max_examples=300)


@ordinary
@given(PATHS)
def test_a_path_comes_back_from_its_key(path: str) -> None:
    key = key_of(path)
    assert path_of(key) == (None if is_hashed(key) else path)


@ordinary
@given(st.lists(PATHS, min_size=2, max_size=2, unique=True))
def test_no_two_paths_share_a_key(two: list[str]) -> None:
    assert key_of(two[0]) != key_of(two[1])


_LOOKS_LIKE: dict[str, Callable[[str], str]] = {
    "its own key": lambda path: key_of(path).decode(),
    "its own key without the slash": lambda path: key_of(path).decode()[1:],
    "upper case": str.upper,
    "lower case": str.lower,
    "composed": lambda path: unicodedata.normalize("NFC", path),
    "decomposed": lambda path: unicodedata.normalize("NFD", path),
    "compatible": lambda path: unicodedata.normalize("NFKC", path),
}


@pytest.mark.parametrize("how", _LOOKS_LIKE)
@settings(deadline=None, max_examples=60)
@given(path=PATHS)
def test_no_path_shares_a_key_with_one_that_looks_like_it(how: str, path: str) -> None:
    alike = _LOOKS_LIKE[how](path)
    if alike != path and _valid(alike):
        assert key_of(alike) != key_of(path)


@ordinary
@given(PATHS)
def test_no_path_makes_a_key_that_is_ours(path: str) -> None:
    key = key_of(path)
    assert key.startswith(b"/") or HASHED.fullmatch(key)


@ordinary
@given(PATHS)
def test_every_client_and_server_takes_every_key(path: str) -> None:
    key = key_of(path)
    text = key.decode()
    assert 2 <= len(key) <= MAX_KEY
    assert not any(c.isspace() or unicodedata.category(c) in ("Cc", "Zl", "Zp", "Zs") for c in text)
    matched = TAKEN_BY_AIOMCACHE.match(text)
    assert matched is not None
    assert matched[0] == text


@ordinary
@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode) | PATHS.map(key_of))
def test_a_key_is_either_one_that_a_path_makes_or_refused(key: bytes) -> None:
    try:
        path = path_of(key)
    except BadPath:
        return
    assert key[:1] == b"#" if path is None else key_of(path) == key


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("photos/cat.jpg", b"/photos/cat.jpg"),
        ("a b%.txt", b"/a%20b%25.txt"),
        ("a%20b", b"/a%2520b"),
        ("#upload/0", b"/#upload/0"),
        ("@?", b"/@?"),
        ("фото/кот.jpg", "/фото/кот.jpg".encode()),
        ("照片/猫.jpg", "/照片/猫.jpg".encode()),
        ("😀/👩‍👩‍👧.png", "/😀/👩‍👩‍👧.png".encode()),
        ("全角\u3000空格", b"/" + "全角".encode() + b"%E3%80%80" + "空格".encode()),
        ("no\u00a0break", b"/no%C2%A0break"),
        ("line\u2028end", b"/line%E2%80%A8end"),
        (".hidden", b"/.hidden"),
        ("...", b"/..."),
        ("a/.../b", b"/a/.../b"),
        (" ", b"/%20"),
    ],
)
def test_keys_stay_as_they_are_for_good(path: str, key: bytes) -> None:
    assert key_of(check(path)) == key
    assert path_of(key) == path


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "empty"),
        ("/", "begins with '/'"),
        ("/a", "path=a"),
        ("//a", "path=a"),
        ("a\\b", "backslash"),
        ("\\", "backslash"),
        ("a//b", "empty segment"),
        ("a/", "empty segment"),
        (".", "segment '.'"),
        ("..", "segment '..'"),
        ("a/./b", "segment '.'"),
        ("../a", "segment '..'"),
        ("a/..", "segment '..'"),
        ("a\x00b", "U+0000"),
        ("a\nb", "U+000A"),
        ("a\tb", "U+0009"),
        ("a\x1fb", "U+001F"),
        ("a\x7fb", "U+007F"),
        ("a\x85b", "U+0085"),
        ("a\x9fb", "U+009F"),
        ("a\ud800b", "UTF-8"),
        ("\udcff", "UTF-8"),
        ("x" * 1025, "1025 bytes"),
        ("ж" * 513, "1026 bytes"),
        ("😀" * 257, "1028 bytes"),
    ],
)
def test_what_can_name_no_file_is_refused_and_told_why(path: str, why: str) -> None:
    with pytest.raises(BadPath, match=re.escape(why)):
        check(path)


@pytest.mark.parametrize("path", ["x" * 1024, "ж" * 512, "😀" * 256, "/".join("ab" for _ in range(341)) + "cd"])
def test_a_path_of_1024_bytes_is_taken(path: str) -> None:
    assert len(path.encode()) == MAX_PATH
    assert check(path) == path
    assert HASHED.fullmatch(key_of(path))


@pytest.mark.parametrize("path", ["x" * 249, "ж" * 124 + "x", "%" * 83, " " * 83, "😀" * 62 + "x"])
def test_a_key_of_250_bytes_tells_its_path(path: str) -> None:
    assert len(key_of(path)) == MAX_KEY
    assert path_of(key_of(path)) == path


@pytest.mark.parametrize("path", ["x" * 250, "ж" * 125, "%" * 83 + "x", " " * 84, "😀" * 62 + "xy"])
def test_beyond_250_bytes_the_key_is_a_hash_of_the_path(path: str) -> None:
    key = key_of(path)
    padded = base64.b32decode(key[1:] + b"====")
    assert padded == hashlib.sha256(path.encode()).digest()
    assert is_hashed(key)
    assert path_of(key) is None


@pytest.mark.parametrize("key", [b"#" + b"A" * 52, b"#0123456789/7", b"#"])
def test_keys_of_blocks_and_of_long_paths_dont_tell_a_path(key: bytes) -> None:
    assert path_of(key) is None


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"/",
        b"photos/cat.jpg",
        b"@photos",
        b"?list",
        b"/a%2",
        b"/a%41",
        b"/a%2f",
        b"/a b",
        b"/a%00",
        b"/a/../b",
        b"//a",
        b"/\xff",
        b"/" + b"x" * 250,
    ],
)
def test_a_key_that_no_path_makes_belongs_to_somebody_else(key: bytes) -> None:
    with pytest.raises(BadPath, match="is not the key of a path"):
        path_of(key)


@given(st.text(st.sampled_from("ab %/é\u3000"), min_size=1, max_size=5), st.integers(0, 5))
def test_the_keys_of_paths_that_begin_alike_begin_alike(path: str, length: int) -> None:
    assert unhashed(path).startswith(unhashed(path[:length]))
    assert unhashed(path) == key_of(path)


@pytest.mark.parametrize(
    ("text", "what"),
    [("\udcff", "UTF-8"), ("a\nb", "U+000A"), ("a" * 1025, "1025 bytes")],
)
def test_what_no_path_can_begin_with_is_refused_by_its_name(text: str, what: str) -> None:
    with pytest.raises(BadRequest, match="prefix") as refused:
        check_part("prefix", text)
    assert what in str(refused.value)
    for fine in ("", "a/", "/", "..", "\\"):
        check_part("prefix", fine)


@given(PATHS)
def test_the_quick_way_from_a_key_to_its_path_is_the_way(path: str) -> None:
    assert quick_path_of(key_of(path)) == path_of(key_of(path))
