"""``sfss post migrate``: whole or not at all, once, by one at a time, and it says what it did."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from sfss.backends.pg_schema import SCHEMA
from sfss.sqlfiles import numbered
from tests.postgres import ROOT, Postgres, migrate
from tests.servers import HOST, free_port


@pytest.fixture
def empty(shared_postgres: Postgres) -> Iterator[str]:
    with shared_postgres.database() as url:
        yield url


def start(url: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sfss", "post", "migrate", "--url", url, *options]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def refused(url: str, *options: str) -> str:
    """What it says when it exits with status 2."""
    process = start(url, *options)
    said = process.communicate(timeout=100)[1]
    assert process.returncode == 2, said
    assert "Traceback" not in said
    return said


def test_it_makes_the_tables_once_and_says_what_it_did(shared_postgres: Postgres, empty: str) -> None:
    said = migrate(empty, "--partitions", "16")
    assert "0001-files.sql, 0002-functions.sql, 16 partitions" in said
    assert f"is up to date: version {SCHEMA}" in migrate(empty)
    assert f"is up to date: version {SCHEMA}" in migrate(empty, "--partitions", "16")
    count = "select count(*) from pg_inherits where inhparent = 'post.files'::regclass"
    assert shared_postgres.says(empty, count) == ("16", "")
    assert "has 16 already, and rows don't move" in refused(empty, "--partitions", "256")


def test_nodes_know_the_version_that_it_makes() -> None:
    assert max(numbered("sfss.post")) == SCHEMA


def test_of_several_at_once_one_makes_the_tables(shared_postgres: Postgres, empty: str) -> None:
    running = [start(empty, "--partitions", "16") for _ in range(4)]
    said = [process.communicate(timeout=100) for process in running]
    assert [process.returncode for process in running] == [0] * 4, said
    assert sorted("up to date" in out for out, _ in said) == [False, True, True, True]
    assert shared_postgres.says(empty, "select count(*) from post.schema_versions") == (str(SCHEMA), "")


def test_what_breaks_off_leaves_nothing(shared_postgres: Postgres, empty: str) -> None:
    shared_postgres.says(empty, "create function public.export(text, text) returns int language sql as 'select 1'")
    assert 'function "export" already exists with same argument types: another program has' in refused(empty)
    assert shared_postgres.says(empty, "select count(*) from pg_namespace where nspname = 'post'") == ("0", "")


def test_tables_of_a_newer_version_are_left_alone(shared_postgres: Postgres, empty: str) -> None:
    migrate(empty, "--partitions", "1")
    shared_postgres.says(empty, "insert into post.schema_versions values (99, 'later')")
    said = refused(empty)
    assert f"its tables are of version 99, and this sfss knows {SCHEMA}: a newer one has made them" in said


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u:secret@h:99999/d", "write postgresql://user:password@host:port/database"),
        ("redis://u:secret@h/0", "write postgresql://"),
        ("postgresql://u:secret@h/d?connections=0", "1 to 64 are possible"),
        ("postgresql://u:secret@h/d?prepared=perhaps", "'on' or 'off'"),
    ],
)
def test_a_url_that_is_none_is_refused_without_its_password(url: str, words: str) -> None:
    said = refused(url)
    assert words in said
    assert "secret" not in said


def test_partitions_and_roles_that_can_not_be_are_refused(empty: str) -> None:
    assert "--partitions 3: 1, 16, 256 are possible" in refused(empty, "--partitions", "3")
    assert "--grant ghost: there is no such role" in refused(empty, "--partitions", "1", "--grant", "ghost")


def test_a_database_that_can_not_be_used_is_refused(shared_postgres: Postgres) -> None:
    shared_postgres.psql("postgres", "create database latin encoding LATIN1 locale 'C' template template0")
    url = f"postgresql://sfss@{HOST}:{shared_postgres.port}/latin"
    assert "the database's encoding is LATIN1, and paths need UTF8: make another" in refused(url)


def test_a_server_that_does_not_answer_is_no_fault_of_the_options() -> None:
    process = start(f"postgresql://sfss:secret@{HOST}:{free_port()}/d")
    said = process.communicate(timeout=100)[1]
    assert process.returncode == 1
    assert "can't be connected to" in said
    assert "secret" not in said


def test_who_may_not_make_them_is_told_so(shared_postgres: Postgres, empty: str) -> None:
    role = f"guest_{empty.rpartition('/')[2]}"
    shared_postgres.psql("postgres", f"create role {role} login")
    assert "run it as the database's owner, or as a superuser" in refused(empty.replace("sfss@", f"{role}@"))


def test_the_owner_of_a_database_has_all_but_what_touches_files(shared_postgres: Postgres, empty: str) -> None:
    database = empty.rpartition("/")[2]
    shared_postgres.psql("postgres", f"create role owner_{database} login")
    shared_postgres.psql("postgres", f"alter database {database} owner to owner_{database}")
    shared_postgres.psql("postgres", f"grant pg_read_server_files, pg_write_server_files to owner_{database}")
    migrate(empty.replace("sfss@", f"owner_{database}@"), "--partitions", "1")
    assert shared_postgres.says(empty, "select EXIST('a')", f"owner_{database}") == ("f", "")
    for user in (f"owner_{database}", "sfss"):
        said = shared_postgres.says(empty, "select IMPORT('a', '/etc/hostname')", user)[1]
        assert f"owner_{database} made it, who may not read files of the server" in said
        assert "ALTER FUNCTION post.read_server_file(TEXT, BIGINT) OWNER TO" in said
    shared_postgres.says(empty, "ALTER FUNCTION post.read_server_file(TEXT, BIGINT) OWNER TO sfss")
    assert shared_postgres.says(empty, "select IMPORT('a', '/etc/hostname') > 0", f"owner_{database}") == ("t", "")
