"""The state of an upload as it lies on nodes, and its names."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfss import upload_state
from sfss.errors import Damaged
from sfss.manifest import Extent, Layout, Manifest, new_stripe, parse_block_key
from sfss.upload_state import GRACE, Claim, State

NOW = 1767225600_000000
STRIPE = new_stripe(NOW)
FULL = State(
    expires=NOW,
    length=10,
    offset=7,
    parts=Manifest((Layout(("a:1", "b:1"), 2, 1),), (Extent(STRIPE, 7, 4, 0, 3),)),
    path="фото/кот.jpg",
    type="image/jpeg",
    meta={"colour": "grün"},
    conditions={"If-Match": "*"},
    metadata="a YQ==",
    concat="final;/uploads/x",
    partials=("u1", "u2"),
    final="u3",
    into="a/b",
    claim=Claim(NOW, 7, b"x" * 32, True),
    finished=True,
)


@pytest.mark.parametrize("state", [State(NOW, None), FULL])
def test_what_is_encoded_comes_back(state: State) -> None:
    assert upload_state.decode(upload_state.encode(state)) == state


def test_what_a_later_version_adds_is_passed_over() -> None:
    fields = msgspec.msgpack.decode(upload_state.encode(FULL))
    assert upload_state.decode(msgspec.msgpack.encode([*fields, "new"])) == FULL


@given(st.binary(max_size=100))
def test_what_is_none_is_damaged(data: bytes) -> None:
    with contextlib.suppress(Damaged):
        upload_state.decode(data)


def test_ids_are_told_from_all_other_keys() -> None:
    upload = upload_state.new_id(NOW)
    assert upload_state.new_id(NOW) != upload
    assert upload_state.is_id(upload)
    key = upload_state.key_of(upload)
    assert upload_state.id_of(key) == upload
    assert parse_block_key(key) is None
    for other in (
        b"/" + upload.encode(),
        b"#" + STRIPE.encode(),
        key + b"/0",
        b"#U" + key[2:],
        key[:-1],
        b"#\xff" + key,
    ):
        assert upload_state.id_of(other) is None


def test_an_upload_s_blocks_outlive_it_for_a_while() -> None:
    """For somebody may be making a file of them just when its time is over."""
    assert not FULL.is_expired(NOW)
    assert FULL.is_expired(NOW + 1)
    assert not FULL.is_abandoned(NOW + 1)
    assert FULL.is_abandoned(NOW + GRACE * 1_000_000 + 1)


def test_a_piece_takes_few_bytes_of_the_state() -> None:
    """So that ten thousand of them fit a record."""
    one = Extent(STRIPE, 64 * 2**20, 2**20 - 8192, 0, 640_000)
    sizes = [
        len(upload_state.encode(msgspec.structs.replace(FULL, parts=Manifest(FULL.parts.layouts, (one,) * count))))
        for count in (1000, 2000)
    ]
    assert (sizes[1] - sizes[0]) / 1000 <= 45
