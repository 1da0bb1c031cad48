"""What a node may hold after what it was asked and what it answered: a model of its items. Pure; no sockets, no files.

A connection's keys are its own, and its requests are carried out in order. So what it was answered says exactly what is
there; and after a crash what is there must be what its answered requests made of it, and then the first so many, none
or all, of those that were not answered: each whole or not at all, none before an earlier one.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

SHARED = b"shared"  # a number to which all connections add; nobody owns it
FAILED = b"SERVER_ERROR"

U64 = 2**64


class State(NamedTuple):
    """An item as the model has it."""

    value: bytes
    flags: int
    expiry: int
    version: int  # the number of the request that made it; what the node calls it, it tells now and then


class Seen(NamedTuple):
    """An item as a node has shown it."""

    value: bytes
    flags: int
    expiry: int
    cas: int


Maybe = State | None
NOTHING: frozenset[Maybe] = frozenset((None,))


@dataclass(frozen=True)
class Op:
    """One request, in the classic words or as a meta command."""

    number: int  # of its connection's, counted on over all lives of the node
    verb: str  # set add replace append prepend cas delete incr decr touch get, and mn; "is": see Ledger.restarted
    key: bytes = b""
    data: bytes = b""
    flags: int = 0
    expiry: int = 0
    delta: int = 0
    cas: int = 0  # the version asked for, in the node's words ...
    version: int = 0  # ... and in the model's
    meta: bool = False
    quiet: bool = False

    def is_owned(self) -> bool:
        """Whether it is about a key of its connection's."""
        return self.key not in (b"", SHARED)

    def request(self) -> bytes:
        if self.verb == "mn":
            return b"mn\r\n"
        return self._meta() if self.meta else self._classic()

    def _classic(self) -> bytes:
        verb, key = self.verb.encode(), self.key
        if self.verb == "get":
            return b"gets %b\r\n" % key
        if self.verb == "delete":
            return b"delete %b\r\n" % key
        if self.verb in ("incr", "decr"):
            return b"%b %b %d\r\n" % (verb, key, self.delta)
        if self.verb == "touch":
            return b"touch %b %d\r\n" % (key, self.expiry)
        cas = b" %d" % self.cas if self.verb == "cas" else b""
        return b"%b %b %d %d %d%b\r\n%b\r\n" % (verb, key, self.flags, self.expiry, len(self.data), cas, self.data)

    def _meta(self) -> bytes:
        key, tail = self.key, b" O%d%b\r\n" % (self.number, b" q" if self.quiet else b"")
        if self.verb == "get":
            return b"mg %b v f c" % key + tail
        if self.verb == "touch":
            return b"mg %b T%d c" % (key, self.expiry) + tail
        if self.verb == "delete":
            return b"md %b" % key + tail
        if self.verb in ("incr", "decr"):
            made = b" N0 J%d" % self.delta if key == SHARED else b""
            return b"ma %b M%b D%d v c%b" % (key, self.verb[:1].upper().encode(), self.delta, made) + tail
        mode = {"add": b" ME", "append": b" MA", "prepend": b" MP", "replace": b" MR"}.get(self.verb, b"")
        cas = b" C%d" % self.cas if self.verb == "cas" else b""
        head = b"ms %b %d F%d T%d c%b%b" % (key, len(self.data), self.flags, self.expiry, mode, cas)
        return head + tail + self.data + b"\r\n"

    def apply(self, old: Maybe) -> tuple[Maybe, bytes]:
        """What it makes of an item, and the word that memcached has for that; that of a get is empty."""
        if self.verb in ("set", "is", "add", "replace", "append", "prepend", "cas"):
            return self._store(old)
        if old is None:
            return None, b"" if self.verb == "get" else b"NOT_FOUND"
        if self.verb == "delete":
            return None, b"DELETED"
        if self.verb == "touch":
            return old._replace(expiry=self.expiry), b"TOUCHED"
        if self.verb in ("incr", "decr"):
            return self._count(old)
        return old, b""

    def _store(self, old: Maybe) -> tuple[Maybe, bytes]:
        new = State(self.data, self.flags, self.expiry, self.number)
        if self.verb in ("set", "is"):
            return new, b"STORED"
        if self.verb == "cas":
            if old is None:
                return None, b"NOT_FOUND"
            return (new, b"STORED") if old.version == self.version else (old, b"EXISTS")
        if (old is None) != (self.verb == "add"):
            return old, b"NOT_STORED"
        if old is not None and self.verb in ("append", "prepend"):
            joined = old.value + self.data if self.verb == "append" else self.data + old.value
            return State(joined, old.flags, old.expiry, self.number), b"STORED"
        return new, b"STORED"

    def _count(self, old: State) -> tuple[Maybe, bytes]:
        if not re.fullmatch(rb"[0-9]+ *", old.value):
            return old, b"CLIENT_ERROR cannot increment or decrement non-numeric value"
        number = int(old.value)
        number = (number + self.delta) % U64 if self.verb == "incr" else max(number - self.delta, 0)
        text = b"%d" % number
        return State(text.ljust(len(old.value)), old.flags, old.expiry, self.number), text

    def answer(self, old: Maybe) -> bytes:
        """The reply to it, with # where a version stands."""
        new, word = self.apply(old)
        if self.verb == "mn":
            return b"MN\r\n"
        if not self.meta:
            if self.verb != "get":
                return word + b"\r\n"
            if old is None:
                return b"END\r\n"
            return b"VALUE %b %d %d #\r\n%b\r\nEND\r\n" % (self.key, old.flags, len(old.value), old.value)
        opaque = b" O%d\r\n" % self.number
        if word.startswith(b"CLIENT_ERROR"):
            return word + b"\r\n"
        if self.verb == "get":
            if old is None:
                return b"EN" + opaque
            return b"VA %d f%d c#%b%b\r\n" % (len(old.value), old.flags, opaque, old.value)
        if self.verb == "touch":
            return b"EN" + opaque if old is None else b"HD c#" + opaque
        if self.verb in ("incr", "decr") and new is not None:
            return b"VA %d c#%b%b\r\n" % (len(word), opaque, word)
        short = {b"NOT_FOUND": b"NF", b"EXISTS": b"EX", b"NOT_STORED": b"NS"}.get(word, b"HD")
        version = b"" if self.verb in ("delete", "incr", "decr") else b" c#"
        return short + version + opaque


@dataclass(frozen=True)
class Answered:
    """A request and where its answer began, in the bytes that its connection was sent."""

    op: Op
    connection: int = -1
    offset: int = -1
    cas: int = 0  # the version that it told, if any
    failed: bool = False


class WrongAnswer(AssertionError):
    """A node has said what can't be, or has lost, mixed or invented something."""


class Ledger:
    """What one connection after the other, of one name, asked and was answered."""

    def __init__(self, name: bytes, *, forgetful: bool = False) -> None:
        """``forgetful``: don't note what was answered, but for what it says of the items; for long campaigns."""
        self.name = name
        self.forgetful = forgetful
        self.heard = 0  # answers
        self.number = 0  # of the last request
        self.now: dict[bytes, frozenset[Maybe]] = {}  # what each key may hold; one thing, but behind a SERVER_ERROR
        self.later: dict[bytes, frozenset[Maybe]] = {}  # what it may hold after a crash
        self.waiting: deque[Op] = deque()  # not answered yet
        self.answered: list[Answered] = []  # all of them, in order; of those that a crash cut off, what it left
        self.lives: list[list[Answered]] = []  # the same as it was when each life ended, and what waited then
        self.errors: Counter[bytes] = Counter()  # the SERVER_ERRORs
        self.shared_asked = self.shared_answered = 0  # additions to the shared number in this life
        self._shared = 0  # what it was last
        self._unknown = -1  # the last version whose request is not known
        self._cas: dict[int, int] = {}  # what the node calls a version of the model's
        self._versions: list[int] = []  # the model's that have their place in time, in order

    @property
    def failed(self) -> int:
        """Requests answered with SERVER_ERROR."""
        return self.errors.total()

    # --- asking and being answered ---

    def asked(self, op: Op) -> None:
        self.waiting.append(op)
        self.shared_asked += op.key == SHARED

    def state(self, key: bytes) -> Maybe:
        """What the key holds, when all that waits will have been answered. One of several, if they are."""
        state = next(iter(self.now.get(key, NOTHING)))
        for op in self.waiting:
            if op.key == key:
                state = op.apply(state)[0]
        return state

    def cas_of(self, version: int) -> int | None:
        """What the node calls a version, if it has told."""
        return self._cas.get(version)

    def hear(self, reply: bytes, connection: int = -1, offset: int = -1) -> None:
        """The next answer has come. What was asked quietly before it is answered with it."""
        while self.waiting[0].quiet and _opaque(reply) != self.waiting[0].number:
            self._take(self.waiting.popleft(), None, connection, offset)
        self._take(self.waiting.popleft(), reply, connection, offset)

    def _take(self, op: Op, reply: bytes | None, connection: int, offset: int) -> None:
        failed = reply is not None and reply.startswith(FAILED)
        said, cas = (None, 0) if reply is None or failed else _without_version(op, reply)
        self.heard += 1
        if not self.forgetful:
            self.answered.append(Answered(op, connection, offset, cas, failed))
        if failed:
            self.errors[reply or b""] += 1
        if op.key == SHARED:
            self._take_shared(op, reply)
            return
        now = self.now.get(op.key, NOTHING)
        if failed:
            if op.verb == "mn":
                return
            # Nobody knows whether it is done until something else tells, and after a crash it may be otherwise.
            both = frozenset(op.apply(state)[0] for state in now) | now
            self.now[op.key] = both
            self.later[op.key] = self.later.get(op.key, NOTHING) | both
            return
        left = frozenset(state for state in now if said in (None, op.answer(state)))  # None: quiet, and well
        if not left:
            expected = sorted(_short(op.answer(state)) for state in now)
            raise WrongAnswer(f"{self.name!r}: {_told(op)} was answered {_short(reply or b'')}, not {expected}")
        after = frozenset(op.apply(state)[0] for state in left)
        if op.key:
            self.now[op.key] = after
            if op.verb != "get":  # a read doesn't wait for the disk
                self.later[op.key] = after
        if cas and len(after) == 1:
            self.tell_version(next(iter(after)), cas)

    def _take_shared(self, op: Op, reply: bytes | None) -> None:
        if reply is not None and reply.startswith(FAILED):
            return
        assert reply is not None
        number = int(reply.split(b"\r\n")[-2])
        if number <= self._shared:
            raise WrongAnswer(f"{self.name!r}: {_told(op)} gave {number} after {self._shared}")
        self._shared = number
        self.shared_answered += 1

    def tell_version(self, state: Maybe, cas: int) -> None:
        """The node has told what it calls a version. Later ones have larger numbers, and none is used twice."""
        if state is None:
            return
        version, around = state.version, [cas]
        if version > 0 and version not in self._cas:
            at = bisect.bisect(self._versions, version)
            self._versions.insert(at, version)
            around = [self._cas.get(near, cas) for near in self._versions[max(at - 1, 0) : at + 2]]
        if self._cas.setdefault(version, cas) != cas or around != sorted(set(around)):
            raise WrongAnswer(f"{self.name!r}: version {version} is {cas}; it was {self._cas[version]}, near {around}")

    # --- after a crash ---

    def restarted(self, held: Mapping[bytes, Seen]) -> None:
        """A node that died holds this now. Raises WrongAnswer if it mayn't.

        Of an item that several of the requests may have made, one notes that it "is" so: later ones go by its version.
        """
        mine = {key: seen for key, seen in held.items() if self.owns(key)}
        counts = self.match(self.later, self.waiting, mine)
        done = list(self.waiting)[: counts[-1]]
        least, most = dict(self.later), dict(self.later)
        for count, op in enumerate(done, 1):
            if op.is_owned():
                most[op.key] = _applied(op, most)
                if count <= counts[0]:
                    least[op.key] = most[op.key]
        self.now = {}
        settled = []
        for key, seen in mine.items():
            fitting = {state for state in least[key] | most[key] if state is not None and self._agrees(state, seen)}
            if len(fitting) > 1:  # they differ in their versions, and who knows which this is
                self._unknown -= 1
                fitting = {State(*seen[:3], self._unknown)}
                settled.append(Answered(Op(self._unknown, "is", key, seen.value, seen.flags, seen.expiry)))
            self.now[key] = frozenset(fitting)
            self.tell_version(next(iter(fitting)), seen.cas)
        self.later = dict(self.now)
        if not self.forgetful:
            self.lives.append([*self.answered, *map(Answered, self.waiting)])
            self.answered += [*map(Answered, done), *settled]
        self.waiting.clear()
        self.shared_asked = self.shared_answered = self._shared = 0

    def owns(self, key: bytes) -> bool:
        return key.startswith(self.name + b"/")

    def match(
        self, states: Mapping[bytes, frozenset[Maybe]], tail: Iterable[Op], held: Mapping[bytes, Seen]
    ) -> list[int]:
        """How many of the ``tail`` may have been carried out upon these states, for all keys together to be as held."""
        known = dict(states)
        wrong = {key for key in known.keys() | held.keys() if not self._fits(known.get(key, NOTHING), held.get(key))}
        first, counts = sorted(wrong), [0] if not wrong else []
        for count, op in enumerate(tail, 1):
            if op.is_owned():
                known[op.key] = _applied(op, known)
                wrong.discard(op.key)
                if not self._fits(known[op.key], held.get(op.key)):
                    wrong.add(op.key)
            if not wrong:
                counts.append(count)
        if not counts:
            told = [f"{key!r} is {_shown(held.get(key))}, answered was {_all_shown(states.get(key))}" for key in first]
            raise WrongAnswer(f"{self.name!r}, with {len(list(tail))} unanswered: " + "; ".join(told[:5]))
        return counts

    def _fits(self, states: frozenset[Maybe], seen: Seen | None) -> bool:
        if seen is None:
            return None in states
        return any(state is not None and self._agrees(state, seen) for state in states)

    def _agrees(self, state: State, seen: Seen) -> bool:
        return state[:3] == seen[:3] and self.cas_of(state.version) in (None, seen.cas)


def states_after(answered: Sequence[Answered]) -> dict[bytes, frozenset[Maybe]]:
    """What these requests made of nothing."""
    states: dict[bytes, frozenset[Maybe]] = {}
    for entry in answered:
        op = entry.op
        if op.is_owned():
            before = states.get(op.key, NOTHING)
            states[op.key] = _applied(op, states) | (before if entry.failed else frozenset())
    return states


def check_shared(ledgers: Sequence[Ledger], before: int, held: Mapping[bytes, Seen]) -> int:
    """The shared number, which was ``before`` when this life began, after all of it. Raises WrongAnswer."""
    number = int(held[SHARED].value) if SHARED in held else 0
    least = before + sum(ledger.shared_answered for ledger in ledgers)
    most = before + sum(ledger.shared_asked for ledger in ledgers)
    if not least <= number <= most:
        raise WrongAnswer(f"the shared number is {number}: answered were {least}, and asked {most}")
    return number


def _applied(op: Op, states: Mapping[bytes, frozenset[Maybe]]) -> frozenset[Maybe]:
    return frozenset(op.apply(state)[0] for state in states.get(op.key, NOTHING))


_OPAQUE = re.compile(rb"^[^\r]* O(\d+)\r\n")
_VERSION = re.compile(rb"(?<= c)\d+")


def _opaque(reply: bytes) -> int:
    found = _OPAQUE.match(reply)
    return int(found[1]) if found else -1


def _without_version(op: Op, reply: bytes) -> tuple[bytes, int]:
    """A reply with # for the version that it tells, and that; 0 for none."""
    line, _, rest = reply.partition(b"\r\n")
    if not op.meta:
        if not line.startswith(b"VALUE "):
            return reply, 0
        line, _, cas = line.rpartition(b" ")
        return line + b" #\r\n" + rest, int(cas)
    found = _VERSION.search(line)
    return _VERSION.sub(b"#", line, count=1) + b"\r\n" + rest, int(found[0]) if found else 0


def _told(op: Op) -> str:
    return f"request {op.number} {_short(op.request())}"


def _short(text: bytes) -> str:
    return repr(text) if len(text) < 100 else f"{text[:60]!r} ... ({len(text)} bytes) ... {text[-20:]!r}"


def _shown(item: Seen | State | None) -> str:
    return "nothing" if item is None else f"{_short(item.value)}, {item[1:]}"


def _all_shown(states: frozenset[Maybe] | None) -> str:
    return " or ".join(_shown(state) for state in states or NOTHING)
