"""Words on the terminal: what a person reads of sizes and times, and lines that play no tricks."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "kib": 2**10, "mib": 2**20}  # bytes


def one_line(text: str) -> str:
    """``text`` without line breaks and without anything that could play tricks on a terminal."""
    text = text.encode("utf-8", "backslashreplace").decode()  # names of files may be no UTF-8
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def say(text: str) -> None:
    """Report a result on standard output, in one line that any terminal can show."""
    _print_plain(one_line(text))


def say_row(text: str) -> None:
    """The same of a row of a table, with its blanks, at once."""
    _print_plain(text)
    flush()


def flush() -> None:
    """Raises OSError if what was said can't be."""
    if sys.stdout:
        sys.stdout.flush()


def complain(text: str) -> None:
    """Say what went wrong on standard error, in one line, whatever the server put into it."""
    if sys.stderr:  # else it is closed
        over_a_bar = "\r\x1b[K" if sys.stderr.isatty() else ""
        sys.stderr.write(f"{over_a_bar}{one_line(text)}\n")
        sys.stderr.flush()


def duration(seconds: float) -> str:
    """``0:05``, ``12:34``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def megabytes(size: float) -> str:
    """``1,234.5 MB``; MB are 10**6 bytes."""
    return f"{size / 1e6:,.1f} MB"


def whole(limit: int) -> Callable[[str], int]:
    """Reads whole numbers from 1 to ``limit``; raises ValueError with what to write, for ``commands.option``."""

    def number(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not 1 <= int(text) <= limit:
            raise ValueError(f"{text!r} is no whole number from 1 to {limit:,}")
        return int(text)

    return number


def count(limit: int) -> Callable[[str], int]:
    """The same, and 0."""
    return lambda text: 0 if text == "0" else whole(limit)(text)


def byte_count(limit: int) -> Callable[[str], int]:
    """Reads sizes in bytes from 1 to ``limit``: 4096, 4KiB, 1MiB, 100kB; raises ValueError likewise."""

    def size(text: str) -> int:
        found = re.fullmatch(r"([0-9]{1,12}) ?([a-z]*)", text.lower())
        size = int(found[1]) * _UNITS.get(found[2], 0) if found else 0
        if not 1 <= size <= limit:
            raise ValueError(f"{text!r} is no size from 1 to {limit // 2**20}MiB, such as 4096, 4KiB, 1MiB")
        return size

    return size


def seconds(text: str) -> float:
    """Reads a time in seconds, above 0 and finite; raises ValueError likewise."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{text!r} is no number of seconds above 0")
    return value


def key(text: str) -> str:
    """Reads a key, which nothing repeats; "" is none. Raises ValueError likewise."""
    if not re.fullmatch(r"[!-~]*", text.strip()):
        raise ValueError("a key is a word, sfss_ID_SECRET, as sfss key create has printed it")
    return text.strip()


def discard_output() -> None:
    """Point standard output nowhere, lest the interpreter fail once more when it flushes it at exit."""
    if sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_plain(text: str) -> None:
    if sys.stdout:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
