"""Heads of requests and of answers as bytes: those that are simple, and often. Pure.

What is read here is a strict part of HTTP/1.1 (RFC 9112): a request line and fields, nothing folded, nothing doubtful,
every line ended by CRLF. Of any other head nothing is said (None), and aiohttp reads it.
"""

from __future__ import annotations

import functools
import http
import re
import time
from binascii import hexlify
from collections.abc import Mapping

import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from sfss.access import keys
from sfss.files import Info
from sfss.web import answers, content_types, request_ids
from sfss.web.answers import Asked
from sfss.web.conditional import http_date
from sfss.web.urls import PLAIN, path_in, path_of_page

MAX_HEAD = 8190  # bytes; aiohttp takes no longer line
FILE_PAGES = (b"/file", b"/files")
END = b"\r\n\r\n"

_URL = r"!$%&'()*+,\-./0-9:;=@A-Z_a-z~"
_LINE = re.compile(rf"([A-Z]{{3,7}}) ((/[{_URL}]*)(?:\?(?:path=({PLAIN}+)|([{_URL}?]*)))?) HTTP/1\.1\r\n".encode())
_VISIBLE = r"[^\x00-\x20\x7f]"
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*"
                    rf"((?:{_VISIBLE}(?:[^\x00-\x08\x0a-\x1f\x7f]*{_VISIBLE})?)?)[ \t]*")  # fmt: skip
_NONE_MATCH = b"\r\nIf-None-Match: "
_REQUEST_ID = b"\r\nX-Request-ID: "
_TAG = re.compile(rb'"[!#-~]*"')
_LENGTH = re.compile(r"[0-9]{1,15}")
# What says that more is to be thought of than this module knows; Connection is looked at.
_NOT_SIMPLE = ("Transfer-Encoding", "Upgrade", "Trailer", "HTTP2-Settings")
_NOT_PLAIN = ("Expect", "Content-Encoding", "Content-Range", "Content-Digest", "Content-MD5")
_REMEMBERED = 256  # different fields of requests
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in http.HTTPStatus}
_OK, _NOT_MODIFIED = (_STATUS_LINES[status].encode() for status in (200, 304))
_HARMLESS = "".join(f"{name}: {value}\r\n" for name, value in answers.HARMLESS.items())


class Fields:
    """The fields of a request whose end is known. What is derived of them is derived once: see ``_fields``."""

    def __init__(self, headers: CIMultiDictProxy[str], length: int | None) -> None:
        self.headers = headers
        self.length = length  # of the body, in bytes; None where none is named, and there is no body
        self.shows_no_key = "Authorization" not in headers  # whoever asks is nobody in particular

    @functools.cached_property
    def asked(self) -> Asked:
        """What a GET says besides the path."""
        return answers.asked(self.headers)

    @functools.cached_property
    def end_of_line(self) -> bytes:
        """Of the access log's, of a request with these: the body's size and the key, if there are any."""
        received = b',"received":%d' % self.length if self.length else b""
        key = keys.id_shown(self.headers.get("Authorization", "")).encode()
        return received + (b',"key":"%b"}\n' % key if key else b"}\n")

    @functools.cached_property
    def request_id(self) -> bytes | None:
        """The id that a client has given, in whatever case it writes the field's name."""
        return request_ids.given(self.headers)

    @functools.cached_property
    def is_plain(self) -> bool:
        """Whether the body is a file itself, with nothing to be said before it comes, or checked on its way."""
        multipart = self.headers.get("Content-Type", "").lower().startswith("multipart/")
        return not multipart and not any(name in self.headers for name in _NOT_PLAIN)


class Head(msgspec.Struct, frozen=True, gc=False):
    """The head of a request whose end is known."""

    method: bytes
    target: bytes  # what was asked for: the URL as it was sent, without a host
    page: bytes  # its path
    query: bytes | None  # but for a plain path
    plain_path: bytes | None  # where the query is that alone, and nothing is escaped in it
    fields: Fields  # but for the next
    none_match: str | None  # If-None-Match
    request_id: bytes | None = None  # one that came with it, and can be one

    @property
    def asked(self) -> Asked:
        """What a GET says besides the path."""
        asked = self.fields.asked
        if self.none_match is None:
            return asked
        return Asked({**asked.preconditions, "If-None-Match": self.none_match}, asked.ranges)

    @property
    def path(self) -> str:
        """The one that is meant: that of the query, or of a page in a namespace. Raises BadPath."""
        if self.page not in FILE_PAGES:
            return path_of_page(self.page.decode())
        return self.plain_path.decode() if self.plain_path is not None else path_in((self.query or b"").decode())


def parse(data: bytes, end: int) -> Head | None:
    """The head that ``data`` begins with, up to the empty line at ``end``; None for one that isn't simple."""
    line = _LINE.match(data)
    if line is None:
        return None
    lines, none_match, request_id = data[line.end() - 2 : end + 2], None, None
    # Of what a client sends with each request these alone are others for each file, and for each request.
    if (at := lines.find(_REQUEST_ID)) >= 0:
        behind = lines.index(b"\r\n", at + 2)
        request_id = request_ids.checked(lines[at + len(_REQUEST_ID) : behind])
        if request_id is not None:  # else it is looked at like any other field: it may be no field at all
            lines = lines[:at] + lines[behind:]
    if (at := lines.find(_NONE_MATCH)) >= 0:
        behind = lines.index(b"\r\n", at + 2)
        if _TAG.fullmatch(lines, at + len(_NONE_MATCH), behind):
            none_match = lines[at + len(_NONE_MATCH) : behind].decode()
            lines = lines[:at] + lines[behind:]
    fields = _fields(lines)
    if fields is None or (none_match is not None and "If-None-Match" in fields.headers):
        return None
    method, target, page, plain_path, query = line.groups()
    return Head(method, target, page, query, plain_path, fields, none_match, request_id or fields.request_id)


@functools.lru_cache(_REMEMBERED)  # a client sends the same with each request
def _fields(lines: bytes) -> Fields | None:
    headers: CIMultiDict[str] = CIMultiDict()
    for line in lines.decode("utf-8", "surrogateescape").split("\r\n")[1:-1]:  # as aiohttp decodes them
        field = _FIELD.fullmatch(line)
        if field is None:
            return None
        headers.add(field[1], field[2])
    if any(name in headers for name in _NOT_SIMPLE):
        return None
    if [value.lower() for value in headers.getall("Connection", ())] not in ([], ["keep-alive"]):
        return None
    lengths = headers.getall("Content-Length", ())
    if len(lengths) > 1 or (lengths and not _LENGTH.fullmatch(lengths[0])):
        return None
    return Fields(CIMultiDictProxy(headers), int(lengths[0]) if lengths else None)


def answer(status: int, headers: Mapping[str, str], length: int | None, *, last: bool = False) -> bytes:
    """The head of an answer, as aiohttp would write it, but for the empty line at its end.

    ``length`` of its body in bytes; None for a 304, which has none. ``last``: the connection ends behind it. Raises
    ValueError if a value can't stand in a line.
    """
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if fields.count("\n") != len(headers) or fields.count("\r") != len(headers):
        raise ValueError(f"a line break in a header: {fields!r}")
    sized = "" if length is None else f"Content-Length: {length}\r\n"
    ending = b"Connection: close\r\n" if last else b""
    own = f"{_STATUS_LINES[status]}{fields}{sized}".encode(errors="surrogateescape")
    return own + _usual(int(time.time())) + ending


# --- heads of answers that are often: ``answer`` of what ``answers.py`` says, in a third of the time ---


def not_modified(info: Info) -> bytes:
    """Of a 304 of ``answers.to_get``."""
    return b'%bETag: "%b"\r\n%b%b' % (_NOT_MODIFIED, hexlify(info.sha256), _state(info), _usual(int(time.time())))


def stored(info: Info) -> bytes:
    """Of a 200 to a PUT."""
    return b'%bETag: "%b"\r\nContent-Length: 0\r\n%b' % (_OK, hexlify(info.sha256), _usual(int(time.time())))


def whole_file(info: Info) -> bytes:
    """Of a 200 of ``answers.to_get``, where its user keeps no metadata with the file."""
    return b'%bETag: "%b"\r\n%b%bContent-Length: %d\r\n%b' % (
        _OK,
        hexlify(info.sha256),
        _state(info),
        _type(info.type or content_types.guess(info.path)),
        info.size,
        _usual(int(time.time())),
    )


def _state(info: Info) -> bytes:
    return _modified(info.modified // 1_000_000)


@functools.lru_cache(4096)
def _modified(seconds: int) -> bytes:
    """What stands in every answer about a file that was last written then."""
    return f"Last-Modified: {http_date(seconds)}\r\n{_HARMLESS}".encode()


@functools.lru_cache(1024)  # as ``content_types`` has them
def _type(type: str) -> bytes:
    if not type.isprintable():
        raise ValueError(f"a Content-Type that can't stand in a line: {type!r}")
    return f"Content-Type: {type}\r\n".encode(errors="surrogateescape")


@functools.lru_cache(1)
def _usual(now: int) -> bytes:
    """What stands in every answer."""
    return f"Date: {http_date(now)}\r\nServer: {answers.SERVER}\r\n".encode()
