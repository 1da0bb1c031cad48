"""What a Redis's errors mean for us, and for who runs it."""

from __future__ import annotations

import re

from sfss.backends.resp.wire import Refusal
from sfss.errors import NodeRefused, OutOfSpace, SfssError, TooLarge

# An error begins with its code; that of what a script called may stand within it.
_CODES = re.compile(r"\b(OOM|MISCONF|READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|NOREPLICAS|WRONGTYPE|NOSCRIPT)\b")
_TOO_LARGE = re.compile(r"invalid bulk length|invalid multibulk length|max request size|exceeds maximum allowed size")
_NO_DISK = re.compile(r"no space left|disk is full|out of disk", re.IGNORECASE)

# After these the connection is of no use: who it is, and what it can do, is to be asked anew.
GONE = frozenset({"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH"})

_MEANT = {
    "NOAUTH": "wants a password: put it into the URL, redis://USER:PASSWORD@HOST, or redis://:PASSWORD@HOST",
    "WRONGPASS": "doesn't know this user or password: put the right ones into the URL",
    "NOPERM": "doesn't let this user do that: its ACL must allow ~* +@read +@write +@scripting +@connection +info +time"
    " +config|get",
    "READONLY": "is a replica, which takes no writes: name the primary",
    "LOADING": "loads its files still",
    "MASTERDOWN": "is a replica, and its primary is down: name the primary",
    "NOREPLICAS": "has fewer replicas in step than its min-replicas-to-write asks for: it takes writes when they are"
    " back",
    "CLUSTERDOWN": "belongs to a cluster that is down: `redis-cli --cluster check` says which slots nobody serves",
    "MISCONF": "takes no writes, for it can't save to its disk: see to the disk, and to its log",
    "WRONGTYPE": "has something of another program there, which is no string: give sfss a database of its own",
    "MOVED": "belongs to a cluster, and says that it has changed again and again",
    "ASK": "belongs to a cluster, and says that it has changed again and again",
    "BUSY": "is busy with somebody's script: SCRIPT KILL ends it",
    "EXECABORT": "broke off what it was to do",
}


def code(refusal: Refusal) -> str:
    """What it is, in a word."""
    return found[1] if (found := _CODES.search(refusal)) else refusal.partition(" ")[0]


def meaning(node: str, refusal: Refusal, largest: int) -> SfssError:
    """The error to raise; ``largest`` is the number of bytes that a record may have there, as far as it is known."""
    text, what = refusal[:300], code(refusal)
    if what == "OOM":
        return OutOfSpace(f"node {node} has no room: {text}; raise its maxmemory, or add nodes")
    if what == "MISCONF" and _NO_DISK.search(text):
        return OutOfSpace(f"node {node} has no room on its disk: {text}")
    if _TOO_LARGE.search(text):
        return too_large(node, largest)
    if "max number of clients" in text:
        return NodeRefused(node, f"has as many clients as its maxclients lets in: raise it ({text})")
    return NodeRefused(node, f"{_MEANT[what]} ({text})" if what in _MEANT else f"answered {text}")


def too_large(node: str, largest: int) -> TooLarge:
    """For a record that is larger than the node takes."""
    return TooLarge(
        f"node {node} takes records of at most {largest} bytes: raise proto-max-bulk-len of that node, or send a"
        " smaller file",
        limit=largest,
        setting="proto-max-bulk-len",
    )
