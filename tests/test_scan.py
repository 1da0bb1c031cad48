"""The wire form of ``scan``: whatever bytes come, and however they are split."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfss import scan
from sfss.errors import ProtocolError
from sfss.memcache import MAX_LINE
from sfss.scan import MAX_BLOCK, BlockParser, Item, ItemParser

KEYS = st.binary(min_size=1, max_size=250) | st.sampled_from([b" " * 250, b"\\x20", b"a\r\nEND\r\n"])
U64 = st.integers(0, 2**64 - 1)
ITEMS = st.builds(Item, KEYS, st.integers(0, 2**32 - 1), U64, U64, U64, U64, st.binary(max_size=200))


def parsed(data: bytes, cuts: list[int]) -> tuple[list[Item], bytes | None]:
    """What a parser makes of ``data`` that comes in pieces."""
    parser = ItemParser()
    ends = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    items = [item for start, end in itertools.pairwise(ends) for item in parser.feed(data[start:end])]
    return items, parser.last_line


@given(st.lists(ITEMS, max_size=5), st.lists(st.integers(0, 2000), max_size=6))
def test_a_client_gets_the_items_that_a_node_sent_however_they_are_split(items: list[Item], cuts: list[int]) -> None:
    data = b"".join(map(scan.item, items)) + b"END\r\n"
    assert parsed(data, cuts) == (items, b"END")


@given(st.lists(ITEMS, min_size=1, max_size=3), st.data())
def test_a_reply_cut_short_is_never_taken_for_a_whole_one(items: list[Item], data: st.DataObject) -> None:
    whole = b"".join(map(scan.item, items)) + b"END\r\n"
    cut = data.draw(st.integers(0, len(whole) - 1))
    found, last_line = parsed(whole[:cut], [])
    assert last_line is None
    assert found == items[: len(found)]


@given(st.binary(max_size=300) | st.builds(lambda junk: b"ITEM a 0 0 0 0 0 " + junk, st.binary(max_size=50)))
def test_garbage_ends_in_a_protocol_error_or_waits_for_more(data: bytes) -> None:
    try:
        parsed(data, [])
    except ProtocolError as error:
        assert str(error)


@given(KEYS)
def test_any_key_stands_in_a_line_as_one_word_and_those_of_sfss_as_they_are(key: bytes) -> None:
    assert scan.read(scan.written(key)) == key
    request = scan.request(scan.at(key), scan.beyond(key), scan.MAX_COUNT)
    assert len(request.split()) == 4
    assert len(request) <= MAX_LINE
    assert scan.written(b"/p\xc3\xa4th%20of/file.jpg") == b"/p\xc3\xa4th%20of/file.jpg"


@pytest.mark.parametrize(
    "data",
    [
        b"VALUE a 0 1\r\n",
        b"ITEM a 0 0 0 0 0\r\n",
        b"ITEM a\\ 0 0 0 0 0 0\r\n",
        b"ITEM a\\xZZ 0 0 0 0 0 0\r\n",
        b"ITEM a 0 0 0 0 0 -1\r\n",
        b"ITEM a 0 0 0 0 0 2147483647\r\n",
        b"ITEM a 0 0 0 0 " + b"9" * 1000 + b" 0\r\n",
        b"ITEM a 0 0 0 0 0 1\r\nabcd",
        b"ITEM " + b"a" * 3000,
        b"END\r\nEND\r\n",
    ],
)
def test_what_no_node_would_send_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        ItemParser().feed(data)


def test_an_error_after_items_is_the_last_line() -> None:
    data = scan.item(Item(b"a", 0, 0, 1, 1, 1, b"")) + b"SERVER_ERROR Exception: IO error\r\n"
    assert parsed(data, [])[1] == b"SERVER_ERROR Exception: IO error"


# --- rows -------------------------------------------------------------------------------------------------------------

ROWS = st.lists(st.tuples(KEYS, st.binary(max_size=200), U64, U64), max_size=5)


def blocks_of(data: bytes, cuts: list[int], word: bytes = scan.ROWS) -> tuple[list[object], bytes | None]:
    """What a parser makes of ``data`` that comes in pieces, unpacked."""
    parser = BlockParser(word)
    ends = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    blocks = [block for start, end in itertools.pairwise(ends) for block in parser.feed(data[start:end])]
    return [msgspec.msgpack.decode(block) for block in blocks], parser.last_line


@given(st.lists(ROWS, max_size=3), st.lists(st.integers(0, 2000), max_size=6))
def test_a_client_gets_the_rows_that_a_node_sent_however_they_are_split(
    sent: list[list[scan.Row]], cuts: list[int]
) -> None:
    data = b"".join(map(scan.block, sent)) + b"END\r\n"
    assert blocks_of(data, cuts) == ([[list(row) for row in rows] for rows in sent], b"END")


@given(st.lists(ROWS, max_size=3), st.lists(st.integers(0, 2000), max_size=6))
def test_a_client_gets_the_heads_that_a_node_sent_however_they_are_split(
    sent: list[list[scan.Row]], cuts: list[int]
) -> None:
    told = [([key for key, *_ in rows], [header for _, header, *_ in rows]) for rows in sent]
    data = b"".join(scan.heads_block(*heads) for heads in told) + b"END\r\n"
    assert blocks_of(data, cuts, scan.HEADS) == ([list(heads) for heads in told], b"END")


@given(st.lists(ROWS, min_size=1, max_size=3), st.data())
def test_blocks_cut_short_are_never_taken_for_all_of_them(sent: list[list[scan.Row]], data: st.DataObject) -> None:
    whole = b"".join(map(scan.block, sent)) + b"END\r\n"
    cut = data.draw(st.integers(0, len(whole) - 1))
    found, last_line = blocks_of(whole[:cut], [])
    assert last_line is None
    assert found == [[list(row) for row in rows] for rows in sent][: len(found)]


@pytest.mark.parametrize(
    "data",
    [
        b"ITEM a 0 0 0 0 0 0\r\n",
        b"HEADS 1\r\n\0\r\n",
        b"ROWS -1\r\n",
        b"ROWS %d\r\n" % (MAX_BLOCK + 1),
        b"ROWS 1\r\nabcd",
        b"ROWS " + b"1" * 3000,
    ],
)
def test_no_block_that_no_node_would_send_is_waited_for(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        BlockParser().feed(data)


def test_an_error_after_blocks_is_the_last_line() -> None:
    assert blocks_of(scan.block([]) + b"SERVER_ERROR IO\r\n", []) == ([[]], b"SERVER_ERROR IO")


def test_what_comes_behind_a_reply_is_left_for_the_next() -> None:
    parser = BlockParser()
    assert len(parser.feed(scan.block([]) + b"END\r\nROWS 1")) == 1
    assert (parser.last_line, parser.rest) == (b"END", b"ROWS 1")
