"""Signed URLs: one request, for one file, until some time, without a key. Pure.

The signature is an HMAC-SHA256 over the method, the second at which it ends, and the path that the file lies at,
decoded: so it doesn't matter how the URL writes it, nor in which order its query stands. GET is for HEAD, too; nothing
else is for anything else. It is made with the first secret, and holds by any: so a new one is put first, and the old
one taken away when what it signed has expired. Which one it was isn't written down; there are few, and all are tried.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

EXPIRES, SIGNATURE = FIELDS = ("expires", "signature")  # of a query
METHODS = ("GET", "PUT", "POST", "DELETE")
LEAST_SECRET = 16  # characters
_LONGEST_LIFE = 10 * 366 * 86400  # seconds
_SECOND = re.compile(r"[1-9][0-9]{0,10}")
_MADE = re.compile(r"[A-Za-z0-9_-]{43}")  # a whole HMAC-SHA256, in base64 for URLs


class Signed(NamedTuple):
    """What a URL says of its signature."""

    expires: str
    signature: str


def sign(secret: str, method: str, path: str, expires: int) -> Signed:
    """The signature for one request; ``expires`` in seconds since the epoch."""
    return Signed(str(expires), _mac(secret, method, path, str(expires)))


def given(query: Iterable[tuple[str, str]]) -> Signed | None:
    """What stands in a query, decoded; None if nothing does. What stands there twice holds as nothing."""
    found: dict[str, str] = {}
    for name, value in query:
        if name in FIELDS:
            found[name] = "" if name in found else value
    return Signed(found.get(EXPIRES, ""), found.get(SIGNATURE, "")) if found else None


def fault(signed: Signed, secrets: Sequence[str], method: str, path: str, now: float) -> str | None:
    """Why a signature doesn't hold for a request; None if it does. ``now`` in seconds since the epoch."""
    if not secrets:
        return "the URL is signed, and no signatures hold here (access.signing_secrets)"
    wrong = "the URL isn't signed for this: not for this method, this path and this time"
    if _SECOND.fullmatch(signed.expires) is None or _MADE.fullmatch(signed.signature) is None:
        return wrong
    method = "GET" if method == "HEAD" else method
    given = signed.signature.encode()
    # All of them, so that the time it takes doesn't tell which one it was.
    right = [hmac.compare_digest(_mac(secret, method, path, signed.expires).encode(), given) for secret in secrets]
    if not any(right):
        return wrong
    if now >= int(signed.expires):
        return "the URL's signature has expired: ask whoever gave you the URL for a new one"
    return None


def check_life(seconds: float) -> None:
    """Raises ValueError for a time that no signature should live."""
    if not 1 <= seconds <= _LONGEST_LIFE:
        raise ValueError("a signed URL lives from a second to ten years")


def _mac(secret: str, method: str, path: str, expires: str) -> str:
    # Neither method nor time can hold a line break: no two requests have the same text.
    text = f"sfss-signed-url-1\n{method}\n{expires}\n{path}".encode(errors="surrogateescape")
    digest = hmac.digest(secret.encode(), text, hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
