"""The pictures of docs/pictures: a service of some life, wide and narrow, light and dark.

make pictures                                                   takes three minutes, and needs pngquant
.venv/bin/python -m tests.web.browser.pictures [SECONDS]        of load before the first picture
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any, Literal

import aiohttp
from playwright.async_api import Page, async_playwright

from tests.servers import Service

INTO = Path(__file__).parent.parent.parent.parent / "docs" / "pictures"
SETTINGS = {
    "SFSS_STORAGE_COPIES": "2",
    "SFSS_NAMESPACES_API": "true",
    "SFSS_NAMESPACES_COUNT_INTERVAL": "5",
    "SFSS_LIMITS_MAX_FILE_SIZE": "64MiB",
    "SFSS_SERVER_WORKERS": "2",
}
WIDE = 1280
SHOTS: tuple[tuple[str, Literal["light", "dark"], int], ...] = (
    ("overview", "light", WIDE),
    ("overview", "dark", WIDE),
    ("overview", "dark", 390),
    ("files", "light", WIDE),
    ("files", "dark", WIDE),
    ("files", "light", 390),
)


async def main(seconds: float) -> None:
    INTO.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Service(Path(folder), settings=SETTINGS) as service:
        async with async_playwright() as playwright, aiohttp.ClientSession(service.url) as client:
            options = ["--no-sandbox"] if os.geteuid() == 0 else []
            browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
            await fill(client)
            pages = [await browser.new_page(**about(width), color_scheme=scheme) for _, scheme, width in SHOTS]
            for page in pages:
                await page.goto(service.url)
            load = asyncio.create_task(go_on(client))
            await asyncio.sleep(seconds)
            for page, (view, scheme, width) in zip(pages, SHOTS, strict=True):
                name = f"{view}-{scheme}-{'narrow' if width < WIDE else 'wide'}.png"
                await take(page, service.url, view, INTO / name)
            load.cancel()
            await browser.close()


def about(width: int) -> dict[str, Any]:
    """A screen of that width: a phone's has two dots for each of its pixels."""
    size = {"width": width, "height": 844 if width < WIDE else 900}
    return {"viewport": size, "device_scale_factor": 2 if width < WIDE else 1}


async def take(page: Page, url: str, view: str, file: Path) -> None:
    if view == "files":
        await page.goto(f"{url}/#files/photos/2026/")
        await page.locator("#rows a").first.wait_for()
    await page.bring_to_front()
    await page.wait_for_timeout(2500)
    await page.screenshot(path=file)
    subprocess.run(["pngquant", "--force", "--strip", "--output", file, "128", file], check=True)
    print(f"{file.name}: {file.stat().st_size:,} bytes")


async def fill(client: aiohttp.ClientSession) -> None:
    for name, quota in (("photos", 64), ("documents", 8)):
        body = {"layout": "raid1", "copies": 2, "quota": quota * 2**20, "quota_files": 2000}
        async with client.put(f"/namespaces/{name}", json=body) as answer:
            assert answer.status == 201, await answer.text()
    for number in range(40):
        await store(client, f"photos/2026/{number:02}-{random.choice(WORDS)}.png", png(number), "image/png")
    for folder in ("by the sea", "mountains", "panorama"):
        await store(client, f"photos/2026/{folder}/01.png", png(7), "image/png")
    for number in range(300):
        await store(client, f"documents/{number:04}.txt", random.randbytes(8000), "text/plain")


async def go_on(client: aiohttp.ClientSession) -> None:
    """Some reads, fewer writes, more of both at times; now and then a name that nobody knows."""
    while True:
        for _ in range(int(12 + 10 * math.sin(time.time() / 12))):
            number = random.randrange(320)
            async with client.get(f"/file?path=documents/{number:04}.txt") as answer:
                await answer.read()
            if random.random() < 0.2:
                await store(client, f"documents/{number % 300:04}.txt", random.randbytes(8000), "text/plain")
        await asyncio.sleep(0.1)


async def store(client: aiohttp.ClientSession, path: str, content: bytes, type: str) -> None:
    async with client.put("/file", params={"path": path}, data=content, headers={"Content-Type": type}) as answer:
        assert answer.status == 200, await answer.text()


WORDS = ("gull", "harbour", "lighthouse", "tide", "boats", "pier", "dunes", "storm", "sunset", "shells")


def png(seed: int, side: int = 128) -> bytes:
    """A picture of its own for each seed."""
    rows = b"".join(
        b"\0" + bytes((x * seed + y * channel * 5) % 256 for x in range(side) for channel in range(3))
        for y in range(side)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 170.0))
