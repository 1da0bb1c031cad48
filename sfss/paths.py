"""Paths, which users give to files, and keys, under which nodes keep them. Pure.

A *path* is UTF-8 text of 1 to 1,024 bytes: segments with ``/`` between them. A *key* is what a memcached server takes:
at most 250 bytes without whitespace or control characters.

=====================  ============================================================================
path                   key
=====================  ============================================================================
``photos/cat.jpg``     ``/photos/cat.jpg``
``a b%.txt``           ``/a%20b%25.txt``: ``%``, whitespace and control characters are escaped, per byte
longer than 250 bytes  ``#`` + base32 of the path's SHA-256 (52 characters); the record carries the path
=====================  ============================================================================

No two paths share a key, for the escape is reversible and ``/`` and ``#`` tell the two forms apart. The leading ``/``
keeps clear of ``@`` and ``?``, which Beansdb reserves. ``#`` is ours: blocks of large files lie under
``#<upload id>/<number>``, and no path can reach them.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re

from sfss.errors import BadPath, BadRequest
from sfss.memcache import MAX_KEY as MAX_KEY

MAX_PATH = 1024  # bytes of UTF-8

# Unicode's category Cc. They can't be seen, and some end a line in a protocol or a log.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Paths that are right and are not escaped, as nearly all are.
_PLAIN = re.compile(r"(?:[a-zA-Z0-9_~-][a-zA-Z0-9._~-]*/)*[a-zA-Z0-9_~-][a-zA-Z0-9._~-]*")
# `\s` of a Unicode pattern is str.isspace(): what some memcached client or server may take for the end of a key.
_ESCAPED = re.compile(r"[%\s\x00-\x1f\x7f-\x9f]")


def check(path: str) -> str:
    """Return ``path`` if it can name a file.

    Raises BadPath, which says what is wrong with it.
    """
    if not path:
        raise BadPath("the path is empty: give the file a name, e.g. path=photos/cat.jpg")
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise BadPath("the path is not UTF-8: percent-encode its UTF-8 bytes") from None
    if size > MAX_PATH:
        raise BadPath(f"the path has {size} bytes in UTF-8: at most {MAX_PATH} are possible")
    if path[0] == "/":
        raise BadPath(f"the path begins with '/': leave it out, path={path.lstrip('/')[:100]}")
    if control := _CONTROL.search(path):
        raise BadPath(f"the path holds the control character U+{ord(control[0]):04X}: leave it out")
    if "\\" in path:
        raise BadPath("the path holds a backslash: use '/' between folders")
    for segment in path.split("/"):
        if segment in ("", ".", ".."):
            what = f"the segment '{segment}'" if segment else "an empty segment ('//' or a '/' at the end)"
            raise BadPath(f"the path holds {what}: every part between slashes needs a name of its own")
    return path


def check_part(name: str, text: str) -> None:
    """Raises BadRequest if no path could begin so, or come behind it; ``name`` is what to call the text."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadRequest(f"{name} is not UTF-8: percent-encode its UTF-8 bytes") from None
    if size > MAX_PATH:
        raise BadRequest(f"{name} has {size} bytes in UTF-8: a path has at most {MAX_PATH}")
    if control := _CONTROL.search(text):
        raise BadRequest(f"{name} holds the control character U+{ord(control[0]):04X}: no path has one")


def key_of(path: str) -> bytes:
    """The key, 2 to 250 bytes, under which the record of a checked ``path`` lies."""
    key = unhashed(path)
    if len(key) <= MAX_KEY:
        return key
    return b"#" + base64.b32encode(hashlib.sha256(path.encode()).digest()).rstrip(b"=")


@functools.lru_cache(1024)
def checked_key(path: str) -> bytes:
    """``key_of`` a path that is checked first. Raises BadPath."""
    if len(path) < MAX_KEY and _PLAIN.fullmatch(path) is not None:
        return b"/" + path.encode()
    return key_of(check(path))


def unhashed(text: str) -> bytes:
    """How the keys begin, if they are not hashed, of all paths that begin with ``text``; however long that is."""
    return b"/" + _ESCAPED.sub(_escape, text).encode()


def is_hashed(key: bytes) -> bool:
    """Whether the key doesn't tell its path, so that the record has to."""
    return key.startswith(b"#")


def path_of(key: bytes) -> str | None:
    """The path whose key this is; None where the key alone doesn't tell (``#``...: a long path's, or a block's).

    Raises BadPath for a key that ``key_of`` never makes: it belongs to somebody else.
    """
    if is_hashed(key):
        return None
    try:
        path = _ESCAPE.sub(lambda escape: bytes.fromhex(escape[1].decode()), key[1:]).decode()
        if key_of(check(path)) == key:
            return path
    except (UnicodeDecodeError, BadPath):
        pass
    raise BadPath(f"{key!r} is not the key of a path")


def quick_path_of(key: bytes) -> str | None:
    """``path_of`` a key that ``key_of`` made; quick where it escapes nothing but blanks and percent signs.

    Of other keys it may be what is no path. Raises BadPath, UnicodeDecodeError.
    """
    if key.startswith(b"/"):
        escapes = key.count(b"%")
        if not escapes:
            return key[1:].decode()
        if escapes == key.count(b"%20") + key.count(b"%25"):
            return key[1:].replace(b"%20", b" ").replace(b"%25", b"%").decode()
    return path_of(key)


_ESCAPE = re.compile(rb"%([0-9A-F]{2})")


def _escape(character: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in character[0].encode())
