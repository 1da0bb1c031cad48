"""DEDUPLICATE(): a content is kept once whatever number of files have it, none is lost, and none stays for ever."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from sfss import record
from sfss.addresses import parse_address
from sfss.backends.postgresql import PostgresNode
from sfss.record import Kind
from tests.post.conftest import Ask
from tests.test_record import make

KIB = 1024


@contextlib.asynccontextmanager
async def node(url: str) -> AsyncIterator[PostgresNode]:
    client = PostgresNode(parse_address(url), largest_value=2**26, connect_timeout=5.0, timeout=20.0)
    await client.start()
    assert client.away is None
    try:
        yield client
    finally:
        await client.close()


def content(number: int, size: int = 4 * KIB) -> bytes:
    return hashlib.sha256(b"%d" % number).digest() * (size // 32)


def shares(ask: Ask) -> tuple[int, int, int, int]:
    contents, files, size, freed = ask("select * from DEDUPLICATE()").split("|")
    return int(contents), int(files), int(size), int(freed)


def test_what_several_files_have_is_kept_once_and_read_as_before(ask: Ask, folder: Path) -> None:
    (folder / "same").write_bytes(content(1))
    (folder / "other").write_bytes(content(2))
    for key in ("a", "b", "c"):
        ask(f"select IMPORT('{key}', '{folder}/same')")
    ask(f"select IMPORT('other', '{folder}/other')")
    assert shares(ask) == (1, 3, 3 * 4 * KIB, 0)
    assert ask("select count(*), sum(octet_length(content)) from post.contents") == f"1|{4 * KIB}"
    assert ask("select count(*) from post.files where content is not null") == "1", "who is alone keeps his own"
    for key in ("a", "b", "c"):
        assert ask(f"select EXPORT('{key}', '{folder}/{key}')") == str(4 * KIB)
        assert (folder / key).read_bytes() == content(1)
    assert shares(ask) == (0, 0, 0, 0), "there is nothing more to do"
    ask(f"select IMPORT('d', '{folder}/same')")
    assert shares(ask) == (0, 1, 4 * KIB, 0), "the content is there already"


def test_a_content_that_nobody_has_any_more_is_freed(ask: Ask, folder: Path) -> None:
    (folder / "same").write_bytes(content(1))
    for key in ("a", "b"):
        ask(f"select IMPORT('{key}', '{folder}/same')")
    shares(ask)
    ask("select DELETE('a')")
    assert shares(ask) == (0, 0, 0, 0)
    assert ask(f"select EXPORT('b', '{folder}/b')") == str(4 * KIB)
    ask("select DELETE('b')")
    assert shares(ask) == (0, 0, 0, 4 * KIB)
    assert ask("select count(*) from post.contents") == "0"


def test_it_refuses_to_look_at_what_was_so_once(ask: Ask, fail: Ask) -> None:
    for level in ("REPEATABLE READ", "SERIALIZABLE"):
        said = fail(f"BEGIN TRANSACTION ISOLATION LEVEL {level}; select DEDUPLICATE()")
        assert f"READ COMMITTED, and this one is {level}" in said
    ask("CALL post.deduplicate_in_steps()")


async def test_files_of_a_front_are_shared_blocks_too_and_their_tokens_hold(database: str, ask: Ask) -> None:
    async with node(database) as client:
        files = {b"/%d" % number: make(content(1), version=number + 1) for number in range(3)}
        blocks = {
            b"#upload/%d" % number: make(content(2), version=number + 1, kind=Kind.BLOCK, sha256=b"")
            for number in range(3)
        }
        await asyncio.gather(*(client.set(key, data) for key, data in (files | blocks).items()))
        before = {key: await client.gets(key) for key in files | blocks}
        await asyncio.to_thread(ask, "CALL post.deduplicate_in_steps()")
        assert await asyncio.to_thread(ask, "select count(*) from post.contents") == "2"
        for key, data in (files | blocks).items():
            assert await client.gets(key) == before[key]
            assert (await client.get(key), await client.head(key)) == (data, data[: record.header_end(data)])
        assert [item.size for item in await client.scan(b"/", 3)] == [len(data) for data in files.values()]
        found = before[b"/0"]
        assert found
        assert await client.replace(b"/0", make(b"new", version=9), found.token)
        assert await client.get(b"/0") == make(b"new", version=9)
        assert await client.get(b"/1") == files[b"/1"]


async def test_a_digest_that_is_false_makes_no_two_contents_one(database: str, ask: Ask) -> None:
    async with node(database) as client:
        lies = {b"/%d" % n: make(content(n), version=1, sha256=hashlib.sha256(b"lie").digest()) for n in range(3)}
        for key, data in lies.items():
            await client.set(key, data)
        await asyncio.to_thread(shares, ask)
        for key, data in lies.items():
            assert await client.get(key) == data


async def test_steps_of_two_who_deduplicate_never_mix(database: str, ask: Ask, folder: Path) -> None:
    """Else one would free what the other is about to refer to."""
    (folder / "same").write_bytes(content(1))
    for key in ("a", "b"):
        await asyncio.to_thread(ask, f"select IMPORT('{key}', '{folder}/same')")
    one, other = await asyncpg.connect(database), await asyncpg.connect(database)
    try:
        await one.execute("SELECT post.keep_twins()")
        sharing = one.transaction()
        await sharing.start()
        await one.execute("SELECT post.share(partition) FROM post.partitions() AS partition")
        await other.execute("SET lock_timeout = '100ms'")
        for step in ("keep_twins()", "free_contents()", "share('post.files_0')"):
            with pytest.raises(asyncpg.LockNotAvailableError):
                await other.execute(f"SELECT post.{step}")
        await sharing.commit()
        assert await other.fetchval("SELECT post.free_contents()") == 0
    finally:
        await one.close()
        await other.close()
    assert await asyncio.to_thread(ask, f"select EXPORT('b', '{folder}/b')") == str(4 * KIB)


class Turmoil:
    """Writers, each with files of its own, of which it knows what they must be; contents are few, and come and go."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.shared = 0  # how many times a file was moved to a shared content
        self.kept: list[dict[bytes, bytes]] = [{} for _ in range(4)]

    async def deduplicate(self, database: str, statement: str) -> None:
        connection = await asyncpg.connect(database)
        try:
            while not self.done.is_set():
                self.shared += (await connection.fetchrow(statement))["files"]
        finally:
            await connection.close()

    async def write(self, client: PostgresNode, writer: int) -> None:
        kept, version = self.kept[writer], 0
        while not self.done.is_set():
            version += 1
            key = b"/%d/%d" % (writer, random.randrange(6))
            if random.random() < 0.3:
                assert await client.delete(key) == (key in kept)
                kept.pop(key, None)
            else:
                kept[key] = make(content(random.randrange(3)), version=version)
                assert await client.set(key, kept[key])
            assert await client.get(key) == kept.get(key)

    async def read(self, client: PostgresNode) -> None:
        while not self.done.is_set():
            found = await client.get(b"/%d/%d" % (random.randrange(4), random.randrange(6)))
            assert found is None or record.decode(found).payload in {content(n) for n in range(3)}


async def test_no_content_is_lost_while_others_write_delete_and_read(database: str, ask: Ask, *, long: bool) -> None:
    turmoil = Turmoil()
    async with node(database) as client, node(database) as other:
        asyncio.get_running_loop().call_later(60 if long else 4, turmoil.done.set)
        async with asyncio.TaskGroup() as group:
            group.create_task(turmoil.deduplicate(database, "SELECT * FROM deduplicate()"))
            group.create_task(turmoil.deduplicate(database, "CALL post.deduplicate_in_steps()"))
            for writer in range(4):
                group.create_task(turmoil.write((client, other)[writer % 2], writer))
            group.create_task(turmoil.read(other))
        print(f"{turmoil.shared} times a file was moved to a shared content meanwhile")
        assert turmoil.shared > 20
        for writer, mine in enumerate(turmoil.kept):
            for number in range(6):
                key = b"/%d/%d" % (writer, number)
                assert await client.get(key) == mine.get(key)
        await asyncio.gather(*(client.delete(key) for mine in turmoil.kept for key in mine))
        await asyncio.to_thread(shares, ask)
    assert await asyncio.to_thread(ask, "select count(*) from post.contents") == "0"


def test_it_gives_back_space(ask: Ask, folder: Path) -> None:
    (folder / "same").write_bytes(content(1, 256 * KIB))
    ask(f"select count(IMPORT(number::text, '{folder}/same')) from generate_series(1, 40) as number")
    tables = "pg_class as c join pg_namespace as n on n.oid = c.relnamespace and n.nspname = 'post' and c.relkind = 'r'"
    size = f"select sum(pg_total_relation_size(c.oid)) from {tables}"
    before = int(ask(size))
    shares(ask)
    ask("VACUUM FULL " + ask("select string_agg(partition::text, ', ') from post.partitions() as partition"))
    after = int(ask(size))
    print(
        f"40 files of 256 KiB with the same content: {before:,} bytes before DEDUPLICATE(),"
        f" {after:,} after it and VACUUM FULL"
    )
    assert before > 40 * 256 * KIB
    assert after < 256 * KIB + 2**20


@pytest.mark.parametrize("statement", ["select DEDUPLICATE()", "CALL post.deduplicate_in_steps()"])
def test_an_empty_store_is_no_error(ask: Ask, statement: str) -> None:
    assert "0" in ask(statement)
