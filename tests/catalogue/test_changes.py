"""What the rows of a file say is what its manifest says."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from sfss import manifest
from sfss.catalogue import changes
from sfss.catalogue.changes import Rows, file_id, moment, pieces_of
from sfss.catalogue.reading import behind_all
from sfss.manifest import Extent, Layout, Manifest
from sfss.record import Header, Kind


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    layouts = []
    for _ in range(draw(st.integers(1, 2))):
        pieces, copies = draw(st.integers(1, 5)), draw(st.integers(1, 3))
        names = draw(st.permutations([f"n{number}" for number in range(8)]))
        layouts.append(Layout(tuple(names[: max(pieces, copies)]), pieces, copies))
    extents = [
        Extent(manifest.new_stripe(draw(st.integers(0, 2**50))), draw(st.integers(1, 200)), draw(st.integers(1, 60)),
               draw(st.integers(0, len(layouts) - 1)), draw(st.integers(0, 9)))
        for _ in range(draw(st.integers(1, 3)))
    ]  # fmt: skip
    return Manifest(tuple(layouts), tuple(extents))


@given(manifests())
def test_the_pieces_are_all_blocks_on_their_nodes_and_no_others(striped: Manifest) -> None:
    there = {
        (block.key, node, block.size) for block in manifest.blocks(striped, 0, striped.size) for node in block.homes
    }
    told = set()
    for piece in pieces_of(striped):
        stripe, first = manifest.parse_block_key(piece["record_key"].encode()) or ("", 0)
        extent = next(extent for extent in striped.extents if extent.stripe == stripe)
        step = striped.layouts[extent.layout].pieces
        numbers = [first + step * number for number in range(piece["blocks"])]
        sizes = [min(extent.block_size, extent.size - number * extent.block_size) for number in numbers]
        assert piece["size"] == sum(sizes)
        told |= {
            (manifest.block_key(stripe, number), piece["node"], size)
            for number, size in zip(numbers, sizes, strict=True)
        }
    assert told == there


@given(manifests())
def test_the_first_copies_of_all_pieces_are_as_long_as_the_file(striped: Manifest) -> None:
    pieces = list(pieces_of(striped))
    assert sum(piece["size"] for piece in pieces if piece["copy"] == 0) == striped.size
    assert len({(piece["number"], piece["copy"]) for piece in pieces}) == len(pieces)


@given(st.text(min_size=1, max_size=4), st.text(max_size=4))
def test_behind_all_that_begin_so_comes_nothing_that_does(prefix: str, rest: str) -> None:
    end = behind_all(prefix)
    text = prefix + rest
    if end is not None and not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert text.encode() < end.encode()
        assert not end.startswith(prefix)


def test_nothing_comes_behind_the_last_character() -> None:
    assert behind_all("a\U0010ffff") == "b"
    assert behind_all("\U0010ffff") is None
    assert behind_all("\ud7ff") == "\ue000"


def test_a_file_s_id_is_the_one_in_its_path_or_always_the_same_one_of_it() -> None:
    one = "0f8fad5b-d9cb-469f-a165-70867728950e"
    assert file_id(f"by-id/{one}") == one
    assert file_id("a/b") == file_id("a/b") != file_id("a/c")
    assert file_id("фото") == str(uuid.uuid5(uuid.UUID(bytes=changes._PATHS), "фото"))
    assert len(file_id(f"by-id/{one}.jpg")) == 36


def test_times_sort_as_text() -> None:
    times = [0, 1, 999_999, 1_000_000, 1_767_225_600_000_000, 10**18]
    assert sorted(map(moment, times)) == list(map(moment, times))
    assert moment(1_767_225_600_000_001) == "2026-01-01T00:00:00.000001Z"


def test_what_is_deleted_has_no_pieces() -> None:
    tombstone = Header(Kind.TOMBSTONE, 5, 1, 0, b"", 0, b"")
    rows = Rows(lambda _: ["n"], lambda _: "text/plain")
    assert rows.pieces("a", tombstone, manifest.NOTHING) == []
    row = rows.file("a", tombstone)
    assert (row["state"], row["place"]) == ("deleted", None)
