"""What tests of the page share: files put and read past it, and what is dropped onto it."""

from __future__ import annotations

import contextlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from playwright.async_api import Page

from tests.servers import Service

_CONNECTIONS = 16  # that many files are put over


def put(service: Service, path: str, content: bytes, type: str | None = None) -> None:
    headers = {"Content-Type": type or ""} if type else {}
    request = urllib.request.Request(url_of(service, path), data=content, method="PUT", headers=headers)
    with urllib.request.urlopen(request, timeout=30):
        pass


def put_many(service: Service, paths: Sequence[str]) -> None:
    """Empty files, over some connections: the nodes sync once for what comes to them together."""
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        list(pool.map(lambda first: _put_each(service, paths[first::_CONNECTIONS]), range(_CONNECTIONS)))


def _put_each(service: Service, paths: Iterable[str]) -> None:
    connection = http.client.HTTPConnection(service.host, service.port, timeout=30)
    with contextlib.closing(connection):
        for path in paths:
            connection.request("PUT", f"/file?path={quote(path)}", body=b"")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"")


def get(service: Service, path: str) -> bytes | None:
    """A file's content; None if there is none."""
    try:
        with urllib.request.urlopen(url_of(service, path), timeout=60) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        assert error.code == 404
        return None


def url_of(service: Service, path: str) -> str:
    return f"{service.url}/file?path={quote(path)}"


async def drop(page: Page, files: Sequence[Path]) -> None:
    """Drop files and folders of this machine onto the page, as a hand does."""
    session = await page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    for type in ("dragEnter", "dragOver", "drop"):
        await session.send("Input.dispatchDragEvent", {"type": type, "x": 300, "y": 300, "data": data})


async def choose(page: Page, *files: Path) -> None:
    """Choose files of this machine, as in a dialog; Playwright itself would send their content along."""
    session = await page.context.new_cdp_session(page)
    told = await session.send("Runtime.evaluate", {"expression": "document.getElementById('pick-files')"})
    given = {"files": [str(file) for file in files], "objectId": told["result"]["objectId"]}
    await session.send("DOM.setFileInputFiles", given)
