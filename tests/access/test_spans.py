"""Spans of time as people write them."""

from __future__ import annotations

import pytest

from sfss.access.spans import seconds


def test_spans_have_a_unit() -> None:
    assert [seconds(text) for text in ("90s", "15m", "12h", " 30d ")] == [90, 900, 43200, 30 * 86400]


@pytest.mark.parametrize("text", ["", "30", "d", "0s", "-1d", "1.5h", "1w", "1d 2h", "１d", "9" * 10 + "d"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time: write 90s, 15m, 12h or 30d"):
        seconds(text)
