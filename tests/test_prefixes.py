"""Of the prefixes that fit, the longest counts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sfss.prefixes import Prefixes

texts = st.text("ab", max_size=5)


@settings(deadline=None)
@given(st.dictionaries(texts, st.integers()), texts)
def test_the_longest_prefix_that_fits_counts(values: dict[str, int], text: str) -> None:
    fitting = [prefix for prefix in values if text.startswith(prefix)]
    expected = values[max(fitting, key=len)] if fitting else -1
    assert Prefixes(values, -1).of(text) == expected
    in_bytes = {prefix.encode(): value for prefix, value in values.items()}
    assert Prefixes(in_bytes, -1).of(text.encode()) == expected


@settings(deadline=None)
@given(st.dictionaries(texts, st.integers()), texts, texts)
def test_whatever_begins_so_has_one_of_the_values_that_are_told(
    values: dict[str, int], beginning: str, rest: str
) -> None:
    prefixes = Prefixes(values, -1)
    assert prefixes.of(beginning + rest) in prefixes.under(beginning)


@settings(deadline=None)
@given(st.dictionaries(texts, st.integers()), texts)
def test_none_is_told_that_nothing_can_have(values: dict[str, int], beginning: str) -> None:
    prefixes = Prefixes(values, -1)
    possible = {prefixes.of(beginning), *(value for prefix, value in values.items() if prefix.startswith(beginning))}
    assert set(prefixes.under(beginning)) == possible
