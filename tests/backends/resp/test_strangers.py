"""What answers at a node's place may be anything: the client says that it is away, or fails the call, no more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from sfss.errors import SfssError
from tests.backends.test_redis_node import client_of
from tests.servers import HOST

pytestmark = pytest.mark.usefixtures("nothing_leaks")

INFO = b"redis_version:7.0.15\r\nrole:master\r\naof_enabled:1\r\n"
Answer = Callable[[list[bytes], int], bytes]  # to a command, which is the so-manieth


@contextlib.asynccontextmanager
async def stranger(answer: Answer) -> AsyncIterator[str]:
    """A server that reads commands as Redis does, and answers each as it likes; an empty answer hangs up. Its URL."""
    writers = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            for number in range(10_000):
                count = int((await reader.readuntil(b"\r\n"))[1:])
                words = []
                for _ in range(count):
                    size = int((await reader.readuntil(b"\r\n"))[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                if not (said := answer(words, number)):
                    break
                writer.write(said)
        writer.transport.abort()

    server = await asyncio.start_server(serve, HOST, 0, limit=2**24)
    try:
        yield f"redis://{HOST}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


def as_redis(words: list[bytes]) -> bytes:
    """Enough to be taken for one."""
    verb = words[0].upper()
    if verb == b"INFO":
        return bulk(INFO)
    if verb == b"CONFIG":
        return b"*2\r\n" + bulk(words[2]) + bulk(b"1024")
    if verb == b"TIME":
        return b"*2\r\n" + bulk(b"1790000000") + bulk(b"5")
    return b":1\r\n" if verb in (b"EXISTS", b"DBSIZE", b"EVALSHA") else b"+OK\r\n"


NONSENSE = [
    b"", b"+OK\r\n", b":5\r\n", b"$-1\r\n", b"*-1\r\n", b"*0\r\n", b"*1\r\n:1\r\n", b"*2\r\n", b"+OK\r\n+OK\r\n",
    b"*2\r\n$1\r\n0\r\n:5\r\n", b"*2\r\n:5\r\n$1\r\n0\r\n", b"*3\r\n*1\r\n:1\r\n$-1\r\n+x\r\n",
    b"*5\r\n:10\r\n$2\r\n/z\r\n$1\r\na\r\n$1\r\nb\r\n:3\r\n", b"*5\r\n:10\r\n$2\r\n/z\r\n:1\r\n$-1\r\n$1\r\n3\r\n",
    b"-\r\n", b"-ERR no\r\n", b"-MOVED 1 h:1\r\n", b"-MOVED x\r\n", b"-ASK 5 :0\r\n", b"-NOSCRIPT\r\n",
    b"$3\r\n\xff\0\n\r\n", b"$99999999999\r\n", b"*99999999999\r\n", b"$-7\r\n", b":1e9\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
]  # fmt: skip


async def use(url: str) -> None:
    """Everything that a client can be asked, within its time; nothing but our errors comes out."""
    async with client_of(url, connect_timeout=0.2, timeout=0.2, retry_after=0.05) as client:

        async def keys() -> list[bytes]:
            walk = client.keys()
            return [key async for some in walk for key in some]

        for _ in range(2):
            calls = [
                client.get(b"/k"), client.gets(b"/k"), client.head(b"/k"), client.set(b"/k", b"v"),
                client.add(b"/k", b"v"), client.replace(b"/k", b"v", 1), client.delete(b"/k"),
                client.remove(b"/k", 1), client.stats(), client.scan(b"", 10), client.heads(b"", 10),
                client.any_in([(b"/a", b"/b")]), keys(),
            ]  # fmt: skip
            async with asyncio.timeout(5):
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(one, SfssError) for one in outcomes if isinstance(one, BaseException)), outcomes
            told: list[object] = []
            client.get_soon(b"/k", told.append)
            client.head_soon(b"/k", told.append)
            client.set_soon(b"/k", b"v", told.append)
            async with asyncio.timeout(5):
                while len(told) < 3:
                    await asyncio.sleep(0.005)


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_who_answers_nonsense_from_the_first_is_away_or_fails_calls(nonsense: bytes) -> None:
    async with stranger(lambda words, number: nonsense) as url:
        await use(url)


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_who_answers_nonsense_once_it_is_trusted_fails_calls(nonsense: bytes) -> None:
    known = (b"INFO", b"CONFIG", b"TIME", b"SCRIPT", b"CLIENT", b"EXISTS")
    async with stranger(lambda words, number: as_redis(words) if words[0] in known else nonsense) as url:
        await use(url)


@pytest.mark.parametrize("verb", [b"INFO", b"CONFIG", b"TIME", b"SCRIPT", b"CLIENT", b"EXISTS"])
async def test_who_answers_one_question_with_nonsense_is_away_or_fails_calls(verb: bytes) -> None:
    for nonsense in NONSENSE:

        def answer(words: list[bytes], _: int, nonsense: bytes = nonsense) -> bytes:
            return nonsense if words[0] == verb else as_redis(words)

        async with (
            stranger(answer) as url,
            client_of(url, connect_timeout=0.1, timeout=0.1, retry_after=0.05) as client,
        ):
            with contextlib.suppress(SfssError):
                await client.get(b"/k")


async def test_who_belongs_to_a_cluster_that_makes_no_sense_is_away() -> None:
    places = [
        b"*0\r\n",
        b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:1\r\n",
        b"*1\r\n*3\r\n:-5\r\n:99999999\r\n*2\r\n$1\r\nh\r\n:0\r\n",
        b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$-1\r\n:99999\r\n",
        b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$2\r\n\xff\xfe\r\n:5\r\n",
        *NONSENSE,
    ]

    said = b""

    def answer(words: list[bytes], number: int) -> bytes:
        if words[0] == b"INFO":
            return bulk(INFO + b"cluster_enabled:1\r\n")
        return said if words[0] == b"CLUSTER" else as_redis(words)

    async with stranger(answer) as url:
        for place in places:
            said = place
            async with client_of(url, connect_timeout=0.1, timeout=0.1, retry_after=0.05) as client:
                assert client.away, "and not for good: the keeper goes on"
                assert not client._keeper._keeping.done()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "where", [b"MOVED 99999 h:1", b"MOVED 5 %b:99999", b"ASK 5 %b:0", b"MOVED 5 \xff:7", b"ASK 5 %b:%d", b"MOVED 5 :%d"]
)
async def test_a_cluster_that_sends_one_round_and_round_fails_calls(where: bytes) -> None:
    port = 0

    def answer(words: list[bytes], number: int) -> bytes:
        here = bulk(HOST.encode()), b":%d\r\n" % port
        if words[0] == b"INFO":
            return bulk(INFO + b"cluster_enabled:1\r\n")
        if words[0] == b"CLUSTER":
            return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n" + b"".join(here)
        if words[0] in (b"GET", b"GETRANGE", b"EVALSHA"):
            filled = where.replace(b"%b", HOST.encode()).replace(b"%d", b"%d" % port)
            return b"-%b\r\n" % filled
        return as_redis(words)

    async with stranger(answer) as url:
        port = int(url.rpartition(":")[2])
        await use(url)
