"""``/namespaces``, and ``/NAMESPACE/path``: namespaces are told, made and changed; and the files in them have URLs."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from sfss import config
from sfss.errors import BadRequest
from sfss.namespace_changes import NamespaceChanges
from sfss.namespaces import Namespace, Namespaces
from sfss.quotas import Quotas
from sfss.standing import Standing
from sfss.web.urls import path_of

_LONGEST = 64 * 1024  # bytes of a namespace as JSON; they have some hundred


class NamespaceHandlers:
    """The handlers, over the namespaces of one front."""

    def __init__(self, standing: Standing, changes: NamespaceChanges, namespaces: Namespaces, quotas: Quotas) -> None:
        self._standing = standing
        self._changes = changes
        self._namespaces = namespaces
        self._quotas = quotas

    async def list(self, _request: web.Request) -> web.Response:
        """GET /namespaces: every one that there is at this moment."""
        await self._standing.refresh()
        return web.json_response({"namespaces": [self._told(each) for each in self._namespaces.all()]})

    async def get(self, request: web.Request) -> web.Response:
        """GET /namespaces/NAME."""
        name = request.match_info["name"]
        await self._standing.refresh()
        self._namespaces.check_there(name)
        namespace = self._namespaces.named(name)
        assert namespace is not None
        return web.json_response(self._told(namespace))

    async def put(self, request: web.Request) -> web.Response:
        """PUT /namespaces/NAME: 201 if there was none. What is left out is as by default.

        With ``If-None-Match: *`` (RFC 9110, 13.1.2) one that is there stays as it is: 412.
        """
        fields = await _fields(request)
        name = request.match_info["name"]
        if fields.get("name", name) != name:
            raise BadRequest(f"the URL says '{name}', and the body another name: write the one, or leave it out there")
        only_new = request.headers.get("If-None-Match", "").strip() == "*"
        namespace, is_new = await self._changes.put({**fields, "name": name}, only_new=only_new)
        headers = {"Location": f"/namespaces/{name}"} if is_new else {}
        return web.json_response(self._told(namespace), status=201 if is_new else 200, headers=headers)

    async def patch(self, request: web.Request) -> web.Response:
        """PATCH /namespaces/NAME: what is left out stays as it is (RFC 7396)."""
        name = request.match_info["name"]
        fields = await _fields(request)
        if fields.get("name", name) != name:
            raise BadRequest(f"'{name}' can't be given another name: its files have it in their paths")
        return web.json_response(self._told(await self._changes.patch(name, fields)))

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /namespaces/NAME: 204, if it has no files."""
        await self._changes.remove(request.match_info["name"])
        return web.Response(status=204)

    def within(self, handler: Handler, otherwise: Handler | None = None) -> Handler:
        """The handler, for URLs that begin with a namespace's name; others are for the other one, or no pages."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if otherwise is not None and self._namespaces.of(path_of(request)) is None:
                self._namespaces.check_known()
                return await otherwise(request)
            if not (self._namespaces.names or self._standing.is_used):
                raise web.HTTPNotFound
            self._namespaces.check_there(path_of(request).partition("/")[0])  # of the path as it is stored under
            return await handler(request)

        return handle

    def _told(self, namespace: Namespace) -> dict[str, object]:
        fields: dict[str, object] = config.fields_of(namespace)
        tank = self._quotas.tank(namespace.name)
        if tank is not None:
            fields["used"] = None if tank.used is None else tank.used._asdict()
        fields["source"] = "configuration" if self._standing.is_configured(namespace.name) else "api"
        return fields


async def _fields(request: web.Request) -> Mapping[str, object]:
    """The JSON object in a request's body. Raises BadRequest."""
    body = b""
    async for chunk in request.content.iter_chunked(_LONGEST):
        body += chunk
        if len(body) > _LONGEST:
            raise BadRequest(f"the body has more than {_LONGEST} bytes: a namespace is a small JSON object")
    try:
        return msgspec.json.decode(body, type=dict[str, object]) if body.strip() else {}
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body is no JSON object: {error}") from None
