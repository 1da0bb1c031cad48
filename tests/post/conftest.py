"""A database with the tables of a node, a folder of the server's machine; one ``sfss post`` with nginx before it."""

from __future__ import annotations

import json
import secrets
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.post.nginx import PostNginx
from tests.postgres import Postgres, migrate
from tests.servers import Service

Ask = Callable[..., str]


@pytest.fixture(scope="session")
def pattern(shared_postgres: Postgres) -> Iterator[str]:
    with shared_postgres.database() as url:
        migrate(url, "--partitions", "16")
        yield url


@pytest.fixture
def database(shared_postgres: Postgres, pattern: str) -> Iterator[str]:
    """The URL of one with 16 partitions, in which there is nothing yet."""
    with shared_postgres.database(like=pattern) as url:
        yield url


@pytest.fixture(scope="session")
def many_tables(shared_postgres: Postgres) -> Iterator[str]:
    """The URL of one with as many partitions as users get, 256; shared."""
    with shared_postgres.database() as url:
        migrate(url)
        yield url


@pytest.fixture
def ask(shared_postgres: Postgres, database: str) -> Ask:
    """Has psql say something to it, who must have no error to show: ``ask(statement, user=...)``."""

    def asked(statement: str, **user: str) -> str:
        answer, error = shared_postgres.says(database, statement, **user)
        assert not error, error
        return answer

    return asked


@pytest.fixture
def fail(shared_postgres: Postgres, database: str) -> Ask:
    """The same of what must fail: the error."""

    def failed(statement: str, **user: str) -> str:
        answer, error = shared_postgres.says(database, statement, **user)
        assert error, answer
        return error

    return failed


@pytest.fixture
def folder(shared_postgres: Postgres) -> Path:
    return shared_postgres.folder()


# --- the service ---


class Post(Service):
    """``sfss post`` as its users run it."""

    def asked(self) -> int:
        """How many requests have reached it, but for those by which this is known."""
        with urllib.request.urlopen(f"{self.url}/status?format=full", timeout=10) as answer:
            responses = json.load(answer)["webserver"]["responses"]
        self._looks += 1
        return sum(map(int, responses.values())) - self._looks

    _looks = -1


@pytest.fixture(scope="session")
def front(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Post]:
    directory = tmp_path_factory.mktemp("post")
    running = Post(directory, "post", "--url", postgres_url, "--workdir", str(directory))
    with running:
        yield running


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory, front: Post) -> Iterator[PostNginx]:
    server = PostNginx(tmp_path_factory.mktemp("nginx"), front.port)
    with server.running():
        yield server


@pytest.fixture
def url() -> str:
    """One that no other test has."""
    return f"/images/{secrets.token_hex(8)}/file.jpg"
