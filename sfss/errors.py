"""Everything that sfss raises, in one tree; it knows no HTTP (``web/problems.py`` does).

::

    SfssError
    ├── ConfigError              a setting, option or data directory is wrong: mend it and start again
    ├── BadRequest               what the caller sent can't be taken; asking again won't help
    │   ├── BadPath              the name of the file
    │   ├── BadDigest            the content isn't what its digest says
    │   │   └── BadChecksum      ... of a piece of an upload: none of the piece is kept
    │   └── BadBody              the framing of the content (multipart, lengths)
    ├── BodyTimeout              the caller stopped sending its content, or took too long for all of it
    ├── NotFound                 no such file
    ├── NoUpload                 no such resumable upload
    │   └── UploadGone           ... any more: it has expired, was terminated, or is a part of a file by now
    ├── UploadConflict           the upload isn't as far as the caller thinks
    ├── UploadLocked             another request works on the upload: try again
    ├── UploadSealed             the upload is put together of others, and takes no bytes
    ├── PreconditionFailed       the caller's condition on the file's state doesn't hold
    ├── TooLarge                 over a limit, which the message names
    ├── OutOfSpace               a node has no room
    ├── ProtocolError            the bytes of the other end make no sense as memcached's protocol
    ├── Unsupported              a node is of a kind that can't do this
    ├── Damaged                  a record's checksum doesn't hold: the copy is not served
    │   └── Gone                 a block that a manifest names is nowhere: look whether the manifest still stands
    └── Unavailable              nodes didn't answer; the same call may succeed later
        └── NodeError            ... one node, which the message names
            ├── NodeAway         not connected: failed at once, nothing was sent
            ├── NodeTimeout      no answer in time: the outcome of a write is unknown
            ├── NodeBroken       the connection ended or made no sense: likewise unknown
            └── NodeRefused      the node answered with an error of its own: nothing was done

There are few kinds, each named by what the one who catches it can do. Every message is a sentence for the person who
reads it: what is wrong, where, and what to do.
"""

from __future__ import annotations


class SfssError(Exception):
    """The root: catching it catches whatever sfss raises on purpose."""


class ConfigError(SfssError):
    """A setting, an option or a data directory can't be used as it is; the message names it and the mend."""


class BadRequest(SfssError):
    """What the caller sent can't be taken; sending the same again won't help."""


class BadPath(BadRequest):
    """The path can't be the name of a file."""


class BadDigest(BadRequest):
    """The content doesn't have the digest that came with it."""


class BadChecksum(BadDigest):
    """A piece of an upload doesn't have the checksum that came with it; the upload is as it was before."""


class BadBody(BadRequest):
    """The content's framing is broken: a multipart body without its end, a part that is missing."""


class BodyTimeout(SfssError):
    """The caller stopped sending in the middle of its content, or took longer than limits.upload_time for all of it."""


class NotFound(SfssError):
    """There is no file at this path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"there is no file at '{path}'")


class NoUpload(SfssError):
    """There is no such resumable upload."""


class UploadGone(NoUpload):
    """There was such an upload, and nobody can go on with it any more."""


class UploadConflict(SfssError):
    """The upload isn't where the caller thinks; nothing was changed."""


class UploadLocked(SfssError):
    """The upload can't be touched now, for another request works on it; the same call may succeed soon."""


class UploadSealed(SfssError):
    """The upload is made of others, and takes no bytes of its own."""


class PreconditionFailed(SfssError):
    """The file's state isn't the one that the caller made a condition of."""


class TooLarge(SfssError):
    """More bytes than a limit allows.

    ``limit`` is in bytes; ``setting`` names what to raise.
    """

    def __init__(self, message: str, *, limit: int, setting: str) -> None:
        super().__init__(message)
        self.limit = limit
        self.setting = setting


class OutOfSpace(SfssError):
    """A node has no room for what it was to keep; nothing was stored."""


class ProtocolError(SfssError):
    """The other end's bytes make no sense as memcached's protocol: the connection is of no more use."""


class Unsupported(SfssError):
    """What was asked can't be done with the nodes that there are; ``node`` is the address of one that can't."""

    def __init__(self, node: str, message: str) -> None:
        super().__init__(f"node {node}: {message}")
        self.node = node


class Damaged(SfssError):
    """A stored record doesn't pass its checksums; it is never served."""


class Gone(Damaged):
    """A block is on none of the nodes that may have it: its file has been deleted or replaced meanwhile, or damaged."""


class Unavailable(SfssError):
    """The nodes that were needed didn't answer; the same call may succeed later."""


class NodeError(Unavailable):
    """One node failed the call; ``node`` is its address, ``host:port``."""

    def __init__(self, node: str, message: str) -> None:
        super().__init__(f"node {node}: {message}")
        self.node = node


class NodeAway(NodeError):
    """The node isn't connected; the call failed at once and nothing was sent."""


class NodeTimeout(NodeError):
    """The node didn't answer in time; if the call was a write, its outcome is unknown."""


class NodeBroken(NodeError):
    """The connection ended, or spoke nonsense, before the answer; a write's outcome is unknown."""


class NodeRefused(NodeError):
    """The node answered that it can't or won't do this; nothing was done."""
