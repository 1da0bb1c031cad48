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
import random
import weakref
from collections.abc import Collection, Coroutine, MutableSequence, Sequence
from typing import Any

from sfss import record
from sfss.backends.base import Backend
from sfss.cluster import agreement
from sfss.cluster.inquiry import Answer, Inquiry
from sfss.cluster.lacking import Lacking
from sfss.cluster.latency import Latency
from sfss.cluster.spread import Spread, Upon, put_newer
from sfss.cluster.topology import Place
from sfss.cluster.wholeness import Wholeness
from sfss.errors import Damaged, OutOfSpace, SfssError, TooLarge, Unavailable
from sfss.record import Header, Record
from sfss.told import Tasks, Tell

MENDING = 16  # copies that are put right at a time; what comes then is left to the next read, or to repair
SIMILAR = 2.0  # nodes that are so many times as slow as the quickest still count as quick
COMPARED = 1 / 16  # of the reads look behind their answer at all nodes: a copy that no read asks for is old for ever


class _Count:
    """A number that lies in one of ``Counts.cells``."""

    def __init__(self, at: int) -> None:
        self._at = at

    def __get__(self, counts: Counts, _: type[Counts]) -> int:
        return counts.cells[self._at]

    def __set__(self, counts: Counts, value: int) -> None:
        counts.cells[self._at] = value


class Counts:
    """What happened since the start. The cells may be elsewhere's, where others see them at once."""

    NAMES = ("handoffs", "hedges", "mended", "late_failures", "damaged")

    handoffs = _Count(0)  # copies that a spare took in place of an owner
    hedges = _Count(1)  # reads that asked another node because the first was slow
    mended = _Count(2)  # copies that were missing, old or damaged, and were put right after a read
    late_failures = _Count(3)  # copies that could not be written behind an answer
    damaged = _Count(4)  # copies that were read and did not pass their checksums

    def __init__(self, cells: MutableSequence[int] | memoryview[int] | None = None) -> None:
        """``cells``: one for each of NAMES."""
        self.cells = [0] * len(self.NAMES) if cells is None else cells


class Copies:
    """Reads and writes of copies on places that are given. One event loop."""

    def __init__(self, counts: Counts | None = None) -> None:
        self.counts = counts or Counts()
        self.lacking = Lacking()
        self.wholeness = Wholeness()
        self._latencies: weakref.WeakKeyDictionary[Backend, Latency] = weakref.WeakKeyDictionary()
        self._behind: set[asyncio.Task[Any]] = set()  # what goes on behind answers
        self._mending: set[bytes] = set()
        self._reading = Tasks()

    async def close(self) -> None:
        """Give up what goes on, behind answers too."""
        await self._reading.close()
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
        spread = Spread(self, key, data, place, place.quorum.write)
        if await spread.run():
            return True
        assert spread.refused_by is not None
        await self._bring_home(key, place, [spread.refused_by])
        return False

    async def put_decided(
        self, key: bytes, data: bytes, place: Place, decided: Sequence[Backend], upon: Upon
    ) -> bytes | None:
        """Write to the other owners what those that decide have taken.

        Returns when a quorum has it. Raises as ``put``. A record, if it turns out that another write came between and
        may have been acknowledged, in a version below this one's: that one is to stand, and this one came before it.
        """
        spread = Spread(self, key, data, place, place.quorum.write, record.decode_header(data)[0], decided, upon)
        await spread.run()
        return spread.overtaken_by

    async def hold(self, key: bytes, place: Place, order: tuple[int, int]) -> None:
        """Have as many nodes keep the newest version as a write asks for: one of that order, which was seen, or newer.

        One node alone may have it, which a read needn't ask. Raises as ``put``, and Damaged.
        """
        search = Inquiry(self, key, place, whole=False)
        search.ask_everybody()
        newest = await search.hear_the_rest()
        data = None if newest is None else await search.holders(newest)[0].get(key)
        if data is None or (version := record.decode(data).header).order < order:
            raise Unavailable("the version that was seen isn't on any of the nodes that answer")
        await Spread(self, key, data, place, place.quorum.write, version).run()

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
        spread = Spread(self, key, data, place, place.quorum.seen, version, holders)
        try:
            await spread.run()
        except SfssError:
            # A full node keeps nobody from reading: better a version that another read may miss than none, for days.
            if not any(isinstance(failure, OutOfSpace | TooLarge) for failure in spread.failures):
                raise

    # --- reading ---

    def read_soon(self, key: bytes, place: Place, tell: Tell[Record | None]) -> None:
        """Tell the record of ``find``, or what that would raise; perhaps before this returns."""

        def otherwise(slow: Collection[Backend]) -> None:
            self._reading.run(self._read(key, place, slow), tell)

        agreement.read(self, key, place, tell, otherwise)

    async def _read(self, key: bytes, place: Place, slow: Collection[Backend]) -> Record | None:
        found = await self.find(key, place, whole=True, slow=slow)
        return None if found is None or found[1] is None else record.decode(found[1])

    async def find(
        self, key: bytes, place: Place, *, whole: bool, slow: Collection[Backend] = ()
    ) -> tuple[Header, bytes | None] | None:
        """The newest version, its record too if ``whole``; None if it is sure that there is none.

        ``slow`` nodes, which let one wait just now, are asked last. Tombstones are found like any other version. Raises
        Unavailable, or Damaged if only damaged copies answer.
        """
        search = Inquiry(self, key, place, whole=whole, slow=slow)
        newest = await search.run()
        self.compare_now_and_then(key, place)
        if newest is None or newest.header is None:
            return None
        holders, lacking = search.holders(newest), search.lacking(newest)
        if lacking and place.quorum.sees_all and not place.suffices(holders, place.quorum.seen):
            await self._bring_home(key, place, holders, newest.data)
            self.counts.mended += 1
        elif search.is_waiting:
            self.later(self._mend_lacking(key, search))
        elif lacking:
            self._mend(key, holders[0], newest, lacking)
        return newest.header, newest.data

    def compare_now_and_then(self, key: bytes, place: Place) -> None:
        """Behind some of the answers, look at all nodes."""
        if random.random() < COMPARED:
            self.later(self._compare(key, place))

    async def _compare(self, key: bytes, place: Place) -> None:
        """Behind an answer, look whether one of the other nodes has a newer version, or an owner none."""
        search = Inquiry(self, key, place, whole=False)
        search.ask_everybody()
        await self._mend_lacking(key, search)

    async def put_right(self, key: bytes, place: Place) -> None:
        """Look at all copies, and bring the newest version to the owners that lack it, as far as that can be."""
        search = Inquiry(self, key, place, whole=False)
        search.ask_everybody()
        newest = await search.hear_the_rest()
        if newest is not None and (lacking := search.lacking(newest)):
            await self._mend_now(key, search.holders(newest)[0], newest, lacking)

    async def _mend_lacking(self, key: bytes, search: Inquiry) -> None:
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

    def _mend(self, key: bytes, holder: Backend, newest: Answer, lacking: Sequence[Backend]) -> None:
        """Behind the answer, write the newest version where it was seen to be missing, old or damaged."""
        if key in self._mending:
            return
        if len(self._mending) >= MENDING:
            self.lacking.note(key)
            return
        self._mending.add(key)
        task = self.later(self._mend_now(key, holder, newest, lacking))
        task.add_done_callback(lambda _: self._mending.discard(key))

    async def _mend_now(self, key: bytes, holder: Backend, newest: Answer, lacking: Sequence[Backend]) -> None:
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
