"""Errors as responses of the document: made of ``PROBLEMS``, by which they are answered. Pure."""

from __future__ import annotations

import http
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from sfss.errors import (
    BacklogFull,
    CatalogueAway,
    NamespaceDisabled,
    NoCatalogue,
    NodeError,
    NoKey,
    NotAllowed,
    QuotaExceeded,
    SfssError,
    ShortTermAway,
    StorageFailed,
    TooLarge,
    TooMany,
    UnknownNamespace,
    Unsupported,
    WriteOnce,
)
from sfss.web.conditional import Unsatisfiable
from sfss.web.openapi.offer import Offer
from sfss.web.problems import PROBLEMS, Problem

Schema = dict[str, Any]
Failure = type[SfssError] | int  # an error of ours; or the status of one of HTTP's own, as of a page that there isn't

PROBLEM = "application/problem+json"
_BYTES = {"type": "integer", "minimum": 0}
_NODE = {"node": {"type": "string", "description": "Its address, `host:port`."}}
# What a document of an error has besides, always. By the first of these classes that it is of.
_MORE: Mapping[type[SfssError], Schema] = {
    TooLarge: {"limit": {**_BYTES, "description": "In bytes."}, "setting": {"type": "string"}},
    NodeError: _NODE,
    Unsupported: _NODE,
}
# The headers that its answer has besides, always.
_HEADERS: Mapping[type[SfssError], str] = {
    NoKey: "WWW-Authenticate",
    NotAllowed: "Allow",
    Unsatisfiable: "Content-Range",
    TooMany: "Retry-After",
    BacklogFull: "Retry-After",
    StorageFailed: "Retry-After",
}
_BASE: Schema = {
    "type": "object",
    "description": "RFC 9457. `type` is a promise, `detail` is for people, and says what to do.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "pattern": "^urn:sfss:[a-z-]+$"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "request_id": {"type": "string", "description": "As in X-Request-ID."},
    },
}


class Response(NamedTuple):
    """What one status stands for."""

    name: str  # of the component
    description: str
    schemas: Collection[str]  # of which its document is one
    headers: Collection[str]  # that it always has


def can_be(failure: Failure, offer: Offer) -> bool:
    """Whether it can be at all where this is offered."""
    unless: Mapping[Failure, bool] = {
        TooMany: offer.rated,
        UnknownNamespace: offer.namespaces,
        NamespaceDisabled: offer.namespaces,
        QuotaExceeded: offer.quotas,
        WriteOnce: offer.once,
        ShortTermAway: offer.write_behind,
        BacklogFull: offer.write_behind,
        CatalogueAway: offer.catalogue,
        NoCatalogue: not offer.catalogue,
    }
    return unless.get(failure, True)


def responses(failures: Iterable[Failure]) -> dict[int, Response]:
    """What they are, by status."""
    by_status: dict[int, list[tuple[Problem, Failure]]] = {}
    for failure in dict.fromkeys(failures):
        problem = problem_of(failure)
        by_status.setdefault(problem.status, []).append((problem, failure))
    return {status: _response(found) for status, found in sorted(by_status.items())}


def problem_of(failure: Failure) -> Problem:
    """How it is answered."""
    if isinstance(failure, int):
        return Problem(failure, "http", http.HTTPStatus(failure).phrase)
    return next(problem for kind, problem in PROBLEMS.items() if issubclass(failure, kind))


def schemas(failures: Iterable[Failure]) -> dict[str, Schema]:
    """The problem documents that there are, by their names among the components."""
    return {"Problem": _BASE, **{_schema_name(problem_of(failure)): _schema(failure) for failure in failures}}


def _response(found: list[tuple[Problem, Failure]]) -> Response:
    found.sort(key=lambda pair: pair[0].name)
    names = [problem.name for problem, _ in found]
    # What each of them has; one that only some have is told in words.
    headers = [{header} if (header := _header_of(failure)) else set() for _, failure in found]
    return Response(
        name="-".join([str(found[0][0].status), *names]),
        description="; ".join(dict.fromkeys(f"{problem.title} (`{problem.name}`)" for problem, _ in found)) + ".",
        schemas=[_schema_name(problem) for problem, _ in found],
        headers=sorted(set.intersection(*headers)),
    )


def _schema_name(problem: Problem) -> str:
    return f"Problem-{problem.status}-{problem.name}"


def _schema(failure: Failure) -> Schema:
    problem = problem_of(failure)
    more = next((more for kind, more in _MORE.items() if isinstance(failure, type) and issubclass(failure, kind)), {})
    return {
        "allOf": [{"$ref": "#/components/schemas/Problem"}],
        "title": problem.title,
        "required": sorted(more),
        "properties": {"type": {"const": f"urn:sfss:{problem.name}"}, "status": {"const": problem.status}, **more},
    }


def _header_of(failure: Failure) -> str | None:
    if isinstance(failure, int):
        return {405: "Allow"}.get(failure)
    found = next((header for kind, header in _HEADERS.items() if issubclass(failure, kind)), None)
    return found or ("Retry-After" if problem_of(failure).status == 504 else None)
