"""Sends a file that doesn't lie in memory: at the pace of whoever reads it, whole or cut off, never padded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

from aiohttp import web

from sfss.access.keys import hidden
from sfss.errors import SfssError
from sfss.web.forwarded import asked_by

log = logging.getLogger("sfss.web")

_PIECE = 256 * 1024  # bytes that are handed over at a time; each must have found its way within the time-out


async def send(
    request: web.Request, response: web.StreamResponse, content: AsyncGenerator[memoryview, None], timeout: float
) -> web.StreamResponse:
    """Send ``content``, which is closed then. ``timeout`` in seconds, for the reader to take the next piece.

    What goes wrong before the first byte is raised. Behind that the connection is cut, so that nobody takes what came
    for all of it.
    """
    async with contextlib.aclosing(content):
        first = await anext(content, memoryview(b""))
        await response.prepare(request)
        try:
            await _write(response, first, timeout)
            async for block in content:
                await _write(response, block, timeout)
            await response.write_eof()
        except (SfssError, TimeoutError) as error:
            why = error if isinstance(error, SfssError) else f"it was not read for {timeout:g} s"
            client = asked_by(request)
            url = hidden(f"{client.scheme}://{client.host}{request.rel_url}")
            log.warning("%s for %s was cut off: %s; what came is not all of it: ask again", url, client.address, why)
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:  # whoever asked has gone
            pass
    return response


async def _write(response: web.StreamResponse, block: memoryview, timeout: float) -> None:
    for start in range(0, len(block), _PIECE):
        async with asyncio.timeout(timeout):
            await response.write(block[start : start + _PIECE])
