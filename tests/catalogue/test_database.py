"""The tables of SQLite and PostgreSQL: made once by whoever comes first, and never by who doesn't know them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sfss import config
from sfss.catalogue import schema
from sfss.catalogue.database import Database
from sfss.errors import CatalogueAway, ConfigError
from sfss.sqlfiles import numbered
from tests.catalogue.support import ask, execute
from tests.servers import HOST, free_port

SECRET = "s3cret"
ROOT = Path(__file__).parent.parent.parent


async def test_many_that_start_at_once_make_the_tables_once(url: str) -> None:
    databases = [Database(url, timeout=20.0) for _ in range(5)]
    new = await asyncio.gather(*(database.open() for database in databases))
    assert sorted(new) == [False] * 4 + [True]
    await asyncio.gather(*(database.close() for database in databases))
    assert [row["version"] for row in await ask(url, "SELECT version FROM schema_versions")] == list(
        numbered("sfss.catalogue")
    )
    assert len(await ask(url, "SELECT * FROM state WHERE name = 'behind'")) == 1


async def test_tables_of_a_newer_version_are_refused(url: str) -> None:
    database = Database(url, timeout=20.0)
    await database.open()
    await execute(url, "INSERT INTO schema_versions (version, name, at) VALUES (999, 'later', '')")
    with pytest.raises(ConfigError, match="of version 999, and this sfss knows 1"):
        await database.open()
    await database.close()


async def test_tables_that_are_there_stay_as_they_are(url: str) -> None:
    database = Database(url, timeout=20.0)
    assert await database.open()
    await execute(url, "INSERT INTO uploads (upload, received, expires) VALUES ('u', 1, '')")
    assert not await database.open()
    await database.close()
    assert len(await ask(url, "SELECT * FROM uploads")) == 1


def test_scripts_are_numbered_without_a_gap_and_say_what_they_are_for() -> None:
    known = numbered("sfss.catalogue")
    assert list(known) == list(range(1, len(known) + 1))
    for number, (_, text) in known.items():
        assert text.startswith("-- ")
        for dialect in ("sqlite", "postgresql"):
            assert list(schema.statements(text, dialect)), number


async def test_what_is_not_committed_is_not_there(url: str) -> None:
    from sqlalchemy import text

    database = Database(url, timeout=20.0)
    await database.open()

    async def write_half() -> None:
        async with database.writing() as transaction:
            await transaction.run(text("INSERT INTO uploads (upload, received, expires) VALUES ('u', 1, '')"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_half()
    assert await ask(url, "SELECT * FROM uploads") == []
    await database.close()


async def test_a_statement_alone_is_committed_or_has_done_nothing(url: str) -> None:
    from sqlalchemy import text

    put = text("INSERT INTO uploads (upload, received, expires) VALUES (:rows, 1, '')")
    database = Database(url, timeout=20.0)
    await database.open()
    await database.run_alone(put, [{"number": 1}])
    with pytest.raises(CatalogueAway, match=r"(?i)unique"):
        await database.run_alone(put, [{"number": 1}])
    async with database.writing() as transaction:  # the connection is none the worse for it
        await transaction.run(text("UPDATE uploads SET received = 2"))
    assert await ask(url, "SELECT upload, received FROM uploads") == [{"upload": '[{"number":1}]', "received": 2}]
    await database.close()


async def test_a_file_that_is_removed_is_noticed_and_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "c.db"
    database = Database(f"sqlite:///{file}", timeout=5.0)
    assert await database.open()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.unlink()
    with pytest.raises(CatalogueAway, match="removed or replaced"):
        async with database.writing():
            pass
    assert await database.open()
    async with database.writing():
        pass
    await database.close()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{SECRET}@{HOST}:{{port}}/db",
        f"postgresql://user:p%40{SECRET}@{HOST}:{{port}}/db",
        f"postgresql://{HOST}:{{port}}/db?password={SECRET}&user=u",
    ],
)
async def test_no_error_tells_the_password(url: str) -> None:
    database = Database(url.format(port=free_port()), timeout=5.0)
    with pytest.raises(CatalogueAway) as raised:
        await database.open()
    await database.close()
    assert SECRET not in f"{raised.value} {database.words} {raised.value.__cause__}"
    assert "***" in database.words


@pytest.mark.parametrize(
    "url",
    [f"mysql://u:{SECRET}@h/db", f"postgres:{SECRET}", "sqlite://", "sqlite:///", "catalogue.db", f"x{SECRET}"],
)
def test_what_is_no_url_of_a_database_is_refused_and_not_told(url: str) -> None:
    with pytest.raises(ConfigError, match=r"catalogue\.url: write \"sqlite:///FILE\"") as raised:
        config.load(overrides={"catalogue": {"url": url}})
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("url", ["sqlite:///c.db", "sqlite:////srv/c.db", "postgresql://h/db", "postgres://u@h:1/db"])
def test_the_url_of_a_database_is_taken(url: str) -> None:
    assert config.load(overrides={"catalogue": {"url": url}}).catalogue.url == url


async def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    file = tmp_path / "c.db"
    file.write_bytes(b"not a database, surely" * 100)
    database = Database(f"sqlite:///{file}", timeout=5.0)
    with pytest.raises(CatalogueAway, match=re.compile("not a database")):
        await database.open()
    await database.close()


def test_the_settings_are_shown_without_the_password() -> None:
    environment = {"SFSS_CATALOGUE_URL": f"postgresql://me:{SECRET}@h/db", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "sfss", "config", "check"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert 'url = "postgresql://me:***@h/db"' in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_tables_that_are_too_new_keep_the_service_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "c.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute(
            "CREATE TABLE schema_versions (version BIGINT PRIMARY KEY, name TEXT NOT NULL, at TEXT NOT NULL)"
        )
        connection.execute("INSERT INTO schema_versions VALUES (999, 'later', '')")
        connection.commit()
    environment = {"SFSS_CATALOGUE_URL": f"sqlite:///{file}", "SFSS_SERVER_PORT": "0", "PYTHONPATH": str(ROOT),
                   "SFSS_STORAGE_NODES": f"{HOST}:{free_port()}"}  # fmt: skip
    for workers in ("1", "2"):
        command = [sys.executable, "-m", "sfss", "--workers", workers]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 2, done.stderr
        assert "of version 999, and this sfss knows 1" in done.stderr
