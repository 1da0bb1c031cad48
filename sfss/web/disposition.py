"""``Content-Disposition`` (RFC 6266): the name under which a file is to be saved, in and out. Pure.

It is always ``attachment``. What somebody has uploaded is to be saved, and not shown as a page of this origin, whatever
its type; pictures in pages (``<img>``) show all the same, for browsers don't look at the field there. And a browser
saves it under its name, which for ``inline`` it does or doesn't.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from python_multipart.multipart import parse_options_header

LONGEST = 255  # bytes of a name, as file systems have it
_SAFE = "!#$&+-.^_`|~"  # of attr-char, RFC 8187, what isn't a letter or a digit
# What clients read in different ways in a quoted string, or what is none of ASCII's visible characters.
_DOUBTFUL = re.compile(r'[^ -~]|["\\%]')
# What says the name in any characters, and counts before the other. A quoted string before it is passed over whole.
_EXTENDED = re.compile(
    r"""^(?:[^";]|"(?:[^"\\]|\\.)*"|;(?!\s*filename\*))*;\s*filename\*\s*=\s*UTF-8'[^']*'([^;\s]*)""",
    re.IGNORECASE,
)


def attachment(name: str | None) -> str:
    """The field for a file of that name, if it has one."""
    name = clean(name or "")
    if name is None:
        return "attachment"
    plain = _DOUBTFUL.sub("_", name)
    if plain == name:
        return f'attachment; filename="{plain}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe=_SAFE)}"


def name_in(field: str) -> str | None:
    """The name that a field of a request has; None if there is none."""
    if (extended := _EXTENDED.search(field)) is not None:
        return clean(unquote(extended[1], errors="replace"))
    _, options = parse_options_header(field.encode("utf-8", "surrogateescape"))
    return clean(options.get(b"filename", b"").decode(errors="replace"))


def clean(name: str) -> str | None:
    """The name alone, without folders and whatever can't be seen, cut to 255 bytes; None if nothing is left."""
    name = re.split(r"[/\\]", name)[-1]
    name = "".join(character if character.isprintable() else "_" for character in name).strip()
    stem, dot, extension = name.rpartition(".")
    if len(name.encode()) > LONGEST and dot and len(extension.encode()) < 32:
        return f"{_cut(stem, LONGEST - len(extension.encode()) - 1)}.{extension}"
    return _cut(name, LONGEST) if name.strip("._ ") else None


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")
