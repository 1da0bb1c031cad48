"""Verifying, backing up and restoring: what is said is so, and what fails leaves nothing half done."""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from sfss import record
from sfss.errors import ConfigError
from sfss.node import control
from sfss.node.backup import backup, restore
from sfss.node.store import Store
from sfss.node.verify import verify
from tests.node.support import Client, child, connected, crash_image, running, set_request, there
from tests.servers import wait_for

Items = dict[bytes, bytes]


def file_record(payload: bytes) -> bytes:
    checksum = record.payload_checksum(payload)
    header = record.Header(record.Kind.FILE, 1, 1, len(payload), b"s" * 32, len(payload), checksum, "image/jpeg")
    return record.encode(header, payload)


def fill(store: Store, count: int) -> Items:
    """Plain values and records, small and large."""
    chance, items = random.Random(1), {}
    for number in range(count):
        data = chance.randbytes(chance.choice((10, 100, 3000)))
        items[b"key%05d" % number] = file_record(data) if number % 3 else data
    for key, data in items.items():
        store.put(key, 5, 0, data, store.claim(key))
    return items


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def items(data: Path) -> Items:
    """What the directory holds, half in tables and half in another; closed."""
    store = Store(data)
    items = fill(store, 400)
    store._db.flush(True)
    items |= fill(store, 200)
    store.close()
    return items


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir() if not file.name.startswith("LOG")}


def held(directory: Path) -> Items:
    """What a node on the directory would serve."""
    store = Store(directory)
    found = {key: bytes(there(store.get(key)).data) for key, _ in store.heads(b"", b"", 100_000)}
    assert (store.items, store.bytes) == (len(found), sum(map(len, found.values())))
    store.close()
    return found


def sfss(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sfss", "node", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def change(directory: Path, key: bytes, value: bytes | None) -> None:
    """Change an entry behind the store's back."""
    db = Rdict(str(directory), Options(raw_mode=True))
    if value is None:
        db.delete(key)
    else:
        db.put(key, value)
    db.close()


# --- verify ---


def test_verify_reads_everything_and_changes_nothing(data: Path, items: Items) -> None:
    before = contents(data)
    report = verify(data)
    assert (report.items, report.damaged) == (len(items), 0)
    assert report.records == sum(value.startswith(b"SFSS") for value in items.values())
    assert report.bytes == sum(map(len, items.values()))
    assert contents(data) == before


def test_verify_reads_what_lies_in_the_log_too_and_leaves_it_there(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    items = fill(store, 100)
    store.sync()
    image = crash_image(store.directory, tmp_path / "image")
    store.close()
    before = contents(image)
    assert (verify(image).items, verify(image).damaged) == (len(items), 0)
    assert contents(image) == before
    log = max(image.glob("*.log"), key=lambda file: file.stat().st_size)
    log.write_bytes(log.read_bytes()[:-9])
    report = verify(image)
    assert report.damaged == 1
    assert "had been acknowledged and synced" in report.findings[0]


@pytest.mark.parametrize("kind", ["sst", "blob"])
def test_verify_names_each_item_that_cannot_be_read_and_reads_the_rest(
    kind: str, long: bool, data: Path, items: Items, tmp_path: Path
) -> None:
    chance, damaged = random.Random(7), 0
    for _ in range(100 if long else 10):
        image = shutil.copytree(data, tmp_path / "image")
        file = chance.choice(sorted(image.glob(f"*.{kind}")))
        whole = bytearray(file.read_bytes())
        whole[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        file.write_bytes(whole)
        try:
            store = Store(image)
        except ConfigError:
            with pytest.raises(ConfigError, match="damaged"):
                verify(image)
            shutil.rmtree(image)
            continue
        unread = set()
        for key in items:
            try:
                store.head(key), store.get(key)
            except Exception:  # noqa: BLE001
                unread.add(key)
        store.close()
        report = verify(image)
        named = {finding.split("'")[1].encode() for finding in report.findings}
        assert unread <= named  # more, where it was an overwritten value that was hit: a get doesn't come to it
        assert report.items == len(items) - len(named)
        damaged += len(unread)
        shutil.rmtree(image)
    assert damaged


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (b"hkey00001", None, "'key00001': its head is missing"),
        (b"dkey00001", None, "'key00001': its body is missing"),
        (b"dkey00001", b"short", "'key00001': an entry is shorter than its fields"),
        (b"dkey00000", bytes(20) + b"another", "'key00000': its head and its body differ in flags, marks"),
        (b"mtotals", struct.pack(">QQ", 7, 1), "but the totals say 7 items of 1 bytes"),
        (b"hextra", bytes(36), "'extra': its body is missing"),
    ],
)
def test_verify_holds_heads_bodies_and_totals_against_each_other(
    key: bytes, value: bytes | None, words: str, data: Path, items: Items
) -> None:
    change(data, key, value)
    report = verify(data)
    assert report.damaged == 1
    assert words in report.findings[0]


def test_verify_finds_a_record_whose_own_checksums_do_not_hold(data: Path, items: Items) -> None:
    whole = bytearray(file_record(b"p" * 2000))
    whole[-1] ^= 1
    store = Store(data)
    store.put(b"bad", 0, 0, bytes(whole), None)
    store.put(b"worse", 0, 0, bytes(whole[:70]) + b"\0" + bytes(whole[71:]), None)
    store.close()
    assert verify(data).findings == [
        "'bad': the checksum of the record's payload doesn't hold",
        "'worse': the checksum of the record's header doesn't hold",
    ]


def test_verify_says_it_in_words_and_by_its_exit_status(data: Path, items: Items, tmp_path: Path) -> None:
    good = sfss("verify", "--data", data)
    assert (good.returncode, good.stderr) == (0, "")
    assert f"{len(items)} items are good" in good.stdout
    assert "nothing damaged" in good.stdout
    change(data, b"hkey00001", None)
    bad = sfss("--data", data, "verify")
    assert bad.returncode == 1
    assert "damaged: 'key00001': its head is missing" in bad.stdout
    assert f"{len(items) - 1} items are good" in bad.stdout
    for wrong in (tmp_path / "none", tmp_path):
        refused = sfss("verify", "--data", wrong)
        assert refused.returncode == 2
        assert "is not a data directory" in refused.stderr
    assert "name the data directory" in sfss("verify").stderr


async def test_verify_refuses_a_directory_that_is_served_and_does_it_no_harm(data: Path) -> None:
    async with running(data) as node:
        for _ in range(2):
            with pytest.raises(ConfigError, match="in use by another process"):
                verify(data)
        second = await asyncio.to_thread(sfss, "--port", "0", "--data", data)
        assert "in use by another process" in second.stderr
        async with connected(node.port) as client:
            assert await client.line(set_request(b"a", b"1")) == b"STORED"


# --- backup ---


async def test_a_backup_of_a_node_that_serves_is_of_one_moment_and_whole(data: Path, tmp_path: Path) -> None:
    written: Items = {}
    stop = False

    async def write(client: Client, name: int) -> None:
        chance = random.Random(name)
        number = 0
        while not stop:
            key, value = b"key%d-%06d" % (name, number), chance.randbytes(chance.choice((20, 2000)))
            assert await client.line(set_request(key, value)) == b"STORED"
            written[key] = value
            number += 1

    async with running(data) as node, connected(node.port) as one, connected(node.port) as other:
        writers = [asyncio.create_task(write(client, name)) for name, client in enumerate((one, other))]
        await asyncio.sleep(0.3)
        before = dict(written)
        size = await asyncio.to_thread(backup, data, tmp_path / "backup")
        stop = True
        await asyncio.gather(*writers)
        assert size > sum(map(len, before.values()))
        await asyncio.to_thread(wait_for, lambda: not list(data.glob("checkpoint-*")))
    report = verify(tmp_path / "backup")
    assert not report.damaged
    found = held(tmp_path / "backup")
    assert before.items() <= found.items() <= written.items()
    for name in range(2):  # of one moment: no writer's item without those before it
        count = sum(key.startswith(b"key%d" % name) for key in found)
        assert b"key%d-%06d" % (name, count - 1) in found
    assert held(data) == written


@pytest.mark.parametrize("ended", ["stopped", "killed"])
def test_a_backup_of_a_directory_that_nobody_serves_is_the_same_and_leaves_it_as_it_was(
    ended: str, tmp_path: Path
) -> None:
    with child(tmp_path / "data") as (port, process):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(set_request(b"a", b"x" * 5000))
            assert sock.recv(100) == b"STORED\r\n"
        process.terminate() if ended == "stopped" else process.kill()
        process.wait()
    before = contents(tmp_path / "data") if ended == "stopped" else None  # a socket that is left can't be read
    backup(tmp_path / "data", tmp_path / "backup")
    assert before is None or contents(tmp_path / "data") == before
    assert held(tmp_path / "backup") == {b"a": b"x" * 5000}


def test_backup_and_restore_by_their_commands_bring_everything_back(data: Path, items: Items, tmp_path: Path) -> None:
    done = sfss("backup", "--data", data, tmp_path / "backup")
    assert (done.returncode, done.stderr) == (0, "")
    assert "on disk" in done.stdout
    done = sfss("restore", tmp_path / "backup", "--data", tmp_path / "new")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{len(items)} items are good" in done.stdout
    assert held(tmp_path / "new") == items
    again = sfss("restore", tmp_path / "backup", "--data", tmp_path / "new")
    assert again.returncode == 2
    assert "is not empty" in again.stderr


def test_a_copy_fails_before_it_begins_where_the_target_or_the_source_is_wrong(
    data: Path, items: Items, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    (tmp_path / "other.partial").mkdir()
    for target, words in (
        (tmp_path / "file", "is not a directory"),
        (tmp_path / "full", "is not empty"),
        (tmp_path / "none" / "x", "is not there: make it first"),
        (tmp_path / "other", "another copy is being made"),
    ):
        with pytest.raises(ConfigError, match=words):
            backup(data, target)
        with pytest.raises(ConfigError, match=words):
            restore(data, target)
    for source in (tmp_path / "none", tmp_path / "full"):
        with pytest.raises(ConfigError, match="no file CURRENT"):
            backup(source, tmp_path / "new")
        with pytest.raises(ConfigError, match="no file CURRENT"):
            restore(source, tmp_path / "new")
    (tmp_path / "empty").mkdir()
    backup(data, tmp_path / "empty")
    assert held(tmp_path / "empty") == items


def test_a_damaged_backup_is_not_restored_and_nothing_is_left(data: Path, items: Items, tmp_path: Path) -> None:
    backup(data, tmp_path / "backup")
    blob = max((tmp_path / "backup").glob("*.blob"))
    whole = bytearray(blob.read_bytes())
    whole[len(whole) // 2] ^= 8
    blob.write_bytes(whole)
    with pytest.raises(ConfigError, match=r"is damaged, and nothing was restored: 'key.*Blob CRC mismatch"):
        restore(tmp_path / "backup", tmp_path / "new")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["backup", "data"]


def test_a_copy_that_fails_midway_leaves_nothing(
    data: Path, items: Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.copyfile

    def copyfile(source: Path, target: Path) -> Path:
        if source.suffix == ".sst":
            raise OSError(28, "No space left on device")
        return real(source, target)

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with pytest.raises(OSError, match="No space left"):
        backup(data, tmp_path / "backup")
    assert [file.name for file in tmp_path.iterdir()] == ["data"]


async def test_a_backup_that_is_killed_holds_on_to_no_space(data: Path) -> None:
    async with running(data):
        asked = await asyncio.to_thread(ask, data, b"checkpoint\n")
        assert asked == "OK checkpoint-1"  # and the connection has gone
        await asyncio.to_thread(wait_for, lambda: not list(data.glob("checkpoint-*")))
        (data / "checkpoint-9").mkdir()
    async with running(data):  # left by a node that was killed
        assert not list(data.glob("checkpoint-*"))


def ask(data: Path, line: bytes) -> str:
    sock = there(control.connect(data))
    with sock:
        sock.settimeout(20)
        sock.sendall(line)
        return sock.makefile().readline().rstrip("\n")


async def test_the_control_socket_is_its_owners_and_understands_one_word(tmp_path: Path) -> None:
    data = tmp_path / ("long" * 40) / "data"  # longer than a socket's name may be
    async with running(data):
        assert stat.S_IMODE((data / control.SOCKET).stat().st_mode) == 0o600
        assert await asyncio.to_thread(ask, data, b"get a\n") == "ERROR there is only: checkpoint"
        assert await asyncio.to_thread(ask, data, b"x" * 1000) == ""
        assert (await asyncio.to_thread(ask, data, b"checkpoint\n")).startswith("OK ")
    assert not (data / control.SOCKET).exists()
    assert control.connect(data) is None
