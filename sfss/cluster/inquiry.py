"""One read of a record: which nodes are asked, and when what they have said is enough."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sfss import record
from sfss.backends.base import Backend
from sfss.cluster.topology import Place
from sfss.errors import Damaged, SfssError, Unavailable
from sfss.record import Header, Kind

if TYPE_CHECKING:
    from sfss.cluster.copies import Copies

SHORTEST_HEDGE = 0.002  # seconds: sooner a second question costs more than it saves


class Answer(NamedTuple):
    """What a node has under a key."""

    header: Header | None
    data: bytes | None  # the record, if it was asked for whole
    damaged: bool = False  # its header is sound, its payload is not
    void: bool = False  # it has none, and that says nothing: it has lost what it had


class Inquiry:
    """One read: asks nodes until what they say is enough."""

    def __init__(
        self, copies: Copies, key: bytes, place: Place, *, whole: bool, slow: Collection[Backend] = ()
    ) -> None:
        self.answers: dict[Backend, Answer] = {}
        self.damaged: list[Backend] = []
        self._copies = copies
        self._key = key
        self._place = place
        self._whole = whole
        self._queue = copies.order(place.owners) + copies.order(place.spares)
        if slow:
            self._queue.sort(key=lambda node: node in slow)
        self._asked: dict[asyncio.Task[Answer], Backend] = {}  # that have not been heard yet
        self._failures: list[SfssError] = []

    async def run(self) -> Answer | None:
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

    async def hear_the_rest(self) -> Answer | None:
        """The newest answer, when all have answered that were asked."""
        while self._asked:
            await self._wait()
        return self._newest()

    @property
    def is_waiting(self) -> bool:
        """Whether nodes have been asked that have not answered."""
        return bool(self._asked)

    def holders(self, newest: Answer) -> list[Backend]:
        """Who has this version, the one that it came from first."""
        same = [node for node, answer in self.answers.items() if _order(answer) == _order(newest)]
        return sorted((node for node in same if node not in self.damaged), key=lambda n: self.answers[n] is not newest)

    def lacking(self, newest: Answer) -> list[Backend]:
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

    async def _ask(self, node: Backend, whole: bool) -> Answer:
        clock = asyncio.get_running_loop().time
        began = clock()
        data = await (node.get(self._key) if whole else node.head(self._key))
        self._copies.latency(node).saw(clock() - began)
        if data is None:
            return Answer(None, None, void=not await self._copies.wholeness.believes(node, self._place))
        header = record.decode_header(data)[0]
        if whole:
            try:
                record.decode(data)
            except Damaged as error:  # which version it is tells all the same
                self._note_damage(node, error)
                return Answer(header, None, damaged=True)
        return Answer(header, data if whole else None)

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

    def _hear(self, node: Backend, task: asyncio.Task[Answer]) -> None:
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

    async def _fetch(self, newest: Answer) -> bool:
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

    def _newest(self) -> Answer | None:
        found = [answer for answer in self.answers.values() if answer.header is not None]
        # Of the same version, one that has the record.
        return max(found, key=lambda answer: (_order(answer), answer.data is not None), default=None)

    def _is_found(self) -> bool:
        newest = self._newest()
        if newest is None or newest.header is None or newest.header.kind == Kind.TOMBSTONE:
            return False
        return self._place.suffices(self._heard(), self._place.quorum.read)

    def _is_not_there(self) -> bool:
        newest = self._newest()
        if newest is not None and newest.header is not None and newest.header.kind != Kind.TOMBSTONE:
            return False
        heard = self._heard()
        silent = [[node not in heard for node in self._place.counting(group)] for group in self._place.groups]
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


def _order(answer: Answer) -> tuple[int, int]:
    return answer.header.order if answer.header is not None else (-1, -1)
