"""Parameters of requests, and headers of answers, by the names that they have among the components. Pure."""

from __future__ import annotations

from typing import Any

from sfss.access import signing
from sfss.config import NAMESPACE_NAME
from sfss.membership import NAME as NODE_NAME
from sfss.paths import MAX_PATH
from sfss.upload_state import ID as UPLOAD
from sfss.web import pages, request_ids, tus
from sfss.web.ids import ID
from sfss.web.listing import MAX_LIMIT
from sfss.web.openapi.offer import Offer
from sfss.web.openapi.schemas import BASE64

Schema = dict[str, Any]

_CONTROL = r"\u0000-\u001f\u007f-\u009f"
_ANY = rf"[^/\\{_CONTROL}]"  # character of a segment
_DOTLESS = rf"[^/\\.{_CONTROL}]"
# No segment is empty, '.' or '..': without looking ahead, which not every reader of patterns can.
_SEGMENT = rf"(?:{_DOTLESS}{_ANY}*|\.{_DOTLESS}{_ANY}*|\.\.{_ANY}+)"
PATH = rf"^{_SEGMENT}(?:/{_SEGMENT})*$"
BEGINNING = rf"^(?:{_SEGMENT}/)*{_ANY}*$"  # of a path that can be
PART = rf"^[^{_CONTROL}]*$"  # of a path: how some begin, or what they come behind

_TAG = '(?:W/)?"[!#-~]*"'
_TAGS = rf"^(?:[ \t]*\*[ \t]*|[ \t,]*{_TAG}(?:[ \t]*,(?:[ \t]*{_TAG})?)*[ \t]*)$"
_DATE = "^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT$"
_PAIR = rf"[!-+\--~]{{1,255}}(?: {BASE64})?"
_DIGEST = "(?:sha-256=:[A-Za-z0-9+/]{43}=:|sha-512=:[A-Za-z0-9+/]{86}==:)"
_PATH: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_PATH, "pattern": PATH}
_BEGINNING: Schema = {"type": "string", "maxLength": MAX_PATH, "pattern": BEGINNING}
_PART: Schema = {"type": "string", "maxLength": MAX_PATH, "pattern": PART}
_BYTES: Schema = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
_SEARCHED_BYTES: Schema = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}


def _in(where: str, name: str, schema: Schema, about: str, *, needed: bool = False) -> Schema:
    return {"name": name, "in": where, "required": needed or where == "path", "schema": schema, "description": about}


def parameters(offer: Offer) -> dict[str, Schema]:
    """All of them, where this is offered."""
    length: Schema = {"type": "integer", "minimum": 0, "maximum": offer.max_file_size}
    return PARAMETERS | {
        name: {**PARAMETERS[name], "schema": length} for name in ("Upload-Length", "Upload-Length-at-last")
    }


def _query(name: str, schema: Schema, about: str, *, needed: bool = False) -> Schema:
    return _in("query", name, schema, about, needed=needed)


def _header(name: str, schema: Schema, about: str, *, needed: bool = False) -> Schema:
    return _in("header", name, schema, about, needed=needed)


_ABOUT_PATH = (
    f"The file's path: {MAX_PATH} bytes of UTF-8 at most, in segments with `/` between them, of which none is empty,"
    " `.` or `..`; no backslash, no control characters."
)
_TEXT: Schema = {"type": "string"}
_IF_TAGS: Schema = {
    "type": "string",
    "format": "entity-tags",
    "pattern": _TAGS,
    "examples": [f'"{"2cf24dba5fb0a30e" * 4}"', "*"],
}

PARAMETERS: dict[str, Schema] = {
    "path": _query("path", _PATH, _ABOUT_PATH, needed=True),
    "path-or-none": _query("path", _PATH, f"{_ABOUT_PATH} Without one, the file gets an id."),
    "path-to-be": _query("path", _PATH, f"{_ABOUT_PATH} Else that of Upload-Metadata."),
    "path-asked": _query("path", _PATH, f"{_ABOUT_PATH} Else `prefix` counts."),
    "url-path": _in("path", "path", _PATH, f"{_ABOUT_PATH} Slashes in it may be escaped, and need not be."),
    "url-path-within": _in(
        "path", "path", {**_PATH, "maxLength": MAX_PATH - 2}, f"The rest of the path. {_ABOUT_PATH} Slashes likewise."
    ),
    "namespace": _in("path", "namespace", {"type": "string", "pattern": f"^{NAMESPACE_NAME}$"}, "A namespace's name."),
    "first": _in("path", "namespace", {"type": "string", "pattern": f"^{_SEGMENT}$"}, "The path's first segment."),
    "file_id": _in(
        "path", "file_id", {"type": "string", "pattern": f"^{ID.pattern}$", "format": "uuid"}, "A file's id."
    ),
    "upload": _in(
        "path", "upload", {"type": "string", "pattern": f"^{UPLOAD}$"}, "An upload's id, as Location has it."
    ),
    "any-upload": _in("path", "upload", {"type": "string", "minLength": 1}, "Whatever it is."),
    "namespace-name": _in("path", "name", {"type": "string", "pattern": f"^{NAMESPACE_NAME}$"}, "A namespace's name."),
    "node-name": _in("path", "name", {"type": "string", "pattern": f"^{NODE_NAME.pattern}$"}, "A node's name."),
    "asset": _in("path", "name", {"enum": sorted(pages.names())}, "The file's name."),
    "prefix-asked": _query("prefix", _BEGINNING, f"How paths begin; {MAX_PATH} bytes of UTF-8 at most."),
    "prefix": _query("prefix", _PART, f"How paths begin; {MAX_PATH} bytes of UTF-8 at most."),
    "after": _query("after", _PART, "Only what comes behind this path: the `next` of the page before."),
    "delimiter": _query("delimiter", {"enum": ["", "/"]}, "`/`: what lies in folders is told as those, `prefixes`."),
    "limit": _query(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 1000},
        "Files and prefixes of a page. A stream (application/x-ndjson) has no limit, unless it is given one, and no"
        " largest one.",
    ),
    "search": _query("search", _PART, "A part of the path, as it is written."),
    "type": _query("type", _TEXT, "The file's type, as a list tells it."),
    "min_size": _query("min_size", _SEARCHED_BYTES, "In bytes."),
    "max_size": _query("max_size", _SEARCHED_BYTES, "In bytes."),
    "client_id": _query("client_id", {"type": "string", "minLength": 1}, "With `name`: of a file as JSON."),
    "name": _query("name", {"type": "string", "minLength": 1}, "With `client_id`: of a file as JSON."),
    "format": _query("format", {"enum": ["flat", "full"], "default": "flat"}, "`full`: the front's figures, too."),
    "nodes": _query("nodes", {"enum": ["true", "false"], "default": "true"}, "Whether nodes' figures are told, too."),
    "If-Match": _header("If-Match", _IF_TAGS, "RFC 9110, 13.1.1; strong tags only match."),
    "If-None-Match": _header("If-None-Match", _IF_TAGS, "RFC 9110, 13.1.2. `*` on a write: only if there is no file."),
    "If-Modified-Since": _header("If-Modified-Since", _TEXT, "RFC 9110, 13.1.3. What is no date is ignored."),
    "If-Unmodified-Since": _header("If-Unmodified-Since", _TEXT, "RFC 9110, 13.1.4. What is no date is ignored."),
    "only-new": _header("If-None-Match", {"type": "string"}, "`*`: one that is there stays as it is; else ignored."),
    "Range": _header(
        "Range", _TEXT, "One range of bytes: `bytes=0-99`, `bytes=100-`, `bytes=-100`; others are ignored."
    ),
    "If-Range": _header("If-Range", _TEXT, "A strong entity tag, or a date: if it doesn't hold Range is ignored."),
    "Content-Digest": _header(
        "Content-Digest",
        {
            "type": "string",
            "format": "content-digest",
            "pattern": f"^{_DIGEST}(?:, ?{_DIGEST})?$",
            "examples": ["sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"],
        },
        "RFC 9530, of the whole body; by sha-256 or sha-512, others are ignored.",
    ),
    "Content-MD5": _header(
        "Content-MD5",
        {
            "type": "string",
            "format": "content-md5",
            "pattern": "^[A-Za-z0-9+/]{22}==$",
            "examples": ["1B2M2Y8AsgTpgAmY7PhCfg=="],
        },
        "RFC 1864.",
    ),
    "Content-Disposition": _header("Content-Disposition", _TEXT, "Whose `filename` is the file's name; RFC 6266."),
    "Tus-Resumable": _header("Tus-Resumable", {"type": "string", "const": tus.VERSION}, "What is spoken.", needed=True),
    "Upload-Length": _header("Upload-Length", _BYTES, "Bytes of the whole; or else Upload-Defer-Length."),
    "Upload-Length-at-last": _header("Upload-Length", _BYTES, "Bytes of the whole, where they weren't told before."),
    "Upload-Defer-Length": _header(
        "Upload-Defer-Length", {"type": "string", "const": "1"}, "The length is told later."
    ),
    "Upload-Metadata": _header(
        "Upload-Metadata",
        {
            "type": "string",
            "format": "upload-metadata",
            "pattern": f"^(?:{_PAIR}(?:, ?{_PAIR})*)?$",
            "examples": ["path Y2F0cy9hLmpwZw=="],
        },
        "Pairs with commas between them: a key, a space, a value in base64. `path`, `filename` or `name` is the path,"
        " where the query has none; `filetype`, `contentType` or `type` the type; the rest is kept with the file.",
    ),
    "Upload-Concat": _header(
        "Upload-Concat",
        {
            "type": "string",
            "format": "upload-concat",
            "pattern": f"^(?:partial|final;/uploads/{UPLOAD}(?: /uploads/{UPLOAD})*)$",
            "examples": ["partial"],
        },
        "`partial`: it is to be a part; `final;` and the URLs of parts: it is put together of them.",
    ),
    "Upload-Offset": _header("Upload-Offset", _BYTES, "Where this piece begins, as HEAD tells it.", needed=True),
    "Upload-Checksum": _header(
        "Upload-Checksum",
        {
            "type": "string",
            "format": "upload-checksum",
            "pattern": "^(?:md5 [A-Za-z0-9+/]{22}==|sha1 [A-Za-z0-9+/]{27}=|sha256 [A-Za-z0-9+/]{43}=)$",
            "examples": ["md5 1B2M2Y8AsgTpgAmY7PhCfg=="],
        },
        "Of this piece; if it doesn't hold, none of it is kept.",
    ),
    "X-HTTP-Method-Override": _header(
        "X-HTTP-Method-Override",
        {"type": "string", "const": "PATCH"},
        "What is meant, by who can't send that.",
        needed=True,
    ),
    request_ids.HEADER: _header(
        request_ids.HEADER,
        _TEXT,
        "What the request is to be called: 1 to 128 of `A-Z a-z 0-9 . _ ~ + / = : @ -`; another one isn't heeded.",
    ),
}

HEADERS: dict[str, Schema] = {
    request_ids.HEADER: {"description": "What the request is called.",
                         "schema": {"type": "string", "pattern": "^[A-Za-z0-9._~+/=:@-]{1,128}$"}},
    "ETag": {"description": "Strong: the SHA-256 of the content.", "schema": {"pattern": '^"[0-9a-f]{64}"$'}},
    "ETag-of-page": {"schema": {"pattern": '^"[0-9a-f]{32}"$'}},
    "Last-Modified": {"description": "When it was stored.", "schema": {"pattern": _DATE}},
    "Location": {"description": "Where it is.", "schema": {"type": "string", "format": "uri-reference"}},
    "Accept-Ranges": {"schema": {"const": "bytes"}},
    "X-Content-Type-Options": {"schema": {"const": "nosniff"}},
    "Content-Security-Policy": {"schema": {"type": "string"}},
    "Content-Disposition": {"description": "With the name that it came with.",
                            "schema": {"type": "string", "pattern": "^attachment"}},
    "Content-Range": {"schema": {"type": "string", "pattern": r"^bytes (?:[0-9]+-[0-9]+|\*)/[0-9]+$"}},
    "Content-Length": {"schema": {"type": "integer", "minimum": 0}},
    "Cache-Control": {"schema": {"type": "string"}},
    "Vary": {"schema": {"type": "string"}},
    "Allow": {"description": "The methods that it takes.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {"schema": {"type": "string", "pattern": "^Bearer "}},
    "Tus-Resumable": {"schema": {"const": tus.VERSION}},
    "Tus-Version": {"schema": {"const": tus.VERSION}},
    "Tus-Extension": {"schema": {"const": tus.EXTENSIONS}},
    "Tus-Checksum-Algorithm": {"schema": {"const": tus.CHECKSUMS}},
    "Tus-Max-Size": {"schema": _BYTES},
    "Upload-Offset": {"description": "Bytes that are kept.", "schema": _BYTES},
    "Upload-Length": {"schema": _BYTES},
    "Upload-Defer-Length": {"schema": {"const": "1"}},
    "Upload-Metadata": {"description": "As it was given.", "schema": {"type": "string"}},
    "Upload-Concat": {"description": "As it was given.", "schema": {"type": "string"}},
    "Upload-Expires": {"description": "When it is given up, unless somebody goes on.", "schema": {"pattern": _DATE}},
}  # fmt: skip

SECURITY_SCHEMES: dict[str, Schema] = {
    "key": {"type": "http", "scheme": "bearer", "description": "A key, as `sfss key create` makes it."},
    "nodes": {"type": "http", "scheme": "bearer", "description": "The secret of registration.secret."},
    "signature": {
        "type": "apiKey",
        "in": "query",
        "name": signing.SIGNATURE,
        "description": "Of a signed URL (`sfss sign`): for one file and one method.",
    },
    "expires": {
        "type": "apiKey",
        "in": "query",
        "name": signing.EXPIRES,
        "description": "Of a signed URL: until when it holds, in seconds since the epoch.",
    },
}
