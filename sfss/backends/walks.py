"""All keys of a node that has no ``scan``, over a ``Stream``. ``sfss/listing.py`` knows what their lists look like.

No more is held than some requests' replies, whatever the node holds, and whoever is given the keys may take his time:
a memcached is heard out all the same, into a ``Spool``. A list that makes no sense raises ProtocolError.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator

from sfss import listing
from sfss.backends.stream import Stream
from sfss.errors import NodeRefused, ProtocolError
from sfss.memcache import CLIENT_ERROR, END, ERROR, SERVER_ERROR, Reply, ReplyParser, command, retrieval
from sfss.spool import Spool

log = logging.getLogger("sfss.backends")

BUSY_PAUSE = 0.5  # seconds until a memcached that lists for somebody else is asked again
TOGETHER = 16  # directories, or records, that are asked for at once
LARGEST = 64 * 1024 * 1024  # bytes of a reply: GoBeansDB gives a key with its record, which has 50 MiB at the most
GARBAGE_LOOKS = 5  # at a record that another one was moved over, in the time of ...
GARBAGE_PAUSE = 0.1  # ... seconds between two

Keys = AsyncGenerator[list[bytes], None]


# --- memcached -------------------------------------------------------------------------------------------------------


async def keys_of_memcached(stream: Stream, patience: float) -> Keys:
    """By ``lru_crawler metadump``; ``patience``, in seconds, is with one that lists for somebody else."""
    head = await _begin(stream, patience)
    spool = Spool()
    filler = asyncio.create_task(_fill(spool, stream, head), name=f"list of {stream.node}")
    try:
        async for lines in spool.batches():
            yield [_key(line) for line in lines]
        await filler  # raises what ended the list
    finally:
        filler.cancel()
        await asyncio.gather(filler, return_exceptions=True)
        spool.close()


async def _begin(stream: Stream, patience: float) -> bytes:
    """Have it begin to list: what comes of it first."""
    for walk in listing.WALKS:
        head = await _ask_while_busy(stream, walk, patience)
        if listing.is_dump(head):
            if walk != listing.WALKS[0]:
                log.warning("node %s is an old memcached: its list may leave out keys that are in use; upgrade it",
                            stream.node)  # fmt: skip
            return head
        if not head.startswith(listing.NO_SUCH_WALK):
            break
    refusal = head.partition(b"\r\n")[0][:200].decode(errors="replace")
    raise NodeRefused(stream.node, f"doesn't list its keys: to `lru_crawler metadump` it answered {refusal}")


async def _ask_while_busy(stream: Stream, walk: bytes, patience: float) -> bytes:
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        stream.send(command(b"lru_crawler", b"metadump", walk))
        head = await stream.receive()
        while b"\n" not in head:
            _check_line(head)
            head += await stream.receive()
        if not head.startswith(listing.BUSY) or asyncio.get_running_loop().time() > deadline:
            return head
        await asyncio.sleep(BUSY_PAUSE)


async def _fill(spool: Spool, stream: Stream, rest: bytes) -> None:
    """Put the list into the spool as fast as it comes, and its end, whatever that is."""
    try:
        while True:
            lines, rest, ended = listing.whole_lines(rest)
            spool.put(lines)
            if ended:
                return
            _check_line(rest)
            rest += await stream.receive()
    finally:
        spool.end()


def _key(line: bytes) -> bytes:
    found = listing.dumped(line)
    if found is None:
        raise ProtocolError(f"lists what is no item: {line[:200]!r}")
    return found.key


def _check_line(begun: bytes) -> None:
    if len(begun) > listing.MAX_DUMP_LINE:
        raise ProtocolError(f"lists what is no item: {begun[:200]!r}")


# --- Beansdb and GoBeansDB -------------------------------------------------------------------------------------------


async def keys_of_beansdb(stream: Stream, _: float) -> Keys:
    """By walking its tree. A GoBeansDB's has hashes for keys, which come with their records: all it holds is read."""
    replies = _Replies(stream)
    stream.send(command(b"stats"))
    hashed = listing.is_hashed((await replies.next()).stats)
    paths = [b""]
    while paths:
        paths, some = paths[:-TOGETHER], paths[-TOGETHER:]
        found: list[bytes] = []
        replies.ask(b"@", some)
        for path in some:
            told = await replies.value(b"@", path) or b""
            directories = listing.directories(told)
            if directories is None:
                found += listing.live(told)
            elif len(path) < listing.DEEPEST:
                paths += [path + name[:1] for name, count in directories.items() if count]
            else:
                raise ProtocolError(f"lists a tree that doesn't end, at @{path.decode()}")
        yield await _looked_up(replies, found) if hashed else found


async def _looked_up(replies: _Replies, places: list[bytes]) -> list[bytes]:
    """The keys that GoBeansDB has at these places.

    Where its garbage is collected, a place may for a moment seem to have another key's record: it is looked at again.
    What can't be read then either is left out, with a warning: nobody could get it from there.
    """
    keys: list[bytes] = []
    for look in range(GARBAGE_LOOKS):
        if look:
            await asyncio.sleep(GARBAGE_PAUSE)
        unread: dict[bytes, str] = {}
        for start in range(0, len(places), TOGETHER):
            keys += await _look_up(replies, places[start : start + TOGETHER], unread)
        places = list(unread)
        if not places:
            break
    for place, why in unread.items():
        log.warning("node %s: the key of hash %s is left out of its list: %s", replies.node, place.decode(), why)
    return keys


async def _look_up(replies: _Replies, places: list[bytes], unread: dict[bytes, str]) -> list[bytes]:
    """The keys at some places; those that can't be read, and why, go into ``unread``."""
    keys = []
    replies.ask(b"@@", places)
    for place in places:
        try:
            data = await replies.value(b"@@", place)
        except NodeRefused as error:
            unread[place] = str(error)
            continue
        if data is None:
            continue
        try:
            record = listing.record(data, place)
        except ProtocolError as error:
            unread[place] = str(error)
        else:
            keys += [record.key] if record.version > 0 else []
    return keys


class _Replies:
    """The replies that come over a stream, in the order in which they were asked for."""

    def __init__(self, stream: Stream) -> None:
        self.node = stream.node
        self._stream = stream
        self._parser = ReplyParser(LARGEST)
        self._ready: deque[Reply] = deque()

    def ask(self, prefix: bytes, names: list[bytes]) -> None:
        """Ask for the values under these names, all at once."""
        for name in names:
            self._stream.send(retrieval(b"get", prefix + name))

    async def value(self, prefix: bytes, name: bytes) -> bytes | None:
        """The value under the oldest name that was asked for, which is this one; None if there is none."""
        values = (await self.next()).values
        if [value.key for value in values] not in ([], [prefix + name]):
            raise ProtocolError(f"lists {values[0].key[:100]!r} where {prefix + name!r} was asked for")
        return values[0].data if values else None

    async def next(self) -> Reply:
        """The next reply. Raises NodeRefused if it is an error."""
        while not self._ready:
            self._ready += self._parser.feed(await self._stream.receive())
        reply = self._ready.popleft()
        if reply.line.startswith((SERVER_ERROR, CLIENT_ERROR, ERROR)):
            raise NodeRefused(self.node, f"in a list, answered {reply.line[:200].decode(errors='replace')}")
        if reply.line != END:
            raise ProtocolError(f"lists what was not asked for: {reply.line[:100]!r}")
        return reply
