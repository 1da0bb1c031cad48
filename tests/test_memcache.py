"""memcached's protocol: however the bytes are split, the events are the same, and no length is believed too much."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfss import memcache
from sfss.errors import ProtocolError
from sfss.memcache import (
    BAD_CHUNK,
    BAD_FORMAT,
    END,
    ERROR,
    LINE_TOO_LONG,
    MAX_KEY,
    MAX_KEYS_LINE,
    MAX_LENGTH,
    MAX_LINE,
    VALUE_TOO_LARGE,
    Refusal,
    Reply,
    ReplyParser,
    Request,
    RequestParser,
    Value,
)

MAX_VALUE = 64  # small, so that what is too large is met often
MAX_REPLY = 16 * MAX_VALUE  # of all values of one reply

ordinary = settings(deadline=None, max_examples=200)


# --- both ends as functions of a stream and its splits ---


def requests(pieces: Iterable[bytes], max_value: int = MAX_VALUE) -> list[Request | Refusal]:
    """What a server makes of a stream, up to where it hangs up."""
    parser = RequestParser(max_value)
    events: list[Request | Refusal] = []
    for piece in pieces:
        events += parser.feed(piece)
        if events and isinstance(events[-1], Refusal) and events[-1].fatal:
            break
    return events


def replies(pieces: Iterable[bytes], max_value: int = MAX_REPLY) -> list[Reply] | str:
    """What a client makes of a stream: its replies, or why it is none."""
    parser = ReplyParser(max_value)
    try:
        return [reply for piece in pieces for reply in parser.feed(piece)]
    except ProtocolError as error:
        return str(error)


def one_by_one(stream: bytes) -> list[bytes]:
    return [stream[n : n + 1] for n in range(len(stream))]


@st.composite
def split(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes]]:
    """A stream, and the same in pieces."""
    stream = draw(streams)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return stream, [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


# --- what goes over the wire ---

KEYS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=60).map(str.encode)
DATA = st.binary(max_size=MAX_VALUE) | st.sampled_from(
    (b"\r\n", b"END\r\n", b"\r\nSTORED\r\n", b"VALUE k 0 1\r\nx\r\n", b"get k\r\n", b"set k 0 0 1\r\nx\r\n")
)
NUMBERS = st.integers(0, 2**32 - 1)
Exchange = tuple[bytes, Request | Refusal]


def _storage(verb: bytes, key: bytes, data: bytes, expiry: int, cas: int) -> Exchange:
    number = cas if verb == b"cas" else None
    args = [key, b"0", b"%d" % expiry, b"%d" % len(data)] + ([b"%d" % cas] if verb == b"cas" else [])
    return memcache.storage(verb, key, data, expiry=expiry, cas=number), Request(verb, args, data, False)


def _retrieval(verb: bytes, keys: list[bytes]) -> Exchange:
    return memcache.retrieval(verb, *keys), Request(verb, keys, b"", False)


def _command(words: list[bytes]) -> Exchange:
    return memcache.command(*words), Request(words[0], words[1:], b"", False)


def _too_large(data: bytes) -> Exchange:
    data = data.ljust(MAX_VALUE + 1, b"\n")
    return memcache.storage(b"set", b"k", data), Refusal(VALUE_TOO_LARGE)


EXCHANGES = st.one_of(
    st.builds(_storage, st.sampled_from(sorted(memcache.STORAGE)), KEYS, DATA, NUMBERS, st.integers(0, 2**64 - 1)),
    st.builds(_retrieval, st.sampled_from((b"get", b"gets", b"head")), st.lists(KEYS, min_size=1, max_size=4)),
    st.builds(_command, st.sampled_from(([b"version"], [b"stats"], [b"delete", b"k"], [b"incr", b"k", b"1"]))),
    st.builds(_too_large, st.binary(max_size=200)),
)

VALUES = st.builds(
    Value, KEYS.filter(lambda key: b" " not in key), NUMBERS, DATA, st.just(0) | st.integers(1, 2**64 - 1)
)
FIGURES = st.dictionaries(
    st.text("abc_:0", min_size=1, max_size=20), st.text("abc 0.:,", max_size=20) | st.integers(), max_size=8
)


def _values(values: list[Value]) -> tuple[bytes, Reply]:
    sent = b"".join(memcache.value(v.key, v.flags, v.data, v.cas or None) for v in values)
    return sent + b"END\r\n", Reply(END, values, {})


def _stats(figures: dict[str, object]) -> tuple[bytes, Reply]:
    return memcache.stats(figures.items()), Reply(END, [], {k.encode(): str(v).encode() for k, v in figures.items()})


def _line(line: bytes) -> tuple[bytes, Reply]:
    return line + b"\r\n", Reply(line, [], {})


ANSWERS = st.one_of(
    st.builds(_values, st.lists(VALUES, max_size=4)),
    st.builds(_stats, FIGURES),
    st.builds(
        _line,
        st.sampled_from(
            (b"STORED", b"NOT_STORED", b"EXISTS", b"NOT_FOUND", b"DELETED", b"TOUCHED", b"OK", b"RESET", b"ERROR",
             b"VERSION 1.6.18", b"42", b"SERVER_ERROR out of memory storing object", b"CLIENT_ERROR bad data chunk",
             b"ERROR unknown")
        ),
    ),
)  # fmt: skip


def _sent(exchanges: list[tuple[bytes, Any]]) -> bytes:
    return b"".join(sent for sent, _ in exchanges)


# Nonsense, and pieces of sense, of which some are at the limits.
SCRAPS = st.sampled_from(
    (
        b"\r", b"\n", b"\r\n", b" ", b"\0", b"END", b"END\r\n", b"STORED\r\n", b"VALUE", b"VALUE k 0 3\r\nabc\r\n",
        b"VALUE k 0 3\r\nabcd\r\n", b"VALUE k 0 65\r\n", b"VALUE k 0 -1\r\n", b"VALUE k x 1\r\n", b"STAT a b c\r\n",
        b"STAT\r\n", b"SERVER_ERROR \r\n", b"1234567890\r\n", b"get k\r\n", b"get", b"get noreply\r\n", b"gets  a\r\n",
        b"set k 0 0 3\r\nabc\r\n", b"set k 0 0 3\r\nabcd\r\n", b"set k 0 0 3\r\nab\r\n", b"set k 0 0 65\r\n",
        b"set k 0 0 -1\r\n", b"set k 0 0 2147483647\r\n", b"set k 0 0\r\n", b"set k 0 0 3 noreply\r\nabc\r\n",
        b"cas k 0 0 1 7\r\nx\r\n", b"cas k 0 0 1 x\r\nx\r\n", b"delete k noreply\r\n", b"set " + b"k" * 251,
        b"x" * (MAX_LINE - 1), b"x" * MAX_LINE, b"x" * (MAX_LINE + 1), b"get " + b"k " * MAX_LINE, b"9" * 30,
        b"SERVER_ERROR ".ljust(MAX_LINE, b"x"), b"k" * (MAX_KEYS_LINE // 2),
    )
)  # fmt: skip
GARBAGE = st.lists(
    SCRAPS | st.binary(max_size=20) | EXCHANGES.map(lambda exchange: exchange[0]) | ANSWERS.map(lambda a: a[0]),
    max_size=8,
).map(b"".join)


# --- any split of the bytes gives the same events ---


@ordinary
@given(split(st.lists(EXCHANGES, max_size=6).map(_sent)))
def test_requests_are_the_same_however_their_bytes_are_split(stream: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = stream
    assert requests(pieces) == requests([whole]) == requests(one_by_one(whole))


@ordinary
@given(split(st.lists(ANSWERS, max_size=6).map(_sent)))
def test_replies_are_the_same_however_their_bytes_are_split(stream: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = stream
    assert replies(pieces) == replies([whole]) == replies(one_by_one(whole))


# Around the size from which values are kept in pieces on their way; what ends one may be right or wrong.
LARGE = st.builds(
    lambda size, shift, end: (bytes(range(256)) * 80)[shift : shift + size] + end,
    st.integers(0, 10_000) | st.integers(4096 - 40, 4096 + 40) | st.integers(8192 - 40, 8192 + 40),
    st.integers(0, 255),
    st.sampled_from((b"\r\n", b"\r\n", b"\r\n", b"x\r\n")),
)


@ordinary
@given(split(st.lists(LARGE, min_size=1, max_size=3).map(lambda data: b"".join(map(_large_request, data)))))
def test_large_requests_are_the_same_however_their_bytes_are_split(stream: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = stream
    assert requests(pieces, 2**20) == requests([whole], 2**20) == requests(one_by_one(whole), 2**20)


@ordinary
@given(split(st.lists(LARGE, min_size=1, max_size=3).map(lambda data: b"".join(map(_large_reply, data)))))
def test_large_replies_are_the_same_however_their_bytes_are_split(stream: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = stream
    assert replies(pieces, 2**20) == replies([whole], 2**20) == replies(one_by_one(whole), 2**20)


def _large_request(data: bytes) -> bytes:
    return b"set k 0 0 %d\r\n%bget j\r\n" % (len(data) - 2, data)


def _large_reply(data: bytes) -> bytes:
    return b"VALUE k 0 %d\r\n%bVALUE j 0 1\r\nx\r\nEND\r\n" % (len(data.removesuffix(b"\r\n")), data)


def test_a_large_value_that_comes_in_small_pieces_takes_little_more_memory_than_its_bytes() -> None:
    size = 500_000
    for feed, line in (
        (RequestParser(size).feed, b"set k 0 0 %d\r\n" % size),
        (ReplyParser(size).feed, b"VALUE k 0 %d\r\n" % size),
    ):
        tracemalloc.start()
        try:
            feed(line)
            for _ in range(size // 50):
                feed(b"x" * 50)
            assert tracemalloc.get_traced_memory()[0] < 1.1 * size
        finally:
            tracemalloc.stop()


@ordinary
@given(split(GARBAGE))
def test_what_a_server_makes_of_garbage_doesnt_depend_on_its_splits(stream: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = stream
    assert requests(pieces) == requests([whole])


@ordinary
@given(split(GARBAGE))
def test_what_a_client_makes_of_garbage_doesnt_depend_on_its_splits(stream: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = stream
    assert replies(pieces) == replies([whole])


@settings(deadline=None, max_examples=30)
@given(GARBAGE)
def test_not_even_if_every_byte_comes_alone(stream: bytes) -> None:
    stream = stream[: 3 * MAX_LINE]
    assert requests(one_by_one(stream)) == requests([stream])
    assert replies(one_by_one(stream)) == replies([stream])


# --- what one end says the other understands ---


@ordinary
@given(st.lists(EXCHANGES, max_size=6))
def test_a_server_gets_the_requests_that_a_client_made(exchanges: list[Exchange]) -> None:
    parser = RequestParser(MAX_VALUE)
    assert parser.feed(_sent(exchanges)) == [meant for _, meant in exchanges]


@ordinary
@given(st.lists(ANSWERS, max_size=6))
def test_a_client_gets_the_replies_that_a_server_made(answers: list[tuple[bytes, Reply]]) -> None:
    parser = ReplyParser(MAX_REPLY)
    assert parser.feed(_sent(answers)) == [meant for _, meant in answers]
    assert parser.idle


@ordinary
@given(ANSWERS, st.data())
def test_a_client_that_was_cut_off_in_a_reply_knows_it(answer: tuple[bytes, Reply], data: st.DataObject) -> None:
    sent, _ = answer
    cut = data.draw(st.integers(0, len(sent) - 1))
    parser = ReplyParser(MAX_REPLY)
    assert parser.feed(sent[:cut]) == []
    assert parser.idle == (cut == 0)


# --- what a server refuses ---


@pytest.mark.parametrize("size", [MAX_VALUE + 1, 1000, 100_000])
def test_a_value_too_large_is_swallowed_and_nothing_of_it_taken_for_a_command(size: int) -> None:
    block = (b"flush_all\r\n" * size)[:size]
    stream = b"set k 0 0 %d\r\n%b\r\nget k\r\n" % (size, block)
    expected = [Refusal(VALUE_TOO_LARGE), Request(b"get", [b"k"], b"", False)]
    assert requests([stream]) == requests(stream[n : n + 7] for n in range(0, len(stream), 7)) == expected


def test_a_value_of_just_the_largest_size_is_taken() -> None:
    stream = memcache.storage(b"set", b"k", b"x" * MAX_VALUE)
    assert requests([stream]) == [Request(b"set", [b"k", b"0", b"0", b"64"], b"x" * MAX_VALUE, False)]


def test_ms_has_its_size_in_the_second_place_and_a_block_behind_it() -> None:
    stream = b"ms k 9 T0 q\r\nversion\r\n\r\nmn\r\n"
    expected = [Request(b"ms", [b"k", b"9", b"T0", b"q"], b"version\r\n", False), Request(b"mn", [], b"", False)]
    assert requests([stream]) == requests(stream[n : n + 1] for n in range(len(stream))) == expected


@pytest.mark.parametrize(
    ("line", "error", "size"),
    [
        (b"ms k 65", VALUE_TOO_LARGE, 65),
        (b"ms k 65 q", VALUE_TOO_LARGE, 65),
        (b"ms " + b"k" * 251 + b" 9", BAD_FORMAT, 9),
        (b"ms k -1", BAD_FORMAT, None),
        (b"ms k 2147483647", BAD_FORMAT, None),
        (b"ms k x", BAD_FORMAT, None),
        (b"ms k", BAD_FORMAT, None),
        (b"ms", ERROR, None),
    ],
)
def test_a_refused_ms_is_told_of_and_its_block_swallowed(line: bytes, error: bytes, size: int | None) -> None:
    block = b"" if size is None else b"x" * size + b"\r\n"
    assert requests([line + b"\r\n" + block + b"mn\r\n"]) == [Refusal(error), Request(b"mn", [], b"", False)]


def test_a_request_of_http_is_the_last_that_is_read() -> None:
    assert requests([b"POST /x HTTP/1.1\r\nHost: x\r\n\r\nflush_all\r\n"]) == [Refusal(b"", noreply=True, fatal=True)]


def test_a_key_may_look_like_http() -> None:
    assert requests([b"get HTTP/1.1\r\n"]) == [Request(b"get", [b"HTTP/1.1"], b"", False)]


def test_a_block_longer_than_it_was_said_to_be_is_a_bad_chunk_and_the_next_line_counts() -> None:
    assert requests([b"set k 0 0 3\r\nabcde\r\nversion\r\n"]) == [
        Refusal(BAD_CHUNK),
        Refusal(ERROR),
        Request(b"version", [], b"", False),
    ]


@pytest.mark.parametrize("size", [b"-1", b"-2147483648", b"%d" % (MAX_LENGTH + 1), b"2147483647", b"9" * 20])
def test_a_length_that_can_only_be_a_mistake_is_refused_and_not_waited_for(size: bytes) -> None:
    assert requests([b"set k 0 0 %b\r\nversion\r\n" % size]) == [
        Refusal(BAD_FORMAT),
        Request(b"version", [], b"", False),
    ]


@pytest.mark.parametrize("size", [b"", b"x", b"1x", b"0x10", b"+-1", b"1.0", b"--1", b"9" * 21, "٣".encode()])
def test_a_length_that_is_no_number_is_refused(size: bytes) -> None:
    refused = requests([b"set k 0 0 %b\r\nversion\r\n" % size])
    assert refused == [Refusal(BAD_FORMAT if size else ERROR), Request(b"version", [], b"", False)]


@pytest.mark.parametrize(
    "line",
    [
        b"set k x 0 1\r\n",
        b"set k -1 0 1\r\n",
        b"set k 4294967296 0 1\r\n",
        b"set k 0 x 1\r\n",
        b"cas k 0 0 1 x\r\n",
        b"set " + b"k" * (MAX_KEY + 1) + b" 0 0 1\r\n",
    ],
)
def test_a_storage_line_in_a_wrong_form_is_refused_and_its_block_swallowed(line: bytes) -> None:
    assert requests([line + b"x\r\nversion\r\n"]) == [Refusal(BAD_FORMAT), Request(b"version", [], b"", False)]


@pytest.mark.parametrize("key", [b"k" * MAX_KEY, b"\xff" * MAX_KEY])
def test_a_key_of_250_bytes_is_taken(key: bytes) -> None:
    stream = memcache.storage(b"set", key, b"x")
    assert requests([stream]) == [Request(b"set", [key, b"0", b"0", b"1"], b"x", False)]


@pytest.mark.parametrize("words", [b"set", b"set k", b"set k 0 0", b"set k 0 0 1 2 3", b"cas k 0 0 1", b""])
def test_a_line_of_too_few_or_too_many_words_is_an_error(words: bytes) -> None:
    assert requests([words + b"\r\n"]) == [Refusal(ERROR)]


@pytest.mark.parametrize(
    "line", [b"x" * (MAX_LINE + 1), b"delete " + b"k" * MAX_LINE, b"get " + b"k" * (MAX_KEYS_LINE - 3)]
)
@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\nversion\r\n"])
def test_a_line_too_long_is_the_last_that_is_read(line: bytes, end: bytes) -> None:
    assert requests([line + end]) == [Refusal(LINE_TOO_LONG, fatal=True)]
    assert requests([line[:1000], line[1000:] + end]) == [Refusal(LINE_TOO_LONG, fatal=True)]


@pytest.mark.parametrize("verb", [b"get", b"gets", b"gat", b"gats"])
def test_a_line_that_may_name_many_keys_may_be_longer(verb: bytes) -> None:
    keys = [b"%0249d" % n for n in range(250)]
    assert requests([memcache.retrieval(verb, *keys)]) == [Request(verb, keys, b"", False)]


def test_lines_may_end_without_a_carriage_return() -> None:
    assert requests([b"version\nset k 0 0 1\nx\r\n"]) == [
        Request(b"version", [], b"", False),
        Request(b"set", [b"k", b"0", b"0", b"1"], b"x", False),
    ]


@pytest.mark.parametrize(
    "start",
    [
        b"set k 0 0 2147483645\r\n",
        b"set k 0 0 2147483647\r\n",
        b"set k 0 0 -2147483648\r\n",
        b"set k 0 0 99999999999999999999\r\n",
        b"set k 0 0 " + b"9" * 1000 + b"\r\n",
        b"VALUE k 0 2147483647\r\n",
        b"VALUE k 0 " + b"9" * 1000 + b"\r\n",
    ],
)
def test_a_length_alone_costs_no_memory(start: bytes) -> None:
    tracemalloc.start()
    try:
        requests([start], max_value=1024 * 1024)
        replies([start], max_value=1024 * 1024)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_what_is_swallowed_costs_no_memory() -> None:
    parser = RequestParser(MAX_VALUE)
    parser.feed(b"set k 0 0 2000000000\r\n")
    piece = b"x" * 10_000
    tracemalloc.start()
    try:
        for _ in range(1000):
            assert parser.feed(piece) == []
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


# --- noreply ---


@pytest.mark.parametrize(
    "line", [b"delete k", b"incr k 1", b"decr k 1", b"touch k 0", b"flush_all", b"flush_all 10", b"verbosity 1"]
)
def test_noreply_is_taken_where_memcached_has_it(line: bytes) -> None:
    verb, *args = line.split()
    assert requests([line + b" noreply\r\n"]) == [Request(verb, args, b"", True)]
    assert requests([line + b"\r\n"]) == [Request(verb, args, b"", False)]


@pytest.mark.parametrize("verb", sorted(memcache.STORAGE))
def test_noreply_is_taken_on_everything_that_stores_even_when_it_is_refused(verb: bytes) -> None:
    cas = b" 7" if verb == b"cas" else b""
    taken, too_large, too_long = requests(
        [
            b"%b k 0 0 1%b noreply\r\nx\r\n" % (verb, cas),
            b"%b k 0 0 65%b noreply\r\n%b\r\n" % (verb, cas, b"x" * 65),
            b"%b %b 0 0 1%b noreply\r\nx\r\n" % (verb, b"k" * 251, cas),
        ]
    )
    assert isinstance(taken, Request)
    assert (taken.data, taken.noreply) == (b"x", True)
    assert too_large == Refusal(VALUE_TOO_LARGE, noreply=True)
    assert too_long == Refusal(BAD_FORMAT, noreply=True)


@pytest.mark.parametrize("verb", [b"get", b"gets", b"gat", b"gats", b"stats", b"version", b"quit", b"unknown"])
def test_elsewhere_noreply_is_a_word_like_others(verb: bytes) -> None:
    assert requests([verb + b" noreply\r\n"]) == [Request(verb, [b"noreply"], b"", False)]


def test_a_key_may_be_called_noreply() -> None:
    assert requests([b"delete noreply noreply\r\n"]) == [Request(b"delete", [b"noreply"], b"", True)]
    assert requests([b"delete noreply\r\n"]) == [Request(b"delete", [b"noreply"], b"", False)]
    stored = requests([b"set noreply 0 0 1\r\nx\r\n"])
    assert stored == [Request(b"set", [b"noreply", b"0", b"0", b"1"], b"x", False)]


# --- what a client believes ---


def test_an_error_in_the_middle_of_a_reply_voids_what_came_of_it() -> None:
    stream = b"VALUE k 0 1\r\nx\r\nSERVER_ERROR out of memory writing get response\r\nVALUE k 0 1\r\ny\r\nEND\r\n"
    assert replies([stream]) == [
        Reply(b"SERVER_ERROR out of memory writing get response", [], {}),
        Reply(END, [Value(b"k", 0, b"y", 0)], {}),
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"HTTP/1.1 400 Bad Request",
        b"stored",
        b"STORED ",
        b"ENDED",
        b"-1",
        b"1 2",
        b"SSH-2.0-OpenSSH_9.2",
        b"VALUE k 0",
        b"VALUE k 0 x",
        b"VALUE k 0 -1",
        b"VALUE k 0 1 2 3",
        b"VALUE k  1",
        b"\0\xff",
    ],
)
def test_a_line_that_no_server_of_this_protocol_sends_is_an_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        ReplyParser().feed(line + b"\r\n")


@pytest.mark.parametrize("line", [b"STORED", b"NOT_FOUND", b"42", b"VERSION 1", b"CLIENT_ERROR x", b"ERROR"])
def test_only_its_end_or_a_failure_may_follow_a_value(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        ReplyParser().feed(b"VALUE k 0 1\r\nx\r\n" + line + b"\r\n")


def test_a_value_larger_than_expected_is_an_error_at_its_first_line() -> None:
    with pytest.raises(ProtocolError, match="a value of 65 bytes: of one reply at most 64 were expected"):
        ReplyParser(MAX_VALUE).feed(b"VALUE k 0 65\r\n")


@pytest.mark.parametrize("after", [b"yz", b"\r\r", b"\n\r", b"y\r\n"])
def test_a_value_that_doesnt_end_where_its_length_says_is_an_error(after: bytes) -> None:
    with pytest.raises(ProtocolError, match="doesn't end where its length says"):
        ReplyParser().feed(b"VALUE k 0 1\r\nx" + after)


@pytest.mark.parametrize("line", [b"SERVER_ERROR ".ljust(n, b"x") for n in (MAX_LINE, MAX_LINE + 1, 5000)])
def test_a_line_beyond_the_limit_is_an_error_whether_its_end_has_come_or_not(line: bytes) -> None:
    expected = [Reply(line, [], {})] if len(line) == MAX_LINE else "a reply's line is longer than 2048 bytes"
    assert replies([line + b"\r\n"]) == replies([line, b"\r\n"]) == replies([line + b"\r", b"\n"]) == expected


def test_a_number_of_thousands_of_digits_is_an_error_like_others() -> None:
    with pytest.raises(ProtocolError):
        ReplyParser().feed(b"VALUE k 0 %b\r\n" % (b"9" * 5000))


def test_a_line_without_end_is_given_up() -> None:
    with pytest.raises(ProtocolError, match="longer than 2048 bytes"):
        ReplyParser().feed(b"x" * 3000)


def test_a_miss_takes_nothing_from_the_reply_behind_it() -> None:
    miss, hit = ReplyParser().feed(b"END\r\nVALUE k 0 1\r\nx\r\nEND\r\n")
    assert miss == Reply(END, [], {})
    assert hit == Reply(END, [Value(b"k", 0, b"x", 0)], {})


def test_a_reply_that_was_given_never_changes() -> None:
    parser = ReplyParser()
    given = [parser.feed(line) for line in (b"END\r\n", b"VALUE k 0 1\r\nx\r\nEND\r\n", b"STAT a b\r\nEND\r\n")]
    assert given == [[Reply(END, [], {})], [Reply(END, [Value(b"k", 0, b"x", 0)], {})], [Reply(END, [], {b"a": b"b"})]]


def test_figures_may_hold_spaces_and_be_empty() -> None:
    stream = b"STAT libevent 2.1.12 stable\r\nSTAT empty \r\nSTAT bare\r\nEND\r\n"
    stats = {b"libevent": b"2.1.12 stable", b"empty": b"", b"bare": b""}
    assert replies([stream]) == [Reply(END, [], stats)]


def test_figures_without_end_are_given_up() -> None:
    parser = ReplyParser()
    parser.feed(b"".join(b"STAT %d 1\r\n" % n for n in range(100_000)))
    with pytest.raises(ProtocolError, match="more than 100000 lines"):
        parser.feed(b"STAT one-more 1\r\n")


def test_values_that_are_too_much_together_are_an_error_at_the_first_that_is() -> None:
    parser = ReplyParser(MAX_VALUE)
    value = memcache.value(b"k", 0, bytes(40))
    assert parser.feed(value + b"END\r\n" + value) != []
    with pytest.raises(ProtocolError, match="a value of 40 bytes: of one reply at most 64"):
        parser.feed(value)
