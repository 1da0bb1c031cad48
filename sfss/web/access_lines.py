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

TICK = 10_000  # ns: so exactly durations are told
TICKS = 100_000  # in a second
LONGEST = 2048  # characters of a URL, of which the rest is left out: a pipe takes 4096 bytes of several writers whole


class Request(NamedTuple):
    """What is to be said of a request that went aiohttp's way."""

    method: str
    url: str
    headers: MultiMapping[str]
    received: int  # bytes of its body


# What is to be said of any request: when it came and how long it took, in ns, its answer's status and the bytes of its
# body, the address of its client, what it is called, and what it was.
Row = tuple[int, int, int, int, str, bytes, Head | Request]
QuickRow = tuple[int, int, int, int, str, bytes, Head]


class Line(msgspec.Struct, tag_field="logger", tag="sfss.access", omit_defaults=True, gc=False):
    """A line, as JSON has it: the names are a promise."""

    time: str  # when the request came
    request_id: str
    client: str  # the address
    method: str
    url: str
    status: int  # 499: nobody was there any more to be answered
    bytes: int  # of the answer's body
    seconds: float  # to TICK
    received: int = 0  # bytes of the request's body
    key: str = ""  # the id of the key that was shown, be it good or not


def line(row: Row, epoch: int) -> Line:
    """The line of any request. ``epoch``: when the times of rows were 0, in ns since the epoch."""
    began, took, status, size, client, request_id, about = row
    headers: MultiMapping[str]
    if isinstance(about, Head):
        headers, method, received = about.fields.headers, about.method.decode(), about.fields.length or 0
        url, is_plain = about.target.decode(), about.query is None
    else:
        method, url, headers, received = about
        method, url, is_plain = logs.one_line(method)[:32], _ascii(url), False
    if not is_plain or "sfss_" in url:
        url = keys.hidden(url)
    return Line(
        time=when(began, epoch),
        request_id=request_id.decode(),
        client=client,
        method=method,
        url=url if len(url) <= LONGEST else f"{url[:LONGEST]}...",
        status=status,
        bytes=size,
        seconds=took // TICK / TICKS,
        received=received,
        key=keys.id_shown(headers.get("Authorization", "")),
    )


def when(began: int, epoch: int) -> str:
    """When a request came, to the millisecond."""
    return logs.iso((began + epoch) // 1_000_000 / 1000)


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


def _ascii(text: str) -> str:
    """As it came, but for what isn't ASCII, or isn't printable."""
    return logs.one_line(text if text.isascii() else text.encode("ascii", "backslashreplace").decode())
