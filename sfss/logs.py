"""What the log looks like: lines for people at a terminal, JSON otherwise. Standard error has it.

A message is one line, whatever is in it: what a client or a node has sent may stand there, and must neither begin a
line of its own nor turn the terminal around. So all that isn't printable is written as an escape, and of a trace each
line begins with two blanks. Of JSON there is nothing but ASCII.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import sys
import time
from typing import TextIO

from sfss.config import Log

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(settings: Log, process: str = "", stream: TextIO | None = None) -> None:
    """From now on log so. ``process``: which one of several this is, e.g. ``worker 1``. ``stream``: in the place of
    standard error.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Json(process) if is_json(settings, stream) else _Text(process))
    logging.basicConfig(level=_LEVELS[settings.level], handlers=[handler], force=True)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a client's broken form is the client's matter


def is_json(settings: Log, stream: TextIO | None = None) -> bool:
    """Whether the lines are JSON; of ``auto``, where nobody is there to read them."""
    return not (stream or sys.stderr).isatty() if settings.format == "auto" else settings.format == "json"


def one_line(text: str) -> str:
    """The same text with an escape for each character that isn't printable: ``\\n``, ``\\x1b``, ``\\u2028``."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return ascii(character)[1:-1]


class _Text(logging.Formatter):
    """``2026-11-29 03:41:01,123 WARNING sfss.backends: worker 1: node ... is away``."""

    def __init__(self, process: str) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._process = f"{process}: " if process else ""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        record.message = self._process + one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802
        trace = super().formatException(ei)  # type: ignore[arg-type]
        return "\n".join(f"  {one_line(line)}" for line in re.split(r"[\r\n]+", trace))


class _Json(logging.Formatter):
    """A JSON object: ``time level logger message``, and ``process`` and ``exception`` where there is one."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self._process:
            fields["process"] = self._process
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def iso(seconds: float) -> str:
    """``2026-11-29T03:41:01.123Z``, of seconds since the epoch."""
    milliseconds = round(seconds * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@functools.lru_cache(1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
