"""What is kept by beginnings of texts: the longest that fits counts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import AnyStr, Generic, TypeVar

T = TypeVar("T")


class Prefixes(Generic[AnyStr, T]):
    """Values by prefix. A look-up is a slice and a ``dict.get`` for each different length of a prefix."""

    def __init__(self, values: Mapping[AnyStr, T], default: T) -> None:
        """``default``: for what has none of the prefixes. No value is None."""
        self._values: dict[AnyStr, T] = dict(values)
        self._default = default
        self._lengths = sorted({len(prefix) for prefix in values}, reverse=True)

    def of(self, text: AnyStr) -> T:
        """The value of the longest prefix that the text begins with."""
        for length in self._lengths:
            value = self._values.get(text[:length])
            if value is not None:
                return value
        return self._default

    def under(self, beginning: AnyStr) -> list[T]:
        """The values that texts may have which begin so."""
        longer: list[T] = [there for prefix, there in self._values.items() if prefix[: len(beginning)] == beginning]
        return [self.of(beginning), *longer]
