"""One key's turn in a repair: looks at its copies afresh, brings the newest home, removes what need not be anywhere.

Fronts write all the while, and other repairs may be at the same key. So nothing is done that a write in between would
make wrong: a copy is written only where an older one, none, or a damaged one lies (``put_newer``), and removed only if
it is still the one that was looked at (``remove``), after every owner was seen to have its version or a newer one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sfss import record
from sfss.backends.base import Backend
from sfss.cluster.apart import check_apart
from sfss.cluster.spread import put_newer
from sfss.cluster.summary import Summary
from sfss.cluster.topology import Place, Topology
from sfss.cluster.walk import Told, Walk
from sfss.errors import BadRequest, Damaged, NodeRefused, SfssError
from sfss.record import Header, Kind

LOOKS = 3  # where what was seen doesn't hold any more; then it is left to the next repair


@dataclass
class _Copy:
    """What a node was seen to have under the key; by itself, nothing."""

    there: bool = False
    header: Header | None = None  # if it can be read, of a damaged payload too
    data: bytes | None = None  # the record, if it was read whole and is sound
    damaged: bool = False
    foreign: bool = False  # it isn't a record of sfss
    token: int | None = None  # for ``remove``

    @property
    def order(self) -> tuple[int, int]:
        return self.header.order if self.header is not None else (-1, -1)

    @property
    def is_sound(self) -> bool:
        """As far as was looked."""
        return self.header is not None and not self.damaged


class Turn:
    """The turn of ``key``, of which some nodes have told. ``whole``: read every copy's payload, not just its header."""

    def __init__(
        self,
        key: bytes,
        told: Sequence[Told],
        topology: Topology,
        walk: Walk,
        summary: Summary,
        *,
        tombstone_ttl: int,
        whole: bool,
    ) -> None:
        self._key = key
        self._told = dict(told)
        self._topology = topology
        self._place: Place = topology.place(key)
        self._walk = walk
        self._summary = summary
        self._tombstone_ttl = tombstone_ttl
        self._whole = whole
        self._copies: dict[Backend, _Copy] = {}  # of the nodes that have answered
        self._damaged: set[Backend] = set()  # that had a damaged copy
        self._written: set[Backend] = set()
        self._strays_removed = 0
        self._swept = False

    async def run(self) -> None:
        """Put right what can be; the summary says what was done, and what is left."""
        for _ in range(LOOKS):
            await self._look()
            if await self._put_right():
                break
        self._sum_up()

    @property
    def lacking(self) -> Sequence[Backend]:
        """The owners that may lack the newest version still; of a version that is lost, none."""
        owners, newest = self._place.owners, self._newest()
        if not all(node in self._copies for node in (*owners, *self._told)):
            return owners
        if newest is None or not any(copy.is_sound and copy.order == newest.order for copy in self._copies.values()):
            return []
        return [node for node in owners if not self._copies[node].is_sound or self._copies[node].order < newest.order]

    async def _put_right(self) -> bool:
        """False if it turned out that things aren't as they looked: they must be looked at again."""
        newest = self._newest()
        if newest is None:
            return True
        if self._is_over(newest):
            return await self._sweep(newest)
        if not await self._bring_home(newest) or not await self._remove_strays(newest):
            return False
        return await self._sweep(newest) if self._is_over(newest) else True

    # --- looking ---

    async def _look(self) -> None:
        # One after the other: many keys have their turn at a time, and each costs a node the same either way.
        for node in dict.fromkeys((*self._place.owners, *self._told)):
            await self._look_at(node)

    async def _look_at(self, node: Backend) -> None:
        self._copies.pop(node, None)
        if node.away is not None:  # the summary names it once, not with each key
            return
        try:
            copy = await self._ask(node)
        except NodeRefused as error:  # a node of ours whose own checksum fails says so
            self._note(node, error)
            copy = _Copy(there=True, damaged=True)
        except BadRequest:  # a key that no front could have made
            copy = _Copy(there=True, foreign=True)
        except SfssError as error:
            self._note(node, error)
            return
        self._copies[node] = copy
        self._note_damage(node)

    async def _ask(self, node: Backend) -> _Copy:
        can = node.capabilities
        assert can is not None
        whole, token = not can.head or self._whole, None
        if can.cas and not can.head:
            found = await node.gets(self._key)
            data, token = (None, None) if found is None else (found.data, found.token)
        else:
            data = await (node.get(self._key) if whole else node.head(self._key))
        if data is None:
            return _Copy()
        item = self._told.get(node)
        if item is not None and item.header and data.startswith(item.header):
            token = item.token
        return self._judged(data, token, whole=whole)

    def _judged(self, data: bytes, token: int | None = None, *, whole: bool) -> _Copy:
        if whole:
            self._summary.bytes_read += len(data)
        try:
            header = record.decode_header(data)[0]
        except Damaged:
            foreign = record.header_end(data) is None
            return _Copy(there=True, damaged=not foreign, foreign=foreign, token=token)
        if not whole:
            return _Copy(there=True, header=header, token=token)
        try:
            record.decode(data)
        except Damaged:
            return _Copy(there=True, header=header, damaged=True, token=token)
        return _Copy(there=True, header=header, data=data, token=token)

    def _newest(self) -> Header | None:
        """The newest version that any node has, be it damaged there: it was written, and hides the older ones."""
        found = [copy.header for copy in self._copies.values() if copy.header is not None]
        return max(found, key=lambda header: header.order, default=None)

    def _is_home(self, newest: Header) -> bool:
        """Whether each owner has that version, or a newer one."""
        owners = [self._copies.get(node) for node in self._place.owners]
        return all(copy is not None and copy.is_sound and copy.order >= newest.order for copy in owners)

    # --- bringing home ---

    async def _bring_home(self, newest: Header) -> bool:
        if self._is_home(newest):
            return True
        data = await self._fetch(newest)
        if data is None:
            there = self._newest()
            return there is not None and there.order == newest.order  # else it has changed meanwhile
        version = record.decode_header(data)[0]
        settled = [await self._write(node, data, version) for node in self._lacking(version)]
        return all(settled)

    def _lacking(self, version: Header) -> list[Backend]:
        """The owners that answered and have no copy, a damaged or an older one."""
        return [
            node
            for node in self._place.owners
            if (copy := self._copies.get(node)) is not None
            and not copy.foreign
            and not (copy.is_sound and copy.order >= version.order)
        ]

    async def _fetch(self, newest: Header) -> bytes | None:
        """The record, checked, from one of the nodes that have it; None if none of them gives it."""
        holders = [node for node, copy in self._copies.items() if copy.is_sound and copy.order == newest.order]
        for node in sorted(holders, key=lambda node: self._copies[node].data is None):
            if self._copies[node].data is None:
                await self._read(node)
            copy = self._copies[node]
            if copy.data is not None and copy.order >= newest.order:
                return copy.data
        return None

    async def _read(self, node: Backend) -> None:
        """Have a copy whole, that only the header was seen of."""
        try:
            data = await node.get(self._key)
        except NodeRefused as error:
            self._note(node, error)
            self._copies[node].damaged = True
        except SfssError as error:
            self._note(node, error)
            return
        else:
            self._copies[node] = _Copy() if data is None else self._judged(data, whole=True)
        self._note_damage(node)

    async def _write(self, node: Backend, data: bytes, version: Header) -> bool:
        """False if it must be looked at again."""
        try:
            if not await put_newer(node, self._key, data, version):
                return False  # there is a newer one by now
        except SfssError as error:
            self._note(node, error)
            return True
        self._summary.copies_written += 1
        self._summary.bytes_written += len(data)
        self._copies[node] = _Copy(there=True, header=version, data=data)
        first = node not in self._written
        self._written.add(node)
        # A node that can't compare may have had a newer one just before, which the other owners have then, too.
        can = node.capabilities
        return not first or (can is not None and can.cas)

    # --- removing ---

    async def _remove_strays(self, newest: Header) -> bool:
        """Remove the copies on nodes that are no owners, if each owner has one. False: it must be looked at again."""
        strays = [node for node in self._strays() if _has_cas(node)]
        if not strays or self._walk.lost or not self._is_home(newest):
            return True
        if newest.kind != Kind.TOMBSTONE and not await self._has_sound_body():
            self._whole = True
            return False
        there = self._newest()
        if there is None or there.order != newest.order:
            return False  # a write came between: the other owners were looked at before it
        for node in strays:
            if await self._remove(node, newest):
                self._strays_removed += 1
        return True

    def _strays(self) -> list[Backend]:
        return [
            node
            for node, copy in self._copies.items()
            if copy.there and not copy.foreign and node not in self._place.owners
        ]

    async def _has_sound_body(self) -> bool:
        """Whether one of the owners, at least, was seen to have the record whole: a header doesn't tell."""
        owners = self._place.owners
        if not any(self._copies[node].data is not None for node in owners):
            await self._read(owners[0])
        return any(self._copies[node].data is not None for node in owners)

    async def _remove(self, node: Backend, newest: Header) -> bool:
        """Remove a copy of that version or an older one; False if it is another one by now, or it fails."""
        try:
            check_apart(self._topology.nodes.values())  # one of them may have come, or come anew, meanwhile
            token = self._copies[node].token
            if token is None:
                found = await node.gets(self._key)
                there = _Copy() if found is None else self._judged(found.data, found.token, whole=True)
                if there.foreign or there.order > newest.order:
                    return False
                token = there.token
            gone = token is None or await node.remove(self._key, token) or await node.head(self._key) is None
        except SfssError as error:
            self._note(node, error)
            return False
        if gone:
            self._copies[node] = _Copy()
        return gone

    # --- deletions ---

    def _is_over(self, newest: Header) -> bool:
        """Whether this is a deletion that need not be kept in mind: all nodes are here, and none has anything older."""
        all_here = self._walk.hears_all and not any(node.away for node in self._topology.nodes.values())
        if not all_here or not self._is_old(newest):
            return False
        owners_answered = all(node in self._copies for node in self._place.owners)
        agreed = all(copy.is_sound and copy.order == newest.order for copy in self._copies.values() if copy.there)
        return owners_answered and agreed

    def _is_old(self, newest: Header) -> bool:
        age = self._walk.clock.now() - newest.version
        return newest.kind == Kind.TOMBSTONE and age > self._tombstone_ttl * 1_000_000

    async def _sweep(self, newest: Header) -> bool:
        """Remove the tombstones everywhere. False: it must be looked at again."""
        # The list of a node that doesn't scan is as old as the walk, so those are asked.
        for node in self._topology.nodes.values():
            if node not in self._copies and not (node.capabilities and node.capabilities.scan):
                await self._look_at(node)
                if node not in self._copies:
                    return True
        if not self._is_over(newest):
            return False
        holders = [node for node, copy in self._copies.items() if copy.there]
        if all(map(_has_cas, holders)):
            strays_first = sorted(holders, key=lambda node: node in self._place.owners)
            self._swept = all([await self._remove(node, newest) for node in strays_first])
        return True

    # --- the sum ---

    def _sum_up(self) -> None:
        summary, newest = self._summary, self._newest()
        strays = self._strays()
        kept = 0 if self._walk.lost else sum(not _has_cas(node) for node in strays)
        summary.strays_removed += self._strays_removed
        summary.strays_kept += kept
        summary.strays_left += len(strays) - kept
        summary.repaired += bool(self._written)
        summary.damaged_found += len(self._damaged)
        summary.damaged_mended += len(self._damaged & self._written)
        foreign = any(copy.foreign for copy in self._copies.values())
        summary.foreign += foreign
        if self._swept:
            summary.tombstones_removed += 1
        elif newest is not None and newest.kind == Kind.TOMBSTONE:
            summary.tombstones_young += 1
        self._sum_up_copies(newest, foreign=foreign, strays=bool(strays))

    def _sum_up_copies(self, newest: Header | None, *, foreign: bool, strays: bool) -> None:
        summary = self._summary
        if newest is None:
            heard = all(node in self._copies for node in (*self._place.owners, *self._told))
            if any(copy.damaged for copy in self._copies.values()):
                summary.note_lost(self._key)
            elif not heard:
                summary.under_replicated += 1
            elif not foreign:
                summary.ok += 1  # it was there when the nodes were walked, and is no more
        elif not any(copy.is_sound and copy.order == newest.order for copy in self._copies.values()):
            summary.note_lost(self._key)
        elif not self._is_home(newest):
            summary.under_replicated += 1
        elif not self._written and not strays:
            summary.ok += 1

    def _note_damage(self, node: Backend) -> None:
        if self._copies[node].damaged:
            self._damaged.add(node)
            self._whole = True  # from now on headers aren't believed

    def _note(self, node: Backend, error: SfssError) -> None:
        self._summary.note_error(node.address.name, error)


def _has_cas(node: Backend) -> bool:
    return node.capabilities is not None and node.capabilities.cas
