r"""Keys in the order of their paths: which ranges of keys to read, one after the other. Pure.

Nodes list by the bytes of keys; people and programs expect the bytes of paths. The two orders differ where something is
escaped: of ``/a b``, ``/a!`` and ``/a-b`` the keys are ``/a%20b``, ``/a!`` and ``/a-b``, and ``!`` comes before ``%``.

Behind any key X, taken for the beginning of others, lie *pieces*. By keys: ``X!`` to ``X$``, then the escapes
``X%20``, ``X%25`` and those of the other kinds of whitespace, then all else. By paths the blank comes first, then
``X!`` to ``X$``, then the percent sign, and each other whitespace at its place among the rest. Within a piece the same
holds again.

So a range is read in the order of keys; what has been read splits it (``behind``), along the last key that was seen,
into what can be told and the ranges that are to be read next. Where nothing is escaped, and nothing has a ``! " # $``,
that is one range: from the last key on. Else some are read out of turn, and some twice; but what is held is a few
ranges for each character of one key, however many keys there are.

Ranges are open at both ends, and their ends are no keys: byte FF, which UTF-8 never has, is behind whatever begins so.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import NamedTuple

from sfss import paths

_LAST = b"\xff"
# All whitespace that a path can have, in runs without any other character in between; tests hold it against Unicode.
_WHITESPACE = ("\u00a0", "\u1680", "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a", "\u2028\u2029",
               "\u202f", "\u205f", "\u3000")  # fmt: skip


class Range(NamedTuple):
    """The keys behind ``after`` and before ``until``."""

    after: bytes
    until: bytes


def _before(key: bytes) -> bytes:
    """What comes before ``key`` and all that begins with it, and behind all other keys that do."""
    return key[:-1] + bytes((key[-1] - 1,)) + _LAST


def _escapes(first: str, last: str) -> Range:
    return Range(_before(paths.unhashed(first)[1:]), paths.unhashed(last)[1:] + _LAST)


def _make_pieces() -> Iterator[Range]:
    yield _escapes(" ", " ")
    yield Range(b"", b"%")
    yield _escapes("%", "%")
    start = b"%" + _LAST
    for run in _WHITESPACE:
        yield Range(start, run[-1].encode())  # there is no unescaped whitespace
        yield _escapes(run[0], run[-1])
        start = run[-1].encode()
    yield Range(start, _LAST)


_PIECES = tuple(_make_pieces())  # in the order of paths, as they follow on X
_OTHERS = b"%C1" + _LAST  # behind this there are escapes of other whitespace than blanks
_REST = {2: b"%20" + _LAST, 3: b"%25" + _LAST}  # behind this all keys are of this piece or of a later one
_CHARACTER = re.compile(
    b"|".join([*(re.escape(paths.unhashed(c)[1:]) for c in (" ", "%", *"".join(_WHITESPACE))),
               rb"[\xc2-\xdf].", rb"[\xe0-\xef]..", rb"[\xf0-\xf4]...", b"."]), re.DOTALL)  # fmt: skip
_AHEAD_OF_BLANKS = re.compile(rb"[!-%]")  # what a key that sorts as its path does not have


def all_behind(beginning: bytes) -> Range:
    """All keys that begin so."""
    return Range(_before(beginning), beginning + _LAST)


def needs_sorting(beginning: bytes, keys: Sequence[bytes]) -> bool:
    """Whether these keys, which follow one another, may be in another order than their paths, or not be the next."""
    return _AHEAD_OF_BLANKS.search(keys[-1], len(beginning)) is not None or b"%" in b"".join(keys)


def doubtful(beginning: bytes, last: bytes) -> dict[bytes, Range]:
    """By position: ranges of escapes that come behind the path whose key is ``last``, and before it as keys.

    Mostly there is nothing in them. ``from_path`` wants to know.
    """
    position, last = beginning, _as_key(last)
    found = {}
    while len(position) + len(_OTHERS) < paths.MAX_KEY:
        found[position] = Range(position + _OTHERS, position + b"%" + _LAST)
        if position == last:
            break
        position += _character_at(last, len(position))
    return found


def from_path(beginning: bytes, last: bytes, empty: Container[bytes], *, below: bool) -> list[Range]:
    """What comes behind the path whose key is ``last``; ``below``: what begins with it, too.

    ``empty``: the positions where there is nothing in what is ``doubtful``.
    """
    last = _as_key(last)

    def is_empty(position: bytes, found: Range) -> bool:
        return found.until <= last and position in empty and found.after >= position + _OTHERS

    return joined(_behind(beginning, all_behind(beginning), last, is_empty, passed=True, below=below))


def _as_key(text: bytes) -> bytes:
    """``text``, or as much of it as makes it too long for others to begin so."""
    end = 0
    while end < min(len(text), paths.MAX_KEY):
        end += len(_character_at(text, end))
    return text[:end]


def behind(beginning: bytes, within: Range, keys: Sequence[bytes]) -> list[Range]:
    """What is left of a range of which the first ``keys`` are known; those that lie in none of it can be told."""
    last = keys[-1]
    if not last.startswith(beginning):  # no key of a path
        return [Range(last, within.until)]

    def is_empty(_position: bytes, found: Range) -> bool:
        return found.until <= last and bisect.bisect_right(keys, found.after) == bisect.bisect_left(keys, found.until)

    return joined(_behind(beginning, within, last, is_empty, passed=False, below=True))


def _behind(
    beginning: bytes, within: Range, last: bytes, is_empty: Callable[[bytes, Range], bool], *, passed: bool, below: bool
) -> list[Range]:
    """What of ``within`` comes behind the key ``last``, by paths; or doesn't come behind it and isn't known.

    ``passed``: nothing that comes before it matters. Else all keys up to it are known. ``is_empty``: of a range on a
    position, whether it is known that there is nothing in it.
    """
    left: list[Range] = []
    position = beginning
    while position != last:  # down, character by character, to the last key: what is left further down comes first
        shortcut = b"%" < last[len(position) : len(position) + 1] < b"\x80" and is_empty(
            position, Range(position + _OTHERS, position + b"%" + _LAST)
        )
        level, child, within = (_plain if shortcut else _level)(position, within, last, passed)
        left[:0] = [found for found in level if not is_empty(position, found)]
        if child is None:
            return left
        position = child
    whole = Range(max(within.after, last), min(within.until, last + _LAST))
    return [whole, *left] if below and whole.after < whole.until else left


def _plain(position: bytes, within: Range, last: bytes, _passed: bool) -> tuple[list[Range], bytes, Range]:
    """``_level`` where ``last`` goes on with a letter or the like, and nothing before it comes behind it: mostly."""
    child = last[: len(position) + 1]
    rest = Range(child + _LAST, min(within.until, position + _LAST))
    after, until = position + b"%" + _LAST, position + _WHITESPACE[0].encode()
    inner = Range(max(within.after, after), min(within.until, until))
    return [rest] if rest.after < rest.until else [], child, inner


def _level(position: bytes, within: Range, last: bytes, passed: bool) -> tuple[list[Range], bytes | None, Range]:
    """The same of the pieces on ``position``, but for what begins as ``last`` goes on: those bytes, and the piece.

    None if that need not be split, or isn't the beginning of a path.
    """
    level: list[Range] = []
    child: bytes | None = None
    inner = within
    for piece, rest in _pieces_on(position, within):
        if child is None and not level:
            if piece.until <= last or (passed and piece.after >= last):
                continue
            if piece.after < last:
                inner = piece
                child = position + _character_at(last, len(position))
                if child + _LAST < piece.until:
                    level.append(Range(child + _LAST, piece.until))
                continue
        if rest is not None and rest.after >= last:
            level.append(rest)
            break
        level.append(piece)
    return level, child, inner


def _pieces_on(position: bytes, within: Range) -> Iterator[tuple[Range, Range | None]]:
    """The pieces, as far as they lie within the range; with it and those behind it as one range, where they are one."""
    for number, (after, until) in enumerate(_PIECES):
        piece = Range(max(within.after, position + after), min(within.until, position + until))
        if piece.after < piece.until:
            start = _REST.get(number)
            rest = start and Range(max(within.after, position + start), min(within.until, position + _LAST))
            yield piece, rest or None


def _character_at(key: bytes, start: int) -> bytes:
    found = _CHARACTER.match(key, start)
    assert found is not None
    return found[0]


def without(ranges: Iterable[Range], beginning: bytes) -> list[Range]:
    """The ranges less the keys that begin so, which are the first by their paths."""
    end = beginning + _LAST
    left = []
    for found in ranges:
        if found.until <= beginning or found.after >= end:
            left.append(found)
        elif found.until > end:
            left.append(Range(end, found.until))
    return left


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The same, where one range goes on at the end of another made one."""
    left: list[Range] = []
    for found in ranges:
        if left and left[-1].until == found.after:
            left[-1] = Range(left[-1].after, found.until)
        else:
            left.append(found)
    return left
