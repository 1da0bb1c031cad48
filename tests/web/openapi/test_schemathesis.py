"""schemathesis tests the running service by its own document: what it says is what is done, whatever is sent."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.servers import HOST, Service, sfss_node

HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent

# What all of them have: files that are refused for their size soon, and a disk that isn't waited for.
_BASE = """
[limits]
max_file_size = "64KiB"
[embedded]
durability = "os"
"""
_ALL = """
[access]
anonymous = []
signing_secrets = ["a-signing-secret-of-the-tests"]
[namespaces]
api = true
[catalogue]
url = "sqlite:///catalogue.db"
[json]
prefix = "clients/"
[registration]
enabled = true
secret = "the-secret-of-the-nodes"
[[policy]]
prefix = "once/"
write_once = true
[[namespace]]
name = "photos"
quota = "10MiB"
"""
_ROOT = """
[post]
enabled = true
"""


class Run(NamedTuple):
    """A configuration, and how schemathesis is told to go about it."""

    settings: str
    short: tuple[str, ...]
    rules: str = ""  # besides schemathesis.toml
    unreached: frozenset[str] = frozenset()  # operations that can't succeed, with what is sent


RUNS = {
    "all that can be": Run(
        _ALL,
        # What is the same as something else is left to the long form.
        ("--phases", "coverage", "--exclude-path", "/uploads/", "--exclude-operation-id", "put_files",
         "--exclude-method", "HEAD"),
        # What there is isn't removed, and may be no made-up node: test_document.py does these.
        unreached=frozenset(
            ("DELETE /files/{file_id}", "DELETE /namespaces/{name}", "DELETE /nodes/{name}", "POST /nodes",
             "DELETE /uploads/{upload}", "DELETE /{namespace}/{path}")
        ),
    ),
    "as it comes": Run("", ("--phases", "fuzzing", "--max-examples", "2")),
    "made and removed": Run(
        "", ("--phases", "stateful", "--max-examples", "5", "--include-tag", "files", "--include-tag", "ids")
    ),
    "files at the root": Run(
        _ROOT,
        ("--phases", "coverage", "--include-tag", "root", "--exclude-method", "HEAD"),
        # A file that is there can't be posted again.
        """
[[operations]]
include-path = ["/{path}", "/{namespace}/{path}"]
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 400, 404, 405, 409, 412, 416]
""",
    ),
}  # fmt: skip


class Served(NamedTuple):
    service: Service
    key: str


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest) -> Run:
    return RUNS[request.param]


@pytest.fixture
def served(run: Run, tmp_path: Path) -> Iterator[Served]:
    settings = tmp_path / "sfss.toml"
    settings.write_text(_BASE + run.settings)
    with contextlib.ExitStack() as stack:
        key = ""
        if "anonymous = []" in run.settings:  # its key is made before it starts, and so known at once
            nodes = [stack.enter_context(sfss_node(tmp_path / str(n), "--durability", "os"))[0] for n in range(3)]
            with settings.open("a") as more:
                more.write(f"[storage]\nnodes = {[f'{HOST}:{port}' for port in nodes]}\n")
            key = _make_key(settings)
        yield Served(stack.enter_context(Service(tmp_path, "--config", str(settings))), key)


@pytest.mark.timeout(1800)
def test_the_service_does_what_its_document_says(run: Run, served: Served, tmp_path: Path, long: bool) -> None:
    report, rules = tmp_path / "report.ndjson", tmp_path / "schemathesis.toml"
    rules.write_text((HERE / "schemathesis.toml").read_text() + run.rules + _keys(served.key))
    how = ("--max-examples", "100") if long else (*run.short, "--generation-deterministic")
    done = subprocess.run(
        [Path(sys.executable).parent / "schemathesis", "--config-file", str(rules),
         "run", f"{served.service.url}/openapi.json", "--checks", "all", "--no-color", "--continue-on-failure",
         "--report", "ndjson", "--report-ndjson-path", str(report), *how],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.web.openapi.hooks",
            "SFSS_TEST_THERE": json.dumps(_make_some(served) if served.key else {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    answered = _answered(report) if "coverage" in run.short[1] else {}  # where there is something of each kind
    unreached = {operation for operation, statuses in answered.items() if not any(status < 400 for status in statuses)}
    assert unreached & set(_described(served)) <= run.unreached
    assert "is a bug in sfss" not in served.service.log.read_text()


def _ask(served: Served, method: str, url: str, body: bytes | None = None, **headers: str) -> HTTPResponse:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    shown = {"Authorization": f"Bearer {served.key}"} if served.key else {}
    request = urllib.request.Request(f"{served.service.url}{url}", body, {**given, **shown}, method=method)
    answer: HTTPResponse = urllib.request.urlopen(request, timeout=10)
    return answer


def _make_some(served: Served) -> dict[str, dict[str, str]]:
    """Something of each kind, by the names that path parameters have for them; for all operations, or for one."""
    by_id = json.load(_ask(served, "POST", "/files", b"a file"))
    _ask(served, "PUT", "/file?path=photos/there", b"a file in a namespace")
    _ask(served, "PUT", "/namespaces/made", b"{}")
    uploads = [
        _ask(served, "POST", "/uploads?path=an/upload", Tus_Resumable="1.0.0", Upload_Length="1000").headers["Location"]
        for _ in range(2)
    ]
    names = [upload.removeprefix("/uploads/") for upload in uploads]
    return {
        "": {"file_id": by_id["file_id"], "namespace": "photos", "path": "there", "upload": names[0]},
        "POST /uploads/{upload}": {"upload": names[1]},
        "GET /namespaces/{name}": {"name": "made"},
        "PUT /namespaces/{name}": {"name": "made"},
        "PATCH /namespaces/{name}": {"name": "made"},
    }


def _described(served: Served) -> list[str]:
    """The operations of the document."""
    paths = json.load(_ask(served, "GET", "/openapi.json"))["paths"]
    return [f"{method.upper()} {path}" for path, item in paths.items() for method in item if method != "parameters"]


def _make_key(settings: Path) -> str:
    """A key that may everything."""
    return subprocess.run(
        [sys.executable, "-m", "sfss", "key", "create", "--may", "read,write,admin", "--config", str(settings)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def _keys(key: str) -> str:
    """The keys for each of the document's ways in, but for signed URLs, which are for one file."""
    if not key:
        return ""
    return f"""
[auth.openapi.key]
bearer = "{key}"
[auth.openapi.nodes]
bearer = "the-secret-of-the-nodes"
"""


def _answered(report: Path) -> dict[str, set[int]]:
    """The statuses that each operation was answered with."""
    found: dict[str, set[int]] = {}
    for line in report.read_text().splitlines():
        ended: Mapping[str, Any] = json.loads(line).get("ScenarioFinished", {})
        recorder: Mapping[str, Any] = ended.get("recorder", {})
        for name, exchange in recorder.get("interactions", {}).items():
            case = recorder["cases"][name]["value"]
            if exchange["response"] is not None:
                status = exchange["response"]["status_code"]
                found.setdefault(f"{case['method']} {case['path']}", set()).add(status)
    return found
