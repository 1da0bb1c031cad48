"""Keys: what a client shows to be let in. Pure.

A key's text is ``sfss_ID_SECRET``: the id finds it, the secret, 160 random bits, proves it. The text is shown once,
when the key is made; of the secret only its SHA-256 is kept. (A slow hash, as passwords need it, would gain nothing:
nobody guesses 160 bits.) ``sfss_`` is there for whoever searches logs and repositories for keys that got lost.

All keys together are one document that the fronts share (``registry.py``), ``NAME``: of type ``Keys``, by id.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from sfss import paths
from sfss.errors import BadPath

READ, WRITE, STATUS, ADMIN = RIGHTS = ("read", "write", "status", "admin")

NAME = "keys"  # the document's
MAX_NAME = 100  # characters
_ID_BYTES, _SECRET_BYTES = 5, 20
_ID = r"[a-z2-7]{8}"
_TEXT = re.compile(rf"sfss_({_ID})_([a-z2-7]{{32}})")
_BEARER_ID = re.compile(rf"(?i:bearer) +sfss_({_ID})_")
_SHOWN = re.compile(rf"(sfss_{_ID}_)[A-Za-z0-9]+")
# By its name, or, as that may be escaped, by what it looks like.
_SIGNED = re.compile(r"(?i)(\bsignature=)[^&\s'\"]+|(=)[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
_NOBODY = bytes(32)  # no secret's SHA-256


class Scope(msgspec.Struct, frozen=True, array_like=True):
    """What may be done with the paths that begin with ``prefix``."""

    prefix: str
    may: tuple[str, ...]  # of RIGHTS


class Key(msgspec.Struct, frozen=True, array_like=True):
    """A key as it is kept. Fields are only ever added, at the end, with a default."""

    name: str  # for people
    hash: bytes  # the SHA-256 of the secret
    scopes: tuple[Scope, ...]
    made: int  # seconds since the epoch
    expires: int | None = None  # likewise; None: never
    disabled: bool = False

    def lacks(self, now: float) -> str | None:
        """Why it doesn't count; None if it does. ``now`` in seconds since the epoch."""
        if self.disabled:
            return "is disabled"
        if self.expires is not None and now >= self.expires:
            return "has expired"
        return None

    def may(self, right: str, beginning: str) -> bool:
        """Whether it may do that with all paths that begin so, and so with the path itself."""
        enough = {right, ADMIN} if right == STATUS else {right}  # who may change things may see how they are
        return any(enough.intersection(scope.may) and beginning.startswith(scope.prefix) for scope in self.scopes)


Keys = dict[str, Key]  # by id


class Made(msgspec.Struct, frozen=True):
    """A new key. ``text`` is nowhere else."""

    id: str
    text: str
    key: Key

    def __repr__(self) -> str:  # in a trace, say
        return f"Made({self.id})"


def make(name: str, scopes: Iterable[Scope], *, now: float, lifetime: float | None = None) -> Made:
    """A new key; ``now`` in seconds since the epoch, ``lifetime`` in seconds, None: for ever.

    Raises ValueError for a name, a prefix or a right that can't be.
    """
    if not name.isprintable() or len(name) > MAX_NAME:
        raise ValueError(f"a key's name has {MAX_NAME} characters at most, all of them printable")
    id, secret = _random(_ID_BYTES), _random(_SECRET_BYTES)
    expires = None if lifetime is None else int(now + lifetime)
    key = Key(name, _hash(secret), tuple(map(_checked, scopes)), int(now), expires)
    return Made(id, f"sfss_{id}_{secret}", key)


def find(keys: Mapping[str, Key], text: str) -> str | None:
    """The id of the key whose text this is; None if it is none's. It takes as long whether that id is known or not."""
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    key = keys.get(match[1])
    is_right = hmac.compare_digest(_hash(match[2]), key.hash if key is not None else _NOBODY)
    return match[1] if is_right and key is not None else None


def named(keys: Mapping[str, Key], which: str) -> str:
    """The id of the key of that id or name. Raises ValueError if there is none, or there are several."""
    if which in keys:
        return which
    found = [id for id, key in keys.items() if key.name == which]
    if len(found) != 1:
        several = f"there are {len(found)} keys" if found else "there is no key"
        raise ValueError(f"{several} of the name '{hidden(which)}': give an id, as sfss key list shows them")
    return found[0]


def hidden(text: str) -> str:
    """A text for a log or an error, without the secrets of keys and the signatures that it may hold."""
    return _SIGNED.sub(lambda found: f"{found[1] or found[2]}...", _SHOWN.sub(r"\1...", text))


def id_shown(authorization: str) -> str:
    """The id of the key that a request's Authorization names, be it a good one or not; "" for none."""
    match = _BEARER_ID.match(authorization) if authorization else None
    return match[1] if match is not None else ""


def rights(text: str) -> tuple[str, ...]:
    """``"read,write"`` -> ("read", "write"). Raises ValueError."""
    return check_rights([word.strip() for word in text.split(",")])


def check_rights(words: Sequence[str], among: Sequence[str] = RIGHTS) -> tuple[str, ...]:
    """The same words, each once and in order. Raises ValueError for one that isn't among them."""
    for word in words:
        if word not in among:
            raise ValueError(f"'{word}' is no right: there are {', '.join(among)}")
    return tuple(right for right in among if right in words)


def _checked(scope: Scope) -> Scope:
    if not scope.may:
        raise ValueError("a key that may do nothing is of no use: name some of read, write, status and admin")
    if STATUS in scope.may and scope.prefix:
        raise ValueError(f"status is of everything, and can't be for '{scope.prefix}': make a key of its own for it")
    try:
        paths.check(f"{scope.prefix}x")
    except BadPath as error:
        raise ValueError(f"no path begins with '{scope.prefix}': {error}") from None
    return Scope(scope.prefix, check_rights(scope.may))


def _random(size: int) -> str:
    return base64.b32encode(secrets.token_bytes(size)).decode().lower()


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
