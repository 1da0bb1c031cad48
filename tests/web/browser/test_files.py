"""The file browser, in a real browser: folders, search, previews, what is offered; and names that want to be more."""

from __future__ import annotations

import asyncio
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from sfss.access.keys import ADMIN, READ, WRITE, Scope
from tests.conftest import Nodes, StartFront
from tests.servers import Service
from tests.web.browser.conftest import Open
from tests.web.browser.support import choose, get, put, put_many
from tests.web.guarded import Front, Start

EVIL = "<img src=x onerror=alert(1)>.html"
RUNS = b"<script>alert(2)</script><img src=x onerror=alert(3)>"
SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30" onload="alert(4)"><script>alert(5)</script></svg>'
)


async def open_folder(open_page: Open, service: Service, folder: str, **options: Any) -> Page:
    page = await open_page(service.url, f"#files/{folder}", **options)
    await expect(page.locator("#files-told")).to_have_text(re.compile(r"\d (file|folder)s?\b.*\.$"))
    return page


def link(page: Page, name: str) -> Locator:
    return page.locator("#rows").get_by_role("link", name=name, exact=True)


async def test_folders_are_walked_through_and_the_address_names_where_one_is(service: Service, open_page: Open) -> None:
    put(service, "walk/a/b/c #1?.txt", b"here")
    put(service, "walk/d.txt", b"there")
    page = await open_folder(open_page, service, "walk/")
    await expect(page.locator("#files-told")).to_have_text("1 folder, 1 file.")
    await link(page, "a/").click()
    await link(page, "b/").click()
    await link(page, "c #1?.txt").click()
    await expect(page.locator("pre")).to_have_text("here")
    await page.reload()  # the address is enough
    await expect(page.locator("pre")).to_have_text("here")
    await page.get_by_role("button", name="Close").click()
    await page.locator("#crumbs").get_by_role("link", name="walk").click()
    await expect(link(page, "d.txt")).to_be_visible()
    await page.go_back()
    await expect(page.locator("#folder-name")).to_have_text("b")


async def test_a_search_goes_on_as_one_types(service: Service, open_page: Open) -> None:
    for name in ("apple", "apricot", "banana"):
        put(service, f"fruit/{name}", b"x")
    page = await open_folder(open_page, service, "fruit/")
    await page.locator("#search").press_sequentially("ap")
    await expect(page.locator("#rows tr")).to_have_count(2)
    await page.locator("#search").press_sequentially("r")
    await expect(page.locator("#rows a")).to_have_text(["apricot"])
    await page.locator("#search").fill("")
    await expect(page.locator("#rows tr")).to_have_count(3)


async def test_a_folder_of_many_files_stays_usable(service: Service, open_page: Open, long: bool) -> None:
    many = 10_000 if long else 600
    await asyncio.to_thread(put_many, service, [f"many/{number:05}" for number in range(many)])
    page = await open_folder(open_page, service, "many/")
    await expect(page.locator("#rows tr")).to_have_count(500)
    await expect(page.locator("#files-told")).to_have_text("500 files, and there are more.")
    for rows in range(500, many, 500):
        async with asyncio.timeout(20):
            while await count_rows(page) == rows:  # a key may be lost while rows are being laid out
                await page.keyboard.press("End")
                await page.wait_for_timeout(100)
    assert await count_rows(page) == many
    await expect(page.locator("#more")).to_be_hidden()
    await page.locator("#search").fill("00599")
    await page.wait_for_function("() => document.getElementById('rows').childElementCount === 1")
    await expect(page.locator("#rows a")).to_have_text(["00599"])


async def count_rows(page: Page) -> int:
    """How many there are, told at once however many.

    Playwright's own ``expect`` goes through all elements of the page each time that what it looks for isn't there,
    which takes seconds where there are thousands of rows; the page can do nothing meanwhile.
    """
    rows: int = await page.evaluate("document.getElementById('rows').childElementCount")
    return rows


async def test_nothing_of_a_file_s_name_becomes_a_part_of_the_page(service: Service, open_page: Open) -> None:
    put(service, f"evil/{EVIL}", RUNS, "text/html")
    put(service, "evil/\u202egpj.exe", b"x")  # which reads from right to left
    put(service, "evil/<b>/in", b"x")
    page = await open_folder(open_page, service, "evil/")
    await expect(link(page, EVIL)).to_be_visible()
    await expect(link(page, "<b>/")).to_be_visible()
    await link(page, EVIL).click()
    await expect(page.locator("pre")).to_have_text(RUNS.decode())  # as text, whatever it says that it is
    assert await page.locator("#main img, #details img, #main b, iframe, object, embed").count() == 0
    download = page.get_by_role("link", name="Download")
    assert await download.get_attribute("download") == EVIL
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.get_by_role("button", name="Delete for good").click()
    await expect(page.locator("#files-told")).to_have_text("1 folder, 1 file.")
    assert get(service, f"evil/{EVIL}") is None


async def test_a_file_that_is_opened_by_itself_is_no_page_of_this_origin(service: Service, open_page: Open) -> None:
    put(service, "evil/page.html", RUNS, "text/html")
    page = await open_page(service.url, "file?path=evil/page.html")
    assert await page.evaluate("origin") == "null"


async def test_images_are_shown_and_text_and_nothing_else(service: Service, open_page: Open) -> None:
    put(service, "look/picture.svg", SVG, "image/svg+xml")
    put(service, "look/none.png", b"no image", "image/png")
    put(service, "look/long.txt", b"0123456789abcde\n" * 10_000)
    put(service, "look/empty.txt", b"")
    put(service, "look/binary", b"\0\1\2")
    page = await open_folder(open_page, service, "look/")
    shown = page.locator("#details .preview")
    await link(page, "picture.svg").click()
    await expect(shown.locator("img")).to_have_js_property("naturalWidth", 40)
    for name, words in (("none.png", "can't be shown as one"), ("long.txt", "The first 64.0 KiB of 156 KiB"),
                        ("empty.txt", "It is empty."), ("binary", "isn't shown here")):  # fmt: skip
        await page.keyboard.press("Escape")
        await link(page, name).click()
        await expect(shown).to_contain_text(words)
    await page.keyboard.press("Escape")
    await link(page, "long.txt").click()
    assert len(await shown.locator("pre").inner_text()) == 64 * 1024


async def test_link_and_curl_line_can_be_copied_and_do_what_they_say(
    service: Service, open_page: Open, tmp_path: Path
) -> None:
    name = 'it\'s $(touch x) `a` & "b".txt'
    put(service, f"copy/{name}", b"the content")
    page = await open_folder(open_page, service, "copy/", permissions=["clipboard-read", "clipboard-write"])
    await link(page, name).click()
    read = "navigator.clipboard.readText()"
    await page.get_by_role("button", name="Copy link").click()
    await expect(page.locator(".told")).to_contain_text("Copied")
    with urllib.request.urlopen(await page.evaluate(read)) as answer:
        assert answer.read() == b"the content"
    await page.get_by_role("button", name="Copy curl line").click()
    await expect(page.locator(".told")).to_contain_text("curl")
    subprocess.run(["sh", "-c", await page.evaluate(read)], cwd=tmp_path, check=True, timeout=30)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"the content"


async def test_what_has_changed_since_it_was_looked_at_is_not_deleted(service: Service, open_page: Open) -> None:
    put(service, "change/file", b"before")
    page = await open_folder(open_page, service, "change/")
    await link(page, "file").click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    put(service, "change/file", b"after")
    await page.get_by_role("button", name="Delete for good").click()
    await expect(page.locator(".told")).to_contain_text("it has changed since you opened it")
    assert get(service, "change/file") == b"after"


# --- with keys ---


@pytest.fixture
async def guarded(start_guarded: Start) -> Front:
    """A front on which everybody may read what is open/ and nobody anything else, and once/ is written once."""
    return await start_guarded(
        {"prefix": "open/", "anonymous": ["read"]}, {"prefix": "once/", "write_once": True}, anonymous=[]
    )


async def test_a_key_is_asked_for_and_only_what_it_may_is_offered(
    guarded: Front, open_page: Open, tmp_path: Path
) -> None:
    master = await guarded.key(Scope("", (READ, WRITE, ADMIN)))
    for path in (f"open/{guarded.folder}", f"once/{guarded.folder}", f"{guarded.folder}/secret.txt"):
        assert await guarded.status("PUT", f"/file?path={path}", master, body=b"content") == 200
    reader = (await guarded.key(Scope(f"{guarded.folder}/", (READ,)))).split()[-1]
    url = f"http://{guarded.client.host}:{guarded.client.port}"
    page = await open_page(url)
    await expect(page.locator("#key-panel")).to_be_visible()
    await expect(page.locator("#verdict")).to_contain_text("who has a key with the right to see the status")
    await page.goto(f"{url}/#files/{guarded.folder}/")
    await expect(page.locator("#files-told")).to_contain_text("isn't shown to you")
    await expect(page.locator("#upload-tools")).to_be_hidden()

    async def use(key: str) -> None:
        if not await page.locator("#key-panel").is_visible():
            await page.get_by_role("button", name="Key", exact=True).click()
        await page.locator("#key").fill(key)
        await page.keyboard.press("Enter")

    await use(f"{reader}x")
    await expect(page.locator("#key-why")).to_contain_text("there is no such key")
    await use(reader)
    await expect(page.locator("#files-told")).to_have_text("1 file.")
    await expect(page.locator("#upload-tools")).to_be_hidden()
    await link(page, "secret.txt").click()
    await expect(page.locator("pre")).to_have_text("content")  # fetched with the key, for a link shows none
    await expect(page.get_by_role("button", name="Delete", exact=True)).to_have_count(0)
    async with page.expect_download() as started:
        await page.get_by_role("button", name="Download").click()
    download = await started.value
    assert download.suggested_filename == "secret.txt"
    kept = await page.evaluate("[JSON.stringify(localStorage), document.cookie, location.href]")
    assert not any(reader in where for where in kept)
    await page.keyboard.press("Escape")

    await use(master.split()[-1])
    await expect(page.locator("#upload-tools")).to_be_visible()
    (tmp_path / "small").write_bytes(b"small")
    (tmp_path / "large").write_bytes(bytes(1536 * 1024))  # which is resumable
    await choose(page, tmp_path / "small", tmp_path / "large")
    await expect(page.locator("#uploads-summary")).to_have_text("2 of 2 files uploaded.")
    for name in ("small", "large"):
        got = await guarded.ask("GET", f"/file?path={guarded.folder}/{name}", master)
        assert got.body == (tmp_path / name).read_bytes()
    await page.goto(f"{url}/#files/once/")
    await link(page, guarded.folder).click()
    await expect(page.locator("#details")).to_contain_text("written once")
    await expect(page.get_by_role("button", name="Delete", exact=True)).to_have_count(0)
    await page.goto(f"{url}/#overview")
    await expect(page.locator("#nodes tr")).to_have_count(3)


# --- with a catalogue ---


async def test_with_a_catalogue_a_search_finds_what_is_below(
    start_front: StartFront, our_nodes: Nodes, tmp_path: Path, open_page: Open
) -> None:
    front = await start_front(our_nodes, catalogue={"url": f"sqlite:///{tmp_path / 'files.db'}"})
    url = f"http://{front.host}:{front.port}"
    for path in ("search/a/needle.txt", "search/b/c/the-needle", "search/hay"):
        assert (await front.put(f"/file?path={path}", data=b"x")).status == 200
    page = await open_page(url, "#files/search/")
    await expect(page.locator("#search-label")).to_have_text("Search below this folder")
    await page.locator("#search").fill("needle")
    await expect(page.locator("#rows a")).to_have_text(["a/needle.txt", "b/c/the-needle"])
    await page.locator("#rows a").first.click()
    await expect(page.locator("#details")).to_contain_text("search/a/needle.txt")
