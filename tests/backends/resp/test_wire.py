"""Redis's protocol: what is made of bytes, in whatever pieces they come."""

from __future__ import annotations

import pytest

from sfss.backends.resp.wire import AnswerParser, Refusal, packed
from sfss.errors import ProtocolError

SAID = b"+OK\r\n:3\r\n$-1\r\n$5\r\na\r\nb\x00\r\n-ERR no\r\n*2\r\n$1\r\n0\r\n*1\r\n$2\r\n/k\r\n$0\r\n\r\n"
MEANT = [b"OK", 3, None, b"a\r\nb\0", Refusal("ERR no"), [b"0", [b"/k"]], b""]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
def test_answers_are_the_same_in_whatever_pieces_they_come(piece: int) -> None:
    parser = AnswerParser(100)
    answers = [answer for at in range(0, len(SAID), piece) for answer in parser.feed(SAID[at : at + piece])]
    assert answers == MEANT
    assert [type(answer) for answer in answers] == [type(answer) for answer in MEANT]
    assert parser.idle


def test_an_answer_that_has_begun_is_known() -> None:
    parser = AnswerParser(100)
    for part in (b"$5\r\nab", b"c"):
        assert parser.feed(part) == []
        assert not parser.idle
    assert parser.feed(b"de\r\n") == [b"abcde"]
    assert parser.idle
    assert parser.feed(b":1\r\n$3\r\na") == [1]
    assert not parser.idle


def test_what_is_no_answer_is_an_error() -> None:
    with pytest.raises(ProtocolError):
        AnswerParser(100).feed(b"HTTP/1.1 400 Bad Request\r\n")


def test_no_more_is_held_than_an_answer_may_have() -> None:
    parser = AnswerParser(1000)
    parser.feed(b"$100000000\r\n")
    held = 0

    def feed_all() -> None:
        nonlocal held
        while held < 1_000_000:
            parser.feed(bytes(1000))
            held += 1000

    with pytest.raises(ProtocolError, match="more than"):
        feed_all()
    assert held < 100_000


def test_commands_are_packed_whatever_their_bytes() -> None:
    assert packed(b"SET", b"/k", b"\r\n\0") == b"*3\r\n$3\r\nSET\r\n$2\r\n/k\r\n$3\r\n\r\n\0\r\n"
