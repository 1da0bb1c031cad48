"""Content types: guessed from a path, checked when given."""

from __future__ import annotations

import functools
import mimetypes
import re

from sfss.errors import BadRequest

UNKNOWN = "application/octet-stream"
# What clients send when they know nothing: curl's --data-binary and -F, HTML forms.
_MEANS_NOTHING = ("", UNKNOWN, "application/x-www-form-urlencoded")
_MAX_LENGTH = 255
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf'{_WORD}/{_WORD}(?:[ \t]*;(?:[ \t]*{_WORD}=(?:{_WORD}|"[ !#-\[\]-~]*"))?)*')
_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz",
               "compress": "application/x-compress", "br": UNKNOWN}  # fmt: skip
# Later than Python 3.11's own table.
_NEWER = {
    ".avif": "image/avif", ".heic": "image/heic", ".heif": "image/heif", ".jxl": "image/jxl", ".webp": "image/webp",
    ".md": "text/markdown", ".mkv": "video/x-matroska", ".flac": "audio/flac", ".ogg": "audio/ogg",
    ".woff": "font/woff", ".woff2": "font/woff2", ".ttf": "font/ttf", ".otf": "font/otf", ".7z":
    "application/x-7z-compressed", ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".odt": "application/vnd.oasis.opendocument.text", ".ods": "application/vnd.oasis.opendocument.spreadsheet",
}  # fmt: skip


def _table() -> mimetypes.MimeTypes:
    """Python's own table, never the machine's /etc/mime.types: every front gives the same answer."""
    table = mimetypes.MimeTypes()
    for extension, type in _NEWER.items():
        table.add_type(type, extension)
    for extension, encoding in [*table.encodings_map.items()]:  # mimetypes looks these up as they are written
        table.encodings_map.setdefault(extension.upper(), encoding)
    return table


_TABLE = _table()
# What needs no look at the rest of the name: it is no compression's extension, which would stand for another type.
_USUAL = {extension[1:]: type for types in _TABLE.types_map for extension, type in types.items()
          if extension not in _TABLE.encodings_map and extension not in _TABLE.suffix_map}  # fmt: skip


def guess(path: str) -> str:
    """The type that a path's extension stands for; a compressed file is what it is compressed with."""
    stem, dot, extension = path.rpartition(".")
    if not dot:
        return UNKNOWN
    if extension in _USUAL and stem and stem[-1] not in "/.":
        return _USUAL[extension]
    name = path[path.rfind("/") + 1 :].lstrip(".")  # '.png' is a name, and no extension
    last = name.rfind(".")
    if last < 0:
        return _guess("")
    before = name.rfind(".", 0, last)
    return _guess(name[(last if before < 0 else before) + 1 :])


@functools.lru_cache(maxsize=1024)  # services have few extensions and ask for each of them at every read
def _guess(extensions: str) -> str:
    """The type of a name that ends in ``extensions``: none, one, or the last two."""
    # The path is no URL: 'data:,x.png' or 'a?b' must not be taken for one.
    type, encoding = _TABLE.guess_type(f"./x.{extensions}", strict=False)
    return _COMPRESSED.get(encoding, UNKNOWN) if encoding else type or UNKNOWN


def given(header: str | None) -> str | None:
    """What a client said of its content; None where it said nothing. Raises BadRequest if it is no media type."""
    type = (header or "").strip()
    if type.partition(";")[0].strip().lower() in _MEANS_NOTHING:
        return None
    if len(type) > _MAX_LENGTH or not _MEDIA_TYPE.fullmatch(type):
        raise BadRequest(f"Content-Type: '{type[:100]}' is no media type: send one like image/jpeg, or none")
    return type
