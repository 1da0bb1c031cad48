"""``sfss key`` and ``sfss sign``, and a whole service that wants to see keys: its clients, its reload, its log."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Nodes
from tests.servers import HOST, Service, free_port, sfss_node, wait_for

SECRET = "a-signing-secret-of-the-tests"
CLIENT = Path(__file__).parent.parent / "simple_client.py"
KEY = re.compile(r"sfss_[a-z2-7]{8}_[a-z2-7]{32}")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sfss", *arguments]
    kept = {name: text for name, text in os.environ.items() if not name.startswith("SFSS_")}
    return subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, timeout=60)


def done(*arguments: str, **environment: str) -> str:
    ran = run(*arguments, **environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def status(url: str, method: str = "GET", key: str = "", body: bytes | None = None) -> int:
    request = urllib.request.Request(url, data=body, method=method)
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Of these tests alone, for their keys are all the keys that there are."""
    directory = tmp_path_factory.mktemp("nodes")
    with contextlib.ExitStack() as stack:
        yield [f"{HOST}:{stack.enter_context(sfss_node(directory / str(n)))[0]}" for n in range(2)]


@pytest.fixture
def where(nodes: Nodes) -> dict[str, str]:
    return {"SFSS_STORAGE_NODES": ",".join(nodes)}


def ids(where: dict[str, str]) -> list[str]:
    return [line.split()[0] for line in done("key", "list", **where).splitlines()[1:]]


# --- keys on the nodes ---


def test_a_key_is_made_listed_ended_and_forgotten(where: dict[str, str]) -> None:
    told = ("--name", "web", "--prefix", "a/", "--prefix", "b/", "--may", "read", "--expires", "30d")
    made = run("key", "create", *told, **where)
    assert made.returncode == 0
    assert KEY.fullmatch(made.stdout.strip())
    assert "never shown again" in made.stderr
    id, secret = made.stdout.strip().split("_")[1:]
    shown = done("key", "list", **where)
    line = next(line for line in shown.splitlines() if line.startswith(id))
    assert re.search(rf"^{id}  read a/; read b/ .* good +web$", line)
    assert secret not in shown + made.stderr
    for act, state in (("disable", "is disabled"), ("enable", "good")):
        assert f"the key {id} is {act}d" in run("key", act, "web", **where).stderr
        assert state in done("key", "list", **where)
    done("key", "remove", id, **where)
    assert id not in ids(where)


def test_a_key_says_what_it_may_where_nothing_is_said(where: dict[str, str]) -> None:
    id = done("key", "create", **where).split("_")[1]
    assert f"{id}  read,write everything" in done("key", "list", **where)
    done("key", "remove", id, **where)


def test_what_can_not_be_is_told_and_changes_nothing(where: dict[str, str]) -> None:
    done("key", "create", "--name", "one", **where)
    before = ids(where)
    for arguments, says in (
        (["create", "--may", "reed"], "'reed' is no right"),
        (["create", "--prefix", "/a"], "no path begins with '/a'"),
        (["create", "--prefix", "a/", "--may", "read,status"], "status is of everything, and can't be for 'a/'"),
        (["create", "--expires", "soon"], "'soon' is no time"),
        (["create", "--name", "one"], "there is a key of the name 'one' already"),
        (["create", "--name", "a\nb"], "a key's name"),
        (["disable", "none"], "there is no key of the name 'none'"),
        (["remove", ""], "there is no key of the name ''"),
    ):
        refused = run("key", *arguments, **where)
        assert (refused.returncode, refused.stdout) == (2, ""), arguments
        assert says in refused.stderr
    assert ids(where) == before
    done("key", "remove", "one", **where)


def test_of_many_keys_made_at_once_none_is_lost(where: dict[str, str]) -> None:
    command = [sys.executable, "-m", "sfss", "key", "create"]
    making = [subprocess.Popen(command, env={**os.environ, **where}, stdout=subprocess.PIPE, text=True)
              for _ in range(4)]  # fmt: skip
    made = {one.communicate(timeout=60)[0].split("_")[1] for one in making}
    assert len(made) == 4
    assert made <= set(ids(where))
    for id in made:
        done("key", "remove", id, **where)


def test_while_the_nodes_are_away_that_is_said() -> None:
    refused = run("key", "create", SFSS_STORAGE_NODES=f"{HOST}:{free_port()}")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines()[-1].startswith("sfss: node 127.0.0.1:")
    assert "Traceback" not in refused.stderr


# --- signing ---


def test_a_url_is_signed_by_the_settings() -> None:
    signed = done(
        "sign", "a b/é.jpg", "--method", "PUT", "--url", "https://x.example/", SFSS_ACCESS_SIGNING_SECRETS=SECRET
    )
    assert re.fullmatch(
        r"https://x\.example/file\?path=a\+b%2F%C3%A9\.jpg&expires=[0-9]{10}&signature=[A-Za-z0-9_-]{43}", signed
    )
    assert done("sign", "x", SFSS_ACCESS_SIGNING_SECRETS=SECRET).startswith("http://127.0.0.1:8255/file?path=x&")


def test_what_can_not_be_signed_is_told() -> None:
    for arguments, environment, says in (
        (["x"], {}, "access.signing_secrets: none is set"),
        (["/x"], {"SFSS_ACCESS_SIGNING_SECRETS": SECRET}, "the path begins with '/'"),
        (["x", "--expires", "9999d"], {"SFSS_ACCESS_SIGNING_SECRETS": SECRET}, "from a second to ten years"),
        (["x", "--expires", "1"], {"SFSS_ACCESS_SIGNING_SECRETS": SECRET}, "is no time"),
    ):
        refused = run("sign", *arguments, **environment)
        assert (refused.returncode, refused.stdout) == (2, ""), arguments
        assert says in refused.stderr


# --- settings ---


def test_on_another_address_nothing_is_open_silently() -> None:
    for arguments in (["--host", "0.0.0.0", "--port", str(free_port())], ["config", "check", "--host", "::"]):
        refused = run(*arguments, SFSS_STORAGE_NODES=f"{HOST}:1")
        assert refused.returncode == 2
        assert 'access.anonymous = ["read", "write"] to let everybody' in refused.stderr
    assert run("config", "check", "--host", "0.0.0.0", SFSS_ACCESS_ANONYMOUS="").returncode == 0
    # A client of a service elsewhere has nothing to say about that.
    assert "no service answers" in run("status", "--host", "127.0.0.1", "--port", str(free_port())).stderr
    assert "lets others in" not in run("get", "x", "-", "--host", "localhost.localdomain", "--port", "1").stderr


def test_config_check_shows_no_secret() -> None:
    shown = done("config", "check", SFSS_ACCESS_SIGNING_SECRETS=f"{SECRET},{SECRET}-2")
    assert "# signing_secrets is set, and not shown" in shown
    assert SECRET not in shown


# --- a whole service ---


def test_clients_show_their_key_and_a_disabled_one_is_soon_of_no_use(where: dict[str, str], tmp_path: Path) -> None:
    key = done("key", "create", "--may", "read,write,admin", **where)
    settings = {
        **where,
        "SFSS_ACCESS_ANONYMOUS": "",
        "SFSS_ACCESS_SIGNING_SECRETS": SECRET,
        "SFSS_SERVER_WORKERS": "2",
    }
    local = tmp_path / "local"
    local.write_bytes(b"content")
    with Service(tmp_path, settings=settings) as service:
        at = ("--port", str(service.port))
        shown = {"SFSS_KEY": key}
        bench = ["bench", "--seconds", "0.1", "--files", "32", "--processes", "2", "--prefix", "bench"]
        put, get, ls = ["put", str(local), "access/file"], ["get", "access/file", "-"], ["ls", "access/"]
        for arguments in (put, get, ls, ["stat", "access/file"], ["status"], bench):
            ran = run(*arguments, *at, **shown)
            assert ran.returncode == 0, (arguments, ran.stderr)
        for arguments in (get, ls):
            assert run(*arguments, *at, "--key", key).returncode == 0, arguments
            refused = run(*arguments, *at)
            assert refused.returncode == 1, arguments
            assert "only who shows a key may" in refused.stderr
        wrong = run(*get, *at, "--key", key[:-4] + "aaaa")
        assert "there is no such key" in wrong.stderr
        assert key[20:-4] not in wrong.stderr
        mine = [sys.executable, str(CLIENT), *at, "--path", "access/file", "--filepath", str(local)]
        kept = {name: text for name, text in os.environ.items() if not name.startswith("SFSS_")}
        for more, environment, code in (([], shown, 0), (["--key", key], {}, 0), ([], {}, 1)):
            posted = subprocess.run([*mine, *more], env={**kept, **environment}, capture_output=True, timeout=60)
            assert posted.returncode == code, posted.stderr
        url = done("sign", "access/file", *at, SFSS_ACCESS_SIGNING_SECRETS=SECRET)
        assert status(url) == 200
        assert run("rm", "access/file", *at, **shown).returncode == 0
        assert status(url) == 404
        plain = f"{service.url}/file?path=access/file"
        assert status(plain, key=key) == 404
        done("key", "disable", key.split("_")[1], **where)
        for _ in range(10):  # each of the workers
            wait_for(lambda: status(plain, key=key) == 401, what="the fronts to notice")
        assert "SFSS_KEY" not in service.log.read_text()


def test_a_reload_takes_access_over_and_a_wrong_one_changes_nothing(where: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "sfss.toml"

    def reload(text: str, says: str) -> None:
        file.write_text(text)
        before = service.log.read_text().count(says)
        assert service.process is not None
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: service.log.read_text().count(says) > before)

    file.write_text("")
    with Service(tmp_path, "--config", str(file), settings=where) as service:
        url = f"{service.url}/file?path=reload/x"
        assert status(url, "PUT", body=b"x") == 200
        reload('[access]\nanonymous = ["read"]\n', "was read again: 2 nodes")
        assert (status(url), status(url, "PUT", body=b"x")) == (200, 401)
        reload(
            '[access]\nanonymous = []\n[[policy]]\nprefix = "reload/"\nanonymous = ["write"]\n', "read again: 2 nodes"
        )
        assert (status(url), status(url, "PUT", body=b"x")) == (401, 200)
        for wrong in ('[access]\nanonymous = ["all"]\n', '[server]\nhost = "0.0.0.0"\n'):
            reload(wrong, "is not taken, all stays as it was")
            assert (status(url), status(url, "PUT", body=b"x")) == (401, 200)
        reload("", "was read again: 2 nodes")
        assert (status(url), status(url, "PUT", body=b"x")) == (200, 200)


def test_a_reload_opens_nothing_silently_to_others_who_get_in_until_a_restart(
    where: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "sfss.toml"
    file.write_text('[server]\nhost = "0.0.0.0"\n[access]\nanonymous = []\n')
    says = "is not taken, all stays as it was: server.host"
    with Service(tmp_path, "--config", str(file), settings=where) as service:
        url = f"{service.url}/file?path=reload/y"
        assert status(url) == 401
        for number, wrong in enumerate(("", '[server]\nhost = "localhost"\n', '[server]\nhost = "0.0.0.0"\n'), 1):
            file.write_text(wrong)
            assert service.process is not None
            service.process.send_signal(signal.SIGHUP)
            wait_for(lambda number=number: service.log.read_text().count(says) == number)  # type: ignore[misc]
            assert status(url) == 401


def test_no_secret_ever_stands_in_the_log(where: dict[str, str], tmp_path: Path) -> None:
    key = done("key", "create", "--may", "read,write", "--name", "logged", **where)
    settings = {
        **where,
        "SFSS_ACCESS_ANONYMOUS": "",
        "SFSS_ACCESS_SIGNING_SECRETS": SECRET,
        "SFSS_LIMITS_MAX_FILE_SIZE": "64MiB",
        "SFSS_LIMITS_BODY_TIMEOUT": "0.5",
    }
    with Service(tmp_path, settings=settings) as service:
        at = ("--port", str(service.port))
        url = done("sign", "log/large", *at, SFSS_ACCESS_SIGNING_SECRETS=SECRET)
        signature = url.rpartition("=")[2]
        assert status(f"{service.url}/file?path=log/large", "PUT", key, bytes(48 * 2**20)) == 200
        target = url.removeprefix(service.url)
        bearer = f"Authorization: Bearer {key}\r\n"
        odd = bearer.replace("Auth", "Au\1th")
        head = f"GET {target} HTTP/1.1\r\nHost: x\r\n{bearer}"
        slow = socket.create_connection((HOST, service.port), 10)
        slow.sendall(f"{head}\r\n".encode())  # and nobody reads it
        for text in (
            f"{head}X: \0\r\n\r\n",
            f"{head}Authorization: Bearer {key}{'x' * 9000}\r\n\r\n",
            f"{head}X: {key}{'x' * 9000}\r\n\r\n",
            f"GET {target}&x={'x' * 9000} HTTP/1.1\r\nHost: x\r\n\r\n",
            f"GET {target} HTTP/9.9\r\n{bearer}\r\n",
            f"{bearer}\r\n",
            f"Bearer {key} {target}\r\n\r\n",
            f"GET {target} HTTP/1.1\r\nHost: x\r\n{bearer.replace(':', ' :')}\r\n",
            f"GET {target} HTTP/1.1\r\nHost: x\r\n{odd}\r\n",
            f"PUT {target} HTTP/1.1\r\nHost: x\r\n{bearer}Transfer-Encoding: chunked\r\n\r\n{key}\r\n\r\n",
            f"POST /files?path=x&key={key} HTTP/1.1\r\nHost: x\r\n{bearer}Content-Length: {key}\r\n\r\n",
        ):
            with contextlib.suppress(OSError), socket.create_connection((HOST, service.port), 5) as sock:
                sock.sendall(text.encode())
                sock.settimeout(1)
                while sock.recv(65536):
                    pass
        wait_for(lambda: "was cut off" in service.log.read_text(), what="the slow client to be cut off")
        slow.close()
        assert service.process is not None
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "was read again" in service.log.read_text())
    log = service.log.read_text()
    assert "signature=..." in log  # it was there to be hidden
    secret = key.split("_")[2]
    for hidden in (secret, secret[:16], signature, signature[:16], SECRET):
        assert hidden not in log


def test_the_list_of_keys_is_no_file_and_can_not_be_reached_over_http(where: dict[str, str], tmp_path: Path) -> None:
    with Service(tmp_path, settings=where) as service:
        for path in ("%23r/keys", "r/keys", "/%23r/keys", "%2523r/keys"):
            for page in (f"/file?path={path}", f"/files?path={path}&prefix={path}"):
                with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(service.url + page) as answer:
                    assert json.load(answer)["files"] == []
        done("key", "create", "--name", "still there", **where)
        assert status(f"{service.url}/file?path=%23r/keys", "PUT", body=b"nonsense") == 200
        assert "still there" in done("key", "list", **where)
