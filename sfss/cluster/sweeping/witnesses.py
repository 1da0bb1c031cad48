"""What is the newest version of a record, for sure: before something is removed for good, all nodes are asked.

A read is content with a quorum, and with the owners of the moment. That will do to serve a file, and to be wrong for a
moment does no harm then. Who removes blocks because no manifest names them must not be wrong: the manifest might lie on
a node that is away, has been emptied, has damaged it, or owned it before somebody changed the configuration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sfss import record
from sfss.backends.base import Backend
from sfss.cluster.sweeping.roster import missed
from sfss.cluster.wholeness import is_marked, missing_marks
from sfss.errors import Damaged, SfssError, Unavailable
from sfss.record import Header, Record


class Witnesses:
    """All nodes of a configuration. ``why_not``: why nothing is sure; None if it is."""

    def __init__(self, nodes: Sequence[Backend], joining: Sequence[Backend]) -> None:
        """``joining``: those of the nodes that need not have all that belongs on them yet."""
        self._nodes = nodes
        self._joining = joining
        self._since: dict[Backend, float | None] = {}  # the connections on which a node is believed
        self.why_not: SfssError | None = Unavailable("nothing is known of the nodes yet")

    async def begin(self, *, are_all: bool) -> None:
        """See who may be believed. Where that isn't everybody nothing is sure, until this is called again.

        ``are_all``: somebody says that there are no others, even if nodes have known others.
        """
        try:
            self._check_here()
            since = {node: node.since for node in self._nodes}
            emptied = await missing_marks(node for node in self._nodes if node not in self._joining)
            if emptied:
                names = ", ".join(str(node.address) for node in emptied)
                raise Unavailable(f"node {names} has lost what it had: bring that back, or run sfss repair")
            if not are_all and (others := await missed(self._nodes)):
                names = ", ".join(sorted(others))
                raise Unavailable(f"node {names} is missing from the configuration: put it back, or run sfss repair")
        except SfssError as error:
            self.why_not = error
        else:
            self._since, self.why_not = since, None

    async def newest(self, key: bytes) -> Record | None:
        """The newest version that any node has; None if none has any. A payload comes only where there is one.

        Raises Unavailable or Damaged if that isn't sure.
        """
        if self.why_not is not None:
            raise self.why_not
        self._check_here()
        answers = await asyncio.gather(*(node.head(key) for node in self._nodes), return_exceptions=True)
        headers: dict[Backend, Header] = {}
        for node, answer in zip(self._nodes, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            if answer is not None:
                headers[node] = _header_on(node, answer)
        newest = max((header for header in headers.values()), key=lambda header: header.order, default=None)
        await self._check_same()
        if newest is None:
            return None
        return await self._whole(key, newest, [node for node, it in headers.items() if it.order == newest.order])

    async def _whole(self, key: bytes, newest: Header, holders: Sequence[Backend]) -> Record:
        for node in holders:
            try:
                data = await node.get(key)
                found = None if data is None else record.decode(data)
            except Damaged:
                continue
            if found is not None and found.header.order >= newest.order:
                return found
        raise Damaged(f"no sound copy is left of what lies under {key.decode(errors='backslashreplace')}")

    def _check_here(self) -> None:
        for node in self._nodes:
            if node.away is not None:
                raise Unavailable(f"node {node.address} is away: {node.away}")

    async def _check_same(self) -> None:
        """Raises Unavailable if a node may have become another one, an empty one, since it was found to be whole."""
        for node in self._nodes:
            since = node.since
            if since == self._since[node]:
                continue
            if since is None or not await is_marked(node) or node.since != since:
                raise Unavailable(f"node {node.address} came anew meanwhile, and may have lost what it had")
            self._since[node] = since


def _header_on(node: Backend, data: bytes) -> Header:
    try:
        return record.decode_header(data)[0]
    except Damaged as error:
        raise Damaged(f"the copy on node {node.address} is damaged: {error}") from None
