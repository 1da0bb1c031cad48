"""The state of a resumable upload, as it lies on the nodes: the payload of a record of kind UPLOAD. Pure.

An upload is named by its id, ``u`` and 25 hex digits, which is never used twice; its state lies under ``#`` and the id.
What may be swept, and when, is said here (``is_abandoned``), for whoever sweeps.
"""

from __future__ import annotations

import re
import secrets

import msgspec

from sfss.errors import Damaged
from sfss.manifest import NOTHING, Manifest

# Seconds for which an expired upload's blocks stay: somebody may be just about to make a file of them. It is less where
# uploads expire soon: a sixth of limits.upload_expiry.
GRACE = 3600

ID = r"u[0-9a-f]{25}"  # what an upload's id looks like
PARTIAL = "partial"  # what ``concat`` is of an upload that is to be a part of another one


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """The file's record as it is to be put, by whoever comes to it, however often: always as this one version."""

    version: int  # microseconds since the epoch
    front: int
    sha256: bytes  # of the whole file
    is_record: bool  # it is to be one record, instead of blocks
    is_tried: bool = False  # others may have put it than who has settled it, or he himself before


class State(msgspec.Struct, frozen=True, array_like=True):
    """All that a front must know to go on with an upload. Fields are only ever added, at the end, with a default."""

    expires: int  # microseconds since the epoch
    length: int | None  # bytes of the whole; None: not told yet
    offset: int = 0  # bytes that are kept
    parts: Manifest = NOTHING  # the blocks that they lie in; nothing any more when it is finished
    path: str | None = None  # where the file goes; a partial upload need not know it
    type: str | None = None
    meta: dict[str, str] = {}
    conditions: dict[str, str] = {}  # on what it takes the place of, as they were given
    metadata: str = ""  # as it was given
    concat: str = ""  # likewise: '', 'partial', or 'final;' and the URLs of the partial ones
    partials: tuple[str, ...] = ()  # of a final one: the ids of those that it is made of
    final: str | None = None  # of a partial one: which final one has taken it ...
    into: str | None = None  # ... and to which path
    claim: Claim | None = None  # once it is known what the file will be
    finished: bool = False  # the file is at its path, or has been
    grace: int = GRACE  # seconds for which its blocks stay when it has expired

    @property
    def is_partial(self) -> bool:
        return self.concat == PARTIAL

    @property
    def is_final(self) -> bool:
        return bool(self.partials)

    @property
    def is_whole(self) -> bool:
        """Whether all its bytes are kept."""
        return self.offset == self.length

    @property
    def is_to_be_finished(self) -> bool:
        """Whether it is time to make a file of it."""
        return self.is_whole and not self.is_partial and not self.finished

    def is_expired(self, now: int) -> bool:
        """Whether nobody may go on with it any more; ``now`` in microseconds since the epoch."""
        return now > self.expires

    def is_abandoned(self, now: int) -> bool:
        """Whether its blocks are dead, as far as no file has them, and with them the state itself.

        A state with ``into`` has to stay as long as the file there has a stripe of it: nothing else tells whose it is.
        """
        return now > self.expires + self.grace * 1_000_000


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(State)


def encode(state: State) -> bytes:
    """A state as a payload."""
    return _encoder.encode(state)


def decode(payload: bytes | memoryview) -> State:
    """The state in a payload. Raises Damaged if it makes no sense: its checksum held, so it was written so."""
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise Damaged(f"the upload's state can't be read: {error}") from None


def new_id(now: int) -> str:
    """An id for an upload that begins now, in microseconds since the epoch."""
    return f"u{now:013x}{secrets.token_hex(6)}"


def is_id(text: str) -> bool:
    """Whether an upload might be called so."""
    return re.fullmatch(ID, text) is not None


def key_of(upload: str) -> bytes:
    """The key of an upload's state."""
    return b"#" + upload.encode()


def id_of(key: bytes) -> str | None:
    """The upload whose state's key this is; None if it is none's."""
    upload = key[1:].decode("ascii", "replace")
    return upload if key.startswith(b"#") and is_id(upload) else None
