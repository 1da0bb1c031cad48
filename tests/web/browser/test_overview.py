"""The dashboard's overview, in a real browser: what an operator sees while nodes and the server come and go."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

from tests.conftest import Nodes, StartFront
from tests.servers import Service
from tests.web.browser.conftest import Farm, Open

WELL = re.compile(r"^All is well: 3 of 3 nodes are here")


async def row(page: Page, node: str) -> dict[str, str]:
    """A node's row, by the heads of its columns."""
    cells = page.locator("#nodes tr", has_text=node).locator("td")
    found = await cells.evaluate_all("cells => cells.map(cell => [cell.dataset.label, cell.textContent])")
    return dict(found)


async def test_three_nodes_are_well_one_is_killed_and_comes_back(farm: Farm, open_page: Open) -> None:
    page = await open_page(farm.service.url)
    await expect(page.locator("#verdict")).to_have_text(WELL)
    before = await row(page, "node-1")
    assert before["State"].startswith("here")
    assert "durable, cas" in before["Can"]
    assert before["Version"].startswith("sfss ")
    assert "GiB of" in before["Disk left"]
    assert before["Memory"].endswith("MiB")
    assert await page.locator("#ring li").count() == 3
    shares = re.findall(r"([\d.]+) %", await page.locator("#ring").inner_text())
    assert 99 < sum(map(float, shares)) < 101

    await asyncio.to_thread(farm.stop_node, 1)
    verdict = page.locator("#verdict")
    await expect(verdict).to_have_text("1 node of 3 is away: node-1.")
    trouble = page.locator("#troubles li", has_text="node-1")
    await expect(trouble).to_have_text(
        re.compile(rf"node-1 \(127\.0\.0\.1:{farm.ports[1]}\) is away since \d\d:\d\d:\d\d: .")
    )
    assert re.match(r"away since \d\d:\d\d:\d\d", (await row(page, "node-1"))["State"])

    await asyncio.to_thread(farm.start_node, 1)
    await expect(verdict).to_have_text(WELL)
    assert (await row(page, "node-1"))["State"].startswith("here")


async def test_when_the_server_goes_the_page_says_so_and_recovers_by_itself(farm: Farm, open_page: Open) -> None:
    page = await open_page(farm.service.url)
    await expect(page.locator("#verdict")).to_have_text(WELL)
    await asyncio.to_thread(farm.service.stop)
    silent = re.compile(r"^The server doesn't answer since \d\d:\d\d:\d\d; it is asked again and again\.$")
    await expect(page.locator("#verdict")).to_have_text(silent)
    await expect(page.locator("#main")).to_have_attribute("data-stale", "")
    assert await page.locator("#nodes tr").count() == 3  # as they were last
    await asyncio.to_thread(farm.service.start)
    await expect(page.locator("#verdict")).to_have_text(WELL)
    assert await page.locator("#main").get_attribute("data-stale") is None


async def test_charts_draw_what_goes_on_and_say_it_in_words(service: Service, open_page: Open) -> None:
    page = await open_page(service.url)
    await expect(page.locator("#charts canvas")).to_have_count(4)
    requests = page.locator(".plot").first
    await expect(requests).to_have_attribute("aria-label", re.compile(r"all: [\d.]+ now"))
    assert await requests.get_attribute("role") == "img"
    drawn = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(byte => byte)"
    assert await page.locator("#charts canvas").first.evaluate(drawn)


async def test_nothing_jumps_when_the_figures_come(service: Service, open_page: Open) -> None:
    page = await open_page(service.url)
    await expect(page.locator("#nodes tr")).to_have_count(3)
    await page.wait_for_timeout(100)
    watch = """() => new Promise(resolve => {
        let shift = 0;
        new PerformanceObserver(list => list.getEntries().forEach(entry => { shift += entry.value; }))
            .observe({ type: "layout-shift", buffered: true });
        setTimeout(() => resolve(shift), 2500);
    })"""
    assert await page.evaluate(watch) < 0.1  # what Core Web Vitals call good


async def test_it_is_light_or_dark_as_the_system_is_or_as_is_chosen(service: Service, open_page: Open) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    page = await open_page(service.url, color_scheme="dark")
    dark = await page.evaluate(background)
    await page.emulate_media(color_scheme="light")
    light = await page.evaluate(background)
    assert dark != light
    theme = page.get_by_role("button", name="Theme")
    await theme.click()  # light
    await theme.click()
    await expect(theme).to_have_text("Theme: dark")
    assert await page.evaluate(background) == dark
    await page.reload()
    assert await page.evaluate(background) == dark


async def test_charts_are_drawn_in_the_colours_of_the_scheme_and_change_with_it(
    service: Service, open_page: Open
) -> None:
    drawn = """canvas => {
        // As many dots as there are of about the colour of the first line, which the ring's first share has, too.
        const share = document.querySelector('#ring [data-color="0"]');
        const wanted = getComputedStyle(share).backgroundColor.match(/\\d+/g);
        const isNear = (one, other) => Math.abs(one - other) < 12;
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        let dots = 0;
        for (let at = 0; at < data.length; at += 4)
            dots += data[at + 3] > 200 && [0, 1, 2].every(channel => isNear(data[at + channel], wanted[channel]));
        return [dots, wanted.join()];
    }"""
    page = await open_page(service.url, color_scheme="light")
    requests = page.locator("#charts canvas").first
    await expect(page.locator(".plot").first).to_have_attribute("aria-label", re.compile(r"all: [\d.]+ now"))
    await page.wait_for_timeout(4_500)  # a line has two points
    light = await requests.evaluate(drawn)
    await page.emulate_media(color_scheme="dark")
    await page.wait_for_timeout(100)
    dark = await requests.evaluate(drawn)
    assert light[1] != dark[1]
    assert light[0] > 3, light
    assert dark[0] > 3, dark
    theme = page.get_by_role("button", name="Theme")
    await theme.click()  # light, whatever the system is
    chosen = await requests.evaluate(drawn)
    assert chosen[1] == light[1]
    assert chosen[0] > 3, chosen


async def test_namespaces_and_the_catalogue_are_shown_where_there_are_any(
    start_front: StartFront, our_nodes: Nodes, tmp_path: Path, open_page: Open
) -> None:
    namespaces: Any = [{"name": "full", "quota": "1KiB", "quota_files": 10}, {"name": "shut", "enabled": False}]
    sections: Any = {"namespace": namespaces, "catalogue": {"url": f"sqlite:///{tmp_path / 'files.db'}"}}
    front = await start_front(our_nodes, **sections)
    while (await front.put("/file?path=full/file", data=bytes(512))).status != 200:  # until its files are counted
        await asyncio.sleep(0.1)
    page = await open_page(f"http://{front.host}:{front.port}")
    full, shut = page.locator("#namespaces tr").first, page.locator("#namespaces tr").last
    await expect(full).to_contain_text("512 B of 1.0 KiB")
    await expect(full).to_contain_text("1 of 10")
    await expect(shut).to_contain_text("shut")
    await expect(page.locator("#catalogue")).to_contain_text("has all files")
    await front.delete("/file?path=full/file")
