"""Errors as RFC 9457 problem documents: the one place where ``sfss.errors`` meets HTTP."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sfss.access.keys import hidden
from sfss.errors import (
    BacklogFull,
    BadBody,
    BadChecksum,
    BadDigest,
    BadPath,
    BadRequest,
    BodyTimeout,
    CatalogueAway,
    Damaged,
    Denied,
    NamespaceConflict,
    NamespaceDisabled,
    NoCatalogue,
    NodeConflict,
    NodeError,
    NoKey,
    NoNode,
    NotAllowed,
    NotFound,
    NotWelcome,
    NoUpload,
    OutOfSpace,
    PreconditionFailed,
    QuotaExceeded,
    SfssError,
    ShortTermAway,
    StorageFailed,
    TooLarge,
    TooMany,
    Unavailable,
    UnknownNamespace,
    Unsupported,
    UploadConflict,
    UploadGone,
    UploadLocked,
    UploadSealed,
    WriteOnce,
)
from sfss.web.conditional import Unsatisfiable
from sfss.web.request_ids import id_of
from sfss.web.urls import is_page

log = logging.getLogger("sfss.web")


class Problem(NamedTuple):
    """What an error is to HTTP: its status, its ``type`` behind ``urn:sfss:``, which is a promise, and its title."""

    status: int
    name: str
    title: str


# From the particular to the general: the first class that an error is of counts.
PROBLEMS: dict[type[SfssError], Problem] = {
    BadPath: Problem(400, "bad-path", "The path can't name a file"),
    BadChecksum: Problem(460, "checksum-mismatch", "The piece doesn't match its checksum"),
    BadDigest: Problem(400, "bad-digest", "The content doesn't match its digest"),
    BadBody: Problem(400, "bad-body", "The body can't be read"),
    Unsatisfiable: Problem(416, "unsatisfiable-range", "The range lies outside the file"),
    BadRequest: Problem(400, "bad-request", "The request can't be taken"),
    BodyTimeout: Problem(408, "body-timeout", "The body didn't come in time"),
    NotFound: Problem(404, "not-found", "No such file"),
    UploadGone: Problem(410, "upload-gone", "The upload is no more"),
    NoUpload: Problem(404, "no-upload", "No such upload"),
    UploadConflict: Problem(409, "upload-conflict", "The upload is elsewhere"),
    UploadLocked: Problem(423, "upload-locked", "The upload can't be touched now"),
    UploadSealed: Problem(403, "upload-sealed", "The upload takes no bytes"),
    NoKey: Problem(401, "no-key", "A key is needed"),
    Denied: Problem(403, "denied", "This isn't allowed"),
    TooMany: Problem(429, "too-many-requests", "Too many requests"),
    UnknownNamespace: Problem(404, "unknown-namespace", "No such namespace"),
    NamespaceDisabled: Problem(403, "namespace-disabled", "The namespace is disabled"),
    NamespaceConflict: Problem(409, "namespace-conflict", "The namespace can't be changed so"),
    QuotaExceeded: Problem(507, "quota-exceeded", "The namespace's quota is used up"),
    NotAllowed: Problem(405, "write-once", "The file stays as it is"),
    WriteOnce: Problem(409, "write-once", "The file stays as it is"),
    NotWelcome: Problem(403, "not-welcome", "Nodes may not announce themselves so"),
    NodeConflict: Problem(409, "node-conflict", "The node can't come, move or leave now"),
    NoNode: Problem(404, "no-node", "No such node"),
    PreconditionFailed: Problem(412, "precondition-failed", "The precondition doesn't hold"),
    TooLarge: Problem(413, "too-large", "The file is too large"),
    OutOfSpace: Problem(507, "out-of-space", "A node is full"),
    BacklogFull: Problem(503, "backlog-full", "The short-term store is full"),
    Unsupported: Problem(501, "unsupported", "A node can't do this"),
    NoCatalogue: Problem(501, "no-catalogue", "There is no catalogue"),
    Damaged: Problem(504, "damaged", "No sound copy of the file answers"),
    NodeError: Problem(504, "node-unavailable", "A node doesn't answer"),
    CatalogueAway: Problem(504, "catalogue-away", "The catalogue doesn't answer"),
    ShortTermAway: Problem(504, "short-term-away", "The short-term store doesn't answer"),
    Unavailable: Problem(504, "unavailable", "The nodes don't answer"),
    StorageFailed: Problem(500, "storage-failed", "The storage doesn't answer"),
    SfssError: Problem(500, "internal", "Something went wrong"),
}


def middleware(retry_after: float) -> Middleware:
    """Turns whatever a handler raises into a problem document. ``retry_after``: seconds, for 504."""

    @web.middleware
    async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except SfssError as error:
            status, headers, body = document(error, retry_after, id_of(request))
        except web.HTTPException as error:
            status, headers, body = _of_http(error, request.path, id_of(request))
        except Exception:  # noqa: BLE001  it is logged
            status, headers, body = bug(f"{request.method} {request.path_qs}", id_of(request))
        response = web.Response(status=status, headers=headers, body=body)
        if "Expect" in request.headers:  # what comes next may be the body that wasn't asked for, or another request
            response.force_close()
        return response

    return problems


class Document(NamedTuple):
    """A problem document with what it is sent by."""

    status: int
    headers: dict[str, str]
    body: bytes


def document(error: SfssError, retry_after: float, request_id: str) -> Document:
    """The problem document of one of our own errors. ``retry_after``: seconds, where nodes are away."""
    problem = _problem_of(error)
    extensions: dict[str, object] = {}
    headers: dict[str, str] = {}
    if isinstance(error, TooLarge):
        extensions = {"limit": int(error.limit), "setting": error.setting}
    elif isinstance(error, NodeError | Unsupported):
        extensions = {"node": error.node}
    elif isinstance(error, Unsatisfiable):
        headers = {"Content-Range": f"bytes */{error.size}"}
    elif isinstance(error, NoKey):
        headers = {"WWW-Authenticate": 'Bearer realm="sfss"'}
    elif isinstance(error, NotAllowed):
        headers = {"Allow": ", ".join(error.allowed)}
    elif isinstance(error, TooMany | BacklogFull):
        headers = {"Retry-After": str(math.ceil(error.wait))}
    if problem.status == 504 or isinstance(error, StorageFailed):
        headers["Retry-After"] = str(math.ceil(retry_after))
    return _document(problem, str(error), extensions, headers, request_id)


def bug(what: str, request_id: str) -> Document:
    """For what should not have happened, while it is being handled as an exception: that goes to the log."""
    log.exception(
        "%s failed (request %s): this is a bug in sfss: please report it, with this trace", hidden(what), request_id
    )
    return _document(PROBLEMS[SfssError], "sfss has a bug here; its log has the details", {}, {}, request_id)


def _problem_of(error: SfssError) -> Problem:
    if isinstance(error, NotFound):  # what is asked most
        return PROBLEMS[NotFound]
    return next(problem for kind, problem in PROBLEMS.items() if isinstance(error, kind))


def _of_http(error: web.HTTPException, page: str, request_id: str) -> Document:
    """aiohttp's own errors: no such page, no such method, an expectation that can't be met."""
    detail = error.text or error.reason
    if error.status == 404:
        detail = "there is no such page here: files are at /file?path=..., the nodes' figures at /status"
    elif isinstance(error, web.HTTPMethodNotAllowed):
        detail = f"{error.method} can't be done here: {', '.join(sorted(error.allowed_methods))} can"
        if is_page(page[1:]):  # who thinks that it is a file's URL is to know
            detail += f"; /{page[1:].partition('/')[0]} is a page of sfss"
    headers = {name: value for name, value in error.headers.items() if name == "Allow"}
    return _document(Problem(error.status, "http", error.reason), detail, {}, headers, request_id)


def _document(
    problem: Problem, detail: str, extensions: dict[str, object], headers: dict[str, str], request_id: str
) -> Document:
    fields = {
        "type": f"urn:sfss:{problem.name}",
        "title": problem.title,
        "status": problem.status,
        "detail": detail if detail.isascii() else detail.encode(errors="replace").decode(),  # of surrogates, in a path
        **extensions,
        "request_id": request_id,
    }
    headers["Content-Type"] = "application/problem+json"
    return Document(problem.status, headers, msgspec.json.encode(fields))
