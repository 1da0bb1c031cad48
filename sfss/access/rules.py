"""The rules: who may do what, by settings, policies and the keys that are known. Pure.

A right is to read, write or administer, or to see how things are, either one path, or all that begin so: a list tells
of all files under its prefix, and the nodes' figures of everything. Everybody has it whom the settings let
(``anonymous``, of a policy or of all), or who shows a key that has it, or a URL that is signed for just this. One is
enough, so who shows a key never may less than who shows none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sfss.access import keys, signing
from sfss.access.keys import ADMIN, READ, STATUS, WRITE, Key
from sfss.access.signing import Signed
from sfss.config import Settings
from sfss.errors import Denied, NoKey, Unavailable
from sfss.prefixes import Prefixes

_WITH_A_KEY = "Authorization: Bearer KEY"
_EVERYTHING = frozenset((READ, WRITE))
_OF_ALL = (STATUS, ADMIN)  # that nobody is given by settings: who may everything has them


class Wanted(NamedTuple):
    """What somebody wants to do."""

    right: str  # of keys.RIGHTS
    path: str
    whole: bool = False  # with all paths that begin so
    method: str = ""  # for which a signature must be; "": none can be for this


class Shown(NamedTuple):
    """What somebody shows to be let in."""

    id: str | None = None  # of his key
    key: Key | None = None
    unknown: bool = False  # he shows a key, and no keys could be read yet
    fault: str | None = None  # why what he shows is no key


NOTHING = Shown()


class Rules:
    """The rules of one front, at this moment."""

    def __init__(self, settings: Settings) -> None:
        self._keys: Mapping[str, Key] | None = None
        self.change(settings)

    def change(self, settings: Settings) -> None:
        """From now on those of other settings."""
        general = frozenset(settings.access.anonymous)
        by_prefix = {prefix: frozenset(may) for prefix, may in settings.anonymous_by_prefix.items()}
        self._anonymous = Prefixes(by_prefix, general)
        self._prefixes = tuple(by_prefix)
        self._given = (general, *by_prefix.values())
        self._nodes_are_open = general >= _EVERYTHING
        self._secrets = settings.access.signing_secrets
        self.are_open = all(may >= _EVERYTHING for may in self._given)

    def learn(self, known: Mapping[str, Key]) -> None:
        """From now on these keys; before the first time nobody knows whether there are any."""
        self._keys = known

    def shown(self, text: str | None, now: float) -> Shown:
        """What a key's text is worth; None: nobody shows one. ``now`` in seconds since the epoch."""
        if text is None:
            return NOTHING
        if self._keys is None:
            return Shown(unknown=True)
        id = keys.find(self._keys, text)
        if id is None:
            return Shown(fault="there is no such key")
        key = self._keys[id]
        lacks = key.lacks(now)
        return Shown(fault=f"the key {id} {lacks}") if lacks else Shown(id, key)

    def may_anybody(self, wanted: Wanted) -> bool:
        """Whether everybody may do that."""
        if wanted.right in _OF_ALL:
            return self._nodes_are_open
        return all(wanted.right in self._anonymous.of(region) for region in self._regions(wanted))

    def check(self, wanted: Wanted, shown: Shown, signed: Signed | None, now: float) -> bool:
        """Whether everybody may do that; if not, whoever asks may: else it raises.

        Denied, NoKey; Unavailable where he shows a key, and the keys aren't known. ``now`` in seconds since the epoch.
        """
        if self.may_anybody(wanted):
            return True
        if shown.key is not None and self._may(shown.key, wanted):
            return False
        fault = None
        if signed is not None and wanted.method:
            fault = signing.fault(signed, self._secrets, wanted.method, wanted.path, now)
            if fault is None:
                return False
        if shown.unknown:
            raise Unavailable("the keys can't be read from the nodes yet, so nobody knows what this one may: try again")
        if shown.key is not None:
            raise Denied(f"the key {shown.id} may not {_words(wanted)}: use one that may")
        if fault is not None:
            raise Denied(fault)
        why = f"{shown.fault}: " if shown.fault else ""
        raise NoKey(f"{why}only who shows a key may {_words(wanted)}: send one that may, {_WITH_A_KEY}")

    def check_somewhere(self, right: str, shown: Shown) -> None:
        """Raises as ``check`` if there is no path at all with which whoever asks may do that."""
        given = (*self._given, *(scope.may for scope in (shown.key.scopes if shown.key is not None else ())))
        if not any(right in may for may in given):
            self.check(Wanted(right, "", whole=True), shown, None, 0.0)

    def _may(self, key: Key, wanted: Wanted) -> bool:
        """Whether the key, beside what everybody may, is enough."""
        if wanted.right in _OF_ALL:
            return key.may(wanted.right, wanted.path)
        return all(
            wanted.right in self._anonymous.of(region) or key.may(wanted.right, region)
            for region in self._regions(wanted)
        )

    def _regions(self, wanted: Wanted) -> list[str]:
        """The path; or, of all that begin so, how those begin for which something else may be said."""
        if not wanted.whole:
            return [wanted.path]
        return [wanted.path, *(prefix for prefix in self._prefixes if prefix.startswith(wanted.path))]


def _words(wanted: Wanted) -> str:
    if wanted.right in _OF_ALL:
        return "see this" if wanted.right == STATUS else "see or change this"
    if not wanted.whole:
        return f"{wanted.right} '{wanted.path}'"
    return f"{wanted.right} " + (f"all that begins with '{wanted.path}'" if wanted.path else "everything")
