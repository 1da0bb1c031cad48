"""Header fields that may come in several lines."""

from __future__ import annotations

from collections.abc import Iterable

from multidict import MultiMapping


def combined(headers: MultiMapping[str], names: Iterable[str]) -> dict[str, str]:
    """Those of the named fields that were sent, a field's lines joined with commas (RFC 9110, section 5.3)."""
    return {name: ", ".join(headers.getall(name)) for name in names if name in headers}
