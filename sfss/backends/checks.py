"""What every client of a node refuses before it is sent, as ``base.py`` says. Raises BadRequest."""

from __future__ import annotations

import functools
import re

from sfss.errors import BadRequest
from sfss.memcache import MAX_KEY
from sfss.scan import MAX_COUNT

# Of any other key a server may take the rest of the request, or the data after it, for commands.
KEY = re.compile(rb"[^\x00-\x20\x7f]{1,%d}" % MAX_KEY)


@functools.lru_cache(1024)  # as many as ``paths`` remembers: who reads a file often has its key checked once
def check_key(key: bytes) -> None:
    """A key that something may lie under."""
    if not KEY.fullmatch(key):
        raise BadRequest(
            f"a key of 1 to {MAX_KEY} bytes without whitespace and control characters is needed: {key[:300]!r}"
        )


def check_list(count: int, *afters: bytes) -> None:
    """So many items behind each of these keys."""
    if not 1 <= count <= MAX_COUNT or any(len(after) > MAX_KEY for after in afters):
        raise BadRequest(f"a list is of 1 to {MAX_COUNT} items behind a key of at most {MAX_KEY} bytes")
