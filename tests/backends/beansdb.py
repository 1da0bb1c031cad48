"""A stand-in for Beansdb, for which there is no Debian package: its rules of the wire, read from its source.

Two generations of it are about. ``bitcask`` (0.5 on, ``src/``) and the older ``tokyo`` (``hstore.c`` over Tokyo
Cabinet). Both have memcached's framing of the year 2009 and keep these rules:

* ``get``, ``set``, ``delete``, ``stats``, ``version``, ``verbosity`` and ``quit`` are all that both know. To another
  command the answer is ERROR, and its data line is then read as a command, with an ERROR of its own.
* exptime is the item's version: 0 means one more than the last, and what isn't newer than it is NOT_STORED. It stays
  after a delete in ``bitcask``, where a negative one deletes.
* A set of the very same bytes is NOT_STORED in ``tokyo`` (unchanged), and STORED in ``bitcask``.
* A key that begins with ``@`` lists the tree and can't be set; ``?key`` tells of ``key``. In ``bitcask`` a key whose
  first byte isn't ASCII never gets into the tree: STORED, and not there. Keys have up to 250 bytes.
* The tree is one of the keys' hashes (fnv1a). ``@`` and ``@<hex digits>`` give 16 lines ``<digit>/ <hash> <count>``
  while there are many keys below, and else a line ``<key> <hash> <version>`` for each, those that were deleted too,
  with a version below 0 (``hs_list`` in ``hstore.c``; ``list_dir`` in ``htree.c``, whose SPLIT_LIMIT is 64).
* The flags 0x10 and 0x10000 mean compressed data.

``go`` is GoBeansDB, as far as reading it goes. Its tree has 64 bits of hash and no keys: the lines are ``<16 hex
digits> <hash> <version>`` (``ListDir`` in ``store/htree.go``). ``@@<16 hex digits>`` is a record as it lies on disk:
checksum, time, flags, version, sizes of key and value, key, value (``Get`` in ``gobeansdb/store.go``, ``append`` in
``store/datafile.go``). It has no ``pointer_size`` in its STATS (``memcache/stats.go``).

Whatever a client sends that these rules misread is kept in ``violations``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import struct
import time
import zlib
from collections.abc import AsyncIterator
from typing import Literal, NamedTuple

from tests.servers import HOST

VERSION = "0.6.0"
MAX_KEY = 250
MAX_VALUE = 50 * 1024 * 1024
MAX_TOKENS = 8 - 1  # the last one is the terminal token
HEIGHT = 1  # digits of a path above which only directories are listed
AS_KEYS = 64 * 4  # live keys that are listed as keys; where there are more, as directories

Generation = Literal["bitcask", "tokyo", "go"]


class Item(NamedTuple):
    """``version`` is below 0 for one that was deleted."""

    version: int
    flags: int
    data: bytes


class Beansdb:
    """What the clients of one stand-in share."""

    def __init__(self, generation: Generation, *, walked: bool = False) -> None:
        self.bitcask = generation != "tokyo"
        self.hashed = generation == "go"
        self.walked = walked  # its client means to list the tree
        self.items: dict[bytes, Item] = {}
        self.violations: list[str] = []
        self.port = 0
        self._started = time.time() - 2
        self._gets = self._sets = self._deletes = self._hits = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, until it hangs up."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while line := await reader.readline():
                words = line.removesuffix(b"\n").removesuffix(b"\r").split(b"\0")[0].split(b" ")
                tokens = [word for word in words if word][:MAX_TOKENS]
                if tokens == [b"quit"]:
                    break
                if tokens and tokens[0] == b"set" and 5 <= len(tokens) <= 6:
                    answer = await self._set(tokens, reader)
                else:
                    answer = self._answer(tokens)
                # lru_crawler is asked for by who doesn't know yet what he speaks to
                if answer.startswith((b"ERROR", b"CLIENT_ERROR")) and tokens[:1] != [b"lru_crawler"]:
                    self.violations.append(f"{answer.decode()} to {line[:100]!r}")
                writer.write(answer + b"\r\n")
                await writer.drain()
        writer.close()

    def _answer(self, tokens: list[bytes]) -> bytes:
        match tokens:
            case [b"get", *keys] if keys:
                return self._get(keys)
            case [b"delete", key] | [b"delete", key, _]:
                return self._delete(key)
            case [b"stats"]:
                return b"".join(f"STAT {name} {figure}\r\n".encode() for name, figure in self._figures()) + b"END"
            case [b"stats", b"reset", *_]:
                return b"RESET"
            case [b"version"]:
                return f"VERSION {VERSION}".encode()
            case [b"verbosity", _]:
                return b"OK"
        return b"ERROR"

    def _get(self, keys: list[bytes]) -> bytes:
        found = []
        for key in keys:
            if len(key) > MAX_KEY:
                return b"CLIENT_ERROR bad command line format"
            self._check_key(key)
            self._gets += 1
            if key[:1] == b"@":
                listing = self._record(key[2:]) if self.hashed and key[1:2] == b"@" else self._list(key[1:])
                if listing is not None:
                    found.append((key, 0, listing))
            elif key[:1] == b"?":
                if item := self.items.get(key[1:]):
                    found.append((key, 0, b"%d 0 %d %d 0" % (item.version, item.flags, len(item.data))))
            elif (item := self.items.get(key)) and item.version > 0:
                found.append((key, item.flags, item.data))
        self._hits += len(found)
        return (
            b"".join(b"VALUE %b %d %d\r\n%b\r\n" % (key, flags, len(data), data) for key, flags, data in found) + b"END"
        )

    def _list(self, path: bytes) -> bytes | None:
        below = [(key, item) for key, item in self.items.items() if _place(key, self.hashed).startswith(path)]
        live = [key for key, item in below if item.version > 0]
        if len(path) < HEIGHT or len(live) > AS_KEYS:
            places = [_place(key, self.hashed)[len(path) : len(path) + 1] for key in live]
            return b"".join(b"%x/ %d %d\n" % (n, n * 97, places.count(b"%x" % n)) for n in range(16))
        return b"".join(
            b"%b %d %d\n" % (_place(key, True) if self.hashed else key, _value_hash(item.data), item.version)
            for key, item in below
        )

    def _record(self, place: bytes) -> bytes | None:
        for key, item in self.items.items():
            if _place(key, hashed=True) == place:
                head = struct.pack("<IIiII", int(time.time()), item.flags, item.version, len(key), len(item.data))
                rest = head + key + item.data
                return struct.pack("<I", zlib.crc32(rest)) + rest
        return None

    async def _set(self, tokens: list[bytes], reader: asyncio.StreamReader) -> bytes:
        key = tokens[1]
        flags, version, length = (_strtol(token) for token in tokens[2:5])
        if len(key) > MAX_KEY or length < 0:
            return b"CLIENT_ERROR bad command line format"  # and the data will be read as commands
        data = await reader.readexactly(length + 2)
        self._sets += 1
        self._check_key(key)
        if flags or version:
            self.violations.append(f"flags {flags}, version {version} in a set of {key!r}")
        if not data.endswith(b"\r\n"):
            return b"CLIENT_ERROR bad data chunk"
        return b"STORED" if self._put(key, flags, version, data[:-2]) else b"NOT_STORED"

    def _put(self, key: bytes, flags: int, version: int, data: bytes) -> bool:
        if key[:1] == b"@" or len(data) > MAX_VALUE or (self.bitcask and version < 0 and data):
            return False
        old = self.items.get(key, Item(0, 0, b""))
        if version < 0 and self.bitcask:
            return self._remove(key)
        if version and abs(version) <= abs(old.version):
            return False
        version = version or abs(old.version) + 1
        if old.version > 0 and old.data == data and (old.flags == flags or not self.bitcask):
            self.items[key] = old._replace(version=version) if not self.bitcask else old
            return self.bitcask
        if not (self.bitcask and key[0] >= 0x80):
            self.items[key] = Item(version, flags, data)
        return True

    def _delete(self, key: bytes) -> bytes:
        if len(key) > MAX_KEY:
            return b"CLIENT_ERROR bad command line format"
        self._check_key(key)
        self._deletes += 1
        return b"DELETED" if self._remove(key) else b"NOT_FOUND"

    def _remove(self, key: bytes) -> bool:
        item = self.items.get(key)
        if item is None or item.version < 0:
            return False
        if self.bitcask:
            self.items[key] = Item(-item.version - 1, 0, b"")
        else:
            del self.items[key]
        return True

    def _check_key(self, key: bytes) -> None:
        lists = re.fullmatch(rb"@[0-9a-f]{0,16}|@@[0-9a-f]{16}" if self.hashed else rb"@[0-9a-f]{0,8}", key)
        if not (lists and self.walked) and (key[:1] in (b"@", b"?") or key[0] >= 0x80):
            self.violations.append(f"the key {key!r} has another meaning here")

    def _figures(self) -> list[tuple[str, object]]:
        figures = [
            ("pid", os.getpid()),
            ("uptime", int(time.time() - self._started)),
            ("time", int(time.time())),
            ("version", VERSION),
            ("pointer_size", 64),
            ("rusage_user", "0.010000"),
            ("rusage_system", "0.010000"),
            ("rusage_maxrss", 10_000),
            ("item_buf_size", 4096),
            ("curr_connections", 1),
            ("total_connections", 1),
            ("connection_structures", 1),
            ("cmd_get", self._gets),
            ("cmd_set", self._sets),
            ("cmd_delete", self._deletes),
            ("slow_cmd", 0),
            ("get_hits", self._hits),
            ("get_misses", self._gets - self._hits),
            ("curr_items", len(self.items)),
            ("total_items", len(self.items)),
            ("avail_space", 10**9),
            ("total_space", 10**10),
            ("bytes_read", 0),
            ("bytes_written", 0),
            ("threads", 16),
        ]
        only_of_c = ("pointer_size", "item_buf_size", "connection_structures")
        return [figure for figure in figures if not (self.hashed and figure[0] in only_of_c)]


@contextlib.asynccontextmanager
async def beansdb(generation: Generation, *, walked: bool = False) -> AsyncIterator[Beansdb]:
    """A running stand-in, whose tree may be listed if ``walked``.

    What a client did against its rules fails the test at the end.
    """
    standin = Beansdb(generation, walked=walked)
    clients: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        clients.add(task)
        try:
            await standin.serve(reader, writer)
        finally:
            clients.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(serve, HOST, 0, limit=4096)
    standin.port = server.sockets[0].getsockname()[1]
    try:
        yield standin
    finally:
        server.close()
        await server.wait_closed()
        for task in list(clients):
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    assert not standin.violations, standin.violations


@functools.cache
def _place(key: bytes, hashed: bool) -> bytes:
    """A key's place in the tree. GoBeansDB adds murmur to fnv1a; here another hash does as well."""
    return b"%08x%08x" % (_fnv1a(key), zlib.crc32(key)) if hashed else b"%08x" % _fnv1a(key)


def _fnv1a(data: bytes) -> int:
    """Of signed chars, as both have it."""
    number = 0x811C9DC5
    for byte in data:
        number = ((number ^ (byte if byte < 0x80 else byte | 0xFFFFFF00)) * 0x01000193) % 2**32
    return number


def _value_hash(data: bytes) -> int:
    if len(data) <= 1024:
        return (len(data) * 97 + _fnv1a(data)) % 2**16
    return ((len(data) * 97 + _fnv1a(data[:512])) * 97 + _fnv1a(data[-512:])) % 2**16


def _strtol(token: bytes) -> int:
    """C's strtol: what isn't a number is 0."""
    sign, digits = (-1, token[1:]) if token[:1] == b"-" else (1, token)
    number = digits[: len(digits) - len(digits.lstrip(b"0123456789"))]
    return sign * int(number or b"0")
