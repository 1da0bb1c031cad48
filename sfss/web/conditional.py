"""Preconditions and ranges, as RFC 9110 (sections 8.8, 13, 14) defines them. Pure: header values in, decisions out."""

from __future__ import annotations

import datetime
import email.utils
import enum
import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

from sfss.errors import BadRequest

_ENTITY_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\U0010ffff]*"'
_ENTITY_TAGS = re.compile(rf"[ \t,]*{_ENTITY_TAG}(?:[ \t]*,(?:[ \t]*{_ENTITY_TAG})?)*[ \t]*")
_BYTE_RANGE = re.compile(r"bytes=[ \t]*(\d{0,20})-(\d{0,20})[ \t]*", re.IGNORECASE | re.ASCII)

_MINUTES = [f"{minute // 60:02}:{minute % 60:02}" for minute in range(24 * 60)]
_SECONDS = [f"{second:02}" for second in range(60)]

PRECONDITIONS = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")


class Validators(NamedTuple):
    """What tells one state of a file from another."""

    etag: str  # strong, with its quotes
    modified: int  # seconds since the epoch


class Outcome(enum.Enum):
    """What the preconditions of a request come to."""

    PROCEED = enum.auto()
    NOT_MODIFIED = enum.auto()
    FAILED = enum.auto()


class Unsatisfiable(BadRequest):
    """No byte of the range exists; ``size`` is the file's."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the range has no byte in common with the file, which has {size} bytes")
        self.size = size


def evaluate(headers: Mapping[str, str], current: Validators | None, *, reading: bool) -> Outcome:
    """What a request's preconditions come to on ``current``, None for no file; ``reading`` for GET and HEAD.

    The order is section 13.2.2's. Raises BadRequest for an entity tag that is none.
    """
    if (match := headers.get("If-Match")) is not None:
        if not _matches(match, current, weakly=False, header="If-Match"):
            return Outcome.FAILED
    elif (since := _date(headers.get("If-Unmodified-Since"))) is not None and current and current.modified > since:
        return Outcome.FAILED
    if (none_match := headers.get("If-None-Match")) is not None:
        if _matches(none_match, current, weakly=True, header="If-None-Match"):
            return Outcome.NOT_MODIFIED if reading else Outcome.FAILED
    elif reading and current and (since := _date(headers.get("If-Modified-Since"))) is not None:
        return Outcome.PROCEED if current.modified > since else Outcome.NOT_MODIFIED
    return Outcome.PROCEED


def byte_range(headers: Mapping[str, str], current: Validators, size: int) -> tuple[int, int] | None:
    """The first byte and the one behind the last that a GET asks for; None for the whole file.

    A range in another unit, of another form, or several of them, is ignored, as section 14.2 allows, and so is any
    range whose If-Range doesn't hold. Raises Unsatisfiable.
    """
    match = _BYTE_RANGE.fullmatch(headers.get("Range", "").strip())
    if not match or not _if_range_holds(headers.get("If-Range"), current):
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:  # the last so many bytes
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= stop or start >= size:
        raise Unsatisfiable(size)
    return start, stop


@functools.lru_cache(1024)
def http_date(seconds: int) -> str:
    """``Sun, 06 Nov 1994 08:49:37 GMT``."""
    minutes, second = divmod(seconds, 60)
    day, minute = divmod(minutes, 24 * 60)
    return f"{_http_day(day)} {_MINUTES[minute]}:{_SECONDS[second]} GMT"


@functools.lru_cache(maxsize=1024)  # what is read often was mostly written on few days
def _http_day(day: int) -> str:
    return email.utils.formatdate(day * 86400, usegmt=True).removesuffix(" 00:00:00 GMT")


def _matches(header_value: str, current: Validators | None, *, weakly: bool, header: str) -> bool:
    if current is not None and header_value == current.etag:  # as nearly always
        return True
    if header_value.strip() == "*":
        return current is not None
    if not _ENTITY_TAGS.fullmatch(header_value):
        raise BadRequest(f'{header}: {header_value[:100]} is no entity tag: send it in its quotes, "..." , or *')
    tags = re.findall(_ENTITY_TAG, header_value)
    if weakly:
        tags = [tag.removeprefix("W/") for tag in tags]
    return current is not None and current.etag in tags


def _if_range_holds(value: str | None, current: Validators) -> bool:
    if value is None:
        return True
    if value.strip().startswith(('"', "W/")):
        return value.strip() == current.etag
    # A date is a strong validator only if nothing else can have been written within its second (section 8.8.2.2):
    # a minute is the RFC's own measure.
    now = datetime.datetime.now(datetime.UTC).timestamp()
    return _date(value) == current.modified and now - current.modified >= 60


def _date(value: str | None) -> int | None:
    """Seconds since the epoch; None for a date that can't be read, which is to be ignored (section 13.1.3)."""
    if value is None:
        return None
    try:
        parsed = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=datetime.UTC)
    return int(parsed.timestamp())
