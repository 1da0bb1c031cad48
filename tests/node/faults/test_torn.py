"""What a power loss leaves of what was never synced: holes in the logs, and a MANIFEST whose last record is torn."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
from pathlib import Path

import pytest

from sfss.errors import ConfigError
from sfss.node import logs
from sfss.node.manifest import BLOCK
from sfss.node.opening import MARK_FILE, mark
from sfss.node.store import Store
from sfss.node.verify import verify
from tests.node.support import crash_image

Log = tuple[bytes, list[int]]


@pytest.fixture
def killed(tmp_path: Path) -> tuple[Path, Log, list[int]]:
    """A directory whose log has forty changes; the log, where each ends, and their numbers."""
    store = Store(tmp_path / "data")
    [file] = store.directory.glob("*.log")
    store.sync()
    ends, numbers = [file.stat().st_size], [store._db.latest_sequence_number()]
    for number in range(40):
        store.put(b"key%02d" % number, 0, 0, b"x" * 100, None)
        ends.append(file.stat().st_size)
        numbers.append(store._db.latest_sequence_number())
    image = crash_image(store.directory, tmp_path / "image")
    store.close()
    return image, ((image / file.name).read_bytes(), ends), numbers


def holed(image: Path, log: Log, way: str) -> None:
    """Lose the changes 10 to 19: between two logs, or in the midst of one."""
    data, ends = log
    before, behind = data[: ends[10]], data[ends[20] :]
    [file] = image.glob("*.log")
    if way == "end":
        file.write_bytes(before)
        file.with_name("000099.log").write_bytes(behind)
    elif way == "zeros":
        file.write_bytes(before + bytes(5000))
        file.with_name("000099.log").write_bytes(behind)
    else:
        file.write_bytes(before.ljust(BLOCK, b"\0") + behind)


@pytest.mark.parametrize("way", ["end", "zeros", "page"])
def test_what_lies_behind_a_hole_is_dropped_and_said(
    way: str, killed: tuple[Path, Log, list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    image, log, numbers = killed
    holed(image, log, way)
    (image / MARK_FILE).write_bytes(mark(numbers[5]))  # the last sync that is known of
    with caplog.at_level(logging.WARNING):
        store = Store(image)
    assert "changes are missing before" in caplog.text
    assert [key for key, _ in store.heads(b"", b"", 100)] == [b"key%02d" % number for number in range(10)]
    assert (store.items, store.bytes) == (10, 1000)
    store.put(b"new", 0, 0, b"1", None)
    store.close()
    assert not verify(image).damaged
    store = Store(image)
    assert store.items == 11
    store.close()


@pytest.mark.parametrize("way", ["end", "zeros", "page"])
def test_a_hole_in_what_was_synced_is_refused_with_nothing_changed(
    way: str, killed: tuple[Path, Log, list[int]]
) -> None:
    image, log, numbers = killed
    holed(image, log, way)
    (image / MARK_FILE).write_bytes(mark(numbers[15]))
    before = {file.name: file.read_bytes() for file in image.glob("*.log")}
    with pytest.raises(ConfigError, match=rf"ends at change {numbers[10]} \(changes are missing before .*--recover"):
        Store(image)
    assert {file.name: file.read_bytes() for file in image.glob("*.log")} == before
    store = Store(image, recover=True)
    assert store.items == 30  # what is behind it, too
    store.close()


def manifest_of(image: Path) -> Path:
    return image / (image / "CURRENT").read_text().strip()


def last_record(manifest: bytes) -> int:
    return max(offset for offset, *_ in logs._records(manifest))


def torn(record: bytes, way: str) -> bytes:
    """A record of which some sectors, before it or behind, never reached the disk."""
    half = len(record) // 2
    return record[:half] + bytes(len(record) - half) if way == "end" else bytes(half) + record[half:]


@pytest.mark.parametrize("way", ["end", "beginning"])
def test_a_torn_record_at_the_end_of_the_manifest_is_dropped_and_said(
    way: str, killed: tuple[Path, Log, list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    image = killed[0]
    file = manifest_of(image)
    whole = file.read_bytes()
    file.write_bytes(whole + torn(whole[last_record(whole) :], way))
    with caplog.at_level(logging.WARNING):
        store = Store(image)
    assert f"the end of {file} is torn" in caplog.text
    assert store.items == 40
    store.close()
    assert not verify(image).damaged


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("way", ["end", "beginning"])
def test_without_a_record_that_was_synced_a_node_refuses_or_lacks_nothing(
    way: str, marked: bool, tmp_path: Path
) -> None:
    store = Store(tmp_path / "data")
    for number in range(10):
        store.put(b"key%d" % number, 0, 0, b"x" * 100, None)
    store.close()  # which writes a table, and says so in the MANIFEST
    if not marked:
        (store.directory / MARK_FILE).unlink()
    data = manifest_of(store.directory).read_bytes()
    records = sorted(offset for offset, *_ in logs._records(data))
    refused = 0
    for begin, end in itertools.pairwise([*records, len(data)]):
        image = shutil.copytree(store.directory, tmp_path / "image")
        damaged = data[:begin] + torn(data[begin:end], way)
        manifest_of(image).write_bytes(damaged)
        try:
            opened = Store(image)
        except ConfigError as error:
            assert "damaged" in str(error)
            assert manifest_of(image).read_bytes() == damaged
            refused += 1
        else:
            assert len(opened.heads(b"", b"", 100)) == opened.items == 10
            opened.close()
        shutil.rmtree(image)
    assert refused >= len(records) - 3


def test_logs_without_a_hole_and_logs_that_tables_have_are_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    for number in range(60):
        store.put(b"key%02d" % number, 0, 0, os.urandom(3000), None)
        if number == 20:
            store._db.flush(True)  # a new log, whose first change isn't the first
    store.sync()
    image = crash_image(store.directory, tmp_path / "image")
    [living] = logs.live(image)
    (image / "000001.log").write_bytes(living.read_bytes()[:3333])  # an older one, not removed yet
    assert logs.live(image) == [living]
    assert logs.hole(image) is None
    store.close()
    after = Store(image)
    assert after.items == 60
    after.close()


def test_the_changes_of_a_log_are_numbered_without_a_gap(tmp_path: Path) -> None:
    """Or else the search for holes would find some where there is none."""
    store = Store(tmp_path / "data")
    for number in range(200):
        store.put(b"key%02d" % (number % 20), 0, 0, b"x" * number * 31, store.claim(b"key%02d" % (number % 20)))
    store.flush_all()
    store.sync()
    [file] = logs.live(store.directory)
    batches = list(logs._batches(file))
    store.close()
    assert len(batches) > 200
    assert all(first + count == following for (_, first, count), (_, following, _) in itertools.pairwise(batches))
