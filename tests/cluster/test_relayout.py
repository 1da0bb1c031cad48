"""Other homes for blocks: who can stay stays in his place, and what comes of it is a layout."""

from __future__ import annotations

import random

import pytest

from sfss import manifest
from sfss.cluster.sweeping.relayout import relaid
from sfss.manifest import Layout, Manifest

NODES = [f"node-{number}" for number in range(12)]


def test_one_that_is_as_it_should_be_is_left_as_it_is() -> None:
    layout = Layout(("a", "b", "c"), 3, 2)
    assert relaid(layout, ["c", "b", "a", "d"], 1) is layout


def test_who_goes_is_replaced_by_the_first_other_one_in_his_place() -> None:
    assert relaid(Layout(("a", "b", "c"), 3, 2), ["d", "c", "e", "a"], 2) == Layout(("a", "d", "c"), 3, 2)


def test_where_there_are_too_few_there_are_fewer_pieces_and_copies() -> None:
    assert relaid(Layout(("a", "b", "c"), 3, 2), ["c", "a"], 2) == Layout(("a", "c"), 2, 2)
    assert relaid(Layout(("a", "b", "c"), 1, 3), ["c", "a"], 3) == Layout(("a", "c"), 1, 2)


def test_more_copies_take_neighbours_and_then_others() -> None:
    assert relaid(Layout(("a", "b", "c"), 3, 1), ["a", "b", "c"], 3) == Layout(("a", "b", "c"), 3, 3)
    assert relaid(Layout(("a",), 1, 1), ["a", "b", "c"], 2) == Layout(("a", "b"), 1, 2)
    full = Layout(("a", "b"), 2, 2)
    assert relaid(full, ["a", "b"], 3) is full


@pytest.mark.parametrize("seed", range(300))
def test_whatever_goes_what_comes_of_it_makes_sense_and_moves_no_more_than_need_be(seed: int) -> None:
    chance = random.Random(seed)
    pieces, copies = chance.randint(1, 6), chance.randint(1, 4)
    layout = Layout(tuple(chance.sample(NODES, max(pieces, copies))), pieces, copies)
    there = chance.sample(NODES, chance.randint(1, len(NODES)))
    asked = chance.randint(1, 4)
    new = relaid(layout, there, asked)
    assert manifest.decode(manifest.encode(Manifest((new,), ()))).layouts == (new,)
    assert set(new.nodes) <= set(there)
    assert new.pieces == min(pieces, len(there))
    assert new.copies == min(max(copies, asked), len(there))
    if len(new.nodes) == len(layout.nodes):
        for old, now in zip(layout.nodes, new.nodes, strict=True):
            assert old == now or old not in there
