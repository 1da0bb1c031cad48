"""IMPORT, EXIST, EXPORT, DELETE from psql: what they do, what they say, who may, and which tables they touch."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfss.backends.pg_statements import Tables
from sfss.errors import BadPath
from sfss.paths import check, key_of
from tests.post.conftest import Ask
from tests.postgres import Postgres, migrate

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def picture(folder: Path) -> Path:
    """A file of the server."""
    path = folder / "a.jpg"
    path.write_bytes(CONTENT)
    return path


def test_a_file_comes_in_and_goes_out_as_it_was(ask: Ask, folder: Path, picture: Path) -> None:
    assert ask("select EXIST('images/a.jpg')") == "f"
    assert ask(f"select IMPORT('images/a.jpg', '{picture}')") == str(len(CONTENT))
    assert ask("select EXIST('images/a.jpg')") == "t"
    assert ask(f"select EXPORT('images/a.jpg', '{folder}/new.jpg')") == str(len(CONTENT))
    assert (folder / "new.jpg").read_bytes() == CONTENT
    assert ask("select DELETE('images/a.jpg')") == "t"
    assert ask("select DELETE('images/a.jpg')") == "f"
    assert ask("select EXIST('images/a.jpg')") == "f"
    assert ask("select count(*) from pg_largeobject_metadata") == "0", "what export goes by is gone again"


def test_a_file_may_be_empty_and_a_key_be_any_path(ask: Ask, folder: Path) -> None:
    (folder / "empty").write_bytes(b"")
    for number, key in enumerate(("фото/кот 1.jpg", "100%", "it''s", 'say "x"; drop table post.files', "a" * 1000)):
        assert ask(f"select IMPORT('{key}', '{folder}/empty')") == "0"
        assert ask(f"select EXIST('{key}')") == "t"
        assert ask(f"select EXPORT('{key}', '{folder}/{number}')") == "0"
    shown = ask('select path from post.listing order by path collate "C"').splitlines()
    assert shown == ["100%", "a" * 1000, "it's", 'say "x"; drop table post.files', "фото/кот 1.jpg"]


def test_what_is_wrong_is_said_with_what_to_do(ask: Ask, fail: Ask, folder: Path, picture: Path) -> None:
    ask(f"select IMPORT('there', '{picture}')")
    (folder / "closed").write_bytes(b"")
    (folder / "closed").chmod(0o000)
    with (folder / "large").open("wb") as file:
        file.truncate(512 * 1024 * 1024 + 1)
    for statement, *words in (
        (f"IMPORT('there', '{picture}')", "there is a file 'there' already", "DELETE"),
        ("IMPORT('x', '/nowhere/x')", "there is no file '/nowhere/x'", "machine on which PostgreSQL runs"),
        (f"IMPORT('x', '{folder}')", "is a folder"),
        (f"IMPORT('x', '{folder}/closed')", "may not read", "postgres"),
        (f"IMPORT('x', '{folder}/large')", "has 536870913 bytes, and a row takes at most 536870912", "sfss put"),
        ("IMPORT('x', 'a.jpg')", "'a.jpg' is no absolute path"),
        ("IMPORT('x', NULL)", "NULL is no absolute path"),
        ("IMPORT('/x', '/a.jpg')", "begins with '/'", "'x'"),
        ("IMPORT('', '/a.jpg')", "the path is empty"),
        ("IMPORT('a/../b', '/a.jpg')", "an empty segment, '.' or '..'"),
        ("EXIST(E'a\\nb')", "a control character"),
        ("EXPORT('nothing', '/tmp/x')", "there is no file 'nothing'"),
        ("EXPORT('there', 'x')", "'x' is no absolute path"),
        (f"EXPORT('there', '{picture}')", "already", "Name a new file"),
        ("EXPORT('there', '/nowhere/x')", "there is no folder", "make it first"),
        ("EXPORT('there', '/root/x')", "may not write") if os.geteuid() == 0 else ("EXIST('')", "the path is empty"),
    ):  # fmt: skip
        said = fail(f"select {statement}")
        for word in words:
            assert word in said, (statement, said)
    assert ask("select path from post.listing") == "there"


PATHS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
TRICKY = st.text(st.sampled_from(" %./\\#\x7f\x85\xa0\u1680\u2003\u2028\u202f\u205f\u3000\ufeffaяé猫🐈"), max_size=300)
LONG = st.builds(lambda text, times: text * times, st.text("aя %/é", min_size=1, max_size=9), st.integers(20, 200))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(paths=st.lists(PATHS | TRICKY | LONG, min_size=1, max_size=100))
def test_keys_are_those_that_the_service_makes(postgres_url: str, paths: list[str]) -> None:
    def ours(path: str) -> bytes | None:
        try:
            return key_of(check(path))
        except BadPath:
            return None

    async def theirs() -> list[tuple[bytes | None, str | None]]:
        connection = await asyncpg.connect(postgres_url)
        await connection.execute(
            "CREATE FUNCTION pg_temp.try(path TEXT) RETURNS BYTEA LANGUAGE plpgsql AS $$ BEGIN"
            " RETURN post.key_of(path); EXCEPTION WHEN invalid_parameter_value THEN RETURN NULL; END $$"
        )
        try:
            rows = await connection.fetch(
                "SELECT key, post.path_of(key) AS path FROM (SELECT pg_temp.try(p) AS key, n FROM"
                " unnest($1::text[]) WITH ORDINALITY AS given (p, n)) AS made ORDER BY n",
                paths,
            )
        finally:
            await connection.close()
        return [(row["key"], row["path"]) for row in rows]

    expected = [ours(path) for path in paths]
    found = asyncio.run(theirs())
    assert [key for key, _ in found] == expected
    for path, key, (_, back) in zip(paths, expected, found, strict=True):
        assert back == (path if key and key.startswith(b"/") else None)


def test_each_touches_its_own_table_and_no_other(ask: Ask, folder: Path, picture: Path) -> None:
    for name, statement in (
        ("IMPORT", f"select IMPORT('images/a.jpg', '{picture}')"),
        ("EXIST", "select EXIST('images/a.jpg')"),
        ("EXPORT", f"select EXPORT('images/a.jpg', '{folder}/out')"),
        ("DELETE", "select DELETE('images/a.jpg')"),
    ):
        ask("select pg_stat_reset()")
        ask(statement)
        touched = ask(
            "select relname from pg_stat_user_tables where schemaname = 'post' and relname like 'files%'"
            " and seq_scan + coalesce(idx_scan, 0) + n_tup_ins + n_tup_upd + n_tup_del > 0"
        )
        _, statements = Tables(1).of(key_of("images/a.jpg"))
        assert f" post.{touched} " in statements.get, (name, touched)


def test_rows_lie_where_they_belong_and_nowhere_else(ask: Ask, fail: Ask) -> None:
    row = "(key, content, size) values ('/a', '', 0)"
    said = fail(f"insert into post.files {row}")
    assert "post.files takes no rows" in said
    number = hashlib.md5(b"/a").digest()[0] >> 4
    assert f"post.files_{number:x} " in Tables(1).of(b"/a")[1].get
    assert f"belongs in post.files_{number:x}" in said
    assert 'violates check constraint "its_keys"' in fail(f"insert into post.files_{(number + 1) % 16:x} {row}")
    ask(f"insert into post.files_{number:x} {row}")
    assert 'violates check constraint "content_is_somewhere"' in fail(
        f"update post.files_{number:x} set content = null"
    )


def test_partitions_are_filled_evenly(shared_postgres: Postgres, many_tables: str) -> None:
    """100,000 keys over 256: chi-square, whose mean is 255 and whose deviation 23."""
    fill = (
        "select part, count(*) from (select post.partition_of(convert_to('/images/' || n || '.jpg', 'UTF8')) as part"
        " from generate_series(1, 100000) as n) as keys group by part"
    )
    answer, error = shared_postgres.says(many_tables, fill)
    assert not error
    counts = [int(line.partition("|")[2]) for line in answer.splitlines()]
    expected = 100_000 / 256
    chi_square = sum((count - expected) ** 2 / expected for count in counts)
    print(f"100,000 keys in 256 tables: {min(counts)} to {max(counts)} each, chi-square {chi_square:.0f} of 255")
    assert len(counts) == 256
    assert chi_square < 255 + 6 * 23


# --- rights ---


@pytest.fixture
def roles(shared_postgres: Postgres, database: str) -> dict[str, str]:
    """Who may what: names of roles, of this test only."""
    suffix = database.rpartition("/")[2]
    names = {name: f"{name}_{suffix}" for name in ("nobody", "files", "reader", "writer", "both", "outsider")}
    for name in names.values():
        shared_postgres.psql("postgres", f"create role {name} login")
    shared_postgres.psql(
        "postgres", f"grant pg_read_server_files to {names['reader']}, {names['both']}, {names['outsider']}"
    )
    shared_postgres.psql("postgres", f"grant pg_write_server_files to {names['writer']}, {names['both']}")
    grants = [option for name in ("files", "reader", "writer", "both") for option in ("--grant", names[name])]
    assert f"{names['files']} may read and write the files" in migrate(database, *grants)
    return names


def test_only_who_may_read_files_of_the_server_imports(
    ask: Ask, fail: Ask, roles: dict[str, str], picture: Path
) -> None:
    for name in ("files", "writer", "nobody"):
        said = fail(f"select IMPORT('{name}', '{picture}')", user=roles[name])
        assert "only who may read files of the server may call it" in said
        assert f"GRANT pg_read_server_files TO {roles[name]}" in said
        assert "permission denied" in fail(f"select post.read_server_file('{picture}', 1000000)", user=roles[name])
    for name in ("reader", "both"):
        assert ask(f"select IMPORT('{name}', '{picture}')", user=roles[name]) == str(len(CONTENT))
    said = fail(f"select IMPORT('outsider', '{picture}')", user=roles["outsider"])
    assert "no right to INSERT" in said
    assert f"--grant {roles['outsider']}" in said


def test_only_who_may_write_files_of_the_server_exports(
    ask: Ask, fail: Ask, roles: dict[str, str], folder: Path, picture: Path
) -> None:
    ask(f"select IMPORT('there', '{picture}')")
    for name in ("files", "reader", "nobody"):
        said = fail(f"select EXPORT('there', '{folder}/{name}')", user=roles[name])
        assert "only who may write files of the server may call it" in said
        assert "permission denied" in fail(f"select post.write_server_file('{folder}/{name}', 'x')", user=roles[name])
        assert not (folder / name).exists()
    for name in ("writer", "both"):
        assert ask(f"select EXPORT('there', '{folder}/{name}')", user=roles[name]) == str(len(CONTENT))
        assert (folder / name).read_bytes() == CONTENT


def test_a_role_that_was_taken_on_counts_and_not_who_logged_in(
    ask: Ask, fail: Ask, roles: dict[str, str], picture: Path
) -> None:
    said = fail(f"set role {roles['files']}; select IMPORT('x', '{picture}')")
    assert "only who may read files of the server" in said
    ask(f"set role {roles['reader']}; select IMPORT('x', '{picture}')")


def test_the_others_are_for_who_has_rights_on_the_tables(
    ask: Ask, fail: Ask, roles: dict[str, str], picture: Path
) -> None:
    ask(f"select IMPORT('there', '{picture}')")
    assert ask("select EXIST('there')", user=roles["files"]) == "t"
    assert ask("select * from DEDUPLICATE()", user=roles["files"]) == "0|0|0|0"
    for statement, right in (("EXIST('there')", "SELECT"), ("DELETE('there')", "DELETE"), ("DEDUPLICATE()", "UPDATE")):
        said = fail(f"select {statement}", user=roles["nobody"])
        assert f"no right to {right}" in said
        assert f"sfss post migrate --url ... --grant {roles['nobody']}" in said
    assert "permission denied" in fail("select * from post.files", user=roles["nobody"])
    assert "permission denied" in fail("delete from post.layout", user=roles["files"])
    assert ask("select DELETE('there')", user=roles["files"]) == "t"


def test_functions_use_no_table_that_a_caller_puts_in_their_way(ask: Ask, roles: dict[str, str], picture: Path) -> None:
    ask(f"select IMPORT('there', '{picture}')")
    trap = (
        "create temp table layout (digits smallint); create temp table files (key bytea);"
        " create function pg_temp.md5(bytea) returns text language sql as $$ select 'ff' $$;"
        " set search_path = pg_temp, public; select public.exist('there')"
    )
    assert ask(trap, user=roles["files"]).splitlines()[-1] == "t"
