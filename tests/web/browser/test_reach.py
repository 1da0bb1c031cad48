"""Who can use the page: by keyboard only, with a screen reader (axe-core), on a phone, light and dark."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.servers import Service
from tests.web.browser.conftest import ROOT, Open
from tests.web.browser.support import put

AXE = ROOT / ".tools" / "browser" / "node_modules" / "axe-core" / "axe.min.js"


async def findings(page: Page) -> list[dict[str, Any]]:
    """What axe-core takes for serious or worse."""
    assert AXE.exists(), "axe-core is not installed: `make test` does it: tests/install-browser-js"
    # Past the page's own policy, as a person with tools of his own is: in a world of its own.
    session = await page.context.new_cdp_session(page)
    tree = await session.send("Page.getFrameTree")
    world = await session.send("Page.createIsolatedWorld", {"frameId": tree["frameTree"]["frame"]["id"]})
    script = AXE.read_text() + ";axe.run().then(found => JSON.stringify(found.violations))"
    told = await session.send("Runtime.evaluate", {
        "expression": script, "contextId": world["executionContextId"], "awaitPromise": True, "returnByValue": True,
    })  # fmt: skip
    assert "exceptionDetails" not in told, told
    return [found for found in json.loads(told["result"]["value"]) if found["impact"] in ("serious", "critical")]


@pytest.mark.parametrize(("width", "color_scheme"), [(1280, "light"), (360, "dark")])
async def test_axe_finds_no_serious_violation(service: Service, open_page: Open, color_scheme: str, width: int) -> None:
    put(service, "axe/words.txt", b"some words")
    page = await open_page(service.url, width=width, color_scheme=color_scheme)
    await expect(page.locator("#nodes tr")).to_have_count(3)
    assert await findings(page) == []
    await page.get_by_role("button", name="Key").click()
    assert await findings(page) == []
    await page.goto(f"{service.url}/#files/axe/")
    await expect(page.get_by_role("link", name="words.txt")).to_be_visible()
    assert await findings(page) == []
    await page.get_by_role("link", name="words.txt").click()
    await expect(page.locator("pre")).to_have_text("some words")
    await page.get_by_role("button", name="Delete", exact=True).click()
    assert await findings(page) == []


async def test_nothing_is_wider_than_a_phone(service: Service, open_page: Open) -> None:
    put(service, f"phone/{'a-name-without-any-blank' * 8}.txt", b"some words")
    page = await open_page(service.url, width=360, height=640)
    await expect(page.locator("#nodes tr")).to_have_count(3)
    too_wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not await page.evaluate(too_wide)
    await page.goto(f"{service.url}/#files/phone/")
    link = page.locator("#rows a")
    await expect(link).to_have_count(1)
    assert not await page.evaluate(too_wide)
    await link.click()
    await expect(page.locator("pre")).to_have_text("some words")
    assert not await page.evaluate(too_wide)


async def test_all_can_be_done_by_keyboard(service: Service, open_page: Open) -> None:
    put(service, "keys/inner/words.txt", b"some words")
    page = await open_page(service.url)
    press = page.keyboard.press

    async def tab_to(name: str) -> None:
        for _ in range(60):
            await press("Tab")
            focused = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()"
            if await page.evaluate(focused) == name:
                seen = "getComputedStyle(document.activeElement).outlineStyle"
                assert await page.evaluate(seen) != "none", f"nobody sees that {name} has the focus"
                return
        raise AssertionError(f"no way by keyboard to {name}")

    await press("Tab")
    await press("Enter")  # the first is the way past the head
    assert await page.evaluate("document.activeElement.id") == "main"
    await page.goto(service.url)
    await tab_to("Files")
    await press("Enter")
    await tab_to("keys/")
    await press("Enter")
    await expect(page.locator("#folder-name")).to_have_text("keys")
    assert await page.evaluate("document.activeElement.id") == "folder"
    await tab_to("inner/")
    await press("Enter")
    await expect(page.locator("#rows a")).to_have_text("words.txt")
    await tab_to("words.txt")
    await press("Enter")
    await expect(page.locator("pre")).to_have_text("some words")
    await press("Escape")
    await expect(page.locator("#details")).to_be_hidden()
    await tab_to("words.txt")
    await press("Enter")
    await expect(page.locator("pre")).to_be_visible()
    await tab_to("Delete")
    await press("Enter")
    assert await page.evaluate("document.activeElement.textContent") == "Keep it"  # not what can't be taken back
    await page.keyboard.press("Shift+Tab")
    await press("Enter")
    await expect(page.locator("#files-told")).to_have_text("0 files.")
