"""``sfss namespace``, of a running service; and the commands that go by the namespaces which it has made."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfss import record
from sfss.paths import key_of
from sfss.record import Kind
from tests.large.support import connected
from tests.servers import HOST, Service
from tests.test_cli import run


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers, so that what one has made the other must heed."""
    directory = tmp_path_factory.mktemp("namespaces")
    with Service(directory, "--workers", "2", settings={"SFSS_NAMESPACES_API": "true"}) as running:
        yield running


@pytest.fixture
def name() -> str:
    return f"n{secrets.token_hex(6)}"


def said(service: Service, *arguments: str) -> str:
    done = run("namespace", *arguments, "--port", str(service.port))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def put(service: Service, path: str, content: bytes) -> int:
    request = urllib.request.Request(f"{service.url}/{path}", data=content, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_namespace_is_made_changed_shown_and_removed(service: Service, name: str) -> None:
    options = ["--layout", "raid0", "--pieces", "3", "--quota", "1GiB", "--quota-files", "10", "--anonymous", "read"]
    line = f"{name}: enabled, layout raid0, pieces 3, quota 1073741824, quota_files 10, write_once no, anonymous read\n"
    assert said(service, "create", name, *options) == line
    assert said(service, "disable", name) == line.replace("enabled", "disabled")
    assert said(service, "enable", name) == line
    again = run("namespace", "create", name, "--port", str(service.port))
    assert (again.returncode, f"there is a namespace '{name}' already" in again.stderr) == (1, True), again.stderr
    assert line in said(service, "set", name)
    changed = said(service, "set", name, "--quota", "none", "--quota-files", "none", "--anonymous", "nothing")
    assert changed == f"{name}: enabled, layout raid0, pieces 3, write_once no, anonymous nothing\n"
    shown = next(line for line in said(service, "list").splitlines() if line.startswith(name))
    assert shown.split() == [name, "enabled", "raid0", "3", "-", "-", "-", "-", "api"]
    assert name in [each["name"] for each in json.loads(said(service, "list", "--json"))]
    assert said(service, "remove", name) == f"removed: {name}\n"


def test_what_the_service_refuses_is_said(service: Service, name: str) -> None:
    for arguments, says in (
        (["create", name, "--copies", "9"], "9 copies need as many nodes"),
        (["create", name, "--quota-files", "many"], "quota_files of the namespace"),
        (["set", name, "--copies", "2"], "there is no namespace"),
        (["create", "files"], "/files is a page of sfss"),
        (["create", "a/b"], "a name has 1 to 63 of"),
        (["remove", name], "there is no namespace"),
    ):
        done = run("namespace", *arguments, "--port", str(service.port))
        assert done.returncode == 1
        assert says in done.stderr, (arguments, done.stderr)


async def test_repair_gives_files_of_a_namespace_the_copies_that_it_has(service: Service, name: str) -> None:
    """Though no configuration tells them; and it takes none away."""
    assert put(service, f"file?path={name}/early", b"early") == 200
    said(service, "create", name, "--copies", "3")
    environment = {
        "SFSS_STORAGE_NODES": ",".join(f"embedded-{n}={HOST}:{port}" for n, port in enumerate(service.node_ports))
    }
    for api in ("true", "false"):  # the other: by a configuration that isn't the fronts'
        done = run("repair", SFSS_NAMESPACES_API=api, **environment)
        assert done.returncode == 0, done.stderr
        for port in service.node_ports:
            async with connected(f"{HOST}:{port}") as node:
                data = await node.get(key_of(f"{name}/early"))
                assert data is not None, port
                assert record.decode(data).header.kind == Kind.FILE


def test_repair_without_the_nodes_that_know_the_namespaces_touches_nothing(tmp_path: Path) -> None:
    done = run("repair", SFSS_NAMESPACES_API="true", SFSS_STORAGE_NODES=f"{HOST}:1")
    assert done.returncode == 1
    assert "which namespaces there are" in done.stderr
