"""What stands in a line of the access log. Pure.

No line holds a secret (``access/keys.hidden``), nor anything that could begin another line, or turn a terminal around.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from multidict import MultiMapping

from sfss import logs
from sfss.access import keys
from sfss.web.heads import FILE_PAGES, Head

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


# --- what is asked most: ``as_json`` of ``line``, put together of bytes as they came, in a third of the time ---

_NUMBERS = tuple(b"%d" % number for number in range(1000))
_DIGITS = tuple(b"%03d" % number for number in range(1000))
_UNDERSCORE = ord("_")
_SHORT = LONGEST - len("/files?path=")
_LARGE, _LONG = 1_000_000, 1_000_000  # bytes, and microseconds: from there on a number has more than six digits


def plain_json(
    when: bytes, client: bytes, head: Head, request_id: bytes, status: int, size: int, microseconds: int
) -> bytes | None:
    """The same line, of bytes that need not be escaped or hidden; None where some may have to be, or it is seldom so.

    ``client``: as it stands in JSON. Nothing that ``heads`` lets into a URL, or ``request_ids`` into an id, has to be
    escaped there.
    """
    if head.plain_path is None:
        before, path = b"", head.page
    elif head.page in FILE_PAGES:
        before, path = head.page + b"?path=", head.plain_path
    else:
        return None
    if head.query is not None or not head.fields.shows_no_key or size >= _LARGE or microseconds >= _LONG:
        return None
    if len(path) > _SHORT or (_UNDERSCORE in path and b"sfss_" in path):  # one byte is found in no time
        return None
    received = head.fields.length
    return b"".join((
        b'{"logger":"sfss.access","time":"', when, b'","request_id":"', request_id, b'","client":"', client,
        b'","method":"', head.method, b'","url":"', before, path, b'","status":', _NUMBERS[status],
        b',"bytes":', _NUMBERS[size // 1000] if size >= 1000 else b"", _DIGITS[size % 1000] if size >= 1000 else
        _NUMBERS[size], b',"seconds":0.', _DIGITS[microseconds // 1000], _DIGITS[microseconds % 1000],
        b',"received":%d}\n' % received if received else b"}\n",
    ))  # fmt: skip


def _ascii(text: str) -> str:
    """As it came, but for what isn't ASCII, or isn't printable."""
    return logs.one_line(text if text.isascii() else text.encode("ascii", "backslashreplace").decode())
