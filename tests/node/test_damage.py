"""What is damaged at rest is noticed: refused or SERVER_ERROR, counted, never served, never a miss, never dropped."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sfss.errors import ConfigError
from sfss.node import manifest
from sfss.node.look import Look
from sfss.node.opening import MARK_FILE, Lock, mark, read_mark
from sfss.node.store import Store
from tests.node.support import connected, crash_image, running, there

Items = dict[bytes, bytes]


def fill(store: Store, items: Items, first: int, last: int) -> None:
    """Small values and large, so that tables and blob files get some."""
    chance = random.Random(first)
    for number in range(first, last):
        key, data = b"key%05d" % number, chance.randbytes(3000 if number % 2 else 100)
        store.put(key, 0, 0, data, store.claim(key))
        items[key] = data


@pytest.fixture
def items() -> Items:
    return {}


@pytest.fixture
def killed(tmp_path: Path, items: Items) -> Path:
    """A directory as kill -9 leaves it: half of it in tables, half in the log, all of it synced."""
    store = Store(tmp_path / "data")
    fill(store, items, 0, 300)
    store._db.flush(True)
    fill(store, items, 300, 600)
    store.sync()
    image = crash_image(store.directory, tmp_path / "killed")
    store.close()
    return image


@pytest.fixture
def stopped(tmp_path: Path, items: Items) -> Path:
    """A directory that was closed in good order."""
    store = Store(tmp_path / "data")
    fill(store, items, 0, 300)
    store._db.flush(True)
    fill(store, items, 300, 600)
    store.close()
    return store.directory


def flip(file: Path, offset: int, bit: int = 0) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 1 << bit
    file.write_bytes(data)


def log_of(directory: Path) -> Path:
    return max(directory.glob("*.log"), key=lambda file: file.stat().st_size)


def contents(directory: Path) -> dict[str, bytes]:
    """All that lies there but RocksDB's own diary."""
    return {file.name: file.read_bytes() for file in directory.iterdir() if not file.name.startswith("LO")}


@pytest.mark.parametrize("where", [0.0, 0.3, 0.5, 0.9, 0.9999])
def test_a_flipped_bit_in_the_log_is_refused_with_nothing_changed_wherever_it_is(killed: Path, where: float) -> None:
    flip(log_of(killed), int(log_of(killed).stat().st_size * where))
    before = contents(killed)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"is damaged: its log ends at change \d+ \(Corruption.*--recover"):
            Store(killed)
    assert contents(killed) == before


def kinds(file: Path) -> list[int]:
    """Where the kinds of the records in a file's first block stand."""
    data, position, found = file.read_bytes(), 0, []
    while position + 7 <= min(len(data), 32 * 1024):
        found.append(position + 6)
        position += 7 + int.from_bytes(data[position + 4 : position + 6], "little")
    return found


@pytest.mark.parametrize("name", ["*.log", "MANIFEST*"])
def test_a_flipped_bit_that_would_keep_rocksdb_reading_for_ever_is_refused(
    name: str, killed: Path, items: Items
) -> None:
    file = max(killed.glob(name), key=lambda file: file.stat().st_size)
    flip(file, kinds(file)[1], 2)  # kind 1 becomes 5, a record of a recycled log
    with pytest.raises(ConfigError, match="has a record of no kind"):
        Store(killed)
    with pytest.raises(ConfigError, match="has a record of no kind"):
        Look(killed)
    if name == "*.log":
        store = Store(killed, recover=True)
        assert len(items) - 50 < store.items < len(items)
        store.close()


def test_a_torn_manifest_is_told_from_a_damaged_one(stopped: Path) -> None:
    data = next(stopped.glob("MANIFEST*")).read_bytes()
    assert not manifest.is_damaged(data)
    starts = [kind - 6 for kind in kinds(next(stopped.glob("MANIFEST*")))]
    for end in range(starts[-1], len(data)):  # as a crash leaves it
        assert not manifest.is_damaged(data[:end])
    for start in starts:  # a length that is too long
        damaged = bytearray(data)
        damaged[start + 5] ^= 0x20
        assert manifest.is_damaged(bytes(damaged))
    assert manifest.crc32c(b"123456789") == 0xE3069283


def cut(log: Path) -> None:
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])


@pytest.mark.parametrize("lose", [cut, Path.unlink, lambda log: log.write_bytes(b"")])
def test_a_log_that_is_short_of_what_was_synced_is_refused(killed: Path, lose: Callable[[Path], None]) -> None:
    lose(log_of(killed))
    with pytest.raises(ConfigError, match="had been acknowledged and synced"):
        Store(killed)


def test_a_torn_tail_behind_what_was_synced_is_dropped_and_said(
    tmp_path: Path, items: Items, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "data")
    fill(store, items, 0, 100)
    store.sync()
    size = log_of(store.directory).stat().st_size
    fill(store, {}, 100, 200)  # nobody was told that these were there
    image = crash_image(store.directory, tmp_path / "image")
    store.close()
    flip(log_of(image), size + 5000)
    with caplog.at_level(logging.WARNING):
        after = Store(image)
    assert "ends in a torn record" in caplog.text
    assert {key: bytes(there(after.get(key)).data) for key in items} == items
    assert 100 <= after.items < 110
    assert after.get(b"key00150") is None
    after.close()
    Store(image).close()  # and that was that


def test_recovering_keeps_all_but_the_damaged_block_and_the_files_as_they_were(killed: Path, items: Items) -> None:
    log = log_of(killed)
    flip(log, log.stat().st_size // 2)
    before = contents(killed)
    store = Store(killed, recover=True)
    found = {key: bytes(item.data) for key in items if (item := store.get(key))}
    assert found.items() <= items.items()
    assert len(items) - 50 < len(found) < len(items)  # a block of the log has 32 KiB, some twenty of these
    assert b"key00599" in found  # what was written behind the damage
    assert (store.items, store.bytes) == (len(found), sum(map(len, found.values())))
    fill(store, items, 600, 650)
    store.close()
    [kept] = killed.glob("damaged-*")
    assert contents(kept) == before
    after = Store(killed)
    assert after.items == len(found) + 50
    after.close()


def test_to_recover_what_is_whole_changes_nothing(stopped: Path, items: Items) -> None:
    store = Store(stopped, recover=True)
    assert (store.items, store.bytes) == (len(items), sum(map(len, items.values())))
    store.close()
    assert not list(stopped.glob("damaged-*"))


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST", MARK_FILE])
@pytest.mark.parametrize("state", ["killed", "stopped"])
def test_a_flipped_bit_in_what_names_the_files_is_refused(
    state: str, name: str, long: bool, tmp_path: Path, items: Items, request: pytest.FixtureRequest
) -> None:
    directory: Path = request.getfixturevalue(state)
    [file] = directory.glob(f"{name}*")
    size = file.stat().st_size
    for offset in range(size) if long else range(1, size, max(1, size // 12)):
        image = shutil.copytree(directory, tmp_path / "image")
        flip(image / file.name, offset, offset % 8)
        try:
            store = Store(image)
        except ConfigError as error:
            assert "damaged" in str(error)
        else:  # where nothing hangs on that bit
            assert {key: bytes(there(store.get(key)).data) for key in items} == items
            store.close()
        shutil.rmtree(image)


@pytest.mark.parametrize("state", ["killed", "stopped"])
def test_a_directory_without_current_is_not_taken_for_an_empty_one(state: str, request: pytest.FixtureRequest) -> None:
    directory: Path = request.getfixturevalue(state)
    (directory / "CURRENT").unlink()
    before = contents(directory)
    for recover in (False, True):
        with pytest.raises(ConfigError, match="no file CURRENT"):
            Store(directory, recover=recover)
    assert contents(directory) == before


def test_a_first_start_that_died_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "MANIFEST-000001").write_bytes(b"")
    (tmp_path / "IDENTITY").write_bytes(b"")
    (tmp_path / MARK_FILE).unlink(missing_ok=True)
    Store(tmp_path).close()


def test_damage_that_a_compaction_meets_stops_writes_and_no_reads_and_is_said(stopped: Path, items: Items) -> None:
    table = min(stopped.glob("*.sst"))
    flip(table, table.stat().st_size // 3)
    store = Store(stopped)
    fill(store, items, 0, 100)  # so that there is something to merge
    with contextlib.suppress(Exception):
        store._db.compact_range(None, None)
    assert store.engine("background-errors") == "1"
    with pytest.raises(Exception, match="Corruption"):
        store.put(b"new", 0, 0, b"", None)
    assert store.write_errors == 1
    assert bytes(there(store.get(b"key00001")).data) == items[b"key00001"]
    with pytest.raises(Exception, match="Corruption"):
        store.close()
    Lock(stopped).release()  # it has let go of the directory all the same


async def test_damage_is_server_error_to_a_client_and_the_rest_is_served(stopped: Path, items: Items) -> None:
    file = max(stopped.glob("*.blob"))
    flip(file, file.stat().st_size // 2)
    async with running(stopped) as node, connected(node.port) as client:
        answers = {}
        for key, data in items.items():
            client.writer.write(b"get %b\r\n" % key)
            line = await client.reader.readline()
            if line.startswith(b"VALUE"):
                assert await client.reader.readexactly(len(data) + 7) == data + b"\r\nEND\r\n"
            answers[key] = line.split()[0]
        assert sorted(set(answers.values())) == [b"SERVER_ERROR", b"VALUE"]
        assert list(answers.values()).count(b"SERVER_ERROR") == 1
        assert (await client.stats())["read_errors"] == "1"


def test_the_mark_tells_the_last_change_that_was_synced_and_no_later_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    fill(store, {}, 0, 10)
    store.sync()
    synced = store._db.latest_sequence_number()
    fill(store, {}, 10, 20)
    assert read_mark(store.directory) == synced
    store.close()
    assert read_mark(store.directory) > synced


def test_a_mark_that_cannot_be_written_fails_no_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    store = Store(tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        for number in range(3):
            fill(store, {}, number, number + 1)
            store.sync()
    assert caplog.text.count("could not be written") == 1
    store.close()
    assert len(mark(7)) == len((tmp_path / "data" / MARK_FILE).read_bytes())
