"""The same commands in any order, classic and meta, get from the node what they get from memcached.

What is drawn leaves out what the two are known to differ in: ``docs/node-protocol.rst`` has the list.
"""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfss.node.engine import MIB
from tests.node.support import PATIENCE, STEADY
from tests.servers import HOST, memcached, sfss_node

KEYS = [b"a", b"b", b"n", b"/" + b"k" * 249]
BINARY_KEYS = [base64.b64encode(b"\0 binary\r\n"), base64.b64encode(b"\xff" * 186)]
CAS = b"<cas>"  # in a request: the version of its key there, or one that it doesn't have
# Not flush_all: each leaves something behind in RocksDB's memory, and thousands of them make it slow.
EMPTIED = b"".join([*(b"md %b\r\n" % key for key in KEYS), *(b"md %b b\r\n" % key for key in BINARY_KEYS)])
OLDER = b"1"  # a version that no item has any more
VERSION = re.compile(rb"(?<=cas=)\d+")
UNLIKE = [  # what differs between any two servers: versions, seconds that are left, what an item costs in memory
    (re.compile(rb"(VALUE \S+ \d+ \d+) \d+\r\n"), rb"\1 #\r\n"),
    (re.compile(rb"^((?:HD|VA \d+|EX|NF|NS)(?: [^\r]*)?) c\d+", re.M), rb"\1 c#"),
    (re.compile(rb"^((?:HD|VA \d+|EX|NF|NS)(?: [^\r]*)?) t\d+", re.M), rb"\1 t#"),
    (re.compile(rb"^(ME \S+) exp=(?:(-1)|-?\d+) la=\d+ cas=\d+ fetch=\S+ cls=\d+ size=\d+", re.M), rb"\1 exp=\2"),
]


class Ask(NamedTuple):
    """A request; ``key`` names the item whose version stands for CAS in it."""

    key: bytes
    request: bytes


class Conversation:
    """One connection, on which a request is asked at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), PATIENCE)
        self._file = self._socket.makefile("rb")

    def ask(self, request: bytes) -> bytes:
        """All that is answered: mn ends it, for it is answered to whatever came before."""
        self._socket.sendall(request + b"mn\r\n")
        lines: list[bytes] = []
        while (line := self._file.readline()) != b"MN\r\n":
            assert line, f"hung up on {request!r} after {lines}"
            lines.append(line)
        return b"".join(lines)

    def alike(self, ask: Ask) -> bytes:
        """The answer, without what differs between any two servers."""
        request = ask.request
        if CAS in request:
            binary = b" b" if ask.key in BINARY_KEYS else b""
            found = VERSION.search(self.ask(b"me %b%b\r\n" % (ask.key, binary)))  # mg might win it
            request = request.replace(CAS, found[0] if found else b"5")
        answer = self.ask(request)
        for pattern, replacement in UNLIKE:
            answer = pattern.sub(replacement, answer)
        return answer

    def close(self) -> None:
        self._file.close()
        self._socket.close()


# --- what is drawn ---

data = st.one_of(
    st.sampled_from([b"", b"0", b"9", b"99", b"18446744073709551615", b"5 ", b" 7", b"-1", b"x", b"\0\r\n\xff"]),
    st.integers(0, 2**64).map(lambda number: b"%d" % number),
    # Not blanks alone: of such a number memcached reads on behind the value, whatever lies there.
    st.binary(max_size=30).filter(lambda text: b"MN" not in text and (not text or text.strip())),
)
exptimes = st.sampled_from([b"0", b"0", b"-1", b"100", b"10000", b"2592001"])
client_flags = st.sampled_from([b"0", b"1", b"4294967295"])
noreply = st.sampled_from([b"", b"", b"", b" noreply"])
deltas = st.sampled_from([b"0", b"1", b"5", b"18446744073709551615", b"18446744073709551616", b"-1", b"x", b""])
some_cas = st.sampled_from([CAS, CAS, CAS, CAS + b"0", OLDER, OLDER, b"0", b"x", b""])
soon = st.sampled_from([b"0", b"-1", b"50", b"200", b"20000", b"x"])  # no expiry is drawn near these


@st.composite
def classic(draw: st.DrawFn) -> Ask:
    key = draw(st.sampled_from(KEYS))
    verb = draw(st.sampled_from([
        b"get", b"gets", b"gat", b"gats", b"set", b"set", b"add", b"replace", b"append", b"prepend", b"cas", b"delete",
        b"incr", b"decr", b"touch", b"flush_all",
    ]))  # fmt: skip
    end = draw(noreply) + b"\r\n"
    if verb in (b"get", b"gets"):
        keys = b" ".join([key, *draw(st.lists(st.sampled_from(KEYS), max_size=3))])
        return Ask(key, b"%b %b\r\n" % (verb, keys))
    if verb in (b"gat", b"gats"):
        return Ask(key, b"%b %b %b\r\n" % (verb, draw(exptimes), key))
    if verb in (b"incr", b"decr"):
        return Ask(key, b"%b %b %b%b" % (verb, key, draw(deltas), end))
    if verb == b"touch":
        return Ask(key, b"touch %b %b%b" % (key, draw(exptimes), end))
    if verb == b"delete":
        return Ask(key, b"delete %b%b" % (key, end))
    if verb == b"flush_all":
        return Ask(key, b"flush_all" + end)
    body = draw(data)
    cas = b" " + CAS if verb == b"cas" else b""
    line = b"%b %b %b %b %d%b%b" % (verb, key, draw(client_flags), draw(exptimes), len(body), cas, end)
    return Ask(key, line + body + b"\r\n")


def token(letter: str, tokens: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return tokens.map(lambda text: letter.encode() + text)


opaque = token("O", st.sampled_from([b"", b"17", b"k", b"x" * 31]))
ttl = token("T", exptimes)
cas_flag = token("C", some_cas)
vivify = token("N", exptimes)
recache = token("R", soon)
plain = st.sampled_from
FLAGS = {
    b"mg": st.one_of(plain([b"v", b"s", b"t", b"c", b"f", b"k", b"q", b"u", b"P"]), opaque, ttl, vivify, recache),
    b"ms": st.one_of(
        plain([b"c", b"k", b"q", b"MS", b"ME", b"MA", b"MP", b"MR", b"M", b"Mx", b"Fx", b"v", b"Tx", b"I", b"I"]),
        opaque, ttl, cas_flag, token("F", client_flags), vivify, recache,
    ),
    b"md": st.one_of(plain([b"k", b"q", b"v", b"Tx", b"I", b"I", b"I"]), opaque, ttl, cas_flag, recache),
    b"ma": st.one_of(
        plain([b"t", b"c", b"v", b"k", b"q", b"M+", b"M-", b"MI", b"MD", b"Mx", b"M", b"J5", b"Jx"]),
        opaque, cas_flag, vivify, token("D", deltas),
        # not T: memcached gives it to the old item, and loses it, where a number grows by a digit
    ),
    b"me": plain([b"v", b"O1"]),
}  # fmt: skip


@st.composite
def meta(draw: st.DrawFn) -> Ask:
    verb = draw(st.sampled_from([b"mg", b"mg", b"ms", b"ms", b"md", b"ma", b"ma", b"me"]))
    binary = draw(st.booleans())
    key = draw(st.sampled_from(BINARY_KEYS if binary else KEYS))
    flags = draw(st.lists(FLAGS[verb], max_size=6, unique_by=lambda flag: flag[:1]))
    if draw(st.integers(0, 20)) == 0:
        flags.append(draw(st.sampled_from([b"!", b"z", b"k", b"\xff", b"O"])))
    if verb == b"ma":
        flags.sort(key=lambda flag: flag[:1] == b"t")  # what t tells before an N is one of the differences
    if binary:
        # memcached forgets that a key is binary, and tells it line ends and all, where an ma or mg has made a new item.
        verb = verb if verb != b"me" else b"mg"
        flags = [b"b", *(flag for flag in flags if (verb, flag) != (b"mg", b"k"))]
    if verb != b"ms":
        return Ask(key, b" ".join([verb, key, *flags]) + b"\r\n")
    body = draw(data)
    return Ask(key, b" ".join([verb, key, b"%d" % len(body), *flags]) + b"\r\n" + body + b"\r\n")


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Conversation, Conversation]]:
    data: Path = tmp_path_factory.mktemp("differential") / "data"
    with memcached(*STEADY) as real, sfss_node(data, "--durability", "os", "--max-item-size", str(MIB)) as (port, _):
        theirs, ours = Conversation(real), Conversation(port)
        assert theirs.ask(b"ms a 0 c\r\n\r\nmd a\r\n") == b"HD c%b\r\nHD\r\n" % OLDER
        yield theirs, ours
        theirs.close()
        ours.close()


@pytest.mark.timeout(1800)
def test_any_sequence_of_commands_is_answered_as_memcached_answers_it(
    conversations: tuple[Conversation, Conversation], long: bool
) -> None:
    @settings(
        max_examples=30_000 if long else 500,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(st.one_of(classic(), meta()), max_size=40))
    def compare(asks: list[Ask]) -> None:
        theirs, ours = conversations
        assert theirs.ask(EMPTIED) == ours.ask(EMPTIED)
        for ask in asks:
            assert ours.alike(ask) == theirs.alike(ask), ask

    compare()
