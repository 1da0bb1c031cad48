"""Redis's protocol, RESP2, the client's end, sans-IO: hiredis parses and packs."""

from __future__ import annotations

from typing import Any

import hiredis

from sfss.errors import ProtocolError

_NOT_YET = object()
_SLACK = 64 * 1024  # bytes that are held besides a value: lists of keys, what a server tells of itself


class Refusal(str):
    """An error that the server answered."""


Answer = bytes | int | None | list[Any] | Refusal  # a status, +OK, is bytes


class AnswerParser:
    """Makes answers of what a server sends; ``max_value``, in bytes, bounds a value, and so the memory held."""

    def __init__(self, max_value: int) -> None:
        made: Any = Refusal  # which is no exception: nobody raises it, and asyncio.gather would take it for a failure
        self._reader = hiredis.Reader(protocolError=ProtocolError, replyError=made, notEnoughData=_NOT_YET)
        self._most = max_value + _SLACK
        self._held = 0  # bytes that came since an answer was last whole, and with it: those of the one that has begun
        self.idle = True  # whether all that came was whole

    def feed(self, data: bytes) -> list[Answer]:
        """The answers that ``data`` completes, in order. Raises ProtocolError."""
        self._reader.feed(data)
        answers: list[Answer] = []
        while (answer := self._reader.gets(False)) is not _NOT_YET:
            answers.append(answer)
        self.idle = bool(answers) and not self._reader.has_data()
        self._held = len(data) if answers else self._held + len(data)
        if self._held > self._most and not self.idle:
            raise ProtocolError(f"an answer of more than the {self._most} bytes that one may have")
        return answers


def packed(*words: bytes) -> bytes:
    """A command."""
    command: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # whose types leave out the ellipsis
    return command
