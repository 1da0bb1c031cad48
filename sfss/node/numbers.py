"""Numbers in requests and in values, as memcached 1.6 reads them. Pure.

memcached reads with strtol and strtoull, and so do we: blanks and a sign in front are fine, and what follows a blank is
not looked at.
"""

from __future__ import annotations

import math
import re

U32, U64 = 2**32, 2**64
MAX_EXPIRY = 2**48 - 1  # a date that nobody will see; those beyond it are taken for it

_RELATIVE = 60 * 60 * 24 * 30  # seconds; a larger exptime is a date
_PAST = 1  # a date that is over: what a negative exptime means
# Whatever their length, they are read in one pass: a value of 8 MiB of noughts may be asked to grow by one. And leading
# noughts are not for int(), which takes 4300 digits and no more.
_SIGNED = re.compile(rb"([+-]?)0*+([0-9]{0,19})(?<=[0-9])")
# As strtoull reads, and memcached after it: blanks, a sign, digits, and then a blank, a NUL or the end.
_UNSIGNED = re.compile(rb"[ \t-\r]*+([+-]?)0*+([0-9]{0,20})(?<=[0-9])(?=[ \t-\r\0]|\Z)")


def expiry(exptime: bytes, now: float) -> int | None:
    """The second at which an item with this ``exptime`` is over; 0 for never; None if it isn't a number.

    Up to 30 days it counts from now, rounded up: an item lives at least as long as it was asked to.
    """
    match = _SIGNED.fullmatch(exptime)
    if match is None:
        return None
    seconds = int(match[1] + (match[2] or b"0"))
    if not -(2**63) <= seconds < 2**63:
        return None
    if seconds == 0 or seconds > _RELATIVE:
        return min(seconds, MAX_EXPIRY)
    return _PAST if seconds < 0 else math.ceil(now + seconds)


def unsigned(text: bytes | memoryview) -> int | None:
    """The number that ``text`` begins with, as memcached's safe_strtoull reads it; None if there is none."""
    match = _UNSIGNED.match(text)
    if match is None:
        return None
    number = int(match[2] or b"0")
    if number >= U64:
        return None
    if match[1] != b"-":
        return number
    number = -number % U64  # strtoull negates; memcached refuses what then has the highest bit
    return number if number < 2**63 else None
