"""Progress that an operator watches, in a real browser: files that move to a node that joins, copies that come back."""

from __future__ import annotations

import asyncio
import re
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.servers import sfss_node
from tests.test_registration import SECRET, a_front
from tests.web.browser.conftest import Farm, Open
from tests.web.browser.support import put_many

FILES = 6000
pytestmark = pytest.mark.timeout(300)  # walks are slow here, so that there is something to see

# Notes what a bar shows, each time that it is another value, and that it has gone.
_WATCH = """name => {
  const seen = window[`seen-${name}`] = [];
  const look = () => {
    const bar = document.querySelector(`progress[aria-label="progress of ${name}"]`);
    const value = bar === null ? null : bar.value;
    if (value !== (seen.length ? seen.at(-1) : null)) seen.push(value);
  };
  const everything = { subtree: true, childList: true, attributes: true };
  new MutationObserver(look).observe(document.getElementById("copies"), everything);
}"""


async def watch_bar(page: Page, name: str) -> None:
    await page.evaluate(_WATCH, name)


async def has_moved(page: Page, name: str) -> list[float]:
    """What the bar showed, when it has come, moved and gone: only ever more."""
    gone = "name => { const seen = window[`seen-${name}`]; return seen.length > 1 && seen.at(-1) === null; }"
    await page.wait_for_function(gone, arg=name, timeout=200_000)
    seen: list[Any] = await page.evaluate("name => window[`seen-${name}`]", name)
    walk: list[float] = seen[: seen.index(None)]
    assert len(walk) >= 3, f"it was seen at {seen} only"
    assert walk == sorted(walk), f"it went back: {seen}"
    assert 0 < walk[0] < 0.7
    assert walk[-1] <= 1
    return walk


def fact(page: Page, term: str) -> Any:
    """What is said of copies, repair and rebalance."""
    return page.locator("#copies > div", has=page.locator("dt", has_text=re.compile(f"^{term}$"))).locator("dd")


async def test_files_move_to_a_node_that_joins_and_the_bar_shows_how_far_they_are(
    tmp_path: Path, open_page: Open
) -> None:
    options = ("--durability", "os")
    with ExitStack() as stack:
        ports = [stack.enter_context(sfss_node(tmp_path / f"s{number}", *options))[0] for number in range(3)]
        seeds = [f"s{number}=127.0.0.1:{port}" for number, port in enumerate(ports)]
        front = stack.enter_context(a_front(tmp_path / "front", seeds, SFSS_REGISTRATION_SHARE="0.01"))
        await asyncio.to_thread(put_many, front, [f"moving/{number}" for number in range(FILES)])
        page = await open_page(front.url)
        await expect(fact(page, "Rebalance")).to_contain_text("nothing to move")
        await watch_bar(page, "rebalance")
        joining = sfss_node(tmp_path / "s3", *options, "--register", front.url, "--name", "s3",
                            "--register-key", SECRET, "--heartbeat", "0.2")  # fmt: skip
        await asyncio.to_thread(stack.enter_context, joining)

        row = page.locator("#nodes tr", has=page.locator("th bdi", has_text=re.compile("^s3$")))
        await expect(row).to_contain_text("joining", timeout=20_000)
        await expect(page.locator("#ring")).to_contain_text("files are being moved")
        await expect(fact(page, "Rebalance")).to_contain_text(
            re.compile(r"^moving .*keys so far: [\d.]+ % of what the nodes had"), timeout=30_000
        )
        await has_moved(page, "rebalance")
        await expect(fact(page, "Rebalance")).to_contain_text("nothing to move", timeout=120_000)
        await expect(row).not_to_contain_text("joining")
        await expect(page.locator("#ring")).not_to_contain_text("files are being moved")
        await expect(page.locator("#verdict")).to_have_text(re.compile("^All is well: 4 of 4 nodes are here"))
        items = int((await row.locator('td[data-label="Items"]').inner_text()).replace(",", ""))
        assert FILES / 8 < items < FILES / 2


async def test_what_a_node_lacks_that_was_away_comes_back_and_the_bar_shows_how_far_it_is(
    tmp_path: Path, open_page: Open
) -> None:
    settings = {"SFSS_STORAGE_COPIES": "3", "SFSS_STORAGE_WRITE_QUORUM": "2", "SFSS_STORAGE_READ_QUORUM": "2",
                "SFSS_STORAGE_RETRY_AFTER": "0.3", "SFSS_REPAIR_SHARE": "0.05"}  # fmt: skip
    with Farm(tmp_path, **settings) as farm:
        await asyncio.to_thread(put_many, farm.service, [f"copies/{number}" for number in range(FILES)])
        page = await open_page(farm.service.url)
        lacking, repair = fact(page, "Files that lack a copy"), fact(page, "Repair")
        await expect(lacking).to_have_text("0")
        await expect(repair).to_contain_text("resting")
        await asyncio.to_thread(farm.stop_node, 1)
        await asyncio.to_thread(put_many, farm.service, [f"away/{number}" for number in range(100)])
        await expect(lacking).to_have_text("100")
        await expect(page.locator("#troubles")).to_contain_text("100 files lack a copy; repair: resting")

        await watch_bar(page, "repair")
        shutil.rmtree(tmp_path / "node-1")  # its disk is a new one
        await asyncio.to_thread(farm.start_node, 1)
        await expect(repair).to_contain_text(
            re.compile(r"^walking .*keys so far: [\d.]+ % of what the nodes had"), timeout=30_000
        )
        await has_moved(page, "repair")
        await expect(repair).to_contain_text("resting")
        await expect(repair).to_contain_text(re.compile(r"last finished: \d\d:\d\d:\d\d"))
        await expect(lacking).to_have_text("0")
        await expect(page.locator("#verdict")).to_have_text(re.compile("^All is well: 3 of 3 nodes are here"))
        items = page.locator("#nodes tr", has_text="node-1").locator('td[data-label="Items"]')
        assert int((await items.inner_text()).replace(",", "")) > FILES
