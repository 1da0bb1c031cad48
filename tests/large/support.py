"""What tests of large files share: which blocks lie on nodes, and content that tells where it is from."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence

import aiohttp

from sfss import manifest, record
from sfss.addresses import parse_address
from sfss.backends.memcached import MemcachedNode
from sfss.record import Header, Kind
from tests.servers import PATIENT

KIB, MIB = 2**10, 2**20
_AT_ONCE = 1000
_FIRST, _LAST = b"#b", b"#c"  # keys of blocks lie between


class Block:
    """A block that lies on a node."""

    def __init__(self, node: str, key: bytes, header: Header) -> None:
        self.node = node
        self.key = key
        self.header = header
        parsed = manifest.parse_block_key(key)
        assert parsed is not None
        self.stripe, self.number = parsed

    def __repr__(self) -> str:
        return f"{self.key.decode()} of {self.header.path} on {self.node}"


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[MemcachedNode]:
    """A client of one node."""
    node = MemcachedNode(parse_address(address), largest_value=2**26, **PATIENT)
    await node.start()
    try:
        yield node
    finally:
        await node.close()


async def blocks_on(nodes: Sequence[str], path: str | None = None) -> list[Block]:
    """All blocks, or those of one path's files, that lie on nodes of ours."""
    found = []
    for address in nodes:
        async with connected(address) as node:
            after = _FIRST
            while True:
                batch = await node.scan(after, _AT_ONCE, _LAST)
                found += [Block(address, item.key, record.decode_bare_header(item.header)) for item in batch]
                if len(batch) < _AT_ONCE:
                    break
                after = batch[-1].key
    assert all(block.header.kind == Kind.BLOCK for block in found)
    return [block for block in found if path is None or block.header.path == path]


async def wait_until_blocks(
    nodes: Sequence[str], are: Callable[[list[Block]], object], path: str | None = None, timeout: float = 20.0
) -> list[Block]:
    """The blocks, when they are as they should be."""
    async with asyncio.timeout(timeout):
        while not are(found := await blocks_on(nodes, path)):
            await asyncio.sleep(0.05)
    return found


def content_of(seed: str, size: int) -> bytes:
    """Bytes that no other seed gives, at any place: 4 KiB of chance, each time with its place before it."""
    chance = b"".join(hashlib.sha256(f"{seed} {n}".encode()).digest() for n in range(128))
    pages = -(-size // (len(chance) + 8))
    return b"".join(page.to_bytes(8, "big") + chance for page in range(pages))[:size]


async def in_chunks(content: bytes, chunk: int = 50_000, pause: float = 0.0) -> AsyncIterator[bytes]:
    """A body of unknown length."""
    for start in range(0, len(content), chunk):
        yield content[start : start + chunk]
        await asyncio.sleep(pause)


async def received(answer: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """What came of an answer's body, and whether it came whole; if not, the connection was cut."""
    got = bytearray()
    try:
        async for chunk in answer.content.iter_any():
            got += chunk
    except aiohttp.ClientPayloadError:
        return bytes(got), False
    return bytes(got), True
