"""What each route takes, what it answers when all is well, and which errors it may come to. Pure: the table to read.

A route that refuses whatever is asked of it, as things are set, is left out. What holds for all of them isn't said
here: who may (``document.py``), what everybody can be answered (``ALWAYS``), and HEAD, which is as GET without a body.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

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
    Unavailable,
    UnknownNamespace,
    Unsupported,
    UploadConflict,
    UploadGone,
    UploadLocked,
    UploadSealed,
    WriteOnce,
)
from sfss.web import pages, tus, uploads
from sfss.web.conditional import Unsatisfiable
from sfss.web.ids import BY_ID
from sfss.web.listing import NDJSON
from sfss.web.openapi.failures import Failure
from sfss.web.openapi.offer import Offer
from sfss.web.openapi.schemas import ref
from sfss.web.urls import CLEAN_ROUTE, ONE_ROUTE

Schema = dict[str, Any]
JSON = "application/json"
ANYTHING: Schema = {}  # bytes

URL = "/openapi.json"
ALWAYS: tuple[Failure, ...] = (SfssError, 503)  # a bug; too many connections
_AWAY = (NodeError, Unavailable, Unsupported)  # the nodes, or what they can't do
_OF_PATH = (BadPath, BadRequest, UnknownNamespace, NamespaceDisabled, ShortTermAway, Damaged, *_AWAY)
_READ = (*_OF_PATH, NotFound, PreconditionFailed, Unsatisfiable)
_STORE = (OutOfSpace, QuotaExceeded, BacklogFull, TooLarge, WriteOnce, PreconditionFailed)
_BODY = (BadBody, BadDigest, BodyTimeout, 417, 501)
_WRITE = (*_OF_PATH, *_STORE, *_BODY)
_DELETE = (*_OF_PATH, NotFound, PreconditionFailed, WriteOnce, OutOfSpace, BacklogFull)
_UPLOAD = (*_OF_PATH, *_STORE, 412)
_ONE_UPLOAD = (*_UPLOAD, NoUpload, UploadGone, UploadLocked)
_PIECE = (*_ONE_UPLOAD, *_BODY, BadChecksum, UploadConflict, UploadSealed, 415)

_CONDITIONS = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")
_READING = (*_CONDITIONS, "Range", "If-Range")
_DIGESTS = ("Content-Digest", "Content-MD5")
_OF_FILE = ("ETag", "Last-Modified", "Accept-Ranges", "X-Content-Type-Options", "Content-Security-Policy")


class Answer(NamedTuple):
    """An answer when all is well. A header may be missing where its name ends with ``?``."""

    about: str
    content: Mapping[str, Schema] = {}  # by media type
    headers: tuple[str, ...] = ()
    links: Mapping[str, Schema] = {}


class Operation(NamedTuple):
    """A method of a page."""

    id: str
    tag: str
    about: str  # in a line
    answers: Mapping[int, Answer]
    errors: tuple[Failure, ...] = ()
    parameters: tuple[str, ...] = ()  # of PARAMETERS
    body: Mapping[str, Schema] = {}  # by media type; none: it takes none
    more: str = ""  # that is to be said
    needs_body: bool = False


Table = dict[tuple[str, str], Operation]

TAGS: Mapping[str, str] = {
    "files": "Files by path. A file becomes visible at once and whole; 404 means that there is none.",
    "ids": "Files that are stored without a path, and get an id.",
    "namespaces": "The first segments of paths that have rules of their own, and files in them by their own URLs.",
    "root": "Files whose paths are their URLs, and which are written once.",
    "uploads": "Resumable uploads: tus 1.0.0.",
    "nodes": "Storage nodes that announce themselves.",
    "service": "How the service is, and what it says of itself.",
    "dashboard": "The page for people.",
}


def operations(offer: Offer) -> Table:
    """By method and route, each as aiohttp has it."""
    table = {
        **_files(offer),
        **_ids(offer),
        **_uploads(_judged(offer)),
        **_service(),
        **_nodes(offer),
        **_namespaces(offer),
    }
    if offer.namespaces or offer.root:
        table |= _within(offer)
    if offer.root:
        table |= _at_root()
    if offer.dashboard:
        table |= _dashboard()
    return table


# --- files ---


def _file(more: tuple[str, ...] = ()) -> dict[int, Answer]:
    """What a GET of a file answers."""
    headers = (*_OF_FILE, *more, "Cache-Control?")
    return {
        200: Answer("The file; X-Meta- headers that came with it.", {"*/*": ANYTHING}, headers),
        206: Answer("The range of it.", {"*/*": ANYTHING}, (*headers, "Content-Range")),
        304: Answer("It is the one that the client has.", headers=(*_OF_FILE, "Cache-Control?")),
    }


_FORM: Schema = {
    "type": "object",
    "required": ["upload_file"],
    "properties": {"upload_file": {"type": "string", "contentMediaType": "application/octet-stream"}},
}


def _upload_body(offer: Offer) -> dict[str, Schema]:
    """A file as a request brings it. The media type is kept with it."""
    raw = {"description": f"The file itself, of any media type but multipart; {offer.max_file_size} bytes at most."}
    return {"*/*": raw, "multipart/form-data": _FORM}


_META = (
    "`X-Meta-NAME: VALUE` headers are kept with the file: 4,096 bytes of them, names of `a-z 0-9 - _`. A form's file is"
    " its part `upload_file`, else its first part with a file name."
)


def _stored(about: str, *headers: str, links: Mapping[str, Schema] | None = None) -> Answer:
    return Answer(about, headers=("ETag", *headers), links=links or {})


def _links(place: str, operations: Iterable[str], **parameters: str) -> dict[str, Schema]:
    """Links to other operations; ``place`` of the parameters: query or path."""
    named = {f"{place}.{name}": expression for name, expression in parameters.items()}
    return {operation: {"operationId": operation, "parameters": named} for operation in operations}


_OF_ONE_PATH = ("get_file", "head_file", "put_file", "delete_file")
_TO_FILE = _links("query", _OF_ONE_PATH, path="$request.query.path")


def _files(offer: Offer) -> Table:
    path = ("path",)
    written = (*path, *_CONDITIONS, *_DIGESTS)
    listed: tuple[str, ...] = ("prefix", "after", "delimiter", "limit")
    pages: list[Schema] = [ref("ListPage")]
    failing: tuple[Failure, ...] = (BadRequest, UnknownNamespace, NamespaceDisabled, Damaged, ShortTermAway, *_AWAY)
    if offer.catalogue:
        listed += ("search", "type", "min_size", "max_size")
        pages.append(ref("FoundPage"))
    found = {JSON: _one_of(pages), NDJSON: _LINES}
    if offer.json:
        listed += ("client_id", "name")
        found[JSON] = _one_of([*pages, _AS_JSON])
        failing += (BadPath, NotFound, StorageFailed)
    body = _upload_body(offer)
    return {
        ("GET", "/file"): Operation(
            "get_file", "files", "A file, or a range of it", _file(), _READ, (*path, *_READING)
        ),
        ("PUT", "/file"): Operation(
            "put_file", "files", "Store a file, new or in place of what was there",
            {200: _stored("It is stored.", links=_TO_FILE)}, _WRITE, written, body, _META,
        ),
        ("POST", "/file"): Operation(
            "post_file", "files", "The same, with Location",
            {201: _stored("It is stored.", "Location", links=_TO_FILE)}, _WRITE, written, body, _META,
        ),
        ("DELETE", "/file"): Operation(
            "delete_file", "files", "Remove a file", {204: Answer("It is removed.")}, _DELETE, (*path, *_CONDITIONS),
        ),
        ("PUT", "/files"): Operation(
            "put_files", "files", "As PUT /file",
            {200: _stored("It is stored.", links=_TO_FILE)}, _WRITE, written, body, _META,
        ),
        ("GET", "/files"): Operation(
            "list_files", "files", "Which files there are, in the order of their paths",
            {200: Answer("A page; or, for who accepts application/x-ndjson, a line for each.", found, ("Vary?",))},
            (*failing, CatalogueAway, NoCatalogue), listed, more=_HOW_TO_LIST[offer.catalogue],
        ),
    }  # fmt: skip


_LINES: Schema = {
    "type": "string",
    "description": "A line of JSON for each file, as in a page's `files`; or its prefix.",
}
_AS_JSON: Schema = {
    "type": "object",
    "description": "A file as JSON, where `client_id` and `name` ask for one.",
    "required": ["name", "data"],
    "properties": {"name": {"type": "string"}, "data": {"type": "string", "contentEncoding": "base64"}},
    "additionalProperties": False,
}
_HOW_TO_LIST = {
    False: "`search`, `type`, `min_size` and `max_size` would search; that takes a catalogue, and there is none.",
    True: "With `search`, `type`, `min_size` or `max_size` it is a search: all that are given must hold, and there are"
    " neither folders nor a stream.",
}


def _one_of(schemas: list[Schema]) -> Schema:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _ids(offer: Offer) -> Table:
    one = ("get_by_id", "head_by_id", "delete_by_id")
    links = _links("path", one, file_id="$response.body#/file_id")
    answers = {201: Answer("It is stored. Without a path it has an id, which the body tells; else there is no body.",
                           {JSON: ref("FileById")}, ("ETag", "Location"), links)}  # fmt: skip
    body, more = _upload_body(offer), _META
    errors: tuple[Failure, ...] = _WRITE
    if offer.json:
        body = {JSON: ref("PostedFile"), **body}
        answers[200] = _stored("The file that came as JSON is stored.")
        errors += (StorageFailed, *_judged(offer))
        more += f" Without a path, {JSON} is a file as JSON, of {offer.json_max} bytes at most."
    given = ("path-or-none", *_CONDITIONS, *_DIGESTS, "Content-Disposition")
    named = ("Content-Disposition",)
    return {
        ("POST", "/files"): Operation(
            "post_files", "ids", "Store a file, which gets an id", answers, errors, given, body, more
        ),
        ("GET", BY_ID): Operation(
            "get_by_id", "ids", "A file by its id", _file(named), _READ, ("file_id", *_READING)
        ),
        ("DELETE", BY_ID): Operation(
            "delete_by_id", "ids", "Remove a file by its id", {204: Answer("It is removed.")}, _DELETE,
            ("file_id", *_CONDITIONS),
        ),
    }  # fmt: skip


def _within(offer: Offer) -> Table:
    """Files whose URLs are ``/NAMESPACE/path``; where files are at the root, too, these may be such."""
    place = ("first" if offer.root else "namespace", "url-path-within")
    tag = "namespaces" if offer.namespaces else "root"
    written = (*place, *_CONDITIONS, *_DIGESTS)
    to_be: tuple[Failure, ...] = (NotAllowed, 404) if offer.root else ()
    body = _upload_body(offer)
    one = ("get_within", "head_within")
    to_one = _links("path", one, namespace="$request.path.namespace", path="$request.path.path")
    table: Table = {
        ("GET", CLEAN_ROUTE): Operation(
            "get_within", tag, "A file by its own URL", _file(), (*_READ, 404), (*place, *_READING)
        ),
        ("POST", CLEAN_ROUTE): Operation(
            "post_within", tag, "Store a file at its own URL",
            {201: _stored("It is stored.", "Location", links=to_one)}, (*_WRITE, *to_be), written, body, _META,
        ),
    }  # fmt: skip
    if offer.namespaces:
        table |= {
            ("PUT", CLEAN_ROUTE): Operation(
                "put_within", tag, "Store a file at its own URL",
                {200: _stored("It is stored.", links=to_one)}, (*_WRITE, *to_be), written, body, _META,
            ),
            ("DELETE", CLEAN_ROUTE): Operation(
                "delete_within", tag, "Remove a file by its own URL", {204: Answer("It is removed.")},
                (*_DELETE, *to_be), (*place, *_CONDITIONS),
            ),
        }  # fmt: skip
    return table


def _at_root() -> Table:
    to_one = _links("path", ("get_at_root", "head_at_root"), path="$request.path.path")
    return {
        ("GET", ONE_ROUTE): Operation(
            "get_at_root", "root", "A file by its own URL", _file(), (*_READ, 404), ("url-path", *_READING)
        ),
        ("POST", ONE_ROUTE): Operation(
            "post_at_root", "root", "Create a file at its own URL, once",
            {201: _stored("It is created.", "Location", links=to_one)}, (*_WRITE, NotAllowed, 404),
            ("url-path", *_CONDITIONS, *_DIGESTS), {"*/*": ANYTHING, "multipart/form-data": _FORM}, _META,
        ),
    }  # fmt: skip


# --- resumable uploads ---

_TUS = ("Tus-Resumable",)
_OPTIONS = Answer(
    "What there is.", headers=(*_TUS, "Tus-Version", "Tus-Extension", "Tus-Checksum-Algorithm", "Tus-Max-Size")
)
_PIECE_BODY = {tus.CONTENT_TYPE: {"description": "The piece."}}


def _judged(offer: Offer) -> tuple[Failure, ...]:
    """What comes of handlers that judge themselves who may."""
    return (NoKey, Denied, Unavailable) if offer.guarded else ()


def _uploads(judged: tuple[Failure, ...]) -> Table:
    begun = ("path-to-be", "Tus-Resumable", "Upload-Length", "Upload-Defer-Length", "Upload-Metadata", "Upload-Concat",
             "Upload-Checksum", *_CONDITIONS)  # fmt: skip
    table: Table = {}
    for url, suffix in ((uploads.COLLECTION, ""), (f"{uploads.COLLECTION}/", "_slash")):
        table["OPTIONS", url] = Operation(
            f"options_uploads{suffix}", "uploads", "What can be done here", {204: _OPTIONS},
            (BadPath,), ("path-to-be",),
        )  # fmt: skip
        table["POST", url] = Operation(
            f"post_upload{suffix}", "uploads", "Begin an upload, or put one together of parts",
            {201: Answer("It is begun.", headers=(*_TUS, "Location", "Upload-Expires?", "Upload-Offset?"))},
            (*_PIECE, *judged), begun,
            _PIECE_BODY,
            "Either Upload-Length or Upload-Defer-Length has to be there, unless it is put together. With a body of"
            f" {tus.CONTENT_TYPE} its first piece is in it. `X-HTTP-Method-Override` is heeded here, too.",
        )  # fmt: skip
    told = ("Upload-Offset", "Upload-Length?", "Upload-Defer-Length?", "Upload-Metadata?", "Upload-Concat?",
            "Upload-Expires?")  # fmt: skip
    item, piece = uploads.ITEM, ("upload", "Tus-Resumable", "Upload-Offset", "Upload-Length-at-last", "Upload-Checksum")
    table |= {
        ("OPTIONS", item): Operation(
            "options_upload", "uploads", "What can be done here", {204: _OPTIONS},
            (BadPath,), ("any-upload",),
        ),
        ("HEAD", item): Operation(
            "head_upload", "uploads", "How far an upload is",
            {200: Answer("It is so far.", headers=(*_TUS, *told, "Cache-Control"))}, (*_ONE_UPLOAD, *judged),
            ("upload",),
        ),
        ("PATCH", item): Operation(
            "patch_upload", "uploads", "Go on with an upload",
            {204: Answer("The piece is kept.", headers=(*_TUS, "Upload-Offset", "Upload-Expires?"))},
            (*_PIECE, *judged), (*piece, *_DIGESTS), _PIECE_BODY, needs_body=True,
        ),
        ("DELETE", item): Operation(
            "delete_upload", "uploads", "Forget an upload",
            {204: Answer("It is forgotten; a file that came of it stays.", headers=_TUS)},
            (*_ONE_UPLOAD, *judged), ("upload", "Tus-Resumable"),
        ),
        ("POST", item): Operation(
            "post_to_upload", "uploads", "PATCH, of who can't send that",
            {204: Answer("The piece is kept.", headers=(*_TUS, "Upload-Offset", "Upload-Expires?"))},
            (*_PIECE, *judged, 405), (*piece, "X-HTTP-Method-Override", *_DIGESTS), _PIECE_BODY, needs_body=True,
            more="Whatever method `X-HTTP-Method-Override` names is meant, also HEAD, DELETE and OPTIONS.",
        ),
    }  # fmt: skip
    return table


# --- the service itself ---


def _json(about: str, schema: str, *headers: str, links: Mapping[str, Schema] | None = None) -> Answer:
    return Answer(about, {JSON: ref(schema)}, headers, links or {})


def _service() -> Table:
    figures = {"text/plain": {"type": "string"}, "application/openmetrics-text": {"type": "string"}}
    return {
        ("GET", "/status"): Operation(
            "get_status", "service", "Every node's STATS, and the front's figures",
            {200: _json("All that is known.", "Status")}, (BadRequest, *_AWAY), ("format",),
        ),
        ("GET", "/metrics"): Operation(
            "get_metrics", "service", "The figures, for a Prometheus",
            {200: Answer("Prometheus's text format; OpenMetrics for who accepts it.", figures, ("Cache-Control",))},
            (BadRequest, *_AWAY), ("nodes",),
        ),
        ("GET", "/health"): Operation(
            "get_health", "service", "How the service is",
            {200: _json("It serves, if not all of it.", "Health"), 503: _json("No node is here.", "Health")},
        ),
        ("GET", "/livez"): Operation(
            "get_livez", "service", "Whether the process answers", {200: _json("It does.", "Life")}
        ),
        ("GET", "/readyz"): Operation(
            "get_readyz", "service", "Whether a node is here to serve from",
            {200: _json("One is.", "Readiness"), 503: _json("None is.", "Readiness")},
        ),
        ("GET", URL): Operation(
            "get_openapi", "service", "This document",
            {200: Answer("It.", {JSON: {"type": "object"}}, ("ETag-of-page", "Cache-Control")),
             304: Answer("It is the one that the client has.", headers=("ETag-of-page", "Cache-Control"))},
            (BadRequest,), ("If-None-Match",),
        ),
    }  # fmt: skip


def _nodes(offer: Offer) -> Table:
    table: Table = {
        ("GET", "/nodes"): Operation(
            "list_nodes", "nodes", "Every node, and how full it is", {200: _json("All of them.", "NodeList")}, _AWAY
        ),
    }
    if offer.nodes_register:
        errors: tuple[Failure, ...] = (BadRequest, NotWelcome, NodeConflict, Damaged, OutOfSpace, *_AWAY)
        errors += (NoKey,) if offer.nodes_secret else _judged(offer)
        to_one = _links("path", ("delete_node",), name="$request.body#/name")
        table |= {
            ("POST", "/nodes"): Operation(
                "post_node", "nodes", "A node announces itself",
                {200: _json("It is known.", "Answer"), 201: _json("It joins.", "Answer", links=to_one),
                 202: _json("It is to come again.", "Answer")},
                (*errors, BodyTimeout), body={JSON: ref("Announcement")}, needs_body=True,
            ),
            ("DELETE", "/nodes/{name}"): Operation(
                "delete_node", "nodes", "A node is to leave",
                {202: _json("Its files are being moved.", "Answer")}, (*errors, NoNode), ("node-name",),
            ),
        }  # fmt: skip
    return table


def _namespaces(offer: Offer) -> Table:
    place = ("namespace-name",)
    table: Table = {
        ("GET", "/namespaces"): Operation(
            "list_namespaces", "namespaces", "Which namespaces there are",
            {200: _json("All of them.", "NamespaceList")}, (Damaged, *_AWAY),
        ),
    }  # fmt: skip
    if offer.namespaces:
        table["GET", "/namespaces/{name}"] = Operation(
            "get_namespace", "namespaces", "A namespace", {200: _json("It.", "NamespaceTold")},
            (UnknownNamespace, Damaged, *_AWAY), place,
        )  # fmt: skip
    if offer.namespaces_made:
        one = ("get_namespace", "patch_namespace", "delete_namespace")
        links = _links("path", one, name="$request.path.name")
        links |= _links("path", ("put_within",), namespace="$request.path.name")
        errors: tuple[Failure, ...] = (BadRequest, NamespaceConflict, TooLarge, OutOfSpace, Damaged, *_AWAY)
        table |= {
            ("PUT", "/namespaces/{name}"): Operation(
                "put_namespace", "namespaces", "Make a namespace, or have it be another",
                {200: _json("It is as the body says.", "NamespaceTold", links=links),
                 201: _json("It is made.", "NamespaceTold", "Location", links=links)},
                (*errors, PreconditionFailed), (*place, "only-new"), {JSON: ref("Namespace")},
            ),
            ("PATCH", "/namespaces/{name}"): Operation(
                "patch_namespace", "namespaces", "Change some of it",
                {200: _json("It is as the body says.", "NamespaceTold")}, (*errors, UnknownNamespace), place,
                {JSON: ref("NamespaceChange")}, "RFC 7396: what is left out stays; null: as if it had never been said.",
            ),
            ("DELETE", "/namespaces/{name}"): Operation(
                "delete_namespace", "namespaces", "Have it be none any more; it may have no files",
                {204: Answer("It is none.")}, (*errors, ShortTermAway, UnknownNamespace), place,
            ),
        }  # fmt: skip
    return table


def _dashboard() -> Table:
    headers = ("ETag-of-page", "Cache-Control", "Content-Security-Policy", "X-Content-Type-Options")
    same = Answer("It is the one that the client has.", headers=headers)
    text = {"type": "string"}
    kinds = dict.fromkeys(("text/html", "text/css", "text/javascript", "image/svg+xml", "text/plain"), text)
    return {
        ("GET", "/"): Operation(
            "get_page", "dashboard", "The page",
            {200: Answer("It.", {"text/html": text}, headers), 304: same}, (BadRequest,), ("If-None-Match",),
        ),
        ("GET", pages.ASSET): Operation(
            "get_asset", "dashboard", "A file of the page",
            {200: Answer("It.", kinds, headers), 304: same}, (BadRequest, 404), ("asset", "If-None-Match"),
        ),
        ("GET", pages.MAY): Operation(
            "get_rights", "dashboard", "What whoever asks may do there",
            {200: _json("It.", "Rights", "Cache-Control")}, (BadPath, BadRequest), ("path-asked", "prefix-asked"),
        ),
    }  # fmt: skip
