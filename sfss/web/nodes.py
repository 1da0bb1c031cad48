"""``/nodes``: nodes announce themselves, are told to leave, and are shown, with how full they are."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from sfss.errors import BadRequest, BodyTimeout
from sfss.registration import WAITING, Announcement, Registrar
from sfss.web.access import EVERYTHING, Guard

LARGEST = 16 * 1024  # bytes of an announcement
_PATIENCE = 10.0  # seconds for it to come
_BEARER = "bearer "

_announcement = msgspec.json.Decoder(Announcement)


class NodeHandlers:
    """The handlers, over one registrar. Nodes show its secret; where it has none, whoever may administer may."""

    def __init__(self, registrar: Registrar, guard: Guard) -> None:
        self._registrar = registrar
        self._guard = guard

    async def get(self, _request: web.Request) -> web.Response:
        """GET: all nodes, by name."""
        return _json({"doing": self._registrar.doing, "nodes": await self._registrar.standings()})

    async def post(self, request: web.Request) -> web.Response:
        """POST, of a node itself: 201 it joins, 200 it is known, 202 it is to come again."""
        self._check(request)
        answer = await self._registrar.announce(await _said(request))
        return _json(answer, 201 if answer.is_new else 202 if answer.state == WAITING else 200)

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE of one: 202, its files are moved away, and then it isn't on the ring any more."""
        self._check(request)
        return _json(await self._registrar.leave(request.match_info["name"]), 202)

    def _check(self, request: web.Request) -> None:
        """Raises NotWelcome, NoKey, Denied, Unavailable."""
        self._registrar.check_key(_key_of(request))
        if not self._registrar.has_secret:
            self._guard.check(request, EVERYTHING)


def _key_of(request: web.Request) -> str | None:
    """The key that comes with it."""
    given = request.headers.get("Authorization", "")
    return given[len(_BEARER) :].strip() if given.lower().startswith(_BEARER) else None


async def _said(request: web.Request) -> Announcement:
    body = b""
    try:
        async with asyncio.timeout(_PATIENCE):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > LARGEST:
                    raise BadRequest(f"an announcement has at most {LARGEST} bytes")
    except TimeoutError:
        raise BodyTimeout(f"the announcement didn't come within {_PATIENCE:g} s") from None
    try:
        return _announcement.decode(body)
    except msgspec.DecodeError as error:
        raise BadRequest(f"this is no announcement of a node, which is JSON as in docs/http-api.rst: {error}") from None


def _json(content: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), status=status, content_type="application/json")
