"""What can't be made smaller is not compressed, what can be is, and one follows the other."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sfss.node import packing, space
from sfss.node.engine import KIB, MIB
from sfss.node.packing import ENOUGH, EVERY, Packing
from tests.node.support import running, set_request, talk

TEXT = b"".join(b"line %d of a text, and a few words more\n" % number for number in range(100))
CHANCE = random.Random(1)


def write(look: Packing, *values: bytes, times: int = EVERY * ENOUGH) -> bool:
    """The verdict when these were written, one after the other, so many in all."""
    for number in range(times):
        look.saw(values[number * 7 % len(values)])
    return look.is_worth_it()


def test_random_bytes_are_not_worth_it_and_texts_are() -> None:
    look = Packing()
    assert look.is_worth_it()
    assert not write(look, CHANCE.randbytes(4096))
    assert not write(look, CHANCE.randbytes(1024), CHANCE.randbytes(100_000))
    assert write(look, TEXT, times=3 * EVERY * ENOUGH)


def test_little_that_was_written_changes_nothing() -> None:
    look = Packing()
    assert write(look, CHANCE.randbytes(4096), times=EVERY * ENOUGH - 1)
    assert not write(look, CHANCE.randbytes(4096), times=1)


def test_one_value_counts_by_its_size() -> None:
    assert not write(Packing(), *[TEXT[:1024]] * 9, CHANCE.randbytes(1_000_000))
    assert write(Packing(), *[CHANCE.randbytes(1024)] * 9, TEXT * 200)


async def test_a_node_compresses_texts_and_stores_random_bytes_as_they_are_and_reads_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, figure in ((packing, "EVERY", 1), (space, "EVERY", 0.05), (space, "REST", 1000.0)):
        monkeypatch.setattr(module, name, figure)

    async with running(tmp_path / "data", durability="os") as node:
        written: dict[bytes, bytes] = {}

        async def blobs(value: bytes) -> int:
            """Bytes of blob files that a MiB of such values makes."""
            before = node.store.figure("live-blob-file-size")
            for _ in range(MIB // len(value)):
                key = b"%d" % len(written)
                written[key] = value
                await talk(node.port, set_request(key, value))
            node.store.write_out()
            return node.store.figure("live-blob-file-size") - before

        text, noise = (TEXT * 20)[: 32 * KIB], CHANCE.randbytes(32 * KIB)
        assert await blobs(text) < MIB // 2
        while node.keeper._space._packing:
            assert await blobs(noise) >= MIB
        monkeypatch.setattr(packing, "ENOUGH", 1000)  # no verdict for now
        assert await blobs(text) >= MIB
        monkeypatch.setattr(packing, "ENOUGH", ENOUGH)
        while not node.keeper._space._packing:
            await blobs(text)
        assert await blobs(text) < MIB // 2
        node.store.memory.clear()
        for key, value in written.items():
            assert await talk(node.port, b"get %b\r\n" % key) == b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (
                key,
                len(value),
                value,
            )
