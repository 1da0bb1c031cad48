"""What schemathesis can't know from a schema: how headers are made, and what of a request goes together."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, HookContext, Response
from schemathesis.core import NotSet
from schemathesis.core.failures import Failure
from schemathesis.generation import GenerationMode
from schemathesis.generation.meta import TestPhase
from schemathesis.openapi.checks import AllowHeaderMismatch, UnsupportedMethodResponse

from sfss.web import tus
from sfss.web.openapi.parameters import PARAMETERS
from sfss.web.urls import is_page

AnyCase = Case[Any]

# In its coverage phase schemathesis makes no header by a pattern that takes more than letters and digits: it sends 0,
# and calls that valid. By a format it does, if it knows how.
for _parameter in PARAMETERS.values():
    _schema = _parameter["schema"]
    if "format" in _schema and "pattern" in _schema and _parameter["in"] == "header":
        made = st.one_of(st.sampled_from(_schema["examples"]), st.from_regex(_schema["pattern"].replace("$", r"\Z")))
        schemathesis.openapi.format(_schema["format"], made)


# What there is, by the names of path parameters, for all operations or for one: so that something is found there, too.
_THERE: dict[str, dict[str, str]] = json.loads(os.environ.get("SFSS_TEST_THERE", "{}"))


@schemathesis.serializer(tus.CONTENT_TYPE)
def a_piece(_context: Any, value: Any) -> bytes:
    """A piece of an upload is bytes, whatever they are."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@schemathesis.hook
def filter_case(_context: HookContext, case: AnyCase) -> bool:
    """Leave out what is neither right nor wrong by the schema, but by what it can't say."""
    if any(name.lower().startswith("x-schemathesis-unknown") for name in case.headers):
        return False  # unknown parameters are ignored
    if case.media_type == "multipart/form-data" and isinstance(case.body, dict) and _is_file(case.body):
        return case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE
    if case.path == "/{namespace}/{path}" and is_page(str(case.path_parameters.get("namespace"))):
        return False  # that is another page, which has its own rules
    if case.path == "/dashboard/may":
        return not {"path", "prefix"} <= case.query.keys()  # where there is a path, nobody looks at the prefix
    # With a path the answer of POST /files has no JSON. POST /file is the same, and says so.
    return (case.method.upper(), case.path) != ("POST", "/files") or "path" not in case.query


# Routes that only say, in more words than the usual 405, why nothing can be done so: what is off (403, 409), and files
# at the root, which are written once. They aren't in the document, but in Allow.
_REFUSING = {
    "/nodes": {"POST"},
    "/nodes/{name}": {"DELETE"},
    "/namespaces/{name}": {"PUT", "PATCH", "DELETE"},
    "/{namespace}/{path}": {"PUT", "DELETE"},
    "/{path}": {"PUT", "DELETE"},
}


@schemathesis.hook
def filter_failure(_context: HookContext, failure: Failure, case: AnyCase, response: Response) -> bool:
    """Leave out what is none."""
    refusing = _REFUSING.get(case.path, set())
    if isinstance(failure, AllowHeaderMismatch):
        return bool(failure.missing_methods or set(failure.undocumented_methods) - refusing)
    if isinstance(failure, UnsupportedMethodResponse):
        if case.path == "/uploads/{upload}" and "X-HTTP-Method-Override" in case.headers:
            return False  # it has been whatever that says
        if failure.method in refusing:
            return response.status_code not in (403, 409)
    if (case.method.upper(), case.path) == ("POST", "/files") and "path" in case.query:
        return failure.code not in ("ST104", "ST109")  # then there is no JSON in the answer; as in filter_case
    # Where a Location leads is taken for a file's URL, too, though it is a page's.
    return case.path != "/{namespace}/{path}" or not is_page(str(case.path_parameters.get("namespace")))


def _is_file(form: dict[str, Any]) -> bool:
    """Whether it brings a file: a part is bytes, whatever these were made of."""
    return "upload_file" in form and not isinstance(form["upload_file"], list)


@schemathesis.hook
def map_case(_context: HookContext, case: AnyCase) -> AnyCase:
    """Make whole what is to be right."""
    if case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE:
        _make_right(case)
    return case


@schemathesis.hook
def before_call(_context: HookContext, case: AnyCase, _kwargs: dict[str, Any]) -> None:
    """The same for examples, which aren't mapped."""
    if case.meta is not None and case.meta.phase.name is TestPhase.EXAMPLES:
        _make_right(case)


def _make_right(case: AnyCase) -> None:
    if case.method.upper() != "DELETE":
        there = {**_THERE.get("", {}), **_THERE.get(f"{case.method.upper()} {case.path}", {})}
        case.path_parameters.update({name: there[name] for name in case.path_parameters if name in there})
    _make_body_right(case)
    make_right = _TOGETHER.get((case.method.upper(), case.path))
    if make_right is not None:
        make_right(case)
    if (
        len(case.headers.get("If-Match", "")) % 2
    ):  # a tag that is made up is no file's: nothing behind it would be tried
        del case.headers["If-Match"]
    _digest(case)


def _make_body_right(case: AnyCase) -> None:
    if isinstance(case.body, NotSet):
        return
    types = {body.media_type for body in case.operation.body}
    is_any = "*/*" in types and case.media_type not in (None, *(types - {"*/*"}))
    is_other = case.media_type in ("multipart/form-data", "application/json") and not isinstance(case.body, dict)
    # schemathesis takes any type that it knows for */*, also multipart/mixed, and any JSON
    if is_any or ("*/*" in types and is_other):
        case.media_type = "application/octet-stream"
        case.body = case.body if isinstance(case.body, bytes) else json.dumps(case.body, default=str).encode()
    if isinstance(case.body, dict):
        case.body = {key: _whole(value) for key, value in case.body.items()}


def _whole(value: Any) -> Any:
    """59.0 is an integer to JSON Schema, and none to a decoder that is strict, nor does any program write one so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _fit_what_is_there(case: AnyCase) -> None:
    """The name is the URL's; and there are three nodes."""
    body = case.body
    if not isinstance(body, dict):
        return
    if "name" in body:
        body["name"] = case.path_parameters["name"]
    layout = body.get("layout")
    for needed, name in (("raid0", "pieces"), ("raid1", "copies")):
        if layout == needed:
            body[name] = 2
        elif isinstance(number := body.get(name), int):
            body[name] = min(number, 3)
    if layout == "raid1":
        body.pop("pieces", None)
    if case.method.upper() == "PATCH":
        for name in ("layout", "copies", "pieces"):
            body.pop(name, None)  # they go with what else there was before


def _choose_what_to_ask(case: AnyCase) -> None:
    """A list, or a search, which has no folders; or a file as JSON, which takes two parameters."""
    if {"client_id", "name"} & case.query.keys():
        case.query.update({"client_id": case.query.get("client_id", "1"), "name": case.query.get("name", "a")})
    elif {"search", "type", "min_size", "max_size"} & case.query.keys():
        case.query.pop("delimiter", None)


def _say_one_length(case: AnyCase) -> None:
    """Either of the two headers, or neither, where an upload is put together of others; and a path, if need be."""
    if "path" not in case.query and case.headers.get("Upload-Concat") != "partial":
        case.query["path"] = "an/upload"
    final = str(case.headers.get("Upload-Concat", "")).startswith("final")
    if final or "Upload-Length" in case.headers:
        case.headers.pop("Upload-Defer-Length", None)
    elif "Upload-Defer-Length" not in case.headers:
        case.headers["Upload-Length"] = str(len(_body(case) or b""))
    if final:
        case.headers.pop("Upload-Length", None)
    if "Upload-Length" in case.headers and _body(case):  # the piece in it is part of it
        case.headers["Upload-Length"] = str(len(_body(case) or b""))


def _say_no_length(case: AnyCase) -> None:
    """It was told when the upload began."""
    case.headers.pop("Upload-Length", None)


_TOGETHER: dict[tuple[str, str], Callable[[AnyCase], None]] = {
    ("GET", "/files"): _choose_what_to_ask,
    ("POST", "/uploads"): _say_one_length,
    ("POST", "/uploads/"): _say_one_length,
    ("PATCH", "/uploads/{upload}"): _say_no_length,
    ("POST", "/uploads/{upload}"): _say_no_length,
    ("PUT", "/namespaces/{name}"): _fit_what_is_there,
    ("PATCH", "/namespaces/{name}"): _fit_what_is_there,
}


def _digest(case: AnyCase) -> None:
    """What the body's digests are; none of a form, which is put together when it is sent."""
    body = _body(case)
    makers = {
        "Content-Digest": lambda data: f"sha-256=:{_base64(hashlib.sha256(data).digest())}:",
        "Content-MD5": lambda data: _base64(hashlib.md5(data).digest()),
        "Upload-Checksum": lambda data: f"sha1 {_base64(hashlib.sha1(data).digest())}",
    }
    for name in makers.keys() & case.headers.keys():
        if body is None:
            del case.headers[name]
        else:
            case.headers[name] = makers[name](body)


def _body(case: AnyCase) -> bytes | None:
    """As it is sent; None if that isn't known."""
    if case.media_type == "multipart/form-data":
        return None
    sent = case.as_transport_kwargs()
    if "json" in sent:
        return None
    data = sent.get("data") or b""
    return data if isinstance(data, bytes) else data.encode() if isinstance(data, str) else None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
