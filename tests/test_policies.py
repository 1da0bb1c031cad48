"""Which rules hold for a path."""

from __future__ import annotations

import msgspec

from sfss.config import SPREAD, Limits, Policy, Settings, Storage
from sfss.policies import Policies, Rules

SETTINGS = Settings(
    storage=Storage(nodes=("a:1", "b:1", "c:1"), copies=3, write_quorum=2, read_quorum=2),
    policy=(
        Policy("images/", pieces=3),
        Policy("images/raw/", copies=1),
        Policy("ima", max_file_size=5),  # type: ignore[arg-type]
    ),
)
GENERAL = Rules(1, SPREAD, 3, 2, 2, Limits().max_file_size, "limits.max_file_size")


def test_the_longest_prefix_that_fits_counts_alone() -> None:
    policies = Policies(SETTINGS)
    assert policies.of("images/cat.jpg") == GENERAL._replace(pieces=3, spread=3)
    assert policies.of("images/raw/cat.jpg") == GENERAL._replace(copies=1, write_quorum=1, read_quorum=1)
    assert policies.of("images/raw").pieces == 3
    assert policies.of("images") == GENERAL._replace(max_file_size=5, setting="max_file_size of the policy for 'ima'")


def test_where_none_fits_what_is_general_holds() -> None:
    assert Policies(SETTINGS).of("im") == Policies(SETTINGS).of("other/images/cat.jpg") == GENERAL
    assert Policies(Settings()).of("images/cat.jpg") == Settings().general


def test_a_policy_for_all_paths_takes_the_place_of_what_is_general() -> None:
    policies = Policies(msgspec.structs.replace(SETTINGS, policy=(*SETTINGS.policy, Policy("", pieces=2))))
    assert policies.of("x").pieces == 2
    assert policies.of("images/raw/x").pieces == 1


def test_when_settings_change_paths_that_are_asked_for_later_have_the_new_rules() -> None:
    policies = Policies(SETTINGS)
    policies.change(Settings())
    assert policies.of("images/cat.jpg") == Settings().general
