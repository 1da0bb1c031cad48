"""Bits that flip at rest, anywhere in a data directory: refused, or the right value or SERVER_ERROR for each key."""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter
from pathlib import Path

import pytest

from sfss.node import engine
from sfss.node.engine import KIB
from sfss.node.store import Store
from tests.node.faults.load import content, sfss_record
from tests.node.faults.rot import Still, run
from tests.node.support import crash_image

HANG = 60.0  # seconds after which a look at a damaged directory is a hang


@pytest.fixture
def stills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Still]:
    """One directory as kill -9 leaves it, one as a stop in good order does: tables, blob files, a log."""
    monkeypatch.setattr(engine, "WRITE_BUFFER", 64 * KIB)
    monkeypatch.setattr(engine, "BLOB_FILE", 64 * KIB)
    store = Store(tmp_path / "stopped")
    chance = random.Random(1)
    items: dict[bytes, bytes] = {}
    gone: list[bytes] = []

    def put(key: bytes, number: int) -> None:
        data = content(key, number, chance.choice((0, 30, 200, 900, 3000)))
        data = sfss_record(data) if number % 4 == 0 else data
        store.put(key, number, 0, data, store.claim(key))
        items[key] = data

    def fill(first: int, last: int) -> None:
        for number in range(first, last):
            put(b"key%03d" % (number % 150), number)
            if number % 10 == 0:
                key = b"gone%03d" % number
                put(key, number)
                old = store.claim(key)
                assert old is not None
                store.remove(key, old)
                del items[key]
                gone.append(key)

    for first in (0, 120, 240):
        fill(first, first + 120)
        store._db.flush(True)
    fill(360, 400)  # in the log
    store.sync()
    killed = Still(crash_image(store.directory, tmp_path / "killed"), dict(items), list(gone))
    store.close()
    return [killed, Still(store.directory, items, gone)]


_TOLD = {"refused", "errors"}  # what has to be among what becomes of damages: twenty may all be of what nobody reads


@pytest.mark.timeout(1800)
def test_damage_at_rest_is_refused_or_an_error_and_never_a_wrong_answer(
    stills: list[Still], tmp_path: Path, seed: str, long: bool
) -> None:
    context = multiprocessing.get_context("spawn")
    listen, tell = context.Pipe(duplex=False)
    least, count = (2000, 2000) if long else (20, 400)
    process = context.Process(target=run, args=(stills, tmp_path, seed, count, tell), daemon=True)
    process.start()
    tell.close()
    found: Counter[tuple[str, str]] = Counter()
    try:
        for number in range(count):
            kind, what = listen.recv()
            assert listen.poll(HANG), f"damage {number}, {what}: it hangs"
            try:
                outcome = listen.recv()
            except EOFError:
                pytest.fail(f"damage {number}, {what}: it crashes")
            assert not outcome.startswith("WRONG"), f"damage {number}, {what}: {outcome}"
            found[kind, outcome] += 1
            if number + 1 >= least and {outcome for _, outcome in found} >= _TOLD:
                break
    finally:
        process.kill()
        process.join()
        listen.close()
    for (kind, outcome), times in sorted(found.items()):
        print(f"{kind:22} {outcome:8} {times}")
    assert {outcome for _, outcome in found} >= _TOLD
