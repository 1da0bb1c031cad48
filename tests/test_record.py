"""Records: whatever happens to one byte of them is noticed, and what is on disk today can be read tomorrow."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from sfss.errors import Damaged
from sfss.record import (
    MAX_HEADER,
    MAX_OVERHEAD,
    PREFIX_SIZE,
    Header,
    Kind,
    decode,
    decode_bare_header,
    decode_bare_headers,
    decode_header,
    encode,
    header_end,
    is_older,
    order_bytes,
    payload_checksum,
)

ordinary = settings(deadline=None, max_examples=200)


def make(payload: bytes, **fields: Any) -> bytes:
    return encode(header_of(payload, **fields), payload)


def header_of(payload: bytes, **fields: Any) -> Header:
    ours: dict[str, Any] = {
        "kind": Kind.FILE,
        "version": 1_790_000_000_000_000,
        "front": 7,
        "size": len(payload),
        "sha256": hashlib.sha256(payload).digest(),
        "payload_size": len(payload),
        "payload_xxh3": payload_checksum(payload),
    }
    return Header(**ours | fields)


_TEXT = st.text(max_size=60)
PAYLOADS = st.binary(max_size=2000)
RECORDS = st.builds(
    make,
    PAYLOADS,
    kind=st.sampled_from(Kind),
    version=st.integers(0, 2**63 - 1),
    front=st.integers(0, 2**32 - 1),
    size=st.integers(0, 2**60),
    type=st.none() | _TEXT,
    meta=st.none() | st.dictionaries(_TEXT, _TEXT, max_size=5),
    path=st.none() | _TEXT,
)

# A file of three bytes and a long path, with a type and a word of its user's.
SMALL = make(b"cat", type="image/jpeg", meta={"a": "b"}, path="длинный")


@ordinary
@given(
    PAYLOADS,
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(Kind),
            "version": st.integers(0, 2**63 - 1),
            "front": st.integers(0, 2**32 - 1),
            "size": st.integers(0, 2**60),
            "sha256": st.binary(max_size=32),
            "type": st.none() | _TEXT,
            "meta": st.none() | st.dictionaries(_TEXT, _TEXT, max_size=5),
            "path": st.none() | _TEXT,
        }
    ),
)
def test_what_was_put_into_a_record_comes_out_of_it(payload: bytes, fields: dict[str, Any]) -> None:
    header = header_of(payload, **fields)
    record = decode(encode(header, payload))
    assert record.header == header
    assert record.payload == payload


def test_a_payload_is_not_copied_on_reading() -> None:
    data = make(b"x" * 1000)
    payload = decode(data).payload
    assert isinstance(payload, memoryview)
    assert payload.obj is data


def test_every_flipped_bit_of_a_small_record_is_noticed() -> None:
    for bit in range(len(SMALL) * 8):
        damaged = bytearray(SMALL)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged):
            decode(bytes(damaged))


@ordinary
@given(RECORDS, st.data())
def test_any_flipped_bit_is_noticed(record: bytes, data: st.DataObject) -> None:
    bit = data.draw(st.integers(0, len(record) * 8 - 1))
    damaged = bytearray(record)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Damaged):
        decode(bytes(damaged))


@ordinary
@given(RECORDS, st.data())
def test_any_run_of_other_bytes_is_noticed(record: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(record) - 1))
    other = data.draw(st.binary(min_size=1, max_size=600))
    damaged = record[:at] + other + record[at + len(other) :]
    if damaged != record:
        with pytest.raises(Damaged):
            decode(damaged)


def test_a_record_cut_anywhere_is_noticed() -> None:
    for end in range(len(SMALL)):
        with pytest.raises(Damaged):
            decode(SMALL[:end])


def test_a_byte_too_many_anywhere_is_noticed() -> None:
    for at in range(len(SMALL) + 1):
        with pytest.raises(Damaged):
            decode(SMALL[:at] + (SMALL[at : at + 1] or b"\0") + SMALL[at:])


@ordinary
@given(RECORDS, st.data())
def test_any_cut_and_any_tail_are_noticed(record: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(record) - 1))
    tail = data.draw(st.binary(min_size=1, max_size=20))
    for damaged in (record[:cut], record + tail):
        with pytest.raises(Damaged):
            decode(damaged)


@ordinary
@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: SMALL[:8] + tail))
def test_what_another_program_wrote_is_damaged_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(Damaged):
        decode(data)


def test_a_format_from_the_future_is_damaged_and_says_that_it_is_newer() -> None:
    with pytest.raises(Damaged, match="format is 2, and this version of sfss reads 1: damaged, or of a newer one"):
        decode(SMALL[:4] + b"\2" + SMALL[5:])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "ends after 0 bytes, in its prefix"),
        (SMALL[:15], "ends after 15 bytes, in its prefix"),
        (SMALL[:16], "ends after 16 bytes, in its header"),
        (b"a:3:{i:0;s:3:" + b"x" * 30, "not a record of sfss"),
        (SMALL[:5] + b"\1" + SMALL[6:], "sixth byte is 1 where 0 belongs"),
        (SMALL[:20] + b"\xff" + SMALL[21:], "checksum of the record's header"),
        (SMALL[:-1], "payload has 2 bytes where 3 belong"),
        (SMALL[:-1] + b"T", "checksum of the record's payload"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(data: bytes, why: str) -> None:
    with pytest.raises(Damaged, match=why):
        decode(data)


@ordinary
@given(RECORDS)
def test_a_header_can_be_read_without_the_payload(record: bytes) -> None:
    end = header_end(record[:PREFIX_SIZE])
    assert end is not None
    assert decode_header(record[:end]) == (decode(record).header, end)
    assert decode_header(memoryview(record)[:end]) == (decode(record).header, end)
    assert record[end:] == decode(record).payload


@pytest.mark.parametrize(
    "data",
    [b"", SMALL[:15], b"X" + SMALL[1:], SMALL[:4] + b"\2" + SMALL[5:], SMALL[:5] + b"\1" + SMALL[6:]],
)
def test_what_is_no_record_has_no_header_end(data: bytes) -> None:
    assert header_end(data) is None


def by_hand(fields: list[object], payload: bytes) -> bytes:
    """A record made without sfss's own encoder, as the format's page says."""
    return with_header(msgspec.msgpack.encode(fields), payload)


def with_header(packed: bytes, payload: bytes) -> bytes:
    start = b"SFSS\x01\x00" + len(packed).to_bytes(2, "big")
    return start + xxhash.xxh3_64_intdigest(start + packed).to_bytes(8, "big") + packed + payload


FIELDS: list[object] = [1, 99, 7, 3, hashlib.sha256(b"cat").digest(), 3, xxhash.xxh3_128_digest(b"cat")]


def test_a_record_can_be_made_from_the_description_alone() -> None:
    record = decode(by_hand([*FIELDS, "image/jpeg", {"a": "b"}, "p"], b"cat"))
    assert record.header == header_of(b"cat", version=99, type="image/jpeg", meta={"a": "b"}, path="p")
    assert record.payload == b"cat"


def test_a_header_with_a_field_of_a_later_version_can_be_read() -> None:
    later = by_hand([*FIELDS, None, None, None, {"of": "a later version"}], b"cat")
    assert decode(later).header == header_of(b"cat", version=99)


def test_a_header_without_the_last_fields_takes_their_defaults() -> None:
    assert decode(by_hand(FIELDS, b"cat")).header == header_of(b"cat", version=99)


@pytest.mark.parametrize(
    "fields",
    [[], FIELDS[:6], ["1", *FIELDS[1:]], [9, *FIELDS[1:]], [*FIELDS, 5], [*FIELDS, None, {"a": 1}]],
)
def test_a_header_whose_fields_make_no_sense_is_damaged(fields: list[object]) -> None:
    with pytest.raises(Damaged, match="header can't be read"):
        decode(by_hand(fields, b"cat"))


def test_a_header_with_a_field_thousands_of_lists_deep_is_damaged() -> None:
    packed = msgspec.msgpack.encode([*FIELDS, None, None, None, 0])
    with pytest.raises(Damaged, match="header can't be read"):
        decode_header(with_header(packed[:-1] + b"\x91" * 3000 + b"\xc0", b"cat"))


GOLDEN = (
    "53465353"  # magic
    "0100"  # format number, zero
    "0061"  # the header's length
    "9d7671d79416d887"  # xxh3-64
    "9a"  # an array of ten
    "01"  # kind
    "cf00065bfeda25e000"  # version
    "07"  # front
    "03"  # size
    "c42077af778b51abd4a3c51c5ddd97204a9c3ae614ebccb75a606c3b6865aed6744e"  # sha256
    "03"  # payload_size
    "c4100381fd7cec51321d42548a8a111c54ee"  # payload_xxh3
    "aa696d6167652f6a706567"  # type
    "81a161a162"  # meta
    "aed0b4d0bbd0b8d0bdd0bdd18bd0b9"  # path
    "636174"  # the payload
)


def test_the_format_on_disk_is_what_it_was() -> None:
    # If this fails, what lies on everybody's disks can't be read: don't change the bytes, add a format number.
    assert SMALL.hex() == GOLDEN
    assert decode(bytes.fromhex(GOLDEN)).header.path == "длинный"


def test_the_largest_header_within_the_limits_of_a_request_fits_the_overhead_allowed() -> None:
    meta = {f"{n:064}": "v" * 64 for n in range(32)}
    largest = make(b"", version=2**63 - 1, front=2**32 - 1, type="t" * 255, meta=meta, path="x" * 1024)
    assert len(largest) <= MAX_OVERHEAD


def test_a_header_that_is_too_large_for_its_length_field_is_never_written() -> None:
    with pytest.raises(ValueError, match=f"at most {MAX_HEADER} fit"):
        make(b"", path="x" * MAX_HEADER)


@given(RECORDS, st.integers(0), st.integers(1, 255))
def test_a_header_alone_is_read_as_with_its_payload_and_any_change_is_noticed(
    data: bytes, place: int, change: int
) -> None:
    header, end = decode_header(data)
    assert decode_bare_header(data[:end]) == header
    changed = bytearray(data[:end])
    changed[place % end] ^= change
    for wrong in (bytes(changed), data[: place % end], data[:end] + b"x"):
        with pytest.raises(Damaged):
            decode_bare_header(wrong)
        with pytest.raises(Damaged):
            decode_bare_headers([data[:end], wrong, data[:end]])


@given(st.lists(RECORDS, max_size=40))
def test_many_headers_are_read_at_once_as_one_by_one(records: list[bytes]) -> None:
    headers = [data[: decode_header(data)[1]] for data in records]
    assert decode_bare_headers(headers) == [decode_bare_header(data) for data in headers]


NUMBERS = st.one_of(
    st.integers(0, 2**64 - 1), st.sampled_from([0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1])
)


@ordinary
@given(st.tuples(NUMBERS, NUMBERS), st.tuples(NUMBERS, NUMBERS))
def test_what_orders_records_can_be_compared_byte_by_byte(one: tuple[int, int], other: tuple[int, int]) -> None:
    first, second = (make(b"x", version=version, front=front) for version, front in (one, other))
    assert (order_bytes(first) < order_bytes(second)) == (one < other) == is_older(first, second[: header_end(second)])
    assert (order_bytes(first) == order_bytes(second)) == (one == other)


@pytest.mark.parametrize("data", [b"", b"SFSS", b"no record" * 10, make(b"x", version=-1), make(b"x", front=-40)])
def test_what_has_no_order_is_known(data: bytes) -> None:
    assert order_bytes(data) == b""


@given(st.binary(max_size=100))
def test_bytes_that_only_begin_as_a_record_break_nothing(rest: bytes) -> None:
    order_bytes(make(b"x")[:16] + rest)
