"""The roll: no stage begins before all know the last one, and weights follow capacities in coarse steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfss import membership
from sfss.addresses import Address
from sfss.membership import NAME, STEPS, USUAL, Member, Roll, State

GIB = 2**30


def a_node(name: str, state: State = State.JOINING) -> Member:
    return Member(name, "10.0.0.1", 7900, "0" * 32, GIB, state=state)


def names(roll: Roll, state: State) -> list[str]:
    return [node.name for node in roll.of(state)]


def test_a_node_joins_is_moved_to_and_is_a_member_when_all_is_tidy() -> None:
    roll = membership.joined_by(Roll(), a_node("a"))
    assert (roll.settled, roll.moving, roll.untidy) == (False, True, False)
    roll = membership.moved(membership.settled(roll))
    assert names(roll, State.MEMBER) == ["a"]
    assert (roll.settled, roll.moving, roll.untidy) == (False, False, True)
    assert membership.tidied(membership.settled(roll)) == Roll((a_node("a", State.MEMBER),))


def test_a_node_that_has_left_is_no_more() -> None:
    roll = membership.left_by(Roll((a_node("a", State.MEMBER), a_node("b", State.MEMBER))), "a")
    assert (names(roll, State.LEAVING), names(roll, State.MEMBER)) == (["a"], ["b"])
    assert [node.name for node in membership.moved(membership.settled(roll)).nodes] == ["b"]


def test_nodes_may_join_beside_each_other_but_not_while_a_new_ring_is_not_known_to_all() -> None:
    joining = membership.joined_by(Roll(), a_node("a"))
    assert joining.is_open
    both = membership.joined_by(joining, a_node("b"))
    assert names(both, State.JOINING) == ["a", "b"]
    come = membership.moved(membership.settled(both))
    assert not come.is_open
    assert membership.settled(come).is_open


def test_another_address_is_no_stage() -> None:
    roll = Roll((a_node("a", State.MEMBER),))
    moved = membership.moved_to(roll, "a", Address("10.0.0.9", 1, "a"), "1" * 32)
    assert str(moved.nodes[0].address) == "10.0.0.9:1"
    assert moved.settled


@pytest.mark.parametrize(
    ("share", "weight"),
    [(1, 4), (1.2, 4), (0.9, 4), (2, 8), (1.5, 6), (0.5, 2), (0.24, 1), (0.001, 1), (8, 32), (1000, 32)],
)
def test_a_weight_is_the_capacity_beside_that_of_the_others(share: float, weight: int) -> None:
    assert membership.weight_for(int(share * 100 * GIB), [(100 * GIB, USUAL)] * 3) == weight


def test_a_weight_counts_what_the_others_have_for_theirs() -> None:
    others = [(100 * GIB, 4), (200 * GIB, 8), (50 * GIB, 2)]
    assert membership.weight_for(200 * GIB, others) == 8


@given(st.integers(-1, 2**62), st.lists(st.tuples(st.integers(0, 2**62), st.sampled_from(STEPS))))
def test_a_weight_is_one_of_few_whatever_nodes_say(capacity: int, others: list[tuple[int, int]]) -> None:
    assert membership.weight_for(capacity, others) in STEPS


@pytest.mark.parametrize("name", ["", "a b", "a=b", "-a", "a/b", "x" * 101, "ü", "a:1"])
def test_what_cannot_be_a_name(name: str) -> None:
    assert not NAME.fullmatch(name)
