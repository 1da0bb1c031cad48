"""The checker of histories: it takes what one register may tell, and finds what none would."""

from __future__ import annotations

import pytest

from tests.cluster.faults.history import Call, WrongAnswer, check, check_versions


def told(*lines: tuple[str, int, float, str, str | None]) -> list[Call]:
    return [
        Call(kind, 0, start, value, end, outcome, 0 if value is None else int(value))
        for kind, start, end, outcome, value in lines
    ]


LATER = float("inf")
WRITE_1 = ("put", 1, 2, "done", "1")


@pytest.mark.parametrize(
    "calls",
    [
        told(WRITE_1, ("read", 3, 4, "done", "1")),
        told(("put", 1, 9, "done", "1"), ("read", 3, 4, "missing", None), ("read", 5, 6, "done", "1")),
        told(WRITE_1, ("put", 3, LATER, "unknown", "2"), ("read", 5, 6, "done", "1"), ("read", 7, 8, "done", "2")),
        told(WRITE_1, ("delete", 3, LATER, "unknown", None), ("create", 5, 6, "done", "2")),
        told(("create", 1, 5, "done", "1"), ("create", 2, 6, "exists", "2"), ("stat", 7, 8, "done", "1")),
    ],
)
def test_the_checker_takes_what_a_register_may_tell(calls: list[Call]) -> None:
    check(calls)
    check_versions(calls)


@pytest.mark.parametrize(
    "calls",
    [
        told(WRITE_1, ("read", 3, 4, "missing", None)),
        told(WRITE_1, ("put", 3, 4, "done", "2"), ("read", 5, 6, "done", "1")),
        told(WRITE_1, ("put", 3, 20, "done", "2"), ("read", 5, 6, "done", "2"), ("read", 7, 8, "done", "1")),
        told(WRITE_1, ("delete", 3, 4, "done", None), ("read", 5, 6, "done", "1")),
        told(("create", 1, 5, "done", "1"), ("create", 2, 6, "done", "2")),
        told(WRITE_1, ("create", 3, 4, "done", "2")),
        told(("create", 1, 2, "exists", "1")),
        told(("create", 1, 5, "done", "2"), ("put", 2, 4, "done", "1"), ("read", 6, 7, "done", "2")),
    ],
)
def test_the_checker_finds_what_none_would(calls: list[Call]) -> None:
    with pytest.raises(WrongAnswer):
        check(calls)
