"""Uploads from the page, in a real browser: dropped, refused, there already, held, and on after whatever breaks."""

from __future__ import annotations

import asyncio
import hashlib
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.servers import Service
from tests.web.browser.conftest import Open
from tests.web.browser.support import choose, drop, get, put, url_of

MIB = 2**20


@pytest.fixture(scope="module")
def large_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that takes large files, and may be stopped and started."""
    with Service(tmp_path_factory.mktemp("large"), settings={"SFSS_LIMITS_MAX_FILE_SIZE": "1GiB"}) as running:
        yield running


def large_file(path: Path, size: int) -> str:
    """A file whose pieces all differ; its SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(size // MIB):
            block = hashlib.sha256(number.to_bytes(8)).digest() * (MIB // 32)
            file.write(block)
            digest.update(block)
    return digest.hexdigest()


def etag(service: Service, path: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url_of(service, path), method="HEAD"), timeout=60) as answer:
        return str(answer.headers["ETag"]).strip('"')


async def slow_down(page: Page, bytes_a_second: int) -> None:
    """Have what the page sends leave slowly, so that there is a middle."""
    session = await page.context.new_cdp_session(page)
    await session.send("Network.enable")
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_a_second}
    await session.send("Network.emulateNetworkConditions", limits)


async def has_sent(page: Page, share: float) -> None:
    sent = "share => document.getElementById('uploads-progress').value >= share"
    await page.wait_for_function(sent, arg=share)


async def test_a_hundred_files_are_dropped_and_one_is_refused(
    service: Service, open_page: Open, tmp_path: Path
) -> None:
    folder = tmp_path / "album"
    (folder / "inner").mkdir(parents=True)
    for number in range(98):
        (folder / "inner" / f"{number}.txt").write_bytes(b"%d" % number)
    (folder / "large.bin").write_bytes(bytes(3 * MIB))
    lone = tmp_path / "lone.txt"
    lone.write_bytes(b"lone")
    page = await open_page(service.url, "#files/drop/")
    await expect(page.locator("#upload-tools")).to_be_visible()
    await drop(page, [folder, lone])
    summary = page.locator("#uploads-summary")
    await expect(summary).to_have_text("99 of 100 files uploaded, 1 refused.")
    await expect(page.locator("#uploads-told")).to_have_text("99 of 100 files uploaded, 1 refused.")
    refused = page.locator("#uploads-list li")
    await expect(refused).to_have_count(1)
    await expect(refused).to_contain_text("drop/album/large.bin")
    await expect(refused).to_contain_text("more than 2097152 bytes: raise limits.max_file_size")
    await expect(page.locator("#files-told")).to_have_text("1 folder, 1 file.")
    for number in (0, 42, 97):
        assert get(service, f"drop/album/inner/{number}.txt") == b"%d" % number
    assert get(service, "drop/lone.txt") == b"lone"
    assert get(service, "drop/album/large.bin") is None


async def test_what_the_server_refuses_is_refused_in_its_own_words(
    service: Service, open_page: Open, tmp_path: Path
) -> None:
    (tmp_path / "back\\slash.txt").write_bytes(b"x")
    page = await open_page(service.url, "#files/refused/")
    await expect(page.locator("#upload-tools")).to_be_visible()
    await drop(page, [tmp_path / "back\\slash.txt"])
    await expect(page.locator("#uploads-list li")).to_contain_text(re.compile("refused: .*backslash"))


async def test_a_file_that_has_gone_meanwhile_is_refused_and_not_tried_for_ever(
    service: Service, open_page: Open, tmp_path: Path
) -> None:
    (tmp_path / "gone.txt").write_bytes(b"x")
    page = await open_page(service.url, "#files/gone/")
    await expect(page.locator("#upload-tools")).to_be_visible()
    session = await page.context.new_cdp_session(page)
    await session.send("Network.enable")
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    await session.send("Network.emulateNetworkConditions", offline)
    await choose(page, tmp_path / "gone.txt")
    await expect(page.locator("#uploads-list li")).to_contain_text("waits: ")
    (tmp_path / "gone.txt").unlink()
    await expect(page.locator("#uploads-list li")).to_contain_text("refused: the file can't be read")


async def test_what_is_there_already_is_replaced_only_when_one_says_so(
    service: Service, open_page: Open, tmp_path: Path
) -> None:
    put(service, "there/file.txt", b"before")
    (tmp_path / "file.txt").write_bytes(b"after")
    page = await open_page(service.url, "#files/there/")
    await expect(page.locator("#upload-tools")).to_be_visible()
    await choose(page, tmp_path / "file.txt")
    await expect(page.locator("#uploads-list li")).to_contain_text("is there already")
    assert get(service, "there/file.txt") == b"before"
    await page.get_by_role("button", name="Replace there/file.txt").click()
    await expect(page.locator("#uploads-summary")).to_have_text("1 of 1 file uploaded.")
    assert get(service, "there/file.txt") == b"after"


async def test_a_large_file_goes_on_after_the_server_was_restarted(
    large_service: Service, open_page: Open, tmp_path: Path, long: bool
) -> None:
    size, pace = (500 * MIB, 60 * MIB) if long else (40 * MIB, 12 * MIB)
    file = tmp_path / "film.bin"
    digest = await asyncio.to_thread(large_file, file, size)
    page = await open_page(large_service.url, "#files/restart/")
    await expect(page.locator("#upload-tools")).to_be_visible()
    await slow_down(page, pace)
    offsets: list[int] = []
    page.on(
        "request", lambda sent: offsets.append(int(sent.headers["upload-offset"])) if sent.method == "PATCH" else None
    )
    await choose(page, file)
    await has_sent(page, 0.3)
    large_service.process.kill()  # type: ignore[union-attr]
    await expect(page.locator("#uploads-list li")).to_contain_text("waits: ")
    await asyncio.to_thread(large_service.process.wait)  # type: ignore[union-attr]
    await asyncio.to_thread(large_service.start)
    await expect(page.locator("#uploads-summary")).to_have_text("1 of 1 file uploaded.", timeout=100_000)
    assert await asyncio.to_thread(etag, large_service, "restart/film.bin") == digest
    assert len(offsets) > 1
    assert max(offsets) > 0  # it went on, and didn't begin anew
    assert offsets[1:] == sorted(offsets[1:])


async def test_it_goes_on_after_the_page_was_left_when_the_file_is_chosen_again(
    large_service: Service, open_page: Open, tmp_path: Path
) -> None:
    file = tmp_path / "film.bin"
    digest = await asyncio.to_thread(large_file, file, 24 * MIB)
    page = await open_page(large_service.url, "#files/reload/")
    await expect(page.locator("#upload-tools")).to_be_visible()
    await slow_down(page, 8 * MIB)
    await choose(page, file)
    await has_sent(page, 0.4)
    await page.reload()
    await expect(page.locator("#unfinished-list li")).to_contain_text("reload/film.bin")
    await expect(page.locator("#upload-tools")).to_be_visible()
    offsets: list[int] = []
    page.on(
        "request", lambda sent: offsets.append(int(sent.headers["upload-offset"])) if sent.method == "PATCH" else None
    )
    await choose(page, file)
    await expect(page.locator("#uploads-summary")).to_have_text("1 of 1 file uploaded.")
    await expect(page.locator("#unfinished")).to_be_hidden()
    assert offsets[0] > 0
    assert await asyncio.to_thread(etag, large_service, "reload/film.bin") == digest


async def test_an_upload_is_held_and_goes_on_and_another_is_cancelled(
    large_service: Service, open_page: Open, tmp_path: Path
) -> None:
    digest = await asyncio.to_thread(large_file, tmp_path / "kept.bin", 12 * MIB)
    await asyncio.to_thread(large_file, tmp_path / "dropped.bin", 12 * MIB)
    page = await open_page(large_service.url, "#files/hold/")
    await expect(page.locator("#upload-tools")).to_be_visible()
    await slow_down(page, 4 * MIB)
    deleted = asyncio.ensure_future(page.wait_for_event("response", lambda answer: answer.request.method == "DELETE"))
    await choose(page, tmp_path / "kept.bin", tmp_path / "dropped.bin")
    await has_sent(page, 0.2)
    await page.get_by_role("button", name="Hold hold/kept.bin").click()
    await expect(page.locator("#uploads-list li", has_text="kept.bin")).to_contain_text("held at ")
    await page.get_by_role("button", name="Cancel hold/dropped.bin").click()
    assert (await deleted).status == 204
    await page.get_by_role("button", name="Go on hold/kept.bin").click()
    await expect(page.locator("#uploads-summary")).to_have_text("1 of 2 files uploaded, 1 cancelled.")
    assert await asyncio.to_thread(etag, large_service, "hold/kept.bin") == digest
    assert get(large_service, "hold/dropped.bin") is None
    await expect(page.locator("#unfinished")).to_be_hidden()
