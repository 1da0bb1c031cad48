"""What other servers say of their keys: whatever they say, and however it is split."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfss import listing
from sfss.errors import ProtocolError
from tests.backends.beansdb import _place

LINE = b"key=%b exp=%d la=1732100000 cas=3 fetch=no cls=1 size=70\n"


@given(st.integers(0, 5), st.lists(st.integers(0, 500), max_size=8))
def test_a_metadump_says_the_same_however_it_is_split(count: int, cuts: list[int]) -> None:
    data = b"".join(LINE % (b"END%0D%0A", number) for number in range(count)) + b"END\r\n"
    ends = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    told, rest = b"", b""
    for start, end in itertools.pairwise(ends):
        lines, rest, ended = listing.whole_lines(rest + data[start:end])
        told += lines
        assert ended == (end == len(data)) or start == end
    assert (told, rest) == (data.removesuffix(b"END\r\n"), b"")


@pytest.mark.parametrize(
    ("key", "expiry", "told"),
    [
        (b"%2Fa%20b%25", -1, (b"/a b%", 0)),
        (b"/a", 1732100000, (b"/a", 1732100000)),
        (b"key=x", 0, (b"key=x", 0)),
        (b"%FF%00", -1, (b"\xff\0", 0)),
    ],
)
def test_a_line_of_a_metadump_tells_a_key_and_its_expiry(key: bytes, expiry: int, told: tuple[bytes, int]) -> None:
    assert listing.dumped((LINE % (key, expiry)).removesuffix(b"\n")) == told


@pytest.mark.parametrize("line", [b"", b"END", b"key=", b"key=/a", b"key=/a exp=x ", b"key= exp=1 ", b" key=/a exp=1 "])
def test_another_line_tells_nothing(line: bytes) -> None:
    assert listing.dumped(line) is None


def test_a_tree_has_directories_or_keys() -> None:
    root = b"".join(b"%x/ %d %d\n" % (number, number * 97, number % 3) for number in range(16))
    assert listing.directories(root) == {b"%x/" % number: number % 3 for number in range(16)}
    leaf = b"/a b 5 1\n/gone 5 -2\n@list 5 1\n?tell 5 1\n0/ 1 1\n"
    assert listing.directories(leaf) is None
    assert listing.live(leaf) == [b"/a b", b"0/"]
    assert listing.directories(b"") is None
    assert listing.live(b"") == []


@given(st.binary(min_size=1, max_size=250), st.binary(max_size=50), st.integers(-5, 5), st.data())
def test_a_record_is_that_of_its_place_or_none(key: bytes, data: bytes, version: int, drawn: st.DataObject) -> None:
    whole = struct.pack("<IIIiII", 0, 1, 7, version, len(key), len(data)) + key + data
    place = _place(key, hashed=True)
    assert listing.record(whole, place) == (key, 7, version, data)
    cut = drawn.draw(st.integers(0, len(whole) - 1))
    for wrong in (whole[:cut], whole + b"x"):
        with pytest.raises(ProtocolError):
            listing.record(wrong, place)
    with pytest.raises(ProtocolError, match="another key"):
        listing.record(whole, b"%016x" % (int(place, 16) ^ 2**63))
