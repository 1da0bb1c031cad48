"""A node without sockets, and all that must hold of it whatever it is fed: parser, commands and a store, in process.

``Bench.play`` feeds one input as a connection would bring it and checks what comes of it. An AssertionError says what
doesn't hold; any other exception is one that a client has caused, and so a bug as well.
"""

from __future__ import annotations

import itertools
import re
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from sfss import memcache
from sfss.memcache import MAX_KEY, MAX_KEYS_LINE, NOREPLY, STORAGE, Refusal, ReplyParser, Request, RequestParser
from sfss.node.commands import Commands, waits
from sfss.node.memory import UNKNOWN, Found, Unknown
from sfss.node.replies import END, Pieces
from sfss.node.stats import Counters, Stats
from sfss.node.store import LEAST_CACHE, Store
from sfss.scan import ItemParser
from tests.node.fuzz.grammar import CAS, HUGE, KEY, Input
from tests.node.support import Clock

MAX_VALUE = 4096  # bytes; small, so that what is too large is met often
LARGE = int(HUGE)  # a length up to it is believed, and may cost nothing all the same
MEMORY = 64 * 1024  # bytes for what was read of late; small, so that entries have to be fetched
MOST_SECONDS = 0.5  # of the processor's time that one input may take ...
MOST_SECONDS_A_BYTE = 4e-5  # ... and more for a long one: it may ask for 30,000 keys
MOST_FILLING = 10_000  # bytes of a block that are sent so that it comes to its end
MOST_ITEMS = 2000  # before the store is emptied
WALK_EVERY, WEIGH_EVERY = 250, 50  # inputs
NOW = 1_800_000_000.0

_REFUSALS = {memcache.ERROR, memcache.BAD_FORMAT, memcache.BAD_CHUNK, memcache.LINE_TOO_LONG, memcache.VALUE_TOO_LARGE}
_META = frozenset((b"mn", b"mg", b"ms", b"md", b"ma", b"me"))
_META_LINE = re.compile(
    rb"(?:MN|(?:HD|EN|NF|NS|EX)(?: [A-Za-z][^ \n]*)*|VA (?P<size>\d+)(?: [A-Za-z][^ \n]*)*"
    rb"|ME [^ \n]+ exp=-?\d+ la=\d+ cas=\d+ fetch=\w+ cls=1 size=\d+|ERROR|CLIENT_ERROR [ -~]+)\r\n"
)
_DUMPED = re.compile(rb"key=[!-~]+ exp=-?\d+ la=\d+ cas=\d+ fetch=no cls=1 size=\d+\n")
_TELLING = re.compile(  # what else than the classic words is said, by the verbs that have words of their own
    rb"(?:ERROR|ERROR failed to start lru crawler thread|ERROR: shutdown not enabled|Error TLS not enabled|OK"
    rb"|BADCLASS invalid class id|MEMLIMIT_[A-Z_]+ [ -~]+|CLIENT_ERROR [ -~]+)\r\n"
)
_OWN_WORDS = frozenset((b"cache_memlimit", b"slabs", b"shutdown", b"watch", b"refresh_certs", b"lru_crawler"))
_FETCHING = frozenset((b"get", b"gets", b"gat", b"gats", b"bget", b"head"))
_SAID: dict[bytes, frozenset[bytes]] = {  # the last lines that a verb has beside errors; of the others any
    **dict.fromkeys(STORAGE, frozenset((b"STORED", b"NOT_STORED", b"EXISTS", b"NOT_FOUND"))),
    **dict.fromkeys(_FETCHING, frozenset((b"END",))),
    b"delete": frozenset((b"DELETED", b"NOT_FOUND")),
    b"touch": frozenset((b"TOUCHED", b"NOT_FOUND")),
    b"flush_all": frozenset((b"OK",)),
    b"verbosity": frozenset((b"OK",)),
    b"stats": frozenset((b"END", b"RESET")),
}


class Bench:
    """A node's parser, commands and store, without its sockets and its syncs."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock(NOW)
        self.store = Store(directory, self.clock, cache=LEAST_CACHE)
        self.store.memory.limit = MEMORY
        self.store.crowded = lambda: True  # type: ignore[method-assign]  # then it is asked what would change something
        self._unforeseen: list[bytes] = []  # entries that were read and hadn't been said to be needed
        find = self.store.memory.find

        def noted(key: bytes) -> Found | Literal[Unknown.UNKNOWN]:
            found = find(key)
            if found is UNKNOWN:
                self._unforeseen.append(key)
            return found

        self.store.memory.find = noted  # type: ignore[method-assign]
        self.commands = Commands(self.store, Stats(self.store, Counters(), "os", MAX_VALUE, 10))
        self.inputs = 0

    def close(self) -> None:
        self.store.close()

    def begin(self) -> None:
        """Empty the store and set the clock back, so that what is played from here on is the same each time."""
        self.clock.now = NOW
        assert self.commands.answer(Request(b"flush_all", [], b"", False)) == b"OK\r\n"
        self.inputs = 0

    def play(self, given: Input) -> None:
        """One connection's worth. Raises AssertionError, or whatever the node's code raised."""
        self._pass(given.wait)
        given = self._with_version(given)
        began = time.thread_time()
        parser = RequestParser(MAX_VALUE)
        events: list[Request | Refusal] = []
        for piece in given.pieces:
            events += parser.feed(piece)
            check_state(parser)
            if events and _is_fatal(events[-1]):
                break
        answers = [self._answer(event) for event in _until_hung_up(events)]
        took = time.thread_time() - began
        assert took < MOST_SECONDS + MOST_SECONDS_A_BYTE * len(given.stream), f"{took:.2f} s"
        assert events == RequestParser(MAX_VALUE).feed(given.stream), "the split makes a difference"
        assert given.requests in (None, len(events)), f"{given.requests} requests were taken for {len(events)}"
        for event, pieces in zip(events, answers, strict=False):
            check_answer(event, pieces)
        check_goes_on(parser, events)
        assert self.commands.answer(Request(b"mn", [], b"", False)) == b"MN\r\n"
        self.inputs += 1
        if self.inputs % WALK_EVERY == 0:
            self.walk()
        if self.inputs % WEIGH_EVERY == 0 or HUGE in given.stream:
            weigh(given)

    def _pass(self, seconds: float) -> None:
        """Let time go by; a node removes what has expired, sooner or later."""
        self.clock.now += seconds
        if seconds and self.inputs % 2:
            while due := self.store.due(100):
                self.store.expire(due)

    def _with_version(self, given: Input) -> Input:
        if CAS not in given.stream:
            return given
        head = self.store.head(KEY)
        return given._replace(stream=given.stream.replace(CAS, b"%d" % (head.cas if head else 5)))

    def _answer(self, event: Request | Refusal) -> list[bytes]:
        """Carry out what came; the answer in pieces."""
        if isinstance(event, Refusal):
            return [event.line]
        check_request(event)
        waits(event)
        self._fetch(self.commands.needs(event))
        may_change, before = self.commands.would_change(event), self.store.changes
        reply = self.commands.answer(event)
        pieces = [reply] if isinstance(reply, bytes) else [*self._in_pieces(reply), END]
        assert not self._unforeseen, f"{self._unforeseen} had to be read, which nobody knew of"
        assert may_change or self.store.changes == before, "it wasn't to change anything"
        return pieces

    def _in_pieces(self, reply: Pieces) -> Iterator[bytes]:
        while True:
            self._fetch(reply.needs(1))
            piece = next(reply, END)
            if piece is END:
                return
            yield piece

    def _fetch(self, needs: Sequence[bytes]) -> None:
        """Have in memory what will be read, as the node's threads see to it."""
        self.store.settle()  # a delayed flush_all empties the memory
        missing, memory = self.store.missing(needs), self.store.memory
        memory.settle()
        if missing:
            memory.bring(memory.begin(missing), missing, self.store.read(missing))
        self._unforeseen.clear()

    def walk(self) -> None:
        """Hold the totals against all that is there, and heads against bodies; then empty a store that has grown."""
        self.store.settle()
        found, start = [], b""
        while heads := self.store.heads(start, b"", 500):
            found += heads
            start = heads[-1][0] + b"\0"
        assert (self.store.items, self.store.bytes) == (len(found), sum(head.size for _, head in found))
        assert len({head.cas for _, head in found}) == len(found), "a version was given twice"
        for key, head in found:
            assert 1 <= len(key) <= MAX_KEY
            item = self.store.get(key)
            assert item is None or (item.flags, item.expiry, item.cas, len(item.data)) == (
                head.flags, head.expiry, head.cas, head.size
            ), f"head and body of {key!r} differ"  # fmt: skip
        if len(found) > MOST_ITEMS:
            self.commands.answer(Request(b"flush_all", [], b"", False))


def check_goes_on(parser: RequestParser, events: list[Request | Refusal]) -> bytes | None:
    """Wherever a stream has stopped, what it announced can be brought to its end, and then requests are heard.

    Returns what brings it there; None if that is too much, or the connection has ended.
    """
    if any(_is_last(event) for event in events):
        return None
    end = b""
    while parser._swallow or parser._pending or parser._buffer:
        refused, begun, missing = parser._swallow, parser._pending, parser._swallow or parser.lacks or 1
        if missing > MOST_FILLING:
            return None
        end += b"\n" * missing
        events = parser.feed(b"\n" * missing)
        if events and _is_last(events[-1]):
            return None
        assert not refused or not events
        assert not begun or len(events) == 1
    assert parser.feed(b"mn\r\n") == [Request(b"mn", [], b"", False)]
    return end


def ending(stream: bytes) -> bytes | None:
    """What brings a stream to its end, so that a node's next word is on what follows; None if it hangs up before.

    The node has its own limit of a value.
    """
    parser = RequestParser(LARGE)
    return check_goes_on(parser, parser.feed(stream))


def check_state(parser: RequestParser) -> None:
    """What a parser keeps between two feeds is bounded, whatever was announced."""
    kept = len(parser._buffer)
    if parser._pending:
        assert kept <= parser.size + 1, "a whole block was left lying"
        assert parser.lacks == parser.size + 2 - kept
    else:
        assert kept <= MAX_KEYS_LINE + 1
    assert not (parser._swallow and kept), "what is swallowed was kept"
    assert parser._buffer.__alloc__() <= 2 * kept + 64, "memory for what hasn't come"


def weigh(given: Input) -> None:
    """What is announced costs no memory before it comes, even if it is within the node's own limit."""
    parser = RequestParser(LARGE)
    tracemalloc.start()
    try:
        for piece in given.pieces:
            parser.feed(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 100_000 + 200 * len(given.stream), f"{peak} bytes for an input of {len(given.stream)}"


def check_request(request: Request) -> None:
    """A request that the parser let through has the form that the commands count on."""
    words = [request.verb, *request.args]
    assert all(word and b" " not in word and b"\n" not in word for word in words), words
    if request.verb in STORAGE:
        assert len(request.args) == 4 + (request.verb == b"cas")
        assert len(request.args[0]) <= MAX_KEY
        assert len(request.data) == int(request.args[3]) <= MAX_VALUE
    elif request.verb == b"ms":
        assert len(request.data) == int(request.args[1]) <= MAX_VALUE
        assert not request.noreply
    else:
        assert not request.data
        assert not request.noreply or request.verb in NOREPLY


def check_answer(request: Request | Refusal, pieces: list[bytes]) -> None:
    """The pieces are one answer, in its form, to this request."""
    if isinstance(request, Refusal):
        assert request.line in _REFUSALS, request
        return
    whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if request.noreply:
        assert whole in (b"", b"ERROR\r\n"), whole[:200]
    elif request.verb in _META:
        _check_meta(request, whole)
    elif request.verb == b"scan":
        _check_scan(request, whole)
    elif request.verb == b"lru_crawler" and len(pieces) > 1:
        assert all(not piece or _DUMPED.fullmatch(piece) for piece in pieces[:-1]), whole[:200]
    elif request.verb in _OWN_WORDS:
        assert _TELLING.fullmatch(whole) or whole == END, whole[:200]
    elif request.verb in _FETCHING and len(pieces) > 1:
        asked = request.args[request.verb.startswith(b"gat") :]
        assert len(pieces) == len(asked) + 1
        for key, piece in zip(asked, pieces, strict=False):
            if piece:
                assert piece.startswith(b"VALUE %b " % key), piece[:200]
                _check_classic(request, piece + END)
    else:
        _check_classic(request, whole)


def _check_classic(request: Request, whole: bytes) -> None:
    parser = ReplyParser(MAX_VALUE)
    (reply,) = parser.feed(whole)
    assert parser.idle
    assert not reply.line.startswith(b"SERVER_ERROR"), reply.line
    if not reply.line.startswith((b"ERROR", b"CLIENT_ERROR ")):
        said = _SAID.get(request.verb)
        if said:
            assert reply.line in said, (request, reply)
        elif request.verb in (b"incr", b"decr"):
            assert reply.line == b"NOT_FOUND" or (reply.line.isdigit() and int(reply.line) < 2**64)
    assert all(value.key in request.args for value in reply.values)


def _check_meta(request: Request, whole: bytes) -> None:
    if not whole:
        assert b"q" in {word[:1] for word in request.args[1:]}, f"no answer to {request}"
        return
    line = _META_LINE.match(whole)
    assert line, whole[:200]
    rest = whole[line.end() :]
    if line["size"] is None:
        assert not rest, whole[:200]
    else:
        assert len(rest) == int(line["size"]) + 2, whole[:200]
        assert rest.endswith(b"\r\n")


def _check_scan(request: Request, whole: bytes) -> None:
    parser = ItemParser()
    items = parser.feed(whole)
    assert parser.last_line is not None
    assert not parser.last_line.startswith(b"SERVER_ERROR")
    assert not items or len(items) <= int(request.args[2])
    assert all(before.key < after.key for before, after in itertools.pairwise(items))


def _is_fatal(event: Request | Refusal) -> bool:
    return isinstance(event, Refusal) and event.fatal


def _is_last(event: Request | Refusal) -> bool:
    """Whether a node hangs up at it."""
    return _is_fatal(event) or event[0] == b"quit"


def _until_hung_up(events: list[Request | Refusal]) -> Iterator[Request | Refusal]:
    """Those that a node carries out."""
    return itertools.takewhile(lambda event: not _is_last(event), events)
