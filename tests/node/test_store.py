"""What a data directory promises, however its process ended."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from rocksdict import Options, Rdict

from sfss import record
from sfss.errors import ConfigError, OutOfSpace
from sfss.node.engine import MIB
from sfss.node.entries import LAYOUT, STALE, WITHOUT_EXPIRIES, WON
from sfss.node.store import CAS_LEASE, Store
from tests.node.support import Clock, Tampered, crash_image, there


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    opened = Store(tmp_path / "data", clock)
    yield opened
    opened.close()


def put(store: Store, key: bytes, data: bytes, expiry: int = 0, flags: int = 0) -> None:
    store.put(key, flags, expiry, data, store.claim(key))


def value(store: Store, key: bytes) -> bytes | None:
    item = store.get(key)
    return None if item is None else bytes(item.data)


def refuse(*_: object) -> Any:
    raise Exception("IO error: a bad sector")


def no_space(*_: object) -> Any:
    raise Exception("IO error: No space left on device: While appending to file")


def file_record(payload: bytes) -> bytes:
    checksum = record.payload_checksum(payload)
    header = record.Header(record.Kind.FILE, 1, 1, len(payload), b"s" * 32, len(payload), checksum, "image/jpeg")
    return record.encode(header, payload)


# --- keeping ---


def test_a_value_comes_back_with_its_flags_and_a_version_of_its_own(store: Store) -> None:
    put(store, b"a", b"one", flags=7)
    put(store, b"b", b"x" * MIB)
    a, b = store.get(b"a"), store.get(b"b")
    assert a is not None
    assert b is not None
    assert (a.flags, bytes(a.data)) == (7, b"one")
    assert bytes(b.data) == b"x" * MIB
    assert a.cas < b.cas


def test_items_totals_and_versions_survive_a_reopening(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    for number in range(100):
        put(store, b"key%d" % number, b"v" * number, flags=number)
    store.remove(b"key7", there(store.claim(b"key7")))
    before = [store.get(b"key%d" % number) for number in range(100)]
    items, size = store.items, store.bytes
    store.close()
    store = Store(tmp_path / "data")
    assert [store.get(b"key%d" % number) for number in range(100)] == before
    assert (store.items, store.bytes) == (items, size) == (99, sum(range(100)) - 7)
    store.close()


def test_totals_are_exact_whatever_happens_to_the_items(store: Store, clock: Clock) -> None:
    chance = random.Random(4)
    kept: dict[bytes, tuple[bytes, int]] = {}
    for _ in range(2000):
        clock.now += 0.3
        key = b"key%d" % chance.randrange(40)
        if chance.random() < 0.6:
            data, expiry = b"x" * chance.randrange(3000), chance.choice((0, 0, int(clock.now) + chance.randrange(9)))
            put(store, key, data, expiry)
            kept[key] = data, expiry
        elif chance.random() < 0.8 and (old := store.claim(key)):
            store.remove(key, old)
            del kept[key]
        else:
            store.touch(key, 0)
            if key in kept and (kept[key][1] == 0 or kept[key][1] > clock.now):
                kept[key] = kept[key][0], 0
    living = {key: data for key, (data, expiry) in kept.items() if expiry == 0 or expiry > clock.now}
    found = {key: value(store, key) for key in [b"key%d" % number for number in range(40)]}
    assert {key: data for key, data in found.items() if data is not None} == living
    store.expire(store.due(100))
    assert (store.items, store.bytes) == (len(living), sum(map(len, living.values())))


def test_what_was_written_is_whole_after_a_crash_and_so_are_the_totals(store: Store, tmp_path: Path) -> None:
    put(store, b"stays", b"x" * 5000)
    put(store, b"goes", b"y" * 5000)
    store.remove(b"goes", there(store.claim(b"goes")))
    after = Store(crash_image(store.directory, tmp_path / "image"))
    assert value(after, b"stays") == b"x" * 5000
    assert value(after, b"goes") is None
    assert (after.items, after.bytes) == (1, 5000)
    after.close()


@pytest.mark.parametrize("lost", [1, 100, 5000, 30_000])
def test_a_torn_tail_takes_the_last_changes_whole_and_none_before_them(store: Store, tmp_path: Path, lost: int) -> None:
    for number in range(20):
        put(store, b"key%02d" % number, b"%02d" % number * 1000)
    image = crash_image(store.directory, tmp_path / "image")
    log = max(image.glob("*.log"), key=lambda path: path.stat().st_size)
    log.write_bytes(log.read_bytes()[:-lost])
    after = Store(image)
    found = [value(after, b"key%02d" % number) for number in range(20)]
    count = len([data for data in found if data is not None])
    assert found == [b"%02d" % number * 1000 for number in range(count)] + [None] * (20 - count)
    assert 1 <= 20 - count <= lost // 2000 + 1
    assert (after.items, after.bytes) == (count, count * 2000)
    after.close()


# --- versions ---


def test_no_version_is_given_twice_even_if_the_clock_goes_back_and_the_process_dies(tmp_path: Path) -> None:
    clock = Clock()
    given: list[int] = []
    for life in range(6):
        source = tmp_path / f"{life}"
        store = Store(source, clock)
        for _ in range(50):
            put(store, b"key", b"")
            given.append(there(store.get(b"key")).cas)
        clock.now -= 1000
        if life % 2:
            store.close()
            source.rename(tmp_path / f"{life + 1}")
        else:
            crash_image(source, tmp_path / f"{life + 1}")
            store.close()
    assert given == sorted(set(given))


def test_the_bound_of_versions_is_raised_ahead_of_their_use(store: Store, clock: Clock) -> None:
    for _ in range(20):
        clock.now += 20
        put(store, b"key", b"")
        bound = int.from_bytes(there(store._db.get(b"mcas")))
        assert bound - there(store.get(b"key")).cas >= CAS_LEASE // 2


def test_a_quick_restart_in_good_order_leaves_the_versions_near_the_clock(tmp_path: Path) -> None:
    clock = Clock()
    for _ in range(5):
        store = Store(tmp_path / "data", clock)
        put(store, b"key", b"")
        cas = there(store.get(b"key")).cas
        store.close()
    assert cas - int(clock.now * 1e6) < 100


# --- expiry ---


def test_an_expired_item_is_a_miss_and_gives_its_space_back(store: Store, clock: Clock) -> None:
    for key in (b"got", b"headed", b"claimed", b"touched"):
        put(store, key, b"1234", expiry=int(clock.now) + 10)
    clock.now += 9.9
    assert value(store, b"got") == b"1234"
    assert store.due(10) == []
    clock.now += 0.1
    assert store.get(b"got") is None
    assert store.head(b"headed") is None
    assert store.claim(b"claimed") is None
    assert store.touch(b"touched", 0) is None
    assert sorted(key for _, key in store.due(10)) == [b"got", b"headed"]
    store._due_from = b"x"
    store.expire(store.due(10))
    assert (store.items, store.bytes) == (0, 0)
    assert stored(store) == []


def stored(store: Store) -> list[bytes]:
    """Keys of all that is stored of items."""
    return [key for key in cast("Iterator[bytes]", store._db.keys()) if not key.startswith(b"m")]


def test_what_expires_is_found_in_the_order_of_its_expiry_whatever_became_of_it(store: Store, clock: Clock) -> None:
    start = int(clock.now)
    for number in range(10):
        put(store, b"key%d" % number, b"x" * number, expiry=start + 20 - number)
    put(store, b"key3", b"overwritten", expiry=start + 100)
    put(store, b"key4", b"for ever")
    store.touch(b"key5", start + 5)
    store.touch(b"key6", 0)
    store.remove(b"key7", there(store.claim(b"key7")))
    clock.now += 16
    assert store.due(2) == [(start + 5, b"key5"), (start + 11, b"key9")]
    assert store.due(9) == [(start + 12, b"key8")]
    clock.now += 4
    due = store.due(9)
    assert [key for _, key in due] == [b"key2", b"key1", b"key0"]
    put(store, b"key1", b"again")  # changed between being found and being removed
    store.expire([*due, (start + 5, b"key5"), (start + 11, b"key9"), (start + 12, b"key8")])
    assert [key[1:] for key in stored(store) if key.startswith(b"h")] == [b"key1", b"key3", b"key4", b"key6"]
    assert [key for key in stored(store) if key.startswith(b"x")] == [b"x" + (start + 100).to_bytes(8) + b"key3"]
    assert (store.items, store.bytes) == (4, 5 + 11 + 8 + 6)


def test_an_earlier_expiry_is_found_though_the_search_was_further(store: Store, clock: Clock) -> None:
    put(store, b"a", b"1", expiry=int(clock.now) + 10)
    clock.now += 20
    store.expire(store.due(9))
    clock.now -= 15  # the clock was set back
    put(store, b"b", b"1", expiry=int(clock.now) + 2)
    clock.now += 3
    assert [key for _, key in store.due(9)] == [b"b"]


def test_one_whose_head_cannot_be_read_stays_and_is_in_nobodys_way(store: Store, clock: Clock) -> None:
    for number in range(6):
        put(store, b"key%d" % number, b"1", expiry=int(clock.now) + 10 + number // 3)
    store.memory.clear()
    real = store._db

    def get(key: bytes) -> bytes | None:
        if key in (b"hkey0", b"hkey4"):
            raise OSError("bad sector")
        return cast("bytes | None", real.get(key))

    store._db = Tampered(real, get=get)  # type: ignore[assignment]
    clock.now += 20
    while due := store.due(2):
        store.expire(due)
    store._db = real
    assert [key for key in stored(store) if key.startswith(b"h")] == [b"hkey0", b"hkey4"]
    assert (store.items, store.bytes, store.read_errors) == (2, 2, 2)


def test_items_of_the_first_layout_are_taken_over_with_what_expires(tmp_path: Path, clock: Clock) -> None:
    store = Store(tmp_path / "data", clock)
    put(store, b"stays", b"1234")
    put(store, b"goes", b"12", expiry=int(clock.now) + 10)
    store.close()
    db = Rdict(str(store.directory), Options(raw_mode=True))
    db.delete_range(b"x", b"y")
    db.put(b"mformat", WITHOUT_EXPIRIES)
    db.close()
    store = Store(store.directory, clock)
    assert (store.items, store.bytes, value(store, b"stays")) == (2, 6, b"1234")
    clock.now += 10
    assert [key for _, key in store.due(9)] == [b"goes"]
    store.expire(store.due(9) or [(int(clock.now), b"goes")])
    store.close()
    db = Rdict(str(store.directory), Options(raw_mode=True))
    assert db.get(b"mformat") == LAYOUT
    db.close()


def test_marks_are_kept_with_an_item_until_it_is_overwritten(store: Store) -> None:
    put(store, b"a", b"1234", flags=7)
    before = there(store.get(b"a"))
    store.amend(b"a", there(store.claim(b"a")), marks=STALE, bump=True)
    after = there(store.get(b"a"))
    assert (after.marks, bytes(after.data), after.flags) == (STALE, b"1234", 7)
    assert after.cas > before.cas
    store.amend(b"a", there(store.claim(b"a")), marks=STALE | WON)
    assert there(store.get(b"a")) == after._replace(marks=STALE | WON)
    assert there(store.head(b"a")).marks == STALE | WON
    put(store, b"a", b"5")
    assert there(store.get(b"a")).marks == there(store.head(b"a")).marks == 0


# --- what is read from the disk, and when ---


def test_what_is_in_memory_or_surely_not_there_is_not_missing(store: Store) -> None:
    put(store, b"a", b"1234")
    assert store.missing([b"da", b"ha", b"db"]) == []
    store.memory.clear()
    assert store.missing([b"da", b"ha", b"db"]) == [b"da", b"ha"]
    read = store.memory.begin([b"da"])
    store.memory.bring(read, [b"da"], store.read([b"da"]))
    assert store.missing([b"da", b"ha"]) == [b"ha"]


def test_what_cannot_be_read_fails_alone(store: Store) -> None:
    put(store, b"a", b"1234")
    store.memory.clear()
    real = store._db

    def fail(keys: list[bytes]) -> Any:
        return refuse() if b"db" in keys else real.get(keys)  # type: ignore[arg-type]

    store._db = Tampered(real, get=fail)  # type: ignore[assignment]
    found = store.read([b"da", b"db", b"dc"])
    store._db = real
    assert found[0] == real.get(b"da")
    assert "bad sector" in str(found[1])
    assert found[2] is None


def test_the_store_is_crowded_before_rocksdb_makes_writers_wait_but_not_when_it_fails(store: Store) -> None:
    real = store._db
    for memtables, tables, crowded in ((0, 0, False), (2, 9, False), (3, 0, True), (0, 10, True)):
        store._db = Tampered(  # type: ignore[assignment]
            real,
            property_int_value=lambda _, memtables=memtables: memtables,
            property_value=lambda _, tables=tables: str(tables),
        )
        assert store.crowded() == crowded
    store._db = Tampered(store._db, write=no_space)  # type: ignore[assignment]
    with pytest.raises(OutOfSpace):
        put(store, b"a", b"1")
    assert not store.crowded()
    store._db = real
    put(store, b"a", b"1")


def test_a_value_put_with_a_past_expiry_removes_what_was_there(store: Store, clock: Clock) -> None:
    put(store, b"a", b"1234")
    put(store, b"a", b"56", expiry=1)
    assert store.get(b"a") is None
    assert (store.items, store.bytes) == (0, 0)


def test_a_touch_changes_the_expiry_and_nothing_else(store: Store, clock: Clock) -> None:
    put(store, b"a", b"1234", flags=5)
    before, head = store.get(b"a"), store.head(b"a")
    assert before is not None
    assert head is not None
    clock.now += 5
    expiry = int(clock.now) + 100
    assert store.touch(b"a", expiry) == before
    assert store.get(b"a") == before._replace(expiry=expiry)
    assert store.head(b"a") == head._replace(expiry=expiry)


# --- heads ---


def test_the_head_of_a_record_is_its_prefix_and_header_and_of_another_value_nothing(store: Store) -> None:
    whole = file_record(b"p" * 10_000)
    put(store, b"record", whole)
    put(store, b"text", b"just text that is longer than a prefix")
    put(store, b"cut", whole[:40])  # begins like a record, and ends in its header
    head = store.head(b"record")
    assert head is not None
    assert head.header + b"p" * 10_000 == whole
    assert head.size == len(whole)
    assert record.decode_header(head.header)[0].type == "image/jpeg"
    assert [there(store.head(key)).header for key in (b"text", b"cut")] == [b"", b""]


def test_heads_are_read_and_lie_in_the_order_of_keys_without_a_body(store: Store) -> None:
    keys = [b"key%03d" % number for number in range(200)]
    for key in random.Random(1).sample(keys, len(keys)):
        put(store, key, file_record(key * 1000))
    asked: list[bytes] = []
    real = store._db
    store._db = Tampered(real, get=lambda key: asked.append(key) or real.get(key))  # type: ignore[assignment, func-returns-value]
    assert all(store.head(key) for key in keys)
    assert all(key.startswith(b"h") for key in asked)
    store._db = real
    iterator = store._db.iter()
    iterator.seek(b"h")
    found = []
    while iterator.valid() and iterator.key().startswith(b"h"):
        found.append(iterator.key()[1:])
        iterator.next()
    assert found == keys


# --- flush_all ---


def test_a_flush_removes_everything_for_good(store: Store, tmp_path: Path) -> None:
    for number in range(50):
        put(store, b"key%d" % number, b"x" * 2000)
    store.flush_all()
    put(store, b"new", b"n")
    assert (store.items, store.bytes) == (1, 1)
    after = Store(crash_image(store.directory, tmp_path / "image"))
    assert [value(after, b"key%d" % number) for number in range(50)] == [None] * 50
    assert value(after, b"new") == b"n"
    assert after.items == 1
    after.close()


def test_a_delayed_flush_is_carried_out_when_due_even_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    store = Store(tmp_path / "data", clock)
    put(store, b"a", b"1")
    store.flush_all(int(clock.now) + 10)
    put(store, b"b", b"2")
    assert value(store, b"a") == b"1"
    store.close()
    clock.now += 10
    store = Store(tmp_path / "data", clock)
    put(store, b"c", b"3")
    assert [value(store, key) for key in (b"a", b"b", b"c")] == [None, None, b"3"]
    assert store.items == 1
    store.close()


def test_a_flush_at_once_undoes_the_delayed_one(store: Store, clock: Clock) -> None:
    store.flush_all(int(clock.now) + 10)
    store.flush_all()
    put(store, b"a", b"1")
    clock.now += 20
    assert value(store, b"a") == b"1"


# --- failures ---


def test_a_failed_read_is_an_error_and_counted_and_never_a_miss(store: Store) -> None:
    put(store, b"a", b"1")
    store.memory.clear()
    real, store._db = store._db, Tampered(store._db, get=refuse)  # type: ignore[assignment]
    for read in (store.get, store.head, store.claim):
        with pytest.raises(Exception, match="bad sector"):
            read(b"a")
    assert store.read_errors == 3
    store._db = real


def test_a_failed_write_changes_nothing_and_is_counted(store: Store) -> None:
    put(store, b"a", b"1234")
    real, store._db = store._db, Tampered(store._db, write=refuse)  # type: ignore[assignment]
    with pytest.raises(Exception, match="bad sector"):
        put(store, b"a", b"x")
    with pytest.raises(Exception, match="bad sector"):
        put(store, b"b", b"x")
    store._db = real
    assert (store.items, store.bytes, store.write_errors) == (1, 4, 2)
    assert value(store, b"a") == b"1234"
    put(store, b"b", b"x")
    assert (store.items, store.bytes) == (2, 5)


def test_a_full_disk_is_said_so_and_reads_go_on(store: Store, clock: Clock) -> None:
    put(store, b"stays", b"1")
    put(store, b"expires", b"1", expiry=int(clock.now) + 5)
    store.flush_all(int(clock.now) + 50)
    clock.now += 10
    real, store._db = store._db, Tampered(store._db, write=no_space)  # type: ignore[assignment]
    with pytest.raises(OutOfSpace, match="out of space"):
        put(store, b"new", b"x")
    assert value(store, b"stays") == b"1"
    assert store.get(b"expires") is None  # though it can't be removed
    assert store.head(b"expires") is None
    clock.now += 50
    assert store.get(b"stays") is None  # though it can't be flushed
    store._db = real
    put(store, b"new", b"x")
    assert (store.items, value(store, b"new")) == (1, b"x")


def test_after_a_failed_sync_the_log_is_not_trusted_until_the_tables_are_written(store: Store) -> None:
    calls: list[str] = []
    real = store._db
    put(store, b"a", b"1")
    store.unsynced = False
    store._db = Tampered(real, flush_wal=refuse)  # type: ignore[assignment]
    with pytest.raises(Exception, match="bad sector"):
        store.sync()
    assert store.unsynced
    store._db = Tampered(real, flush=refuse, flush_wal=lambda _: calls.append("log"))  # type: ignore[assignment]
    with pytest.raises(Exception, match="bad sector"):
        store.sync()
    assert calls == []
    store._db = Tampered(  # type: ignore[assignment]
        real, flush=lambda _: calls.append("tables"), flush_wal=lambda _: calls.append("log")
    )
    store.sync()
    store.sync()
    assert calls == ["tables", "log", "log"]
    store._db = real


# --- opening ---


def test_a_directory_that_another_process_has_is_refused(store: Store) -> None:
    program = "import sys; from pathlib import Path; from sfss.node.store import Store; Store(Path(sys.argv[1]))"
    command = [sys.executable, "-c", program, str(store.directory)]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"ConfigError: the data directory {store.directory} is in use by another process" in second.stderr


def test_a_directory_of_another_layout_is_refused_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    Store(tmp_path / "data").close()
    db = Rdict(str(tmp_path / "data"), Options(raw_mode=True))
    assert db.get(b"mformat") == LAYOUT
    db.put(b"mformat", b"3 sfss-items")
    db.close()
    with pytest.raises(ConfigError, match="has the layout '3 sfss-items', and this version of sfss reads '2 sfss-item"):
        Store(tmp_path / "data")
    with pytest.raises(ConfigError, match="run the version that wrote it"):  # and it was let go of
        Store(tmp_path / "data")


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    db = Rdict(str(tmp_path / "data"), Options(raw_mode=True))
    db.put(b"theirs", b"1")
    db.close()
    with pytest.raises(ConfigError, match="holds a database of another program"):
        Store(tmp_path / "data")
    db = Rdict(str(tmp_path / "data"), Options(raw_mode=True))
    assert list(db.keys()) == [b"theirs"]
    db.close()


def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("file", "file/data"):
        with pytest.raises(ConfigError, match=f"{name} is not a directory"):
            Store(tmp_path / name)


def test_a_data_directory_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(ConfigError, match="the data directory /proc/none/data can't be"):
        Store(Path("/proc/none/data"))


def test_a_missing_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    Store(tmp_path / "a" / "b" / "data").close()
    Store(tmp_path / "a" / "b" / "data").close()


def test_a_store_closed_in_good_order_has_nothing_to_replay(store: Store, tmp_path: Path) -> None:
    put(store, b"a", b"x" * 5000)
    store.close()
    assert sum(path.stat().st_size for path in store.directory.glob("*.log")) == 0
    reopened = Store(store.directory)
    assert value(reopened, b"a") == b"x" * 5000
    reopened.close()
    nothing = dict.fromkeys(
        ("put", "flush", "close", "latest_sequence_number", "advance", "release"), lambda *_, **__: None
    )
    store._db = store._mark = store._lock = Tampered(None, **nothing)  # type: ignore[assignment]
