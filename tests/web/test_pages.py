"""The dashboard's page as the server sends it: its headers, its parts, and what it is told that its reader may."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sfss.access.keys import ADMIN, READ, WRITE, Scope
from tests.conftest import Client, Nodes, StartFront
from tests.web.guarded import Front, Start

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "sfss" / "web" / "dashboard"
TOOLS = ROOT / ".tools" / "browser" / "node_modules"
MODULES = sorted(file for file in FOLDER.glob("*.js") if not file.name.startswith("uplot"))


@pytest.fixture
async def page(start_front: StartFront, our_nodes: Nodes) -> Client:
    return await start_front(our_nodes)


async def test_the_page_takes_nothing_from_elsewhere_and_nothing_that_stands_in_it(page: Client) -> None:
    answer = await page.get("/")
    assert answer.status == 200
    assert answer.content_type == "text/html"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["frame-ancestors"] == "'none'"
    text = await answer.text()
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on\w+=|javascript:|//", text.replace("<!doctype", ""))
    for url in re.findall(r'(?:src|href)="([^"#]+)"', text):
        assert (await page.get(url)).status == 200, url


async def test_every_part_of_it_is_sent_as_what_it_is_and_again_only_if_it_has_changed(page: Client) -> None:
    types = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    for file in FOLDER.iterdir():
        answer = await page.get(f"/dashboard/{file.name}")
        assert await answer.read() == file.read_bytes()
        assert answer.content_type == types.get(file.suffix[1:], "text/plain")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-cache"
        again = await page.get(f"/dashboard/{file.name}", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status, await again.read()) == (304, b"")
    assert (await page.head("/")).status == 200


async def test_nothing_else_lies_there(page: Client) -> None:
    for url in ("/dashboard/", "/dashboard/none.js", "/dashboard/..%2fpages.py", "/dashboard/%2e%2e/pages.py"):
        assert (await page.get(url)).status == 404, url
    assert (await page.post("/")).status == 405


async def test_it_can_be_left_out(start_front: StartFront, our_nodes: Nodes) -> None:
    page = await start_front(our_nodes, dashboard={"enabled": False})
    for url in ("/", "/dashboard/main.js", "/dashboard/may"):
        assert (await page.get(url)).status == 404, url


async def may(front: Front, query: str, *lines: str) -> dict[str, Any]:
    answer = await front.ask("GET", f"/dashboard/may?{query}", *lines)
    assert answer.status == 200, answer
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, Any] = json.loads(answer.body)
    return found


def rights(told: dict[str, Any]) -> set[str]:
    return {right for right in ("admin", "list", "read", "write", "delete", "open") if told[right]}


async def test_who_looks_is_told_what_he_may_there(start_guarded: Start) -> None:
    front = await start_guarded(
        {"prefix": "open/", "anonymous": ["read"]}, {"prefix": "once/", "write_once": True}, anonymous=[]
    )
    key = await front.key(Scope("mine/", (READ, WRITE)), Scope("once/", (WRITE,)))
    assert rights(await may(front, "prefix=")) == set()
    assert rights(await may(front, "prefix=open/")) == {"list", "read", "open"}
    assert rights(await may(front, "prefix=mine/", key)) == {"list", "read", "write", "delete"}
    assert rights(await may(front, "path=mine/file", key)) == {"list", "read", "write", "delete"}
    assert rights(await may(front, "prefix=", key)) == set()
    once = await may(front, "prefix=once/", key)
    assert (rights(once), once["write_once"]) == ({"write"}, True)
    assert once["why"]["read"].startswith(f"the key {once['key']} may not read")
    everything = await front.key(Scope("", (READ, WRITE, ADMIN)))
    assert rights(await may(front, "prefix=", everything)) == {"admin", "list", "read", "write", "delete"}
    wrong = await may(front, "prefix=open/", "Authorization: Bearer sfss_none")
    assert (rights(wrong), wrong["fault"]) == ({"list", "read", "open"}, "there is no such key")


async def test_who_may_nothing_there_is_not_told_what_there_is(start_guarded: Start) -> None:
    namespaces = {"namespaces": {"required": True}, "namespace": [{"name": "shut", "enabled": False}]}
    front = await start_guarded({"prefix": "shut/x", "max_file_size": 9}, sections=namespaces, anonymous=[])
    told = [await may(front, f"prefix={name}/") for name in ("shut", "none")]
    assert str(told[0]).replace("shut", "none") == str(told[1])


async def test_what_holds_for_files_there_is_told_too(start_front: StartFront, our_nodes: Nodes) -> None:
    page = await start_front(
        our_nodes,
        limits={"max_file_size": "3MiB"},
        policy=[{"prefix": "small/", "max_file_size": "1KiB"}],
        namespace=[{"name": "shut", "enabled": False}],
    )
    told = await (await page.get("/dashboard/may?prefix=x/")).json()
    assert (told["max_file_size"], told["search"], told["key"]) == (3 * 2**20, False, None)
    assert (await (await page.get("/dashboard/may?prefix=small/")).json())["max_file_size"] == 1024
    shut = await (await page.get("/dashboard/may?prefix=shut/")).json()
    assert not shut["write"]
    assert not shut["read"]
    assert "shut" in shut["why"]["closed"]
    assert (await page.get("/dashboard/may?prefix=a//b/")).status == 400
    assert (await page.get("/dashboard/may?path=")).status == 400


async def test_the_page_is_open_to_everybody_and_tells_of_nothing(start_guarded: Start) -> None:
    front = await start_guarded(anonymous=[], deny=["127.0.0.0/8"])
    assert await front.status("GET", "/") == 200
    assert await front.status("GET", "/dashboard/main.js") == 200
    assert await front.status("GET", "/dashboard/may") == 403  # it asks for more, and is let in nowhere
    assert await front.status("GET", "/status?format=full") == 403


# --- what it is made of ---


@pytest.mark.parametrize(("ours", "theirs"), [("js", "iife.min.js"), ("css", "min.css")])
def test_uplot_is_just_what_npm_has(ours: str, theirs: str) -> None:
    installed = TOOLS / "uplot" / "dist" / f"uPlot.{theirs}"
    assert installed.exists(), "uPlot is not installed: `make test` does it: tests/install-browser-js"
    [file] = FOLDER.glob(f"uplot-*.{ours}")
    assert file.read_bytes() == installed.read_bytes()  # which npm has compared with the digest of the lock
    lock = (ROOT / "tests/web/browser/npm/package-lock.json").read_text()
    [digest] = re.findall(r"sha512-\S+", (FOLDER / "uplot.txt").read_text())
    assert digest in lock


def test_none_of_it_takes_text_for_markup() -> None:
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
    for file in MODULES:
        assert not re.search(sinks, file.read_text()), file


COMMANDS = {
    "formatted": f"{TOOLS}/prettier/bin/prettier.cjs --check *.js *.mjs",
    "typed": f"{TOOLS}/typescript/bin/tsc -p .",
    "right": "--test",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_scripts_are(command: str, tmp_path: Path) -> None:
    node, options = shutil.which("node"), COMMANDS[command].split()
    assert node, "node is not installed: `make test` installs it, or: apt-get install nodejs"
    assert TOOLS.exists(), "what this needs is not installed: `make test` does it: tests/install-browser-js"
    settings = ROOT / "tests" / "web" / "browser" / "npm"
    for file in (*MODULES, settings / ".prettierrc.json", settings / "tsconfig.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "package.json").write_text('{ "type": "module" }\n')  # and so are all scripts beside it
    (tmp_path / "pure.test.mjs").write_bytes((ROOT / "tests" / "web" / "browser" / "pure.mjs").read_bytes())
    done = subprocess.run([node, *options], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
