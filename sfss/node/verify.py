"""Reading everything that a data directory, or a backup of one, holds, and checking it. Changes nothing.

Checked are: that the write-ahead log reaches what was synced, every RocksDB checksum on the way to every head and every
body, each head against its body, each record against its own checksums, and the totals against the count. Heads and
bodies lie in the same order, so two cursors go through them side by side. Where one can't go on, for a block that is
damaged, the other one leads it from key to key past it, so that each item that can't be read is named.

Not read are what only dead items had, and bloom filters: RocksDB goes on without one that fails its checksum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sfss import record
from sfss.errors import Damaged
from sfss.node.entries import read_body, read_head
from sfss.node.look import Cursor, Look

NAMED = 1000  # findings that are kept in words; all are counted
NAMED_ALREADY = "the item that it failed at has been named"
STEP = 5000  # items between two words of progress

Progress = Callable[["Report", int], None]  # what was found so far, and how many items there should be


@dataclass
class Report:
    """What was found."""

    items: int = 0  # read and good
    records: int = 0  # of them records of sfss
    bytes: int = 0  # of their values
    expiring: int = 0  # of the items
    damaged: int = 0  # findings
    findings: list[str] = field(default_factory=list)  # the first NAMED of them

    def add(self, finding: str) -> None:
        self.damaged += 1
        if len(self.findings) < NAMED:
            self.findings.append(finding)


def verify(directory: Path, progress: Progress = lambda _report, _total: None) -> Report:
    """Read and check everything. Raises ConfigError if the directory is in use, none of ours, or can't be opened."""
    report = Report()
    look = Look(directory)
    try:
        if look.missing:
            report.add(look.missing)
        heads, bodies = look.heads(), look.bodies()
        _walk(heads, bodies, report, lambda: progress(report, look.items))
        if look.lists_expiries:
            _check_expiries(look, report)
        if not report.damaged and (report.items, report.bytes) != (look.items, look.bytes):
            report.add(f"there are {report.items} items of {report.bytes} bytes, but the totals say {look.items} items"
                       f" of {look.bytes} bytes")  # fmt: skip
    finally:
        look.close()
    return report


def _walk(heads: Cursor, bodies: Cursor, report: Report, told: Callable[[], None]) -> None:
    failed = {cursor: _try(partial(cursor.seek, b"")) for cursor in (heads, bodies)}  # why it stands nowhere, or None
    key = b""
    while keys := [cursor.key for cursor in failed if cursor.key is not None]:
        key = min(keys)
        for cursor, error in failed.items():
            failed[cursor] = _lead(cursor, key, report) if error else None
        if not any(failed.values()):
            _check_pair(key, heads, bodies, report)
        for cursor in failed:
            if cursor.key == key:
                failed[cursor] = _try(cursor.next)
        if (report.items + report.damaged) % STEP == 0:
            told()
    for error in failed.values():
        if error and error != NAMED_ALREADY:
            report.add(f"what lies behind {_shown(key)}: {error}")
    told()


def _lead(cursor: Cursor, key: bytes, report: Report) -> str | None:
    """Bring one that stands nowhere to the key. Where that fails too, it is the item's damage."""
    error = _try(partial(cursor.seek, key))
    if error:
        report.add(f"{_shown(key)}: {error}")
        return NAMED_ALREADY
    return None


def _try(move: Callable[[], None]) -> str | None:
    try:
        move()
    except Exception as error:  # noqa: BLE001  whatever RocksDB raises
        return str(error)
    return None


def _check_pair(key: bytes, heads: Cursor, bodies: Cursor, report: Report) -> None:
    if heads.key != bodies.key:
        report.add(f"{_shown(key)}: its {'body' if heads.key == key else 'head'} is missing")
        return
    try:
        wrong = check_item(heads.entry, bodies.entry)
    except (ValueError, Damaged) as error:
        wrong = str(error)
    if wrong:
        report.add(f"{_shown(key)}: {wrong}")
        return
    report.items += 1
    data = read_body(bodies.entry).data
    report.bytes += len(data)
    report.records += record.header_end(data) is not None
    report.expiring += read_head(heads.entry).expiry != 0


def check_item(head_entry: bytes, body_entry: bytes) -> str | None:
    """What is wrong with an item whose entries these are, or None. Raises ValueError, Damaged."""
    head, item = read_head(head_entry), read_body(body_entry)
    if (head.flags, head.expiry, head.cas, head.marks) != (item.flags, item.expiry, item.cas, item.marks):
        return "its head and its body differ in flags, marks, expiry or version"
    if head.size != len(item.data):
        return f"its body has {len(item.data)} bytes, and its head says {head.size}"
    end = record.header_end(item.data)
    if end is None:
        return "its head has a header, but it is no record" if head.header else None
    if head.header and head.header != item.data[:end]:
        return "its head's header is not its record's"
    record.decode(bytes(item.data))
    return None if head.header else "its head lacks its record's header"


def _check_expiries(look: Look, report: Report) -> None:
    listed = 0
    try:
        for expiry, key in look.expiries():
            listed += 1
            said = look.expiry(key)
            if said != expiry:
                report.add(f"{_shown(key)}: it is listed as expiring at {expiry}, but its head says {said}")
    except Exception as error:  # noqa: BLE001  whatever RocksDB raises
        report.add(f"the list of what expires: {error}")
    if not report.damaged and listed != report.expiring:
        report.add(f"{report.expiring} items expire, but {listed} are listed")


def _shown(key: bytes) -> str:
    return "'" + key.decode(errors="backslashreplace") + "'"
