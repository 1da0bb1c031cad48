"""What all fronts agree on besides the configuration: small documents that lie on the nodes, as files do.

Namespaces and keys can be made while sfss serves, so no configuration has them. Each kind is one *document*, a record
of its own under ``#r/NAME``: placed, copied, repaired and moved as any other. Whoever changes one puts the next state
in the place of just the state that he has read, so that of two changes none is lost. Each front reads all of them when
it starts, and again every ``interval``; what it serves by is what it has read last, and nobody waits for a document.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from sfss import record
from sfss.cluster.replication import Cluster
from sfss.errors import Damaged, SfssError, TooLarge, Unavailable
from sfss.record import Header, Kind, Record

log = logging.getLogger("sfss")

T = TypeVar("T")

INTERVAL = 10.0  # seconds between two looks: so long another front's change may go unnoticed
LARGEST = 48 * 1024  # bytes of a document: it fits a record, whatever the limits and the nodes are
_SOON = 0.5  # seconds until the next look at what couldn't be read yet
_RACES = 16  # how often a change begins again because another one came in between


class Document(Generic[T]):
    """One document as this front has seen it last. It is told to ``heed`` whenever it is another one."""

    def __init__(self, name: str, empty: T) -> None:
        self.name = name
        self.value = empty  # where there is none, and until it is known whether there is one
        self.known = False  # whether that has been read since the start
        self.is_missed = False  # whether it couldn't be read when it was looked for last
        self.heeding: list[Callable[[T], None]] = []
        self.key = key_of(name)
        self.empty = empty
        self.order = (0, 0)

    def heed(self, take: Callable[[T], None]) -> None:
        """Have ``take`` called with each new value from now on, and with this one if it is known."""
        self.heeding.append(take)
        if self.known:
            take(self.value)

    def became(self, value: T, order: tuple[int, int]) -> None:
        """It was read, or written."""
        is_new = not self.known or (order > self.order and value != self.value)
        if order >= self.order:
            self.value, self.order = value, order
        self.known = True
        if is_new:
            for take in self.heeding:
                take(self.value)


class Registry:
    """The documents of one front. Ask for each before ``start``."""

    def __init__(self, cluster: Cluster, *, interval: float = INTERVAL) -> None:
        """``interval`` in seconds."""
        self._cluster = cluster
        self._interval = interval
        self._front = secrets.randbits(32)
        self._documents: dict[str, tuple[Document[object], type]] = {}
        self._looking: asyncio.Task[None] | None = None

    def document(self, name: str, type: type[T], empty: T) -> Document[T]:
        """The document of that ``name``; ``type``: one that msgspec knows; ``empty``: it before the first change."""
        document: Document[T] = Document(name, empty)
        self._documents[name] = (document, type)  # type: ignore[assignment]
        return document

    async def start(self) -> None:
        """Read all of them, and go on looking. What can't be read stays unknown until it can."""
        await self._look_at_all()
        self._looking = asyncio.create_task(self._look_again_and_again())

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    async def refresh(self, document: Document[T]) -> T:
        """The document as it is now. Raises Unavailable, Damaged."""
        found = await self._cluster.get_latest(document.key) or await self._elsewhere(document.key)
        if found is None:
            document.became(document.empty, (0, 0))
        else:
            document.became(self._decoded(document, found.payload), found.header.order)
        return document.value

    async def change(self, document: Document[T], edit: Callable[[T], T]) -> T:
        """Put what ``edit`` makes of the present state in its place; it is asked again if another change came between.

        Returns when as many nodes have it as have a file that is acknowledged. Raises what ``edit`` raises, TooLarge,
        OutOfSpace, Damaged: nothing has changed then; and Unavailable: it may have.
        """
        for _ in range(_RACES):
            there, token = await self._cluster.get_for_update(document.key)
            before = await self.refresh(document)
            if there is not None and document.order != there.order:
                continue  # it has changed between the two
            # If there is none any more, for its only node has lost it, what is known of it here comes back with this.
            after = edit(before)
            if after == before and (there is not None or document.order == (0, 0)):
                return before
            header, data = self._record(document, after)
            if await self._cluster.put_if(document.key, data, token):
                document.became(after, header.order)
                return after
        raise Unavailable(f"the {document.name} changed {_RACES} times meanwhile: try again")

    async def _elsewhere(self, key: bytes) -> Record | None:
        """The newest that any node has, of what its owners haven't got: they may have been emptied.

        Others have it where there are more copies than this front knows of yet, for the document itself may say so.
        """
        nodes = self._cluster.topology.nodes.values()
        found: list[Record] = []
        for answer in await asyncio.gather(*(node.get(key) for node in nodes), return_exceptions=True):
            if isinstance(answer, bytes):
                with contextlib.suppress(Damaged):
                    found.append(record.decode(answer))
            elif isinstance(answer, BaseException) and not isinstance(answer, SfssError):
                raise answer
        return max(found, key=lambda it: it.header.order, default=None)

    def _record(self, document: Document[T], value: T) -> tuple[Header, bytes]:
        payload = msgspec.msgpack.encode(value)
        if len(payload) > LARGEST:
            raise TooLarge(
                f"the {document.name} would take {len(payload)} bytes together, and there is room for {LARGEST}:"
                " remove some first",
                limit=LARGEST,
                setting=f"the room for {document.name}",
            )
        version = max(self._cluster.now(), document.order[0] + 1)
        return record.of_state(Kind.DOCUMENT, payload, version, self._front)

    def _decoded(self, document: Document[T], payload: bytes | memoryview) -> T:
        _, type = self._documents[document.name]
        try:
            value: T = msgspec.msgpack.decode(payload, type=type)
        except msgspec.DecodeError as error:  # its checksum held, so it was written so: by a newer version
            raise Damaged(f"the {document.name} can't be read: {error}") from None
        return value

    async def _look_again_and_again(self) -> None:
        while True:
            every = all(document.known for document, _ in self._documents.values())
            await asyncio.sleep(self._interval if every else min(_SOON, self._interval))
            await self._look_at_all()

    async def _look_at_all(self) -> None:
        for document, _ in self._documents.values():
            try:
                await self.refresh(document)
                document.is_missed = False
            except SfssError as error:
                if not document.is_missed:  # a line when it begins; while nodes are away, looks come twice a second
                    state = "they stay as they were read last" if document.known else "they aren't known yet"
                    log.warning("the %s can't be read, and %s; it is tried again until nodes are back: %s",
                                document.name, state, error)  # fmt: skip
                document.is_missed = True
            except Exception:  # the next look is to be had in any case
                log.exception("the %s can't be read", document.name)


def key_of(name: str) -> bytes:
    """The key under which a document lies."""
    return b"#r/" + name.encode()
