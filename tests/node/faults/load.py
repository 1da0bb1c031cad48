"""A mixed load on a node over real connections, each with a ledger of what was asked and answered; and what is there.

What is asked is drawn from a seed, so that a run can be repeated as far as time allows.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

from sfss import record, scan
from tests.node.faults.history import FAILED, SHARED, Ledger, Op, Seen, WrongAnswer
from tests.node.support import PATIENCE
from tests.servers import HOST

KEYS = 8  # of each kind that a connection uses over and over
FRESH = 300  # keys of a connection that are seldom used again
LARGEST = 150_000  # bytes to which a value may grow by append
DATES = (0, 0, 4_000_000_000, 4_100_000_000)  # expiries: never, or long after the test
BURST = 12  # requests of a connection that may be unanswered at a time


def content(key: bytes, number: int, size: int) -> bytes:
    """A value that says of which key and request it is, and has bytes that no other has."""
    name = b"%b %d %d: " % (key, number, size)
    return (name + random.Random(number * 1000 + len(key)).randbytes(max(size - len(name), 0)))[:size]


def sfss_record(payload: bytes) -> bytes:
    checksum = record.payload_checksum(payload)
    header = record.Header(record.Kind.FILE, 1, 1, len(payload), b"s" * 32, len(payload), checksum, "image/jpeg")
    return record.encode(header, payload)


class Mix:
    """What a connection asks next."""

    def __init__(self, ledger: Ledger, seed: object, *, large: int = 100 * 1024, quiet: bool = True) -> None:
        self._ledger = ledger
        self._chance = random.Random(repr(seed))
        self._large = large  # bytes of the largest value
        self._quiet = quiet
        self._ahead: list[Op] = []

    def next(self) -> Op:
        if not self._ahead:
            chance = self._chance.random()
            if self._quiet and chance < 0.04:
                self._ahead = list(self._batch())
            else:
                self._ahead = [self._one()]
        op = self._ahead.pop(0)
        self._ledger.asked(op)
        return op

    def _number(self) -> int:
        self._ledger.number += 1
        return self._ledger.number

    def _one(self) -> Op:
        name, chance, number = self._ledger.name, self._chance, self._number()
        meta, kind, which = chance.random() < 0.5, chance.random(), chance.randrange(KEYS)
        if kind < 0.05:
            return Op(number, "incr", SHARED, delta=1, meta=True)
        if kind < 0.2:
            return self._count(Op(number, "incr", b"%b/number%d" % (name, which), meta=meta))
        if kind < 0.3:
            return self._record(Op(number, "set", b"%b/record%d" % (name, which), meta=meta))
        if kind < 0.4:
            key = b"%b/fresh%d" % (name, number % FRESH)
            return Op(number, "set", key, content(key, number, self._size()), meta=meta)
        return self._any(Op(number, "set", b"%b/key%d" % (name, which), meta=meta))

    def _count(self, op: Op) -> Op:
        chance = self._chance
        if self._ledger.state(op.key) is None or chance.random() < 0.1:
            return dataclasses.replace(op, verb="set", data=b"%d" % chance.randrange(10 ** chance.randrange(1, 19)))
        return dataclasses.replace(op, verb=chance.choice(("incr", "decr")), delta=chance.randrange(1, 10**6))

    def _record(self, op: Op) -> Op:
        verb = self._chance.choice(("set", "set", "delete", "touch", "get"))
        data = sfss_record(content(op.key, op.number, self._size()))
        return dataclasses.replace(op, verb=verb, data=data, expiry=self._chance.choice(DATES))

    def _any(self, op: Op) -> Op:
        chance, old = self._chance, self._ledger.state(op.key)
        verbs = ("set", "set", "set", "add", "replace", "append", "prepend", "cas", "delete", "delete", "touch", "get")
        verb = chance.choice(verbs)
        if old is not None and verb in ("append", "prepend") and len(old.value) > LARGEST:
            verb = "delete"
        cas = self._ledger.cas_of(old.version) if old else None
        if verb == "cas" and chance.random() < 0.2:
            cas = 1  # nobody's
        return dataclasses.replace(
            op,
            verb=verb,
            data=content(op.key, op.number, self._size()),
            flags=chance.randrange(2**32),
            expiry=chance.choice(DATES),
            cas=cas or 1,
            version=old.version if old and cas not in (None, 1) else -1,
        )

    def _batch(self) -> Iterator[Op]:
        """Quiet ones, and mn, which answers for all of them."""
        for _ in range(self._chance.randrange(1, 6)):
            number = self._number()
            key = b"%b/key%d" % (self._ledger.name, self._chance.randrange(KEYS))
            verb = self._chance.choice(("set", "set", "delete"))
            yield Op(number, verb, key, content(key, number, self._size()), meta=True, quiet=True)
        yield Op(self._number(), "mn")

    def _size(self) -> int:
        """Around nothing, around the size from which bodies lie in blob files, and large now and then."""
        low, high = self._chance.choice(((0, 1), (1, 100), (100, 900), (960, 1100), (1100, 9000)))
        return self._chance.randrange(low, high) if self._chance.random() > 0.02 else self._large


@dataclass
class Plan:
    """When something is to be done to the node in the midst of the load, and what. It is done once."""

    what: Callable[[], None]
    answers: int = 0  # after so many answers, if not 0
    requests: int = 0  # after so many requests were sent, if not 0
    done: bool = False

    def answered(self) -> None:
        self.answers -= 1
        if not self.answers:
            self.act()

    def asked(self) -> None:
        self.requests -= 1
        if not self.requests:
            self.act()

    def act(self) -> None:
        if not self.done:
            self.done = True
            self.what()


async def drive(port: int, ledger: Ledger, mix: Mix, chance: random.Random, plan: Plan | None = None,
                count: int = 1_000_000, life: int = 0) -> None:  # fmt: skip
    """Ask and be answered, with several requests under way, ``count`` times or until the node hangs up.

    The answers are noted as those of the connection ``life * 65536`` + its port.
    """
    connection = Reading()
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await connection.open(port)
        try:
            connection.name = life * 65536 + connection.port
            await _drive(connection, ledger, mix, chance, plan, count)
        finally:
            connection.writer.close()


async def _drive(
    connection: Reading, ledger: Ledger, mix: Mix, chance: random.Random, plan: Plan | None, count: int
) -> None:
    while count > 0 or ledger.waiting:
        burst = min(chance.choice((1, 1, 2, 5, BURST)), BURST - len(ledger.waiting), count)
        for _ in range(burst):
            connection.writer.write(mix.next().request())
            if plan:
                plan.asked()
        count -= max(burst, 0)
        while ledger.waiting and ledger.waiting[-1].quiet:
            connection.writer.write(mix.next().request())  # to the end of a batch, or nothing is answered
        left = chance.randrange(BURST // 2) if count > 0 else 0
        while len(ledger.waiting) > left:
            offset = connection.offset
            reply = await connection.reply()
            ledger.hear(reply, connection.name, offset)
            if plan:
                plan.answered()


class Reading:
    """A connection that reads one whole reply after the other, and knows where each began."""

    async def open(self, port: int) -> None:
        self.reader, self.writer = await asyncio.open_connection(HOST, port, limit=2**20)
        self.port: int = self.writer.get_extra_info("sockname")[1]
        self.name = self.port
        self.offset = 0

    async def reply(self) -> bytes:
        line = whole = await self._line()
        while line.startswith(b"VALUE "):
            whole += await self._exactly(int(line.split()[3]) + 2)
            line = await self._line()
            whole += line
        if line.startswith(b"VA "):
            whole += await self._exactly(int(line.split()[1]) + 2)
        self.offset += len(whole)
        return whole

    async def _line(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readuntil(b"\r\n")

    async def _exactly(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(size)


# --- what is there ---


@contextlib.asynccontextmanager
async def reading(port: int) -> AsyncIterator[Reading]:
    connection = Reading()
    await connection.open(port)
    try:
        yield connection
    finally:
        connection.writer.close()


async def holdings(port: int) -> dict[bytes, Seen]:
    """All that a node holds, its heads compared with its bodies, and with its totals."""
    async with reading(port) as connection:
        heads = await _scan(connection)
        held: dict[bytes, Seen] = {}
        for key in heads:
            connection.writer.write(b"gets %b\r\n" % key)
            head, _, rest = (await connection.reply()).partition(b"\r\n")
            if not head.startswith(b"VALUE "):
                raise WrongAnswer(f"{key!r} has a head, and a get says {head!r}")
            _, _, flags, _, cas = head.split()
            held[key] = Seen(rest[: -len(b"\r\nEND\r\n")], int(flags), heads[key].expiry, int(cas))
        for key, seen in held.items():
            told = heads[key]
            if (told.flags, told.cas, told.size) != (seen.flags, seen.cas, len(seen.value)):
                raise WrongAnswer(f"{key!r} has the head {told} and the body {seen[1:]} of {len(seen.value)} bytes")
        counted = {"curr_items": len(held), "bytes": sum(len(seen.value) for seen in held.values())}
        stats = await statistics(connection)
        if counted != {name: int(stats[name]) for name in counted}:
            raise WrongAnswer(f"STATS says {stats['curr_items']} items of {stats['bytes']} bytes, found were {counted}")
    return held


async def _scan(connection: Reading) -> dict[bytes, scan.Item]:
    connection.writer.write(scan.request(scan.FIRST, scan.LAST, scan.MAX_COUNT))
    heads = {}
    while (line := await connection.reader.readuntil(b"\r\n")) != b"END\r\n":
        word, key, *figures = line.split()
        assert word == b"ITEM", line
        flags, expiry, cas, written, size, length = map(int, figures)
        header = (await connection.reader.readexactly(length + 2))[:-2]
        heads[scan.read(key)] = scan.Item(scan.read(key), flags, expiry, cas, written, size, header)
    assert len(heads) < scan.MAX_COUNT
    return heads


async def statistics(connection: Reading) -> dict[str, str]:
    connection.writer.write(b"stats\r\n")
    found = {}
    while (line := await connection.reader.readuntil(b"\r\n")) != b"END\r\n":
        _, name, figure = line.decode().split(maxsplit=2)
        found[name] = figure.strip()
    return found


def check_all(ledgers: Sequence[Ledger], held: dict[bytes, Seen]) -> None:
    """A node that has been restarted holds what it should, and nothing else. Raises WrongAnswer."""
    strange = [key for key in held if key != SHARED and not any(ledger.owns(key) for ledger in ledgers)]
    if strange:
        raise WrongAnswer(f"nobody made {strange[:5]}")
    for ledger in ledgers:
        ledger.restarted(held)


def is_failed(reply: bytes) -> bool:
    return reply.startswith(FAILED)
