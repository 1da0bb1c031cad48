"""Several copies of each record: written to a quorum of its owners, read from a quorum, put right where they differ.

The *owners* of a key are the first ``copies`` nodes on the ring from its point on; the *spares* are those that come
next. A write goes to all owners at once; where one can't take it, the next spare does (handoff). It has succeeded when
``write_quorum`` nodes hold it; the rest of the copies are written behind the answer.

What reads promise follows from the quorums:

* ``read_quorum + write_quorum > copies`` (2 and 2 of 3): every read sees every acknowledged write that came before it,
  for the owners that it asked and those that acknowledged have one in common. Only owners count towards a quorum then;
  a spare's copy makes the file safer, not the write acknowledged. And no read goes back behind another one: a version
  that is not yet where every read sees it (of a write that goes on, or failed) is brought there before it is told.
* else (1 and 1 of 2): spares count, so that a write succeeds as long as any node can take it. A read may see an older
  version while a newer one is elsewhere.

In both, that there is *no* file is said only if fewer nodes than ``write_quorum`` were not heard of, among all those
whose copy would have counted: else an acknowledged write might lie just there. Of versions the highest wins; a deletion
is a version too, the tombstone.

Some reads look, behind their answer, at all copies, and put right those that are old or missing.

Decisions (``get_for_update``, ``put_if``) are made by the key's first owner alone, and fail while it is away.
"""

from __future__ import annotations

import asyncio
import logging
import random
import weakref
from collections.abc import Container, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sfss import record
from sfss.backends.base import Backend
from sfss.cluster.lacking import Lacking
from sfss.cluster.latency import Latency
from sfss.cluster.topology import Group, Place
from sfss.cluster.wholeness import Wholeness
from sfss.errors import Damaged, NodeError, NodeRefused, OutOfSpace, SfssError, TooLarge, Unavailable
from sfss.record import Header, Kind

log = logging.getLogger("sfss.cluster")

MENDING = 16  # copies that are put right at a time; what comes then is left to the next read, or to repair
SIMILAR = 2.0  # nodes that are so many times as slow as the quickest still count as quick
SHORTEST_HEDGE = 0.002  # seconds: sooner a second question costs more than it saves
_RACES = 16  # how often it is tried to write upon a state that others change
COMPARED = 1 / 16  # of the reads look behind their answer at all nodes: a copy that no read asks for is old for ever


@dataclass
class Counts:
    """What happened since the start."""

    handoffs: int = 0  # copies that a spare took in place of an owner
    hedges: int = 0  # reads that asked another node because the first was slow
    mended: int = 0  # copies that were missing, old or damaged, and were put right after a read
    late_failures: int = 0  # copies that could not be written behind an answer
    damaged: int = 0  # copies that were read and did not pass their checksums


class _Answer(NamedTuple):
    """What a node has under a key."""

    header: Header | None
    data: bytes | None  # the record, if it was asked for whole
    damaged: bool = False  # its header is sound, its payload is not
    void: bool = False  # it has none, and that says nothing: it has lost what it had


class Copies:
    """Reads and writes of copies on places that are given. One event loop."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.lacking = Lacking()
        self.wholeness = Wholeness()
        self._latencies: weakref.WeakKeyDictionary[Backend, Latency] = weakref.WeakKeyDictionary()
        self._behind: set[asyncio.Task[Any]] = set()  # what goes on behind answers
        self._mending: set[bytes] = set()

    async def close(self) -> None:
        """Give up what goes on behind answers."""
        for task in self._behind:
            task.cancel()
        if self._behind:
            await asyncio.wait(self._behind)

    # --- writing ---

    async def put(self, key: bytes, data: bytes, place: Place) -> bool:
        """Write to all owners; returns when a quorum has it.

        False if a newer version was seen: every read sees that one then, so that the caller can learn which it is.
        Raises TooLarge, OutOfSpace, Unavailable; the outcome is unknown then, and trying again is safe. It goes on
        behind a caller who is cancelled.
        """
        spread = _Spread(self, key, data, place, place.quorum.write)
        if await spread.run():
            return True
        assert spread.refused_by is not None
        await self._bring_home(key, place, [spread.refused_by])
        return False

    async def put_decided(
        self, key: bytes, data: bytes, place: Place, decided: Sequence[Backend], seen: Header | None
    ) -> bytes | None:
        """Write to the other owners what those that decide have taken, upon a state whose newest version was ``seen``.

        Returns when a quorum has it. Raises as ``put``. A record, if it turns out that another write came between and
        may have been acknowledged, in a version below this one's: that one is to stand, and this one came before it.
        """
        spread = _Spread(self, key, data, place, place.quorum.write, record.decode_header(data)[0], decided)
        spread.upon = _Upon(seen)
        await spread.run()
        return spread.overtaken_by

    async def _bring_home(
        self, key: bytes, place: Place, holders: Sequence[Backend], data: bytes | None = None
    ) -> None:
        """Let every read see at least the version that these nodes have, whose sound record is ``data``."""
        if data is None:
            data = await holders[0].get(key)
        if data is None:
            return
        try:
            version = record.decode(data).header
        except Damaged:  # and it stays the only such copy
            return
        spread = _Spread(self, key, data, place, place.quorum.seen, version, holders)
        try:
            await spread.run()
        except SfssError:
            # A full node keeps nobody from reading: better a version that another read may miss than none, for days.
            if not any(isinstance(failure, OutOfSpace | TooLarge) for failure in spread.failures):
                raise

    # --- reading ---

    async def find(self, key: bytes, place: Place, *, whole: bool) -> tuple[Header, bytes | None] | None:
        """The newest version, its record too if ``whole``; None if it is sure that there is none.

        Tombstones are found like any other version. Raises Unavailable, or Damaged if only damaged copies answer.
        """
        search = _Search(self, key, place, whole=whole)
        newest = await search.run()
        if random.random() < COMPARED:
            self.later(self._compare(key, place))
        if newest is None or newest.header is None:
            return None
        holders, lacking = search.holders(newest), search.lacking(newest)
        if lacking and place.quorum.sees_all and not _suffices(place, holders, place.quorum.seen):
            await self._bring_home(key, place, holders, newest.data)
            self.counts.mended += 1
        elif search.is_waiting:
            self.later(self._mend_lacking(key, search))
        elif lacking:
            self._mend(key, holders[0], newest, lacking)
        return newest.header, newest.data

    async def _compare(self, key: bytes, place: Place) -> None:
        """Behind an answer, look whether one of the other nodes has a newer version, or an owner none."""
        search = _Search(self, key, place, whole=False)
        search.ask_everybody()
        await self._mend_lacking(key, search)

    async def _mend_lacking(self, key: bytes, search: _Search) -> None:
        """Behind an answer, hear the nodes that were asked and have not answered, and put right what is seen."""
        newest = await search.hear_the_rest()
        if newest is not None and (lacking := search.lacking(newest)):
            self._mend(key, search.holders(newest)[0], newest, lacking)

    def order(self, nodes: Sequence[Backend]) -> list[Backend]:
        """The nodes in the order in which they should be asked: those that are here, and quick, first."""
        means = {node: self.latency(node).mean for node in nodes}
        quick = SIMILAR * min((mean for mean in means.values() if mean), default=0.0)
        return sorted(nodes, key=lambda node: (node.away is not None, means[node] > quick))

    def latency(self, node: Backend) -> Latency:
        found = self._latencies.get(node)
        if found is None:
            found = self._latencies[node] = Latency()
        return found

    def _mend(self, key: bytes, holder: Backend, newest: _Answer, lacking: Sequence[Backend]) -> None:
        """Behind the answer, write the newest version where it was seen to be missing, old or damaged."""
        if key in self._mending:
            return
        if len(self._mending) >= MENDING:
            self.lacking.note(key)
            return
        self._mending.add(key)
        task = self.later(self._mend_now(key, holder, newest, lacking))
        task.add_done_callback(lambda _: self._mending.discard(key))

    async def _mend_now(self, key: bytes, holder: Backend, newest: _Answer, lacking: Sequence[Backend]) -> None:
        assert newest.header is not None
        try:
            data = newest.data if newest.data is not None else await holder.get(key)
            if data is None:
                return
            version = record.decode(data).header
            for node in lacking:
                if await put_newer(node, key, data, version):
                    self.counts.mended += 1
        except SfssError:
            self.lacking.note(key)

    def later(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that is held on to, whoever awaits it or not."""
        task = asyncio.ensure_future(work)
        self._behind.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._behind.discard(task)
        if not task.cancelled():
            task.exception()  # it was looked at, or nobody cares any more


class _Upon(NamedTuple):
    """What a condition was decided by."""

    seen: Header | None  # the newest version

    def is_passed(self, there: Header) -> bool:
        """Whether that is another write's, which came since. To create upon a deletion is right at any time."""
        was_there = self.seen is not None and self.seen.kind != Kind.TOMBSTONE
        is_new = self.seen is None or there.order > self.seen.order
        return is_new and (was_there or there.kind != Kind.TOMBSTONE)


class _Overtaken(SfssError):
    """On a node lies another write's record, which came since the condition was decided."""

    def __init__(self, data: bytes, version: Header) -> None:
        super().__init__("another write came between")
        self.data = data
        self.order = version.order


class _Spread:
    """One write: asks the owners, and spares in the place of those that can't, until ``needed`` hold the record.

    With a ``version``, who has a newer one is content, and counts; without, that ends the write. If it is ``upon`` a
    state, what came between is overwritten where so few have it that it can't have been acknowledged.
    """

    def __init__(
        self,
        copies: Copies,
        key: bytes,
        data: bytes,
        place: Place,
        needed: int,
        version: Header | None = None,
        held: Sequence[Backend] = (),
    ) -> None:
        self.refused_by: Backend | None = None  # for it has a newer version
        self.overtaken_by: bytes | None = None  # a record that may have been acknowledged since
        self.upon: _Upon | None = None
        self._overtaken: dict[Backend, _Overtaken] = {}
        self.failures: list[SfssError] = []
        self._copies = copies
        self._key = key
        self._data = data
        self._place = place
        self._needed = needed
        self._version = version
        self._holders = list(held)
        self._spares = iter(node for node in place.spares if node not in held)
        self._asked: dict[asyncio.Task[bool], Backend] = {}  # that have not been heard yet

    async def run(self) -> bool:
        """False if it was refused."""
        for node in self._place.owners:
            if node not in self._holders:
                self._ask(node)
        while (self._asked or self._overtaken) and not (self._is_enough() and self._is_decided()):
            await self._listen()
            if self.refused_by is not None or self.overtaken_by is not None:
                return False
        if self._asked or self._overtaken:
            self._copies.later(self._finish())
        if not self._is_enough():
            raise self._why_not()
        return True

    async def _finish(self) -> None:
        """Behind the answer, find a spare for the copies that their owners don't take after all."""
        before = len(self.failures)
        while self._asked or (self._overtaken and self.overtaken_by is None):
            await self._listen()
        self._copies.counts.late_failures += len(self.failures) - before

    def _ask(self, node: Backend) -> None:
        if self._version is None:
            write = node.set(self._key, self._data)
        elif self.upon is not None:
            write = _put_upon(node, self._key, self._data, self._version, self.upon)
        else:
            write = put_newer(node, self._key, self._data, self._version)
        self._asked[self._copies.later(write)] = node

    async def _listen(self) -> None:
        if not self._asked:
            self._settle()
            return
        done, _ = await asyncio.wait(self._asked, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            self._hear(self._asked.pop(task), task)

    def _hear(self, node: Backend, task: asyncio.Task[bool]) -> None:
        error = task.exception()
        if error is None:
            self._holders.append(node)
            if self._version is None and not task.result():
                self.refused_by = node
            return
        if isinstance(error, _Overtaken):
            self._overtaken[node] = error
            return
        if not isinstance(error, NodeError | OutOfSpace | TooLarge):
            raise error
        self.failures.append(error)
        self._copies.lacking.note(self._key)
        if (spare := next(self._spares, None)) is not None:
            self._copies.counts.handoffs += 1
            self._ask(spare)

    def _settle(self) -> None:
        """All have been heard, and some have what came between: give way to it, or write over it."""
        # Where it can't be asked whether they have it, too, they may have acknowledged it.
        unheard = [node for node in self._place.owners if node not in self._holders]
        may_have_it = {*self._overtaken, *unheard}
        if any(sum(node in may_have_it for node in g.owners) >= self._place.quorum.write for g in self._place.groups):
            self.overtaken_by = max(self._overtaken.values(), key=lambda overtaken: overtaken.order).data
            return
        self.upon = None
        for node in self._overtaken:
            self._ask(node)
        self._overtaken = {}

    def _is_enough(self) -> bool:
        return _suffices(self._place, self._holders, self._needed)

    def _is_decided(self) -> bool:
        """Whether those have been heard who decide about conditions, of a write without one.

        They may just have let another one create the file, in a version above this one's; then they refuse this one,
        and it is to be written again before it is acknowledged, or it would be lost.
        """
        if self._version is not None or not self._place.quorum.sees_all:
            return True
        asked = self._asked.values()
        return not any(node in asked for node in self._place.deciders)

    def _why_not(self) -> SfssError:
        first = self.failures[0] if self.failures else None
        if not isinstance(first, NodeError | None) and all(isinstance(error, type(first)) for error in self.failures):
            return first
        needed = self._place.quorum.write
        return Unavailable(
            f"{len(self._holders)} nodes have taken the record, and its write_quorum is {needed}: "
            f"{'; '.join(map(str, self.failures))}. Whether it is kept is not known; try again, that is safe"
        )


class _Search:
    """One read: asks nodes until what they say is enough."""

    def __init__(self, copies: Copies, key: bytes, place: Place, *, whole: bool) -> None:
        self.answers: dict[Backend, _Answer] = {}
        self.damaged: list[Backend] = []
        self._copies = copies
        self._key = key
        self._place = place
        self._whole = whole
        self._queue = copies.order(place.owners) + copies.order(place.spares)
        self._asked: dict[asyncio.Task[_Answer], Backend] = {}  # that have not been heard yet
        self._failures: list[SfssError] = []

    async def run(self) -> _Answer | None:
        """The newest answer; None if there is no file for sure."""
        for node in self._first():
            self._queue.remove(node)
            self._ask_node(node, whole=self._whole and not self._asked)
        while True:
            if self._is_found() or self._is_not_there():
                newest = self._newest()
                if newest is None or not self._whole or newest.data is not None:
                    return newest
                if await self._fetch(newest):
                    continue
            if not await self._wait():
                raise self._why_not()

    def ask_everybody(self) -> None:
        """Ask all nodes for the header."""
        while self._ask_next(whole=False):
            pass

    async def hear_the_rest(self) -> _Answer | None:
        """The newest answer, when all have answered that were asked."""
        while self._asked:
            await self._wait()
        return self._newest()

    @property
    def is_waiting(self) -> bool:
        """Whether nodes have been asked that have not answered."""
        return bool(self._asked)

    def holders(self, newest: _Answer) -> list[Backend]:
        """Who has this version, the one that it came from first."""
        same = [node for node, answer in self.answers.items() if _order(answer) == _order(newest)]
        return sorted((node for node in same if node not in self.damaged), key=lambda n: self.answers[n] is not newest)

    def lacking(self, newest: _Answer) -> list[Backend]:
        """The owners that are known to have an older version, none, or a damaged copy."""
        behind = [node for node, answer in self.answers.items() if _order(answer) < _order(newest)]
        return [node for node in self._place.owners if node in behind or node in self.damaged]

    def _first(self) -> list[Backend]:
        """Those that must be asked so that each group can have its quorum."""
        first: list[Backend] = []
        for group in self._place.groups:
            there = sum(node in group.owners for node in first)
            others = [node for node in self._queue if node in group.owners and node not in first]
            first += others[: max(self._place.quorum.read - there, 0)]
        return first

    def _ask_next(self, *, whole: bool) -> bool:
        if not self._queue:
            return False
        self._ask_node(self._queue.pop(0), whole=whole)
        return True

    def _ask_node(self, node: Backend, *, whole: bool) -> None:
        self._asked[self._copies.later(self._ask(node, whole))] = node

    async def _ask(self, node: Backend, whole: bool) -> _Answer:
        clock = asyncio.get_running_loop().time
        began = clock()
        data = await (node.get(self._key) if whole else node.head(self._key))
        self._copies.latency(node).saw(clock() - began)
        if data is None:
            return _Answer(None, None, void=not await self._copies.wholeness.believes(node, self._place))
        header = record.decode_header(data)[0]
        if whole:
            try:
                record.decode(data)
            except Damaged as error:  # which version it is tells all the same
                self._note_damage(node, error)
                return _Answer(header, None, damaged=True)
        return _Answer(header, data if whole else None)

    def _note_damage(self, node: Backend, error: Damaged) -> None:
        self._copies.counts.damaged += 1
        self.damaged.append(node)
        self._failures.append(Damaged(f"the copy on node {node.address} is not served: {error}"))

    async def _wait(self) -> bool:
        """Wait for an answer, or ask one node more; False if nobody is left to be asked or waited for."""
        if not self._asked:
            return self._ask_next(whole=self._whole)
        hedge = None
        if self._queue:
            late = max(self._copies.latency(node).late for node in self._asked.values())
            hedge = max(late, SHORTEST_HEDGE)
        done, _ = await asyncio.wait(self._asked, timeout=hedge, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            self._copies.counts.hedges += 1
            self._ask_next(whole=self._whole)
        for task in done:
            self._hear(self._asked.pop(task), task)
        return True

    def _hear(self, node: Backend, task: asyncio.Task[_Answer]) -> None:
        error = task.exception()
        if error is None:
            answer = self.answers[node] = task.result()
            if answer.header is None or answer.header.kind == Kind.TOMBSTONE:
                self._ask_all_that_count()
            return
        if not isinstance(error, SfssError):
            raise error
        if isinstance(error, Damaged):
            self._note_damage(node, error)
        else:
            self._failures.append(error)
        self._ask_next(whole=self._whole)

    def _ask_all_that_count(self) -> None:
        """It looks as if there were no file: to be sure of that takes them all, so ask them at once."""
        while not self._is_not_there() and self._ask_next(whole=self._whole):
            pass

    async def _fetch(self, newest: _Answer) -> bool:
        """Get the record whose header was seen, from a node that has it sound; False if none of those asked has."""
        for node, answer in self.answers.items():
            if _order(answer) == _order(newest) and not answer.damaged:
                try:
                    self.answers[node] = await self._ask(node, whole=True)
                except SfssError as error:
                    del self.answers[node]
                    self._failures.append(error)
                return True
        return False

    def _newest(self) -> _Answer | None:
        found = [answer for answer in self.answers.values() if answer.header is not None]
        # Of the same version, one that has the record.
        return max(found, key=lambda answer: (_order(answer), answer.data is not None), default=None)

    def _is_found(self) -> bool:
        newest = self._newest()
        if newest is None or newest.header is None or newest.header.kind == Kind.TOMBSTONE:
            return False
        return _suffices(self._place, self._heard(), self._place.quorum.read)

    def _is_not_there(self) -> bool:
        newest = self._newest()
        if newest is not None and newest.header is not None and newest.header.kind != Kind.TOMBSTONE:
            return False
        heard = self._heard()
        silent = [[node not in heard for node in _counting(self._place, group)] for group in self._place.groups]
        return all(sum(group) < self._place.quorum.write for group in silent)

    def _heard(self) -> Sequence[Backend]:
        """Those whose answers count."""
        return [node for node, answer in self.answers.items() if not answer.void]

    def _why_not(self) -> SfssError:
        if self._failures and all(isinstance(error, Damaged) for error in self._failures):
            return self._failures[0]
        void = [node.address for node, answer in self.answers.items() if answer.void]
        emptied = [f"node {address} has lost what it had: run sfss repair" for address in void]
        return Unavailable(
            f"of the nodes that may have it {len(self._heard())} answered, too few to be sure: "
            f"{'; '.join([*map(str, self._failures), *emptied])}"
        )


def _counting(place: Place, group: Group) -> Sequence[Backend]:
    """The nodes of a group whose copies count towards a quorum."""
    return group.owners if place.quorum.sees_all else [*group.owners, *group.spares]


def _suffices(place: Place, nodes: Container[Backend], needed: int) -> bool:
    """Whether these are ``needed`` of each group. A ring that was made for fewer copies may have fewer."""
    for group in place.groups:
        if sum([node in nodes for node in _counting(place, group)]) < min(needed, len(group.owners)):
            return False
    return True


async def put_newer(node: Backend, key: bytes, data: bytes, version: Header) -> bool:
    """Write a record where an older one, none, or a damaged one lies; False if what lies there is as new.

    Where the node compares versions itself, or decides by cas, nothing newer is ever overwritten, whenever it comes.
    """
    can = node.capabilities
    if can is not None and can.kind == "sfss":
        return await node.set(key, data)
    if can is not None and can.cas:
        found = await node.gets(key)
        if found is None:
            return await node.add(key, data)
        return _is_older(found.data, version) and await node.replace(key, data, found.token)
    there = await node.get(key)
    return (there is None or _is_older(there, version)) and await node.set(key, data)


async def _put_upon(node: Backend, key: bytes, data: bytes, version: Header, upon: _Upon) -> bool:
    """As ``put_newer``, but raises _Overtaken where an older version lies that came since a condition was decided."""
    if node.capabilities is None or not node.capabilities.cas:
        return await put_newer(node, key, data, version)
    for _ in range(_RACES):
        found = await node.gets(key)
        if found is None:
            if await node.add(key, data):
                return True
            continue
        try:
            there = record.decode(found.data).header
        except Damaged:
            pass
        else:
            if there.order >= version.order:
                return False
            if upon.is_passed(there):
                raise _Overtaken(found.data, there)
        if await node.replace(key, data, found.token):
            return True
    raise NodeRefused(str(node.address), f"the record was overwritten {_RACES} times while it was stored")


def _is_older(data: bytes, version: Header) -> bool:
    try:
        return record.decode(data).header.order < version.order
    except Damaged:
        return True


def _order(answer: _Answer) -> tuple[int, int]:
    return answer.header.order if answer.header is not None else (-1, -1)
