"""An upload's state on the nodes: read, and put in the place of just the state that was read. Judges nothing."""

from __future__ import annotations

import asyncio
import secrets

from sfss import record, upload_state
from sfss.cluster.replication import Cluster
from sfss.errors import Damaged, NoUpload, Unavailable, UploadConflict, UploadGone
from sfss.record import Header, Kind
from sfss.upload_state import State

_AGAIN = (0.1, 0.4, 1.0, 2.0)  # seconds between the tries to put a state whose nodes don't answer


class Hold:
    """An upload's state, as this front has last seen or written it."""

    def __init__(self, cluster: Cluster, upload: str) -> None:
        self.upload = upload
        self.state = State(0, None)
        self.is_unsure = False  # whether a state may have been written, and another one in its place
        self._cluster = cluster
        self._key = upload_state.key_of(upload)
        self._version = 0
        self._ours: set[tuple[int, int]] = set()  # the orders of that state, and of those that may have been written

    async def load(self) -> State:
        """Raises NoUpload, Damaged, Unavailable."""
        # The latest: else it might be said of an upload that has just got its last byte that it isn't whole.
        found = await self._cluster.get_latest(self._key)
        if found is None:
            raise NoUpload(f"there is no upload {self.upload}")
        if found.header.kind == Kind.TOMBSTONE:
            raise UploadGone(f"the upload {self.upload} has been terminated, or has expired")
        if found.header.kind != Kind.UPLOAD:
            raise Damaged(f"what lies in the place of the upload {self.upload} is a {found.header.kind.name.lower()}")
        self.state = upload_state.decode(found.payload)
        self._version = found.header.version
        self._ours = {found.header.order}
        return self.state

    async def begin(self, state: State) -> None:
        """Put the first state. Raises Unavailable, OutOfSpace."""
        header, data = self._record(Kind.UPLOAD, upload_state.encode(state))
        await self._cluster.put(self._key, data)
        self.state, self._ours = state, {header.order}

    async def put(self, state: State, *, patient: bool = True) -> State:
        """Put the next state in the place of this one. Raises UploadConflict, UploadGone if another one is there.

        Raises Unavailable too; if ``patient``, only after some tries.
        """
        header, data = self._record(Kind.UPLOAD, upload_state.encode(state))
        await self._replace(header, data, patient=patient)
        self.state = state
        return state

    async def remove(self) -> None:
        """Put a tombstone in the place of the state. Raises as ``put``."""
        header, data = self._record(Kind.TOMBSTONE, b"")
        await self._replace(header, data, patient=True)

    async def _replace(self, header: Header, data: bytes, *, patient: bool) -> None:
        pauses = iter(_AGAIN if patient else ())
        while True:
            try:
                if await self._try_to_replace(header, data):
                    self._ours, self.is_unsure = {header.order}, False
                    return
            except Unavailable:
                self._ours.add(header.order)  # it may have come through
                self.is_unsure = True
                pause = next(pauses, None)
                if pause is None:
                    raise
                await asyncio.sleep(pause)

    async def _try_to_replace(self, header: Header, data: bytes) -> bool:
        """False if something else came in between, or it isn't known what."""
        there, token = await self._cluster.get_for_update(self._key)
        if there is not None and there.order == header.order:
            return True  # by a try before
        if there is None or there.kind == Kind.TOMBSTONE:
            raise UploadGone(f"the upload {self.upload} has been terminated, or has expired, meanwhile")
        if there.order not in self._ours:
            raise UploadConflict(f"another request has gone on with the upload {self.upload}: ask how far it is")
        if header.kind == Kind.TOMBSTONE:
            return await self._cluster.delete_if(self._key, data, token)
        return await self._cluster.put_if(self._key, data, token)

    def _record(self, kind: Kind, payload: bytes) -> tuple[Header, bytes]:
        self._version = max(self._version + 1, self._cluster.now())
        front = secrets.randbits(32)  # so that no two states are of the same order
        return record.of_state(kind, payload, self._version, front)
