"""What stands in a line of the access log. Pure.

No line holds a secret (``access/keys.hidden``), nor anything that could begin another line, or turn a terminal around.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from multidict import MultiMapping

from sfss import logs
from sfss.access import keys
from sfss.web.heads import Head

LONGEST = 2048  # characters of a URL, of which the rest is left out: a pipe takes 4096 bytes of several writers whole


class Request(NamedTuple):
    """What is to be said of a request that went aiohttp's way."""

    method: str
    url: str
    headers: MultiMapping[str]
    received: int  # bytes of its body


class Line(msgspec.Struct, tag_field="logger", tag="sfss.access", omit_defaults=True, gc=False):
    """A line, as JSON has it: the names are a promise."""

    time: str  # when the request came
    request_id: str
    client: str  # the address
    method: str
    url: str
    status: int  # 499: nobody was there any more to be answered
    bytes: int  # of the answer's body
    seconds: float
    received: int = 0  # bytes of the request's body
    key: str = ""  # the id of the key that was shown, be it good or not


def line(
    when: str, client: str, about: Head | Request, request_id: bytes, status: int, size: int, microseconds: int
) -> Line:
    """The line of any request: answered with a body of ``size`` bytes, ``microseconds`` after it came."""
    headers: MultiMapping[str]
    if isinstance(about, Head):
        headers, method, received = about.fields.headers, about.method.decode(), about.fields.length or 0
        url = about.target.decode()
        is_open = about.plain_path is None and about.query is not None
    else:
        method, url, headers, received = about
        method, url, is_open = logs.one_line(method)[:32], _ascii(url), True
    if is_open or "sfss_" in url:
        url = keys.hidden(url)
    return Line(
        time=when,
        request_id=request_id.decode(),
        client=client,
        method=method,
        url=url if len(url) <= LONGEST else f"{url[:LONGEST]}...",
        status=status,
        bytes=size,
        seconds=microseconds / 1e6,
        received=received,
        key=keys.id_shown(headers.get("Authorization", "")),
    )


def as_json(line: Line) -> bytes:
    """With its end."""
    return msgspec.json.encode(line) + b"\n"


def as_text(line: Line) -> bytes:
    """``2026-11-29T03:41:01.123Z INFO sfss.access: 192.0.2.1 GET /file?path=a 200 12 bytes 0.000812 s ...``."""
    came = f" {line.received} received" if line.received else ""
    key = f" key {line.key}" if line.key else ""
    return (
        f"{line.time} INFO sfss.access: {line.client or '-'} {line.method} {line.url} {line.status} {line.bytes} bytes"
        f"{came} {line.seconds:g} s{key} id {line.request_id}\n"
    ).encode()


# --- what is asked most: ``as_json`` of ``line``, in half the time ---

_FRAME = (
    as_json(Line("%b", "%b", "%b", "%b", "%b", 1, 2, 3.5, 4))
    .replace(b":1,", b":%b,")
    .replace(b":2,", b":%d,")
    .replace(b":3.5,", b":0.%06d,")
    .replace(b":4}", b":%d}")
)
_FRAME_WITHOUT_BODY = _FRAME.replace(b',"received":%d', b"")
_NUMBERS = tuple(b"%d" % number for number in range(600))
_UNDERSCORE = ord("_")


def plain_json(
    when: bytes, client: bytes, head: Head, request_id: bytes, status: int, size: int, microseconds: int
) -> bytes | None:
    """The same line, of bytes as they came, where none of them has to be escaped or hidden; else None.

    ``client``: as it stands in JSON. Nothing that ``heads`` lets into a URL, or ``request_ids`` into an id, has to be
    escaped there.
    """
    fields, path = head.fields, head.plain_path
    if head.query is not None or not fields.shows_no_key or microseconds >= 1_000_000:
        return None
    url = head.page if path is None else b"%b?path=%b" % (head.page, path)
    if len(url) > LONGEST or (_UNDERSCORE in url and b"sfss_" in url):  # a byte is found in no time
        return None
    if fields.length:
        return _FRAME % (
            when, request_id, client, head.method, url, _NUMBERS[status], size, microseconds, fields.length
        )  # fmt: skip
    return _FRAME_WITHOUT_BODY % (when, request_id, client, head.method, url, _NUMBERS[status], size, microseconds)


def _ascii(text: str) -> str:
    """As it came, but for what isn't ASCII, or isn't printable."""
    return logs.one_line(text if text.isascii() else text.encode("ascii", "backslashreplace").decode())
