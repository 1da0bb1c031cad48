"""``sfss post``: the sessions of docs/post.rst by the real curl, nginx and PostgreSQL; its options; other nodes."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.post.conftest import Post
from tests.post.nginx import PostNginx
from tests.postgres import Postgres
from tests.redis import DURABLE, redis
from tests.servers import HOST, Service, sfss_node, wait_for
from tests.test_cli import run

PAGE = Path(__file__).parent.parent.parent / "docs" / "post.rst"


def session() -> list[tuple[str, str]]:
    """The page's commands, each with what it prints."""
    return re.findall(r"^    \$ (curl .+)\n    (.+)$", PAGE.read_text(), re.MULTILINE)


def test_the_session_of_its_page_line_by_line(
    nginx: PostNginx, front: Post, shared_postgres: Postgres, postgres_url: str, tmp_path: Path
) -> None:
    (tmp_path / "big_file_2").write_bytes(secrets.token_bytes(3_000_000))
    before = front.asked()
    assert [status for _, status in session()] == ["201", "405", "200", "200", "404", "200"]
    for command, status in session():
        here = command.replace("127.0.0.1/", f"127.0.0.1:{nginx.port}/").replace("/tmp/", f"{tmp_path}/")
        done = subprocess.run(["bash", "-c", here], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == status, command
    assert front.asked() == before + 4  # the first three, and the one of the file that isn't there
    database = postgres_url.rpartition("/")[2]
    assert shared_postgres.psql(database, "SELECT EXIST('images/ololo/file.jpg')") == "t"
    assert shared_postgres.psql(database, "SELECT EXIST('images/ololo/file1.jpg')") == "f"


def test_a_file_that_sql_users_have_imported_is_read_and_one_that_was_posted_exported(
    nginx: PostNginx, shared_postgres: Postgres, postgres_url: str
) -> None:
    database, name = postgres_url.rpartition("/")[2], secrets.token_hex(6)
    (source := shared_postgres.directory / f"{name}.jpg").write_bytes(b"imported")
    source.chmod(0o644)
    shared_postgres.psql(database, f"SELECT IMPORT('images/{name}/a.jpg', '{source}')")
    url = f"/images/{name}/a.jpg"
    assert nginx.ask("POST", url, None, b"x").status == 405
    for _ in range(2):
        assert nginx.get(url).body == b"imported"
    content = secrets.token_bytes(3_000_000)
    assert nginx.ask("POST", f"{url}.2", None, content).status == 201
    target = shared_postgres.directory / f"{name}.out"
    shared_postgres.psql(database, f"SELECT EXPORT('images/{name}/a.jpg.2', '{target}')")
    assert target.read_bytes() == content


def ask(front: Service, method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
    try:
        request = urllib.request.Request(f"{front.url}{url}", body, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("kind", ["embedded", "sfss", "redis"])
def test_any_node_will_do(tmp_path: Path, kind: str) -> None:
    workdir = tmp_path / "work"
    workdir.mkdir()
    with (
        sfss_node(tmp_path / "node") as (port, _),
        redis(tmp_path / "redis", *DURABLE) as server,
        Post(
            tmp_path,
            "post",
            "--workdir",
            str(workdir),
            *([] if kind == "embedded" else ["--url", f"{HOST}:{port}" if kind == "sfss" else server.url]),
        ) as front,
    ):
        assert ask(front, "POST", "/images/a.jpg", b"cat")[0] == 201
        assert ask(front, "POST", "/images/a.jpg", b"dog")[0] == 405
        assert ask(front, "GET", "/images/a.jpg?version=12") == (200, b"cat")
        assert ask(front, "GET", "/images/b.jpg")[0] == 404
        assert ask(front, "DELETE", "/images/a.jpg")[0] == 405
    assert (workdir / "sfss-data").exists() == (kind == "embedded")


def test_a_database_without_its_tables_is_told_so_and_what_to_run(shared_postgres: Postgres, tmp_path: Path) -> None:
    with shared_postgres.database() as url:
        shown = url.replace("sfss@", "sfss:s3cr3t@")  # a password that it doesn't ask for
        front = Post(tmp_path)
        old = ["-connection-string", shown, "-workdir", str(tmp_path)]
        command = [sys.executable, "-m", "sfss", "post", "--port", str(front.port), *old]
        log = front.log.open("ab")
        starting = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
        try:
            wait_for(lambda: "sfss post migrate" in front.log.read_text(), what="what to run")
            assert ask_when_it_listens(front, "/images/a.jpg") == 504
            done = subprocess.run([sys.executable, "-m", "sfss", "post", "-run-migrate", *old], capture_output=True,
                                  text=True, timeout=60, check=False)  # fmt: skip
            assert done.returncode == 0, done.stderr
            wait_for(lambda: ask(front, "POST", "/images/a.jpg", b"x")[0] == 201, what="its node")
        finally:
            starting.terminate()
            starting.wait(30)
            log.close()
        assert "s3cr3t" not in front.log.read_text() + done.stdout + done.stderr


def ask_when_it_listens(front: Service, url: str) -> int:
    def asked() -> int:
        try:
            return ask(front, "GET", url)[0]
        except OSError:
            return 0

    return int(wait_for(asked, what="the front"))


def test_what_it_sets_is_weaker_than_the_configuration_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "sfss.toml").write_text(
        '[limits]\nmax_file_size = "1MiB"\n[storage]\nnodes = ["redis://127.0.0.1:1"]\n'
    )
    code = (
        "import json, sys; from sfss import cli, service, config\n"
        "def show(settings, again):\n"
        "    server, limits = settings.server, settings.limits\n"
        "    print(json.dumps([server.port, server.workers, settings.post.enabled, limits.max_file_size,"
        " settings.storage.timeout, settings.nodes[0].port]))\n"
        "service.run = show\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )

    def told(*arguments: str, **environment: str) -> list[object]:
        environment = {"PATH": "/bin", "PYTHONPATH": ":".join([str(PAGE.parent.parent), *sys.path]), **environment}
        command = [sys.executable, "-c", code, "post", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path, env=environment
        )
        found: list[object] = json.loads(done.stdout)
        return found

    mib = 2**20
    assert told() == [8080, 1, True, 100 * mib, 10.0, 7900]
    assert told("--config", "sfss.toml", "--workdir", "/") == [8080, 1, True, mib, 10.0, 1]
    assert told("--workdir", "/", SFSS_CONFIG="sfss.toml") == [8080, 1, True, mib, 10.0, 1]
    assert told("--url", "a:2", "--config", "sfss.toml", "--port", "9", "--workers", "2") == [9, 2, True, mib, 10.0, 2]
    assert told(SFSS_POST_ENABLED="false", SFSS_SERVER_PORT="3", SFSS_STORAGE_NODES="a:4")[:3] == [3, 1, False]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--workdir", "/none"], "--workdir: /none can't be entered"), (["--url", "nonsense"], "is not a node"),
     (["-run-migrate"], "--url: name the database"), (["--url", "mysql://a/b"], "is not a node")],
)  # fmt: skip
def test_what_is_wrong_is_said(arguments: list[str], says: str) -> None:
    done = run("post", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_its_page_names_what_is_there() -> None:
    for named in re.findall(r"``((?:conf|tests|docs)/[\w./-]+)``", PAGE.read_text()):
        assert (PAGE.parent.parent / named).exists(), named
