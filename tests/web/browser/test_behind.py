"""The dashboard's card of write-behind, in a real browser over a real Redis: what waits, and who moves it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Locator, Page, expect
from redis import Redis as Client

from tests.behind.support import Bench, put
from tests.conftest import Nodes, StartFront
from tests.redis import DURABLE, Redis, redis
from tests.web.browser.conftest import Open
from tests.web.browser.test_reach import findings


@pytest.fixture
def short_term(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis of the test's own, set as the page of write-behind says."""
    with redis(tmp_path_factory.mktemp("short-term"), *DURABLE, "--maxmemory", "256mb") as server:
        yield server


@pytest.fixture
async def bench(our_nodes: Nodes, short_term: Redis, start_front: StartFront) -> AsyncIterator[Bench]:
    bench = Bench(our_nodes, f"{short_term.url}/0", start_front)
    bench.sections = {"write_behind": {"max_tasks": 100, "max_bytes": "1MiB", "timeout": 2.0}}
    yield bench
    await bench.close()


def told(page: Page, term: str) -> Locator:
    """What the card says of something."""
    return page.locator("#behind dl > div", has=page.locator("dt", has_text=re.compile(f"^{term}$"))).locator("dd")


async def test_a_backlog_grows_without_a_worker_and_falls_with_one(bench: Bench, open_page: Open) -> None:
    front = await bench.front()
    page = await open_page(f"http://{front.host}:{front.port}")
    card = page.get_by_role("region", name="Write-behind")
    await expect(card).to_be_visible()
    await expect(told(page, "State")).to_have_text(re.compile(r"^hereredis \d+\.\d+\.\d+, synced always$"))
    await expect(told(page, "Files that wait")).to_contain_text("0 of 100")
    await expect(told(page, "Memory of the store")).to_contain_text("MiB of 256 MiB")
    await expect(told(page, "Workers")).to_have_text("none")

    for number in range(3):
        await put(front, bench.path(f"{number}"), bytes(1024))
    await expect(told(page, "Files that wait")).to_contain_text("3 of 100")
    await expect(told(page, "Bytes that wait")).to_have_text(re.compile(r"^3\.\d KiB of 1\.0 MiB"))
    await expect(told(page, "Tasks")).to_have_text(re.compile(r"^3the oldest waits for \d+ s$"))
    await expect(told(page, "Workers")).to_have_text("none: run sfss worker")
    await expect(page.locator("#troubles")).to_contain_text("has tasks, and nobody works at them: run sfss worker")
    for number in range(3, 60):
        await put(front, bench.path(f"{number}"), bytes(1024))
    await expect(told(page, "Files that wait")).to_contain_text("60 of 100")
    meter = told(page, "Files that wait").locator("meter")
    assert await meter.evaluate("meter => meter.value / meter.max") == 0.6
    assert await findings(page) == []
    await card.scroll_into_view_if_needed()  # for the picture that is left

    async with bench.working():
        await expect(told(page, "Files that wait")).to_contain_text("0 of 100", timeout=20_000)
        await expect(told(page, "Tasks")).to_have_text("0nothing is to be moved")
        await expect(told(page, "Workers")).to_have_text(re.compile(r"^1.+ at 0 tasks$"))
    await expect(told(page, "Workers")).to_have_text("none")
    await expect(page.locator("#verdict")).to_have_attribute("data-level", "well")


async def test_a_dead_letter_is_shown_until_it_is_moved(bench: Bench, short_term: Redis, open_page: Open) -> None:
    front = await bench.front()
    await put(front, bench.path("spoilt"), b"hello")
    page = await open_page(f"http://{front.host}:{front.port}", width=360)
    await expect(told(page, "Dead letters")).to_have_text("0")
    record = f"{{sfss}}:file:{bench.path('spoilt')}"
    with Client.from_url(bench.url) as client:
        client.hset(record, "p", b"hellO")  # what was acknowledged isn't there any more
        await bench.drain()
        await expect(told(page, "Dead letters")).to_contain_text("1could not be moved: sfss worker dead says why")
        await expect(page.locator("#troubles")).to_contain_text("has 1 dead letters: see sfss worker dead")
        await expect(page.locator("#verdict")).to_have_attribute("data-level", "warn")
        assert not await page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert await findings(page) == []
        await told(page, "Dead letters").scroll_into_view_if_needed()
        client.hset(record, "p", b"hello")
    store = await bench.store()
    for letter in await store.letters():
        assert await store.revive(letter)
    await bench.drain()
    await expect(told(page, "Dead letters")).to_have_text("0")
    await expect(page.locator("#verdict")).to_have_attribute("data-level", "well")


async def test_a_store_that_goes_is_said_to_be_away_and_comes_back(
    bench: Bench, short_term: Redis, open_page: Open
) -> None:
    front = await bench.front()
    page = await open_page(f"http://{front.host}:{front.port}")
    await expect(told(page, "State")).to_contain_text("here")
    short_term.kill()
    await expect(told(page, "State")).to_contain_text("away: ")
    await expect(told(page, "Tasks")).to_have_count(0)  # nobody knows
    await expect(page.locator("#troubles")).to_contain_text("is away")
    short_term.start()
    await expect(told(page, "State")).to_contain_text("here", timeout=20_000)
    await expect(told(page, "Files that wait")).to_contain_text("0 of 100")


async def test_where_nothing_is_written_behind_there_is_no_card(
    our_nodes: Nodes, start_front: StartFront, open_page: Open
) -> None:
    front = await start_front(our_nodes)
    page = await open_page(f"http://{front.host}:{front.port}")
    await expect(page.locator("#nodes tr")).to_have_count(3)
    await expect(page.locator("#behind-section")).to_be_hidden()
