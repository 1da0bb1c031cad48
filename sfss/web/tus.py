"""The header fields of tus 1.0 (https://tus.io/protocols/resumable-upload). Pure: header values in, values out.

Whatever can't be read raises BadRequest, which names the field and says what it should be.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from sfss.errors import BadChecksum, BadRequest
from sfss.upload_state import ID, PARTIAL
from sfss.web import content_types
from sfss.web.files import MAX_META, META_NAME

if TYPE_CHECKING:
    from hashlib import _Hash

VERSION = "1.0.0"
EXTENSIONS = (
    "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination,concatenation"  # in its order
)
CONTENT_TYPE = "application/offset+octet-stream"

_CHECKSUMS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "md5": hashlib.md5}
CHECKSUMS = ",".join(_CHECKSUMS)

_NUMBER = re.compile(r"[0-9]{1,18}")
_KEY = re.compile(r"[!-+\--~]{1,255}")  # ASCII that can be seen, but for the comma
_UPLOAD = re.compile(rf"(?:.*/)?({ID})/?(?:\?.*)?")


class About(NamedTuple):
    """What an upload's metadata say of the file."""

    path: str | None
    type: str | None
    meta: dict[str, str]  # what is kept with it


def number(headers: Mapping[str, str], name: str) -> int | None:
    """The bytes that a field names; None if there is no such field."""
    text = headers.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text.strip()):
        raise BadRequest(f"{name}: '{text[:100]}' is not a number of bytes")
    return int(text)


def length(headers: Mapping[str, str]) -> int | None:
    """The bytes of a new upload; None if that is to be told later."""
    known, deferred = number(headers, "Upload-Length"), headers.get("Upload-Defer-Length")
    if deferred is not None and deferred.strip() != "1":
        raise BadRequest(f"Upload-Defer-Length: '{deferred[:100]}': it can only be 1")
    if (known is None) == (deferred is None):
        raise BadRequest("give either Upload-Length, the bytes of the whole upload, or Upload-Defer-Length: 1")
    return known


def partials(concat: str) -> list[str]:
    """The ids of the uploads that are to be put together, as Upload-Concat says; none for ``partial`` and ``''``."""
    kind, semicolon, urls = concat.partition(";")
    if concat in ("", PARTIAL):
        return []
    found = [_UPLOAD.fullmatch(url) for url in urls.split()]
    if kind.strip() != "final" or not semicolon or not found:
        raise BadRequest(f"Upload-Concat: '{concat[:100]}': write partial, or final; and the URLs of partial uploads")
    ids = [match[1] for match in found if match is not None]
    if len(ids) < len(found):
        raise BadRequest("Upload-Concat: one of the URLs is no upload's")
    if len(set(ids)) < len(ids):
        raise BadRequest("Upload-Concat: one of the uploads stands there twice; each can be used once")
    return ids


def metadata(header: str) -> dict[str, bytes]:
    """The pairs of an Upload-Metadata field."""
    found: dict[str, bytes] = {}
    for pair in header.split(","):
        key, _, value = pair.strip().partition(" ")
        if not key and not header.strip():
            break
        if not _KEY.fullmatch(key) or key in found:
            raise BadRequest(f"Upload-Metadata: '{key[:100]}': a key is visible ASCII, and there once")
        try:
            found[key] = base64.b64decode(value.strip(), validate=True)
        except ValueError:
            raise BadRequest(f"Upload-Metadata: the value of {key} is not base64") from None
    return found


def about(path: str | None, metadata: Mapping[str, bytes]) -> About:
    """What the metadata say of the file; ``path``, if it is given otherwise.

    The path is that of ``path``, ``filename`` or ``name``; the type that of ``filetype``, ``contentType`` or ``type``.
    What else fits the rules of files' own words (X-Meta-...) is kept as such.
    """
    texts = {key: value.decode(errors="surrogateescape") for key, value in metadata.items()}
    if path is None:
        source = next((key for key in ("path", "filename", "name") if key in texts), None)
        path = texts.pop(source) if source else None
    texts.pop("path", None)
    type = None
    for key in ("filetype", "contentType", "type"):
        if type is None and (type := _type(texts.get(key))) is not None:
            del texts[key]
    meta: dict[str, str] = {}
    left = MAX_META
    for key, text in texts.items():
        name = key.lower()
        if META_NAME.fullmatch(name) and name not in meta and text.isprintable():
            left -= len(name) + len(text.encode())
            if left >= 0:
                meta[name] = text
    return About(path, type, meta)


def _type(text: str | None) -> str | None:
    try:
        return content_types.given(text)
    except BadRequest:  # some other type of the client's own
        return None


class Checksum:
    """What Upload-Checksum says of a piece."""

    def __init__(self, header: str) -> None:
        """Raises BadRequest if it can't be read, or is by an algorithm that isn't known."""
        algorithm, _, text = header.strip().partition(" ")
        if algorithm not in _CHECKSUMS:
            raise BadRequest(f"Upload-Checksum: '{algorithm[:100]}' is not known; {CHECKSUMS} are")
        self._digest: _Hash = _CHECKSUMS[algorithm](usedforsecurity=False)
        try:
            self._expected = base64.b64decode(text.strip(), validate=True)
        except ValueError:
            self._expected = b""
        if len(self._expected) != self._digest.digest_size:
            raise BadRequest(f"Upload-Checksum: '{text[:100]}' is not the base64 of {self._digest.digest_size} bytes")

    async def checking(self, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same content; raises BadChecksum at its end if it isn't what it should be."""
        async for chunk in content:
            self._digest.update(chunk)
            yield chunk
        if self._digest.digest() != self._expected:
            raise BadChecksum("the piece doesn't have its Upload-Checksum: it was changed on its way, and is not kept")
