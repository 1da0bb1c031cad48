"""A real Chromium, headless, for the dashboard; and what holds of every page that a test opens.

Whatever a test does: no request leaves the service, nothing that was uploaded runs, and neither an error nor a refusal
of the Content-Security-Policy is on the console. Pictures of what was seen last are left in ``$SFSS_TEST_PICTURES``, by
default ``build/pictures``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, ConsoleMessage, Dialog, Page, Request, async_playwright

from tests.servers import HOST, Service, free_port, process, sfss_node, wait_for

ROOT = Path(__file__).parent.parent.parent.parent
PICTURES = Path(os.environ.get("SFSS_TEST_PICTURES", ROOT / "build" / "pictures"))
# What the browser itself writes on the console of an answer that is no success: tests bring such answers about; and of
# a file that is opened as a page, and wants to run.
_EXPECTED = re.compile(
    r"Failed to load resource: (the server responded with a status of \d+|net::ERR_\w+)"
    r"|Blocked script execution in '[^']+/file\?path=[^']+' because the document's frame is sandboxed"
)

Open = Callable[..., Awaitable[Page]]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A browser, shared; where it is told what to do."""
    binary = shutil.which("chromium")
    assert binary, "chromium is not installed: `make test` installs it, or: apt-get install chromium"
    port, folder = free_port(), tmp_path_factory.mktemp("chromium")
    options = [
        "--headless=new",
        f"--remote-debugging-port={port}",
        f"--user-data-dir={folder}",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        # A page is drawn as if it were looked at, though another one lies above it.
        "--disable-background-timer-throttling",
        "--disable-backgrounding-occluded-windows",
        "--disable-renderer-backgrounding",
    ]
    if os.geteuid() == 0:
        options.append("--no-sandbox")
    with (folder / "log").open("wb") as log, process([binary, *options, "about:blank"], stdout=log, stderr=log):
        wait_for(lambda: "DevTools listening" in (folder / "log").read_text(errors="replace"), what="chromium")
        yield f"http://{HOST}:{port}"


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """The same, for one test's loop."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(chromium)
        yield browser
        await browser.close()


@pytest.fixture
async def open_page(browser: Browser, request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Opens pages of a service: ``await open_page(url, width=360)``; options are those of a Playwright context."""
    errors: list[str] = []
    strays: list[str] = []

    async def open_page(url: str, hash: str = "", *, width: int = 1280, height: int = 900, **options: Any) -> Page:
        context = await browser.new_context(viewport={"width": width, "height": height}, **options)
        stack.push_async_callback(context.close)
        page = await context.new_page()
        page.set_default_timeout(6_000)

        def heed_console(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning") and not _EXPECTED.match(message.text):
                errors.append(message.text)

        async def heed_dialog(dialog: Dialog) -> None:
            if dialog.type != "beforeunload":  # that uploads go on is asked about
                errors.append(f"a dialog: {dialog.message}")
            await dialog.accept()

        def heed_request(sent: Request) -> None:
            if not sent.url.startswith((url, "blob:")):
                strays.append(sent.url)

        page.on("console", heed_console)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", heed_dialog)
        context.on("request", heed_request)
        await page.goto(f"{url}/{hash}")
        stack.push_async_callback(_picture, page, request.node.name)
        return page

    async with contextlib.AsyncExitStack() as stack:
        yield open_page
    assert not errors
    assert not strays, "requests to elsewhere"


async def _picture(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(Exception):  # of a page that has crashed there is none
        await page.screenshot(path=PICTURES / f"{re.sub(r'[^a-z0-9]+', '-', name)[:100]}.png")


class Farm:
    """A service over three nodes of their own, each of which can be killed and come back."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.ports = [free_port() for _ in range(3)]
        self._nodes = [contextlib.ExitStack() for _ in self.ports]
        nodes = ",".join(f"node-{number}={HOST}:{port}" for number, port in enumerate(self.ports))
        self.service = Service(directory, settings={"SFSS_STORAGE_NODES": nodes, **settings})

    def start_node(self, number: int) -> None:
        node = sfss_node(self.directory / f"node-{number}", port=self.ports[number])
        self._nodes[number].enter_context(node)

    def stop_node(self, number: int) -> None:
        self._nodes[number].close()

    def __enter__(self) -> Farm:
        for number in range(len(self.ports)):
            self.start_node(number)
        self.service.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.service.__exit__()
        for number in range(len(self.ports)):
            self.stop_node(number)


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Shared: leave it with all of it running."""
    copies = {f"SFSS_STORAGE_{name}": value for name, value in
              (("COPIES", "3"), ("WRITE_QUORUM", "2"), ("READ_QUORUM", "2"), ("RETRY_AFTER", "0.3"))}  # fmt: skip
    with Farm(tmp_path_factory.mktemp("farm"), **copies) as running:
        yield running
