"""``PostgresNode`` over real PostgreSQL: what it finds, what SQL has put, and what may be in the way.

The contract that it keeps as all nodes do is in ``tests/backends/test_postgresql.py``; here it does over one table.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import random
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import asyncpg
import pytest

from sfss import paths, record
from sfss.addresses import Address, parse_address
from sfss.backends import pg_lists, pg_statements
from sfss.backends.postgresql import PostgresNode
from sfss.errors import Damaged, NodeAway, NodeError, NodeRefused, NodeTimeout, OutOfSpace, TooLarge
from sfss.record import Kind
from tests.backends.contract import MIB
from tests.backends.test_postgresql import OverPostgres, new_client
from tests.postgres import Postgres, migrate, pgbouncer
from tests.servers import HOST
from tests.test_record import make

pytestmark = pytest.mark.as_served


@pytest.fixture(scope="module")
def one_table(shared_postgres: Postgres) -> Iterator[str]:
    with shared_postgres.database() as url:
        migrate(url, "--partitions", "1")
        yield url


class TestOverOneTable(OverPostgres):
    """With one table for all keys."""

    @pytest.fixture
    def address(self, one_table: str) -> Address:
        return parse_address(f"{one_table}?connections=3")


class TestBehindPgbouncer:
    """In its transaction mode each transaction may get another connection of the server."""

    @pytest.fixture
    async def node(self, one_table: str) -> AsyncIterator[PostgresNode]:
        with pgbouncer(one_table) as url:
            async with connected(f"{url}?prepared=off&connections=3") as client:
                yield client

    async def test_all_that_a_node_does_works(self, node: PostgresNode) -> None:
        key = b"/pgbouncer/" + uuid.uuid4().hex.encode()
        names = [key + b"/%d" % number for number in range(50)]
        assert all(await asyncio.gather(*(node.set(name, name) for name in names)))
        assert await asyncio.gather(*(node.get(name) for name in names)) == names
        found = await node.gets(names[0])
        assert found
        assert await node.add(names[0], b"x") is False
        assert await node.replace(names[0], b"x", found.token)
        assert await node.remove(names[0], found.token) is False
        assert await node.delete(names[0])
        assert [item.key for item in await node.scan(key + b"/", 49, key + b"0")] == sorted(names[1:])
        assert await node.any_in([(key, key + b"/0"), (key + b"/1", key + b"/2")]) == [False, True]
        assert (await node.stats())["version"]


# --- what it finds ---


async def why_away(url: str) -> str:
    """What is wrong with a node that must not count as one; without the password."""
    client = new_client(parse_address(url))
    await client.start()
    why = client.away
    await client.close()
    assert why
    assert "secret" not in why
    return why


async def test_what_can_not_be_a_node_says_what_to_do(shared_postgres: Postgres) -> None:
    place = f"{HOST}:{shared_postgres.port}"
    assert 'database "nothing" does not exist; make it: createdb' in await why_away(
        f"postgresql://sfss@{place}/nothing"
    )
    with shared_postgres.database() as url:
        name = url.rpartition("/")[2]
        url = url.replace("sfss@", "sfss:secret@")
        hidden = url.replace("secret", "***")
        assert f"there are no tables of sfss in {hidden}: run: sfss post migrate --url {hidden}" in await why_away(url)
        migrate(url, "--partitions", "1")
        shared_postgres.psql(name, "insert into post.schema_versions values (99, 'later')")
        assert "of version 99, and this sfss knows 2: a newer one has made them" in await why_away(url)
        shared_postgres.psql(name, "delete from post.schema_versions where version > 1")
        assert "of version 1, and 2 is needed: run: sfss post migrate" in await why_away(url)
        shared_postgres.psql(name, "insert into post.schema_versions values (2, 'now')")
        shared_postgres.psql("postgres", f"create role guest_{name} login")
        guest = url.replace("sfss:secret@", f"guest_{name}@")
        assert "run: sfss post migrate" in await why_away(guest)
        assert "--grant" in await why_away(guest)
        shared_postgres.psql("postgres", f"alter database {name} set default_transaction_read_only = on")
        assert "takes no changes: it is a replica, or was made read-only" in await why_away(url)


async def test_a_wrong_password_is_said_and_not_shown(own_postgres: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    own_postgres.psql("postgres", "create role files login password 'right'")
    own_postgres.ask_for_passwords("files")
    with own_postgres.database() as url:
        migrate(url, "--partitions", "1", "--grant", "files")
        assert "refuses the user or the password of postgresql://files:***@" in await why_away(
            url.replace("sfss@", "files:secret@")
        )
        async with connected(url.replace("sfss@", "files:right@")) as client:
            assert await client.set(b"/a", b"x")
    assert "secret" not in caplog.text
    assert "right" not in caplog.text


async def test_a_server_that_does_not_sync_is_not_called_durable(shared_postgres: Postgres) -> None:
    with shared_postgres.database() as url:
        migrate(url, "--partitions", "1")
        shared_postgres.psql("postgres", f"alter database {url.rpartition('/')[2]} set synchronous_commit = off")
        async with connected(url) as client:
            assert client.capabilities
            assert not client.capabilities.durable
            assert "synchronous_commit = off" in client.capabilities.caveats[0]


async def test_it_is_the_same_store_by_whatever_way_and_another_in_each_database(
    shared_postgres: Postgres, one_table: str
) -> None:
    with pgbouncer(one_table) as pooled, shared_postgres.database(like=one_table) as copied:
        async with (
            connected(one_table) as one,
            connected(one_table.replace(HOST, "localhost")) as same,
            connected(f"{pooled}?prepared=off") as also,
            connected(copied) as other,
        ):
            assert one.identity == same.identity == also.identity != frozenset()
            assert one.identity.isdisjoint(other.identity)


# --- what SQL has put ---


async def test_what_import_has_put_is_a_record_whoever_reads_it_first(shared_postgres: Postgres, pattern: str) -> None:
    folder = shared_postgres.folder()
    content = os.urandom(3 * MIB)
    (folder / "a").write_bytes(content)
    long = "long/" * 100 + "name"
    with shared_postgres.database(like=pattern) as url:
        async with connected(url) as client, connected(url) as other:
            for name in ("one", "two", long):
                assert shared_postgres.says(url, f"select IMPORT('{name}', '{folder}/a')") == (str(len(content)), "")
            data = await client.get(b"/one")
            assert data
            found = record.decode(data)
            header = found.header
            assert found.payload == content
            assert (header.kind, header.size, header.type, header.path) == (Kind.FILE, len(content), None, None)
            assert header.sha256 == hashlib.sha256(content).digest()
            assert abs(header.version / 1e6 - time.time()) < 60
            assert await other.get(b"/one") == data
            head = await other.head(b"/two")
            assert head
            assert record.decode_bare_header(head).sha256 == header.sha256
            told = await client.scan(b"#", 10)
            assert [record.decode_bare_header(item.header).path for item in told] == [long, None, None]
            assert [item.size for item in told] == [len(item.header) + len(content) for item in told]
            assert await client.head(paths.key_of(long)) == told[0].header

            async def noted() -> bool:
                return shared_postgres.says(url, "select count(*) from post.files where header is null")[0] == "0"

            await eventually(noted)
            assert await client.get(b"/one") == data
            assert await client.replace(b"/two", b"x", told[2].token)


@pytest.mark.parametrize("lost", ["TRUNCATE post.contents", "UPDATE post.contents SET content = 'else'"])
async def test_an_imported_file_whose_content_is_lost_is_damaged_and_not_empty(
    shared_postgres: Postgres, pattern: str, lost: str
) -> None:
    """As after a backup that was brought back in part only; nothing is noted, for the rest may come yet."""
    content = bytes(100)
    folder = shared_postgres.folder()
    (folder / "a").write_bytes(content)
    with shared_postgres.database(like=pattern) as url:
        for name in ("one", "two"):
            assert shared_postgres.says(url, f"select IMPORT('{name}', '{folder}/a')") == ("100", "")
        assert not shared_postgres.says(url, "select DEDUPLICATE()")[1]
        assert shared_postgres.says(url, "select count(*) from post.contents")[0] == "1"
        assert not shared_postgres.says(url, f"create table kept as select * from post.contents; {lost}")[1]
        async with connected(url) as client:
            data = await client.get(b"/one")
            assert data
            with pytest.raises(Damaged):
                record.decode(data)
            [told, _] = await client.scan(b"/", 10)
            assert record.decode_bare_header(told.header).size == len(content)
            await client.close()
        assert not shared_postgres.says(url, "delete from post.contents; insert into post.contents select * from kept")[
            1
        ]
        async with connected(url) as client:
            data = await client.get(b"/one")
            assert data
            assert record.decode(data).payload == content


async def test_a_late_write_of_a_front_does_not_undo_an_import(shared_postgres: Postgres) -> None:
    folder = shared_postgres.folder()
    (folder / "a").write_bytes(b"from SQL")
    with shared_postgres.database() as url:
        migrate(url, "--partitions", "1")
        async with connected(url) as client:
            await client.set(b"/a", make(b"", version=2**60, kind=Kind.TOMBSTONE, sha256=b""))
            assert shared_postgres.says(url, "select EXIST('a'), DELETE('a')")[0] == "f|f", (
                "a mark of a deletion is no file"
            )
            assert shared_postgres.says(url, f"select IMPORT('a', '{folder}/a')")[0] == "8"
            assert await client.set(b"/a", make(b"late", version=2**60)) is False
            data = await client.get(b"/a")
            assert data
            assert record.decode(data).payload == b"from SQL"
            assert await client.set(b"/a", make(b"new", version=2**60 + 2))


# --- plans and sweeps ---


async def test_lists_merge_the_indexes_and_sort_nothing(many_tables: str) -> None:
    connection = await asyncpg.connect(many_tables, server_settings=pg_lists.SETTINGS)
    try:
        for statement in (pg_statements.SCAN, pg_statements.SCAN_UNTIL, pg_statements.KEYS):
            given = [b"/", 10, b"0"][: 3 if statement is pg_statements.SCAN_UNTIL else 2]
            literal = statement
            for number, value in enumerate(given, 1):
                shown = f"'\\x{value.hex()}'::bytea" if isinstance(value, bytes) else str(value)
                literal = literal.replace(f"${number}", shown)
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {literal}"))
            assert "Merge Append" in plan
            assert plan.count("_pkey on files_") == 256
            assert "Sort  (" not in plan
    finally:
        await connection.close()


async def test_what_has_expired_is_swept_and_nothing_else(shared_postgres: Postgres, pattern: str) -> None:
    with shared_postgres.database(like=pattern) as url:
        async with connected(url) as client:
            for number in range(40):
                await client.set(b"/%d" % number, b"x", expiry=(0, 1, 1000)[number % 3])
            await asyncio.sleep(1.1)
            assert shared_postgres.says(url, "select count(*) from post.files")[0] == "40"
            assert await client._lists.sweep(client._tables) == 13
            assert await client._lists.sweep(client._tables) == 0
            assert shared_postgres.says(url, "select count(*) from post.files")[0] == "27"


async def test_a_row_that_is_held_keeps_no_other_table_from_being_swept(
    shared_postgres: Postgres, pattern: str
) -> None:
    names = [b"/%d" % number for number in range(100)]
    held = next(name for name in names if hashlib.md5(name, usedforsecurity=False).hexdigest()[0] == "f")
    with shared_postgres.database(like=pattern) as url:
        async with connected(url, timeout=1.0) as client:
            for name in names:
                await client.set(name, b"x", expiry=1)
            await asyncio.sleep(1.1)
            holder = await asyncpg.connect(url)
            async with holder.transaction():
                await holder.execute("SELECT FROM post.files WHERE key = $1 FOR UPDATE", held)
                with pytest.raises(NodeTimeout):
                    await client._lists.sweep(client._tables)
            await holder.close()
            left = shared_postgres.says(url, "select distinct left(md5(key), 1) from post.files")[0]
            assert left == "f", "all before it"


# --- when something is in the way ---


async def test_a_row_that_somebody_holds_costs_its_caller_his_time_and_nobody_else(shared_postgres: Postgres) -> None:
    with shared_postgres.database() as url:
        migrate(url, "--partitions", "1")
        async with connected(f"{url}?connections=2", timeout=1.0) as client:
            await client.set(b"/held", b"x")
            holder = await asyncpg.connect(url)
            async with holder.transaction():
                await holder.execute("SELECT FROM post.files WHERE key = '/held' FOR UPDATE")
                with pytest.raises(NodeTimeout):
                    await client.set(b"/held", b"late")
                assert client.away is None
                assert await client.get(b"/held") == b"x"
            await holder.close()
            assert await client.set(b"/held", b"y")
            assert client.away is None


RAISES = """
CREATE SEQUENCE raised;
CREATE FUNCTION refuse() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('raised') <= {times} THEN RAISE EXCEPTION 'so it is' USING ERRCODE = '{code}'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON post.files FOR EACH ROW EXECUTE FUNCTION refuse();
"""


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("53100", OutOfSpace, "has no room: so it is; add space"),
        ("25006", NodeRefused, "so it is; it is a replica, or was made read-only"),
        ("42501", NodeRefused, "sfss post migrate --url ... --grant"),
        ("40001", NodeRefused, "other transactions were in the way again and again"),
        ("53200", NodeRefused, "raise max_locks_per_transaction"),
        ("54000", TooLarge, "so it is"),
    ],
)
async def test_errors_of_the_server_become_ours(
    shared_postgres: Postgres, code: str, error: type[Exception], words: str
) -> None:
    with shared_postgres.database() as url:
        migrate(url, "--partitions", "1")
        assert not shared_postgres.says(url, RAISES.format(code=code, times=1000))[1]
        async with connected(url) as client:
            with pytest.raises(error, match=re.escape(words)):
                await client.set(b"/a", b"x")
            await eventually(lambda: answers(client, b"/a", None))


async def answers(client: PostgresNode, key: bytes, value: bytes | None) -> bool:
    with contextlib.suppress(NodeError):
        return await client.get(key) == value
    return False


async def is_here(client: PostgresNode) -> bool:
    return client.away is None


async def test_what_other_transactions_were_in_the_way_of_is_tried_again(shared_postgres: Postgres) -> None:
    with shared_postgres.database() as url:
        migrate(url, "--partitions", "1")
        assert not shared_postgres.says(url, RAISES.format(code="40P01", times=3))[1]
        async with connected(url) as client:
            assert await client.set(b"/a", b"x")


async def test_a_server_with_few_connections_left_serves_over_those(
    shared_postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    with shared_postgres.database() as url:
        role = f"few_{url.rpartition('/')[2]}"
        shared_postgres.psql("postgres", f"create role {role} login connection limit 2")
        migrate(url, "--partitions", "16", "--grant", role)
        async with connected(url.replace("sfss@", f"{role}@")) as client:
            names = [b"/%d" % number for number in range(100)]
            assert all(await asyncio.gather(*(client.set(name, name) for name in names)))
            assert await asyncio.gather(*(client.get(name) for name in names)) == names
            assert client.away is None
    assert "too many connections" in caplog.text
    assert "fewer connections are used" in caplog.text


async def test_a_connection_that_is_ended_fails_what_is_in_flight_and_comes_back(shared_postgres: Postgres) -> None:
    with shared_postgres.database() as url:
        migrate(url, "--partitions", "1")
        async with connected(url) as client:
            await client.set(b"/a", b"x")
            terminate = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'sfss'"
            assert "t" in shared_postgres.says(url, terminate)[0]
            await eventually(lambda: answers(client, b"/a", b"x"))


async def test_a_frozen_server_holds_nobody_up_for_longer_than_his_time(own_postgres: Postgres) -> None:
    with own_postgres.database() as url:
        migrate(url, "--partitions", "16")
        async with connected(url, timeout=1.0) as client:
            for number in range(30):
                await client.set(b"/%d" % number, b"x")
            await client.scan(b"", 10)  # so that lists have their connection, too
            tasks = len(asyncio.all_tasks())
            with own_postgres.frozen():
                began = time.monotonic()
                calls = [client.get(b"/%d" % number) for number in range(30)]
                lists = [client.scan(b"", 10), client.stats(), client.any_in([(b"/", b"0")])]
                sets = [client.set(b"/%d" % number, b"y") for number in range(30)]
                outcomes = await asyncio.gather(*calls, *sets, *lists, return_exceptions=True)
                assert time.monotonic() - began < 4
                assert all(isinstance(outcome, NodeError) for outcome in outcomes)
                await asyncio.sleep(0.5)
                assert client.away
                began = time.monotonic()
                with pytest.raises(NodeAway, match="away"):
                    await client.get(b"/1")
                assert time.monotonic() - began < 0.1
                await asyncio.sleep(1.5)
                assert len(asyncio.all_tasks()) <= tasks, "attempts leave nothing behind"
            await eventually(lambda: is_here(client))
            assert await client.get(b"/1") in (b"x", b"y")


async def test_what_was_acknowledged_is_there_after_a_kill(own_postgres: Postgres, *, long: bool) -> None:
    acknowledged: dict[bytes, int] = {}
    with own_postgres.database() as url:
        migrate(url, "--partitions", "16")
        async with connected(url) as client:
            versions = itertools.count(1)

            async def write(writer: int, killed: asyncio.Event) -> None:
                while not killed.is_set():
                    version = next(versions)
                    key = b"/%d/%d" % (writer, random.randrange(5))
                    try:
                        assert await client.set(key, make(b"%d" % version, version=version))
                        acknowledged[key] = version
                    except NodeError:
                        await asyncio.sleep(0.01)

            for _ in range(10 if long else 2):
                killed = asyncio.Event()
                writers = [asyncio.create_task(write(writer, killed)) for writer in range(16)]
                await asyncio.sleep(random.uniform(0.3, 0.8))
                await asyncio.to_thread(own_postgres.kill)
                killed.set()
                await asyncio.wait(writers)
                assert client.away
                await asyncio.to_thread(own_postgres.start)
                await eventually(lambda: is_here(client))
                for key, version in acknowledged.items():
                    data = await client.get(key)
                    assert data
                    assert record.decode(data).header.version >= version
    print(f"{len(acknowledged)} keys were looked at after each kill")
    assert len(acknowledged) > 20


@contextlib.asynccontextmanager
async def connected(url: str, timeout: float = 10.0) -> AsyncIterator[PostgresNode]:
    client = new_client(parse_address(url), timeout)
    await client.start()
    assert client.away is None
    try:
        yield client
    finally:
        await client.close()


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.02)
