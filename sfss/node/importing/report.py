"""What an import has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Report:
    """What was done. Each item that was listed and wanted comes to be in one of these, ``differing`` apart."""

    listed: int = 0  # wanted or not
    unwanted: int = 0  # have another prefix
    imported: int = 0  # in a dry run, what would be
    bytes: int = 0  # of their values
    there: int = 0  # were at the target already
    vanished: int = 0  # expired, evicted or deleted between listing and reading
    unreadable: int = 0  # the source answers with an error
    refused: int = 0  # the target does
    differing: int = 0  # of those imported or there, what the target has otherwise
    missing: int = 0  # counted by the source, and not listed

    @property
    def read(self) -> int:
        """How many items are done with."""
        return self.unwanted + self.imported + self.there + self.vanished + self.unreadable + self.refused

    @property
    def good(self) -> bool:
        """Whether everything is at the target that should be."""
        return not (self.unreadable or self.refused or self.differing or self.missing)
