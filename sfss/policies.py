"""Which rules hold for a path: how many copies and pieces, and how large it may be. Pure.

What they do is not known here; copies of records, whose keys need not tell their paths, are ``cluster/topology.py``'s.
"""

from __future__ import annotations

from sfss.config import Rules as Rules
from sfss.config import Settings
from sfss.prefixes import Prefixes


class Policies:
    """The rules of one front, at this moment."""

    def __init__(self, settings: Settings) -> None:
        self._rules = Prefixes(settings.by_prefix, settings.general)

    def change(self, settings: Settings) -> None:
        """From now on those of other settings."""
        self._rules = Prefixes(settings.by_prefix, settings.general)

    def of(self, path: str) -> Rules:
        """Those of the policy with the longest prefix that fits; else those for all paths."""
        return self._rules.of(path)

    def under(self, prefix: str) -> list[Rules]:
        """Those that hold for any path that begins so."""
        return self._rules.under(prefix)

    @property
    def largest(self) -> int:
        """Bytes of the largest file that there may be, at any path."""
        return max(rules.max_file_size for rules in self._rules.under(""))
