"""Checks content against the digests that came with it: Content-Digest (RFC 9530) and Content-MD5 (RFC 1864)."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from sfss.errors import BadDigest, BadRequest

if TYPE_CHECKING:
    from hashlib import _Hash

DIGESTS = ("Content-Digest", "Content-MD5")  # the fields that are looked at

# RFC 9530's registry, as far as it is active; a digest by any other algorithm is ignored, as the RFC asks.
_ALGORITHMS = {"sha-256": "sha256", "sha-512": "sha512"}
_MEMBER = re.compile(r"\s*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):\s*")


class Digests:
    """The digests that a request says its content has."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        """Raises BadRequest if a digest can't be read."""
        self._expected: list[tuple[str, _Hash, bytes]] = []
        if (digest := headers.get("Content-Digest")) is not None:
            for member in digest.split(","):
                self._add_member(member)
        if (md5 := headers.get("Content-MD5")) is not None:
            self._add("Content-MD5", hashlib.md5(usedforsecurity=False), md5.strip())

    def __bool__(self) -> bool:
        return bool(self._expected)

    async def checking(self, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same content; raises BadDigest at its end if it isn't what it should be."""
        async for chunk in content:
            for _, digest, _ in self._expected:
                digest.update(chunk)
            yield chunk
        for name, digest, expected in self._expected:
            if digest.digest() != expected:
                actual = base64.b64encode(digest.digest()).decode()
                raise BadDigest(f"the content's digest is {actual}, not what {name} says: it was changed on its way")

    def _add_member(self, member: str) -> None:
        match = _MEMBER.fullmatch(member)
        if not match:
            raise BadRequest(f"Content-Digest: '{member.strip()[:100]}' is not of the form sha-256=:BASE64:")
        if match[1] in _ALGORITHMS:
            self._add(f"Content-Digest {match[1]}", hashlib.new(_ALGORITHMS[match[1]]), match[2])

    def _add(self, name: str, digest: _Hash, text: str) -> None:
        try:
            expected = base64.b64decode(text, validate=True)
        except ValueError:  # binascii.Error is one; text that isn't ASCII raises another
            expected = b""
        if len(expected) != digest.digest_size:
            raise BadRequest(f"{name}: '{text[:100]}' is not the base64 of {digest.digest_size} bytes")
        self._expected.append((name, digest, expected))
