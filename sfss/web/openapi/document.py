"""The document, put together of the routes that there are, who may use them, and the table of operations. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sfss.access import signing
from sfss.access.keys import ADMIN, READ, WRITE
from sfss.errors import BadRequest, Denied, NoKey, TooMany, Unavailable
from sfss.web import request_ids
from sfss.web.access import Choice, Free, Need, Needs, Within
from sfss.web.conditional import Unsatisfiable
from sfss.web.openapi import failures
from sfss.web.openapi.failures import PROBLEM, Failure
from sfss.web.openapi.offer import Offer
from sfss.web.openapi.operations import ALWAYS, TAGS, Answer, Operation, operations
from sfss.web.openapi.parameters import HEADERS, SECURITY_SCHEMES, parameters
from sfss.web.openapi.schemas import ref, schemas

Schema = dict[str, Any]
Route = tuple[str, str]  # method and page, as aiohttp has them

VERSION = "1.0"  # of what is promised here, not of the program, which is nobody's business who isn't let in
_ABOUT = """\
Small files by path. Every answer has an `X-Request-ID`. Parameters that a request doesn't know are ignored. A page that
hasn't a method answers 405 with `Allow`; one that there isn't, 404. What is no HTTP, or has a line of more than 8,190
bytes in its head, is 400 in plain text, and the connection ends; all other errors are problem documents (RFC 9457).
"""
_NO_HTTP: Schema = {"text/plain": {"schema": {"type": "string"}}}
_UPLOADS = "/uploads"


def document(routes: Iterable[Route], needs: Needs, offer: Offer) -> Schema:
    """Of these routes, as far as they do anything where this is offered; ``needs`` as the guard has them."""
    table = operations(offer)
    paths: dict[str, dict[str, Schema]] = {}
    used: set[Failure] = set()
    responses: dict[str, Schema] = {}
    for route in described(routes, table):
        method, page = route
        item = paths.setdefault(page, {})
        operation = _operation(route, table, needs, offer)
        errors = [error for error in operation.errors if failures.can_be(error, offer)]
        used.update(errors)
        item[method.lower()] = _told(method, operation, errors, responses, _ways(route, needs, offer))
    tags = {tag for item in paths.values() for operation in item.values() for tag in operation["tags"]}
    for item in paths.values():
        item["parameters"] = [_ref("parameters", request_ids.HEADER)]  # type: ignore[assignment]
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
        "info": {"title": "sfss: small files", "version": VERSION, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": about} for name, about in TAGS.items() if name in tags],
        "paths": paths,
        "components": _used(
            paths,
            {
                "schemas": {**schemas(), **failures.schemas(sorted(used, key=str))},
                "responses": responses,
                "parameters": parameters(offer),
                "headers": {name: {**header, "required": True} for name, header in HEADERS.items()},
                "securitySchemes": SECURITY_SCHEMES,
            },
        ),
    }


def described(routes: Iterable[Route], table: Mapping[Route, Operation]) -> list[Route]:
    """The routes that the document has; one that stands for every method (``*``) as those that the table has."""
    found: list[Route] = []
    for method, page in routes:
        methods = [known for known, at in table if at == page] if method == "*" else [method]
        found += [(each, page) for each in methods if _row((each, page), table) is not None]
    return found


def _row(route: Route, table: Mapping[Route, Operation]) -> Operation | None:
    """What stands in the table; of HEAD, what GET does."""
    method, page = route
    if method == "HEAD" and route not in table:
        return _as_head(table["GET", page]) if ("GET", page) in table else None
    return table.get(route)


def _as_head(get: Operation) -> Operation:
    """There are no ranges, and no bodies."""
    answers = {status: answer._replace(content={}) for status, answer in get.answers.items() if status != 206}
    name = get.id.partition("_")[2]
    return get._replace(
        id=f"head_{name}",
        about=f"{get.about}: what GET would say",
        answers=answers,
        errors=tuple(error for error in get.errors if error is not Unsatisfiable),
        parameters=tuple(each for each in get.parameters if each not in ("Range", "If-Range")),
    )


def _operation(route: Route, table: Mapping[Route, Operation], needs: Needs, offer: Offer) -> Operation:
    operation = _row(route, table)
    assert operation is not None
    return operation._replace(errors=(*operation.errors, *_refusals(_need(route, needs), offer), *ALWAYS))


# --- who may ---


def _need(route: Route, needs: Needs) -> Need | Free | Within | Choice | None:
    return needs[route] if route in needs else needs.get(("*", route[1]))


def _refusals(need: Need | Free | Within | Choice | None, offer: Offer) -> tuple[Failure, ...]:
    """What whoever may not is answered before a handler hears of it."""
    if not offer.guarded:
        return ()
    if isinstance(need, Choice):
        return (*_refusals(need.first, offer), *_refusals(need.second, offer))
    if isinstance(need, Need):
        return (NoKey, Denied, TooMany, Unavailable)
    return (Denied, TooMany) if isinstance(need, Within) else ()


def _ways(route: Route, needs: Needs, offer: Offer) -> list[Schema]:
    """Ways to be let in, of which any will do: what to show in each."""
    method, page = route
    key: Schema = {"key": []}
    if page.startswith("/nodes") and offer.nodes_secret and method in ("POST", "DELETE"):
        return [{"nodes": []}]  # whatever else is open
    need = _need(route, needs)
    if not offer.guarded or isinstance(need, Free):
        return []
    if isinstance(need, Choice):
        return [*_unique([*_of_need(need.first, method, offer), *_of_need(need.second, method, offer)])]
    if isinstance(need, Within):
        if page.startswith("/nodes"):
            return _of_need(Need(ADMIN, str), method, offer)
        if page.startswith(_UPLOADS) and method != "OPTIONS":
            return [key, {}] if WRITE in offer.anybody else [key]
        return [key, {}] if page.endswith("/may") else []
    return _of_need(need, method, offer)


def _of_need(need: Any, method: str, offer: Offer) -> list[Schema]:
    ways: list[Schema] = [{"key": []}]
    right = need.right if isinstance(need, Need) else WRITE
    if isinstance(need, Need) and not need.whole and offer.signed and method in (*signing.METHODS, "HEAD"):
        ways.append({signing.SIGNATURE: [], signing.EXPIRES: []})
    if right in offer.anybody or (right not in (READ, WRITE) and offer.all_open):
        ways.append({})
    return ways


def _unique(ways: Sequence[Schema]) -> list[Schema]:
    return [way for n, way in enumerate(ways) if way not in ways[:n]]


# --- what is told ---


def _told(
    method: str, operation: Operation, errors: Sequence[Failure], responses: dict[str, Schema], ways: list[Schema]
) -> Schema:
    tus = operation.tag == "uploads"
    told: Schema = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.about,
        "parameters": [_ref("parameters", name) for name in operation.parameters],
        "security": ways,
        "responses": _responses(method, operation, errors, responses, tus=tus),
    }
    if operation.more:
        told["description"] = operation.more
    if operation.body:
        content = {type: {"schema": schema} for type, schema in operation.body.items()}
        told["requestBody"] = {"required": operation.needs_body, "content": content}
    return told


def _responses(
    method: str, operation: Operation, errors: Sequence[Failure], shared: dict[str, Schema], *, tus: bool
) -> Schema:
    bodiless = method == "HEAD"
    found: dict[int, Schema] = {status: _answer(answer) for status, answer in operation.answers.items()}
    for status, failure in failures.responses([BadRequest, *errors]).items():
        content = {} if bodiless else {PROBLEM: {"schema": _any_of([ref(name) for name in failure.schemas])}}
        if status == 400 and not bodiless:
            content |= _NO_HTTP
        # Who is turned away at the door, or speaks no HTTP, is told neither of that protocol nor an id.
        mark = "?" if status in (400, 503) else ""
        named = request_ids.HEADER + mark
        headers = [*failure.headers, *([f"Tus-Resumable{mark}"] if tus else [])]
        response = {
            "description": failure.description,
            "headers": _headers([named, *headers]),
            **({"content": content} if content else {}),
        }
        if status in found:  # what isn't well has an answer of its own, too, or may be a problem
            own = found[status]
            own["headers"] = {**own["headers"], **_headers([named])}
            if content:
                own["content"] = {**own.get("content", {}), **content}
            continue
        name = "-".join([failure.name, *(["of-HEAD"] if bodiless else []), *(["of-tus"] if tus else [])])
        shared[name] = response
        found[status] = _ref("responses", name)
    return {str(status): found[status] for status in sorted(found)}


def _answer(answer: Answer) -> Schema:
    told: Schema = {"description": answer.about, "headers": _headers([request_ids.HEADER, *answer.headers])}
    if answer.content:
        told["content"] = {type: {"schema": schema} for type, schema in answer.content.items()}
    if answer.links:
        told["links"] = dict(answer.links)
    return told


def _headers(names: Iterable[str]) -> Schema:
    """Those of the names, without what they are among the components."""
    told: Schema = {}
    for name in names:
        known = name.removesuffix("?")
        said = known.removesuffix("-of-page")
        told[said] = {**HEADERS[known], "required": False} if name.endswith("?") else _ref("headers", known)
    return told


def _any_of(schemas: list[Schema]) -> Schema:
    return schemas[0] if len(schemas) == 1 else {"oneOf": schemas}


def _ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _used(paths: Schema, components: dict[str, Schema]) -> dict[str, Schema]:
    """The components that something refers to, from the paths on."""
    kept: dict[str, Schema] = {kind: {} for kind in components}
    waiting: list[Any] = [paths]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += each
            continue
        if not isinstance(each, dict):
            continue
        waiting += each.values()
        for name in _named(each):
            kind, key = name
            if key not in kept[kind]:
                kept[kind][key] = components[kind][key]
                waiting.append(components[kind][key])
    order = {kind: [name for name in components[kind] if name in kept[kind]] for kind in components}
    return {kind: {name: kept[kind][name] for name in names} for kind, names in order.items() if names}


def _named(each: Schema) -> list[tuple[str, str]]:
    """What an object refers to by itself."""
    found: list[tuple[str, str]] = []
    target = each.get("$ref")
    if isinstance(target, str):
        _, _, kind, name = target.split("/")
        found.append((kind, name))
    if isinstance(ways := each.get("security"), list):
        found += [("securitySchemes", name) for way in ways for name in way]
    return found
