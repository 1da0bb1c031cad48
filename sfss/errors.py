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
    ├── Denied                   the caller may not do this
    │   └── NoKey                ... and hasn't shown who he is, or not so that it could be believed
    ├── TooMany                  the caller asks more often than he may: later he may again
    ├── NotWelcome               a node that announces itself isn't to come: off, or without the secret
    ├── NodeConflict             a node can't come, move or leave as things are: the message says why
    ├── NoNode                   no node of that name has announced itself
    ├── PreconditionFailed       the caller's condition on the file's state doesn't hold
    │   └── WriteOnce            ... or that of the path's policy, by which a file that is there stays as it is
    ├── NotAllowed               at this URL the file can't be changed so, whoever asks
    ├── UnknownNamespace         the path begins with no namespace that there is
    ├── NamespaceDisabled        the path's namespace is switched off
    ├── NamespaceConflict        the namespace can't be changed so
    ├── QuotaExceeded            the path's namespace has no room left by its quota
    ├── TooLarge                 over a limit, which the message names
    ├── OutOfSpace               a node has no room
    ├── BacklogFull              a short-term store takes nothing more until some of it has been moved to the nodes
    ├── ProtocolError            the bytes of the other end make no sense as the protocol that it speaks
    ├── Unsupported              a node is of a kind that can't do this
    ├── StorageFailed            nodes failed a caller who is told no more of it than that
    ├── NoCatalogue              only a catalogue can do this, and there is none
    ├── Damaged                  a record's checksum doesn't hold: the copy is not served
    │   └── Gone                 a block that a manifest names is nowhere: look whether the manifest still stands
    └── Unavailable              nodes didn't answer; the same call may succeed later
        ├── CatalogueAway        ... the catalogue's database didn't
        ├── ShortTermAway        ... the short-term store of a write-behind policy didn't
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


class Denied(SfssError):
    """The caller may not do this; the message names no secret."""


class NoKey(Denied):
    """The caller may not do this unless he shows a key; he has shown none, or one that doesn't hold."""


class TooMany(SfssError):
    """The caller asks more often than he may; ``wait`` is in seconds, until he may again."""

    def __init__(self, message: str, *, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class NotWelcome(SfssError):
    """Nodes may not announce themselves here, or this one hasn't the secret that it takes."""


class NodeConflict(SfssError):
    """A node can't come, move or leave as things are: its name or address is another one's, or it isn't empty."""


class NoNode(SfssError):
    """No node of that name has announced itself."""


class PreconditionFailed(SfssError):
    """The file's state isn't the one that the caller made a condition of."""


class WriteOnce(PreconditionFailed):
    """What is at this path stays there: its policy says that nothing is replaced or deleted."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"there is a file at '{path}' already, and it can neither be replaced nor deleted: its policy says"
            " write_once; choose another path"
        )


class NotAllowed(SfssError):
    """What was asked can't be done at this URL; ``allowed`` names the methods that can."""

    def __init__(self, message: str, *, allowed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allowed = allowed


class UnknownNamespace(SfssError):
    """There is no such namespace."""


class NamespaceDisabled(SfssError):
    """The namespace is switched off: its files are neither read nor written."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the namespace '{name}' is disabled: its files can't be read or written until it is enabled")


class NamespaceConflict(SfssError):
    """A namespace can't be made, changed or removed so, as things are; nothing was changed."""


class QuotaExceeded(SfssError):
    """What was to be stored is more than the namespace's quota has left; nothing was stored."""


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


class BacklogFull(SfssError):
    """A short-term store has no room until more of what it has was moved; nothing was stored. ``wait`` in seconds."""

    def __init__(self, message: str, *, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class ProtocolError(SfssError):
    """The other end's bytes make no sense as the protocol that it speaks: the connection is of no more use."""


class Unsupported(SfssError):
    """What was asked can't be done with the nodes that there are; ``node`` is the address of one that can't."""

    def __init__(self, node: str, message: str) -> None:
        super().__init__(f"node {node}: {message}")
        self.node = node


class StorageFailed(SfssError):
    """Nodes failed the call, of a caller whose interface knows one error for that; the same call may succeed later."""


class NoCatalogue(SfssError):
    """What was asked only a catalogue can tell, and this service has none."""


class Damaged(SfssError):
    """A stored record doesn't pass its checksums; it is never served."""


class Gone(Damaged):
    """A block is on none of the nodes that may have it: its file has been deleted or replaced meanwhile, or damaged."""


class Unavailable(SfssError):
    """The nodes that were needed didn't answer; the same call may succeed later."""


class CatalogueAway(Unavailable):
    """The catalogue's database failed the call, or is not to be relied upon now; what lies on nodes is as it was."""


class ShortTermAway(Unavailable):
    """A short-term store failed the call, or was away before. A write's outcome is unknown."""


class OneStore(Unavailable):
    """Two nodes of the settings are one and the same store: nothing may be moved or removed while it is so."""


class NodeError(Unavailable):
    """One node failed the call; ``node`` is its address, ``host:port``, of an engine with its database."""

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
