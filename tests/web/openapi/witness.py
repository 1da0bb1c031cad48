"""Looks at every answer that a front in a test's own process gives: whether the document says that it can be.

So all tests of the HTTP face, whatever they are about, hold that the document is true.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from sfss.web.app import OPENAPI, WATCH
from sfss.web.heads import FILE_PAGES
from sfss.web.urls import CLEAN_ROUTE, ONE_ROUTE

PROBLEM = "application/problem+json"
# Of a route that isn't in the document: what it says, whatever is asked of it.
REFUSALS = (400, 401, 403, 404, 405, 409, 429)

_documents: dict[Any, Mapping[str, Any]] = {}  # by what they are made of


class Witness:
    """Of one front; ``found`` is what it answered, and shouldn't have by its document."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self.found: list[str] = []
        app.on_response_prepare.append(self._answered)
        watch = app[WATCH]
        watch.answered = functools.partial(self._answered_quickly, watch.answered)  # type: ignore[method-assign]

    @property
    def _document(self) -> Mapping[str, Any]:
        handlers = self._app[OPENAPI]
        made_of = (handlers._offer, tuple(handlers._routes))
        if made_of not in _documents:
            _documents[made_of] = json.loads(handlers.document()[0])
        return _documents[made_of]

    async def _answered(self, request: web.Request, response: web.StreamResponse) -> None:
        resource = request.match_info.route.resource
        if resource is None:  # no such page
            return
        override = request.headers.get("X-HTTP-Method-Override", "").strip().upper()
        method = override if override and resource.canonical.startswith("/uploads") else request.method
        body = getattr(response, "body", None)
        problem = json.loads(body)["type"] if response.content_type == PROBLEM and body else None
        self._look(method, resource.canonical, response.status, response.headers, problem)

    def _answered_quickly(self, answered: Any, head: Any, status: int, *rest: Any) -> None:
        in_folder = b"/" in head.page[1:]
        page = head.page.decode() if head.page in FILE_PAGES else CLEAN_ROUTE if in_folder else ONE_ROUTE
        self._look(head.method.decode(), page, status, None, None)
        answered(head, status, *rest)

    def _look(
        self, method: str, page: str, status: int, headers: Mapping[str, str] | None, problem: str | None
    ) -> None:
        document = self._document
        operation = document["paths"].get(page, {}).get(method.lower())
        where = f"{method} {page}: {status} {problem or ''}"
        if operation is None:
            if status not in REFUSALS:
                self.found.append(f"{where} is no answer of a page that isn't there")
            return
        response = operation["responses"].get(str(status))
        if response is None:
            self.found.append(f"{where} isn't there")
            return
        response = self._resolved(response)
        if headers is None:
            return
        content = response.get("content", {})
        if (
            method != "HEAD"
            and problem is not None
            and problem not in self._types(content.get(PROBLEM, {}).get("schema", {}))
        ):
            self.found.append(f"{where} isn't there")
        for name, header in response.get("headers", {}).items():
            if self._resolved(header).get("required") and name not in headers:
                self.found.append(f"{where} lacks {name}")

    def _resolved(self, part: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in part:
            return part
        _, *names = part["$ref"].split("/")
        return functools.reduce(lambda found, name: found[name], names, self._document)

    def _types(self, schema: Mapping[str, Any]) -> set[str]:
        """The problem types that it lets be."""
        every = schema.get("oneOf", [schema])
        return {self._resolved(each)["properties"]["type"]["const"] for each in every if each}
