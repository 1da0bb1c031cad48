"""Landing: a record that was acknowledged elsewhere comes onto the nodes, in its version, as its policy wants it.

To do it twice, or by two at once, changes nothing: what is there as that version, or as a newer one, stays; and what is
older never comes above it, for the order was settled when it was acknowledged. Conditions, quotas and namespaces aren't
asked again: they were then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from msgspec.structs import replace

from sfss import manifest, paths, record
from sfss.cluster.replication import Cluster, Token
from sfss.errors import Damaged, OutOfSpace, SfssError, TooLarge, Unavailable
from sfss.manifest import NOTHING, Manifest
from sfss.policies import Policies
from sfss.record import Header, Kind, Record
from sfss.replaced import free, striped, striped_there
from sfss.stripes import Stripes

_AT_IT = 60.0  # seconds in which a front that is alive has put a record of blocks on the nodes, or given up
_RACES = 16  # how often it begins again because another write came in between


class Noting(Protocol):
    """A catalogue, as it is told of what the nodes have kept."""

    async def note(self, path: str, header: Header, striped: Manifest) -> None:
        """A file was stored, or deleted if that is a tombstone's header."""


class Landing:
    """Puts records on the nodes of one cluster."""

    def __init__(self, cluster: Cluster, stripes: Stripes, policies: Policies, catalogue: Noting | None = None) -> None:
        self._cluster = cluster
        self._stripes = stripes
        self._policies = policies
        self._catalogue = catalogue

    def may_be_swept(self, going: Record) -> bool:
        """Whether the sweep, which doesn't know of it, may take its blocks for nobody's. Raises Damaged."""
        oldest = self._cluster.now() - int(self._stripes.upload_time * 1e6)
        return any(manifest.began(stripe) < oldest for stripe in manifest.decode(going.payload).stripes)

    def is_forsaken(self, seconds: float) -> bool:
        """Whether a record that is on its way, and to which no front came for so long, must have been left there."""
        return seconds > _AT_IT

    async def land(self, path: str, found: Record) -> bool:
        """Have the nodes keep the record; returns when they do. False if they had a newer one, which stays.

        Raises Damaged if it is of no kind that a file has; TooLarge, OutOfSpace if no node has taken it by this;
        Unavailable.
        """
        try:
            return await self._land(path, found)
        except (OutOfSpace, TooLarge) as error:
            if await self._may_be_there(path, found.header):
                raise Unavailable(f"a node that refuses '{path}' may have it all the same: {error}") from error
            raise

    async def _may_be_there(self, path: str, header: Header) -> bool:
        """Whether it may be on the nodes: one whose disk is full when it syncs may have what it refuses."""
        try:
            there, _ = await self._cluster.get_for_update(paths.key_of(path))
        except SfssError:
            return True
        return there is not None and there.order >= header.order

    async def _land(self, path: str, found: Record) -> bool:
        header, payload, cut = found.header, found.payload, NOTHING
        key = paths.key_of(path)
        if header.kind == Kind.FILE and self._is_to_be_cut(path, len(payload)):
            there = await self._cluster.head(key)
            if there is not None and there.order >= header.order:
                return await self._is_there(path, key, header, there)
            cut = await self._cut(path, header, bytes(payload))
            header, payload = _naming(header, cut)
        elif header.kind not in (Kind.FILE, Kind.MANIFEST, Kind.TOMBSTONE):
            raise Damaged(f"what waits at '{path}' is a {header.kind.name.lower()}, which no file is")
        return await self._put(path, key, header, payload, cut)

    def _is_to_be_cut(self, path: str, size: int) -> bool:
        return size > 0 and (self._policies.of(path).pieces > 1 or size > self._stripes.largest)

    async def _cut(self, path: str, header: Header, content: bytes) -> Manifest:
        """Keep the content in blocks."""
        rules = self._policies.of(path)
        return await self._stripes.write(_once(content), rules, path=path, front=header.front, size=len(content))

    async def _put(self, path: str, key: bytes, header: Header, payload: bytes | memoryview, cut: Manifest) -> bool:
        """``cut``: blocks that nobody else knows of yet; others, that are named by the record, may be put once more."""
        data = record.encode(header, payload)
        named = striped(path, Record(header, payload)) if header.kind == Kind.MANIFEST else NOTHING
        for _ in range(_RACES):
            try:
                there, token = await self._cluster.get_for_update(key)
            except Damaged:  # a copy of what was there before: it is mended by this
                await self._put_anyhow(key, header, data)
                await self._note(path, header, named)
                return True
            if there is not None and there.order >= header.order:
                free(self._cluster, self._stripes, path, key, cut)
                is_this_one = await self._is_there(path, key, header, there)
                if not is_this_one:
                    free(self._cluster, self._stripes, path, key, named)
                return is_this_one
            replaced = await striped_there(self._cluster, path, key, there)
            if header.kind == Kind.TOMBSTONE:
                done = await self._bury(key, data, header, there, token)
            else:
                done = await self._cluster.put_if(key, data, token, by_order=True)
            if done:
                free(self._cluster, self._stripes, path, key, replaced)
                await self._note(path, header, named)
                return True
        raise Unavailable(f"'{path}' changed {_RACES} times while it was moved to the nodes")

    async def _bury(self, key: bytes, tombstone: bytes, header: Header, there: Header | None, token: Token) -> bool:
        """Put a tombstone also where nothing is: what is older may still be on its way, with somebody who is slow."""
        done = await self._cluster.delete_if(key, tombstone, token, by_order=True)
        if done and there is None:  # one that takes nothing's place has no end; it gets one as its own successor
            found, token = await self._cluster.get_for_update(key)
            if found is not None and found.order == header.order:
                await self._cluster.delete_if(key, tombstone, token, by_order=True)
        return done

    async def _put_anyhow(self, key: bytes, header: Header, data: bytes) -> None:
        put = self._cluster.delete if header.kind == Kind.TOMBSTONE else self._cluster.put
        if not await put(key, data):
            raise Unavailable("a newer version is on one node, and on another a copy is damaged: tried again")

    async def _is_there(self, path: str, key: bytes, header: Header, there: Header) -> bool:
        """Whether what is there is this record, and not a newer one.

        Whoever has put it may have come no further than the first node, and may not have noted it. Of a newer one, too,
        it isn't known whether it is where it will be seen, and this one is about to be forgotten.
        """
        try:
            await self._cluster.hold(key, there)
        except (OutOfSpace, TooLarge) as error:
            raise Unavailable(f"'{path}' is on some nodes, and others refuse it: {error}") from error
        if there.order != header.order:
            return False
        await self._note(path, there, await striped_there(self._cluster, path, key, there))
        return True

    async def _note(self, path: str, header: Header, named: Manifest) -> None:
        if self._catalogue is not None:
            await self._catalogue.note(path, header, named)


def _naming(header: Header, whole: Manifest) -> tuple[Header, bytes]:
    """The record that names these blocks as the content of the one with that header."""
    payload = manifest.encode(whole)
    checksum = record.payload_checksum(payload)
    return replace(header, kind=Kind.MANIFEST, payload_size=len(payload), payload_xxh3=checksum), payload


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
