"""Which kind of source is it? It is asked: ``version``, ``stats``, and then to list its keys."""

from __future__ import annotations

from sfss import listing
from sfss.addresses import Address
from sfss.errors import ConfigError
from sfss.memcache import ERROR
from sfss.node.importing.beansdb import Beansdb
from sfss.node.importing.memcached import Memcached, begin_listing
from sfss.node.importing.peer import Peer, statistics, text
from sfss.node.importing.source import Source, Unreadable, found


async def find_out(name: str, kind: str, address: Address, patience: float) -> Source:
    """Ask what is at ``address``, and have it begin to list; ``kind`` is memcached, beansdb, or empty for any.

    Raises ConfigError if it is something else, or doesn't list its keys; Unavailable if it doesn't answer.
    """
    lister = await Peer.connect(name, address, patience)
    try:
        reader = await Peer.connect(name, address, patience)
        try:
            return await _find_out(kind, lister, reader)
        except BaseException:
            reader.close()
            raise
    except BaseException:
        lister.close()
        raise


async def _find_out(kind: str, lister: Peer, reader: Peer) -> Source:
    version = (await reader.ask(b"version")).line
    if not version.startswith(b"VERSION "):
        raise ConfigError(f"{reader.name} can't be imported from: asked for its version, it says '{text(version)}'")
    figures = await statistics(reader)
    refusal = b""
    if kind != "beansdb":
        head, whole = await begin_listing(lister)
        if listing.is_dump(head):
            meta = (await reader.ask(b"mn")).line == b"MN"
            count = figures.get(b"curr_items", b"")
            items = int(count) if count.isdigit() else None
            return Memcached(lister, reader, head, items, whole=whole, meta=meta)
        refusal = head.partition(b"\r\n")[0]
    if kind != "memcached" and refusal in (b"", ERROR):
        root = await _root(reader)
        if root is not None:
            return Beansdb(lister, reader, root, hashed=listing.is_hashed(figures))
    raise ConfigError(f"{reader.name}, version {text(version[8:])}, doesn't list its keys: {_why_not(refusal)}")


async def _root(peer: Peer) -> bytes | None:
    """What Beansdb lists first; None if it is none."""
    peer.send(b"get @\r\n")
    try:
        root = await found(peer, b"@")
    except Unreadable:
        return None
    return root and root.block


def _why_not(refusal: bytes) -> str:
    if not refusal:
        return "it has no answer to `get @`, by which any Beansdb does"
    said = f"to `lru_crawler metadump` it says '{text(refusal)}'"
    if refusal == ERROR:
        return f"{said}, which memcached knows from 1.4.31 on"
    if b"not allowed" in refusal:
        return f"{said}; it must be started without -X"
    if b"disabled" in refusal:
        return f"{said}; send it `lru_crawler enable`"
    return said
