"""Spans of time as people write them. Pure."""

from __future__ import annotations

import re

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int:
    """``"90s"``, ``"15m"``, ``"12h"``, ``"30d"`` -> seconds. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text.strip())
    if match is None or not int(match[1]):
        raise ValueError(f"'{text}' is no time: write 90s, 15m, 12h or 30d")
    return int(match[1]) * _UNITS[match[2]]
