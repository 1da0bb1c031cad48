"""What GET and HEAD answer of a file, whoever sends it. Pure: what is known and asked, in; status and headers, out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from multidict import MultiMapping

from sfss.errors import PreconditionFailed
from sfss.files import Info
from sfss.web import content_types
from sfss.web.conditional import PRECONDITIONS, Outcome, Validators, byte_range, evaluate, http_date
from sfss.web.headers import combined

SERVER = "sfss"  # short, for proxies keep it with each file; and of no use to who looks for holes
# What a user uploads must never run as a page of this origin, whatever its type says.
HARMLESS = {"Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}


class Asked(NamedTuple):
    """What a request says of the state in which it wants the file, and of the part of it."""

    preconditions: Mapping[str, str]
    ranges: Mapping[str, str]


NOTHING = Asked({}, {})  # the file is wanted whole, whatever its state


class Answer(NamedTuple):
    """An answer without its body, which is the file from byte ``start`` up to, but without, ``stop``."""

    status: int
    headers: dict[str, str]  # but for Content-Length
    start: int
    stop: int


def asked(headers: MultiMapping[str]) -> Asked:
    """By the headers of a GET or HEAD."""
    found = Asked(combined(headers, PRECONDITIONS), combined(headers, ("Range", "If-Range")))
    return NOTHING if found == NOTHING else found


def to_get(info: Info, wanted: Asked) -> Answer:
    """200, 206 or 304. Raises PreconditionFailed, Unsatisfiable, BadRequest."""
    validators = validators_of(info)
    headers = {"ETag": validators.etag, "Last-Modified": http_date(validators.modified), **HARMLESS}
    if wanted.preconditions:
        outcome = evaluate(wanted.preconditions, validators, reading=True)
        if outcome is Outcome.FAILED:
            raise PreconditionFailed("the file is not in the state that If-Match or If-Unmodified-Since asks for")
        if outcome is Outcome.NOT_MODIFIED:
            return Answer(304, headers, 0, 0)
    headers["Content-Type"] = info.type or content_types.guess(info.path)
    for name, value in info.meta.items():
        headers[f"X-Meta-{name.title()}"] = value
    part = byte_range(wanted.ranges, validators, info.size) if wanted.ranges else None
    if part is None:
        return Answer(200, headers, 0, info.size)
    start, stop = part
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{info.size}"
    return Answer(206, headers, start, stop)


def to_head(info: Info, wanted: Asked) -> Answer:
    """The same of HEAD, for which there are no ranges (RFC 9110, section 14.2)."""
    return to_get(info, wanted._replace(ranges={}))


def etag(info: Info) -> str:
    """The file's ETag, with its quotes."""
    return f'"{info.sha256.hex()}"'


def validators_of(info: Info) -> Validators:
    """What tells this state of the file from another."""
    return Validators(etag(info), info.modified // 1_000_000)
