"""Manifests: where each byte of a large file lies, whatever its size; which of them are wanted; what is refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sfss import manifest
from sfss.errors import Damaged
from sfss.manifest import MAX_EXTENTS, NOTHING, Extent, Layout, Manifest
from sfss.memcache import MAX_KEY

NOW = 1_700_000_000_000_000

layouts = st.builds(
    lambda pieces, copies: Layout(tuple(f"node{n}" for n in range(max(pieces, copies))), pieces, copies),
    st.integers(1, 7),
    st.integers(1, 5),
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Of a few extents, whose sizes lie around multiples of their blocks."""
    chosen = tuple(draw(st.lists(layouts, min_size=1, max_size=3, unique=True)))
    extents = []
    for _ in range(draw(st.integers(1, 4))):
        block_size = draw(st.integers(1, 9))
        size = max(1, draw(st.integers(0, 4)) * block_size + draw(st.integers(-1, 1)))
        layout = draw(st.integers(0, len(chosen) - 1))
        extents.append(Extent(manifest.new_stripe(NOW), size, block_size, layout, draw(st.integers(0, 10))))
    return Manifest(chosen, tuple(extents))


def stored(whole: Manifest, content: bytes) -> dict[bytes, bytes]:
    """Every block of the content, by its key, cut as the format says, without any of the code under test."""
    found = {}
    for extent in whole.extents:
        part, content = content[: extent.size], content[extent.size :]
        for number in range(0, extent.size, extent.block_size):
            key = f"#{extent.stripe}/{number // extent.block_size}".encode()
            found[key] = part[number : number + extent.block_size]
    assert not content
    return found


class TestBlocks:
    @given(manifests(), st.data())
    def test_any_range_is_put_together_from_just_the_blocks_that_hold_it(
        self, whole: Manifest, data: st.DataObject
    ) -> None:
        content = bytes(n % 251 for n in range(whole.size))
        start = data.draw(st.integers(0, whole.size))
        stop = data.draw(st.integers(start, whole.size))
        at_nodes = stored(whole, content)
        parts = []
        for block in manifest.blocks(whole, start, stop):
            there = at_nodes[block.key]
            assert len(there) == block.size
            assert 0 <= block.start < block.stop <= block.size, "a block of which nothing is wanted isn't read"
            parts.append(there[block.start : block.stop])
        assert b"".join(parts) == content[start:stop]

    @given(manifests())
    def test_the_whole_file_is_every_block_once(self, whole: Manifest) -> None:
        every = list(manifest.blocks(whole, 0, whole.size))
        assert len({block.key for block in every}) == len(every) == sum(extent.blocks for extent in whole.extents)
        assert sum(block.size for block in every) == whole.size

    @given(layouts, st.integers(0, 100))
    def test_copies_of_a_block_lie_on_distinct_nodes_and_pieces_go_round(self, layout: Layout, place: int) -> None:
        homes = layout.homes(place)
        assert len(set(homes)) == len(homes) == layout.copies
        assert homes[0] == layout.nodes[place % layout.pieces]
        assert layout.homes(place + layout.pieces) == homes
        assert len({layout.homes(place + n)[0] for n in range(layout.pieces)}) == layout.pieces

    @given(st.integers(2, 7), st.integers(2, 7))
    def test_a_dead_node_s_blocks_are_read_from_more_than_one_other(self, pieces: int, copies: int) -> None:
        """Of neighbours, so that two blocks on one node have their copies on two: none takes all that it had."""
        layout = Layout(tuple(f"node{n}" for n in range(max(pieces, copies))), pieces, copies)
        together = [homes for place in range(pieces) if "node1" in (homes := layout.homes(place))]
        others = {home for homes in together for home in homes} - {"node1"}
        assert len(others) >= min(2, len(layout.nodes) - 1)


class TestCutting:
    @given(st.integers(1, 10**7), st.integers(1, 64), st.integers(1, 10**6))
    @example(100, 5, 1000)
    def test_pieces_are_equal_to_within_a_block_and_no_block_is_too_large(
        self, size: int, pieces: int, largest: int
    ) -> None:
        block = manifest.cut(size, pieces, largest)
        assert 1 <= block <= largest
        count = -(-size // block)
        by_piece = [0] * pieces
        for piece in range(pieces):  # all but the last block are whole
            by_piece[piece] = len(range(piece, count, pieces)) * block
        by_piece[(count - 1) % pieces] -= count * block - size
        assert sum(by_piece) == size
        assert max(by_piece) - min(by_piece) <= block

    @given(st.integers(1, 10**6), st.integers(1, 64), st.integers(1, 10**5))
    def test_every_piece_has_as_many_blocks_where_there_are_enough_bytes(
        self, size: int, pieces: int, largest: int
    ) -> None:
        block = manifest.cut(size, pieces, largest)
        count = -(-size // block)
        rounds = -(-size // (pieces * largest))
        assert count <= rounds * pieces, "no more blocks than it takes"
        if size >= (rounds * pieces) ** 2:
            assert count == rounds * pieces

    def test_a_hundred_bytes_in_five_pieces_are_twenty_each(self) -> None:
        assert manifest.cut(100, 5, 2**20) == 20

    def test_nothing_can_be_cut_too(self) -> None:
        assert manifest.cut(0, 5, 2**20) == 1


class TestFormat:
    @given(manifests())
    def test_what_is_written_is_read(self, whole: Manifest) -> None:
        found = manifest.decode(memoryview(manifest.encode(whole)))
        assert found == whole
        assert found.size == whole.size

    def test_nothing_is_written_and_read(self) -> None:
        assert manifest.decode(manifest.encode(NOTHING)) == NOTHING

    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            b"nonsense",
            [],
            [[]],
            [[], [["b", 1, 1, 0, 0]]],  # no such layout
            [[[["a"], 1, 1]], [["b", 1, 1, -1, 0]]],
            [[[["a"], 1, 1]], [["b", 0, 1, 0, 0]]],  # of no bytes
            [[[["a"], 1, 1]], [["b", -5, 1, 0, 0]]],
            [[[["a"], 1, 1]], [["b", 1, 0, 0, 0]]],  # of no blocks
            [[[["a"], 1, 1]], [["b", 1, -1, 0, 0]]],
            [[[["a"], 1, 1]], [["b", "1", 1, 0, 0]]],
            [[[["a"], 0, 1]], []],  # pieces on no node
            [[[["a"], 1, 0]], []],
            [[[["a", "b"], 1, 1]], []],
            [[[["a"], 2, 1]], []],
            [[[["a", "a"], 2, 1]], []],
            [[[[], 0, 0]], []],
        ],
    )
    def test_what_makes_no_sense_is_damaged(self, payload: object) -> None:
        with pytest.raises(Damaged):
            manifest.decode(payload if isinstance(payload, bytes) else msgspec.msgpack.encode(payload))

    @given(st.binary(max_size=60))
    def test_whatever_bytes_are_read_or_damaged(self, payload: bytes) -> None:
        try:
            found = manifest.decode(payload)
        except Damaged:
            return
        assert manifest.decode(manifest.encode(found)) == found

    def test_the_longest_one_fits_a_record(self) -> None:
        """Of as many extents as there may be, on nodes with names as long as names go here."""
        nodes = tuple(f"node-{n}.storage.example.org:7900" for n in range(64))
        extent = Extent(manifest.new_stripe(NOW), 2**40, 2**26, 0, 2**30)
        whole = Manifest((Layout(nodes, 64, 3),), (extent,) * MAX_EXTENTS)
        assert len(manifest.encode(whole)) < 2**20 - 8192


class TestJoining:
    @given(st.lists(manifests(), max_size=4))
    def test_one_behind_the_other_is_one_file(self, parts: list[Manifest]) -> None:
        whole = manifest.join(parts)
        assert whole.size == sum(part.size for part in parts)
        assert whole.stripes == frozenset().union(*(part.stripes for part in parts))
        every = [block for part in parts for block in manifest.blocks(part, 0, part.size)]
        assert list(manifest.blocks(whole, 0, whole.size)) == every
        assert len(set(whole.layouts)) == len(whole.layouts)
        assert manifest.decode(manifest.encode(whole)) == whole


class TestKeys:
    @given(st.integers(0, 16**13 - 1), st.integers(0, 2**33))
    def test_a_block_s_key_tells_its_stripe_and_number(self, now: int, number: int) -> None:
        stripe = manifest.new_stripe(now)
        key = manifest.block_key(stripe, number)
        assert manifest.parse_block_key(key) == (stripe, number)
        assert manifest.began(stripe) == now
        assert len(key) <= MAX_KEY

    def test_ids_are_never_the_same_and_in_the_order_of_their_time(self) -> None:
        ids = [manifest.new_stripe(NOW + n) for n in range(1000)]
        assert ids == sorted(ids)
        assert len({manifest.new_stripe(NOW) for _ in range(1000)}) == 1000
        assert len(manifest.new_stripe(NOW)) == 26

    @pytest.mark.parametrize(
        "key",
        [b"/path", b"#" + b"a" * 52, b"#b" + b"0" * 25, b"#b" + b"0" * 25 + b"/", b"#b" + b"0" * 25 + b"/01",
         b"#b" + b"0" * 25 + b"/-1", b"#b" + b"0" * 24 + b"/1", b"#u" + b"0" * 25 + b"/1", b"b" + b"0" * 25 + b"/1",
         b"#b" + b"0" * 25 + b"/1\n", b"#b" + b"0" * 25 + b"/1/1", b"#b" + b"G" * 25 + b"/1", b""],
    )  # fmt: skip
    def test_other_keys_are_no_block_s(self, key: bytes) -> None:
        assert manifest.parse_block_key(key) is None
