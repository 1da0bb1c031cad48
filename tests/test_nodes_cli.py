"""The table of ``sfss nodes``."""

from __future__ import annotations

import msgspec
import pytest

from sfss.nodes_cli import _Node, _size, table


def test_it_shows_how_full_nodes_are_and_why_one_is_away() -> None:
    nodes = msgspec.convert(
        [
            {"name": "a", "address": "10.0.0.1:7900", "state": "member", "weight": 1.5, "away": None,
             "used": 2**30, "free": 3 * 2**30, "fill": 0.25, "heartbeat": 990, "more": 1},
            {"name": "b", "address": "10.0.0.2:7900", "state": "seed", "weight": 1.0, "away": "no answer"},
        ],
        list[_Node],
    )  # fmt: skip
    assert table(nodes, 1000.0).splitlines() == [
        "node        address       state  weight     used     free   fill     heard",
        "   a  10.0.0.1:7900      member     1.5  1.0 GiB  3.0 GiB  25.0%  10 s ago",
        "   b  10.0.0.2:7900  seed, away       1        -        -      -         -",
        "b is away: no answer",
    ]


@pytest.mark.parametrize(
    ("size", "words"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**40, "1.0 TiB"), (2**62, "4096.0 PiB")],
)
def test_sizes_are_written_for_people(size: int | None, words: str) -> None:
    assert _size(size) == words
